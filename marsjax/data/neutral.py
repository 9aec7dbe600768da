"""Plain CSV of orders, transactions and snapshots, in no exchange's own layout: that of the golden files."""

import dataclasses
import functools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from marsjax.core import int64, times
from marsjax.core.errors import InputError
from marsjax.core.records import NO_ID, UNPRICED, BookView, Condition, Kind, Order, Side, Trades
from marsjax.core.times import DAY_NS
from marsjax.data import file_names, starting_book
from marsjax.data.csv_rows import Rows, read_rows
from marsjax.data.feed import (
    BLOCK_ROWS,
    LARGEST_ID,
    DayFeed,
    FeedChunk,
    FeedError,
    PublishedFills,
    Venue,
    check_arguments,
    chosen,
)
from marsjax.data.order_ids import SeenIds
from marsjax.market import orders as order_records

COLUMNS = ("time_ns", "type", "price", "volume", "order_id", "cancel_type", "cancel_id", "agent_id")
"""Of an order file; `phase` and any other column are ignored."""
CONDITION = "condition"
"""A further column, of names of `Condition`; it is written where an order has one other than REST."""
VENUE = Venue(accounts=16, capacity=1024, trade_width=64)
"""Accounts, tick and conditions are then those of the file."""
_KINDS = {"S": Kind.SELL, "B": Kind.BUY, "C": Kind.CANCEL}
_SIDES = {"S": Side.ASK, "B": Side.BID, "None": NO_ID}
_CONDITIONS = {"": Condition.REST, **{entry.name: entry for entry in Condition}}
_LETTERS = np.array(["S", "B", "C"])
_TICKS = (100, 10, 1)


def read(path: str | Path, *, book: str | Path | None = None, chunk_rows: int = BLOCK_ROWS) -> Iterator[FeedChunk]:
    """Orders as they stand in the file, `agent_id` as account, without fills; `sequence` is the row, from 0.

    Args:
      path: CSV, plain or gzip, with a header that names COLUMNS. Numbers need only fit in an int32: the exchange judges
        prices and volumes.
      book: CSV of the orders that rest before the first, prices in 1e-4 (`starting_book.chunk`); their `sequence` is
        -1.
      chunk_rows: lines held at a time; the orders do not depend on it.

    Raises FeedError where a file is damaged, an id comes twice or time runs backwards, FileNotFoundError where a file
    is missing.
    """
    paths = [Path(path), *([] if book is None else [Path(book)])]
    check_arguments(chunk_rows, *paths)
    return _chunks(paths[0], paths[1] if book is not None else None, chunk_rows)


def days(path: Path, symbols: Sequence[str] = (), date: str = "", book: str | Path | None = None) -> list[DayFeed]:
    """The one feed of a file, or those of all CSV files of a folder: <symbol>_<date>, or any name, then the symbol.

    Arguments as of `sources.open_days`; `book` as of `read`, for one file. Reads all accounts, prices and conditions.
    """
    paths = [file for _, file in file_names.matching(path, ".*")] if path.is_dir() else [path]
    if book is not None and path.is_dir():
        raise InputError(f"book {book}: expected one file of orders that it belongs to, got the folder {path}")
    found = []
    for file in paths:
        name = file_names.stem(file)
        dated = re.fullmatch(r"(.+)_(\d{8}|\d{4}-\d\d-\d\d)", name)
        symbol, day = dated.groups() if dated else (name, "")
        if (symbols and symbol not in symbols) or date not in ("", day):
            continue
        check_arguments(1, file, *([] if book is None else [Path(book)]))
        venue = _venue(file)
        if book is not None:
            in_book = int(np.max(_start(Path(book), 0).orders.account, initial=0)) + 1
            venue = dataclasses.replace(venue, accounts=max(venue.accounts, in_book))
        found.append(DayFeed(symbol, day, functools.partial(read, file, book=book), venue))
    return chosen(found, symbols, date, str(path))


def _venue(path: Path) -> Venue:
    """What a file says of its market."""
    accounts, tick, conditions = 1, _TICKS[0], False
    for rows in read_rows(path, COLUMNS, BLOCK_ROWS, optional=(CONDITION,)):
        kind, condition = rows.codes("type", _KINDS), _condition(rows)
        accounts = max(accounts, int(rows.integers("agent_id", -LARGEST_ID - 1, LARGEST_ID).max()) + 1)
        conditions |= bool(condition.any())
        price = rows.integers("price", -LARGEST_ID - 1, LARGEST_ID)
        price = price[(kind != Kind.CANCEL) & ~np.isin(condition, UNPRICED)]
        tick = next((step for step in _TICKS if step <= tick and not (price % step).any()), 1)
    return dataclasses.replace(VENUE, accounts=accounts, tick=tick, conditions=conditions)


def _start(book: Path, time_ns: int) -> FeedChunk:
    return starting_book.chunk(starting_book.read_book(book), str(book), (1.0, 1, 1.0), time_ns, "line")


def _condition(rows: Rows) -> np.ndarray:
    if CONDITION not in rows.columns:
        return np.full(len(rows.line), Condition.REST, np.int64)
    return rows.codes(CONDITION, _CONDITIONS)


def _chunks(path: Path, book: Path | None, chunk_rows: int) -> Iterator[FeedChunk]:
    last_ns, count = 0, 0
    seen = SeenIds()
    for rows in read_rows(path, COLUMNS, chunk_rows, optional=(CONDITION,)):
        order = _orders(rows)
        time_ns = times.to_ns(order.time)
        rows.require(np.diff(time_ns, prepend=last_ns) >= 0, "time_ns", "no time before that of the order before it")
        if not count and book is not None:
            start = _start(book, int(time_ns[0]))
            seen.add(np.asarray(start.orders.order_id))
            yield start
        given = np.flatnonzero((order.kind != Kind.CANCEL) & (order.order_id != NO_ID))
        if (again := seen.add(np.asarray(order.order_id)[given])) is not None:
            raise rows.error(int(given[again]), "order_id", "an id that no order before it has had")
        yield FeedChunk(order, PublishedFills.none(), np.arange(count, count + len(time_ns)))
        last_ns, count = int(time_ns[-1]), count + len(time_ns)
    if not count:
        raise FeedError(f"{path}: line 2: expected orders, got only a header")


def _orders(rows: Rows) -> Order:
    """A block of the file as orders."""
    kind, cancel_side = rows.codes("type", _KINDS), rows.codes("cancel_type", _SIDES)
    is_open = (kind == Kind.CANCEL) & (cancel_side == NO_ID)
    rows.require(~is_open, "cancel_type", "the side of the cancelled order, S or B")
    numbers = {name: rows.integers(name, -LARGEST_ID - 1, LARGEST_ID)
               for name in ("price", "volume", "order_id", "cancel_id", "agent_id")}
    return order_records.from_columns(
        time_ns=rows.integers("time_ns", 0, DAY_NS - 1), kind=kind, price=numbers["price"], volume=numbers["volume"],
        order_id=numbers["order_id"], cancel_side=cancel_side, cancel_id=numbers["cancel_id"],
        account=numbers["agent_id"], condition=_condition(rows))


def write(path: str | Path, orders: Order) -> None:
    """Orders (arrays [N]) -> a .csv or .csv.gz file that `read` gives back; InputError for padding in them."""
    frame(orders).to_csv(path, index=False)


def frame(orders: Order) -> pd.DataFrame:
    """Orders (arrays [N]) -> a table of COLUMNS, and of CONDITION where it is needed; InputError for padding."""
    kind = np.asarray(orders.kind)
    odd = ~np.isin(kind, (Kind.SELL, Kind.BUY, Kind.CANCEL))
    if odd.any():
        row = int(np.argmax(odd))
        raise InputError(f"orders: row {row}, kind: expected SELL, BUY or CANCEL, got {int(kind[row])}")
    is_cancel = kind == Kind.CANCEL
    side = np.where(np.asarray(orders.cancel_side) == Side.BID, "B", "S")
    columns = (times.to_ns(orders.time), _LETTERS[kind], orders.price, orders.volume, orders.order_id,
               np.where(is_cancel, side, "None"), orders.cancel_id, orders.account)
    table = pd.DataFrame({name: np.asarray(column) for name, column in zip(COLUMNS, columns, strict=True)})
    if np.any(orders.condition):
        names = np.array([entry.name for entry in Condition])
        table[CONDITION] = names[np.where(is_cancel, Condition.REST, orders.condition)]
    return table


def transactions(orders: Order, trades: Trades) -> pd.DataFrame:
    """What every order did, one row a transaction: i (order), k (its k-th), type, price, volume, buy_id, sell_id.

    Args:
      orders: arrays [N].
      trades: of the same orders, leading axis [N]; of an order with more than K transactions the first K are listed.

    Returns:
      A cancel has the cancelled id on its own side and -1 on the other.
    """
    i, k = np.nonzero(np.asarray(trades.volume_each) > 0)
    kind, side = np.asarray(trades.kind)[i], np.asarray(trades.side)[i]
    resting = np.asarray(trades.resting_id)[i, k]
    aggressor = np.where(kind == Kind.CANCEL, NO_ID, np.asarray(orders.order_id)[i])
    return pd.DataFrame({
        "i": i, "k": k, "type": _LETTERS[kind], "price": np.asarray(trades.price)[i, k],
        "volume": np.asarray(trades.volume_each)[i, k], "buy_id": np.where(side == Side.BID, resting, aggressor),
        "sell_id": np.where(side == Side.ASK, resting, aggressor)})


def snapshots(view: BookView) -> pd.DataFrame:
    """Views after every order (leading axis [N]) -> i, last_price, mid_price, spread and L levels a side."""
    columns = {"i": np.arange(len(np.asarray(view.last_price)))}
    columns |= {name: np.asarray(getattr(view, name)) for name in ("last_price", "mid_price", "spread")}
    for side in ("ask", "bid"):
        sizes = {"price": np.asarray(getattr(view, f"{side}_price")),
                 "volume": int64.to_numpy(getattr(view, f"{side}_volume"))}
        for name, levels in sizes.items():
            columns |= {f"{side}_{name}_{level + 1}": column for level, column in enumerate(levels.T)}
    return pd.DataFrame(columns)
