"""Training that can be broken off: its state on disk (Orbax), bound to the config and the data that it belongs to."""

import hashlib
import pathlib
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Generic, NamedTuple, TypeVar

import jax
import numpy as np
import orbax.checkpoint as ocp

from marsjax.core.errors import InputError
from marsjax.training.loop import TrainingProgress

Weights = TypeVar("Weights")
KEPT = 2
"""States on disk at a time: the one before the last outlives a write that breaks off."""


class Saved(NamedTuple, Generic[Weights]):
    """What a run goes on from."""

    progress: TrainingProgress[Weights]
    best: Weights
    """Averaged weights at the step of the lowest validation loss."""
    curve: list[dict[str, float]]
    """Rows of the metrics so far."""


class StateFolder:
    """The states of one run; a context manager, since Orbax keeps threads."""

    def __init__(self, folder: pathlib.Path, identity: Mapping[str, Any]) -> None:
        self._folder, self._identity = folder.absolute(), dict(identity)
        options = ocp.CheckpointManagerOptions(max_to_keep=KEPT, enable_async_checkpointing=False)
        self._manager = ocp.CheckpointManager(self._folder, options=options)

    def __enter__(self) -> "StateFolder":
        return self

    def __exit__(self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
                 ) -> None:
        self._manager.close()

    def save(self, saved: Saved[Any]) -> None:
        """Writes the state of its step."""
        arrays = {"progress": _named(saved.progress), "best": _named(saved.best)}
        record = {"identity": self._identity, "curve": saved.curve}
        self._manager.save(int(saved.progress.step), args=ocp.args.Composite(
            arrays=ocp.args.StandardSave(arrays), record=ocp.args.JsonSave(record)), force=True)

    def restore(self, fresh: Saved[Weights]) -> Saved[Weights] | None:
        """The newest state, placed as the arrays of `fresh` are, or None if there is none.

        Raises InputError, which names the first difference, if it belongs to another config or to other data.
        """
        step = self._manager.latest_step()
        if step is None:
            return None
        record = self._manager.restore(step, args=ocp.args.Composite(record=ocp.args.JsonRestore()))["record"]
        _check(self._folder, self._identity, record["identity"])
        target = {"progress": _named(fresh.progress), "best": _named(fresh.best)}
        abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), target)
        wanted = ocp.args.Composite(arrays=ocp.args.StandardRestore(abstract))
        found = self._manager.restore(step, args=wanted)["arrays"]
        return Saved(_unnamed(fresh.progress, found["progress"]), _unnamed(fresh.best, found["best"]), record["curve"])


def digest(arrays: Sequence[np.ndarray]) -> str:
    """A short hash of arrays, to tell one training's data from another's."""
    found = hashlib.sha256()
    for array in arrays:
        found.update(str((array.shape, str(array.dtype))).encode())
        found.update(np.ascontiguousarray(array).tobytes())
    return found.hexdigest()[:16]


def _check(folder: pathlib.Path, expected: Mapping[str, Any], found: Mapping[str, Any]) -> None:
    for key in sorted(expected.keys() | found.keys()):
        if expected.get(key) != found.get(key):
            raise InputError(f"{folder}: this state is of another training: its {key} is {found.get(key)!r}, here it "
                             f"is {expected.get(key)!r}; remove it, or name another output")


def _named(tree: Any) -> dict[str, jax.Array]:
    """Arrays by their paths: Orbax reads dictionaries whatever the records are that they come from.

    Those without an element, which Orbax does not write, are left out.
    """
    return {_name(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree) if leaf.size}


def _unnamed(like: Any, arrays: Mapping[str, jax.Array]) -> Any:
    return jax.tree_util.tree_map_with_path(lambda path, leaf: arrays[_name(path)] if leaf.size else leaf, like)


def _name(path: Any) -> str:
    return jax.tree_util.keystr(path, simple=True, separator=".")
