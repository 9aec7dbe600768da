"""Intervals of a day and their ranks; cases of manipulation beside twins without it."""

import dataclasses

import numpy as np
import pytest

from marsjax import testing
from marsjax.analysis import detection_report, interval_features, order_events
from marsjax.analysis.interval_features import FEATURES
from marsjax.core import times
from marsjax.core.errors import InputError
from marsjax.core.sessions import chinese_session
from marsjax.core.times import SECOND_NS
from marsjax.studies import detection, futures, manipulations, order_model
from marsjax.studies.detection import Watched, WatchSpec
from marsjax.studies.futures import FuturesSpec
from marsjax.studies.manipulations import CasesSpec, Manipulation
from marsjax.studies.realism import SentOrders
from marsjax.studies.session_times import MINUTE_NS

MARKET = dataclasses.replace(testing.tiny_market(), session=chinese_session())
NOON = WatchSpec(10, times.of_clock("11:00:00"), times.of_clock("13:30:00"), times.of_clock("11:00:00"))


def watched(intervals: int, futures_each: int, shift: float, seed: int = 0) -> Watched:
    """Made-up features; what came lies `shift` beside the model's law."""
    rng, size = np.random.default_rng(seed), (len(FEATURES),)
    return Watched(rng.normal(shift, 1, (intervals, *size)),
                   [rng.normal(0, 1, (futures_each, *size)) for _ in range(intervals)], np.full(intervals, 0.8))


@pytest.mark.quick
def test_intervals_lie_in_the_periods_of_continuous_trading() -> None:
    clocks = [str(times.clock(begin, 0))[:5] for begin in NOON.intervals(MARKET)]
    assert clocks == ["11:00", "11:10", "11:20", "13:00", "13:10", "13:20"]
    assert not NOON.is_clean(NOON.intervals(MARKET)).any()
    with pytest.raises(InputError, match="at least 2 intervals"):
        dataclasses.replace(NOON, last_ns=times.of_clock("11:15:00")).intervals(MARKET)
    early = dataclasses.replace(NOON, clean_until_ns=times.of_clock("13:00:00"))
    with pytest.raises(InputError, match="8 intervals of 10 minutes"):
        early.is_clean(NOON.intervals(MARKET))
    with pytest.raises(InputError, match="rate"):
        dataclasses.replace(NOON, rate=1.5)
    with pytest.raises(InputError, match="combination"):
        dataclasses.replace(NOON, combination="median")


@pytest.mark.quick
def test_clean_intervals_keep_the_rate_where_model_and_market_differ() -> None:
    begins = 34_200 * SECOND_NS + np.arange(300) * MINUTE_NS
    spec = WatchSpec(1, int(begins[0]), int(begins[-1]) + MINUTE_NS, int(begins[150]))
    found = watched(300, 60, shift=2.0)
    rows = detection.table(begins, found, spec)
    late = rows[~rows["is_clean"]]
    assert len(late) == 150 and (late["p_futures"] <= 0.05).mean() > 0.8
    assert (late["p_clean"] <= 0.05).mean() < 0.11
    assert np.array_equal(rows["alarm"], rows["p_clean"] <= 0.05)
    for is_clean, pool in ((True, 149), (False, 150)):  # a clean one is ranked among the others
        ranks = rows[rows["is_clean"] == is_clean]["p_clean"] * (pool + 1)
        assert np.allclose(ranks, np.round(ranks))
    found.real[200] = 500.0
    strange = detection.table(begins, found, spec).iloc[200]
    assert strange["p_clean"] == pytest.approx(1 / 151) and strange["alarm"]
    tested = detection.day_test(rows, found, spec)
    assert tested.attained == pytest.approx(np.floor(0.05 * 151) / 151)


@pytest.mark.quick
def test_without_clean_intervals_the_futures_decide_and_the_report_says_what_came() -> None:
    begins = 34_200 * SECOND_NS + np.arange(40) * MINUTE_NS
    spec = WatchSpec(1, int(begins[0]), int(begins[-1]) + MINUTE_NS, int(begins[0]))
    found = watched(40, 60, shift=0.0)
    found.real[7] = -20.0
    found.real[7, FEATURES.index("orders")] = 900.0
    rows = detection.table(begins, found, spec)
    assert rows["p_clean"].isna().all() and rows["volume_score"].isna().all()
    assert rows["alarm"][7] and rows["alarm"].sum() <= 7
    truth = (int(begins[7]) + SECOND_NS, int(begins[7]) + 20 * SECOND_NS)
    record = detection_report.record(rows, detection.day_test(rows, found, spec), 0.05, 1, truth)
    parts = record["manipulation"]
    assert (parts["before"]["intervals"], parts["during"], parts["after"]["intervals"]) == (
        7, {"intervals": 1, "alarms": 1, "spread_overlap": 0.8}, 32)
    assert record["alarms"] == rows["alarm"].sum() and not record["calibrated"]
    record["manipulation"] |= {"kind": "pump", "orders": 3, "move_bp": 9.0}
    assert any("09:37:00" in line for line in detection_report.lines(record))


@pytest.mark.quick
def test_wrong_cases_are_refused() -> None:
    spec = FuturesSpec(8, 1)
    with pytest.raises(InputError, match="spoofing, layering, pump, wash"):
        Manipulation("rumour", 1_000, 10)
    with pytest.raises(InputError, match="even"):
        Manipulation("pump", 1_000, 11)
    with pytest.raises(InputError, match="ends in its interval"):
        CasesSpec(Manipulation("pump", 1_000, 60), (1_000,), 2, spec)
    with pytest.raises(InputError, match="size above 0"):
        CasesSpec(Manipulation("pump", 1_000, 30), (), 2, spec)


@pytest.mark.slow
def test_clean_cases_are_futures_without_the_manipulator_and_a_pump_drives_the_price_up() -> None:
    model = testing.tiny_model()
    prepared, market = order_model.prepare(model), dataclasses.replace(testing.tiny_market(), capacity=640)
    begin = 36_000 * SECOND_NS
    start = testing.random_start(testing.tiny_market(), model)
    known = order_events.arrivals(*(np.zeros(0, np.int64) for _ in range(3)))
    spec = CasesSpec(Manipulation("pump", 20_000, 40), (20_000,), 6, FuturesSpec(10, 1, rollout_capacity=640))
    found = manipulations.simulate(prepared, market, spec, [start], [begin], [known])
    assert found.pool.shape == (1, 10, len(FEATURES)) and found.cases.shape == (1, 2, 6, len(FEATURES))

    sent = SentOrders()
    futures.simulate(prepared, market, FuturesSpec(16, 1, rollout_capacity=640), [start], on_trace=sent)
    plain = np.stack([interval_features.of_interval(order_events.of_trace(rows, known), begin, 1)
                      for rows in sent.by_trajectory(16)])
    assert np.array_equal(np.concatenate([found.pool[0], found.cases[0, 0]]), plain, equal_nan=True)
    volume, orders = (interval_features.column(found.cases[0], name) for name in ("traded_volume", "orders"))
    assert (volume[1] > volume[0]).all() and (orders[1] != orders[0]).any()
    assert found.moves_bp.mean() > 1
    scores = manipulations.score(found, [begin])
    rows = manipulations.table(found, scores, spec, 0.2)
    assert rows["detector"].tolist() == ["futures", "volume_score", "cancel_score"]
    assert rows["area"][1] > 0.9
