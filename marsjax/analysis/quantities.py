"""What orders look like: quantities of single orders, and of stretches of a market, from arrays of order events.

The quantities of the paper's Table 7 (returns, volatility, spread, order volume, aggressive and buy ratio), and times
between orders, depth at the touch and lifetimes of cancelled orders. The same functions take real and simulated orders.
"""

import dataclasses

import numpy as np

from marsjax.core.errors import InputError
from marsjax.core.records import Kind
from marsjax.core.times import SECOND_NS

MINUTE_NS = 60 * SECOND_NS
VOLATILITY_STEP_NS = 10 * SECOND_NS
RETURN_MINUTES = (1, 2, 3, 4, 5)
OF_ORDERS = ("spread", "order_volume", "aggressive", "buy", "interval_s", "touch_volume", "cancel_lifetime_s")
OF_STRETCHES = (*(f"return_{minutes}" for minutes in RETURN_MINUTES), "volatility", "spread", "order_volume",
                "aggressive_ratio", "buy_ratio", "interval_s", "touch_volume", "cancel_lifetime_s")


@dataclasses.dataclass(frozen=True, eq=False)
class OrderEvents:
    """Accepted orders of one market, NumPy arrays [N] in order of time; prices in 1e-4 of the currency."""

    time_ns: np.ndarray
    """int64, since midnight."""
    kind: np.ndarray
    """A `Kind` each: BUY, SELL or CANCEL."""
    price: np.ndarray
    """Limit price; of the cancelled order, for a cancel."""
    volume: np.ndarray
    """Shares, as sent."""
    traded: np.ndarray
    """Shares that it traded on arrival."""
    mid_before: np.ndarray
    """float64, mid when it came, half ticks kept; NaN where there was none. So below."""
    mid_after: np.ndarray
    """float64."""
    spread: np.ndarray
    """float64, best ask less best bid after it; NaN while a side is empty."""
    ask_volume: np.ndarray
    """Shares at the best ask after it, 0 for none."""
    bid_volume: np.ndarray
    lifetime_ns: np.ndarray
    """int64, how long a cancelled order had rested; -1 for other orders, and where it is not known."""

    def __post_init__(self) -> None:
        sizes = {field.name: np.shape(getattr(self, field.name)) for field in dataclasses.fields(self)}
        if len(set(sizes.values())) != 1 or len(sizes["time_ns"]) != 1:
            raise InputError(f"OrderEvents: expected arrays of one length, got {sizes}")
        fall = np.flatnonzero(np.diff(self.time_ns) < 0)
        if fall.size:
            raise InputError(f"OrderEvents: time_ns falls after order {fall[0]}, from {self.time_ns[fall[0]]} to "
                             f"{self.time_ns[fall[0] + 1]}; expected orders in order of time")

    def between(self, from_ns: int, until_ns: int) -> "OrderEvents":
        """The orders with from_ns < time <= until_ns."""
        first, end = np.searchsorted(self.time_ns, [from_ns, until_ns], side="right")
        return OrderEvents(**{field.name: getattr(self, field.name)[first:end] for field in dataclasses.fields(self)})


def of_orders(events: OrderEvents) -> dict[str, np.ndarray]:
    """OF_ORDERS -> float64 values of the single orders that have one, lengths differ.

    Volume, and whether it trades on arrival and buys, are those of limit orders; times between orders begin with the
    second order; `touch_volume` is the mean of both sides, where both have orders.
    """
    is_limit = events.kind != Kind.CANCEL
    both = (events.ask_volume > 0) & (events.bid_volume > 0)
    is_known = ~is_limit & (events.lifetime_ns >= 0)
    found = {
        "spread": events.spread[~np.isnan(events.spread)],
        "order_volume": events.volume[is_limit],
        "aggressive": events.traded[is_limit] > 0,
        "buy": events.kind[is_limit] == Kind.BUY,
        "interval_s": np.diff(events.time_ns) / SECOND_NS,
        "touch_volume": (events.ask_volume[both].astype(np.float64) + events.bid_volume[both]) / 2,
        "cancel_lifetime_s": events.lifetime_ns[is_known] / SECOND_NS}
    return {name: np.asarray(values, np.float64) for name, values in found.items()}


def of_stretch(events: OrderEvents, start_ns: int, minutes: int) -> dict[str, float]:
    """OF_STRETCHES -> one number of the orders in the `minutes` after a start; NaN where it is undefined.

    Log returns of the mid from the start on over 1 to 5 minutes, as far as the stretch goes; `volatility` is the root
    of the sum of squared log returns over steps of VOLATILITY_STEP_NS; the others are means of `of_orders`.
    """
    if minutes < 1:
        raise InputError(f"of_stretch: expected at least 1 minute, got {minutes}")
    inside = events.between(start_ns, start_ns + minutes * MINUTE_NS)
    found = {name: float("nan") for name in OF_STRETCHES}
    for minute in RETURN_MINUTES:
        if minute <= minutes:
            ends = np.array([start_ns, start_ns + minute * MINUTE_NS])
            found[f"return_{minute}"] = float(_log_returns(events, ends)[0])
    grid = np.arange(start_ns, start_ns + minutes * MINUTE_NS + 1, VOLATILITY_STEP_NS)
    found["volatility"] = float(np.sqrt(np.sum(_log_returns(events, grid) ** 2)))
    names = {"aggressive": "aggressive_ratio", "buy": "buy_ratio"}
    for name, values in of_orders(inside).items():
        if values.size:
            found[names.get(name, name)] = float(values.mean())
    return found


def by_minute(events: OrderEvents, start_ns: int, minutes: int) -> list[dict[str, float]]:
    """`of_stretch` of each single minute after a start, `minutes` of them: how the quantities change with the horizon.

    `return_1` of a minute is its own; the longer ones are NaN.
    """
    return [of_stretch(events, start_ns + minute * MINUTE_NS, 1) for minute in range(minutes)]


def returns(events: OrderEvents, from_ns: np.ndarray, minutes: int) -> np.ndarray:
    """Log returns of the mid over the `minutes` after times [K], float64 [K]; NaN where a mid is missing."""
    return np.log(mids(events, np.asarray(from_ns) + minutes * MINUTE_NS) / mids(events, np.asarray(from_ns)))


def _log_returns(events: OrderEvents, times_ns: np.ndarray) -> np.ndarray:
    """Log returns [T - 1] between the mids at times [T]."""
    return np.diff(np.log(mids(events, times_ns)))


def mids(events: OrderEvents, times_ns: np.ndarray) -> np.ndarray:
    """The mids at times [T], float64; before the first order the mid is the one it found."""
    if not len(events.time_ns):
        return np.full(len(times_ns), np.nan)
    known = np.concatenate([events.mid_before[:1], events.mid_after]).astype(np.float64)
    return np.asarray(known[np.searchsorted(events.time_ns, times_ns, side="right")])
