"""A manipulation put into a recorded day, and what it did to the mid."""

from typing import NamedTuple

import numpy as np

from marsjax.analysis import order_events, quantities
from marsjax.analysis.quantities import OrderEvents
from marsjax.core.errors import InputError
from marsjax.core.specs import MarketSpec
from marsjax.core.times import SECOND_NS
from marsjax.data.feed import DayFeed
from marsjax.studies import injected, starts
from marsjax.studies.injected import Injected
from marsjax.studies.manipulations import Manipulation
from marsjax.studies.order_model import PreparedModel
from marsjax.studies.session_times import check_time, spell


class ManipulatedDay(NamedTuple):
    """A day with a manipulation whose truth is known."""

    injected: Injected
    recorded: OrderEvents
    """The day as it was, up to its end."""
    from_ns: int
    """Nanoseconds since midnight."""
    until_ns: int


def put_into(market: MarketSpec, prepared: PreparedModel, feed: DayFeed, manipulation: Manipulation, from_ns: int
             ) -> ManipulatedDay:
    """Reads the day up to the end of a manipulation that begins at a time of continuous trading, and puts it in."""
    until_ns = from_ns + manipulation.seconds * SECOND_NS
    if until_ns > check_time(market.session, from_ns, 0).end_ns:
        raise InputError(f"{manipulation.kind} at {spell(from_ns)}: ends at {spell(until_ns)}, after its period of "
                         "continuous trading")
    states = starts.states_of_feed(market, prepared, feed, [from_ns, until_ns], on_host=True)
    agent = manipulation.agent(from_ns, market.tick)
    found = injected.inject(market, feed, agent, states.starts[0].market, from_ns, until_ns)
    return ManipulatedDay(found, order_events.of_passed(states.sent), from_ns, until_ns)


def move_bp(day: ManipulatedDay, events: OrderEvents) -> float:
    """The largest difference, second by second, of the mid with it and without it, in basis points, signed.

    `events` are of the day with it.
    """
    grid = np.arange(day.from_ns, day.until_ns + 1, SECOND_NS)
    with_it, without = (quantities.mids(each, grid) for each in (events, day.recorded))
    moves = 1e4 * (with_it / without - 1)
    known = moves[~np.isnan(moves)]
    return float(known[np.argmax(np.abs(known))]) if len(known) else float("nan")
