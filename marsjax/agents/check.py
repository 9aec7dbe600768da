"""The door for agents: whether their functions fit the engine, by shapes alone; nothing is computed."""

import functools
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp

from marsjax import book as books
from marsjax import clock, exchange
from marsjax import orders as make
from marsjax.agents.base import Account, Action, Agent, Latency, News, Observation, Resting
from marsjax.specs import MarketSpec
from marsjax.types import Order, Time, Wide

_SENT = ("kind", "price", "volume", "cancel_side", "cancel_id")
"""Fields of an order that an agent fills in."""


def check(agent: Agent, market: MarketSpec, watched: Any = (), start: tuple[Any, Time] | None = None) -> None:
    """ValueError, with the agent's name and what was expected, unless the engine can call the agent.

    Args:
      agent: to be checked.
      market: that it will trade in.
      watched: shapes of the watchers' states of one trajectory, as the agent will see them.
      start: shapes of its state and first wake-up; by default those that its `init` gives.
    """
    check_record(agent)
    name = f"agent {agent.name!r}"
    state, wake = _start(name, agent) if start is None else start
    _same(f"{name}: first wake-up", wake, _scalar_time())
    seen, news = shapes(market, watched)
    key = jax.eval_shape(lambda: jax.random.key(0))
    action = jax.eval_shape(agent.act, state, seen, key)
    if not isinstance(action, Action):
        raise ValueError(f"{name}: act: expected an Action, got {type(action).__name__}")
    _same(f"{name}: act: state", action.state, state)
    if not isinstance(action.orders, Order):
        raise ValueError(f"{name}: act: orders: expected an Order, got {type(action.orders).__name__}")
    row = jax.ShapeDtypeStruct((agent.most_orders,), jnp.int32)
    for field in _SENT:
        _same(f"{name}: act: orders.{field} (most_orders={agent.most_orders})", getattr(action.orders, field), row)
    _same(f"{name}: act: wake", action.wake, _scalar_time())
    _same(f"{name}: act: stops", action.stops, jax.ShapeDtypeStruct((), jnp.bool_))
    _same(f"{name}: act: unsent", action.unsent, jax.ShapeDtypeStruct((), jnp.int32))
    _same(f"{name}: told: state", jax.eval_shape(agent.told, state, news), state)


def check_record(agent: Agent) -> None:
    """ValueError unless the agent is a hashable record with a name, an account, sizes and delays."""
    name = getattr(agent, "name", None)
    if not isinstance(name, str) or not name:
        raise ValueError(f"agent {agent!r}: name: expected some text, got {name!r}")
    try:
        hash(agent)
    except TypeError as error:
        raise ValueError(f"agent {name!r}: expected a hashable record (what differs between trajectories belongs in "
                         f"its state), got {error}") from error
    for field, low in (("owner", 0), ("most_orders", 1), ("most_in_flight", 1)):
        value = getattr(agent, field, None)
        if isinstance(value, bool) or not isinstance(value, int) or value < low:
            raise ValueError(f"agent {name!r}: {field}: expected a whole number of at least {low}, got {value!r}")
    if agent.most_in_flight < agent.most_orders:
        raise ValueError(f"agent {name!r}: most_in_flight: expected at least most_orders={agent.most_orders}, got "
                         f"{agent.most_in_flight}")
    if not isinstance(getattr(agent, "latency", None), Latency):
        raise ValueError(f"agent {name!r}: latency: expected a Latency, got {getattr(agent, 'latency', None)!r}")


@functools.cache
def _market_shapes(market: MarketSpec) -> tuple[Observation, News]:
    def one() -> tuple[Observation, News]:
        opened = exchange.open_market(market)
        order = make.no_order()
        _, report = exchange.submit(market, opened, order)
        zero = jnp.zeros((), jnp.int32)
        wide, no = Wide(zero, zero.astype(jnp.uint32)), jnp.zeros((), bool)
        slots = jnp.zeros((2, market.capacity), jnp.int32)
        seen = Observation(order.time, books.view(market, opened.book), Account(wide, wide, wide, wide),
                           Resting(slots, slots, slots))
        return seen, News(order.time, no, order, report.status, report.order_id, report.trades, wide, wide)

    return jax.eval_shape(one)


def shapes(market: MarketSpec, watched: Any = ()) -> tuple[Observation, News]:
    """Shapes of what an agent sees and is told in this market."""
    seen, news = _market_shapes(market)
    return seen._replace(watched=tuple(watched)), news


def _start(name: str, agent: Agent) -> tuple[Any, Time]:
    found = jax.eval_shape(agent.init)
    if not isinstance(found, Sequence) or len(found) != 2:
        raise ValueError(f"{name}: init: expected its state and its first wake-up, got {type(found).__name__}")
    return found[0], found[1]


def _scalar_time() -> Time:
    return jax.eval_shape(lambda: clock.static_time(0))


def _same(where: str, got: Any, expected: Any) -> None:
    """ValueError unless both are trees of one structure, with leaves of the same shapes and dtypes."""
    found, structure = (str(jax.tree.structure(x)) for x in (got, expected))
    if found != structure:
        raise ValueError(f"{where}: expected the structure {structure}, got {found}")
    wanted = jax.tree_util.tree_leaves_with_path(expected)
    for (path, want), leaf in zip(wanted, jax.tree.leaves(got), strict=True):
        if leaf.shape != want.shape or leaf.dtype != want.dtype:
            raise ValueError(f"{where}{jax.tree_util.keystr(path)}: expected {want.dtype}{list(want.shape)}, got "
                             f"{leaf.dtype}{list(leaf.shape)}")
