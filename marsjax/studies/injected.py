"""A recorded day with one more trader: its messages as they came, and what an agent sends among them.

Nobody in a recorded day reacts to the agent. What it takes from the book is missing to those who came later: a cancel
of an order that it has hit is refused, and an order that found less than it did in truth rests. So such a day is one
with a known manipulation from the agent's start on, and less and less itself after it.
"""

import dataclasses
import functools
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from marsjax.agents.base import NO_LATENCY, Agent, AgentEvent
from marsjax.core import int64, times
from marsjax.core.errors import InputError
from marsjax.core.records import NO_ID, Kind, Market, Order
from marsjax.core.specs import MarketSpec
from marsjax.data.feed import LARGEST_ID, DayFeed, FeedChunk, PublishedFills
from marsjax.market import book as books
from marsjax.market import orders as make
from marsjax.market.process import NOT_MADE, MarketState, process
from marsjax.sim import event_queue
from marsjax.studies.session_times import spell

_CHUNK = 256
"""Orders of a compiled call."""


class NothingSentError(InputError):
    """An agent that found no moment to send an order: nothing has come of the day."""


class Injected(NamedTuple):
    """A day with the orders of an agent in it."""

    feed: DayFeed
    """Everyone's orders; as `DayFeed.variant` the agent's name."""
    sent: Order
    """[K], the agent's, NumPy arrays, in order of time."""
    refused: int
    """Of these, refused by the exchange."""


def inject(market: MarketSpec, feed: DayFeed, agent: Agent, start: Market, from_ns: int, until_ns: int) -> Injected:
    """An agent in a recorded day, from a state of it on; it wakes up until a time, or until it stops.

    Args:
      market: of the day, with the agent's account.
      feed: the day; its limit orders have ids of their own.
      agent: without latency.
      start: the market after the day's orders up to `from_ns` (`starts.states_of_feed`).
      from_ns: nanoseconds since midnight.
      until_ns: in the same period of continuous trading.

    At equal times recorded orders come first. InputError where the agent does not fit, NothingSentError where it sends
    none.
    """
    if agent.latency != NO_LATENCY:
        raise InputError(f"agent {agent.name!r}: expected no latency in a recorded day, got {agent.latency}")
    if agent.account >= market.accounts:
        raise InputError(f"agent {agent.name!r}: expected an account below {market.accounts}, got {agent.account}")
    recorded = _recorded(feed)
    time_ns = times.to_ns(recorded.time)
    trader = _Trader(market, agent, start, _next_id(feed, recorded))
    at = int(np.searchsorted(time_ns, from_ns, side="right"))
    while not trader.stopped and trader.wake_ns <= until_ns:
        due = max(int(np.searchsorted(time_ns, trader.wake_ns, side="right")), at)
        trader.pass_on(jax.tree.map(lambda x, a=at, b=due: x[a:b], recorded))
        at = due
        trader.act(at)
    if not trader.sent:
        raise NothingSentError(f"agent {agent.name!r}: sent no order from {spell(from_ns)} to {spell(until_ns)}")
    places = np.array([place for place, _ in trader.sent])
    sent = jax.tree.map(lambda *x: np.stack([np.asarray(each, np.int32) for each in x]),
                        *[order for _, order in trader.sent])
    whole = dataclasses.replace(feed, read=functools.partial(_merged, feed, places, sent), publishes_fills=False,
                                variant="_".join(filter(None, (feed.variant, agent.name))))
    return Injected(whole, sent, trader.refused)


class _Trader:
    """The exchange and the agent, order by order."""

    def __init__(self, market: MarketSpec, agent: Agent, start: Market, next_id: int) -> None:
        self._spec, self._agent, self._next_id = market, agent, next_id
        start = jax.tree.map(jnp.asarray, start)
        view = jax.jit(books.view, static_argnums=0)(market, start.book)
        self._state = MarketState(start, view, NOT_MADE)
        state, wake = agent.init()
        self._own = jax.tree.map(jnp.asarray, state)
        self._wakes = 0
        self.wake_ns, self.stopped = int(times.to_ns(wake)), False
        self.sent: list[tuple[int, Order]] = []
        """Each with the number of recorded orders before it."""
        self.refused = 0

    def pass_on(self, orders: Order) -> None:
        """Orders [N] of others."""
        for begin in range(0, len(orders.kind), _CHUNK):
            some = jax.tree.map(lambda x, b=begin: x[b : b + _CHUNK], orders)
            some = dataclasses.replace(some, account=np.zeros_like(np.asarray(some.account)))
            self._run(make.pad(some, _CHUNK), is_own=False)

    def act(self, place: int) -> None:
        """One wake-up, after so many recorded orders."""
        now = times.from_ns(self.wake_ns)
        action = _act(self._spec, self._agent, self._state, self._own, now, self._wakes)
        self._own, self._wakes = action.state, self._wakes + 1
        orders = jax.tree.map(np.asarray, action.orders)
        wanted = np.flatnonzero(orders.kind != Kind.NONE)
        ids = self._next_id + np.arange(len(wanted))
        if len(ids) and ids[-1] > LARGEST_ID:
            raise InputError(f"agent {self._agent.name!r}: expected ids up to {LARGEST_ID} for its orders, got "
                             f"{ids[-1]}: the day's ids leave no room")
        self._next_id += len(wanted)
        sent = dataclasses.replace(
            jax.tree.map(lambda x: np.asarray(x)[wanted], orders), order_id=ids.astype(np.int32),
            account=np.full(len(wanted), self._agent.account, np.int32),
            time=jax.tree.map(lambda x: np.full(len(wanted), x, np.int32), now))
        if len(wanted):
            self.refused += int(self._run(make.pad(sent, self._agent.most_orders), is_own=True))
        self.sent += [(place, jax.tree.map(lambda x, i=i: x[i], sent)) for i in range(len(wanted))]
        after = int(times.to_ns(jax.tree.map(np.asarray, action.wake)))
        self.stopped, self.wake_ns = bool(action.stops) or after <= self.wake_ns, after

    def _run(self, orders: Order, is_own: bool) -> jax.Array:
        self._state, self._own, refused = _send(self._spec, self._agent, self._state, self._own, orders, is_own)
        return refused


@functools.partial(jax.jit, static_argnums=(0, 1))
def _act(spec: MarketSpec, agent: Agent, state: MarketState, own: Any, now: Any, wakes: jax.Array) -> Any:
    seen = event_queue.observe(agent, spec.tick, state.market, state.view, now, ())
    return agent.act(own, seen, jax.random.fold_in(jax.random.key(0), wakes))


@functools.partial(jax.jit, static_argnums=(0, 1, 5))
def _send(spec: MarketSpec, agent: Agent, state: MarketState, own: Any, orders: Order, is_own: bool) -> Any:
    """Orders [N], padded with Kind.NONE, one after the other; and how many of them were refused."""
    def one(carry: Any, order: Order) -> tuple[Any, jax.Array]:
        state, own = carry
        happens = jnp.asarray(order.kind != Kind.NONE)
        after, event = process(spec, None, state, order, happens=happens, source=int(is_own))
        was, now = (event_queue.account_of(x.market.ledgers, agent.account) for x in (state, after))
        heard = AgentEvent(order.time, happens & is_own, event.order, event.status, event.order_id, event.trades,
                           int64.subtract(now.holdings, was.holdings), int64.subtract(now.cash, was.cash))
        own = jax.tree.map(lambda a, b: jnp.where(happens, a, b).astype(jnp.asarray(b).dtype),
                           agent.on_event(own, heard), own)
        return (after, own), happens & (event.status != 0)

    (state, own), refused = jax.lax.scan(one, (state, own), orders)
    return state, own, jnp.sum(refused)


def _recorded(feed: DayFeed) -> Order:
    """All orders of a day [N]."""
    parts = [chunk.orders for chunk in feed.read()]
    return jax.tree.map(lambda *x: np.concatenate([np.asarray(each) for each in x]), *parts)


def _next_id(feed: DayFeed, recorded: Order) -> int:
    """An id above all of the day; InputError where orders have none, as cancels would name others then."""
    kind, ids = np.asarray(recorded.kind), np.asarray(recorded.order_id)
    limit = (kind == Kind.BUY) | (kind == Kind.SELL)
    if (ids[limit] == NO_ID).any():
        raise InputError(f"{feed.name}: expected ids of all limit orders of a day that an agent is put into")
    # Cancels without ids get the next free one: ids of the agent stay above all that they can come to.
    return int(max(ids[limit].max(initial=0), np.asarray(recorded.cancel_id).max(initial=0))) + len(kind) + 1


def _merged(feed: DayFeed, places: np.ndarray, sent: Order) -> Iterator[FeedChunk]:
    """The chunks of a feed with orders put in after so many of its own each."""
    first = 0
    for chunk in feed.read():
        end = first + len(chunk.orders.kind)
        mine = np.flatnonzero((places > first) & (places <= end) if first else places <= end)
        if len(mine):
            at = places[mine] - first
            orders = jax.tree.map(lambda x, y, at=at, mine=mine: np.insert(np.asarray(x), at, np.asarray(y)[mine]),
                                  chunk.orders, sent)
            sequence = np.insert(chunk.sequence, at, chunk.sequence[np.maximum(at - 1, 0)])
            made = np.zeros(end - first, bool) if chunk.is_synthetic is None else chunk.is_synthetic
            yield dataclasses.replace(chunk, orders=orders, sequence=sequence, fills=PublishedFills.none(),
                                      is_synthetic=np.insert(made, at, False))
        else:
            yield dataclasses.replace(chunk, fills=PublishedFills.none())
        first = end
