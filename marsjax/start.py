"""Starting states: a market warmed up by the noise agent (reference: noise agent), or by given orders."""

import dataclasses
import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp
import numpy as np

from marsjax import book as books
from marsjax import clock, exchange, replay, tokens
from marsjax.agents import cancels
from marsjax.agents import noise as noise_agent
from marsjax.agents.noise import NoiseSpec
from marsjax.data.feed import FeedChunk
from marsjax.specs import SECOND_NS, MarketSpec, Phase
from marsjax.tokens import TokenState, TokenTables
from marsjax.types import NO_ID, Array, BookView, Kind, Market, Order, Status, Time, Token, Trades


@dataclasses.dataclass(frozen=True)
class Warmup:
    """When the noise agent trades, and for which account."""

    start_ns: int = 34_200 * SECOND_NS
    """Of its first wake-up, nanoseconds since midnight (9:30)."""
    duration_ns: int = 1_800 * SECOND_NS
    """It wakes up before start + duration."""
    owner: int = 0
    steps_per_call: int = 512
    """Wake-ups a compiled call; the result does not depend on it."""

    def __post_init__(self) -> None:
        if self.start_ns < 0 or self.duration_ns <= 0:
            raise ValueError(f"Warmup: expected start_ns >= 0 and duration_ns > 0, got {self.start_ns}, "
                             f"{self.duration_ns}")
        if self.steps_per_call < 1:
            raise ValueError(f"Warmup.steps_per_call: expected at least 1, got {self.steps_per_call}")


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Start:
    """Where a trajectory starts; scalars and [W] tokens, or [B, ...]."""

    market: Market
    token_state: TokenState
    window: Token
    """[W], the last tokens, oldest first; W is at most `ModelSpec.max_orders`."""
    count: Array
    """[], how many of them there are, from the first on."""
    time: Time
    """Of the first decision."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class _Warming:
    market: Market
    wake: Time
    step: Array
    cut: Array
    """A cancel hit more orders than are listed."""


def noise(market: MarketSpec, agent: NoiseSpec, warmup: Warmup, seed: int, trajectories: int = 1
          ) -> tuple[Market, list[Order]]:
    """Markets made by the noise agent alone.

    Args:
      market: sizes; its session must be open for the whole warm-up.
      agent: what it draws from.
      warmup: when it trades.
      seed: trajectory b of seed s draws from fold_in(fold_in(key(s), b), wake-up number), whatever the batch.
      trajectories: how many markets, B.

    Returns:
      The markets, Market [B], and for each the orders sent, Order [N_b] of int32 NumPy arrays: replayed from an empty
      market they give the same one. Each cancel is an order of its own; a rejected one has NO_ID.

    Raises ValueError where the session is not open, or a cancel hits more orders than `trade_width` lists.
    """
    for name, value, low in (("seed", seed, 0), ("trajectories", trajectories, 1)):
        if not low <= value < 2**31:
            raise ValueError(f"noise start: expected {name} of {low} to {2**31 - 1}, got {value}")
    _check_session(market, warmup)
    first = _Warming(exchange.open_market(market), jax.tree.map(jnp.asarray, clock.static_time(warmup.start_ns)),
                     jnp.zeros((), jnp.int32), jnp.zeros((), bool))
    state = jax.tree.map(lambda x: jnp.broadcast_to(x, (trajectories, *x.shape)).copy(), first)
    numbers = jnp.arange(trajectories, dtype=jnp.int32)
    sent: list[list[Order]] = [[] for _ in range(trajectories)]
    last = clock.time_from_ns(warmup.start_ns + warmup.duration_ns)
    while bool(jnp.any(clock.before(state.wake, last))):
        state, orders = _wake_ups(market, agent, warmup, state, jnp.asarray(seed, jnp.uint32), numbers)
        orders = jax.tree.map(np.asarray, orders)
        for trajectory in range(trajectories):
            rows = jax.tree.map(lambda x, b=trajectory: x[b].reshape(-1), orders)
            sent[trajectory].append(jax.tree.map(lambda x, keep=rows.kind != Kind.NONE: x[keep], rows))
    cut = np.flatnonzero(np.asarray(state.cut))
    if cut.size:
        raise ValueError(f"noise start: trajectory {cut[0]}: a cancel hit more than trade_width={market.trade_width} "
                         "orders; raise MarketSpec.trade_width")
    return state.market, [jax.tree.map(lambda *parts: np.concatenate(parts), *parts) for parts in sent]


def _check_session(market: MarketSpec, warmup: Warmup) -> None:
    end_ns = warmup.start_ns + warmup.duration_ns
    if not any(period.uncross_ns is None and period.start_ns <= warmup.start_ns and end_ns - 1 <= period.end_ns
               for period in market.session.periods):
        raise ValueError(f"noise start: expected continuous trading from {warmup.start_ns} to {end_ns} ns, got the "
                         f"session {market.session}")


@functools.partial(jax.jit, static_argnums=(0, 1, 2), donate_argnums=3)
def _wake_ups(market: MarketSpec, agent: NoiseSpec, warmup: Warmup, state: _Warming, seed: jax.Array,
              numbers: jax.Array) -> tuple[_Warming, Order]:
    """`steps_per_call` wake-ups of each trajectory -> states [B] and orders [B, steps, K]."""
    def one(state: _Warming, number: jax.Array) -> tuple[_Warming, Order]:
        key = jax.random.fold_in(jax.random.key(seed, impl="threefry2x32"), number)
        return jax.lax.scan(lambda s, _: _wake_up(market, agent, warmup, s, jax.random.fold_in(key, s.step)), state,
                            length=warmup.steps_per_call)

    return jax.vmap(one)(state, numbers)


def _wake_up(spec: MarketSpec, agent: NoiseSpec, warmup: Warmup, state: _Warming, key: jax.Array
             ) -> tuple[_Warming, Order]:
    market, wake = state.market, state.wake
    active = clock.before(wake, clock.static_time(warmup.start_ns + warmup.duration_ns))
    plan = noise_agent.act(agent, key, market.book.last_price)
    is_cancel = active & (plan.kind == Kind.CANCEL)
    none = jnp.full_like(plan.kind, NO_ID)
    order = Order(wake, jnp.where(active & ~is_cancel, plan.kind, jnp.int32(Kind.NONE)), plan.price, plan.volume,
                  none, none, none, jnp.full_like(plan.kind, warmup.owner))
    market, report = exchange.submit(spec, market, order)
    take = cancels.nearest(market.book, market.book.owner == warmup.owner, plan.price, plan.volume, plan.upper_wins)
    market, cancelled = exchange.cancel_many(spec, market, jnp.where(is_cancel, take, 0), wake)
    rows = _rows(spec, order, report.order_id, cancelled.trades, cancelled.order_id)
    sleep = clock.add_time(wake, plan.sleep)
    cut = state.cut | jnp.any(cancelled.trades.cut)
    return _Warming(market, clock.select_time(active, sleep, wake), state.step + 1, cut), rows


def _rows(spec: MarketSpec, order: Order, order_id: Array, cancelled: Trades, first_id: Array) -> Order:
    """The orders of one wake-up, [K]: the limit order, or one cancel for each order hit, then Kind.NONE."""
    side = jnp.argmax(cancelled.count).astype(jnp.int32)
    listed = jax.tree.map(lambda x: x[side], cancelled)
    row = jnp.arange(spec.trade_width, dtype=jnp.int32)
    is_cancel = row < listed.count
    is_limit = (row == 0) & (order.kind != Kind.NONE)

    def column(of_cancel: Array | int, of_limit: Array | int, nothing: int) -> jax.Array:
        return jnp.where(is_cancel, of_cancel, jnp.where(is_limit, of_limit, nothing)).astype(jnp.int32)

    return Order(
        time=jax.tree.map(lambda x: jnp.broadcast_to(x, row.shape), order.time),
        kind=column(Kind.CANCEL, order.kind, Kind.NONE), price=column(listed.price, order.price, 0),
        volume=column(listed.volume_each, order.volume, 0), order_id=column(first_id[side] + row, order_id, NO_ID),
        cancel_side=column(side, NO_ID, NO_ID), cancel_id=column(listed.resting_id, NO_ID, NO_ID),
        owner=column(order.owner, order.owner, NO_ID))


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
    view = books.view(market, books.empty(market))
    state, made = tokens.start(), []
    for event in replay.replay(market, [feed], chunk_orders=chunk_orders, first_id=first_id, until_ns=time_ns):
        if isinstance(event, replay.Stretch) and event.views is not None:
            state, encoded = _encode(market, table, state, event, view, chunk_orders)
            made.append(encoded)
            view = jax.tree.map(lambda x: x[-1], event.views)
        elif isinstance(event, replay.CallAuction):
            view = event.view
        elif isinstance(event, replay.Closing):
            last = jax.tree.map(lambda x: x[0], event.markets)
    refused = int(last.counters.status[Status.SIDE_FULL])
    if refused:
        raise ValueError(f"start: {refused} orders refused, a side was full: set capacity above {market.capacity}")
    if not int(state.count):
        raise ValueError(f"start: the orders up to {time_ns} ns make no token; a model needs at least one")
    window, _ = tokens.collect(jax.tree.map(lambda *x: np.concatenate(x), *made))
    window = jax.tree.map(lambda x: x[-max_orders:], window)
    count = len(window.kind)
    padded = jax.tree.map(lambda x: jnp.pad(x, [(0, max_orders - count)] + [(0, 0)] * (x.ndim - 1)), window)
    return Start(last, state, padded, jnp.asarray(count, jnp.int32), clock.static_time(time_ns))


def _encode(market: MarketSpec, table: TokenTables, state: tokens.TokenState, stretch: replay.Stretch,
            before: BookView, length: int) -> tuple[tokens.TokenState, tokens.Encoded]:
    """Tokens of a stretch, padded to one length so that it compiles once."""
    count = len(stretch.orders.kind)
    counts = np.pad(np.asarray(clock.phase(market.session, stretch.orders.time)) == Phase.CONTINUOUS,
                    (0, length - count))
    padded = jax.tree.map(lambda x: np.pad(x, [(0, length - count)] + [(0, 0)] * (np.ndim(x) - 1)),
                          (stretch.orders, stretch.reports, stretch.views))
    state, encoded = _encode_stream(market, table, state, *padded, before, counts)
    return state, jax.tree.map(lambda x: np.asarray(x)[:count], encoded)


_encode_stream = jax.jit(tokens.encode_stream, static_argnums=0)
