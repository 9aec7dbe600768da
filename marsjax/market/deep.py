"""A deep book, one order after another: the orders near the touch apart from the far ones.

What an order costs grows with the slots of its book. Here the best orders of each side are a small market of their own,
`near`, and orders pass through it as through any other; all others lie in a pool, `far`, which is written to in place.
An order that rests or is cancelled far from the touch goes through `near` as the last of its side. Where this cannot
give what the whole book would give (a sweep past `near`, too few levels left in it), the whole book is put together and
takes the order. So all results are those of `market.process`, to the bit.
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp

from marsjax.core.records import NO_ID, Array, Book, Kind, Order, Side, Status
from marsjax.core.specs import MarketSpec
from marsjax.market.process import Event, MarketState, process
from marsjax.market.slots import NOTHING, Row
from marsjax.tokens.encoding import TokenTables

SLOTS = (256, 1024)
"""Of a side of `near`: the first that lists and shows enough is taken. Three of four are taken after a split."""
_ROOM = 4096
_WORTH = 16
_FAR_KEY = 2**31 - 1
_BLOCK = 512
"""Far slots that are looked at in one go."""


class Far(NamedTuple):
    """The orders that are not near; of one price those that came first stand first. F is capacity + _ROOM."""

    row: Row
    """Fields [2, F + 1]; volume 0 where there is no order. Writes that are not to happen go to the last slot."""
    end: Array
    """int32 [2], slots used so far."""
    resting: Array
    """int32 [2], orders."""
    best: Array
    """int32 [2], a price that none of them is better than, and none of `near` worse; means nothing without orders."""
    last_id: Array
    """int32 [], no id of them is above it."""


class Deep(NamedTuple):
    """A market in two parts."""

    near: MarketState
    """Of a capacity of `slots`."""
    far: Far


class _Hit(NamedTuple):
    """The far order that a message names."""

    found: Array
    side: Array
    slot: Array
    ahead: Array  # far orders of its side before it in priority
    order: Row  # itself, scalars


def slots(spec: MarketSpec) -> int:
    """Slots of a side of `near`; 0 if there are none that do."""
    return next((number for number in SLOTS if spec.trade_width <= number // 2 and spec.levels <= number // 4), 0)


def is_worth(spec: MarketSpec) -> bool:
    """Whether a market of these sizes is better taken in two parts."""
    return 0 < _WORTH * slots(spec) <= spec.capacity


def split(spec: MarketSpec, state: MarketState) -> Deep:
    """A whole market -> its two parts."""
    book, number = state.market.book, slots(spec)
    taken = number - number // 4
    near, far = [], []
    for x, nothing in zip(_fields(book), NOTHING, strict=True):
        near.append(jnp.pad(x[:, :taken], ((0, 0), (0, number - taken)), constant_values=nothing))
        far.append(jnp.pad(x[:, taken:], ((0, 0), (0, taken + _ROOM + 1)), constant_values=nothing))
    row = Row(*far)
    resting = jnp.sum(row.volume > 0, axis=-1, dtype=jnp.int32)
    pool = Far(row, resting, resting, row.price[:, 0], jnp.max(row.order_id))
    return Deep(_with_book(state, _book(near, book.last_price)), pool)


def join(spec: MarketSpec, deep: Deep) -> MarketState:
    """The two parts -> the whole market."""
    book, far = deep.near.market.book, deep.far
    both = [jnp.concatenate(x, axis=-1) for x in zip(_fields(book), far.row, strict=True)]
    used = jnp.arange(far.row.volume.shape[-1]) < far.end[:, None]
    rests = jnp.concatenate([book.volume > 0, (far.row.volume > 0) & used], axis=-1)
    both = [jnp.where(rests, x, nothing) for x, nothing in zip(both, NOTHING, strict=True)]
    # Of one price `near` comes first, then the pool in order of arrival: a stable sort keeps it so.
    key = jnp.where(rests, both[0] * jnp.asarray([[1], [-1]], jnp.int32), _FAR_KEY)
    slot = jnp.broadcast_to(jnp.arange(key.shape[-1], dtype=jnp.int32), key.shape)
    order = jax.lax.sort((key, slot), dimension=-1, is_stable=True, num_keys=1)[1][:, :spec.capacity]
    return _with_book(deep.near, _book([jnp.take_along_axis(x, order, axis=-1) for x in both], book.last_price))


def process_near(spec: MarketSpec, table: TokenTables | None, deep: Deep, order: Order
                 ) -> tuple[Deep, Event, jax.Array]:
    """One order, as `market.process.process` takes it, if `near` can; scalars, not under `vmap`.

    Returns the market after, what happened, and bool []: False where the order is to pass through the whole book. Then
    the market is as it was before, and the event means nothing.
    """
    near, far = deep
    book = near.market.book
    count = jnp.sum(book.volume > 0, axis=-1, dtype=jnp.int32)
    has_room = jnp.all((count < book.price.shape[-1] - 1) & (far.end < spec.capacity + _ROOM))
    hit = _named(near, far, order)
    after, event = process(dataclasses.replace(spec, capacity=slots(spec)), table, _with_last(near, count, hit),
                           order)

    accepted = event.status == Status.ACCEPTED
    own = jnp.where(event.order.kind == Kind.BUY, Side.BID, Side.ASK).astype(jnp.int32)
    goes_far = (accepted & (order.kind != Kind.CANCEL) & (event.trades.rest > 0) & (far.resting[own] > 0)
                & ~_is_better(own, event.order.price, far.best[own]))
    left = jnp.where(hit.found, _at(after.market.book.volume, hit.side, count[hit.side]), 0)
    gone = hit.found & (left == 0)
    after = _without_last(after, count, jnp.where(hit.found, hit.side, own), hit.found | goes_far)
    resting = far.resting + jnp.where(jnp.arange(2) == own, goes_far, 0) - jnp.where(
        jnp.arange(2) == hit.side, gone, 0)
    after = _counted(near, after, resting)

    full = (order.kind != Kind.CANCEL) & (count[own] + far.resting[own] >= spec.capacity)
    took = has_room & ~full & (event.status != Status.NOT_FILLED) & _shows_enough(
        spec.levels, after.market.book, far, resting)
    after = jax.tree.map(lambda new, old: jnp.where(took, new, old), after, near)
    far = _written(far, took, hit, left, goes_far, own, event, resting)
    return Deep(after, far), _with_slot(event, hit, count), took


def _named(near: MarketState, far: Far, order: Order) -> _Hit:
    """The far order that is to be cancelled, or that has the id of a new one."""
    book = near.market.book
    is_cancel = order.kind == Kind.CANCEL
    side = jnp.where(order.cancel_side == Side.BID, Side.BID, Side.ASK)
    in_near = jnp.any((book.order_id == order.cancel_id) & (book.volume > 0) & (jnp.arange(2)[:, None] == side))
    is_new = (order.kind == Kind.BUY) | (order.kind == Kind.SELL)
    looks = jnp.where(is_cancel, ~in_near, is_new & (order.order_id != NO_ID)) & (
        jnp.where(is_cancel, order.cancel_id, order.order_id) <= far.last_id)

    def look() -> _Hit:
        row, size = far.row, min(_BLOCK, far.row.volume.shape[-1])
        target = jnp.where(is_cancel, order.cancel_id, order.order_id)
        sides, zero = ~is_cancel | (jnp.arange(2) == side), jnp.zeros((), jnp.int32)

        def block(x: Array, begin: Array, side: Array, sides: int) -> tuple[jax.Array, jax.Array]:
            at = jnp.minimum(begin, x.shape[-1] - size)
            return jax.lax.dynamic_slice(x, (side, at), (sides, size)), at + jnp.arange(size, dtype=jnp.int32)

        def find(carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            (ids, slot), (volume, _) = (block(x, carry[0], zero, 2) for x in (row.order_id, row.volume))
            here = (ids == target) & (volume > 0) & sides[:, None] & (slot < far.end[:, None])
            # An id rests at most once.
            return carry[0] + size, jnp.max(jnp.where(here, slot, -1), axis=-1)

        _, at = jax.lax.while_loop(lambda carry: (carry[0] < jnp.max(far.end)) & jnp.all(carry[1] < 0), find,
                                   (zero, jnp.full(2, -1, jnp.int32)))
        found_side, place = (at[Side.BID] >= 0).astype(jnp.int32), jnp.maximum(jnp.max(at), 0)
        found = Row(*(_at(x, found_side, place) for x in row))

        def count(carry: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            (price, slot), (volume, _) = (
                block(x, carry[0], found_side, 1) for x in (row.price, row.volume))
            before = _is_better(found_side, price, found.price) | ((price == found.price) & (slot < place))
            counts = before & (volume > 0) & (slot >= carry[0]) & (slot < far.end[found_side])
            return carry[0] + size, carry[1] + jnp.sum(counts, dtype=jnp.int32)

        _, ahead = jax.lax.while_loop(lambda carry: carry[0] < far.end[found_side], count, (zero, zero))
        return _Hit(jnp.max(at) >= 0, found_side, place, ahead, found)

    # Outside of this branch nothing is read of the pool: what is still read while it is written to is copied.
    none = jnp.zeros((), jnp.int32)
    return jax.lax.cond(looks, look, lambda: _Hit(jnp.zeros((), bool), none, none, none, Row(none, none, none, none)))


def _with_last(near: MarketState, count: Array, hit: _Hit) -> MarketState:
    """The far order put behind the last of its side in `near`."""
    book, slot = near.market.book, count[hit.side]
    rows = [_put(old, hit.side, slot, jnp.where(hit.found, x, _at(old, hit.side, slot)))
            for x, old in zip(hit.order, _fields(book), strict=True)]
    # A barrier: else each of the many readers of the book would make these slots anew.
    return _with_book(near, _book(jax.lax.optimization_barrier(rows), book.last_price))


def _without_last(after: MarketState, count: Array, side: Array, is_asked: Array) -> MarketState:
    """Where asked, the slot behind the `count` [2] orders that a side held before is emptied."""
    book, slot = after.market.book, count[side]
    rows = [_put(x, side, slot, jnp.where(is_asked, nothing, _at(x, side, slot)))
            for x, nothing in zip(_fields(book), NOTHING, strict=True)]
    return _with_book(after, _book(jax.lax.optimization_barrier(rows), book.last_price))


def _written(far: Far, is_near: Array, hit: _Hit, left: Array, goes_far: Array, own: Array, event: Event, resting: Array
             ) -> Far:
    """The pool after an order that `near` took."""
    nobody = far.row.volume.shape[-1] - 1
    volume = _put(far.row.volume, hit.side, jnp.where(is_near & hit.found, hit.slot, nobody), left)
    adds = is_near & goes_far
    place = jnp.where(adds, far.end[own], nobody)
    new = Row(event.order.price, event.trades.rest, event.order_id, event.order.account)
    row = Row(*(_put(x, own, place, value) for x, value in zip(far.row._replace(volume=volume), new, strict=True)))
    return Far(row, far.end + jnp.where(jnp.arange(2) == own, adds, 0), jnp.where(is_near, resting, far.resting),
               far.best, jnp.where(adds, jnp.maximum(far.last_id, event.order_id), far.last_id))


def _shows_enough(levels: int, near: Book, far: Far, resting: Array) -> jax.Array:
    """bool: all levels that a view shows stand in `near` as a whole."""
    side = jnp.arange(2)[:, None]
    begins = jnp.concatenate([jnp.ones((2, 1), bool), near.price[:, 1:] != near.price[:, :-1]], axis=-1)
    counts = begins & (near.volume > 0) & _is_better(side, near.price, far.best[:, None])
    return jnp.all((resting == 0) | (jnp.sum(counts, axis=-1) >= levels))


def _counted(before: MarketState, after: MarketState, far: Array) -> MarketState:
    """The market with the counter of orders that rest at once made of both parts."""
    count = jnp.sum(after.market.book.volume > 0, axis=-1, dtype=jnp.int32)
    most = jnp.maximum(before.market.counters.most_resting, count + far)
    counters = dataclasses.replace(after.market.counters, most_resting=most)
    return dataclasses.replace(after, market=dataclasses.replace(after.market, counters=counters))


def _with_slot(event: Event, hit: _Hit, count: Array) -> Event:
    """The event with the slot that a far order has in the whole book."""
    slot = jnp.where(hit.found & (event.trades.slot >= 0), count[hit.side] + hit.ahead, event.trades.slot)
    return dataclasses.replace(event, trades=dataclasses.replace(event.trades, slot=slot))


def _is_better(side: Array, price: Array, other: Array) -> Array:
    """bool: of two prices of a side the first comes first."""
    return jnp.where(side == Side.BID, price > other, price < other)


def _with_book(state: MarketState, book: Book) -> MarketState:
    return dataclasses.replace(state, market=dataclasses.replace(state.market, book=book))


def _fields(book: Book) -> tuple[Array, Array, Array, Array]:
    return book.price, book.volume, book.order_id, book.account


def _book(fields: Sequence[Array], last_price: Array) -> Book:
    price, volume, order_id, account = fields
    return Book(price, volume, order_id, account, last_price)


def _at(x: Array, side: Array, slot: Array) -> jax.Array:
    return jax.lax.dynamic_slice(jnp.asarray(x), (side, slot), (1, 1))[0, 0]


def _put(x: Array, side: Array, slot: Array, value: Array) -> jax.Array:
    """One entry written, in place where the compiler can."""
    return jax.lax.dynamic_update_slice(jnp.asarray(x), jnp.asarray(value, x.dtype)[None, None], (side, slot))
