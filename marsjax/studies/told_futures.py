"""Futures that an order model writes, with its hidden states: orders to train an ensemble on beside those of real days.

A few real days have few intervals, and what an ensemble learns of them by heart is wrong elsewhere. Of its own futures
the order model knows the law exactly, and there are as many as wanted.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from marsjax.core import times
from marsjax.core.errors import InputError
from marsjax.core.records import Array, Status, Time
from marsjax.model import kv_cache
from marsjax.observers.order_images import OrderImageObserver
from marsjax.sim import step as sim_step
from marsjax.sim.initial import Start
from marsjax.sim.simulator import Simulator
from marsjax.sim.state import End, SimState
from marsjax.training.ensemble import ToldOrders

_CHUNK = 64
"""Decisions of a compiled call."""


class Rolled(NamedTuple):
    """Futures that were written."""

    orders: ToldOrders
    full_books: int
    """Futures in which a side of the book was full, so that orders were refused."""


class Decided(NamedTuple):
    """Decisions of B trajectories, [N, B, ...]."""

    hidden: Array
    """float32 [N, B, d], before each."""
    drawn: Array
    """int32, its class."""
    interval: Array
    """int32, in which its order was sent, counted from the start; -1 where none was."""


def roll(simulator: Simulator, starts: Start, trajectory: np.ndarray, seed: int, until: Time,
         encode: Callable[[Array], Array]) -> Rolled:
    """Futures of starts [B, ...], each up to `until` [B], and the codes of their intervals.

    Args:
      simulator: without other agents; its last observer is an `OrderImageObserver`, which keeps as many intervals as
        the futures have.
      starts: real states.
      trajectory: int32 [B], numbers that key their draws.
      seed: of the draws.
      until: [B].
      encode: images uint8 [M, 3, 2 V, P] -> codes int32 [M, C].

    Orders of intervals that end after `until` are left out.
    """
    observer = _observer(simulator)
    state = jax.jit(sim_step.begin)(simulator, starts, jnp.asarray(trajectory), (), until)
    parts: list[Decided] = []
    while bool((np.asarray(state.end) == End.RUNNING).any()):
        state, part = _chunk(simulator, state, starts.time, jnp.uint32(seed))
        parts.append(jax.device_get(part))
    hidden, drawn, interval = (np.swapaxes(np.concatenate(x), 0, 1) for x in zip(*parts, strict=True))
    length = (times.to_ns(until) - times.to_ns(starts.time)) // (observer.spec.every_s * times.SECOND_NS)
    count = int(length.max())
    images = jax.device_get(jax.jit(jax.vmap(observer.last, (0, None)))(state.observed[-1], jnp.int32(count))).images
    codes = np.asarray(encode(images[:, -count:].reshape(-1, *images.shape[2:])))
    kept = (interval >= 0) & (interval < length[:, None])
    batch = interval.astype(np.int64) + count * np.arange(len(length))[:, None]
    # Orders are sent in order of time, so that those of an interval lie one after the other.
    orders = ToldOrders(hidden[kept], drawn[kept], batch[kept].astype(np.int32), codes)
    refused = np.asarray(state.market.counters.status)[:, Status.SIDE_FULL]
    return Rolled(orders, int((refused > np.asarray(starts.market.counters.status)[:, Status.SIDE_FULL]).sum()))


def _observer(simulator: Simulator) -> OrderImageObserver:
    observer = simulator.spec.observers[-1] if simulator.spec.observers else None
    if not isinstance(observer, OrderImageObserver):
        raise InputError("told futures: expected an OrderImageObserver as the last observer, got "
                         f"{observer or 'no observer'}")
    return observer


@functools.partial(jax.jit, donate_argnums=1)
def _chunk(given: Simulator, state: SimState, began: Time, seed: jax.Array) -> tuple[SimState, Decided]:
    simulator, every_s = given.prepared(), _observer(given).spec.every_s

    def one(state: SimState, _: None) -> tuple[SimState, Decided]:
        hidden = kv_cache.predict(simulator.model, simulator.spec.cache, state.cache, simulator.prefix)
        state, decision = sim_step.step(simulator, state, sim_step.draw(seed, state.trajectory, state.step))
        passed = times.subtract(decision.planned.time, began)
        interval = jnp.where(decision.sent, jnp.asarray(passed.s) // every_s, -1)
        return state, Decided(hidden, decision.token, interval)

    found: Any = jax.lax.scan(one, state, None, length=_CHUNK)
    return found
