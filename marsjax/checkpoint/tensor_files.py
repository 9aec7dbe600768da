"""The tensors of a published model on disk: one safetensors file, or shards with an index that says what is where."""

import contextlib
import dataclasses
import pathlib
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import safetensors

from marsjax.core import files
from marsjax.core.errors import InputError, brief

WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"
SHARDS = "model-*.safetensors"
"""What names of shards look like, though an index may name others."""
_MAX_INDEX_BYTES = 2**22
_MAX_HEADER_BYTES = 2**22
_LISTED = 5


class Stored(NamedTuple):
    """What a file says of a tensor before it is read."""

    shape: tuple[int, ...]
    dtype: str
    """As safetensors names it: F32, BF16 ..."""


@dataclasses.dataclass(frozen=True)
class TensorFiles:
    """Open files, read tensor by tensor."""

    where: pathlib.Path
    """The file, or the index of the shards."""
    kinds: dict[str, Stored]
    """By the names of the tensors."""
    metadata: dict[str, str]
    """What the writer said, of all files."""
    open: dict[str, tuple[pathlib.Path, Any]]
    """Where each tensor is: the file's name, and the open file."""

    def read(self, name: str) -> np.ndarray:
        """One tensor; InputError names file and tensor where it holds NaN or infinity, or the file is broken."""
        path, file = self.open[name]
        with _whole(path):
            tensor = np.asarray(file.get_tensor(name))
        # The sum of squares would overflow; minimum and maximum see every NaN and infinity without another copy.
        if tensor.size and not (np.isfinite(tensor.min()) and np.isfinite(tensor.max())):
            raise InputError(f"{path}: {name}: expected finite numbers, found NaN or infinity")
        return tensor


def of_folder(folder: pathlib.Path) -> list[pathlib.Path]:
    """The files that hold the tensors of the model in a folder, after their index if there is one; all are there.

    Raises FileNotFoundError that names what is missing; InputError where the index is damaged.
    """
    if (folder / WEIGHTS).exists() or not (folder / INDEX).exists():
        if not (folder / WEIGHTS).exists():
            shards = sorted(folder.glob(SHARDS))
            also = f"; it has {len(shards)} files {SHARDS}, but no {INDEX} that says what they hold" if shards else ""
            raise FileNotFoundError(f"{folder}: no file {WEIGHTS}, nor {INDEX} of a model in shards{also}")
        return [folder / WEIGHTS]
    names = shard_names(folder / INDEX)
    missing = [name for name in names if not (folder / name).exists()]
    if missing:
        more = f" and {len(missing) - _LISTED} more" if len(missing) > _LISTED else ""
        raise FileNotFoundError(f"{folder}: {len(missing)} of {len(names)} shards that {INDEX} names are missing: "
                                f"{', '.join(missing[:_LISTED])}{more}; download them too")
    return [folder / INDEX, *(folder / name for name in names)]


def shard_names(index: pathlib.Path) -> list[str]:
    """Names of the files that an index names, each once and in order."""
    return sorted(set(_weight_map(index).values()))


def _weight_map(index: pathlib.Path) -> dict[str, str]:
    """Tensor -> name of its file."""
    at = files.read_json(index, _MAX_INDEX_BYTES).get("weight_map")
    if not isinstance(at, dict) or not at:
        raise InputError(f"{index}: weight_map: expected the file of each tensor, got {brief(at)}")
    for tensor, name in at.items():
        # A name that leads out of the folder is none of a shard.
        if not isinstance(name, str) or not name.endswith(".safetensors") or set(name) & set("/\\\0"):
            raise InputError(f"{index}: weight_map: {brief(tensor)}: expected a file name like "
                             f"model-00001-of-00002.safetensors, got {brief(name)}")
    return at


@contextlib.contextmanager
def opened(folder: pathlib.Path) -> Iterator[TensorFiles]:
    """Opens the tensors of the model in a folder.

    Raises the errors of `of_folder`; InputError that names the file where one is no safetensors file, is cut off or
    broken, or does not hold what the index says.
    """
    first, *shards = of_folder(folder)
    at = _weight_map(first) if shards else {}
    kinds: dict[str, Stored] = {}
    metadata: dict[str, str] = {}
    of: dict[str, tuple[pathlib.Path, Any]] = {}
    with contextlib.ExitStack() as stack:
        for path in shards or [first]:
            _check_header(path)
            with _whole(path):
                file = stack.enter_context(safetensors.safe_open(path, framework="np"))
                for name in file.keys():  # noqa: SIM118 - it is no dict
                    piece = file.get_slice(name)
                    if name in of or (shards and at.get(name) != path.name):
                        other = at.get(name) or "no file"
                        raise InputError(f"{first}: {brief(name)} is in {path.name}, the index says {other}: index and "
                                         "shards are not of one model, or one of them is damaged")
                    kinds[name], of[name] = Stored(tuple(piece.get_shape()), piece.get_dtype()), (path, file)
                metadata |= file.metadata() or {}
        lost = sorted(set(at) - set(of))
        if lost:
            raise InputError(f"{folder / at[lost[0]]}: {len(lost)} tensors that {INDEX} places there are not in it, "
                             f"{brief(lost[0])} first: index and shards are not of one model, or one is damaged")
        yield TensorFiles(first, kinds, metadata, of)


@contextlib.contextmanager
def _whole(path: pathlib.Path) -> Iterator[None]:
    try:
        yield
    except safetensors.SafetensorError as error:
        raise InputError(f"{path}: not a whole safetensors file: {brief(error, 120)}") from None


def _check_header(path: pathlib.Path) -> None:
    """Looks at the first bytes before any library does; InputError says what else the file may be."""
    size = files.check_regular(path)
    with path.open("rb") as file:
        start = file.read(64)
    files.refuse_stand_in(path, start)
    length = int.from_bytes(start[:8], "little")
    if start[:2] == b"PK" or (start[:1] == b"\x80" and length > size):
        raise InputError(f"{path}: expected safetensors, got a pickle (or a PyTorch file, which holds one); refused, "
                         "since reading a pickle runs it")
    if len(start) < 8 or length > size - 8:
        raise InputError(f"{path}: cut off, or no safetensors file: {size} bytes, and a header of {length} expected")
    if length > _MAX_HEADER_BYTES:
        raise InputError(f"{path}: expected a header of at most {_MAX_HEADER_BYTES} bytes, got {length}")
