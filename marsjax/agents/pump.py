"""Pump and dump: buys until the price has risen, then sells to those who followed.

For research on how to find it: `studies.detection`.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from marsjax.agents import execution
from marsjax.agents.base import NO_LATENCY, Action, AgentEvent, Latency, Observation
from marsjax.agents.execution import ExecutionProgress
from marsjax.agents.quotes import check_price_change
from marsjax.agents.twap import LOT
from marsjax.core import limits, times
from marsjax.core.errors import InputError
from marsjax.core.records import Array, Kind, Side, Time
from marsjax.core.specs import MarketSpec

MOST_SECONDS = 2**15
"""From its first order to its end: products with it stay within 32 bits."""


class PumpState(NamedTuple):
    """What differs between trajectories, and how far the agent is."""

    first: ExecutionProgress
    """Of the pump."""
    second: ExecutionProgress
    """Of the dump, the other way; its target is what the pump has traded so far."""
    wakes: Array
    """int32, wake-ups so far."""
    begin: Time
    """Of the pump."""


@dataclasses.dataclass(frozen=True)
class PumpAndDump:
    """Buys `size` shares over `pump_seconds`, waits, and sells over `dump_seconds` what it has bought.

    Its orders are limit orders `price_change` beyond the best price of the other side, one at a wake-up with whole lots
    due; the last takes the rest. What is left of one rests until the next. What it has not sold at its end it keeps.

    Examples:
      >>> agent = PumpAndDump(size=5_000, start_ns=36_000 * 10**9, pump_seconds=60, dump_seconds=30)
      >>> int(agent.init()[0].first.target), agent.total_seconds
      (5000, 90)
    """

    size: int
    """Shares, a multiple of 100."""
    start_ns: int
    """Of its first order, nanoseconds since midnight."""
    pump_seconds: int
    """It and the next two are multiples of `interval_seconds`."""
    dump_seconds: int
    hold_seconds: int = 0
    """Between the two."""
    direction: str = "buy"
    """Of the pump: buy, or sell, which drives the price down."""
    price_change: int = 500
    """1e-4 of the currency."""
    interval_seconds: int = 1
    """Between two wake-ups."""
    account: int = 2
    name: str = "pump"
    room: int = 2
    """Cancels and orders of each half in one wake-up."""
    latency: Latency = NO_LATENCY

    def __post_init__(self) -> None:
        execution.check("PumpAndDump", self.direction, self.size, self.start_ns, self.room, self.price_change)
        if not 0 <= self.price_change < 2**29:
            raise InputError(f"PumpAndDump.price_change: expected 0 to {2**29 - 1}, got {self.price_change}")
        limits.check_whole("PumpAndDump.room", self.room, 2, 64)
        for name in ("pump_seconds", "dump_seconds"):
            execution.check_seconds(f"PumpAndDump.{name}", getattr(self, name), self.interval_seconds, MOST_SECONDS)
        if self.hold_seconds:
            execution.check_seconds("PumpAndDump.hold_seconds", self.hold_seconds, self.interval_seconds, MOST_SECONDS)
        limits.check_whole("PumpAndDump: all seconds together", self.total_seconds, 2, MOST_SECONDS)

    @property
    def total_seconds(self) -> int:
        """From its first order to its end."""
        return self.pump_seconds + self.hold_seconds + self.dump_seconds

    @property
    def most_orders(self) -> int:
        """Those of both halves."""
        return 2 * self.room

    @property
    def most_in_flight(self) -> int:
        """With latency several wake-ups' orders travel at once."""
        return execution.in_flight(self.most_orders, self.latency, self.interval_seconds)

    def check_market(self, market: MarketSpec) -> None:
        """InputError unless its price change is in whole ticks."""
        check_price_change("PumpAndDump.price_change", self.price_change, market)

    def init(self) -> tuple[PumpState, Time]:
        """Nothing done yet; it wakes up at its start."""
        return jax.tree.map(jnp.asarray, self.starts(self.size, self.direction == "buy"))

    def starts(self, size: np.ndarray | int, is_buy: np.ndarray | bool,
               begin_ns: np.ndarray | int | None = None) -> tuple[PumpState, Time]:
        """States and first wake-ups of B trajectories with sizes of their own, for `rollout(agent_starts=...)`.

        A size of 0 never trades: the same market without the agent. `begin_ns` takes the place of `start_ns`, int64 [B]
        or for all: markets at other times of day then share what is compiled.
        """
        first = execution.begin(size, is_buy)
        zero = np.zeros_like(first.target)
        second = ExecutionProgress(~first.is_buy, zero, zero.copy(), zero.copy())
        wake = execution.first_wake(zero.shape, self.start_ns if begin_ns is None else begin_ns)
        return PumpState(first, second, zero.copy(), jax.tree.map(np.copy, wake)), wake

    def on_event(self, state: PumpState, event: AgentEvent) -> PumpState:
        """Counts what each half traded: shares bought are of one, those sold of the other."""
        sent = event.order
        is_bid = (sent.kind == Kind.BUY) | ((sent.kind == Kind.CANCEL) & (sent.cancel_side == Side.BID))
        is_bought = event.shares.hi >= 0  # 0 shares count for neither

        def half(progress: ExecutionProgress) -> ExecutionProgress:
            shares = jax.tree.map(lambda x: jnp.where(is_bought == progress.is_buy, x, 0).astype(x.dtype), event.shares)
            own = event._replace(is_own=event.is_own & (is_bid == progress.is_buy), shares=shares)
            return execution.on_event(progress, own)

        first = half(state.first)
        return state._replace(first=first, second=half(state.second)._replace(target=first.completed))

    def act(self, state: PumpState, seen: Observation, key: jax.Array) -> Action:
        """What is due of the half that it is in."""
        del key
        elapsed = times.subtract(seen.time, state.begin).s
        dumps = elapsed >= self.pump_seconds + self.hold_seconds
        is_over = elapsed >= self.total_seconds
        target = state.first.target
        first = execution.act(state.first, seen, _due(target, elapsed, self.pump_seconds, self.interval_seconds),
                              self.price_change, elapsed >= self.pump_seconds, self.room, self.latency)
        since = elapsed - self.pump_seconds - self.hold_seconds
        due = _due(state.second.target, since, self.dump_seconds, self.interval_seconds)
        second = execution.act(state.second, seen, due, self.price_change, ~dumps | is_over, self.room, self.latency)
        orders = jax.tree.map(lambda a, b: jnp.concatenate([a, b]), first.orders, second.orders)
        after = PumpState(first.progress, second.progress, state.wakes + 1, state.begin)
        return Action(after, orders, execution.wake_after(state.begin, self.interval_seconds, state.wakes),
                      stops=is_over | (target == 0), unsent=first.unsent + second.unsent)


def _due(target: Array, elapsed_s: Array, total_s: int, interval_s: int) -> jax.Array:
    """int32, the part of a target that is due with the order of this wake-up, rounded up to whole lots; at the end all.

    Without products beyond 32 bits: the target's whole and broken parts by second.
    """
    passed = jnp.clip(jnp.asarray(elapsed_s) + interval_s, 0, total_s)
    shares = target // total_s * passed + -(-(target % total_s * passed) // total_s)
    return jnp.asarray(jnp.minimum(shares + (-shares) % LOT, target), jnp.int32)
