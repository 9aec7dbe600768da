"""Immediate execution: all of it at once, which shows what patience is worth."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from marsjax.agents import execution
from marsjax.agents.base import NO_LATENCY, Action, Latency, Observation
from marsjax.agents.execution import ExecutionProgress, Strategy
from marsjax.agents.twap import MOST_SECONDS
from marsjax.core import times
from marsjax.core.errors import InputError
from marsjax.core.records import Time


class ImmediateState(NamedTuple):
    """What differs between trajectories, and how far the agent is."""

    progress: ExecutionProgress


@dataclasses.dataclass(frozen=True)
class Immediate(Strategy):
    """Buys or sells `target` shares with one limit order far beyond the best price of the other side.

    It sweeps the book up to its limit, what is left of it rests there, and is taken back at its end.

    Examples:
      >>> agent = Immediate(target=500, start_ns=36_000 * 10**9, total_seconds=60, direction="sell")
      >>> bool(agent.init()[0].progress.is_buy)
      False
    """

    target: int
    """Shares, a multiple of 100."""
    start_ns: int
    """Of its order, nanoseconds since midnight."""
    total_seconds: int
    """Until what still rests is taken back."""
    direction: str = "buy"
    """buy or sell."""
    price_change: int = 5_000
    """Added to the best ask (taken off the best bid) for the limit, 1e-4 of the currency; a sale goes down to a tick
    at most."""
    account: int = 2
    name: str = "immediate"
    most_orders: int = 4
    """Cancels and orders of one wake-up."""
    latency: Latency = NO_LATENCY

    def __post_init__(self) -> None:
        execution.check("Immediate", self.direction, self.target, self.start_ns, self.most_orders, self.price_change)
        execution.check_seconds("Immediate.total_seconds", self.total_seconds, 1, MOST_SECONDS)
        if not 0 <= self.price_change < 2**29:
            raise InputError(f"Immediate.price_change: expected 0 to {2**29 - 1}, got {self.price_change}")

    @property
    def most_in_flight(self) -> int:
        """With latency its cancel may leave while the order is still on its way."""
        return execution.in_flight(self.most_orders, self.latency, self.total_seconds)

    def starts(self, target: np.ndarray | int, is_buy: np.ndarray | bool) -> tuple[ImmediateState, Time]:
        """States and first wake-ups of B trajectories with targets of their own, for `rollout(agent_starts=...)`.

        A target of 0 never trades: the same market without the agent.
        """
        progress = execution.begin(target, is_buy)
        return ImmediateState(progress), self.first_wake(progress)

    def act(self, state: ImmediateState, seen: Observation, key: jax.Array) -> Action:
        """Its first wake-up, or its last."""
        del key
        start = times.of_ns(self.start_ns)
        is_over = times.subtract(seen.time, start).s >= self.total_seconds
        progress = state.progress
        sending = execution.act(progress, seen, progress.target, self.price_change, is_over, self.most_orders,
                                self.latency)
        end = execution.wake_after(start, self.total_seconds, jnp.zeros((), jnp.int32))
        return Action(ImmediateState(sending.progress), sending.orders, end,
                      stops=is_over | (progress.completed >= progress.target), unsent=sending.unsent)
