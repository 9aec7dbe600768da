"""Sizes of simulations and rollouts: frozen, hashable, checked; the static arguments of their compiled calls."""

import dataclasses
import math

from marsjax.agents.base import Agent
from marsjax.core import limits
from marsjax.core.errors import InputError
from marsjax.core.kernels import Kernels
from marsjax.core.specs import CacheSpec, MarketSpec
from marsjax.observers.base import Observer

BACKGROUND_ACCOUNT = 1
"""The order model's account. The orders of a starting state are those of account 0, which it may take back."""


@dataclasses.dataclass(frozen=True)
class SimulationSpec:
    """What a simulation is made of."""

    market: MarketSpec
    cache: CacheSpec
    end_ns: int | None = None
    """No order is sent after it, nanoseconds since midnight; None: each trajectory has an end of its own."""
    account: int = BACKGROUND_ACCOUNT
    """The background agent's account."""
    owns_below: int = BACKGROUND_ACCOUNT + 1
    """Resting orders of accounts 0 to owns_below - 1 are the background agent's to cancel (its own, the noise's)."""
    temperature: float = 1.0
    agents: tuple[Agent, ...] = ()
    """Who else trades, in the order in which they are registered."""
    observers: tuple[Observer, ...] = ()
    """What is kept of every event."""
    burst: int = 8
    """Tokens of a trajectory that are made before they are appended to its context; with other agents only. More need
    another pass."""
    kernels: Kernels | None = None
    """The ways of the loop over events; None: those of JAX's device."""

    def __post_init__(self) -> None:
        if not 0 <= self.account < self.market.accounts:
            raise InputError(f"SimulationSpec.account: expected 0 to {self.market.accounts - 1} (MarketSpec.accounts), "
                             f"got {self.account}")
        limits.check_temperature("SimulationSpec.temperature", self.temperature)
        if self.end_ns is not None and self.end_ns < 0:
            raise InputError(f"SimulationSpec.end_ns: expected at least 0, got {self.end_ns}")
        if not 1 <= self.burst <= 1024:
            raise InputError(f"SimulationSpec.burst: expected 1 to 1024, got {self.burst}")
        self._check_accounts()

    def _check_accounts(self) -> None:
        taken = {self.account: "the background agent", **dict.fromkeys(range(self.owns_below), "the background agent")}
        for agent in self.agents:
            if agent.account in taken:
                raise InputError(f"agent {agent.name!r}: account {agent.account} is the account of "
                                 f"{taken[agent.account]}")
            if not 0 <= agent.account < self.market.accounts:
                raise InputError(f"agent {agent.name!r}: expected an account of 0 to {self.market.accounts - 1} "
                                 f"(MarketSpec.accounts), got {agent.account}")
            if not 1 <= agent.most_orders <= agent.most_in_flight:
                raise InputError(f"agent {agent.name!r}: expected 1 <= most_orders <= most_in_flight, got "
                                 f"{agent.most_orders} and {agent.most_in_flight}")
            taken[agent.account] = f"agent {agent.name!r}"


@dataclasses.dataclass(frozen=True)
class RolloutSpec:
    """How many futures, how long, and under which numbers.

    Examples:
      >>> from marsjax import RolloutSpec
      >>> spec = RolloutSpec(trajectories=1_000, minutes=5, seed=1, slots=64)
      >>> spec.running
      64
    """

    trajectories: int
    """B."""
    minutes: int
    """Bars to keep, M. Each trajectory ends so many minutes after its start, or at `SimulationSpec.end_ns`, if that is
    given; the bars must reach there."""
    seed: int = 0
    """With the trajectory's number and the step it keys every draw."""
    first: int = 0
    """Number of the first trajectory, the others count on. A trajectory of a number and start is the same in any batch
    (README, Rollouts in Python, says how far that goes)."""
    numbers: tuple[int, ...] | None = None
    """B numbers instead of `first`; two trajectories of one number and start draw the same."""
    slots: int | None = None
    """Trajectories that run at a time, where that is less than all: as they end, others begin in their places. No
    result depends on it where `Kernels.rows` is set, as on a CPU. On an accelerator another number of them is another
    compiled program, which may round the model's floating-point work differently."""
    chunk_steps: int = 0
    """Decisions of a compiled call. Of several times 64 it ends with those 64 in which its last trajectory ends. 0:
    `Kernels.steps` of the device, 64 with a trace. No result depends on it."""
    nearest_minutes: bool = False
    """Whether bars round order times to the nearest minute (`MinuteBarObserver`), which makes one bar more, the first
    and the last of half a minute."""
    trace_room: int | None = None
    """Events of a trajectory that fit in the trace of one chunk; None: as many as its steps, enough where no other
    agents trade."""
    devices: int = 1
    """Devices of this process that share the trajectories, as many on each; 0: all. What was said of `slots` holds of
    those of a device; where they do not come out even, some stay empty."""

    def __post_init__(self) -> None:
        for name, low, high in (("trajectories", 1, limits.TRAJECTORIES), ("minutes", 1, limits.MINUTES),
                                ("chunk_steps", 0, limits.STEPS_OF_A_CALL), ("seed", 0, limits.SEED),
                                ("first", 0, limits.SEED), ("slots", 1, limits.TRAJECTORIES),
                                ("trace_room", 1, limits.TRAJECTORIES), ("devices", 0, limits.TRAJECTORIES)):
            value = getattr(self, name)
            if value is None and name in ("slots", "trace_room"):
                continue
            if isinstance(value, bool) or not math.isfinite(value) or int(value) != value or not low <= value <= high:
                raise InputError(f"RolloutSpec.{name}: expected a whole number of {low} to {high}, got {value!r}")
        if self.numbers is not None and (len(self.numbers) != self.trajectories or min(self.numbers) < 0
                                         or max(self.numbers) >= 2**31):
            raise InputError(f"RolloutSpec.numbers: expected {self.trajectories} of 0 to {2**31 - 1}, got "
                             f"{self.numbers!r}")

    @property
    def running(self) -> int:
        """Trajectories that run at a time."""
        return min(self.trajectories, self.trajectories if self.slots is None else self.slots)
