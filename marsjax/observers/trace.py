"""The trace: every order of every trajectory, kept for a chunk of steps and handed to the host between chunks."""

import dataclasses

import jax
import jax.numpy as jnp

from marsjax.core.records import Array, BookView, Market, Time
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
    events: Event
    """[N]."""


@dataclasses.dataclass(frozen=True)
class TraceObserver:
    """The observer that keeps every event; N = `room` of them until the host takes them."""

    market: MarketSpec
    room: int

    def begin(self, market: Market, view: BookView, time: Time) -> Log:
        """An empty log."""
        none = jnp.zeros((), jnp.int32)
        del time
        event = event_shape(self.market, market, view)
        return Log(none, none, jax.tree.map(lambda x: jnp.zeros((self.room, *x.shape), x.dtype), event))

    def update(self, log: Log, event: Event) -> Log:
        """Writes an event down; drops and counts it if the log is full."""
        fits = event.happened & (log.count < self.room)
        at = jnp.where(fits, log.count, self.room)
        return Log(log.count + fits, log.dropped + (event.happened & ~fits),
                   jax.tree.map(lambda old, new: old.at[at].set(new, mode="drop"), log.events, event))

    def end(self, state: Log, market: Market, view: BookView, time: Time) -> Log:
        """The log."""
        del market, view, time
        return state

    def emptied(self, log: Log) -> Log:
        """The log after the host took its events, [...] or [B, ...]."""
        return dataclasses.replace(log, count=jnp.zeros_like(log.count), dropped=jnp.zeros_like(log.dropped))
