"""Frozen, hashable sizes and units: the static arguments of the jitted functions. Each validates itself."""

import dataclasses
import enum

SECOND_NS = 1_000_000_000
DAY_NS = 86_400 * SECOND_NS


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
            raise ValueError(f"period {self.phase.name}: expected 0 <= start <= end < one day in ns, got "
                             f"start_ns={self.start_ns}, end_ns={self.end_ns}")
        auction = self.phase in (Phase.OPEN_AUCTION, Phase.CLOSE_AUCTION)
        if auction != (self.uncross_ns is not None):
            raise ValueError(f"period {self.phase.name}: expected uncross_ns for call auctions only, "
                             f"got {self.uncross_ns}")
        if self.uncross_ns is not None and not self.end_ns <= self.uncross_ns < DAY_NS:
            raise ValueError(f"period {self.phase.name}: expected uncross_ns >= end_ns={self.end_ns}, "
                             f"got {self.uncross_ns}")


@dataclasses.dataclass(frozen=True)
class Session:
    """The trading day: periods in order of time. Orders outside them are answered with Status.CLOSED."""

    periods: tuple[Period, ...]

    def __post_init__(self) -> None:
        if not self.periods:
            raise ValueError("session: expected at least one period, got none")
        for before, after in zip(self.periods, self.periods[1:], strict=False):
            done = before.end_ns if before.uncross_ns is None else before.uncross_ns
            if after.start_ns < done or after.start_ns <= before.end_ns:
                raise ValueError(f"session: period {after.phase.name} starts at {after.start_ns} ns, before "
                                 f"{before.phase.name} is over at {done} ns")


def _at(hour: int, minute: int, second: int = 0) -> int:
    return (hour * 3600 + minute * 60 + second) * SECOND_NS


def continuous_session(start_ns: int = _at(9, 30), end_ns: int = _at(16, 0)) -> Session:
    """Continuous trading only, from `start_ns` to `end_ns`, both included."""
    return Session((Period(Phase.CONTINUOUS, start_ns, end_ns),))


def chinese_session() -> Session:
    """The Chinese day: call auctions 9:15-9:25 and 14:57-15:00 (matched at their ends), a break 11:30-13:00.

    Continuous trading ends at 14:56:59.999999999; 11:30:00 and 9:25:00 still belong to the period that they end.
    """
    return Session((
        Period(Phase.OPEN_AUCTION, _at(9, 15), _at(9, 25), uncross_ns=_at(9, 25)),
        Period(Phase.CONTINUOUS, _at(9, 30), _at(11, 30)),
        Period(Phase.CONTINUOUS, _at(13, 0), _at(14, 57) - 1),
        Period(Phase.CLOSE_AUCTION, _at(14, 57), _at(15, 0), uncross_ns=_at(15, 0)),
    ))


@dataclasses.dataclass(frozen=True)
class MarketSpec:
    """Sizes and units of one symbol's market."""

    tick: int = 100
    """Smallest price step, 1e-4 of the currency."""
    capacity: int = 128
    """Resting orders a side."""
    trade_width: int = 16
    """Transactions listed per order; longer sweeps are matched in full and their list is cut."""
    levels: int = 10
    """Levels a side in a view."""
    owners: int = 2
    """Accounts kept by the exchange; orders name them 0 to owners - 1."""
    session: Session = dataclasses.field(default_factory=continuous_session)

    def __post_init__(self) -> None:
        limits = {"tick": (1, 10**6), "capacity": (1, 32768), "trade_width": (1, 32768), "levels": (1, 1024),
                  "owners": (1, 1024)}
        for name, (low, high) in limits.items():
            value = getattr(self, name)
            if type(value) is not int:
                raise ValueError(f"MarketSpec.{name}: expected an int, got {value!r}")
            if not low <= value <= high:
                raise ValueError(f"MarketSpec.{name}: expected {low} to {high}, got {value}")
        if not isinstance(self.session, Session):
            raise ValueError(f"MarketSpec.session: expected a Session, got {self.session!r}")
        if self.trade_width > self.capacity:
            object.__setattr__(self, "trade_width", self.capacity)
