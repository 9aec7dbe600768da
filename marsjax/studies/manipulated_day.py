"""A manipulation put into a recorded day, and what it did to the mid."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from marsjax.agents import WashTrades
from marsjax.analysis import order_events, quantities
from marsjax.analysis.quantities import OrderEvents
from marsjax.core.errors import InputError
from marsjax.core.specs import MarketSpec
from marsjax.core.times import SECOND_NS
from marsjax.data.feed import DayFeed
from marsjax.studies import injected, starts
from marsjax.studies.detection import WatchSpec
from marsjax.studies.injected import Injected, NothingSentError
from marsjax.studies.manipulations import Manipulation
from marsjax.studies.order_model import PreparedModel
from marsjax.studies.session_times import MINUTE_NS, check_time, spell


class ManipulatedDay(NamedTuple):
    """A day with a manipulation whose truth is known."""

    injected: Injected
    recorded: OrderEvents
    """The day as it was, up to its end."""
    from_ns: int
    """Nanoseconds since midnight."""
    until_ns: int


def end_ns(market: MarketSpec, manipulation: Manipulation, from_ns: int) -> int:
    """When a manipulation ends; InputError where that is not in the period of continuous trading that it begins in."""
    until_ns = from_ns + manipulation.seconds * SECOND_NS
    if until_ns > check_time(market.session, from_ns, 0).end_ns:
        raise InputError(f"{manipulation.kind} at {spell(from_ns)}: ends at {spell(until_ns)}, after its period of "
                         "continuous trading")
    return until_ns


def begin_ns(market: MarketSpec, watch: WatchSpec, begins_ns: Sequence[int], manipulation: Manipulation,
             wanted_ns: int | None = None) -> int:
    """When a manipulation begins in a day that is watched, nanoseconds since midnight.

    Args:
      market: its session.
      watch: how the day is watched.
      begins_ns: of its intervals.
      manipulation: how long it is.
      wanted_ns: the time; None: a second into the middle one of the intervals that are not clean.

    InputError where it does not lie in intervals that are watched and not clean, in one period of continuous trading.
    """
    tested = [begin for begin, is_clean in zip(begins_ns, watch.is_clean(begins_ns), strict=True) if not is_clean]
    at_ns = tested[len(tested) // 2] + SECOND_NS if wanted_ns is None else wanted_ns
    until_ns = end_ns(market, manipulation, at_ns)
    if not watch.is_tested(begins_ns, at_ns, until_ns):
        raise InputError(f"expected times in intervals that are watched and not clean, after {spell(tested[0])} and up "
                         f"to {spell(tested[-1] + watch.minutes * MINUTE_NS)} without breaks, got {spell(at_ns)} to "
                         f"{spell(until_ns)}")
    return at_ns


def put_into(market: MarketSpec, prepared: PreparedModel, feed: DayFeed, manipulation: Manipulation, from_ns: int
             ) -> ManipulatedDay:
    """Reads the day up to the end of a manipulation that begins at a time of continuous trading, and puts it in.

    InputError where it does not end in that period; NothingSentError, with what it needs, where it sends no order.
    """
    until_ns = end_ns(market, manipulation, from_ns)
    states = starts.states_of_feed(market, prepared, feed, [from_ns, until_ns], on_host=True)
    agent = manipulation.agent(from_ns, market.tick)
    try:
        found = injected.inject(market, feed, agent, states.starts[0].market, from_ns, until_ns)
    except NothingSentError as error:
        raise NothingSentError(f"{error}: {_needs(agent)}") from error
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


def _needs(agent: Any) -> str:
    """What a manipulator must find to send an order."""
    if isinstance(agent, WashTrades):
        return (f"it needs a spread of 2 ticks, or {agent.most_swept} shares at most at the best price that it takes "
                "first, which is twice its size: a larger size or another time may do")
    return "it needs orders on both sides and a size above 0"
