"""What a run kept as pandas DataFrames: orders, trades, snapshots, depth, accounts and resting orders.

`Rollout` and `replay.Replayed` have these as methods. pandas is imported when the first of them is made.
"""

import dataclasses
import decimal
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from marsjax.core import times
from marsjax.core.errors import InputError
from marsjax.core.records import BookView, Int64, Ledgers, Side, Time, Uncross
from marsjax.core.specs import MarketSpec
from marsjax.observers import market_tables
from marsjax.observers.market_tables import Table, presented

if TYPE_CHECKING:
    import pandas as pd


@dataclasses.dataclass(frozen=True)
class Fees:
    """What a venue charges for trades; negative for what it pays.

    Examples:
      >>> fees = Fees(maker=-0.0001, taker=0.0003)
      >>> round(10_000 * (fees.maker + fees.taker), 6)
      2.0
    """

    maker: float = 0.0
    """Of the value, on the order that rested."""
    taker: float = 0.0
    """Of the value, on the order that came."""
    maker_per_share: float = 0.0
    """Currency for each share, coin or contract of the order that rested."""
    taker_per_share: float = 0.0
    """Likewise of the order that came."""


FREE = Fees()
NOT_KEPT = ("add an observer that keeps the orders: Simulator.of(..., observers=[TraceObserver(market)]) "
            "(marsjax.observers)")
"""What to do about it."""


def frame(table: Table) -> "pd.DataFrame":
    """A table as a DataFrame; a masked column of integers becomes a nullable one."""
    import pandas as pd

    def column(values: np.ndarray) -> Any:
        if isinstance(values, np.ma.MaskedArray):
            return pd.arrays.IntegerArray(np.asarray(values.data, np.int64), np.ma.getmaskarray(values).copy())
        return values.astype(object) if values.dtype.kind == "U" else values

    return pd.DataFrame({name: column(values) for name, values in table.items()})


def together(parts: Sequence[Table], *by: str) -> Table:
    """Tables of the same columns as one, in order of some of them."""
    table = {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}
    if not by:
        return table
    order = np.lexsort([table[name] for name in reversed(by)])
    return {name: column[order] for name, column in table.items()}


def depth(market: MarketSpec, of: Table, views: BookView, prices: str) -> "pd.DataFrame":
    """Every level of views [N]; the rows that they are of stand in `of`."""
    return frame(presented(market, market_tables.depth(of, views), prices))


def snapshots(market: MarketSpec, of: Table, views: BookView, prices: str) -> "pd.DataFrame":
    """Views [N] as rows."""
    return frame(presented(market, of | market_tables.levels(views), prices))


def orders(market: MarketSpec, names: Sequence[str], table: Table, prices: str) -> "pd.DataFrame":
    """`trace_tables.shown`, with the names of who sent them by `source`."""
    rest = dict(table)
    agent = np.array(names)[rest.pop("source")]
    first = {name: rest.pop(name) for name in ("trajectory", "i", "time_ns")}
    return frame(presented(market, first | {"agent": agent} | rest, prices))


def trades(market: MarketSpec, table: Table, prices: str) -> "pd.DataFrame":
    """`trace_tables.trades` by side."""
    return frame(presented(market, two_sided(table), prices))


def two_sided(trades: Table) -> Table:
    """`trace_tables.trades` with the value, and ids and accounts by side instead of by who came and who rested."""
    buys = trades["type"] == "B"
    own, rest = ("order_id", "agent_id"), ("resting_id", "resting_agent_id")
    sides = {}
    for side, mine in (("buy", buys), ("sell", ~buys)):
        for name, came, rested in zip(("id", "agent_id"), own, rest, strict=True):
            sides[f"{side}_{name}"] = np.where(mine, trades[came], trades[rested])
    kept = {name: column for name, column in trades.items() if name not in (*own, *rest, "status")}
    return kept | {"value": trades["price"].astype(np.int64) * trades["volume"], **sides, "status": trades["status"]}


def by_role(trades: Table) -> Table:
    """`market_tables.transactions` of one market, without cancels, with accounts by who came and who rested."""
    buys = trades["type"] == "B"
    buyer, seller = trades["buy_agent_id"], trades["sell_agent_id"]
    return trades | {"trajectory": np.zeros(len(buys), np.int64), "agent_id": np.where(buys, buyer, seller),
                     "resting_agent_id": np.where(buys, seller, buyer)}


def state(market: MarketSpec, table: Table, time: Time, status: str | np.ndarray, prices: str) -> "pd.DataFrame":
    """A table of the states of trajectories (by its column `trajectory`) at their times [B]."""
    row = table["trajectory"]
    of = {"trajectory": row, "time_ns": np.atleast_1d(times.to_ns(time))[row]}
    return frame(presented(market, of | table | {"status": np.broadcast_to(status, len(row))}, prices))


class Before(NamedTuple):
    """What accounts of B markets had at a start."""

    ledgers: Ledgers
    """[B, N + 1]."""
    mid_twice: np.ndarray
    """int [B], twice the price that holdings are valued at."""


def accounts(market: MarketSpec, before: Before, after: Before, fees: Fees, trades: Table | None) -> Table:
    """What accounts came to between two moments, a row each.

    Columns: trajectory, agent_id (-1: of no account), cash, holdings, reserved_cash, reserved_shares, mark_price (the
    mid; of a lone side its best price; else the last trade's), equity (cash and holdings at the mark), profit (equity
    less what it was before), fees and net_profit. InputError where there are fees, and no trades to charge them on.
    """
    tables = [market_tables.ledgers(each.ledgers) for each in (before, after)]
    columns = np.shape(after.ledgers.cash.hi)[1]
    twice = [np.repeat(np.maximum(np.asarray(each.mid_twice, np.int64), 0), columns) for each in (before, after)]
    equity = [(2 * table["cash"] + table["holdings"] * mark) / 2 for table, mark in zip(tables, twice, strict=True)]
    charged = np.zeros(len(equity[0])) if fees == FREE else _charged(market, tables[1], fees, trades)
    profit = equity[1] - equity[0]
    return tables[1] | {"mark_price": twice[1] / 2, "equity": equity[1], "profit": profit, "fees": charged,
                        "net_profit": profit - charged}


def _charged(market: MarketSpec, rows: Table, fees: Fees, trades: Table | None) -> np.ndarray:
    """Fees of each account, in the unit of cash."""
    if trades is None:
        raise InputError("accounts: fees: expected the trades that they are charged on, and none were kept: "
                         f"{NOT_KEPT}")
    unit = float(decimal.Decimal(market.units.price) * decimal.Decimal(market.units.volume))
    share = float(decimal.Decimal(market.units.volume)) / unit
    total = np.zeros(len(rows["agent_id"]))
    columns = int(rows["trajectory"].max(initial=-1)) + 1
    width = len(total) // max(columns, 1)
    value, volume = trades["price"].astype(np.float64) * trades["volume"], trades["volume"].astype(np.float64)
    for account, rate, each in (("agent_id", fees.taker, fees.taker_per_share),
                                ("resting_agent_id", fees.maker, fees.maker_per_share)):
        who = np.where(trades[account] < 0, width - 1, trades[account])
        np.add.at(total, trades["trajectory"] * width + who, rate * value + each * share * volume)
    return total


def auctions(events: Sequence[tuple[int, int, Uncross]]) -> Table:
    """What orders traded in call auctions, given as (number, time in ns, NumPy `Uncross`), a row each.

    Columns: auction, time_ns, type (B, S), price, volume, order_id, agent_id, status.
    """
    parts = [_auction(*event) for event in events]
    return together(parts) if parts else _auction(0, 0, _NO_UNCROSS)


def _auction(number: int, time_ns: int, result: Uncross) -> Table:
    side, slot = np.nonzero(np.asarray(result.fill))
    count = len(side)
    return {"auction": np.full(count, number), "time_ns": np.full(count, time_ns, np.int64),
            "type": np.where(side == Side.BID, "B", "S"), "price": np.full(count, int(result.price)),
            "volume": np.asarray(result.fill)[side, slot], "order_id": np.asarray(result.order_id)[side, slot],
            "agent_id": np.asarray(result.account)[side, slot], "status": np.full(count, "TRADED")}


_NONE = np.zeros((2, 1), np.int32)
_ZERO = np.zeros((), np.int32)
_NO_UNCROSS = Uncross(_ZERO, Int64(_ZERO, _ZERO.astype(np.uint32)), _NONE, _NONE, _NONE, _NONE)


def in_queue(rows: Table, queue: Table) -> Table:
    """Of each account of `rows`: orders and shares that rest, and shares ahead of its first order on each side."""
    found = {f"{side}_{what}": np.zeros(len(rows["agent_id"]), np.int64)
             for side in ("bid", "ask") for what in ("orders", "resting_shares")}
    ahead = {f"{side}_shares_ahead": np.full(len(rows["agent_id"]), np.nan) for side in ("bid", "ask")}
    width = len(rows["agent_id"]) // (int(rows["trajectory"].max(initial=-1)) + 1 or 1)
    place = queue["trajectory"] * width + np.where(queue["agent_id"] < 0, width - 1, queue["agent_id"])
    for side in ("bid", "ask"):
        mine = queue["side"] == side
        np.add.at(found[f"{side}_orders"], place[mine], 1)
        np.add.at(found[f"{side}_resting_shares"], place[mine], queue["volume"][mine])
        first, at_row = np.unique(place[mine], return_index=True)  # in order of priority: the first is the best
        ahead[f"{side}_shares_ahead"][first] = queue["shares_before"][mine][at_row]
    return rows | found | ahead
