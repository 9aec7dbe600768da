"""What a rollout came to."""

import dataclasses
from typing import Any

import jax
import numpy as np

from marsjax.core.records import Status
from marsjax.observers.bars import Bars
from marsjax.sim.state import End, SimState

COUNTED = ("wakes", "sent", "refused", "unsent", "late_wakes")
"""What is counted of every agent (`AgentState`)."""


@dataclasses.dataclass(frozen=True, eq=False)
class Rollout:
    """B trajectories after their end."""

    state: SimState
    """The last state of the trajectories, on the device; `observed` is what the observers returned at the end. Where
    more were asked for than run at a time (`RolloutSpec.slots`), NumPy arrays, and no contexts."""
    bars: Bars
    """NumPy arrays, [B, M]."""
    mid_twice_start: np.ndarray
    """int32 [B], twice the float mid at the start."""
    status: np.ndarray
    """int32 [B, len(Status)], orders since the start by what became of them, each cancel counted."""
    exceeded: dict[str, np.ndarray]
    """int32 [B], what went beyond a size since the start: `truncated_lists` (raise MarketSpec.trade_width to see lists
    of transactions whole), `clipped_seconds` (tokens past the model's hours), `early_refreshes` (contexts that outgrew
    CacheSpec.margin), `trace_dropped` (events that found no room in the trace)."""
    agent_names: tuple[str, ...]
    """Of `SimulationSpec.agents`."""
    steps: int
    compile_s: float
    run_s: float

    @property
    def observed(self) -> tuple[Any, ...]:
        """What `SimulationSpec.observers` returned."""
        return self.state.observed

    @property
    def orders(self) -> int:
        """Accepted orders of all trajectories, each cancel counted."""
        return int(self.status[:, Status.ACCEPTED].sum())

    @property
    def rejected(self) -> dict[str, int]:
        """Orders that the exchange refused, by `Status`."""
        return {reason.name: int(self.status[:, reason].sum()) for reason in Status
                if reason.is_refusal and self.status[:, reason].any()}

    @property
    def ended(self) -> dict[str, int]:
        """Trajectories by why they ended."""
        ends = np.asarray(self.state.end)
        return {reason.name: int((ends == reason).sum()) for reason in End if (ends == reason).any()}

    @property
    def counters(self) -> dict[str, int]:
        """`exceeded` of all trajectories together; 0 where nothing did."""
        return {name: int(counts.sum()) for name, counts in self.exceeded.items()}

    @property
    def agents(self) -> dict[str, dict[str, int]]:
        """By name: wakes, sent, refused, unsent, late_wakes of all trajectories (`AgentState`)."""
        return {agent: {name: int(np.sum(np.asarray(getattr(agent_state, name)))) for name in COUNTED}
                for agent, agent_state in zip(self.agent_names, self.state.agent_states, strict=True)}

    def part(self, which: slice | np.ndarray) -> "Rollout":
        """Some of the trajectories; times are shared among all alike."""
        whole = len(self.mid_twice_start)
        share = len(np.arange(whole)[which]) / whole
        def chosen(x: Any) -> Any:
            return x[which]

        return dataclasses.replace(
            self, state=jax.tree.map(chosen, self.state), bars=jax.tree.map(chosen, self.bars),
            mid_twice_start=self.mid_twice_start[which],
            status=self.status[which], exceeded={name: counts[which] for name, counts in self.exceeded.items()},
            compile_s=self.compile_s * share, run_s=self.run_s * share)
