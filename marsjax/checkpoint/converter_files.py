"""Files of bin converters: as published (zstd of a pickle, read as data) and as marsjax keeps them (.npz)."""

import pathlib
import zipfile
import zlib

import numpy as np

from marsjax.checkpoint import pickle as safe_pickle
from marsjax.core.errors import InputError
from marsjax.tokens.bins import NAMES, Converter

_CLASS = ("market_simulation.utils.bin_converter", "BinConverter")
_FIELDS = {"num_bins", "bins", "bin_values", "bin_probs"}
_MAX_FILE_BYTES = 2**26


def read_folder(path: str | pathlib.Path) -> dict[str, Converter]:
    """All of `NAMES` from a folder that holds a `.zstd` (published) or `.npz` (`save`) file of each.

    Raises FileNotFoundError that names every missing file, and the errors of `read_zstd` and `load`.
    """
    folder, found = pathlib.Path(path), {}
    for name in NAMES:
        found[name] = next((file for suffix in (".npz", ".zstd") if (file := folder / (name + suffix)).is_file()), None)
    missing = [name for name, file in found.items() if file is None]
    if missing:
        raise FileNotFoundError(f"{folder}: no .zstd or .npz file of these converters: {', '.join(missing)}")
    return {name: (load if file.suffix == ".npz" else read_zstd)(file) for name, file in found.items() if file}


def read_zstd(path: str | pathlib.Path) -> Converter:
    """A converter from a published file, read as data: no pickle is run. InputError names file and reason."""
    record = safe_pickle.load_zstd(path, allowed={_CLASS}, max_bytes=_MAX_FILE_BYTES)
    if not isinstance(record, safe_pickle.Record) or set(record.fields) != _FIELDS:
        raise InputError(f"{path}: expected a {_CLASS[1]} with {', '.join(sorted(_FIELDS))}")
    edges, values, probabilities = (record.fields[name] for name in ("bins", "bin_values", "bin_probs"))
    for field, items in {"bins": [edges], "bin_values": values, "bin_probs": probabilities}.items():
        if not isinstance(items, list) or not all(isinstance(item, np.ndarray) for item in items):
            raise InputError(f"{path}: {field}: expected NumPy arrays")
    converter = Converter(edges, tuple(values), tuple(probabilities), str(path))
    if record.fields["num_bins"] != converter.num_bins:
        raise InputError(f"{path}: num_bins is not {converter.num_bins}, the number of bins that the edges make")
    return converter


def save(path: str | pathlib.Path, converter: Converter) -> None:
    """Writes a `.npz` file of plain arrays, which `load` reads."""
    with pathlib.Path(path).open("wb") as file:
        np.savez_compressed(file, edges=converter.edges, counts=np.array([len(x) for x in converter.values]),
                            values=np.concatenate(converter.values),
                            probabilities=np.concatenate(converter.probabilities))


def load(path: str | pathlib.Path) -> Converter:
    """A converter from a file that `save` wrote; InputError names file and reason."""
    try:
        with np.load(path, allow_pickle=False) as file:
            edges, counts, values, probabilities = (file[x] for x in ("edges", "counts", "values", "probabilities"))
    except (KeyError, ValueError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise InputError(f"{path}: not a converter saved by marsjax: {error}") from error
    if counts.ndim != 1 or counts.dtype.kind not in "iu" or np.any(counts < 0) or not (
            values.shape == probabilities.shape == (counts.sum(),)):
        raise InputError(f"{path}: counts that add up to {counts.sum()} do not fit values of shape {values.shape} and "
                         f"probabilities of shape {probabilities.shape}")
    ends = np.cumsum(counts)[:-1]
    return Converter(edges, tuple(np.split(values, ends)), tuple(np.split(probabilities, ends)), str(path))
