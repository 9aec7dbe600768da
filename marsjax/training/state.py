"""Training that can be broken off: its state on disk, bound to the config and the data that it belongs to."""

import hashlib
import pathlib
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Generic, NamedTuple, TypeVar

import jax
import numpy as np

from marsjax.sim.saved_states import SavedStates
from marsjax.training.days import Tokens
from marsjax.training.loop import TrainingProgress
from marsjax.training.stored import StreamedDays

Weights = TypeVar("Weights")


class Saved(NamedTuple, Generic[Weights]):
    """What a run goes on from."""

    progress: TrainingProgress[Weights]
    best: Weights
    """Averaged weights at the step of the lowest validation loss."""
    curve: list[dict[str, float]]
    """Rows of the metrics so far."""


class StateFolder:
    """The states of one run; a context manager, since no other process may use the folder meanwhile."""

    def __init__(self, folder: pathlib.Path, identity: Mapping[str, Any]) -> None:
        self._states = SavedStates(folder, identity)

    def __enter__(self) -> "StateFolder":
        self._states.__enter__()
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
                 ) -> None:
        self._states.__exit__(kind, value, trace)

    def save(self, saved: Saved[Any]) -> None:
        """Writes the state of its step."""
        self._states.save(int(saved.progress.step), {"curve": saved.curve}, (saved.progress, saved.best))

    def restore(self, fresh: Saved[Weights]) -> Saved[Weights] | None:
        """The newest state that is whole, placed as the arrays of `fresh` are, or None if there is none.

        Raises InputError, which names the first difference, if it belongs to another config or to other data.
        """
        like = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding),
                            (fresh.progress, fresh.best))
        found = self._states.newest(like)
        if found is None:
            return None
        progress, best = found.arrays
        return Saved(progress, best, found.record["curve"])


def digest(arrays: Sequence[Tokens]) -> str:
    """A short hash of arrays, to tell one training's data from another's; of streamed days the one that they have."""
    if isinstance(arrays, StreamedDays):
        return arrays.digest
    found = hashlib.sha256()
    for array in (day[:] for day in arrays):
        found.update(str((array.shape, str(array.dtype))).encode())
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()[:16]
