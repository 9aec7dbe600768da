"""Minute bars of many rollouts: one table for real days, simulated rollouts and files.

A bar holds the orders whose times, *rounded* to the nearest minute (half to the even one), are its time: 25 minutes of
trading make 26 bars, the first and the last of half a minute. Reference: analyses.
"""

import csv
import dataclasses
import itertools
import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import pandas as pd

from marsjax.core import files, int64, times
from marsjax.core.errors import InputError, brief
from marsjax.core.records import BookView, Kind, Order, Report, Status
from marsjax.core.times import SECOND_NS
from marsjax.observers.bars import Bars

MINUTE_NS = 60 * SECOND_NS
HISTORICAL, SIMULATED = "Replay", "Simulation"
"""The two sources, as files of bars call them."""
NUMBERS = ("price_last", "price_mean", "price_mid", "price_mid_last", "volume")
COLUMNS = ("symbol", "rollout", "source", "time", *NUMBERS)
"""Of a file of bars, in order."""
_TIME_FORMAT = "%Y-%m-%d %H:%M:%S"
MOST_NUMBER = 2**53
"""Above it float64 no longer holds every whole number, and sums of what a file may hold no longer fit anything."""
LONGEST_NAME = 64
"""Most characters of a symbol or a source: each row of a table holds as many as the longest has."""
_MOST_LINE, _BLOCK_ROWS = 2**12, 2**15


@dataclasses.dataclass(frozen=True, eq=False)
class MinuteBars:
    """Bars, one a row, NumPy arrays [N] in any order of rows; a minute without an order has no row."""

    symbol: np.ndarray
    """str."""
    rollout: np.ndarray
    """int64, number of the rollout among those of its symbol and source."""
    source: np.ndarray
    """str: HISTORICAL, SIMULATED or another name."""
    time: np.ndarray
    """datetime64[s], the minute that the orders' times round to."""
    price_last: np.ndarray
    """float64, 1e-4 of the currency: price of the last trade up to the minute's last order; NaN before any."""
    price_mean: np.ndarray
    """float64, mean over the minute's orders of the price of the last trade after each."""
    price_mid: np.ndarray
    """float64, mean over the minute's orders of the mid (half ticks kept) after each."""
    price_mid_last: np.ndarray
    """float64, that mid after the minute's last order; NaN while there is none."""
    volume: np.ndarray
    """float64, shares traded."""

    def __post_init__(self) -> None:
        sizes = {name: np.shape(getattr(self, name)) for name in COLUMNS}
        if len(set(sizes.values())) != 1 or len(sizes["time"]) != 1:
            raise InputError(f"MinuteBars: expected columns of one length, got {sizes}")

    def __len__(self) -> int:
        return len(self.time)

    def frame(self) -> pd.DataFrame:
        """The table with the columns of a file."""
        return pd.DataFrame({name: getattr(self, name) for name in COLUMNS})

    def where(self, keep: np.ndarray) -> "MinuteBars":
        """The rows of a mask, bool [N], or of indices."""
        return MinuteBars(*(getattr(self, name)[keep] for name in COLUMNS))


class OrderTrace(NamedTuple):
    """What minute bars are made of: one row an accepted order of one market, NumPy arrays [N] in order of time."""

    time_ns: np.ndarray
    """int64, since midnight."""
    price_last: np.ndarray
    """float64, price of the last trade after the order, 1e-4 of the currency; NaN before any."""
    mid: np.ndarray
    """float64, mid after it; NaN where there is none."""
    volume: np.ndarray
    """int64, shares that it traded on arrival."""


def join(parts: Sequence[MinuteBars]) -> MinuteBars:
    """All rows of several tables."""
    if not parts:
        raise InputError("join: expected at least one table of bars, got none")
    return MinuteBars(*(np.concatenate([getattr(part, name) for part in parts]) for name in COLUMNS))


def numbered_on(parts: Sequence[MinuteBars]) -> list[MinuteBars]:
    """The tables with rollouts that differ where they are of different tables: days of one symbol each count from 0.

    Of each symbol and source those of a table come after those of the tables before it, in their sequence.
    """
    following: dict[tuple[str, str], int] = {}
    found = []
    for part in parts:
        rollout = np.array(part.rollout)
        for key in sorted({*zip(part.symbol.tolist(), part.source.tolist(), strict=True)}):
            rows = (part.symbol == key[0]) & (part.source == key[1])
            rollout[rows] += following.get(key, 0) - part.rollout[rows].min()
            following[key] = int(rollout[rows].max()) + 1
        found.append(dataclasses.replace(part, rollout=rollout))
    return found


def of_dense(symbol: str, source: str, start: np.datetime64 | np.ndarray, dense: Bars, first: int = 0,
             keep: np.ndarray | None = None) -> MinuteBars:
    """Bars of B rollouts of M minutes each, added up on the device; a minute without an order has no bar.

    Args:
      symbol: of all of them.
      source: of all of them.
      start: date and time of bar 0, datetime64, one for all or [B].
      dense: [B, M], bars of times that are rounded to the nearest minute (`MinuteBarObserver.nearest`).
      first: number of the first rollout.
      keep: bool [B], rollouts that have bars; all if None.
    """
    dense = jax.tree.map(np.asarray, dense)
    orders = dense.orders.astype(np.float64)
    shown = (orders > 0) if keep is None else (orders > 0) & keep[:, None]
    row, minute = np.nonzero(shown)
    with np.errstate(divide="ignore", invalid="ignore"):
        prices = {"price_last": dense.price_last.astype(np.float64),
                  "price_mean": int64.to_numpy(dense.price_sum) / dense.priced,
                  "price_mid": int64.to_numpy(dense.mid_twice_sum) / (2 * orders),
                  "price_mid_last": dense.mid_twice_last / 2}
    starts = np.broadcast_to(np.asarray(start, "datetime64[s]"), orders.shape[:1])
    columns = {name: values[row, minute] for name, values in prices.items()}
    return MinuteBars(
        np.full(len(row), symbol), row.astype(np.int64) + first, np.full(len(row), source),
        starts[row] + minute.astype("timedelta64[m]"),
        volume=int64.to_numpy(dense.volume)[row, minute].astype(np.float64),
        **{name: np.where(values > 0, values, np.nan) for name, values in columns.items()})


def trace(orders: Order, reports: Report, views: BookView) -> OrderTrace:
    """The rows of a stretch of orders [N] on the host, as a replay yields them; rejected orders are left out."""
    keep = np.asarray(reports.status) == Status.ACCEPTED
    last, mid = np.asarray(views.last_price, np.float64), np.asarray(views.mid_price_twice) / 2
    is_fill = np.asarray(reports.trades.kind) != Kind.CANCEL
    traded = np.where(is_fill, int64.to_numpy(reports.trades.volume), 0)
    rows = OrderTrace(times.to_ns(orders.time), np.where(last > 0, last, np.nan),
                 np.where(np.asarray(views.has_mid), mid, np.nan), traded)
    return OrderTrace(*(column[keep] for column in rows))


def of_traces(parts: Sequence[OrderTrace], date: str | np.datetime64, symbol: str, source: str = HISTORICAL,
              rollout: int = 0, from_ns: int = 0, until_ns: int = 2**62) -> MinuteBars:
    """Bars of one stretch of one day (20240306 or 2024-03-06), as one rollout.

    They hold the orders of all parts with from_ns < time <= until_ns, nanoseconds since midnight. InputError for a date
    that is none.
    """
    midnight = pd.Timestamp(date).normalize().to_datetime64().astype("datetime64[s]")
    time_ns, last, mid, volume = (np.concatenate(columns) for columns in zip(*parts, strict=True))
    keep = (time_ns > from_ns) & (time_ns <= until_ns)
    table = pd.DataFrame({"price_last": last, "price_mean": last, "price_mid": mid, "price_mid_last": mid,
                          "volume": volume.astype(np.float64)})[keep]
    grouped = table.groupby(nearest_minute(time_ns[keep]))
    # The groups are sorted, and `nth` leaves their rows in the order of the orders, whose times do not fall; `last`
    # would skip NaN.
    final = grouped[["price_last", "price_mid_last"]].nth(-1).to_numpy()
    means = grouped[["price_mean", "price_mid"]].mean().to_numpy()
    minute = np.array(list(grouped.groups), np.int64)
    size = len(minute)
    return MinuteBars(np.full(size, symbol), np.full(size, rollout, np.int64), np.full(size, source),
                      midnight + minute.astype("timedelta64[m]"), final[:, 0], means[:, 0], means[:, 1],
                      final[:, 1], grouped["volume"].sum().to_numpy())


def nearest_minute(time_ns: np.ndarray) -> np.ndarray:
    """Nanoseconds since midnight -> whole minutes, int64, rounded; half a minute goes to the even one."""
    minute, rest = np.divmod(np.asarray(time_ns, np.int64), MINUTE_NS)
    return minute + ((2 * rest > MINUTE_NS) | ((2 * rest == MINUTE_NS) & (minute % 2 == 1)))


def write(path: str | os.PathLike[str], bars: MinuteBars) -> None:
    """Writes a CSV, gzipped if its name ends in .gz; the numbers come back exactly."""
    # pandas' own date_format is slow.
    table = bars.frame().assign(time=np.char.replace(np.datetime_as_string(bars.time, unit="s"), "T", " "))
    gzipped: Any = {"method": "gzip", "compresslevel": 1} if str(path).endswith(".gz") else None
    table.to_csv(path, index=False, compression=gzipped)


def read(path: str | os.PathLike[str]) -> MinuteBars:
    """Reads a CSV of bars, plain or gzipped, with exactly the columns COLUMNS.

    Empty numbers become NaN. Raises OSError where the file cannot be opened, and InputError with file, line and value
    where a row has fields too few or too many, or something is no number or no time.
    """
    if not os.path.exists(path):
        raise FileNotFoundError(f"{path}: no such file of bars")
    reader = csv.reader(files.text_lines(path, _MOST_LINE), strict=True)
    rows = ((reader.line_num, row) for row in reader if row)
    parts: list[MinuteBars] = []
    try:
        _, names = next(rows, (1, []))
        if not names:
            raise InputError(f"{path}: expected a CSV of minute bars with a header, got an empty file")
        while block := list(itertools.islice(rows, _BLOCK_ROWS)):
            _check_columns(names, str(path))
            for line, row in block:
                if len(row) != len(names):
                    raise InputError(f"{path}: line {line}: expected {len(names)} fields, got {len(row)}")
            table = pd.DataFrame([row for _, row in block], columns=names, dtype=str)
            parts.append(_of_table(table, str(path), np.array([line for line, _ in block])))
    except csv.Error as error:
        raise InputError(f"{path}: line {reader.line_num}: expected a CSV of minute bars: {brief(error)}") from None
    return join(parts) if parts else from_frame(pd.DataFrame(columns=names, dtype=str), str(path))


def from_frame(table: pd.DataFrame, where: str = "bars") -> MinuteBars:
    """A table with exactly the columns COLUMNS, as text or typed; errors as those of `read`, named by `where`."""
    _check_columns([str(name) for name in table], where)
    return _of_table(table, where, np.arange(len(table)) + 2)


def _check_columns(names: Sequence[str], where: str) -> None:
    missing = [name for name in COLUMNS if name not in names]
    unknown = [name for name in names if name not in COLUMNS] or [x for x in COLUMNS if list(names).count(x) > 1]
    if missing or unknown:
        raise InputError(f"{where}: expected columns {', '.join(COLUMNS)}; missing: {', '.join(missing) or 'none'}, "
                         f"unknown: {brief(', '.join(unknown) or 'none')[1:-1]}")


def _of_table(table: pd.DataFrame, where: str, lines: np.ndarray) -> MinuteBars:
    """Checks a table whose rows stand on `lines` [N] of a file, or would."""

    def require(good: np.ndarray, name: str, expected: str) -> None:
        if not good.all():
            row = int(np.argmin(good))
            raise InputError(f"{where}: line {lines[row]}, column {name}: expected {expected}, "
                             f"got {brief(table[name].iloc[row])}")

    texts = {}
    for name in ("symbol", "source"):
        column = table[name].astype(str)
        require((column.str.len() <= LONGEST_NAME).to_numpy(bool), name, f"at most {LONGEST_NAME} characters")
        texts[name] = column.to_numpy(str)
    numbers = {}
    for name in ("rollout", *NUMBERS):
        found, is_empty = _numbers(table[name])
        require(~np.isnan(found) | is_empty, name, "a number")
        if name == "rollout":
            require(np.isfinite(found) & (found == np.floor(found)), name, "a whole number")
        # Infinite ones of a rollout are for who looks at it as a whole.
        require(is_empty | np.isinf(found) | (np.abs(found) < MOST_NUMBER), name, "a number below 2**53")
        numbers[name] = found
    moments = pd.to_datetime(table["time"], format=_TIME_FORMAT, errors="coerce")
    require(moments.notna().to_numpy(bool), "time", "a time like 2024-03-06 10:23:00")
    return MinuteBars(texts["symbol"], numbers.pop("rollout").astype(np.int64), texts["source"],
                      moments.to_numpy("datetime64[s]"), **numbers)


def _numbers(column: pd.Series) -> tuple[np.ndarray, np.ndarray]:
    """float64 [N], NaN where there is no number, and bool [N], where nothing stands."""
    if column.dtype.kind in "biuf":
        found = column.to_numpy(np.float64)
    else:  # by Python's own float, which rounds right whatever pandas there is
        found = np.array([_number(text) for text in column.astype(str)], np.float64)
    is_empty = np.isnan(found)
    left = column[is_empty]
    is_empty[is_empty] = left.isna() | left.astype(str).str.strip().str.lower().isin(("", "nan", "none"))
    return found, is_empty


def _number(text: str) -> float:
    """A text as a number, NaN where it is none."""
    try:
        return float(text) if text.isascii() and "_" not in text else np.nan
    except ValueError:
        return np.nan
