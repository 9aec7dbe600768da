"""Tables of pandas with checked columns: names as people give them, and errors that name row, column and value."""

from collections.abc import Mapping

import numpy as np
import pandas as pd

from marsjax.core.errors import InputError, brief
from marsjax.core.times import DAY_NS
from marsjax.data import csv_fields

NAMES = {
    "time_ns": (), "time": ("timestamp", "datetime"), "type": (), "side": (), "action": (), "price": (),
    "volume": ("size", "qty", "quantity", "shares"), "order_id": ("id", "orderid"), "cancel_type": ("cancel_side",),
    "cancel_id": (), "agent_id": ("account", "agent", "account_id"), "condition": ("time_in_force", "tif"),
}  # fmt: skip
"""What each column may also be called; capitals do not matter."""
_NS = {"s": 10**9, "ms": 10**6, "us": 1000, "ns": 1}


class NamedColumns:
    """The columns of a DataFrame [N] that have a name of `NAMES`, each checked as it is asked for."""

    def __init__(self, frame: pd.DataFrame, where: str, row_word: str = "row") -> None:
        """`where` names the table in errors, `row_word` a row, which is shown by its index."""
        if not isinstance(frame, pd.DataFrame):
            raise InputError(f"{where}: expected a DataFrame, got {brief(frame)}")
        self.where = where
        self._row_word, self._index = row_word, frame.index
        self._columns: dict[str, tuple[str, pd.Series]] = {}
        known = {alias: name for name, others in NAMES.items() for alias in (name, *others)}
        for place, label in enumerate(frame.columns):
            name = known.get(str(label).strip().lower())
            if name is None:
                continue
            if name in self._columns:
                raise InputError(f"{where}: expected one column for {name}, got {self._columns[name][0]!r} and "
                                 f"{str(label)!r}: rename or drop one")
            self._columns[name] = str(label), frame.iloc[:, place]

    def __len__(self) -> int:
        return len(self._index)

    def __contains__(self, name: str) -> bool:
        return name in self._columns

    def require_columns(self, *names: str) -> None:
        """InputError where a column is missing."""
        for name in names:
            if name not in self:
                also = f" (or {', '.join(NAMES[name])})" if NAMES[name] else ""
                raise InputError(f"{self.where}: expected a column {name}{also}, got "
                                 f"{', '.join(label for label, _ in self._columns.values()) or 'none of those known'}")

    def error(self, row: int, name: str, expected: str) -> InputError:
        """The error for a value of the table."""
        label, column = self._columns[name]
        value = column.iloc[row]
        value = value.item() if isinstance(value, np.generic) else value
        shown = brief(value) if isinstance(value, str | int | float | None) else brief(str(value))
        return InputError(f"{self.where}: {self._row_word} {self._index[row]!s}, column {label}: expected {expected}, "
                          f"got {shown}")

    def require(self, good: np.ndarray, name: str, expected: str) -> None:
        """InputError at the first row where `good` (bool [N]) does not hold."""
        if not good.all():
            raise self.error(int(np.argmin(good)), name, expected)

    def missing(self, name: str) -> np.ndarray:
        """bool [N], where a column has no value."""
        column = self._columns[name][1]
        absent = column.isna().to_numpy(bool)
        if column.dtype.kind == "O" or isinstance(column.dtype, pd.StringDtype | pd.CategoricalDtype):
            absent = absent | column.astype(str).str.strip().isin(["", "None"]).to_numpy(bool)
        return absent

    def _texts(self, name: str) -> csv_fields.Fields:
        column = self._columns[name][1]
        return csv_fields.of_texts(column.astype(object).where(~self.missing(name), "").astype(str).tolist())

    def numbers(self, name: str) -> np.ndarray:
        """float64 or int64 [N], NaN where there is no value; InputError at what is no number."""
        column = self._columns[name][1]
        if isinstance(column.dtype, np.dtype) and column.dtype.kind in "iu":
            return column.to_numpy()
        if isinstance(column.dtype, np.dtype) and column.dtype.kind == "f":
            values = column.to_numpy(np.float64)
        else:
            values = csv_fields.numbers(self._texts(name))
        self.require(np.isfinite(values) | self.missing(name), name, "a number")
        return values

    def integers(self, name: str, low: int, high: int, absent: int | None = None) -> np.ndarray:
        """int64 [N]; `absent` where there is no value. InputError at what is no whole number from low to high."""
        values = self.numbers(name)
        if absent is not None and values.dtype.kind == "f":
            values = np.where(self.missing(name), absent, values)
        self.require((values >= low) & (values <= high) & (values == np.rint(values)), name,
                     f"a whole number from {low} to {high}")
        return values.astype(np.int64)

    def multiples(self, name: str, unit: float, step: int, high: int, what: str, rows: np.ndarray | None = None
                  ) -> np.ndarray:
        """Numbers in whole steps of `step` units, up to rounding -> int64 [N] units, above 0 and at most `high`.

        InputError at any other, of the `rows` (bool [N]) only where they are given.
        """
        values = self.numbers(name) / unit
        steps = np.rint(values / step)
        # Numbers as decimal text are close to it; what is a tenth of a step away is another number.
        near = np.abs(values / step - steps) <= np.maximum(1e-6, np.abs(steps) * 1e-12)
        good = near & (steps > 0) & (steps * step <= high)
        self.require(good if rows is None else good | ~rows, name, what)
        return np.where(good, steps, 0).astype(np.int64) * step

    def codes(self, name: str, meaning: Mapping[str, int], absent: int | None = None) -> np.ndarray:
        """The numbers that words stand for, int64 [N], capitals do not matter; `absent` where there is no value."""
        fields = self._texts(name)
        texts, place = np.unique([fields.text(row).strip().lower() for row in range(len(self))], return_inverse=True)
        numbers = dict(meaning) | ({"": absent} if absent is not None else {})
        self.require(np.array([text in numbers for text in texts], bool)[place], name,
                     f"one of {', '.join(list(meaning)[:12])}")
        return np.array([numbers[text] for text in texts], np.int64)[place]

    def _require_ns(self) -> None:
        """InputError at a time, of whatever unit, that is none or that nanoseconds in 64 bits do not hold."""
        self.require(~self.missing("time"), "time", "a time")
        label, column = self._columns["time"]
        if isinstance(column.dtype, pd.DatetimeTZDtype):
            unit: str = column.dtype.unit
        elif isinstance(column.dtype, np.dtype):
            unit = column.dtype.str.partition("[")[2].rstrip("]")
        else:
            return  # of pyarrow, which checks them itself
        counted = column.astype(np.int64).to_numpy()
        # A day less on both sides, which a change of zone may take.
        most = (2**63 - 1 - DAY_NS) // _NS[unit]
        good = (counted >= -most) & (counted <= most)
        if not good.all():  # pandas does not even show such a time
            row = int(np.argmin(good))
            raise InputError(f"{self.where}: {self._row_word} {self._index[row]!s}, column {label}: expected a time "
                             f"that nanoseconds in 64 bits hold, got {counted[row]} {unit}")

    def clock_ns(self) -> tuple[np.ndarray, str]:
        """Time of day, int64 [N] nanoseconds since midnight, and the date that stands with it, empty where none does.

        From `time_ns` (whole numbers), or `time`: datetime64 (the clock of its zone), timedelta64, or texts as
        `csv_fields.clock` reads them, without an offset.
        """
        if "time_ns" in self:
            return self.integers("time_ns", 0, DAY_NS - 1), ""
        self.require_columns("time")
        column = self._columns["time"][1]
        if pd.api.types.is_datetime64_any_dtype(column.dtype):
            self._require_ns()
            local = column.dt.tz_localize(None).astype("datetime64[ns]").to_numpy()
            days = local.astype("datetime64[D]")
            self.require(days == days[:1], "time", f"times of one day, {days[0] if len(days) else ''}")
            return (local - days).astype(np.int64), str(days[0]) if len(days) else ""
        if column.dtype.kind == "m":
            self._require_ns()
            ns = column.astype("timedelta64[ns]").to_numpy().astype(np.int64)
            self.require((ns >= 0) & (ns < DAY_NS), "time", "a time since midnight")
            return ns, ""
        if column.dtype.kind in "iuf":
            raise self.error(0, "time", "times, not plain numbers (call whole nanoseconds since midnight time_ns)")
        times = csv_fields.clock(self._texts("time"))
        self.require(times.good & ~times.has_offset, "time", "a time HH:MM:SS.mmm, without an offset")
        date = times.date.text(0) if len(self) else ""
        self.require(times.date.equal(date), "time", f"the date {date or '(none)'} in every row")
        return times.ns, date
