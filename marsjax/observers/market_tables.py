"""Orders and what came of them as tables of one form, whether of a replay or of a rollout.

A table is a dict of columns, NumPy arrays of one length. As made here its numbers are the engine's own integers, and 0
stands for a price that is not there; `presented` gives every table its clock, the phase of its session and its units,
and makes what is not there empty. `i` is the running number of an order in its market (and trajectory): the same in
all tables, so that they can be joined by it.
"""

import decimal
from typing import Any, TypeAlias

import numpy as np

from marsjax.core import int64, times
from marsjax.core.errors import InputError
from marsjax.core.records import (
    NO_ID,
    Array,
    Book,
    BookView,
    Condition,
    Int64,
    Kind,
    Ledgers,
    Order,
    Report,
    Side,
    Status,
)
from marsjax.core.sessions import Phase, Session
from marsjax.core.specs import MarketSpec

Table: TypeAlias = dict[str, np.ndarray]
CURRENCY, INTEGER = "currency", "integer"
"""Prices as they are quoted, or as the integers of `MarketSpec.units`."""
STATUSES = np.array([status.name for status in Status])
CONDITIONS = np.array([condition.name for condition in Condition])
PHASES = np.array([phase.name for phase in Phase])
LETTERS = np.array(["S", "B", "C", ""])
_SIDES = ("ask", "bid")
_MONEY = ("value", "cash", "reserved_cash", "equity", "profit", "fees", "net_profit")
_VOLUMES = ("volume", "traded", "holdings", "_volume", "_shares", "shares_ahead", "shares_before")
"""Ends of the names of columns."""


def orders(sent: Order, reports: Report, view: BookView | None, first: int = 0, conditions: bool = False) -> Table:
    """A row an order, `sent` and `reports` [N]; numbered from `first` on.

    Columns: i, time_ns, type (B, S, C), price (its limit; of a cancel, of the order that it hit), volume, order_id,
    cancel_type, cancel_id, agent_id, condition (if they are wanted), status, traded, and of the book after it
    `touch`.
    """
    trades, kind = reports.trades, np.asarray(sent.kind)
    is_cancel = kind == Kind.CANCEL
    side = np.where(np.asarray(sent.cancel_side) == Side.ASK, "S", "B")
    given = np.where(np.asarray(reports.order_id) == NO_ID, sent.order_id, reports.order_id)
    table = {
        "i": first + np.arange(len(kind)), "time_ns": times.to_ns(sent.time), "type": LETTERS[kind],
        "price": np.where(is_cancel, np.asarray(trades.price)[..., 0], reports.price),
        "volume": np.asarray(sent.volume), "order_id": given, "cancel_type": np.where(is_cancel, side, "None"),
        "cancel_id": np.asarray(sent.cancel_id), "agent_id": np.asarray(sent.account)}
    if conditions:
        table["condition"] = CONDITIONS[np.where(is_cancel, Condition.REST, sent.condition)]
    table |= {"status": STATUSES[np.asarray(reports.status)],
              "traded": np.where(is_cancel, 0, int64.to_numpy(trades.volume))}
    return table if view is None else table | touch(view)


def transactions(sent: Order, reports: Report, first: int = 0, cancels: bool = True) -> Table:
    """A row a transaction of orders [N], cancels among them unless they are not wanted.

    Columns: i (of the order), k (its k-th), time_ns, type (of the aggressor, or C), price, volume, buy_id, sell_id,
    buy_agent_id, sell_agent_id, status. A cancel has the cancelled order on its own side, and -1 on the other.
    """
    trades = reports.trades
    kind = np.asarray(trades.kind)
    listed = np.asarray(trades.volume_each) > 0
    i, k = np.nonzero(listed if cancels else listed & (kind != Kind.CANCEL)[:, None])
    kind, bids = kind[i], (np.asarray(trades.side) == Side.BID)[i]
    of_rest = np.asarray(trades.resting_id)[i, k], np.asarray(trades.resting_account)[i, k]
    given = np.where(np.asarray(reports.order_id) == NO_ID, sent.order_id, reports.order_id)
    of_own = [np.where(kind == Kind.CANCEL, NO_ID, np.asarray(column)[i]) for column in (given, sent.account)]
    ids, accounts = ([np.where(bids, rest, own), np.where(bids, own, rest)]
                     for rest, own in zip(of_rest, of_own, strict=True))
    return {"i": first + i, "k": k, "time_ns": times.to_ns(sent.time)[i], "type": LETTERS[kind],
            "price": np.asarray(trades.price)[i, k], "volume": np.asarray(trades.volume_each)[i, k],
            "buy_id": ids[0], "sell_id": ids[1], "buy_agent_id": accounts[0], "sell_agent_id": accounts[1],
            "status": STATUSES[np.asarray(reports.status)[i]]}


def touch(view: BookView) -> Table:
    """The best of both sides, [N]: ask, bid, ask_volume, bid_volume, mid_price, spread; 0 for what is not there.

    `mid_price` (of both bests; it may be half an integer) and `spread` are there where both sides are, and not crossed
    (as they are while a call auction collects orders).
    """
    ask, bid = np.asarray(view.ask_price)[..., 0], np.asarray(view.bid_price)[..., 0]
    both = (ask > 0) & (bid > 0) & (ask > bid)
    volumes = {f"{side}_volume": _first(getattr(view, f"{side}_volume")) for side in _SIDES}
    return {"ask": ask, "bid": bid, **volumes, "mid_price": np.where(both, (ask.astype(np.int64) + bid) / 2, 0),
            "spread": np.where(both, ask - bid, 0)}


def _first(volume: Int64) -> np.ndarray:
    return int64.to_numpy(Int64(np.asarray(volume.hi)[..., 0], np.asarray(volume.lo)[..., 0]))


def levels(view: BookView) -> Table:
    """Views [N] with all their levels: last_price, mid_price, spread, ask_price_1 ..., ask_volume_1 ..., bid_ ..."""
    best = touch(view)
    table = {"last_price": np.asarray(view.last_price), "mid_price": best["mid_price"], "spread": best["spread"]}
    for side in _SIDES:
        sizes = {"price": np.asarray(getattr(view, f"{side}_price")),
                 "volume": int64.to_numpy(getattr(view, f"{side}_volume"))}
        for name, columns in sizes.items():
            table |= {f"{side}_{name}_{level + 1}": column for level, column in enumerate(columns.T)}
    return table


def depth(table: Table, view: BookView) -> Table:
    """Rows of `table` [N], each with every level that its view [N] has: side (ask, bid), level (from 1), price, volume.

    A level without shares has no row.
    """
    found: list[tuple[np.ndarray, ...]] = []
    for side in _SIDES:
        volume = int64.to_numpy(getattr(view, f"{side}_volume"))
        row, level = np.nonzero(volume > 0)
        price = np.asarray(getattr(view, f"{side}_price"))[row, level]
        found.append((row, np.full(len(row), side), level + 1, price, volume[row, level]))
    row, side_of, level, price, volumes = (np.concatenate(parts) for parts in zip(*found, strict=True))
    by_row = np.argsort(row, kind="stable")
    row = row[by_row]
    return ({name: column[row] for name, column in table.items()}
            | {"side": side_of[by_row], "level": level[by_row], "price": price[by_row], "volume": volumes[by_row]})


def resting(book: Book) -> Table:
    """The resting orders of books [B], in order of priority on each side.

    Columns: trajectory (0 to B - 1), side, price, volume, order_id, agent_id; orders_ahead and shares_ahead of it at
    its own price, and shares_before: of all orders that trade before it.
    """
    volume, price = np.asarray(book.volume).astype(np.int64), np.asarray(book.price)
    before = np.cumsum(volume, axis=-1) - volume
    slot = np.broadcast_to(np.arange(volume.shape[-1]), volume.shape)
    is_first = np.concatenate([np.ones((*price.shape[:-1], 1), bool), price[..., 1:] != price[..., :-1]], axis=-1)
    # The place of the first order at each one's price.
    head = np.maximum.accumulate(np.where(is_first, slot, 0), axis=-1)
    at = np.nonzero(volume > 0)
    return {"trajectory": at[0], "side": np.array(_SIDES)[at[1]], "price": price[at], "volume": volume[at],
            "order_id": np.asarray(book.order_id)[at], "agent_id": np.asarray(book.account)[at],
            "orders_ahead": (slot - head)[at], "shares_ahead": (before - np.take_along_axis(before, head, -1))[at],
            "shares_before": before[at]}


def ledgers(accounts: Ledgers) -> Table:
    """Accounts of markets [B], a row each; agent_id is -1 for what is of no account.

    Columns: trajectory, agent_id, cash, holdings, reserved_cash, reserved_shares.
    """
    cash = int64.to_numpy(accounts.cash)
    trajectory, agent = np.indices(cash.shape)
    count = cash.shape[1] - 1
    return {"trajectory": trajectory.ravel(), "agent_id": np.where(agent == count, -1, agent).ravel(),
            **{name: int64.to_numpy(getattr(accounts, name)).ravel()
               for name in ("cash", "holdings", "reserved_cash", "reserved_shares")}}


def phases(session: Session, time_ns: np.ndarray) -> np.ndarray:
    """Names of the `Phase` of times, nanoseconds since midnight [N]."""
    found = np.zeros(len(time_ns), np.int64)
    for period in session.periods:
        found[(time_ns >= period.start_ns) & (time_ns <= period.end_ns)] = int(period.phase)
    return PHASES[found]


def presented(market: MarketSpec, table: Table, prices: str = CURRENCY) -> Table:
    """A table as people read it: with clock, phase and units; prices that are not there are NaN.

    Args:
      market: of its orders.
      table: of this module.
      prices: CURRENCY, prices as quoted and volumes in shares, coins or contracts; INTEGER, both as the integers of
        `MarketSpec.units`, masked where a price is missing (mids may be half integers, and NaN).

    The columns `price_unit` and `volume_unit` say what one stands for. InputError for another word.
    """
    if prices not in (CURRENCY, INTEGER):
        raise InputError(f"prices: expected {CURRENCY} or {INTEGER}, got {prices!r}")
    found: Table = {}
    for name, column in table.items():
        found[name] = _column(market, name, column, prices == INTEGER)
        if name == "time_ns":
            found |= {"clock": times.clock(column), "phase": phases(market.session, column)}
    count, units = len(next(iter(table.values()))), market.units
    one = {CURRENCY: ("1", "1"), INTEGER: (units.price, units.volume)}[prices]
    return found | {"price_unit": np.full(count, f"{one[0]} {units.currency}".strip()),
                    "volume_unit": np.full(count, one[1])}


def _column(market: MarketSpec, name: str, column: np.ndarray, is_integer: bool) -> np.ndarray:
    price, volume = (decimal.Decimal(text) for text in (market.units.price, market.units.volume))
    if name in ("ask", "bid", "spread") or "price" in name or name.startswith("mid_"):
        if is_integer and column.dtype.kind != "f":
            return np.ma.masked_where(column <= 0, column) if (column <= 0).any() else column
        return np.where(column > 0, column if is_integer else _times(column, price), np.nan)
    if is_integer:
        return column
    if name in _MONEY:
        return _times(column, price * volume)
    return _times(column, volume) if name.endswith(_VOLUMES) or "_volume_" in name else column


def _times(column: Array, unit: decimal.Decimal) -> np.ndarray:
    """A column in units, as the nearest float: divided by a whole number where the unit is one over it."""
    if unit == 1:
        return np.asarray(column)
    over = 1 / unit
    whole: Any = int(over)
    return np.asarray(column) / whole if over == whole else np.asarray(column) * float(unit)
