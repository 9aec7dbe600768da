"""Markets made by the noise agent alone (reference: noise agent)."""

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from marsjax import clock, exchange
from marsjax.agents import cancels
from marsjax.agents import noise as noise_agent
from marsjax.agents.noise import NoiseSpec
from marsjax.specs import SECOND_NS, MarketSpec
from marsjax.types import NO_ID, Array, Book, Kind, Market, Order, Report, Time

_Kept = TypeVar("_Kept")


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


class WakeUp(NamedTuple):
    """What one wake-up of the noise agent did to its market."""

    happened: Array
    """bool [], the agent was still trading; the rest has no meaning where it was not."""
    order: Order
    """Its limit order, Kind.NONE where it cancelled."""
    report: Report
    """Of that order."""
    cancelled: Report
    """Of its cancels, [2, ...], those of each side."""
    before: Book
    after: Book


@dataclasses.dataclass(frozen=True)
class NoiseRun(Generic[_Kept]):
    """What watched noise markets came to."""

    market: Market
    """[B], on the device."""
    kept: _Kept
    """[B], what was kept of each."""
    compile_s: float
    run_s: float


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
    state, numbers = _before_noise(market, warmup, seed, trajectories)
    sent: list[list[Order]] = [[] for _ in range(trajectories)]
    last = clock.time_from_ns(warmup.start_ns + warmup.duration_ns)
    while bool(jnp.any(clock.before(state.wake, last))):
        state, listed = _wake_ups(market, agent, warmup, state, jnp.asarray(seed, jnp.uint32), numbers)
        listed = jax.tree.map(np.asarray, listed)
        for trajectory in range(trajectories):
            rows = jax.tree.map(lambda x, b=trajectory: x[b].reshape(-1), listed)
            sent[trajectory].append(jax.tree.map(lambda x, keep=rows.kind != Kind.NONE: x[keep], rows))
    cut = np.flatnonzero(np.asarray(state.cut))
    if cut.size:
        raise ValueError(f"noise start: trajectory {cut[0]}: a cancel hit more than trade_width={market.trade_width} "
                         "orders; raise MarketSpec.trade_width")
    return state.market, [jax.tree.map(lambda *parts: np.concatenate(parts), *parts) for parts in sent]


def noise_watched(market: MarketSpec, agent: NoiseSpec, warmup: Warmup, seed: int, trajectories: int,
                  watch: Callable[[_Kept, WakeUp], _Kept], kept: _Kept,
                  on_call: Callable[[int], None] | None = None) -> NoiseRun[_Kept]:
    """The markets that `noise` makes, of which no order is kept: for thousands of them at once.

    Args:
      market: sizes; its session must be open for the whole warm-up.
      agent: what it draws from.
      warmup: when it trades.
      seed: as in `noise`.
      trajectories: how many markets, B.
      watch: called with what is kept of one market so far and with its next wake-up, inside jit; returns what is kept.
        Must leave it as it is where nothing happened.
      kept: at the start, the same for all markets; a pytree of arrays.
      on_call: called after each compiled call with the clock of the market that lags most, nanoseconds since midnight.

    Raises ValueError where the session is not open. A cancel of more orders than `trade_width` lists is carried out
    whole and counted in `Counters.cut_lists`.
    """
    state, numbers = _before_noise(market, warmup, seed, trajectories)
    every = jax.tree.map(lambda x: jnp.array(jnp.broadcast_to(jnp.asarray(x), (trajectories, *jnp.shape(x)))), kept)
    began = time.perf_counter()
    key = jnp.asarray(seed, jnp.uint32)
    run = _watched_wake_ups.lower(market, agent, warmup, watch, (state, every), key, numbers).compile()
    compile_s, began = time.perf_counter() - began, time.perf_counter()
    end_ns = warmup.start_ns + warmup.duration_ns
    earliest_ns = warmup.start_ns
    while earliest_ns < end_ns:
        state, every = run((state, every), key, numbers)
        earliest_ns = int(clock.time_to_ns(state.wake).min())
        if on_call:
            on_call(min(earliest_ns, end_ns))
    return NoiseRun(state.market, every, compile_s, time.perf_counter() - began)


def _before_noise(market: MarketSpec, warmup: Warmup, seed: int, trajectories: int) -> tuple[_Warming, jax.Array]:
    """Empty markets [B] and their numbers."""
    for name, value, low in (("seed", seed, 0), ("trajectories", trajectories, 1)):
        if not low <= value < 2**31:
            raise ValueError(f"noise start: expected {name} of {low} to {2**31 - 1}, got {value}")
    _check_session(market, warmup)
    first = _Warming(exchange.open_market(market), jax.tree.map(jnp.asarray, clock.static_time(warmup.start_ns)),
                     jnp.zeros((), jnp.int32), jnp.zeros((), bool))
    state = jax.tree.map(lambda x: jnp.broadcast_to(x, (trajectories, *x.shape)).copy(), first)
    numbers = jnp.arange(trajectories, dtype=jnp.int32)
    return state, numbers


def _check_session(market: MarketSpec, warmup: Warmup) -> None:
    end_ns = warmup.start_ns + warmup.duration_ns
    if not any(period.uncross_ns is None and period.start_ns <= warmup.start_ns and end_ns - 1 <= period.end_ns
               for period in market.session.periods):
        raise ValueError(f"noise start: expected continuous trading from {warmup.start_ns} to {end_ns} ns, got the "
                         f"session {market.session}")
    auctions = [period.uncross_ns for period in market.session.periods
                if period.uncross_ns is not None and period.uncross_ns <= warmup.start_ns]
    if auctions:
        raise ValueError(f"noise start: expected a session without a call auction before {warmup.start_ns} ns, which "
                         f"would have to be held first, got one at {auctions[0]} ns")


@functools.partial(jax.jit, static_argnums=(0, 1, 2), donate_argnums=3)
def _wake_ups(market: MarketSpec, agent: NoiseSpec, warmup: Warmup, state: _Warming, seed: jax.Array,
              numbers: jax.Array) -> tuple[_Warming, Order]:
    """`steps_per_call` wake-ups of each trajectory -> states [B] and orders [B, steps, K]."""
    def one(state: _Warming, key: jax.Array) -> tuple[_Warming, Order]:
        state, made = _wake_up(market, agent, warmup, state, key)
        return state, _rows(market, made)

    return _every_wake_up(warmup, one, state, seed, numbers)


@functools.partial(jax.jit, static_argnums=(0, 1, 2, 3), donate_argnums=4)
def _watched_wake_ups(market: MarketSpec, agent: NoiseSpec, warmup: Warmup, watch: Callable[[_Kept, WakeUp], _Kept],
                      state: tuple[_Warming, _Kept], seed: jax.Array, numbers: jax.Array) -> tuple[_Warming, _Kept]:
    def one(state: tuple[_Warming, _Kept], key: jax.Array) -> tuple[tuple[_Warming, _Kept], None]:
        warming, made = _wake_up(market, agent, warmup, state[0], key)
        return (warming, watch(state[1], made)), None

    return _every_wake_up(warmup, one, state, seed, numbers)[0]


def _every_wake_up(warmup: Warmup, one: Callable[[Any, jax.Array], tuple[Any, Any]], state: Any, seed: jax.Array,
                   numbers: jax.Array) -> tuple[Any, Any]:
    """`steps_per_call` times `one` of each trajectory, under its key; states are `_Warming`, or begin with one."""
    def all_of(state: Any, number: jax.Array) -> tuple[Any, Any]:
        key = jax.random.fold_in(jax.random.key(seed, impl="threefry2x32"), number)

        def next_one(state: Any, _: None) -> tuple[Any, Any]:
            step = (state if isinstance(state, _Warming) else state[0]).step
            return one(state, jax.random.fold_in(key, step))

        return jax.lax.scan(next_one, state, length=warmup.steps_per_call)

    return jax.vmap(all_of)(state, numbers)


def _wake_up(spec: MarketSpec, agent: NoiseSpec, warmup: Warmup, state: _Warming, key: jax.Array
             ) -> tuple[_Warming, WakeUp]:
    market, wake = state.market, state.wake
    active = clock.before(wake, clock.static_time(warmup.start_ns + warmup.duration_ns))
    plan = noise_agent.act(agent, key, market.book.last_price)
    is_cancel = active & (plan.kind == Kind.CANCEL)
    none = jnp.full_like(plan.kind, NO_ID)
    order = Order(wake, jnp.where(active & ~is_cancel, plan.kind, jnp.int32(Kind.NONE)), plan.price, plan.volume,
                  none, none, none, jnp.full_like(plan.kind, warmup.owner))
    after, report = exchange.submit(spec, market, order)
    take = cancels.nearest(after.book, after.book.owner == warmup.owner, plan.price, plan.volume, plan.upper_wins)
    after, cancelled = exchange.cancel_many(spec, after, jnp.where(is_cancel, take, 0), wake)
    sleep = clock.add_time(wake, plan.sleep)
    cut = state.cut | jnp.any(cancelled.trades.cut)
    return (_Warming(after, clock.select_time(active, sleep, wake), state.step + 1, cut),
            WakeUp(active, order, report, cancelled, market.book, after.book))


def _rows(spec: MarketSpec, made: WakeUp) -> Order:
    """The orders of one wake-up, [K]: the limit order, or one cancel for each order hit, then Kind.NONE."""
    order, order_id, first_id = made.order, made.report.order_id, made.cancelled.order_id
    side = jnp.argmax(made.cancelled.trades.count).astype(jnp.int32)
    listed = jax.tree.map(lambda x: x[side], made.cancelled.trades)
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
