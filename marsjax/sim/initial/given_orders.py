"""Given orders through the exchange: feeds of one or of many markets at once, in compiled chunks of one shape.

`pass_feeds` walks the session period by period for all markets together, so that the call auctions of all are held in
one call between two chunks, and a compiled chunk holds nothing but `process`. Replays, starting states and training
are made of it.
"""

import dataclasses
import functools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from marsjax.core import kernels as ways
from marsjax.core import limits
from marsjax.core.errors import InputError
from marsjax.core.records import Array, BookView, Order, Report, Uncross
from marsjax.core.specs import MarketSpec
from marsjax.core.times import DAY_NS
from marsjax.data.cursor import NO_ORDERS, OrderCursor
from marsjax.data.feed import FeedChunk
from marsjax.market import deep, orders
from marsjax.market.process import Event, MarketState, hold_auction, open_state, process
from marsjax.tokens.encoding import Encoded, TokenTables


@dataclasses.dataclass(frozen=True)
class PassSpec:
    """How orders pass; no result depends on it but for what is made."""

    market: MarketSpec
    """Sizes and session, the same for all markets."""
    chunk_orders: int = 8192
    """Orders of each market in a compiled call."""
    with_views: bool = True
    """Whether the view after every order is made; tokens need them."""
    first_id: int = 0
    """Id of the first order that comes without one."""
    one_by_one: bool | None = None
    """Whether a compiled call takes the markets in turn or together; None: as `MarketSpec.kernels` says."""

    def __post_init__(self) -> None:
        if not 1 <= self.chunk_orders <= limits.TRAJECTORIES:
            raise InputError(f"given orders: expected chunk_orders of at least 1, got {self.chunk_orders}"
                             if self.chunk_orders < 1 else f"given orders: expected chunk_orders of at most "
                             f"{limits.TRAJECTORIES}, got {self.chunk_orders}")


class Answer(NamedTuple):
    """What came of one order."""

    report: Report
    view: BookView
    """After it; NOT_MADE if it is not asked for."""
    encoded: Encoded
    """Its token; NOT_MADE if there are no tables to encode with."""


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
    """Seconds in compiled code, without compilation."""
    compile_s: float


PassEvent = Chunk | Auctions | Stop | PassEnd | list[tuple[int, FeedChunk]]


def pass_feeds(spec: PassSpec, feeds: Sequence[Iterator[FeedChunk]], table: TokenTables | None = None,
               stops_ns: Sequence[int] = (), until_ns: int = DAY_NS) -> Iterator[PassEvent]:
    """Feeds, each through a market of its own, and what happens as it happens.

    Args:
      spec: sizes.
      feeds: one iterator of chunks a market, in exchange order; kept ids must be unique in a feed.
      table: bins to encode with; None: no tokens are made.
      stops_ns: times at which the states are wanted, with all orders up to then and before a call auction then.
      until_ns: orders after it are not read, and call auctions at it or after it are not held.

    Yields before each `Chunk` what was read of the feeds for it, [(market, FeedChunk)]; an `PassEnd` last. Errors of
    the feeds pass through.
    """
    market, count = spec.market, len(feeds)
    in_turn = ways.chosen(market.kernels).one_by_one if spec.one_by_one is None else spec.one_by_one
    states = _open(market, spec.first_id, count, spec.with_views or table is not None, table is not None)
    size = spec.chunk_orders
    empty, counts = _stack([orders.pad(NO_ORDERS, size)] * count), np.zeros(count, np.int32)
    watch = _Stopwatch()
    run = watch.compile(_run_chunk.lower(market, in_turn, table, states, empty, counts))
    held = [period.uncross_ns for period in market.session.periods if period.uncross_ns is not None]
    held = [held_ns for held_ns in held if held_ns < until_ns]
    uncross = watch.compile(_hold_auctions.lower(market, states)) if held else None
    cursors = [OrderCursor(feed) for feed in feeds]
    for stop_ns in sorted({*held, *stops_ns, until_ns}):
        while True:
            taken = [cursor.take(size, stop_ns) for cursor in cursors]
            yield [(m, chunk) for m, cursor in enumerate(cursors) for chunk in cursor.read_lately()]
            if not any(len(part.kind) for part in taken):
                break
            padded = _stack([orders.pad(part, size) for part in taken])
            states, answers = watch.run(run, table, states, padded,
                                        np.array([len(part.kind) for part in taken], np.int32))
            yield Chunk(tuple(taken), padded, answers)
        if stop_ns in stops_ns:
            yield Stop(stop_ns, states)
        if uncross is not None and stop_ns in held:
            states, results = watch.run(uncross, states)
            yield Auctions(held.index(stop_ns), stop_ns, *results)
    yield PassEnd(states, watch.run_s, watch.compile_s)


def opening(market: MarketSpec) -> MarketState:
    """One market before its first order, with views and tokens; no call auction was held."""
    return open_state(market)


def _stack(parts: Sequence[Order]) -> Order:
    return jax.tree.map(lambda *x: np.stack(x), *parts)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3, 4))
def _open(market: MarketSpec, first_id: int, count: int, with_view: bool, with_tokens: bool) -> MarketState:
    opened = open_state(market, first_id, with_view=with_view, with_tokens=with_tokens)
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (count, *x.shape)), opened)


@functools.partial(jax.jit, static_argnums=(0, 1), donate_argnums=3)
def _run_chunk(spec: MarketSpec, one_by_one: bool, table: TokenTables | None, states: MarketState, chunk: Order,
               counts: Array) -> tuple[MarketState, Answer]:
    """The first `counts` [S] of orders [S, N] through markets [S] -> the markets and the answers [S, N, ...]."""
    def answer_of(event: Event) -> Answer:
        report = Report(event.status, event.order_id, event.trades, event.order.price)
        return Answer(report, event.view, event.encoded)

    def one_order(state: MarketState, order: Order) -> tuple[MarketState, Answer]:
        state, event = process(spec, table, state, order)
        return state, answer_of(event)

    def one_of_deep(state: deep.Deep, order: Order) -> tuple[deep.Deep, Answer]:
        state, event = deep.process_deep(spec, table, state, order)
        return state, answer_of(event)

    def row(tree: Any, at: Any) -> Any:
        return jax.tree.map(lambda x: jnp.asarray(x)[at], tree)

    shapes = jax.eval_shape(one_order, row(states, 0), row(chunk, (0, 0)))[1]
    rows = chunk.kind.shape
    # Loops that end at the last order, unlike a scan, pass over no padding.
    if one_by_one:
        # Without a batch axis the tests inside the book stay branches; under vmap both of their sides are computed.
        def one_market(given: tuple[MarketState, Order, Array]) -> tuple[MarketState, Answer]:
            state, sent, count = given
            nothing = jax.tree.map(lambda x: jnp.zeros((rows[1], *x.shape), x.dtype), shapes)

            def loop(one: Callable[[Any, Order], tuple[Any, Answer]], state: Any) -> tuple[Any, Answer]:
                def step(i: Array, carry: tuple[Any, Answer]) -> tuple[Any, Answer]:
                    state, answer = one(carry[0], row(sent, i))
                    return state, jax.tree.map(lambda old, new: old.at[i].set(new), carry[1], answer)

                return jax.lax.fori_loop(0, count, step, (state, nothing))

            def in_parts() -> tuple[MarketState, Answer]:
                parts, answers = loop(one_of_deep, deep.split(spec, state))
                return deep.join(spec, parts), answers

            if not deep.is_worth(spec):
                return loop(one_order, state)
            return jax.lax.cond(deep.suits(spec, state), in_parts, lambda: loop(one_order, state))

        return jax.lax.map(one_market, (states, chunk, counts))

    def step(i: Array, carry: tuple[MarketState, Answer]) -> tuple[MarketState, Answer]:
        states, answer = jax.vmap(one_order)(carry[0], row(chunk, (slice(None), i)))
        return states, jax.tree.map(lambda old, new: old.at[:, i].set(new), carry[1], answer)

    nothing = jax.tree.map(lambda x: jnp.zeros((*rows, *x.shape), x.dtype), shapes)
    return jax.lax.fori_loop(0, jnp.max(counts), step, (states, nothing))


@functools.partial(jax.jit, static_argnums=0)
def _hold_auctions(spec: MarketSpec, states: MarketState) -> tuple[MarketState, tuple[Uncross, BookView]]:
    after, results = jax.vmap(functools.partial(hold_auction, spec))(states)
    return after, (results, after.view)


class _Stopwatch:
    """Runs compiled calls and adds up the seconds; compilation apart."""

    def __init__(self) -> None:
        self.run_s = 0.0
        self.compile_s = 0.0

    def compile(self, lowered: jax.stages.Lowered) -> jax.stages.Compiled:
        began = time.perf_counter()
        compiled = lowered.compile()
        self.compile_s += time.perf_counter() - began
        return compiled

    def run(self, compiled: jax.stages.Compiled, *arguments: Any) -> Any:
        began = time.perf_counter()
        result = jax.block_until_ready(compiled(*arguments))
        self.run_s += time.perf_counter() - began
        return result
