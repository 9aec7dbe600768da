"""Rollouts: the host loop over compiled chunks of steps, and what is added up on the device meanwhile."""

import dataclasses
import functools
import time
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from marsjax import book as books
from marsjax import clock, simulate
from marsjax.model import Params
from marsjax.simulate import End, Simulation, SimulationSpec
from marsjax.start import Start
from marsjax.tokens import DrawTables, TokenTables
from marsjax.types import NO_PRICE, Array, Market, Status, Time, Wide

MINUTE_S = 60


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Bars:
    """Minutes of B trajectories, M of them; minute k holds the orders in (start + k, start + k + 1] minutes."""

    price_last: Array
    """int32 [B, M], price of the last trade up to the minute's last order, NO_PRICE before the first trade."""
    mid_twice_last: Array
    """int32 [B, M], twice the float mid after the minute's last order."""
    mid_twice_sum: Wide
    """[B, M], of twice the float mid after each order; every cancel of a decision is an order of its own."""
    orders: Array
    """int32 [B, M], accepted orders. Where it is 0 the fields above are NO_PRICE and 0."""
    volume: Wide
    """[B, M] shares traded."""


@dataclasses.dataclass(frozen=True)
class Rollout:
    """What a rollout came to."""

    simulation: Simulation
    """The last state of the trajectories, on the device."""
    bars: Bars
    """NumPy arrays."""
    mid_twice_start: np.ndarray
    """int32 [B], twice the float mid at the start."""
    orders: int
    """Accepted orders of all trajectories, each cancel counted."""
    rejected: dict[str, int]
    """Orders that the exchange refused, by `Status`."""
    ended: dict[str, int]
    """Trajectories by why they ended."""
    steps: int
    compile_s: float
    run_s: float


def rollout(params: Params, spec: SimulationSpec, table: TokenTables, draws: DrawTables, start: Start, *,
            trajectories: int, minutes: int, seed: int, first: int = 0, chunk_steps: int = 64,
            on_chunk: Callable[[int, int], None] | None = None) -> Rollout:
    """Futures of one starting state.

    Args:
      params: of the order model.
      spec: sizes; orders after `spec.end_ns` are not sent.
      table: bins to encode with.
      draws: bins to draw with.
      start: one state, for all trajectories.
      trajectories: B.
      minutes: bars to keep, M.
      seed: with the trajectory's number, from `first` on, and the step, it keys every draw.
      first: number of the first trajectory: trajectory n is the same whatever batch it is in.
      chunk_steps: decisions of a compiled call; no result depends on it.
      on_chunk: called with the steps done and the trajectories that have ended.

    Raises ValueError for numbers out of range, or a weight that is not finite.
    """
    for name, value, low in (("trajectories", trajectories, 1), ("minutes", minutes, 1), ("seed", seed, 0),
                             ("first", first, 0), ("chunk_steps", chunk_steps, 1)):
        if not low <= value < 2**31:
            raise ValueError(f"rollout: expected {name} of {low} to {2**31 - 1}, got {value}")
    _check_weights(params)
    began = time.perf_counter()
    every = jax.tree.map(lambda x: jnp.array(jnp.broadcast_to(x, (trajectories, *jnp.shape(x)))), start)
    state = _begin(params, spec, every, first + jnp.arange(trajectories, dtype=jnp.int32))
    refused_before = np.asarray(start.market.counters.status)
    mid = np.asarray(_mid_twice(spec, every.market))
    bars = _no_bars(trajectories, minutes)
    origin = jax.tree.map(jnp.asarray, start.time)
    run = _chunk.lower(params, spec, table, draws, chunk_steps, (state, bars), origin, jnp.uint32(seed)).compile()
    compile_s, began = time.perf_counter() - began, time.perf_counter()
    steps = 0
    while bool(jnp.any(state.end == End.RUNNING)):
        state, bars = run(params, table, draws, (state, bars), origin, jnp.uint32(seed))
        steps += chunk_steps
        if on_chunk:
            on_chunk(steps, int(jnp.sum(state.end != End.RUNNING)))
    bars = jax.tree.map(np.asarray, bars)
    status = np.asarray(state.market.counters.status) - refused_before
    ends = np.asarray(state.end)
    return Rollout(
        state, bars, mid, orders=int(status[:, Status.ACCEPTED].sum()),
        rejected={reason.name: int(status[:, reason].sum()) for reason in Status
                  if reason > Status.NO_ORDER and status[:, reason].any()},
        ended={reason.name: int((ends == reason).sum()) for reason in End if (ends == reason).any()},
        steps=steps, compile_s=compile_s, run_s=time.perf_counter() - began)


def _check_weights(params: Params) -> None:
    for path, leaf in jax.tree_util.tree_leaves_with_path(params):
        if not bool(jnp.all(jnp.isfinite(leaf))):
            raise ValueError(f"rollout: weights{jax.tree_util.keystr(path)}: expected finite numbers")


_begin = jax.jit(simulate.begin, static_argnums=1)


@functools.partial(jax.jit, static_argnums=0)
def _mid_twice(spec: SimulationSpec, market: Market) -> Array:
    """Twice the float mid, int32 [B], of markets [B]."""
    return jax.vmap(lambda m: books.view(spec.market, m.book).mid_price_twice)(market)


def _no_bars(trajectories: int, minutes: int) -> Bars:
    shape = (trajectories, minutes)
    none = Bars(jnp.full(shape, NO_PRICE, jnp.int32), jnp.full(shape, NO_PRICE, jnp.int32),
                clock.wide(jnp.zeros(shape, jnp.int32)), jnp.zeros(shape, jnp.int32),
                clock.wide(jnp.zeros(shape, jnp.int32)))
    return jax.tree.map(jnp.array, none)


@functools.partial(jax.jit, static_argnums=(1, 4), donate_argnums=5)
def _chunk(params: Params, spec: SimulationSpec, table: TokenTables, draws: DrawTables, count: int,
           carry: tuple[Simulation, Bars], origin: Time, seed: jax.Array) -> tuple[Simulation, Bars]:
    """`count` decisions of every trajectory; the caches are updated in place in the carry."""
    def one(carry: tuple[Simulation, Bars], _: None) -> tuple[tuple[Simulation, Bars], None]:
        state, bars = carry
        words = simulate.draw(seed, state.trajectory, state.step)
        mid_before = _mid_twice(spec, state.market)
        state, decision = simulate.step(params, spec, table, draws, state, words)
        return (state, jax.vmap(functools.partial(_add, origin))(bars, mid_before, decision)), None

    return jax.lax.scan(one, carry, length=count)[0]


def _add(origin: Time, bars: Bars, mid_before: Array, decision: simulate.Decision) -> Bars:
    """Adds one trajectory's decision to its minutes."""
    cancels = jnp.sum(decision.cancelled.trades.count, dtype=jnp.int32)
    limit = (decision.order.status == Status.ACCEPTED).astype(jnp.int32)
    count = jnp.where(decision.sent, cancels + limit, 0)
    passed = clock.subtract_time(decision.planned.time, origin)
    minute = (passed.s - (passed.ns == 0)) // MINUTE_S
    here = (jnp.arange(bars.orders.shape[0], dtype=jnp.int32) == minute) & (count > 0)
    mid = decision.view.mid_price_twice
    # A level goes with the last of its cancels: after those before it the mid is what it was.
    mids = clock.add(clock.wide(mid), clock.multiply(jnp.maximum(count - 1, 0), mid_before))
    traded = clock.select(limit > 0, decision.order.trades.volume, clock.wide(jnp.zeros((), jnp.int32)))

    def plus(total: Wide, amount: Wide) -> Wide:
        return clock.add(total, jax.tree.map(lambda x: jnp.where(here, x, 0), amount))

    return Bars(jnp.where(here, decision.view.last_price, bars.price_last), jnp.where(here, mid, bars.mid_twice_last),
                plus(bars.mid_twice_sum, mids), bars.orders + jnp.where(here, count, 0), plus(bars.volume, traded))
