"""Minute bars -> dense rollouts of one length, and the account of those that are left out."""

import collections
import dataclasses
import enum
import functools
from typing import Any

import numpy as np

from marsjax.analysis.bars import MinuteBars
from marsjax.core.errors import InputError

MINUTES = 26
"""Bars of a rollout of 25 minutes."""
FEWEST = 3
"""Bars that hold a return: the first minute counts for none."""


class Reason(enum.StrEnum):
    """Why a rollout is left out; it has the first that holds."""

    DUPLICATE = "two bars of one minute"
    GAP = "a minute without a bar"
    FEWER = "fewer bars"
    MORE = "more bars"
    NO_PRICE = "a price that is missing, infinite or not above 0"
    NO_VOLUME = "a volume that is missing, infinite or below 0"
    CONSTANT = "the symbol's price never changes"


@dataclasses.dataclass(frozen=True)
class Exclusion:
    """One rollout that is left out."""

    source: str
    symbol: str
    rollout: int
    reason: Reason


@dataclasses.dataclass(frozen=True)
class Exclusions:
    """What is left out of a panel, and what is not."""

    rollouts: tuple[Exclusion, ...]
    kept: int
    """Rollouts in the panel."""

    def counts(self) -> dict[str, dict[str, int]]:
        """Source -> reason -> rollouts; sources and reasons without any are not there."""
        found: dict[str, collections.Counter[str]] = {}
        for row in self.rollouts:
            found.setdefault(row.source, collections.Counter())[row.reason.value] += 1
        return {source: dict(counter) for source, counter in sorted(found.items())}

    def lines(self) -> list[str]:
        """The account as text, one line a source and reason."""
        if not self.rollouts:
            return [f"{self.kept} rollouts, none left out"]
        total = len(self.rollouts)
        return [f"{self.kept} rollouts; left out {total}:",
                *(f"  {source}: {count} ({reason})"
                  for source, reasons in self.counts().items() for reason, count in reasons.items())]


@dataclasses.dataclass(frozen=True, eq=False)
class Panel:
    """R rollouts of M consecutive minutes, NumPy arrays, sorted by source, symbol and rollout."""

    source: np.ndarray
    """str [R]."""
    symbol: np.ndarray
    """str [R]."""
    rollout: np.ndarray
    """int64 [R]."""
    start: np.ndarray
    """datetime64[m] [R], of bar 0."""
    price: np.ndarray
    """float64 [R, M], price of the last trade, 1e-4 of the currency, above 0."""
    volume: np.ndarray
    """float64 [R, M], shares traded."""

    @functools.cached_property
    def first(self) -> np.ndarray:
        """int64 [G], first rows of the groups, one of each source and symbol."""
        is_first = np.ones(len(self.source), bool)
        is_first[1:] = (self.source[1:] != self.source[:-1]) | (self.symbol[1:] != self.symbol[:-1])
        return np.flatnonzero(is_first)

    @functools.cached_property
    def group(self) -> np.ndarray:
        """int64 [R], the group of each row."""
        return np.repeat(np.arange(len(self.first)), np.diff(np.append(self.first, len(self.source))))

    def where(self, keep: Any) -> "Panel":
        """The rows of a mask, bool [R]."""
        return Panel(**{field.name: getattr(self, field.name)[keep] for field in dataclasses.fields(self)})

    def of(self, source: str) -> "Panel":
        """The rollouts of one source."""
        return self.where(self.source == source)


def usual_minutes(bars: MinuteBars) -> int:
    """How many bars most rollouts have, of those that have 3 or more; of several such numbers the largest.

    MINUTES where there is no such rollout.
    """
    names = [np.unique(getattr(bars, name), return_inverse=True)[1] for name in ("source", "symbol")]
    counts = collections.Counter(np.unique(np.stack([*names, bars.rollout]), axis=1, return_counts=True)[1].tolist())
    return max((count for count in counts if count >= FEWEST), key=lambda count: (counts[count], count),
               default=MINUTES)


def dense(bars: MinuteBars, minutes: int = MINUTES) -> tuple[Panel, Exclusions]:
    """Rollouts of exactly `minutes` consecutive bars with prices and volumes, and those that are none.

    A symbol whose prices never change in any rollout of a source is left out there: its correlations are undefined.
    InputError for fewer than 3 minutes, which hold no return (the first minute counts for none).
    """
    if minutes < FEWEST:
        raise InputError(f"panel: expected at least {FEWEST} minutes a rollout, got {minutes}")
    names = {name: np.unique(getattr(bars, name), return_inverse=True) for name in ("source", "symbol")}
    # Seconds that are no whole minute make two bars of one minute, or a gap.
    time = bars.time.astype("datetime64[m]")
    order = np.lexsort((time, bars.rollout, names["symbol"][1], names["source"][1]))
    time, price, volume = time[order], bars.price_last[order], bars.volume[order]
    keys = np.stack([names["source"][1], names["symbol"][1], bars.rollout])[:, order]
    is_first = np.ones(len(time), bool)
    is_first[1:] = (keys[:, 1:] != keys[:, :-1]).any(axis=0)
    first = np.flatnonzero(is_first)
    count = np.diff(np.append(first, len(time)))
    source, symbol = (names[name][0][keys[i, first]] for i, name in enumerate(("source", "symbol")))
    every = Panel(source, symbol, keys[2, first], time[first], np.empty((len(first), 0)), np.empty((len(first), 0)))
    if not len(first):
        none = np.empty((0, minutes))
        return dataclasses.replace(every, price=none, volume=none), Exclusions((), 0)

    def any_of(bad: np.ndarray) -> np.ndarray:
        return np.logical_or.reduceat(bad, first)

    step = np.diff(time, prepend=time[:1]).astype(np.int64)
    found = {
        Reason.DUPLICATE: any_of(~is_first & (step == 0)),
        Reason.GAP: any_of(~is_first & (step > 1)),
        Reason.FEWER: count < minutes,
        Reason.MORE: count > minutes,
        Reason.NO_PRICE: any_of(~(np.isfinite(price) & (price > 0))),
        Reason.NO_VOLUME: any_of(~(np.isfinite(volume) & (volume >= 0)))}
    bad = np.stack(list(found.values()))
    keep = ~bad.any(axis=0)
    rows = first[keep, None] + np.arange(minutes)
    panel = dataclasses.replace(every.where(keep), price=price[rows], volume=volume[rows])
    reasons = np.where(keep, len(found), np.argmax(bad, axis=0))
    constant = _constant(panel)
    reasons[np.flatnonzero(keep)[constant]] = len(found) + 1
    by_number = [*found, None, Reason.CONSTANT]
    excluded = [Exclusion(str(source[row]), str(symbol[row]), int(every.rollout[row]), reason)
                for row in np.flatnonzero(reasons != len(found))
                if (reason := by_number[reasons[row]]) is not None]
    return panel.where(~constant), Exclusions(tuple(excluded), int((~constant).sum()))


def _constant(panel: Panel) -> np.ndarray:
    """Rows of the symbols without a change of price within any rollout, bool [R]."""
    if not len(panel.source):
        return np.zeros(0, bool)
    is_flat = (panel.price == panel.price[:, :1]).all(axis=1)
    return np.logical_and.reduceat(is_flat, panel.first)[panel.group]
