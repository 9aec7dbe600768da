"""Forecasts of the mid price by rollouts: labels, their distribution, and the three classes down, flat and up.

The label of a time t and a horizon is l = (m - m0) / m0, where m0 is the mid at t and m the mean of the mid after each
order in (t, t + horizon] (Ntakaris et al. 2018, reference: analyses). Where no order comes there is no label, NaN.
"""

import dataclasses
import enum
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import pandas as pd

from marsjax.core import int64, times
from marsjax.core.errors import InputError
from marsjax.core.records import BookView
from marsjax.core.times import SECOND_NS
from marsjax.observers.bars import Bars
from marsjax.sim.initial import Passed

MINUTE_NS = 60 * SECOND_NS
_DEEP = 5
"""Levels a side of the deeper imbalance."""


class Move(enum.IntEnum):
    """What a label says, by a threshold."""

    DOWN = 0
    FLAT = 1
    UP = 2


class History(NamedTuple):
    """What one market showed after each accepted order of continuous trading, NumPy arrays [N] in order of time."""

    time_ns: np.ndarray
    """int64, since midnight."""
    mid_twice: np.ndarray
    """int64, twice the float mid, 1e-4 of the currency; not above 0 where there is none."""
    touch_imbalance: np.ndarray
    """float64, (bid - ask) / (bid + ask) of the shares at the best prices."""
    deep_imbalance: np.ndarray
    """float64, likewise of the five best levels."""


@dataclasses.dataclass(frozen=True)
class Distribution:
    """A forecast: the labels of a start's trajectories, summed up."""

    count: int
    """Trajectories with a label."""
    without: int
    """Trajectories without one, which are in none of the numbers below."""
    mean: float
    """NaN where no trajectory has a label, as are the next two."""
    standard_deviation: float
    quantiles: dict[float, float]
    counts: tuple[int, int, int]
    """Labels that are DOWN, FLAT and UP."""

    @property
    def probabilities(self) -> tuple[float, float, float]:
        """Shares of DOWN, FLAT and UP; NaN where no trajectory has a label."""
        down, flat, up = (count / self.count if self.count else float("nan") for count in self.counts)
        return down, flat, up


def history(passed: Sequence[Passed]) -> History:
    """What stretches of orders of one market, in order, come to; orders refused and in call auctions are left out."""
    columns = [_columns(part) for part in passed]
    if not columns:
        raise InputError("history: expected at least one stretch of orders, got none")
    return History(*(np.concatenate(parts) for parts in zip(*columns, strict=True)))


def _columns(part: Passed) -> History:
    view = part.views
    columns = (times.to_ns(part.orders.time), np.asarray(view.mid_price_twice).astype(np.int64),
               _imbalance(view, 1), _imbalance(view, _DEEP))
    return History(*(column[part.counts] for column in columns))


def _imbalance(view: BookView, levels: int) -> np.ndarray:
    """0 where both sides are empty."""
    bid, ask = (int64.to_numpy(side)[:, :levels].sum(axis=1) for side in (view.bid_volume, view.ask_volume))
    return (bid - ask) / np.maximum(bid + ask, 1)


def label(mid_twice_sum: np.ndarray, orders: np.ndarray, mid_twice_start: np.ndarray) -> np.ndarray:
    """The label, float64 [...], of n orders after a start.

    Args:
      mid_twice_sum: int64 [...], of twice the mid after each order.
      orders: int [...], n.
      mid_twice_start: int [...], twice the mid at the start.

    NaN where n is 0 or the start has no mid.

    Examples:
      >>> label(np.array([2 * 3 * 100_100]), np.array([3]), np.array([2 * 100_000])).round(6).tolist()
      [0.001]
    """
    total, count, start = (np.asarray(x, np.int64) for x in (mid_twice_sum, orders, mid_twice_start))
    known = (count > 0) & (start > 0)
    # The difference is of integers, so that a mid that did not move gives 0 and not a rounding error.
    moved = np.where(known, total - count * start, 0)
    return np.where(known, moved / np.where(known, count * start, 1), np.nan)


def labels_of_bars(bars: Bars, mid_twice_start: np.ndarray, minutes: int | None = None) -> np.ndarray:
    """The labels of B trajectories, float64 [B], over the first `minutes` of their bars (all, if None)."""
    total, orders = int64.to_numpy(bars.mid_twice_sum)[:, :minutes], np.asarray(bars.orders)[:, :minutes]
    return label(total.sum(axis=1), orders.astype(np.int64).sum(axis=1), mid_twice_start)


def labels_of_history(seen: History, at_ns: np.ndarray, horizon_ns: int) -> np.ndarray:
    """The labels of times of a market, float64 [K]: what really came.

    Args:
      seen: what the market showed; the mid of a time is that after the last order at or before it.
      at_ns: int64 [K], since midnight.
      horizon_ns: how far to look.

    NaN where there is no mid at the time or no order in the horizon, and where one of its orders leaves no mid.
    """
    at = np.asarray(at_ns, np.int64)
    first = np.searchsorted(seen.time_ns, at, side="right")
    last = np.searchsorted(seen.time_ns, at + horizon_ns, side="right")
    total = np.concatenate([[0], np.cumsum(seen.mid_twice)])
    missing = np.concatenate([[0], np.cumsum(seen.mid_twice <= 0)])
    count = np.where(missing[last] == missing[first], last - first, 0)
    return label(total[last] - total[first], count, mid_twice_at(seen, at))


def mid_twice_at(seen: History, at_ns: np.ndarray) -> np.ndarray:
    """Twice the mid after the last order at or before each time, int64 [K]; -1 before the first order."""
    row = np.searchsorted(seen.time_ns, np.asarray(at_ns, np.int64), side="right")
    return np.concatenate([[-1], seen.mid_twice])[row]


def minute_mids(seen: History, start_ns: int, minutes: int) -> np.ndarray:
    """Mids, float64 [minutes + 1], at the start and after each further minute, in the unit of prices."""
    found = mid_twice_at(seen, start_ns + MINUTE_NS * np.arange(minutes + 1))
    return np.where(found > 0, found / 2, np.nan)


def classes(labels: np.ndarray, threshold: float) -> np.ndarray:
    """The `Move` of each label, int64 [...]: UP above the threshold, DOWN below its negative, else FLAT.

    InputError for a label that is NaN: leave out what has none.

    Examples:
      >>> [Move(number).name for number in classes(np.array([-0.002, 0.0001, 0.003]), threshold=0.001)]
      ['DOWN', 'FLAT', 'UP']
    """
    labels = np.asarray(labels, np.float64)
    if np.isnan(labels).any():
        raise InputError(f"classes: expected labels, got {int(np.isnan(labels).sum())} that are NaN")
    return np.where(labels > threshold, Move.UP, np.where(labels < -threshold, Move.DOWN, Move.FLAT)).astype(np.int64)


def balanced_threshold(past: np.ndarray, least: int = 30) -> float:
    """The threshold that calls a third of past labels flat; NaN are left out.

    InputError if fewer than `least` are left, since their third would mean nothing.

    Examples:
      >>> round(balanced_threshold(np.linspace(-0.003, 0.003, 31)), 6)
      0.001
    """
    known = np.asarray(past, np.float64)
    known = known[~np.isnan(known)]
    if len(known) < least:
        raise InputError(f"threshold: expected at least {least} past labels to choose it by, got {len(known)}; "
                         "start later, or name one (threshold=0.0002, a share of the mid)")
    return float(np.quantile(np.abs(known), 1 / 3))


def distribution(labels: np.ndarray, threshold: float, levels: Sequence[float]) -> Distribution:
    """Sums up a forecast.

    Args:
      labels: float64 [B], NaN for a trajectory without one.
      threshold: of the classes, at least 0.
      levels: of the quantiles (linear between two labels), each in [0, 1].

    Raises InputError for a threshold or level out of range.

    Examples:
      >>> result = distribution(np.array([-0.001, 0.0, 0.002, np.nan]), 0.0005, (0.5,))
      >>> result.count, result.without, result.counts, result.quantiles[0.5]
      (3, 1, (1, 1, 1), 0.0)
    """
    if not 0 <= threshold < 1:
        raise InputError(f"threshold: expected a number of at least 0 and below 1, got {threshold}")
    if not all(0 <= level <= 1 for level in levels):
        raise InputError(f"quantiles: expected levels of 0 to 1, got {tuple(levels)}")
    labels = np.asarray(labels, np.float64)
    known = labels[~np.isnan(labels)]
    down, flat, up = np.bincount(classes(known, threshold), minlength=len(Move)).tolist()
    nan = float("nan")
    return Distribution(
        count=len(known), without=len(labels) - len(known), mean=float(known.mean()) if len(known) else nan,
        standard_deviation=float(known.std(ddof=1)) if len(known) > 1 else nan,
        quantiles={float(level): float(np.quantile(known, level)) if len(known) else nan for level in levels},
        counts=(down, flat, up))


def mids_of_bars(bars: Bars, mid_twice_start: np.ndarray) -> np.ndarray:
    """Mids of B trajectories, float64 [B, M + 1], at the start and after each minute, in the unit of prices.

    A minute without an order keeps the mid of the one before; NaN where there is none.
    """
    found = np.column_stack([mid_twice_start, bars.mid_twice_last]).astype(np.float64)
    orders = np.asarray(bars.orders)
    for minute in range(orders.shape[1]):
        found[:, minute + 1] = np.where(orders[:, minute] > 0, found[:, minute + 1], found[:, minute])
    return np.where(found > 0, found / 2, np.nan)


def minute_table(bars: Bars) -> pd.DataFrame:
    """Minutes of B trajectories, a row each: `trajectory`, `minute` (from 1), prices in 1e-4 of the currency.

    `price_last` (of the last trade up to the minute's last order), `mid_last` and `mid_mean` (after the last and over
    all of the minute's orders), `orders` and `volume`; prices are NaN in a minute without an order.
    """
    orders = np.asarray(bars.orders).astype(np.int64)
    trajectories, minutes = orders.shape
    known = np.where(orders > 0, orders, 1)
    columns = {"price_last": np.asarray(bars.price_last), "mid_last": np.asarray(bars.mid_twice_last) / 2,
               "mid_mean": int64.to_numpy(bars.mid_twice_sum) / known / 2}
    prices = {name: np.where((orders > 0) & (x > 0), x, np.nan).reshape(-1) for name, x in columns.items()}
    return pd.DataFrame({
        "trajectory": np.repeat(np.arange(trajectories), minutes), "minute": np.tile(np.arange(minutes) + 1,
                                                                                     trajectories),
        **prices, "orders": orders.reshape(-1), "volume": int64.to_numpy(bars.volume).reshape(-1)})
