"""The trading day: call auctions and continuous trading, and which of them a time belongs to."""

import dataclasses
import enum

import jax
import jax.numpy as jnp
import numpy as np

from marsjax.core import times
from marsjax.core.errors import InputError
from marsjax.core.records import Time
from marsjax.core.times import DAY_NS, SECOND_NS


class Phase(enum.IntEnum):
    """What the exchange does with an order that reaches it at some time."""

    CLOSED = 0
    OPEN_AUCTION = 1
    """Collected for the opening call auction."""
    CONTINUOUS = 2
    CLOSE_AUCTION = 3
    """Collected for the closing call auction."""


@dataclasses.dataclass(frozen=True)
class Period:
    """One stretch of a session; an order at `start_ns` or at `end_ns` still belongs to it.

    `uncross_ns` is when a call auction is matched (None for continuous trading).
    """

    phase: Phase
    start_ns: int
    end_ns: int
    uncross_ns: int | None = None

    def __post_init__(self) -> None:
        if not 0 <= self.start_ns <= self.end_ns < DAY_NS:
            raise InputError(f"period {self.phase.name}: expected 0 <= start <= end < one day in ns, got "
                             f"start_ns={self.start_ns}, end_ns={self.end_ns}")
        auction = self.phase in (Phase.OPEN_AUCTION, Phase.CLOSE_AUCTION)
        if auction != (self.uncross_ns is not None):
            raise InputError(f"period {self.phase.name}: expected uncross_ns for call auctions only, "
                             f"got {self.uncross_ns}")
        if self.uncross_ns is not None and not self.end_ns <= self.uncross_ns < DAY_NS:
            raise InputError(f"period {self.phase.name}: expected uncross_ns >= end_ns={self.end_ns}, "
                             f"got {self.uncross_ns}")


@dataclasses.dataclass(frozen=True)
class Session:
    """The trading day: periods in order of time. Orders outside them are answered with Status.CLOSED."""

    periods: tuple[Period, ...]

    def __post_init__(self) -> None:
        if not self.periods:
            raise InputError("session: expected at least one period, got none")
        for before, after in zip(self.periods, self.periods[1:], strict=False):
            done = before.end_ns if before.uncross_ns is None else before.uncross_ns
            if after.start_ns < done or after.start_ns <= before.end_ns:
                raise InputError(f"session: period {after.phase.name} starts at {after.start_ns} ns, before "
                                 f"{before.phase.name} is over at {done} ns")


def _at(hour: int, minute: int, second: int = 0) -> int:
    return (hour * 3600 + minute * 60 + second) * SECOND_NS


def continuous_session(start_ns: int = _at(9, 30), end_ns: int = _at(16, 0)) -> Session:
    """Continuous trading only, from `start_ns` to `end_ns`, both included.

    Examples:
      >>> from marsjax.core import times
      >>> session = continuous_session(times.of_clock("09:30:00"), times.of_clock("11:30:00"))
      >>> len(session.periods), session.periods[0].phase.name
      (1, 'CONTINUOUS')
    """
    return Session((Period(Phase.CONTINUOUS, start_ns, end_ns),))


def chinese_session() -> Session:
    """The Chinese day: call auctions 9:15-9:25 and 14:57-15:00 (matched at their ends), a break 11:30-13:00.

    Continuous trading ends at 14:56:59.999999999; 11:30:00 and 9:25:00 still belong to the period that they end.

    Examples:
      >>> [period.phase.name for period in chinese_session().periods]
      ['OPEN_AUCTION', 'CONTINUOUS', 'CONTINUOUS', 'CLOSE_AUCTION']
    """
    return Session((
        Period(Phase.OPEN_AUCTION, _at(9, 15), _at(9, 25), uncross_ns=_at(9, 25)),
        Period(Phase.CONTINUOUS, _at(9, 30), _at(11, 30)),
        Period(Phase.CONTINUOUS, _at(13, 0), _at(14, 57) - 1),
        Period(Phase.CLOSE_AUCTION, _at(14, 57), _at(15, 0), uncross_ns=_at(15, 0)),
    ))


def open_seconds(session: Session, time_ns: int) -> int:
    """Whole seconds of the session's periods that are over at `time_ns` since midnight; breaks are none."""
    spent = (min(time_ns, period.end_ns) - period.start_ns for period in session.periods)
    return sum(max(ns, 0) for ns in spent) // SECOND_NS


def phases_of(session: Session, time_ns: np.ndarray) -> np.ndarray:
    """`phase_at` of known times on the host: int64 nanoseconds since midnight [...] -> int32 [...].

    Examples:
      >>> phases_of(chinese_session(), np.array([0, times.of_clock("09:20:00")])).tolist()
      [0, 1]
    """
    result = np.full(np.shape(time_ns), Phase.CLOSED, np.int32)
    for period in session.periods:
        result[(time_ns >= period.start_ns) & (time_ns <= period.end_ns)] = period.phase
    return result


def phase_at(session: Session, time: Time) -> jax.Array:
    """The session's `Phase` at a time, int32 [...].

    Examples:
      >>> Phase(int(phase_at(chinese_session(), times.of_ns(times.of_clock("09:20:00"))))).name
      'OPEN_AUCTION'
    """
    result = jnp.full(jnp.shape(time.s), Phase.CLOSED, jnp.int32)
    for period in session.periods:
        inside = ~times.before(time, times.of_ns(period.start_ns)) & ~times.before(times.of_ns(period.end_ns), time)
        result = jnp.where(inside, jnp.int32(period.phase), result)
    return result
