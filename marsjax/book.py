"""One limit order book as fixed-shape arrays: submit, cancel, match, view. No loop over orders or levels.

Each side is sorted by priority, so the orders that an aggressor fills are a prefix of the other side: one running sum
finds the fills, one shift removes them, and one shift inserts what is left. All functions are for one book; `vmap`
them over thousands.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp

from marsjax import clock, orders
from marsjax.specs import MarketSpec
from marsjax.types import (
    EMPTY_PRICE,
    EMPTY_SIDE_SPREAD,
    MAX_PRICE,
    MAX_VOLUME,
    NO_ID,
    NO_OWNER,
    NO_PRICE,
    Array,
    Book,
    BookView,
    Kind,
    Order,
    Side,
    Status,
    Trades,
    Wide,
)


class _Row(NamedTuple):
    """One side of a book, each field [C]."""

    price: jax.Array
    volume: jax.Array
    order_id: jax.Array
    owner: jax.Array


class _Match(NamedTuple):
    """What an order would do to the side that it hits."""

    fill: jax.Array  # [C] shares of each resting order
    whole: jax.Array  # resting orders filled whole: a prefix
    partial: jax.Array  # shares of the next one, which is filled in part
    filled: jax.Array  # shares in all
    fills: jax.Array  # resting orders hit
    last: jax.Array  # slot of the last one hit, -1 if none


class _Named(NamedTuple):
    """The resting order that a cancel names."""

    found: jax.Array
    slot: jax.Array
    price: jax.Array
    volume: jax.Array
    owner: jax.Array


def empty(spec: MarketSpec) -> Book:
    """A book with nothing in it and no last price."""
    def slots(value: int) -> jax.Array:
        return jnp.full((2, spec.capacity), value, jnp.int32)

    return Book(slots(EMPTY_PRICE), slots(0), slots(NO_ID), slots(NO_OWNER), jnp.asarray(NO_PRICE, jnp.int32))


def submit(spec: MarketSpec, book: Book, order: Order, matching: Array | bool = True) -> tuple[Book, Trades, jax.Array]:
    """One message to the book: a limit order that matches and rests, or a cancel (reference: continuous book).

    Args:
      spec: sizes; C slots a side, K transactions listed.
      book: the book before.
      order: scalars; Kind.NONE changes nothing.
      matching: bool []; False collects a limit order for a call auction: it rests without matching.

    Returns:
      The book after, its transactions, and an int32 `Status`. Any status but ACCEPTED leaves the book as it was:
      an order is taken whole or not at all.
    """
    is_cancel = order.kind == Kind.CANCEL
    is_limit = (order.kind == Kind.SELL) | (order.kind == Kind.BUY)
    own_is_bid = jnp.where(is_cancel, order.cancel_side, order.kind) == Side.BID
    hit, own = _row(book, ~own_is_bid), _row(book, own_is_bid)

    wanted = jnp.where(is_limit, jnp.maximum(order.volume, 0), 0)
    match = _match(hit, own_is_bid, order.price, jnp.where(matching, wanted, 0))
    rest = wanted - match.filled
    named = _find(own, order.cancel_id)
    status = _status(spec, order, named, is_duplicate=jnp.any((book.order_id == order.order_id) & (book.volume > 0)),
                     is_full=(own.volume[-1] > 0) & (rest > 0))
    traded, cancelled = (status == Status.ACCEPTED) & is_limit, (status == Status.ACCEPTED) & is_cancel

    rests = traded & (rest > 0)
    gone = cancelled & (order.volume == named.volume)
    ahead = (own.volume > 0) & jnp.where(own_is_bid, own.price >= order.price, own.price <= order.price)
    place = jnp.where(is_cancel, named.slot, _count(ahead))
    is_own = jnp.arange(2, dtype=jnp.int32) == own_is_bid
    moved = _shift(
        book,
        start=jnp.where(is_own, place, 0),
        step=jnp.where(is_own, gone.astype(jnp.int32) - rests, jnp.where(traded, match.whole, 0)),
        cut=jnp.where(is_own, jnp.where(cancelled & ~gone, order.volume, 0), jnp.where(traded, match.partial, 0)),
        inserts=is_own & rests,
        inserted=_Row(order.price, rest, order.order_id, order.owner))

    trades = _trades(spec, order, hit, match, named, traded, cancelled, own_is_bid, rest)
    last_price = jnp.where(traded & (match.fills > 0), hit.price[match.last], book.last_price)
    return Book(*moved, last_price), trades, status


def cancel(spec: MarketSpec, book: Book, side: Array | int, order_id: Array | int, volume: Array | int
           ) -> tuple[Book, Trades, jax.Array]:
    """Takes `volume` shares off a resting order, which keeps its place while something is left. Returns as `submit`."""
    return submit(spec, book, orders.cancel_order(side, order_id, volume))


def cancel_where(spec: MarketSpec, book: Book, take: Array) -> tuple[Book, Trades]:
    """Many cancels at once: one compaction of the book.

    Args:
      spec: sizes.
      book: the book before.
      take: int32 [2, C], shares to take off each resting order; clipped to what is left.

    Returns:
      The book after, and the cancel transactions of each side in order of priority, Trades [2, ...]. `rest` is 0 and
      `slot` is -1 in them.
    """
    take = jnp.clip(take, 0, book.volume)
    trades = jax.vmap(lambda side, *row: _cancels(spec, side, _Row(*row)))(
        jnp.arange(2, dtype=jnp.int32), book.price, take, book.order_id, book.owner)
    return take_off(spec, book, take), trades


def take_off(spec: MarketSpec, book: Book, take: Array) -> Book:
    """Takes shares, int32 [2, C] and at most what is left, off the resting orders and closes the gaps."""
    left = book.volume - take
    keep = left > 0
    target = jnp.where(keep, _prefix_count(keep) - 1, spec.capacity)
    row = jnp.arange(2, dtype=jnp.int32)[:, None]

    def pack(x: Array, nothing: int) -> jax.Array:
        return jnp.full_like(x, nothing).at[row, target].set(x, mode="drop", unique_indices=False)

    return Book(pack(book.price, EMPTY_PRICE), pack(left, 0), pack(book.order_id, NO_ID), pack(book.owner, NO_OWNER),
                book.last_price)


def cancel_owner(spec: MarketSpec, book: Book, owner: Array | int) -> tuple[Book, Trades]:
    """Cancels every resting order of one owner; returns as `cancel_where`."""
    return cancel_where(spec, book, jnp.where(book.owner == owner, book.volume, 0))


def best(book: Book) -> tuple[jax.Array, jax.Array]:
    """Best ask and best bid, int32 [] each; EMPTY_PRICE where the side is empty."""
    return book.price[Side.ASK, 0], book.price[Side.BID, 0]


def view(spec: MarketSpec, book: Book) -> BookView:
    """The snapshot after an order: levels, last price, spread and mids (reference: continuous book).

    Of a book that holds an uncrossed call auction, best ask may lie under best bid; spread is then negative.
    """
    (ask_price, bid_price), volume = _levels(spec, book)
    ask, bid = book.price[Side.ASK, 0], book.price[Side.BID, 0]
    has_ask, has_bid = book.volume[Side.ASK, 0] > 0, book.volume[Side.BID, 0] > 0
    has_both, has_last = has_ask & has_bid, book.last_price > 0
    spread = jnp.where(has_both, ask - bid, EMPTY_SIDE_SPREAD)
    lone = jnp.where(has_ask, ask, jnp.where(has_bid, bid, jnp.where(has_last, book.last_price, NO_PRICE)))
    has_mid = has_ask | has_bid | has_last
    return BookView(
        ask_price=ask_price, ask_volume=jax.tree.map(lambda x: x[Side.ASK], volume),
        bid_price=bid_price, bid_volume=jax.tree.map(lambda x: x[Side.BID], volume),
        last_price=book.last_price, spread=spread,
        mid_price=jnp.where(has_both, bid + (spread // spec.tick // 2) * spec.tick, lone),
        mid_price_twice=jnp.where(has_both, ask + bid, jnp.where(has_mid, 2 * lone, NO_PRICE)),
        has_mid=has_mid)


def _levels(spec: MarketSpec, book: Book) -> tuple[jax.Array, Wide]:
    """Prices [2, L] and volumes [2, L] of the best levels."""
    occupied = book.volume > 0
    is_first = occupied & jnp.concatenate(
        [jnp.ones((2, 1), bool), book.price[:, 1:] != book.price[:, :-1]], axis=1)
    level = jnp.where(occupied, _prefix_count(is_first) - 1, spec.levels)
    at_level = level[:, None, :] == jnp.arange(spec.levels, dtype=jnp.int32)[None, :, None]
    price = jnp.max(jnp.where(at_level, book.price[:, None, :], EMPTY_PRICE), axis=-1)
    return price, clock.total(jnp.where(at_level, book.volume[:, None, :], 0))


def _row(book: Book, is_bid: jax.Array) -> _Row:
    """The side of the book that a traced flag names."""
    return _Row(*(jnp.where(is_bid, x[Side.BID], x[Side.ASK])
                  for x in (book.price, book.volume, book.order_id, book.owner)))


def _match(hit: _Row, hits_asks: jax.Array, limit: Array, wanted: jax.Array) -> _Match:
    """How `wanted` shares up to the price `limit` fill the side `hit`."""
    crosses = jnp.where(hits_asks, hit.price <= limit, hit.price >= limit)
    volume = jnp.where(crosses & (wanted > 0), hit.volume, 0)
    left = wanted - jnp.minimum(saturating_prefix_sum(volume), wanted)
    fill = jnp.minimum(left, volume)
    is_whole = (volume > 0) & (volume <= left)
    fills = _count(fill > 0)
    # The fills sum to `wanted` at most, so these sums cannot wrap.
    return _Match(fill, whole=_count(is_whole), partial=_sum(jnp.where(is_whole, 0, fill)), filled=_sum(fill),
                  fills=fills, last=fills - 1)


def saturating_prefix_sum(volume: jax.Array) -> jax.Array:
    """Shares before each slot: exclusive running sum of int32 [C] >= 0, held at 2**31 - 1 once it would pass it.

    Saturating addition of numbers >= 0 is associative, so one parallel scan does it; a plain sum wraps on deep sides.
    """
    def saturating_add(a: jax.Array, b: jax.Array) -> jax.Array:
        return jnp.minimum(a + b, jnp.uint32(MAX_VOLUME))

    inclusive = jax.lax.associative_scan(saturating_add, volume.astype(jnp.uint32)).astype(jnp.int32)
    return jnp.concatenate([jnp.zeros_like(inclusive[:1]), inclusive[:-1]])


def _find(own: _Row, order_id: Array) -> _Named:
    """The order of one side with this id; zeros where there is none."""
    named = (own.volume > 0) & (own.order_id == order_id)
    slot = jnp.arange(named.shape[0], dtype=jnp.int32)
    return _Named(jnp.any(named), *(_sum(jnp.where(named, x, 0)) for x in (slot, own.price, own.volume, own.owner)))


def _status(spec: MarketSpec, order: Order, named: _Named, is_duplicate: jax.Array, is_full: jax.Array) -> jax.Array:
    """The first reason to reject, or ACCEPTED."""
    is_cancel = order.kind == Kind.CANCEL
    is_limit = (order.kind == Kind.SELL) | (order.kind == Kind.BUY)
    known_side = (order.cancel_side == Side.ASK) | (order.cancel_side == Side.BID)
    bad_price = (order.price <= 0) | (order.price > MAX_PRICE) | (order.price % spec.tick != 0)
    reasons = (
        (order.kind == Kind.NONE, Status.NO_ORDER),
        (~is_limit & ~(is_cancel & known_side), Status.BAD_KIND),
        (order.volume <= 0, Status.BAD_VOLUME),
        (is_limit & bad_price, Status.BAD_PRICE),
        (is_limit & is_duplicate, Status.DUPLICATE_ID),
        (is_limit & is_full, Status.SIDE_FULL),
        (is_cancel & ~named.found, Status.UNKNOWN_ID),
        (is_cancel & (order.volume > named.volume), Status.OVER_CANCEL),
    )
    status = jnp.full_like(order.kind, Status.ACCEPTED)
    for holds, reason in reversed(reasons):
        status = jnp.where(holds, jnp.int32(reason), status)
    return status


def _shift(book: Book, start: jax.Array, step: jax.Array, cut: jax.Array, inserts: jax.Array, inserted: _Row) -> _Row:
    """Moves slots from `start` on by `step` toward the touch, each side [2]; fields [2, C].

    Then takes `cut` shares off slot `start`, or puts `inserted` there where `inserts` (its step is -1).
    """
    capacity = book.price.shape[-1]
    slot = jnp.arange(capacity, dtype=jnp.int32)[None, :]
    source = slot + jnp.where(slot >= start[:, None], step[:, None], 0)
    at_start = slot == start[:, None]
    is_new = at_start & inserts[:, None]
    is_off = source >= capacity
    source = jnp.clip(source, 0, capacity - 1)

    def move(x: Array, new: Array, nothing: int) -> jax.Array:
        moved = jnp.take_along_axis(x, source, axis=1, mode="promise_in_bounds")
        return jnp.where(is_new, new, jnp.where(is_off, nothing, moved))

    volume = move(book.volume, inserted.volume, 0) - jnp.where(at_start, cut[:, None], 0)
    return _Row(move(book.price, inserted.price, EMPTY_PRICE), volume,
                move(book.order_id, inserted.order_id, NO_ID), move(book.owner, inserted.owner, NO_OWNER))


def _trades(spec: MarketSpec, order: Order, hit: _Row, match: _Match, named: _Named, traded: jax.Array,
            cancelled: jax.Array, own_is_bid: jax.Array, rest: jax.Array) -> Trades:
    """The record of what happened: the first K fills stand at the head of the side that was hit."""
    width = spec.trade_width
    fill = jnp.where(traded, match.fill[:width], 0)
    is_fill = fill > 0
    is_cancel = cancelled & (jnp.arange(width, dtype=jnp.int32) == 0)

    def listed(of_fill: jax.Array, of_cancel: Array, nothing: int) -> jax.Array:
        return jnp.where(is_fill, of_fill[:width], jnp.where(is_cancel, of_cancel, nothing))

    own_side = own_is_bid.astype(jnp.int32)
    happened = cancelled | (traded & (match.fills > 0))
    value = clock.total_product(hit.price, jnp.where(traded, match.fill, 0))
    cancelled_volume = jnp.where(cancelled, order.volume, 0)
    return Trades(
        kind=jnp.where(happened, order.kind, jnp.int32(Kind.NONE)),
        side=jnp.where(order.kind == Kind.CANCEL, own_side, 1 - own_side),
        price=listed(hit.price, named.price, EMPTY_PRICE),
        volume_each=listed(fill, order.volume, 0),
        resting_id=listed(hit.order_id, order.cancel_id, NO_ID),
        resting_owner=listed(hit.owner, named.owner, NO_OWNER),
        count=jnp.where(traded, match.fills, cancelled.astype(jnp.int32)),
        cut=traded & (match.fills > width),
        volume=clock.wide(jnp.where(traded, match.filled, cancelled_volume)),
        value=clock.add(value, clock.multiply(named.price, cancelled_volume)),
        partial=jnp.where(traded, match.partial, 0), rest=jnp.where(traded, rest, 0),
        slot=jnp.where(cancelled, named.slot, -1))


def _cancels(spec: MarketSpec, side: jax.Array, taken: _Row) -> Trades:
    """Cancel transactions of one side; `taken.volume` is what each slot loses."""
    width = spec.trade_width
    is_taken = taken.volume > 0
    target = jnp.where(is_taken, _prefix_count(is_taken) - 1, width)
    count = _count(is_taken)

    def listed(x: jax.Array, nothing: int) -> jax.Array:
        return jnp.full(width, nothing, jnp.int32).at[target].set(x, mode="drop")

    none = jnp.zeros_like(count)
    return Trades(
        kind=jnp.where(count > 0, jnp.int32(Kind.CANCEL), jnp.int32(Kind.NONE)), side=side,
        price=listed(taken.price, EMPTY_PRICE), volume_each=listed(taken.volume, 0),
        resting_id=listed(taken.order_id, NO_ID), resting_owner=listed(taken.owner, NO_OWNER),
        count=count, cut=count > width, volume=clock.total(taken.volume),
        value=clock.total_product(taken.price, taken.volume), partial=none, rest=none, slot=none - 1)


def _prefix_count(flags: jax.Array) -> jax.Array:
    """How many flags hold up to and with each slot, along the last axis."""
    return jnp.cumsum(flags, axis=-1, dtype=jnp.int32)


def _count(flags: jax.Array) -> jax.Array:
    return jnp.sum(flags, dtype=jnp.int32)


def _sum(x: jax.Array) -> jax.Array:
    return jnp.sum(x, dtype=jnp.int32)
