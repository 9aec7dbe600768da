"""The ensemble beside an order model and its order-batch model: two files in the folder `control` of a checkpoint.

    ensemble.json         its sizes, hashes of the models that it was trained with, and what the writer had to say
    ensemble.safetensors  its weights, float32, by their names
"""

import dataclasses
import hashlib
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
from marsjax.model import ensemble as ensembles
from marsjax.model.ensemble import Ensemble, EnsembleSpec
from marsjax.model.llama import OrderModel
from marsjax.model.order_batch.tokenizer import Tokenizer

SPEC, WEIGHTS = "ensemble.json", "ensemble.safetensors"
MOST_BYTES = 2**28
"""Of the weights' file."""
_FORMAT = "marsjax ensemble 1"


def trained_with(model: OrderModel, tokenizer: Tokenizer) -> dict[str, str]:
    """Hashes of what an ensemble was trained with: with another order model, or other codes, it means nothing."""
    return {"order_model": _hash(model.weights()), "tokenizer": _hash(tokenizer.weights())}


def save(folder: str | os.PathLike[str], ensemble: Ensemble, of: Mapping[str, str], about: Mapping[str, Any]) -> None:
    """Writes an ensemble into the folder of a checkpoint that is there, and its hashes into the manifest.

    Args:
      folder: of the checkpoint; its other files stay as they are.
      ensemble: to write.
      of: `trained_with` of the models that it was trained with.
      about: what JSON can hold.

    Raises FileNotFoundError where there is no checkpoint; InputError where a weight is not finite.
    """
    place = pathlib.Path(folder)
    if not checkpoint_folder.is_checkpoint(place):
        raise FileNotFoundError(f"{place}: no checkpoint of marsjax to put an ensemble into")
    weights = {name: np.ascontiguousarray(x, np.float32) for name, x in ensemble.weights().items()}
    _check(place, weights, ensemble.spec)
    inside = place / checkpoint_folder.CONTROL
    inside.mkdir(exist_ok=True)
    record = {"format": _FORMAT, "sizes": dataclasses.asdict(ensemble.spec), "trained_with": dict(of),
              "about": dict(about)}
    (inside / SPEC).write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    (inside / WEIGHTS).write_bytes(safetensors.numpy.save(weights))
    checkpoint_folder.seal(place)


def load(source: str | os.PathLike[str] = DEFAULT, of: Mapping[str, str] | None = None
         ) -> tuple[Ensemble, dict[str, Any]]:
    """The ensemble of a checkpoint, and what its writer had to say.

    Args:
      source: `default` (comes with marsjax), or a checkpoint folder of marsjax.
      of: `trained_with` of the models that it is to be used with; None: not checked.

    Raises FileNotFoundError where the checkpoint has none; InputError, which names file and key or tensor, where one of
    its files is damaged, does not fit the other, or is of other models than `of`.
    """
    place = folder_of(source)
    inside = place / checkpoint_folder.CONTROL
    for name in (SPEC, WEIGHTS):
        if not (inside / name).is_file():
            raise FileNotFoundError(f"{inside / name} is missing: the checkpoint has no ensemble; train one with "
                                    "experiments/ensemble/train.py of a checkout")
    listed = manifest.check(place)
    for name in (SPEC, WEIGHTS):
        if f"{checkpoint_folder.CONTROL}/{name}" not in listed:
            raise InputError(f"{place / manifest.NAME}: expected the hash of {checkpoint_folder.CONTROL}/{name} too")
    record = files.read_json(inside / SPEC)
    if record.get("format") != _FORMAT:
        raise InputError(f"{inside / SPEC}: format: expected {_FORMAT!r}, got {brief(record.get('format'))}")
    spec, about, with_these = _spec(inside / SPEC, record), record.get("about"), record.get("trained_with")
    if not isinstance(about, dict) or not isinstance(with_these, dict):
        raise InputError(f"{inside / SPEC}: about, trained_with: expected two objects, got {brief(about)} and "
                         f"{brief(with_these)}")
    for name, digest in (of or {}).items():
        if with_these.get(name) != digest:
            raise InputError(f"{inside / SPEC}: trained_with.{name}: expected {digest}, that of this checkpoint's, got "
                             f"{brief(with_these.get(name))}; train the ensemble anew")
    try:
        weights = safetensors.numpy.load(files.read_bytes(inside / WEIGHTS, MOST_BYTES))
    except safetensors.SafetensorError as error:
        raise InputError(f"{inside / WEIGHTS}: not a whole safetensors file: {brief(error, 120)}") from None
    _check(inside / WEIGHTS, weights, spec)
    return Ensemble(spec, weights), about


def _check(where: pathlib.Path, weights: Mapping[str, np.ndarray], spec: EnsembleSpec) -> None:
    """InputError that names the first tensor that is not as the sizes ask for."""
    expected = {name: (shape, "float32") for name, shape in ensembles.shapes(spec).items()}
    found = {name: (tuple(x.shape), str(x.dtype)) for name, x in weights.items()}
    for name in sorted(set(expected) | set(found)):
        if expected.get(name) != found.get(name):
            raise InputError(f"{where}: {brief(name)}: {SPEC} asks for {expected.get(name)}, stored is "
                             f"{found.get(name)}")
        if not np.isfinite(weights[name]).all():
            raise InputError(f"{where}: {name}: expected finite numbers, found NaN or infinity")


def _spec(path: pathlib.Path, record: Mapping[str, Any]) -> EnsembleSpec:
    sizes, expected = record.get("sizes"), {field.name for field in dataclasses.fields(EnsembleSpec)}
    if not isinstance(sizes, dict) or set(sizes) != expected:
        got = ", ".join(sorted(sizes)) if isinstance(sizes, dict) else sizes
        raise InputError(f"{path}: sizes: expected the keys {', '.join(sorted(expected))}, got {brief(got, 120)}")
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
