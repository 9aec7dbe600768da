"""Whose turn it is: the event queue of one trajectory, as arrays (reference: events and agents).

Pending are orders on their way to the exchange, wake-ups of agents, and the background agent's next deed. They go by
(time, priority, number), numbers being given when an event is asked for. Every function is of scalars; `vmap` it.
"""

import dataclasses
import enum
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from marsjax import clock
from marsjax import orders as make
from marsjax.agents.base import Account, Action, Agent, Observation, Resting
from marsjax.types import EMPTY_PRICE, NO_ID, Array, BookView, Kind, Ledgers, Market, Order, Time, Wide

ORDER_FIRST = 0
WAKES_LATER = 100
"""Priorities at equal times."""
_NO_NUMBER = -1
_NEVER = 2**31 - 1


class Phase(enum.IntEnum):
    """What the background agent does next."""

    DECIDE = 0
    SEND = 1
    NOTHING = 2
    """Its planned order would come after the end, or its trajectory has ended."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Seat:
    """What the engine keeps of one agent of one trajectory; Q is `Agent.most_in_flight`."""

    state: Any
    wake: Time
    """When the exchange's clock shows it the agent sees it: its own wake-up less its communication delay."""
    wake_number: Array
    """int32."""
    awake: Array
    """bool, False once it has stopped."""
    flight: Order
    """[Q], with their times of arrival."""
    flight_number: Array
    """int32 [Q], _NO_NUMBER where there is none."""
    wakes: Array
    """int32, wake-ups so far; they key its draws."""
    sent: Array
    """int32, orders that reached the exchange."""
    refused: Array
    """int32, of these, refused by it: cancels of orders that are not the agent's own among them."""
    unsent: Array
    """int32, orders beyond `most_orders`, as the agent says, and beyond `most_in_flight`."""
    late_wakes: Array
    """int32, wake-ups asked for that were not later than now: the agent was stopped."""


class Turn(NamedTuple):
    """The next event of a trajectory."""

    place: Array
    """int32: orders in flight first, [sum of Q], then the agents' wake-ups, then the background agent's deed; -1 if
    nothing is pending."""
    time: Time


def seat(agent: Agent, state: Any, first_wake: Time, start: Time, number: int) -> Seat:
    """An agent before its first wake-up; one that is due before it can have seen the start is woken then."""
    zero = jnp.zeros((), jnp.int32)
    no_order = jax.tree.map(lambda x: jnp.broadcast_to(jnp.asarray(x, jnp.int32), (agent.most_in_flight,)),
                            make.no_order())
    seen = add_delay(start, agent.latency.communication_ns)
    first = clock.select_time(clock.before(first_wake, seen), seen, first_wake)
    return Seat(state, clock.subtract_time(first, clock.static_time(agent.latency.communication_ns)), zero + number,
                jnp.ones((), bool), no_order, jnp.full(agent.most_in_flight, _NO_NUMBER, jnp.int32), zero, zero, zero,
                zero, zero)


def next_turn(seats: Sequence[Seat], phase: Array, own_time: Time, own_number: Array, end: Time) -> Turn:
    """The first pending event not after `end`; `own_*` are the background agent's."""
    parts = [(s.flight.time, s.flight_number, s.flight_number != _NO_NUMBER, ORDER_FIRST) for s in seats]
    parts += [(_row(s.wake), s.wake_number[None], s.awake[None], WAKES_LATER) for s in seats]
    parts += [(_row(own_time), jnp.asarray(own_number)[None], jnp.asarray(phase != Phase.NOTHING)[None], WAKES_LATER)]
    time = Time(*(jnp.concatenate([getattr(part[0], name) for part in parts]) for name in ("s", "ns")))
    number = jnp.concatenate([part[1] for part in parts])
    priority = jnp.concatenate([jnp.full(part[1].shape, part[3], jnp.int32) for part in parts])
    left = jnp.concatenate([part[2] for part in parts]) & ~clock.before(end, time)
    exists = jnp.any(left)
    for key in (time.s, time.ns, priority, number):
        left &= key == jnp.min(jnp.where(left, key, _NEVER))
    at = jnp.argmax(left)
    return Turn(jnp.where(exists, at, -1).astype(jnp.int32), Time(time.s[at], time.ns[at]))


def take_order(seats: Sequence[Seat], turn: Turn) -> tuple[list[Seat], Order, Array]:
    """Takes the order whose turn it is out of the air.

    Returns the seats, the order (Kind.NONE if it is not an order's turn), and the index of its agent.
    """
    first, order, source, after = 0, jax.tree.map(jnp.asarray, make.no_order()), jnp.zeros((), jnp.int32), []
    for index, s in enumerate(seats):
        count = s.flight_number.shape[0]
        is_here = (jnp.arange(count) + first) == turn.place
        mine = jnp.any(is_here)
        taken = jax.tree.map(lambda x, here=is_here: jnp.sum(jnp.where(here, x, 0), dtype=x.dtype), s.flight)
        order = jax.tree.map(lambda new, old, mine=mine: jnp.where(mine, new, old), taken, order)
        source = jnp.where(mine, index, source)
        after.append(dataclasses.replace(s, flight_number=jnp.where(is_here, _NO_NUMBER, s.flight_number)))
        first += count
    return after, order, source


def wake_turn(seats: Sequence[Seat], index: int) -> int:
    """The `Turn.place` of an agent's wake-up."""
    return sum(s.flight_number.shape[0] for s in seats) + index


def own_turn(seats: Sequence[Seat]) -> int:
    """The `Turn.place` of the background agent's deed."""
    return wake_turn(seats, len(seats))


def observe(agent: Agent, market: Market, view: BookView, now: Time, watched: tuple[Any, ...]) -> Observation:
    """What the agent knows when it wakes up, `now` by the exchange's clock."""
    own = (market.book.owner == agent.owner) & (market.book.volume > 0)
    resting = Resting(jnp.where(own, market.book.price, EMPTY_PRICE), jnp.where(own, market.book.volume, 0),
                      jnp.where(own, market.book.order_id, NO_ID))
    return Observation(add_delay(now, agent.latency.communication_ns), view, account(market.ledgers, agent.owner),
                       resting, watched)


def account(ledgers: Ledgers, owner: int) -> Account:
    """One account's row."""
    return Account(*(Wide(x.hi[owner], x.lo[owner])
                     for x in (ledgers.cash, ledgers.holdings, ledgers.reserved_cash, ledgers.reserved_shares)))


def acted(agent: Agent, before: Seat, action: Action, now: Time, number: Array) -> tuple[Seat, Array]:
    """The seat after its agent acted at `now` by the exchange's clock, and the numbers given so far.

    Orders that find no room in the air are counted as unsent. An agent that asks to be woken no later than now is
    stopped, and that is counted.
    """
    latency = agent.latency
    wanted = jnp.asarray(action.orders.kind != Kind.NONE)
    rank = jnp.cumsum(wanted) - 1
    free = before.flight_number == _NO_NUMBER
    place = jnp.cumsum(free) - 1
    takes = free[:, None] & wanted[None, :] & (place[:, None] == rank[None, :])
    filled = jnp.any(takes, axis=1)
    which = jnp.argmax(takes, axis=1)
    arrival = add_delay(now, 2 * latency.communication_ns + latency.computation_ns)
    sent = dataclasses.replace(
        action.orders, time=jax.tree.map(lambda x: jnp.broadcast_to(x, wanted.shape), arrival),
        order_id=jnp.full(wanted.shape, NO_ID, jnp.int32), owner=jnp.full(wanted.shape, agent.owner, jnp.int32))
    flight = jax.tree.map(lambda new, old: jnp.where(filled, jnp.asarray(new)[which], old), sent, before.flight)
    flight_number = jnp.where(filled, number + place, before.flight_number)
    asked = jnp.sum(wanted, dtype=jnp.int32)
    number = number + asked

    own_now = add_delay(now, latency.communication_ns)
    is_late = ~action.stops & ~clock.before(own_now, action.wake)
    goes_on = ~action.stops & ~is_late
    wake = clock.subtract_time(clock.select_time(goes_on, action.wake, own_now),
                               clock.static_time(latency.communication_ns))
    return dataclasses.replace(
        before, state=action.state, wake=wake, wake_number=number, awake=before.awake & goes_on, flight=flight,
        flight_number=flight_number, wakes=before.wakes + 1,
        unsent=before.unsent + asked - jnp.sum(filled, dtype=jnp.int32) + action.unsent,
        late_wakes=before.late_wakes + is_late), number + 1


def add_delay(time: Time, delay_ns: int) -> Time:
    """time + a known delay."""
    return clock.add_time(time, clock.static_time(delay_ns)) if delay_ns else time


def _row(time: Time) -> Time:
    return Time(jnp.asarray(time.s)[None], jnp.asarray(time.ns)[None])
