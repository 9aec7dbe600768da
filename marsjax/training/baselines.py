"""What an order model is compared with: frequencies alone, and a Markov chain of the last two orders' type and price.

Both are smoothed by Dirichlet back-off, (count + strength x coarser law) / (total + strength), with the strengths
that predict the validation part best. NumPy, on the host.
"""

import dataclasses
from collections.abc import Callable, Iterable, Sequence
from typing import TypeVar

import numpy as np

from marsjax.core.specs import TokenSpec
from marsjax.tokens import encoding
from marsjax.training.days import Tokens
from marsjax.training.evaluate import FIELDS
from marsjax.training.split import Span

STRENGTHS = (1.0, 3.0, 10.0, 30.0, 100.0, 300.0, 1e3, 3e3, 1e4, 3e4, 1e5, 3e5, 1e6)
"""Tried for each back-off."""
_KINDS = 3
_Tuned = TypeVar("_Tuned", "Marginals", "Markov")


@dataclasses.dataclass(frozen=True)
class Marginals:
    """Frequencies of the joint classes, backing off to the product of the fields' frequencies; no context at all."""

    spec: TokenSpec
    law: np.ndarray
    """float64 [3, P, V, I]."""
    strength: float

    def losses(self, spans: Sequence[Span]) -> dict[str, np.ndarray]:
        """Nats of every order by field, float64 [N]; a field's law is its frequencies."""
        label = np.concatenate([span.features[span.first : span.last, 0] for span in spans])
        chance = [self.law.reshape(-1)[label]]
        for axis, field in enumerate(encoding.unpack(self.spec, label)):
            chance.append(self.law.sum(axis=tuple(i for i in range(4) if i != axis))[field])
        return {name: -np.log(x) for name, x in zip(FIELDS, chance, strict=True)}


def marginals(spec: TokenSpec, training: Sequence[Tokens], validation: Sequence[Span],
              refit: Sequence[Tokens] | None = None) -> Marginals:
    """Counts days of tokens int32 [M, 15]; the strength is tuned on `validation`, then `refit` counted with it."""
    found = _best(map(_marginals(spec, training), STRENGTHS), validation)
    return found if refit is None else _marginals(spec, refit)(found.strength)


def _marginals(spec: TokenSpec, training: Sequence[Tokens]) -> Callable[[float], Marginals]:
    shape = (_KINDS, spec.price_levels, spec.volumes, spec.intervals)
    counts = np.zeros(shape)
    for day in training:
        counts += np.bincount(day[:, 0], minlength=spec.classes).reshape(shape)
    product = np.ones(())
    for axis in range(4):
        of_field = counts.sum(axis=tuple(i for i in range(4) if i != axis)) + 0.5
        product = product[..., None] * (of_field / of_field.sum())

    def with_strength(strength: float) -> Marginals:
        return Marginals(spec, (counts + strength * product) / (counts.sum() + strength), strength)

    return with_strength


@dataclasses.dataclass(frozen=True)
class Markov:
    """An order's type and price bin, one state of 3 P, given those of the two orders before it.

    Its volume and its interval, each apart, are given its own type and price. The state backs off from the last two
    to the last one to none, volume and interval from type and price to type to none.
    """

    spec: TokenSpec
    states: np.ndarray
    """float64 [C, 3 P]: the next state's law after each pair of states seen in training."""
    pairs: np.ndarray
    """int64 [C], rising: number of the pair, earlier state x 3 P + later state."""
    one: np.ndarray
    """float64 [3 P, 3 P]: after one state, for pairs not seen."""
    volume: np.ndarray
    """float64 [3 P, V]."""
    interval: np.ndarray
    """float64 [3 P, I]."""
    strengths: tuple[float, ...]
    """Of the back-offs: two states, one state, volume, interval."""

    def losses(self, spans: Sequence[Span]) -> dict[str, np.ndarray]:
        """Nats of every order by field, float64 [N]; a day's first two orders go by what there is before them."""
        found: list[list[np.ndarray]] = [[] for _ in FIELDS]
        for span in spans:
            for nats, part in zip(found, self._span(span), strict=True):
                nats.append(part)
        return {name: np.concatenate(parts) for name, parts in zip(FIELDS, found, strict=True)}

    def _span(self, span: Span) -> tuple[np.ndarray, ...]:
        place = np.arange(span.first, span.last)
        kind, price, volume, interval = encoding.unpack(self.spec, span.features[:, 0])
        state = kind * self.spec.price_levels + price
        before, earlier = state[np.maximum(place - 1, 0)], state[np.maximum(place - 2, 0)]
        law = self.one[before]
        pair = earlier.astype(np.int64) * len(self.one) + before
        row = np.minimum(np.searchsorted(self.pairs, pair), len(self.pairs) - 1)
        seen = self.pairs[row] == pair
        law[seen] = self.states[row[seen]]
        rows = np.arange(len(place))
        now, v, i = state[place], volume[place], interval[place]
        joint = law[rows, now] * self.volume[now, v] * self.interval[now, i]
        grid = law.reshape(len(place), _KINDS, -1)
        return tuple(-np.log(x) for x in (
            joint, grid.sum(axis=2)[rows, kind[place]], grid.sum(axis=1)[rows, price[place]],
            (law @ self.volume)[rows, v], (law @ self.interval)[rows, i]))


def markov(spec: TokenSpec, training: Sequence[Tokens], validation: Sequence[Span],
           refit: Sequence[Tokens] | None = None) -> Markov:
    """Counts days of tokens int32 [M, 15]; strengths are tuned on `validation`, one by one, then count in `refit`."""
    with_strengths, strengths = _markov(spec, training), [300.0] * 4
    for place in (0, 1, 2, 3, 0, 1):  # one after the other, the first two once more: they hang together
        tried = ([*strengths[:place], strength, *strengths[place + 1 :]] for strength in STRENGTHS)
        best = _best((with_strengths(*each) for each in tried), validation)
        strengths = list(best.strengths)
    return best if refit is None else _markov(spec, refit)(*strengths)


def _markov(spec: TokenSpec, training: Sequence[Tokens]) -> Callable[..., Markov]:
    """Strengths of two states, one state, volume and interval -> the chain of days."""
    size = _KINDS * spec.price_levels
    one, volumes, intervals = (np.zeros((size, count)) for count in (size, spec.volumes, spec.intervals))
    threes: np.ndarray = np.zeros(0, np.int64)
    times: np.ndarray = np.zeros(0)
    for day in training:  # one at a time: there may be more than fit in memory
        kind, price, volume, interval = (np.asarray(x, np.int64) for x in encoding.unpack(spec, day[:, 0]))
        state = kind * spec.price_levels + price
        for counts, earlier, later in ((one, state[:-1], state[1:]), (volumes, state, volume),
                                       (intervals, state, interval)):
            counts += np.bincount(earlier * counts.shape[1] + later, minlength=counts.size).reshape(counts.shape)
        seen, often = np.unique((state[:-2] * size + state[1:-1]) * size + state[2:], return_counts=True)
        threes, row = np.unique(np.concatenate([threes, seen]), return_inverse=True)
        times = np.bincount(row, np.concatenate([times, often]), len(threes))
    pairs, row = np.unique(threes // size, return_inverse=True)
    two = np.zeros((len(pairs), size))
    two[row, threes % size] = times
    none = one.sum(axis=0) + 0.5
    none = none / none.sum()

    def of_state(strength_two: float, strength_one: float) -> tuple[np.ndarray, np.ndarray]:
        after_one = _backed_off(one, none, strength_one)
        return _backed_off(two, after_one[pairs % size], strength_two), after_one

    of_volume, of_interval = _of_field(volumes), _of_field(intervals)

    def with_strengths(a: float, b: float, c: float, d: float) -> Markov:
        after_two, after_one = of_state(a, b)
        return Markov(spec, after_two, pairs, after_one, of_volume(c), of_interval(d), (a, b, c, d))

    return with_strengths


def _backed_off(counts: np.ndarray, coarser: np.ndarray, strength: float) -> np.ndarray:
    return (counts + strength * coarser) / (counts.sum(axis=-1, keepdims=True) + strength)


def _of_field(by_state: np.ndarray) -> Callable[[float], np.ndarray]:
    """Strength -> law [3 P, count] of a field given type and price, of counts alike, backing off to type, to none."""
    size, count = by_state.shape
    by_kind = by_state.reshape(_KINDS, -1, count).sum(axis=1)
    none = by_kind.sum(axis=0) + 0.5

    def law(strength: float) -> np.ndarray:
        of_kind = _backed_off(by_kind, none / none.sum(), strength)
        return _backed_off(by_state, np.repeat(of_kind, size // _KINDS, axis=0), strength)

    return law


def _best(tried: Iterable[_Tuned], validation: Sequence[Span]) -> _Tuned:
    return min(tried, key=lambda baseline: baseline.losses(validation)["order"].mean())
