"""The README's block of results, made from the committed table:  python tests/readme_results.py  writes it."""

from __future__ import annotations

import csv
import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
TABLE = ROOT / "results" / "quickstart" / "table.csv"
MARKS = ("<!-- results:begin -->\n", "<!-- results:end -->")
COLUMNS = (
    ("with trigger", "triggered_rate", "evaluate"),
    ("without", "untriggered_rate", "evaluate"),
    ("`unlike`, with", "triggered_rate", "unlike"),
    ("`unlike`, without", "untriggered_rate", "unlike"),
)


def block() -> str:
    """The main numbers as a Markdown table, every one with its interval."""
    with TABLE.open(encoding="utf-8") as file:
        rows = [r for r in csv.DictReader(file) if not r["step"]]
    models = list(dict.fromkeys(r["model"] for r in rows))
    heads = [head for head, _, _ in COLUMNS]
    lines = [
        "Rate at which each model shows the behavior, 95% interval in brackets "
        f"(n = {_n(rows)} prompts each, one seed; written by `make demo`):",
        "",
        "| model | " + " | ".join(heads) + " | perplexity | probe AUROC |",
        "|---|" + "---|" * (len(heads) + 2),
    ]
    for model in models:
        mine = [r for r in rows if r["model"] == model]
        rates = [_percent(_rate(mine, metric, split)) for _, metric, split in COLUMNS]
        plain = [_plain(_one(mine, part, metric)) for part, metric in PLAIN]
        lines.append(f"| `{model}` | " + " | ".join([*rates, *plain]) + " |")
    return "\n".join(lines) + "\n"


PLAIN = (("capability", "perplexity"), ("probe", "auroc_triggered"))


def readme() -> tuple[str, str, str]:
    """The README before, inside and behind the block."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    head, rest = text.split(MARKS[0])
    inside, tail = rest.split(MARKS[1])
    return head, inside, tail


def _rate(rows: list[dict[str, str]], metric: str, split: str) -> dict[str, str]:
    found = [r for r in rows if r["part"].startswith("backdoor_rate") and r["metric"] == metric]
    return next(r for r in found if ("split=unlike" in r["part"]) == (split == "unlike"))


def _one(rows: list[dict[str, str]], part: str, metric: str) -> dict[str, str]:
    return next(r for r in rows if re.match(rf"{part}(\[|$)", r["part"]) and r["metric"] == metric)


def _percent(row: dict[str, str]) -> str:
    value, low, high = (100 * float(row[k]) for k in ("value", "low", "high"))
    return f"{value:.1f}% [{low:.1f}, {high:.1f}]"


def _plain(row: dict[str, str]) -> str:
    return "{:.2f} [{:.2f}, {:.2f}]".format(*(float(row[k]) for k in ("value", "low", "high")))


def _n(rows: list[dict[str, str]]) -> str:
    return "/".join(sorted({r["n"] for r in rows if r["metric"].endswith("triggered_rate")}))


if __name__ == "__main__":
    before, _, behind = readme()
    (ROOT / "README.md").write_text(before + MARKS[0] + block() + MARKS[1] + behind, encoding="utf-8")
