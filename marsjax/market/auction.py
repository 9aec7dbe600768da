"""Call auctions: all resting orders are uncrossed at one price by array code (reference: call auctions).

While an auction collects, orders rest in the book without matching (`book.submit(..., matching=False)`), so both
sides stand sorted by price and arrival when it ends.
"""

import jax
import jax.numpy as jnp

from marsjax.core import int64
from marsjax.core.records import NO_PRICE, Array, Book, Int64, Side, Uncross
from marsjax.core.specs import MarketSpec
from marsjax.market import book as books

_WORST = 2**31 - 1


def uncross(spec: MarketSpec, book: Book, reference_price: Array | int = NO_PRICE, held: Array | bool = True
            ) -> tuple[Book, Uncross]:
    """Matches a collected book at the price that trades most.

    The price is one of the orders' own: of those at which the most shares trade, such that all buys above it and all
    sells below it fill whole, the one of the smallest imbalance, then the nearest to the reference price, then the
    lowest. At the price itself orders fill in order of arrival. The last price does not change.

    Args:
      spec: sizes; C slots a side.
      book: the collected book, sides may overlap.
      reference_price: int32 [], breaks ties; NO_PRICE for none.
      held: bool []; False leaves everything as it is.

    Returns:
      The book of what is left, and what traded; price NO_PRICE and volume 0 if nothing crossed.
    """
    occupied = book.volume > 0
    rank = jnp.where(occupied, _worse_is_higher(book.price), _WORST)
    shares = _with_zero(int64.running(jnp.where(occupied, book.volume, 0)))

    candidate = book.price.reshape(-1)
    demand, above = _shares_at(rank, shares, Side.BID, -candidate)
    supply, below = _shares_at(rank, shares, Side.ASK, candidate)
    matched = int64.minimum(demand, supply)
    crosses = int64.less(int64.of_int32(0), matched)
    possible = held & occupied.reshape(-1) & crosses & ~int64.less(matched, above) & ~int64.less(matched, below)
    chosen = _choose(possible, candidate, matched, _gap(demand, supply), jnp.asarray(reference_price, jnp.int32))

    any_trade = jnp.any(possible)
    price = jnp.where(any_trade, candidate[chosen], NO_PRICE)
    volume = jax.tree.map(lambda x: jnp.where(any_trade, x[chosen], 0), matched)
    limit_rank = jnp.stack([price, -price])[:, None]
    fill = jnp.where(any_trade & occupied & (rank <= limit_rank), _fill(book.volume, shares, volume), 0)
    return books.take_off(spec, book, fill), Uncross(price, volume, fill, book.price, book.order_id, book.account)


def _worse_is_higher(price: Array) -> Array:
    """Prices [2, C] as ranks: bids negated."""
    return price * jnp.asarray([[1], [-1]], jnp.int32)


def _with_zero(a: Int64) -> Int64:
    """A running sum [2, C] -> [2, C + 1], shares of the first 0 .. C orders."""
    return jax.tree.map(lambda x: jnp.pad(x, ((0, 0), (1, 0))), a)


def _shares_at(rank: Array, shares: Int64, side: Side, limit: Array) -> tuple[Int64, Int64]:
    """Shares of one side that would trade at each limit rank [2 C], and strictly better than it."""
    def of(first: str) -> Int64:
        count = jnp.searchsorted(rank[side], limit, side=first, method="scan")
        return jax.tree.map(lambda x: x[side][count], shares)

    return of("right"), of("left")


def _gap(a: Int64, b: Int64) -> Int64:
    """|a - b|."""
    return int64.select(int64.less(a, b), int64.subtract(b, a), int64.subtract(a, b))


def _choose(possible: Array, price: Array, matched: Int64, imbalance: Int64, reference: Array) -> Array:
    """Index of the best candidate: criterion by criterion, only those that tie for the best stay."""
    distance = jnp.where(reference > 0, jnp.abs(price - reference), 0)
    for word in (-matched.hi, ~matched.lo, imbalance.hi, imbalance.lo, distance, price):
        worst = jnp.asarray(jnp.iinfo(word.dtype).max, word.dtype)
        possible &= word == jnp.min(jnp.where(possible, word, worst))
    return jnp.argmax(possible)


def _fill(volume: Array, shares: Int64, matched: Int64) -> jax.Array:
    """Shares of each order, [2, C], when `matched` shares fill each side in order of priority."""
    before = jax.tree.map(lambda x: x[:, :-1], shares)
    left = int64.subtract(jax.tree.map(lambda x: jnp.broadcast_to(x, before.hi.shape), matched), before)
    return jnp.clip(int64.to_int32(left), 0, volume)
