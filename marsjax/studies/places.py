"""Where futures start, by plain values: in days that come with an order model, after the noise agent, in real days."""

import dataclasses
from typing import NamedTuple

from marsjax.checkpoint import load
from marsjax.core import limits
from marsjax.core.errors import InputError
from marsjax.core.sessions import continuous_session
from marsjax.core.specs import MarketSpec
from marsjax.core.times import SECOND_NS
from marsjax.data import made_days, sources
from marsjax.data.feed import DayFeed, Venue
from marsjax.data.made_days import MadeDay
from marsjax.sim.initial import Warmup
from marsjax.studies import starts
from marsjax.studies.order_model import PreparedModel
from marsjax.studies.session_times import MINUTE_NS, check_time, spell
from marsjax.studies.starts import NoiseMarket

MADE = made_days.NAMES
"""The days that come with the default order model."""
_TRADE_WIDTH, _NOISE_CAPACITY, _NOISE_FROM_NS = 32, 256, 34_200 * SECOND_NS


class Place(NamedTuple):
    """A time of a day of orders, in its market."""

    feed: DayFeed
    market: MarketSpec
    time_ns: int
    """Nanoseconds since midnight."""
    until_ns: int
    """Up to here it is known what really came; `time_ns` where nothing is."""

    def known_minutes(self, minutes: int) -> int:
        """`minutes`, if it is known what came in all of them; else 0."""
        return minutes if self.time_ns + minutes * MINUTE_NS <= self.until_ns else 0


def made_day(model: str, name: str) -> MadeDay:
    """A day that comes with an order model, or else with the default one; FileNotFoundError if with neither."""
    own = load.folder_of(model)
    with_it = (own / made_days.FOLDER / f"{name}.json").is_file()
    return made_days.open_day(own if with_it else load.folder_of(load.DEFAULT), name)


def warm_up_of(day: MadeDay) -> int:
    """Whole minutes from the first order of a made day to its own start."""
    return (day.start_ns - day.feed.venue.session.periods[0].start_ns) // MINUTE_NS


def in_made_day(prepared: PreparedModel, day: MadeDay, warm_up_minutes: int, accounts: int) -> Place:
    """A made day after so many of its minutes; after all of them (`warm_up_of`) at its own start.

    InputError where it has no so many; `accounts` as of `MarketSpec`.
    """
    most = warm_up_of(day)
    limits.check_whole(f"warm-up minutes of the day {day.feed.name}", warm_up_minutes, 1, most)
    begin_ns = day.feed.venue.session.periods[0].start_ns
    time_ns = day.start_ns if warm_up_minutes == most else begin_ns + warm_up_minutes * MINUTE_NS
    return Place(day.feed, market_of(prepared, day.feed.venue, accounts), time_ns, day.start_ns)


def after_noise(prepared: PreparedModel, warm_up_minutes: int, seed: int, accounts: int) -> Place:
    """A market after so many minutes of the noise agent alone; InputError for a number out of range."""
    limits.check_whole("warm-up minutes of the noise agent", warm_up_minutes, 1, limits.MINUTES)
    venue = Venue(session=continuous_session(), capacity=_NOISE_CAPACITY)
    market = market_of(prepared, venue, accounts)
    noise = NoiseMarket(warmup=Warmup(start_ns=_NOISE_FROM_NS, duration_ns=warm_up_minutes * MINUTE_NS), seed=seed)
    (sent,) = starts.noise_orders(market, noise)
    return Place(dataclasses.replace(starts.feed_of("noise", sent), venue=venue), market, noise.end_ns, noise.end_ns)


def in_real_day(prepared: PreparedModel, feed: DayFeed, begin_ns: int, warm_up_minutes: int, minutes: int,
                accounts: int) -> Place:
    """A day of a feed so many minutes after a time of it, nanoseconds since midnight.

    InputError where the `minutes` after it are not all in one period of continuous trading.
    """
    limits.check_whole("warm-up minutes", warm_up_minutes, 0, limits.MINUTES)
    market = market_of(prepared, feed.venue, accounts)
    time_ns = begin_ns + warm_up_minutes * MINUTE_NS
    try:
        period = check_time(market.session, time_ns, minutes)
    except InputError as error:
        spelt = f" after {warm_up_minutes} minutes from {spell(begin_ns)}" if warm_up_minutes else ""
        raise InputError(f"{feed.name}: {error}{spelt}") from error
    return Place(feed, market, time_ns, period.end_ns)


def real_days(source: str, path: str) -> list[DayFeed]:
    """The days that there are of a feed, by name; errors as of `data.sources.open_days`."""
    return sources.open_days(source, path)


def feed_kinds() -> list[str]:
    """Names of the feeds that can be read."""
    return sources.names()


def market_of(prepared: PreparedModel, venue: Venue, accounts: int) -> MarketSpec:
    """The market of a venue for rollouts of a model, on its device; with so many accounts at least."""
    return venue.market(accounts=max(venue.accounts, accounts), trade_width=min(_TRADE_WIDTH, venue.capacity),
                        kernels=prepared.cache.kernels)
