"""How well a model predicts the published validation samples.

A file of samples is a zstd pickle of a list of (features int32 [T, 15], labels int [...]), whose last label is the next
token; it is read as data, no pickle is run. A CSV beside it may hold label and greedy prediction of the first samples,
as the publishers' model gave them. Reference: order model.
"""

import csv
import dataclasses
import itertools
import pathlib
from collections.abc import Mapping
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np

from marsjax.checkpoint import pickle as safe_pickle
from marsjax.core import files
from marsjax.core.errors import InputError, brief
from marsjax.core.records import Array
from marsjax.core.specs import ModelSpec, TokenSpec
from marsjax.model.llama import OrderModel
from marsjax.tokens import encoding
from marsjax.tokens.bins import Converter

MAX_LEVEL_BINS = 1024
"""Of lob-volume, where no converter says how many there are."""
_BATCH = 16
_MOST_LINE = 2**12
_MOST_BYTES = 2**31


class Loaded(Protocol):
    """What is validated: a model with its bins, as `marsjax.load_order_model` gives it."""

    @property
    def model(self) -> OrderModel:
        """The model."""

    @property
    def converters(self) -> Mapping[str, Converter]:
        """Its bins, or none."""


@dataclasses.dataclass(frozen=True, eq=False)
class Samples:
    """Windows of orders, and what came next."""

    features: np.ndarray
    """int32 [N, T, 15]."""
    labels: np.ndarray
    """int32 [N], the next token."""
    published: np.ndarray
    """int32 [N], greedy predictions as they were published, -1 where they were not."""


@dataclasses.dataclass(frozen=True)
class Scores:
    """How well a model predicts samples."""

    samples: int
    loss: float
    """Nats a token, mean over the samples."""
    top1: float
    """Share of samples whose most likely token is the label."""
    agreement: float | None
    """Share of the samples with a published prediction whose most likely token equals it; None if there are none."""
    compared: int
    """Samples with a published prediction."""


def level_bins(converters: Mapping[str, Converter]) -> int:
    """Bins of lob-volume: the highest number in columns 5 to 14 of the features; a bound where it is not known."""
    return converters["lob-volume"].num_bins if "lob-volume" in converters else MAX_LEVEL_BINS


def validate(loaded: Loaded, folder: str | pathlib.Path, max_samples: int = 0) -> Scores:
    """Scores of a model on the samples in a folder, or on the first `max_samples` (0: all); errors as in `read`."""
    return score(loaded.model, read(folder, loaded.model.spec, level_bins(loaded.converters), max_samples))


def score(model: OrderModel, samples: Samples) -> Scores:
    """Scores on samples that were read."""
    loss, greedy = predict(model, samples)
    known = samples.published >= 0
    agreement = float(np.mean(greedy[known] == samples.published[known])) if known.any() else None
    return Scores(len(loss), float(loss.mean()), float(np.mean(greedy == samples.labels)), agreement, int(known.sum()))


def predict(model: OrderModel, samples: Samples) -> tuple[np.ndarray, np.ndarray]:
    """Loss in nats, float64 [N], and most likely token, int32 [N], of each sample."""
    model, count = jax.device_put(model), len(samples.labels)
    losses, greedy = np.empty(count), np.empty(count, np.int32)
    for start in range(0, count, _BATCH):
        # The last batch is filled up with its last sample, so that there is one compiled shape.
        rows = np.minimum(np.arange(start, start + _BATCH), count - 1)
        found = _predict(model, samples.features[rows], samples.labels[rows])
        losses[rows], greedy[rows] = (np.asarray(x) for x in found)
    return losses, greedy


@jax.jit
def _predict(model: OrderModel, features: Array, labels: Array) -> tuple[jax.Array, jax.Array]:
    scores = jax.nn.log_softmax(model.logits(encoding.from_array(model.spec.tokens, features)))
    chosen = jnp.take_along_axis(scores, labels[:, None], axis=-1)[:, 0]
    return -chosen, jnp.argmax(scores, axis=-1).astype(jnp.int32)


def read(folder: str | pathlib.Path, spec: ModelSpec, most_level: int = MAX_LEVEL_BINS, max_samples: int = 0
         ) -> Samples:
    """The samples of all `.zstd` files in a folder, or its first `max_samples` (0: all).

    Raises FileNotFoundError if there are none; InputError with file, sample and value where one is no sample, or does
    not fit the spec or the CSV beside it.
    """
    files = sorted(pathlib.Path(folder).glob("*.zstd"))
    if not files:
        raise FileNotFoundError(f"{folder}: no .zstd file of validation samples")
    parts: list[Samples] = []
    for file in files:
        left = max_samples - sum(len(part.labels) for part in parts) if max_samples else None
        if left == 0:
            break
        parts.append(_read_file(file, spec, most_level, left))
    lengths = {part.features.shape[1] for part in parts}
    if len(lengths) > 1:
        raise InputError(f"{folder}: expected windows of one length in all files, got {sorted(lengths)}")
    return Samples(*(np.concatenate([getattr(part, field.name) for part in parts])
                     for field in dataclasses.fields(Samples)))


def _read_file(path: pathlib.Path, spec: ModelSpec, most_level: int, most: int | None) -> Samples:
    record = safe_pickle.load_zstd(path, max_bytes=_MOST_BYTES)
    if not isinstance(record, list | tuple) or not record:
        raise InputError(f"{path}: expected a list of samples, got {brief(record)}")
    rows: list[np.ndarray] = []
    labels: list[int] = []
    for i, sample in enumerate(record[:most]):
        if not isinstance(sample, list | tuple) or len(sample) != 2 or not isinstance(sample[0], np.ndarray):
            raise InputError(f"{path}: sample {i}: expected a pair of features and labels, got {brief(sample)}")
        row = sample[0]
        columns = encoding.columns(spec.tokens)
        if row.ndim == 1 and row.size % columns == 0:
            row = row.reshape(-1, columns)
        if row.ndim != 2 or row.shape != (len((rows or [row])[0]), columns) or not (
                0 < len(row) <= spec.context_length):
            raise InputError(f"{path}: sample {i}: expected features of one shape, [1 to {spec.context_length}, "
                             f"{columns}], got {list(sample[0].shape)}")
        try:
            rows.append(check_features(spec, row[None], most_level)[0])
        except ValueError as error:
            raise InputError(f"{path}: {str(error).replace('features[0,', f'features[{i},')}") from None
        labels.append(_last_label(f"{path}: sample {i}", sample[1], spec.tokens))
    features = np.stack(rows)
    found = np.array(labels, np.int32)
    return Samples(features, found, _published(path, found, spec.tokens.classes))


def check_features(spec: ModelSpec, features: np.ndarray, most_level: int) -> np.ndarray:
    """Integers [B, T, C] as int32, with the change since the open clipped as the reference clips it.

    Raises InputError with the place and the value where something else is out of range, or T is above `context_length`.
    """
    features, columns = np.asarray(features), encoding.columns(spec.tokens)
    if features.ndim != 3 or 0 in features.shape or features.dtype.kind not in "iu":
        raise InputError(f"features: expected integers [B, T, {columns}], got {features.dtype} "
                         f"{list(features.shape)}")
    if features.shape[-1] == columns:
        # Columns of 64 bits without a sign would turn round in int64.
        features = np.minimum(features, 2**62).astype(np.int64) if features.dtype.kind == "u" else (
            features.astype(np.int32 if features.dtype == np.int32 else np.int64))
        np.clip(features[..., 3], -encoding.CHANGE_LIMIT, encoding.CHANGE_LIMIT, out=features[..., 3])
    checked = encoding.check_array(spec.tokens, features, most_level)
    if checked.ndim != 3:
        raise InputError(f"features: expected [B, T, {columns}], got {list(features.shape)}")
    if checked.shape[1] > spec.context_length:
        raise InputError(f"features: expected at most context_length={spec.context_length} tokens, got "
                         f"{checked.shape[1]}")
    return checked


def _last_label(where: str, labels: Any, spec: TokenSpec) -> int:
    last = labels.reshape(-1)[-1:].tolist() if isinstance(labels, np.ndarray) else labels
    last = last[-1] if isinstance(last, list) and last else last
    if type(last) is not int or not 0 <= last < spec.classes:
        raise InputError(f"{where}: expected a last label from 0 to {spec.classes - 1}, got {brief(labels)}")
    return last


def _published(path: pathlib.Path, labels: np.ndarray, classes: int) -> np.ndarray:
    """Greedy predictions int32 [N] from the CSV beside a file of samples; -1 past its end, or where there is none."""
    found = np.full(len(labels), -1, np.int32)
    beside = _csv_of(path)
    if beside is None:
        return found
    table = _table(beside, len(labels))
    wrong = np.flatnonzero((table[:, 0] != labels[: len(table)]) | (table[:, 1] < 0) | (table[:, 1] >= classes))
    if wrong.size:
        at = int(wrong[0])
        raise InputError(f"{beside}: row {at + 1} has label {table[at, 0]} and prediction {table[at, 1]}; expected "
                         f"label {labels[at]} of the sample in {path.name}, and a prediction below {classes}")
    found[: len(table)] = table[:, 1]
    return found


def _table(path: pathlib.Path, most: int) -> np.ndarray:
    """The first rows of a CSV of labels and greedy predictions, int64 [at most `most`, 2]."""
    rows = (row for row in csv.reader(files.text_lines(path, _MOST_LINE)) if row)
    table: list[tuple[int, int]] = []
    label_at, greedy_at = 0, 1
    try:
        for number, row in enumerate(itertools.islice(rows, most + 1)):
            if number == 0 and not row[0].strip().isdigit():
                names = [name.strip().lower() for name in row]
                label_at = next((i for i, name in enumerate(names) if "label" in name), 0)
                greedy_at = next((i for i, name in enumerate(names) if "pred" in name or "greedy" in name),
                                 label_at + 1)
            elif len(table) < most:
                table.append((int(row[label_at]), int(row[greedy_at])))
        return np.array(table, np.int64).reshape(-1, 2)
    except InputError:
        raise
    except (ValueError, IndexError, OverflowError, csv.Error) as error:
        raise InputError(f"{path}: expected a header, then rows of label and greedy prediction: {brief(error)}"
                         ) from None


def _csv_of(path: pathlib.Path) -> pathlib.Path | None:
    """`x.output.csv` or `x.csv` for `x.zstd`, or the only CSV in a folder with one file of samples."""
    named = [path.with_name(path.name.removesuffix(".zstd") + end) for end in (".output.csv", ".csv")]
    if len(list(path.parent.glob("*.zstd"))) == 1 and len(alone := list(path.parent.glob("*.csv"))) == 1:
        named += alone
    return next((file for file in named if file.exists()), None)

