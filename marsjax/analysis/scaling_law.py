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
_STARTS = tuple(itertools.product((0.3, 1.0), (0.3, 1.0)))
"""Exponents of N and D that searches start from."""
_SHARE = 0.05
"""Of the mean loss: what each of their terms has then in the middle of the points."""
_MOST_SEARCH = 4000
"""Evaluations of a search; they mostly take below 200."""
_NOTHING = 1e-6
"""Of the mean loss: a term that is nowhere larger is at its bound. Likewise an exponent that is so near to one."""


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
    at_bounds: tuple[str, ...] = ()
    """Terms of the law that ended at a bound: at nothing, or an exponent at 0 or 4. The points say no more of them."""
    cut_off: int = 0
    """Searches, of the law and of the draws, whose best one had not come to its end."""

    def band(self, numbers: np.ndarray | float, orders: np.ndarray | float) -> tuple[np.ndarray, np.ndarray]:
        """The interval of the law's nats, (low, high)."""
        found = percentiles(np.stack([law(numbers, orders) for law in self.draws], axis=-1))
        return np.asarray(found[0]), np.asarray(found[1])


def fit(losses: Losses, floor: float | None = None, draws: int = 200, seed: int = 0) -> FittedLaw:
    """The law that fits points best, with intervals.

    The intervals are those of a bootstrap of residuals: the law's losses times what is left of other points, made
    larger by sqrt(K / (K - 5)), since the fit has taken up some of it (4 with a floor). Each draw is searched from the
    law and from all starts. Of 80 planted laws with 20 points that differ from them by chance alone, intervals that are
    to hold 95% held 88 to 93% by term, 90% in the mean (100 draws): they are somewhat too narrow. Where the law itself
    is wrong they are narrower still. Wide ones say that the points do not tell a term from the others.

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
    best = points.solved(points.starts(), np.log(losses.nats))
    x, cut_off = best.x, int(best.status == 0)
    law, rest = points.law(x), -points.residuals(x, np.log(losses.nats))
    wider = np.sqrt(len(rest) / (len(rest) - len(x)))
    rng, drawn = np.random.default_rng(seed), []
    for _ in range(draws):
        again = np.log(law(losses.numbers, losses.orders)) + wider * rng.choice(rest, len(rest))
        one = points.solved([x, *points.starts()], again)
        drawn.append(points.law(one.x))
        cut_off += one.status == 0
    intervals = {name: Interval(getattr(law, name), *map(float, percentiles(np.array([getattr(each, name)
                                                                                   for each in drawn]))))
                 for name in TERMS}
    return FittedLaw(law, intervals, rest, drawn, points.at_bounds(x), cut_off)


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
    """The fit in coordinates that are nearly apart: E, and of each term its size in the middle and its exponent.

    Sizes are shares of the mean loss, so that a term may end at nothing, which no logarithm of it would come to. Where
    E is known, the others alone.
    """

    def __init__(self, losses: Losses, floor: float | None) -> None:
        self._scale = float(losses.nats.mean())
        self._known = np.array([] if floor is None else [floor / self._scale])
        logs = np.stack([np.log(losses.numbers), np.log(losses.orders)])
        self._middle = logs.mean(axis=1)
        self._logs = logs - self._middle[:, None]
        self._least = float(losses.nats.min()) / self._scale
        self._low = np.zeros(len(TERMS))[len(self._known):]
        self._high = np.array([np.inf, np.inf, _MOST_EXPONENT, np.inf, _MOST_EXPONENT])[len(self._known):]

    def starts(self) -> list[np.ndarray]:
        """Of searches."""
        return [np.array([self._least * (1 - _SHARE), _SHARE, a, _SHARE, b])[len(self._known):] for a, b in _STARTS]

    def _powers(self, x: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """All coordinates [5], and what each size is multiplied by, [3, K]."""
        x = np.concatenate([self._known, x])
        return x, np.exp(-np.array([0.0, x[2], x[4]])[:, None] * np.stack([np.zeros(len(self._logs[0])), *self._logs]))

    def residuals(self, x: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        """Of logs, [K]."""
        x, powers = self._powers(x)
        found: np.ndarray = np.log(self._scale * (x[[0, 1, 3]] @ powers)) - wanted
        return found

    def _slopes(self, x: np.ndarray, wanted: np.ndarray) -> np.ndarray:
        """[K, len(x)], of the residuals."""
        del wanted
        x, powers = self._powers(x)
        one, size, data = powers / (x[[0, 1, 3]] @ powers)
        return np.stack([one, size, -x[1] * size * self._logs[0], data, -x[3] * data * self._logs[1]],
                        axis=1)[:, len(self._known):]

    def solved(self, starts: Sequence[np.ndarray], wanted: np.ndarray) -> Any:
        """SciPy's result of the best of searches from several starts, for logs of nats [K]."""
        found = [optimize.least_squares(self.residuals, np.clip(start, self._low + 1e-12, self._high - 1e-9),
                                        self._slopes, bounds=(self._low, self._high), loss="huber", f_scale=HUBER,
                                        x_scale="jac", ftol=1e-12, xtol=1e-12, gtol=1e-12, max_nfev=_MOST_SEARCH,
                                        args=(wanted,)) for start in starts]
        return min(found, key=lambda one: one.cost)

    def at_bounds(self, x: np.ndarray) -> tuple[str, ...]:
        """Names of the terms there that are nothing, and of exponents at 0 or the largest."""
        x, powers = self._powers(x)
        sizes = dict(zip("EAB", (x[[0, 1, 3], None] * powers).max(axis=1), strict=True))
        exponents = {"a": min(x[2], _MOST_EXPONENT - x[2]), "b": min(x[4], _MOST_EXPONENT - x[4])}
        near = {**sizes, **exponents}
        return tuple(name for name in TERMS if near[name] < _NOTHING)

    def law(self, x: np.ndarray) -> Law:
        """In ordinary terms."""
        x = np.concatenate([self._known, x])
        size, data = self._scale * x[[1, 3]] * np.exp(x[[2, 4]] * self._middle)
        return Law(float(self._scale * x[0]), float(size), float(x[2]), float(data), float(x[4]))
