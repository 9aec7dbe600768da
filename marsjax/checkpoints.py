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
from collections.abc import Mapping
from typing import Any

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
    """By the names of `bins.NAMES`; empty if the checkpoint has none."""
    about: dict[str, Any]


def save(folder: str | os.PathLike[str], spec: ModelSpec, params: Params, converters: Mapping[str, Converter],
         about: Mapping[str, Any]) -> None:
    """Writes a checkpoint as a new folder, which appears only when it is whole.

    Args:
      folder: to make; its parents are made too.
      spec: of the model.
      params: arrays on the host, or on devices in any sharding.
      converters: all of `bins.NAMES`, or none.
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
    found = {jax.tree_util.keystr(path): (x.shape, str(x.dtype)) for path, x in jax.tree.leaves_with_path(params)}
    expected = {jax.tree_util.keystr(path): (x.shape, str(x.dtype))
                for path, x in jax.tree.leaves_with_path(safetensors_layout.abstract(spec, dtype))}
    wrong = sorted(name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name))
    if wrong:
        raise ValueError(f"params{wrong[0]}: the spec asks for {expected.get(wrong[0])}, got {found.get(wrong[0])}")
    check_converters(spec, converters)
    record = {"format": _FORMAT, "model": dataclasses.asdict(spec), "dtype": dtype, CONVERTERS: sorted(converters)}
    _write_json(folder / SPEC, record)
    _write_json(folder / ABOUT, about)
    if converters:
        (folder / CONVERTERS).mkdir()
    for name, converter in converters.items():
        bins.save(folder / CONVERTERS / f"{name}.npz", converter)
    with ocp.Checkpointer(ocp.PyTreeCheckpointHandler(**_UNCOMPRESSED)) as checkpointer:
        checkpointer.save(folder.absolute() / PARAMS, args=ocp.args.PyTreeSave(_as_tree(params)))


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
    spec, dtype, names = _read_spec(path / SPEC)
    for part in (ABOUT, PARAMS, *([CONVERTERS] if names else [])):
        if not (path / part).exists():
            raise FileNotFoundError(f"{path}: incomplete checkpoint: {part} is missing")
    about = safetensors_layout.read_json(path / ABOUT)
    converters = bins.read_folder(path / CONVERTERS) if names else {}
    try:
        check_converters(spec, converters)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return Checkpoint(spec, _restore_params(path, spec, dtype, sharding), converters, about)


def check_converters(spec: ModelSpec, converters: Mapping[str, Converter]) -> None:
    """Raises ValueError where converters are given and do not have the bins of the spec, or some are missing."""
    if converters:
        missing = sorted(set(bins.NAMES) ^ set(converters))
        if missing:
            raise ValueError(f"converters: expected {', '.join(bins.NAMES)}; missing or unknown: {', '.join(missing)}")
        tokens.tables(spec.tokens, converters)
        tokens.draw_tables(spec.tokens, converters)


def _restore_params(path: pathlib.Path, spec: ModelSpec, dtype: str, sharding: jax.sharding.Sharding | Params | None
                    ) -> Params:
    if sharding is None:
        sharding = jax.sharding.SingleDeviceSharding(next(iter(jnp.zeros(()).devices())))
    shapes = safetensors_layout.abstract(spec, dtype)
    if isinstance(sharding, jax.sharding.Sharding):
        sharding = jax.tree.map(lambda _: sharding, shapes)
    target = jax.tree.map(lambda x, where: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), shapes, sharding)
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            tree = checkpointer.restore(path / PARAMS, _as_tree(target))
    except (ValueError, KeyError, TypeError, OSError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{path / PARAMS}: arrays that are broken or do not fit {SPEC}: {reason:.300}") from error
    return Params(Embedding(**tree["embedding"]), Layers(**tree["layers"]), tree["norm"], tree["head"])


def _as_tree(record: Any) -> Any:
    """A record of records as dictionaries, without what is None: a form that Orbax keeps from version to version."""
    if not dataclasses.is_dataclass(record):
        return record
    fields = {field.name: getattr(record, field.name) for field in dataclasses.fields(record)}
    return {name: _as_tree(value) for name, value in fields.items() if value is not None}


def _read_spec(path: pathlib.Path) -> tuple[ModelSpec, str, list[str]]:
    record = safetensors_layout.read_json(path)
    if record.get("format") != _FORMAT:
        raise ValueError(f"{path}: format: expected {_FORMAT!r}, got {record.get('format')!r:.80}")
    sizes = _keys(path, "model", record.get("model"), ModelSpec)
    bins_of = _keys(path, "model.tokens", sizes["tokens"], TokenSpec)
    dtype, names = record.get("dtype"), record.get(CONVERTERS)
    if dtype not in safetensors_layout.DTYPES or not isinstance(names, list):
        raise ValueError(f"{path}: dtype, {CONVERTERS}: expected {' or '.join(safetensors_layout.DTYPES)}, and a list; "
                         f"got {dtype!r:.80} and {names!r:.80}")
    try:
        return ModelSpec(**{**sizes, "tokens": TokenSpec(**bins_of)}), dtype, names
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
