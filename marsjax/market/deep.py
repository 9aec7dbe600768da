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

SLOTS = 1024
"""Of a side of `near`; half of them are taken after a split."""
_ROOM = 4096
_WORTH = 8 * SLOTS
_FAR_KEY = 2**31 - 1


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
    """Of a capacity of SLOTS."""
    far: Far


class _Hit(NamedTuple):
    """The far order that a message names."""

    found: Array
    side: Array
    slot: Array
    ahead: Array  # far orders of its side before it in priority


def is_worth(spec: MarketSpec) -> bool:
    """Whether a market of these sizes is better taken in two parts."""
    return spec.capacity > _WORTH and spec.trade_width <= SLOTS // 4 and spec.levels <= SLOTS // 4


def suits(spec: MarketSpec, state: MarketState) -> jax.Array:
    """bool []: few enough orders stand at the best prices that `near` would show all levels of a view."""
    parts = split(spec, state)
    return _shows_enough(spec.levels, parts.near.market.book, parts.far, parts.far.resting)


def split(spec: MarketSpec, state: MarketState) -> Deep:
    """A whole market -> its two parts."""
    book, half = state.market.book, SLOTS // 2
    near, far = [], []
    for x, nothing in zip(_fields(book), NOTHING, strict=True):
        near.append(jnp.pad(x[:, :half], ((0, 0), (0, SLOTS - half)), constant_values=nothing))
        far.append(jnp.pad(x[:, half:], ((0, 0), (0, half + _ROOM + 1)), constant_values=nothing))
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
    whole = jax.lax.sort((key, *both), dimension=-1, is_stable=True, num_keys=1)[1:]
    return _with_book(deep.near, _book([x[:, :spec.capacity] for x in whole], book.last_price))


def process_deep(spec: MarketSpec, table: TokenTables | None, deep: Deep, order: Order) -> tuple[Deep, Event]:
    """One order, as `market.process.process` takes it; scalars, not under `vmap`."""
    small = dataclasses.replace(spec, capacity=SLOTS)
    deep = _with_room(spec, deep)
    near, far = deep
    book = near.market.book
    count = jnp.sum(book.volume > 0, axis=-1, dtype=jnp.int32)
    hit = _named(near, far, order)
    after, event = process(small, table, _with_last(near, count, far, hit), order)

    accepted = event.status == Status.ACCEPTED
    own = jnp.where(event.order.kind == Kind.BUY, Side.BID, Side.ASK)
    goes_far = (accepted & (order.kind != Kind.CANCEL) & (event.trades.rest > 0) & (far.resting[own] > 0)
                & ~_is_better(own, event.order.price, far.best[own]))
    left = jnp.where(hit.found, _at(after.market.book.volume, hit.side, count[hit.side]), 0)
    gone = hit.found & (left == 0)
    is_last = ((jnp.arange(2)[:, None] == own) & (jnp.arange(SLOTS) == count[own])) & goes_far
    kept = _book([jnp.where(hit.found, old, jnp.where(is_last, nothing, new)) for old, new, nothing in zip(
        _fields(book), _fields(after.market.book), NOTHING, strict=True)], after.market.book.last_price)
    resting = far.resting + jnp.where(jnp.arange(2) == own, goes_far, 0) - jnp.where(
        jnp.arange(2) == hit.side, gone, 0)
    after = _counted(near, _with_book(after, kept), resting)
    event = _with_slot(event, hit, count)

    full = (order.kind != Kind.CANCEL) & (count[own] + far.resting[own] >= spec.capacity)
    not_near = full | (event.status == Status.NOT_FILLED) | ~_shows_enough(spec.levels, kept, far, resting)

    def whole(carry: tuple[MarketState, Far, Event, jax.Array]) -> tuple[MarketState, Far, Event, jax.Array]:
        state, event = process(spec, table, join(spec, Deep(near, carry[1])), order)
        return *split(spec, state), event, jnp.zeros((), bool)

    # A loop, not a branch: what a loop carries stays where it is.
    start = after, far, event, not_near
    after, far, event, _ = jax.lax.while_loop(lambda carry: carry[3], whole, start)
    far = _written(far, ~not_near, hit, left, goes_far, own, event, resting)
    return Deep(after, far), event


def _with_room(spec: MarketSpec, deep: Deep) -> Deep:
    """Split anew if a side of `near` or the pool is full."""
    def is_full(deep: Deep) -> jax.Array:
        count = jnp.sum(deep.near.market.book.volume > 0, axis=-1)
        return jnp.any((count >= SLOTS - 1) | (deep.far.end >= spec.capacity + _ROOM))

    return jax.lax.while_loop(is_full, lambda deep: split(spec, join(spec, deep)), deep)


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
        row = far.row
        target = jnp.where(is_cancel, order.cancel_id, order.order_id)
        sides = ~is_cancel | (jnp.arange(2) == side)
        here = (row.order_id == target) & (row.volume > 0) & sides[:, None] & (
            jnp.arange(row.volume.shape[-1]) < far.end[:, None])
        at = jnp.argmax(here).astype(jnp.int32)
        found_side, slot = at // here.shape[-1], at % here.shape[-1]
        price, volume = row.price[found_side], row.volume[found_side]
        before = _is_better(found_side, price, price[slot]) | (
            (price == price[slot]) & (jnp.arange(len(price)) < slot))
        ahead = jnp.sum(before & (volume > 0) & (jnp.arange(len(price)) < far.end[found_side]), dtype=jnp.int32)
        return _Hit(jnp.any(here), found_side, slot, ahead)

    none = jnp.zeros((), jnp.int32)
    return jax.lax.cond(looks, look, lambda: _Hit(jnp.zeros((), bool), none, none, none))


def _with_last(near: MarketState, count: Array, far: Far, hit: _Hit) -> MarketState:
    """The far order put behind the last of its side in `near`."""
    here = (jnp.arange(2)[:, None] == hit.side) & (jnp.arange(SLOTS) == count[hit.side]) & hit.found
    book = near.market.book
    rows = [jnp.where(here, _at(x, hit.side, hit.slot), old)
            for x, old in zip(far.row, _fields(book), strict=True)]
    return _with_book(near, _book(rows, book.last_price))


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
