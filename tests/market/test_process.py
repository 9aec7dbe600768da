"""Laws of the one way for an order: what does not happen changes nothing, and a cancel by price is one event."""

import dataclasses
import functools

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from marsjax.core import int64, times
from marsjax.core.records import NO_ID, Kind, Order, Side, Status
from marsjax.core.sessions import chinese_session, continuous_session
from marsjax.core.specs import MarketSpec
from marsjax.core.times import DAY_NS
from marsjax.market import exchange, orders
from marsjax.market.process import ByPrice, Event, MarketState, open_state, process

SPEC = MarketSpec(capacity=8, trade_width=4, accounts=4, session=continuous_session(0, DAY_NS - 1))
OWN = (1, 2)
"""Accounts whose orders a cancel by price takes back."""


def timed(order: Order) -> Order:
    return jax.tree.map(jnp.asarray, dataclasses.replace(order, time=times.of_ns(10**9)))


@jax.jit
def send(state: MarketState, order: Order, happens: bool, is_by_price: bool, upper_wins: bool, own_only: bool,
         word: jax.Array | None = None) -> tuple[MarketState, Event]:
    return process(SPEC, None, state, order, happens=happens, source=jnp.int32(3),
                   by_price=ByPrice(is_by_price, OWN, upper_wins, word), own_only=own_only)


@functools.cache
def resting() -> MarketState:
    """Bids of accounts 0 to 3 at 99,700 (0), 99,800 (1), 99,900 (3), 100,000 (2); two asks of account 1 at 100,200."""
    state = open_state(SPEC, with_tokens=False)
    for account, price in ((0, 99_700), (1, 99_800), (3, 99_900), (2, 100_000)):
        state, _ = sent(state, orders.limit_order(Kind.BUY, price, 100, account=account))
    for _ in range(2):
        state, _ = sent(state, orders.limit_order(Kind.SELL, 100_200, 100, account=1))
    return state


def sent(state: MarketState, order: Order, happens: bool = True, is_by_price: bool = False, upper_wins: bool = False,
         own_only: bool = False, word: int | None = None) -> tuple[MarketState, Event]:
    return send(state, timed(order), happens, is_by_price, upper_wins, own_only,
                word if word is None else np.uint32(word))


def cancel_near(price: int, volume: int) -> Order:
    return dataclasses.replace(orders.limit_order(Kind.BUY, price, volume, account=1), kind=np.int32(Kind.CANCEL))


def bids(state: MarketState) -> list[int]:
    book = state.market.book
    return np.asarray(book.price[Side.BID])[np.asarray(book.volume[Side.BID]) > 0].tolist()


def counted(before: MarketState, after: MarketState) -> dict[str, int]:
    status = np.asarray(after.market.counters.status) - np.asarray(before.market.counters.status)
    return {Status(i).name: int(n) for i, n in enumerate(status) if n}


@pytest.mark.parametrize("name", ["limit", "cancel", "cancel by price"])
def test_an_order_that_does_not_happen_changes_nothing(name: str) -> None:
    order = {"limit": orders.limit_order(Kind.BUY, 100_200, 100, account=1),
             "cancel": orders.cancel_order(Side.BID, 1, 100), "cancel by price": cancel_near(99_900, 100)}[name]
    is_by_price = name == "cancel by price"
    after, event = sent(resting(), order, happens=False, is_by_price=is_by_price)
    chex.assert_trees_all_equal(after, resting())
    assert not event.happened and event.orders == 0
    # And it is one that would have changed something.
    happened, event = sent(resting(), order, is_by_price=is_by_price)
    assert event.happened and event.orders == 1 and event.source == 3
    assert counted(resting(), happened) == {"ACCEPTED": 1}


def test_a_cancel_by_price_takes_the_nearest_order_of_its_accounts_and_ties_go_as_they_are_told() -> None:
    """At equal distance of 99,900 are 99,800 and 100,000; that price itself is another account's."""
    for upper_wins, left in ((False, [100_000, 99_900, 99_700]), (True, [99_900, 99_800, 99_700])):
        after, event = sent(resting(), cancel_near(99_900, 100), is_by_price=True, upper_wins=upper_wins)
        assert bids(after) == left and counted(resting(), after) == {"ACCEPTED": 1}
        assert event.is_by_price and event.order.cancel_side == Side.BID and event.status == Status.ACCEPTED
    # Below them all: that of account 0 is nearer, and not to be taken.
    after, _ = sent(resting(), cancel_near(99_600, 100), is_by_price=True)
    assert bids(after) == [100_000, 99_900, 99_700]


def test_a_cancel_by_price_that_comes_to_several_orders_is_one_event() -> None:
    after, event = sent(resting(), cancel_near(100_300, 200), is_by_price=True)
    assert event.orders == 2 and event.trades.count == 2 and event.order.cancel_side == Side.ASK
    assert event.order_id == resting().market.next_id and after.market.next_id == resting().market.next_id + 2
    assert counted(resting(), after) == {"ACCEPTED": 2}
    np.testing.assert_array_equal(event.before.ask_price, resting().view.ask_price)
    np.testing.assert_array_equal(event.view.ask_price, after.view.ask_price)


@pytest.mark.parametrize(("word", "order_id", "shares"), [(0, 5, 100), (2**32 - 1, 4, 100)])
def test_a_cancel_of_a_whole_order_takes_what_is_left_of_one(word: int, order_id: int, shares: int) -> None:
    after, event = sent(resting(), cancel_near(100_300, 70), is_by_price=True, word=word)
    assert event.is_by_price and event.orders == 1 and event.order.cancel_side == Side.ASK
    assert event.trades.count == 1 and int64.to_numpy(event.trades.volume) == shares  # more than the 70 named
    assert event.trades.resting_id[0] == order_id and event.trades.volume_each[0] == shares
    assert event.order_id == resting().market.next_id and after.market.next_id == resting().market.next_id + 1
    assert counted(resting(), after) == {"ACCEPTED": 1}
    assert not any(np.asarray(x).any() for x in jax.tree.leaves(exchange.conservation(after.market)))


def test_a_cancel_of_a_whole_order_knows_orders_by_what_trades_have_left_of_them() -> None:
    """30 of the older ask of 100 are bought: a cancel of 60 means what is left of it, one of 90 the other."""
    traded, _ = sent(resting(), orders.limit_order(Kind.BUY, 100_200, 30, account=3))
    for volume, order_id, shares in ((60, 4, 70), (90, 5, 100)):
        after, event = sent(traded, cancel_near(100_200, volume), is_by_price=True, word=2**31)
        assert (event.trades.resting_id[0], event.trades.volume_each[0], event.trades.count) == (order_id, shares, 1)
        assert not any(np.asarray(x).any() for x in jax.tree.leaves(exchange.conservation(after.market)))


SESSION = MarketSpec(capacity=8, trade_width=4, accounts=4, session=chinese_session())
REFUSED = {"call auction": ("09:20:00", Status.CLOSED), "break": ("12:00:00", Status.CLOSED),
           "auction to be held": ("10:00:00", Status.AUCTION_DUE), "before it": ("09:16:00", Status.BAD_TIME)}


@pytest.mark.parametrize("name", REFUSED)
@pytest.mark.parametrize("rests", [True, False])
def test_a_cancel_of_a_whole_order_is_refused_as_other_orders_are(name: str, rests: bool) -> None:
    clock, status = REFUSED[name]
    state = open_state(SESSION, with_tokens=False)
    one = jax.jit(functools.partial(process, SESSION, None))

    def at(order: Order, clock: str) -> Order:
        return jax.tree.map(jnp.asarray, dataclasses.replace(order, time=times.of_ns(times.of_clock(clock))))

    for price in (99_900, 100_000) if rests else ():
        state, event = one(state, at(orders.limit_order(Kind.BUY, price, 100, account=1), "09:17:00"))
        assert event.status == Status.ACCEPTED
    if not rests:
        state, _ = one(state, at(orders.limit_order(Kind.SELL, 100_000, 100, account=3), "09:17:00"))
    before = [np.asarray(x) for x in jax.tree.leaves(state.market.book)]
    by_price = ByPrice(jnp.bool_(True), OWN, jnp.bool_(False), jnp.uint32(5))
    after, event = one(state, at(cancel_near(100_000, 100), clock), by_price=by_price)
    if status == Status.AUCTION_DUE and not rests:
        status = Status.NOTHING_TO_CANCEL
    assert event.status == status and event.orders == 0 and event.order_id == NO_ID and event.order.cancel_side == -1
    assert counted(state, after) == {Status(status).name: 1}
    for x, y in zip(before, jax.tree.leaves(after.market.book), strict=True):
        np.testing.assert_array_equal(x, y)


def test_a_cancel_of_a_whole_order_that_finds_none_is_counted_and_own_ones_alone_are_its_to_take() -> None:
    empty = open_state(SPEC, with_tokens=False)
    after, event = sent(empty, cancel_near(100_000, 100), is_by_price=True, word=5)
    assert event.status == Status.NOTHING_TO_CANCEL and event.orders == 0 and event.is_by_price
    assert counted(empty, after) == {"NOTHING_TO_CANCEL": 1} and after.market.next_id == empty.market.next_id
    unchanged, _ = sent(empty, cancel_near(100_000, 100), happens=False, is_by_price=True, word=5)
    chex.assert_trees_all_equal(unchanged, empty)
    for word in (None, 5):
        _, event = sent(resting(), cancel_near(100_300, 100), is_by_price=True, word=word, own_only=True)
        assert (event.status, event.orders) == (Status.ACCEPTED, 1)


def test_orders_of_others_are_cancelled_unless_only_own_ones_may_be() -> None:
    """Account 1 names the order of account 0, then its own, then that one on the wrong side, then none."""
    others, own = (orders.cancel_order(Side.BID, number, 100, account=1) for number in (0, 1))
    wrong = orders.cancel_order(Side.ASK, 1, 100, account=1)
    nameless = orders.cancel_order(Side.BID, NO_ID, 100, account=1)
    for own_only in (False, True):
        for order, status in ((others, Status.UNKNOWN_ID if own_only else Status.ACCEPTED), (own, Status.ACCEPTED),
                              (wrong, Status.UNKNOWN_ID), (nameless, Status.UNKNOWN_ID)):
            after, event = sent(resting(), order, own_only=own_only)
            assert event.status == status and event.orders == (status == Status.ACCEPTED)
            assert event.order.cancel_side == order.cancel_side and not event.is_by_price
            assert len(bids(after)) == 4 - (status == Status.ACCEPTED)
    # Only cancels are looked at so.
    _, event = sent(resting(), orders.limit_order(Kind.BUY, 99_500, 100, account=1), own_only=True)
    assert event.status == Status.ACCEPTED
