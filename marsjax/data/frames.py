"""DataFrames of orders -> a feed, usable wherever a reader's is, and back.

    feed = frames.from_frame(pd.DataFrame({"time": ["09:30:00", "09:30:01.5"], "side": ["sell", "buy"],
                                           "price": [10.01, 10.01], "size": [300, 100]}), tick="0.01")

Columns (capitals and the other names in `named_columns.NAMES` do not matter, others are left out):
  time: datetime64, times of day as text (HH:MM:SS.mmm) or timedelta64; or `time_ns`, nanoseconds since midnight.
  side: buy, sell (b, s, bid, ask, 1, -1). `action`, where it is there: limit, market, cancel. `type` may hold either.
  price: in the currency; of market orders and cancels it is not read.
  volume: shares; of a cancel those taken off.
  order_id: optional; an order without gets one from the exchange. Of a cancel the order it is about, unless `cancel_id`
    says so.
  cancel_type: optional, the side that a cancelled order rests on; else that of the order with this id.
  agent_id: optional, its account, 0 where there is none.
  condition: optional, a name of `Condition`, or IOC, FOK.
"""

import dataclasses
import decimal
import functools
from collections.abc import Iterator

import jax
import numpy as np
import pandas as pd

from marsjax.core.errors import InputError
from marsjax.core.records import (
    EMPTY_PRICE,
    MAX_PRICE,
    MAX_VOLUME,
    NO_ACCOUNT,
    NO_ID,
    UNPRICED,
    Condition,
    Kind,
    Order,
    Side,
)
from marsjax.core.sessions import Session
from marsjax.core.specs import Units
from marsjax.data import neutral, starting_book
from marsjax.data.feed import LARGEST_ID, DayFeed, FeedChunk, PublishedFills, Venue
from marsjax.data.named_columns import NamedColumns
from marsjax.data.order_ids import SeenIds
from marsjax.market import orders as order_records

_CHUNK = 200_000
_ACTIONS = {**dict.fromkeys(("limit", "new", "add", "l", "order"), Kind.NONE), "market": Kind.BUY,
            **dict.fromkeys(("cancel", "delete", "c"), Kind.CANCEL)}  # fmt: skip
_KINDS = {**starting_book.SIDES, **dict.fromkeys(("cancel", "delete", "c"), Kind.CANCEL)}
_CONDITIONS = {**{entry.name.lower(): entry for entry in Condition}, "gtc": Condition.REST, "day": Condition.REST,
               "ioc": Condition.IMMEDIATE_OR_CANCEL, "fok": Condition.FILL_OR_KILL}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class _Scale:
    """How numbers of the table become whole numbers of the engine."""

    price: float
    """Of the table's price, in one unit of the engine."""
    tick: int
    """In units of the engine."""
    volume: float

    @classmethod
    def of(cls, tick: str | float, units: Units, in_units: bool) -> "_Scale":
        try:
            step = decimal.Decimal(str(tick)) / (1 if in_units else decimal.Decimal(units.price))
        except decimal.InvalidOperation:
            step = decimal.Decimal(0)
        if not (step.is_finite() and 1 <= step <= 10**6 and step == int(step)):
            unit = "1" if in_units else units.price
            raise InputError(f"tick: expected a multiple of the unit of prices, {unit}, up to 1000000 of them, got "
                             f"{tick!r}: say units=Units(price=...) for finer ticks")
        return cls(1.0 if in_units else float(units.price), int(step), 1.0 if in_units else float(units.volume))


def from_frame(frame: pd.DataFrame, book: pd.DataFrame | None = None, *, tick: str | float | None = None,
               units: Units | None = None, in_units: bool = False, session: Session | None = None,
               symbol: str = "frame", date: str = "") -> DayFeed:
    """A table of orders, in the order in which they reach the exchange, as a feed.

    Args:
      frame: one row an order (the head of this file).
      book: what rests before the first: a table of orders or one row of levels (`starting_book.chunk`).
      tick: smallest price step, as prices are given in the table; None: 0.01, or 100 with `in_units`.
      units: what the engine's whole numbers shall stand for; None: 1e-4 of the currency, and shares.
      in_units: prices and volumes stand in the table as such whole numbers, as in the CSV of `neutral`.
      session: None: continuous trading all day.
      symbol: its name.
      date: None given and times with a date: that date.

    Raises InputError with the row (its index), column and value where something does not fit.

    Examples:
      >>> import pandas as pd
      >>> orders = pd.DataFrame({"time": ["09:30:00", "09:30:01.5"], "side": ["sell", "buy"],
      ...                        "price": [10.01, 10.00], "size": [300, 100]})
      >>> feed = from_frame(orders, tick="0.01", symbol="mine")
      >>> feed.name, feed.venue.accounts
      ('mine', 1)
    """
    units = units or Units()
    scale = _Scale.of(tick if tick is not None else 100 if in_units else "0.01", units, in_units)
    table = NamedColumns(frame, "frame")
    if not len(table):
        raise InputError("frame: expected orders, got a table without rows")
    time_ns, found_date = table.clock_ns()
    table.require(np.diff(time_ns, prepend=0) >= 0, "time_ns" if "time_ns" in table else "time",
                  "no time before that of the row before it (sort the table)")
    start = None
    if book is not None:
        start = starting_book.chunk(book, "book", (scale.price, scale.tick, scale.volume), int(time_ns[0]))
    sent = _orders(table, time_ns, scale, start.orders if start else None)
    _require_new_ids(table, sent, start.orders if start else None)
    accounts = max(int(np.max(part.account, initial=0)) for part in (sent, *([start.orders] if start else []))) + 1
    venue = Venue(tick=scale.tick, units=units, accounts=accounts, conditions=bool(np.any(sent.condition)))
    if session is not None:
        venue = dataclasses.replace(venue, session=session)
    return DayFeed(symbol, date or found_date, functools.partial(_chunks, start, sent), venue)


def to_frame(source: DayFeed | Order, *, units: Units | None = None, in_units: bool = False) -> pd.DataFrame:
    """Orders (of a feed, without its starting book, or arrays [N]) -> a table that `from_frame` gives them back from.

    The columns are those of `neutral.COLUMNS`, prices in the currency unless `in_units`; `units` None: the feed's own.

    Examples:
      >>> import pandas as pd
      >>> orders = pd.DataFrame({"time": ["09:30:00"], "side": ["sell"], "price": [10.01], "size": [300]})
      >>> to_frame(from_frame(orders))[["type", "price", "volume"]].values.tolist()
      [['S', 10.01, 300]]
    """
    if isinstance(source, Order):
        return _in_currency(neutral.frame(source), units or Units(), in_units)
    parts = [_rows(chunk.orders, chunk.sequence != starting_book.SEQUENCE) for chunk in source.read()]
    whole = jax.tree.map(lambda *x: np.concatenate(x), *parts)
    return _in_currency(neutral.frame(whole), units or source.venue.units, in_units)


def to_book(feed: DayFeed, *, in_units: bool = False) -> pd.DataFrame:
    """The orders that a feed's starting book is made of: type, price, volume, order_id, agent_id; may have no rows."""
    first = next(iter(feed.read()))
    table = neutral.frame(_rows(first.orders, first.sequence == starting_book.SEQUENCE))
    return _in_currency(table, feed.venue.units, in_units)[["type", "price", "volume", "order_id", "agent_id"]]


def _rows(order: Order, kept: np.ndarray) -> Order:
    return jax.tree.map(lambda x: np.asarray(x)[kept], order)


def _in_currency(table: pd.DataFrame, units: Units, in_units: bool) -> pd.DataFrame:
    if in_units:
        return table
    # Divided, not multiplied: 100100 / 10000 is 10.01, as text would be read.
    table["price"] = table["price"] / (1 / float(units.price))
    if units.volume != "1":
        table["volume"] = table["volume"] / (1 / float(units.volume))
    return table


def _chunks(start: FeedChunk | None, sent: Order) -> Iterator[FeedChunk]:
    if start is not None and len(start.sequence):
        yield start
    for begin in range(0, len(sent.kind), _CHUNK):
        part = jax.tree.map(lambda x, begin=begin: x[begin : begin + _CHUNK], sent)
        yield FeedChunk(part, PublishedFills.none(), np.arange(begin, begin + len(part.kind)))


def _orders(table: NamedColumns, time_ns: np.ndarray, scale: _Scale, start: Order | None) -> Order:
    table.require_columns("price", "volume")
    kind, is_market = _kinds(table)
    count = len(kind)
    is_cancel = kind == Kind.CANCEL
    condition = table.codes("condition", _CONDITIONS, Condition.REST) if "condition" in table else np.zeros(count, int)
    condition = np.where(is_cancel, Condition.REST, np.where(is_market, Condition.MARKET, condition))
    unpriced = is_cancel | np.isin(condition, UNPRICED)
    price = np.full(count, EMPTY_PRICE, np.int64)
    whole = table.multiples("price", scale.price, scale.tick, MAX_PRICE,
                            f"a price above 0 in steps of {scale.tick * scale.price:g}", ~unpriced)
    price[~unpriced] = whole[~unpriced]
    volume = table.multiples("volume", scale.volume, 1, MAX_VOLUME, f"a volume above 0 in steps of {scale.volume:g}")
    ids = table.integers("order_id", NO_ID, LARGEST_ID, NO_ID) if "order_id" in table else np.full(count, NO_ID)
    cancelled = (table.integers("cancel_id", NO_ID, LARGEST_ID, NO_ID) if "cancel_id" in table
                 else np.where(is_cancel, ids, NO_ID))
    if is_cancel.any():
        name = "cancel_id" if "cancel_id" in table else "order_id"
        table.require_columns(name)
        table.require(~is_cancel | (cancelled != NO_ID), name, "the id of the cancelled order")
    account = (table.integers("agent_id", NO_ACCOUNT, LARGEST_ID, 0) if "agent_id" in table else np.zeros(count, int))
    return order_records.from_columns(
        time_ns, kind, price, volume, np.where(is_cancel & ("cancel_id" not in table), NO_ID, ids),
        _cancel_sides(table, kind, ids, cancelled, start), np.where(is_cancel, cancelled, NO_ID), account, condition)


def _kinds(table: NamedColumns) -> tuple[np.ndarray, np.ndarray]:
    """What each order is, int64 [N], and whether it is a market order, bool [N]."""
    if "side" in table and ("action" in table or "type" in table):
        action = table.codes("action" if "action" in table else "type", _ACTIONS)
        side = table.codes("side", starting_book.SIDES)
        return np.where(action == Kind.CANCEL, Kind.CANCEL, side), action == _ACTIONS["market"]
    name = "side" if "side" in table else "type"
    table.require_columns(name)
    return table.codes(name, _KINDS), np.zeros(len(table), bool)


def _cancel_sides(table: NamedColumns, kind: np.ndarray, ids: np.ndarray, cancelled: np.ndarray, start: Order | None
                  ) -> np.ndarray:
    """The side that each cancelled order rests on, int64 [N]; NO_ID for other orders."""
    is_cancel = kind == Kind.CANCEL
    if not is_cancel.any():
        return np.full(len(kind), NO_ID)
    if "cancel_type" in table:
        side = table.codes("cancel_type", starting_book.SIDES, NO_ID)
        table.require(~is_cancel | (side != NO_ID), "cancel_type", "the side of the cancelled order")
    elif "side" in table and ("action" in table or "type" in table):
        side = table.codes("side", starting_book.SIDES)
    else:
        known_ids, known_kinds = ids[~is_cancel], kind[~is_cancel]
        if start is not None:
            known_ids, known_kinds = np.append(start.order_id, known_ids), np.append(start.kind, known_kinds)
        order = np.argsort(known_ids, kind="stable")
        known_ids, known_kinds = known_ids[order], known_kinds[order]
        place = np.minimum(np.searchsorted(known_ids, cancelled), max(len(known_ids) - 1, 0))
        found = known_ids[place] == cancelled if len(known_ids) else np.zeros(len(kind), bool)
        table.require(~is_cancel | found, "cancel_id" if "cancel_id" in table else "order_id",
                      "the id of an order in the table (or a column cancel_type with its side)")
        side = known_kinds[place] if len(known_ids) else kind
    return np.where(is_cancel, np.where(side == Kind.BUY, Side.BID, Side.ASK), NO_ID)


def _require_new_ids(table: NamedColumns, sent: Order, start: Order | None) -> None:
    seen = SeenIds()
    if start is not None:
        seen.add(np.asarray(start.order_id))
    given = np.flatnonzero((sent.kind != Kind.CANCEL) & (sent.order_id != NO_ID))
    if (again := seen.add(np.asarray(sent.order_id)[given])) is not None:
        raise table.error(int(given[again]), "order_id", "an id that no order before it has had")
