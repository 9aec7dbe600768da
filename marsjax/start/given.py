"""The states that given orders lead to: a real day up to a time, or a warm-up replayed."""

import dataclasses
import functools
import itertools
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from marsjax import book as books
from marsjax import clock, exchange, orders, tokens
from marsjax.data.feed import FeedChunk
from marsjax.specs import MarketSpec, Phase
from marsjax.start.state import Start
from marsjax.tokens import TokenState, TokenTables
from marsjax.types import Array, BookView, Market, Order, Status

_Parts = TypeVar("_Parts")


class Passed(NamedTuple):
    """Orders of a day and what came of them, NumPy arrays [N, ...] on the host."""

    orders: Order
    """As sent."""
    status: np.ndarray
    """int32, a `Status`."""
    counts: np.ndarray
    """bool, accepted and in continuous trading."""
    views: BookView
    """After each order."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Passing:
    """A market while orders pass through it."""

    market: Market
    token_state: TokenState
    view: BookView


def from_feed(market: MarketSpec, table: TokenTables, feed: Iterator[FeedChunk], time_ns: int, max_orders: int,
              first_id: int = 0, chunk_orders: int = 4096) -> Start:
    """The state that given orders lead to: book, accounts, and the tokens that a model will have seen.

    Args:
      market: sizes and session; its call auctions before `time_ns` are held.
      table: bins to encode with.
      feed: the orders, in exchange order; those after `time_ns` are not read.
      time_ns: of the first decision, nanoseconds since midnight.
      max_orders: most tokens kept, `ModelSpec.max_orders`.
      first_id: id of the first order that comes without one.
      chunk_orders: orders of a compiled call.

    Raises ValueError if a side was full, or if the orders make no token: a model has nothing to go by.
    """
    return next(from_feed_at(market, table, feed, [time_ns], max_orders, first_id, chunk_orders))[0]


def from_feed_at(market: MarketSpec, table: TokenTables, feed: Iterator[FeedChunk], times_ns: Sequence[int],
                 max_orders: int, first_id: int = 0, chunk_orders: int = 4096) -> Iterator[tuple[Start, Passed]]:
    """The states at several times of one day, in one pass over its orders; each equals that of `from_feed`.

    Args:
      market: sizes and session; its call auctions before each time are held.
      table: bins to encode with.
      feed: the orders, in exchange order; those after the last time are not read.
      times_ns: of the first decisions, nanoseconds since midnight, rising.
      max_orders: most tokens kept, `ModelSpec.max_orders`.
      first_id: id of the first order that comes without one.
      chunk_orders: orders of a compiled call; no result depends on it.

    Yields each state with the orders since the one before. Raises ValueError as `from_feed` does.
    """
    if not times_ns or any(b <= a for a, b in itertools.pairwise(times_ns)):
        raise ValueError(f"start: expected times that rise, got {list(times_ns)}")
    if chunk_orders < 1:
        raise ValueError(f"start: expected chunk_orders of at least 1, got {chunk_orders}")
    held = {period.uncross_ns for period in market.session.periods
            if period.uncross_ns is not None and period.uncross_ns < times_ns[-1]}
    state = _open(market, first_id)
    nothing = Passed(_NO_ORDERS, np.zeros(0, np.int32), np.zeros(0, bool),
                     jax.tree.map(lambda x: np.zeros((0, *x.shape), x.dtype), state.view))
    made: list[tokens.Encoded] = []
    passed = [nothing]
    for stop_ns, part in _until(feed, sorted(held | set(times_ns)), chunk_orders):
        if part is not None:
            count = len(part.kind)
            state, rows = _pass(market, table, state, orders.pad(part, chunk_orders), jnp.asarray(count, jnp.int32))
            encoded, *answers = jax.tree.map(lambda x, n=count: np.asarray(x)[:n], rows)
            made.append(encoded)
            passed.append(Passed(part, *answers))
            continue
        if stop_ns in times_ns:
            made = [_joined(made)] if made else made
            yield _start(market, state, made, stop_ns, max_orders), _joined(passed)
            passed = [nothing]
        if stop_ns in held:
            state = _hold_auction(market, state)


def _joined(parts: list[_Parts]) -> _Parts:
    return jax.tree.map(lambda *x: np.concatenate(x), *parts)


def _until(feed: Iterator[FeedChunk], stops_ns: Sequence[int], size: int) -> Iterator[tuple[int, Order | None]]:
    """The orders up to each stop, at most `size` at a time, then None; what comes after the last is not read."""
    ahead = _NO_ORDERS
    for stop_ns in stops_ns:
        while True:
            late = clock.time_to_ns(ahead.time) > stop_ns
            ready = int(np.argmax(late)) if late.any() else len(late)
            for first in range(0, ready, size):
                yield stop_ns, _slice(ahead, first, min(first + size, ready))
            ahead = _slice(ahead, ready, len(late))
            chunk = None if late.any() else next(feed, None)
            if chunk is None:
                break
            ahead = chunk.orders
        yield stop_ns, None


def _slice(sent: Order, first: int, end: int) -> Order:
    return jax.tree.map(lambda x: x[first:end], sent)


def _start(market: MarketSpec, state: _Passing, made: list[tokens.Encoded], time_ns: int, max_orders: int) -> Start:
    refused = int(state.market.counters.status[Status.SIDE_FULL])
    if refused:
        raise ValueError(f"start: {refused} orders refused, a side was full: set capacity above {market.capacity}")
    if not int(state.token_state.count):
        raise ValueError(f"start: the orders up to {time_ns} ns make no token; a model needs at least one")
    window, _ = tokens.collect(made[0])
    window = jax.tree.map(lambda x: x[-max_orders:], window)
    count = len(window.kind)
    padded = jax.tree.map(lambda x: np.pad(x, [(0, max_orders - count)] + [(0, 0)] * (x.ndim - 1)), window)
    return Start(state.market, state.token_state, padded, np.array(count, np.int32), clock.time_from_ns(time_ns))


@functools.partial(jax.jit, static_argnums=(0, 1))
def _open(market: MarketSpec, first_id: int) -> _Passing:
    opened = exchange.open_market(market, first_id)
    return _Passing(opened, tokens.start(), books.view(market, opened.book))


@functools.partial(jax.jit, static_argnums=0)
def _pass(market: MarketSpec, table: TokenTables, state: _Passing, sent: Order, count: Array
          ) -> tuple[_Passing, tuple[tokens.Encoded, Array, Array, BookView]]:
    """The first `count` of orders [N], and for each its token, status, whether it counts, and the view after it."""
    def one(state: _Passing, order: Order) -> tuple[_Passing, tuple[tokens.Encoded, Array, Array, BookView]]:
        after, report = exchange.submit(market, state.market, order)
        view = books.view(market, after.book)
        counts = (report.status == Status.ACCEPTED) & (clock.phase(market.session, order.time) == Phase.CONTINUOUS)
        token_state, encoded = tokens.encode(market, table, state.token_state, order, report.trades, state.view, view,
                                             counts)
        return _Passing(after, token_state, view), (encoded, report.status, counts, view)

    def step(i: Array, carry: tuple[_Passing, Any]) -> tuple[_Passing, Any]:
        state, row = one(carry[0], jax.tree.map(lambda x: jnp.asarray(x)[i], sent))
        return state, jax.tree.map(lambda rows, x: rows.at[i].set(x), carry[1], row)

    shapes = jax.eval_shape(one, state, jax.tree.map(lambda x: jnp.asarray(x)[0], sent))[1]
    empty = jax.tree.map(lambda x: jnp.zeros((len(sent.kind), *x.shape), x.dtype), shapes)
    # A loop that ends at `count`, unlike a scan, passes over no padding.
    return jax.lax.fori_loop(0, count, step, (state, empty))


@functools.partial(jax.jit, static_argnums=0)
def _hold_auction(market: MarketSpec, state: _Passing) -> _Passing:
    after, _ = exchange.uncross(market, state.market)
    return dataclasses.replace(state, market=after, view=books.view(market, after.book))


_NO_ORDERS = orders.from_columns(*[np.zeros(0, np.int64)] * 8)
