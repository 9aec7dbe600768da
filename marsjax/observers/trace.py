"""The trace: every order of every trajectory, kept for a chunk of steps and handed to the host between chunks."""

import dataclasses

import jax
import jax.numpy as jnp

from marsjax.core.records import Array, BookView, Market, Status, Time
from marsjax.core.specs import MarketSpec
from marsjax.market.process import Event, event_shape


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Log:
    """The events of one trajectory since the log was last emptied."""

    count: Array
    """int32 [], how many there are."""
    dropped: Array
    """int32 [], that did not fit."""
    first: Array
    """int32 [], running number of the first order in it: so many came before, in logs that the host has taken."""
    orders: Array
    """int32 [], orders of its events, those that did not fit too; every listed cancel of a cancel by price is one."""
    events: Event
    """[N]."""


@dataclasses.dataclass(frozen=True)
class TraceObserver:
    """The observer that keeps every event, for `Rollout.orders` and its other tables, or for a hook of yours.

    Examples:
      >>> from marsjax import Simulator, testing
      >>> market = testing.tiny_market()
      >>> simulator = Simulator.of(testing.tiny_model(), market, observers=[TraceObserver(market, room=512)])
      >>> simulator.spec.observers[0].room
      512
    """

    market: MarketSpec
    room: int = 256
    """N, events that fit until the host takes them, after each chunk of a rollout."""

    def begin(self, market: Market, view: BookView, time: Time) -> Log:
        """An empty log."""
        none = jnp.zeros((), jnp.int32)
        del time
        event = event_shape(self.market, market, view)
        return Log(none, none, none, none, jax.tree.map(lambda x: jnp.zeros((self.room, *x.shape), x.dtype), event))

    def update(self, log: Log, event: Event) -> Log:
        """Writes an event down; drops and counts it if the log is full."""
        fits = event.happened & (log.count < self.room)
        at = jnp.where(fits, log.count, self.room)
        return Log(log.count + fits, log.dropped + (event.happened & ~fits), log.first,
                   log.orders + jnp.where(event.happened, orders_of(event), 0),
                   jax.tree.map(lambda old, new: old.at[at].set(new, mode="drop"), log.events, event))

    def end(self, state: Log, market: Market, view: BookView, time: Time) -> Log:
        """The log."""
        del market, view, time
        return state

    def emptied(self, log: Log) -> Log:
        """The log after the host took its events, [...] or [B, ...]."""
        none = jnp.zeros_like(log.count)
        return dataclasses.replace(log, count=none, dropped=none, first=log.first + log.orders, orders=none)


def orders_of(event: Event) -> Array:
    """How many orders an event is in a table, int32 [...]: of a cancel by price its listed cancels, or its refusal."""
    listed = jnp.minimum(event.trades.count, event.trades.price.shape[-1])
    is_answered = (event.status == Status.ACCEPTED) | (event.status == Status.NOTHING_TO_CANCEL)
    return jnp.where(event.is_by_price & is_answered, listed, 1)
