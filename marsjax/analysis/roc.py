"""Receiver operating characteristics: how well a score tells two kinds of cases apart, and the area under the curve."""

from typing import NamedTuple

import numpy as np

from marsjax.analysis.intervals import Interval, percentiles
from marsjax.core import limits
from marsjax.core.errors import InputError

RESAMPLES = 500


class CaseScores(NamedTuple):
    """CaseScores of cases of one kind, higher for those that look stranger."""

    values: np.ndarray
    """float64 [N]; NaN where there is none, which counts as the lowest."""
    block: np.ndarray
    """int64 [N], cases of one block hang together (futures of one starting state): they are resampled together."""


class RocCurve(NamedTuple):
    """A curve, from (0, 0) to (1, 1)."""

    false_alarms: np.ndarray
    """float64 [K], rising: share of clean cases with a score of at least a threshold."""
    found: np.ndarray
    """float64 [K], of the others."""


def curve(clean: CaseScores, strange: CaseScores) -> RocCurve:
    """Shares of alarms at every threshold; InputError where a kind has no case.

    Examples:
      >>> none = np.zeros(2, int)
      >>> curve(CaseScores(np.array([0.0, 1.0]), none), CaseScores(np.array([1.0, 2.0]), none)).found.tolist()
      [0.0, 0.5, 1.0, 1.0]
    """
    low, high = (_known(one) for one in (clean, strange))
    thresholds = np.unique(np.concatenate([low, high]))[::-1]
    shares = [1 - np.searchsorted(np.sort(one), thresholds, side="left") / len(one) for one in (low, high)]
    return RocCurve(*(np.concatenate([[0.0], one]) for one in shares))


def area(clean: CaseScores, strange: CaseScores, seed: int = 0, resamples: int = RESAMPLES) -> Interval:
    """The probability that a strange case has the higher score, ties counted half, with an interval.

    The interval is that of a bootstrap over blocks, those of both kinds drawn together where they have the same number.

    Examples:
      >>> blocks = np.arange(4)
      >>> area(CaseScores(np.array([0.0, 1, 2, 3]), blocks), CaseScores(np.array([2.0, 3, 4, 5]), blocks)).value
      0.875
    """
    limits.check_whole("area: resamples", resamples, 2, limits.RESAMPLES)
    low, high = (_known(one) for one in (clean, strange))
    blocks, place = np.unique(np.concatenate([clean.block, strange.block]), return_inverse=True)
    of_low, of_high = (_members(part, len(blocks)) for part in np.split(place, [len(low)]))
    wins = (high[None, :] > low[:, None]) + 0.5 * (high[None, :] == low[:, None])
    between = of_low.T @ wins @ of_high
    drawn = np.random.default_rng(seed).multinomial(len(blocks), np.full(len(blocks), 1 / len(blocks)), resamples)
    pairs = (drawn @ of_low.sum(axis=0)) * (drawn @ of_high.sum(axis=0))
    with np.errstate(invalid="ignore", divide="ignore"):
        areas = np.einsum("rb,bc,rc->r", drawn, between, drawn) / pairs
    value = float(between.sum() / (len(low) * len(high)))
    if len(blocks) < 2:
        return Interval(value, float("nan"), float("nan"))
    return Interval(value, *map(float, percentiles(areas)))


def found_at(clean: CaseScores, strange: CaseScores, rate: float) -> float:
    """Share of strange cases above a threshold that at most a share `rate` of clean cases reach."""
    low, high = np.sort(_known(clean))[::-1], _known(strange)
    threshold = low[min(int(np.floor(rate * len(low) + 1e-9)), len(low) - 1)]
    return float((high > threshold).mean())


def _known(scores: CaseScores) -> np.ndarray:
    if not len(scores.values) or len(scores.values) != len(scores.block):
        raise InputError(f"roc: expected cases of both kinds, each with its block, got {len(scores.values)} and "
                         f"{len(scores.block)} blocks")
    return np.where(np.isnan(scores.values), -np.inf, scores.values)


def _members(place: np.ndarray, blocks: int) -> np.ndarray:
    """float64 [N, blocks], 1 where a case is of a block."""
    found = np.zeros((len(place), blocks))
    found[np.arange(len(place)), place] = 1
    return found
