"""The trace keeps what fits and counts what does not."""

import dataclasses

import jax
import jax.numpy as jnp

from marsjax.core import times
from marsjax.core.specs import MarketSpec
from marsjax.market import book, exchange
from marsjax.observers.trace import TraceObserver

SPEC = MarketSpec(capacity=4, trade_width=2, levels=1)


def test_events_beyond_the_room_are_dropped_and_counted() -> None:
    trace = TraceObserver(SPEC, room=2)
    market = exchange.open_market(SPEC)
    log = trace.begin(market, book.view(SPEC, market.book), times.of_ns(0))
    event = jax.tree.map(lambda x: x[0], log.events)
    for source, happened in ((3, True), (4, False), (5, True), (6, True), (7, True)):
        log = trace.update(log, dataclasses.replace(event, happened=jnp.bool_(happened), source=jnp.int32(source)))
    assert (int(log.count), int(log.dropped)) == (2, 2)
    assert log.events.source.tolist() == [3, 5]
    log = trace.update(trace.emptied(log), dataclasses.replace(event, happened=jnp.bool_(True), source=jnp.int32(8)))
    assert (int(log.count), int(log.dropped)) == (1, 0)
    assert log.events.source.tolist() == [8, 5]
