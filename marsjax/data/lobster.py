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
- Ids from before the file stand for the seed of their price and side if that has the shares left (`redirected`, 38).
  Otherwise (46), and where less is left than is taken (0), they are passed on as they are, executions as cancels,
  and the exchange answers UNKNOWN_ID or OVER_CANCEL (`unknown`). Most are orders that were sent beyond the 50 levels,
  which the file does not show.

`grouped` puts back together what one aggressive order did: executions of one time and direction in turn (hidden ones
between them do not matter) are one order with the worst price (4,043 become 3,281), and a new order of the aggressor's
side at that time that follows at once, at the worst price or beyond it, is its rest (23).
"""

import functools
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from marsjax.core.records import MAX_VOLUME
from marsjax.core.sessions import continuous_session
from marsjax.data.csv_rows import Rows, first_line, read_rows
from marsjax.data.feed import DayFeed, FeedChunk, FeedError, Venue, check_arguments, chosen
from marsjax.data.lobster_stream import ASK, BID, FIRST_OWN_ID, HIDDEN, NEW, Stream

_COLUMNS = ("time", "type", "order_id", "size", "price", "direction")
VENUE = Venue(session=continuous_session())
_MAX_PRICE = 2**31 - 1  # stub quotes pass the exchange's limit; it answers them with BAD_PRICE


def read(message_path: str | Path, orderbook_path: str | Path | None = None, *, grouped: bool = True,
         chunk_rows: int = 200_000, account: int = 0) -> Iterator[FeedChunk]:
    """Messages of one symbol and day as chunks of orders (rules: the head of this file).

    Args:
      message_path: .csv or .csv.gz without a header: time, type, order id, size, price, direction.
      orderbook_path: L levels after each message, same rows; its first row seeds the book, one order a level.
        `sequence` is -1 for seeds, else the row of the message, from 0.
      grouped: one order per aggressor; False gives one order a message.
      chunk_rows: lines held at a time; the orders do not depend on it.
      account: account of every order.

    Raises FeedError where a file is damaged, FileNotFoundError where it is missing.
    """
    paths = [Path(path) for path in (message_path, orderbook_path) if path is not None]
    check_arguments(chunk_rows, *paths)
    return _chunks(paths[0], paths[1] if len(paths) > 1 else None, grouped, chunk_rows, account)


def days(path: Path, symbols: Sequence[str] = (), date: str = "", grouped: bool = True) -> list[DayFeed]:
    """The days of a folder: SYMBOL_DATE_START_END_message_LEVELS.csv[.gz], and _orderbook_ beside it if it is there.

    Arguments as of `sources.open_days`; `grouped` as of `read`. Raises FileNotFoundError where there are none.
    """
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: no such folder")
    found = []
    for message in sorted([*path.glob("*_message_*.csv"), *path.glob("*_message_*.csv.gz")]):
        prefix, levels = message.name.split(".")[0].split("_message_")
        symbol, day = prefix.split("_")[:2]
        books = sorted(path.glob(f"{prefix}_orderbook_{levels}*.csv*"))
        opened = functools.partial(read, message, books[0] if books else None, grouped=grouped)
        found.append(DayFeed(symbol, day, opened, VENUE))
    return chosen(found, symbols, date, f"{path}: SYMBOL_DATE_START_END_message_LEVELS.csv[.gz]")


def _chunks(path: Path, orderbook_path: Path | None, grouped: bool, chunk_rows: int,
            account: int) -> Iterator[FeedChunk]:
    stream = Stream(grouped)
    last_ns, count = 0, 0
    for rows in read_rows(path, _COLUMNS, chunk_rows, header=False):
        columns = _checked(rows)
        rows.require(np.diff(columns[0], prepend=last_ns) >= 0, "time", "no time before that of the message before it")
        last_ns = int(columns[0][-1])
        messages = list(zip(*(column.tolist() for column in columns), strict=True))
        if not count and orderbook_path is not None:
            _seed(stream, orderbook_path, *messages[0])
        for row, message in enumerate(messages):
            # A seeded book already holds what message 0 did.
            if (count or orderbook_path is None) and not stream.take(count, *message):
                raise rows.error(row, "order_id", "a new order (one with this id rests)")
            count += 1
        yield stream.chunk(account)
    if not count:
        raise FeedError(f"{path}: line 1: expected messages, got an empty file")
    stream.close()
    if stream.events:
        yield stream.chunk(account)


def _checked(rows: Rows) -> tuple[np.ndarray, ...]:
    """time_ns, type, order id, size, price, direction, int64 [N] each."""
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
    return np.rint(time * 1e9).astype(np.int64), kind, order_id, size, price, direction


def _seed(stream: Stream, path: Path, time_ns: int, kind: int, order_id: int, size: int, price: int, direction: int
          ) -> None:
    """The book after message 0 (the last arguments): one order a level, then message 0's own order if it is new."""
    width = first_line(path).count(",") + 1
    if width % 4:
        raise FeedError(f"{path}: line 1: expected four columns a level, got {width} columns")
    names = [f"{name}_{level + 1}" for level in range(width // 4)
             for name in ("ask_price", "ask_size", "bid_price", "bid_size")]
    row = next(read_rows(path, names, 1, header=False))
    own_side = BID if direction == 1 else ASK
    for level in range(1, width // 4 + 1):
        for side, name in ((ASK, "ask"), (BID, "bid")):
            volume = int(row.integers(f"{name}_size_{level}", 0, MAX_VOLUME)[0])
            if not volume:  # no such level; its price is a dummy
                continue
            level_price = int(row.integers(f"{name}_price_{level}", 1, _MAX_PRICE)[0])
            if kind == NEW and (side, level_price) == (own_side, price):
                volume -= size
                if volume < 0:
                    raise row.error(0, f"{name}_size_{level}", f"the {size} shares of message 0 or more")
            if volume:
                stream.seed(time_ns, side, level_price, volume)
    if kind == NEW:
        stream.take(0, time_ns, kind, order_id, size, price, direction)
