"""A config -> the feeds that it names, and the market that each of them is replayed in."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ml_collections import ConfigDict

from marsjax.core.errors import InputError
from marsjax.core.sessions import Phase, Session, chinese_session, continuous_session
from marsjax.core.specs import AuctionRule, MarketSpec
from marsjax.data import DayFeed, Venue, made_days, sources
from marsjax.data.made_days import MadeDay
from marsjax.experiments import setup
from marsjax.experiments.config_parts import READER_KEYS
from marsjax.sim.refusals import Refusals
from marsjax.studies import forecasts, places, starts
from marsjax.studies.forecasts import ForecastStart
from marsjax.studies.order_model import PreparedModel

FEED = "feed"
"""Value of a key that is to be as the feed says."""
NOISE = "noise"
"""The source that is no feed."""
KEYS = {"session": "config.session (or config.start_time, config.end_time)", "tick": "config.tick",
        "capacity": "config.capacity", "accounts": "config.accounts", "conditions": "config.conditions"}
"""What `Refusals.problems` calls what is to be set."""
_SIZES = ("capacity", "trade_width", "accounts")
_OF_NOISE = ("noise: a thin book such as the default model has never seen; its futures move further than those of a "
             "real market")
_NOISE_VENUE = Venue(session=continuous_session())


class Where(NamedTuple):
    """Where futures start."""

    feeds: list[DayFeed]
    """Days of orders that lead there; none: the noise agent does."""
    market: MarketSpec
    """Of all of them."""
    time_ns: int
    """Nanoseconds since midnight."""
    goes_on: bool
    """Whether it is known what came after it."""


class MarketGroup(NamedTuple):
    """Feeds that one market spec fits."""

    market: MarketSpec
    feeds: list[DayFeed]


def open_feeds(config: ConfigDict, or_else: Sequence[str] = ()) -> list[DayFeed]:
    """The feeds of real orders that a config names; FileNotFoundError where there are none.

    `or_else`: what the program takes instead, for the error.
    """
    if config.source not in sources.names():
        known = [*or_else, *sources.names()]
        raise InputError(f"config.source: expected {', '.join(known)}, got {config.source!r}")
    symbols = [] if config.symbol == "all" else config.symbol.split("+")
    if not config.file and not Path(config.folder).is_dir():
        if config.source == "csv":
            raise InputError("config.file: expected the path of a CSV of orders (csv,file=orders.csv.gz), got ''")
        raise FileNotFoundError(f"config.folder: no folder {config.folder} (give it as {config.source},folder=PATH)")
    return sources.open_days(config.source, config.file or config.folder, symbols, config.date, **_options(config))


def where(config: ConfigDict, accounts: int) -> Where:
    """Where a config wants futures to start: in real days, in one that comes with the order model, after the noise.

    A market has at least so many accounts. Says of the noise market what it is not. InputError, FileNotFoundError as
    `open_feeds`, `made_day` and `one_market`.
    """
    if config.source == NOISE:
        print(_OF_NOISE, flush=True)
        return Where([], noise_spec(config, accounts), setup.noise_market(config).end_ns, False)
    if config.source in made_days.NAMES:
        made = made_day(config, config.source)
        return Where([made.feed], one_market(config, [made.feed], accounts), made.start_ns, False)
    feeds = open_feeds(config, or_else=(NOISE, *made_days.NAMES))
    return Where(feeds, one_market(config, feeds, accounts), setup.time_ns(config, "time"), True)


def made_day(config: ConfigDict, name: str) -> MadeDay:
    """A day that comes with the order model of a config, or else with the default one; FileNotFoundError if neither."""
    return places.made_day(config.model, name)


def _options(config: ConfigDict) -> dict[str, Any]:
    """The keys that the source's reader takes; InputError for one that is set and that it does not take."""
    taken = sources.options(config.source)
    for name, default in READER_KEYS.items():
        if config.get(name, default) != default and name not in taken:
            raise InputError(f"config.{name}: is no key of {config.source}, which takes {', '.join(taken) or 'none'}")
    return {name: config[name] for name in taken if name in config and _is_set(config[name])}


def _is_set(value: Any) -> bool:
    """Whether a key holds more than the value that stands for none."""
    return isinstance(value, bool) or value not in ("", FEED, 0)


def noise_spec(config: ConfigDict, accounts: int = 1) -> MarketSpec:
    """The market of the noise agent that a config describes."""
    return _spec(config, _NOISE_VENUE, accounts)


def groups(config: ConfigDict, feeds: Sequence[DayFeed], accounts: int = 1) -> list[MarketGroup]:
    """The feeds by what their markets have in common: session, tick, auction rule, units; in order.

    Each has the sizes that the largest of its feeds asks for, and at least so many accounts. InputError names a key
    with a wrong value.
    """
    found: dict[MarketSpec, list[tuple[MarketSpec, DayFeed]]] = {}
    for feed in feeds:
        spec = _spec(config, feed.venue, accounts)
        common = dataclasses.replace(spec, capacity=1, trade_width=1, accounts=1)
        found.setdefault(common, []).append((spec, feed))

    def largest(name: str, members: list[tuple[MarketSpec, DayFeed]]) -> int:
        return max(int(getattr(spec, name)) for spec, _ in members)

    return [MarketGroup(dataclasses.replace(
        common, capacity=largest("capacity", members), trade_width=largest("trade_width", members),
        accounts=largest("accounts", members)), [feed for _, feed in members]) for common, members in found.items()]


def one_market(config: ConfigDict, feeds: Sequence[DayFeed], accounts: int = 1) -> MarketSpec:
    """The market of all feeds; InputError names two that differ, and in what."""
    found = groups(config, feeds, accounts)
    if len(found) > 1:
        (first, (one, *_)), (second, (other, *_)) = found[:2]
        differ = [field.name for field in dataclasses.fields(first) if field.name not in _SIZES
                  and getattr(first, field.name) != getattr(second, field.name)]
        raise InputError(f"{one.name} and {other.name}: expected days of one market, got another {', '.join(differ)}: "
                         f"run them apart, or set {', '.join(f'config.{name}' for name in differ)}")
    return found[0].market


def _spec(config: ConfigDict, venue: Venue, accounts: int) -> MarketSpec:
    """The venue's own market, but for what the config sets."""
    is_own = venue is _NOISE_VENUE  # of which there is no feed that could say it
    changes: dict[str, Any] = {name: config[name] for name in ("tick", *_SIZES)
                               if config.get(name) or (is_own and name in config)}
    if config.get("accounts", 0) < 0:
        raise InputError(f"config.accounts: expected at least 0 (as the feed says), got {config.accounts}")
    changes["accounts"] = max(changes.get("accounts", venue.accounts), accounts)
    capacity = changes.get("capacity", venue.capacity)
    changes.setdefault("trade_width", max(min(venue.trade_width, capacity), 1))
    changes["session"] = _session(config, venue.session)
    if config.get("auction_rule", FEED) != FEED:
        rules = [rule.value for rule in AuctionRule]
        if config.auction_rule not in rules:
            raise InputError(f"config.auction_rule: expected {FEED}, {', '.join(rules)}, got {config.auction_rule!r}")
        changes["auction_rule"] = AuctionRule(config.auction_rule)
    units: dict[str, Any] = {name: config[key] for name, key in (("price", "price_unit"), ("volume", "volume_unit"),
                                                 ("currency", "currency")) if config.get(key)}
    changes["units"] = dataclasses.replace(venue.units, **units) if units else venue.units
    try:
        return venue.market(**changes)
    except InputError as error:
        raise InputError(str(error).replace("MarketSpec.", "config.")) from error


def _session(config: ConfigDict, own: Session) -> Session:
    """The session that a config names: the feed's own, or another; hours alone are those of continuous trading."""
    hours = [key for key in ("start_time", "end_time") if config[key]]
    has_auctions = any(period.phase != Phase.CONTINUOUS for period in own.periods)
    if config.session == "chinese":
        return chinese_session()
    if config.session == FEED and not hours:
        return own
    if config.session not in (FEED, "continuous"):
        raise InputError(f"config.session: expected {FEED}, chinese or continuous, got {config.session!r}")
    if config.session == FEED and has_auctions:
        raise InputError(f"config.{hours[0]}: the session of the feed has call auctions; set config.session=continuous "
                         "with it")
    trading = [period for period in own.periods if period.phase == Phase.CONTINUOUS]
    start_ns = setup.time_ns(config, "start_time") if config.start_time else trading[0].start_ns
    end_ns = setup.time_ns(config, "end_time") if config.end_time else trading[-1].end_ns
    return continuous_session(start_ns, end_ns)


def refused(name: str, refusals: Refusals) -> tuple[dict[str, Any], list[str]]:
    """What was refused of a feed, for a summary, and why the result is not that of the whole feed; printed, too."""
    if line := refusals.line():
        print(f"{name}: {line}", flush=True)
    return refusals.record(), [f"{name}: {problem}" for problem in refusals.problems(KEYS)]


def feed_of(config: ConfigDict, where: Where) -> DayFeed:
    """The day that futures start in, or the noise agent's orders as one."""
    if where.feeds:
        (feed,) = where.feeds
        return feed
    (sent,) = starts.noise_orders(where.market, setup.noise_market(config))
    return starts.feed_of("noise", sent)


def start_of(config: ConfigDict, prepared: PreparedModel, where: Where) -> ForecastStart:
    """The state of the market, and what came after it in a real day."""
    return forecasts.read_start(where.market, prepared, feed_of(config, where), where.time_ns,
                                config.minutes if where.goes_on else 0)
