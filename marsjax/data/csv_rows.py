"""Text files read in blocks of lines, with checked columns and errors that name file, line, column and value."""

import dataclasses
import gzip
import io
import itertools
import re
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import pandas as pd

from marsjax.core.errors import InputError
from marsjax.core.records import MAX_PRICE
from marsjax.data.feed import FeedError

_TIME_OF_DAY = re.compile(r"(?:[01][0-9]|2[0-3]):[0-5][0-9]:[0-5][0-9](?:\.[0-9]{1,9})?")


@dataclasses.dataclass(frozen=True)
class Rows:
    """A block of a text file with checked access to its columns."""

    path: Path
    line: np.ndarray
    """int64 [N], line of the file (from 1, a header counted) that each row stands on."""
    frame: pd.DataFrame
    """N rows as pandas read them; numbers not checked yet."""

    def error(self, row: int, column: str, expected: str) -> FeedError:
        """The error for a value of this block."""
        return FeedError(f"{self.path}: line {self.line[row]}, column {column}: expected {expected}, "
                         f"got {self.frame[column].iloc[row]!s}")

    def require(self, good: np.ndarray, column: str, expected: str) -> None:
        """Raises FeedError at the first row where `good` (bool [N]) does not hold."""
        if not good.all():
            raise self.error(int(np.argmin(good)), column, expected)

    def numbers(self, column: str) -> np.ndarray:
        """A column as float64 [N] or int64 [N]; FeedError at the first value that is no finite number."""
        values = self.frame[column]
        if values.dtype.kind not in "if":
            values = pd.to_numeric(values.astype(str), errors="coerce").astype(np.float64)
        result = values.to_numpy()
        self.require(np.isfinite(result), column, "a number")
        return result

    def integers(self, column: str, low: int, high: int) -> np.ndarray:
        """A column as int64 [N]; FeedError unless every value is a whole number from low to high."""
        values = self.numbers(column)
        self.require((values >= low) & (values <= high) & (values == np.rint(values)), column,
                     f"a whole number from {low} to {high}")
        return values.astype(np.int64)

    def text(self, column: str) -> np.ndarray:
        """A column as str [N] (object array)."""
        return self.frame[column].astype(str).to_numpy(object)

    def clock_ns(self, column: str) -> np.ndarray:
        """'HH:MM:SS' with up to nine decimals -> int64 [N] nanoseconds since midnight."""
        text = self.frame[column].astype(str).tolist()
        self.require(np.array([_TIME_OF_DAY.fullmatch(x) is not None for x in text]), column, "a time HH:MM:SS.mmm")
        return np.array([f"1970-01-01T{x}" for x in text], "datetime64[ns]").astype(np.int64)

    def price(self, column: str, tick: int = 100, low: int = 1) -> np.ndarray:
        """Prices in the currency, multiples of the tick up to rounding -> int64 [N] in 1e-4, low to MAX_PRICE."""
        ticks = self.numbers(column) * (10_000 / tick)
        rounded = np.rint(ticks)
        good = (np.abs(ticks - rounded) < 0.01) & (rounded * tick >= low) & (rounded * tick <= MAX_PRICE)
        self.require(good, column, f"a price {'above' if low > 0 else 'of at least'} 0 in steps of {tick / 10_000:g}")
        return rounded.astype(np.int64) * tick


def read_rows(path: Path, columns: Sequence[str], chunk_rows: int, optional: Sequence[str] = (),
              header: bool = True) -> Iterator[Rows]:
    """A .csv or .csv.gz file in blocks of at most `chunk_rows` lines; blank lines are skipped.

    Args:
      path: the file.
      columns: names that must be there; without a header, the names of all columns.
      chunk_rows: lines held at a time.
      optional: further columns to keep where they are there; any others are dropped.
      header: whether the first line holds the names.

    Raises FeedError for an empty or truncated file, a missing column, and lines of another number of fields.
    """
    if chunk_rows < 1:
        raise InputError(f"chunk_rows: expected at least 1, got {chunk_rows}")
    with _opened(path) as file:
        lines = _lines(path, file)
        first = 1
        names = list(columns)
        if header:
            names = next(lines, b"").decode("utf-8-sig", errors="replace").strip().split(",")
            missing = [name for name in columns if name not in names]
            if missing:
                what = f"columns {', '.join(missing)}" if any(names) else "a header: the file is empty"
                raise FeedError(f"{path}: line 1: expected {what}, got {','.join(names)!r}")
            first = 2
        keep = [name for name in (*columns, *optional) if name in names]
        while block := list(itertools.islice(lines, chunk_rows)):
            number = np.arange(first, first + len(block))
            first += len(block)
            filled = [bool(line.strip()) for line in block]
            if not all(filled):
                block, number = list(itertools.compress(block, filled)), number[filled]
            if block:
                yield Rows(path, number, _parse(path, block, number, names, keep))


def first_line(path: Path) -> str:
    """The first line of a .csv or .csv.gz file, to tell how many columns it has; FeedError for an empty file."""
    with _opened(path) as file:
        line = next(_lines(path, file), b"").decode("utf-8-sig", errors="replace").strip()
    if not line:
        raise FeedError(f"{path}: line 1: expected CSV, got an empty line or file")
    return line


def _opened(path: Path) -> BinaryIO:
    return cast(BinaryIO, gzip.open(path, "rb")) if path.suffix == ".gz" else open(path, "rb")


def _lines(path: Path, file: Iterable[bytes]) -> Iterator[bytes]:
    line = 0
    try:
        for content in file:
            line += 1
            yield content
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise FeedError(f"{path}: line {line + 1}: expected a whole gzip file, got {error}") from error


def _parse(path: Path, block: list[bytes], number: np.ndarray, names: list[str], keep: list[str]) -> pd.DataFrame:
    for row, line in enumerate(block):
        if line.count(b",") + 1 != len(names) and b'"' not in line:
            raise FeedError(f"{path}: line {number[row]}: expected {len(names)} fields ({','.join(names)}), "
                            f"got {line.count(b',') + 1}: {line[:200].decode('utf-8', errors='replace').strip()!r}")
    try:
        frame = pd.read_csv(io.BytesIO(b"".join(block)), header=None, names=names, usecols=keep, na_filter=False,
                            low_memory=False, skip_blank_lines=False)
    except ValueError as error:
        raise FeedError(f"{path}: lines {number[0]} to {number[-1]}: expected CSV, got {error}") from error
    if len(frame) != len(block):
        raise FeedError(f"{path}: lines {number[0]} to {number[-1]}: expected one row a line, got {len(frame)} rows "
                        f"of {len(block)} lines (a quote left open?)")
    return frame
