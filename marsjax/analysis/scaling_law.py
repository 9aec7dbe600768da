"""A law of losses by the size of a model and the orders that it was trained on: L = E + A / N^a + B / D^b.

N is how many numbers a model learns, D how many orders it is trained on, L nats an order. The fit makes the Huber loss
of the differences of log L small (Hoffmann et al., 2022), from several starts.
"""

import itertools
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np
from scipy import optimize

from marsjax.analysis.intervals import Interval, percentiles
from marsjax.core import limits
from marsjax.core.errors import InputError

TERMS = ("E", "A", "a", "B", "b")
HUBER = 1e-2
"""Differences of log L up to it count by their squares, larger ones by their size."""
_MOST_EXPONENT = 4.0
_STARTS = tuple(itertools.product((0.3, 1.0), (0.3, 1.0), (0.01, 0.2)))
"""Exponents of N and D, and the share of the mean loss that each of their terms has in the middle of the points."""
_LEAST_LOG, _MOST_LOG = -25.0, 10.0
"""Of terms in the middle of the points."""


class Losses(NamedTuple):
    """What was measured, K points; float64 [K] each."""

    numbers: np.ndarray
    """N."""
    orders: np.ndarray
    """D."""
    nats: np.ndarray
    """L."""


class Law(NamedTuple):
    """L = E + A / N^a + B / D^b."""

    E: float
    A: float
    a: float
    B: float
    b: float

    def __call__(self, numbers: np.ndarray | float, orders: np.ndarray | float) -> np.ndarray:
        """Nats, float64 of the shape of the two together; either may be inf.

        Examples:
          >>> float(Law(2.0, 8.0, 0.5, 9.0, 0.5)(16.0, 9.0))
          7.0
        """
        of_size, of_data = (scale * np.asarray(x, np.float64) ** -power
                            for x, scale, power in ((numbers, self.A, self.a), (orders, self.B, self.b)))
        return np.asarray(self.E + of_size + of_data)


class FittedLaw(NamedTuple):
    """A law with what the points leave open."""

    law: Law
    intervals: dict[str, Interval]
    """Of each of `TERMS`."""
    residuals: np.ndarray
    """float64 [K], log of what was measured less that of the law."""
    draws: list[Law]
    """Of the bootstrap."""

    def band(self, numbers: np.ndarray | float, orders: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
        """The interval of the law's nats, (low, high)."""
        found = percentiles(np.stack([law(numbers, orders) for law in self.draws], axis=-1))
        return np.asarray(found[0]), np.asarray(found[1])


def fit(losses: Losses, floor: float | None = None, draws: int = 200, seed: int = 0) -> FittedLaw:
    """The law that fits points best, with intervals.

    The intervals are those of a bootstrap of residuals: the law's losses times what is left of other points, made
    larger by sqrt(K / (K - 5)), since the fit has taken up some of it (4 with a floor). They hold where points differ
    from the law by chance alone; where the law itself is wrong they are too narrow. Wide ones say that the points do
    not tell a term from the others.

    Args:
      losses: at least six points, of at least three sizes and three amounts of orders.
      floor: E, where it is known; else it is fitted too.
      draws: of the bootstrap.
      seed: of these.

    InputError for fewer points, or for numbers that are not positive and finite.

    Examples:
      >>> n, d = (x.ravel() for x in np.meshgrid([1e4, 1e5, 1e6, 1e7], [1e5, 1e6, 1e7]))
      >>> found = fit(Losses(n, d, Law(5.0, 20.0, 0.3, 100.0, 0.4)(n, d)), draws=2)
      >>> [round(x, 3) for x in found.law]
      [5.0, 20.0, 0.3, 100.0, 0.4]
    """
    _check(losses, floor)
    limits.check_whole("scaling law: draws", draws, 2, limits.RESAMPLES)
    points = _Points(losses, floor)
    x = min((points.solved(start, np.log(losses.nats)) for start in points.starts()), key=lambda one: one.cost).x
    law, rest = points.law(x), -points.residuals(x, np.log(losses.nats))
    wider = np.sqrt(len(rest) / (len(rest) - len(x)))
    rng, drawn = np.random.default_rng(seed), []
    for _ in range(draws):
        again = np.log(law(losses.numbers, losses.orders)) + wider * rng.choice(rest, len(rest))
        drawn.append(points.law(points.solved(x, again).x))
    intervals = {name: Interval(getattr(law, name), *map(float, percentiles(np.array([getattr(one, name)
                                                                                   for one in drawn]))))
                 for name in TERMS}
    return FittedLaw(law, intervals, rest, drawn)


def _check(losses: Losses, floor: float | None) -> None:
    if floor is not None and not 0 < floor < np.inf:
        raise InputError(f"scaling law: floor: expected a positive number, got {floor}")
    for name, x in losses._asdict().items():
        if not (np.isfinite(x).all() and (x > 0).all()):
            raise InputError(f"scaling law: {name}: expected positive finite numbers, got {x.tolist()}")
    counts = [len(np.unique(x)) for x in (losses.numbers, losses.orders)]
    if len(losses.nats) <= len(TERMS) or min(counts) < 3:
        raise InputError(f"scaling law: expected at least {len(TERMS) + 1} points of 3 sizes and 3 amounts of orders, "
                         f"got {len(losses.nats)} of {counts[0]} and {counts[1]}: measure more")


class _Points:
    """The fit in coordinates that are nearly apart: log E, and of each term its log in the middle and its exponent.

    Where E is known, the others alone.
    """

    def __init__(self, losses: Losses, floor: float | None) -> None:
        self._known = np.log([floor] if floor is not None else [])
        logs = np.stack([np.log(losses.numbers), np.log(losses.orders)])
        self._middle = logs.mean(axis=1)
        self._logs = logs - self._middle[:, None]
        self._nats = losses.nats

    def starts(self) -> Sequence[np.ndarray]:
        """Of searches."""
        low, mean = np.log(self._nats.min()), np.log(self._nats.mean())
        return [np.array([low + np.log1p(-share), mean + np.log(share), a, mean + np.log(share), b])[len(self._known):]
                for a, b, share in _STARTS]

    def _terms(self, x: np.ndarray) -> np.ndarray:
        """[3, K]."""
        x = np.concatenate([self._known, x])
        return np.exp(np.stack([np.broadcast_to(x[0], self._nats.shape), x[1] - x[2] * self._logs[0],
                                x[3] - x[4] * self._logs[1]]))

    def residuals(self, x: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        """Of logs, [K]."""
        found: np.ndarray = np.log(self._terms(x).sum(axis=0)) - wanted
        return found

    def _slopes(self, x: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        """[K, len(x)], of the residuals."""
        del wanted
        terms = self._terms(x)
        share = terms / terms.sum(axis=0)
        return np.stack([share[0], share[1], -share[1] * self._logs[0], share[2], -share[2] * self._logs[1]],
                        axis=1)[:, len(self._known):]

    def solved(self, start: np.ndarray, wanted: np.ndarray) -> Any:
        """SciPy's result of a search from a start for logs of nats [K]."""
        low = np.array([_LEAST_LOG, _LEAST_LOG, 0.0, _LEAST_LOG, 0.0])[len(self._known):]
        high = np.array([_MOST_LOG, _MOST_LOG, _MOST_EXPONENT, _MOST_LOG, _MOST_EXPONENT])[len(self._known):]
        return optimize.least_squares(self.residuals, np.clip(start, low + 1e-6, high - 1e-6), self._slopes,
                                      bounds=(low, high), loss="huber", f_scale=HUBER, x_scale="jac", ftol=1e-12,
                                      xtol=1e-12, gtol=1e-12, max_nfev=400, args=(wanted,))

    def law(self, x: np.ndarray) -> Law:
        """In ordinary terms."""
        x = np.concatenate([self._known, x])
        scales = np.exp(x[[1, 3]] + x[[2, 4]] * self._middle)
        return Law(float(np.exp(x[0])), float(scales[0]), float(x[2]), float(scales[1]), float(x[4]))
