"""A trace as tables: its orders, one row each, cancels by price one row for each order that they hit, and trades."""

import jax
import numpy as np

from marsjax.core import int64, times
from marsjax.core.records import NO_ID, Array, Int64, Kind, Side, Status
from marsjax.observers.trace import Log

Table = dict[str, np.ndarray]


def orders(log: Log, numbers: np.ndarray) -> Table:
    """The orders of a log [B, ...] in sequence, trajectory by trajectory.

    Columns: trajectory (from `numbers` [B]), time_ns since midnight, source (0 the background agent, 1 + i the i-th
    other), type (S, B, C), price (1e-4 of the currency; of a cancel, of the order that it hit), volume (shares),
    order_id, cancel_type, cancel_id, agent_id (the account), status (a name of `Status`), and after it: traded
    (shares), mid_twice, spread, ask, bid, ask_volume, bid_volume (shares at the best prices, 0 for none), and before
    it mid_twice_before. The cancels of one decision come at one time, and each of their rows shows the book before the
    first and after the last of them.
    """
    b, i = _places(log)
    event = log.events
    by_price = np.asarray(event.is_by_price)[b, i]
    # One row for each order, or one for each cancel that a cancel by price came to.
    listed = np.minimum(np.asarray(event.trades.count), np.asarray(event.trades.price).shape[-1])[b, i]
    b, i, k = _repeated(b, i, np.where(by_price, listed, 1))
    by_price = np.asarray(event.is_by_price)[b, i]

    def single(x: Array) -> np.ndarray:
        return np.asarray(x)[b, i]

    def each(x: Array) -> np.ndarray:
        return np.asarray(x)[b, i, np.where(by_price, k, 0)]

    def best(side: Int64) -> np.ndarray:
        return int64.to_numpy(jax.tree.map(lambda x: single(x[..., 0]), side))

    order, kind = event.order, single(event.order.kind)
    is_cancel = kind == Kind.CANCEL
    names = np.array([entry.name for entry in Status])
    return {
        "trajectory": np.asarray(numbers)[b], "time_ns": times.to_ns(order.time)[b, i],
        "source": single(event.source), "type": np.array(["S", "B", "C"])[kind],
        "price": np.where(is_cancel, each(event.trades.price), single(order.price)),
        "volume": np.where(by_price, each(event.trades.volume_each), single(order.volume)),
        "order_id": single(event.order_id) + np.where(by_price, k, 0),
        "cancel_type": np.where(is_cancel, np.where(single(order.cancel_side) == Side.ASK, "S", "B"), "None"),
        "cancel_id": np.where(by_price, each(event.trades.resting_id),
                              np.where(is_cancel, single(order.cancel_id), NO_ID)),
        "agent_id": single(order.account), "status": names[single(event.status)],
        "traded": np.where(is_cancel, 0, int64.to_numpy(event.trades.volume)[b, i]),
        "mid_twice": single(event.view.mid_price_twice), "spread": single(event.view.spread),
        "ask": single(event.view.ask_price[..., 0]), "bid": single(event.view.bid_price[..., 0]),
        "ask_volume": best(event.view.ask_volume), "bid_volume": best(event.view.bid_volume),
        "mid_twice_before": single(event.before.mid_price_twice)}


def trades(log: Log, numbers: np.ndarray) -> Table:
    """The trades of a log [B, ...], in sequence, trajectory by trajectory.

    Columns: trajectory, order_id (of the aggressor), type (S, B: its side), price, volume, resting_id,
    resting_agent_id. Lists longer than `MarketSpec.trade_width` are cut (`Rollout.counters`).
    """
    b, i = _places(log)
    found = log.events.trades
    width = np.asarray(found.price).shape[-1]
    kind = np.asarray(found.kind)[b, i]
    count = np.where((kind == Kind.BUY) | (kind == Kind.SELL), np.minimum(np.asarray(found.count)[b, i], width), 0)
    b, i, k = _repeated(b, i, count)
    kind = np.asarray(found.kind)[b, i]
    return {"trajectory": np.asarray(numbers)[b], "order_id": np.asarray(log.events.order_id)[b, i],
            "type": np.array(["S", "B"])[kind], "price": np.asarray(found.price)[b, i, k],
            "volume": np.asarray(found.volume_each)[b, i, k], "resting_id": np.asarray(found.resting_id)[b, i, k],
            "resting_agent_id": np.asarray(found.resting_account)[b, i, k]}


def _places(log: Log) -> tuple[np.ndarray, np.ndarray]:
    """Trajectory and place of every event, in sequence."""
    counts = np.asarray(log.count)
    b = np.repeat(np.arange(len(counts)), counts)
    return b, np.arange(len(b)) - np.repeat(np.cumsum(counts) - counts, counts)


def _repeated(b: np.ndarray, i: np.ndarray, count: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Trajectory and place of each event `count` times, and the number of each copy, from 0 on."""
    row = np.repeat(np.arange(len(b)), count)
    return b[row], i[row], np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
