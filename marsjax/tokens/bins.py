"""Bins of the quantities in an order token: fit them, find a value's bin, draw a value from a bin.

A `Converter` lives on the host in float64, as the reference has it. For use inside jit the host turns it into tables
of integers (`IndexTable`, `TimeIndexTable`, `DrawTable`) that give the very same bins and, to 3e-8, the same law.
Reference: bin converters.
"""

import dataclasses
from typing import Any, Generic, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from marsjax.core import int64, times
from marsjax.core.errors import InputError
from marsjax.core.records import Array, Int64, Time
from marsjax.core.times import SECOND_NS

NAMES = ("price", "price-level", "price-change-ratio", "order-volume", "lob-volume", "pred-order-volume",
         "order-interval", "minute-buy-order-count", "minute-trans-vwap-change", "minute-trans-volume",
         "num-minutes-to-open", "minute-cancel-volume", "lob-spread")
"""The quantities that the reference has converters for, and the names of their files."""
MAX_VALUES = 100
"""Most values that fitting keeps of one bin."""
_PROBABILITY_TOLERANCE = 1e-6
_WORD = 2**32
_Drawn = TypeVar("_Drawn", Array, Time)


@dataclasses.dataclass(frozen=True, eq=False)
class Converter:
    """The bins of one quantity: host arrays of float64, read-only. Bin i holds edges[i] < v <= edges[i + 1].

    Raises InputError that names `where`, the bin and the value where the parts do not fit together.
    """

    edges: np.ndarray
    """[n + 1], finite, not falling. Where two are equal the bin between them is empty."""
    values: tuple[np.ndarray, ...]
    """n arrays: each bin's most common values, most common first. An empty bin has none."""
    probabilities: tuple[np.ndarray, ...]
    """n arrays: the probability of each value, 1 in all."""
    where: dataclasses.InitVar[str] = "converter"

    def __post_init__(self, where: str) -> None:
        edges = _floats(self.edges, f"{where}: edges")
        if len(edges) < 2 or np.any(np.diff(edges) < 0):
            raise InputError(f"{where}: expected at least 2 edges in rising order, got {edges!r}")
        count = len(edges) - 1
        if len(self.values) != count or len(self.probabilities) != count:
            raise InputError(f"{where}: expected values and probabilities of {count} bins, got {len(self.values)} and "
                             f"{len(self.probabilities)}")
        values = tuple(_floats(x, f"{where}: values of bin {i}") for i, x in enumerate(self.values))
        chances = tuple(_floats(x, f"{where}: probabilities of bin {i}") for i, x in enumerate(self.probabilities))
        for i, (value, chance) in enumerate(zip(values, chances, strict=True)):
            if len(value) != len(chance):
                raise InputError(f"{where}: bin {i} has {len(value)} values and {len(chance)} probabilities")
            if np.any(chance < 0) or (len(chance) and abs(chance.sum() - 1) > _PROBABILITY_TOLERANCE):
                raise InputError(f"{where}: bin {i}: expected probabilities of at least 0 that add up to 1, got "
                                 f"{chance.sum()} in all, {chance.min()} at least")
        for name, checked in {"edges": edges, "values": values, "probabilities": chances}.items():
            object.__setattr__(self, name, checked)

    @property
    def num_bins(self) -> int:
        """Number of bins, n."""
        return len(self.edges) - 1


def _floats(numbers: Any, where: str) -> np.ndarray:
    """One-dimensional, finite and exact as float64; a read-only copy."""
    given = np.asarray(numbers)
    if given.ndim != 1 or given.dtype.kind not in "biuf":
        raise InputError(f"{where}: expected a row of numbers, got {given.dtype} of shape {given.shape}")
    exact = given.astype(np.float64)
    if given.dtype.kind in "iu" and np.any(inexact := (given > 2**53) | (given < -(2**53))):
        raise InputError(f"{where}: expected integers within 2**53, got {given[inexact][0]}")
    if not np.all(np.isfinite(exact)):
        raise InputError(f"{where}: expected finite numbers, got {given[~np.isfinite(exact)][0]}")
    exact.flags.writeable = False
    return exact


def fit(values: np.ndarray, num_bins: int, max_values: int = MAX_VALUES) -> Converter:
    """Bins of about equal counts, as the reference fits them; every value that fills a bin alone gets its own edge.

    `values` [N], numbers in any order; all are used (the reference draws a million where there are more). Few
    distinct values give empty bins. Raises InputError for NaN or infinite values, for none, for fewer than 2 bins,
    and where no value is left once those with an edge of their own are taken out.

    Examples:
      >>> found = fit(np.array([1, 1, 1, 2, 3, 4, 5, 6]), num_bins=4)
      >>> found.edges.tolist()
      [0.0, 1.0, 3.0, 5.0, 6.0]
      >>> index(found, np.array([1, 3.5, 99])).tolist()
      [0, 2, 3]
    """
    if num_bins < 2:
        raise InputError(f"fit: expected at least 2 bins, got {num_bins}")
    exact = _floats(values, "fit: values")
    if not exact.size:
        raise InputError("fit: expected at least one value, got none")
    distinct, counts = np.unique(exact, return_counts=True)
    own = counts > len(exact) / num_bins
    if own.all():
        raise InputError(f"fit: all {len(distinct)} distinct values have an edge of their own, none is left for the "
                         f"other edges of {num_bins} bins")
    lowest = distinct[0] - 1 if own[0] else distinct[0]
    walked = _walk(np.repeat(distinct[~own], counts[~own]), num_bins - int(own.sum()))
    edges = np.sort(np.concatenate([[lowest], distinct[own], walked]))
    of_bin = _find(edges, distinct)
    kept = []
    for i in range(num_bins):
        here = np.flatnonzero(of_bin == i)
        kept.append(here[np.argsort(-counts[here], kind="stable")][:max_values])
    return Converter(edges, tuple(distinct[x] for x in kept),
                     tuple(counts[x] / max(counts[x].sum(), 1) for x in kept), "fit")


def _walk(rest: np.ndarray, edges_left: int) -> list[float]:
    """Upper edges that split the sorted values into parts of about equal counts, never inside a run of equal ones."""
    edges, current, count = [], 0, len(rest)
    for parts in range(edges_left, 0, -1):
        end = current + (count - current) // parts
        if end < count:
            # Past the run of values that the part begins with, but not past the last value.
            end = max(end, min(int(np.searchsorted(rest, rest[current], side="right")), count - 1))
        edges.append(rest[min(end, count - 1)])
        current = end
    return edges


def _find(edges: np.ndarray, values: np.ndarray) -> np.ndarray:
    return np.clip(np.digitize(values, edges, right=True) - 1, 0, len(edges) - 2)


def index(converter: Converter, values: np.ndarray) -> np.ndarray:
    """Bins of float64 values of any shape, int64 on the host; what lies below or above all edges is clipped.

    Examples:
      >>> found = fit(np.arange(1, 101), num_bins=4)
      >>> index(found, np.array([1, 30, 60, 1000])).tolist()
      [0, 1, 2, 3]
    """
    return _find(converter.edges, np.asarray(values, np.float64))


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class IndexTable:
    """What `lookup` compares integers with."""

    highest: Array
    """int32 [n - 1], the highest integer of each bin but the last."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TimeIndexTable:
    """What `lookup_time` compares durations with."""

    lowest: Time
    """[n - 1], the shortest duration of each bin but the first."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class DrawTable(Generic[_Drawn]):
    """What `draw` chooses from: K values a bin, filled up with the last one."""

    values: _Drawn
    """int32 [n, K] (prices in 1e-4 of the currency, shares), or Time [n, K]."""
    highest: Array
    """uint32 [n, K], the highest random word that draws each value; rising, 2**32 - 1 at the last value and past it."""
    is_empty: Array
    """bool [n], bins that hold no value: fitting gives them where there are few distinct values, and the reference
    crashes on them. Here they draw their upper edge, rounded."""


def index_table(converter: Converter) -> IndexTable:
    """Table for a quantity of whole numbers: v > edge in float64 is v > floor(edge) in integers.

    Raises InputError for an inner edge outside the int32 numbers.
    """
    floors = np.floor(converter.edges[1:-1])
    outside = (floors < -(2**31)) | (floors > 2**31 - 2)
    if outside.any():
        raise InputError(f"index table: expected inner edges from -2**31 to 2**31 - 2, got {floors[outside][0]}")
    return IndexTable(floors.astype(np.int32))


def interval_seconds(ns: int) -> float:
    """The seconds of an interval of `ns` nanoseconds as the reference has them, in float64.

    It asks pandas (2.2.3) for `total_seconds`: whole seconds plus microseconds / 1e6, with what is below a
    microsecond dropped. That is not always the float64 nearest to ns / 1e9 (1.14 s is the first of whole 10 ms).
    """
    seconds, rest = divmod(ns, SECOND_NS)
    return seconds + (rest // 1000) / 1_000_000


def time_index_table(converter: Converter) -> TimeIndexTable:
    """Table for durations, where the edges are seconds: thresholds are exact in nanoseconds (`interval_seconds`).

    Raises InputError for an inner edge of 2**31 - 1 seconds or more.
    """
    return TimeIndexTable(times.from_ns(np.array([_first_above(x) for x in converter.edges[1:-1]], np.int64)))


def _first_above(edge: float) -> int:
    """The smallest ns >= 0 whose `interval_seconds` are above the edge."""
    if edge >= 2**31 - 1:
        raise InputError(f"time index table: expected inner edges below 2**31 - 1 seconds, got {edge}")
    low, high = -1, (int(max(edge, 0)) + 1) * SECOND_NS
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if interval_seconds(middle) > edge else (middle, high)
    return high


def lookup(table: IndexTable, value: Array) -> Array:
    """Bin of each int32 value [...], int32 [...]; equals `index`."""
    above = jnp.asarray(value, jnp.int32)[..., None] > table.highest
    return jnp.sum(above, axis=-1, dtype=jnp.int32)


def lookup_int64(table: IndexTable, value: Int64) -> Array:
    """Bin of each 64-bit value [...], int32 [...]; equals `index`."""
    # No threshold is the highest int32, so what saturates stays on its side of all of them.
    return lookup(table, int64.to_int32(value))


def lookup_time(table: TimeIndexTable, time: Time) -> Array:
    """Bin of each duration [...], int32 [...]; equals `index` of its `interval_seconds`."""
    below = times.before(jax.tree.map(lambda x: jnp.asarray(x, jnp.int32)[..., None], time), table.lowest)
    return jnp.sum(~below, axis=-1, dtype=jnp.int32)


def draw_table(converter: Converter) -> DrawTable[Array]:
    """Table to draw whole numbers (prices, shares) from; values are rounded half to even.

    Raises InputError that names bin and value where one is no int32.
    """
    rows, highest, is_empty = _draw_rows(converter, scale=1, limits=(-(2**31), 2**31 - 1))
    return DrawTable(rows.astype(np.int32), highest, is_empty)


def time_draw_table(converter: Converter) -> DrawTable[Time]:
    """Table to draw durations from: seconds x 1e9 in float64, rounded half to even.

    Raises InputError that names bin and value where one is negative or 2**31 seconds or more.
    """
    rows, highest, is_empty = _draw_rows(converter, scale=SECOND_NS, limits=(0, 2**31 * SECOND_NS - 1))
    return DrawTable(times.from_ns(rows), highest, is_empty)


def _draw_rows(converter: Converter, scale: int, limits: tuple[int, int]) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Values int64 [n, K], highest words uint32 [n, K], and which bins are empty."""
    is_empty = np.array([len(x) == 0 for x in converter.values])
    width = max(1, *(len(x) for x in converter.values))
    rows = np.empty((converter.num_bins, width), np.int64)
    highest = np.full((converter.num_bins, width), _WORD - 1, np.uint32)
    for i, (values, chances) in enumerate(zip(converter.values, converter.probabilities, strict=True)):
        values, chances = (converter.edges[i + 1 : i + 2], np.ones(1)) if is_empty[i] else (values, chances)
        cumulative = np.cumsum(chances[chances > 0])
        words = np.rint(cumulative / cumulative[-1] * _WORD).astype(np.int64)
        drawable = np.diff(words, prepend=0) > 0
        exact = np.rint(values[chances > 0][drawable] * scale)
        if is_empty[i]:
            exact = np.clip(exact, *limits)
        if exact.min() < limits[0] or exact.max() > limits[1]:
            raise InputError(f"draw table: bin {i}: expected values from {limits[0]} to {limits[1]} once multiplied "
                             f"by {scale}, got {exact.min()} to {exact.max()}")
        rows[i, : len(exact)], rows[i, len(exact) :] = exact, exact[-1]
        highest[i, : len(exact)] = words[drawable] - 1
    return rows, highest, is_empty


def draw(table: DrawTable[_Drawn], bin: Array, bits: Array) -> _Drawn:
    """A value from each bin: int32 or Time [...] for bins int32 [...] and one random word uint32 [...] for each.

    Probabilities are multiples of 2**-32, within 3e-8 in total variation of the float64 law for 100 values; a value
    of probability 0 is never drawn. Bins out of range are clipped.
    """
    bin = jnp.clip(jnp.asarray(bin, jnp.int32), 0, len(table.is_empty) - 1)
    above = jnp.asarray(bits, jnp.uint32)[..., None] > jnp.asarray(table.highest)[bin]
    place = jnp.sum(above, axis=-1, dtype=jnp.int32)
    return jax.tree.map(lambda x: jnp.asarray(x)[bin, place], table.values)


def first(table: DrawTable[_Drawn], bin: Array) -> _Drawn:
    """The first listed value of each bin that can be drawn, its most common one: int32 or Time [...]."""
    return draw(table, bin, jnp.zeros(jnp.shape(bin), jnp.uint32))
