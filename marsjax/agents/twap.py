"""The TWAP agent: a volume in equal parts over a time, passive first, then aggressive (reference: TWAP agent)."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from marsjax.agents.base import NO_LATENCY, Action, AgentEvent, Latency, Observation
from marsjax.agents.quotes import check_price_change, other_side
from marsjax.core import int64, times
from marsjax.core.errors import InputError
from marsjax.core.records import NO_ID, Array, Kind, Order, Side, Time
from marsjax.core.specs import MarketSpec
from marsjax.core.times import SECOND_NS
from marsjax.market import orders as make

LOT = 100
"""Shares; targets are multiples of it."""
MOST_SECONDS = 65_535
"""Longest time that a target is spread over: products with it stay within 32 bits."""
_ALL = 2**31 - 1


class TwapState(NamedTuple):
    """What differs between trajectories, and how far the agent is; scalars."""

    is_buy: Array
    """bool."""
    target: Array
    """int32 shares."""
    max_passive: Array
    """int32 shares resting at the best price, at most."""
    max_aggressive: Array
    """int32 shares of one aggressive order, at most."""
    completed: Array
    """int32 shares traded so far."""
    passive_next: Array
    """bool, whether the next wake-up is a passive one."""
    start_s: Array
    """int32, and `start_ns`: of its first wake-up."""
    start_ns: Array
    total_s: Array
    """int32, as `Twap.total_seconds`."""
    passive_s: Array
    idle_s: Array
    price_change: Array
    """int32, as `Twap.aggressive_price_change`."""


class _Own(NamedTuple):
    """Its resting orders, [K] of them, by first appearance of their price, then oldest first; 0 where none is."""

    price: jax.Array
    volume: jax.Array
    order_id: jax.Array
    more: jax.Array
    """int32, orders beyond K."""


@dataclasses.dataclass(frozen=True)
class Twap:
    """Buys or sells `target` shares over `total_seconds`, waking up passive and aggressive in turn.

    Examples:
      >>> twap = Twap(target=2_000, start_ns=36_000 * 10**9, total_seconds=300)
      >>> state, wake = twap.init()
      >>> int(state.target), int(wake.s)
      (2000, 36000)
    """

    target: int
    """Shares, a multiple of 100."""
    start_ns: int
    """Of its first wake-up, nanoseconds since midnight."""
    total_seconds: int
    """A multiple of passive_seconds + idle_seconds, and more than that."""
    direction: str = "buy"
    """buy or sell."""
    passive_seconds: int = 10
    """From a passive wake-up to the aggressive one."""
    idle_seconds: int = 5
    """From an aggressive wake-up to the next passive one."""
    max_passive_volume_ratio: float = 1.0
    """Of the target, largest volume resting at the best price."""
    max_aggressive_volume_ratio: float = 1.0
    """Of the target, largest aggressive order."""
    aggressive_price_change: int = 0
    """Added to the best ask (taken off the best bid) for the limit of an aggressive order, 1e-4 of the currency."""
    account: int = 2
    name: str = "twap"
    most_orders: int = 16
    """Cancels and orders of one wake-up."""
    latency: Latency = NO_LATENCY

    def __post_init__(self) -> None:
        cycle = self.passive_seconds + self.idle_seconds
        if self.direction not in ("buy", "sell"):
            raise InputError(f"Twap.direction: expected buy or sell, got {self.direction!r}")
        check_target("Twap.target", self.target)
        if self.passive_seconds < 1 or self.idle_seconds < 1:
            raise InputError(f"Twap: expected passive_seconds and idle_seconds of at least 1, got "
                             f"{self.passive_seconds} and {self.idle_seconds}")
        if not cycle < self.total_seconds <= MOST_SECONDS or self.total_seconds % cycle:
            raise InputError(f"Twap.total_seconds: expected a multiple of passive_seconds + idle_seconds = {cycle}, "
                             f"more than it and at most {MOST_SECONDS}, got {self.total_seconds}")
        for name in ("max_passive_volume_ratio", "max_aggressive_volume_ratio"):
            if not 0 <= getattr(self, name) <= 1:
                raise InputError(f"Twap.{name}: expected 0 to 1, got {getattr(self, name)}")
        if self.start_ns < 0:
            raise InputError(f"Twap.start_ns: expected at least 0, got {self.start_ns}")
        if self.most_orders < 2:
            raise InputError(f"Twap.most_orders: expected at least 2, got {self.most_orders}")

    def check_market(self, market: MarketSpec) -> None:
        """InputError unless its price change is in whole ticks."""
        check_price_change("Twap.aggressive_price_change", self.aggressive_price_change, market)

    @property
    def most_in_flight(self) -> int:
        """With latency several wake-ups' orders travel at once."""
        delay_ns = 2 * self.latency.communication_ns + self.latency.computation_ns
        shortest_ns = min(self.passive_seconds, self.idle_seconds) * SECOND_NS
        return self.most_orders * (1 + delay_ns // shortest_ns)

    def init(self) -> tuple[TwapState, Time]:
        """Nothing done yet; it wakes up at its start."""
        state, wake = self.starts(self.target, self.direction == "buy")
        return jax.tree.map(jnp.asarray, (state, wake))

    def starts(self, target: np.ndarray | int, is_buy: np.ndarray | bool) -> tuple[TwapState, Time]:
        """States and first wake-ups of B trajectories with targets of their own, for `rollout(agent_starts=...)`.

        A target of 0 never trades: the same market without the agent.
        """
        for value in np.ravel(target).tolist():
            check_target("Twap target", value)
        target = np.asarray(target, np.int32)
        passive, aggressive = (_pad(np.floor(target * ratio).astype(np.int32)) for ratio in
                               (self.max_passive_volume_ratio, self.max_aggressive_volume_ratio))
        time = times.from_ns(np.full(target.shape, self.start_ns, np.int64))
        fixed = (np.full_like(target, value) for value in (
            self.total_seconds, self.passive_seconds, self.idle_seconds, self.aggressive_price_change))
        state = TwapState(np.broadcast_to(is_buy, target.shape), target, passive, aggressive, np.zeros_like(target),
                          np.ones(target.shape, bool), time.s, time.ns, *fixed)
        return state, time

    def on_event(self, state: TwapState, event: AgentEvent) -> TwapState:
        """Counts what it traded."""
        signed = int64.to_int32(event.shares)
        return state._replace(completed=state.completed + jnp.where(state.is_buy, signed, -signed))

    def act(self, state: TwapState, seen: Observation, key: jax.Array) -> Action:
        """One wake-up: cancels first, then an order (reference: TWAP agent, rule by rule)."""
        del key
        side = jnp.where(state.is_buy, Side.BID, Side.ASK)
        own = _own(seen, side, self.most_orders - 1)
        near, far = other_side(seen, ~state.is_buy), other_side(seen, state.is_buy)
        elapsed = times.subtract(seen.time, Time(state.start_s, state.start_ns)).s
        done = state.completed >= state.target
        over = elapsed >= state.total_s
        passive, aggressive = ~done & ~over & state.passive_next, ~done & ~over & ~state.passive_next

        at_best = own.price == near
        resting_best = jnp.sum(jnp.where(at_best, own.volume, 0), dtype=jnp.int32)
        remaining = state.target - state.completed
        too_much = resting_best - state.max_passive
        joins = jnp.minimum(_pad(state.max_passive - resting_best), remaining - resting_best)

        due = _share(state.target, jnp.minimum(elapsed + state.idle_s, state.total_s), state.total_s)
        wanted = jnp.minimum(_pad(due - state.completed), state.max_aggressive)
        wanted = jnp.where(due > state.completed, wanted, 0)
        free = remaining - jnp.sum(own.volume, dtype=jnp.int32)
        short = jnp.maximum(wanted - free, 0)

        # What is cancelled first: all off the best price or, at the end, all there is.
        first = (~at_best & passive) | (over & ~done)
        # And then, oldest first, what is too much at the best price, or what an aggressive order needs.
        second = jnp.where(passive, at_best, aggressive)
        amount = jnp.where(passive, jnp.where(too_much >= LOT, too_much, 0), jnp.where(aggressive, short, 0))
        shares = jnp.where(second, own.volume, 0)
        older = own.order_id < own.order_id[:, None]
        before = jnp.sum(jnp.where(older, shares, 0), axis=1, dtype=jnp.int32)
        cut = jnp.clip(amount - before, 0, shares)
        wanted = jnp.where(short > 0, free + jnp.sum(cut, dtype=jnp.int32), wanted)

        volume = jnp.where(passive & (too_much < 0), joins, jnp.where(aggressive, wanted, 0))
        change = jnp.where(state.is_buy, state.price_change, -state.price_change)
        order = make.limit_order(jnp.where(volume > 0, jnp.where(state.is_buy, Kind.BUY, Kind.SELL), Kind.NONE),
                                 jnp.where(passive, near, far + change), volume)
        cancels = _in_sequence(own, side, jnp.where(first, own.volume, 0), cut)
        wake = times.add(seen.time, Time(jnp.where(passive, state.passive_s, state.idle_s), jnp.int32(0)))
        return Action(
            state._replace(passive_next=~state.passive_next),
            jax.tree.map(lambda c, o: jnp.concatenate([c, o[None]]), cancels, order), wake, stops=done | over,
            unsent=own.more)


def check_target(name: str, target: int) -> None:
    """InputError unless it is a number of shares in whole lots."""
    if isinstance(target, bool) or int(target) != target or target % LOT or not 0 <= target < 2**30:
        raise InputError(f"{name}: expected a multiple of {LOT} shares from 0 to {2**30}, got {target!r}")


def _pad(volume: Array) -> Array:
    """Rounded up to whole lots."""
    return -(-volume // LOT) * LOT


def _share(target: Array, part: Array, whole: Array) -> jax.Array:
    """target x part / whole, halves to even; exact, for 0 <= part <= whole <= MOST_SECONDS."""
    left = jnp.asarray(target % whole, jnp.uint32) * jnp.asarray(part, jnp.uint32)
    divisor = jnp.asarray(whole, jnp.uint32)
    rest, floor = (left % divisor).astype(jnp.int32), (target // whole) * part + (left // divisor).astype(jnp.int32)
    twice = rest * 2
    up = (twice > whole) | ((twice == whole) & (floor % 2 == 1))
    return jnp.asarray(floor + up, jnp.int32)


def _own(seen: Observation, side: Array, room: int) -> _Own:
    price, volume, order_id = (jnp.asarray(x)[side] for x in seen.resting)
    rank = jnp.cumsum(volume > 0) - 1
    here = (rank == jnp.arange(room)[:, None]) & (volume > 0)
    price, volume, order_id = (jnp.sum(jnp.where(here, x, 0), axis=1, dtype=jnp.int32)
                               for x in (price, volume, order_id))
    rests = volume > 0
    age = jnp.where(rests, order_id, _ALL)
    oldest = jnp.min(jnp.where(price[:, None] == price, age, _ALL), axis=1)
    earlier = (oldest < oldest[:, None]) | ((oldest == oldest[:, None]) & (age < age[:, None]))
    place = jnp.where(rests, jnp.sum(earlier, axis=1), room)
    moved = (place == jnp.arange(room)[:, None])
    price, volume, order_id = (jnp.sum(jnp.where(moved, x, 0), axis=1, dtype=jnp.int32)
                               for x in (price, volume, order_id))
    more = jnp.maximum(rank[-1] + 1 - room, 0)
    return _Own(price, volume, jnp.where(volume > 0, order_id, NO_ID), more)


def _in_sequence(own: _Own, side: Array, first: Array, second: Array) -> Order:
    """Cancels of `first` shares of each order, then of `second`; an order has one of them only."""
    room = own.price.shape[0]
    is_first, is_second = first > 0, second > 0
    place = jnp.where(is_first, jnp.cumsum(is_first) - 1,
                      jnp.where(is_second, jnp.sum(is_first) + jnp.cumsum(is_second) - 1, room))
    here = place == jnp.arange(room)[:, None]
    volume, order_id = (jnp.sum(jnp.where(here, x, 0), axis=1, dtype=jnp.int32) for x in (first + second, own.order_id))
    order = make.cancel_order(jnp.broadcast_to(side, (room,)), order_id, volume)
    return dataclasses.replace(order, kind=jnp.where(volume > 0, order.kind, Kind.NONE).astype(jnp.int32))
