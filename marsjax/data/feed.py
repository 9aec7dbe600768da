"""What every feed reader yields, and how all of them read text: in blocks of lines, naming what is wrong where."""

import dataclasses
import gzip
import io
import itertools
import zlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
import pandas as pd

from marsjax.types import MAX_PRICE, Order

AUCTION = -1
"""The `aggressor` of a fill in a call auction: there was none."""
LARGEST_ID = 2**31 - 1
"""Order ids are int32 in every record."""
LARGEST_SEQUENCE = 2**53
"""Sequence numbers stay exact in the float columns that pandas may make of them."""


class FeedError(ValueError):
    """A market data file that cannot be read; the message names the file, line (from 1), column and value."""


@dataclasses.dataclass(frozen=True)
class Fills:
    """Transactions as the exchange published them, NumPy arrays [N] on the host."""

    time_ns: np.ndarray
    """int64, nanoseconds since midnight."""
    price: np.ndarray
    """int32, 1e-4 of the currency."""
    volume: np.ndarray
    """int32, shares."""
    buy_id: np.ndarray
    """int32, NO_ID where the feed does not tell."""
    sell_id: np.ndarray
    """int32."""
    aggressor: np.ndarray
    """int32, Kind.BUY or Kind.SELL, AUCTION in call auctions."""
    sequence: np.ndarray
    """int64, message number of the exchange, or the row of the file."""


@dataclasses.dataclass(frozen=True)
class FeedChunk:
    """A stretch of a feed. Fills of continuous trading come with their aggressor, never a chunk later."""

    orders: Order
    """int32 NumPy arrays [N], in exchange order."""
    fills: Fills
    """Published trades of these orders, and the auction trades stamped among them."""
    sequence: np.ndarray
    """int64 [N], number of the last message that went into each order."""
    ignored: dict[str, int] = dataclasses.field(default_factory=dict)
    """Messages of this chunk that became no order, by reason."""
    adapted: dict[str, int] = dataclasses.field(default_factory=dict)
    """Messages of this chunk whose order is not what they literally say, by reason."""


@dataclasses.dataclass(frozen=True)
class Snapshots:
    """Published states of a book, NumPy arrays on the host; L levels a side, best first, 0 where there is none."""

    time_ns: np.ndarray
    """int64 [N], nanoseconds since midnight."""
    volume: np.ndarray
    """int64 [N], shares traded since the start of the day, auctions included."""
    trades: np.ndarray
    """int64 [N], trades since the start of the day."""
    last_price: np.ndarray
    """int64 [N], 1e-4 of the currency, 0 before the first trade."""
    ask_price: np.ndarray
    """int64 [N, L]."""
    ask_volume: np.ndarray
    """int64 [N, L]."""
    bid_price: np.ndarray
    """int64 [N, L]."""
    bid_volume: np.ndarray
    """int64 [N, L]."""


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
        text = np.array(self.frame[column].astype(str).tolist(), "U19")
        letter = text.view(np.uint32).reshape(len(text), 19).astype(np.int64)
        is_digit, is_end = (letter >= ord("0")) & (letter <= ord("9")), letter == 0
        good = is_digit[:, [0, 1, 3, 4, 6, 7]].all(axis=1) & (letter[:, [2, 5]] == ord(":")).all(axis=1)
        # A point needs a digit behind it; after the last digit there is nothing more.
        good &= is_end[:, 8] | ((letter[:, 8] == ord(".")) & is_digit[:, 9])
        good &= (is_end[:, 9:] | is_digit[:, 9:]).all(axis=1) & (is_end[:, 9:-1] <= is_end[:, 10:]).all(axis=1)
        good &= is_end[:, 18]
        digit = np.where(is_digit, letter - ord("0"), 0)
        hour, minute, second = (10 * digit[:, i] + digit[:, i + 1] for i in (0, 3, 6))
        good &= (hour < 24) & (minute < 60) & (second < 60)
        self.require(good, column, "a time HH:MM:SS.mmm")
        fraction = digit[:, 9:18] @ 10 ** np.arange(8, -1, -1)
        return (3600 * hour + 60 * minute + second) * 1_000_000_000 + fraction

    def price(self, column: str, tick: int = 100, low: int = 1) -> np.ndarray:
        """Prices in the currency, a tick's multiple but for float noise -> int64 [N] in 1e-4, low to MAX_PRICE."""
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
        raise ValueError(f"chunk_rows: expected at least 1, got {chunk_rows}")
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
