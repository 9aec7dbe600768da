"""A trace as tables: its orders, one row each, cancels by price one row for each order that they hit, and trades."""

import jax
import numpy as np

from marsjax import clock
from marsjax.types import NO_ID, Array, Kind, Side, Status, Wide
from marsjax.watchers.trace import Log

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
    bulk = np.asarray(event.is_bulk)[b, i]
    taken = event.cancelled.trades
    count = np.asarray(taken.count)[b, i]
    listed = np.minimum(count, np.asarray(taken.price).shape[-1])
    # One row for each order, or one for each cancel that a decision came to.
    parts = np.where(bulk[:, None], listed, np.array([1, 0]))
    row = np.repeat(np.arange(len(b)), parts.sum(axis=1))
    place = np.arange(len(row)) - np.repeat(np.cumsum(parts.sum(axis=1)) - parts.sum(axis=1), parts.sum(axis=1))
    side = (place >= parts[row, 0]).astype(np.int64)
    k = place - np.where(side == 1, parts[row, 0], 0)
    b, i, bulk = b[row], i[row], bulk[row]

    def single(x: Array) -> np.ndarray:
        return np.asarray(x)[b, i]

    def of_bulk(x: Array) -> np.ndarray:
        return np.asarray(x)[b, i, side, k]

    def best(side: Wide) -> np.ndarray:
        return clock.wide_to_numpy(jax.tree.map(lambda x: single(x[..., 0]), side))

    kind, order = single(event.order.kind), event.order
    is_cancel = kind == Kind.CANCEL
    status = np.where(bulk, np.asarray(event.cancelled.status)[b, i, side], single(event.report.status))
    own_price = np.where(is_cancel, single(event.report.trades.price[..., 0]), single(order.price))
    cancel_side = np.where(bulk, side, single(order.cancel_side))
    names = np.array([entry.name for entry in Status])
    return {
        "trajectory": np.asarray(numbers)[b], "time_ns": clock.time_to_ns(order.time)[b, i],
        "source": single(event.source), "type": np.array(["S", "B", "C"])[kind],
        "price": np.where(bulk, of_bulk(taken.price), own_price),
        "volume": np.where(bulk, of_bulk(taken.volume_each), single(order.volume)),
        "order_id": np.where(bulk, np.asarray(event.cancelled.order_id)[b, i, side] + k, single(event.report.order_id)),
        "cancel_type": np.where(is_cancel, np.where(cancel_side == Side.ASK, "S", "B"), "None"),
        "cancel_id": np.where(bulk, of_bulk(taken.resting_id), np.where(is_cancel, single(order.cancel_id), NO_ID)),
        "agent_id": single(order.owner), "status": names[status],
        "traded": np.where(is_cancel, 0, clock.wide_to_numpy(event.report.trades.volume)[b, i]),
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
    found = log.events.report.trades
    width = np.asarray(found.price).shape[-1]
    kind = np.asarray(found.kind)[b, i]
    count = np.where((kind == Kind.BUY) | (kind == Kind.SELL), np.minimum(np.asarray(found.count)[b, i], width), 0)
    row = np.repeat(np.arange(len(b)), count)
    k = np.arange(len(row)) - np.repeat(np.cumsum(count) - count, count)
    b, i = b[row], i[row]
    return {"trajectory": np.asarray(numbers)[b], "order_id": np.asarray(log.events.report.order_id)[b, i],
            "type": np.array(["S", "B"])[kind[row]], "price": np.asarray(found.price)[b, i, k],
            "volume": np.asarray(found.volume_each)[b, i, k], "resting_id": np.asarray(found.resting_id)[b, i, k],
            "resting_agent_id": np.asarray(found.resting_owner)[b, i, k]}


def _places(log: Log) -> tuple[np.ndarray, np.ndarray]:
    """Trajectory and place of every event, in sequence."""
    counts = np.asarray(log.count)
    b = np.repeat(np.arange(len(counts)), counts)
    return b, np.arange(len(b)) - np.repeat(np.cumsum(counts) - counts, counts)

