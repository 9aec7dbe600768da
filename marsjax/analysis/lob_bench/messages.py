"""`OrderMessages`: the orders of a market with the book around each, from real days and from rollouts with a trace.

LOB-Bench counts messages of LOBSTER. Here one accepted order is one message, an order that hits several resting orders
too (in LOBSTER it is a row for each of them): real and generated orders are counted alike, but figures are not
comparable with those of the paper to the last digit.
"""

import dataclasses
import itertools
from collections.abc import Sequence

import jax
import numpy as np

from marsjax.analysis import order_events
from marsjax.core import int64, times
from marsjax.core.errors import InputError
from marsjax.core.records import MAX_PRICE, BookView, Condition, Kind, Order, Side, Status
from marsjax.observers import trace_tables
from marsjax.observers.trace import Log
from marsjax.observers.trace_tables import Table
from marsjax.sim.initial import Passed, joined
from marsjax.sim.result import Trace

_RESTING = (Condition.REST, Condition.POST_ONLY, Condition.OWN_BEST, Condition.OPPOSITE_BEST)
"""Conditions of orders whose rest rests."""


@dataclasses.dataclass(frozen=True, eq=False)
class OrderMessages:
    """Accepted orders of one market in sequence, NumPy int64 arrays [N]; prices in 1e-4 of the currency.

    The best prices and volumes are those after each order, 0 where a side is empty.
    """

    time_ns: np.ndarray
    """Since midnight."""
    kind: np.ndarray
    """A `Kind` each: BUY, SELL or CANCEL."""
    side: np.ndarray
    """`Side` that it adds to or, of a cancel, takes from."""
    price: np.ndarray
    """Limit price; of the cancelled order, for a cancel."""
    volume: np.ndarray
    """Shares, as sent."""
    traded: np.ndarray
    """Shares that it traded on arrival."""
    rest: np.ndarray
    """Shares of it that came to rest; 0 for a cancel."""
    order_id: np.ndarray
    """Its id; of a cancel, that of the cancelled order."""
    level: np.ndarray
    """Which level of its side has its price, from 1: after it, or for a cancel before it; 0 for none of them."""
    ask: np.ndarray
    bid: np.ndarray
    ask_volume: np.ndarray
    """Shares at the best ask."""
    bid_volume: np.ndarray
    ask_total: np.ndarray
    """Shares at all levels of the view."""
    bid_total: np.ndarray

    def __post_init__(self) -> None:
        sizes = {name: np.shape(getattr(self, name)) for name in NAMES}
        if len(set(sizes.values())) != 1 or len(sizes["time_ns"]) != 1:
            raise InputError(f"OrderMessages: expected arrays of one length, got {sizes}")
        fall = np.flatnonzero(np.diff(self.time_ns) < 0)
        if fall.size:
            raise InputError(f"OrderMessages: time_ns falls after order {fall[0]}, from {self.time_ns[fall[0]]} to "
                             f"{self.time_ns[fall[0] + 1]}; expected orders in order of time")

    def __len__(self) -> int:
        return len(self.time_ns)

    def between(self, from_ns: int, until_ns: int) -> "OrderMessages":
        """The orders with from_ns < time <= until_ns."""
        first, end = np.searchsorted(self.time_ns, [from_ns, until_ns], side="right")
        return OrderMessages(**{name: getattr(self, name)[first:end] for name in NAMES})


NAMES = tuple(field.name for field in dataclasses.fields(OrderMessages))


def of_passed(passed: Sequence[Passed]) -> OrderMessages:
    """The accepted orders of continuous trading in stretches of one real day, in order, from its beginning.

    What an order traded is read off the levels of the view before it: exact as far as they reach.
    """
    part = joined(passed)
    sent, after = part.orders, part.views
    kind, is_cancel = np.asarray(sent.kind), np.asarray(sent.kind) == Kind.CANCEL
    before = jax.tree.map(lambda x: order_events.rows_before(np.asarray(x), 0), after)
    price = np.where(is_cancel, order_events.found_in(order_events.arrivals_of(passed), np.asarray(sent.cancel_id))[1],
                     _priced(sent, before))
    volume = np.asarray(sent.volume, np.int64)
    traded = np.where(is_cancel, 0, np.minimum(volume, order_events.in_reach(after, kind, price)))
    rests = ~is_cancel & np.isin(np.asarray(sent.condition), _RESTING)
    columns = {
        "time_ns": times.to_ns(sent.time), "kind": kind,
        "side": np.where(is_cancel, np.asarray(sent.cancel_side), np.where(kind == Kind.BUY, Side.BID, Side.ASK)),
        "price": price, "volume": volume, "traded": traded, "rest": np.where(rests, volume - traded, 0),
        "order_id": np.where(is_cancel, np.asarray(sent.cancel_id), np.asarray(sent.order_id))}
    return OrderMessages(**_columns(columns, before, after, part.counts))


def of_log(log: Log, numbers: np.ndarray) -> Table:
    """The accepted orders of a log [B, ...] of trajectories `numbers` [B]: `trajectory`, and fields of `OrderMessages`.

    Rows of one trajectory are in sequence. Every listed cancel of a cancel by price is an order.
    """
    rows, around = trace_tables.orders(log, numbers), trace_tables.surroundings(log)
    is_cancel, is_buy = rows["type"] == "C", rows["type"] == "B"
    columns = {
        "time_ns": rows["time_ns"], "kind": np.select([is_cancel, is_buy], [Kind.CANCEL, Kind.BUY], Kind.SELL),
        "side": np.where(np.where(is_cancel, rows["cancel_type"] == "B", is_buy), Side.BID, Side.ASK),
        "price": rows["price"], "volume": rows["volume"], "traded": rows["traded"], "rest": around.rest,
        "order_id": np.where(is_cancel, rows["cancel_id"], rows["order_id"])}
    keep = rows["status"] == Status.ACCEPTED.name
    return {"trajectory": rows["trajectory"][keep], **_columns(columns, around.before, around.after, keep)}


def by_trajectory(parts: Sequence[Table], count: int) -> list[OrderMessages]:
    """The orders of trajectories 0 to count - 1 out of tables of `of_log`, chunk after chunk."""
    if not parts:
        raise InputError("lob_bench: expected a trace with orders, got none: keep one by a TraceObserver")
    whole = {name: np.concatenate([part[name] for part in parts]) for name in ("trajectory", *NAMES)}
    who = whole.pop("trajectory")
    order = np.argsort(who, kind="stable")
    ends = np.searchsorted(who[order], np.arange(count + 1))
    return [OrderMessages(**{name: column[order[a:b]] for name, column in whole.items()})
            for a, b in itertools.pairwise(ends)]


def of_trace(trace: Trace, count: int) -> list[OrderMessages]:
    """The orders of each of the `count` trajectories of a rollout; InputError where its trace lacks some."""
    if trace.missing:
        raise InputError(f"lob_bench: not all orders were kept: {trace.missing}")
    return by_trajectory([of_log(log, who) for who, log in trace.chunks], count)


def _columns(sent: Table, before: BookView, after: BookView, keep: np.ndarray) -> Table:
    """The fields of `OrderMessages` of rows to keep, bool [N], from what was sent and the books before and after."""
    level = np.where(sent["kind"] == Kind.CANCEL, _level(before, sent["side"], sent["price"]),
                     np.where(sent["rest"] > 0, _level(after, sent["side"], sent["price"]), 0))
    found = sent | _best(after) | {"level": level}
    return {name: np.asarray(column, np.int64)[keep] for name, column in found.items()}


def _best(view: BookView) -> Table:
    found: Table = {}
    for side in ("ask", "bid"):
        volume = int64.to_numpy(getattr(view, f"{side}_volume"))
        price = np.asarray(getattr(view, f"{side}_price"))
        found |= {side: np.where(volume[:, 0] > 0, price[:, 0], 0), f"{side}_volume": volume[:, 0],
                  f"{side}_total": volume.sum(axis=1)}
    return found


def _level(view: BookView, side: np.ndarray, price: np.ndarray) -> np.ndarray:
    """Which level of a side has a price, from 1, int64 [N]; 0 for none."""
    is_bid = (side == Side.BID)[:, None]
    prices = np.where(is_bid, np.asarray(view.bid_price), np.asarray(view.ask_price))
    volumes = np.where(is_bid, int64.to_numpy(view.bid_volume), int64.to_numpy(view.ask_volume))
    is_it = (prices == price[:, None]) & (volumes > 0)
    return np.where(is_it.any(axis=1), is_it.argmax(axis=1) + 1, 0)


def _priced(sent: Order, before: BookView) -> np.ndarray:
    """Limit prices, those that orders take from the book among them."""
    is_buy, price = np.asarray(sent.kind) == Kind.BUY, np.asarray(sent.price)
    ask, bid = np.asarray(before.ask_price)[:, 0], np.asarray(before.bid_price)[:, 0]
    condition = np.asarray(sent.condition)
    price = np.where(condition == Condition.OWN_BEST, np.where(is_buy, bid, ask), price)
    price = np.where(condition == Condition.OPPOSITE_BEST, np.where(is_buy, ask, bid), price)
    return np.where(condition == Condition.MARKET, np.where(is_buy, MAX_PRICE, 0), price)
