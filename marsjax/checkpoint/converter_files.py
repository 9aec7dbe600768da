"""Files of bin converters: as published (zstd of a pickle, read as data) and as marsjax keeps them (.npz)."""

import io
import pathlib
import re
import struct
import zipfile
import zlib

import numpy as np

from marsjax.checkpoint import pickle as safe_pickle
from marsjax.core import files
from marsjax.core.errors import InputError, brief
from marsjax.tokens.bins import NAMES, Converter

_CLASS = ("market_simulation.utils.bin_converter", "BinConverter")
_FIELDS = {"num_bins", "bins", "bin_values", "bin_probs"}
# A converter of 1024 bins of 100 values is a tenth of this.
_MAX_FILE_BYTES = _MAX_ARRAY_BYTES = 2**23
_MAX_BINS = 2**16
_ARRAYS = ("edges", "counts", "values", "probabilities")
_ARRAY = re.compile(rb"\x93NUMPY\x01\x00..\{'descr': '([<>|][iuf][1248])', 'fortran_order': (?:False|True), "
                    rb"'shape': \((\d{1,18}),\), \} *\n", re.DOTALL)


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
    if len(values) > _MAX_BINS:
        raise InputError(f"{path}: expected at most {_MAX_BINS} bins, got {len(values)}")
    converter = Converter(edges, tuple(values), tuple(probabilities), str(path))
    num_bins = record.fields["num_bins"]
    if type(num_bins) is not int or num_bins != converter.num_bins:
        raise InputError(f"{path}: num_bins is {brief(num_bins)}, not {converter.num_bins}, the number of bins that "
                         "the edges make")
    return converter


def save(path: str | pathlib.Path, converter: Converter) -> None:
    """Writes a `.npz` file of plain arrays, which `load` reads."""
    with pathlib.Path(path).open("wb") as file:
        np.savez_compressed(file, edges=converter.edges, counts=np.array([len(x) for x in converter.values]),
                            values=np.concatenate(converter.values),
                            probabilities=np.concatenate(converter.probabilities))


def load(path: str | pathlib.Path) -> Converter:
    """A converter from a file that `save` wrote; InputError names file and reason, OSError where it cannot be read."""
    data = files.read_bytes(path, _MAX_FILE_BYTES)
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            if sorted(archive.namelist()) != sorted(f"{name}.npy" for name in _ARRAYS):
                raise InputError(f"expected the arrays {', '.join(_ARRAYS)}, got "
                                 f"{brief(', '.join(archive.namelist()[:9]))}")
            edges, counts, values, probabilities = (_array(archive, name) for name in _ARRAYS)
    except (ValueError, EOFError, OSError, zipfile.BadZipFile, zlib.error, struct.error, NotImplementedError,
            RuntimeError, IndexError, OverflowError) as error:  # what zipfile makes of damage
        raise InputError(f"{path}: not a converter saved by marsjax: {brief(error, 160)}") from error
    # Each is looked at alone first: a sum of large ones would turn round.
    fits = counts.dtype.kind in "iu" and len(counts) <= _MAX_BINS and not np.any((counts < 0) | (counts > len(values)))
    if not fits or not len(values) == len(probabilities) == counts.sum():
        raise InputError(f"{path}: counts of {len(counts)} bins do not fit {len(values)} values and "
                         f"{len(probabilities)} probabilities")
    ends = np.cumsum(counts.astype(np.int64))[:-1]
    return Converter(edges, tuple(np.split(values, ends)), tuple(np.split(probabilities, ends)), str(path))


def _array(archive: zipfile.ZipFile, name: str) -> np.ndarray:
    """A row of numbers out of an .npz file; nothing is made before its header and its size are seen to fit."""
    entry = archive.getinfo(f"{name}.npy")
    if entry.flag_bits & 1:
        raise InputError(f"{name}: expected no encryption")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise InputError(f"{name}: expected an array stored or deflated, as np.savez_compressed does, got method "
                         f"{entry.compress_type}")
    if entry.file_size > _MAX_ARRAY_BYTES:
        raise InputError(f"{name}: expected at most {_MAX_ARRAY_BYTES} bytes, got {entry.file_size}")
    with archive.open(entry) as file:
        data = file.read(_MAX_ARRAY_BYTES + 1)
    header = _ARRAY.match(data)
    if header is None:
        raise InputError(f"{name}: expected a row of numbers of NumPy's format 1.0, got {brief(data[:100], 110)}")
    dtype, length, start = np.dtype(header[1].decode()), int(header[2]), header.end()
    if start + dtype.itemsize * length != len(data) or start != 10 + int.from_bytes(data[8:10], "little"):
        raise InputError(f"{name}: the header claims {length} numbers of {dtype.itemsize} bytes, "
                         f"{len(data) - start} bytes follow")
    return np.frombuffer(data, dtype, length, start)
