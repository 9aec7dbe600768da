"""LOBSTER messages (NASDAQ) -> orders that drive a matching book to the published states.

A message tells what happened to a resting order, so each execution (type 4) becomes the limit order that causes it:
of the other side, at the price and of the size executed. Counts are those of the free AAPL sample, 91,997 messages;
replayed one order a message from its seed, level 1 is right after 91,907 of them (the other 90 stand behind one order
that left the 50 levels, was deleted there unseen, and came back to the touch).

- 1 new (44,256): a limit order. One that crosses the book as known is passed on and trades there (`crossed`, 0).
- 2, 3 cancels (41,473): a cancel of the size given.
- 4 execution (4,067): a limit order, if the order named is the next to trade in the book as known. If not, no limit
  order can reach it: its shares are cancelled instead (`out_of_turn`, 24). Matching the first in line would leave two
  wrong orders behind, and cost 5,300 rows of level 1.
- 5 hidden execution (2,201), 6 cross trade (0), 7 halt (0): no order, counted in `FeedChunk.ignored`.
- Orders above the highest price of the exchange (stub quotes) are kept beside the book (`beyond_price_limit`, 0).
- Ids from before the file stand for the seed of their price and side if that has the shares left (`redirected`, 38).
  Otherwise (46), and where less is left than is taken (0), they are passed on as they are, executions as cancels,
  and the exchange answers UNKNOWN_ID or OVER_CANCEL (`unknown`). Most are orders that were sent beyond the 50 levels,
  which the file does not show.

With `follow` the book file of N levels is read beside the messages, and the book is after each of them what it shows:
levels that come into view are filled up or cancelled down by orders of the reader (`refilled`, `pruned`), messages
about orders that it has not are about the others at their price (`redirected`), and a row that differs from what its
message says is an error, trading halts and cross trades left out (`rows_put_right`, `crossed_rows`).

`grouped` puts back together what one aggressive order did: executions of one time and direction in turn (hidden ones
between them do not matter) are one order with the worst price (4,043 become 3,281), and a new order of the aggressor's
side at that time that follows at once, at the worst price or beyond it, is its rest (23).
"""

import dataclasses
import functools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from marsjax.core.errors import InputError
from marsjax.core.records import MAX_VOLUME
from marsjax.core.sessions import continuous_session
from marsjax.core.times import DAY_NS
from marsjax.data.csv_rows import Rows, read_rows
from marsjax.data.feed import BLOCK_ROWS, DayFeed, FeedChunk, FeedError, Venue, check_arguments, chosen
from marsjax.data.lobster_book import BookFile, Messages, WindowMove, read_first
from marsjax.data.lobster_follow import FollowedStream
from marsjax.data.lobster_stream import FIRST_OWN_ID, HIDDEN, NEW, Stream
from marsjax.data.order_ids import SeenIds
from marsjax.data.resting import ASK, BID

_COLUMNS = ("time", "type", "order_id", "size", "price", "direction")
_MAX_PRICE = 2**31 - 1  # stub quotes pass the exchange's limit; they are kept beside the book
_NAME = re.compile(r"(?P<symbol>.+?)_(?P<date>\d{4}-\d\d-\d\d|\d{8})(?:_(?P<start>\d+)_(?P<end>\d+))?_message_"
                   r"(?P<levels>.+?)\.csv(?:\.gz)?")


def read(message_path: str | Path, orderbook_path: str | Path | None = None, *, grouped: bool = True,
         follow: bool = False, chunk_rows: int = BLOCK_ROWS // 2, account: int = 0) -> Iterator[FeedChunk]:
    """Messages of one symbol and day as chunks of orders (rules: the head of this file).

    Args:
      message_path: .csv or .csv.gz without a header: time, type, order id, size, price, direction.
      orderbook_path: L levels after each message, same rows; its first row seeds the book, one order a level.
        `sequence` is -1 for seeds, else the row of the message, from 0.
      grouped: one order per aggressor; False gives one order a message.
      follow: whether the book is kept as the book file shows it after every message.
      chunk_rows: lines held at a time (rows of a book file have up to 200 columns); the orders do not depend on it.
      account: account of every order.

    Raises FeedError where a file is damaged or the two contradict each other, FileNotFoundError where one is missing,
    InputError where there is no book file to follow.
    """
    paths = [Path(path) for path in (message_path, orderbook_path) if path is not None]
    check_arguments(chunk_rows, *paths)
    if follow and orderbook_path is None:
        raise InputError("follow: expected the path of a book file, got None")
    book = BookFile(paths[1], chunk_rows) if follow else None
    return _chunks(paths, book, grouped, chunk_rows, account)


def days(path: Path, symbols: Sequence[str] = (), date: str = "", grouped: bool = True, follow: bool = True
         ) -> list[DayFeed]:
    """The days of a folder: SYMBOL_DATE_START_END_message_LEVELS.csv[.gz], and _orderbook_ beside it if it is there.

    A file _orderbook_LEVELS.csv[.gz] is followed; one whose name goes on (a part of it, such as its first rows) seeds
    the book. The session is that of the file name, START to END; the tick 1 where a price needs it, else 100. Where a
    folder has several files of one symbol and day, their names end in what tells them apart: the levels, the times.

    Arguments as of `sources.open_days`, `grouped` and `follow` as of `read`. Raises FileNotFoundError where there are
    none, InputError where two files would have one name.
    """
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: no such folder")
    found, parts = [], []
    for file in sorted(path.glob("*_message_*.csv*")):
        match = _NAME.fullmatch(file.name)
        if match is None:
            raise InputError(f"{file}: expected a name SYMBOL_DATE_START_END_message_LEVELS.csv[.gz]: rename it")
        parts.append((file, match))
    for file, match in parts:
        same = [other for _, other in parts if other["symbol"] == match["symbol"] and other["date"] == match["date"]]
        variant = "_".join(
            [f"levels{match['levels']}"] * (len({other["levels"] for other in same}) > 1)
            + [f"{match['start']}_{match['end']}"] * (len({(other["start"], other["end"]) for other in same}) > 1))
        book, is_whole = _book_of(file)
        opened = functools.partial(read, file, book, grouped=grouped, follow=follow and is_whole)
        found.append(DayFeed(match["symbol"], match["date"], opened, _session(match), variant=variant))
    where = f"{path}: SYMBOL_DATE_START_END_message_LEVELS.csv[.gz]"
    return [_with_tick(day) for day in chosen(found, symbols, date, where)]


def _book_of(message: Path) -> tuple[Path | None, bool]:
    """The book file beside a message file, and whether it is the whole one."""
    name = message.name.replace("_message_", "_orderbook_")
    plain = name.removesuffix(".gz").removesuffix(".csv")
    for candidate in (message.with_name(name), message.with_name(f"{plain}.csv"), message.with_name(f"{plain}.csv.gz")):
        if candidate.is_file():
            return candidate, True
    parts = sorted(message.parent.glob(f"{plain}_*.csv*"))
    return (parts[0], False) if parts else (None, False)


def _session(match: re.Match[str]) -> Venue:
    """All of the time that the name of a file says (milliseconds after midnight), without it the whole day."""
    start, end = (int(match[name]) * 1_000_000 if match[name] else None for name in ("start", "end"))
    if start is None or end is None or not start < end <= DAY_NS:
        return Venue()
    return Venue(session=continuous_session(start, min(end, DAY_NS - 1)))


def _with_tick(day: DayFeed) -> DayFeed:
    """A stock below 1 USD has prices in steps of 0.0001; the whole file is looked through for one."""
    message = day.read.args[0]  # type: ignore[attr-defined]
    for rows in read_rows(message, _COLUMNS, BLOCK_ROWS, header=False):
        price, kind = rows.numbers("price"), rows.numbers("type")
        if ((price % 100 > 0) & (kind < HIDDEN)).any():
            return dataclasses.replace(day, venue=dataclasses.replace(day.venue, tick=1))
    return day


def _chunks(paths: list[Path], book: BookFile | None, grouped: bool, chunk_rows: int, account: int
            ) -> Iterator[FeedChunk]:
    stream = FollowedStream(grouped) if book else Stream(grouped)
    last_ns, count, seen = 0, 0, SeenIds()
    for rows in read_rows(paths[0], _COLUMNS, chunk_rows, header=False):
        columns = _checked(rows)
        rows.require(np.diff(columns.time_ns, prepend=last_ns) >= 0, "time",
                     "no time before that of the message before it")
        is_new = np.flatnonzero(columns.kind == NEW)
        if (twice := seen.add(columns.order_id[is_new])) is not None:
            raise rows.error(int(is_new[twice]), "order_id", "a new order (one with this id came before)")
        last_ns = int(columns.time_ns[-1])
        is_first_seeded = False
        if not count and isinstance(stream, FollowedStream) and book:
            stream.begin(int(columns.time_ns[0]), *book.first(columns))
        elif not count and len(paths) > 1:
            _seed(stream, paths[1], _Message(*(int(column[0]) for column in columns)))
            is_first_seeded = True  # a seeded book already holds what message 0 did
        _take(stream, rows, columns, book, count + is_first_seeded, is_first_seeded)
        count += len(columns.time_ns)
        yield stream.chunk(account)
    if not count:
        raise FeedError(f"{paths[0]}: line 1: expected messages, got an empty file")
    if book:
        book.end()
    stream.close()
    if len(stream):
        yield stream.chunk(account)


def _take(stream: Stream, rows: Rows, columns: Messages, book: BookFile | None, number: int, skipped: int) -> None:
    """A block of messages, from the number `number` on, the first `skipped` left out."""
    messages = zip(*(column[skipped:].tolist() for column in columns), strict=True)
    if not isinstance(stream, FollowedStream) or book is None:
        for row, message in enumerate(messages, number):
            if not stream.take(row, *message):
                raise rows.error(row - number + skipped, "order_id", "a new order (one with this id rests)")
        return
    for row, (message, sight) in enumerate(zip(messages, book.beside(columns), strict=True), number):
        stream.take(row, *message)
        if sight is not None:
            (stream.move if isinstance(sight, WindowMove) else stream.put_right)(row, message[0], *sight)


class _Message(NamedTuple):
    """One of `Messages`."""

    time_ns: int
    kind: int
    order_id: int
    size: int
    price: int
    direction: int


def _checked(rows: Rows) -> Messages:
    time = rows.numbers("time")
    rows.require((time >= 0) & (time < 86_400), "time", "seconds after midnight")
    kind = rows.integers("type", 1, 7)
    is_ignored = kind >= HIDDEN
    size = rows.integers("size", 0, MAX_VOLUME)
    rows.require((size > 0) | is_ignored, "size", "at least one share")
    price = rows.integers("price", -10**12, 10**12)
    rows.require(((price > 0) & (price <= _MAX_PRICE)) | is_ignored, "price", f"1 to {_MAX_PRICE}")
    direction = rows.integers("direction", -1, 1)
    rows.require((direction != 0) | is_ignored, "direction", "1 (buy) or -1 (sell)")
    order_id = rows.integers("order_id", -1, FIRST_OWN_ID - 1)
    rows.require((order_id >= 0) | is_ignored, "order_id", f"0 to {FIRST_OWN_ID - 1}")
    return Messages(np.rint(time * 1e9).astype(np.int64), kind, order_id, size, price, direction)


def _seed(stream: Stream, path: Path, first: _Message) -> None:
    """The book after message 0: one order a level, then message 0's own order if it is new."""
    row, levels = read_first(path)
    own_side = BID if first.direction == 1 else ASK
    for side, name in enumerate(("ask", "bid")):
        for level, (price, volume) in enumerate(levels[side].items(), 1):
            if first.kind == NEW and (side, price) == (own_side, first.price):
                volume -= first.size
                if volume < 0:
                    raise row.error(0, f"{name}_size_{level}", f"the {first.size} shares of message 0 or more")
            if volume:
                stream.seed(first.time_ns, side, price, volume)
    if first.kind == NEW:
        stream.take(0, *first)
