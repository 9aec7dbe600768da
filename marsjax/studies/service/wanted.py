"""What is wanted of a service of futures: a request from outside, checked field by field."""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

import pandas as pd

from marsjax.core import limits, times
from marsjax.core.errors import InputError, brief
from marsjax.data import named_columns

ROWS = ("labels", "minutes", "orders")
"""What can come back of each future: its label, its minutes, its orders."""
_KEYS = ("day", "orders", "book", "time", "tick", "trajectories", "minutes", "seed", "temperature", "threshold", "rows")
_TICK = re.compile(r"\d{1,7}(\.\d{1,12})?")
_MOST_TEXT = 64
_COLUMNS = {alias for name, others in named_columns.NAMES.items() for alias in (name, *others)}


class TooLargeError(InputError):
    """A request asks for more than is served."""


@dataclasses.dataclass(frozen=True)
class MostWanted:
    """The largest request that is served."""

    trajectories: int = 256
    minutes: int = 30
    orders: int = 50_000
    """Rows of the table of orders, and of the book before them."""

    def __post_init__(self) -> None:
        for name, most in (("trajectories", limits.TRAJECTORIES), ("minutes", limits.MINUTES),
                           ("orders", limits.TRAJECTORIES)):
            limits.check_whole(f"MostWanted.{name}", getattr(self, name), 1, most)


@dataclasses.dataclass(frozen=True, eq=False)
class Wanted:
    """Futures of one starting state; `of_record` makes it."""

    day: str
    """Name of a day that the model has written, which the futures go on from; empty: `orders` lead to the start."""
    orders: pd.DataFrame | None
    """Columns as of `data.frames.from_frame`."""
    book: pd.DataFrame | None
    """What rests before the first of the orders."""
    time_ns: int
    """Of the start after orders, nanoseconds since midnight."""
    tick: str
    """Of orders: the smallest price step, in the currency."""
    trajectories: int
    minutes: int
    seed: int
    temperature: float
    threshold: float
    """Labels beyond it are up or down in the result."""
    rows: str
    """One of ROWS."""


def of_record(record: Mapping[str, Any], most: MostWanted = MostWanted()) -> Wanted:
    """A request as JSON holds it; tables may be columns (lists of equal lengths by name) or DataFrames.

    Keys: `day`, or else `orders` and `time` (HH:MM:SS), with `tick` (text, "0.01") and `book` if wanted; `minutes`;
    and `trajectories`, `seed`, `temperature`, `threshold`, `rows`. TooLargeError where a size is above `most`, else
    InputError that names the key.

    Examples:
      >>> wanted = of_record({"day": "quiet", "minutes": 2, "trajectories": 8, "rows": "minutes"})
      >>> wanted.minutes, wanted.seed
      (2, 0)
    """
    unknown = sorted(str(key) for key in set(record) - set(_KEYS))
    if unknown:
        raise InputError(f"request: unknown key {brief(unknown[0])}; known are {', '.join(_KEYS)}")
    if ("day" in record) == ("orders" in record):
        raise InputError("request: expected `day` or `orders`, one of both")
    if "day" in record and (vain := [key for key in ("time", "tick", "book") if key in record]):
        raise InputError(f"request: `{vain[0]}` has no effect with `day`: it goes with `orders`")
    if "orders" in record and "time" not in record:
        raise InputError("request: expected `time` with `orders`, HH:MM:SS of the start")
    rows = _text(record, "rows", ROWS[0])
    if rows not in ROWS:
        raise InputError(f"request: rows: expected {', '.join(ROWS)}, got {brief(rows)}")
    tick = _text(record, "tick", "0.01")
    if not _TICK.fullmatch(tick):
        raise InputError(f"request: tick: expected a number as text, as \"0.01\", got {brief(tick)}")
    if "minutes" not in record:
        raise InputError("request: expected `minutes`, the length of the futures")
    temperature, threshold = _number(record, "temperature", 1.0), _number(record, "threshold", 0.0)
    limits.check_temperature("request: temperature", temperature)
    if not 0 <= threshold < 1:
        raise InputError(f"request: threshold: expected a number of at least 0 and below 1, got {threshold}")
    return Wanted(
        day=_text(record, "day", ""), orders=_table(record, "orders", most), book=_table(record, "book", most),
        time_ns=times.of_clock(_text(record, "time", "00:00:00")), tick=tick,
        trajectories=_size(record, "trajectories", 16, most.trajectories),
        minutes=_size(record, "minutes", 1, most.minutes), seed=_whole(record, "seed", 0, 0, limits.SEED),
        temperature=temperature, threshold=threshold, rows=rows)


def _whole(record: Mapping[str, Any], key: str, default: int, low: int, high: int) -> int:
    value = record.get(key, default)
    if type(value) is not int or not low <= value <= high:
        raise InputError(f"request: {key}: expected a whole number of {low} to {high}, got {brief(value)}")
    return value


def _size(record: Mapping[str, Any], key: str, default: int, most: int) -> int:
    value = record.get(key, min(default, most))
    if type(value) is int and value > most:
        raise TooLargeError(f"request: {key}: expected at most {most}, got {brief(value)}")
    return _whole(record, key, min(default, most), 1, most)


def _number(record: Mapping[str, Any], key: str, default: float) -> float:
    value = record.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int | float) or abs(value) > 1e9:
        raise InputError(f"request: {key}: expected a number, got {brief(value)}")
    return float(value)


def _text(record: Mapping[str, Any], key: str, default: str) -> str:
    value = record.get(key, default)
    if not isinstance(value, str) or len(value) > _MOST_TEXT:
        raise InputError(f"request: {key}: expected text of at most {_MOST_TEXT} characters, got {brief(value)}")
    return value


def _table(record: Mapping[str, Any], key: str, most: MostWanted) -> pd.DataFrame | None:
    """The table of a key, None where there is none."""
    if key not in record:
        return None
    given = record[key]
    names = list(given) if isinstance(given, dict | pd.DataFrame) else []
    if not names:
        raise InputError(f"request: {key}: expected columns by their names, got {brief(given)}")
    for name in names:
        if not isinstance(name, str) or name.strip().lower() not in _COLUMNS:
            raise InputError(f"request: {key}: unknown column {brief(name)}; known are "
                             f"{', '.join(named_columns.NAMES)}")
    if isinstance(given, dict):
        lengths = {len(column) if isinstance(column, list) else -1 for column in given.values()}
        if len(lengths) != 1 or -1 in lengths:
            raise InputError(f"request: {key}: expected columns that are lists of one length")
        count = lengths.pop()
    else:
        count = len(given)
    if count > most.orders:
        raise TooLargeError(f"request: {key}: expected at most {most.orders} rows, got {count}")
    if not count:
        raise InputError(f"request: {key}: expected at least one row, got none")
    return given if isinstance(given, pd.DataFrame) else _frame(key, given)


def _frame(key: str, columns: Mapping[str, list[Any]]) -> pd.DataFrame:
    for name, column in columns.items():
        for row, value in enumerate(column):
            is_plain = value is None or (isinstance(value, str) and len(value) <= _MOST_TEXT) or (
                isinstance(value, int | float) and not isinstance(value, bool) and abs(value) < 2**63)
            if not is_plain:
                raise InputError(f"request: {key}: row {row}, column {name}: expected a number or a short text, got "
                                 f"{brief(value)}")
    return pd.DataFrame(dict(columns))
