"""Numbers of an interval of a market, by which it can be told from other intervals: what a surveillance looks at."""

import dataclasses
from collections.abc import Callable

import numpy as np

from marsjax.analysis import quantities
from marsjax.analysis.quantities import MINUTE_NS, OrderEvents
from marsjax.core import limits
from marsjax.core.errors import InputError
from marsjax.core.records import Kind

FEATURES = ("orders", "traded_volume", "order_volume", "largest_order", "largest_cancel", "spread", "empty_side",
            "return_bp", "volatility_bp", "aggressive_ratio", "buy_ratio", "trade_imbalance", "order_imbalance",
            "cancel_ratio", "cancelled_share", "cancel_imbalance", "touch_imbalance", "touch_volume",
            "cancel_lifetime_s")
"""Names of `of_interval`, in its order."""
SKEWED = ("orders", "traded_volume", "order_volume", "largest_order", "largest_cancel", "spread", "volatility_bp",
          "touch_volume", "cancel_lifetime_s")
"""Of these, with long tails: `evened` takes their logarithms."""
_BP = 1e4


def of_interval(events: OrderEvents, start_ns: int, minutes: int) -> np.ndarray:
    """float64 [F], FEATURES of the orders in the `minutes` after a start; NaN where one is undefined.

    Counts are per interval. Volumes are shares: `order_volume` the mean of limit orders, `largest_order` the largest of
    them, `touch_volume` the mean of the best levels. `spread` is a mean over the orders after which both sides had some
    (1e-4 of the currency), `empty_side` the share of those after which one had none. The log return and the volatility
    (`quantities.of_stretch`) are of the mid, in basis points. Imbalances run from -1 (all on the sell side) to 1: of
    shares traded on arrival, of the other shares of limit orders, of cancelled shares, and of shares at the touch.
    `cancel_ratio` is the share of cancels among the orders, `cancelled_share` cancelled shares over those of limit
    orders, `largest_cancel` the most shares that one took back.
    """
    limits.check_whole("of_interval: minutes", minutes, 1, limits.MINUTES)
    inside = events.between(start_ns, start_ns + minutes * MINUTE_NS)
    stretch = quantities.of_stretch(events, start_ns, minutes)
    is_cancel = inside.kind == Kind.CANCEL
    limit, cancels = _where(inside, ~is_cancel), _where(inside, is_cancel)
    sign = np.where(limit.kind == Kind.BUY, 1, -1)
    passive = limit.volume - limit.traded
    of_bids = np.where(cancels.price < cancels.mid_before, 1, -1)
    count = len(inside.time_ns)
    found = {
        "orders": float(count), "traded_volume": float(limit.traded.sum()),
        "order_volume": stretch["order_volume"], "largest_order": _or_none(limit.volume, np.max),
        "spread": stretch["spread"], "empty_side": _or_none(np.isnan(inside.spread), np.mean),
        "return_bp": _BP * _whole_return(events, start_ns, minutes), "volatility_bp": _BP * stretch["volatility"],
        "aggressive_ratio": stretch["aggressive_ratio"], "buy_ratio": stretch["buy_ratio"],
        "trade_imbalance": _imbalance(sign, limit.traded), "order_imbalance": _imbalance(sign, passive),
        "cancel_ratio": is_cancel.sum() / count if count else float("nan"),
        "largest_cancel": float(np.max(cancels.volume, initial=0)),
        "cancelled_share": cancels.volume.sum() / limit.volume.sum() if len(limit.volume) else float("nan"),
        "cancel_imbalance": _imbalance(of_bids, cancels.volume), "touch_imbalance": _touch_imbalance(inside),
        "touch_volume": stretch["touch_volume"], "cancel_lifetime_s": stretch["cancel_lifetime_s"]}
    return np.array([found[name] for name in FEATURES], np.float64)


def evened(features: np.ndarray) -> np.ndarray:
    """The same [..., F] with log(1 + x) of SKEWED, so that distances in standard deviations mean something.

    None of these is below 0. Ranks of single features are the same.
    """
    is_skewed = np.isin(FEATURES, SKEWED)
    return np.where(is_skewed, np.sign(features) * np.log1p(np.abs(features)), features)


def column(features: np.ndarray, name: str) -> np.ndarray:
    """One feature of [..., F]; InputError for a name that is none."""
    if name not in FEATURES:
        raise InputError(f"feature: expected one of {', '.join(FEATURES)}, got {name!r}")
    found: np.ndarray = features[..., FEATURES.index(name)]
    return found


def _where(events: OrderEvents, keep: np.ndarray) -> OrderEvents:
    return OrderEvents(**{field.name: getattr(events, field.name)[keep] for field in dataclasses.fields(events)})


def _whole_return(events: OrderEvents, start_ns: int, minutes: int) -> float:
    return float(quantities.returns(events, np.array([start_ns]), minutes)[0])


def _or_none(values: np.ndarray, function: Callable[[np.ndarray], float]) -> float:
    return float(function(values)) if len(values) else float("nan")


def _imbalance(sign: np.ndarray, volume: np.ndarray) -> float:
    """Signed share of a volume; NaN of none."""
    total = float(np.sum(volume, dtype=np.float64))
    return float(np.sum(sign * volume, dtype=np.float64)) / total if total else float("nan")


def _touch_imbalance(events: OrderEvents) -> float:
    both = events.ask_volume.astype(np.float64) + events.bid_volume
    keep = both > 0
    return _or_none((events.bid_volume - events.ask_volume)[keep] / both[keep], np.mean)
