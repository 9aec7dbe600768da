"""The statistics of LOB-Bench (Nagy et al. 2025, arXiv 2502.09172): values of one sequence of messages.

21 that stand alone (`UNCONDITIONAL`) and three given another (`CONDITIONAL`). Names, windows and scales are those of
the paper's code; prices are in 1e-4 of the currency, which no distance depends on. Two readings are ours: executed
volume in the first and last second of a sequence is scaled to a whole second from the first trade on and up to the
last, and the hours of the day are whole ones.
"""

import dataclasses
from collections.abc import Callable

import numpy as np

from marsjax.analysis.lob_bench.messages import OrderMessages
from marsjax.core.records import Kind, Side
from marsjax.core.times import SECOND_NS

WINDOW = 100
"""Messages that order flow imbalance is averaged over."""
VOLATILITY_STEP_NS = SECOND_NS // 10
HOUR_NS = 3600 * SECOND_NS
_EDGE_NS = SECOND_NS // 10
"""A first or last second with less of it is left out."""
_NO_TIME = 1e-9
"""Stands for a time of 0 in logarithms: seconds, and as in the paper's code milliseconds between messages."""


@dataclasses.dataclass(frozen=True)
class Statistic:
    """One number after another of a sequence."""

    values: Callable[[OrderMessages], np.ndarray]
    """float64 [n], finite or NaN."""
    is_discrete: bool = False
    """Whether every value is a bin of its own."""


@dataclasses.dataclass(frozen=True)
class Conditional:
    """A statistic, a value a message, given another; groups are deciles unless they are discrete."""

    values: Callable[[OrderMessages], np.ndarray]
    given: Callable[[OrderMessages], np.ndarray]
    is_discrete: bool = False
    """Of the values: else their bins are deciles."""
    is_given_discrete: bool = False


def mid(messages: OrderMessages) -> np.ndarray:
    """float64 [N], NaN where a side is empty."""
    both = (messages.ask > 0) & (messages.bid > 0)
    return np.where(both, (messages.ask + messages.bid) / 2, np.nan)


def spread(messages: OrderMessages) -> np.ndarray:
    """Best ask less best bid after each message, float64 [N]; NaN where a side is empty."""
    both = (messages.ask > 0) & (messages.bid > 0)
    return np.where(both, messages.ask - messages.bid, np.nan)


def orderbook_imbalance(messages: OrderMessages) -> np.ndarray:
    """(bid - ask) / (bid + ask) of the shares at the best prices, float64 [N]; NaN for an empty book."""
    total = messages.bid_volume + messages.ask_volume
    return np.where(total > 0, (messages.bid_volume - messages.ask_volume) / np.maximum(total, 1), np.nan)


def log_inter_arrival_time(messages: OrderMessages) -> np.ndarray:
    """log of the milliseconds between messages, float64 [N - 1]."""
    return _log(np.diff(messages.time_ns) / 1e6)


def log_time_to_cancel(messages: OrderMessages) -> np.ndarray:
    """log of the seconds from an order of the sequence to the first cancel of any of it, float64 [n]."""
    first: dict[int, int] = {}
    found = []
    is_cancel = (messages.kind == Kind.CANCEL).tolist()
    for number, at, cancels, rests in zip(messages.order_id.tolist(), messages.time_ns.tolist(), is_cancel,
                                          (messages.rest > 0).tolist(), strict=True):
        if cancels:
            if number in first:
                found.append(at - first.pop(number))
        elif rests:
            first[number] = at
    return _log(np.array(found, np.float64) / SECOND_NS)


def volume_per_minute(messages: OrderMessages) -> np.ndarray:
    """60 times the shares traded in each second in which some were, float64 [n]."""
    is_trade = messages.traded > 0
    at, traded = messages.time_ns[is_trade], messages.traded[is_trade]
    if not len(at):
        return np.zeros(0)
    seconds, which = np.unique(at // SECOND_NS, return_inverse=True)
    sums = np.bincount(which, traded.astype(np.float64))
    begins, ends = seconds * SECOND_NS, (seconds + 1) * SECOND_NS
    lasts = np.minimum(ends, at[-1]) - np.maximum(begins, at[0])
    keep = lasts >= _EDGE_NS
    return 60 * sums[keep] * SECOND_NS / lasts[keep]


def order_flow_imbalance(messages: OrderMessages) -> np.ndarray:
    """Mean over WINDOW messages of what each added to the best bid and took from the best ask, float64 [N - WINDOW].

    The first is that of message WINDOW (from 0), each message compared with the one before it.
    """
    ask = np.where(messages.ask > 0, messages.ask.astype(np.float64), np.inf)
    bid = np.where(messages.bid > 0, messages.bid.astype(np.float64), -np.inf)
    asks, bids = messages.ask_volume.astype(np.float64), messages.bid_volume.astype(np.float64)
    change = ((bid[1:] >= bid[:-1]) * bids[1:] - (bid[1:] <= bid[:-1]) * bids[:-1]
              - (ask[1:] <= ask[:-1]) * asks[1:] + (ask[1:] >= ask[:-1]) * asks[:-1])
    if len(change) < WINDOW:
        return np.zeros(0)
    total = np.concatenate([[0.0], np.cumsum(change)])
    return (total[WINDOW:] - total[:-WINDOW]) / WINDOW


def volatility(messages: OrderMessages) -> np.ndarray:
    """Standard deviation of log returns between tenths of a second next to each other, the same for all, [N]; or 0."""
    mids, step = mid(messages), messages.time_ns // VOLATILITY_STEP_NS
    is_last = np.append(np.diff(step) > 0, True) if len(step) else np.zeros(0, bool)
    returns, follows = np.diff(np.log(mids[is_last])), np.diff(step[is_last]) == 1
    returns = returns[follows & np.isfinite(returns)]
    return np.full(len(messages), returns.std(ddof=1) if len(returns) > 1 else 0.0)


def hour(messages: OrderMessages) -> np.ndarray:
    """Hour of the day of each message, float64 [N]."""
    return (messages.time_ns // HOUR_NS).astype(np.float64)


def _log(times: np.ndarray) -> np.ndarray:
    return np.log(np.where(times > 0, times, _NO_TIME))


def _flow_before(move: int) -> Callable[[OrderMessages], np.ndarray]:
    """Order flow imbalance before messages after which the mid has moved down (-1), not (0) or up (1)."""
    def values(messages: OrderMessages) -> np.ndarray:
        before = order_flow_imbalance(messages)[:-1]
        moved = np.diff(mid(messages))[WINDOW:]
        return before[np.sign(moved) == move] if len(before) else before
    return values


def _depth(is_ask: bool, cancels: bool) -> Callable[[OrderMessages], np.ndarray]:
    """How far above (asks) or below the mid after them orders that rest, or cancelled ones, are."""
    def values(messages: OrderMessages) -> np.ndarray:
        is_it = messages.kind == Kind.CANCEL if cancels else messages.rest > 0
        away = (messages.price - mid(messages))[is_it] * (1 if is_ask else -1)
        return away[away > 0]
    return values


def _levels(side: Side, cancels: bool) -> Callable[[OrderMessages], np.ndarray]:
    """The level of orders that rest, or of cancelled ones, of those that are at one."""
    def values(messages: OrderMessages) -> np.ndarray:
        is_it = messages.kind == Kind.CANCEL if cancels else messages.rest > 0
        return messages.level[is_it & (messages.side == side) & (messages.level > 0)].astype(np.float64)
    return values


def _column(name: str) -> Callable[[OrderMessages], np.ndarray]:
    def values(messages: OrderMessages) -> np.ndarray:
        return np.asarray(getattr(messages, name), np.float64)
    return values


UNCONDITIONAL = {
    "spread": Statistic(spread, is_discrete=True),
    "orderbook_imbalance": Statistic(orderbook_imbalance),
    "log_inter_arrival_time": Statistic(log_inter_arrival_time),
    "log_time_to_cancel": Statistic(log_time_to_cancel),
    "ask_volume_touch": Statistic(_column("ask_volume")),
    "bid_volume_touch": Statistic(_column("bid_volume")),
    "ask_volume": Statistic(_column("ask_total")),
    "bid_volume": Statistic(_column("bid_total")),
    "limit_ask_order_depth": Statistic(_depth(True, cancels=False)),
    "limit_bid_order_depth": Statistic(_depth(False, cancels=False)),
    "ask_cancellation_depth": Statistic(_depth(True, cancels=True)),
    "bid_cancellation_depth": Statistic(_depth(False, cancels=True)),
    "limit_ask_order_levels": Statistic(_levels(Side.ASK, cancels=False), is_discrete=True),
    "limit_bid_order_levels": Statistic(_levels(Side.BID, cancels=False), is_discrete=True),
    "ask_cancellation_levels": Statistic(_levels(Side.ASK, cancels=True), is_discrete=True),
    "bid_cancellation_levels": Statistic(_levels(Side.BID, cancels=True), is_discrete=True),
    "vol_per_min": Statistic(volume_per_minute),
    "ofi": Statistic(order_flow_imbalance),
    "ofi_up": Statistic(_flow_before(1)),
    "ofi_stay": Statistic(_flow_before(0)),
    "ofi_down": Statistic(_flow_before(-1)),
}
CONDITIONAL = {
    "ask_volume | spread": Conditional(_column("ask_volume"), spread, is_given_discrete=True),
    "spread | time": Conditional(spread, hour, is_given_discrete=True),
    "spread | volatility": Conditional(spread, volatility, is_discrete=True),
}
