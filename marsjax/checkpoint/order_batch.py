"""The order-batch model beside an order model: two files in the folder `control` of a checkpoint.

    order_batch.json         sizes of its parts, and whatever the writer had to say
    order_batch.safetensors  the weights, float32, by the names of their part and of their own
"""

import dataclasses
import json
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import safetensors
import safetensors.numpy

from marsjax.checkpoint import folder as checkpoint_folder
from marsjax.checkpoint import manifest
from marsjax.checkpoint.load import DEFAULT, folder_of
from marsjax.core import files
from marsjax.core.errors import InputError, brief
from marsjax.core.records import Array
from marsjax.model.order_batch import batch_model, readout, tokenizer
from marsjax.model.order_batch.batch_model import BatchModel
from marsjax.model.order_batch.proposals import OrderBatches
from marsjax.model.order_batch.readout import READ, Readout
from marsjax.model.order_batch.specs import BatchModelSpec, OrderBatchSpec, TokenizerSpec
from marsjax.model.order_batch.tokenizer import Tokenizer

SPEC, WEIGHTS = "order_batch.json", "order_batch.safetensors"
MOST_BYTES = 2**28
"""Of the weights' file."""
_FORMAT = "marsjax order batches 1"


def save(folder: str | os.PathLike[str], batches: OrderBatches, about: Mapping[str, Any]) -> None:
    """Writes an order-batch model into the folder of a checkpoint that is there, and its hashes into the manifest.

    Args:
      folder: of the checkpoint; its other files stay as they are.
      batches: the model.
      about: what JSON can hold.

    Raises FileNotFoundError where there is no checkpoint; InputError where the parts do not fit one another, or a
    weight is not finite.
    """
    place = pathlib.Path(folder)
    if not checkpoint_folder.is_checkpoint(place):
        raise FileNotFoundError(f"{place}: no checkpoint of marsjax to put an order-batch model into")
    batches.check()
    weights = {name: np.asarray(x, np.float32) for name, x in _weights(batches).items()}
    _check(place, weights, batches.tokenizer.spec, batches.model.spec)
    inside = place / checkpoint_folder.CONTROL
    inside.mkdir(exist_ok=True)
    sizes = {"tokenizer": dataclasses.asdict(batches.tokenizer.spec), "model": dataclasses.asdict(batches.model.spec)}
    record = {"format": _FORMAT, **sizes, "about": dict(about)}
    (inside / SPEC).write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (inside / WEIGHTS).write_bytes(safetensors.numpy.save({name: np.ascontiguousarray(x)
                                                           for name, x in weights.items()}))
    checkpoint_folder.seal(place)


def load(source: str | os.PathLike[str] = DEFAULT) -> tuple[OrderBatches, dict[str, Any]]:
    """The order-batch model of a checkpoint, and what its writer had to say.

    Args:
      source: `default` (comes with marsjax), or a checkpoint folder of marsjax.

    Raises FileNotFoundError where the checkpoint has none; InputError, which names file and key or tensor, where one of
    its files is damaged or does not fit the other.
    """
    place = folder_of(source)
    inside = place / checkpoint_folder.CONTROL
    for name in (SPEC, WEIGHTS):
        if not (inside / name).is_file():
            raise FileNotFoundError(f"{inside / name} is missing: the checkpoint has no order-batch model; train one "
                                    "with `marsjax train_control`")
    listed = manifest.check(place)
    for name in (SPEC, WEIGHTS):
        if f"{checkpoint_folder.CONTROL}/{name}" not in listed:
            raise InputError(f"{place / manifest.NAME}: expected the hash of {checkpoint_folder.CONTROL}/{name} too")
    record = files.read_json(inside / SPEC)
    if record.get("format") != _FORMAT:
        raise InputError(f"{inside / SPEC}: format: expected {_FORMAT!r}, got {brief(record.get('format'))}")
    mine, theirs = _specs(inside / SPEC, record)
    try:
        weights = safetensors.numpy.load(files.read_bytes(inside / WEIGHTS, MOST_BYTES))
    except safetensors.SafetensorError as error:
        raise InputError(f"{inside / WEIGHTS}: not a whole safetensors file: {brief(error, 120)}") from None
    _check(inside / WEIGHTS, weights, mine, theirs)
    parts = {part: {name.removeprefix(f"{part}."): x for name, x in weights.items() if name.startswith(f"{part}.")}
             for part in ("tokenizer", "model", "readout")}
    found = OrderBatches(Tokenizer(mine, parts["tokenizer"]), BatchModel(theirs, parts["model"]),
                         Readout(**parts["readout"]))
    try:
        found.check()
    except InputError as error:
        raise InputError(f"{inside / SPEC}: {error}") from None
    about = record.get("about")
    if not isinstance(about, dict):
        raise InputError(f"{inside / SPEC}: about: expected an object, got {brief(about)}")
    return found, about


def _weights(batches: OrderBatches) -> dict[str, Array]:
    named = {"tokenizer": batches.tokenizer.weights(), "model": batches.model.weights(),
             "readout": {"weight": batches.readout.weight, "bias": batches.readout.bias}}
    return {f"{part}.{name}": x for part, weights in named.items() for name, x in weights.items()}


def _shapes(mine: TokenizerSpec, theirs: BatchModelSpec) -> dict[str, tuple[int, ...]]:
    named: dict[str, dict[str, tuple[int, ...]]] = {
        "tokenizer": tokenizer.shapes(mine), "model": batch_model.shapes(theirs),
        "readout": {"weight": (readout.input_count(mine.images), len(READ)), "bias": (len(READ),)}}
    return {f"{part}.{name}": shape for part, shapes in named.items() for name, shape in shapes.items()}


def _check(where: pathlib.Path, weights: Mapping[str, np.ndarray], mine: TokenizerSpec, theirs: BatchModelSpec) -> None:
    """InputError that names the first tensor that is not as the sizes ask for."""
    expected = {name: (shape, "float32") for name, shape in _shapes(mine, theirs).items()}
    found = {name: (tuple(x.shape), str(x.dtype)) for name, x in weights.items()}
    for name in sorted(set(expected) | set(found)):
        if expected.get(name) != found.get(name):
            raise InputError(f"{where}: {brief(name)}: {SPEC} asks for {expected.get(name)}, stored is "
                             f"{found.get(name)}")
        if not np.isfinite(weights[name]).all():
            raise InputError(f"{where}: {name}: expected finite numbers, found NaN or infinity")


def _specs(path: pathlib.Path, record: Mapping[str, Any]) -> tuple[TokenizerSpec, BatchModelSpec]:
    mine = _keys(path, "tokenizer", record.get("tokenizer"), TokenizerSpec)
    images = _keys(path, "tokenizer.images", mine["images"], OrderBatchSpec)
    theirs = _keys(path, "model", record.get("model"), BatchModelSpec)
    edges = images["volume_edges"]
    if not isinstance(edges, list):
        raise InputError(f"{path}: tokenizer.images.volume_edges: expected a list of numbers, got {brief(edges)}")
    try:
        whole = OrderBatchSpec(**{**images, "volume_edges": tuple(edges)})
        return TokenizerSpec(**{**mine, "images": whole}), BatchModelSpec(**theirs)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _keys(path: pathlib.Path, key: str, value: Any, kind: type) -> dict[str, Any]:
    """A dictionary that has the fields of a record and no others; InputError names path and key."""
    expected = {field.name for field in dataclasses.fields(kind)}
    if not isinstance(value, dict) or set(value) != expected:
        got = ", ".join(sorted(value)) if isinstance(value, dict) else value
        raise InputError(f"{path}: {key}: expected the keys {', '.join(sorted(expected))}, got {brief(got, 120)}")
    return value
