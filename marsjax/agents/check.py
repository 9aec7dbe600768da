"""The door for agents: whether their functions fit the engine, by shapes alone; nothing is computed."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from marsjax.agents.base import Account, Action, Agent, AgentEvent, Latency, Observation, Resting
from marsjax.core import times
from marsjax.core.errors import InputError
from marsjax.core.records import Int64, Order, Time
from marsjax.core.specs import MarketSpec
from marsjax.market import book as books
from marsjax.market import exchange
from marsjax.market import orders as make

_SENT = ("kind", "price", "volume", "cancel_side", "cancel_id")
"""Fields of an order that an agent fills in."""


def check(agent: Agent, market: MarketSpec, observed: Any = (), start: tuple[Any, Time] | None = None) -> None:
    """InputError, with the agent's name and what was expected, unless the engine can call the agent.

    Args:
      agent: to be checked.
      market: that it will trade in.
      observed: shapes of the observers' states of one trajectory, as the agent will see them.
      start: shapes of its state and first wake-up; by default those that its `init` gives.
    """
    check_record(agent)
    if hasattr(agent, "check_market"):
        agent.check_market(market)
    name = f"agent {agent.name!r}"
    state, wake = _start(name, agent) if start is None else start
    _same(f"{name}: first wake-up", wake, _scalar_time())
    seen, event = shapes(market, observed)
    key = jax.eval_shape(lambda: jax.random.key(0))
    action = jax.eval_shape(agent.act, state, seen, key)
    if not isinstance(action, Action):
        raise InputError(f"{name}: act: expected an Action, got {type(action).__name__}")
    _same(f"{name}: act: state", action.state, state)
    if not isinstance(action.orders, Order):
        raise InputError(f"{name}: act: orders: expected an Order, got {type(action.orders).__name__}")
    row = jax.ShapeDtypeStruct((agent.most_orders,), jnp.int32)
    for field in _SENT:
        _same(f"{name}: act: orders.{field} (most_orders={agent.most_orders})", getattr(action.orders, field), row)
    _same(f"{name}: act: wake", action.wake, _scalar_time())
    _same(f"{name}: act: stops", action.stops, jax.ShapeDtypeStruct((), jnp.bool_))
    _same(f"{name}: act: unsent", action.unsent, jax.ShapeDtypeStruct((), jnp.int32))
    _same(f"{name}: on_event: state", jax.eval_shape(agent.on_event, state, event), state)


def check_record(agent: Agent) -> None:
    """InputError unless the agent is a hashable record with a name, an account, sizes and delays."""
    name = getattr(agent, "name", None)
    if not isinstance(name, str) or not name:
        raise InputError(f"agent {agent!r}: name: expected some text, got {name!r}")
    try:
        hash(agent)
    except TypeError as error:
        raise InputError(f"agent {name!r}: expected a hashable record (what differs between trajectories belongs in "
                         f"its state), got {error}") from error
    for field, low in (("account", 0), ("most_orders", 1), ("most_in_flight", 1)):
        value = getattr(agent, field, None)
        if isinstance(value, bool) or not isinstance(value, int) or value < low:
            raise InputError(f"agent {name!r}: {field}: expected a whole number of at least {low}, got {value!r}")
    if agent.most_in_flight < agent.most_orders:
        raise InputError(f"agent {name!r}: most_in_flight: expected at least most_orders={agent.most_orders}, got "
                         f"{agent.most_in_flight}")
    if not isinstance(getattr(agent, "latency", None), Latency):
        raise InputError(f"agent {name!r}: latency: expected a Latency, got {getattr(agent, 'latency', None)!r}")


@functools.cache
def _market_shapes(market: MarketSpec) -> tuple[Observation, AgentEvent]:
    def one() -> tuple[Observation, AgentEvent]:
        opened = exchange.open_market(market)
        order = make.no_order()
        _, report = exchange.submit(market, opened, order)
        zero = jnp.zeros((), jnp.int32)
        wide, no = Int64(zero, zero.astype(jnp.uint32)), jnp.zeros((), bool)
        slots = jnp.zeros((2, market.capacity), jnp.int32)
        seen = Observation(order.time, books.view(market, opened.book), Account(wide, wide, wide, wide),
                           Resting(slots, slots, slots), zero)
        return seen, AgentEvent(order.time, no, order, report.status, report.order_id, report.trades, wide, wide)

    return jax.eval_shape(one)


def shapes(market: MarketSpec, observed: Any = ()) -> tuple[Observation, AgentEvent]:
    """Shapes of what an agent sees and of what it hears of in this market."""
    seen, event = _market_shapes(market)
    return seen._replace(observed=tuple(observed)), event


def _start(name: str, agent: Agent) -> tuple[Any, Time]:
    found = jax.eval_shape(agent.init)
    if not isinstance(found, Sequence) or len(found) != 2:
        raise InputError(f"{name}: init: expected its state and its first wake-up, got {type(found).__name__}")
    return found[0], found[1]


def _scalar_time() -> Time:
    return jax.eval_shape(lambda: times.of_ns(0))


def _same(where: str, got: Any, expected: Any) -> None:
    """InputError unless both are trees of one structure, with leaves of the same shapes and dtypes."""
    found, structure = (str(jax.tree.structure(x)) for x in (got, expected))
    if found != structure:
        raise InputError(f"{where}: expected the structure {structure}, got {found}")
    wanted = jax.tree_util.tree_leaves_with_path(expected)
    for (path, want), leaf in zip(wanted, jax.tree.leaves(got), strict=True):
        if leaf.shape != want.shape or leaf.dtype != want.dtype:
            raise InputError(f"{where}{jax.tree_util.keystr(path)}: expected {want.dtype}{list(want.shape)}, got "
                             f"{leaf.dtype}{list(leaf.shape)}")
