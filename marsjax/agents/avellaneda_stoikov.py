"""The market maker of Avellaneda and Stoikov: two quotes around a price that shifts with what is held.

M. Avellaneda and S. Stoikov, High-frequency trading in a limit order book, Quantitative Finance 8(3), 2008, 217-224.
"""

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from marsjax.agents.base import NO_LATENCY, Action, AgentEvent, Latency, Observation
from marsjax.agents.execution import in_flight, wake_after
from marsjax.agents.quotes import others_best, within_limits
from marsjax.agents.requoting import first, two_sided
from marsjax.agents.twap import MOST_SECONDS
from marsjax.core import int64, limits, times
from marsjax.core.errors import InputError
from marsjax.core.records import MAX_PRICE, Array, Time
from marsjax.core.times import SECOND_NS

_ROOM = 2
"""Own resting orders that are seen, of each side; no more ever rest without latency."""
_MOST_TICKS = 2**15
"""A quote is no further from the mid."""


class Risk(NamedTuple):
    """What the formula knows of its market and of its own taste; numbers or arrays."""

    risk_aversion: Array | float
    """gamma, per tick and lot, above 0."""
    fill_decay: Array | float
    """k, per tick, above 0: a quote d ticks from the mid trades at a rate that is proportional to exp(-k d)."""
    variance: Array | float
    """sigma squared, ticks squared in a unit of time."""


def quoted(risk: Risk, mid_twice: Array, tick: Array, held: Array | float, left: Array | float
           ) -> tuple[jax.Array, jax.Array]:
    """Bid and ask of the formula, int32, 1e-4 of the currency.

    The reservation price is mid - held x gamma x sigma^2 x left, and the quotes are apart by
    gamma x sigma^2 x left + (2 / gamma) ln(1 + gamma / k), half of it on each side. The bid
    is rounded down to a tick, the ask up.

    Args:
      risk: gamma, k and sigma squared.
      mid_twice: int32, twice the mid.
      tick: int32.
      held: lots, below 0 where short.
      left: time to the end, in the unit that the variance is in.

    Examples:
      >>> bid, ask = quoted(Risk(0.1, 1.5, 0.04), jnp.int32(200_100), jnp.int32(100), held=3.0, left=60.0)
      >>> int(bid), int(ask)
      (99900, 100100)
    """
    shift = risk.risk_aversion * risk.variance * left
    half = 0.5 * shift + jnp.log1p(risk.risk_aversion / risk.fill_decay) / risk.risk_aversion
    base = mid_twice // (2 * tick)
    middle = (mid_twice - base * 2 * tick) / (2 * tick) - held * shift
    low, high = (jnp.clip(x, -_MOST_TICKS, _MOST_TICKS).astype(jnp.int32)
                 for x in (jnp.floor(middle - half), jnp.ceil(middle + half)))
    most = MAX_PRICE // tick
    return jnp.clip(base + low, 1, most) * tick, jnp.clip(base + high, 1, most) * tick


class MakerState(NamedTuple):
    """What an agent has, and what it knows of the market; scalars."""

    inventory: Array
    """int32 shares since its start, below 0 where it is short."""
    mid_twice: Array
    """int32, at its last wake-up; 0 before any was known."""
    variance: Array
    """float32 ticks squared a second, mean of what it saw."""
    changes: Array
    """int32, how many changes of the mid it saw."""


@dataclasses.dataclass(frozen=True)
class AvellanedaStoikov:
    """Rests a bid and an ask of one lot each by the formula (`quoted`), anew every `interval_seconds`.

    The mid is that of the others' best prices. A quote never reaches the other side of the book, and is cut so that the
    inventory stays within `most_lots`, long or short. An order whose price does not change keeps its place in the
    queue. At the end what rests is taken back; what is held is kept. With latency it sees late what has traded, so that
    its inventory may pass the bound by what its quotes had left.

    Examples:
      >>> agent = AvellanedaStoikov(start_ns=36_000 * 10**9, total_seconds=600, risk_aversion=0.05, fill_decay=0.5)
      >>> state, wake = agent.init()
      >>> int(state.inventory), int(wake.s), agent.most_orders
      (0, 36000, 6)
    """

    start_ns: int
    """Of its first wake-up, nanoseconds since midnight."""
    total_seconds: int
    """T, a multiple of interval_seconds."""
    risk_aversion: float = 0.05
    """gamma, per tick and lot."""
    fill_decay: float = 0.5
    """k, per tick."""
    volatility: float | None = None
    """sigma, ticks by the root of a second; None: of the changes of the mid that it sees."""
    memory_seconds: int = 60
    """What it sees of the mid counts 1 / e as much after so long."""
    lot: int = 100
    """Shares of a quote."""
    most_lots: int = 10
    """Largest inventory."""
    interval_seconds: int = 1
    """Between two wake-ups; no less than what a message there and back takes."""
    account: int = 2
    name: str = "avellaneda_stoikov"
    latency: Latency = NO_LATENCY

    def __post_init__(self) -> None:
        limits.check_whole("AvellanedaStoikov.start_ns", self.start_ns, 0, times.DAY_NS)
        limits.check_whole("AvellanedaStoikov.interval_seconds", self.interval_seconds, 1, MOST_SECONDS)
        limits.check_whole("AvellanedaStoikov.total_seconds", self.total_seconds, 1, MOST_SECONDS)
        limits.check_whole("AvellanedaStoikov.memory_seconds", self.memory_seconds, 1, MOST_SECONDS)
        limits.check_whole("AvellanedaStoikov.most_lots", self.most_lots, 1, 2**15)
        limits.check_whole("AvellanedaStoikov.lot", self.lot, 1, 2**30 // self.most_lots)
        if self.total_seconds % self.interval_seconds:
            raise InputError(f"AvellanedaStoikov.total_seconds: expected a multiple of interval_seconds = "
                             f"{self.interval_seconds}, got {self.total_seconds}")
        check_risk("AvellanedaStoikov", self.risk_aversion, self.fill_decay, self.volatility)
        late_ns = 2 * self.latency.communication_ns + self.latency.computation_ns
        if late_ns > self.interval_seconds * SECOND_NS:
            raise InputError(f"AvellanedaStoikov.interval_seconds: expected at least the {late_ns} ns that a message "
                             f"there and back takes, got {self.interval_seconds}")

    @property
    def most_orders(self) -> int:
        """Cancels and orders of one wake-up."""
        return 2 * _ROOM + 2

    @property
    def most_in_flight(self) -> int:
        """With latency several wake-ups' orders travel at once."""
        return in_flight(self.most_orders, self.latency, self.interval_seconds)

    def init(self) -> tuple[MakerState, Time]:
        """Nothing is held; it wakes up at its start."""
        zero = jnp.zeros((), jnp.int32)
        return MakerState(zero, zero, jnp.zeros(()), zero), times.of_ns(self.start_ns)

    def on_event(self, state: MakerState, event: AgentEvent) -> MakerState:
        """Counts what it traded."""
        return state._replace(inventory=state.inventory + int64.to_int32(event.shares))

    def act(self, state: MakerState, seen: Observation, key: jax.Array) -> Action:
        """One wake-up."""
        del key
        start = times.of_ns(self.start_ns)
        elapsed = times.subtract(seen.time, start).s
        is_over = elapsed >= self.total_seconds
        resting = first(seen.resting, _ROOM)
        ask, bid = others_best(seen.view, resting, seen.tick, jnp.asarray(seen.view.mid_price))
        is_known = jnp.asarray(seen.view.has_mid)
        state = self._looked(state, jnp.where(is_known, ask + bid, state.mid_twice), seen.tick)
        variance = state.variance if self.volatility is None else self.volatility**2
        low, high = quoted(Risk(self.risk_aversion, self.fill_decay, variance), state.mid_twice, seen.tick,
                           state.inventory / self.lot, jnp.maximum(self.total_seconds - elapsed, 0))
        low = within_limits(jnp.minimum(low, ask - seen.tick), seen.tick)
        high = within_limits(jnp.maximum(high, jnp.maximum(bid, low) + seen.tick), seen.tick)
        room = [jnp.where(is_known & ~is_over, jnp.clip(self.most_lots * self.lot - held, 0, self.lot), 0)
                for held in (state.inventory, -state.inventory)]
        wake = wake_after(start, self.interval_seconds, elapsed // self.interval_seconds)
        return Action(state, two_sided(resting, (low, room[0]), (high, room[1])), wake, stops=is_over,
                      unsent=jnp.zeros((), jnp.int32))

    def _looked(self, state: MakerState, mid_twice: Array, tick: Array) -> MakerState:
        """The state with one more change of the mid."""
        counts = state.mid_twice > 0
        change = (mid_twice - state.mid_twice).astype(jnp.float32) / (2 * tick)
        newest = 1 - math.exp(-self.interval_seconds / self.memory_seconds)
        # The mean of the first changes; then the older ones fade.
        weight = jnp.where(counts, jnp.maximum(newest, 1 / (state.changes + 1)), 0)
        square = change**2 / self.interval_seconds
        return state._replace(mid_twice=jnp.asarray(mid_twice, jnp.int32), changes=state.changes + counts,
                              variance=state.variance + weight * (square - state.variance))


def check_risk(name: str, risk_aversion: float, fill_decay: float, volatility: float | None) -> None:
    """InputError unless the formula has numbers to go by."""
    for field, value in (("risk_aversion", risk_aversion), ("fill_decay", fill_decay)):
        if not (value > 0 and math.isfinite(value)):
            raise InputError(f"{name}.{field}: expected a number above 0, got {value!r}")
    if volatility is not None and not (volatility >= 0 and math.isfinite(volatility)):
        raise InputError(f"{name}.volatility: expected at least 0, or None, got {volatility!r}")
