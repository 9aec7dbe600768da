"""A trace as tables: its orders, one row each, cancels by price one row for each order that they hit, and trades.

Columns as in `market_tables`, with the trajectory of each row before them; `i` counts the orders of a trajectory from
its start on, over all chunks.
"""

from typing import NamedTuple

import jax
import numpy as np

from marsjax.core import int64, times
from marsjax.core.records import NO_ID, Array, BookView, Int64, Kind, Side
from marsjax.observers.market_tables import STATUSES, Table
from marsjax.observers.trace import Log, orders_of


def orders(log: Log, numbers: np.ndarray) -> Table:
    """The orders of a log [B, ...] in sequence, trajectory by trajectory.

    Columns: trajectory (from `numbers` [B]), i, time_ns since midnight, source (0 the background agent, 1 + j the j-th
    other), type (S, B, C), price (1e-4 of the currency; of a cancel, of the order that it hit), volume (shares),
    order_id, cancel_type, cancel_id, agent_id (the account), status (a name of `Status`), and after it: traded
    (shares), mid_twice, spread, ask, bid, ask_volume, bid_volume (shares at the best prices, 0 for none), and before
    it mid_twice_before. The cancels of one decision come at one time, and each of their rows shows the book before the
    first and after the last of them.
    """
    places = _order_places(log)
    b, i, k = places.row, places.event, places.k
    event = log.events
    by_price = np.asarray(event.is_by_price & (event.trades.count > 0))[b, i]

    def single(x: Array) -> np.ndarray:
        return np.asarray(x)[b, i]

    def each(x: Array) -> np.ndarray:
        return np.asarray(x)[b, i, np.where(by_price, k, 0)]

    def best(side: Int64) -> np.ndarray:
        return int64.to_numpy(jax.tree.map(lambda x: single(x[..., 0]), side))

    order, kind = event.order, single(event.order.kind)
    is_cancel = kind == Kind.CANCEL
    return {
        "trajectory": np.asarray(numbers)[b], "i": places.number, "time_ns": times.to_ns(order.time)[b, i],
        "source": single(event.source), "type": np.array(["S", "B", "C"])[kind],
        "price": np.where(is_cancel, each(event.trades.price), single(order.price)),
        "volume": np.where(by_price, each(event.trades.volume_each), single(order.volume)),
        "order_id": single(event.order_id) + np.where(by_price, k, 0),
        "cancel_type": np.where(is_cancel, np.where(single(order.cancel_side) == Side.ASK, "S", "B"), "None"),
        "cancel_id": np.where(by_price, each(event.trades.resting_id),
                              np.where(is_cancel, single(order.cancel_id), NO_ID)),
        "agent_id": single(order.account), "status": STATUSES[single(event.status)],
        "traded": np.where(is_cancel, 0, int64.to_numpy(event.trades.volume)[b, i]),
        "mid_twice": single(event.view.mid_price_twice), "spread": single(event.view.spread),
        "ask": single(event.view.ask_price[..., 0]), "bid": single(event.view.bid_price[..., 0]),
        "ask_volume": best(event.view.ask_volume), "bid_volume": best(event.view.bid_volume),
        "mid_twice_before": single(event.before.mid_price_twice)}


def trades(log: Log, numbers: np.ndarray) -> Table:
    """The trades of a log [B, ...], in sequence, trajectory by trajectory.

    Columns: trajectory, i (of the aggressor's order), k (its k-th trade), time_ns, order_id (of the aggressor), type
    (S, B: its side), price, volume, resting_id, agent_id, resting_agent_id, status. Lists longer than
    `MarketSpec.trade_width` are cut (`Rollout.counters`).
    """
    b, i = _places(log)
    event, found = log.events, log.events.trades
    width = np.asarray(found.price).shape[-1]
    kind = np.asarray(found.kind)[b, i]
    count = np.where((kind == Kind.BUY) | (kind == Kind.SELL), np.minimum(np.asarray(found.count)[b, i], width), 0)
    number = _numbers(log, b, i)
    b, i, k, number = *_repeated(b, i, count), np.repeat(number, count)
    kind = np.asarray(found.kind)[b, i]
    return {"trajectory": np.asarray(numbers)[b], "i": number, "k": k, "time_ns": times.to_ns(event.order.time)[b, i],
            "order_id": np.asarray(event.order_id)[b, i],
            "type": np.array(["S", "B"])[kind], "price": np.asarray(found.price)[b, i, k],
            "volume": np.asarray(found.volume_each)[b, i, k], "resting_id": np.asarray(found.resting_id)[b, i, k],
            "agent_id": np.asarray(event.order.account)[b, i],
            "resting_agent_id": np.asarray(found.resting_account)[b, i, k],
            "status": STATUSES[np.asarray(event.status)[b, i]]}


def views(log: Log, numbers: np.ndarray) -> tuple[Table, BookView]:
    """The book after each order of a log [B, ...], a row as in `orders`: what they are of, and the views [N]."""
    places = _order_places(log)
    b, i = places.row, places.event
    event = log.events
    return ({"trajectory": np.asarray(numbers)[b], "i": places.number, "time_ns": times.to_ns(event.order.time)[b, i],
             "status": STATUSES[np.asarray(event.status)[b, i]]},
            jax.tree.map(lambda x: np.asarray(x)[b, i], event.view))


class Surroundings(NamedTuple):
    """What stands around the orders of a log, a row as in `orders`, NumPy arrays [N]."""

    before: BookView
    """The book before each."""
    after: BookView
    rest: np.ndarray
    """Shares of it that came to rest."""


def surroundings(log: Log) -> Surroundings:
    """The books before and after each order of a log [B, ...], trajectory by trajectory, and what came to rest."""
    b, i, k, _ = _order_places(log)
    event = log.events
    before, after, rest, kind = jax.tree.map(lambda x: np.asarray(x)[b, i],
                                             (event.before, event.view, event.trades.rest, event.order.kind))
    return Surroundings(before, after, np.where((k == 0) & (kind != Kind.CANCEL), rest, 0))


def shown(table: Table) -> Table:
    """`orders` as `market_tables` has them: prices that are not there are 0, and no mid or spread of a lone side."""
    both = (table["ask"] > 0) & (table["bid"] > 0) & (table["ask"] > table["bid"])
    rest = {name: column for name, column in table.items() if not name.startswith("mid_twice")}
    return rest | {"mid_price": np.where(both, (table["ask"].astype(np.int64) + table["bid"]) / 2, 0),
                   "spread": np.where(both, table["spread"], 0)}


class _Places(NamedTuple):
    """Where the rows of a table come from, NumPy arrays [N]."""

    row: np.ndarray
    event: np.ndarray
    k: np.ndarray
    """Which of an event's orders."""
    number: np.ndarray
    """Running number of the order in its trajectory."""


def _order_places(log: Log) -> _Places:
    """One row for each order, or one for each cancel that a cancel by price came to."""
    b, i = _places(log)
    number, count = _numbers(log, b, i), _orders_of(log)[b, i]
    b, i, k = _repeated(b, i, count)
    return _Places(b, i, k, np.repeat(number, count) + k)


def _orders_of(log: Log) -> np.ndarray:
    """int [B, N], orders of each event."""
    return np.asarray(orders_of(log.events))


def _numbers(log: Log, b: np.ndarray, i: np.ndarray) -> np.ndarray:
    """Running number of the first order of events at places [N]."""
    orders = _orders_of(log)
    return (np.asarray(log.first).astype(np.int64)[:, None] + np.cumsum(orders, axis=1) - orders)[b, i]


def _places(log: Log) -> tuple[np.ndarray, np.ndarray]:
    """Trajectory and place of every event, in sequence."""
    counts = np.asarray(log.count)
    b = np.repeat(np.arange(len(counts)), counts)
    return b, np.arange(len(b)) - np.repeat(np.cumsum(counts) - counts, counts)


def _repeated(b: np.ndarray, i: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Trajectory and place of each event `count` times, and the number of each copy, from 0 on."""
    row = np.repeat(np.arange(len(b)), count)
    return b[row], i[row], np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
