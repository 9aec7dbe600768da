"""Orders with conditions against the plain-Python twins, and each condition by hand."""

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from marsjax.core import int64, times
from marsjax.core.kernels import ACCELERATOR
from marsjax.core.records import MAX_PRICE, NO_PRICE, Book, Condition, Kind, Order, Side, Status
from marsjax.core.specs import MarketSpec
from marsjax.market import book, exchange, orders
from marsjax.market.process import open_state, process
from marsjax.testing import tiny_model
from marsjax.tokens import encoding
from tests import twin
from tests.market import test_book, test_exchange
from tests.market.test_exchange import CONTINUOUS, assert_conserved, fields_of, flow_of, play, run, statuses
from tests.twin import Message, TwinBook, random_flow
from tests.twin_exchange import SECOND, SHORT_DAY, FlowParameters, stream_of

NARROW = MarketSpec(capacity=16, trade_width=3, levels=3, conditions=True)
DEEP = MarketSpec(capacity=1024, trade_width=16, conditions=True)
EXCHANGE = MarketSpec(capacity=16, trade_width=2, accounts=3, session=SHORT_DAY, conditions=True)
OF_CONDITIONS = {Status.BAD_CONDITION, Status.NOT_IN_AUCTION, Status.NOT_FILLED, Status.WOULD_TRADE,
                 Status.NO_BEST_PRICE}


@pytest.mark.parametrize(("spec", "length", "examples"), [
    (NARROW, 128, 25), (dataclasses.replace(NARROW, kernels=ACCELERATOR), 128, 10), (DEEP, 64, 4)],
    ids=["narrow", "accelerator", "deep"])
def test_book_equals_twin(spec: MarketSpec, length: int, examples: int) -> None:
    @settings(test_book.laws, max_examples=examples)
    @given(test_book.PARAMETERS, st.sampled_from([0.3, 0.9]))
    def check(parameters: twin.FlowParameters, rate: float) -> None:
        flow = random_flow(spec, length, dataclasses.replace(parameters, condition_rate=rate))
        test_book.assert_equal(test_book.run(spec, flow), flow.expected)

    check()


def test_random_flow_meets_every_status_of_the_book() -> None:
    flows = [random_flow(NARROW, 128, twin.FlowParameters(seed, fullness, invalid_rate=0.3, collected_rate=0.2,
                                                          condition_rate=0.7))
             for seed, fullness in enumerate((0.0, 0.1, 1.0, 1.0))]
    seen = set(np.concatenate([flow.expected["status"] for flow in flows]).tolist())
    assert seen == {*range(Status.DUPLICATE_ID + 1), *OF_CONDITIONS}


@pytest.mark.parametrize("spec", [EXCHANGE, dataclasses.replace(EXCHANGE, kernels=ACCELERATOR)],
                         ids=["cpu", "accelerator"])
def test_exchange_equals_twin_and_conserves_everything_after_every_order(spec: MarketSpec) -> None:
    @settings(test_exchange.laws, max_examples=15)
    @given(test_exchange.PARAMETERS, st.sampled_from([NO_PRICE, 100_000]), st.sampled_from([0.3, 0.9]))
    def check(parameters: FlowParameters, previous_close: int, rate: float) -> None:
        flow = flow_of(spec, dataclasses.replace(parameters, conditions=rate), previous_close=previous_close)
        steps = run(spec, exchange.open_market(spec, previous_close=previous_close), stream_of(flow.sent))
        got = fields_of(steps)
        for name, expected in flow.expected.items():
            np.testing.assert_array_equal(got[name], expected, err_msg=name)
        assert_conserved(steps.lost)

    check()


def test_the_random_flow_drops_shares_and_meets_the_statuses_of_conditions() -> None:
    flow = flow_of(EXCHANGE, FlowParameters(3, odd=0.1, conditions=0.9, reach=2))
    seen = set(flow.expected["status"].tolist())
    assert {Status.NOT_IN_AUCTION, Status.NOT_FILLED, Status.WOULD_TRADE} <= seen
    drops = [sum(flow_of(EXCHANGE, dataclasses.replace(CONTINUOUS, seed=seed, conditions=0.9)).twin.cancelled)
             for seed in range(2)]
    assert min(drops) > 0


def test_without_the_switch_a_condition_is_refused_and_never_ignored() -> None:
    spec = dataclasses.replace(EXCHANGE, conditions=False)
    flow = flow_of(spec, FlowParameters(3, conditions=0.5))
    steps = run(spec, exchange.open_market(spec), stream_of(flow.sent))
    np.testing.assert_array_equal(fields_of(steps)["status"], flow.expected["status"])
    assert np.sum(flow.expected["status"] == Status.BAD_CONDITION) > 10
    with pytest.raises(ValueError, match=r"MarketSpec\.conditions: expected a bool, got 1"):
        MarketSpec(conditions=1)  # type: ignore[arg-type]


ASKS = [Message(Kind.SELL, 100_100 + 100 * i, 100 * (i + 1), 1 + i) for i in range(3)]
BIDS = [Message(Kind.BUY, 99_900 - 100 * i, 100 * (i + 1), 11 + i) for i in range(3)]
"""Asks of 100, 200, 300 shares from 100,100 up and bids of as many from 99,900 down."""
submit = jax.jit(book.submit, static_argnums=0)


def full_book() -> Book:
    of = TwinBook(NARROW)
    for message in (*ASKS, *BIDS):
        of.submit(message)
    return of.book()


def sent(kind: Kind, condition: Condition, volume: int, price: int = 0) -> tuple[Book, Any, Status]:
    order = orders.limit_order(kind, price, volume, order_id=99, condition=condition)
    after, trades, status = submit(NARROW, full_book(), order)
    return after, trades, Status(int(status))


@pytest.mark.parametrize(("kind", "condition", "volume", "price", "status", "traded", "rests_at"), [
    # 300 shares stand up to 100,200: what is over is dropped, and nothing rests.
    (Kind.BUY, Condition.IMMEDIATE_OR_CANCEL, 500, 100_200, Status.ACCEPTED, 300, None),
    (Kind.BUY, Condition.IMMEDIATE_OR_CANCEL, 500, 100_000, Status.ACCEPTED, 0, None),
    (Kind.BUY, Condition.FILL_OR_KILL, 300, 100_200, Status.ACCEPTED, 300, None),
    (Kind.BUY, Condition.FILL_OR_KILL, 301, 100_200, Status.NOT_FILLED, 0, None),
    (Kind.SELL, Condition.POST_ONLY, 100, 99_900, Status.WOULD_TRADE, 0, None),
    (Kind.SELL, Condition.POST_ONLY, 100, 100_000, Status.ACCEPTED, 0, 100_000),
    (Kind.SELL, Condition.MARKET, 700, 0, Status.ACCEPTED, 600, None),
    (Kind.SELL, Condition.MARKET, 200, -5, Status.ACCEPTED, 200, None),
    (Kind.BUY, Condition.OWN_BEST, 100, 0, Status.ACCEPTED, 0, 99_900),
    (Kind.SELL, Condition.OWN_BEST, 100, 17, Status.ACCEPTED, 0, 100_100),
    # 100 shares stand at the best ask: the rest becomes the best bid there.
    (Kind.BUY, Condition.OPPOSITE_BEST, 250, 0, Status.ACCEPTED, 100, 100_100),
    (Kind.BUY, Condition.IMMEDIATE_OR_CANCEL, 100, 100_150, Status.BAD_PRICE, 0, None),
    (Kind.BUY, 7, 100, 100_100, Status.BAD_CONDITION, 0, None),
], ids=str)
def test_each_condition_by_hand(kind: Kind, condition: Condition, volume: int, price: int, status: Status, traded: int,
                                rests_at: int | None) -> None:
    after, trades, got = sent(kind, condition, volume, price)
    assert (got, int(int64.to_numpy(trades.volume))) == (status, traded)
    here = np.asarray(after.order_id) == 99
    assert here.sum() == (rests_at is not None)
    if rests_at is not None:
        assert np.asarray(after.price)[here].tolist() == [rests_at]
        assert np.asarray(after.volume)[here].tolist() == [int(trades.rest)] == [volume - traded]
    if status != Status.ACCEPTED:
        assert jax.tree.all(jax.tree.map(np.array_equal, after, full_book()))


@pytest.mark.parametrize("condition", [Condition.MARKET, Condition.OWN_BEST, Condition.OPPOSITE_BEST])
def test_without_a_best_price_there_is_no_limit(condition: Condition) -> None:
    order = orders.limit_order(Kind.BUY, 100_000, 100, 1, condition=condition)
    after, _, status = submit(NARROW, book.empty(NARROW), order)
    assert int(status) == Status.NO_BEST_PRICE and not np.any(after.volume)


@pytest.mark.parametrize("kind", [Kind.SELL, Kind.BUY])
def test_a_market_order_reaches_the_lowest_and_the_highest_price(kind: Kind) -> None:
    spec = dataclasses.replace(NARROW, tick=1)
    far = 1 if kind == Kind.SELL else MAX_PRICE
    after, _, _ = submit(spec, book.empty(spec), orders.limit_order(1 - kind, far, 100, 1))
    after, trades, status = submit(spec, after, orders.market_order(kind, 100, 2))
    assert (int(status), int(trades.price[0]), int(after.last_price)) == (Status.ACCEPTED, far, far)


def of(kind: Kind, condition: Condition, volume: int, at_s: float, price: int = 0) -> Order:
    return orders.limit_order(kind, price, volume, account=0, time=times.of_ns(int(at_s * SECOND)), condition=condition)


def test_in_a_call_auction_what_is_about_trading_at_once_is_refused_and_the_rest_collected() -> None:
    market, reports = play(
        EXCHANGE, of(Kind.BUY, Condition.REST, 100, 11, 99_900), of(Kind.SELL, Condition.REST, 100, 11, 99_800),
        *(of(Kind.BUY, condition, 100, 12, 99_900) for condition in (
            Condition.IMMEDIATE_OR_CANCEL, Condition.FILL_OR_KILL, Condition.POST_ONLY, Condition.MARKET)),
        of(Kind.BUY, Condition.OWN_BEST, 300, 13), of(Kind.BUY, Condition.OPPOSITE_BEST, 200, 13))
    assert statuses(reports) == [0, 0, *[Status.NOT_IN_AUCTION] * 4, 0, 0]
    assert [int(x.price) for x in reports[-2:]] == [99_900, 99_800]
    assert np.asarray(market.book.price[Side.BID, :4]).tolist() == [99_900, 99_900, 99_800, 0]


def test_what_is_dropped_counts_as_cancelled_and_reserves_nothing() -> None:
    market, reports = play(
        EXCHANGE, of(Kind.SELL, Condition.REST, 300, 31, 100_100), of(Kind.BUY, Condition.MARKET, 500, 32),
        of(Kind.SELL, Condition.IMMEDIATE_OR_CANCEL, 700, 33, 100_000))
    assert statuses(reports) == [0, 0, 0]
    assert [int(x.price) for x in reports] == [100_100, 100_100, 100_000]
    assert int64.to_numpy(market.counters.submitted).tolist() == [1000, 500]
    assert int64.to_numpy(market.counters.cancelled).tolist() == [700, 200]
    assert not np.any(int64.to_numpy(market.ledgers.reserved_cash))
    assert not np.any(int64.to_numpy(market.ledgers.reserved_shares))
    assert_conserved(exchange.conservation(market))


def test_the_token_of_an_order_without_a_price_is_that_of_the_limit_it_came_to_have() -> None:
    loaded = tiny_model()
    spec = MarketSpec(capacity=8, trade_width=4, levels=4, conditions=True)
    table = encoding.tables(loaded.spec.tokens, loaded.converters)
    send = jax.jit(lambda state, order: process(spec, table, state, order))
    start = jax.jit(lambda: open_state(spec))()
    clock = iter(range(36_000, 37_000))

    def limit(kind: Kind, price: int, volume: int, condition: Condition = Condition.REST, at_s: int | None = None
              ) -> Order:
        time = times.of_ns((next(clock) if at_s is None else at_s) * SECOND)
        return orders.limit_order(kind, price, volume, account=0, time=time, condition=condition)

    for order in (limit(Kind.SELL, 100_100, 100), limit(Kind.SELL, 100_300, 100), limit(Kind.BUY, 99_900, 100)):
        start, _ = send(start, order)
    for condition, price, volume in ((Condition.MARKET, 100_300, 200), (Condition.OWN_BEST, 99_900, 100),
                                     (Condition.OPPOSITE_BEST, 100_100, 300)):
        _, got = send(start, limit(Kind.BUY, 0, volume, condition, at_s=37_000))
        _, plain = send(start, limit(Kind.BUY, price, volume, at_s=37_000))
        assert int(got.order.price) == price and int(got.status) == Status.ACCEPTED
        assert jax.tree.all(jax.tree.map(np.array_equal, got.encoded, plain.encoded))
