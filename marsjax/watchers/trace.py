"""The trace: every order of every trajectory, kept for a chunk of steps and handed to the host between chunks."""

import dataclasses

import jax
import jax.numpy as jnp

from marsjax import exchange, orders
from marsjax.specs import MarketSpec
from marsjax.tokens import LEVELS, Encoded
from marsjax.types import Array, BookView, Market, Report, Time, Token
from marsjax.watchers.base import Event


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
class Trace:
    """The watcher that keeps every event; N = `room` of them until the host takes them."""

    market: MarketSpec
    room: int

    def begin(self, market: Market, view: BookView, time: Time) -> Log:
        """An empty log."""
        none = jnp.zeros((), jnp.int32)
        report, cancelled = jax.eval_shape(lambda: self._reports(market, time))
        columns = {field.name: none for field in dataclasses.fields(Token)}
        token = Token(**{**columns, "levels": jnp.zeros(LEVELS, jnp.int32)})
        no = jnp.zeros((), bool)
        event = Event(no, none, orders.no_order(), no, report, cancelled, none, view, view, Encoded(token, no, no))
        return Log(none, none, jax.tree.map(lambda x: jnp.zeros((self.room, *x.shape), x.dtype), event))

    def _reports(self, market: Market, time: Time) -> tuple[Report, Report]:
        return (exchange.submit(self.market, market, orders.no_order())[1],
                exchange.cancel_many(self.market, market, jnp.zeros((2, self.market.capacity), jnp.int32), time)[1])

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
