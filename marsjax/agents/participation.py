"""Percentage of volume: trades along with the others, a fixed part of what they trade."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from marsjax.agents import execution
from marsjax.agents.base import NO_LATENCY, Action, AgentEvent, Latency, Observation
from marsjax.agents.execution import ExecutionProgress, Strategy
from marsjax.agents.twap import MOST_SECONDS
from marsjax.core import int64, times
from marsjax.core.errors import InputError
from marsjax.core.records import Array, Kind, Status, Time

_UNIT = 10_000
"""Ratios are counted in parts of it."""
_MOST = 2**31 - 1


class ParticipationState(NamedTuple):
    """What differs between trajectories, and how far the agent is; scalars."""

    progress: ExecutionProgress
    ratio: Array
    """int32, shares for every 10,000 that others trade."""
    others: Array
    """int32 shares that others traded among themselves since its start, 2**31 - 1 at most."""


@dataclasses.dataclass(frozen=True)
class Participation(Strategy):
    """Buys or sells `ratio` times what others trade among themselves, in whole lots, until `target` is reached.

    It counts the trades of others from its start on, as it hears of them. At each wake-up what rests is taken back
    and a limit order at the best price of the other side is sent for its part so far less what it traded; what is left
    of it rests until the next one. Its share of the whole volume is ratio / (1 + ratio). Nothing is sent at the end,
    where what rests is taken back: a quiet market leaves a part of the target undone.

    Examples:
      >>> agent = Participation(target=5_000, start_ns=36_000 * 10**9, total_seconds=300, ratio=0.25)
      >>> int(agent.init()[0].ratio)
      2500
    """

    target: int
    """Shares, a multiple of 100: no more than this."""
    start_ns: int
    """Of its first wake-up, nanoseconds since midnight."""
    total_seconds: int
    """A multiple of interval_seconds."""
    ratio: float
    """0.0001 to 1, in steps of 0.0001."""
    direction: str = "buy"
    """buy or sell."""
    interval_seconds: int = 5
    """Between two wake-ups."""
    price_change: int = 0
    """Added to the best ask (taken off the best bid) for the limit of an order, 1e-4 of the currency."""
    account: int = 2
    name: str = "participation"
    most_orders: int = 4
    """Cancels and orders of one wake-up."""
    latency: Latency = NO_LATENCY

    def __post_init__(self) -> None:
        execution.check("Participation", self.direction, self.target, self.start_ns, self.most_orders,
                        self.price_change)
        execution.check_seconds("Participation.total_seconds", self.total_seconds, self.interval_seconds, MOST_SECONDS)
        _parts(self.ratio)

    def starts(self, target: np.ndarray | int, is_buy: np.ndarray | bool, ratio: np.ndarray | float | None = None
               ) -> tuple[ParticipationState, Time]:
        """States and first wake-ups of B trajectories with targets of their own, for `rollout(agent_starts=...)`.

        A target of 0 never trades: the same market without the agent. `ratio` is the agent's unless given.
        """
        progress = execution.begin(target, is_buy)
        shape = np.shape(progress.target)
        parts = np.vectorize(_parts, otypes=[np.int32])(self.ratio if ratio is None else ratio)
        state = ParticipationState(progress, np.broadcast_to(parts, shape), np.zeros(shape, np.int32))
        return state, self.first_wake(progress)

    def on_event(self, state: ParticipationState, event: AgentEvent) -> ParticipationState:
        """Counts what it traded, and what others did among themselves."""
        is_trade = (event.trades.kind == Kind.BUY) | (event.trades.kind == Kind.SELL)
        counts = is_trade & (event.status == Status.ACCEPTED) & ~event.is_own & ~times.before(
            event.time, times.of_ns(self.start_ns))
        own = jnp.abs(int64.to_int32(event.shares))
        volume = jnp.where(counts, int64.to_int32(event.trades.volume) - own, 0)
        others = state.others + jnp.minimum(volume, _MOST - state.others)
        return state._replace(progress=execution.on_event(state.progress, event), others=others)

    def act(self, state: ParticipationState, seen: Observation, key: jax.Array) -> Action:
        """One wake-up."""
        del key
        start = times.of_ns(self.start_ns)
        elapsed = times.subtract(seen.time, start).s
        is_over = elapsed >= self.total_seconds
        # others x ratio / 10,000, rounded down: both terms stay below 2**31.
        part = state.others // _UNIT * state.ratio + state.others % _UNIT * state.ratio // _UNIT
        sending = execution.act(state.progress, seen, execution.whole_lots(part), self.price_change, is_over,
                                self.most_orders, self.latency)
        done = state.progress.completed >= state.progress.target
        return Action(state._replace(progress=sending.progress), sending.orders,
                      execution.wake_after(start, self.interval_seconds, elapsed // self.interval_seconds),
                      stops=done | is_over, unsent=sending.unsent)


def _parts(ratio: float) -> int:
    """Parts of 10,000; InputError unless the ratio is a whole number of them."""
    parts = round(ratio * _UNIT) if 0 < ratio <= 1 else 0
    if isinstance(ratio, bool) or parts < 1 or abs(parts - ratio * _UNIT) > 1e-6:
        raise InputError(f"Participation.ratio: expected 0.0001 to 1 in steps of 0.0001, got {ratio!r}")
    return parts
