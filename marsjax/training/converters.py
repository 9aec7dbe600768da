"""Bins fitted on days of real orders, each day with the same weight."""

from collections.abc import Callable, Iterable, Mapping, Sequence

import numpy as np

from marsjax.core.errors import InputError
from marsjax.core.specs import TokenSpec
from marsjax.tokens import bins
from marsjax.tokens.bins import Converter
from marsjax.training.days import ReplayedDay

PER_DAY = 40_000
"""Values that stand for a day's quantity, whatever its number of orders."""
MOST = 4_000_000
"""Values of a quantity that bins are fitted on; of more than 100 days each is stood for by fewer."""
_BREAK_S = 1800.0
"""A longer wait is a break of the session, and no interval."""
_LOT = 100
"""Shares."""


def fit(days: Sequence[ReplayedDay], spec: TokenSpec, level_bins: int = 32, until_ns: int | None = None
        ) -> dict[str, Converter]:
    """The converters that tokens need, fitted on orders before `until_ns` (default: all) of the days.

    Three things differ from the reference's rule, since its bins are of thousands of days and these of a few. A day of
    few orders counts as much as one of many: with each order counted once, a slow stock's waiting times fall into the
    last bin or two. And a bin of more than 100 values keeps 100 evenly spaced quantiles, not the 100 most common
    values, which in the last bin of a heavy tail are its smallest ones. And bins of volumes that hold next to nothing,
    between two round volumes, go to the tail, so that large orders of one stock and of another have bins of their own.
    Volumes are those of limit orders and cancels alike, as a token's are; the time across a break of the session is no
    interval.

    Raises InputError where there is too little to fit.
    """
    parts = [summary(day.name, day.quantities(until_ns)) for day in days]
    return fit_summaries(lambda name: (part[name] for part in parts), len(parts), spec, level_bins)


def summary(day: str, quantities: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """What `fit` needs of a day's `ReplayedDay.quantities`: `PER_DAY` values of each, float64.

    Raises InputError that names the day where it has no value of one.
    """
    kept = {**quantities, "order-interval": quantities["order-interval"][quantities["order-interval"] < _BREAK_S]}
    for name, values in kept.items():
        if not values.size:
            raise InputError(f"converters: {day} has no value of {name} to fit")
    return {name: evenly(values, PER_DAY) for name, values in kept.items()}


def fit_summaries(of: Callable[[str], Iterable[np.ndarray]], days: int, spec: TokenSpec, level_bins: int
                  ) -> dict[str, Converter]:
    """`fit` of days of which only the `summary` is left, with no more than `MOST` values in memory.

    `of` gives the values of one quantity, those of each of so many days.
    """
    counts = {"price-level": spec.price_levels, "order-volume": spec.volumes, "order-interval": spec.intervals,
              "lob-volume": level_bins}
    found, each = {}, min(PER_DAY, max(MOST // max(days, 1), 1))
    for name, count in counts.items():
        values = np.concatenate([evenly(part, each) for part in of(name)])
        edges = bins.fit(values, count).edges
        found[name] = _with_quantiles(finer_tail(edges, values) if name == "order-volume" else edges, values)
    return {**found, "pred-order-volume": found["order-volume"]}


def fit_as_published(days: Sequence[ReplayedDay], spec: TokenSpec, level_bins: int = 32) -> dict[str, Converter]:
    """The converters that tokens need, by the reference's rule, each order counted once (reference: bin converters)."""
    parts = [day.quantities() for day in days]
    counts = {"price-level": spec.price_levels, "order-volume": spec.volumes, "order-interval": spec.intervals,
              "lob-volume": level_bins}
    found = {name: bins.fit(np.concatenate([part[name] for part in parts]), count) for name, count in counts.items()}
    return {**found, "pred-order-volume": found["order-volume"]}


def evenly(values: np.ndarray, count: int) -> np.ndarray:
    """`count` evenly spaced quantiles of values [N], each of them one of the values."""
    places = (np.arange(count) + 0.5) / count * len(values)
    return np.sort(values)[places.astype(np.int64)]


def finer_tail(edges: np.ndarray, values: np.ndarray) -> np.ndarray:
    """As many edges [N + 1], of which those above bins with few of the values split the last bin instead.

    Few are an eighth of an even share; the last bin is split in equal ratios, at whole lots.
    """
    count = len(edges) - 1
    held = np.bincount(_bin(edges, values), minlength=count)
    thin = held[:-1] < len(values) / (8 * count)
    if not thin.any() or edges[-2] <= 0:
        return edges
    between = np.geomspace(edges[-2], edges[-1], int(thin.sum()) + 2)[1:-1]
    split = np.round(between / _LOT) * _LOT
    if len(np.unique(np.concatenate([edges[-2:], split]))) < len(split) + 2:
        return edges
    return np.concatenate([edges[:1], edges[1:-1][~thin], split, edges[-1:]])


def _bin(edges: np.ndarray, values: np.ndarray) -> np.ndarray:
    """The bin of each value, which has its right edge; those beyond the edges are in the first or the last."""
    return np.clip(np.digitize(values, edges, right=True) - 1, 0, len(edges) - 2)


def _with_quantiles(edges: np.ndarray, values: np.ndarray) -> Converter:
    """Bins of these edges, with at most 100 quantiles as each bin's values, most common first."""
    of_bin = _bin(edges, values)
    kept, chances = [], []
    for i in range(len(edges) - 1):
        inside = values[of_bin == i]
        if len(np.unique(inside)) > bins.MAX_VALUES:
            inside = evenly(inside, bins.MAX_VALUES)
        distinct, counts = np.unique(inside, return_counts=True)
        order = np.argsort(-counts, kind="stable")
        kept.append(distinct[order])
        chances.append(counts[order] / max(counts.sum(), 1))
    return Converter(edges, tuple(kept), tuple(chances), "fit")
