"""Files of a run: a folder that appears only when it is complete, and JSON."""

import contextlib
import enum
import json
import math
import os
import pathlib
import shutil
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import numpy as np
from ml_collections import ConfigDict

from marsjax.core.errors import InputError


@contextlib.contextmanager
def output_folder(path: str | os.PathLike[str], overwrite: bool = False) -> Iterator[pathlib.Path]:
    """Gives a folder to write into, which becomes `path` when the block ends without an exception.

    Until then it is a hidden sibling, so that a run that broke off leaves nothing that could be taken for a result.
    Raises InputError if `path` exists, unless it is a folder and `overwrite` is set: then all of it is replaced.
    """
    target = pathlib.Path(os.path.abspath(path))
    _check_target(target, overwrite)
    made = [folder for folder in target.parents if not folder.exists()]
    hidden = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
    done = False
    try:
        hidden.mkdir(parents=True)
        yield hidden
        _publish(hidden, target, overwrite)
        done = True
    finally:
        if not done:
            shutil.rmtree(hidden, ignore_errors=True)
            with contextlib.suppress(OSError):  # a parent that someone else uses by now stays
                for folder in made:
                    folder.rmdir()


def _check_target(target: pathlib.Path, overwrite: bool) -> None:
    if not (target.exists() or target.is_symlink()):
        return
    if not overwrite:
        raise InputError(f"output folder {target} exists; name another, or allow overwriting it")
    if target.is_symlink() or not target.is_dir():
        raise InputError(f"output folder {target}: cannot overwrite what is not a folder")
    for keep in (pathlib.Path.cwd(), pathlib.Path.home()):
        if keep.is_relative_to(target):
            raise InputError(f"output folder {target}: will not overwrite a folder that holds {keep}")


def _publish(hidden: pathlib.Path, target: pathlib.Path, overwrite: bool) -> None:
    _check_target(target, overwrite)  # once more: another run may have written it meanwhile
    if not target.exists():
        hidden.rename(target)
        return
    old = target.with_name(f"{hidden.name}.old")
    target.rename(old)
    try:
        hidden.rename(target)
    except OSError:
        old.rename(target)
        raise
    shutil.rmtree(old, ignore_errors=True)


def write_json(path: str | os.PathLike[str], record: Mapping[str, Any]) -> None:
    """Writes `record` as JSON; arrays become lists, numbers that are not finite (JSON has none) become null.

    Raises TypeError with the key of a value that has no form in JSON.
    """
    text = json.dumps(_plain(record, ""), indent=2, allow_nan=False, ensure_ascii=False)
    pathlib.Path(path).write_text(text + "\n", encoding="utf-8")


def _plain(value: Any, key: str) -> Any:
    if isinstance(value, ConfigDict):
        value = value.to_dict()
    if isinstance(value, np.generic | np.ndarray | jax.Array):
        value = np.asarray(value).tolist()
    if isinstance(value, enum.Enum):
        return value.name
    if isinstance(value, Mapping):
        return {str(name): _plain(item, f"{key}.{name}".lstrip(".")) for name, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item, f"{key}[{index}]") for index, item in enumerate(value)]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    if value is None or isinstance(value, bool | int | str):
        return value
    if isinstance(value, pathlib.PurePath):
        return str(value)
    raise TypeError(f"write_json: {key}: expected numbers, text, arrays, lists or dicts, got {type(value).__name__}")
