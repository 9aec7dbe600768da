"""What every feed reader yields: chunks of orders with the fills that the exchange published, and snapshots."""

import dataclasses
import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from marsjax.core import files
from marsjax.core.errors import InputError
from marsjax.core.records import Order
from marsjax.core.sessions import Session, continuous_session
from marsjax.core.specs import AuctionRule, MarketSpec, Units
from marsjax.core.times import DAY_NS

AUCTION = -1
"""The `aggressor` of a fill in a call auction, which has none."""
LARGEST_ID = 2**31 - 1
"""Order ids are int32 in every record."""
LARGEST_SEQUENCE = 2**53
"""Up to here sequence numbers stay exact in the float64 columns that pandas may make of them."""

BLOCK_ROWS = 2**15
"""Lines that a reader holds at a time unless told otherwise: so few that they are read while orders before them pass
through an exchange, and that one after the other stays in a processor's cache."""


class FeedError(InputError):
    """A market data file that cannot be read; the message names the file, line (from 1), column and value."""


@dataclasses.dataclass(frozen=True)
class PublishedFills:
    """Transactions as the exchange published them, NumPy arrays [N] on the host."""

    time_ns: np.ndarray
    """int64, nanoseconds since midnight."""
    price: np.ndarray
    """int32, 1e-4 of the currency."""
    volume: np.ndarray
    """int32, shares."""
    buy_id: np.ndarray
    """int32, NO_ID where the feed does not tell."""
    sell_id: np.ndarray
    """int32."""
    aggressor: np.ndarray
    """int32, Kind.BUY or Kind.SELL, AUCTION in call auctions."""
    sequence: np.ndarray
    """int64, message number of the exchange, or the row of the file."""

    @classmethod
    def none(cls) -> "PublishedFills":
        """No fills, N = 0."""
        long, short = np.zeros(0, np.int64), np.zeros(0, np.int32)
        return cls(long, short, short, short, short, short, long)


@dataclasses.dataclass(frozen=True)
class FeedChunk:
    """A stretch of a feed. A fill of continuous trading comes in the chunk of its aggressor."""

    orders: Order
    """int32 NumPy arrays [N], in exchange order."""
    fills: PublishedFills
    """Published trades of these orders, and the auction trades stamped among them."""
    sequence: np.ndarray
    """int64 [N], number of the last message that went into each order."""
    ignored: dict[str, int] = dataclasses.field(default_factory=dict)
    """Messages of this chunk that became no order, by reason."""
    adapted: dict[str, int] = dataclasses.field(default_factory=dict)
    """Messages of this chunk whose order is not what they literally say, and orders of the reader, by reason."""
    is_synthetic: np.ndarray | None = None
    """bool [N]: orders that nobody sent, by which the reader keeps the book right (a starting book, levels that come
    into view). The exchange needs them; a model should not learn from them. None: there are none."""

    @classmethod
    def of(cls, orders: Order) -> "FeedChunk":
        """Orders [N] as a feed of one chunk, without published fills."""
        return cls(orders, PublishedFills.none(), np.arange(len(orders.kind), dtype=np.int64))


@dataclasses.dataclass(frozen=True)
class Snapshots:
    """Published states of a book, NumPy arrays on the host; L levels a side, best first, 0 where there is none."""

    time_ns: np.ndarray
    """int64 [N], nanoseconds since midnight."""
    volume: np.ndarray
    """int64 [N], shares traded since the start of the day, auctions included."""
    trades: np.ndarray
    """int64 [N], trades since the start of the day."""
    last_price: np.ndarray
    """int64 [N], 1e-4 of the currency, 0 before the first trade."""
    ask_price: np.ndarray
    """int64 [N, L]."""
    ask_volume: np.ndarray
    """int64 [N, L]."""
    bid_price: np.ndarray
    """int64 [N, L]."""
    bid_volume: np.ndarray
    """int64 [N, L]."""


@dataclasses.dataclass(frozen=True)
class Venue:
    """What a feed knows of its market: what a `MarketSpec` for it should say, unless the user says otherwise.

    Examples:
      >>> Venue(tick=100, accounts=3).market(capacity=256).accounts
      3
    """

    session: Session = dataclasses.field(default_factory=lambda: continuous_session(0, DAY_NS - 1))
    tick: int = 100
    """Smallest price step, in `units.price`."""
    auction_rule: AuctionRule = AuctionRule.REFERENCE
    units: Units = dataclasses.field(default_factory=Units)
    accounts: int = 1
    """Accounts that its orders name: 0 to accounts - 1."""
    conditions: bool = False
    """Whether its orders have a `Condition` other than REST."""
    capacity: int = 4096
    """Resting orders a side that have been enough for such feeds."""
    trade_width: int = 128

    def market(self, **changes: Any) -> MarketSpec:
        """The spec of such a market; `changes` are fields of it that the user has set. InputError as `MarketSpec`."""
        own = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
        return MarketSpec(**own | changes)


@dataclasses.dataclass(frozen=True)
class DayFeed:
    """The orders of one symbol on one day; they can be read any number of times."""

    symbol: str
    date: str
    """As the files name it; empty where they name none."""
    read: Callable[[], Iterator[FeedChunk]]
    """Opens the files; a new iterator at every call."""
    venue: Venue = dataclasses.field(default_factory=Venue)
    publishes_fills: bool = False
    """Whether the chunks hold the exchange's own transactions, so that a replay can be checked against them."""
    variant: str = ""
    """Tells apart several feeds of one symbol and day."""

    @property
    def name(self) -> str:
        """<symbol>_<date>_<variant>, without what is empty; the name of a folder for its results."""
        return "_".join(filter(None, (self.symbol, self.date, self.variant)))

    @property
    def day(self) -> np.datetime64 | None:
        """The date as datetime64[D], from YYYYMMDD or YYYY-MM-DD; None where there is none."""
        digits = self.date.replace("-", "")
        if len(digits) != 8 or not digits.isdigit():
            return None
        return np.datetime64(f"{digits[:4]}-{digits[4:6]}-{digits[6:]}", "D")


def chosen(days: list[DayFeed], symbols: Sequence[str], date: str, where: str) -> list[DayFeed]:
    """Those of the symbols (none named: all) and the date (empty: all), sorted by name.

    Raises FileNotFoundError, which says what is there, where a symbol has no day or nothing is left; InputError where
    two feeds have one name.
    """
    found = sorted((day for day in days if (not symbols or day.symbol in symbols) and date in ("", day.date)),
                   key=lambda day: day.name)
    missing = [symbol for symbol in symbols if symbol not in {day.symbol for day in found}]
    if missing or not found:
        there = sorted(day.name for day in days)
        raise FileNotFoundError(f"{where}: no day for symbol={'+'.join(missing) or 'any'}, date={date or 'any'}; "
                                f"found: {', '.join(there[:20]) or 'none'}{', ...' * (len(there) > 20)}")
    for before, after in itertools.pairwise(found):
        if before.name == after.name:
            raise InputError(f"{where}: two feeds are of {after.name}: name the symbol and the date of one, or move "
                             "one of the files")
    return found


def check_arguments(chunk_rows: int, *paths: Path) -> None:
    """InputError where `chunk_rows` is below 1; FileNotFoundError, or OSError for a path that is no plain file."""
    if chunk_rows < 1:
        raise InputError(f"chunk_rows: expected at least 1, got {chunk_rows}")
    for path in paths:
        files.check_regular(path)


def check_tick(tick: int) -> None:
    """InputError where a tick is no whole number from 1 to 1000000."""
    if type(tick) is not int or not 1 <= tick <= 10**6:
        raise InputError(f"tick: expected a whole number from 1 to {10**6}, in 1e-4 of the currency, got {tick!r}")
