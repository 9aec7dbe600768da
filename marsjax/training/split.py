"""Days of tokens -> what is trained on, what decides when to stop, and what is held out; windows to evaluate on."""

import dataclasses
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from marsjax.core.errors import InputError
from marsjax.core.records import Array
from marsjax.core.times import SECOND_NS
from marsjax.training.days import DayTokens, Tokens


@dataclasses.dataclass(frozen=True, eq=False)
class Span:
    """Tokens `first` to `last - 1` of a day are to be predicted, each from those before it."""

    name: str
    features: Tokens
    """int32 [M, 15], of the whole day."""
    first: int
    last: int

    @property
    def count(self) -> int:
        """Predictions."""
        return self.last - self.first


@dataclasses.dataclass(frozen=True)
class Split:
    """Parts of days by time, and days held out whole; parts of one day never overlap."""

    training: Sequence[Tokens]
    """int32 [M, 15] each, the tokens before `validation_from_ns`."""
    refit: Sequence[Tokens]
    """int32 [M, 15] each, the tokens before `held_from_ns`: trained on once it is known when to stop."""
    validation: list[Span]
    """From there to `held_from_ns`: chooses the step to stop at, and the smoothing of baselines."""
    held_out: list[Span]
    """From there on: looked at once, for the report."""
    held_out_symbols: list[Span]
    """Whole days of symbols that nothing was trained on."""


def split(days: Sequence[DayTokens], held_out_symbols: Sequence[DayTokens], validation_from_ns: int,
          held_from_ns: int, length: int) -> Split:
    """Splits days at two times; InputError where a part of a day has too few orders, which names the day.

    `length` is that of a training window: the part to train on must be longer than it.
    """
    if not validation_from_ns < held_from_ns:
        raise InputError(f"split: expected validation to begin before the held-out part, got "
                         f"{_clock(validation_from_ns)} and {_clock(held_from_ns)}")
    training: list[Tokens] = []
    refit: list[Tokens] = []
    validation, held = [], []
    for day in days:
        first, last = (int(np.searchsorted(day.time_ns, at)) for at in (validation_from_ns, held_from_ns))
        if first <= length:
            raise InputError(f"{day.name}: {first} orders before {_clock(validation_from_ns)} are too few to train on; "
                             f"expected more than a window's {length}")
        for part, count, begins in (("validation", last - first, validation_from_ns),
                                    ("held-out", len(day.features) - last, held_from_ns)):
            if not count:
                raise InputError(f"{day.name}: no orders in the {part} part, which begins at {_clock(begins)}")
        training.append(day.features[:first])
        refit.append(day.features[:last])
        validation.append(Span(day.name, day.features, first, last))
        held.append(Span(day.name, day.features, last, len(day.features)))
    for day in held_out_symbols:
        if len(day.features) < 2:
            raise InputError(f"{day.name}: expected at least 2 orders in a held-out day, got {len(day.features)}")
    whole = [Span(day.name, day.features, 1, len(day.features)) for day in held_out_symbols]
    return Split(training, refit, validation, held, whole)


def bounded(spans: Sequence[Span], most: int, length: int) -> list[Span]:
    """Spans with at most `most` predictions in all: the first ones of each, or of days spread evenly over all.

    So many days are left that each has `length` predictions, or all of its own.
    """
    if sum(span.count for span in spans) <= most:
        return list(spans)
    kept = min(len(spans), max(most // length, 1))
    chosen = [spans[place * len(spans) // kept] for place in range(kept)]
    return [dataclasses.replace(span, last=min(span.last, span.first + most // kept)) for span in chosen]


class Windows(NamedTuple):
    """Stretches of days in which some tokens are to be predicted."""

    features: Array
    """int32 [W, length + 1, 15]; what lies past the end of a short day is 0."""
    scored: np.ndarray
    """bool [W, length], which predictions count: each token of a span once."""


def windows(spans: Sequence[Span], length: int, stride: int) -> Windows:
    """Windows whose scored predictions see `length - stride` tokens or more, as far as the day has them."""
    if not 1 <= stride <= length:
        raise InputError(f"windows: expected a stride of 1 to length={length}, got {stride}")
    features, scored = [], []
    for span in spans:
        for first in range(span.first, span.last, stride):
            last = min(first + stride, span.last)
            start = max(last - 1 - length, 0)
            window = span.features[start : start + length + 1]
            features.append(np.pad(window, ((0, length + 1 - len(window)), (0, 0))))
            place = start + 1 + np.arange(length)
            scored.append((first <= place) & (place < last))
    return Windows(np.stack(features), np.stack(scored))


def _clock(ns: int) -> str:
    seconds = ns // SECOND_NS
    return f"{seconds // 3600:02d}:{seconds // 60 % 60:02d}:{seconds % 60:02d}"
