"""Sessions, ids, accounts and counters of the exchange, against a plain-Python twin and by themselves."""

import collections
import dataclasses
import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marsjax.core import int64, times
from marsjax.core.kernels import ACCELERATOR
from marsjax.core.records import (
    EMPTY_PRICE,
    MAX_VOLUME,
    NO_ACCOUNT,
    NO_ID,
    NO_PRICE,
    Conservation,
    Kind,
    Market,
    Order,
    Report,
    Side,
    Status,
    Time,
)
from marsjax.core.sessions import Session
from marsjax.core.specs import AuctionRule, MarketSpec
from marsjax.market import cancels, exchange, orders
from tests.twin import Message
from tests.twin_exchange import (
    SECOND,
    SHORT_DAY,
    FlowParameters,
    FlowSource,
    Timed,
    TwinExchange,
    assert_market_equals,
    named,
    row,
    stream_of,
)

SPEC = MarketSpec(capacity=16, trade_width=2, accounts=3, session=SHORT_DAY)
WHOLE_LISTS = dataclasses.replace(SPEC, trade_width=16)
ON_ACCELERATOR = dataclasses.replace(SPEC, kernels=ACCELERATOR)
LENGTH = 192
laws = settings(max_examples=30, deadline=None)
PARAMETERS = st.builds(
    FlowParameters, seed=st.integers(0, 2**32 - 1), volumes=st.sampled_from(["lots", "lots", "huge"]),
    reach=st.sampled_from([1, 4, 20]), odd=st.sampled_from([0.0, 0.3]),
    start_ns=st.sampled_from([0, 5 * SECOND, 28 * SECOND]),
    mean_step_ns=st.sampled_from([SECOND // 5, 7 * SECOND // 10]))
CONTINUOUS = FlowParameters(5, odd=0.0, start_ns=30 * SECOND, mean_step_ns=SECOND // 10)
"""Nearly all of the flow comes before the break."""

TRACES: collections.Counter[str] = collections.Counter()


def jitted(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with a static spec; every trace of it is counted."""
    def call(spec: MarketSpec, *arguments: Any) -> Any:
        TRACES[function.__name__] += 1
        return function(spec, *arguments)

    return jax.jit(call, static_argnums=0)


def cancel_nearest(spec: MarketSpec, market: Market, named: Any, time: Time, asked: Any = True
                   ) -> tuple[Market, Report]:
    """Of the accounts OWN."""
    return exchange.cancel_nearest(spec, market, OWN, named, time, asked)


OWN = (0, 1)
step, submit, uncross, cancels_at_once, is_due = (jitted(function) for function in (
    exchange.step, exchange.submit, exchange.uncross, cancel_nearest, exchange.is_due))


class Steps(NamedTuple):
    """What a run saw after each of N orders; every leaf has N in front."""

    market: Market
    report: Report
    lost: Conservation


@functools.partial(jax.jit, static_argnums=0)
def run(spec: MarketSpec, market: Market, stream: Order) -> Steps:
    """Steps a stream of orders [N] one by one."""
    def one(market: Market, order: Order) -> tuple[Market, Steps]:
        market, report = exchange.step(spec, market, order)
        return market, Steps(market, report, exchange.conservation(market))

    return jax.lax.scan(one, market, stream)[1]


class Flow(NamedTuple):
    sent: list[Timed]
    expected: dict[str, np.ndarray]
    """Every field of the market and the report after each order, int64 [N, ...]."""
    twin: TwinExchange


def flow_of(spec: MarketSpec, parameters: FlowParameters, length: int = LENGTH, previous_close: int = NO_PRICE) -> Flow:
    twin = TwinExchange(spec, previous_close=previous_close)
    source = FlowSource(twin, parameters)
    sent, rows = [], []
    for _ in range(length):
        sent.append(source.draw())
        answer = twin.step(sent[-1])
        listed = {f"trades.{name}": x for name, x in answer.result.fields(spec.trade_width).items()}
        if listed["trades.kind"] == Kind.CANCEL:
            listed["trades.value"] = sum(price * volume for price, volume, *_ in answer.result.transactions)
        rows.append(twin.fields() | listed | {"status": answer.status, "order_id": answer.order_id,
                                            "price": answer.price})
    expected = {name: np.stack([np.asarray(one[name], np.int64) for one in rows]) for name in rows[0]}
    return Flow(sent, expected, twin)


def fields_of(steps: Steps) -> dict[str, np.ndarray]:
    got = named(steps.market) | named(steps.report)
    # Where nothing is listed, no side is meant.
    got["trades.side"] = np.where(got["trades.count"] > 0, got["trades.side"], 0)
    return got


def assert_conserved(lost: Conservation) -> None:
    for leaf in jax.tree.leaves(lost):
        assert not np.any(leaf)


def assert_bitwise_equal(a: Any, b: Any) -> None:
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        x, y = np.asarray(x), np.asarray(y)
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("spec", [SPEC, WHOLE_LISTS, ON_ACCELERATOR],
                         ids=["truncated lists", "whole lists", "accelerator"])
def test_exchange_equals_twin_and_conserves_everything_after_every_order(spec: MarketSpec) -> None:
    @laws
    @given(PARAMETERS, st.sampled_from([NO_PRICE, 100_000]))
    def check(parameters: FlowParameters, previous_close: int) -> None:
        flow = flow_of(spec, parameters, previous_close=previous_close)
        steps = run(spec, exchange.open_market(spec, previous_close=previous_close), stream_of(flow.sent))
        got = fields_of(steps)
        for name, expected in flow.expected.items():
            np.testing.assert_array_equal(got[name], expected, err_msg=name)
        assert_conserved(steps.lost)

    check()


def test_random_flow_meets_every_status_both_auctions_and_cut_lists() -> None:
    flows = [flow_of(SPEC, FlowParameters(seed, odd=0.4, reach=2)) for seed in range(6)]
    small = [flow_of(dataclasses.replace(SPEC, capacity=4), FlowParameters(seed)) for seed in range(2)]
    statuses = set(np.concatenate([flow.expected["status"] for flow in flows + small]).tolist())
    # `step` holds what is due, and a cancel that names its order is sent.
    of_conditions = {Status.BAD_CONDITION, Status.NOT_IN_AUCTION, Status.NOT_FILLED, Status.WOULD_TRADE,
                     Status.NO_BEST_PRICE}
    assert statuses == set(Status) - {Status.AUCTION_DUE, Status.NOTHING_TO_CANCEL} - of_conditions
    assert all(flow.twin.auctions == 2 for flow in flows)
    assert any(np.any(np.diff(flow.expected["counters.auctions"]) > 0) and flow.twin.truncated_lists for flow in flows)
    auction_volume = [flow.twin.traded - int(flow.expected["trades.volume"][np.isin(
        flow.expected["trades.kind"], [Kind.BUY, Kind.SELL])].sum()) for flow in flows]
    assert min(auction_volume) > 0


def test_cash_stays_exact_past_2_to_31_and_2_to_32() -> None:
    for volumes, most in (("blocks", 2**33), ("huge", 2**49)):
        flow = flow_of(SPEC, dataclasses.replace(CONTINUOUS, volumes=volumes, reach=1))
        assert np.abs(flow.expected["ledgers.cash"]).max() > most
        steps = run(SPEC, exchange.open_market(SPEC), stream_of(flow.sent))
        np.testing.assert_array_equal(int64.to_numpy(steps.market.ledgers.cash), flow.expected["ledgers.cash"])


def limit(kind: Kind, price: int, volume: int, at_s: float, account: int = 0, order_id: int = NO_ID) -> Order:
    return orders.limit_order(kind, price, volume, order_id, account, times.of_ns(int(at_s * SECOND)))


def cancel(side: Side, cancel_id: int, volume: int, at_s: float) -> Order:
    return orders.cancel_order(side, cancel_id, volume, account=0, time=times.of_ns(int(at_s * SECOND)))


def play(spec: MarketSpec, *sent: Order, market: Market | None = None) -> tuple[Market, list[Report]]:
    """Steps some orders one by one, with the compilation of `run`: what follows them is no order, at no time."""
    stream = orders.pad(jax.tree.map(lambda *x: np.stack(x).astype(np.int32), *sent), LENGTH)
    steps = jax.tree.map(np.asarray, run(spec, exchange.open_market(spec) if market is None else market, stream))
    return row(steps.market, len(sent) - 1), [row(steps.report, i) for i in range(len(sent))]


def statuses(reports: list[Report]) -> list[int]:
    return [int(report.status) for report in reports]


EDGES = {10: (Status.CLOSED, Status.ACCEPTED), 20: (Status.ACCEPTED, Status.ACCEPTED),
         25: (Status.CLOSED, Status.CLOSED), 30: (Status.CLOSED, Status.ACCEPTED),
         60: (Status.ACCEPTED, Status.ACCEPTED),
         65: (Status.CLOSED, Status.CLOSED), 70: (Status.CLOSED, Status.ACCEPTED),
         100: (Status.ACCEPTED, Status.ACCEPTED), 110: (Status.ACCEPTED, Status.ACCEPTED)}
"""What becomes of an order one nanosecond before a second, and at it; a period holds both of its ends."""


@pytest.mark.parametrize(("at_ns", "status"), [
    *((second * SECOND - 1 + i, status) for second, pair in EDGES.items() for i, status in enumerate(pair)),
    (20 * SECOND + 1, Status.CLOSED), (60 * SECOND + 1, Status.CLOSED), (100 * SECOND + 1, Status.ACCEPTED),
    (110 * SECOND + 1, Status.CLOSED)])
def test_orders_outside_the_periods_are_closed_and_change_nothing(at_ns: int, status: Status) -> None:
    before = exchange.open_market(SPEC)
    order = orders.limit_order(Kind.BUY, 100_000, 100, account=0, time=times.of_ns(at_ns))
    after, (report,) = play(SPEC, order)
    assert int(report.status) == status
    assert int(after.counters.status[status]) == 1
    if status == Status.CLOSED:
        assert int(report.order_id) == NO_ID
        assert_bitwise_equal((after.book, after.ledgers, after.next_id),
                             (before.book, before.ledgers, before.next_id))
        assert int64.to_numpy(after.counters.submitted).tolist() == [0, 0]


def test_collected_orders_match_in_continuous_trading_only() -> None:
    market, reports = play(SPEC, limit(Kind.BUY, 100_100, 100, 12), limit(Kind.SELL, 99_900, 300, 13))
    assert statuses(reports) == [0, 0] and [int(x.trades.count) for x in reports] == [0, 0]
    market, reports = play(SPEC, limit(Kind.BUY, 100_100, 100, 31, 1), market=market)
    # The auction traded 100 at 99,900; the buyer then took 100 of the 200 shares that were left there.
    assert int(market.counters.auctions) == 1
    assert (int(reports[0].trades.count), int(reports[0].trades.price[0])) == (1, 99_900)
    assert int(int64.to_numpy(market.counters.traded)) == 200
    assert int64.to_numpy(market.ledgers.holdings).tolist() == [-100, 100, 0, 0]


def test_the_last_price_of_an_auction_is_none_and_the_previous_close_breaks_its_ties() -> None:
    crossing = limit(Kind.BUY, 100_400, 100, 12), limit(Kind.SELL, 99_900, 100, 13)
    for previous_close, price in ((NO_PRICE, 99_900), (100_400, 100_400), (99_000, 99_900)):
        market, _ = play(SPEC, *crossing, market=exchange.open_market(SPEC, previous_close=previous_close))
        market, result = uncross(SPEC, market)
        assert int(result.price) == price
        assert int(market.book.last_price) == NO_PRICE


@pytest.mark.parametrize("rule", [AuctionRule.SHANGHAI, AuctionRule.SHENZHEN])
def test_auctions_by_the_rules_of_exchanges_equal_twin_and_conserve_everything(rule: AuctionRule) -> None:
    spec = dataclasses.replace(SPEC, auction_rule=rule)
    for seed in range(4):
        flow = flow_of(spec, FlowParameters(seed, odd=0.1, reach=8, start_ns=10 * SECOND), previous_close=100_300)
        assert flow.twin.auctions == 2 and flow.twin.traded
        steps = run(spec, exchange.open_market(spec, previous_close=100_300), stream_of(flow.sent))
        got = fields_of(steps)
        for name, expected in flow.expected.items():
            np.testing.assert_array_equal(got[name], expected, err_msg=name)
        assert_conserved(steps.lost)


def test_in_shenzhen_the_price_of_an_auction_is_the_reference_of_the_next() -> None:
    spec = dataclasses.replace(SPEC, auction_rule=AuctionRule.SHENZHEN)
    sent = [*(limit(Kind.BUY, 100_800, 100, at_s) for at_s in (12, 102)),
            *(limit(Kind.SELL, 99_900, 100, at_s) for at_s in (13, 103))]
    for close, price in ((NO_PRICE, 99_900), (100_240, 100_200), (102_000, 100_800)):
        market = exchange.open_market(spec, previous_close=close)
        market, result = uncross(spec, play(spec, sent[0], sent[2], market=market)[0])
        assert (int(result.price), int(market.previous_close)) == (price, price)
        _, result = uncross(spec, play(spec, sent[1], sent[3], market=market)[0])
        assert int(result.price) == price


def test_a_due_auction_is_named_by_submit_and_held_by_step() -> None:
    market, _ = play(SPEC, limit(Kind.BUY, 100_000, 100, 12), limit(Kind.SELL, 100_000, 100, 13))
    late = limit(Kind.BUY, 99_000, 100, 31)
    assert bool(is_due(SPEC, market, late.time)) and not bool(is_due(SPEC, market, times.of_ns(25 * SECOND)))
    refused, report = submit(SPEC, market, late)
    assert int(report.status) == Status.AUCTION_DUE
    assert int(refused.counters.status[Status.AUCTION_DUE]) == 1
    assert_bitwise_equal((refused.book, refused.ledgers), (market.book, market.ledgers))
    # Outside the periods an order is closed, whether an auction is due or not; one of the past is of the past first.
    for at_s, account, status in ((65, 0, Status.CLOSED), (12, 0, Status.BAD_TIME), (31, 3, Status.AUCTION_DUE)):
        assert int(submit(SPEC, market, limit(Kind.BUY, 99_000, 100, at_s, account))[1].status) == status
    held, (report,) = play(SPEC, late, market=market)
    assert int(report.status) == Status.ACCEPTED
    assert (int(held.counters.auctions), int(int64.to_numpy(held.counters.traded))) == (1, 100)
    # The two ways are one.
    assert_bitwise_equal(held, submit(SPEC, uncross(SPEC, market)[0], late)[0])
    # The day's last order, long after, holds both auctions.
    both, _ = play(SPEC, limit(Kind.BUY, 99_000, 100, 120), market=market)
    assert (int(both.counters.auctions), int(times.to_ns(both.time))) == (2, 120 * SECOND)


def test_no_auction_is_left_after_the_last_one() -> None:
    market, _ = play(SPEC, limit(Kind.BUY, 100_000, 100, 12), limit(Kind.SELL, 100_000, 100, 13))
    for number in (1, 2):
        market, _ = uncross(SPEC, market)
        assert int(market.counters.auctions) == number
        assert int(times.to_ns(market.time)) == (25, 110)[number - 1] * SECOND
    again, result = uncross(SPEC, market)
    assert_bitwise_equal(again, market)
    assert (int(result.price), int(np.sum(result.fill))) == (NO_PRICE, 0)


def test_orders_of_the_past_and_of_unknown_accounts_are_refused() -> None:
    market, reports = play(SPEC, limit(Kind.BUY, 100_000, 100, 50), limit(Kind.BUY, 100_000, 100, 49.999999999),
                           limit(Kind.BUY, 100_000, 100, 50, 3), limit(Kind.BUY, 100_000, 100, 50, -2),
                           limit(Kind.BUY, 100_000, 100, 50, NO_ACCOUNT), limit(Kind.BUY, 100_000, 100, 50, 2))
    assert statuses(reports) == [Status.ACCEPTED, Status.BAD_TIME, Status.BAD_ACCOUNT, Status.BAD_ACCOUNT,
                                 Status.ACCEPTED, Status.ACCEPTED]
    assert [int(x.order_id) for x in reports] == [0, NO_ID, NO_ID, NO_ID, 1, 2]
    assert int64.to_numpy(market.ledgers.reserved_cash).tolist() == [10**7, 0, 10**7, 10**7]


def test_ids_grow_by_one_with_every_accepted_order_and_given_ones_are_kept() -> None:
    market = exchange.open_market(SPEC, first_id=7)
    market, reports = play(
        SPEC, limit(Kind.BUY, 100_000, 100, 31), cancel(Side.BID, 7, 50, 32), cancel(Side.BID, 99, 50, 32),
        limit(Kind.SELL, 100_050, 100, 33), limit(Kind.SELL, 100_100, 100, 34),
        limit(Kind.BUY, 99_000, 100, 35, 0, 20), limit(Kind.BUY, 99_000, 100, 36),
        limit(Kind.BUY, 99_000, 100, 37, 0, 20), limit(Kind.BUY, 99_000, 100, 38, 0, 3),
        limit(Kind.BUY, 99_000, 100, 39), limit(Kind.BUY, 99_000, 100, 65), limit(Kind.BUY, 99_000, 100, 70),
        market=market)
    assert [int(x.order_id) for x in reports] == [7, 8, NO_ID, NO_ID, 9, 20, 21, NO_ID, 3, 22, NO_ID, 23]
    assert int(market.next_id) == 24
    assert np.asarray(market.book.order_id[Side.BID, :7]).tolist() == [7, 20, 21, 3, 22, 23, NO_ID]


def test_a_sweep_past_its_list_settles_every_account() -> None:
    sent = [limit(Kind.SELL, 100_000 + 100 * i, 100 * (i + 1), 31, account=i % 3) for i in range(8)]
    market, (*_, report) = play(SPEC, *sent, limit(Kind.BUY, 100_600, 2600, 32, account=2))
    # 100 to 600 fill whole, 500 of the 700 at 100,600 in part; the list shows two of seven.
    assert (int(report.trades.count), bool(report.trades.is_truncated), int(report.trades.partial)) == (7, True, 500)
    by_account = {0: [(0, 100), (3, 400), (6, 500)], 1: [(1, 200), (4, 500)], 2: [(2, 300), (5, 600)]}
    got = {account: sum(volume * (100_000 + 100 * i) for i, volume in fills) for account, fills in by_account.items()}
    got[2] -= sum(got.values())
    assert int64.to_numpy(market.ledgers.cash).tolist() == [got[0], got[1], got[2], 0]
    assert int64.to_numpy(market.ledgers.holdings).tolist() == [-1000, -700, 2600 - 900, 0]
    assert int64.to_numpy(market.ledgers.reserved_shares).tolist() == [200, 800, 0, 0]
    assert int(market.counters.truncated_lists) == 1


def test_counters_of_a_small_day() -> None:
    market, _ = play(
        SPEC, limit(Kind.SELL, 100_100, 300, 31), limit(Kind.SELL, 100_200, 200, 32),
        limit(Kind.BUY, 100_000, 500, 33), limit(Kind.BUY, 100_200, 400, 34, 1), cancel(Side.BID, 2, 200, 35),
        cancel(Side.ASK, 1, 100, 36), cancel(Side.ASK, 1, 100, 37), limit(Kind.BUY, 0, 100, 38),
        orders.no_order(times.of_ns(39 * SECOND)))
    counters = named(market.counters)
    expected = np.zeros(len(Status), np.int64)
    expected[[Status.ACCEPTED, Status.UNKNOWN_ID, Status.BAD_PRICE]] = 6, 1, 1
    np.testing.assert_array_equal(counters.pop("status"), expected)
    assert {name: x.tolist() for name, x in counters.items()} == {
        "submitted": [500, 900], "cancelled": [100, 200], "traded": 400, "value": 300 * 100_100 + 100 * 100_200,
        "fills": 2, "truncated_lists": 0, "most_resting": [2, 1], "auctions": 1}
    assert int(times.to_ns(market.time)) == 38 * SECOND


def test_cancels_of_an_auction_free_what_was_reserved_but_show_no_price() -> None:
    market, reports = play(SPEC, limit(Kind.BUY, 100_100, 500, 12), cancel(Side.BID, 0, 200, 13))
    trades = reports[1].trades
    assert (int(trades.price[0]), int(trades.volume_each[0]), int(trades.resting_id[0])) == (EMPTY_PRICE, 200, 0)
    assert int(int64.to_numpy(trades.value)) == 0
    assert int64.to_numpy(market.ledgers.reserved_cash).tolist() == [300 * 100_100, 0, 0, 0]


def asked_for(price: int, volume: int, upper_wins: bool = False) -> tuple[np.int32, np.int32, np.bool_]:
    return np.int32(price), np.int32(volume), np.bool_(upper_wins)


def wanted(market: Market, seed: int) -> tuple[np.int32, np.int32, np.bool_]:
    """A price near one that rests, and shares: few, many, all there can be, none, or a negative number."""
    rng = np.random.default_rng(seed)
    prices = np.asarray(market.book.price)
    price = rng.choice(prices[prices > 0]) if np.any(prices > 0) else 100_000
    return asked_for(price + 50 * rng.integers(-2, 3), rng.choice([1, 300, 5000, MAX_VOLUME, MAX_VOLUME, 0, -5]),
                     rng.random() < 0.5)


def to_take(market: Market, named: tuple[np.int32, np.int32, np.bool_]) -> np.ndarray:
    """Shares that they take off each resting order, int32 [2, C]."""
    own = np.isin(market.book.account, OWN)
    return np.maximum(jax.jit(cancels.nearest, static_argnums=0)(SPEC, market.book, own, *named), 0)


def one_by_one(spec: MarketSpec, market: Market, take: np.ndarray, time: Time) -> tuple[Market, list[list[Report]]]:
    """The same cancels, each sent as an order: asks first, each side in order of priority."""
    reports: list[list[Report]] = [[], []]
    before = jax.tree.map(np.asarray, market.book)
    for side in Side:
        for slot in range(spec.capacity):
            volume = min(int(take[side, slot]), int(before.volume[side, slot]))
            if volume > 0:
                order = orders.cancel_order(side, before.order_id[side, slot], volume, time=time)
                market, report = submit(spec, market, order)
                reports[side].append(report)
    return market, reports


@settings(laws, max_examples=25)
@given(st.integers(0, 1000), st.sampled_from(["lots", "huge"]), st.sampled_from([1, 8]), st.integers(0, 2**32 - 1))
def test_many_cancels_at_once_equal_the_same_one_by_one(flow_seed: int, volumes: str, reach: int, seed: int) -> None:
    flow = flow_of(SPEC, dataclasses.replace(CONTINUOUS, seed=flow_seed, volumes=volumes, reach=reach))
    market = row(run(SPEC, exchange.open_market(SPEC), stream_of(flow.sent)).market, 60)
    named, time = wanted(market, seed), times.of_ns(flow.sent[60].time_ns + 5)
    together, report = cancels_at_once(SPEC, market, named, time)
    apart, of_sides = one_by_one(SPEC, market, to_take(market, named), time)
    assert not (of_sides[Side.ASK] and of_sides[Side.BID])
    reports = of_sides[Side.ASK] + of_sides[Side.BID]
    truncated = len(reports) > SPEC.trade_width
    # Where there is nothing to take, that is counted, once.
    expected = Status.ACCEPTED if reports else Status.NOTHING_TO_CANCEL
    status = np.asarray(apart.counters.status) + np.int32(expected == np.arange(len(Status))) * np.int32(not reports)
    apart = dataclasses.replace(apart, counters=dataclasses.replace(
        apart.counters, status=status, truncated_lists=apart.counters.truncated_lists + np.int32(truncated)))
    assert_bitwise_equal(together, apart)
    assert_conserved(exchange.conservation(together))
    assert int(report.status) == expected
    assert int(report.order_id) == (int(reports[0].order_id) if reports else NO_ID)
    assert (int(report.trades.count), bool(report.trades.is_truncated)) == (len(reports), truncated)
    assert not reports or int(report.trades.side) == int(reports[0].trades.side)
    for name in ("price", "volume_each", "resting_id", "resting_account"):
        values = [int(getattr(x.trades, name)[0]) for x in reports][:SPEC.trade_width]
        assert np.asarray(getattr(report.trades, name)).tolist()[:len(values)] == values
    for name in ("volume", "value"):
        assert int(int64.to_numpy(getattr(report.trades, name))) == sum(
            int(int64.to_numpy(getattr(x.trades, name))) for x in reports)


@pytest.mark.parametrize(("at_s", "status"), [(5, Status.BAD_TIME), (12, Status.CLOSED), (27, Status.CLOSED),
                                              (31, Status.AUCTION_DUE), (65, Status.CLOSED)])
def test_many_cancels_outside_continuous_trading_change_nothing(at_s: int, status: Status) -> None:
    market, _ = play(SPEC, limit(Kind.BUY, 100_000, 500, 11), limit(Kind.SELL, 100_100, 500, 11.5))
    for price in (100_000, 100_100):
        after, report = cancels_at_once(SPEC, market, asked_for(price, 100), times.of_ns(at_s * SECOND))
        assert int(report.status) == status
        assert int(report.order_id) == NO_ID
        assert not np.any(report.trades.count)
        assert int(after.counters.status[status]) == 1
        assert_bitwise_equal((after.book, after.ledgers, after.next_id, after.time),
                             (market.book, market.ledgers, market.next_id, market.time))


def test_many_cancels_that_are_refused_count_as_many_orders() -> None:
    """Of both sides, where a call auction collects at one price."""
    market, _ = play(SPEC, limit(Kind.BUY, 100_000, 500, 11), limit(Kind.SELL, 100_000, 500, 11.5))
    for volume, count in ((500, 1), (501, 2)):
        after, _ = cancels_at_once(SPEC, market, asked_for(100_000, volume), times.of_ns(27 * SECOND))
        assert int(after.counters.status[Status.CLOSED]) == count
        assert int(after.counters.status.sum()) == 2 + count


@pytest.mark.parametrize("at_s", [5, 27, 40, 105])
def test_a_cancel_that_hits_nothing_says_so_at_any_time_and_sends_nothing(at_s: int) -> None:
    orders_of = [limit(Kind.BUY, 100_000, 500, 31), limit(Kind.BUY, 100_000, 500, 31, account=2)]
    for order, volume in zip((*orders_of, orders_of[0]), (-3, 500, 0), strict=True):
        # No shares are named, or the one order that rests is another account's.
        market, _ = play(SPEC, order)
        after, report = cancels_at_once(SPEC, market, asked_for(100_000, volume), times.of_ns(at_s * SECOND))
        assert int(report.status) == Status.NOTHING_TO_CANCEL
        assert int(report.order_id) == NO_ID
        assert not np.any(report.trades.count) and int(report.trades.kind) == Kind.NONE
        change = np.asarray(after.counters.status) - np.asarray(market.counters.status)
        assert change.tolist() == [int(status == Status.NOTHING_TO_CANCEL) for status in Status]
        counters = dataclasses.replace(after.counters, status=market.counters.status)
        assert_bitwise_equal(dataclasses.replace(after, counters=counters), market)


def test_where_no_cancel_is_asked_for_nothing_happens() -> None:
    market, _ = play(SPEC, limit(Kind.BUY, 100_000, 500, 31))
    for volume in (0, 100):
        named = asked_for(100_000, volume)
        after, report = cancels_at_once(SPEC, market, named, times.of_ns(40 * SECOND), np.bool_(False))
        assert_bitwise_equal(after, market)
        assert int(report.status) == Status.NO_ORDER
        assert not np.any(report.trades.count)
    asked, _ = cancels_at_once(SPEC, market, named, times.of_ns(40 * SECOND), np.bool_(True))
    assert int(asked.book.volume[Side.BID, 0]) == 400
    assert int(times.to_ns(asked.time)) == 40 * SECOND


def test_refusals_are_all_but_what_was_done_or_never_sent() -> None:
    assert {status for status in Status if not status.is_refusal} == {
        Status.ACCEPTED, Status.NO_ORDER, Status.NOTHING_TO_CANCEL}


def test_a_program_of_conservation_does_not_grow_with_the_accounts() -> None:
    lengths = set()
    for accounts in (1, 1024):
        market = exchange.open_market(MarketSpec(capacity=4, accounts=accounts))
        lengths.add(str(jax.make_jaxpr(exchange.conservation)(market)).count("\n"))
    assert len(lengths) == 1


def test_conservation_names_what_was_lost_on_each_side_and_account() -> None:
    market, _ = play(SPEC, limit(Kind.BUY, 100_000, 500, 31), limit(Kind.SELL, 100_100, 300, 32, 1))
    assert_conserved(exchange.conservation(market))

    def lost(**ledgers: list[int]) -> dict[str, Any]:
        """What is found where the accounts hold something else."""
        wrong = {name: int64.from_numpy(np.array(x)) for name, x in ledgers.items()}
        found = exchange.conservation(dataclasses.replace(market, ledgers=dataclasses.replace(market.ledgers, **wrong)))
        values = {x.name: int64.to_numpy(getattr(found, x.name)).tolist() for x in dataclasses.fields(found)}
        return {name: x for name, x in values.items() if np.any(x)}

    assert lost(cash=[2**40, -1, -(2**50), 0]) == {"cash": 2**40 - 1 - 2**50}
    assert lost(holdings=[0, 2**31, 2**31, 7]) == {"holdings": 2**32 + 7}
    assert lost(reserved_cash=[5 * 10**7, 0, 0, -3]) == {"reserved_cash": -3}
    assert lost(reserved_shares=[0, 299, 0, 0]) == {"reserved_shares": -1}
    volume = np.asarray(market.book.volume).copy()
    volume[Side.ASK, 0], volume[Side.BID, 0] = 250, 501
    found = exchange.conservation(dataclasses.replace(market, book=dataclasses.replace(market.book, volume=volume)))
    assert int64.to_numpy(found.shares).tolist() == [50, -1]
    assert (int(int64.to_numpy(found.reserved_shares)), int(int64.to_numpy(found.reserved_cash))) == (50, -100_000)


def test_vmap_over_symbols_equals_loop() -> None:
    flows = [flow_of(SPEC, FlowParameters(seed, odd=0.3, volumes=volumes))
             for seed, volumes in enumerate(("lots", "huge", "lots", "lots"))]
    streams = [stream_of(flow.sent) for flow in flows]
    start, sent = exchange.open_market(SPEC), jax.tree.map(lambda *x: np.stack(x, axis=1), *streams)
    many = jax.jit(jax.vmap(functools.partial(exchange.step, SPEC)))
    now, seen = jax.tree.map(lambda x: np.stack([x] * 4), start), []
    for i in range(LENGTH):
        seen.append(jax.tree.map(np.asarray, many(now, row(sent, i))))
        now = seen[-1][0]
    together = jax.tree.map(lambda *x: np.stack(x, axis=1), *seen)
    for i, stream in enumerate(streams):
        assert_bitwise_equal(row(together, i), run(SPEC, start, stream)[:2])
    markets = seen[100][0]
    takes = jax.tree.map(lambda *x: np.stack(x), *(wanted(row(markets, i), i) for i in range(4)))
    moments = jax.tree.map(lambda *x: np.stack(x), *(times.of_ns(t * SECOND) for t in (50, 75, 75, 65)))
    for function, arguments in ((cancels_at_once, (takes, moments)), (uncross, ())):
        all_at_once = jax.vmap(functools.partial(function, SPEC))(markets, *arguments)
        for i in range(4):
            assert_bitwise_equal(row(all_at_once, i), function(SPEC, *row((markets, *arguments), i)))


def test_contents_never_retrace() -> None:
    stream = stream_of(flow_of(SPEC, FlowParameters(3)).sent)
    sent = [limit(Kind.BUY, 100_000, 100, 12), cancel(Side.BID, 0, 50, 13), orders.no_order(times.of_ns(5)),
            orders.limit_order(np.int32(0), np.array(99_900), np.int64(100), account=np.int32(1)),
            orders.limit_order(0, 99_900, 100, time=Time(np.int32(5), np.int32(6))),
            *(row(stream, i) for i in range(0, LENGTH, 40))]
    market, counts = exchange.open_market(SPEC), []
    for i, order in enumerate(sent):
        spec = MarketSpec(capacity=16, trade_width=2, accounts=3, session=Session(tuple(SHORT_DAY.periods)))
        step.eval_shape(spec, market, order)
        market, _ = submit(spec, market, order)
        market, _ = cancels_at_once(spec, market, asked_for(99_900, i, i % 2 > 0), order.time)
        market, _ = uncross(spec, market)
        counts.append(dict(TRACES))
    assert set(counts[0]) >= {"step", "submit", "cancel_nearest", "uncross"}
    assert counts[0]["step"] == 1 and all(count == counts[0] for count in counts)


def test_every_array_of_a_new_market_has_a_buffer_of_its_own() -> None:
    leaves = jax.tree.leaves(exchange.open_market(SPEC))
    assert len({x.unsafe_buffer_pointer() for x in leaves}) == len(leaves)


def test_market_fields_and_twin_fields_are_the_same() -> None:
    market = exchange.open_market(SPEC)
    assert set(named(market)) == set(TwinExchange(SPEC).fields())
    assert_market_equals(market, TwinExchange(SPEC))


def test_64_bit_mode_changes_neither_types_nor_results() -> None:
    """Orders, call auctions and many cancels at once."""
    flow = flow_of(SPEC, FlowParameters(11, odd=0.3, volumes="huge"))
    stream, time, taken = stream_of(flow.sent), times.of_ns(90 * SECOND), asked_for(100_000, 3)
    begin = functools.partial(exchange.open_market, SPEC, first_id=5, previous_close=100_000)
    steps = run(SPEC, begin(), stream)
    expected = steps.market, steps.report, cancels_at_once(SPEC, row(steps.market, 90), taken, time)
    with jax.enable_x64(True):
        market, seen = begin(), []
        for i in range(LENGTH):
            market, report = step(SPEC, market, row(stream, i))
            seen.append(jax.tree.map(np.asarray, (market, report)))
        got = *jax.tree.map(lambda *x: np.stack(x), *seen), cancels_at_once(SPEC, seen[90][0], taken, time)
        lost, nothing = jax.jit(lambda market: (exchange.conservation(market), cancel_nearest(
            SPEC, market, taken, time, False)))(market)
    assert {str(x.dtype) for x in jax.tree.leaves((lost, nothing))} == {"int32", "uint32", "bool"}
    assert_conserved(lost)
    assert {str(x.dtype) for x in jax.tree.leaves(got)} == {"int32", "uint32", "bool"}
    assert_bitwise_equal(got, expected)


def test_messages_of_the_twin_are_orders() -> None:
    message = Message(Kind.CANCEL, 0, 5, NO_ID, Side.BID, 7, NO_ACCOUNT)
    order = row(stream_of([Timed(3 * SECOND + 1, message)]), 0)
    assert_bitwise_equal(order, orders.cancel_order(Side.BID, 7, 5, time=times.of_ns(3 * SECOND + 1)))
