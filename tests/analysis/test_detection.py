"""Ranks keep their rate whatever the law; overlap, day tests and curves against plain counts."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
from matplotlib.colors import to_hex
from scipy import stats

from marsjax.analysis import detection, detection_plots, interval_features, quantities, roc
from marsjax.analysis.figure_style import CAME
from marsjax.analysis.interval_features import FEATURES
from marsjax.analysis.quantities import OrderEvents
from marsjax.analysis.roc import CaseScores
from marsjax.core.errors import InputError
from marsjax.core.records import Kind
from marsjax.core.times import SECOND_NS

pytestmark = pytest.mark.quick

LAWS = {
    "normal": lambda rng, n: rng.normal(size=(n, 5)) @ rng.normal(size=(5, 5)),
    "heavy": lambda rng, n: rng.standard_cauchy((n, 3)),
    "few": lambda rng, n: rng.integers(0, 3, (n, 4)).astype(float),
    "gaps": lambda rng, n: np.where(rng.random((n, 4)) < 0.3, np.nan, rng.exponential(size=(n, 4))),
    "constant": lambda rng, n: np.ones((n, 2))}


@pytest.mark.parametrize("law", LAWS)
@pytest.mark.parametrize("combination", detection.COMBINATIONS)
def test_ranks_keep_their_rate_under_every_law(law: str, combination: str) -> None:
    rng, tries = np.random.default_rng(0), 600
    p = []
    for _ in range(tries):
        drawn = LAWS[law](rng, 20)
        p.append(detection.rank_test(drawn[0], drawn[1:], combination).p_value)
    for rate in (0.05, 0.1, 0.3, 0.5):
        assert stats.binom.sf((np.array(p) <= rate + 1e-12).sum() - 1, tries, rate) > 1e-4
    if law in ("normal", "heavy"):  # without ties every rank is as probable
        assert stats.kstest(p, "uniform").statistic < 0.05 + 0.08


def test_a_rank_is_the_share_of_a_pool_with_the_interval_in_it_and_no_unit_matters() -> None:
    rng = np.random.default_rng(1)
    pool, tested = rng.normal(size=(49, 3)), np.array([0.2, 2.2, -0.4])
    found = detection.rank_test(tested, pool, "mean_square")
    units = np.array([1e-3, 7, 1e6])
    moved = detection.rank_test(tested * units + 5, pool * units + 5, "mean_square")
    assert found.p_value == moved.p_value and np.isclose(found.distance, moved.distance)
    together = np.vstack([tested, pool])
    low, centre, high = np.quantile(together, (0.25, 0.5, 0.75), axis=0)
    away = np.abs(together - centre) / ((high - low) / 1.349)
    assert np.isclose(found.distance, np.sqrt((away[0] ** 2).mean()))
    assert found.p_value == (np.sqrt((away**2).mean(axis=1)) >= np.sqrt((away[0] ** 2).mean())).mean()
    assert np.allclose(found.feature_p, (away >= away[0]).mean(axis=0))
    ranks = [[(away[:, f] >= row[f]).mean() for f in range(3)] for row in away]
    combined = -np.log(ranks).mean(axis=1)
    by_ranks = detection.rank_test(tested, pool)
    assert np.isclose(by_ranks.distance, combined[0]) and by_ranks.p_value == (combined >= combined[0] - 1e-12).mean()
    largest = detection.rank_test(tested, pool, "largest")
    assert np.isclose(largest.distance, away[0].max())


def test_what_is_far_out_has_the_least_rank_and_nothing_known_has_none() -> None:
    pool = np.random.default_rng(2).normal(size=(39, 4))
    for combination in ("mean_square", "largest"):
        assert detection.rank_test(np.array([0, 0, 0, 50.0]), pool, combination).p_value == 1 / 40
    assert detection.rank_test(np.array([9, -9, 9, 50.0]), pool).p_value == 1 / 40
    assert np.isnan(detection.rank_test(np.full(4, np.nan), pool).p_value)
    assert np.isnan(detection.rank_test(np.zeros(4), pool[:0]).p_value)
    with pytest.raises(InputError, match=r"features \[F\]"):
        detection.rank_test(np.zeros(3), pool)
    with pytest.raises(InputError, match="combination"):
        detection.rank_test(np.zeros(4), pool, "sum")


def test_a_day_counts_alarms_at_the_rate_that_its_pool_can_have() -> None:
    p = np.array([0.04, 0.05, 0.06, np.nan, 0.9])
    found = detection.own_pools_test(p, 0.05, np.full(5, 24))
    assert found.alarms.tolist() == [True, True, False, False, False]
    assert found.attained == pytest.approx(1 / 25)
    assert found.count_p == pytest.approx(stats.binom.sf(1, 4, 1 / 25))
    assert found.least_p == pytest.approx(0.16)
    assert found.some_p == pytest.approx(1 - (24 / 25) ** 4)
    for few in (detection.own_pools_test(p, 0.05, np.full(5, 10)), detection.shared_pool_test(p, 0.05, 10)):
        assert (few.attained, few.some_p, few.count_p) == (0, 0, 1)  # no p-value of such a pool can be so small
    nothing = detection.shared_pool_test(np.full(3, np.nan), 0.05, 40)
    assert not nothing.alarms.any() and np.isnan(nothing.count_p)
    for wrong in (0, 1, -0.1, True):
        with pytest.raises(InputError, match="rate"):
            detection.shared_pool_test(p, wrong, 24)


def test_intervals_with_pools_of_their_own_have_rates_of_their_own() -> None:
    pools = np.array([39, 24, 10, 99])  # 2 of 40, 1 of 25, none of 11, 5 of 100
    found = detection.own_pools_test(np.array([0.05, 0.04, 0.5, 0.9]), 0.05, pools)
    assert found.attained == 0.05
    rates, rng = np.array([0.05, 0.04, 0, 0.05]), np.random.default_rng(0)
    assert found.some_p == pytest.approx(1 - np.prod(1 - rates))
    counts = (rng.random((200_000, 4)) < rates).sum(axis=1)
    assert found.count_p == pytest.approx((counts >= 2).mean(), rel=0.08)
    assert detection.own_pools_test(np.array([0.5, 0.9]), 0.05, np.array([0, 99])).attained == 0.05


@pytest.mark.parametrize(("clean", "tested", "rate"), [(29, 28, 0.05), (20, 6, 0.15)])
def test_ranks_in_one_pool_hang_together_and_a_day_is_tested_as_such(clean: int, tested: int, rate: float) -> None:
    rng, tries = np.random.default_rng(1), 20_000
    drawn = rng.random((tries, clean + tested))
    pool, own = drawn[:, :clean, None], drawn[:, clean:]
    p = (1 + (pool >= own[:, None]).sum(axis=1)) / (clean + 1)
    counts = (p <= rate + 1e-12).sum(axis=1)
    for count in (1, 2, 4):
        some = np.where(np.arange(tested) < count, 1 / (clean + 1), 0.9)
        found = detection.shared_pool_test(some, rate, clean)
        expected = (counts >= count).mean()
        assert found.count_p == pytest.approx(expected, abs=4 * np.sqrt(expected / tries))
        assert found.some_p == pytest.approx((counts >= 1).mean(), abs=0.015)
    if clean == 29:
        assert found.count_p == pytest.approx(0.0518, abs=1e-3)  # binomial: 0.013


def test_a_day_of_intervals_ranked_in_one_pool_keeps_its_rate() -> None:
    rng, few = np.random.default_rng(2), []
    for _ in range(250):
        drawn = rng.normal(size=(30, 5))
        p = np.array([detection.rank_test(each, drawn[:20]).p_value for each in drawn[20:]])
        few.append(detection.shared_pool_test(p, 0.1, 20))
    assert np.mean([each.alarms.any() for each in few]) < few[0].some_p + 0.1
    assert stats.binom.sf(sum(each.count_p <= 0.05 for each in few) - 1, len(few), 0.05) > 1e-3


def test_the_picture_shades_alarms_alone_in_red_and_hides_no_p_value() -> None:
    at = 36_000 * SECOND_NS + np.arange(4) * 60 * SECOND_NS
    rows = pd.DataFrame({"time_ns": at, "is_clean": [True, True, False, False], "alarm": [True, False, True, False],
                         "p_futures": [0.02, 0.3, 0.02, 0.4], "p_clean": [0.04, 0.5, 0.02, 0.6],
                         **{f"{name}_p": np.full(4, 1e-3) for name in FEATURES}})
    made = events()
    made = dataclasses.replace(made, time_ns=made.time_ns + at[0])
    drawn = detection_plots.figure(rows, made, 1, 0.05, "a day")
    told = [label.get_text() for label in drawn.axes[2].get_xticklabels()]
    assert len(set(told)) == len(told) > 1
    drawn.draw_without_rendering()
    mid, ranks, features = drawn.axes[:3]
    shades = {round((patch.get_x() - 10) * 60): to_hex(patch.get_facecolor()) for patch in mid.patches}
    assert shades == {0: to_hex("gray"), 2: to_hex(CAME)}
    assert ranks.get_legend().get_window_extent().y0 >= ranks.get_window_extent().y1
    assert all(mesh.get_clim() == (-3, 0) for mesh in features.collections)


def test_a_share_has_an_interval_over_blocks() -> None:
    found, block = np.repeat([True, False, False, False, True, False, False, False], 8), np.repeat(np.arange(8), 8)
    shared = detection.share(found, block)
    assert shared.value == 0.25 and shared.low == 0 and shared.high == pytest.approx(0.5, abs=0.13)
    alone = detection.share(found, np.arange(64))
    assert alone.high - alone.low < 0.5 * (shared.high - shared.low)
    assert detection.share(found, block) == shared and np.isnan(detection.share(found[:0], block[:0]).value)
    assert np.isnan(detection.share(found, np.zeros(64, int)).low)


def test_overlap_is_the_sum_of_the_smaller_shares_and_an_empty_side_is_an_outcome() -> None:
    none = np.nan
    assert detection.overlap(np.array([100, 100, 200, none]), np.array([100, 300, none, none])) == 0.5
    assert detection.overlap(np.array([none]), np.array([none, none])) == 1
    assert detection.overlap(np.array([1000.0]), np.array([none])) == 0  # no spread of 1,000 stands for it
    assert np.isnan(detection.overlap(np.zeros(0), np.array([1.0])))
    rng = np.random.default_rng(3)
    one, other = rng.integers(0, 6, 80), rng.integers(2, 9, 50)
    plain = sum(min((one == v).mean(), (other == v).mean()) for v in range(10))
    assert detection.overlap(one.astype(float), other.astype(float)) == pytest.approx(plain)


def test_what_is_usual_follows_the_time_of_day() -> None:
    rng = np.random.default_rng(4)
    at = np.arange(60) * 60 * SECOND_NS
    clean = 100 + 2 * np.arange(60) + rng.normal(size=60)
    found = detection.of_time_of_day(np.array([102.0, 102.0, 116.0]), at[[1, 58, 5]], (clean, at), 3 * 60 * SECOND_NS)
    assert abs(found[0]) < 4 and found[1] < -20 and found[2] > 2
    flat = detection.of_time_of_day(np.array([159.0]), at[:1], (clean, at), 10**16)
    assert flat[0] == pytest.approx(0, abs=0.1)
    for few in ([np.nan, np.nan, np.nan], [np.nan, 3.0, np.nan]):
        assert np.isnan(detection.of_time_of_day(np.zeros(2), at[:2], (np.array(few), at[:3]), 1)).tolist() == [1, 1]


def test_the_area_is_that_of_mann_and_whitney() -> None:
    rng = np.random.default_rng(5)
    low, high = rng.integers(0, 9, 40).astype(float), rng.integers(3, 12, 30).astype(float)
    clean, strange = CaseScores(low, np.arange(40) % 5), CaseScores(high, np.arange(30) % 5)
    found = roc.area(clean, strange, resamples=200)
    assert found.value == pytest.approx(stats.mannwhitneyu(high, low).statistic / (40 * 30))
    assert found.low < found.value < found.high
    curve = roc.curve(clean, strange)
    assert np.trapezoid(curve.found, curve.false_alarms) == pytest.approx(found.value)
    assert (curve.false_alarms[-1], curve.found[-1]) == (1, 1)
    threshold = np.sort(low)[::-1][2]
    assert roc.found_at(clean, strange, 0.05) == (high > threshold).mean()
    same = roc.area(CaseScores(low, np.arange(40)), CaseScores(low, np.arange(40)), resamples=50)
    assert same.value == 0.5
    with pytest.raises(InputError, match="both kinds"):
        roc.area(CaseScores(low[:0], np.zeros(0, int)), strange)


def events(mirror: bool = False) -> OrderEvents:
    """Six orders by hand; mirrored: buys for sells, prices reflected at 100,000."""
    kinds = np.array([Kind.BUY, Kind.SELL, Kind.CANCEL, Kind.BUY, Kind.CANCEL, Kind.BUY])
    price = np.array([99_900, 100_100, 99_900, 100_100, 100_200, 99_800])
    mid = np.array([99_950, 100_000, 99_900, 99_950, 100_000, 100_100.0])
    volumes = np.array([[300, 300, 300, 100, 100, 0], [200, 200, 100, 100, 100, 500]])
    if mirror:
        kinds = np.select([kinds == Kind.BUY, kinds == Kind.SELL], [Kind.SELL, Kind.BUY], Kind.CANCEL)
        price, mid, volumes = 200_000 - price, 200_000 - mid, volumes[::-1]
    return OrderEvents(
        time_ns=np.array([1, 5, 20, 30, 40, 70]) * SECOND_NS, kind=kinds, price=price,
        volume=np.array([500, 300, 100, 200, 300, 900]), traded=np.array([0, 0, 0, 200, 0, 0]),
        mid_before=np.concatenate([[np.nan], mid[:-1]]), mid_after=mid,
        spread=np.array([200, 200, 200, 200, 200, np.nan]), ask_volume=volumes[0], bid_volume=volumes[1],
        lifetime_ns=np.array([-1, -1, 2, -1, 4, -1]) * SECOND_NS)


def test_features_of_an_interval_by_hand() -> None:
    found = dict(zip(FEATURES, interval_features.of_interval(events(), 2 * SECOND_NS, 2), strict=True))
    expected = {
        "orders": 5, "traded_volume": 200, "order_volume": (300 + 200 + 900) / 3, "largest_order": 900, "spread": 200,
        "empty_side": 1 / 5, "return_bp": 1e4 * np.log(100_100 / 99_950), "aggressive_ratio": 1 / 3, "buy_ratio": 2 / 3,
        "trade_imbalance": 1, "order_imbalance": (900 - 300) / 1200, "cancel_ratio": 2 / 5,
        "largest_cancel": 300, "cancelled_share": 400 / 1400,
        # The first cancel is of a bid at 99,900 under a mid of 100,000, the second of an ask.
        "cancel_imbalance": (100 - 300) / 400, "touch_imbalance": np.mean([-0.2, -0.5, 0, 0, 1]),
        "touch_volume": np.mean([250, 200, 100, 100]), "cancel_lifetime_s": 3,
        "volatility_bp": 1e4 * quantities.of_stretch(events(), 2 * SECOND_NS, 2)["volatility"]}
    assert set(found) == set(expected)
    for name, value in expected.items():
        assert found[name] == pytest.approx(value), name
    assert interval_features.column(np.array([list(found.values())]), "orders").tolist() == [5]
    evened = dict(zip(FEATURES, interval_features.evened(np.array(list(found.values()))), strict=True))
    assert evened["largest_order"] == pytest.approx(np.log(901)) and evened["return_bp"] == found["return_bp"]
    with pytest.raises(InputError, match="feature"):
        interval_features.column(np.zeros(len(FEATURES)), "mood")


def test_a_mirrored_market_has_the_imbalances_of_the_other_side() -> None:
    one, other = (interval_features.of_interval(each, 2 * SECOND_NS, 2) for each in (events(), events(mirror=True)))
    for name in ("trade_imbalance", "order_imbalance", "cancel_imbalance", "touch_imbalance"):
        assert interval_features.column(one, name) == pytest.approx(-interval_features.column(other, name)), name
    for name in ("orders", "traded_volume", "spread", "empty_side", "cancel_ratio", "touch_volume", "largest_order"):
        assert interval_features.column(one, name) == interval_features.column(other, name), name


def test_an_interval_without_orders_has_counts_and_no_ratios() -> None:
    found = dict(zip(FEATURES, interval_features.of_interval(events(), 100 * SECOND_NS, 1), strict=True))
    assert found["orders"] == found["traded_volume"] == 0 and found["return_bp"] == 0
    assert all(np.isnan(found[name]) for name in ("spread", "empty_side", "cancel_ratio", "order_imbalance"))
