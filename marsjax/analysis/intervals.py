"""Numbers with their intervals, by the bootstrap."""

import warnings
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import stats

LEVEL = 0.95
"""Of all intervals."""


class Interval(NamedTuple):
    """A number and its interval."""

    value: float
    low: float
    high: float


UNKNOWN = Interval(float("nan"), float("nan"), float("nan"))


def resampled(samples: Sequence[np.ndarray], statistic: Callable[..., np.ndarray], draws: int, seed: int) -> np.ndarray:
    """A statistic of samples drawn anew, each from its own, [..., draws].

    Args:
      samples: [..., N] each, of at least two observations along the last axis.
      statistic: of the samples [..., draws, N], called with `axis=-1`.
      draws: how often.
      seed: the same one gives the same draws.

    Examples:
      >>> drawn = resampled([np.arange(10.0)], np.mean, draws=200, seed=0)
      >>> drawn.shape
      (200,)
    """
    with warnings.catch_warnings():
        # It warns of draws in which the statistic is NaN, which `percentiles` leaves out.
        warnings.simplefilter("ignore", stats.DegenerateDataWarning)
        found = stats.bootstrap(tuple(samples), statistic, n_resamples=draws, method="percentile", vectorized=True,
                                axis=-1, rng=np.random.default_rng(seed))
    distribution: np.ndarray = found.bootstrap_distribution
    return distribution


def percentiles(drawn: np.ndarray) -> tuple[Any, Any]:
    """The middle LEVEL of draws [..., D], (low, high); NaN draws are left out.

    Examples:
      >>> low, high = percentiles(np.arange(101.0))
      >>> round(float(low), 6), round(float(high), 6)
      (2.5, 97.5)
    """
    low, high = np.nanquantile(drawn, (0.5 - LEVEL / 2, 0.5 + LEVEL / 2), axis=-1)
    return low, high
