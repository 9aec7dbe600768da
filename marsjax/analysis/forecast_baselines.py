"""Forecasts that need no order model: no change, class frequencies, and a logistic regression on the book.

What they fit, they fit on the past alone: labels whose horizon ends before the first start that they are judged on.
"""

import dataclasses

import numpy as np
from scipy import special

from marsjax.analysis.forecast import MINUTE_NS, History, Move, mid_twice_at
from marsjax.core.errors import InputError

FEATURES = ("imbalance of the touch", "imbalance of five levels", "return of 1 minute", "return of 5 minutes")
_RETURNS_NS = (MINUTE_NS, 5 * MINUTE_NS)
_STEPS = 100
_TOLERANCE = 1e-10


@dataclasses.dataclass(frozen=True, eq=False)
class Logistic:
    """A multinomial logistic regression of `Move` on F features."""

    center: np.ndarray
    """float64 [F], of the features."""
    scale: np.ndarray
    """float64 [F]."""
    weights: np.ndarray
    """float64 [3, F + 1] of the centered and scaled features, the last column the intercepts."""

    def probabilities(self, features: np.ndarray) -> np.ndarray:
        """Of the classes, float64 [K, 3], from features [K, F]."""
        return special.softmax(_design(features, self.center, self.scale) @ self.weights.T, axis=1)


def features(seen: History, at_ns: np.ndarray) -> np.ndarray:
    """What is known of the book at times [K], float64 [K, F] in the order of FEATURES; 0 before the first order.

    Returns are of the mid; where it was not known that long ago, they are 0.
    """
    row = np.searchsorted(seen.time_ns, at_ns, side="right")
    columns = [np.concatenate([[0.0], column])[row] for column in (seen.touch_imbalance, seen.deep_imbalance)]
    now = mid_twice_at(seen, at_ns)
    for back_ns in _RETURNS_NS:
        then = mid_twice_at(seen, at_ns - back_ns)
        known = (then > 0) & (now > 0)
        columns.append(np.where(known, now / np.where(known, then, 1) - 1, 0.0))
    return np.stack(columns, axis=1)


def no_change(starts: int, trajectories: int) -> np.ndarray:
    """Counts [K, 3] of the forecast that the mid stays: all trajectories FLAT."""
    return np.tile(np.where(np.arange(len(Move)) == Move.FLAT, trajectories, 0), (starts, 1))


def fit(features: np.ndarray, realized: np.ndarray, penalty: float = 1.0) -> Logistic:
    """Fits a logistic regression by Newton's method.

    Args:
      features: float64 [N, F].
      realized: int [N], the classes that came.
      penalty: of half the sum of squares of the weights of scaled features (not of the intercepts), against the sum of
        log probabilities.

    Raises InputError for no rows, or numbers that are not finite.
    """
    if not len(features) or not np.isfinite(features).all():
        raise InputError(f"logistic regression: expected rows of finite features, got {len(features)} rows")
    center, spread = features.mean(axis=0), features.std(axis=0)
    scale = np.where(spread > 0, spread, 1.0)
    x = _design(features, center, scale)
    classes, width = len(Move), x.shape[1]
    came = np.eye(classes)[realized]
    # A little on the intercepts too: only their differences matter, and the Hessian would be singular.
    ridge = np.tile(np.append(np.full(width - 1, penalty), 1e-6), classes)
    weights = np.zeros(classes * width)
    for _ in range(_STEPS):
        p = special.softmax(x @ weights.reshape(classes, width).T, axis=1)
        gradient = ((came - p).T @ x).reshape(-1) - ridge * weights
        blocks = [[x.T @ (x * (p[:, i] * ((i == j) - p[:, j]))[:, None]) for j in range(classes)]
                  for i in range(classes)]
        step = np.linalg.solve(np.block(blocks) + np.diag(ridge), gradient)
        size, before = 1.0, _objective(x, came, weights, ridge)
        # Newton's step goes uphill, but may go too far.
        while _objective(x, came, weights + size * step, ridge) < before and size > _TOLERANCE:
            size /= 2
        weights = weights + size * step
        if np.abs(size * step).max() < _TOLERANCE:
            break
    return Logistic(center, scale, weights.reshape(classes, width))


def _objective(x: np.ndarray, came: np.ndarray, weights: np.ndarray, ridge: np.ndarray) -> float:
    log_p = special.log_softmax(x @ weights.reshape(came.shape[1], -1).T, axis=1)
    return float(np.sum(log_p * came) - 0.5 * np.sum(ridge * weights**2))


def _design(features: np.ndarray, center: np.ndarray, scale: np.ndarray) -> np.ndarray:
    return np.column_stack([(features - center) / scale, np.ones(len(features))])
