"""CSV files read in blocks of lines, with checked columns and errors that name file, line, column and value.

The header and any value may be quoted; `csv_lines` says which files are text. A row with more or fewer fields than the
header has names is an error. No type is guessed: a column is read as what the caller asks for, or refused.
"""

import csv
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np

from marsjax.core.errors import InputError, brief
from marsjax.core.records import MAX_PRICE
from marsjax.core.times import DAY_NS
from marsjax.data import csv_fields
from marsjax.data.csv_fields import PADDING, Fields
from marsjax.data.csv_lines import blocks, check_text
from marsjax.data.feed import FeedError

MOST_BLANK = 10**6
"""Most blank lines of a file."""
MOST_COLUMNS = 10_000
"""Most names in a header."""
_QUOTED = 2**21
_COMMA, _NEWLINE, _QUOTE = ord(","), ord("\n"), b'"'
_BLANK = (ord(" "), ord("\t"), _NEWLINE, _COMMA)


@dataclasses.dataclass(frozen=True)
class Rows:
    """A block of a text file with checked access to its columns."""

    path: Path
    line: np.ndarray
    """int64 [N], line of the file (from 1, a header counted) that each row stands on."""
    columns: dict[str, Fields]
    """The texts of the columns kept, [N] each."""
    dates: dict[str, str]
    """The date that stands before the times of a column, in all of the file."""

    def error(self, row: int, column: str, expected: str) -> FeedError:
        """The error for a value of this block."""
        text = self.columns[column].text(row)
        shown = text if text.isprintable() and len(text) <= 80 else brief(text)
        return FeedError(f"{self.path}: line {self.line[row]}, column {column}: expected {expected}, got {shown}")

    def require(self, good: np.ndarray, column: str, expected: str) -> None:
        """Raises FeedError at the first row where `good` (bool [N]) does not hold."""
        if not good.all():
            raise self.error(int(np.argmin(good)), column, expected)

    def where(self, rows: np.ndarray) -> "Rows":
        """Some of the rows, given by a mask."""
        columns = {name: fields.where(rows) for name, fields in self.columns.items()}
        return Rows(self.path, self.line[rows], columns, self.dates)

    def numbers(self, column: str) -> np.ndarray:
        """A column as float64 [N] or int64 [N]; FeedError at the first value that is no finite number."""
        result = csv_fields.numbers(self.columns[column])
        if result.dtype != np.int64:
            self.require(np.isfinite(result), column, "a number")
        return result

    def integers(self, column: str, low: int, high: int) -> np.ndarray:
        """A column as int64 [N]; FeedError unless every value is a whole number from low to high."""
        values = self.numbers(column)
        good = (values >= low) & (values <= high)
        if values.dtype != np.int64:
            good &= values == np.rint(values)
        self.require(good, column, f"a whole number from {low} to {high}")
        return values.astype(np.int64, copy=False)

    def codes(self, column: str, meaning: Mapping[str, int]) -> np.ndarray:
        """A column of few texts as the numbers that they stand for, int64 [N]; FeedError at any other text."""
        fields = self.columns[column].stripped()
        result, found = np.zeros(len(self.line), np.int64), np.zeros(len(self.line), bool)
        for text, number in meaning.items():
            same = fields.equal(text)
            result, found = np.where(same, number, result), found | same
        self.require(found, column, f"one of {', '.join(filter(None, meaning))}")
        return result

    def require_text(self, column: str, text: str, expected: str) -> None:
        """Raises FeedError at the first row that holds another text."""
        self.require(self.columns[column].equal(text), column, expected)

    def text(self, column: str) -> np.ndarray:
        """A column as str [N] (object array)."""
        fields = self.columns[column]
        return np.array([fields.text(row) for row in range(len(self.line))], object)

    def clock_ns(self, column: str, zone_s: int | None = None) -> np.ndarray:
        """Times of day -> int64 [N] nanoseconds since midnight.

        Args:
          column: HH:MM:SS with up to nine decimals, or HHMMSSmmm as a whole number. A date may stand before them, the
            same in all of the file.
          zone_s: seconds that the clock of the exchange is ahead of UTC: times with an offset (Z, +08:00) are of that
            clock then. None: they are refused.

        Raises FeedError at the first value that is none.
        """
        times = csv_fields.clock(self.columns[column])
        self.require(times.good, column, "a time HH:MM:SS.mmm")
        if zone_s is None:
            self.require(~times.has_offset, column, "a time HH:MM:SS.mmm of the exchange's clock, without an offset")
        date = self.dates.setdefault(column, times.date.text(0))
        self.require(times.date.equal(date), column, f"the date {date} in all of the file" if date else
                     "a time without a date, as in the rows before it")
        ns = csv_fields.to_zone(times, zone_s or 0)
        self.require((ns >= 0) & (ns < DAY_NS), column, "times of one day of the exchange's clock")
        return ns

    def price(self, column: str, tick: int = 100, low: int = 1) -> np.ndarray:
        """Prices in the currency, multiples of the tick up to rounding -> int64 [N] in 1e-4, low to MAX_PRICE."""
        ticks = self.numbers(column) * (10_000 / tick)
        rounded = np.rint(ticks)
        good = (np.abs(ticks - rounded) < 0.01) & (rounded * tick >= low) & (rounded * tick <= MAX_PRICE)
        self.require(good, column, f"a price {'above' if low > 0 else 'of at least'} 0 in steps of {tick / 10_000:g} "
                     "(set tick for other steps)")
        return rounded.astype(np.int64) * tick


def read_rows(path: Path, columns: Sequence[str], chunk_rows: int, optional: Sequence[str] = (),
              header: bool = True) -> Iterator[Rows]:
    """A CSV file in blocks of at most `chunk_rows` lines; blank lines are skipped.

    Args:
      path: the file, plain or gzip.
      columns: names that must be there; without a header, the names of all columns.
      chunk_rows: lines held at a time.
      optional: further columns to keep where they are there; any others are dropped.
      header: whether the first line holds the names.

    Raises FeedError for what is no text, an empty or truncated file, a missing column, and lines of another number of
    fields; OSError and its kin where there is no such file.
    """
    if chunk_rows < 1:
        raise InputError(f"chunk_rows: expected at least 1, got {chunk_rows}")
    names = [] if header else list(columns)
    dates: dict[str, str] = {}
    blank = 0
    for first, block in blocks(path, chunk_rows):
        if not names:
            head, block = block.split(b"\n", 1)
            check_text(path, first, head)
            names, first = _names(path, head, columns, optional), first + 1
        check_text(path, first, block, names)
        for line, part in _parts(first, block):
            rows = _rows(path, line, part, names, [*columns, *(x for x in optional if x in names)], dates)
            blank += part.count(b"\n") - (0 if rows is None else len(rows.line))
            if blank > MOST_BLANK:
                raise FeedError(f"{path}: line {line}: expected at most {MOST_BLANK} blank lines")
            if rows is not None:
                yield rows
    if not names:
        raise FeedError(f"{path}: line 1: expected a header: the file is empty")


def _parts(first: int, block: bytes) -> Iterator[tuple[int, bytes]]:
    """The block, with the number of its first line; a quoted one in small parts, since it takes far more room."""
    begin = 0
    while _QUOTE in block and len(block) - begin > _QUOTED:
        end = block.index(b"\n", begin + _QUOTED) + 1
        yield first, block[begin:end]
        first, begin = first + block.count(b"\n", begin, end), end
    if begin < len(block):
        yield first, block[begin:]


def first_line(path: Path) -> str:
    """The first line of a CSV file, to tell how many columns it has; FeedError for an empty file."""
    block = next(blocks(path, 1), (1, b""))[1]
    check_text(path, 1, block)
    line = block.decode().strip()
    if not line:
        raise FeedError(f"{path}: line 1: expected CSV, got an empty line or file")
    return line


def first_names(path: Path) -> list[str]:
    """The names in the header of a CSV file; FeedError where it has none."""
    return _names(path, first_line(path).encode(), (), ())


def _names(path: Path, head: bytes, columns: Sequence[str], optional: Sequence[str]) -> list[str]:
    """The names in a header."""
    try:
        names = [name.strip(" \t") for name in next(csv.reader([head.decode()], strict=True), [])]
    except csv.Error as error:
        raise FeedError(f"{path}: line 1: expected a header: {brief(error)}") from None
    odd = next((name for name in names if not name.isprintable()), None)
    if odd is not None:  # lines that end in another way would all be one header, and the file without rows
        raise FeedError(f"{path}: line 1: expected names in a header, and lines that end in \\n, \\r\\n or \\r, got "
                        f"{brief(odd)}")
    if len(names) > MOST_COLUMNS:
        raise FeedError(f"{path}: line 1: expected at most {MOST_COLUMNS} columns, got {len(names)}")
    missing = [name for name in columns if name not in names]
    if missing:
        what = f"columns {', '.join(missing)}" if any(names) else "a header: the file is empty or starts with a blank"
        other = next((f" (separated by {mark!r}? expected commas)" for mark in ";\t|" if mark in head.decode()), "")
        raise FeedError(f"{path}: line 1: expected {what}, got {brief(','.join(names), 300)}{other}")
    double = [name for name in (*columns, *optional) if names.count(name) > 1]
    if double:
        raise FeedError(f"{path}: line 1: expected each name once, got {double[0]} {names.count(double[0])} times")
    return names


def _rows(path: Path, first: int, block: bytes, names: list[str], keep: list[str], dates: dict[str, str]
          ) -> Rows | None:
    """A block of lines as rows; None where all are blank."""
    line, count, data, end = _split(path, first, block)
    # The separator before a line's first field is the end of the line before it.
    start = np.append(0, end[:-1] + 1)
    last = np.cumsum(count) - 1
    head = last - count + 1
    odd = (count != len(names)) | (count == 1) & np.isin(data[start[head]], _BLANK)
    if odd.any():
        alone = odd & (count == 1)
        blank = alone & (start[last] == end[last])
        for row in np.flatnonzero(alone & ~blank).tolist():
            blank[row] = not data[start[last[row]] : end[last[row]]].tobytes().strip()
        wrong = (count != len(names)) & ~blank
        if wrong.any():
            row = int(np.argmax(wrong))
            shown = brief(data[start[head[row]] : end[last[row]]].tobytes().decode(errors="replace"), 200)
            raise FeedError(f"{path}: line {line[row]}: expected {len(names)} fields ({brief(','.join(names), 300)}), "
                            f"got {count[row]}: {shown}")
        kept = np.repeat(~blank, count)
        start, end, line = start[kept], end[kept], line[~blank]
    if not len(line):
        return None
    columns = {name: names.index(name) for name in keep}
    return Rows(path, line, {name: Fields(data, *(x[i :: len(names)].copy() for x in (start, end)))
                             for name, i in columns.items()}, dates)


def _split(path: Path, first: int, block: bytes) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """The line of each row, its number of fields, all bytes, padded, and the end of each field."""
    if _QUOTE in block:
        count, block, end = _unquoted(path, first, block)
        data = np.frombuffer(block + bytes(PADDING), np.uint8)
    else:
        data = np.frombuffer(block + bytes(PADDING), np.uint8)
        end = np.flatnonzero((data == _COMMA) | (data == _NEWLINE))
        count = np.diff(np.flatnonzero(data[end] == _NEWLINE), prepend=-1)
    return np.arange(first, first + len(count)), count, data, end


def _unquoted(path: Path, first: int, block: bytes) -> tuple[np.ndarray, bytes, np.ndarray]:
    """Lines of which some are quoted: fields in each line, all fields laid end to end, and the end of each."""
    reader = csv.reader(block.decode().split("\n")[:-1], strict=True)
    counts, fields = [], []
    try:
        for row in reader:
            counts.append(max(len(row), 1))
            fields.extend(row or [""])
            if reader.line_num != len(counts):
                raise FeedError(f"{path}: line {first + len(counts) - 1}: expected a quote that is closed on its line")
    except csv.Error as error:
        raise FeedError(f"{path}: line {first + len(counts)}: expected CSV: {brief(error)}") from None
    texts = [field.encode() for field in fields]
    end = np.cumsum([len(text) + 1 for text in texts]) - 1
    return np.array(counts), b",".join(texts) + b",", end
