"""How far two sources are apart in one statistic: L1 of histograms and Wasserstein-1, with intervals (LOB-Bench).

L1 is half the sum of the absolute differences of the shares of bins: 0 for equal shares, 1 for none in common. Its bins
are Freedman and Diaconis' of the values of both sources, or every value where a statistic is discrete; of a
statistic given another, deciles within each group. Wasserstein-1 is in standard deviations of the values of both (of
both in a group). Over groups both are means weighted by the number of values.

Values come in blocks, what followed one starting state; intervals are over resampled blocks, since values of one block
hang together (the paper resamples single values, as if they did not).
"""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from marsjax.analysis.intervals import UNKNOWN, Interval
from marsjax.core.errors import InputError

LEAST_VALUES = 30
"""Of a source, below which nothing is said."""
LEAST_BLOCKS = 2
_POINTS = 4096
"""Most places at which resampled distribution functions are compared: quantiles of all values."""
_AT_ONCE = 16
"""Resamples of a step."""
_Z = 1.959964


class Values(NamedTuple):
    """Values of one statistic in one source."""

    values: np.ndarray
    """float64 [n], finite."""
    given: np.ndarray
    """float64 [n], what each is given; zeros for a statistic that stands alone."""
    block: np.ndarray
    """int64 [n], from 0 to blocks - 1."""
    blocks: int


@dataclasses.dataclass(frozen=True)
class Binning:
    """How values of two sources are put into bins."""

    is_discrete: bool = False
    """Every value is a bin."""
    is_conditional: bool = False
    """Values are compared group by group of what they are given; their bins are deciles unless discrete."""
    is_given_discrete: bool = False
    """Every given value is a group; else its deciles bound them."""
    with_wasserstein: bool = True


class Distances(NamedTuple):
    """Of two sources, each with its interval."""

    l1: Interval
    wasserstein: Interval
    """NaN where no group has two different values."""
    l1_drawn: np.ndarray
    """float64 [R], of resamples; empty where there are none."""
    wasserstein_drawn: np.ndarray


NOTHING = Distances(UNKNOWN, UNKNOWN, np.zeros(0), np.zeros(0))
"""Of sources of which nothing can be said."""


def gathered(parts: Sequence[Sequence[np.ndarray]], given: Sequence[Sequence[np.ndarray]] | None = None) -> Values:
    """Values of blocks, arrays of each sequence in each; pairs that are not finite, and empty blocks, are dropped."""
    blocks = [np.concatenate([np.zeros(0), *arrays]) for arrays in parts]
    others = [np.zeros(len(x)) for x in blocks] if given is None else [np.concatenate([np.zeros(0), *arrays])
                                                                      for arrays in given]
    keep = [np.isfinite(a) & np.isfinite(b) for a, b in zip(blocks, others, strict=True)]
    kept = [(a[k], b[k]) for a, b, k in zip(blocks, others, keep, strict=True) if k.any()]
    sizes = [len(a) for a, _ in kept]
    values, of = (np.concatenate([np.zeros(0), *some]) for some in (zip(*kept, strict=True) if kept else ((), ())))
    return Values(values, of, np.repeat(np.arange(len(kept)), sizes), len(kept))


def refusal(name: str, one: Values) -> str:
    """Why nothing can be said of a source by these values, in words; empty where something can."""
    if one.blocks < LEAST_BLOCKS:
        return f"too few: {name} has values in {one.blocks} stretches, expected {LEAST_BLOCKS} at least"
    if len(one.values) < LEAST_VALUES:
        return f"too few: {name} has {len(one.values)} values, expected {LEAST_VALUES} at least"
    if one.values.min() == one.values.max():
        return f"constant: {name} has the one value {one.values[0]:g}"
    return ""


def freedman_diaconis(values: np.ndarray) -> np.ndarray:
    """Inner edges [E] of bins of values [n], each with its right edge: 2 IQR n^(-1/3) wide, and the last as it comes.

    Where half of the values are equal, so that the IQR is 0, they are 3.49 standard deviations n^(-1/3) wide (Scott).
    Only edges between values are kept. InputError for values that are not finite, or none.
    """
    if not len(values) or not np.isfinite(values).all():
        raise InputError(f"freedman_diaconis: expected finite values, got {len(values)} of which "
                         f"{int((~np.isfinite(values)).sum())} are not")
    low, high = np.quantile(values, [0.25, 0.75])
    width = (2 * (high - low) or 3.49 * float(values.std())) / len(values) ** (1 / 3)
    if not width > 0:
        return np.zeros(0)
    least = float(values.min())
    count = max(int(np.ceil((float(values.max()) - least) / width)), 1)
    width = (float(values.max()) - least) / count
    bins = np.unique(np.minimum(np.maximum(np.ceil((values - least) / width), 1), count))
    return least + bins[:-1] * width


def deciles(values: np.ndarray) -> np.ndarray:
    """Inner edges [E] of bins: the deciles of values [n], each once."""
    return np.unique(np.quantile(values, np.arange(1, 10) / 10))


def distances(first: Values, second: Values, binning: Binning, seed: int = 0, resamples: int = 0) -> Distances:
    """How far two sources are apart; without resamples the intervals are NaN.

    NOTHING where no group has values of both; InputError where one of them has no value.
    """
    draws = None
    if resamples:
        rng = np.random.default_rng(seed)
        draws = block_draws(first.blocks, rng, resamples), block_draws(second.blocks, rng, resamples)
    return _compared(first, second, binning, draws)


def twin(history: Values, against: tuple[Values, Values], binning: Binning, seed: int = 0, resamples: int = 100,
         later: Values | None = None) -> tuple[float, float]:
    """Mean L1 and Wasserstein-1 of a source that is no different from history: what a perfect one would get.

    Two samples of blocks are drawn from history, as many as the sources of `against` have, and compared by its bins;
    the second of `later`, where that is given. InputError where one of them has no value.
    """
    rng, second = np.random.default_rng(seed), history if later is None else later
    a, b = (block_draws(one.blocks, rng, resamples, other.blocks)
            for one, other in zip((history, second), against, strict=True))
    found = _compared(history, second, binning, (a, b), against)
    return _mean(found.l1_drawn), _mean(found.wasserstein_drawn)


def interquartile_mean(values: np.ndarray) -> np.ndarray:
    """The mean of the values [..., n] from their lower to their upper quartile, [...]; NaN where one is NaN."""
    values = np.asarray(values, np.float64)
    low, high = np.quantile(values, [0.25, 0.75], axis=-1, keepdims=True)
    inside = (values >= low) & (values <= high)
    with np.errstate(invalid="ignore"):
        mean: np.ndarray = np.where(inside, values, 0).sum(axis=-1) / inside.sum(axis=-1)
    return mean


def around(value: float, drawn: np.ndarray, most: float = np.inf) -> Interval:
    """1.96 standard errors to each side, within 0 and `most`; of no draws NaN.

    Not the quantiles of what was drawn: drawing adds noise to both samples, so that they are further apart.
    """
    if not np.isfinite(drawn).any() or np.isnan(value):
        return Interval(value, float("nan"), float("nan"))
    half = _Z * float(np.nanstd(drawn))
    return Interval(value, max(value - half, 0.0), min(value + half, most))


_Draws = tuple[np.ndarray, np.ndarray]
_Pair = tuple[Values, Values]


def _compared(first: Values, second: Values, binning: Binning, draws: _Draws | None,
              fixed_by: tuple[Values, Values] | None = None) -> Distances:
    """`distances` by draws of blocks; groups, bins and units are fixed by the values of `fixed_by`, else of both."""
    by = fixed_by or (first, second)
    for one in (first, second, *by):
        if not len(one.values):
            raise InputError("lob_bench: expected values of both sources, got none of one")
    both, given = (np.concatenate(columns) for columns in zip(*(one[:2] for one in by), strict=True))
    edges = np.zeros(0)
    if binning.is_conditional:
        edges = np.unique(given)[:-1] if binning.is_given_discrete else deciles(given)
    which = np.searchsorted(edges, given)
    groups = [np.searchsorted(edges, one.given) for one in (first, second)]
    if not np.isin(groups[0], groups[1]).any():
        return NOTHING
    # Column 0 is that of the samples themselves.
    total, weights = np.zeros((2, 2, 1 + (len(draws[0]) if draws else 0)))
    for group in np.unique(which):
        inside = both[which == group]
        a, b = (_in_group(one, at == group) for one, at in zip((first, second), groups, strict=True))
        found = np.stack([_l1((a, b), _bins(inside, binning), draws),
                          _wasserstein((a, b), float(inside.std()) if binning.with_wasserstein else 0.0, draws)])
        known = np.isfinite(found)
        total += np.where(known, found, 0) * len(inside)
        weights += known * len(inside)
    with np.errstate(invalid="ignore"):
        mean = total / np.where(weights > 0, weights, np.nan)
    return Distances(around(float(mean[0, 0]), mean[0, 1:], 1.0), around(float(mean[1, 0]), mean[1, 1:]),
                     mean[0, 1:], mean[1, 1:])


def _bins(values: np.ndarray, binning: Binning) -> np.ndarray:
    if binning.is_discrete:
        return np.unique(values)[:-1]
    return deciles(values) if binning.is_conditional else freedman_diaconis(values)


def _in_group(one: Values, keep: np.ndarray) -> Values:
    return Values(one.values[keep], one.given[keep], one.block[keep], one.blocks)


def _weights(one: Values, draws: np.ndarray | None) -> np.ndarray:
    """How often each block counts, float64 [1 + R, blocks]."""
    own = np.ones((1, one.blocks))
    return own if draws is None else np.concatenate([own, draws])


def _l1(pair: _Pair, edges: np.ndarray, draws: _Draws | None) -> np.ndarray:
    """[1 + R]; 1 where one source has no value, NaN where both have none."""
    shares = []
    for number, one in enumerate(pair):
        bins = len(edges) + 1
        counts = np.bincount(one.block * bins + np.searchsorted(edges, one.values), minlength=one.blocks * bins)
        drawn = _weights(one, draws[number] if draws else None) @ counts.reshape(one.blocks, bins)
        with np.errstate(invalid="ignore"):
            shares.append(drawn / drawn.sum(axis=1, keepdims=True))
    apart = np.abs(shares[0] - shares[1]).sum(axis=1) / 2
    empty = [np.isnan(one[:, 0]) for one in shares]
    return np.where(empty[0] ^ empty[1], 1.0, apart)


def _wasserstein(pair: _Pair, unit: float, draws: _Draws | None) -> np.ndarray:
    """[1 + R]; NaN where a source has no value, or none differ. The samples' own is exact."""
    first, second = pair
    resamples = len(draws[0]) if draws else 0
    found = np.full(1 + resamples, np.nan)
    if not len(first.values) or not len(second.values) or not unit > 0:
        return found
    places = np.unique(np.concatenate([first.values, second.values]))
    found[0] = _areas(pair, places, None, 1)[0] / unit
    if draws:
        if len(places) > _POINTS:
            places = np.unique(np.quantile(places, np.linspace(0, 1, _POINTS), method="inverted_cdf"))
        found[1:] = _areas(pair, places, draws, resamples) / unit
    return found


def _areas(pair: _Pair, places: np.ndarray, draws: _Draws | None, rows: int) -> np.ndarray:
    """Areas between the two distribution functions, known at places, float64 [rows]; NaN where one has no value."""
    steps, found, below = np.diff(places), np.full(rows, np.nan), []
    for one in pair:
        at = one.block * len(places) + np.searchsorted(places, one.values)
        counts = np.bincount(at, minlength=one.blocks * len(places)).reshape(one.blocks, -1)
        below.append(counts.cumsum(axis=1).astype(np.float64))
    for begin in range(0, rows, _AT_ONCE):
        shares = []
        for number, each in enumerate(below):
            drawn = each.sum(axis=0)[None] if draws is None else draws[number][begin : begin + _AT_ONCE] @ each
            with np.errstate(invalid="ignore"):
                shares.append(drawn / drawn[:, -1:])
        found[begin : begin + _AT_ONCE] = np.abs(shares[0] - shares[1])[:, :-1] @ steps
    return found


def block_draws(blocks: int, rng: np.random.Generator, resamples: int, count: int | None = None) -> np.ndarray:
    """How often each block is among `count` draws (as many as blocks, if None), float64 [resamples, blocks]."""
    count = blocks if count is None else count
    return rng.multinomial(count, np.full(blocks, 1 / blocks), resamples).astype(np.float64)


def _mean(drawn: np.ndarray) -> float:
    return float(np.nanmean(drawn)) if np.isfinite(drawn).any() else float("nan")
