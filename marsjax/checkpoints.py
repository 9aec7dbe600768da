"""Checkpoints of marsjax: a folder with the parameters (Orbax), their spec, the bin converters, and their origin.

    spec.json       sizes of the model and of its tokens
    about.json      source, revision, hashes, report of an import: whatever the writer had to say
    params/         Orbax, readable on other devices and meshes than it was written on
    converters/     one .npz a quantity (`bins.save`), where there are any
"""

import dataclasses
import inspect
import json
import os
import pathlib
import shutil
import uuid
import zlib
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import orbax.checkpoint as ocp

from marsjax import bins, safetensors_layout, tokens
from marsjax.bins import Converter
from marsjax.model import Embedding, Layers, Params
from marsjax.specs import ModelSpec, TokenSpec

SPEC = "spec.json"
ABOUT = "about.json"
PARAMS = "params"
CONVERTERS = "converters"
TOKEN_CONVERTERS = ("lob-volume", "order-interval", "order-volume", "pred-order-volume", "price-level")
"""What order tokens are made with; published models have converters of further quantities."""
_FORMAT = "marsjax checkpoint 1"
# Weights compress by a tenth, and that takes as long as writing them; older Orbax knows no other way.
_OPTION = "use_compression"
_UNCOMPRESSED = {_OPTION: False} if _OPTION in inspect.signature(ocp.PyTreeCheckpointHandler).parameters else {}


@dataclasses.dataclass(frozen=True, eq=False)
class Checkpoint:
    """What a folder holds."""

    spec: ModelSpec
    params: Params
    converters: dict[str, Converter]
    """By the names of `bins.NAMES`, or just `TOKEN_CONVERTERS`; empty if the checkpoint has none."""
    about: dict[str, Any]


class _Record(NamedTuple):
    """What spec.json says."""

    spec: ModelSpec
    dtype: str
    converters: list[str]
    files: dict[str, str]
    """Size and CRC-32 of every file of the parameters: Orbax itself does not see every damage."""


def save(folder: str | os.PathLike[str], spec: ModelSpec, params: Params, converters: Mapping[str, Converter],
         about: Mapping[str, Any]) -> None:
    """Writes a checkpoint as a new folder, which appears only when it is whole.

    Args:
      folder: to make; its parents are made too.
      spec: of the model.
      params: arrays on the host, or on devices in any sharding.
      converters: all of `bins.NAMES`, just `TOKEN_CONVERTERS`, or none.
      about: what JSON can hold.

    Raises:
      FileExistsError: there is something at `folder`.
      ValueError: arrays or converters do not fit the spec.
    """
    target = pathlib.Path(os.path.abspath(folder))
    if target.exists() or target.is_symlink():
        raise FileExistsError(f"{target} exists; name another folder for the checkpoint")
    hidden = target.with_name(f".{target.name}.{uuid.uuid4().hex[:8]}")
    hidden.mkdir(parents=True)
    try:
        write(hidden, spec, params, converters, about)
        hidden.rename(target)
    finally:
        shutil.rmtree(hidden, ignore_errors=True)


def write(folder: pathlib.Path, spec: ModelSpec, params: Params, converters: Mapping[str, Converter],
          about: Mapping[str, Any]) -> None:
    """Writes the parts of a checkpoint into a folder that is there; for the rest see `save`."""
    dtype = str(jnp.dtype(params.head.dtype))
    found, expected = _shapes(params), _shapes(safetensors_layout.abstract(spec, dtype))
    wrong = sorted(name for name, shape in found.items() ^ expected.items())
    if wrong:
        raise ValueError(f"params.{wrong[0]}: the spec asks for {expected.get(wrong[0])}, got {found.get(wrong[0])}")
    check_converters(spec, converters)
    _write_json(folder / ABOUT, about)
    if converters:
        (folder / CONVERTERS).mkdir()
    for name, converter in converters.items():
        bins.save(folder / CONVERTERS / f"{name}.npz", converter)
    path = folder.absolute() / PARAMS
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler(**_UNCOMPRESSED)) as checkpointer:
        checkpointer.save(path, args=ocp.args.PyTreeSave(_as_tree(params)))
    files = {file.relative_to(path).as_posix(): _checksum(file) for file in sorted(path.rglob("*")) if file.is_file()}
    _write_json(folder / SPEC, {"format": _FORMAT, "model": dataclasses.asdict(spec), "dtype": dtype,
                                CONVERTERS: sorted(converters), "files": files})


def restore(folder: str | os.PathLike[str], sharding: jax.sharding.Sharding | Params | None = None) -> Checkpoint:
    """Reads a checkpoint, whatever devices it was written on.

    Args:
      folder: that `save` wrote.
      sharding: of every parameter, or a `Params` of shardings; by default all lie on one device.

    Raises:
      FileNotFoundError: no checkpoint there, or a part of it is missing.
      ValueError: a part is broken, or the arrays do not fit the spec.
    """
    path = pathlib.Path(os.path.abspath(folder))
    if not (path / SPEC).is_file():
        raise FileNotFoundError(f"{path}: no checkpoint of marsjax, which has a file {SPEC}")
    record = _read_spec(path / SPEC)
    for part in (ABOUT, PARAMS, *([CONVERTERS] if record.converters else [])):
        if not (path / part).exists():
            raise FileNotFoundError(f"{path}: incomplete checkpoint: {part} is missing")
    about = safetensors_layout.read_json(path / ABOUT)
    converters = _read_converters(path / CONVERTERS, record.converters) if record.converters else {}
    try:
        check_converters(record.spec, converters)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return Checkpoint(record.spec, _restore_params(path / PARAMS, record, sharding), converters, about)


def check_converters(spec: ModelSpec, converters: Mapping[str, Converter]) -> None:
    """Raises ValueError where converters are given and do not have the bins of the spec, or some are missing."""
    if converters:
        missing = sorted(set(bins.NAMES) ^ set(converters))
        if missing and set(converters) != set(TOKEN_CONVERTERS):
            raise ValueError(f"converters: expected {', '.join(bins.NAMES)}; missing or unknown: {', '.join(missing)}")
        tokens.tables(spec.tokens, converters)
        tokens.draw_tables(spec.tokens, converters)


def _read_converters(path: pathlib.Path, names: list[str]) -> dict[str, Converter]:
    if names == list(TOKEN_CONVERTERS):
        return {name: bins.load(path / f"{name}.npz") for name in TOKEN_CONVERTERS}
    return bins.read_folder(path)


def _restore_params(path: pathlib.Path, record: _Record, sharding: jax.sharding.Sharding | Params | None) -> Params:
    for name, checksum in record.files.items():
        if not (path / name).is_file():
            raise FileNotFoundError(f"{path.parent}: incomplete checkpoint: {PARAMS}/{name} is missing")
        if _checksum(path / name) != checksum:
            raise ValueError(f"{path / name}: cut off or changed: expected size and CRC-32 {checksum}, got "
                             f"{_checksum(path / name)}")
    if sharding is None:
        sharding = jax.sharding.SingleDeviceSharding(next(iter(jnp.zeros(()).devices())))
    shapes = safetensors_layout.abstract(record.spec, record.dtype)
    if isinstance(sharding, jax.sharding.Sharding):
        sharding = jax.tree.map(lambda _: sharding, shapes)
    target = _as_tree(jax.tree.map(lambda x, at: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=at), shapes, sharding))
    with ocp.StandardCheckpointer() as checkpointer:
        stored = _shapes(checkpointer.metadata(path).item_metadata.tree)
        wrong = sorted(name for name, shape in (stored.items() ^ _shapes(target).items()))
        if wrong:
            raise ValueError(f"{path}: {wrong[0]}: {SPEC} asks for {_shapes(target).get(wrong[0])}, stored is "
                             f"{stored.get(wrong[0])}")
        tree = checkpointer.restore(path, target)
    return Params(Embedding(**tree["embedding"]), Layers(**tree["layers"]), tree["norm"], tree["head"])


def _shapes(tree: Any) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and dtype of every array by its path."""
    return {jax.tree_util.keystr(path, simple=True, separator="."): (tuple(x.shape), str(x.dtype))
            for path, x in jax.tree.leaves_with_path(tree)}


def _checksum(path: pathlib.Path) -> str:
    crc = 0
    with path.open("rb") as file:
        while block := file.read(2**24):
            crc = zlib.crc32(block, crc)
    return f"{path.stat().st_size}:{crc:08x}"


def _as_tree(record: Any) -> Any:
    """A record of records as dictionaries, without what is None: a form that Orbax keeps from version to version."""
    if not dataclasses.is_dataclass(record):
        return record
    fields = {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}
    return {name: _as_tree(value) for name, value in fields.items() if value is not None}


def _read_spec(path: pathlib.Path) -> _Record:
    record = safetensors_layout.read_json(path)
    if record.get("format") != _FORMAT:
        raise ValueError(f"{path}: format: expected {_FORMAT!r}, got {record.get('format')!r:.80}")
    sizes = _keys(path, "model", record.get("model"), ModelSpec)
    bins_of = _keys(path, "model.tokens", sizes["tokens"], TokenSpec)
    dtype, names, files = (record.get(key) for key in ("dtype", CONVERTERS, "files"))
    if dtype not in safetensors_layout.DTYPES or not isinstance(names, list) or not isinstance(files, dict):
        raise ValueError(f"{path}: dtype, {CONVERTERS}, files: expected {' or '.join(safetensors_layout.DTYPES)}, a "
                         f"list and an object; got {dtype!r:.80}, {names!r:.80} and {files!r:.80}")
    try:
        return _Record(ModelSpec(**{**sizes, "tokens": TokenSpec(**bins_of)}), dtype, names, files)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def _keys(path: pathlib.Path, key: str, value: Any, kind: type) -> dict[str, Any]:
    """A dictionary that has the fields of a record, and no others."""
    fields = {field.name for field in dataclasses.fields(kind)}
    if not isinstance(value, dict) or set(value) != fields:
        raise ValueError(f"{path}: {key}: expected the keys {', '.join(sorted(fields))}, got {value!r:.200}")
    return value


def _write_json(path: pathlib.Path, record: Mapping[str, Any]) -> None:
    path.write_text(json.dumps(record, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
