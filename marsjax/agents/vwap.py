"""VWAP: a volume spread over the day as the market's volume is known to be spread."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from marsjax.agents import execution
from marsjax.agents.base import NO_LATENCY, Action, Latency, Observation
from marsjax.agents.execution import ExecutionProgress, Strategy
from marsjax.agents.twap import LOT, MOST_SECONDS
from marsjax.core import times
from marsjax.core.errors import InputError
from marsjax.core.records import Array, Time

_MOST_WEIGHT = 2**36
"""Of a profile: products with a target's lots stay within 64 bits on the host."""


class VwapState(NamedTuple):
    """What differs between trajectories, and how far the agent is."""

    progress: ExecutionProgress
    due: Array
    """int32 [N], shares that ought to have traded by the end of each interval; the last is the target."""


@dataclasses.dataclass(frozen=True)
class Vwap(Strategy):
    """Buys or sells `target` shares, in each bucket of time a part like the bucket's weight in `profile`.

    Within a bucket the part is spread evenly over its wake-ups. The schedule is in whole lots, rounded down, and exact:
    its last entry is the target. At each wake-up what rests is taken back and a limit order at the best price of the
    other side is sent for what the schedule asks for by the next wake-up and has not traded; what is left of it rests
    until then. Nothing is sent at the end, where what rests is taken back.

    Examples:
      >>> vwap = Vwap(target=1_000, start_ns=36_000 * 10**9, profile=(1, 3), interval_seconds=30)
      >>> vwap.init()[0].due.tolist()
      [100, 200, 600, 1000]
    """

    target: int
    """Shares, a multiple of 100."""
    start_ns: int
    """Of its first wake-up, nanoseconds since midnight."""
    profile: tuple[int, ...]
    """Weight of each bucket, in any unit: shares that the market traded in it on other days."""
    direction: str = "buy"
    """buy or sell."""
    bucket_seconds: int = 60
    interval_seconds: int = 10
    """Between two wake-ups; divides bucket_seconds."""
    price_change: int = 0
    """Added to the best ask (taken off the best bid) for the limit of an order, 1e-4 of the currency."""
    account: int = 2
    name: str = "vwap"
    most_orders: int = 4
    """Cancels and orders of one wake-up."""
    latency: Latency = NO_LATENCY

    def __post_init__(self) -> None:
        execution.check("Vwap", self.direction, self.target, self.start_ns, self.most_orders, self.price_change)
        weights = self.profile
        if not isinstance(weights, tuple) or not weights:
            raise InputError(f"Vwap.profile: expected a tuple of weights, got {weights!r}")
        for bucket, weight in enumerate(weights):
            if isinstance(weight, bool) or not isinstance(weight, int) or weight < 1:
                raise InputError(f"Vwap.profile: bucket {bucket}: expected a positive whole number, got {weight!r}")
        execution.check_seconds("Vwap.bucket_seconds", self.bucket_seconds, self.interval_seconds, MOST_SECONDS)
        if self.total_seconds > MOST_SECONDS:
            raise InputError(f"Vwap.profile: expected at most {MOST_SECONDS} s in all, got {self.total_seconds}")
        if sum(weights) * self.bucket_seconds > _MOST_WEIGHT:
            raise InputError(f"Vwap.profile: expected a sum of at most {_MOST_WEIGHT // self.bucket_seconds}, got "
                             f"{sum(weights)}; take a larger unit")

    @property
    def total_seconds(self) -> int:
        """From its first wake-up to its end."""
        return len(self.profile) * self.bucket_seconds

    def starts(self, target: np.ndarray | int, is_buy: np.ndarray | bool) -> tuple[VwapState, Time]:
        """States and first wake-ups of B trajectories with targets of their own, for `rollout(agent_starts=...)`.

        A target of 0 never trades: the same market without the agent.
        """
        progress = execution.begin(target, is_buy)
        return VwapState(progress, schedule(self, np.asarray(progress.target))), self.first_wake(progress)

    def act(self, state: VwapState, seen: Observation, key: jax.Array) -> Action:
        """One wake-up."""
        del key
        start = times.of_ns(self.start_ns)
        elapsed = times.subtract(seen.time, start).s
        index = elapsed // self.interval_seconds
        is_over = elapsed >= self.total_seconds
        due = jnp.asarray(state.due)[jnp.minimum(index, self.total_seconds // self.interval_seconds - 1)]
        sending = execution.act(state.progress, seen, due, self.price_change, is_over, self.most_orders, self.latency)
        done = state.progress.completed >= state.progress.target
        return Action(state._replace(progress=sending.progress), sending.orders,
                      execution.wake_after(start, self.interval_seconds, index), stops=done | is_over,
                      unsent=sending.unsent)


def schedule(agent: Vwap, target: np.ndarray) -> np.ndarray:
    """Shares due by the end of each of N intervals, int32 [..., N], for targets [...]: lots x weights so far / all."""
    of_bucket = agent.bucket_seconds // agent.interval_seconds
    weights = np.repeat(np.array(agent.profile, np.int64), of_bucket)
    so_far = np.cumsum(weights)
    lots = np.asarray(target, np.int64)[..., None] // LOT
    return (lots * so_far // so_far[-1] * LOT).astype(np.int32)
