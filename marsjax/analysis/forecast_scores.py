"""How good forecasts were: scores a start, their means with standard errors, and calibration.

A forecast of K starts is its class probabilities, float64 [K, 3] in the order of `Move`. Scores come a start at a
time, so that two methods are compared by the mean of their differences, whose error leaves out what both share.
"""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from marsjax.analysis.forecast import Move
from marsjax.core.errors import InputError


class ScoreMean(NamedTuple):
    """A mean over starts."""

    value: float
    standard_error: float
    """NaN for fewer than two starts."""


@dataclasses.dataclass(frozen=True)
class Bin:
    """Forecasts of about one probability, and how often it came true."""

    low: float
    high: float
    count: int
    forecast: float
    """ScoreMean of the probabilities; NaN in an empty bin."""
    frequency: float
    standard_error: float
    """Of the frequency, if it were the forecast: sqrt(p (1 - p) / n)."""


def mean(scores: np.ndarray, overlap: int = 0) -> ScoreMean:
    """The mean of scores [K] and its standard error.

    Args:
      scores: a number a start, in order of time.
      overlap: starts whose horizons reach into the next ones: 0 if none do. Their scores hang together, so
        autocovariances up to that lag count too, with falling weights (Newey and West 1987).

    Examples:
      >>> found = mean(np.array([1.0, 2.0, 3.0, 4.0]))
      >>> found.value, round(found.standard_error, 4)
      (2.5, 0.6455)
    """
    scores = np.asarray(scores, np.float64)
    count = len(scores)
    if count < 2:
        return ScoreMean(float(scores.mean()) if count else float("nan"), float("nan"))
    off = scores - scores.mean()
    variance = float(off @ off)
    for lag in range(1, min(overlap, count - 1) + 1):
        variance += 2 * (1 - lag / (overlap + 1)) * float(off[lag:] @ off[:-lag])
    return ScoreMean(float(scores.mean()), (variance / count / (count - 1)) ** 0.5)


def root(square: ScoreMean) -> ScoreMean:
    """The root of a mean of squares; its error to first order."""
    value = square.value ** 0.5
    return ScoreMean(value, square.standard_error / (2 * value) if value > 0 else float("nan"))


def smoothed(counts: np.ndarray) -> np.ndarray:
    """Class counts [..., 3] -> probabilities (count + 1) / (n + 3): no class is impossible.

    Examples:
      >>> smoothed(np.array([0, 1, 3])).round(3).tolist()
      [0.143, 0.286, 0.571]
    """
    counts = np.asarray(counts, np.float64)
    return (counts + 1) / (counts.sum(axis=-1, keepdims=True) + len(Move))


def hits(probabilities: np.ndarray, realized: np.ndarray) -> np.ndarray:
    """float64 [K]: 1 where the most likely class came, shared where several are as likely, else 0.

    Examples:
      >>> hits(np.array([[0.2, 0.3, 0.5], [0.4, 0.4, 0.2]]), np.array([2, 0])).tolist()
      [1.0, 0.5]
    """
    top = probabilities == probabilities.max(axis=1, keepdims=True)
    return top[np.arange(len(realized)), realized] / top.sum(axis=1)


def log_scores(probabilities: np.ndarray, realized: np.ndarray) -> np.ndarray:
    """float64 [K]: log of the probability of the class that came, in nats; higher is better.

    Examples:
      >>> log_scores(np.array([[0.25, 0.25, 0.5]]), np.array([2])).round(4).tolist()
      [-0.6931]
    """
    return np.log(probabilities[np.arange(len(realized)), realized])


def reliability(probability: np.ndarray, came: np.ndarray, edges: Sequence[float]) -> list[Bin]:
    """Forecasts of one class, [K], by their probability.

    Args:
      probability: of the class.
      came: bool [K], whether it came.
      edges: rising, from 0 to 1; a bin holds its lower edge, the last one both.
    """
    if len(edges) < 2 or edges[0] != 0 or edges[-1] != 1 or any(b <= a for a, b in itertools.pairwise(edges)):
        raise InputError(f"reliability: expected edges that rise from 0 to 1, got {tuple(edges)}")
    which = np.minimum(np.searchsorted(edges, probability, side="right") - 1, len(edges) - 2)
    bins = []
    for number, (low, high) in enumerate(itertools.pairwise(edges)):
        inside = which == number
        count = int(inside.sum())
        p = float(probability[inside].mean()) if count else float("nan")
        frequency = float(came[inside].mean()) if count else float("nan")
        bins.append(Bin(float(low), float(high), count, p, frequency,
                        (p * (1 - p) / count) ** 0.5 if count else float("nan")))
    return bins


def coverage(quantiles: np.ndarray, realized: np.ndarray, overlap: int = 0) -> list[ScoreMean]:
    """How often a label came that is at most each forecast quantile: of quantiles [K, Q] and labels [K], Q means.

    A label on the quantile counts half: many trajectories of a market with ticks end at the very same place.
    """
    realized = np.asarray(realized)[:, None]
    below = (realized < quantiles) + 0.5 * (realized == quantiles)
    return [mean(column, overlap) for column in below.T]
