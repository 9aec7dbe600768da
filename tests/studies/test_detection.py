"""Intervals of a day and their ranks; cases of manipulation beside twins without it."""

import dataclasses

import numpy as np
import pytest

from marsjax import testing
from marsjax.analysis import detection as analysis
from marsjax.analysis import detection_report, interval_features, order_events
from marsjax.analysis.interval_features import FEATURES
from marsjax.core import times
from marsjax.core.errors import InputError
from marsjax.core.sessions import chinese_session
from marsjax.core.times import SECOND_NS
from marsjax.sim.result import Rollout
from marsjax.studies import detection, futures, manipulations, order_model, rollout_summary
from marsjax.studies.detection import Watched, WatchSpec
from marsjax.studies.futures import FuturesSpec
from marsjax.studies.manipulations import Cases, CasesSpec, Manipulation
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
    for few in (1e-12, 0.5, float("nan")):
        with pytest.raises(InputError, match=r"usual_minutes: expected a number of 1\.0 at least"):
            dataclasses.replace(NOON, usual_minutes=few)


@pytest.mark.quick
def test_clean_intervals_leave_some_to_watch_and_a_manipulation_lies_in_those() -> None:
    begins = 34_200 * SECOND_NS + np.arange(12) * MINUTE_NS
    first, end = int(begins[0]), int(begins[-1]) + MINUTE_NS
    spec = WatchSpec(1, first, end, int(begins[9]))
    assert spec.is_clean(begins).sum() == 9
    for until in (end, end + 1):
        with pytest.raises(InputError, match="nothing is left to watch"):
            dataclasses.replace(spec, clean_until_ns=until).is_clean(begins)
    with pytest.raises(InputError, match="got 0; leave it out"):
        dataclasses.replace(spec, clean_until_ns=first + SECOND_NS).is_clean(begins)
    tested = int(begins[9])
    for from_ns, until_ns, lies in ((tested + 1, end, True), (tested, end, False), (tested + 1, end + 1, False),
                                    (first + 1, tested + 1, False), (tested + 1, tested + 70 * SECOND_NS, True)):
        assert spec.is_tested(begins, from_ns, until_ns) == lies
    broken = np.delete(begins, 10)
    assert not spec.is_tested(broken, tested + SECOND_NS, end) and spec.is_tested(broken, tested + 1, int(begins[10]))


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
    assert tested.count_p == analysis.shared_pool_test(late["p_clean"].to_numpy(), 0.05, 150).count_p


@pytest.mark.quick
def test_a_pool_with_lost_futures_does_not_lower_the_rate_of_the_others() -> None:
    begins = 34_200 * SECOND_NS + np.arange(10) * MINUTE_NS
    spec = WatchSpec(1, int(begins[0]), int(begins[-1]) + MINUTE_NS, int(begins[0]))
    found = watched(10, 40, shift=0.0)
    found.real[5] = 30.0
    for left in (15, 0):
        found.futures[3] = found.futures[3][:left]
        rows = detection.table(begins, found, spec)
        tested = detection.day_test(rows, found, spec)
        assert tested.alarms[5] and not tested.alarms[3]
        assert tested.attained == pytest.approx(2 / 41) and tested.some_p == pytest.approx(1 - (39 / 41) ** 9)
        assert tested.count_p > 0.05
        said = detection_report.lines(detection_report.record(rows, tested, 0.05, 1, None))
        assert "36% of such days" in "".join(said) and "too small" not in "".join(said)


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
    # An order at an interval's begin is the last of the interval before.
    edges = (int(begins[7]), int(begins[9]))
    parts = detection_report.record(rows, detection.day_test(rows, found, spec), 0.05, 1, edges)["manipulation"]
    assert [parts[part]["intervals"] for part in ("before", "during", "after")] == [6, 3, 31]
    record["manipulation"] |= {"kind": "pump", "orders": 3, "move_bp": 9.0}
    assert any("09:37:00" in line for line in detection_report.lines(record))


@pytest.mark.quick
def test_a_simple_detector_with_too_few_clean_values_has_no_score_and_ends_no_run() -> None:
    begins = 34_200 * SECOND_NS + np.arange(14) * MINUTE_NS
    spec = WatchSpec(1, int(begins[0]), int(begins[-1]) + MINUTE_NS, int(begins[9]))
    found = watched(14, 20, shift=0.0)
    found.real[:8, FEATURES.index("cancel_ratio")] = np.nan  # a single clean interval had a cancel
    rows = detection.table(begins, found, spec)
    assert rows["is_clean"].sum() == 9 and rows["cancel_score"].isna().all() and rows["volume_score"].notna().all()


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


@pytest.mark.quick
def test_lost_futures_are_no_part_of_the_pool_and_lost_cases_have_no_numbers() -> None:
    rng = np.random.default_rng(0)
    pool, cases = (rng.normal(size=(3, *shape, len(FEATURES))) for shape in ((30,), (2, 4)))
    lost = pool.copy()
    lost[1, :12] = np.nan
    cases[2, 1, 3] = np.nan
    p = manipulations.p_values(Cases(lost, cases, np.zeros((3, 1, 4))))
    assert np.isnan(p[2, 1, 3]) and np.isnan(p).sum() == 1
    kept = manipulations.p_values(Cases(pool[1:2, 12:], cases[1:2], np.zeros((1, 1, 4))))
    assert np.array_equal(p[1], kept[0])
    mids = np.full((2, 3, 5), 100.0)
    mids[1, 0], mids[1, 1, 2], mids[0, 1, 1] = 101.0, 102.0, np.nan
    mids[:, 2] = [[np.nan], [100.0]]
    assert np.allclose(manipulations._moves_bp(mids, is_up=True), [[100, 50, np.nan]], equal_nan=True)
    assert np.allclose(manipulations._moves_bp(mids, is_up=False)[0, :2], [-100, -50])


@pytest.mark.slow
def test_clean_cases_are_futures_without_the_manipulator_and_a_pump_drives_the_price_up(
        monkeypatch: pytest.MonkeyPatch) -> None:
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

    def some_lost(run: Rollout) -> np.ndarray:
        return np.isin(np.arange(len(run.status)), [3, 10 + 2, 16 + 4])  # a future, a clean case, a pump

    monkeypatch.setattr(rollout_summary, "is_lost", some_lost)
    lost = manipulations.simulate(prepared, market, spec, [start], [begin], [known])
    assert np.isnan(lost.pool[0]).all(axis=1).nonzero()[0].tolist() == [3]
    gone = np.isnan(lost.moves_bp[0, 0])
    assert gone.nonzero()[0].tolist() == [2, 4]
    assert np.array_equal(lost.moves_bp[0, 0, ~gone], found.moves_bp[0, 0, ~gone])
