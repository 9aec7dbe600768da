"""Plain CSV of orders, transactions and snapshots, in no exchange's own layout: that of the golden files."""

import functools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pandas as pd

from marsjax.core import int64, times
from marsjax.core.errors import InputError
from marsjax.core.records import NO_ID, BookView, Kind, Order, Side, Trades
from marsjax.core.times import DAY_NS
from marsjax.data.csv_rows import read_rows
from marsjax.data.feed import (
    LARGEST_ID,
    DayFeed,
    FeedChunk,
    FeedError,
    PublishedFills,
    Venue,
    check_arguments,
    chosen,
)
from marsjax.market import orders as order_records

COLUMNS = ("time_ns", "type", "price", "volume", "order_id", "cancel_type", "cancel_id", "agent_id")
"""Of an order file; `phase` and any other column are ignored."""
VENUE = Venue(accounts=16, capacity=1024, trade_width=64)
_KINDS = {"S": Kind.SELL, "B": Kind.BUY, "C": Kind.CANCEL}
_SIDES = {"S": Side.ASK, "B": Side.BID, "None": NO_ID}
_LETTERS = np.array(["S", "B", "C"])


def read(path: str | Path, *, chunk_rows: int = 200_000) -> Iterator[FeedChunk]:
    """Orders as they stand in the file, `agent_id` as account, without fills; `sequence` is the row, from 0.

    Numbers need only fit in an int32: the exchange judges prices and volumes. Raises FeedError where the file is
    damaged or its time runs backwards, FileNotFoundError where it is missing.
    """
    check_arguments(chunk_rows, Path(path))
    return _chunks(Path(path), chunk_rows)


def days(path: Path, symbols: Sequence[str] = (), date: str = "") -> list[DayFeed]:
    """The one feed of a file <symbol>_<date>..., or of any other name, which is then the symbol.

    Arguments as of `sources.open_days`.
    """
    check_arguments(1, path)
    name = path.name.split(".")[0]
    dated = re.fullmatch(r"(.+)_(\d{8}|\d{4}-\d\d-\d\d)", name)
    symbol, day = dated.groups() if dated else (name, "")
    feed = DayFeed(symbol, day, functools.partial(read, path), VENUE)
    return chosen([feed], symbols, date, str(path))


def _chunks(path: Path, chunk_rows: int) -> Iterator[FeedChunk]:
    last_ns, count = 0, 0
    for rows in read_rows(path, COLUMNS, chunk_rows):
        codes = {}
        for name, letters in (("type", _KINDS), ("cancel_type", _SIDES)):
            text = rows.text(name)
            rows.require(np.isin(text, list(letters)), name, f"one of {', '.join(letters)}")
            codes[name] = np.array([int(letters[letter]) for letter in text], np.int64)
        is_open = (codes["type"] == Kind.CANCEL) & (codes["cancel_type"] == NO_ID)
        rows.require(~is_open, "cancel_type", "the side of the cancelled order, S or B")
        time_ns = rows.integers("time_ns", 0, DAY_NS - 1)
        rows.require(np.diff(time_ns, prepend=last_ns) >= 0, "time_ns", "no time before that of the order before it")
        numbers = {name: rows.integers(name, -LARGEST_ID - 1, LARGEST_ID)
                   for name in ("price", "volume", "order_id", "cancel_id", "agent_id")}
        order = order_records.from_columns(
            time_ns=time_ns, kind=codes["type"], price=numbers["price"], volume=numbers["volume"],
            order_id=numbers["order_id"], cancel_side=codes["cancel_type"], cancel_id=numbers["cancel_id"],
            account=numbers["agent_id"])
        yield FeedChunk(order, PublishedFills.none(), np.arange(count, count + len(time_ns)))
        last_ns, count = int(time_ns[-1]), count + len(time_ns)
    if not count:
        raise FeedError(f"{path}: line 2: expected orders, got only a header")


def write(path: str | Path, orders: Order) -> None:
    """Orders (arrays [N]) -> a .csv or .csv.gz file that `read` gives back; InputError for padding in them."""
    frame(orders).to_csv(path, index=False)


def frame(orders: Order) -> pd.DataFrame:
    """Orders (arrays [N]) -> a table of COLUMNS; InputError for padding in them."""
    kind = np.asarray(orders.kind)
    odd = ~np.isin(kind, (Kind.SELL, Kind.BUY, Kind.CANCEL))
    if odd.any():
        row = int(np.argmax(odd))
        raise InputError(f"orders: row {row}, kind: expected SELL, BUY or CANCEL, got {int(kind[row])}")
    is_cancel = kind == Kind.CANCEL
    side = np.where(np.asarray(orders.cancel_side) == Side.BID, "B", "S")
    columns = (times.to_ns(orders.time), _LETTERS[kind], orders.price, orders.volume, orders.order_id,
               np.where(is_cancel, side, "None"), orders.cancel_id, orders.account)
    return pd.DataFrame({name: np.asarray(column) for name, column in zip(COLUMNS, columns, strict=True)})


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
