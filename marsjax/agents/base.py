"""What an agent is: pure functions that the engine calls, inside the compiled step, for every trajectory.

An agent is a frozen, hashable record (it is a static argument) with the members of `Agent`. Whatever differs between
trajectories, targets and limits included, belongs in its state, a pytree of arrays. The engine,
`marsjax.sim.event_queue`, keeps the event queue of the reference (reference: events and agents):

- At equal times every order reaches the exchange, and every result its agent, before anyone wakes up; agents that are
  due at the same time go by who asked for the wake-up first, the background agent among them.
- With communication delay c and computation delay k, an agent that wakes at t sees the exchange as of t - c, its
  orders reach the exchange at t + k + c, and results reach it c after they happen. Since all that it knows at t is
  the exchange as of t - c, the engine calls it when the exchange's clock shows t - c, and loses nothing by that.
"""

import dataclasses
from typing import Any, NamedTuple, Protocol

import jax

from marsjax.core.errors import InputError
from marsjax.core.records import Array, BookView, Int64, Order, Time, Trades

MAX_DELAY_NS = 3_600 * 10**9


@dataclasses.dataclass(frozen=True)
class Latency:
    """Delays between an agent and the exchange.

    Examples:
      >>> slow = Latency(communication_ns=20_000_000, computation_ns=5_000_000)
      >>> slow.communication_ns + slow.computation_ns
      25000000
    """

    communication_ns: int = 0
    """One way, c."""
    computation_ns: int = 0
    """From seeing to sending, k."""

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            value = getattr(self, field.name)
            if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= MAX_DELAY_NS:
                raise InputError(f"Latency.{field.name}: expected 0 to {MAX_DELAY_NS} ns, got {value!r}")


NO_LATENCY = Latency()


class Resting(NamedTuple):
    """The agent's own resting orders, asks in row 0 and bids in row 1, each by priority; C slots a side."""

    price: jax.Array
    """int32 [2, C], EMPTY_PRICE where there is none."""
    volume: jax.Array
    """int32 [2, C] shares left, 0 where there is none."""
    order_id: jax.Array
    """int32 [2, C], NO_ID where there is none."""


class Account(NamedTuple):
    """What the exchange keeps for the agent; scalars."""

    cash: Int64
    """1e-4 of the currency."""
    holdings: Int64
    """Shares."""
    reserved_cash: Int64
    """Price x volume of its resting bids: tradable cash is cash less this."""
    reserved_shares: Int64
    """Volume of its resting asks: tradable holdings are holdings less this."""


class Observation(NamedTuple):
    """What an agent knows when it wakes up."""

    time: Time
    """Its own clock, t."""
    view: BookView
    """As of t - c, as is all that follows."""
    account: Account
    resting: Resting
    tick: Array
    """int32, the market's smallest price step, 1e-4 of the currency."""
    observed: tuple[Any, ...] = ()
    """States of `SimulationSpec.observers`, in their order, as of t - c: what users add to what agents may know."""


class Action(NamedTuple):
    """What an agent does when it wakes up."""

    state: Any
    """Its state from now on, shaped like the one before."""
    orders: Order
    """[K], sent in this sequence; Kind.NONE is no order. Time, id and account are filled in by the engine."""
    wake: Time
    """Its next wake-up by its own clock; later than now."""
    stops: Array
    """bool: it never wakes up again; `wake` is not read."""
    unsent: Array
    """int32: orders that it would have sent beyond K. They are counted in the summary."""


class AgentEvent(NamedTuple):
    """One order that reached the exchange, anyone's, as one agent hears of it; scalars."""

    time: Time
    """When it reached the exchange."""
    is_own: Array
    """bool, the agent sent it."""
    order: Order
    """As the exchange took it."""
    status: Array
    """A `Status`: accepted, or why not."""
    order_id: Array
    """Its id, NO_ID if it was not accepted."""
    trades: Trades
    """Its transactions."""
    shares: Int64
    """Change of the agent's holdings by it: its own order traded, or its resting orders were hit."""
    cash: Int64
    """Change of the agent's cash by it."""


class Agent(Protocol):
    """A trader. `init`, `act` and `on_event` are pure and see one trajectory; the engine maps them over all.

    One that may not fit a market may have `check_market(market)` too, which raises `InputError` then.

    Examples:
      >>> import dataclasses
      >>> import jax.numpy as jnp
      >>> from marsjax import testing
      >>> from marsjax.core import times
      >>> from marsjax.core.records import Kind
      >>> from marsjax.market import orders
      >>> @dataclasses.dataclass(frozen=True)
      ... class Seller:
      ...     account: int = 2
      ...     name: str = "seller"
      ...     most_orders: int = 1
      ...     most_in_flight: int = 1
      ...     latency: Latency = NO_LATENCY
      ...
      ...     def init(self):
      ...         return jnp.int32(0), times.of_ns(0)
      ...
      ...     def on_event(self, state, event):
      ...         return state + event.is_own
      ...
      ...     def act(self, state, seen, key):
      ...         sell = orders.limit_order(Kind.SELL, seen.view.ask_price[:1], 100)
      ...         wake = times.add(seen.time, times.of_ns(10**9))
      ...         return Action(state, sell, wake, stops=jnp.bool_(False), unsent=jnp.int32(0))
      >>> testing.check_functions(Seller())
    """

    @property
    def name(self) -> str:
        """Names it in summaries and errors."""

    @property
    def account(self) -> int:
        """Its account, which no other agent has (`MarketSpec.accounts`)."""

    @property
    def most_orders(self) -> int:
        """K, orders of one wake-up."""

    @property
    def most_in_flight(self) -> int:
        """Q, orders on their way to the exchange at once; K are enough without latency."""

    @property
    def latency(self) -> Latency:
        """Its delays."""

    def init(self) -> tuple[Any, Time]:
        """Its state at the start of a trajectory, and its first wake-up."""

    def act(self, state: Any, seen: Observation, key: jax.Array) -> Action:
        """Decides; `key` is of this wake-up alone."""

    def on_event(self, state: Any, event: AgentEvent) -> Any:
        """Its state after an event. One that does not care returns `state`."""
