"""How futures are controlled: a frozen, checked record."""

import dataclasses
import math

from marsjax.core import limits
from marsjax.core.errors import InputError

WAYS = ("resample", "batch", "both")
_LONGEST_S = 3600
_WEAKEST, _STRONGEST = 1e-6, 1e6


@dataclasses.dataclass(frozen=True)
class ControlSpec:
    """How often futures are looked at, and what is done about those that do not fit.

    Examples:
      >>> ControlSpec(every_s=30, island=16).intervals(minutes=10)
      20
    """

    every_s: int = 60
    """Seconds of an interval. The last one ends with the trajectory, and may be shorter."""
    island: int = 0
    """Trajectories among which they are resampled; 0: all. Islands know nothing of each other: futures of different
    islands have no ancestor in common, and an island is the same alone and beside others."""
    strength: float = 1.0
    """What a guide's scores are multiplied by; 0: futures are left alone, those of `rollout` to the bit.
    Otherwise 1e-6 to 1e6."""
    resample_below: float = 0.5
    """An island is resampled where its effective sample size, over the trajectories in it, is below this; 0: only at
    the end, 1: after each interval."""
    way: str = "resample"
    """resample: trajectories that fit take the places of those that do not. batch (an order-batch model leads each one,
    with an ensemble) and both are not in this version yet, and are refused."""
    candidates: int = 8
    """Batches of orders that the order-batch model proposes for an interval, of which the nearest is followed. Not in
    this version yet: nothing reads it."""

    def __post_init__(self) -> None:
        limits.check_whole("ControlSpec.every_s", self.every_s, 1, _LONGEST_S)
        limits.check_whole("ControlSpec.island", self.island, 0, limits.TRAJECTORIES)
        limits.check_whole("ControlSpec.candidates", self.candidates, 1, limits.TRAJECTORIES)
        if isinstance(self.strength, bool) or not (self.strength == 0 or _WEAKEST <= self.strength <= _STRONGEST):
            raise InputError(f"ControlSpec.strength: expected 0, or {_WEAKEST:g} to {_STRONGEST:g}, got "
                             f"{self.strength!r}")
        if isinstance(self.resample_below, bool) or not 0 <= self.resample_below <= 1:
            raise InputError(f"ControlSpec.resample_below: expected 0 to 1, got {self.resample_below!r}")
        if self.way not in WAYS:
            raise InputError(f"ControlSpec.way: expected {', '.join(WAYS[:-1])} or {WAYS[-1]}, got {self.way!r}")

    def intervals(self, minutes: float) -> int:
        """How many intervals futures of so many minutes have."""
        return math.ceil(minutes * 60 / self.every_s)
