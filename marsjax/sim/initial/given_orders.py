"""Given orders through the exchange: feeds of one or of many markets at once, in compiled chunks of one shape.

`pass_feeds` walks the session period by period for all markets together, so that the call auctions of all are held in
one call between two chunks, and a compiled chunk holds nothing but `process`. Replays, starting states and training
are made of it.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from marsjax.core import kernels as ways
from marsjax.core import limits
from marsjax.core.errors import InputError
from marsjax.core.records import BookView, Order, Uncross
from marsjax.core.specs import MarketSpec
from marsjax.core.times import DAY_NS
from marsjax.data.cursor import NO_ORDERS, OrderCursor
from marsjax.data.feed import FeedChunk
from marsjax.market import orders
from marsjax.market.process import MarketState, open_state
from marsjax.sim.initial.order_programs import Answer, InTurn, Stopwatch, Together, hold_auctions, open_markets


@dataclasses.dataclass(frozen=True)
class PassSpec:
    """How orders pass; no result depends on it but for what is made."""

    market: MarketSpec
    """Sizes and session, the same for all markets."""
    chunk_orders: int = 8192
    """Orders of each market in a compiled call."""
    with_views: bool = True
    """Whether the view after every order is made."""
    first_id: int = 0
    """Id of the first order that comes without one."""
    one_by_one: bool | None = None
    """Whether a compiled call takes the markets in turn or together; None: as `MarketSpec.kernels` says."""

    def __post_init__(self) -> None:
        if not 1 <= self.chunk_orders <= limits.TRAJECTORIES:
            raise InputError(f"given orders: expected chunk_orders of at least 1, got {self.chunk_orders}"
                             if self.chunk_orders < 1 else f"given orders: expected chunk_orders of at most "
                             f"{limits.TRAJECTORIES}, got {self.chunk_orders}")


class Chunk(NamedTuple):
    """Orders of S markets and what came of them."""

    orders: tuple[Order, ...]
    """S of NumPy arrays [N_m], as sent."""
    padded: Order
    """NumPy arrays [S, N], filled up with Kind.NONE."""
    answers: Answer
    """[S, N, ...] on the device; no more than padding from N_m on."""


class Auctions(NamedTuple):
    """The call auctions of S markets at one time."""

    number: int
    """0 for the first of the session."""
    time_ns: int
    uncross: Uncross
    """[S, ...] on the device."""
    view: BookView
    """[S, ...], after them."""


class Stop(NamedTuple):
    """A time up to which all orders have passed, and the states then, [S, ...] on the device."""

    time_ns: int
    states: MarketState


class PassEnd(NamedTuple):
    """All orders have passed."""

    states: MarketState
    run_s: float
    """Seconds in which compiled calls were under way; what is read and done meanwhile costs none."""
    compile_s: float
    """Seconds of tracing and compiling."""


PassEvent = Chunk | Auctions | Stop | PassEnd | list[tuple[int, FeedChunk]]


def pass_feeds(spec: PassSpec, feeds: Sequence[Iterator[FeedChunk]], stops_ns: Sequence[int] = (),
               until_ns: int = DAY_NS) -> Iterator[PassEvent]:
    """Feeds, each through a market of its own, and what happens as it happens.

    Args:
      spec: sizes.
      feeds: one iterator of chunks a market, in exchange order; kept ids must be unique in a feed.
      stops_ns: times at which the states are wanted, with all orders up to then and before a call auction then.
      until_ns: orders after it are not read, and call auctions at it or after it are not held.

    Yields before each `Chunk` what was read of the feeds for it, [(market, FeedChunk)]; an `PassEnd` last. Errors of
    the feeds pass through, after what came before them.

    What is yielded comes a call late: while the exchange works on orders, those after them are read, and whoever asked
    works on what came of those before them.
    """
    watch = Stopwatch()
    auctions_ns = [period.uncross_ns for period in spec.market.session.periods
                   if period.uncross_ns is not None and period.uncross_ns < until_ns]
    calls = _Calls(spec, len(feeds), bool(auctions_ns), watch)
    started = _started(calls, [OrderCursor(feed) for feed in feeds], auctions_ns, stops_ns, until_ns)
    held: tuple[PassEvent, ...] = ()
    try:
        while True:
            try:
                events = next(started, None)
            except (KeyboardInterrupt, SystemExit):
                held = ()
                raise
            finally:
                for event in held:
                    if isinstance(event, Chunk | Auctions):
                        watch.wait(event)
                    yield event
            if events is None:
                break
            held = events
            if isinstance(events[-1], Stop):  # the next call uses up the states that it tells of
                held = ()
                yield from events
    finally:
        jax.block_until_ready(calls.latest)  # nothing goes on behind whoever asks no more
    yield PassEnd(calls.states, watch.run_s, watch.compile_s)


def _started(calls: "_Calls", cursors: Sequence[OrderCursor], auctions_ns: Sequence[int], stops_ns: Sequence[int],
             until_ns: int) -> Iterator[tuple[PassEvent, ...]]:
    """Starts one call after the other, and yields what is to be told of each when its results are there."""
    size = calls.spec.chunk_orders
    for stop_ns in sorted({*auctions_ns, *stops_ns, until_ns}):
        while True:
            taken = tuple(cursor.take(size, stop_ns) for cursor in cursors)
            read = [(m, chunk) for m, cursor in enumerate(cursors) for chunk in cursor.read_lately()]
            if not any(len(part.kind) for part in taken):
                yield (read,)
                break
            yield read, calls.chunk(taken)
        if stop_ns in stops_ns:
            yield (Stop(stop_ns, calls.states),)
        if stop_ns in auctions_ns:
            yield (calls.auctions(auctions_ns.index(stop_ns), stop_ns),)


class _Calls:
    """The compiled calls of S markets, and their states after those that were started."""

    def __init__(self, spec: PassSpec, count: int, has_auctions: bool, watch: Stopwatch) -> None:
        self.spec, self._watch = spec, watch
        self.latest: Any = None
        """What the last of them gives; unlike the states it is not used up by the next."""
        market = spec.market
        in_turn = ways.chosen(market.kernels).one_by_one if spec.one_by_one is None else spec.one_by_one
        with watch.compiling():
            self.states = jax.block_until_ready(open_markets(market, spec.first_id, count, spec.with_views))
            empty = _stack([orders.pad(NO_ORDERS, spec.chunk_orders)] * count)
            self._run = (InTurn(market, self.states, empty, watch) if in_turn else
                         Together(market, self.states, empty))
            self._uncross = hold_auctions.lower(market, self.states).compile() if has_auctions else None

    def chunk(self, taken: tuple[Order, ...]) -> Chunk:
        """Starts the orders of each market."""
        padded = _stack([orders.pad(part, self.spec.chunk_orders) for part in taken])
        counts = np.array([len(part.kind) for part in taken], np.int32)
        self._watch.start()
        self.states, answers = self._run(self.states, padded, counts)
        self.latest = answers
        return Chunk(taken, padded, answers)

    def auctions(self, number: int, time_ns: int) -> Auctions:
        """Starts the call auctions that all hold."""
        if self._uncross is None:
            raise ValueError("given orders: expected calls made for auctions")
        self._watch.start()
        self.states, results = self._uncross(self.states)
        self.latest = results
        return Auctions(number, time_ns, *results)


def opening(market: MarketSpec) -> MarketState:
    """One market before its first order, with views and tokens; no call auction was held."""
    return open_state(market)


def _stack(parts: Sequence[Order]) -> Order:
    return jax.tree.map(lambda *x: np.stack(x), *parts)
