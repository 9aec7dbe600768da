"""How far an interval of a market lies from others like it, as p-values that keep their rate of false alarms.

An interval is numbers [F] (`interval_features`). It is ranked within a pool: the futures that an order model wrote from
the state before it, or intervals that are known to be clean. Distances are taken in the pool with the interval in it,
so that all of them stand on one footing: if the interval is a draw of the same law as its pool, every rank is as
probable, and p <= a comes with probability a at most, whatever the law and however many features hang together
(conformal prediction; Vovk, Gammerman, Shafer 2005).

An order model is not the market, and ranks within futures alone keep their rate for the model's own markets only.
`standardised` makes numbers of an interval that say how far it lies from its futures; their rank within those of clean
intervals of the same market (`rank_test` again) keeps the rate where model and market differ, as long as the intervals
can be exchanged for one another.
"""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from scipy import stats

from marsjax.analysis import intervals
from marsjax.analysis.intervals import Interval
from marsjax.core.errors import InputError

COMBINATIONS = ("ranks", "mean_square", "largest")
"""How distances of features become one: the mean of -log of their rank p-values in the pool, which no long tail
distorts; or of distances in robust standard deviations the root mean square, or the largest."""
_RESAMPLES = 2_000
_NORMAL = 1.349
"""Interquartile ranges of a normal law are so many standard deviations."""


class RankTest(NamedTuple):
    """An interval within its pool."""

    p_value: float
    """Of the combined distance; NaN where the pool is empty or the interval has no feature."""
    distance: float
    """Combined."""
    feature_p: np.ndarray
    """float64 [F], two-sided rank p-value of each feature alone; NaN where it is undefined."""


class DayTest(NamedTuple):
    """The intervals of a day together."""

    alarms: np.ndarray
    """bool [T], intervals with p at most the rate."""
    attained: float
    """The largest rate not above the one asked for that ranks in these pools can have; 0: they can have none."""
    some_p: float
    """Probability of an alarm or more by chance; 0 where there can be none."""
    count_p: float
    """Probability of as many alarms as there were, or more, by chance; 1 where there can be none."""
    least_p: float
    """Intervals x smallest p (Bonferroni), at most 1: right however they hang together."""


def rank_test(tested: np.ndarray, pool: np.ndarray, combination: str = "ranks") -> RankTest:
    """The rank of an interval's distance within its pool.

    Args:
      tested: float64 [F].
      pool: float64 [N, F]; NaN where a feature is undefined, which counts as its centre.
      combination: of COMBINATIONS.

    Examples:
      >>> pool = np.random.default_rng(0).normal(size=(99, 4))
      >>> round(rank_test(np.full(4, 9.0), pool).p_value, 6)
      0.01
    """
    _check(tested, pool)
    nothing = np.full(len(tested), np.nan)
    if not len(pool) or np.isnan(tested).all():
        return RankTest(float("nan"), float("nan"), nothing)
    together = np.concatenate([np.asarray(tested, np.float64)[None], pool])
    away = np.nan_to_num(np.abs(standardised(together, together)))
    ranks = np.stack([1 - np.searchsorted(np.sort(each), each, side="left") / len(each) for each in away.T], axis=1)
    combined = combine(-np.log(ranks) if combination == "ranks" else away, combination)
    by_feature = np.where(np.isnan(together[0]), np.nan, ranks[0])
    return RankTest(float(np.mean(combined >= combined[0])), float(combined[0]), by_feature)


def standardised(values: np.ndarray, pool: np.ndarray) -> np.ndarray:
    """Values [..., F] less the pool's medians, in its robust standard deviations; NaN of NaN.

    Those are interquartile ranges / 1.349, of a feature without one its standard deviation; where the pool has a single
    value, values equal to it give 0, and others the signed infinity that is written as +-1e6.
    """
    with np.errstate(invalid="ignore", divide="ignore"):
        few = np.isnan(pool).all(axis=0)
        filled = np.where(few, 0, pool)
        low, centre, high = np.nanquantile(filled, (0.25, 0.5, 0.75), axis=0)
        scale = (high - low) / _NORMAL
        scale = np.where(scale > 0, scale, np.nanstd(filled, axis=0))
        found = np.where(values == centre, 0.0, (values - centre) / scale)
    found = np.clip(found, -1e6, 1e6)
    return np.where(few | np.isnan(values), np.nan, found)


def combine(away: np.ndarray, combination: str) -> np.ndarray:
    """Distances [..., F] of features, or -log of ranks -> one [...]; undefined ones count 0."""
    if combination not in COMBINATIONS:
        raise InputError(f"combination: expected one of {', '.join(COMBINATIONS)}, got {combination!r}")
    known = np.abs(np.nan_to_num(away))
    if combination == "largest":
        return np.asarray(np.max(known, axis=-1))
    return np.asarray(np.mean(known, axis=-1) if combination == "ranks" else np.sqrt(np.mean(known**2, axis=-1)))


def own_pools_test(p_values: np.ndarray, rate: float, pools: np.ndarray) -> DayTest:
    """The intervals of one day at a rate of false alarms an interval, each ranked in a pool that no other has.

    What is due to chance is that of independent p-values: a sum of as many draws, each with the rate of its own pool.

    Args:
      p_values: float64 [T], NaN for intervals without one, which raise no alarm.
      rate: between 0 and 1.
      pools: int64 [T], intervals in the pool of each.

    Examples:
      >>> found = own_pools_test(np.array([0.02, 0.5, 0.9]), rate=0.05, pools=np.full(3, 99))
      >>> found.alarms.tolist(), round(found.count_p, 4), round(found.least_p, 6)
      ([True, False, False], 0.1426, 0.06)
    """
    known, alarms = _alarms(p_values, rate)
    sizes = np.asarray(pools)[known] + 1
    rates = _places(rate, sizes) / sizes
    law = np.ones(1)
    for each in rates:
        law = np.convolve(law, [1 - each, each])
    return _of_day(p_values, alarms, rates, lambda count: float(law[count:].sum()))


def shared_pool_test(p_values: np.ndarray, rate: float, pool: int) -> DayTest:
    """The same where all intervals are ranked in one pool, as that of clean intervals is.

    Such p-values hang together: a pool that happens to lie close raises alarms in many. With m places of n + 1 that
    raise an alarm, k of T intervals or more do where at least k of the k + m - 1 strangest of all n + T are tested ones
    (hypergeometric), if all n + T can be exchanged for one another. That is exact for distances that do not depend on
    the interval which is ranked; those of `rank_test` do a little.

    Args:
      p_values: float64 [T], NaN for intervals without one, which raise no alarm.
      rate: between 0 and 1.
      pool: n, intervals in it.

    Examples:
      >>> found = shared_pool_test(np.array([0.02, 0.5, 0.9]), rate=0.05, pool=99)
      >>> round(found.some_p, 4), round(found.count_p, 4)
      (0.1413, 0.1413)
    """
    known, alarms = _alarms(p_values, rate)
    places, tested = int(_places(rate, pool + 1)), int(known.sum())
    return _of_day(p_values, alarms, np.full(tested, places / (pool + 1)), lambda count: float(
        stats.hypergeom.sf(count - 1, pool + tested, tested, count + places - 1)))


def _alarms(p_values: np.ndarray, rate: float) -> tuple[np.ndarray, np.ndarray]:
    """bool [T] each: whether an interval has a p-value, and whether it raises an alarm."""
    check_rate(rate)
    return ~np.isnan(p_values), np.nan_to_num(p_values, nan=2.0) <= rate + 1e-12


def _places(rate: float, of: np.ndarray | int) -> np.ndarray:
    """Ranks that raise an alarm."""
    return np.floor(rate * np.asarray(of) + 1e-9)


def _of_day(p_values: np.ndarray, alarms: np.ndarray, rates: np.ndarray, at_least: Callable[[int], float]) -> DayTest:
    """From the rates of intervals with a p-value, and the probability of at least so many alarms by chance."""
    if not len(rates):
        return DayTest(alarms, 0.0, float("nan"), float("nan"), float("nan"))
    least = min(1.0, len(rates) * float(np.nanmin(p_values)))
    if not rates.any():
        return DayTest(alarms, 0.0, 0.0, 1.0, least)
    return DayTest(alarms, float(rates.max()), at_least(1), at_least(int(alarms.sum())) if alarms.any() else 1.0, least)


def overlap(real: np.ndarray, simulated: np.ndarray) -> float:
    """The overlap coefficient of two samples of single values: the sum over values of the smaller of the two shares.

    1 for equal distributions, 0 for none in common; NaN where a sample is empty. NaN values (a spread while a side is
    empty) are an outcome of their own. For values in ticks: continuous ones are never equal.

    Examples:
      >>> round(overlap(np.array([1, 1, 2, np.nan]), np.array([1, 2, 2, 2])), 6)
      0.5
    """
    if not len(real) or not len(simulated):
        return float("nan")
    values, place = np.unique(np.concatenate([real, simulated]), return_inverse=True)  # NaNs are equal here
    shares = [np.bincount(part, minlength=len(values)) / len(part) for part in np.split(place, [len(real)])]
    return float(np.minimum(*shares).sum())


def of_time_of_day(values: np.ndarray, time_ns: np.ndarray, clean: tuple[np.ndarray, np.ndarray], width_ns: int
                   ) -> np.ndarray:
    """A simple detector: how far values [T] lie above what is usual at their time of day, in standard deviations.

    What is usual is a mean of clean intervals, weighted by a normal law of the difference in time.

    Args:
      values: of one feature.
      time_ns: int64 [T], of their intervals.
      clean: the same of clean intervals, of one day or of many, (values [N], times [N]); NaN values do not count.
      width_ns: standard deviation of the weights; long ones take no account of the time.

    NaN where fewer than 2 clean intervals have a value.
    """
    usual, at = clean
    known = ~np.isnan(usual)
    if known.sum() < 2:
        return np.full(len(values), np.nan)
    usual, at = usual[known], at[known]
    away = (np.asarray(time_ns, np.float64)[:, None] - at) / width_ns
    weights = np.exp(-0.5 * (away**2 - (away**2).min(axis=1, keepdims=True)))
    weights /= weights.sum(axis=1, keepdims=True)
    mean = weights @ usual
    deviation = float(np.std(usual - (_leave_one_out(usual, at, width_ns)), ddof=1))
    return np.asarray((values - mean) / max(deviation, 1e-12))


def _leave_one_out(usual: np.ndarray, at: np.ndarray, width_ns: int) -> np.ndarray:
    """What is usual at each clean interval by the others."""
    away = (at[:, None] - at.astype(np.float64)) / width_ns
    np.fill_diagonal(away, np.inf)
    weights = np.exp(-0.5 * (away**2 - (away**2).min(axis=1, keepdims=True)))
    return np.asarray((weights @ usual) / weights.sum(axis=1))


def share(found: np.ndarray, block: np.ndarray, seed: int = 0) -> Interval:
    """The share of cases found, bool [N], with the interval of a bootstrap over blocks; NaN of none.

    Cases of one block [N] share a pool, so they hang together. Of few blocks an interval is rough.
    """
    if not len(found):
        return intervals.UNKNOWN
    _, place = np.unique(block, return_inverse=True)
    count = int(place.max()) + 1
    if count < 2:
        return Interval(float(np.mean(found)), float("nan"), float("nan"))
    hits, cases = np.bincount(place, found, count), np.bincount(place, minlength=count)
    drawn = np.random.default_rng(seed).multinomial(count, np.full(count, 1 / count), _RESAMPLES)
    return Interval(float(np.mean(found)), *map(float, intervals.percentiles((drawn @ hits) / (drawn @ cases))))


def check_rate(rate: float, name: str = "rate") -> None:
    """InputError, which names it, unless a rate lies between 0 and 1."""
    if isinstance(rate, bool) or not 0 < rate < 1:
        raise InputError(f"{name}: expected a number between 0 and 1, got {rate!r}")


def _check(tested: np.ndarray, pool: np.ndarray) -> None:
    if pool.ndim != 2 or tested.shape != pool.shape[1:]:
        raise InputError(f"rank_test: expected features [F] and a pool [N, F], got {tested.shape} and {pool.shape}")
