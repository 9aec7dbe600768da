"""One limit order book as fixed-shape arrays: submit, cancel, match, view. No loop over orders or levels.

Each side is sorted by priority, so the orders that an aggressor fills are a prefix of the other side: one running sum
finds the fills, one shift removes them, and one shift inserts what is left. All functions are for one book; `vmap`
them over thousands.
"""

import dataclasses
import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from marsjax.core import int64
from marsjax.core.kernels import Kernels, chosen
from marsjax.core.records import (
    EMPTY_PRICE,
    EMPTY_SIDE_SPREAD,
    MAX_PRICE,
    NO_ACCOUNT,
    NO_ID,
    NO_PRICE,
    Array,
    Book,
    BookView,
    Condition,
    Int64,
    Kind,
    Order,
    Side,
    Status,
    Trades,
)
from marsjax.core.specs import MarketSpec
from marsjax.market import conditions, orders
from marsjax.market.refusals import first_reason
from marsjax.market.slots import NOTHING, Row, on_head, pack, prefix_count, saturating_prefix_sum


class _Match(NamedTuple):
    """What an order would do to the opposite side."""

    whole: Array  # resting orders filled whole: a prefix of the side
    partial: Array  # shares of the next one, if it is filled in part
    filled: Array  # shares in all
    fills: Array  # resting orders hit
    value: Int64  # sum of price x shares
    last_price: Array  # of the last fill
    listed: Row  # the first K fills; volume is the shares filled, 0 past the last


class _Named(NamedTuple):
    """The resting order that a cancel names."""

    found: Array
    slot: Array
    price: Array
    volume: Array
    account: Array


def empty(spec: MarketSpec) -> Book:
    """A book with nothing in it and no last price.

    Examples:
      >>> empty(MarketSpec(capacity=8)).price.shape
      (2, 8)
    """
    def slots(value: int) -> jax.Array:
        return jnp.full((2, spec.capacity), value, jnp.int32)

    return Book(slots(EMPTY_PRICE), slots(0), slots(NO_ID), slots(NO_ACCOUNT), jnp.asarray(NO_PRICE, jnp.int32))


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

    Examples:
      >>> spec = MarketSpec(capacity=8)
      >>> resting, _, _ = submit(spec, empty(spec), orders.limit_order(Kind.SELL, 100_100, 300, order_id=1))
      >>> after, trades, status = submit(spec, resting, orders.limit_order(Kind.BUY, 100_200, 200, order_id=2))
      >>> Status(int(status)).name, int(trades.price[0]), int(trades.volume_each[0]), int(after.volume[Side.ASK, 0])
      ('ACCEPTED', 100100, 200, 100)
    """
    is_cancel = order.kind == Kind.CANCEL
    is_limit = (order.kind == Kind.SELL) | (order.kind == Kind.BUY)
    own_is_bid = jnp.where(is_cancel, order.cancel_side, order.kind) == Side.BID
    opposite, own = _row(book, ~own_is_bid), _row(book, own_is_bid)

    order = dataclasses.replace(order, price=limit_price(spec, book, order))
    wanted = jnp.where(is_limit, jnp.maximum(order.volume, 0), 0)
    match = _match(chosen(spec.kernels), spec.trade_width, opposite, own_is_bid, order.price,
                   jnp.where(matching, wanted, 0))
    rest = wanted - match.filled
    if spec.conditions:
        rest = jnp.where(conditions.may_rest(order.condition), rest, 0)
    named = _find(own, order.cancel_id)
    status = _status(spec, order, named, jnp.logical_not(matching), match.filled,
                     is_duplicate=jnp.any((book.order_id == order.order_id) & (book.volume > 0)),
                     is_full=(own.volume[-1] > 0) & (rest > 0))
    traded, cancelled = (status == Status.ACCEPTED) & is_limit, (status == Status.ACCEPTED) & is_cancel
    match = jax.tree.map(lambda x: jnp.where(traded, x, jnp.zeros_like(x)), match)
    rest = jnp.where(traded, rest, 0)

    removes = cancelled & (order.volume == named.volume)
    ahead = (own.volume > 0) & jnp.where(own_is_bid, own.price >= order.price, own.price <= order.price)
    sides = _change(
        chosen(spec.kernels), book, is_own=(jnp.arange(2, dtype=jnp.int32) == own_is_bid)[:, None], match=match,
        slot=jnp.where(is_cancel, named.slot, _count(ahead)), new=Row(order.price, rest, order.order_id, order.account),
        removes=removes, reduced=jnp.where(cancelled & ~removes, order.volume, 0))
    last_price = jnp.where(match.fills > 0, match.last_price, book.last_price)
    trades = _trades(order, match, named, cancelled, own_is_bid, rest)
    return Book(*sides, last_price), trades, status


def limit_price(spec: MarketSpec, book: Book, order: Order) -> Array:
    """The limit price, int32 [], that the order has in this book: its own, or that of its `Condition`."""
    if not spec.conditions:
        return order.price
    is_buy = order.kind == Kind.BUY
    ask, bid = best(book)
    return conditions.limit_price(order, jnp.where(is_buy, bid, ask), jnp.where(is_buy, ask, bid))


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
    kernels = chosen(spec.kernels)
    trades = jax.vmap(lambda side, *row: _cancels(kernels, spec.trade_width, side, Row(*row)))(
        jnp.arange(2, dtype=jnp.int32), book.price, take, book.order_id, book.account)
    return take_off(spec, book, take), trades


def take_off(spec: MarketSpec, book: Book, take: Array) -> Book:
    """Takes shares, int32 [2, C] and at most what is left, off the resting orders and closes the gaps."""
    left = book.volume - take
    row = pack(chosen(spec.kernels), left > 0, Row(book.price, left, book.order_id, book.account), spec.capacity)
    return Book(*row, book.last_price)


def cancel_account(spec: MarketSpec, book: Book, account: Array | int) -> tuple[Book, Trades]:
    """Cancels every resting order of one account; returns as `cancel_where`."""
    return cancel_where(spec, book, jnp.where(book.account == account, book.volume, 0))


def best(book: Book) -> tuple[jax.Array, jax.Array]:
    """Best ask and best bid, int32 [] each; EMPTY_PRICE where the side is empty."""
    return book.price[Side.ASK, 0], book.price[Side.BID, 0]


def view(spec: MarketSpec, book: Book) -> BookView:
    """The snapshot after an order: levels, last price, spread and mids (reference: continuous book).

    Of a book that holds an uncrossed call auction, best ask may lie under best bid; spread is then negative.

    Examples:
      >>> spec = MarketSpec(capacity=8)
      >>> book, _, _ = submit(spec, empty(spec), orders.limit_order(Kind.SELL, 100_100, 300, order_id=1))
      >>> seen = view(spec, book)
      >>> int(seen.ask_price[0]), int(seen.mid_price), int(int64.to_int32(seen.ask_volume)[0])
      (100100, 100100, 300)
    """
    (ask_price, bid_price), volume = _levels(chosen(spec.kernels), spec.levels, book)
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


def _levels(kernels: Kernels, count: int, book: Book) -> tuple[jax.Array, Int64]:
    """Prices [2, L] and volumes [2, L] of the best `count` levels."""
    def enough(head: int, rows: tuple[Array, Array]) -> jax.Array:
        # All orders stand in the head, or a level too many begins there.
        price, volume = (x[:, :head] for x in rows)
        steps = jnp.sum((price[:, 1:] != price[:, :-1]) & (volume[:, 1:] > 0), axis=-1, dtype=jnp.int32)
        return jnp.all((rows[1][:, head] == 0) | (steps >= count))

    return on_head(kernels, 1, enough, lambda rows: _levels_of(count, *rows), (book.price, book.volume))


def _levels_of(count: int, all_prices: Array, all_volumes: Array) -> tuple[jax.Array, Int64]:
    occupied = all_volumes > 0
    is_first = occupied & jnp.concatenate([jnp.ones((2, 1), bool), all_prices[:, 1:] != all_prices[:, :-1]], axis=1)
    level = jnp.where(occupied, prefix_count(is_first) - 1, count)
    at_level = level[:, None, :] == jnp.arange(count, dtype=jnp.int32)[None, :, None]
    price = jnp.max(jnp.where(at_level, all_prices[:, None, :], EMPTY_PRICE), axis=-1)
    return price, int64.total(jnp.where(at_level, all_volumes[:, None, :], 0))


def _row(book: Book, is_bid: jax.Array) -> Row:
    """The side of the book that a traced flag names."""
    return Row(*(jnp.where(is_bid, x[Side.BID], x[Side.ASK])
                 for x in (book.price, book.volume, book.order_id, book.account)))


def _match(kernels: Kernels, width: int, opposite: Row, is_buy: jax.Array, limit: Array, wanted: jax.Array) -> _Match:
    """How `wanted` shares up to the price `limit` fill the opposite side; the first `width` fills are listed."""
    crosses = jnp.where(is_buy, opposite.price <= limit, opposite.price >= limit)
    reach = opposite._replace(volume=jnp.where(crosses & (wanted > 0), opposite.volume, 0))

    def enough(head: int, reach: Row, wanted: Array) -> jax.Array:
        return (reach.volume[head] == 0) | ~int64.less(int64.total(reach.volume[:head]), int64.of_int32(wanted))

    return on_head(kernels, width, enough, functools.partial(_fill, kernels, width), reach, wanted)


def _fill(kernels: Kernels, width: int, reach: Row, wanted: jax.Array) -> _Match:
    """Fills orders that are all within the limit (the others' volume is 0)."""
    left = wanted - jnp.minimum(saturating_prefix_sum(kernels, reach.volume), wanted)
    fill = jnp.minimum(left, reach.volume)
    is_whole = (reach.volume > 0) & (reach.volume <= left)
    fills = _count(fill > 0)
    listed = Row(reach.price, fill, reach.order_id, reach.account)
    # The fills sum to `wanted` at most, so these sums cannot wrap.
    return _Match(whole=_count(is_whole), partial=_sum(jnp.where(is_whole, 0, fill)), filled=_sum(fill), fills=fills,
                  value=int64.total_product(reach.price, fill), last_price=reach.price[jnp.maximum(fills - 1, 0)],
                  listed=jax.tree.map(lambda x: x[:width], listed))


def _find(own: Row, order_id: Array) -> _Named:
    """The order of one side with this id; zeros where there is none."""
    named = (own.volume > 0) & (own.order_id == order_id)
    slot = jnp.arange(named.shape[0], dtype=jnp.int32)
    return _Named(jnp.any(named), *(_sum(jnp.where(named, x, 0)) for x in (slot, own.price, own.volume, own.account)))


def _status(spec: MarketSpec, order: Order, named: _Named, collects: Array, filled: Array,
            is_duplicate: jax.Array, is_full: jax.Array) -> jax.Array:
    """The first reason to reject, or ACCEPTED; the order's price is its `limit_price`."""
    is_cancel = order.kind == Kind.CANCEL
    is_limit = (order.kind == Kind.SELL) | (order.kind == Kind.BUY)
    known_side = (order.cancel_side == Side.ASK) | (order.cancel_side == Side.BID)
    bad_price = (order.price <= 0) | (order.price > MAX_PRICE) | (order.price % spec.tick != 0)
    early: tuple[conditions.Reason, ...] = ((order.condition != Condition.REST, Status.BAD_CONDITION),)
    late: tuple[conditions.Reason, ...] = ()
    if spec.conditions:
        bad_price &= conditions.names_price(order.condition)
        early, late = conditions.before_price(order, order.price, collects), conditions.after_matching(order, filled)
    of_limits = (*early, (bad_price, Status.BAD_PRICE), (is_duplicate, Status.DUPLICATE_ID), *late,
                 (is_full, Status.SIDE_FULL))
    return first_reason(
        (order.kind == Kind.NONE, Status.NO_ORDER),
        (~is_limit & ~(is_cancel & known_side), Status.BAD_KIND),
        (order.volume <= 0, Status.BAD_VOLUME),
        *((is_limit & holds, status) for holds, status in of_limits),
        (is_cancel & ~named.found, Status.UNKNOWN_ID),
        (is_cancel & (order.volume > named.volume), Status.OVER_CANCEL),
        otherwise=jnp.int32(Status.ACCEPTED))


def _change(kernels: Kernels, book: Book, *, is_own: jax.Array, match: _Match, slot: jax.Array, new: Row,
            removes: jax.Array, reduced: jax.Array) -> Row:
    """The fields [2, C] of the book after an order, as one shift of each side.

    The opposite side loses the orders that `match` fills whole, and the next one its partial fill. The order's own
    side (`is_own`, bool [2, 1]) gets `new` at `slot` if it has a volume, or loses the order there (`removes`), or that
    order loses the shares `reduced`.
    """
    capacity = book.price.shape[-1]
    here = jnp.arange(capacity, dtype=jnp.int32)[None, :]
    inserts = new.volume > 0
    is_new = inserts & (here == slot)
    whole, zero = match.whole, jnp.zeros_like(match.whole)
    # From `slot` on, each slot takes what stood one before it, at it, or one after it: 0, 1, 2 in a padded side.
    shift = jnp.where(inserts, 0, jnp.where(removes, 2, 1)).astype(jnp.int32)

    def padded(x: Array, before: int, after: int, nothing: int) -> jax.Array:
        wide = jnp.pad(x, ((0, 0), (before, after)), constant_values=nothing)
        return jax.lax.optimization_barrier(wide) if kernels.shift == "laid" else wide

    def moved(x: Array, inserted: Array, nothing: int) -> jax.Array:
        # Slices of padded sides are faster than gathers.
        opposite = jax.lax.dynamic_slice(padded(x, 0, capacity, nothing), (zero, whole), x.shape)
        behind = jax.lax.dynamic_slice(padded(x, 1, 1, nothing), (zero, shift), x.shape)
        return jnp.where(is_own, jnp.where(is_new, inserted, jnp.where(here < slot, x, behind)), opposite)

    after = Row(*(moved(x, y, nothing) for x, y, nothing in zip(
        (book.price, book.volume, book.order_id, book.account), new, NOTHING, strict=True)))
    taken = jnp.where(here == jnp.where(is_own, slot, 0), jnp.where(is_own, reduced, match.partial), 0)
    return after._replace(volume=after.volume - taken)


def _trades(order: Order, match: _Match, named: _Named, cancelled: jax.Array, own_is_bid: jax.Array, rest: jax.Array
            ) -> Trades:
    """The record of what happened; `match` and `rest` are 0 unless the order was accepted."""
    listed = match.listed
    width = listed.price.shape[0]
    is_fill = listed.volume > 0
    is_cancel = cancelled & (jnp.arange(width, dtype=jnp.int32) == 0)

    def column(of_fill: Array, of_cancel: Array, nothing: int) -> jax.Array:
        return jnp.where(is_fill, of_fill, jnp.where(is_cancel, of_cancel, nothing))

    own_side = own_is_bid.astype(jnp.int32)
    taken = jnp.where(cancelled, order.volume, 0)
    return Trades(
        kind=jnp.where(cancelled | (match.fills > 0), order.kind, jnp.int32(Kind.NONE)),
        side=jnp.where(order.kind == Kind.CANCEL, own_side, 1 - own_side),
        price=column(listed.price, named.price, EMPTY_PRICE),
        volume_each=column(listed.volume, order.volume, 0),
        resting_id=column(listed.order_id, order.cancel_id, NO_ID),
        resting_account=column(listed.account, named.account, NO_ACCOUNT),
        count=jnp.where(cancelled, 1, match.fills),
        is_truncated=match.fills > width,
        volume=int64.of_int32(match.filled + taken),
        value=int64.add(match.value, int64.multiply(named.price, taken)),
        partial=match.partial, rest=rest,
        slot=jnp.where(cancelled, named.slot, -1))


def _cancels(kernels: Kernels, width: int, side: jax.Array, taken: Row) -> Trades:
    """Cancel transactions of one side, the first `width` listed; `taken.volume` is what each slot loses."""
    is_taken = taken.volume > 0
    count = _count(is_taken)
    listed = pack(kernels, is_taken, taken, width)
    none = jnp.zeros_like(count)
    return Trades(
        kind=jnp.where(count > 0, jnp.int32(Kind.CANCEL), jnp.int32(Kind.NONE)), side=side,
        price=listed.price, volume_each=listed.volume, resting_id=listed.order_id, resting_account=listed.account,
        count=count, is_truncated=count > width, volume=int64.total(taken.volume),
        value=int64.total_product(taken.price, taken.volume), partial=none, rest=none, slot=none - 1)


def _count(flags: Array) -> jax.Array:
    return jnp.sum(flags, dtype=jnp.int32)


def _sum(x: Array) -> jax.Array:
    return jnp.sum(x, dtype=jnp.int32)
