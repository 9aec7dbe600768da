"""The tokens of a day as a file, of which only what is asked for is in memory; days that are streamed from such files.

A file is one NumPy array (.npy), int32 [M, C], in order. A window begins at any token, so there are no records to read
but rows, and a window's rows lie together: one stretch of a file, which is mapped, copied and let go again. What was
read is then the page cache's, not this process's.
"""

import dataclasses
import hashlib
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from marsjax.core import files, limits
from marsjax.core.errors import InputError, brief
from marsjax.core.unfinished import undone_by

_DTYPE = np.dtype("<i4")


@dataclasses.dataclass(frozen=True)
class StoredDay:
    """The first `count` tokens of a file: what `days.Tokens` asks for. Each access opens the file and closes it."""

    path: Path
    offset: int
    """Bytes before the first token."""
    count: int
    columns: int

    def __len__(self) -> int:
        return self.count

    def __getitem__(self, key: Any) -> np.ndarray:
        """A copy of these rows and columns, int32."""
        return np.array(np.memmap(self.path, _DTYPE, "r", self.offset, (self.count, self.columns))[key])

    def until(self, count: int) -> "StoredDay":
        """The first tokens of it."""
        return dataclasses.replace(self, count=count)


class StoredFile(NamedTuple):
    """What an index keeps of a file, to know it again."""

    rows: int
    """Tokens."""
    columns: int
    sha256: str
    """Of the file."""


def write(path: Path, tokens: np.ndarray) -> StoredFile:
    """Writes the tokens of a day, int32 [M, C]; the file is there whole or not at all."""
    fresh = path.with_name(f".{path.name}.new")
    with undone_by(lambda: fresh.unlink(missing_ok=True)):
        with fresh.open("wb") as file:
            np.save(file, np.ascontiguousarray(tokens, _DTYPE))
            file.flush()
            os.fsync(file.fileno())
        with fresh.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        fresh.replace(path)
    return StoredFile(len(tokens), tokens.shape[1], found)


def opened(path: Path, expected: StoredFile, check: bool = True) -> StoredDay:
    """A file that `write` wrote.

    Raises FileNotFoundError; InputError where it is not the file that was written: by its header and size, and with
    `check` by all of its bytes.
    """
    size = files.check_regular(path)
    with path.open("rb") as file:
        try:
            version = np.lib.format.read_magic(file)
            shape, is_fortran, dtype = np.lib.format.read_array_header_1_0(file)
        except ValueError as error:
            raise InputError(f"{path}: no file of tokens: {brief(error)}; remove it and prepare again") from None
        offset = file.tell()
    fits = version == (1, 0) and not is_fortran and dtype == _DTYPE and shape == (expected.rows, expected.columns)
    if not fits or size != offset + _DTYPE.itemsize * expected.rows * expected.columns:
        raise InputError(f"{path}: expected {expected.rows} x {expected.columns} numbers of int32, got {size} bytes "
                         f"of {dtype} {shape}; remove it and prepare again")
    if check:
        with path.open("rb") as file:
            if hashlib.file_digest(file, "sha256").hexdigest() != expected.sha256:
                raise InputError(f"{path}: its bytes are not those that were written; remove it and prepare again")
    return StoredDay(path, offset, expected.rows, expected.columns)


class StreamedDays(Sequence[StoredDay]):
    """Days whose windows are read while a training runs (`training.loop`), instead of lying on the device.

    `waited_s` and `steps_s` grow while it runs: seconds in which the device had nothing to do as its next windows were
    not there, and seconds of the steps in all.
    """

    def __init__(self, days: Sequence[StoredDay], digest: str, together: int = 8, ahead: int = 3) -> None:
        """Days to stream.

        Args:
          days: files.
          digest: short hash of all tokens.
          together: most steps whose windows are read, and computed, in one call; no result depends on it.
          ahead: such calls that are read in advance, each by a thread.
        """
        limits.check_whole("StreamedDays.together", together, 1, limits.STEPS_OF_A_CALL)
        limits.check_whole("StreamedDays.ahead", ahead, 1, 1024)
        self._days, self.digest, self.together, self.ahead = tuple(days), digest, together, ahead
        self.waited_s = self.steps_s = 0.0

    def __len__(self) -> int:
        return len(self._days)

    def __getitem__(self, key: Any) -> Any:
        return self._days[key]
