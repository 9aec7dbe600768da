"""The state of a rollout on disk, so that one that was killed goes on as if it had not been (Orbax)."""

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax

from marsjax.core.errors import InputError

_ABOUT = "about"
_STATE = "state"


def save(folder: str | os.PathLike[str], number: int, about: Mapping[str, Any], state: Any) -> None:
    """Writes a pytree of arrays, and what it belongs to, JSON values, as save `number`; keeps the newest two.

    A save that was cut off is none: Orbax renames a folder into place when it is whole.
    """
    import orbax.checkpoint as ocp

    with _manager(folder) as manager:
        manager.save(number, args=ocp.args.Composite(**{
            _STATE: ocp.args.StandardSave(state), _ABOUT: ocp.args.JsonSave(dict(about))}), force=True)


def newest(folder: str | os.PathLike[str]) -> int | None:
    """The number of the newest save, or None if there is none."""
    if not pathlib.Path(folder).is_dir():
        return None
    with _manager(folder) as manager:
        found = manager.latest_step()
    return None if found is None else int(found)


def load(folder: str | os.PathLike[str], about: Mapping[str, Any], like: Any) -> tuple[dict[str, Any], Any]:
    """What was saved last, and its arrays, shaped as `like`.

    InputError naming the first entry of `about` that differs: another run's state does not fit. FileNotFoundError if
    there is none.
    """
    import orbax.checkpoint as ocp

    with _manager(folder) as manager:
        number = manager.latest_step()
        if number is None:
            raise FileNotFoundError(f"resume: {folder}: no saved state")
        found = dict(manager.restore(number, args=ocp.args.Composite(**{_ABOUT: ocp.args.JsonRestore()}))[_ABOUT])
        for key, value in json.loads(json.dumps(dict(about))).items():
            if found.get(key) != value:
                raise InputError(f"resume: {folder}: was saved by another run: {key}: expected {value!r}, found "
                                 f"{found.get(key)!r}")
        state = manager.restore(number, args=ocp.args.Composite(**{_STATE: ocp.args.StandardRestore(like)}))[_STATE]
    return found, jax.tree.map(lambda x, y: jax.device_put(x, y.sharding) if y.sharding else x, state, like)


def _manager(folder: str | os.PathLike[str]) -> Any:
    import orbax.checkpoint as ocp

    options = ocp.CheckpointManagerOptions(max_to_keep=2, create=True, enable_async_checkpointing=False)
    return ocp.CheckpointManager(pathlib.Path(folder).absolute(), options=options)
