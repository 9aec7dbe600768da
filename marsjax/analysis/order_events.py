"""`OrderEvents` of real days, and of simulated trajectories: what `quantities` are taken of."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np

from marsjax.analysis.quantities import OrderEvents
from marsjax.core import int64, times
from marsjax.core.records import Array, BookView, Int64, Kind, Status
from marsjax.observers.trace_tables import Table
from marsjax.sim.initial import Passed, joined

UNKNOWN = -1
"""Lifetime of a cancelled order of which it is not known when it came, and of orders that are no cancel."""
COLUMNS = ("time_ns", "type", "price", "volume", "order_id", "cancel_id", "traded", "mid_twice_before", "mid_twice",
           "spread", "ask_volume", "bid_volume")
"""Columns of `trace_tables.orders` that `of_trace` reads."""


class Arrivals(NamedTuple):
    """When orders came, by id; NumPy arrays [N] in order of the id."""

    order_id: np.ndarray
    time_ns: np.ndarray
    """int64, since midnight."""
    price: np.ndarray


def arrivals(order_id: np.ndarray, time_ns: np.ndarray, price: np.ndarray) -> Arrivals:
    """An index of orders [N]; of equal ids the last counts."""
    order = np.argsort(order_id, kind="stable")
    return Arrivals(order_id[order], time_ns[order], price[order])


def arrivals_of(passed: Sequence[Passed]) -> Arrivals:
    """All accepted limit orders of a day, those of call auctions too."""
    sent, status = (jax.tree.map(lambda *x: np.concatenate(x), *parts)
                    for parts in ([part.orders for part in passed], [part.status for part in passed]))
    keep = (status == Status.ACCEPTED) & ((sent.kind == Kind.BUY) | (sent.kind == Kind.SELL))
    return arrivals(sent.order_id[keep], times.to_ns(sent.time)[keep], sent.price[keep])


def of_passed(passed: Sequence[Passed]) -> OrderEvents:
    """The accepted orders of continuous trading in stretches of one real day, in order, from its beginning.

    What an order traded is read off the levels of the view before it: exact as far as they reach.
    """
    part = joined(passed)
    sent, view, time_ns = part.orders, part.views, times.to_ns(part.orders.time)
    is_cancel = sent.kind == Kind.CANCEL
    came_ns, price = found_in(arrivals_of(passed), np.asarray(sent.cancel_id))
    mid, spread, volumes = _touch(view)
    volume = np.asarray(sent.volume, np.int64)
    columns = {
        "time_ns": time_ns, "kind": np.asarray(sent.kind), "price": np.where(is_cancel, price, sent.price),
        "volume": volume,
        "traded": np.where(is_cancel, 0, np.minimum(volume, in_reach(part.views, sent.kind, sent.price))),
        "mid_before": rows_before(mid, np.nan), "mid_after": mid, "spread": spread, "ask_volume": volumes[0],
        "bid_volume": volumes[1],
        "lifetime_ns": np.where(is_cancel & (came_ns >= 0), time_ns - came_ns, UNKNOWN)}
    return OrderEvents(**{name: np.asarray(column)[part.counts] for name, column in columns.items()})


def of_trace(rows: Table, before: Arrivals) -> OrderEvents:
    """The orders of one simulated trajectory.

    Args:
      rows: of `trace_tables.orders`, COLUMNS of them; one trajectory's accepted orders in sequence.
      before: orders that may have rested at the start.
    """
    kind = np.select([rows["type"] == "S", rows["type"] == "B"], [Kind.SELL, Kind.BUY], Kind.CANCEL)
    is_cancel = kind == Kind.CANCEL
    own = arrivals(*(rows[name][~is_cancel] for name in ("order_id", "time_ns", "price")))
    # Its own first: later real orders have the ids that the simulation gives.
    came_ns = found_in(own, rows["cancel_id"])[0]
    came_ns = np.where(came_ns >= 0, came_ns, found_in(before, rows["cancel_id"])[0])
    both = (rows["ask_volume"] > 0) & (rows["bid_volume"] > 0)

    def mid(twice: np.ndarray) -> np.ndarray:
        return np.where(twice > 0, twice / 2, np.nan)

    return OrderEvents(
        time_ns=rows["time_ns"], kind=kind, price=rows["price"], volume=rows["volume"], traded=rows["traded"],
        mid_before=mid(rows["mid_twice_before"]), mid_after=mid(rows["mid_twice"]),
        spread=np.where(both, rows["spread"], np.nan), ask_volume=rows["ask_volume"], bid_volume=rows["bid_volume"],
        lifetime_ns=np.where(is_cancel & (came_ns >= 0), rows["time_ns"] - came_ns, UNKNOWN))


def _touch(view: BookView) -> tuple[np.ndarray, np.ndarray, list[np.ndarray]]:
    """Mid and spread, NaN where there is none or the book is crossed (in a call auction), and volumes [ask, bid]."""
    volumes = [_volumes(side)[:, 0] for side in (view.ask_volume, view.bid_volume)]
    both = (volumes[0] > 0) & (volumes[1] > 0)
    is_crossed = both & (np.asarray(view.ask_price)[:, 0] <= np.asarray(view.bid_price)[:, 0])
    twice = np.asarray(view.mid_price_twice)
    return (np.where((twice > 0) & ~is_crossed, twice / 2, np.nan),
            np.where(both & ~is_crossed, view.spread, np.nan), volumes)


def in_reach(view: BookView, kind: Array, price: Array) -> np.ndarray:
    """Shares that each limit order [N] found at its price or better, by the levels of the view before it, int64 [N].

    Args:
      view: [N], after each order.
      kind: [N], a `Kind` each.
      price: [N].
    """
    at = np.asarray(price)[:, None]
    ask, bid, ask_volume, bid_volume = (rows_before(x, 0) for x in (
        np.asarray(view.ask_price), np.asarray(view.bid_price), _volumes(view.ask_volume), _volumes(view.bid_volume)))
    reached = np.where(np.asarray(kind)[:, None] == Kind.BUY, ask_volume * (ask <= at), bid_volume * (bid >= at))
    return reached.sum(axis=1)


def _volumes(side: Int64) -> np.ndarray:
    return int64.to_numpy(side)


def rows_before(column: np.ndarray, nothing: float) -> np.ndarray:
    """What each row's predecessor holds, [N, ...]."""
    return np.concatenate([np.full_like(column[:1], nothing), column[:-1]])


def found_in(index: Arrivals, ids: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Time and price of ids [N], UNKNOWN for those that the index does not hold."""
    if not len(index.order_id):
        return np.full(ids.shape, UNKNOWN), np.full(ids.shape, UNKNOWN)
    place = np.maximum(np.searchsorted(index.order_id, ids, side="right") - 1, 0)
    known = index.order_id[place] == ids
    return np.where(known, index.time_ns[place], UNKNOWN), np.where(known, index.price[place], UNKNOWN)
