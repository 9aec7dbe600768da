"""The event queue of one trajectory, as arrays (reference: events and agents).

Pending are orders on their way to the exchange, wake-ups of agents, and the background agent's next action. They go by
(time, priority, number), numbers being given when an event is asked for. Every function is of one trajectory; `vmap`
it.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from marsjax.agents.base import Account, Action, Agent, Observation, Resting
from marsjax.core import times
from marsjax.core.records import EMPTY_PRICE, NO_ID, Array, BookView, Int64, Kind, Ledgers, Market, Order, Time
from marsjax.market import orders as make
from marsjax.sim.state import NO_NUMBER, AgentState, BackgroundPhase, SimState

ORDER_FIRST = 0
WAKES_LATER = 100
"""Priorities at equal times."""
_NEVER = 2**31 - 1


class NextEvent(NamedTuple):
    """The next event of a trajectory."""

    place: Array
    """int32: orders in flight first, [sum of Q], then the agents' wake-ups, then the background agent's action; -1 if
    nothing is pending."""
    time: Time


def first_state(agent: Agent, state: Any, first_wake: Time, start: Time, number: int) -> AgentState:
    """An agent before its first wake-up; one that is due before it can have seen the start is woken then."""
    zero = jnp.zeros((), jnp.int32)
    no_order = jax.tree.map(lambda x: jnp.broadcast_to(jnp.asarray(x, jnp.int32), (agent.most_in_flight,)),
                            make.no_order())
    seen = add_delay(start, agent.latency.communication_ns)
    first = times.select(times.before(first_wake, seen), seen, first_wake)
    return AgentState(
        state, wake=times.subtract(first, times.of_ns(agent.latency.communication_ns)), wake_number=zero + number,
        awake=jnp.ones((), bool), in_flight=no_order,
        in_flight_number=jnp.full(agent.most_in_flight, NO_NUMBER, jnp.int32), wakes=zero, sent=zero, refused=zero,
        unsent=zero, late_wakes=zero)


def next_event(state: SimState) -> NextEvent:
    """The first pending event not after the trajectory's end."""
    agents = state.agent_states
    parts = [(s.in_flight.time, s.in_flight_number, s.in_flight_number != NO_NUMBER, ORDER_FIRST) for s in agents]
    parts += [(_row(s.wake), s.wake_number[None], s.awake[None], WAKES_LATER) for s in agents]
    parts += [(_row(state.time), jnp.asarray(state.own_number)[None],
               jnp.asarray(state.phase != BackgroundPhase.NOTHING)[None], WAKES_LATER)]
    time = Time(*(jnp.concatenate([getattr(part[0], name) for part in parts]) for name in ("s", "ns")))
    number = jnp.concatenate([part[1] for part in parts])
    priority = jnp.concatenate([jnp.full(part[1].shape, part[3], jnp.int32) for part in parts])
    left = jnp.concatenate([part[2] for part in parts]) & ~times.before(state.until, time)
    exists = jnp.any(left)
    for key in (time.s, time.ns, priority, number):
        left &= key == jnp.min(jnp.where(left, key, _NEVER))
    at = jnp.argmax(left)
    return NextEvent(jnp.where(exists, at, -1).astype(jnp.int32), Time(time.s[at], time.ns[at]))


def take_order(agents: Sequence[AgentState], event: NextEvent) -> tuple[tuple[AgentState, ...], Order, Array]:
    """Takes an order that arrives out of those in flight.

    Returns the agents' states, the order (Kind.NONE if the event is not an order's arrival), and the index of its
    agent.
    """
    first, order, source, after = 0, jax.tree.map(jnp.asarray, make.no_order()), jnp.zeros((), jnp.int32), []
    for index, s in enumerate(agents):
        count = s.in_flight_number.shape[0]
        is_here = (jnp.arange(count) + first) == event.place
        mine = jnp.any(is_here)
        taken = jax.tree.map(lambda x, here=is_here: jnp.sum(jnp.where(here, x, 0), dtype=x.dtype), s.in_flight)
        order = jax.tree.map(lambda new, old, mine=mine: jnp.where(mine, new, old), taken, order)
        source = jnp.where(mine, index, source)
        after.append(dataclasses.replace(s, in_flight_number=jnp.where(is_here, NO_NUMBER, s.in_flight_number)))
        first += count
    return tuple(after), order, source


def wake_place(agents: Sequence[AgentState], index: int) -> int:
    """The `NextEvent.place` of an agent's wake-up."""
    return sum(s.in_flight_number.shape[0] for s in agents) + index


def background_place(agents: Sequence[AgentState]) -> int:
    """The `NextEvent.place` of the background agent's action."""
    return wake_place(agents, len(agents))


def decides(state: SimState, event: NextEvent) -> jax.Array:
    """bool: the next event is a decision of the background agent."""
    return (event.place == background_place(state.agent_states)) & (state.phase == BackgroundPhase.DECIDE)


def observe(agent: Agent, tick: int, market: Market, view: BookView, now: Time, observed: tuple[Any, ...]
            ) -> Observation:
    """What the agent knows when it wakes up, `now` by the exchange's clock."""
    own = (market.book.account == agent.account) & (market.book.volume > 0)
    resting = Resting(jnp.where(own, market.book.price, EMPTY_PRICE), jnp.where(own, market.book.volume, 0),
                      jnp.where(own, market.book.order_id, NO_ID))
    return Observation(add_delay(now, agent.latency.communication_ns), view, account_of(market.ledgers, agent.account),
                       resting, jnp.int32(tick), observed)


def account_of(ledgers: Ledgers, account: int) -> Account:
    """One account's row."""
    return Account(*(Int64(x.hi[account], x.lo[account])
                     for x in (ledgers.cash, ledgers.holdings, ledgers.reserved_cash, ledgers.reserved_shares)))


def after_action(agent: Agent, before: AgentState, action: Action, now: Time, number: Array
                 ) -> tuple[AgentState, Array]:
    """The agent's state after it acted at `now` by the exchange's clock, and the event numbers given so far.

    Orders beyond the agent's `most_in_flight` are counted as unsent. An agent that asks to be woken no later than now
    is stopped, and that is counted.
    """
    latency = agent.latency
    wanted = jnp.asarray(action.orders.kind != Kind.NONE)
    rank = jnp.cumsum(wanted) - 1
    free = before.in_flight_number == NO_NUMBER
    place = jnp.cumsum(free) - 1
    takes = free[:, None] & wanted[None, :] & (place[:, None] == rank[None, :])
    filled = jnp.any(takes, axis=1)
    which = jnp.argmax(takes, axis=1)
    arrival = add_delay(now, 2 * latency.communication_ns + latency.computation_ns)
    sent = dataclasses.replace(
        action.orders, time=jax.tree.map(lambda x: jnp.broadcast_to(x, wanted.shape), arrival),
        order_id=jnp.full(wanted.shape, NO_ID, jnp.int32), account=jnp.full(wanted.shape, agent.account, jnp.int32))
    in_flight = jax.tree.map(lambda new, old: jnp.where(filled, jnp.asarray(new)[which], old), sent, before.in_flight)
    in_flight_number = jnp.where(filled, number + place, before.in_flight_number)
    asked = jnp.sum(wanted, dtype=jnp.int32)
    number = number + asked

    own_now = add_delay(now, latency.communication_ns)
    is_late = ~action.stops & ~times.before(own_now, action.wake)
    goes_on = ~action.stops & ~is_late
    wake = times.subtract(times.select(goes_on, action.wake, own_now), times.of_ns(latency.communication_ns))
    return dataclasses.replace(
        before, state=action.state, wake=wake, wake_number=number, awake=before.awake & goes_on, in_flight=in_flight,
        in_flight_number=in_flight_number, wakes=before.wakes + 1,
        unsent=before.unsent + asked - jnp.sum(filled, dtype=jnp.int32) + action.unsent,
        late_wakes=before.late_wakes + is_late), number + 1


def add_delay(time: Time, delay_ns: int) -> Time:
    """time + a known delay."""
    return times.add(time, times.of_ns(delay_ns)) if delay_ns else time


def _row(time: Time) -> Time:
    return Time(jnp.asarray(time.s)[None], jnp.asarray(time.ns)[None])
