"""The order-batch model beside an order model: two files in the folder `control` of a checkpoint.

    order_batch.json         sizes of its parts, and whatever the writer had to say
    order_batch.safetensors  the weights, float32, by the names of their part and of their own
"""

import dataclasses
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from marsjax.checkpoint import control_files
from marsjax.checkpoint.control_files import ControlFiles
from marsjax.checkpoint.load import DEFAULT
from marsjax.core.errors import InputError, brief
from marsjax.core.records import Array
from marsjax.model.order_batch import batch_model, readout, tokenizer
from marsjax.model.order_batch.batch_model import BatchModel
from marsjax.model.order_batch.proposals import OrderBatches
from marsjax.model.order_batch.readout import READ, Readout
from marsjax.model.order_batch.specs import BatchModelSpec, OrderBatchSpec, TokenizerSpec
from marsjax.model.order_batch.tokenizer import Tokenizer

FILES = ControlFiles("order_batch", "marsjax order batches 1", "order-batch model", "`marsjax train_control`")


def save(folder: str | os.PathLike[str], batches: OrderBatches, about: Mapping[str, Any]) -> None:
    """Writes an order-batch model into the folder of a checkpoint that is there, and its hashes into the manifest.

    Args:
      folder: of the checkpoint; its other files stay as they are.
      batches: the model.
      about: what JSON can hold.

    Raises FileNotFoundError where there is no checkpoint; InputError where the parts do not fit one another, or a
    weight is not finite.
    """
    batches.check()
    weights = {name: np.asarray(x, np.float32) for name, x in _weights(batches).items()}
    control_files.check(pathlib.Path(folder), FILES, weights, _shapes(batches.tokenizer.spec, batches.model.spec))
    sizes = {"tokenizer": dataclasses.asdict(batches.tokenizer.spec), "model": dataclasses.asdict(batches.model.spec)}
    control_files.write(folder, FILES, {**sizes, "about": dict(about)}, weights)


def load(source: str | os.PathLike[str] = DEFAULT) -> tuple[OrderBatches, dict[str, Any]]:
    """The order-batch model of a checkpoint, and what its writer had to say.

    Args:
      source: `default` (comes with marsjax), or a checkpoint folder of marsjax.

    Raises FileNotFoundError where the checkpoint has none; InputError, which names file and key or tensor, where one of
    its files is damaged or does not fit the other.
    """
    inside, record, weights = control_files.read(source, FILES)
    path = inside / FILES.spec
    mine, theirs = _specs(path, record)
    control_files.check(inside / FILES.weights, FILES, weights, _shapes(mine, theirs))
    parts = {part: {name.removeprefix(f"{part}."): x for name, x in weights.items() if name.startswith(f"{part}.")}
             for part in ("tokenizer", "model", "readout")}
    found = OrderBatches(Tokenizer(mine, parts["tokenizer"]), BatchModel(theirs, parts["model"]),
                         Readout(**parts["readout"]))
    try:
        found.check()
    except InputError as error:
        raise InputError(f"{path}: {error}") from None
    about = record.get("about")
    if not isinstance(about, dict):
        raise InputError(f"{path}: about: expected an object, got {brief(about)}")
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
    return control_files.has_keys(path, key, value, {field.name for field in dataclasses.fields(kind)})
