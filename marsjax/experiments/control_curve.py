"""A price curve from a CSV file: where the mid is to be, minute by minute, for controlled futures."""

import csv
import math
from typing import NamedTuple

import numpy as np

from marsjax.core import files
from marsjax.core.errors import InputError, brief
from marsjax.sim.control import scenarios

MINUTE, RETURN, PRICE = "minute", "return_bp", "price"
_MOST_BYTES = 2**22
_BP = 1e4
_BYTE_ORDER = "\ufeff"
"""What some programs write before text in UTF-8."""


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
    `until_minute`, and stay within `scenarios.MOST_BP` of the start. OSError where there is no such file.
    """
    header, rows = _lines(path)
    column = next((name for name in (RETURN, PRICE) if name in header), None)
    if MINUTE not in header or column is None:
        raise InputError(f"{path}: line 1: expected the columns {MINUTE} and {RETURN}, or {MINUTE} and {PRICE}, got "
                         f"{brief(','.join(header))}")
    places = header.index(MINUTE), header.index(column)
    found = [_row(path, line, row, places, header) for line, row in rows]
    if not found:
        raise InputError(f"{path}: expected a row for a minute at least, got none")
    minutes, values = (np.array(part) for part in zip(*found, strict=True))
    fall = np.flatnonzero(np.diff(minutes) <= 0)
    if fall.size or minutes[0] < 0:
        at = int(fall[0]) + 1 if fall.size else 0
        raise InputError(f"{path}: row {at + 1}, column {MINUTE}: expected minutes from 0 on that rise, got "
                         f"{minutes[at]:g}")
    if minutes[-1] < until_minute:
        shorter = f", or set minutes={int(minutes[-1])}" if minutes[-1] >= 1 else ""
        raise InputError(f"{path}: its last minute is {minutes[-1]:g}, expected {until_minute:g} at least: add rows"
                         f"{shorter}")
    return _against_start(path, minutes, values, column)


def _lines(path: str) -> tuple[list[str], list[tuple[int, list[str]]]]:
    """The names in the header, and the rows that are not blank, each with the number of its line."""
    lines = csv.reader(files.read_text(path, _MOST_BYTES).removeprefix(_BYTE_ORDER).splitlines(), strict=True)
    try:
        header = [name.strip() for name in next(lines, [])]
        return header, [(lines.line_num, row) for row in lines if any(field.strip() for field in row)]
    except csv.Error as error:
        raise InputError(f"{path}: line {lines.line_num}: expected CSV: {brief(error)}") from None


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
    if column == PRICE and (minutes[0] != 0 or (values <= 0).any()):
        raise InputError(f"{path}: column {PRICE}: expected prices above 0 from minute 0 on, got {values.min():g} at "
                         f"least, from minute {minutes[0]:g} on")
    with np.errstate(over="ignore"):
        return_bp = _BP * (values / values[0] - 1) if column == PRICE else values
    far = np.abs(return_bp) > scenarios.MOST_BP
    if far.any():
        at = int(np.argmax(far))
        raise InputError(f"{path}: row {at + 1}, column {column}: expected prices within {scenarios.MOST_BP:g} bp of "
                         f"the start, got {values[at]:g}" + f", {return_bp[at]:g} bp" * (column == PRICE))
    if minutes[0] == 0 and return_bp[0]:
        raise InputError(f"{path}: row 1, column {RETURN}: expected 0 at minute 0, the start, got {return_bp[0]:g}")
    if minutes[0] == 0:
        return Curve(minutes, return_bp)
    return Curve(np.concatenate([[0.0], minutes]), np.concatenate([[0.0], return_bp]))
