"""Scores by their laws: proper, paired, honest about overlap; reliability and coverage of calibrated forecasts."""

import numpy as np
import pytest

from marsjax.analysis import forecast_baselines, forecast_plots, forecast_scores
from marsjax.analysis.forecast import MINUTE_NS, History, Move
from marsjax.analysis.forecast_scores import ScoreMean


def drawn(p: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """A class for each row of probabilities."""
    return (rng.random(len(p))[:, None] > np.cumsum(p, axis=1)).sum(axis=1)


def test_the_log_score_is_highest_for_the_law_that_the_classes_come_from() -> None:
    rng = np.random.default_rng(0)
    p = rng.dirichlet([2, 2, 2], 20_000)
    came = drawn(p, rng)
    best = forecast_scores.log_scores(p, came)
    for other in (np.full_like(p, 1 / 3), p[:, ::-1], forecast_scores.smoothed(p * 5)):
        difference = forecast_scores.mean(best - forecast_scores.log_scores(other, came))
        assert difference.value > 4 * difference.standard_error
    assert forecast_scores.log_scores(np.array([[0.2, 0.3, 0.5]]), np.array([2]))[0] == np.log(0.5)


def test_smoothing_leaves_no_class_impossible() -> None:
    np.testing.assert_allclose(forecast_scores.smoothed(np.array([[0, 7, 0], [0, 0, 0]])),
                               [[0.1, 0.8, 0.1], [1 / 3, 1 / 3, 1 / 3]])


def test_hits_are_shared_where_several_classes_are_as_likely() -> None:
    p = np.array([[0.2, 0.2, 0.6], [0.4, 0.4, 0.2], [0.4, 0.4, 0.2], [1 / 3, 1 / 3, 1 / 3]])
    assert forecast_scores.hits(p, np.array([2, 0, 2, 1])).tolist() == [1, 0.5, 0, 1 / 3]


def test_the_standard_error_is_that_of_repeated_samples() -> None:
    rng = np.random.default_rng(1)
    sets = rng.standard_normal((2000, 40))
    errors = [forecast_scores.mean(row).standard_error for row in sets]
    assert abs(np.mean(errors) / sets.mean(axis=1).std() - 1) < 0.05
    # Moving sums of 5 numbers: their errors, told that they overlap, are nearly right, and far too small if not.
    moving = np.stack([np.convolve(row, np.ones(5), "valid") for row in rng.standard_normal((2000, 204))])
    true = moving.mean(axis=1).std()
    told = np.mean([forecast_scores.mean(row, overlap=4).standard_error for row in moving])
    untold = np.mean([forecast_scores.mean(row).standard_error for row in moving])
    assert 0.7 < told / true < 1.05 and untold / true < 0.5


def test_means_of_little() -> None:
    assert np.isnan(forecast_scores.mean(np.zeros(0))).all()
    value, error = forecast_scores.mean(np.array([2.0]))
    assert value == 2 and np.isnan(error)
    assert forecast_scores.mean(np.array([1.0, 3.0])) == ScoreMean(2.0, 1.0)
    assert forecast_scores.root(ScoreMean(4.0, 1.0)) == ScoreMean(2.0, 0.25)


def test_calibrated_forecasts_are_reliable_and_others_are_not() -> None:
    rng = np.random.default_rng(2)
    p = rng.random(20_000)
    came = rng.random(20_000) < p
    edges = (0.0, 0.25, 0.5, 0.75, 1.0)
    bins = forecast_scores.reliability(p, came, edges)
    assert sum(row.count for row in bins) == len(p)
    assert all(abs(row.frequency - row.forecast) < 4 * row.standard_error for row in bins)
    wrong = forecast_scores.reliability(p, ~came, edges)
    assert abs(wrong[0].frequency - wrong[0].forecast) > 20 * wrong[0].standard_error
    ends = forecast_scores.reliability(np.array([0.0, 0.25, 1.0]), np.array([False, True, True]), edges)
    assert [row.count for row in ends] == [1, 1, 0, 1] and np.isnan(ends[2].frequency)
    for bad in ((0.0,), (0.1, 1.0), (0.0, 0.9), (0.0, 0.5, 0.5, 1.0)):
        with pytest.raises(ValueError, match="edges that rise from 0 to 1"):
            forecast_scores.reliability(p, came, bad)


def test_quantiles_of_the_right_law_are_covered_as_often_as_they_say() -> None:
    rng = np.random.default_rng(3)
    levels, scale = (0.1, 0.5, 0.9), rng.uniform(1, 3, 4000)
    at = np.quantile(rng.standard_normal(100_000), levels)[None] * scale[:, None]
    for level, found in zip(levels, forecast_scores.coverage(at, scale * rng.standard_normal(4000)), strict=True):
        assert abs(found.value - level) < 4 * found.standard_error
    half = forecast_scores.coverage(np.zeros((6, 1)), np.zeros(6))
    assert half[0].value == 0.5


def test_a_path_is_drawn_for_every_market() -> None:
    mids = 100_000 + np.cumsum(np.random.default_rng(4).standard_normal((20, 6)), axis=1)
    mids[3] = np.nan
    assert len(forecast_plots.paths(mids, "paths").axes[0].lines) == 20


def seen(count: int = 300) -> History:
    rng = np.random.default_rng(5)
    mid = 200_000 + 100 * np.cumsum(rng.integers(-1, 2, count))
    return History(np.arange(count) * MINUTE_NS // 4, mid, rng.uniform(-1, 1, count), rng.uniform(-1, 1, count))


def test_features_see_nothing_of_what_comes_later() -> None:
    at = np.arange(5) * 10 * MINUTE_NS + 1
    full = forecast_baselines.features(seen(), at)
    for row, ns in zip(full, at, strict=True):
        past = History(*(column[seen().time_ns <= ns] for column in seen()))
        np.testing.assert_array_equal(forecast_baselines.features(past, np.array([ns]))[0], row)
    assert full.shape == (5, len(forecast_baselines.FEATURES)) and (full[0, 2:] == 0).all()
    last = np.searchsorted(seen().time_ns, at[3], side="right") - 1
    assert full[3, 0] == seen().touch_imbalance[last]
    assert full[3, 2] == pytest.approx(seen().mid_twice[last] / seen().mid_twice[last - 4] - 1, rel=1e-9)


def test_the_regression_finds_the_law_that_its_data_come_from() -> None:
    rng = np.random.default_rng(6)
    x = rng.standard_normal((20_000, 2)) * [3, 0.01] + [5, 0]
    logits = np.stack([-0.5 * x[:, 0], np.zeros(len(x)), 40 * x[:, 1]], axis=1)
    law = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    model = forecast_baselines.fit(x, drawn(law, rng))
    assert np.abs(model.probabilities(x) - law).max() < 0.05
    np.testing.assert_allclose(model.probabilities(x).sum(axis=1), 1)


def test_the_regression_ends_where_its_gradient_is_0_even_for_separable_data() -> None:
    x = np.linspace(-1, 1, 50)[:, None]
    came = np.where(x[:, 0] > 0, Move.UP, Move.DOWN)
    model = forecast_baselines.fit(x, came, penalty=0.5)
    scaled = np.column_stack([(x - model.center) / model.scale, np.ones(50)])
    gradient = (np.eye(3)[came] - model.probabilities(x)).T @ scaled
    np.testing.assert_allclose(gradient[:, 0], 0.5 * model.weights[:, 0], atol=1e-6)
    assert (model.probabilities(x).argmax(axis=1) == came).all()
    # Without anything to go by it gives the frequencies.
    same = forecast_baselines.fit(np.ones((40, 1)), np.repeat([0, 1, 2, 2], 10))
    np.testing.assert_allclose(same.probabilities(np.ones((1, 1))), [[0.25, 0.25, 0.5]], atol=1e-6)


def test_rows_that_cannot_be_fitted_are_refused() -> None:
    with pytest.raises(ValueError, match="finite features, got 0 rows"):
        forecast_baselines.fit(np.zeros((0, 2)), np.zeros(0, int))
    with pytest.raises(ValueError, match="finite features, got 2 rows"):
        forecast_baselines.fit(np.array([[1.0], [np.nan]]), np.zeros(2, int))


def test_no_change_is_all_flat() -> None:
    assert forecast_baselines.no_change(2, 128).tolist() == [[0, 128, 0]] * 2
