"""Databento's market-by-order records (schema mbo), CSV or DBN, -> orders.

- A (add): a limit order. One that follows fills of its own side at the same time, at the worst of their prices or
  beyond it, is the rest of their aggressor, as the feed shows it under an id of its own.
- F (fill): the shares that a resting order traded. Fills of one time and side are one aggressive order of their shares
  with the worst price as its limit (`grouped`; otherwise one order a fill). A fill of an order that is not the next to
  trade, or at another price than its own (a cross), becomes a cancel (`out_of_turn`).
- C (cancel): the shares that its fills have not taken already.
- M (modify): a smaller size at the same price takes shares off; anything else is a cancel and a new order.
- R (clear): every order of the book is cancelled by the reader (`cleared`).
- T (trade) is told by its fills; without one (hidden orders, crosses) it is ignored (`trade_without_fill`), N as well.
- A feed may begin in the middle: cancels and fills of orders that it never showed become no order (`unknown_order`,
  `fill_of_unknown_order`); a modify of one shows it, and adds it (`modified_unknown`).
- Orders at prices above the highest of the exchange (stub quotes) are kept beside the book (`beyond_price_limit`).

Times are of `ts_event`, and of `ts_recv` in a snapshot, at the place of the exchange: US stocks and options in New
York, others in UTC, unless a time zone is given. A file that crosses midnight there is refused.
"""

import dataclasses
import functools
import math
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from marsjax.core.errors import InputError
from marsjax.core.records import MAX_PRICE
from marsjax.core.specs import Units
from marsjax.data import databento_dbn
from marsjax.data.databento_messages import ADD, CANCEL, CLEAR, FILL, MODIFY, TRADE, MboMessages, csv_blocks
from marsjax.data.databento_stream import MboStream
from marsjax.data.feed import BLOCK_ROWS, DayFeed, FeedChunk, FeedError, Venue, check_arguments, chosen
from marsjax.data.order_ids import NumberedIds, SeenIds
from marsjax.data.stamps import LocalDay

_NEW_YORK = {*range(2, 57), 59, 60, *range(61, 79)}  # publishers of US stocks and options, by their numbers
_NANO = 10**9
_SUFFIXES = (".csv", ".csv.gz", ".dbn", ".dbn.zst")


def read(path: str | Path, symbol: str = "", *, grouped: bool = True, publisher: int | None = None,
         price_unit: str = "0.0001", time_zone: str = "", ids: NumberedIds | None = None, chunk_rows: int = BLOCK_ROWS
         ) -> Iterator[FeedChunk]:
    """Records of one symbol as chunks of orders (rules: the head of this file).

    Args:
      path: .csv or .csv.gz with a header, .dbn or .dbn.zst.
      symbol: the one wanted; may be left out where the file holds only one.
      grouped: one order per aggressor; False gives one order a fill.
      publisher: the one wanted, where a symbol has several (each is a book of its own).
      price_unit: one unit of the prices that come out, in the currency.
      time_zone: whose midnight times count from; "": New York for US stocks and options, else UTC.
      ids: takes in which of the feed's ids each order's number stands for; orders are numbered 0, 1, 2 and so on.
      chunk_rows: records held at a time; the orders do not depend on it.

    Returns:
      Chunks of orders of account 0; `sequence` is the record's number in the file, from 0.

    Raises FeedError where the file is damaged, holds several symbols, or crosses midnight; InputError for a unit or
    time zone that is none; FileNotFoundError where it is missing.
    """
    check_arguments(chunk_rows, Path(path))
    Units(price=price_unit)
    step = round(float(price_unit) * _NANO)
    if step < 1:
        raise InputError(f"price_unit: expected at least 0.000000001, got {price_unit!r}")
    wanted = _Wanted(symbol, publisher)
    return _chunks(Path(path), wanted, step, time_zone, MboStream(grouped, NumberedIds() if ids is None else ids),
                   chunk_rows)


def days(path: Path, symbols: Sequence[str] = (), date: str = "", grouped: bool = True, time_zone: str = ""
         ) -> list[DayFeed]:
    """The symbols of a file, or of all .csv, .csv.gz, .dbn and .dbn.zst files of a folder; each is looked through once.

    What is found of a symbol: its publishers (named after them where there are several), its date, the unit of its
    prices (0.0001, or what its prices need) and their step.

    Arguments as of `sources.open_days`, the others as of `read`. Raises FileNotFoundError where there are none.
    """
    if not path.exists():
        raise FileNotFoundError(f"{path}: no such file or folder")
    files = [path]
    if path.is_dir():
        files = sorted(file for file in path.iterdir() if file.name.lower().endswith(_SUFFIXES))
    found = []
    for file in files:
        about = _look_through(file)
        for (symbol, publisher), facts in about.items():
            several = sum(other == symbol for other, _ in about) > 1
            zone = time_zone or _zone_of(publisher)
            unit = facts.unit()
            opened = functools.partial(read, file, symbol, grouped=grouped, publisher=publisher if several else None,
                                       price_unit=unit, time_zone=zone)
            venue = Venue(units=Units(price=unit), tick=facts.tick(unit, publisher))
            found.append(DayFeed(symbol, LocalDay(zone, facts.first_ns).date, opened, venue, publishes_fills=True,
                                 variant=f"publisher{publisher}" if several else ""))
    return chosen(found, symbols, date, f"{path}: *.csv[.gz] or *.dbn[.zst] of the schema mbo")


@dataclasses.dataclass
class _Facts:
    """What is found of one symbol of one publisher."""

    first_ns: int
    step: int = 0
    """Greatest common divisor of its prices, 1e-9 of the currency."""
    typical: int = 0
    """Largest median price of a block."""

    def unit(self) -> str:
        """The unit that prices fit in: 0.0001 if it may be."""
        for digits in (4, 2, 3, 5, 6, 7, 8, 9):
            unit = 10 ** (9 - digits)
            if self.step % unit == 0 and 4 * self.typical // unit <= MAX_PRICE:
                return f"{10.0 ** -digits:.{digits}f}"
        return "0.0001"

    def tick(self, unit: str, publisher: int) -> int:
        """The step of prices; of US stocks 0.01 or the unit, as thin ones trade at coarse prices by chance."""
        step = max(self.step // round(float(unit) * _NANO), 1)
        return (100 if step % 100 == 0 else 1) if publisher in _NEW_YORK and unit == "0.0001" else step


def _look_through(path: Path) -> dict[tuple[str, int], _Facts]:
    """Symbols and publishers of a file in order of their first record."""
    found: dict[tuple[str, int], _Facts] = {}
    for block in _blocks(path, BLOCK_ROWS):
        for number, name in enumerate(block.symbols):
            for publisher in np.unique(block.publisher[block.symbol == number]).tolist():
                here = (block.symbol == number) & (block.publisher == publisher)
                facts = found.setdefault((name, publisher), _Facts(int(block.time_ns[np.argmax(here)])))
                prices = block.price[here & np.isin(block.action, (ADD, MODIFY))]
                if len(prices):
                    facts.step = math.gcd(facts.step, int(np.gcd.reduce(prices)))
                    facts.typical = max(facts.typical, int(np.median(prices)))
    return found


def _zone_of(publisher: int) -> str:
    return "America/New_York" if publisher in _NEW_YORK else "UTC"


def _blocks(path: Path, chunk_rows: int) -> Iterator[MboMessages]:
    return (databento_dbn.blocks if ".dbn" in path.name.lower() else csv_blocks)(path, chunk_rows)


@dataclasses.dataclass
class _Wanted:
    """Which records are read; without names those of the first, and there must be no others."""

    symbol: str
    publisher: int | None
    is_there: bool = False

    def __post_init__(self) -> None:
        self._takes_first = not self.symbol, self.publisher is None

    def rows(self, block: MboMessages) -> np.ndarray:
        """int64 [M], the records wanted; FeedError for one of another symbol or publisher where none was named."""
        if self._takes_first[0]:
            self.symbol = self.symbol or block.symbols[block.symbol[0]]
        if self.symbol not in block.symbols:
            block.require(np.full(len(block.symbol), not self._takes_first[0]), "symbol",
                          f"{self.symbol} alone, or symbol= to say which is read")
            return np.zeros(0, np.int64)
        is_wanted = block.symbol == block.symbols.index(self.symbol)
        if self._takes_first[0]:
            block.require(is_wanted, "symbol", f"{self.symbol} alone, or symbol= to say which is read")
        rows = np.flatnonzero(is_wanted)
        if self._takes_first[1] and len(rows):
            if self.publisher is None:
                self.publisher = int(block.publisher[rows[0]])
            good = ~is_wanted
            good[rows] = block.publisher[rows] == self.publisher
            block.require(good, "publisher_id", f"{self.publisher} alone, or publisher= to say which is read")
        rows = rows[block.publisher[rows] == self.publisher]
        self.is_there |= len(rows) > 0
        return rows


def _chunks(path: Path, wanted: _Wanted, step: int, time_zone: str, stream: MboStream, chunk_rows: int
            ) -> Iterator[FeedChunk]:
    day: LocalDay | None = None
    last_ns, seen = 0, SeenIds()
    for block in _blocks(path, chunk_rows):
        rows = wanted.rows(block)
        if not len(rows):
            continue
        stamps = block.time_ns[rows]
        good = np.ones(len(block.time_ns), bool)
        good[rows] = np.diff(stamps, prepend=last_ns) >= 0
        block.require(good, "ts_event", "no time before that of the record before it")
        last_ns = int(stamps[-1])
        if day is None:
            day = LocalDay(time_zone or _zone_of(wanted.publisher or 0), int(stamps[0]))
        good[rows] = day.holds(stamps)
        block.require(good, "ts_event", day.expected)
        price = block.price[rows]
        is_placed = np.isin(block.action[rows], (ADD, MODIFY))
        good[rows] = ~is_placed | (price % step == 0)
        block.require(good, "price", f"a price in steps of {step / _NANO:.9g} (another: price_unit=)")
        seen = _check_ids(block, rows, seen)
        _take(stream, block, rows, day.times(stamps), price // step)
        yield stream.chunk(0)
    if not wanted.is_there:
        raise FeedError(f"{path}: expected records of symbol {wanted.symbol!r}, publisher {wanted.publisher}, got none")
    stream.end_trade()
    stream.close()
    if len(stream) or stream.ignored:
        yield stream.chunk(0)


def _check_ids(block: MboMessages, rows: np.ndarray, seen: SeenIds) -> SeenIds:
    """FeedError where an order is added twice, the first one filled or not; a cleared book may be told anew."""
    action = block.action[rows]
    ends = np.flatnonzero(action == CLEAR).tolist()
    for number, (start, end) in enumerate(zip([0, *ends], [*ends, len(rows)], strict=True)):
        if number:
            seen = SeenIds()
        added = rows[start:end][action[start:end] == ADD]
        twice = seen.add(block.order_id[added])
        if twice is not None:
            raise block.error(int(added[twice]), "order_id", "a new order (one with this id came before)")
    return seen


def _take(stream: MboStream, block: MboMessages, rows: np.ndarray, time_ns: np.ndarray, price: np.ndarray) -> None:
    columns = (block.action[rows], block.side[rows], block.size[rows], block.order_id[rows], time_ns, price,
               rows + block.first)
    for action, side, size, order_id, at, limit, row in zip(*(column.tolist() for column in columns), strict=True):
        if action == ADD:
            if not stream.add(row, at, side, limit, size, order_id):
                raise block.error(row - block.first, "order_id", "a new order (one with this id rests)")
        elif action == CANCEL:
            stream.cancel(row, at, size, order_id)
        elif action == FILL:
            stream.fill(row, at, limit, size, order_id)
        elif action == MODIFY:
            stream.modify(row, at, side, limit, size, order_id)
        elif action == TRADE:
            stream.trade(order_id)
        elif action == CLEAR:
            stream.clear(row, at)
        else:
            stream.ignored["no_action"] += 1
