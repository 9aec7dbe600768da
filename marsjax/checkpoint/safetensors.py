"""The reference's checkpoints: `config.json` and `model.safetensors` (or shards) <-> a model of NumPy arrays.

`tensors` is the one table that says which weight of the model each tensor of the file is; reading and writing both
walk it. Reference: order model.
"""

import dataclasses
import functools
import json
import pathlib
import re
from collections.abc import Collection, Iterator, Mapping

import jax
import jax.numpy as jnp
import numpy as np
import safetensors.numpy

from marsjax.checkpoint import tensor_files
from marsjax.checkpoint.tensor_files import WEIGHTS, Stored, TensorFiles
from marsjax.core import files
from marsjax.core.errors import InputError, brief
from marsjax.core.records import Array
from marsjax.core.specs import ModelSpec, TokenSpec
from marsjax.model import layers, llama, row_head
from marsjax.model.llama import OrderModel
from marsjax.model.row_head import RowHead

CONFIG = "config.json"
DTYPES = ("float32", "bfloat16")
"""What parameters can be kept in."""
_SIZES = {"emb_dim": "ModelSpec.embed_dim", "num_layers": "ModelSpec.layers", "num_heads": "ModelSpec.heads",
          "num_max_orders": "ModelSpec.context_length", "num_bins_price_level": "TokenSpec.price_levels",
          "num_bins_pred_order_volume": "TokenSpec.volumes", "num_bins_order_interval": "TokenSpec.intervals"}
# What libraries add to the file about themselves; nothing of it changes the model.
_DESCRIPTIONS = {"architectures", "auto_map", "model_type", "torch_dtype", "dtype", "transformers_version",
                 "library_name", "license", "tags", "pipeline_tag", "language", "repo_url", "docs_url", "paper_url"}
_TOKENIZER = "order_info_tokenizer"
_TABLES = {"emb_order_type.weight": "kind", "emb_price_level.weight": "price", "emb_pred_order_volume.weight": "volume",
           "emb_order_interval.weight": "interval", "emb_chg_to_open.weight": "change",
           "emb_time_to_open.weight": "time", "lob_tokenizer.0.weight": "levels",
           "lob_tokenizer.1.weight": "levels_scale", "lob_tokenizer.0.bias": "levels_bias",
           "lob_tokenizer.1.bias": "levels_shift"}
_RATIOS = {"embedding.volume_ratio": f"{_TOKENIZER}.emb_volume_ratio.weight",
           "embedding.trade_ratio": f"{_TOKENIZER}.emb_trans_ratio.weight"}
_SIGNALS = "emb_signals.weight"  # of `TokenSpec.signals`, a linear map [d, 7] as a Linear of PyTorch stores it
# Words in a table's name that tell feature 2 (what share of the order traded) from feature 1.
_TRADE_WORDS = ("trans", "trade", "traded", "fill", "exec", "deal")
_OURS = {"marsjax": "ratio_embeddings"}  # in the file's metadata: the names above mean what they say
_WHOLE_CANCELS = {"marsjax_cancels": "whole"}  # likewise: `ModelSpec.whole_cancels`
# What old versions of transformers store of the rotation: it is computed from the sizes, and nothing is learnt in it.
_ROTARY = re.compile(r"(.*\.)?rotary_emb\.(inv_freq|cos_cached|sin_cached)")
_LISTED = 8
_ROWS = 16
_KINDS = ("F32", "F16", "BF16")


@dataclasses.dataclass(frozen=True, eq=False)
class Imported:
    """What `read` found in a folder."""

    where: pathlib.Path
    """The file of the tensors, or the index of their shards."""
    files: tuple[pathlib.Path, ...]
    """All that was read."""
    model: OrderModel
    """Of NumPy arrays; without the tables below unless the file says which is which."""
    dropout: float
    used: tuple[str, ...]
    """Tensors that became parameters."""
    unused: tuple[str, ...]
    """Tensors that the reference stores and never reads, and those that are computed from the sizes."""
    described: tuple[str, ...]
    """Keys of the config that say nothing about the model's sizes."""
    ratio_tables: dict[str, np.ndarray]
    """Two tables [11, d] of unknown use, or none: first the one more likely of feature 1, then that of feature 2."""
    ratio_by_name: bool
    """Whether their names tell which is which; if not, they are in alphabetical order."""

    def variant(self, name: str) -> OrderModel:
        """The model that leaves the two tables out (`ignore`) or adds them: `sum`, or `swapped` between features."""
        if name == "ignore":
            return self.model
        first, second = self.ratio_tables.values() if name == "sum" else reversed(self.ratio_tables.values())
        tables = {"embedding.volume_ratio": first, "embedding.trade_ratio": second}
        return OrderModel(dataclasses.replace(self.model.spec, ratio_embeddings=True),
                          {**self.model.weights(), **tables})


def abstract(spec: ModelSpec, dtype: str = "float32") -> dict[str, jax.ShapeDtypeStruct]:
    """Shape and dtype of every weight that a spec asks for, by its name. InputError for a dtype not in `DTYPES`."""
    if dtype not in DTYPES:
        raise InputError(f"dtype: expected {' or '.join(DTYPES)}, got {dtype!r}")
    return {name: jax.ShapeDtypeStruct(shape, jnp.dtype(dtype)) for name, shape in llama.shapes(spec).items()}


def read_config(path: pathlib.Path, ignored: Collection[str] = ()) -> tuple[ModelSpec, float, tuple[str, ...]]:
    """A published `config.json` -> spec, dropout, and the keys that only describe (those in `ignored` among them).

    InputError names the file, the key, its value and what was expected; OSError if it cannot be read.
    """
    config = files.read_json(path)
    missing = sorted((set(_SIZES) | {"dropout"}) - set(config))
    if missing:
        found = ", ".join(brief(key)[1:-1] for key in sorted(config)[:_LISTED]) or "none"
        raise InputError(f"{path}: expected the keys {', '.join(missing)}, found {found}")
    described = sorted(set(config) - set(_SIZES) - {"dropout"})
    unknown = sorted(set(described) - _DESCRIPTIONS - {ignored if isinstance(ignored, str) else "", *ignored})
    if unknown:
        first, also = unknown[0], f", and {len(unknown) - 1} more" if unknown[1:] else ""
        names = ",".join(unknown)
        raise InputError(f"{path}: {first}={brief(config[first], 40)}{also}: unknown key; expected "
                         f"{', '.join(sorted(_SIZES))}, dropout. If it does not change the model, name it in "
                         f"ignore_keys (of a program: --config.ignore_keys={brief(names, 60)[1:-1]})")
    for key in _SIZES:
        if type(config[key]) is not int:
            raise InputError(f"{path}: {key}: expected an integer, got {brief(config[key])}")
    dropout = config["dropout"]
    if type(dropout) not in (int, float) or not 0 <= dropout < 1:
        raise InputError(f"{path}: dropout: expected a number from 0 to below 1, got {brief(dropout)}")
    try:
        width, layers, heads, context_length, *bins = (config[key] for key in _SIZES)
        spec = ModelSpec(width, layers, heads, context_length, TokenSpec(*bins))
    except ValueError as error:
        message = functools.reduce(lambda text, item: text.replace(item[1], item[0]), _SIZES.items(), str(error))
        raise InputError(f"{path}: {message}") from None
    return spec, float(dropout), tuple(described)


def tensors(spec: ModelSpec, weights: Mapping[str, Array]) -> Iterator[tuple[str, np.ndarray]]:
    """(name, view) of every tensor that is used: a view of the NumPy arrays in `weights`, turned as in the file.

    Also of those tables of `ratio_embeddings` that `weights` holds, under the names that `write` gives them.
    """
    of, width = {name: np.asarray(x) for name, x in weights.items()}, spec.embed_dim
    for name, field in _TABLES.items():
        yield f"{_TOKENIZER}.{name}", of[f"embedding.{field}"].T if field == "levels" else of[f"embedding.{field}"]
    yield from ((name, of[field]) for field, name in _RATIOS.items() if field in of)
    if spec.tokens.signals:
        yield f"{_TOKENIZER}.{_SIGNALS}", of["embedding.signals"].T
    qkv = np.reshape(of["layers.qkv"], (spec.layers, width, 3, width))
    out = np.reshape(of["layers.out"], (spec.layers, width, width))
    gate_up, down = of["layers.gate_up"], of["layers.down"]
    for i in range(spec.layers):
        found = {"input_layernorm": of["layers.attention_norm"][i],
                 "post_attention_layernorm": of["layers.mlp_norm"][i],
                 "self_attn.q_proj": qkv[i, :, 0].T, "self_attn.k_proj": qkv[i, :, 1].T,
                 "self_attn.v_proj": qkv[i, :, 2].T, "self_attn.o_proj": out[i].T, "mlp.gate_proj": gate_up[i, :, 0].T,
                 "mlp.up_proj": gate_up[i, :, 1].T, "mlp.down_proj": down[i].T}
        yield from ((f"decoder.model.layers.{i}.{name}.weight", np.asarray(x)) for name, x in found.items())
    yield "decoder.model.norm.weight", of["norm"]
    yield "decoder.lm_head.weight", of["head"].T


def unused_tensors(spec: ModelSpec) -> dict[str, tuple[int, ...]]:
    """Names and shapes of what the reference stores and never reads."""
    classes, width = spec.tokens.classes, spec.embed_dim
    return {"decoder.model.embed_tokens.weight": (classes, width), "linear_head.0.weight": (width,),
            "linear_head.0.bias": (width,), "linear_head.1.weight": (classes, width), "linear_head.1.bias": (classes,)}


def read(folder: pathlib.Path, dtype: str = "float32", ignore_keys: Collection[str] = ()) -> Imported:
    """A published model. Tensors are read one by one into arrays of the final layout.

    Args:
      folder: with `config.json`, and `model.safetensors` or its shards and their index (float32, float16 or bfloat16).
      dtype: of the parameters, float32 or bfloat16.
      ignore_keys: unknown keys of the config to pass over.

    Raises:
      FileNotFoundError: one of the files is missing.
      InputError: a file is broken or no such file, or they do not fit: says how many tensors are missing, unexpected
        or of another shape, and names the first of them.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f"{folder}: no such folder; expected one with {CONFIG} and {WEIGHTS}")
    if not (folder / CONFIG).exists():
        raise FileNotFoundError(f"{folder}: no file {CONFIG}; expected {CONFIG} and {WEIGHTS}")
    parts = tensor_files.of_folder(folder)
    spec, dropout, described = read_config(folder / CONFIG, ignore_keys)
    with tensor_files.opened(folder) as source:
        if source.metadata.items() >= _OURS.items() and set(_RATIOS.values()) <= set(source.kinds):
            spec = dataclasses.replace(spec, ratio_embeddings=True)
        if source.metadata.items() >= _WHOLE_CANCELS.items():
            spec = dataclasses.replace(spec, whole_cancels=True)
        if f"{_TOKENIZER}.{_SIGNALS}" in source.kinds:
            spec = dataclasses.replace(spec, tokens=dataclasses.replace(spec.tokens, signals=True))
        shapes = abstract(spec, dtype)
        ratios, by_name = _accounted(source, spec, shapes)
        weights = {name: np.empty(x.shape, x.dtype) for name, x in shapes.items()}
        used = tuple(_fill(source, spec, weights))
        tables = {name: source.read(name).astype(jnp.dtype(dtype)) for name in ratios}
    unused = tuple(name for name in unused_tensors(spec) if name in source.kinds)
    unused += tuple(sorted(filter(_ROTARY.fullmatch, source.kinds)))
    return Imported(source.where, (folder / CONFIG, *parts), OrderModel(spec, weights), dropout, used, unused,
                    described, tables, by_name)


def _accounted(source: TensorFiles, spec: ModelSpec, shapes: Mapping[str, jax.ShapeDtypeStruct]
               ) -> tuple[list[str], bool]:
    """Checks that every tensor has its use; the names of the two tables of unknown use, if they are there.

    Also whether their names tell them apart. InputError names all tensors that are missing, unexpected or misshapen.
    """
    found: dict[str, Stored] = source.kinds
    # One number, seen in every shape that is needed, stands for the arrays that are not there yet.
    hollow = {name: np.broadcast_to(np.zeros((), x.dtype), x.shape) for name, x in shapes.items()}
    expected = {name: view.shape for name, view in tensors(spec, hollow)}
    known = expected | unused_tensors(spec)
    unexpected = {name for name in found if name not in known and not _ROTARY.fullmatch(name)}
    ratios = sorted(name for name in unexpected
                    if name.startswith(f"{_TOKENIZER}.") and found[name].shape == (layers.RATIO_ROWS, spec.embed_dim))
    if len(ratios) == 2 and not spec.ratio_embeddings:
        unexpected -= set(ratios)
    else:
        ratios = []
    wrong = [f"{name} is missing" for name in expected if name not in found]
    wrong += [f"{brief(name)[1:-1]} {list(found[name].shape)} is unexpected" for name in sorted(unexpected)]
    wrong += [f"{name} is {list(found[name].shape)}, expected {list(shape)}" for name, shape in known.items()
              if name in found and found[name].shape != shape]
    wrong += [f"{name} is {found[name].dtype}, expected {', '.join(_KINDS)}" for name in [*expected, *ratios]
              if name in found and found[name].dtype not in _KINDS]
    if wrong:
        more = [f"and {len(wrong) - _LISTED} more"] if len(wrong) > _LISTED else []
        raise InputError(f"{source.where}: {len(wrong)} tensors do not fit {CONFIG}: "
                         f"{'; '.join(wrong[:_LISTED] + more)}")
    trades = [any(word in name.lower() for word in _TRADE_WORDS) for name in ratios]
    return sorted(ratios, key=lambda name: trades[ratios.index(name)]), sum(trades) == 1


def _fill(source: TensorFiles, spec: ModelSpec, weights: Mapping[str, np.ndarray]) -> Iterator[str]:
    """Copies every tensor into its place in the arrays of `weights`."""
    for name, place in tensors(spec, weights):
        tensor = source.read(name)
        # Most are turned on the way, which is faster a few rows at a time: these stay in the processor's cache.
        for start in range(0, len(tensor), _ROWS):
            place[start : start + _ROWS] = tensor[start : start + _ROWS]
        yield name


def write(folder: pathlib.Path, model: OrderModel, dropout: float = 0.0) -> None:
    """Writes `config.json` and `model.safetensors` (float32) into a folder, as the reference's class reads them.

    What the reference stores and never reads is zeros, with a scale of ones. The tables of a model with
    `ratio_embeddings` go under names of our own, which the class at the reference's commit does not have.
    So does the map of signals.
    `whole_cancels` stands in the file's metadata, which `read` looks at and the reference's class does not.
    InputError for a model with linear attention, which the reference's class does not have.
    """
    spec, weights = model.spec, model.weights()
    if spec.mixer != "attention":
        raise InputError(f"{folder}: the reference's layout has no model with mixer={spec.mixer}; save a checkpoint of "
                         "marsjax")
    if isinstance(model.head, RowHead):  # the layout has a row for each class
        weights["head"] = row_head.joint(model.head.tables())
    config = {"emb_dim": spec.embed_dim, "num_layers": spec.layers, "num_heads": spec.heads,
              "num_max_orders": spec.context_length, "num_bins_price_level": spec.tokens.price_levels,
              "num_bins_pred_order_volume": spec.tokens.volumes, "num_bins_order_interval": spec.tokens.intervals,
              "dropout": dropout}
    (folder / CONFIG).write_text(json.dumps(config, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    found = {name: np.ascontiguousarray(view, np.float32) for name, view in tensors(spec, weights)}
    found |= {name: np.zeros(shape, np.float32) for name, shape in unused_tensors(spec).items()}
    found["linear_head.0.weight"][...] = 1
    metadata = {"format": "pt"} | (_OURS if spec.ratio_embeddings else {})
    metadata |= _WHOLE_CANCELS if spec.whole_cancels else {}
    safetensors.numpy.save_file(dict(sorted(found.items())), folder / WEIGHTS, metadata)
