"""Coinbase's level-3 channel as CSV: the book with all its orders, and the messages that go on from it, -> orders.

- received: the order waits; what becomes of it says how it is sent.
- match: of the maker, who rests, and the taker. The matches of a taker and what opens of it are one order at its
  limit; of one that leaves nothing to rest the worst match is the limit where it has none (market orders).
- open: a limit order of what is left, the matches before it included.
- done: a cancel of what is left of an order that rests; nothing for one that was filled.
- change: shares taken off; an order that grows loses its place (`grown`).
- What was received and never opened nor matched (post-only orders that would have traded) is no order (`never_open`),
  nor are messages of orders from before the feed where no book is given (`unknown_order`, `match_of_unknown_order`).

One unit of a price is a cent and one of a volume 1e-8 coins, unless others are given. An order of more than 2**31 - 1
units (21.47 coins) is sent in parts, one behind the other (`cut_in_parts`); orders at prices above 2**30 - 1 units
(10.7 million dollars) cannot rest here and are kept beside the book (`beyond_price_limit`); `resting` puts all of them
together again.
"""

import decimal
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from marsjax.core.records import Book
from marsjax.core.specs import Units
from marsjax.data import csv_fields
from marsjax.data.csv_rows import Rows, read_rows
from marsjax.data.feed import (
    BLOCK_ROWS,
    LARGEST_SEQUENCE,
    DayFeed,
    FeedChunk,
    FeedError,
    Venue,
    check_arguments,
    chosen,
)
from marsjax.data.level3 import HeldBeside, Level3Stream
from marsjax.data.order_ids import NumberedUuids, SeenIds
from marsjax.data.resting import ASK, BID
from marsjax.data.stamps import LocalDay, utc_ns

BOOK_COLUMNS = ("sequence", "side", "price", "size", "order_id")
COLUMNS = ("time", "sequence", "type", "side", "price", "size", "remaining_size", "order_id", "maker_order_id",
           "taker_order_id")
_OPTIONAL = ("product_id", "new_size")
RECEIVED, OPEN, MATCH, DONE, CHANGE, ACTIVATE = range(6)
_TYPES = {"received": RECEIVED, "open": OPEN, "match": MATCH, "done": DONE, "change": CHANGE, "activate": ACTIVATE}
_MOST_PRICE = 2**60
"""In units; what lies so high is kept beside the book."""
_MOST_VOLUME = 2**43
"""In units: an order of more than 4096 parts is a mistake, or needs a larger unit."""
_HEX = np.full(256, 255, np.uint8)  # what each byte is worth as a hexadecimal digit
for _digits in ("0123456789abcdef", "0123456789ABCDEF"):
    _HEX[np.frombuffer(_digits.encode(), np.uint8)] = np.arange(16)


class OrderTable:
    """Which order each number of a feed stands for, and the orders that cannot rest in the exchange."""

    def __init__(self) -> None:
        self.numbers = NumberedUuids()
        self.beside: dict[bytes, HeldBeside] = {}

    def resting(self, book: Book, units: Units | None = None) -> pd.DataFrame:
        """What rests after a replay: side, price, size (in currency and coins), order_id (UUID), unsorted.

        `book` holds arrays [2, C]; the parts of an order are put together, and the orders beside the book added.
        """
        units = units or Units(price="0.01", volume="0.00000001")
        volume = np.asarray(book.volume)
        side, slot = np.nonzero(volume)
        parts = pd.DataFrame({
            "side": side, "price": np.asarray(book.price)[side, slot].astype(np.int64),
            "size": volume[side, slot].astype(np.int64),
            "order_id": [self.numbers.name(number) for number in np.asarray(book.order_id)[side, slot].tolist()]})
        whole = parts.groupby(["order_id", "side", "price"], as_index=False, sort=False)["size"].sum()
        others = pd.DataFrame([(NumberedUuids.text(name), *order) for name, order in self.beside.items()],
                              columns=["order_id", "side", "price", "size"])
        table = pd.concat([pd.DataFrame(whole), others], ignore_index=True) if len(others) else whole
        return pd.DataFrame({
            "side": np.where(table["side"] == BID, "buy", "sell"),
            "price": table["price"].astype(np.float64) * float(units.price),
            "size": table["size"].astype(np.float64) * float(units.volume), "order_id": table["order_id"]})


def read(messages_path: str | Path, book_path: str | Path | None = None, *, units: Units | None = None,
         product: str = "", table: OrderTable | None = None, chunk_rows: int = BLOCK_ROWS, account: int = 0
         ) -> Iterator[FeedChunk]:
    """Messages of one product as chunks of orders (rules: the head of this file), times in UTC.

    Args:
      messages_path: .csv or .csv.gz with a header.
      book_path: the book before, alike; its orders come first, by their sequence, and messages up to it are left out.
      units: of prices and volumes; None: a cent and 1e-8 coins.
      product: the one wanted, such as BTC-USD; may be left out where the file holds only one.
      table: takes in which order each number stands for; orders are numbered 0, 1, 2 and so on.
      chunk_rows: lines held at a time; the orders do not depend on it.
      account: account of every order.

    Returns:
      Chunks; `sequence` is the exchange's number of the message.

    Raises FeedError where a file is damaged, messages are missing, two contradict each other, or midnight is crossed;
    FileNotFoundError where one is missing.
    """
    paths = [Path(path) for path in (messages_path, book_path) if path is not None]
    check_arguments(chunk_rows, *paths)
    table = OrderTable() if table is None else table
    return _Reader(paths, units or Units(price="0.01", volume="0.00000001"), product, table).chunks(chunk_rows, account)


def days(path: Path, symbols: Sequence[str] = (), date: str = "", units: Units | None = None) -> list[DayFeed]:
    """The days of a folder: files `[NAME_]messages.csv[.gz]`, and `[NAME_]beginning_level_3.csv[.gz]` where it is.

    Symbol and date are those of the first message. Arguments as of `sources.open_days`, `units` as of `read`. Raises
    FileNotFoundError where there are none.
    """
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: no such folder")
    units = units or Units(price="0.01", volume="0.00000001")
    found = []
    files = [file for file in sorted(path.glob("*messages.csv*")) if file.name.endswith((".csv", ".csv.gz"))]
    for file in files:
        name = file.name.split("messages.csv")[0]
        books = [path / f"{name}beginning_level_3.csv{end}" for end in ("", ".gz")]
        book = next((candidate for candidate in books if candidate.is_file()), None)
        first = next(read_rows(file, COLUMNS, 1, optional=_OPTIONAL), None)
        if first is None:
            raise FeedError(f"{file}: line 2: expected messages, got only a header")
        product = first.columns["product_id"].text(0) if "product_id" in first.columns else file.name.split(".")[0]
        day = LocalDay("UTC", int(utc_ns(first, "time")[0]))
        # A crypto book holds tens of thousands of orders a side.
        venue = Venue(units=units, tick=1, capacity=2**16)
        found.append(DayFeed(product, day.date, functools.partial(read, file, book, units=units, product=product),
                             venue, publishes_fills=True, variant=name.strip("_")))
    return chosen(found, symbols, date, f"{path}: [NAME_]messages.csv[.gz]")


class _Reader:
    """The two files of one product."""

    def __init__(self, paths: list[Path], units: Units, product: str, table: OrderTable) -> None:
        self._paths = paths
        self._units = units
        self._product = product
        self._seen = SeenIds()
        self._stream = Level3Stream(table.numbers, table.beside)
        self._sequence: int | None = None

    def chunks(self, chunk_rows: int, account: int) -> Iterator[FeedChunk]:
        day: LocalDay | None = None
        last_ns = 0
        for rows in read_rows(self._paths[0], COLUMNS, chunk_rows, optional=_OPTIONAL):
            stamps = utc_ns(rows, "time")
            rows.require(np.diff(stamps, prepend=last_ns) >= 0, "time", "no time before that of the message before it")
            if day is None:
                day = LocalDay("UTC", int(stamps[0]))
                yield from self._book(int(day.times(stamps[:1])[0]), chunk_rows, account)
            rows.require(day.holds(stamps), "time", day.expected)
            last_ns = int(stamps[-1])
            self._take(rows, day.times(stamps))
            yield self._stream.chunk(account)
        if day is None:
            raise FeedError(f"{self._paths[0]}: line 2: expected messages, got only a header")
        self._stream.close()
        if len(self._stream):
            yield self._stream.chunk(account)

    def _book(self, time_ns: int, chunk_rows: int, account: int) -> Iterator[FeedChunk]:
        """The book that the messages go on from."""
        for path in self._paths[1:]:
            for rows in read_rows(path, BOOK_COLUMNS, chunk_rows):
                sequence = rows.integers("sequence", 0, LARGEST_SEQUENCE)
                self._sequence = int(sequence[0]) if self._sequence is None else self._sequence
                rows.require(sequence == self._sequence, "sequence", f"{self._sequence}, as in the first row")
                everywhere = np.ones(len(sequence), bool)
                sides = self._sides(rows, everywhere)
                columns = (sides, *(self._in_units(rows, name, everywhere, everywhere) for name in ("price", "size")))
                names = _uuids(rows, "order_id", everywhere)
                self._check_new(rows, np.arange(len(names)), names)
                for side, price, volume, name in zip(*(column.tolist() for column in columns), names, strict=True):
                    self._stream.start(time_ns, side, price, volume, name, self._sequence)
                yield self._stream.chunk(account)
            if self._sequence is None:
                raise FeedError(f"{path}: line 2: expected orders, got only a header")

    def _take(self, rows: Rows, time_ns: np.ndarray) -> None:
        """A block of messages, those of the book and of other products left out."""
        sequence = rows.integers("sequence", 0, LARGEST_SEQUENCE)
        if "product_id" in rows.columns:
            self._product = self._product or rows.columns["product_id"].text(0)
            rows.require_text("product_id", self._product, f"{self._product} alone")
        if self._sequence is None:
            self._sequence = int(sequence[0]) - 1
        is_late = sequence > self._sequence
        late = sequence[is_late]
        follows = np.ones(len(sequence), bool)
        follows[is_late] = np.diff(late, prepend=self._sequence) == 1
        follows &= is_late | (np.maximum.accumulate(is_late) == 0)  # none may fall back once the book is passed
        rows.require(follows, "sequence", "the number after that of the message before it (a message is missing)")
        self._stream.ignored["before_the_book"] += int((~is_late).sum())
        if not len(late):
            return
        self._sequence = int(late[-1])
        self._send(rows.where(is_late), late, time_ns[is_late])

    def _send(self, rows: Rows, sequence: np.ndarray, time_ns: np.ndarray) -> None:
        """Messages that follow each other, N of them."""
        kind = rows.codes("type", _TYPES)
        received, opened, matched, done, changed = (kind == code for code in range(5))
        sides = self._sides(rows, matched | opened)
        price = self._in_units(rows, "price", opened | matched, opened | matched | received)
        size = self._in_units(rows, "size", matched, matched)
        left = self._in_units(rows, "remaining_size", opened, opened | done)
        if changed.any():
            if "new_size" not in rows.columns:
                raise rows.error(int(np.argmax(changed)), "type", "a column new_size beside it")
            left = np.where(changed, self._in_units(rows, "new_size", changed, changed), left)
        names = _uuids(rows, "order_id", ~matched)
        makers, takers = (_uuids(rows, f"{who}_order_id", matched) for who in ("maker", "taker"))
        self._check_new(rows, np.flatnonzero(received), names)
        columns = (kind, time_ns, sides, price, size, left, sequence)
        stream = self._stream
        for row, (what, at, side, limit, volume, rest, number) in enumerate(zip(*(x.tolist() for x in columns),
                                                                                strict=True)):
            name = names[row]
            if what == RECEIVED:
                stream.receive(name, max(limit, 0))
            elif what == OPEN:
                if not stream.open(at, side, limit, rest, name, number):
                    raise rows.error(row, "order_id", "an order that does not rest yet")
            elif what == DONE:
                if rest >= 0 and (held := stream.left(name)) and held != rest:
                    raise rows.error(row, "remaining_size",
                                     f"the {held * float(self._units.volume):.8f} that are left of the order")
                stream.done(at, name, number)
            elif what == MATCH:
                if not stream.fill(at, side, limit, volume, makers[row], takers[row], number):
                    raise rows.error(row, "size", "no more than is left of the maker's order")
            elif what == CHANGE:
                stream.change(at, name, rest, number)

    def _check_new(self, rows: Rows, at: np.ndarray, names: list[bytes]) -> None:
        """FeedError where an order comes again."""
        keys = np.frombuffer(b"".join(names[row] for row in at.tolist()), np.uint64).reshape(-1, 2)
        twice = self._seen.add(keys[:, 0] ^ keys[:, 1])
        if twice is not None:
            raise rows.error(int(at[twice]), "order_id", "a new order (one with this id came before)")

    def _sides(self, rows: Rows, needed: np.ndarray) -> np.ndarray:
        is_buy = rows.columns["side"].equal("buy")
        rows.require(is_buy | rows.columns["side"].equal("sell") | ~needed, "side", "buy or sell")
        return np.where(is_buy, BID, ASK)

    def _in_units(self, rows: Rows, column: str, needed: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        """Decimal numbers -> int64 [N] units, -1 for none: `needed` ones are above 0, other `wanted` may be empty."""
        unit, most = ((self._units.price, _MOST_PRICE) if column == "price" else
                      (self._units.volume, _MOST_VOLUME))
        fields = rows.columns[column].stripped()
        digits, behind, good = csv_fields.decimals(fields)
        is_there = wanted & (fields.length > 0) & ~fields.equal("nan")
        # In units of 10 ** -places the unit is a whole number.
        places = max(0, -int(decimal.Decimal(unit).as_tuple().exponent))
        step = int(decimal.Decimal(unit).scaleb(places))
        up, down = 10 ** np.clip(places - behind, 0, 18), 10 ** np.clip(behind - places, 0, 18)
        good &= (np.abs(digits) < 2**62 // up) & (digits % down == 0)
        scaled = np.where(good, digits // down, 0) * up
        units, good = scaled // step, good & (scaled % step == 0)
        for row in np.flatnonzero(is_there & ~good).tolist():  # more digits than 18, or an exponent
            units[row], good[row] = _exact(fields.text(row), unit, most)
        good &= np.abs(units) <= most
        rows.require(good | ~is_there, column, f"a number in steps of {unit}, up to {most} of them (units=)")
        units = np.where(is_there, units, -1)
        rows.require((units > 0) | ~needed, column, "a number above 0")
        return units


def _exact(text: str, unit: str, most: int) -> tuple[int, bool]:
    """A decimal number in units, and whether it is a whole number of them, at most so many."""
    try:
        units = decimal.Decimal(text) / decimal.Decimal(unit)
    except decimal.DecimalException:
        return 0, False
    good = units.is_finite() and abs(units) <= most and units == int(units)
    return (int(units), True) if good else (0, False)


def _uuids(rows: Rows, column: str, needed: np.ndarray) -> list[bytes]:
    """A column of UUIDs, 16 bytes each; zeros where they are not needed."""
    fields = rows.columns[column].stripped()
    nibbles, good, place = [], fields.length == 36, 0
    for part in (8, 4, 4, 4, 12):
        for _ in range(part):
            nibble = _HEX[fields.at(place)]
            good &= nibble < 16
            nibbles.append(nibble)
            place += 1
        good &= (place == 36) | (fields.at(place) == ord("-"))
        place += 1
    rows.require(good | ~needed, column, "a UUID")
    table = np.stack(nibbles, axis=1)
    data = np.where(needed[:, None], table[:, 0::2] * 16 + table[:, 1::2], 0).astype(np.uint8).tobytes()
    return [data[at:at + 16] for at in range(0, len(data), 16)]
