"""Cancels that name a price and a volume, not an order.

Two rules choose what such a cancel takes back at the agent's own price nearest to the one named: `nearest` takes shares
off the oldest orders, as the reference does (cancels of noise and background agents); `whole` takes back one order, as
traders on an exchange do.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from marsjax.core import int64
from marsjax.core.kernels import Kernels, chosen
from marsjax.core.records import (
    EMPTY_PRICE,
    NO_ACCOUNT,
    NO_ID,
    Array,
    Book,
    Int64,
    Kind,
    Side,
    Trades,
)
from marsjax.core.specs import MarketSpec
from marsjax.market import accounts as accounts_of
from marsjax.market import book as books
from marsjax.market import book_kernel, cancels_kernel, slots_kernel
from marsjax.market.slots import prefix_count, saturating_prefix_sum
from marsjax.market.slots_kernel import by_batch

_FAR = 2**31 - 1
_CELLS = 2**10
# u**1.25 at u = i / 1024, in parts of 2**24; in whole numbers, so that every machine has the same.
_RANKS = np.array([math.isqrt(math.isqrt(i**5 << 46)) for i in range(_CELLS + 1)], np.uint32)


def nearest(spec: MarketSpec, book: Book, is_own: Array, price: Array, volume: Array, upper_wins: Array
            ) -> jax.Array:
    """Which resting orders of an agent such a cancel takes shares off.

    Args:
      spec: sizes and kernels; C slots a side.
      book: an uncrossed book.
      is_own: bool [2, C], the agent's resting orders.
      price: int32 [], the price named.
      volume: int32 [], shares named.
      upper_wins: bool [], which of two own prices at equal distance is taken: a coin toss in the reference.

    Returns:
      int32 [2, C]: the agent's own price nearest to the one named is chosen, and its orders there give up their
      shares, oldest first, until the volume is used up. All 0 if the agent has nothing resting.
    """
    # One price stands on one side only, where slots are in order of arrival.
    shares = jnp.where(_at_nearest_price(book, is_own, price, upper_wins), book.volume, 0).reshape(-1)
    return _first_shares(chosen(spec.kernels), shares, volume).reshape(book.volume.shape)


def whole(spec: MarketSpec, book: Book, is_own: Array, price: Array, volume: Array, upper_wins: Array, word: Array
          ) -> jax.Array:
    """Which resting order of an agent such a cancel takes back, as a whole.

    Args:
      spec: kernels.
      book: an uncrossed book.
      is_own: bool [2, C], the agent's resting orders.
      price: int32 [], the price named.
      volume: int32 [], shares named; more or less of them may be taken.
      upper_wins: bool [], which of two own prices at equal distance is taken.
      word: uint32 [], random; its last six bits are not used.

    Returns:
      int32 [2, C]: at the agent's own price nearest to the one named, of its orders of which nearly `volume` shares are
      left (two volumes at equal distance count alike), one gives up all that it has left: `rank_from_newest` says
      which. All 0 if the agent has nothing resting, or no volume is named.
    """
    is_at_price = _at_nearest_price(book, is_own, price, upper_wins)
    distance = jnp.where(is_at_price, jnp.abs(book.volume - volume), _FAR)
    fits = is_at_price & (distance == jnp.min(distance)) & (volume > 0)
    count = jnp.sum(fits, dtype=jnp.int32)
    is_taken = _of_rank(chosen(spec.kernels), fits, count, rank_from_newest(word, count))
    return jnp.asarray(jnp.where(is_taken, book.volume, 0))


class Found(NamedTuple):
    """The resting order that `whole` takes back; zeros where there is none."""

    volume: Array
    order_id: Array
    side: Array


def whole_order(spec: MarketSpec, book: Book, accounts: tuple[int, int], named: tuple[Array, ...], asked: Array
                ) -> Found:
    """The order that `whole` takes back of the `accounts`, first and last; means nothing where it is not `asked` for.

    `named` are price, volume, upper_wins and word, as of `whole`.
    """
    def alone(book: Book, asked: Array, *named: Array) -> Found:
        own = (book.account >= accounts[0]) & (book.account <= accounts[1])
        shares = whole(spec, book, own, *named)
        volume, number = (jnp.sum(x, dtype=jnp.int32) for x in (shares, jnp.where(shares > 0, book.order_id, 0)))
        return Found(volume, number, jnp.any(shares[Side.BID] > 0).astype(jnp.int32))

    def together(book: Book, asked: jax.Array, *named: jax.Array) -> Found:
        return Found(*cancels_kernel.whole(_rank, jnp.asarray(_RANKS), accounts, book, (*named, asked),
                                           kernels.book == "interpreted"))

    kernels = chosen(spec.kernels)
    is_plain = kernels.book == "xla" or spec.capacity > slots_kernel.MOST_SLOTS
    return (alone if is_plain else by_batch(alone, together))(book, asked, *named)


class Taken(NamedTuple):
    """What `take_nearest` did."""

    book: Book
    trades: Trades
    """Those of the one side that lost shares."""
    hit: tuple[Int64, Int64]
    """Shares, and price x shares, that were taken, by account, [N + 1]."""
    sent: Array
    """int32, orders that there were to take shares off, though it may not have been done."""


def take_nearest(spec: MarketSpec, book: Book, accounts: tuple[int, int], named: tuple[Array, ...], asked: Array,
                 goes: Array) -> Taken:
    """Takes off the book what `nearest` says of the `accounts`, first and last, if it is `asked` for and `goes`.

    `named` are price, volume and upper_wins, as of `nearest`. `goes` may hold in continuous trading only: then one
    price stands on one side.
    """
    def alone(book: Book, asked: Array, goes: Array, *named: Array) -> Taken:
        own = (book.account >= accounts[0]) & (book.account <= accounts[1])
        # A volume below 0 takes nothing.
        shares = jnp.where(asked, jnp.maximum(nearest(spec, book, own, *named), 0), 0)
        take = jnp.where(goes, shares, 0)
        after, trades = books.cancel_where(spec, book, take)
        side = jnp.argmax(trades.count).astype(jnp.int32)
        hit = accounts_of.taken(spec, *(x[side] for x in (book.price, take, book.account)))
        return Taken(after, jax.tree.map(lambda x: x[side], trades), hit, jnp.sum(shares > 0, dtype=jnp.int32))

    def together(book: Book, asked: jax.Array, goes: jax.Array, *named: jax.Array) -> Taken:
        after, facts, listed, words = cancels_kernel.nearest(
            spec.trade_width, accounts, spec.accounts, book, (*named, asked, goes), kernels.book == "interpreted")
        trades = jax.vmap(functools.partial(_trades, spec.trade_width))(facts, *listed)
        if words is not None:
            value = int64.multiply(facts.price[:, None], words[..., 1])
            words = jnp.stack([words[..., 0], words[..., 1], value.hi, value.lo.astype(jnp.int32)], axis=-1)
        return Taken(after, trades, jax.vmap(functools.partial(accounts_of.hit_by, spec))(trades, words), facts.sent)

    kernels = chosen(spec.kernels)
    is_plain = kernels.book == "xla" or not book_kernel.fits(spec)
    return (alone if is_plain else by_batch(alone, together))(book, asked, goes, *named)


def _trades(width: int, facts: cancels_kernel.TakenByKernel, volume: jax.Array, order_id: jax.Array, account: jax.Array
            ) -> Trades:
    """The transactions of cancels at one price."""
    listed, none = volume > 0, jnp.zeros_like(facts.side)
    return Trades(
        kind=jnp.where(facts.taken > 0, jnp.int32(Kind.CANCEL), jnp.int32(Kind.NONE)), side=facts.side,
        price=jnp.where(listed, facts.price, EMPTY_PRICE), volume_each=volume,
        resting_id=jnp.where(listed, order_id, NO_ID), resting_account=jnp.where(listed, account, NO_ACCOUNT),
        count=facts.taken, is_truncated=facts.taken > width, volume=int64.of_int32(facts.volume),
        value=int64.multiply(facts.price, facts.volume), partial=none, rest=none, slot=none - 1)


def _of_rank(kernels: Kernels, fits: jax.Array, count: jax.Array, rank: jax.Array) -> jax.Array:
    """bool [2, C], of `count` slots that fit the one of a rank from the last one, 0, on; none of none.

    All of them stand on one side, as one price does; slots are in order of arrival.
    """
    if kernels.first_shares != "steps":
        return fits & (prefix_count(fits) == count - rank)
    fits_here, capacity = jnp.any(fits, axis=0), fits.shape[-1]
    here, halvings = jnp.arange(capacity, dtype=jnp.int32), (capacity - 1).bit_length()

    def halved(i: jax.Array, low: jax.Array) -> jax.Array:
        middle = low + (jnp.int32(1) << halvings - 1 - i)
        return jnp.where(jnp.sum(fits_here & (here >= middle), dtype=jnp.int32) > rank, middle, low)

    return fits & (here == jax.lax.fori_loop(0, halvings, halved, jnp.int32(0)))


def rank_from_newest(word: Array, count: Array) -> jax.Array:
    """Which of `count` orders alike is taken back, int32 from 0, the newest: floor(count u**1.25) for a uniform u.

    u is `word` / 2**32, uint32. Newer ones are a little more likely, as they are at exchanges. In whole numbers alone,
    so that all devices agree: u**1.25 is interpolated in a table, which moves no chance by more than 4e-5, and none of
    up to 100 orders by more than 2e-6.
    """
    return _rank(jnp.asarray(word, jnp.uint32), count, jnp.asarray(_RANKS))


def _rank(word: jax.Array, count: Array, table: jax.Array) -> jax.Array:
    cell, part = (word >> 22).astype(jnp.int32), (word >> 6) & 0xFFFF
    low, high = table[cell], table[cell + 1]
    reached = low + ((high - low) * part >> 16)
    return jnp.asarray(int64.multiply_high(reached << 8, count), jnp.int32)


def _at_nearest_price(book: Book, is_own: Array, price: Array, upper_wins: Array) -> jax.Array:
    """bool [2, C]: an agent's orders at its price nearest to the one named; none if it has nothing resting."""
    is_own = is_own & (book.volume > 0)
    price = jnp.maximum(price, 0)  # below all prices alike, and no distance wraps
    distance = jnp.where(is_own, jnp.abs(book.price - price), _FAR)
    is_nearest = is_own & (distance == jnp.min(distance))
    is_upper = book.price > price
    has_both = jnp.any(is_nearest & is_upper) & jnp.any(is_nearest & ~is_upper)
    return jnp.asarray(is_nearest & (~has_both | (is_upper == upper_wins)))


def _first_shares(kernels: Kernels, shares: Array, volume: Array) -> jax.Array:
    """What is taken of shares [N] from the first on, `volume` in all."""
    if kernels.first_shares == "steps":
        return _by_steps(shares, volume)
    left = volume - jnp.minimum(saturating_prefix_sum(kernels, shares), volume)
    return jnp.minimum(left, shares)


def _by_steps(shares: Array, volume: Array) -> jax.Array:
    """`_first_shares`, order by order: a cancel takes few, and a running sum goes over all slots."""
    shares = jnp.asarray(shares)
    here, count = jnp.arange(len(shares), dtype=jnp.int32), len(shares)

    def following(slot: jax.Array) -> jax.Array:
        return jnp.min(jnp.where((shares > 0) & (here > slot), here, count))

    def is_whole(at: tuple[jax.Array, jax.Array]) -> jax.Array:
        slot, left = at
        return (slot < count) & (shares[jnp.minimum(slot, count - 1)] <= left)

    def one(at: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        slot, left = at
        return following(slot), left - shares[slot]

    slot, left = jax.lax.while_loop(is_whole, one, (following(jnp.int32(-1)), jnp.asarray(volume, jnp.int32)))
    return jnp.where(here < slot, shares, jnp.where(here == slot, jnp.minimum(left, shares), 0))
