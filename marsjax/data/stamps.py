"""Stamps of time with a date -> nanoseconds since the midnight of one day at the place of the exchange."""

import datetime
import zoneinfo

import numpy as np

from marsjax.core.errors import InputError
from marsjax.core.times import DAY_NS, SECOND_NS
from marsjax.data import csv_fields
from marsjax.data.csv_fields import Fields
from marsjax.data.csv_rows import Rows

_LAST = 2**62
"""Nanoseconds since 1970 up to here, in the year 2116, are times."""


def utc_ns(rows: Rows, column: str) -> np.ndarray:
    """A column of ISO 8601 stamps with Z or an offset, or of nanoseconds since 1970 -> int64 [N], nanoseconds of UTC.

    Raises FeedError for a stamp that does not say where it holds, and for anything else.
    """
    fields = rows.columns[column].stripped()
    if not (fields.at(4) == ord("-")).any():
        ns, good = whole_numbers(fields)
        rows.require(good & (ns > 0) & (ns < _LAST), column, "nanoseconds since 1970, or a time with a date and Z")
        return ns.astype(np.int64)
    times = csv_fields.clock(fields)
    days, is_day = _days(times.date)
    rows.require(times.good & times.has_offset & (times.date.length == 10), column,
                 "a time such as 2025-07-17T13:30:00.123456789Z, with Z or an offset")
    rows.require(is_day, column, "a day of the calendar from 1970 to 2115")
    return days * DAY_NS + times.ns - times.offset_s * SECOND_NS


def _days(dates: Fields) -> tuple[np.ndarray, np.ndarray]:
    """YYYY-MM-DD -> days since 1970, int64 [N], and bool [N] whether there is such a day."""
    (year, _, is_year), (month, _, is_month), (day, _, is_day) = (
        csv_fields.decimals(dates.part(begin, np.full(len(dates.start), end)))
        for begin, end in ((0, 4), (5, 7), (8, 10)))
    good = is_year & is_month & is_day & (dates.at(4) == ord("-")) & (dates.at(7) == ord("-"))
    good &= (year >= 1970) & (year < 2116) & (month >= 1) & (month <= 12) & (day >= 1)
    months = np.where(good, (year - 1970) * 12 + month - 1, 0)
    first, after = ((months + more).astype("datetime64[M]").astype("datetime64[D]").astype(np.int64) for more in (0, 1))
    return first + day - 1, good & (day <= after - first)


def whole_numbers(fields: Fields) -> tuple[np.ndarray, np.ndarray]:
    """Digits of a number below 2**64 -> uint64 [N], exact, and bool [N] whether it is one."""
    length = fields.length
    front = np.maximum(length - 9, 0)
    (high, _, is_high), (low, behind, is_low) = (csv_fields.decimals(part) for part in (
        fields.part(0, front), fields.part(front, length)))
    good = is_low & (behind == 0) & (low >= 0) & (is_high | (front == 0)) & (length <= 20)
    good &= (fields.at(0) - np.uint8(ord("0")) <= 9) & ((front == 0) | (fields.at(front) - np.uint8(ord("0")) <= 9))
    high = np.where(front == 0, 0, high)
    most = 2**64 // 10**9
    good &= (high < most) | ((high == most) & (low < 2**64 % 10**9))
    return high.astype(np.uint64) * np.uint64(10**9) + np.where(good, low, 0).astype(np.uint64), good


class LocalDay:
    """The day of a feed's first stamp at the place of its exchange; all of the feed must lie in it."""

    def __init__(self, time_zone: str, first_ns: int) -> None:
        self.time_zone = time_zone
        at = datetime.datetime.fromtimestamp(first_ns // SECOND_NS, _zone(time_zone))
        offset = at.utcoffset() or datetime.timedelta(0)
        self.date = at.date().isoformat()
        """YYYY-MM-DD."""
        shift = (offset.days * 86_400 + offset.seconds) * SECOND_NS
        self._midnight_ns = (first_ns + shift) // DAY_NS * DAY_NS - shift

        self.expected = (f"a time of {self.date} in {time_zone}, as the first one: cut the file at midnight, or give a "
                         "time_zone in which it lies in one day")
        """What a time outside the day is told."""

    def holds(self, stamps: np.ndarray) -> np.ndarray:
        """bool [N]: nanoseconds of UTC, int64 [N], lie in the day."""
        return (stamps >= self._midnight_ns) & (stamps - self._midnight_ns < DAY_NS)

    def times(self, stamps: np.ndarray) -> np.ndarray:
        """Nanoseconds of UTC, int64 [N], of the day -> nanoseconds since midnight."""
        return stamps - self._midnight_ns


def _zone(name: str) -> datetime.tzinfo:
    if name == "UTC":
        return datetime.UTC
    try:
        return zoneinfo.ZoneInfo(name)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError) as error:
        raise InputError(f"time_zone: expected a name such as UTC or America/New_York (pip install tzdata if the "
                         f"system has none), got {name!r}") from error
