"""The state of a rollout on disk, so that one that was killed goes on as if it had not been."""

import json
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

import jax
import orbax.checkpoint as ocp

_ABOUT = "about.json"
_STATE = "state"


def save(folder: pathlib.Path, about: Mapping[str, Any], state: Any) -> None:
    """Writes a pytree of arrays, and what it belongs to; what was there before stays until the new one is whole."""
    folder.mkdir(parents=True, exist_ok=True)
    new, old = folder / "next", folder / "last"
    shutil.rmtree(new, ignore_errors=True)
    new.mkdir()
    with ocp.StandardCheckpointer() as checkpointer:
        checkpointer.save((new / _STATE).absolute(), state)
    (new / _ABOUT).write_text(json.dumps(about, indent=2), encoding="utf-8")
    shutil.rmtree(old, ignore_errors=True)
    new.rename(old)


def saved(folder: pathlib.Path) -> dict[str, Any] | None:
    """What was saved last, or None if there is nothing."""
    for name in ("last", "next"):  # killed between the two steps of a change, `next` is whole and `last` is gone
        place = folder / name / _ABOUT
        if place.is_file():
            return dict(json.loads(place.read_text(encoding="utf-8"))) | {"_place": name}
    return None


def load(folder: pathlib.Path, about: Mapping[str, Any], like: Any) -> tuple[dict[str, Any], Any]:
    """What was saved last, and its arrays, shaped as `like`.

    Raises ValueError naming the first entry of `about` that differs: another run's state does not fit.
    """
    found = saved(folder)
    if found is None:
        raise FileNotFoundError(f"resume: {folder}: no saved state")
    for key, value in about.items():
        if found.get(key) != value:
            raise ValueError(f"resume: {folder}: was saved by another run: {key}: expected {value!r}, found "
                             f"{found.get(key)!r}")
    with ocp.StandardCheckpointer() as checkpointer:
        state = checkpointer.restore((folder / found.pop("_place") / _STATE).absolute(), like)
    return found, jax.tree.map(lambda x, y: jax.device_put(x, y.sharding) if y.sharding else x, state, like)
