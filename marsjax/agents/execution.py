"""What execution strategies share: a target, how far it is, and orders that follow a schedule.

A strategy says how many shares ought to have traded by now. At each wake-up it takes back what rests of its orders
and sends one limit order for what is due and not yet done. Shares count as at work from when they are sent until they
are known to have traded, to be taken back or to be refused, and what is done and at work never exceeds the target: no
strategy trades more than it, whatever its latency. Without latency the shares taken back at a wake-up are sent again
at the same one; with it they are missing until the news of their cancel is there.
"""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from marsjax.agents.base import AgentEvent, Latency, Observation
from marsjax.agents.quotes import check_price_change, other_side, within_limits
from marsjax.agents.twap import LOT, check_target
from marsjax.core import int64, times
from marsjax.core.errors import InputError
from marsjax.core.records import Array, Kind, Order, Side, Status, Time
from marsjax.core.specs import MarketSpec
from marsjax.core.times import SECOND_NS
from marsjax.market import orders as make


class ExecutionProgress(NamedTuple):
    """How far an execution is; scalars."""

    is_buy: Array
    """bool."""
    target: Array
    """int32 shares."""
    completed: Array
    """int32 shares traded."""
    working: Array
    """int32 shares of orders that are on their way or rest, as far as the agent knows."""


class Sending(NamedTuple):
    """What a wake-up sends."""

    progress: ExecutionProgress
    orders: Order
    """[K]: cancels, then one limit order; Kind.NONE where there is none."""
    unsent: Array
    """int32, resting orders that there was no room to cancel."""


class Strategy:
    """What the records of strategies have in common: a first wake-up, and a state with its `progress`."""

    target: int
    start_ns: int
    direction: str
    price_change: int
    most_orders: int
    latency: Latency
    interval_seconds: int

    def check_market(self, market: MarketSpec) -> None:
        """InputError unless its price change is in whole ticks."""
        check_price_change(f"{type(self).__name__}.price_change", self.price_change, market)

    @property
    def most_in_flight(self) -> int:
        """With latency several wake-ups' orders travel at once."""
        return in_flight(self.most_orders, self.latency, self.interval_seconds)

    def init(self) -> tuple[Any, Time]:
        """Nothing done yet; it wakes up at its start."""
        return jax.tree.map(jnp.asarray, self.starts(self.target, self.direction == "buy"))

    def starts(self, target: np.ndarray | int, is_buy: np.ndarray | bool) -> tuple[Any, Time]:
        """States and first wake-ups of B trajectories with targets of their own, for `rollout(agent_starts=...)`.

        A target of 0 never trades: the same market without the agent.
        """
        raise NotImplementedError

    def first_wake(self, progress: ExecutionProgress) -> Time:
        """Its start, for each trajectory."""
        return times.from_ns(np.full(np.shape(progress.target), self.start_ns, np.int64))

    def on_event(self, state: Any, event: AgentEvent) -> Any:
        """Counts what it traded."""
        return state._replace(progress=on_event(state.progress, event))


def begin(target: np.ndarray | int, is_buy: np.ndarray | bool) -> ExecutionProgress:
    """Nothing done yet, NumPy arrays of the shape of `target`; InputError unless it is in whole lots."""
    for value in np.ravel(target).tolist():
        check_target("target", value)
    shares = np.asarray(target, np.int32)
    return ExecutionProgress(np.broadcast_to(np.asarray(is_buy, bool), shares.shape), shares, np.zeros_like(shares),
                    np.zeros_like(shares))


def on_event(progress: ExecutionProgress, event: AgentEvent) -> ExecutionProgress:
    """Counts what traded, and what of its own came back: cancelled, or refused by the exchange."""
    signed = int64.to_int32(event.shares)
    traded = jnp.where(progress.is_buy, signed, -signed)
    accepted, is_cancel = event.status == Status.ACCEPTED, event.order.kind == Kind.CANCEL
    is_back = event.is_own & (accepted == is_cancel)
    back = jnp.where(is_back, event.order.volume, 0)
    return progress._replace(completed=progress.completed + traded, working=progress.working - traded - back)


def act(progress: ExecutionProgress, seen: Observation, due: Array, reach: int, is_over: Array, rows: int,
        latency: Latency) -> Sending:
    """Takes back what rests, then sends what is due and neither done nor at work.

    Args:
      progress: so far.
      seen: by the agent.
      due: int32, shares that ought to have traded once the order has; cut to the target.
      reach: the limit price beyond the best price of the other side, 1e-4 of the currency.
      is_over: bool, nothing is sent any more.
      rows: K.
      latency: of the agent.
    """
    side = jnp.where(progress.is_buy, Side.BID, Side.ASK)
    cancels, taken_back, unsent = cancel_all(seen, side, rows - 1)
    freed = taken_back if latency == Latency() else 0
    missing = jnp.minimum(due, progress.target) - progress.completed - (progress.working - freed)
    best = other_side(seen, progress.is_buy)
    price = within_limits(best + jnp.where(progress.is_buy, reach, -reach), seen.tick)
    sends = (missing > 0) & ~is_over & (progress.completed < progress.target) & (best > 0)
    volume = jnp.where(sends, missing, 0)
    kind = jnp.where(sends, jnp.where(progress.is_buy, Kind.BUY, Kind.SELL), Kind.NONE)
    order = make.limit_order(kind, price, volume)
    return Sending(progress._replace(working=progress.working + volume),
                   jax.tree.map(lambda c, o: jnp.concatenate([c, o[None]]), cancels, order), unsent)


def cancel_all(seen: Observation, side: Array, room: int) -> tuple[Order, jax.Array, jax.Array]:
    """Cancels [room] of the orders that rest, the shares of them, and how many orders there was no room for."""
    volume, order_id = (jnp.asarray(x)[side] for x in (seen.resting.volume, seen.resting.order_id))
    return _cancels(volume, order_id, jnp.broadcast_to(side, volume.shape), room)


def cancel_both(seen: Observation, room: int) -> tuple[Order, jax.Array, jax.Array]:
    """`cancel_all` of both sides, asks first."""
    volume, order_id = seen.resting.volume, seen.resting.order_id
    side = jnp.broadcast_to(jnp.array([[Side.ASK], [Side.BID]], jnp.int32), volume.shape)
    return _cancels(volume.reshape(-1), order_id.reshape(-1), side.reshape(-1), room)


def _cancels(volume: jax.Array, order_id: jax.Array, side: jax.Array, room: int
             ) -> tuple[Order, jax.Array, jax.Array]:
    """As `cancel_all`, of slots [C]."""
    rank = jnp.cumsum(volume > 0, dtype=jnp.int32) - 1
    here = (rank == jnp.arange(room)[:, None]) & (volume > 0)
    volume, order_id, side = (jnp.sum(jnp.where(here, x, 0), axis=1, dtype=jnp.int32)
                              for x in (volume, order_id, side))
    order = make.cancel_order(side, order_id, volume)
    cancels = dataclasses.replace(order, kind=jnp.where(volume > 0, order.kind, Kind.NONE).astype(jnp.int32))
    return cancels, jnp.sum(volume, dtype=jnp.int32), jnp.maximum(rank[-1] + 1 - room, 0)


def whole_lots(volume: Array) -> Array:
    """Rounded down to whole lots."""
    return volume // LOT * LOT


def first_wake(shape: tuple[int, ...], begin_ns: np.ndarray | int) -> Time:
    """First wake-ups of B trajectories, NumPy arrays of `shape`; int64 nanoseconds since midnight, [B] or for all."""
    return times.from_ns(np.broadcast_to(np.asarray(begin_ns, np.int64), shape).copy())


def wake_after(start: Time, interval_s: int, index: Array) -> Time:
    """The wake-up after number `index` of one every `interval_s` seconds from `start` on."""
    return times.add(start, Time((index + 1) * interval_s, jnp.zeros((), jnp.int32)))


def check(name: str, direction: str, target: int, start_ns: int, rows: int, reach: int) -> None:
    """InputError, with the strategy's name, for what all strategies have."""
    check_target(f"{name}.target", target)
    if direction not in ("buy", "sell"):
        raise InputError(f"{name}.direction: expected buy or sell, got {direction!r}")
    if isinstance(start_ns, bool) or not isinstance(start_ns, int) or start_ns < 0:
        raise InputError(f"{name}.start_ns: expected at least 0 ns, got {start_ns!r}")
    if rows < 2:
        raise InputError(f"{name}.most_orders: expected at least 2, got {rows}")
    if isinstance(reach, bool) or not isinstance(reach, int):
        raise InputError(f"{name}.price_change: expected a whole number (1e-4 of the currency), got {reach!r}")


def check_seconds(name: str, seconds: int, interval_s: int, most: int) -> None:
    """InputError unless `seconds` is a multiple of the seconds between two wake-ups."""
    if isinstance(interval_s, bool) or not isinstance(interval_s, int) or interval_s < 1:
        raise InputError(f"{name}.interval_seconds: expected at least 1, got {interval_s!r}")
    if isinstance(seconds, bool) or not isinstance(seconds, int) or seconds % interval_s or not 0 < seconds <= most:
        raise InputError(f"{name}: expected seconds in all to be a multiple of interval_seconds = {interval_s} and 1 "
                         f"to {most}, got {seconds!r}")


def in_flight(rows: int, latency: Latency, shortest_s: int) -> int:
    """Orders on their way at once: with latency those of several wake-ups."""
    delay_ns = 2 * latency.communication_ns + latency.computation_ns
    return rows * (1 + delay_ns // (shortest_s * SECOND_NS))
