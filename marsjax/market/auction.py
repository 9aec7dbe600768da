"""Call auctions: all resting orders are uncrossed at one price by array code (reference: call auctions).

While an auction collects, orders rest in the book without matching (`book.submit(..., matching=False)`), so both
sides stand sorted by price and arrival when it ends.

A possible price is one at which all buys above it and all sells below it fill whole, and one side at it does; no other
price trades more. The possible prices are a range whose ends are prices of orders and between which no order stands:
where it is wider than one price, demand and supply are equal inside it, and at its ends only the buys at the lower one
and the sells at the upper one can be left over. `MarketSpec.auction_rule` chooses among them:

  REFERENCE: of the ends the one of the smallest imbalance, then the nearest to the reference price, then the lower.
  SHANGHAI (Trading Rules of the exchange, 2023, article 3.5.2): of the possible prices of orders, which are the ends,
    the one that leaves the fewest shares unmatched; of both the middle, which need not be the price of an order. The
    rules do not say what the middle of an odd number of ticks is: here it is rounded to the lower one.
  SHENZHEN (Trading Rules of the exchange, 2023, on the same): of all possible prices, prices of orders or not, those of
    the smallest difference between the buys at it or above and the sells at it or below; of several the nearest to the
    reference price, which is the last close in an auction at the opening and the last trade in a later one. Where
    there is no reference price, or two are as near: the lower.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from marsjax.core import int64
from marsjax.core.records import NO_PRICE, Array, Book, Int64, Side, Uncross
from marsjax.core.specs import AuctionRule, MarketSpec
from marsjax.market import book as books

_WORST = 2**31 - 1


def uncross(spec: MarketSpec, book: Book, reference_price: Array | int = NO_PRICE, held: Array | bool = True
            ) -> tuple[Book, Uncross]:
    """Matches a collected book at the price that trades most, by `MarketSpec.auction_rule`.

    All buys above the price and all sells below it fill whole; at the price itself orders fill in order of arrival.
    The last price does not change.

    Args:
      spec: sizes, the tick and the rule; C slots a side.
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
    reference = jnp.asarray(reference_price, jnp.int32)
    unmatched = _gap(demand, supply)
    chosen = _choose(possible, candidate, matched, unmatched, reference)

    any_trade = jnp.any(possible)
    price = candidate[chosen]
    if spec.auction_rule != AuctionRule.REFERENCE:
        price = _within(spec, _ends(possible, candidate, unmatched), reference)
    price = jnp.where(any_trade, price, NO_PRICE)
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


class _Ends(NamedTuple):
    """The lowest and the highest possible price, and the shares that each would leave unmatched."""

    low: jax.Array
    high: jax.Array
    left_at_low: Int64
    left_at_high: Int64


def _ends(possible: Array, price: Array, unmatched: Int64) -> _Ends:
    low_at = jnp.argmin(jnp.where(possible, price, _WORST))
    high_at = jnp.argmax(jnp.where(possible, price, -1))
    left_at_low, left_at_high = (jax.tree.map(lambda x, at=at: x[at], unmatched) for at in (low_at, high_at))
    return _Ends(price[low_at], price[high_at], left_at_low, left_at_high)


def _within(spec: MarketSpec, ends: _Ends, reference: Array) -> jax.Array:
    """The price that Shanghai or Shenzhen chooses of a range of possible ones."""
    low, high = ends.low, ends.high
    low_leaves_less, high_leaves_less = (int64.less(ends.left_at_low, ends.left_at_high),
                                         int64.less(ends.left_at_high, ends.left_at_low))
    if spec.auction_rule == AuctionRule.SHANGHAI:
        middle = low + (high - low) // spec.tick // 2 * spec.tick
        return jnp.where(low_leaves_less, low, jnp.where(high_leaves_less, high, middle))
    # Inside the range nothing is left; an end that leaves something is then none of the best.
    zero = int64.of_int32(0)
    inside_from = low + jnp.where(int64.equal(ends.left_at_low, zero), 0, spec.tick)
    inside_to = high - jnp.where(int64.equal(ends.left_at_high, zero), 0, spec.tick)
    beyond = jnp.clip(reference, inside_from, inside_to) - inside_from
    nearest_inside = inside_from + (beyond // spec.tick + (2 * (beyond % spec.tick) > spec.tick)) * spec.tick
    high_is_nearer = (reference > 0) & (high - reference < reference - low)
    nearest_end = jnp.where(low_leaves_less | (~high_leaves_less & ~high_is_nearer), low, high)
    return jnp.where(inside_from <= inside_to, nearest_inside, nearest_end)


def _fill(volume: Array, shares: Int64, matched: Int64) -> jax.Array:
    """Shares of each order, [2, C], when `matched` shares fill each side in order of priority."""
    before = jax.tree.map(lambda x: x[:, :-1], shares)
    left = int64.subtract(jax.tree.map(lambda x: jnp.broadcast_to(x, before.hi.shape), matched), before)
    return jnp.clip(int64.to_int32(left), 0, volume)
