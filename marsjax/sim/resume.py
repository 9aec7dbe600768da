"""The state of a rollout on disk, and what grows beside it: one that was killed goes on as if it had not been."""

import contextlib
import dataclasses
import math
import os
from collections.abc import Iterator
from typing import Any, Protocol

import jax
import numpy as np

from marsjax.core.errors import InputError
from marsjax.sim.saved_states import SavedStates

_LEAST_S, _MOST_S = 1e-3, 1e9


class Beside(Protocol):
    """Something on disk that grows with a rollout, as a trace does, and belongs to each of its states."""

    def mark(self) -> Any:
        """Makes sure that all of it so far outlives the process; what `go_back` finds this moment by, JSON values."""

    def go_back(self, mark: Any) -> None:
        """Takes it back to the moment of a mark, None to its beginning.

        Raises DamagedError, and changes nothing, where it is not what it was at that moment.
        """


@dataclasses.dataclass(frozen=True)
class Saving:
    """Where a rollout keeps its state, to be taken up again after a kill.

    Examples:
      >>> Saving("state", every_s=30).every_s
      30
    """

    folder: str | os.PathLike[str]
    """Of this rollout alone; no other process may use it meanwhile (`SavedStates`)."""
    every_s: float = 60.0
    """Seconds between two saves, at the end of a chunk; 0: at the end of each."""
    beside: Beside | None = None
    """What belongs to the states, most often where `Hooks.on_trace` writes to."""

    def __post_init__(self) -> None:
        if not (self.every_s == 0 or _LEAST_S <= self.every_s <= _MOST_S) or math.isnan(self.every_s):
            raise InputError(f"Saving.every_s: expected 0, or {_LEAST_S:g} to {_MOST_S:g} seconds, got {self.every_s}")


@dataclasses.dataclass(frozen=True)
class Done:
    """What a rollout has done, beside its state."""

    steps: int
    decided: int
    dropped: np.ndarray
    """int32 [B], events that found no room in the trace."""


class Resumable:
    """The saved states of one rollout, open."""

    def __init__(self, saving: Saving, states: SavedStates) -> None:
        self.every_s, self._beside, self._states = saving.every_s, saving.beside, states

    def take_up(self, identity: dict[str, Any], like: Any, trajectories: int) -> tuple[Done, Any] | None:
        """The newest state that is whole and what was done by then, or None where there is none.

        Args:
          identity: all that the rollout's result depends on, JSON values.
          like: shapes, dtypes and shardings of the state.
          trajectories: B.

        Raises the errors of `SavedStates.newest`.
        """
        self._states.belong_to(identity)
        tree = {"state": like, "dropped": jax.ShapeDtypeStruct((trajectories,), np.int32)}
        found = self._states.newest(tree, lambda record: self._go_back(record["beside"]))
        if found is None:
            self._go_back(None)
            return None
        state = jax.tree.map(lambda x, y: jax.device_put(x, y.sharding), found.arrays["state"], like)
        return Done(found.record["steps"], found.record["decided"], found.arrays["dropped"]), state

    def save(self, done: Done, state: Any) -> None:
        """Writes the state, once what lies beside it is on disk."""
        mark = self._beside.mark() if self._beside else None
        self._states.save(done.steps, {"steps": done.steps, "decided": done.decided, "beside": mark},
                          {"state": state, "dropped": done.dropped})

    def _go_back(self, mark: Any) -> None:
        if self._beside:
            self._beside.go_back(mark)


@contextlib.contextmanager
def opened(saving: Saving | None) -> Iterator[Resumable | None]:
    """The states of a rollout while it runs, None without `saving`; errors are those of `SavedStates`."""
    if saving is None:
        yield None
        return
    with SavedStates(saving.folder) as states:
        yield Resumable(saving, states)
