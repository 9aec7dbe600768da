"""Shanghai Stock Exchange, order by order: two files a day (orders, trades) -> the orders as they were sent.

The exchange publishes only what came to rest. An aggressive order shows as its trades and then, at once, an add of
what is left under the same id; `read` puts these together again into one limit order. Of an order that was filled
whole only the worst price it paid is known, which becomes its limit: it trades the same and nothing is left to rest.
"""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from marsjax import orders
from marsjax.data.feed import (
    AUCTION,
    LARGEST_ID,
    LARGEST_SEQUENCE,
    FeedChunk,
    FeedError,
    Fills,
    Rows,
    Snapshots,
    read_rows,
)
from marsjax.types import MAX_VOLUME, NO_ID, Kind, Side

LEVELS = 10
"""Levels a side in the published snapshots."""
_ADD, _DELETE, _TRADE = 2, 10, 1
_ORDER_COLUMNS = ("MDTime", "OrderType", "OrderPrice", "OrderQty", "OrderBSFlag", "ApplSeqNum", "OrderNO")
_TRADE_COLUMNS = ("MDTime", "TradeBuyNo", "TradeSellNo", "TradeBSFlag", "TradePrice", "TradeQty", "ApplSeqNum")
_SAME_COLUMNS = ("SecurityID", "MDDate")
_NEVER = LARGEST_SEQUENCE + 1
# One row a message of either file. `kind`: BUY or SELL side of the order or the aggressor, AUCTION. `id`: the order
# or the aggressor. `other`: the resting order of a trade; the seller in auctions.
_MESSAGE = np.dtype([(name, np.int64) for name in (
    "sequence", "time_ns", "type", "kind", "price", "volume", "id", "other", "line")])


def read(orders_path: str | Path, trades_path: str | Path, *, chunk_rows: int = 200_000, owner: int = 0
         ) -> Iterator[FeedChunk]:
    """One day of one symbol as chunks of orders, both files merged by ApplSeqNum.

    Args:
      orders_path: adds and deletes, .csv or .csv.gz with a header; further columns are ignored.
      trades_path: trades, alike; may hold none.
      chunk_rows: lines of each file held at a time; the orders do not depend on it.
      owner: account of every order.

    Returns:
      Chunks in exchange order; N differs from chunk to chunk. Cancels carry the price of the deleted order.

    Raises FeedError where the files are damaged or contradict each other, FileNotFoundError where one is missing.
    """
    if chunk_rows < 1:
        raise ValueError(f"chunk_rows: expected at least 1, got {chunk_rows}")
    paths = Path(orders_path), Path(trades_path)
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file")
    return _chunks(*paths, chunk_rows, owner)


def read_snapshots(path: str | Path) -> Snapshots:
    """All published snapshots of a day, L = 10; FeedError where the file is damaged."""
    sides = {side: [f"{side}{what}{level}" for level in range(1, LEVELS + 1)]
             for side in ("Buy", "Sell") for what in ("Price", "OrderQty") if not (side == "" and what == "")}
    del sides
    raise NotImplementedError


def days(folder: str | Path) -> list[tuple[str, str]]:
    """(symbol, date) of every pair of `<symbol>_<date>_orders.csv[.gz]` and `..._trades...` in a folder, sorted."""
    found = set()
    for path in Path(folder).iterdir():
        match = re.fullmatch(r"([^_]+)_(\d+)_orders\.csv(\.gz)?", path.name)
        if match and _named(Path(folder), match[1], match[2], "trades"):
            found.add((match[1], match[2]))
    return sorted(found)
