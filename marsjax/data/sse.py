"""Shanghai Stock Exchange, order by order: two files a day (orders, trades) -> the orders as they were sent.

The exchange publishes only what came to rest. An aggressive order shows as its trades and then, at once, an add of
what is left under the same id; `read` puts these together again into one limit order. Of an order that was filled
whole only the worst price it paid is known, which becomes its limit: it trades the same and nothing is left to rest.
"""

import dataclasses
import functools
import re
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from marsjax.core.records import MAX_VOLUME, NO_ID, Kind, Side
from marsjax.core.sessions import chinese_session
from marsjax.core.specs import AuctionRule
from marsjax.data import file_names
from marsjax.data.csv_rows import read_rows
from marsjax.data.feed import (
    AUCTION,
    BLOCK_ROWS,
    LARGEST_SEQUENCE,
    DayFeed,
    FeedChunk,
    FeedError,
    Snapshots,
    Venue,
    check_arguments,
    check_tick,
    chosen,
)
from marsjax.data.sse_messages import ADD, DELETE, TRADE, ZONE_S, Rising, groups, is_continued, published_fills
from marsjax.market import orders

LEVELS = 10
"""Levels a side in the published snapshots."""
VENUE = Venue(session=chinese_session(), auction_rule=AuctionRule.SHANGHAI)
"""Of shares; of funds and B shares see `tick_of`."""
_FINE_TICKS = re.compile(r"(?:5\d{5}|900\d{3})(?:\D.*)?")
_NEVER = LARGEST_SEQUENCE + 1


def read(orders_path: str | Path, trades_path: str | Path, *, chunk_rows: int = BLOCK_ROWS, account: int = 0,
         tick: int = VENUE.tick) -> Iterator[FeedChunk]:
    """One day of one symbol as chunks of orders, both files merged by ApplSeqNum.

    Args:
      orders_path: adds and deletes, CSV with a header, plain or gzip; further columns are ignored.
      trades_path: trades, alike; may hold none.
      chunk_rows: lines of each file held at a time; the orders do not depend on it.
      account: account of every order.
      tick: smallest price step, 1e-4 of the currency; prices are rounded to it, or refused where they are none.

    Returns:
      Chunks in exchange order; N differs from chunk to chunk. Cancels carry the price of the deleted order.

    Raises FeedError where the files are damaged or contradict each other, FileNotFoundError where one is missing.
    """
    paths = Path(orders_path), Path(trades_path)
    check_arguments(chunk_rows, *paths)
    check_tick(tick)
    return _chunks(*paths, chunk_rows, account, tick)


def tick_of(symbol: str) -> int:
    """The tick that the exchange sets for a code, in 1e-4: 10 for funds (5.....) and B shares (900...), else 100."""
    return 10 if _FINE_TICKS.fullmatch(symbol) else 100


def read_snapshots(path: str | Path, tick: int = VENUE.tick) -> Snapshots:
    """All snapshots that the exchange published in a day, L = 10; FeedError where the file is damaged."""
    columns = {name: [f"{name}{level + 1}" for level in range(LEVELS)]
               for name in ("SellPrice", "SellOrderQty", "BuyPrice", "BuyOrderQty")}
    names = ["MDTime", "NumTrades", "TotalVolumeTrade", "LastPx", *(name for side in columns.values() for name in side)]
    blocks = [
        (rows.clock_ns("MDTime", ZONE_S), rows.integers("TotalVolumeTrade", 0, LARGEST_SEQUENCE),
         rows.integers("NumTrades", 0, LARGEST_SEQUENCE), rows.price("LastPx", tick, low=0),
         *(np.stack([rows.price(name, tick, low=0) if "Price" in side else rows.integers(name, 0, LARGEST_SEQUENCE)
                     for name in columns[side]], axis=1) for side in columns))
        for rows in read_rows(Path(path), names, chunk_rows=100_000)]
    if not blocks:
        raise FeedError(f"{path}: line 2: expected snapshots, got only a header")
    return Snapshots(*(np.concatenate(parts) for parts in zip(*blocks, strict=True)))


def days(path: Path, symbols: Sequence[str] = (), date: str = "", tick: int | None = None) -> list[DayFeed]:
    """The days of a folder: pairs of files `<symbol>_<date>_orders.csv[.gz]` and `<symbol>_<date>_trades.csv[.gz]`.

    Arguments as of `sources.open_days`; `tick` as of `read`, None: that of `tick_of`. Raises FileNotFoundError where
    there are none, or where one of a pair is missing.
    """
    pairs = file_names.pairs(path, symbols, date, ("orders", "trades"))
    found = []
    for (symbol, day), pair in pairs.items():
        step = tick_of(symbol) if tick is None else tick
        venue = dataclasses.replace(VENUE, tick=step)
        found.append(DayFeed(symbol, day, functools.partial(read, *pair, tick=step), venue, publishes_fills=True))
    return chosen(found, symbols, date, f"{path}: <symbol>_<date>_orders.csv[.gz] with their trades"
                  + file_names.others(path, file_names.form("orders", "trades")))


def files(folder: Path, symbol: str, date: str) -> tuple[Path, Path]:
    """The names of the two files of a day, orders and trades; each is there or not."""
    return _file(folder, symbol, date, "orders"), _file(folder, symbol, date, "trades")


def _file(folder: Path, symbol: str, date: str, what: str) -> Path:
    plain = folder / f"{symbol}_{date}_{what}.csv"
    return plain if plain.is_file() else plain.with_suffix(".csv.gz")


def _chunks(orders_path: Path, trades_path: Path, chunk_rows: int, account: int, tick: int) -> Iterator[FeedChunk]:
    known = _Known(orders_path, trades_path)
    rising = Rising("MDTime")
    for messages in groups(orders_path, trades_path, chunk_rows, tick):
        rising.check(messages, known.error)
        yield _chunk(messages, known, account)


def _chunk(messages: np.ndarray, known: "_Known", account: int) -> FeedChunk:
    """Whole groups of messages -> orders and fills."""
    is_trade = messages["type"] == TRADE
    is_auction = is_trade & (messages["kind"] == AUCTION)
    is_first = ~is_continued(messages)[~is_auction]
    events = messages[~is_auction]
    start = np.flatnonzero(is_first)
    first, last = events[start], events[np.append(start, len(events))[1:] - 1]
    is_cancel, is_buy = first["type"] == DELETE, first["kind"] == Kind.BUY
    known.check(messages[is_trade], first, last)

    if len(start):
        high, low = np.maximum.reduceat(events["price"], start), np.minimum.reduceat(events["price"], start)
        volume = np.add.reduceat(events["volume"], start)
    else:
        high = low = volume = np.zeros(0, np.int64)
    worst = np.where(is_buy, high, low)
    price = np.where(last["type"] == TRADE, worst, last["price"])
    for wrong, column, expected, got in (
            (price != worst, "OrderPrice", "no fill beyond the limit of the rest", last["price"]),
            (volume > MAX_VOLUME, "TradeQty", f"at most {MAX_VOLUME} shares in one order", volume)):
        if wrong.any():
            row = int(np.argmax(wrong))
            raise known.error(last[row], column, expected, int(got[row]))
    order = orders.from_columns(
        time_ns=first["time_ns"], kind=np.where(is_cancel, Kind.CANCEL, first["kind"]), price=price, volume=volume,
        order_id=np.where(is_cancel, NO_ID, first["id"]),
        cancel_side=np.where(is_cancel, np.where(is_buy, Side.BID, Side.ASK), NO_ID),
        cancel_id=np.where(is_cancel, first["id"], NO_ID), account=np.full(len(start), account))
    return FeedChunk(order, published_fills(messages[is_trade]), last["sequence"].copy())


class _Known:
    """When each order of the day came to rest and was deleted, in runs sorted by their ids: 24 bytes an order."""

    def __init__(self, orders_path: Path, trades_path: Path) -> None:
        self._paths = orders_path, trades_path
        # int64 [3, N] each: id, rested, deleted. Each run is more than twice as long as the next.
        self._runs: list[np.ndarray] = []

    def error(self, message: np.ndarray, column: str, expected: str, got: int) -> FeedError:
        path = self._paths[int(message["type"] == TRADE)]
        return FeedError(f"{path}: line {message['line']}, column {column}: expected {expected}, got {got}")

    def check(self, trades: np.ndarray, first: np.ndarray, last: np.ndarray) -> None:
        """Takes in new orders, given by their first and last messages; FeedError where trades contradict them."""
        is_limit = first["type"] != DELETE
        self._add(first[is_limit], last[is_limit])
        deleted = last[~is_limit]
        for run in self._runs:
            place, found = _find(run, deleted["id"])
            found &= run[1][place] < deleted["sequence"]
            np.minimum.at(run[2], place[found], deleted["sequence"][found])
        for name, is_checked in (("id", trades["kind"] == AUCTION), ("other", np.ones(len(trades), bool))):
            named = trades[is_checked]
            found = np.zeros(len(named), bool)
            for run in self._runs:
                place, here = _find(run, named[name])
                found |= here & (run[1][place] < named["sequence"]) & (named["sequence"] < run[2][place])
            if not found.all():
                trade = named[np.argmin(found)]
                is_buy = (name == "id") != (trade["kind"] == Kind.SELL)
                raise self.error(trade, "TradeBuyNo" if is_buy else "TradeSellNo",
                                 "an order that rests (trade names an unknown order)", int(trade[name]))

    def _add(self, first: np.ndarray, last: np.ndarray) -> None:
        by_id = np.argsort(first["id"], kind="stable")
        first, last = first[by_id], last[by_id]
        found = np.zeros(len(first), bool)
        found[1:] = first["id"][1:] == first["id"][:-1]
        for run in self._runs:
            found |= _find(run, first["id"])[1]
        if found.any():
            message = first[np.argmax(found)]
            column = "TradeBuyNo" if message["kind"] == Kind.BUY else "TradeSellNo"
            column = "OrderNO" if message["type"] == ADD else column
            raise self.error(message, column, "a new order, all its messages together (order seen before)",
                             int(message["id"]))
        if not len(first):
            return
        rested = np.where(last["type"] == ADD, last["sequence"], _NEVER)
        run = np.stack([first["id"], rested, np.full(len(first), _NEVER)])
        while self._runs and self._runs[-1].shape[1] <= 2 * run.shape[1]:
            run = np.concatenate([self._runs.pop(), run], axis=1)
            run = run[:, np.argsort(run[0], kind="stable")]
        self._runs.append(run)


def _find(run: np.ndarray, order_id: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Place of each id in a run of `_Known`, and whether it is there."""
    place = np.minimum(np.searchsorted(run[0], order_id), run.shape[1] - 1)
    return place, run[0][place] == order_id
