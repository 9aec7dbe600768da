"""The messages of the Shanghai files: checked, merged by ApplSeqNum, in blocks that end between two orders."""

import functools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np

from marsjax.core.records import MAX_VOLUME, Kind
from marsjax.data.csv_rows import Rows, read_rows
from marsjax.data.feed import AUCTION, LARGEST_ID, LARGEST_SEQUENCE, FeedError, PublishedFills

ADD, DELETE, TRADE = 2, 10, -1
_ORDER_COLUMNS = ("MDTime", "OrderType", "OrderPrice", "OrderQty", "OrderBSFlag", "ApplSeqNum", "OrderNO")
_TRADE_COLUMNS = ("MDTime", "TradeBuyNo", "TradeSellNo", "TradeBSFlag", "TradePrice", "TradeQty", "ApplSeqNum")
_SAME_COLUMNS = ("SecurityID", "MDDate")
_KINDS = np.array([AUCTION, Kind.BUY, Kind.SELL])  # of BSFlag 0, 1, 2
ZONE_S = 8 * 3600
"""China's clock is that much ahead of UTC, all the year."""
# One row a message of either file. `kind`: side of the order or of the aggressor, or AUCTION. `id`: the order or the
# aggressor (the buyer in auctions). `other`: the resting order of a trade (the seller in auctions).
MESSAGE = np.dtype([(name, np.int64) for name in (
    "sequence", "time_ns", "type", "kind", "price", "volume", "id", "other", "line")])


def groups(orders_path: Path, trades_path: Path, chunk_rows: int, tick: int) -> Iterator[np.ndarray]:
    """Both files as blocks of MESSAGE in ApplSeqNum order; no block ends within the messages of one order."""
    one_day = OneDay(_SAME_COLUMNS)
    orders, trades = functools.partial(_orders, tick=tick), functools.partial(_trades, tick=tick)
    both = merged(one_day.messages(orders_path, _ORDER_COLUMNS, chunk_rows, orders, may_be_empty=False),
                  one_day.messages(trades_path, _TRADE_COLUMNS, chunk_rows, trades))
    yield from whole_groups(both, is_continued)


class OneDay:
    """Reads files of messages; checks the order of each, and that all are about one symbol and day."""

    def __init__(self, same_columns: tuple[str, ...]) -> None:
        self._same: dict[str, str] = {}
        self._columns = same_columns

    def messages(self, path: Path, columns: Sequence[str], chunk_rows: int, parse: Callable[[Rows], np.ndarray],
                 may_be_empty: bool = True) -> Iterator[np.ndarray]:
        """One file as blocks of MESSAGE, made by `parse`, their ApplSeqNum rising."""
        last, count = -1, 0
        for rows in read_rows(path, columns, chunk_rows, optional=[x for x in self._columns if x not in columns]):
            for column in set(self._columns).intersection(rows.columns):
                first = self._same.setdefault(column, rows.columns[column].text(0))
                rows.require_text(column, first, f"{first} in all of the day")
            messages = parse(rows)
            messages["line"] = rows.line
            before = np.concatenate([[last], messages["sequence"][:-1]])
            rows.require(messages["sequence"] > before, "ApplSeqNum", "a number above that of the line before")
            last, count = int(messages["sequence"][-1]), count + len(messages)
            yield messages
        if not count and not may_be_empty:
            raise FeedError(f"{path}: line 2: expected orders, got an empty file")


class Rising:
    """Checks messages of two merged files: numbers rise, time does not run backwards."""

    def __init__(self, time_column: str) -> None:
        self._last = {"sequence": -1, "time_ns": 0}
        self._columns = {"sequence": ("ApplSeqNum", 1, "a number that the other file does not hold"),
                         "time_ns": (time_column, 0, "no time before that of the message before it")}

    def check(self, messages: np.ndarray, error: Callable[[np.ndarray, str, str, int], FeedError]) -> None:
        """FeedError, made by `error`, at the first message that does not follow those before it."""
        # Each file rises by itself, so a number that does not rise here stands in both.
        for name, (column, step, what) in self._columns.items():
            bad = np.diff(messages[name], prepend=self._last[name]) < step
            if bad.any():
                row = int(np.argmax(bad))
                raise error(messages[row], column, what, int(messages[name][row]))
            self._last[name] = int(messages[name][-1])


def _orders(rows: Rows, tick: int) -> np.ndarray:
    messages = np.zeros(len(rows.line), MESSAGE)
    kind = rows.integers("OrderType", 0, LARGEST_ID)
    rows.require((kind == ADD) | (kind == DELETE), "OrderType", f"{ADD} (add) or {DELETE} (delete)")
    messages["type"] = kind
    messages["kind"] = _KINDS[rows.integers("OrderBSFlag", 1, 2)]
    messages["time_ns"] = rows.clock_ns("MDTime", ZONE_S)
    messages["price"] = rows.price("OrderPrice", tick, low=0)
    rows.require((messages["price"] > 0) | (kind == DELETE), "OrderPrice", "a price above 0")
    messages["volume"] = rows.integers("OrderQty", 1, MAX_VOLUME)
    messages["id"] = rows.integers("OrderNO", 0, LARGEST_ID)
    messages["sequence"] = rows.integers("ApplSeqNum", 0, LARGEST_SEQUENCE)
    return messages


def _trades(rows: Rows, tick: int) -> np.ndarray:
    messages = np.zeros(len(rows.line), MESSAGE)
    buy, sell = rows.integers("TradeBuyNo", 0, LARGEST_ID), rows.integers("TradeSellNo", 0, LARGEST_ID)
    kind = _KINDS[rows.integers("TradeBSFlag", 0, 2)]
    messages["type"], messages["kind"] = TRADE, kind
    messages["time_ns"] = rows.clock_ns("MDTime", ZONE_S)
    messages["price"] = rows.price("TradePrice", tick)
    messages["volume"] = rows.integers("TradeQty", 1, MAX_VOLUME)
    messages["id"], messages["other"] = np.where(kind == Kind.SELL, sell, buy), np.where(kind == Kind.SELL, buy, sell)
    messages["sequence"] = rows.integers("ApplSeqNum", 0, LARGEST_SEQUENCE)
    return messages


def merged(*files: Iterator[np.ndarray]) -> Iterator[np.ndarray]:
    """Blocks of both files -> blocks in ApplSeqNum order, as far as both files are known."""
    held = [next(file, None) for file in files]
    while any(block is not None for block in held):
        # Past the last message held of either file the other one may still have something to come before.
        end = min(block["sequence"][-1] for block in held if block is not None)
        ready = []
        for i, block in enumerate(held):
            if block is not None:
                count = int(np.searchsorted(block["sequence"], end, side="right"))
                ready.append(block[:count])
                held[i] = block[count:] if count < len(block) else next(files[i], None)
        messages = np.concatenate(ready)
        yield messages[np.argsort(messages["sequence"], kind="stable")]


def is_continued(messages: np.ndarray) -> np.ndarray:
    """bool [N]: the message belongs to the same order as the one before it."""
    before, after = messages[:-1], messages[1:]
    is_fill = (messages["type"] == TRADE) & (messages["kind"] != AUCTION)
    joins = is_fill[:-1] & (is_fill[1:] | (after["type"] == ADD))
    joins &= (before["id"] == after["id"]) & (before["kind"] == after["kind"])
    return np.concatenate([[False], joins])


def whole_groups(blocks: Iterator[np.ndarray], is_continued: Callable[[np.ndarray], np.ndarray]
                 ) -> Iterator[np.ndarray]:
    """Blocks that split no group: the last group of a block waits for what may follow it."""
    waiting = np.zeros(0, MESSAGE)
    for block in blocks:
        block = np.concatenate([waiting, block])
        end = int(np.flatnonzero(~is_continued(block))[-1])
        block, waiting = block[:end], block[end:]
        if len(block):
            yield block
    if len(waiting):
        yield waiting


def published_fills(trades: np.ndarray) -> PublishedFills:
    """Trades, MESSAGE [N] -> the fills that they are."""
    is_sell = trades["kind"] == Kind.SELL
    return PublishedFills(
        time_ns=trades["time_ns"].copy(), sequence=trades["sequence"].copy(),
        **{name: column.astype(np.int32) for name, column in (
            ("price", trades["price"]), ("volume", trades["volume"]), ("aggressor", trades["kind"]),
            ("buy_id", np.where(is_sell, trades["other"], trades["id"])),
            ("sell_id", np.where(is_sell, trades["id"], trades["other"])))})
