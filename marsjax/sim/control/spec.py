"""How futures are controlled: a frozen, checked record."""

import dataclasses
import math

from marsjax.core import limits
from marsjax.core.errors import InputError

WAYS = ("resample", "batch", "both")
_LONGEST_S = 3600
_WEAKEST, _STRONGEST, _LOUDEST = 1e-6, 1e6, 1e3


@dataclasses.dataclass(frozen=True)
class ControlSpec:
    """How often futures are looked at, and what is done about those that do not fit.

    Examples:
      >>> ControlSpec(every_s=30, island=16).intervals(minutes=10)
      20
    """

    every_s: int = 60
    """Seconds of an interval. The last one ends with the trajectory, and may be shorter, but where they are led."""
    island: int = 0
    """Trajectories among which they are resampled; 0: all. Islands know nothing of each other: futures of different
    islands have no ancestor in common, and an island is the same alone and beside others. Without effect of batch."""
    strength: float = 1.0
    """What a guide's scores are multiplied by; 0: futures are left alone, those of `rollout` to the bit, in every way.
    Otherwise 1e-6 to 1e6. Which candidate is the nearest does not depend on it."""
    resample_below: float = 0.5
    """An island is resampled where its effective sample size, over the trajectories in it, is below this; 0: only at
    the end, 1: after each interval."""
    way: str = "resample"
    """resample: trajectories that fit take the places of those that do not. batch: an order-batch model proposes what
    each one's next orders are to be, and an ensemble tells the order model (`leading`); none is resampled, and none
    knows of the others. both: trajectories are led so, and those that fit take the places of others."""
    candidates: int = 8
    """Batches of orders that the order-batch model proposes for an interval, of which the nearest is told; of batch and
    both."""
    told: float = 1.0
    """How strongly the ensemble changes the order model, 0 to 1000; of batch and both. 1: as it was trained. Up to 1
    the trained change is multiplied by it. Above 1 that change stays as at 1, and (told - 1) times a second, smoother
    map of the codes is added to it. 0: futures are those without being led, to the bit."""
    most_decisions: int = 10_000
    """Of a led trajectory in an interval: a run is given up where one makes more, whatever is told. One that is told
    too loudly may send orders without end."""

    def __post_init__(self) -> None:
        limits.check_whole("ControlSpec.every_s", self.every_s, 1, _LONGEST_S)
        limits.check_whole("ControlSpec.island", self.island, 0, limits.TRAJECTORIES)
        limits.check_whole("ControlSpec.candidates", self.candidates, 1, limits.TRAJECTORIES)
        limits.check_whole("ControlSpec.most_decisions", self.most_decisions, 1, limits.STEPS_OF_A_CALL)
        if isinstance(self.strength, bool) or not (self.strength == 0 or _WEAKEST <= self.strength <= _STRONGEST):
            raise InputError(f"ControlSpec.strength: expected 0, or {_WEAKEST:g} to {_STRONGEST:g}, got "
                             f"{self.strength!r}")
        if isinstance(self.resample_below, bool) or not 0 <= self.resample_below <= 1:
            raise InputError(f"ControlSpec.resample_below: expected 0 to 1, got {self.resample_below!r}")
        if isinstance(self.told, bool) or not 0 <= self.told <= _LOUDEST:
            raise InputError(f"ControlSpec.told: expected 0 to {_LOUDEST:g}, got {self.told!r}")
        if self.way not in WAYS:
            raise InputError(f"ControlSpec.way: expected {', '.join(WAYS[:-1])} or {WAYS[-1]}, got {self.way!r}")

    @property
    def is_led(self) -> bool:
        """Whether trajectories are told what their next orders are to be."""
        return self.strength > 0 and self.way != "resample"

    @property
    def is_resampled(self) -> bool:
        """Whether trajectories may take one another's places."""
        return self.strength > 0 and self.way != "batch"

    def intervals(self, minutes: float) -> int:
        """How many intervals futures of so many minutes have."""
        return math.ceil(minutes * 60 / self.every_s)
