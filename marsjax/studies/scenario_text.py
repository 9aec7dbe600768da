"""What is wanted of futures, in words: "drop 0.5% in 3 minutes, then recover half, volume twice".

The grammar, in EBNF; letters may be large or small, and spaces stand between words and numbers where one likes:

    scenario  = clause, { separator, clause } ;
    separator = ( "," | ";" ), [ "then" | "and" ] | "then" | "and" ;
    clause    = move | recovery | hold | level ;
    move      = ( "drop" | "fall" | "rise" | "gain" ), amount, [ duration ] ;
    recovery  = "recover", [ "half" | "all" | "fully" | number, "%" ], [ duration ] ;
    hold      = "hold", [ duration ] ;
    level     = quantity, multiple, [ "from", number, "to", number, unit ] ;
    quantity  = "volume" | "orders" | "volatility" | "depth" | "spread" ;
    multiple  = "half" | "normal" | "twice" | "double" | "triple" | number, "times" ;
    amount    = number, ( "%" | "bp" ) ;
    duration  = ( "in" | "over" | "for" ), number, unit ;
    unit      = "s" | "second" | "seconds" | "min" | "minute" | "minutes" ;
    number    = digit, { digit }, [ ".", digit, { digit } ] ;

Moves, recoveries and holds follow one another from the start on, each along a straight line. Amounts are of the mid at
the start, and add up. A recovery goes back the named part of the way to the mid at the start (all of it, if no part is
named). Those without a duration share the time that is left; after the last of them any price is fine. A level is a
multiple of what futures do that are left alone, over the whole time or from one moment to another.
"""

import dataclasses
import re
from collections.abc import Sequence

import numpy as np

from marsjax.core.errors import InputError
from marsjax.observers.features import Features
from marsjax.sim.control import scenarios
from marsjax.sim.control.guides import Guide, Target, TargetGuide
from marsjax.sim.control.spec import ControlSpec

_WORD = re.compile(r"\s*(\d+(?:\.\d+)?|[a-z]+|[%,;])", re.ASCII)
_SIGNS = {"drop": -1, "fall": -1, "rise": 1, "gain": 1}
_FEATURES = {"volume": "volume", "orders": "orders", "volatility": "volatility_bp", "depth": "depth",
             "spread": "spread_ticks"}
_MULTIPLES = {"half": 0.5, "normal": 1.0, "twice": 2.0, "double": 2.0, "triple": 3.0}
_SHARES = {"half": 0.5, "all": 1.0, "fully": 1.0}
_MARKS = {",": "a comma", ";": "a semicolon"}
_BASIS_POINTS = {"%": 100.0, "bp": 1.0}
_SECONDS = {"s": 1.0, "second": 1.0, "seconds": 1.0, "min": 60.0, "minute": 60.0, "minutes": 60.0}
_MOST_BP, _MOST_TIMES, _MOST_WORDS = scenarios.MOST_BP, scenarios.MOST_TIMES, 1_000
_ROUNDING_S = 1e-6


@dataclasses.dataclass(frozen=True)
class PricePart:
    """A part of the curve of prices: a straight line from where the one before ends."""

    end_bp: float
    """Where it ends, basis points against the mid at the start."""
    seconds: float | None
    """How long it takes; None: a share of the time that is left."""


@dataclasses.dataclass(frozen=True)
class LevelPart:
    """A multiple of what is usual."""

    feature: str
    """A field of `Features`."""
    times: float
    from_s: float = 0.0
    """Seconds since the start."""
    to_s: float | None = None
    """None: to the end."""


@dataclasses.dataclass(frozen=True)
class ScenarioWords:
    """A scenario that was read.

    Examples:
      >>> read("drop 0.5% in 3 minutes, then recover half").prices
      (PricePart(end_bp=-50.0, seconds=180.0), PricePart(end_bp=-25.0, seconds=None))
    """

    prices: tuple[PricePart, ...]
    levels: tuple[LevelPart, ...]

    def curve_bp(self, at_s: np.ndarray, whole_s: float) -> np.ndarray:
        """The curve at times of a future, seconds since its start, float64 [I]; NaN where any price is fine.

        InputError where the parts take longer than the future, `whole_s`.
        """
        taken = sum(part.seconds or 0.0 for part in self.prices)
        open_parts = sum(part.seconds is None for part in self.prices)
        left = whole_s - taken
        # Durations that add up but for rounding are as long as the future.
        if left < -_ROUNDING_S or (open_parts and left <= _ROUNDING_S):
            raise InputError(f"scenario: expected moves of {whole_s:g} s together, the length of the futures"
                             f"{', with time for those without a duration' * bool(open_parts)}, got {taken:g} s")
        lengths = [max(left, 0.0) / open_parts if part.seconds is None else part.seconds for part in self.prices]
        ends = np.concatenate([[0.0], np.cumsum(lengths)])
        found = np.interp(at_s, ends, [0.0, *(part.end_bp for part in self.prices)])
        return np.where(at_s <= ends[-1] + _ROUNDING_S, found, np.nan)


def read(text: str) -> ScenarioWords:
    """Reads a scenario; InputError names the word that does not fit and what was expected there.

    Examples:
      >>> read("volume twice from 2 to 5 minutes").levels
      (LevelPart(feature='volume', times=2.0, from_s=120.0, to_s=300.0),)
      >>> read("drop 30 dollars")
      Traceback (most recent call last):
      marsjax.core.errors.InputError: scenario: word 3, 'dollars': expected % or bp
    """
    words = _Words(_split(text))
    prices: list[PricePart] = []
    levels: list[LevelPart] = []
    while True:
        clause = words.one_of([*_SIGNS, "recover", "hold", *_FEATURES])
        before = prices[-1].end_bp if prices else 0.0
        if clause in _FEATURES:
            levels.append(_level(words, clause))
        elif clause in _SIGNS:
            moved = _SIGNS[clause] * words.number(_MOST_BP) * _BASIS_POINTS[words.one_of(list(_BASIS_POINTS))]
            if not abs(before + moved) <= _MOST_BP:
                raise InputError(f"scenario: expected prices within {_MOST_BP:g} bp of the start, got "
                                 f"{before + moved:g} bp after word {words.at}, {words.last!r}")
            prices.append(PricePart(before + moved, _duration(words)))
        else:
            share = 0.0 if clause == "hold" else _share(words)
            prices.append(PricePart(before * (1 - share), _duration(words)))
        if words.is_over:
            return ScenarioWords(tuple(prices), _apart(levels))
        if words.one_of([",", ";", "then", "and"], "the end") in (",", ";"):
            words.maybe(["then", "and"])


def guide(text: str, minutes: float, control: ControlSpec, normal: Features) -> Guide:
    """The guide of a scenario in words.

    Args:
      text: of the grammar above.
      minutes: length of the futures.
      control: whose intervals the guide is for.
      normal: what is usual: numbers, [I], or [I, B] of futures that are left alone.

    InputError names the word that does not fit, or what comes to no target in any interval.

    Examples:
      >>> usual = Features(0.0, 0.0, 4.0, 1e4, 0.0, 2.0, 5e4, 120.0)
      >>> found = guide("drop 0.5% in 3 minutes, then recover half, volume twice", 5, ControlSpec(), usual)
      >>> [(target.name, target.values) for target in found.targets]  # doctest: +NORMALIZE_WHITESPACE
      [('return_bp', (-16.666666666666668, -33.333333333333336, -50.0, -37.5, -25.0)),
       ('volume', (20000.0, 20000.0, 20000.0, 20000.0, 20000.0))]
    """
    found, intervals = read(text), control.intervals(minutes)
    usual = scenarios.usual(normal, intervals)
    ends = np.minimum((np.arange(intervals) + 1.0) * control.every_s, minutes * 60)
    curve = found.curve_bp(ends, minutes * 60) if found.prices else np.full(intervals, np.nan)
    wanted = {part.feature: np.full(intervals, np.nan) for part in found.levels}
    for part in found.levels:
        middles = (np.concatenate([[0.0], ends[:-1]]) + ends) / 2
        inside = (middles >= part.from_s) & (middles <= (np.inf if part.to_s is None else part.to_s))
        wanted[part.feature][inside] = part.times * np.asarray(getattr(usual, part.feature))[inside]
    if found.prices and not np.isfinite(curve).any():
        taken = sum(part.seconds or 0.0 for part in found.prices)
        raise InputError(f"scenario: expected moves of prices of {ends[0]:g} s together, or more, to the end of the "
                         f"first interval, got {taken:g} s: say how it goes on, as with hold, or look more often")
    if missing := [name for name, values in wanted.items() if not np.isfinite(values).any()]:
        raise InputError(f"scenario: expected times that hold the middle of an interval of {control.every_s} s of the "
                         f"{minutes:g} minutes, got none for {', '.join(missing)}")
    line = scenarios.curve(curve)
    if not wanted:
        return line
    prices = (Target("return_bp", line.return_bp, line.scale_bp),) if found.prices else ()
    return TargetGuide((*prices, *(scenarios.multiple(name, values) for name, values in wanted.items())))


class _Words:
    """The words of a text, one after the other."""

    def __init__(self, words: Sequence[str]) -> None:
        self._words, self.at = words, 0

    @property
    def is_over(self) -> bool:
        return self.at == len(self._words)

    @property
    def last(self) -> str:
        return self._words[self.at - 1]

    def maybe(self, expected: Sequence[str]) -> str | None:
        """The next word, if it is one of these."""
        if self.is_over or self._words[self.at] not in expected:
            return None
        self.at += 1
        return self.last

    def one_of(self, expected: Sequence[str], *others: str) -> str:
        """The next word, one of these."""
        found = self.maybe(expected)
        if found is None:
            *most, last = [*(_MARKS.get(word, word) for word in expected), *others]
            raise self._error(f"{', '.join(most)} or {last}" if most else last)
        return found

    def number(self, most: float) -> float:
        """The next word, a number of at most so much."""
        text = "" if self.is_over else self._words[self.at]
        if not text[:1].isdigit() or float(text) > most:
            raise self._error(f"a number of 0 to {most:g}")
        self.at += 1
        return float(text)

    @property
    def is_number(self) -> bool:
        """Whether the next word is one."""
        return not self.is_over and self._words[self.at][0].isdigit()

    def _error(self, expected: str) -> InputError:
        found = f"the end after {self.last!r}" if self.is_over and self.at else "nothing" if self.is_over else (
            f"word {self.at + 1}, {self._words[self.at]!r}")
        return InputError(f"scenario: {found}: expected {expected}")


def _split(text: str) -> list[str]:
    """Numbers, words and marks, in small letters."""
    words: list[str] = []
    text, at = text.lower().rstrip(), 0
    while at < len(text):
        found = _WORD.match(text, at)
        if not found or len(words) == _MOST_WORDS:
            left = text[at:].lstrip()[:1]
            raise InputError(f"scenario: {left!r} after word {len(words)}: expected at most {_MOST_WORDS} words of "
                             "letters, numbers, %, commas and semicolons")
        words.append(found[1])
        at = found.end()
    return words


def _duration(words: _Words) -> float | None:
    """Seconds, or None where there is no duration."""
    if words.maybe(["in", "over", "for"]) is None:
        return None
    number = words.number(86_400)
    seconds = number * _SECONDS[words.one_of(list(_SECONDS))]
    if seconds <= 0:
        raise InputError(f"scenario: word {words.at - 1}: expected a duration above 0, got {number:g}")
    return seconds


def _share(words: _Words) -> float:
    """How much of the way back a recovery goes."""
    if words.is_number:
        share = words.number(100.0) / 100
        words.one_of(["%"])
        return share
    return _SHARES[words.maybe(list(_SHARES)) or "all"]


def _level(words: _Words, name: str) -> LevelPart:
    if words.is_number:
        times = words.number(_MOST_TIMES)
        words.one_of(["times"])
    else:
        times = _MULTIPLES[words.one_of(list(_MULTIPLES), "a number")]
    if times <= 0:
        raise InputError(f"scenario: word {words.at - 1}: expected a multiple above 0 for {name}, got {times:g}")
    if words.maybe(["from"]) is None:
        return LevelPart(_FEATURES[name], times)
    first = words.number(86_400)
    words.one_of(["to"])
    last = words.number(86_400)
    unit = _SECONDS[words.one_of(list(_SECONDS))]
    if not first < last:
        raise InputError(f"scenario: word {words.at - 1}: expected a time after {first:g}, got {last:g}")
    return LevelPart(_FEATURES[name], times, first * unit, last * unit)


def _apart(levels: Sequence[LevelPart]) -> tuple[LevelPart, ...]:
    """Levels, none of which says two things of one feature at a time."""
    for number, one in enumerate(levels):
        for other in levels[:number]:
            ends = [np.inf if part.to_s is None else part.to_s for part in (one, other)]
            if one.feature == other.feature and one.from_s < ends[1] and other.from_s < ends[0]:
                name = next(name for name, feature in _FEATURES.items() if feature == one.feature)
                raise InputError(f"scenario: {name}: expected one multiple at a time, got {other.times:g} and "
                                 f"{one.times:g}")
    return tuple(levels)
