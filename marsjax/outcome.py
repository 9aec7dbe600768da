"""What a rollout came to."""

import dataclasses
from typing import Any

import jax
import numpy as np

from marsjax import simulate
from marsjax.simulate import End, Simulation
from marsjax.types import Status
from marsjax.watchers.bars import Bars

COUNTED = ("wakes", "sent", "refused", "unsent", "late_wakes")
"""What is counted of every agent (`schedule.Seat`)."""


@dataclasses.dataclass(frozen=True, eq=False)
class Rollout:
    """B trajectories after their end."""

    simulation: Simulation
    """The last state of the trajectories, on the device; `watched` is what the watchers returned at the end. Where they
    took turns in slots, NumPy arrays, and no contexts."""
    bars: Bars
    """NumPy arrays, [B, M]."""
    mid_twice_start: np.ndarray
    """int32 [B], twice the float mid at the start."""
    status: np.ndarray
    """int32 [B, len(Status)], orders since the start by what became of them, each cancel counted."""
    exceeded: dict[str, np.ndarray]
    """int32 [B], what went beyond a size since the start: `cut_lists` (raise MarketSpec.trade_width to see lists of
    transactions whole), `clipped_seconds` (tokens past the model's hours), `early_cuts` (contexts that outgrew
    CacheSpec.margin), `trace_dropped` (events that found no room in the trace)."""
    agent_names: tuple[str, ...]
    """Of `SimulationSpec.agents`."""
    steps: int
    compile_s: float
    run_s: float

    @property
    def watched(self) -> tuple[Any, ...]:
        """What `SimulationSpec.watchers` returned."""
        return self.simulation.watched

    @property
    def orders(self) -> int:
        """Accepted orders of all trajectories, each cancel counted."""
        return int(self.status[:, Status.ACCEPTED].sum())

    @property
    def rejected(self) -> dict[str, int]:
        """Orders that the exchange refused, by `Status`."""
        return {reason.name: int(self.status[:, reason].sum()) for reason in Status
                if reason > Status.NO_ORDER and self.status[:, reason].any()}

    @property
    def ended(self) -> dict[str, int]:
        """Trajectories by why they ended."""
        ends = np.asarray(self.simulation.end)
        return {reason.name: int((ends == reason).sum()) for reason in End if (ends == reason).any()}

    @property
    def counters(self) -> dict[str, int]:
        """`exceeded` of all trajectories together; 0 where nothing did."""
        return {name: int(counts.sum()) for name, counts in self.exceeded.items()}

    @property
    def agents(self) -> dict[str, dict[str, int]]:
        """By name: wakes, sent, refused, unsent, late_wakes of all trajectories (`schedule.Seat`)."""
        return {agent: {name: int(np.sum(np.asarray(getattr(seat, name)))) for name in COUNTED}
                for agent, seat in zip(self.agent_names, self.simulation.seats, strict=True)}

    def part(self, which: slice | np.ndarray) -> "Rollout":
        """Some of the trajectories; times are shared among all alike."""
        whole = len(self.mid_twice_start)
        share = len(np.arange(whole)[which]) / whole
        simulation = simulate.map_trajectories(lambda axis, x: x[:, which] if axis else x[which], self.simulation)
        return dataclasses.replace(
            self, simulation=simulation,
            bars=jax.tree.map(lambda x: x[which], self.bars), mid_twice_start=self.mid_twice_start[which],
            status=self.status[which], exceeded={name: counts[which] for name, counts in self.exceeded.items()},
            compile_s=self.compile_s * share, run_s=self.run_s * share)
