"""Markets made by the noise agent alone (reference: noise agent)."""

import dataclasses
import functools
import time
from collections.abc import Callable
from typing import Any, Generic, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from marsjax.agents import noise as noise_agent
from marsjax.agents.noise import NoiseSpec
from marsjax.core import limits, times
from marsjax.core.errors import InputError
from marsjax.core.records import NO_ACCOUNT, NO_ID, Array, Book, Condition, Kind, Market, Order, Time
from marsjax.core.specs import MarketSpec
from marsjax.core.times import DAY_NS, SECOND_NS
from marsjax.market import exchange
from marsjax.market.process import NOT_MADE, ByPrice, Event, MarketState, process

_Kept = TypeVar("_Kept")


@dataclasses.dataclass(frozen=True)
class Warmup:
    """When the noise agent trades, and for which account."""

    start_ns: int = 34_200 * SECOND_NS
    """Of its first wake-up, nanoseconds since midnight (9:30)."""
    duration_ns: int = 1_800 * SECOND_NS
    """It wakes up before start + duration."""
    account: int = 0
    steps_per_call: int = 512
    """Wake-ups a compiled call; the result does not depend on it."""

    def __post_init__(self) -> None:
        if self.start_ns < 0 or self.duration_ns <= 0:
            raise InputError(f"Warmup: expected start_ns >= 0 and duration_ns > 0, got {self.start_ns}, "
                             f"{self.duration_ns}")
        if self.start_ns + self.duration_ns > DAY_NS:
            raise InputError(f"Warmup: expected an end by midnight, start_ns + duration_ns of at most {DAY_NS}, got "
                             f"{self.start_ns + self.duration_ns}")
        limits.check_whole("Warmup.steps_per_call", self.steps_per_call, 1, limits.STEPS_OF_A_CALL)


class WakeUp(NamedTuple):
    """What one wake-up of the noise agent did to its market."""

    event: Event
    """Its order; nothing happened if the agent had stopped."""
    before: Book
    after: Book


@dataclasses.dataclass(frozen=True)
class NoiseRun(Generic[_Kept]):
    """What observed noise markets came to."""

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
    truncated: Array
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

    Raises InputError where the session is not open, or a cancel hits more orders than `trade_width` lists.

    Examples:
      >>> spec = MarketSpec(capacity=64, trade_width=16)
      >>> minute = Warmup(duration_ns=60 * SECOND_NS, steps_per_call=64)
      >>> markets, sent = noise(spec, NoiseSpec(), minute, seed=0, trajectories=2)
      >>> len(sent), markets.book.price.shape
      (2, (2, 2, 64))
    """
    state, numbers = _before_noise(market, agent, warmup, seed, trajectories)
    sent: list[list[Order]] = [[] for _ in range(trajectories)]
    last = times.from_ns(warmup.start_ns + warmup.duration_ns)
    while bool(jnp.any(times.before(state.wake, last))):
        state, listed = _wake_ups(market, agent, warmup, state, jnp.asarray(seed, jnp.uint32), numbers)
        listed = jax.tree.map(np.asarray, listed)
        for trajectory in range(trajectories):
            rows = jax.tree.map(lambda x, b=trajectory: x[b].reshape(-1), listed)
            sent[trajectory].append(jax.tree.map(lambda x, keep=rows.kind != Kind.NONE: x[keep], rows))
    truncated = np.flatnonzero(np.asarray(state.truncated))
    if truncated.size:
        raise InputError(f"noise start: trajectory {truncated[0]}: a cancel hit more than "
                         f"trade_width={market.trade_width} "
                         "orders; raise MarketSpec.trade_width")
    return state.market, [jax.tree.map(lambda *parts: np.concatenate(parts), *parts) for parts in sent]


def noise_observed(market: MarketSpec, agent: NoiseSpec, warmup: Warmup, seed: int, trajectories: int,
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

    Raises InputError where the session is not open. A cancel of more orders than `trade_width` lists is carried out
    whole and counted in `Counters.truncated_lists`.
    """
    state, numbers = _before_noise(market, agent, warmup, seed, trajectories)
    every = jax.tree.map(lambda x: jnp.array(jnp.broadcast_to(jnp.asarray(x), (trajectories, *jnp.shape(x)))), kept)
    began = time.perf_counter()
    key = jnp.asarray(seed, jnp.uint32)
    run = _observed_wake_ups.lower(market, agent, warmup, watch, (state, every), key, numbers).compile()
    compile_s, began = time.perf_counter() - began, time.perf_counter()
    end_ns = warmup.start_ns + warmup.duration_ns
    earliest_ns = warmup.start_ns
    while earliest_ns < end_ns:
        state, every = run((state, every), key, numbers)
        earliest_ns = int(times.to_ns(state.wake).min())
        if on_call:
            on_call(min(earliest_ns, end_ns))
    return NoiseRun(state.market, every, compile_s, time.perf_counter() - began)


def _before_noise(market: MarketSpec, agent: NoiseSpec, warmup: Warmup, seed: int, trajectories: int
                  ) -> tuple[_Warming, jax.Array]:
    """Empty markets [B] and their numbers."""
    for name, value, low, high in (("seed", seed, 0, limits.SEED),
                                   ("trajectories", trajectories, 1, limits.TRAJECTORIES)):
        if not low <= value <= high:
            raise InputError(f"noise start: expected {name} of {low} to {high}, got {value}")
    wakes = warmup.duration_ns // agent.interval_ns
    if wakes > limits.WAKE_UPS:
        raise InputError(f"NoiseSpec.interval_ns: expected at most {limits.WAKE_UPS} wake-ups in "
                         f"{warmup.duration_ns / 1e9:g} s, got {wakes} by an interval of {agent.interval_ns} ns")
    if agent.init_price % market.tick:
        raise InputError(f"NoiseSpec.init_price: expected a multiple of MarketSpec.tick={market.tick}, got "
                         f"{agent.init_price}")
    _check_session(market, warmup)
    first = _Warming(exchange.open_market(market), jax.tree.map(jnp.asarray, times.of_ns(warmup.start_ns)),
                     jnp.zeros((), jnp.int32), jnp.zeros((), bool))
    state = jax.tree.map(lambda x: jnp.broadcast_to(x, (trajectories, *x.shape)).copy(), first)
    numbers = jnp.arange(trajectories, dtype=jnp.int32)
    return state, numbers


def _check_session(market: MarketSpec, warmup: Warmup) -> None:
    end_ns = warmup.start_ns + warmup.duration_ns
    if not any(period.uncross_ns is None and period.start_ns <= warmup.start_ns and end_ns - 1 <= period.end_ns
               for period in market.session.periods):
        raise InputError(f"noise start: expected continuous trading from {warmup.start_ns} to {end_ns} ns, got the "
                         f"session {market.session}")
    auctions = [period.uncross_ns for period in market.session.periods
                if period.uncross_ns is not None and period.uncross_ns <= warmup.start_ns]
    if auctions:
        raise InputError(f"noise start: expected a session without a call auction before {warmup.start_ns} ns, which "
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
def _observed_wake_ups(market: MarketSpec, agent: NoiseSpec, warmup: Warmup, watch: Callable[[_Kept, WakeUp], _Kept],
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
    active = times.before(wake, times.of_ns(warmup.start_ns + warmup.duration_ns))
    plan = noise_agent.act(agent, key, market.book.last_price)
    none = jnp.full_like(plan.kind, NO_ID)
    order = Order(wake, plan.kind, plan.price, plan.volume, none, none, none, jnp.full_like(plan.kind, warmup.account),
                  jnp.full_like(plan.kind, Condition.REST))
    by_price = ByPrice(plan.kind == Kind.CANCEL, (warmup.account, warmup.account), plan.upper_wins)
    after, event = process(spec, None, MarketState(market, NOT_MADE, NOT_MADE), order, happens=active,
                           by_price=by_price)
    sleep = times.add(wake, plan.sleep)
    truncated = state.truncated | (event.is_by_price & event.trades.is_truncated)
    return (_Warming(after.market, times.select(active, sleep, wake), state.step + 1, truncated),
            WakeUp(event, market.book, after.market.book))


def _rows(spec: MarketSpec, made: WakeUp) -> Order:
    """The orders of one wake-up, [K]: the limit order, or one cancel for each order hit, then Kind.NONE."""
    event = made.event
    order, listed = event.order, event.trades
    row = jnp.arange(spec.trade_width, dtype=jnp.int32)
    is_cancel = event.is_by_price & (row < listed.count)
    is_limit = event.happened & ~event.is_by_price & (row == 0)

    def column(of_cancel: Array | int, of_limit: Array | int, nothing: int) -> jax.Array:
        return jnp.where(is_cancel, of_cancel, jnp.where(is_limit, of_limit, nothing)).astype(jnp.int32)

    return Order(
        time=jax.tree.map(lambda x: jnp.broadcast_to(x, row.shape), order.time),
        kind=column(Kind.CANCEL, order.kind, Kind.NONE), price=column(listed.price, order.price, 0),
        volume=column(listed.volume_each, order.volume, 0),
        order_id=column(event.order_id + row, event.order_id, NO_ID),
        cancel_side=column(order.cancel_side, NO_ID, NO_ID), cancel_id=column(listed.resting_id, NO_ID, NO_ID),
        account=column(order.account, order.account, NO_ACCOUNT),
        condition=column(Condition.REST, order.condition, Condition.REST))
