"""Labels by their definition, over every minute and start; what has none is counted and never averaged in."""

from typing import Any

import numpy as np
import pytest

from marsjax.analysis import forecast
from marsjax.analysis.forecast import MINUTE_NS, History, Move
from marsjax.core import int64
from marsjax.core.records import BookView, Int64
from marsjax.market.orders import from_columns
from marsjax.observers.bars import Bars
from marsjax.sim.initial import Passed

HOUR_NS = 60 * MINUTE_NS


def history(count: int = 500, seed: int = 0) -> History:
    """A random walk of the mid in half ticks; several orders may come at one time."""
    rng = np.random.default_rng(seed)
    time_ns = np.sort(rng.integers(0, 60, count)) * (MINUTE_NS // 4) + 9 * HOUR_NS
    mid_twice = 200_000 + 100 * np.cumsum(rng.integers(-2, 3, count))
    return History(time_ns, mid_twice, rng.uniform(-1, 1, count), rng.uniform(-1, 1, count))


def bars(history: History, start_ns: int, minutes: int) -> tuple[Bars, int]:
    """What a rollout that does what the history did would add up, order by order."""
    last, orders, total = np.full(minutes, -1), np.zeros(minutes, int), np.zeros(minutes, np.int64)
    first_mid = -1
    for time_ns, mid in zip(history.time_ns, history.mid_twice, strict=True):
        if time_ns <= start_ns:
            first_mid = int(mid)
        minute = -(-(int(time_ns) - start_ns) // MINUTE_NS) - 1
        if 0 <= minute < minutes:
            last[minute], orders[minute], total[minute] = mid, orders[minute] + 1, total[minute] + mid
    wide = int64.from_numpy
    made: dict[str, Any] = {"price_last": np.where(orders, 100_000, -1)[None], "mid_twice_last": last[None],
                            "mid_twice_sum": wide(total[None]), "orders": orders[None],
                            "volume": wide(100 * orders[None])}
    unused = {name: None for name in Bars.__dataclass_fields__ if name not in made}
    return Bars(**made, **unused), first_mid


def plain(history: History, at_ns: int, horizon_ns: int) -> float:
    """The label as it is defined, in exact fractions of floats."""
    before = history.mid_twice[history.time_ns <= at_ns]
    inside = history.mid_twice[(history.time_ns > at_ns) & (history.time_ns <= at_ns + horizon_ns)]
    return (inside.mean() / 2 - before[-1] / 2) / (before[-1] / 2) if len(inside) and len(before) else np.nan


def test_labels_are_those_of_the_definition() -> None:
    seen = history()
    at = np.concatenate([seen.time_ns[::7], seen.time_ns[::7] + 1, [8 * HOUR_NS, 23 * HOUR_NS]])
    for minutes in (1, 5):
        expected = [plain(seen, int(ns), minutes * MINUTE_NS) for ns in at]
        np.testing.assert_allclose(forecast.labels_of_history(seen, at, minutes * MINUTE_NS), expected, rtol=1e-12,
                                   atol=1e-15)
    assert np.isnan(expected[-2:]).all() and not np.isnan(expected[0])


def test_a_rollout_that_does_what_came_has_its_label_and_mids() -> None:
    """Both against the definition, order by order, and exactly equal to each other."""
    seen = history()
    start_ns = int(seen.time_ns[40])
    made, first_mid = bars(seen, start_ns, 8)
    for minutes in (1, 3, 8):
        expected = plain(seen, start_ns, minutes * MINUTE_NS)
        of_bars = forecast.labels_of_bars(made, np.array([first_mid]), minutes)
        of_history = forecast.labels_of_history(seen, np.array([start_ns]), minutes * MINUTE_NS)
        np.testing.assert_allclose(of_bars, [expected], rtol=1e-12, atol=1e-15)
        np.testing.assert_array_equal(of_bars, of_history)
    ends = [start_ns + minute * MINUTE_NS for minute in range(9)]
    mids = [seen.mid_twice[seen.time_ns <= end][-1] / 2 for end in ends]
    np.testing.assert_array_equal(forecast.mids_of_bars(made, np.array([first_mid]))[0], mids)
    np.testing.assert_array_equal(forecast.minute_mids(seen, start_ns, 8), mids)


def test_minutes_without_orders_keep_the_mid_and_have_no_price() -> None:
    seen = History(*(np.array(x) for x in ([0, 30, 200], [200_000, 200_100, 200_300], [0.0] * 3, [0.0] * 3)))
    seen = seen._replace(time_ns=seen.time_ns * 10**9 + HOUR_NS)
    made, first_mid = bars(seen, HOUR_NS, 4)
    assert first_mid == 200_000
    np.testing.assert_array_equal(forecast.mids_of_bars(made, np.array([first_mid])),
                                  [[100_000, 100_050, 100_050, 100_050, 100_150]])
    table = forecast.minute_table(made)
    assert table["minute"].tolist() == [1, 2, 3, 4] and table["orders"].tolist() == [1, 0, 0, 1]
    assert table["mid_mean"].isna().tolist() == table["price_last"].isna().tolist() == [False, True, True, False]
    assert table["mid_mean"].iloc[0] == 100_050 and table["volume"].tolist() == [100, 0, 0, 100]


def test_a_mid_that_stays_has_a_label_of_exactly_0() -> None:
    for mid in (199_900, 7, 2**31 - 2):
        total = np.array([mid * 977], np.int64)
        assert forecast.label(total, np.array([977]), np.array([mid]))[0] == 0.0


def test_no_order_or_no_mid_is_no_label() -> None:
    found = forecast.label(np.array([0, 10, 10]), np.array([0, 1, 1]), np.array([10, -1, 10]))
    np.testing.assert_array_equal(np.isnan(found), [True, True, False])
    seen = history()._replace(mid_twice=np.where(np.arange(500) == 100, -1, history().mid_twice))
    at = seen.time_ns[[99, 300]] - 1
    np.testing.assert_array_equal(np.isnan(forecast.labels_of_history(seen, at, MINUTE_NS)), [True, False])


def test_trajectories_without_a_label_are_counted_and_in_no_number() -> None:
    labels = np.array([0.01, -0.01, np.nan, 0.0, 0.002])
    result = forecast.distribution(labels, 0.005, (0.0, 0.5, 1.0))
    assert (result.count, result.without, result.counts) == (4, 1, (1, 2, 1))
    assert result.probabilities == (0.25, 0.5, 0.25) and result.mean == pytest.approx(0.0005)
    assert result.quantiles == {0.0: -0.01, 0.5: 0.001, 1.0: 0.01}
    nothing = forecast.distribution(np.full(3, np.nan), 0.005, (0.5,))
    assert (nothing.count, nothing.without) == (0, 3)
    assert np.isnan([nothing.mean, nothing.standard_deviation, *nothing.quantiles.values(),
                     *nothing.probabilities]).all()


def test_classes_are_by_the_threshold_which_itself_is_flat() -> None:
    labels = np.array([-0.2, -0.1, 0.0, 0.1, 0.1000001])
    assert forecast.classes(labels, 0.1).tolist() == [Move.DOWN, Move.FLAT, Move.FLAT, Move.FLAT, Move.UP]
    assert forecast.classes(labels[[0, 2, 4]], 0.0).tolist() == [Move.DOWN, Move.FLAT, Move.UP]
    with pytest.raises(ValueError, match="got 1 that are NaN"):
        forecast.classes(np.array([0.1, np.nan]), 0.1)


def test_a_balanced_threshold_calls_a_third_flat() -> None:
    labels = np.random.default_rng(0).standard_normal(3000)
    threshold = forecast.balanced_threshold(np.append(labels, np.nan))
    assert abs((forecast.classes(labels, threshold) == Move.FLAT).mean() - 1 / 3) < 1e-3
    with pytest.raises(ValueError, match="expected at least 30 past labels to choose it by, got 29"):
        forecast.balanced_threshold(np.append(labels[:29], [np.nan] * 9))


@pytest.mark.parametrize(("threshold", "levels", "message"), [
    (-0.1, (0.5,), "threshold: .* got -0.1"), (1.0, (0.5,), "threshold: .* got 1.0"),
    (0.1, (0.5, 1.5), r"quantiles: .* got \(0.5, 1.5\)")])
def test_numbers_out_of_range_are_refused(threshold: float, levels: tuple[float, ...], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        forecast.distribution(np.zeros(3), threshold, levels)


def test_a_history_is_made_of_the_orders_that_count() -> None:
    """Of four orders the second was refused; bids 300 and 100 against asks 100 and 0 at the touch."""
    shares = np.array([[[300, 5, 0, 0, 0, 900]] * 2, [[100, 0, 0, 0, 0, 0]] * 2]).transpose(1, 0, 2)
    volume: list[Int64] = [int64.from_numpy(np.concatenate([shares[:, side]] * 2)) for side in (0, 1)]
    view = BookView(ask_price=np.zeros((4, 6), int), ask_volume=volume[1], bid_price=np.zeros((4, 6), int),
                    bid_volume=volume[0], last_price=np.zeros(4, int), spread=np.zeros(4, int),
                    mid_price=np.zeros(4, int), mid_price_twice=np.array([10, 20, 30, 40]), has_mid=np.ones(4, bool))
    sent = from_columns(*(np.arange(4) + x for x in (5, 0, 1, 1, 1, 1, 1, 1)))
    part = Passed(sent, np.array([0, 6, 0, 0]), np.array([True, False, True, True]), view)
    seen = forecast.history([part, part])
    assert seen.time_ns.tolist() == [5, 7, 8] * 2 and seen.mid_twice.tolist() == [10, 30, 40] * 2
    np.testing.assert_allclose(seen.touch_imbalance, 0.5)
    np.testing.assert_allclose(seen.deep_imbalance, 205 / 405)
    with pytest.raises(ValueError, match="at least one stretch"):
        forecast.history([])
