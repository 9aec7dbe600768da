"""Checkpoints of marsjax: a folder with the parameters (Orbax), their spec, the bin converters, and their origin.

    spec.json       sizes of the model and of its tokens, and how its cancels are read
    about.json      source, revision, hashes, report of an import: whatever the writer had to say
    params/         Orbax, readable on other devices and meshes than it was written on
    converters/     one .npz a quantity (`converter_files.save`), where there are any
    days/           days that the model has written, to start from (`data.made_days`), where there are any
    control/        models beside it by which its futures are to be controlled (`order_batch`), where there are any
    manifest.json   the SHA-256 of each of these files (`manifest`); folders of older versions have none

Who changes a file on purpose writes the manifest anew: `seal`.
"""

import dataclasses
import inspect
import json
import math
import os
import pathlib
import shutil
import uuid
import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from marsjax.checkpoint import converter_files, manifest
from marsjax.checkpoint import safetensors as safetensors_layout
from marsjax.core import files
from marsjax.core.errors import InputError, brief
from marsjax.core.records import Array
from marsjax.core.specs import ModelSpec, TokenSpec
from marsjax.model.llama import OrderModel
from marsjax.tokens import bins, encoding
from marsjax.tokens.bins import Converter

SPEC = "spec.json"
ABOUT = "about.json"
PARAMS = "params"
CONVERTERS = "converters"
DAYS = "days"
CONTROL = "control"
TOKEN_CONVERTERS = ("lob-volume", "order-interval", "order-volume", "pred-order-volume", "price-level")
"""What order tokens are made with; published models have converters of further quantities."""
_FORMAT = "marsjax checkpoint 2"
# Without a manifest; spec.json has size and CRC-32 of the files of the parameters.
_OLDER = "marsjax checkpoint 1"
# Left out of spec.json where they have these values, so that older versions read what they can simulate.
_LEFT_OUT = {"whole_cancels": False, "signals": False, "pair_width": 0, "mixer": "attention"}
# Weights of zeros compress well, so that a small checkpoint may hold less than its arrays.
_MOST_RATIO, _HARMLESS = 64, 2**28


@dataclasses.dataclass(frozen=True, eq=False)
class Checkpoint:
    """What a folder holds."""

    model: OrderModel
    converters: dict[str, Converter]
    """By the names of `bins.NAMES`, or just `TOKEN_CONVERTERS`; empty if the checkpoint has none."""
    about: dict[str, Any]


class _Record(NamedTuple):
    """What spec.json says."""

    spec: ModelSpec
    dtype: str
    converters: list[str]
    crcs: dict[str, Any]
    """Of a folder without a manifest: size and CRC-32 of every file of the parameters."""


def save(folder: str | os.PathLike[str], model: OrderModel, converters: Mapping[str, Converter],
         about: Mapping[str, Any]) -> None:
    """Writes a checkpoint as a new folder, which appears only when it is whole.

    Args:
      folder: to make; its parents are made too.
      model: its arrays lie on the host, or on devices in any sharding.
      converters: all of `bins.NAMES`, just `TOKEN_CONVERTERS`, or none.
      about: what JSON can hold.

    Raises:
      FileExistsError: there is something at `folder`.
      InputError: weights or converters do not fit the model's spec.

    Examples:
      >>> import pathlib
      >>> import tempfile
      >>> from marsjax import load_order_model, testing
      >>> model = testing.tiny_model()
      >>> folder = pathlib.Path(tempfile.mkdtemp()) / "mine"
      >>> save(folder, model.model, model.converters, model.about)
      >>> load_order_model(folder).spec == model.spec
      True
    """
    target = pathlib.Path(os.path.abspath(folder))
    if target.exists() or target.is_symlink():
        raise FileExistsError(f"{target} exists; name another folder for the checkpoint")
    hidden = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
    hidden.mkdir(parents=True)
    try:
        write(hidden, model, converters, about)
        hidden.rename(target)
    finally:
        shutil.rmtree(hidden, ignore_errors=True)


def write(folder: pathlib.Path, model: OrderModel, converters: Mapping[str, Converter], about: Mapping[str, Any]
          ) -> None:
    """Writes the parts of a checkpoint into a folder that is there; for the rest see `save`."""
    spec, weights = model.spec, model.weights()
    dtype = str(jnp.dtype(weights["norm"].dtype))
    found, expected = _described(weights), _described(safetensors_layout.abstract(spec, dtype))
    wrong = sorted(name for name, shape in found.items() ^ expected.items())
    if wrong:
        raise InputError(f"weights.{wrong[0]}: the spec asks for {expected.get(wrong[0])}, got {found.get(wrong[0])}")
    check_converters(spec, converters)
    _write_json(folder / ABOUT, about)
    if converters:
        (folder / CONVERTERS).mkdir()
    for name, converter in converters.items():
        converter_files.save(folder / CONVERTERS / f"{name}.npz", converter)
    import orbax.checkpoint as ocp  # here, since importing it takes long

    # Weights compress by a tenth, and that takes as long as writing them; older Orbax knows no other way.
    option = "use_compression"
    raw = {option: False} if option in inspect.signature(ocp.PyTreeCheckpointHandler).parameters else {}
    path = folder.absolute() / PARAMS
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler(**raw)) as checkpointer:
        checkpointer.save(path, args=ocp.args.PyTreeSave(_nested(weights)))
    sizes = {**_listed(spec), "tokens": _listed(spec.tokens)}
    _write_json(folder / SPEC, {"format": _FORMAT, "model": sizes, "dtype": dtype, CONVERTERS: sorted(converters)})
    seal(folder)


def seal(folder: str | os.PathLike[str]) -> None:
    """Writes the manifest of a checkpoint, with the hashes that its files have now."""
    manifest.write(pathlib.Path(folder), (SPEC, ABOUT, PARAMS, CONVERTERS, DAYS, CONTROL))


def restore(folder: str | os.PathLike[str],
            sharding: jax.sharding.Sharding | Mapping[str, jax.sharding.Sharding] | None = None) -> Checkpoint:
    """Reads a checkpoint, whatever devices it was written on.

    Args:
      folder: that `save` wrote.
      sharding: of every weight, or a sharding for each by its name; by default all lie on one device.

    Raises:
      FileNotFoundError: no checkpoint there, or a part of it is missing.
      InputError: a part is broken, or the arrays do not fit the spec.
    """
    path = pathlib.Path(os.path.abspath(folder))
    if not (path / SPEC).is_file():
        raise FileNotFoundError(f"{path}: no checkpoint of marsjax, which has a file {SPEC}")
    listed = manifest.check(path) if (path / manifest.NAME).exists() else None
    record = _read_spec(path / SPEC, has_manifest=listed is not None)
    parts = {name: f"{CONVERTERS}/{name}.npz" for name in record.converters}
    for part in (ABOUT, PARAMS, *parts.values()):
        if not (path / part).exists():
            raise FileNotFoundError(f"{path}: incomplete checkpoint: {part} is missing")
        if listed is not None and part not in (PARAMS, *listed):
            raise InputError(f"{path / manifest.NAME}: expected the hash of {part} too, which {SPEC} asks for")
    about = files.read_json(path / ABOUT)
    converters = {name: converter_files.load(path / part) for name, part in parts.items()}
    try:
        check_converters(record.spec, converters)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None
    weights = _restore_weights(path / PARAMS, record, sharding)
    return Checkpoint(OrderModel(record.spec, weights), converters, about)


def is_checkpoint(folder: pathlib.Path) -> bool:
    """Whether a folder is meant to be a checkpoint of marsjax, be it whole or not."""
    return (folder / SPEC).is_file() or (folder / manifest.NAME).is_file()


def check_converters(spec: ModelSpec, converters: Mapping[str, Converter]) -> None:
    """Raises InputError where converters are given and do not have the bins of the spec, or some are missing."""
    if converters:
        missing = sorted(set(bins.NAMES) ^ set(converters))
        if missing and set(converters) != set(TOKEN_CONVERTERS):
            raise InputError(f"converters: expected {', '.join(bins.NAMES)}; missing or unknown: {', '.join(missing)}")
        encoding.tables(spec.tokens, converters)
        encoding.draw_tables(spec.tokens, converters)


def _restore_weights(path: pathlib.Path, record: _Record,
                     sharding: jax.sharding.Sharding | Mapping[str, jax.sharding.Sharding] | None
                     ) -> dict[str, Array]:
    """The weights by their names."""
    import orbax.checkpoint as ocp  # here, since importing it takes long

    for name, checksum in record.crcs.items():
        if not (path / name).is_file():
            raise FileNotFoundError(f"{path.parent}: incomplete checkpoint: {PARAMS}/{name} is missing")
        if _checksum(path / name) != checksum:
            raise InputError(f"{path / name}: cut off or changed: expected size and CRC-32 {brief(checksum)}, got "
                             f"{_checksum(path / name)}")
    if sharding is None:
        sharding = jax.sharding.SingleDeviceSharding(next(iter(jnp.zeros(()).devices())))
    shapes = safetensors_layout.abstract(record.spec, record.dtype)
    places = dict.fromkeys(shapes, sharding) if isinstance(sharding, jax.sharding.Sharding) else sharding
    target = {name: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=places[name]) for name, x in shapes.items()}
    asked = sum(math.prod(x.shape) * x.dtype.itemsize for x in target.values())
    held = sum(file.stat().st_size for file in path.rglob("*") if file.is_file())
    if asked > max(_HARMLESS, _MOST_RATIO * held):
        raise InputError(f"{path}: {SPEC} asks for {asked} bytes of parameters, here are {held}")
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            stored, expected = _described(_flat(checkpointer.metadata(path).item_metadata.tree)), _described(target)
            wrong = sorted(name for name, shape in (stored.items() ^ expected.items()))
            if wrong:
                raise InputError(f"{path}: {wrong[0]}: {SPEC} asks for {expected.get(wrong[0])}, stored is "
                                 f"{stored.get(wrong[0])}")
            return _flat(checkpointer.restore(path, _nested(target)))
    except InputError:
        raise
    except (ValueError, TypeError, KeyError, AttributeError, OSError) as error:  # whatever Orbax makes of damage
        raise InputError(f"{path}: Orbax cannot read these parameters: {brief(error, 160)}") from error


def _described(arrays: Mapping[str, Any]) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and dtype of every array by its name."""
    return {name: (tuple(x.shape), str(x.dtype)) for name, x in arrays.items()}


def _flat(tree: Any) -> dict[str, Any]:
    """Arrays of dictionaries of dictionaries by names with points."""
    return {jax.tree_util.keystr(path, simple=True, separator="."): x for path, x in jax.tree.leaves_with_path(tree)}


def _checksum(path: pathlib.Path) -> str:
    crc = 0
    with path.open("rb") as file:
        while block := file.read(2**24):
            crc = zlib.crc32(block, crc)
    return f"{path.stat().st_size}:{crc:08x}"


def _nested(arrays: Mapping[str, Any]) -> dict[str, Any]:
    """Arrays by names with points as dictionaries of dictionaries, the form that checkpoints have on disk."""
    tree: dict[str, Any] = {}
    for name, x in arrays.items():
        *above, last = name.split(".")
        place = tree
        for part in above:
            place = place.setdefault(part, {})
        place[last] = x
    return tree


def _read_spec(path: pathlib.Path, has_manifest: bool) -> _Record:
    record = files.read_json(path)
    if record.get("format") not in (_FORMAT, _OLDER):
        raise InputError(f"{path}: format: expected {_FORMAT!r}, got {brief(record.get('format'))}")
    if record["format"] == _FORMAT and not has_manifest:
        raise FileNotFoundError(f"{path.parent}: incomplete checkpoint: {manifest.NAME} is missing")
    sizes = _keys(path, "model", record.get("model"), ModelSpec)
    bins_of = _keys(path, "model.tokens", sizes["tokens"], TokenSpec)
    dtype, names, crcs = record.get("dtype"), record.get(CONVERTERS), record.get("files", {})
    known: tuple[set[str], ...] = ({*bins.NAMES}, {*TOKEN_CONVERTERS}, set())
    if dtype not in safetensors_layout.DTYPES or not isinstance(names, list) or set(map(str, names)) not in known or (
            not isinstance(crcs, dict)):
        raise InputError(f"{path}: dtype, {CONVERTERS}, files: expected {' or '.join(safetensors_layout.DTYPES)}, a "
                         f"list of names and an object; got {brief(dtype)}, {brief(names)} and {brief(crcs)}")
    order = [name for name in (bins.NAMES if len(names) > len(TOKEN_CONVERTERS) else TOKEN_CONVERTERS) if name in names]
    try:
        return _Record(ModelSpec(**{**sizes, "tokens": TokenSpec(**bins_of)}), dtype, order, crcs)
    except ValueError as error:
        raise InputError(f"{path}: {error}") from None


def _listed(spec: ModelSpec | TokenSpec) -> dict[str, Any]:
    """Its fields, but for those that may be left out."""
    return {name: value for name, value in dataclasses.asdict(spec).items()
            if name not in _LEFT_OUT or value != _LEFT_OUT[name]}


def _keys(path: pathlib.Path, key: str, value: Any, kind: type) -> dict[str, Any]:
    """A dictionary that has the fields of a record, but for those that may be left out, and no others."""
    fields = {field.name for field in dataclasses.fields(kind)}
    optional = fields & set(_LEFT_OUT)
    if not isinstance(value, dict) or not fields - optional <= set(value) <= fields:
        got = ", ".join(sorted(value)) if isinstance(value, dict) else value
        perhaps = f" and perhaps {', '.join(sorted(optional))}" if optional else ""
        raise InputError(f"{path}: {key}: expected the keys {', '.join(sorted(fields - optional))}{perhaps}, got "
                         f"{brief(got, 120)}")
    return value


def _write_json(path: pathlib.Path, record: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
