"""A replay's config -> market spec and feeds."""

import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np
from ml_collections import ConfigDict

from marsjax import clock, start
from marsjax.agents.noise import NoiseSpec
from marsjax.data import lobster, neutral, sse
from marsjax.data.feed import AUCTION, FeedChunk, Fills
from marsjax.specs import SECOND_NS, MarketSpec, Session, chinese_session, continuous_session
from marsjax.types import Order


class Source(NamedTuple):
    """One market to replay."""

    name: str
    """Of its folder in the results."""
    feed: Iterator[FeedChunk]
    publishes_fills: bool
    """Whether the feed holds the exchange's own transactions."""


def market_spec(config: ConfigDict) -> MarketSpec:
    """The market of a replay; ValueError names a key with a wrong value."""
    return MarketSpec(tick=config.tick, capacity=config.capacity, trade_width=config.trade_width,
                      owners=config.owners, session=session(config))


def open_sources(config: ConfigDict, spec: MarketSpec) -> list[Source]:
    """The feeds that a config names."""
    if config.source == "noise":
        return _noise(config, spec)
    if config.source == "csv":
        if not config.file:
            raise ValueError("config.file: expected the path of a CSV of orders (csv,file=orders.csv.gz), got ''")
        return [Source(Path(config.file).name.split(".")[0], neutral.read(config.file), False)]
    if config.source not in ("sse", "lobster"):
        raise ValueError(f"config.source: expected noise, sse, lobster or csv, got {config.source!r}")
    folder = Path(config.folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"config.folder: no folder {folder} (give it as {config.source},folder=PATH)")
    return _sse(config, folder) if config.source == "sse" else _lobster(config, folder)


def session(config: ConfigDict) -> Session:
    """The session that a config names; ValueError for an unknown one."""
    if config.session == "chinese":
        return chinese_session()
    if config.session != "continuous":
        raise ValueError(f"config.session: expected chinese or continuous, got {config.session!r}")
    return continuous_session(time_ns(config, "start_time"), time_ns(config, "end_time"))


def time_ns(config: ConfigDict, key: str) -> int:
    """A key that holds a time HH:MM:SS, in nanoseconds since midnight."""
    try:
        at = datetime.time.fromisoformat(config[key])
    except ValueError as error:
        raise ValueError(f"config.{key}: expected a time HH:MM:SS, got {config[key]!r}") from error
    return (at.hour * 3600 + at.minute * 60 + at.second) * SECOND_NS + at.microsecond * 1000


def _noise(config: ConfigDict, spec: MarketSpec) -> list[Source]:
    for key in ("minutes", "markets"):
        if config[key] < 1:
            raise ValueError(f"config.{key}: expected at least 1, got {config[key]}")
    agent = NoiseSpec(init_price=config.init_price, interval_ns=round(config.interval_s * SECOND_NS))
    warmup = start.Warmup(start_ns=time_ns(config, "start_time"), duration_ns=config.minutes * 60 * SECOND_NS)
    _, orders = start.noise(spec, agent, warmup, config.seed, config.markets)
    return [Source(f"noise_{number}", iter([as_chunk(sent)]), False) for number, sent in enumerate(orders)]


def as_chunk(orders: Order) -> FeedChunk:
    """Orders [N] as a feed of one chunk, without published fills."""
    none = np.zeros(0, np.int32)
    fills = Fills(none.astype(np.int64), none, none, none, none, none + AUCTION, none.astype(np.int64))
    return FeedChunk(orders, fills, np.arange(len(clock.time_to_ns(orders.time)), dtype=np.int64))


def _sse(config: ConfigDict, folder: Path) -> list[Source]:
    wanted = config.symbol.split("+")
    days = [(symbol, date) for symbol, date in sse.days(folder)
            if (wanted == ["all"] or symbol in wanted) and config.date in ("", date)]
    found = {symbol for symbol, _ in days}
    missing = [symbol for symbol in wanted if symbol not in found | {"all"}]
    if missing or not days:
        raise FileNotFoundError(f"{folder}: no files <symbol>_<date>_orders.csv[.gz] with their trades for "
                                f"symbol={'+'.join(missing) or 'all'}, date={config.date or 'any'}; found: "
                                f"{', '.join('_'.join(day) for day in sse.days(folder)) or 'none'}")
    return [Source(f"{symbol}_{date}", sse.read(*sse.find(folder, symbol, date)), True) for symbol, date in days]


def _lobster(config: ConfigDict, folder: Path) -> list[Source]:
    """Files named as LOBSTER names them: SYMBOL_DATE_START_END_message_LEVELS.csv, and _orderbook_ beside it."""
    sources = []
    wanted = config.symbol.split("+")
    for message in sorted([*folder.glob("*_message_*.csv"), *folder.glob("*_message_*.csv.gz")]):
        prefix, levels = message.name.split(".")[0].split("_message_")
        symbol, date = prefix.split("_")[:2]
        if (wanted == ["all"] or symbol in wanted) and config.date in ("", date):
            books = sorted(folder.glob(f"{prefix}_orderbook_{levels}*.csv*"))
            feed = lobster.read(message, books[0] if books else None, grouped=config.grouped)
            sources.append(Source(f"{symbol}_{date}", feed, False))
    if not sources:
        raise FileNotFoundError(f"{folder}: no file SYMBOL_DATE_..._message_LEVELS.csv[.gz] for "
                                f"symbol={config.symbol}, date={config.date or 'any'}")
    return sources
