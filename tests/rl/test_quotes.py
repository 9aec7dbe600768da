"""From what is to rest to the orders that make it so: queue places are kept, and no share too much rests."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from marsjax.core.records import Kind, Market, Order, Side
from marsjax.core.specs import MarketSpec
from marsjax.core.times import of_ns
from marsjax.market import book as books
from marsjax.market import exchange, orders
from marsjax.rl import passing, quotes
from marsjax.rl.base import ROOM, addressed, resting_of

pytestmark = pytest.mark.quick

SPEC = MarketSpec(capacity=128, trade_width=8, accounts=2)
NOW = of_ns(36_000 * 10**9)
ME = 1


@jax.jit
def send(market: Market, sent: Order) -> tuple[Market, jax.Array]:
    flow = passing.send_own(SPEC, (ME,), passing.Flow(market, None, passing.no_fills(1)),
                            jax.tree.map(lambda x: x[None], sent), NOW)
    return flow.market, flow.fills.refused[0]


@functools.partial(jax.jit, static_argnums=4)
def wanted(market: Market, is_buy: bool, price: int, volume: int, most: int = ROOM) -> Order:
    return quotes.requote(resting_of(market.book, ME), is_buy, price, volume, most)


@jax.jit
def other(market: Market, kind: int, price: int, volume: int) -> Market:
    order = addressed(jax.tree.map(lambda x: jnp.asarray(x)[None], orders.limit_order(kind, price, volume)), 0, NOW)
    return exchange.submit(SPEC, market, jax.tree.map(lambda x: x[0], order))[0]


def mine(market: Market, side: int) -> list[tuple[int, int, int]]:
    """(price, volume, id) of the trader's orders, by priority."""
    book = jax.tree.map(np.asarray, market.book)
    rows = np.flatnonzero((book.account[side] == ME) & (book.volume[side] > 0))
    return [(int(book.price[side, i]), int(book.volume[side, i]), int(book.order_id[side, i])) for i in rows]


def twin(old: list[tuple[int, int, int]], price: int, volume: int, most: int) -> tuple[list[tuple[int, int]], int]:
    """(id, shares left) of the orders that stay, and the shares of the new order: in plain Python."""
    stay = [[number, shares] for at, shares, number in old if at == price]
    surplus = max(sum(shares for _, shares in stay) - volume, 0)
    for row in reversed(stay):
        cut = min(surplus, row[1])
        row[1] -= cut
        surplus -= cut
    new = max(volume - sum(shares for _, shares in stay), 0)
    stay = [row for row in stay if row[1]]
    while len(stay) + (new > 0) > most:
        new += stay.pop()[1]
    return [(number, shares) for number, shares in stay], new


def test_what_rests_is_what_is_wanted_and_those_that_stay_keep_their_places() -> None:
    random = np.random.default_rng(0)
    counts = {"stays": 0, "cut": 0, "merged": 0}
    for is_buy in (True, False):
        side, market = Side.BID if is_buy else Side.ASK, exchange.open_market(SPEC)
        for price in (99_000, 101_000):  # the far ends, so that nothing trades
            market = other(market, Kind.BUY if price < 100_000 else Kind.SELL, price, 500)
        for _ in range(60):
            before, most = mine(market, side), int(random.integers(1, ROOM + 1))
            price, volume = int(random.choice([99_500, 99_600])), int(random.integers(0, 6)) * 100
            stay, new = twin(before, price, volume, most)
            market, refused = send(market, wanted(market, is_buy, price, volume, most))
            after = mine(market, side)
            assert not refused and sum(shares for _, shares, _ in after) == volume
            assert all(at == price for at, _, _ in after) and len(after) <= most
            assert [(number, shares) for _, shares, number in after][:len(stay)] == stay
            assert [shares for _, shares, _ in after][len(stay):] == ([new] if new else [])
            kept = {number: shares for _, shares, number in before}
            counts["stays"] += any(kept[number] == shares for number, shares in stay)
            counts["cut"] += any(kept[number] > shares for number, shares in stay)
            counts["merged"] += new > volume - sum(shares for at, shares, _ in before if at == price) > 0
            market = other(market, Kind.BUY if is_buy else Kind.SELL, price, 100)  # so that places are worth something
    assert min(counts.values()) > 5, counts


def test_nothing_is_sent_where_what_is_wanted_rests() -> None:
    market, _ = send(exchange.open_market(SPEC), wanted(exchange.open_market(SPEC), True, 99_500, 300))
    assert (np.asarray(wanted(market, True, 99_500, 300).kind) == Kind.NONE).all()
    less = wanted(market, True, 99_500, 100)
    assert sorted(np.asarray(less.kind).tolist()) == [Kind.CANCEL, *[Kind.NONE] * ROOM]
    assert int(less.volume[0]) == 200


def test_an_empty_side_is_a_tick_from_the_other_one() -> None:
    market = exchange.open_market(SPEC)
    touch = jax.jit(lambda market: quotes.touch(books.view(SPEC, market.book), 100, 50_000))
    assert [int(x) for x in touch(market)] == [50_100, 50_000]
    assert [int(x) for x in touch(other(market, Kind.BUY, 99_000, 100))] == [99_100, 99_000]
    assert [int(x) for x in touch(other(market, Kind.SELL, 99_000, 100))] == [99_000, 98_900]
