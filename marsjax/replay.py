"""Given orders through the exchange: one day or many symbol-days at once, in chunks of one shape.

`replay` walks the session period by period for all markets together, so that the call auctions of all are held in
one call between two chunks and the compiled chunk holds nothing but `exchange.submit`.
"""

import dataclasses
import functools
import time
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from marsjax import book as books
from marsjax import clock, exchange, orders
from marsjax.data.feed import FeedChunk, Fills
from marsjax.specs import DAY_NS, MarketSpec
from marsjax.types import BookView, Market, Order, Report, Uncross


@dataclasses.dataclass(frozen=True)
class Stretch:
    """Some orders of one market and what the exchange answered, NumPy arrays [N, ...] on the host."""

    market: int
    """Number of the feed."""
    orders: Order
    """[N], as sent."""
    reports: Report
    """[N, ...]."""
    views: BookView | None
    """[N, ...], after each order; None if not asked for."""


@dataclasses.dataclass(frozen=True)
class CallAuction:
    """One call auction of one market, NumPy arrays on the host."""

    market: int
    number: int
    """0 for the first of the session."""
    time_ns: int
    uncross: Uncross
    view: BookView
    """After it."""


@dataclasses.dataclass(frozen=True)
class Published:
    """What a feed says beside its orders; it comes no later than the orders that it is about."""

    market: int
    fills: Fills
    """Transactions that the exchange made."""
    ignored: dict[str, int]
    """Messages that became no order, by reason."""
    adapted: dict[str, int]
    """Messages whose order is not literally what they say, by reason."""


@dataclasses.dataclass(frozen=True)
class Closing:
    """The end of a replay."""

    markets: Market
    """[S, ...], on the device."""
    run_s: float
    """Seconds in compiled code, transfers included and compilation not."""
    compile_s: float


Event = Stretch | CallAuction | Published | Closing


def replay(spec: MarketSpec, feeds: Sequence[Iterator[FeedChunk]], *, chunk_orders: int = 8192, with_views: bool = True,
           first_id: int = 0, one_by_one: bool | None = None, until_ns: int = DAY_NS) -> Iterator[Event]:
    """Replays feeds, each through a market of its own, and yields what happens as it happens.

    Args:
      spec: sizes and session; the same for all S markets.
      feeds: one iterator of chunks a market, in exchange order; kept ids must be unique in a feed.
      chunk_orders: orders of each market in a compiled call; no result depends on it.
      with_views: whether to return the view after every order.
      first_id: id of the first order that comes without one.
      until_ns: orders after it are not read, and call auctions at it or after it are not held.
      one_by_one: whether a compiled call takes the markets in turn, which on a CPU is 4.6 times as fast for deep
        books, or together, which is what a GPU is for; None decides by the device. No result depends on it.

    Yields Stretch, CallAuction and Published events, those of one market in order; a Closing last. Errors of the feeds
    pass through.
    """
    if not feeds:
        raise ValueError("replay: expected at least one feed, got none")
    if chunk_orders < 1:
        raise ValueError(f"replay: expected chunk_orders of at least 1, got {chunk_orders}")
    count = len(feeds)
    markets = jax.tree.map(lambda x: jnp.array(jnp.broadcast_to(x, (count, *x.shape))),
                           exchange.open_market(spec, first_id))
    empty_chunk = _stack([orders.pad(_NOTHING, chunk_orders)] * count)
    watch = _Stopwatch()
    in_turn = jax.default_backend() == "cpu" if one_by_one is None else one_by_one
    run = watch.compile(_run_chunk.lower(spec, with_views, in_turn, markets, empty_chunk))
    auctions = [period.uncross_ns for period in spec.session.periods if period.uncross_ns is not None]
    uncross = watch.compile(_uncross.lower(spec, markets)) if auctions else None
    cursors = [_Cursor(feed) for feed in feeds]
    for number, stop_ns in enumerate([*(held for held in auctions if held < until_ns), until_ns]):
        while True:
            taken = [cursor.take(chunk_orders, stop_ns) for cursor in cursors]
            yield from (Published(m, chunk.fills, chunk.ignored, chunk.adapted)
                        for m, cursor in enumerate(cursors) for chunk in cursor.read_lately())
            if not any(len(part.kind) for part in taken):
                break
            markets, answers = watch.run(run, markets, _stack([orders.pad(part, chunk_orders) for part in taken]))
            for m, part in enumerate(taken):
                if len(part.kind):
                    report, view = _of_market(answers, m, len(part.kind))
                    yield Stretch(m, part, report, view)
        if uncross is not None and stop_ns != until_ns:
            markets, results = watch.run(uncross, markets)
            for m in range(count):
                yield CallAuction(m, number, stop_ns, *jax.tree.map(lambda x, m=m: x[m], results))
    yield Closing(markets, watch.run_s, watch.compile_s)


def _stack(parts: Sequence[Order]) -> Order:
    return jax.tree.map(lambda *x: np.stack(x), *parts)


def _of_market(answers: Any, market: int, length: int) -> Any:
    return jax.tree.map(lambda x: x[market, :length], answers)


@functools.partial(jax.jit, static_argnums=(0, 1, 2), donate_argnums=3)
def _run_chunk(spec: MarketSpec, with_views: bool, one_by_one: bool, markets: Market, chunk: Order
               ) -> tuple[Market, tuple[Report, BookView | None]]:
    """Orders [S, N] through markets [S] -> the markets and the answers [S, N, ...]."""
    def one_order(market: Market, order: Order) -> tuple[Market, tuple[Report, BookView | None]]:
        market, report = exchange.submit(spec, market, order)
        return market, (report, books.view(spec, market.book) if with_views else None)

    def one_market(market: Market, stream: Order) -> tuple[Market, tuple[Report, BookView | None]]:
        return jax.lax.scan(one_order, market, stream)

    if one_by_one:
        # Without a batch axis the tests inside the book stay branches; under vmap both of their sides are computed.
        return jax.lax.map(lambda pair: one_market(*pair), (markets, chunk))
    return jax.vmap(one_market)(markets, chunk)


@functools.partial(jax.jit, static_argnums=0)
def _uncross(spec: MarketSpec, markets: Market) -> tuple[Market, tuple[Uncross, BookView]]:
    after, results = jax.vmap(functools.partial(exchange.uncross, spec))(markets)
    return after, (results, jax.vmap(lambda market: books.view(spec, market.book))(after))


class _Stopwatch:
    """Runs compiled calls, fetches their answers and adds up the seconds; compilation apart."""

    def __init__(self) -> None:
        self.run_s = 0.0
        self.compile_s = 0.0

    def compile(self, lowered: jax.stages.Lowered) -> jax.stages.Compiled:
        began = time.perf_counter()
        compiled = lowered.compile()
        self.compile_s += time.perf_counter() - began
        return compiled

    def run(self, compiled: jax.stages.Compiled, *arguments: Any) -> tuple[Market, Any]:
        """The markets stay on the device; the answers come back as NumPy arrays."""
        began = time.perf_counter()
        markets, answers = compiled(*arguments)
        answers = jax.tree.map(np.asarray, jax.block_until_ready(answers))
        self.run_s += time.perf_counter() - began
        return markets, answers


class _Cursor:
    """Reads a feed a given number of orders at a time, and not past a given time."""

    def __init__(self, feed: Iterator[FeedChunk]) -> None:
        self._feed = feed
        self._ahead: Order | None = None
        self._lately: list[FeedChunk] = []

    def take(self, count: int, until_ns: int) -> Order:
        """The next orders, at most `count`, sent at `until_ns` or before; empty if there are none."""
        parts, missing = [], count
        while missing:
            if self._ahead is None or not len(self._ahead.kind):
                chunk = next(self._feed, None)
                if chunk is None:
                    break
                self._ahead = chunk.orders
                self._lately.append(chunk)
                continue
            late = clock.time_to_ns(self._ahead.time) > until_ns
            ready = int(np.argmax(late)) if late.any() else len(late)
            size = min(ready, missing)
            if size == 0:
                break
            parts.append(jax.tree.map(lambda x, n=size: x[:n], self._ahead))
            self._ahead = jax.tree.map(lambda x, n=size: x[n:], self._ahead)
            missing -= size
        return jax.tree.map(lambda *x: np.concatenate(x), *parts) if parts else _NOTHING

    def read_lately(self) -> list[FeedChunk]:
        """The chunks read since the last call."""
        lately, self._lately = self._lately, []
        return lately


_NOTHING = orders.from_columns(*[np.zeros(0, np.int64)] * 8)
