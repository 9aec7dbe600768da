"""The messages of the Shenzhen files: columns by any of the names in use, merged by ApplSeqNum, in whole groups."""

import functools
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from marsjax.core.records import MAX_VOLUME, NO_ID, Kind
from marsjax.core.times import SECOND_NS
from marsjax.data.csv_rows import Rows, first_names
from marsjax.data.feed import AUCTION, LARGEST_ID, FeedError
from marsjax.data.sse_messages import MESSAGE, ZONE_S, OneDay, merged, whole_groups

MARKET, LIMIT, OWN_BEST, CANCEL, TRADE = 1, 2, 3, 10, -1
ORDER_LAYOUTS: tuple[dict[str, str], ...] = (
    {"time": "TransactTime", "type": "OrdType", "price": "Price", "volume": "OrderQty", "side": "Side"},
    {"time": "TransactTime", "type": "OrderType", "price": "Price", "volume": "OrderQty", "side": "Side"},
    {"time": "MDTime", "type": "OrderType", "price": "OrderPrice", "volume": "OrderQty", "side": "OrderBSFlag"})
"""Names of the columns beside ApplSeqNum: the exchange's own, and those of files made like Shanghai's."""
TRADE_LAYOUTS: tuple[dict[str, str], ...] = (
    {"time": "TransactTime", "type": "ExecType", "price": "LastPx", "volume": "LastQty", "buy": "BidApplSeqNum",
     "sell": "OfferApplSeqNum"},
    {"time": "TransactTime", "type": "ExecType", "price": "TradePrice", "volume": "TradeQty", "buy": "BidApplSeqNum",
     "sell": "OfferApplSeqNum"},
    {"time": "MDTime", "type": "TradeType", "price": "TradePrice", "volume": "TradeQty", "buy": "TradeBuyNo",
     "sell": "TradeSellNo"})
SEQUENCE = "ApplSeqNum"
TIME = "time"
_SAME_COLUMNS = ("SecurityID", "MDDate", "ChannelNo")
# Letters are written as themselves, or as their codes in ASCII.
_TYPES = {"1": MARKET, "2": LIMIT, "U": OWN_BEST, "3": OWN_BEST, "49": MARKET, "50": LIMIT, "85": OWN_BEST}
_SIDES = {"1": Kind.BUY, "2": Kind.SELL, "B": Kind.BUY, "S": Kind.SELL, "49": Kind.BUY, "50": Kind.SELL}
_EXECUTIONS = {"F": TRADE, "4": CANCEL, "70": TRADE, "52": CANCEL}
_TRADE_TYPES = {"0": TRADE, "1": CANCEL} | _EXECUTIONS
_OPEN_NS, _CLOSE_NS = (9 * 60 + 30) * 60 * SECOND_NS, (14 * 60 + 57) * 60 * SECOND_NS


def groups(orders_path: Path, trades_path: Path, chunk_rows: int, tick: int) -> Iterator[np.ndarray]:
    """Both files as blocks of MESSAGE in ApplSeqNum order; no block ends within the messages of one order.

    `type` is one of the constants above, `kind` the side of the order, or of the aggressor, or AUCTION; `id` the order
    or the aggressor (the buyer in auctions), `other` the resting order of a trade.
    """
    one_day = OneDay(_SAME_COLUMNS)
    order, trade = layout(orders_path, ORDER_LAYOUTS), layout(trades_path, TRADE_LAYOUTS)
    both = merged(
        one_day.messages(orders_path, [*order.values(), SEQUENCE], chunk_rows,
                         functools.partial(_orders, names=order, tick=tick), may_be_empty=False),
        one_day.messages(trades_path, [*trade.values(), SEQUENCE], chunk_rows,
                         functools.partial(_trades, names=trade, tick=tick)))
    yield from whole_groups(both, is_continued)


def layout(path: Path, layouts: tuple[dict[str, str], ...]) -> dict[str, str]:
    """Which of the layouts a file has; FeedError where it has none."""
    names = first_names(path)
    for columns in layouts:
        if {*columns.values(), SEQUENCE} <= set(names):
            return columns
    nearest = min(layouts, key=lambda columns: len(set(columns.values()) - set(names)))
    missing = [name for name in (*nearest.values(), SEQUENCE) if name not in names]
    raise FeedError(f"{path}: line 1: expected columns {', '.join(missing)}, got {','.join(names)[:300]!r}")


def _orders(rows: Rows, names: Mapping[str, str], tick: int) -> np.ndarray:
    messages = np.zeros(len(rows.line), MESSAGE)
    kind = rows.codes(names["type"], _TYPES)
    messages["type"], messages["kind"] = kind, rows.codes(names["side"], _SIDES)
    messages["time_ns"] = rows.clock_ns(names["time"], ZONE_S)
    # Of other orders the price is 0, or a protection that the exchange does not say how it used.
    price = rows.columns[names["price"]]
    messages["price"][kind == LIMIT] = rows.where(kind == LIMIT).price(names["price"], tick)
    rows.require((kind == LIMIT) | (price.length > 0), names["price"], "a price, or 0")
    messages["volume"] = rows.integers(names["volume"], 1, MAX_VOLUME)
    messages["sequence"] = messages["id"] = rows.integers(SEQUENCE, 1, LARGEST_ID)
    return messages


def _trades(rows: Rows, names: Mapping[str, str], tick: int) -> np.ndarray:
    messages = np.zeros(len(rows.line), MESSAGE)
    messages["sequence"] = sequence = rows.integers(SEQUENCE, 1, LARGEST_ID)
    kind = rows.codes(names["type"], _EXECUTIONS if names["type"] == "ExecType" else _TRADE_TYPES)
    buy, sell = rows.integers(names["buy"], 0, LARGEST_ID), rows.integers(names["sell"], 0, LARGEST_ID)
    is_trade = kind == TRADE
    for name, number in (("buy", buy), ("sell", sell)):
        rows.require(~is_trade | (number > 0), names[name], "the number of an order")
        rows.require(number < sequence, names[name], f"a number below its own, {SEQUENCE}")
    rows.require(is_trade | ((buy > 0) != (sell > 0)), names["sell"], "a cancel of either a buy or a sell order")
    time_ns = rows.clock_ns(names["time"], ZONE_S)
    is_auction = is_trade & ((time_ns < _OPEN_NS) | (time_ns >= _CLOSE_NS))
    is_buy = np.where(is_trade, (buy > sell) | is_auction, buy > 0)
    messages["type"], messages["time_ns"] = kind, time_ns
    messages["kind"] = np.where(is_auction, AUCTION, np.where(is_buy, Kind.BUY, Kind.SELL))
    messages["price"][is_trade] = rows.where(is_trade).price(names["price"], tick)
    messages["volume"] = rows.integers(names["volume"], 1, MAX_VOLUME)
    messages["id"] = np.where(is_buy, buy, sell)
    messages["other"] = np.where(is_trade, np.where(is_buy, sell, buy), NO_ID)
    return messages


def is_order(messages: np.ndarray) -> np.ndarray:
    """bool [N], whether a message is a new order."""
    return np.isin(messages["type"], (MARKET, LIMIT, OWN_BEST))


def is_continued(messages: np.ndarray) -> np.ndarray:
    """bool [N]: the message belongs to the order that it follows: its fills, and the cancel that drops its rest.

    The exchange drops at once what a market order leaves, so that cancel has the time of its order.
    """
    rows = np.arange(len(messages))
    new = is_order(messages)
    of = np.maximum.accumulate(np.where(new, rows, -1))
    order = messages[np.maximum(of, 0)]
    same = (of >= 0) & ~new & (messages["id"] == order["id"]) & (messages["kind"] == order["kind"])
    is_fill = (messages["type"] == TRADE) & (messages["kind"] != AUCTION)
    is_drop = (messages["type"] == CANCEL) & (order["type"] != LIMIT) & (messages["time_ns"] == order["time_ns"])
    joins = same & (is_fill | is_drop)
    # All between it and its order must join too, and nothing after a cancel does.
    ends = ~new & ~joins | (np.roll(joins & (messages["type"] == CANCEL), 1) & (rows > 0) & ~new)
    last_end = np.maximum.accumulate(np.where(ends, rows, -1))
    return joins & (last_end < of)
