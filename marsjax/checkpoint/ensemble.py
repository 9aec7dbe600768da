"""The ensemble beside an order model and its order-batch model: two files in the folder `control` of a checkpoint.

    ensemble.json         its sizes, hashes of the models that it was trained with, and what the writer had to say
    ensemble.safetensors  its weights, float32, by their names
"""

import dataclasses
import hashlib
import os
import pathlib
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from marsjax.checkpoint import control_files, order_batch
from marsjax.checkpoint import folder as checkpoint_folder
from marsjax.checkpoint.control_files import ControlFiles
from marsjax.checkpoint.load import DEFAULT, folder_of
from marsjax.core.errors import InputError, brief
from marsjax.core.records import Array
from marsjax.model import ensemble as ensembles
from marsjax.model.ensemble import Ensemble, EnsembleSpec
from marsjax.model.llama import OrderModel
from marsjax.model.order_batch.tokenizer import Tokenizer

FILES = ControlFiles("ensemble", "marsjax ensemble 2", "ensemble", "`marsjax train_control`")


def trained_with(model: OrderModel, tokenizer: Tokenizer, source: str | os.PathLike[str] | None = None
                 ) -> dict[str, str]:
    """Hashes of what an ensemble was trained with: with another order model, or other codes, it means nothing.

    Args:
      model: the order model.
      tokenizer: of the codes.
      source: the checkpoint of the order model, as of `load`. Where the model is that one, but loaded with fewer bits
        a weight than are stored, the hash is of what is stored: the same however it was loaded.
    """
    weights = model.weights()
    if source is not None and jnp.asarray(weights["norm"]).dtype != jnp.float32:  # these have all bits there are
        stored = checkpoint_folder.restore(folder_of(source)).model.weights()
        if list(stored) == list(weights) and all(
                np.array_equal(jnp.asarray(stored[name]).astype(x.dtype), x) for name, x in weights.items()):
            weights = stored
    return {"order_model": _hash(weights), "tokenizer": _hash(tokenizer.weights())}


def save(folder: str | os.PathLike[str], ensemble: Ensemble, of: Mapping[str, str], about: Mapping[str, Any]) -> None:
    """Writes an ensemble into the folder of a checkpoint that is there, and its hashes into the manifest.

    Args:
      folder: of the checkpoint; its other files stay as they are.
      ensemble: to write.
      of: `trained_with` of the models that it was trained with.
      about: what JSON can hold.

    Raises FileNotFoundError where there is no checkpoint; InputError where a weight is not finite.
    """
    weights = {name: np.asarray(x, np.float32) for name, x in ensemble.weights().items()}
    control_files.check(pathlib.Path(folder), FILES, weights, ensembles.shapes(ensemble.spec))
    control_files.write(folder, FILES, {"sizes": dataclasses.asdict(ensemble.spec), "trained_with": dict(of),
                                        "about": dict(about)}, weights)


def load(source: str | os.PathLike[str] = DEFAULT, of: Mapping[str, str] | None = None
         ) -> tuple[Ensemble, dict[str, Any]]:
    """The ensemble of a checkpoint, with the tokenizer of its order-batch model, and what its writer had to say.

    Args:
      source: `default` (comes with marsjax), or a checkpoint folder of marsjax.
      of: `trained_with` of the models that it is to be used with; None: the tokenizer's alone is checked.

    Raises FileNotFoundError where the checkpoint has none, or no order-batch model; InputError, which names file and
    key or tensor, where one of its files is damaged, does not fit the other, or is of other models than `of`.
    """
    inside, record, weights = control_files.read(source, FILES)
    path = inside / FILES.spec
    spec, about, with_these = _spec(path, record), record.get("about"), record.get("trained_with")
    if not isinstance(about, dict) or not isinstance(with_these, dict):
        raise InputError(f"{path}: about, trained_with: expected two objects, got {brief(about)} and "
                         f"{brief(with_these)}")
    batches, _ = order_batch.load(source)
    for name, digest in {"tokenizer": _hash(batches.tokenizer.weights()), **(of or {})}.items():
        if with_these.get(name) != digest:
            raise InputError(f"{path}: trained_with.{name}: expected {digest}, that of this checkpoint's, got "
                             f"{brief(with_these.get(name))}; train the ensemble anew")
    control_files.check(inside / FILES.weights, FILES, weights, ensembles.shapes(spec))
    try:
        return Ensemble(spec, weights, batches.tokenizer), about
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _spec(path: pathlib.Path, record: Mapping[str, Any]) -> EnsembleSpec:
    expected = {field.name for field in dataclasses.fields(EnsembleSpec)}
    sizes = control_files.has_keys(path, "sizes", record.get("sizes"), expected)
    try:
        return EnsembleSpec(**sizes)
    except InputError as error:
        raise InputError(f"{path}: {error}") from None


def _hash(weights: Mapping[str, Array]) -> str:
    """SHA-256 of names, shapes and numbers."""
    found = hashlib.sha256()
    for name, weight in weights.items():
        array = np.ascontiguousarray(weight, np.float32)
        found.update(f"{name} {array.shape}".encode())
        found.update(array.tobytes())
    return found.hexdigest()
