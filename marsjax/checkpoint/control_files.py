"""A model beside an order model: two files in the folder `control` of a checkpoint.

    NAME.json         its sizes, and whatever the writer had to say
    NAME.safetensors  its weights, float32, by their names
"""

import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import safetensors
import safetensors.numpy

from marsjax.checkpoint import folder as checkpoint_folder
from marsjax.checkpoint import manifest
from marsjax.checkpoint.load import folder_of
from marsjax.core import files
from marsjax.core.errors import InputError, brief

MOST_BYTES = 2**28
"""Of the weights' file."""


class ControlFiles(NamedTuple):
    """What the two files of one kind of model are called, and what is said of them."""

    name: str
    format: str
    """First key of the JSON file."""
    what: str
    """The model in words, without an article."""
    trained_with: str
    """What trains one."""

    @property
    def spec(self) -> str:
        """Name of the JSON file."""
        return f"{self.name}.json"

    @property
    def weights(self) -> str:
        """Name of the weights' file."""
        return f"{self.name}.safetensors"


def write(folder: str | os.PathLike[str], of: ControlFiles, record: Mapping[str, Any],
          weights: Mapping[str, np.ndarray]) -> None:
    """Writes both files into the folder of a checkpoint, and their hashes into its manifest.

    FileNotFoundError where there is no checkpoint.
    """
    place = pathlib.Path(folder)
    if not checkpoint_folder.is_checkpoint(place):
        raise FileNotFoundError(f"{place}: no checkpoint of marsjax to put an {of.what} into")
    inside = place / checkpoint_folder.CONTROL
    inside.mkdir(exist_ok=True)
    text = json.dumps({"format": of.format, **record}, indent=2, ensure_ascii=False)
    (inside / of.spec).write_text(text + "\n", encoding="utf-8")
    (inside / of.weights).write_bytes(safetensors.numpy.save(
        {name: np.ascontiguousarray(x) for name, x in weights.items()}))
    checkpoint_folder.seal(place)


def read(source: str | os.PathLike[str], of: ControlFiles
         ) -> tuple[pathlib.Path, dict[str, Any], dict[str, np.ndarray]]:
    """The folder of both files, the record in one and the weights in the other.

    Raises FileNotFoundError where the checkpoint has none; InputError, which names the file, where one is damaged.
    """
    place = folder_of(source)
    inside = place / checkpoint_folder.CONTROL
    for name in (of.spec, of.weights):
        if not (inside / name).is_file():
            raise FileNotFoundError(f"{inside / name} is missing: the checkpoint has no {of.what}; train one with "
                                    f"{of.trained_with}")
    listed = manifest.check(place)
    for name in (of.spec, of.weights):
        if f"{checkpoint_folder.CONTROL}/{name}" not in listed:
            raise InputError(f"{place / manifest.NAME}: expected the hash of {checkpoint_folder.CONTROL}/{name} too")
    record = files.read_json(inside / of.spec)
    if record.get("format") != of.format:
        raise InputError(f"{inside / of.spec}: format: expected {of.format!r}, got {brief(record.get('format'))}")
    try:
        weights = safetensors.numpy.load(files.read_bytes(inside / of.weights, MOST_BYTES))
    except safetensors.SafetensorError as error:
        raise InputError(f"{inside / of.weights}: not a whole safetensors file: {brief(error, 120)}") from None
    return inside, record, weights


def check(where: pathlib.Path, of: ControlFiles, weights: Mapping[str, np.ndarray],
          shapes: Mapping[str, tuple[int, ...]]) -> None:
    """InputError that names the first tensor that is not as the sizes ask for, or not finite."""
    expected = {name: (shape, "float32") for name, shape in shapes.items()}
    found = {name: (tuple(x.shape), str(x.dtype)) for name, x in weights.items()}
    for name in sorted(set(expected) | set(found)):
        if expected.get(name) != found.get(name):
            raise InputError(f"{where}: {brief(name)}: {of.spec} asks for {expected.get(name)}, stored is "
                             f"{found.get(name)}")
        if not np.isfinite(weights[name]).all():
            raise InputError(f"{where}: {name}: expected finite numbers, found NaN or infinity")


def has_keys(path: pathlib.Path, key: str, value: Any, expected: set[str]) -> dict[str, Any]:
    """A dictionary that has these keys and no others; InputError names path and key."""
    if not isinstance(value, dict) or set(value) != expected:
        got = ", ".join(sorted(value)) if isinstance(value, dict) else value
        raise InputError(f"{path}: {key}: expected the keys {', '.join(sorted(expected))}, got {brief(got, 120)}")
    return value
