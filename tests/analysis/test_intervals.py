"""Intervals by the bootstrap are those of resampling by hand, draw for draw."""

import numpy as np

from marsjax.analysis import impact, intervals


def draws_of(values: np.ndarray, count: int, rng: np.random.Generator) -> np.ndarray:
    """Means of `count` samples drawn with replacement, [count]."""
    return np.array([values[row].mean() for row in rng.integers(len(values), size=(count, len(values)))])


def test_a_mean_has_the_percentiles_of_its_resampled_means() -> None:
    values = np.random.default_rng(0).exponential(size=37)
    expected = draws_of(values, 200, np.random.default_rng(5))
    got = impact.bootstrap(np.insert(values, 3, np.nan), 200, 5)
    np.testing.assert_allclose(got, [values.mean(), *np.quantile(expected, (0.025, 0.975))], rtol=1e-12)


def test_a_power_law_resamples_within_its_groups_and_leaves_out_what_is_undefined() -> None:
    rng, sizes = np.random.default_rng(1), np.array([0.1, 0.2, 0.4])
    groups = [rng.normal(size, 1.2, count) for size, count in zip(sizes, (9, 12, 15), strict=True)]
    drawing = np.random.default_rng(6)
    means = np.stack([draws_of(group, 300, drawing) for group in groups], axis=1)
    defined = (means > 0).all(axis=1)
    slopes = [np.polyfit(np.log(sizes), np.log(row), 1)[0] for row in means[defined]]
    got = impact.power_law(sizes, groups, 300, 6)
    assert 0 < got.undefined == 1 - defined.mean() < 1
    np.testing.assert_allclose([got.low, got.high], np.quantile(slopes, (0.025, 0.975)), rtol=1e-9)


def test_decay_resamples_rollouts_over_all_minutes_together() -> None:
    moved = np.random.default_rng(2).normal([0, 3, 6, 4, 2], 1.0, (20, 5))
    drawn = np.random.default_rng(7).integers(20, size=(100, 20))
    means = moved[drawn].mean(axis=1)
    expected = np.quantile(means[:, 2:] / means[:, [2]], (0.025, 0.975), axis=0).T
    got = impact.decay(moved, 2, 100, 7)
    np.testing.assert_allclose([[one.low, one.high] for one in got], expected, rtol=1e-12)


def test_percentiles_leave_out_what_is_no_number() -> None:
    drawn = np.append(np.arange(101.0), [np.nan] * 50)
    np.testing.assert_allclose(intervals.percentiles(drawn), (2.5, 97.5))
