"""A price curve from a CSV file: where the mid is to be, minute by minute, for controlled futures."""

import csv
import math
from typing import NamedTuple

import numpy as np

from marsjax.core import files
from marsjax.core.errors import InputError, brief

MINUTE, RETURN, PRICE = "minute", "return_bp", "price"
_MOST_BYTES = 2**22
_BP = 1e4


class Curve(NamedTuple):
    """A curve of returns against the start."""

    minutes: np.ndarray
    """float64 [N], rising, after the start; the first one is 0."""
    return_bp: np.ndarray
    """float64 [N], basis points."""

    def at(self, minutes: np.ndarray) -> tuple[float, ...]:
        """The curve at minutes [K] within its own, between two of its points on the line that joins them.

        Examples:
          >>> Curve(np.array([0.0, 2.0]), np.array([0.0, -10.0])).at(np.array([1.0, 2.0]))
          (-5.0, -10.0)
        """
        return tuple(float(value) for value in np.interp(minutes, self.minutes, self.return_bp))


def read(path: str, until_minute: float) -> Curve:
    """The curve in a CSV with the columns `minute` (from 0 on, rising) and `return_bp`, or `price`.

    Returns are against the start and may begin at a later minute than 0, where the start stands for 0 bp; prices are
    against their own first row, which must be of minute 0. InputError names the line; the curve must reach
    `until_minute`. OSError where there is no such file.
    """
    text = files.read_text(path, _MOST_BYTES)
    lines = csv.reader(text.splitlines())
    header = [name.strip() for name in next(lines, [])]
    column = next((name for name in (RETURN, PRICE) if name in header), None)
    if MINUTE not in header or column is None:
        raise InputError(f"{path}: line 1: expected the columns {MINUTE} and {RETURN}, or {MINUTE} and {PRICE}, got "
                         f"{brief(','.join(header))}")
    places = header.index(MINUTE), header.index(column)
    rows = [_row(path, lines.line_num, row, places, header) for row in lines if any(field.strip() for field in row)]
    if not rows:
        raise InputError(f"{path}: expected a row for a minute at least, got none")
    minutes, values = (np.array(part) for part in zip(*rows, strict=True))
    fall = np.flatnonzero(np.diff(minutes) <= 0)
    if fall.size or minutes[0] < 0:
        at = int(fall[0]) + 1 if fall.size else 0
        raise InputError(f"{path}: row {at + 1}, column {MINUTE}: expected minutes from 0 on that rise, got "
                         f"{minutes[at]:g}")
    if minutes[-1] < until_minute:
        raise InputError(f"{path}: its last minute is {minutes[-1]:g}, expected {until_minute:g} at least: add rows, "
                         f"or set minutes={int(minutes[-1])}")
    return _against_start(path, minutes, values, column)


def _row(path: str, line: int, row: list[str], places: tuple[int, int], header: list[str]) -> tuple[float, float]:
    if len(row) != len(header):
        raise InputError(f"{path}: line {line}: expected {len(header)} fields as in the header, got {len(row)}")
    found = []
    for place in places:
        try:
            value = float(row[place])
        except ValueError:
            value = math.nan
        if not math.isfinite(value):
            raise InputError(f"{path}: line {line}, column {header[place]}: expected a number, got "
                             f"{brief(row[place].strip())}")
        found.append(value)
    return found[0], found[1]


def _against_start(path: str, minutes: np.ndarray, values: np.ndarray, column: str) -> Curve:
    if column == RETURN:
        if minutes[0] == 0:
            if values[0]:
                raise InputError(f"{path}: row 1, column {RETURN}: expected 0 at minute 0, the start, got "
                                 f"{values[0]:g}")
            return Curve(minutes, values)
        return Curve(np.concatenate([[0.0], minutes]), np.concatenate([[0.0], values]))
    if minutes[0] != 0 or (values <= 0).any():
        raise InputError(f"{path}: column {PRICE}: expected prices above 0 from minute 0 on, got {values.min():g} at "
                         f"least, from minute {minutes[0]:g} on")
    return Curve(minutes, _BP * (values / values[0] - 1))
