"""Any agent, with a meter: what it traded, minute by minute."""

import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from marsjax.agents.base import Action, Agent, AgentEvent, Latency, Observation
from marsjax.core import int64, times
from marsjax.core.errors import InputError
from marsjax.core.records import Array, Int64, Time
from marsjax.core.specs import MarketSpec
from marsjax.core.times import SECOND_NS

_MINUTE_S = 60


class MeteredState(NamedTuple):
    """The agent's state, and its fills in M minutes."""

    agent: Any
    shares: Array
    """int32 [M], change of its holdings: bought less sold."""
    cash: Int64
    """[M], change of its cash, 1e-4 of the currency."""


@dataclasses.dataclass(frozen=True)
class Metered:
    """Trades as `agent` does, and keeps its fills by minute: minute k is (origin + k, origin + k + 1] minutes.

    The first minute also has what comes before, the last what comes after.

    Examples:
      >>> from marsjax.agents import Immediate
      >>> agent = Immediate(target=500, start_ns=36_000 * 10**9, total_seconds=60)
      >>> metered = Metered(agent, origin_ns=36_000 * 10**9, minutes=3)
      >>> metered.init()[0].shares.tolist()
      [0, 0, 0]
    """

    agent: Agent
    origin_ns: int
    """Nanoseconds since midnight."""
    minutes: int
    """M."""

    def __post_init__(self) -> None:
        if self.origin_ns < 0 or not 1 <= self.minutes <= 1440:
            raise InputError(f"Metered: expected origin_ns of at least 0 and 1 to 1440 minutes, got {self.origin_ns} "
                             f"and {self.minutes}")

    @property
    def name(self) -> str:
        """The agent's."""
        return self.agent.name

    @property
    def account(self) -> int:
        """The agent's."""
        return self.agent.account

    def check_market(self, market: MarketSpec) -> None:
        """As the agent does."""
        if hasattr(self.agent, "check_market"):
            self.agent.check_market(market)

    @property
    def most_orders(self) -> int:
        """The agent's."""
        return self.agent.most_orders

    @property
    def most_in_flight(self) -> int:
        """The agent's."""
        return self.agent.most_in_flight

    @property
    def latency(self) -> Latency:
        """The agent's."""
        return self.agent.latency

    def init(self) -> tuple[MeteredState, Time]:
        """The agent's, nothing traded."""
        state, wake = self.agent.init()
        return jax.tree.map(jnp.asarray, self.starts(state, wake))

    def starts(self, state: Any, wake: Time) -> tuple[MeteredState, Time]:
        """The agent's states and first wake-ups [...], as its own `starts` gives them, with empty meters."""
        zero = np.zeros((*np.shape(wake.s), self.minutes), np.int32)
        return MeteredState(state, zero, Int64(zero, zero.astype(np.uint32))), wake

    def on_event(self, state: MeteredState, event: AgentEvent) -> MeteredState:
        """Adds to the minute, and tells the agent."""
        origin_s, origin_ns = divmod(self.origin_ns, SECOND_NS)
        is_before = times.before(event.time, times.of_ns(self.origin_ns))
        # Whole seconds up to the event, the last of them cut off where the time is just on the second.
        passed_s = event.time.s - origin_s - (event.time.ns <= origin_ns)
        minute = jnp.clip(jnp.where(is_before, 0, passed_s) // _MINUTE_S, 0, self.minutes - 1)
        here = jnp.arange(self.minutes) == minute
        cash = jax.tree.map(lambda x: jnp.where(here, x, 0).astype(x.dtype), event.cash)
        shares = state.shares + jnp.where(here, int64.to_int32(event.shares), 0)
        return MeteredState(self.agent.on_event(state.agent, event), shares, int64.add(state.cash, cash))

    def act(self, state: MeteredState, seen: Observation, key: jax.Array) -> Action:
        """As the agent does."""
        action = self.agent.act(state.agent, seen, key)
        return action._replace(state=state._replace(agent=action.state))
