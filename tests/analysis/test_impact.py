"""Costs and impact on made-up executions whose answers are known."""

import dataclasses
from typing import Any

import numpy as np
import pytest

from marsjax.analysis import impact, impact_plots
from marsjax.analysis.impact import Runs
from marsjax.analysis.intervals import Interval


def runs(mids: Any, **parts: Any) -> Runs:
    """Rollouts [B] of given mids [B, M + 1]; nothing trades unless said."""
    mids = np.asarray(mids, float)
    rollouts, minutes = mids.shape[0], mids.shape[1] - 1
    none = np.zeros(rollouts, int)
    columns = {"number": np.arange(rollouts), "seed": none, "sign": none + 1, "ratio": none + 0.1, "target": none,
               "mids": mids, "volume": np.full((rollouts, minutes), 1000), "lost": none > 0,
               "shares": np.zeros((rollouts, minutes), int), "cash": np.zeros((rollouts, minutes), int)} | parts
    return Runs(**{name: np.asarray(value) for name, value in columns.items()})


def test_costs_of_a_purchase_and_a_sale_by_hand() -> None:
    """400 of 500 shares at 101, then 102, from an arrival of 100; the rest is taken at 103. The sale is its mirror."""
    shares = np.array([[300, 100, 0]])
    both = runs([[100, 101, 103, 90], [100, 99, 97, 110]], sign=[1, -1], target=[500, 500],
                shares=np.concatenate([shares, -shares]),
                cash=[[-300 * 101, -100 * 102, 0], [300 * 99, 100 * 98, 0]])
    table = impact.costs(both, end=2)
    np.testing.assert_allclose(table["completed"], [400, 400])
    np.testing.assert_allclose(table["fulfilled"], [0.8, 0.8])
    np.testing.assert_allclose(table["average_price"], [101.25, 98.75])
    np.testing.assert_allclose(table["slippage_bp"], [125, 125])
    paid = 300 * 1 + 100 * 2 + 100 * 3
    np.testing.assert_allclose(table["shortfall_bp"], [paid / (500 * 100) * 1e4] * 2)
    np.testing.assert_allclose(table["participation"], [0.2, 0.2])


def test_an_execution_that_did_nothing_or_was_lost_has_no_price() -> None:
    both = runs([[100, 110], [100, 110]], target=[500, 500], lost=[False, True])
    table = impact.costs(both, end=1)
    assert np.isnan(table["average_price"]).all() and np.isnan(table["slippage_bp"]).all()
    np.testing.assert_allclose(table["shortfall_bp"][0], 1000)
    assert table.loc[1].isna().all() and table.loc[0, "completed"] == 0


def test_impact_is_against_the_baseline_of_the_same_number() -> None:
    base = runs([[100, 101], [100, 102], [100, 103]], number=[7, 5, 6])
    got = impact.impact(runs([[100, 104], [100, 104], [100, 104]], number=[5, 6, 7], sign=[1, 1, -1]), base)
    np.testing.assert_allclose(got, [[0, 200], [0, 100], [0, -300]])
    lost = impact.impact(runs([[100, 104]] * 2, number=[5, 7], lost=[True, False]),
                         dataclasses.replace(base, lost=np.array([True, False, False])))
    assert np.isnan(lost).all()
    with pytest.raises(ValueError, match="expected a baseline of number 8, found none"):
        impact.impact(runs([[100, 104]], number=[8]), base)


def test_the_interval_of_a_mean_covers_it_nineteen_times_in_twenty() -> None:
    rng = np.random.default_rng(0)
    found = [impact.bootstrap(np.append(rng.normal(3, 2, 80), np.nan), 400, seed) for seed in range(400)]
    covered = np.mean([one.low <= 3 <= one.high for one in found])
    assert 0.90 < covered < 0.98
    width = np.mean([one.high - one.low for one in found])
    assert abs(width / (2 * 1.96 * 2 / np.sqrt(80)) - 1) < 0.05
    assert np.isnan(impact.bootstrap(np.array([1.0]), 10, 0).low)


def test_common_draws_save_the_variance_that_they_share() -> None:
    rng = np.random.default_rng(1)
    noise, own = rng.normal(0, 3, (2, 20_000)), rng.normal(0, 1, 20_000)
    saved = impact.variance_saved(own, own + noise[0] - noise[1])
    assert abs(saved / (1 + 9 + 9) - 1) < 0.1


def test_a_square_root_law_is_found_again() -> None:
    rng, sizes = np.random.default_rng(2), np.array([0.05, 0.1, 0.3, 0.5])
    clean = impact.power_law(sizes, [np.full(50, 40 * np.sqrt(size)) for size in sizes], 50, 0)
    np.testing.assert_allclose([clean.factor, clean.exponent, clean.root_factor], [40, 0.5, 40])
    assert clean.undefined == 0
    covered = []
    for _ in range(60):
        noisy = [40 * np.sqrt(size) + rng.normal(0, 8, 100) for size in sizes]
        law = impact.power_law(sizes, noisy, 200, 0)
        covered.append(law.low <= 0.5 <= law.high)
    assert np.mean(covered) > 0.85


def test_a_law_that_cannot_be_is_no_number() -> None:
    assert np.isnan(impact.power_law(np.array([0.1]), [np.ones(9)], 9, 0).exponent)
    below = impact.power_law(np.array([0.1, 0.2]), [np.linspace(-3, 1, 9), np.ones(9)], 200, 0)
    assert np.isnan(below.exponent) and below.undefined > 0.9


def test_decay_is_what_is_left_of_the_impact_at_the_end() -> None:
    scale = np.array([1.0, 2.0, 3.0, 4.0])[:, None]
    left = impact.decay(scale * np.array([0, 5, 10, 4, 1]), end=2, draws=50, seed=0)
    np.testing.assert_allclose([one.value for one in left], [1, 0.4, 0.1])
    np.testing.assert_allclose([one.low for one in left], [1, 0.4, 0.1])
    assert np.isnan(impact.decay(-scale * np.ones(3), 1, 50, 0)[0].value)


def test_the_table_of_minutes_and_its_figures() -> None:
    some = runs([[100, 102, 104], [100, 104, 108], [100, 999, 999]], target=[200] * 3, lost=[False, False, True],
                shares=[[100, 100], [200, 0], [9, 9]])
    table = impact.minute_table(some, runs([[100, 100, 102]] * 3), np.array([0, 0.5, 1]), 20, 0)
    np.testing.assert_allclose(table["completed"], [0, 150, 200])
    np.testing.assert_allclose(table["planned"], [0, 100, 200])
    np.testing.assert_allclose(table["mid"], [100, 103, 106])
    np.testing.assert_allclose(table["mid_low"], [100, 102.5, 105])
    np.testing.assert_allclose(table["baseline_mid"], [100, 100, 102])
    np.testing.assert_allclose(table["impact_bp"], [0, 300, 400])
    assert (table["count"] == 2).all()
    law = impact.power_law(np.array([0.1, 0.2]), [np.ones(4), 2 * np.ones(4)], 10, 0)
    figures = [impact_plots.volumes({"buy 0.1": table}), impact_plots.prices({"buy 0.1": table}, 2),
               impact_plots.impacts({"buy": [(0.1, Interval(1, 0, 2))]}, {"buy": law}, {"buy 0.1": table}, 2)]
    drawn = figures[0].axes[0].lines[-1].get_ydata()
    np.testing.assert_allclose(drawn, table["completed"])
    assert len(figures) == 3
    # Panels share an axis, which shows the largest of them, whichever stands first.
    larger = table.assign(target=3 * table["target"])
    top = impact_plots.volumes({"buy 0.1": table, "buy 0.3": larger}).axes[1].get_ylim()[1]
    assert top >= larger["target"].max()


def test_a_law_that_falls_is_drawn_where_it_has_a_value() -> None:
    table = impact.minute_table(runs([[100, 102]]), runs([[100, 101]]), np.array([0, 1]), 20, 0)
    law = impact.power_law(np.array([0.1, 0.2]), [2 * np.ones(4), np.ones(4)], 10, 0)
    assert law.exponent == pytest.approx(-1)
    points = [(0.1, Interval(2, 1, 3)), (0.2, Interval(1, 0, 2))]
    size = impact_plots.impacts({"buy": points}, {"buy": law}, {"buy": table}, 1).axes[0]
    curves = [np.asarray(line.get_ydata(), float) for line in size.lines if len(line.get_xdata()) > 10]
    assert curves and all(np.isfinite(curve).all() for curve in curves)
    assert size.get_ylim()[1] < 10


def test_runs_that_do_not_fit_are_refused_by_field() -> None:
    with pytest.raises(ValueError, match=r"Runs\.cash: expected \(1, 1\) for volume \(1, 1\), got \(1, 2\)"):
        runs([[100, 101]], cash=[[1, 2]])
