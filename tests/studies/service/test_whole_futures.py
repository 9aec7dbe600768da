"""Whole futures: what is told piece by piece is what a rollout without a service comes to."""

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest

from marsjax import testing
from marsjax.core import times
from marsjax.core.errors import InputError
from marsjax.data import frames
from marsjax.observers.market_tables import INTEGER
from marsjax.observers.trace import TraceObserver
from marsjax.sim import rollout
from marsjax.sim.result import Rollout
from marsjax.sim.specs import RolloutSpec
from marsjax.sim.state import End
from marsjax.studies import forecasts, futures, places, rollout_summary
from marsjax.studies.futures import FuturesSpec
from marsjax.studies.order_model import prepare
from marsjax.studies.progress import StoppedError
from marsjax.studies.service.next_orders import Draw, NextOrders, NextOrdersSpec
from marsjax.studies.service.parts import ReadyRows
from marsjax.studies.service.wanted import Wanted, of_record
from marsjax.studies.service.whole_futures import Told, WholeFutures

PREPARED = prepare(testing.tiny_model())
TEN = times.of_clock("10:00:00")
SENT = testing.random_orders(TEN)
CHUNK, MINUTES = 32, 2


def asked(**changes: Any) -> Wanted:
    table = frames.to_frame(SENT)[["time_ns", "type", "price", "volume"]]
    orders = {str(name): table[name].tolist() for name in table}
    return of_record({"orders": orders, "time": "10:00:00", "minutes": MINUTES, "trajectories": 4, "seed": 5} | changes)


@pytest.fixture(scope="module")
def service() -> WholeFutures:
    return WholeFutures(PREPARED, "default", (), chunk_steps=CHUNK)


def direct() -> tuple[Any, Rollout]:
    """The market and the futures without a service."""
    feed = frames.from_frame(frames.to_frame(SENT)[["time_ns", "type", "price", "volume"]])
    market = places.market_of(PREPARED, dataclasses.replace(feed.venue, capacity=1024), 2)
    at = forecasts.read_start(market, PREPARED, feed, TEN, 0)
    (run,) = futures.simulate(PREPARED, market, FuturesSpec(4, MINUTES, 5, chunk_steps=CHUNK), [at.start])
    return market, run


def told_of(service: WholeFutures, wanted: Wanted) -> list[Told]:
    told: list[Told] = []
    service.run(wanted, told.append)
    return told


def joined(told: list[Told]) -> dict[str, list[Any]]:
    rows: dict[str, list[Any]] = {}
    for one in told:
        for name, column in (one.rows or {}).items():
            rows.setdefault(name, []).extend(np.asarray(column).tolist())
    return rows


def test_labels_and_minutes_come_once_each_and_are_those_of_the_rollout(service: WholeFutures) -> None:
    market, run = direct()
    labels = rollout_summary.labels(run)
    expected = {"labels": forecasts.label_table(run, labels, market, TEN),
                "minutes": forecasts.minute_table(run, market, TEN, INTEGER).drop(columns="status")}
    for rows, table in expected.items():
        told = told_of(service, asked(rows=rows))
        assert [one.kind for one in told[:2]] == ["start", "part"] and told[-1].kind == "result"
        assert sum(bool(one.rows) for one in told) > 1 and told[0].facts["orders_before"] == len(SENT.kind)
        got = joined(told)
        order = np.lexsort((got.get("minute", got["trajectory"]), got["trajectory"]))
        assert {name: [column[place] for place in order] for name, column in got.items()} == {
            str(name): table[name].tolist() for name in table}
        shares = [one.facts["passed"] for one in told if one.kind == "part"]
        assert shares == sorted(shares) and shares[-1] == 1
        result = told[-1].facts
        assert result["forecast"]["mean"] == labels.mean() and result["orders"] == run.order_count
        assert result["ended"] == {"TIME": 4} and result["problems"] == []


def test_a_minute_is_told_once_it_is_over_and_no_order_at_its_end_can_come_any_more() -> None:
    market, run = direct()
    rows, found = ReadyRows("minutes", market, TEN, 4, MINUTES), run.so_far()
    running, minute = np.full(4, End.RUNNING), 60 * 10**9
    for passed_ns, expected in ((minute, []), (minute + 1, [0, 1, 2, 3]), (2 * minute, [])):
        ready = rows.ready(found._replace(end=running, passed_ns=np.full(4, passed_ns)))
        assert ([] if not ready else ready["trajectory"].tolist()) == expected
        assert set(ready.get("minute", np.array([1])).tolist()) == {1}
    last = rows.ready(found)
    assert last["trajectory"].tolist() == [0, 1, 2, 3] and set(last["minute"].tolist()) == {2}
    assert rows.ready(found) == {}


@pytest.mark.slow
def test_orders_are_those_of_a_trace(service: WholeFutures) -> None:
    market, run = direct()
    got = joined(told_of(service, asked(rows="orders")))
    simulator = PREPARED.simulator(run.spec.market).replace(observers=[TraceObserver(run.spec.market, CHUNK)])
    feed = frames.from_frame(frames.to_frame(SENT)[["time_ns", "type", "price", "volume"]])
    start = forecasts.read_start(market, PREPARED, feed, TEN, 0).start
    start = futures.resize(start, run.spec.market.capacity)
    table = rollout.rollout(simulator, start, RolloutSpec(4, MINUTES, 5, chunk_steps=CHUNK)).orders(INTEGER)
    order = np.lexsort((got["i"], got["trajectory"]))
    for name in ("trajectory", "i", "time_ns", "type", "price", "volume", "order_id", "status", "traded"):
        assert [got[name][place] for place in order] == table[name].tolist(), name


def test_whoever_is_told_can_end_it(service: WholeFutures) -> None:
    told: list[Told] = []

    def tell(one: Told) -> None:
        told.append(one)
        if one.kind == "part":
            raise StoppedError

    with pytest.raises(StoppedError):
        service.run(asked(), tell)
    assert [one.kind for one in told] == ["start", "part"]


def test_a_full_side_is_told_and_all_begins_again(service: WholeFutures, monkeypatch: pytest.MonkeyPatch) -> None:
    _, run = direct()
    capacities = iter([256, None])
    monkeypatch.setattr(futures, "next_capacity", lambda spec, capacity, run: next(capacities))
    monkeypatch.setattr(futures, "simulate_batch", lambda prepared, market, spec, batch, hooks: run)
    told = told_of(service, asked())
    assert [one.kind for one in told] == ["start", "again", "result"] and told[1].facts == {"capacity": 256}


@pytest.mark.parametrize(("changes", "part"), [
    ({"orders": {"time": ["10:00:00"], "side": ["buy"], "price": [10.001], "size": [1]}}, "steps of 0.01, got 10.001"),
    ({"orders": {"time": ["10:00:00"], "side": ["buy"], "price": [None], "size": [1]}}, "column price"),
    ({"orders": {"side": ["buy"], "price": [10], "size": [1]}}, "expected a column time"),
    ({"time": "09:00:00"}, "make no token"),
    ({"orders": {"time": ["09:59:00"] * 3, "type": ["B", "S", "C"], "price": [10, 11, 10], "volume": [100] * 3,
                 "cancel_type": [None, None, "buy"], "cancel_id": [None, None, 99]}}, "request: orders: "),
    ({"time": "23:59:00", "minutes": 5}, "past the end of continuous trading"),
])
def test_orders_that_lead_to_no_start_are_named(service: WholeFutures, changes: dict[str, Any], part: str) -> None:
    with pytest.raises(InputError) as error:
        service.run(asked(**changes), lambda told: None)
    assert part in str(error.value)


def test_a_day_that_is_not_served_is_named(service: WholeFutures) -> None:
    with pytest.raises(InputError, match="day: expected one of none, got 'quiet'"):
        service.run(of_record({"day": "quiet", "minutes": 1}), lambda told: None)


def test_all_programs_are_dropped_once_there_are_as_many_as_may_be(monkeypatch: pytest.MonkeyPatch) -> None:
    _, run = direct()
    dropped: list[float] = []
    monkeypatch.setattr(futures, "simulate_batch", lambda prepared, market, spec, batch, hooks: run)
    service = WholeFutures(PREPARED, "default", (), CHUNK, most_programs=4)
    for temperature in (1.0, 1.1, 1.1, 1.2, 1.0, 1.3, 1.4, 1.5):  # and each time the one that leads to the start
        monkeypatch.setattr(jax, "clear_caches", lambda temperature=temperature: dropped.append(temperature))
        told_of(service, asked(temperature=temperature))
    assert dropped == [1.0, 1.5]
    with pytest.raises(InputError, match="most_programs: expected at least 1"):
        WholeFutures(PREPARED, "default", (), CHUNK, most_programs=0)


@pytest.mark.slow
def test_programs_that_were_dropped_are_not_kept_and_are_made_anew_alike() -> None:
    next_orders = NextOrders(PREPARED, NextOrdersSpec((1,)))
    draw = Draw(np.zeros((1, next_orders.columns), np.int32), 1, 2)
    token, (device,) = next_orders.tokens([draw]), jax.local_devices()[:1]
    service = WholeFutures(PREPARED, "default", (), CHUNK, most_programs=1)
    kept, labels = [], []
    for temperature in (1.0, 1.1, 1.0):
        labels.append(joined(told_of(service, asked(temperature=temperature))))
        kept.append(len(device.client.live_executables()))
    assert labels[0] == labels[2] != labels[1] and max(kept[1:]) <= kept[0]
    assert next_orders.tokens([draw]) == token and next_orders.traces == 1
