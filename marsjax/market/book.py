"""One limit order book as fixed-shape arrays: submit, cancel, match, view. No loop over orders or levels.

Each side is sorted by priority, so the orders that an aggressor fills are a prefix of the other side: one running sum
finds the fills, one shift removes them, and one shift inserts what is left. All functions are for one book; `vmap`
them over thousands.
"""

import dataclasses
import functools
from typing import Any, NamedTuple

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
from marsjax.market import accounts, book_kernel, conditions, orders
from marsjax.market.matching import Match, Named, find, match_with
from marsjax.market.refusals import first_reason
from marsjax.market.slots import NOTHING, Row, on_head, pack, prefix_count
from marsjax.market.slots_kernel import by_batch


class Handled(NamedTuple):
    """What one message does to a book, and what its exchange keeps count of."""

    book: Book
    trades: Trades
    status: jax.Array
    hit: tuple[Int64, Int64]
    """Shares, and price x shares, that resting orders lost, by their account, [N + 1]."""
    resting: Array
    """int32 [2], orders of each side after it."""


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
    done = handle(spec, book, order, matching)
    return done.book, done.trades, done.status


def handle(spec: MarketSpec, book: Book, order: Order, matching: Array | bool = True) -> Handled:
    """`submit`, with what the exchange around the book counts."""
    kernels = chosen(spec.kernels)
    if kernels.book == "xla" or not book_kernel.fits(spec):
        return _alone(spec, book, order, matching)
    together = functools.partial(_together, spec, kernels.book == "interpreted")
    return by_batch(functools.partial(_alone, spec), together)(book, order, matching)


def submit_many(spec: MarketSpec, book: Book, sent: Order, matching: Array | bool = True
                ) -> tuple[Book, tuple[Array, Array], Trades, Array]:
    """Orders [T], one after the other, as `submit` takes each; under `vmap` books stay where they lie meanwhile.

    Returns the book after all of them, and of each, [T, ...]: best ask and best bid after it, its transactions and its
    status.
    """
    kernels, matching = chosen(spec.kernels), jnp.broadcast_to(matching, jnp.shape(sent.kind))

    def alone(book: Book, sent: Order, matching: Array) -> Any:
        def one(book: Book, given: tuple[Order, Array]) -> tuple[Book, Any]:
            done = _alone(spec, book, *given)
            return done.book, (best(done.book), done.trades, done.status)

        book, answers = jax.lax.scan(one, book, (sent, matching))
        return book, *answers

    def together(book: Book, sent: Order, matching: jax.Array) -> Any:
        done = book_kernel.submit(spec, functools.partial(_status, spec), book, sent, matching,
                                  interpret=kernels.book == "interpreted")
        trades, status, *_ = jax.vmap(jax.vmap(functools.partial(_told, spec)))(sent, *done[1:])
        return done.book, (done.facts.best_ask, done.facts.best_bid), trades, status

    # A kernel cannot have blocks of no orders.
    is_plain = kernels.book == "xla" or not book_kernel.fits(spec) or not jnp.shape(sent.kind)[0]
    return (alone if is_plain else by_batch(alone, together))(book, sent, matching)


def _alone(spec: MarketSpec, book: Book, order: Order, matching: Array | bool) -> Handled:
    """`handle` in operations of JAX."""
    is_cancel = order.kind == Kind.CANCEL
    is_limit = (order.kind == Kind.SELL) | (order.kind == Kind.BUY)
    own_is_bid = jnp.where(is_cancel, order.cancel_side, order.kind) == Side.BID
    opposite, own = _row(book, ~own_is_bid), _row(book, own_is_bid)

    order = dataclasses.replace(order, price=limit_price(spec, book, order))
    wanted = jnp.where(is_limit, jnp.maximum(order.volume, 0), 0)
    match = match_with(chosen(spec.kernels), spec.trade_width, opposite, own_is_bid, order.price,
                   jnp.where(matching, wanted, 0))
    rest = wanted - match.filled
    if spec.conditions:
        rest = jnp.where(conditions.may_rest(order.condition), rest, 0)
    named = find(own, order.cancel_id)
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
    after = Book(*sides, last_price)
    return Handled(after, trades, status, accounts.hit(spec, book, trades),
                  jnp.sum(after.volume > 0, axis=-1, dtype=jnp.int32))


def _together(spec: MarketSpec, interpret: bool, book: Book, order: Order, matching: jax.Array) -> Handled:
    """`handle` of a batch, by the kernel."""
    one, matching = jax.tree.map(lambda x: x[:, None], (order, matching))
    done = book_kernel.submit(spec, functools.partial(_status, spec), book, one, matching, interpret=interpret)
    told = jax.vmap(functools.partial(_told, spec))(order, *jax.tree.map(lambda x: x[:, 0], done[1:]))
    return Handled(done.book, *told)


def _told(spec: MarketSpec, order: Order, facts: book_kernel.Facts, listed: Row, by_account: jax.Array | None
          ) -> tuple[Trades, jax.Array, tuple[Int64, Int64], jax.Array]:
    """What the kernel says of one order, but for the book."""
    is_cancel = order.kind == Kind.CANCEL
    cancelled = (facts.status == Status.ACCEPTED) & is_cancel
    own_is_bid = jnp.where(is_cancel, order.cancel_side, order.kind) == Side.BID
    value = Int64(facts.value_hi, facts.value_lo.astype(jnp.uint32))
    match = Match(facts.whole, facts.partial, facts.filled, facts.fills, value, facts.last_price, listed)
    named = Named(cancelled, facts.slot, facts.price, order.volume, facts.account)
    trades = _trades(order, match, named, cancelled, own_is_bid, facts.rest)
    return trades, facts.status, accounts.hit_by(spec, trades, by_account), jnp.stack([facts.asks, facts.bids])


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
    if kernels.book != "xla" and book.price.shape[-1] <= book_kernel.MOST_SLOTS:
        together = functools.partial(book_kernel.levels, count, interpret=kernels.book == "interpreted")
        return by_batch(lambda book: _levels_of(count, book.price, book.volume), together)(book)

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


def _status(spec: MarketSpec, order: Order, named: Named, collects: Array, filled: Array,
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


def _change(kernels: Kernels, book: Book, *, is_own: jax.Array, match: Match, slot: jax.Array, new: Row,
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


def _trades(order: Order, match: Match, named: Named, cancelled: jax.Array, own_is_bid: jax.Array, rest: jax.Array
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
