"""Shenzhen Stock Exchange, level 2: two files a day (orders, trades and cancels) -> the orders as they were sent.

Unlike Shanghai, the exchange publishes every order as it comes, before its trades, so that an order is an order. Its id
is its ApplSeqNum: orders and trades of a channel share one sequence. A cancel stands among the trades.

- Type 2, a limit order, is passed on as it is.
- Type U (3), own side's best price: `Condition.OWN_BEST`.
- Type 1 stands for all other market orders; the feed does not say which, but what follows at once does. If its rest
  is cancelled at once (immediate or cancel, of five levels or all; fill or kill), it is an IMMEDIATE_OR_CANCEL order
  up to its worst price, or, where nothing traded, a FILL_OR_KILL order at any price, which the exchange drops again.
  If something rests, it is OPPOSITE_BEST. If all traded, OPPOSITE_BEST at one price and MARKET at several: in the same
  book they do the same. `FeedChunk.adapted` counts those that are not literally passed on.
- The cancel by which the exchange drops a rest at once is part of its order (`ignored`: dropped_rest); any other is a
  cancel.

By the exchange's trading rules, and its overview of them in English: call auctions 9:15-9:25 and 14:57-15:00,
continuous trading between, a break 11:30-13:00; market orders in continuous trading only; of several prices a call
auction takes the nearest to the last close or trade (`AuctionRule.SHENZHEN`). Trades stamped in an auction, or after
it, are its trades; in continuous trading the later order is the aggressor. Orders that the exchange
holds back, as they were beyond the price cage of ChiNext before April 2023, are passed on when they come, and a trade
that does not follow its aggressor at once is counted (`adapted`: late_trade).
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from pathlib import Path

import jax
import numpy as np

from marsjax.core.records import EMPTY_PRICE, MAX_PRICE, NO_ID, Condition, Kind, Side
from marsjax.core.sessions import chinese_session
from marsjax.core.specs import AuctionRule
from marsjax.data import file_names
from marsjax.data.feed import (
    AUCTION,
    BLOCK_ROWS,
    DayFeed,
    FeedChunk,
    FeedError,
    Venue,
    check_arguments,
    check_tick,
    chosen,
)
from marsjax.data.sse_messages import Rising, published_fills
from marsjax.data.szse_messages import (
    CANCEL,
    MARKET,
    ORDER_LAYOUTS,
    OWN_BEST,
    TIME,
    TRADE,
    TRADE_LAYOUTS,
    groups,
    is_continued,
    is_order,
    layout,
)
from marsjax.market import orders

VENUE = Venue(session=chinese_session(), auction_rule=AuctionRule.SHENZHEN, conditions=True)
"""Of shares; of funds and bonds see `tick_of`."""
_FINE = ("15", "16", "18", "12")


def read(orders_path: str | Path, trades_path: str | Path, *, chunk_rows: int = BLOCK_ROWS, account: int = 0,
         tick: int = VENUE.tick) -> Iterator[FeedChunk]:
    """One day of one symbol as chunks of orders, both files merged by ApplSeqNum (rules: the head of this file).

    Args:
      orders_path: CSV with a header, plain or gzip, its columns as one of `szse_messages.ORDER_LAYOUTS` names them.
      trades_path: trades and cancels, alike (`szse_messages.TRADE_LAYOUTS`); may hold none.
      chunk_rows: lines of each file held at a time; the orders do not depend on it.
      account: account of every order.
      tick: smallest price step, 1e-4 of the currency; prices are rounded to it, or refused where they are none.

    Returns:
      Chunks in exchange order; N differs from chunk to chunk. Cancels carry the price of their order, if it has one.

    Raises FeedError where the files are damaged or contradict each other, FileNotFoundError where one is missing.
    """
    paths = Path(orders_path), Path(trades_path)
    check_arguments(chunk_rows, *paths)
    check_tick(tick)
    return _chunks(*paths, chunk_rows, account, tick)


def days(path: Path, symbols: Sequence[str] = (), date: str = "", tick: int | None = None) -> list[DayFeed]:
    """The days of a folder: pairs of files `<symbol>_<date>_orders.csv[.gz]` and `<symbol>_<date>_trades.csv[.gz]`.

    Arguments as of `sources.open_days`; `tick` as of `read`, None: that of `tick_of`. Raises FileNotFoundError where
    there are none, or where one of a pair is missing.
    """
    found = []
    for (symbol, day), pair in file_names.pairs(path, symbols, date, ("orders", "trades")).items():
        step = tick_of(symbol) if tick is None else tick
        venue = dataclasses.replace(VENUE, tick=step)
        found.append(DayFeed(symbol, day, functools.partial(read, *pair, tick=step), venue, publishes_fills=True))
    return chosen(found, symbols, date, f"{path}: <symbol>_<date>_orders.csv[.gz] with their trades"
                  + file_names.others(path, file_names.form("orders", "trades")))


def tick_of(symbol: str) -> int:
    """The tick that the exchange's rules set for a code, in 1e-4: 10 for funds and bonds (15, 16, 18, 12), else 100."""
    return 10 if symbol[:6].isdigit() and len(symbol[:6]) == 6 and symbol.startswith(_FINE) else 100


def _chunks(orders_path: Path, trades_path: Path, chunk_rows: int, account: int, tick: int) -> Iterator[FeedChunk]:
    known = _OrdersLeft(orders_path, trades_path)
    rising = Rising(TIME)
    for messages in groups(orders_path, trades_path, chunk_rows, tick):
        rising.check(messages, known.error)
        known.check(messages)
        yield _chunk(messages, known, account, tick)


def _chunk(messages: np.ndarray, known: "_OrdersLeft", account: int, tick: int) -> FeedChunk:
    """Whole groups (an order with what it did at once, or one message else) -> orders and fills."""
    continued = is_continued(messages)
    starts = np.flatnonzero(~continued)
    first, last = messages[starts], messages[np.append(starts[1:], len(messages)) - 1]
    price, condition = _as_sent(messages, starts, tick)
    known.set_prices(first["id"][condition == Condition.OPPOSITE_BEST], price[condition == Condition.OPPOSITE_BEST])
    is_cancel = first["type"] == CANCEL
    side = np.where(first["kind"] == Kind.BUY, Side.BID, Side.ASK)
    made = orders.from_columns(
        time_ns=first["time_ns"], kind=np.where(is_cancel, Kind.CANCEL, first["kind"]),
        price=np.where(is_cancel, known.prices(first["id"]), price), volume=first["volume"],
        order_id=np.where(is_cancel, NO_ID, first["id"]), cancel_side=np.where(is_cancel, side, NO_ID),
        cancel_id=np.where(is_cancel, first["id"], NO_ID), account=np.full(len(first), account), condition=condition)
    # A trade that stands alone is an auction's, or comes later than its aggressor.
    kept = first["type"] != TRADE
    late = ~kept & (first["kind"] != AUCTION)
    dropped = continued & (messages["type"] == CANCEL)
    adapted = {"immediate_or_cancel": condition[kept] == Condition.IMMEDIATE_OR_CANCEL,
               "fill_or_kill": condition[kept] == Condition.FILL_OR_KILL,
               "market_rest": kept & (first["type"] == MARKET) & (condition == Condition.REST), "late_trade": late}
    return FeedChunk(
        jax.tree.map(lambda x: x[kept], made), published_fills(messages[messages["type"] == TRADE]),
        last["sequence"][kept].copy(), ignored=_counts({"dropped_rest": dropped}), adapted=_counts(adapted))


def _counts(found: dict[str, np.ndarray]) -> dict[str, int]:
    return {name: int(rows.sum()) for name, rows in found.items() if rows.any()}


def _as_sent(messages: np.ndarray, starts: np.ndarray, tick: int) -> tuple[np.ndarray, np.ndarray]:
    """Limit price and `Condition` of the order that each group starts with, int64 [G] each; of others 0 and REST."""
    first = messages[starts]
    is_fill = (messages["type"] == TRADE) & (messages["kind"] != AUCTION)
    high = np.maximum.reduceat(np.where(is_fill, messages["price"], 0), starts)
    low = np.minimum.reduceat(np.where(is_fill, messages["price"], MAX_PRICE), starts)
    left = first["volume"] - np.add.reduceat(np.where(is_fill, messages["volume"], 0), starts)
    is_dropped = np.add.reduceat(messages["type"] == CANCEL, starts) > 0
    is_buy, traded = first["kind"] == Kind.BUY, high > 0
    is_market = first["type"] == MARKET
    # In this order; where none holds, it is a limit order (or a message that becomes none).
    cases = [first["type"] == OWN_BEST, is_market & is_dropped & traded, is_market & is_dropped,
             is_market & (high <= low), is_market & (high == low), is_market & (left == 0)]
    condition = np.select(cases, [Condition.OWN_BEST, Condition.IMMEDIATE_OR_CANCEL, Condition.FILL_OR_KILL,
                                  Condition.OPPOSITE_BEST, Condition.OPPOSITE_BEST, Condition.MARKET], Condition.REST)
    highest = MAX_PRICE // tick * tick
    price = np.where(is_market, np.where(traded, np.where(is_buy, high, low), EMPTY_PRICE), first["price"])
    price = np.where(condition == Condition.FILL_OR_KILL, np.where(is_buy, highest, tick), price)
    return price, np.where(is_order(first), condition, Condition.REST)


class _OrdersLeft:
    """What is left of each order of the day, and its price, by its number: 13 bytes an order."""

    def __init__(self, orders_path: Path, trades_path: Path) -> None:
        self._paths = orders_path, trades_path
        self._names = layout(orders_path, ORDER_LAYOUTS), layout(trades_path, TRADE_LAYOUTS)
        # [M] with room for more: the first `_count` are known.
        self._columns: list[np.ndarray] = [np.zeros(0, kind) for kind in (np.int32, np.int32, np.int32, bool)]
        self._count = 0

    def error(self, message: np.ndarray, column: str, expected: str, got: int) -> FeedError:
        """The error for a message; `column` as the layouts call it."""
        file = int(not is_order(message[None])[0])
        name = self._names[file].get(column, column)
        return FeedError(f"{self._paths[file]}: line {message['line']}, column {name}: expected {expected}, got {got}")

    def check(self, messages: np.ndarray) -> None:
        """Takes in messages; FeedError where a trade or a cancel names no order that has these shares."""
        new = messages[is_order(messages)]  # their numbers rise
        self._append(new["id"], new["volume"], new["price"], new["kind"] == Kind.BUY)
        took = messages[~is_order(messages)]
        is_sell = took["kind"] == Kind.SELL
        for column, number in (("buy", np.where(is_sell, took["other"], took["id"])),
                               ("sell", np.where(is_sell, took["id"], took["other"]))):
            named = number != NO_ID
            place, found = self._find(number[named])
            found &= self._is_buy[place] == (column == "buy") if len(self._id) else False
            if not found.all():
                at = int(np.argmin(found))
                raise self.error(took[named][at], column, f"the number of a {column} order", int(number[named][at]))
            hit, of = np.unique(place, return_inverse=True)
            left = self._left[hit].astype(np.int64)
            np.subtract.at(left, of, took["volume"][named])
            if (left < 0).any():
                at = int(np.flatnonzero(left[of] < 0)[-1])
                raise self.error(took[named][at], "volume", f"no more than is left of order {number[named][at]}",
                                 int(took["volume"][named][at]))
            self._left[hit] = left

    def _append(self, *columns: np.ndarray) -> None:
        """Adds rows; where there is no room, as much again."""
        end = self._count + len(columns[0])
        for place, (held, new) in enumerate(zip(self._columns, columns, strict=True)):
            if end > len(held):
                more = np.zeros(max(end, 2 * len(held)) - len(held), held.dtype)
                self._columns[place] = held = np.concatenate([held, more])
            held[self._count : end] = new
        self._count = end
        self._id, self._left, self._price, self._is_buy = (column[:end] for column in self._columns)

    def prices(self, number: np.ndarray) -> np.ndarray:
        """The price of each order, 0 where it is none or its price is not known."""
        place, found = self._find(number)
        return np.where(found, self._price[place], EMPTY_PRICE) if len(self._id) else np.zeros(len(number), np.int64)

    def set_prices(self, number: np.ndarray, price: np.ndarray) -> None:
        """Prices that were found out."""
        self._price[self._find(number)[0]] = price

    def _find(self, number: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Place of each number in the columns, and whether it is there."""
        if not len(self._id):
            return np.zeros(len(number), np.int64), np.zeros(len(number), bool)
        place = np.minimum(np.searchsorted(self._id, number), len(self._id) - 1)
        return place, self._id[place] == number
