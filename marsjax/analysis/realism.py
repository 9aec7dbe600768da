"""How alike two sources of data are: similarity of distributions, and of what they foretell (paper, Table 7).

A sample is values in blocks that are independent of each other: what came after one starting state. Bins and classes
are fixed by values from other days than those compared. Every number has an interval from a bootstrap over blocks, and
is to be read between a ceiling, history against itself with as many blocks (`ceiling`), and a floor, the same
functions on some other source (the noise agent's orders, say): few values make any two samples differ.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

from marsjax.analysis.intervals import UNKNOWN, Interval, percentiles
from marsjax.core.errors import InputError

RESAMPLES = 500
_Z = 1.959964
_SHARES = np.arange(0.02, 0.99, 0.02)


class Sample(NamedTuple):
    """Values of one quantity in one source."""

    values: np.ndarray
    """float64 [n], finite."""
    block: np.ndarray
    """int64 [n], the start that each belongs to, 0 to blocks - 1."""
    blocks: int
    dropped: int
    """Values left out because they are not finite."""


Metric = Callable[[Sample, Sample], float]


def sample(parts: Sequence[Any]) -> Sample:
    """One array of values a block; values that are not finite are dropped and counted.

    Raises InputError if no value is left.
    """
    arrays = [np.asarray(part, np.float64).ravel() for part in parts]
    values = np.concatenate([np.zeros(0), *arrays])
    block = np.repeat(np.arange(len(arrays)), [len(part) for part in arrays])
    keep = np.isfinite(values)
    if not keep.any():
        raise InputError(f"sample: expected at least one finite value, got {len(values)} of none")
    return Sample(values[keep], block[keep], len(arrays), int((~keep).sum()))


def too_few(name: str, one: Sample | None) -> str:
    """Why a sample says nothing of a source, in words: one start, or one value; empty where it says something."""
    if one is None:
        return f"too few: {name} has no values"
    starts = len(np.unique(one.block))
    if starts < 2:
        return f"too few: {name} has values after {starts} start, expected 2 at least"
    if one.values.min() == one.values.max():
        return f"constant: {name} has the one value {one.values[0]:g}"
    return ""


def quantile_edges(training: np.ndarray) -> np.ndarray:
    """Inner edges [E] of bins: the 2%, 4% ... 98% quantiles of training values, each once; a bin has its right edge.

    Raises InputError for values that are not finite, or none.

    Examples:
      >>> len(quantile_edges(np.arange(1000.0)))
      49
    """
    return np.unique(np.quantile(_finite(training, "quantile_edges"), _SHARES, method="inverted_cdf"))


def class_edges(training: np.ndarray) -> np.ndarray:
    """Edges [2] of three classes: the terciles of training values, each class with its right edge.

    Raises InputError for values that are not finite, or none.

    Examples:
      >>> class_edges(np.arange(9.0)).round(2).tolist()
      [2.67, 5.33]
    """
    return np.quantile(_finite(training, "class_edges"), [1 / 3, 2 / 3])


def similarity(first: Sample, second: Sample, edges: np.ndarray) -> float:
    """1 - total variation of the two distributions over the bins: 1 if their shares are equal, 0 if they share none.

    Examples:
      >>> one, other = sample([np.array([1.0, 2.0]), np.array([3.0])]), sample([np.array([2.0, 3.0, 9.0])])
      >>> round(similarity(one, other, edges=np.array([1.5, 2.5, 5.0])), 4)
      0.6667
    """
    return float(_overlap(*(_counts(one, edges).sum(axis=0) for one in (first, second))))


def wasserstein(first: Sample, second: Sample, spread: float) -> float:
    """Wasserstein-1 distance of the two empirical distributions, in units of `spread`; NaN if that is 0.

    Examples:
      >>> one, other = sample([np.array([1.0, 2.0])]), sample([np.array([2.0, 3.0])])
      >>> wasserstein(one, other, spread=2.0)
      0.5
    """
    return float(stats.wasserstein_distance(first.values, second.values)) / spread if spread > 0 else float("nan")


def interquartile(history: np.ndarray) -> float:
    """The 75% quantile less the 25% one: the unit of `wasserstein`. InputError as `quantile_edges`.

    Examples:
      >>> interquartile(np.arange(5.0))
      2.0
    """
    low, high = np.quantile(_finite(history, "interquartile"), [0.25, 0.75])
    return float(high - low)


def similarity_interval(first: Sample, second: Sample, edges: np.ndarray, seed: int = 0, resamples: int = RESAMPLES
                        ) -> Interval:
    """`similarity` with an interval over resampled blocks of both."""
    rng, value = np.random.default_rng(seed), similarity(first, second, edges)
    drawn = [_draws(one.blocks, rng, resamples) @ _counts(one, edges) for one in (first, second)]
    return _around(value, _overlap(*drawn), 1.0)


def wasserstein_interval(first: Sample, second: Sample, spread: float, seed: int = 0, resamples: int = RESAMPLES
                         ) -> Interval:
    """`wasserstein` with an interval over resampled blocks of both."""
    value = wasserstein(first, second, spread)
    if np.isnan(value):
        return UNKNOWN
    rng, merged = np.random.default_rng(seed), _merged(first, second)
    drawn = zip(*(_draws(one.blocks, rng, resamples) for one in (first, second)), strict=True)
    found = np.array([_distance(*merged, a[first.block], b[second.block]) / spread for a, b in drawn])
    return _around(value, found)


def three_class_accuracy(rollouts: np.ndarray, realized: np.ndarray, edges: np.ndarray, seed: int = 0,
                         resamples: int = RESAMPLES) -> Interval:
    """Share of starts whose real class is the one that most of their rollouts fall into, interval over starts.

    Args:
      rollouts: float [K, B], the quantity in B rollouts of each of K starts; NaN ones are no vote.
      realized: float [K], what came.
      edges: [2], of `class_edges`.
      seed: of the bootstrap.
      resamples: of the bootstrap.

    Equal votes go to the class of the rollouts' median. Starts without a vote, or with no real value, are left out;
    InputError if none is left.
    """
    rollouts, realized = np.asarray(rollouts, np.float64), np.asarray(realized, np.float64)
    if rollouts.ndim != 2 or realized.shape != rollouts.shape[:1]:
        raise InputError(f"three_class_accuracy: expected rollouts [K, B] and realized [K], got {rollouts.shape} and "
                         f"{realized.shape}")
    keep = np.isfinite(realized) & np.isfinite(rollouts).any(axis=1)
    if not keep.any():
        raise InputError(f"three_class_accuracy: expected starts with rollouts and a real value, got 0 of {len(keep)}")
    rollouts, realized = np.where(np.isfinite(rollouts), rollouts, np.nan)[keep], realized[keep]
    each = np.where(np.isnan(rollouts), -1, np.searchsorted(edges, rollouts))
    votes = np.stack([(each == k).sum(axis=1) for k in range(3)], axis=1)
    middle = np.searchsorted(edges, np.nanmedian(rollouts, axis=1))
    # Half a vote more decides between equals, and nothing else.
    foretold = np.argmax(votes + 0.5 * (np.arange(3) == middle[:, None]), axis=1)
    is_right = foretold == np.searchsorted(edges, realized)
    rng = np.random.default_rng(seed)
    drawn = _draws(len(is_right), rng, resamples) @ is_right / len(is_right)
    return _around(float(is_right.mean()), drawn, 1.0)


def ceiling(metric: Metric, history: Sample, blocks: tuple[int, int], seed: int = 0, resamples: int = RESAMPLES
            ) -> Interval:
    """What a source that is no different from history would get: the metric of two samples drawn from it.

    Args:
      metric: of two samples, `similarity` or `wasserstein` with their last argument given.
      history: with at least 2 blocks.
      blocks: how many the two samples of the comparison have; so many are drawn, with replacement.
      seed: of the draws.
      resamples: draws.

    Returns their mean, and the middle 95% of them.
    """
    _check_ceiling(history, blocks)
    rng = np.random.default_rng(seed)
    order = np.argsort(history.block, kind="stable")
    values = np.split(history.values[order], np.searchsorted(history.block[order], np.arange(1, history.blocks)))
    found: list[float] = []
    while len(found) < resamples:
        drawn = [[values[block] for block in rng.integers(0, history.blocks, count)] for count in blocks]
        # Blocks without a value can be all that was drawn.
        if all(any(len(part) for part in parts) for parts in drawn):
            found.append(metric(*(sample(parts) for parts in drawn)))
    return _middle(np.array(found))


def similarity_ceiling(history: Sample, edges: np.ndarray, blocks: tuple[int, int], seed: int = 0,
                       resamples: int = RESAMPLES) -> Interval:
    """`ceiling` of `similarity`: counts by block are added up, so that its time does not grow with the samples."""
    _check_ceiling(history, blocks)
    rng, counts = np.random.default_rng(seed), _counts(history, edges)
    return _middle(_overlap(*(_draws(history.blocks, rng, resamples, count) @ counts for count in blocks)))


def wasserstein_ceiling(history: Sample, spread: float, blocks: tuple[int, int], seed: int = 0,
                        resamples: int = RESAMPLES) -> Interval:
    """`ceiling` of `wasserstein`, values weighted by how often their block is drawn; NaN if `spread` is 0."""
    _check_ceiling(history, blocks)
    if not spread > 0:
        return UNKNOWN
    rng, merged = np.random.default_rng(seed), _merged(history, history)
    drawn = zip(*(_draws(history.blocks, rng, resamples, count) for count in blocks), strict=True)
    return _middle(np.array([_distance(*merged, a[history.block], b[history.block]) / spread for a, b in drawn]))


def _check_ceiling(history: Sample, blocks: tuple[int, int]) -> None:
    if history.blocks < 2 or min(blocks) < 1:
        raise InputError(f"ceiling: expected 2 blocks of history and samples of 1, got {history.blocks} and {blocks}")


def _middle(found: np.ndarray) -> Interval:
    """Mean and middle 95% of draws; those of blocks without a value, NaN, are none."""
    low, high = percentiles(found)
    return Interval(float(np.nanmean(found)), float(low), float(high))


def _finite(values: np.ndarray, where: str) -> np.ndarray:
    values = np.asarray(values, np.float64)
    if not values.size or not np.isfinite(values).all():
        raise InputError(f"{where}: expected finite values, got {values.size} of which "
                         f"{int((~np.isfinite(values)).sum())} are not")
    return values


def _counts(one: Sample, edges: np.ndarray) -> np.ndarray:
    """Values of each block in each bin, float64 [blocks, E + 1]."""
    bins = len(edges) + 1
    place = one.block * bins + np.searchsorted(edges, one.values)
    return np.bincount(place, minlength=one.blocks * bins).reshape(one.blocks, bins).astype(np.float64)


def _overlap(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """1 - total variation of counts [..., bins], NaN where a side is empty."""
    with np.errstate(invalid="ignore"):
        shares = [counts / counts.sum(axis=-1, keepdims=True) for counts in (first, second)]
    return 1 - np.abs(shares[0] - shares[1]).sum(axis=-1) / 2


def _merged(first: Sample, second: Sample) -> tuple[np.ndarray, np.ndarray]:
    """The order of the values of both, and the steps between them."""
    values = np.concatenate([first.values, second.values])
    order = np.argsort(values, kind="stable")
    return order, np.diff(values[order])


def _distance(order: np.ndarray, steps: np.ndarray, first: np.ndarray, second: np.ndarray) -> float:
    """The area between the two distribution functions, their values weighted; NaN if one has no weight."""
    if not first.sum() or not second.sum():
        return float("nan")
    weights = np.concatenate([first / first.sum(), -second / second.sum()])
    return float(np.abs(np.cumsum(weights[order])[:-1]) @ steps)


def _draws(blocks: int, rng: np.random.Generator, resamples: int, count: int | None = None) -> np.ndarray:
    """How often each block is among `count` draws (as many as blocks, if None), float64 [resamples, blocks]."""
    count = blocks if count is None else count
    return rng.multinomial(count, np.full(blocks, 1 / blocks), resamples).astype(np.float64)


def _around(value: float, drawn: np.ndarray, most: float = np.inf) -> Interval:
    """1.96 standard errors to each side, within 0 and `most`.

    Not the quantiles of what was drawn: drawing adds noise to both samples, so that all of it is less alike.
    """
    half = _Z * float(np.nanstd(drawn))
    return Interval(value, max(value - half, 0.0), min(value + half, most))
