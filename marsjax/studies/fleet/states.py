"""States by day and time, their numbers, the parts of several processes, and jobs of some states."""

import dataclasses
import re
from collections.abc import Callable, Iterator
from typing import NamedTuple

from marsjax.core import limits
from marsjax.core.errors import InputError
from marsjax.core.limits import check_whole

MOST_PARTS = 2**16


class FleetState(NamedTuple):
    """One state of a market."""

    number: int
    """From 0; it keys the draws."""
    day: str
    """Name of the feed's day."""
    time_ns: int
    """Nanoseconds since midnight."""


Job = tuple[FleetState, ...]
"""States of one day, in order of time: one pass over the day leads to all of them."""


class DayTimes(NamedTuple):
    """The times of one day, nanoseconds since midnight, rising."""

    name: str
    times_ns: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class Grid:
    """All states: days and their times; a state's number counts through the days, and through the times of each.

    Examples:
      >>> grid = Grid((DayTimes("A", (10, 20)), DayTimes("B", (10,))))
      >>> [state.number for state in grid.states()], list(grid.states(2))
      ([0, 1, 2], [FleetState(number=2, day='B', time_ns=10)])
    """

    days: tuple[DayTimes, ...]

    def __post_init__(self) -> None:
        names = [day.name for day in self.days]
        twice = next((name for name in names if names.count(name) > 1), None) if len(set(names)) < len(names) else None
        if twice is not None:
            raise InputError(f"Grid.days: expected each day once, got {twice} twice")
        for day in self.days:
            if any(later <= earlier for earlier, later in zip(day.times_ns, day.times_ns[1:], strict=False)):
                raise InputError(f"Grid.days: expected rising times, got {day.times_ns} of {day.name}")
        if not self.count:
            raise InputError("Grid.days: expected at least one state, got none")

    @property
    def count(self) -> int:
        """States."""
        return sum(len(day.times_ns) for day in self.days)

    def states(self, first: int = 0, end: int | None = None) -> Iterator[FleetState]:
        """The states of numbers `first` to `end` - 1."""
        number, end = 0, self.count if end is None else end
        for day in self.days:
            for time_ns in day.times_ns:
                if first <= number < end:
                    yield FleetState(number, day.name, time_ns)
                number += 1


@dataclasses.dataclass(frozen=True)
class Part:
    """What one of several processes does, from 1 on: states of numbers that follow one another.

    Examples:
      >>> Part.of("2/3").bounds(10), Part.of("").bounds(10)
      ((3, 6), (0, 10))
    """

    number: int = 1
    parts: int = 1

    def __post_init__(self) -> None:
        check_whole("Part.parts", self.parts, 1, MOST_PARTS)
        check_whole("Part.number", self.number, 1, self.parts)

    @classmethod
    def of(cls, text: str) -> "Part":
        """`3/128`, the third of 128; all for an empty text. InputError for any other."""
        if not text:
            return cls()
        found = re.fullmatch(r"(\d{1,9})/(\d{1,9})", text)
        if not found or not 1 <= int(found[1]) <= int(found[2]) <= MOST_PARTS:
            raise InputError(f"part: expected K/N with K of 1 to N (3/128: the third of 128 processes), got {text!r}")
        return cls(int(found[1]), int(found[2]))

    def bounds(self, count: int) -> tuple[int, int]:
        """First and end of its numbers, of so many states."""
        return (self.number - 1) * count // self.parts, self.number * count // self.parts


def jobs(grid: Grid, part: Part, batch: int, is_done: Callable[[int], bool]) -> Iterator[Job]:
    """What is left to do of a part: at most `batch` states of one day at a time, as they are asked for."""
    check_whole("batch", batch, 1, limits.TRAJECTORIES)
    some: list[FleetState] = []
    for state in grid.states(*part.bounds(grid.count)):
        if is_done(state.number):
            continue
        if some and (len(some) == batch or some[0].day != state.day):
            yield tuple(some)
            some = []
        some.append(state)
    if some:
        yield tuple(some)
