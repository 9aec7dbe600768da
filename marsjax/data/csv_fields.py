"""Texts of one column, as places in a buffer of bytes -> numbers, times and codes; whole columns at a time.

A text is taken as a whole or not at all: what is no number or time is marked, never cut.
"""

import dataclasses
import re

import numpy as np

from marsjax.core.times import DAY_NS, SECOND_NS

_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,3})?")
_EXACT = 2**53
"""Whole numbers up to here are exact as float64, so that one division by a power of ten rounds correctly."""
_MOST_DIGITS = 18
"""Digits that fit in an int64."""
PADDING = 64
_TENS = 10 ** np.arange(_MOST_DIGITS + 1)
_HALF_EMPTY = np.arange(32, -1, -4).astype(np.uint64)
"""Half the bits of a word that 0 to 8 bytes leave empty: a shift by all 64 at once is not defined."""
# Eight digits as bytes of a word: the digit 0 in each, what lifts 10 to the top bit of its byte, these bits.
_ZEROS, _TO_THE_TOP, _TOPS = (np.uint64(byte * 0x0101010101010101) for byte in (0x30, 0x76, 0x80))
_PAIRS = tuple((np.uint64(bits), np.uint64(ten), np.uint64(mask)) for bits, ten, mask in (
    (8, 10, 0x00FF00FF00FF00FF), (16, 100, 0x0000FFFF0000FFFF), (32, 10_000, 0xFFFFFFFF)))
"""Neighbouring numbers of a word become one, three times: bits between them, worth of the first, what is kept."""
_COLON, _POINT, _ZERO = ord(":"), ord("."), ord("0")


@dataclasses.dataclass(frozen=True)
class Fields:
    """N texts of a buffer."""

    data: np.ndarray
    """uint8 [B], the texts and at least `PADDING` bytes behind the last."""
    start: np.ndarray
    """int64 [N], the first byte of each."""
    end: np.ndarray
    """int64 [N], one past its last byte."""

    @property
    def length(self) -> np.ndarray:
        """int64 [N], bytes of each."""
        return self.end - self.start

    def at(self, place: np.ndarray | int) -> np.ndarray:
        """uint8 [N], the byte at a place of each, 0 to PADDING; where a text is shorter, what stands behind it."""
        return self.data[self.start + place]

    def part(self, begin: np.ndarray | int, end: np.ndarray) -> "Fields":
        """From place `begin` to before place `end` of each."""
        return Fields(self.data, self.start + begin, self.start + end)

    def where(self, rows: np.ndarray) -> "Fields":
        """Those of some rows, given by a mask or by their numbers."""
        return Fields(self.data, self.start[rows], self.end[rows])

    def text(self, row: int) -> str:
        """One of them."""
        return self.data[self.start[row] : self.end[row]].tobytes().decode("utf-8", errors="replace")

    def stripped(self) -> "Fields":
        """Without the spaces around them."""
        start, end = self.start, self.end
        while (padded := (start < end) & (self.data[start] == ord(" "))).any():
            start = start + padded
        while (padded := (start < end) & (self.data[np.maximum(end - 1, 0)] == ord(" "))).any():
            end = end - padded
        return Fields(self.data, start, end)

    def equal(self, text: str) -> np.ndarray:
        """bool [N], whether each is this text."""
        wanted = text.encode()
        same = self.length == len(wanted)
        for place, byte in enumerate(wanted[:PADDING]):
            same &= self.at(place) == byte
        return same


def decimals(fields: Fields) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Plain decimal numbers, [+-]digits[.digits], of at most 18 digits.

    Returns:
      int64 [N] the digits as one number with its sign, int64 [N] how many of them stand behind the point, bool [N]
      whether it is such a number; the others may be numbers of another form.
    """
    value, good = _digits(fields)
    behind = np.zeros(len(value), np.int64)
    if not good.all():
        others = np.flatnonzero(~good)
        value[others], behind[others], good[others] = _signed_or_pointed(fields.where(others))
    return value, behind, good


def _digits(fields: Fields) -> tuple[np.ndarray, np.ndarray]:
    """Texts of 1 to 18 digits -> int64 [N], and bool [N] whether each is one; eight bytes of all texts at a time."""
    data, length = fields.data, fields.length
    words = np.ndarray((len(data) - 7,), "<u8", data, strides=(1,))  # from each byte on
    value, good = np.zeros(len(length), np.int64), (length > 0) & (length <= _MOST_DIGITS)
    for place in range(0, min(int(length.max(initial=0)), _MOST_DIGITS), 8):
        count = np.clip(length - place, 0, 8)
        # A word's first byte is its lowest: what stands behind the text goes out at the top, zeros come in below.
        empty = _HALF_EMPTY[count]
        word = ((words[fields.start + place] ^ _ZEROS) << empty) << empty
        good &= ((word + _TO_THE_TOP | word) & _TOPS) == 0  # every byte from 0 to 9
        for bits, ten, mask in _PAIRS:
            below = word >> bits
            word *= ten
            word += below
            word &= mask
        value = value * _TENS[count] + word.astype(np.int64) if place else word.astype(np.int64)
    return value, good


def _signed_or_pointed(fields: Fields) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """`decimals` of texts that may have a sign and a point."""
    start, end = fields.start + _is_sign(fields), fields.end
    low = int(start.min())
    points = low + np.flatnonzero(fields.data[low:int(end.max())] == _POINT)
    point = np.append(points, len(fields.data))[np.searchsorted(points, start)]
    is_pointed = point < end
    point = np.where(is_pointed, point, end)
    whole, fraction = Fields(fields.data, start, point), Fields(fields.data, point + is_pointed, end)
    (high, is_high), (low_digits, is_low) = _digits(whole), _digits(fraction)
    behind = fraction.length
    good = (is_high | (whole.length == 0)) & (is_low | (behind == 0))
    good &= (whole.length + behind > 0) & (whole.length + behind <= _MOST_DIGITS) & (fields.length <= _MOST_DIGITS + 2)
    value = np.where(good, high * _TENS[np.minimum(behind, _MOST_DIGITS)] + low_digits, 0)
    return np.where(fields.at(0) == ord("-"), -value, value), np.where(good, behind, 0), good


def _is_sign(fields: Fields) -> np.ndarray:
    return (fields.at(0) == ord("-")) | (fields.at(0) == ord("+"))


def numbers(fields: Fields) -> np.ndarray:
    """float64 [N], or int64 [N] where all are whole; NaN where a text is no finite number."""
    fields = fields.stripped()
    value, behind, good = decimals(fields)
    if good.all() and not behind.any():
        return value
    exact = good & ((behind == 0) | (np.abs(value) < _EXACT))
    result = np.where(behind == 0, value, value / 10.0 ** np.minimum(behind, _MOST_DIGITS))
    for row in np.flatnonzero(~exact).tolist():
        text = fields.text(row)
        result[row] = float(text) if _NUMBER.fullmatch(text) else np.nan
    return np.where(np.isfinite(result), result, np.nan)


@dataclasses.dataclass(frozen=True)
class Clock:
    """Times of day as texts write them, [N] each."""

    ns: np.ndarray
    """int64, nanoseconds since midnight of the clock shown."""
    good: np.ndarray
    """bool, whether it is a time."""
    date: Fields
    """The date before it, an empty text where there is none."""
    offset_s: np.ndarray
    """int64, seconds that the clock shown is ahead of UTC."""
    has_offset: np.ndarray
    """bool, whether that is written."""


def clock(fields: Fields) -> Clock:
    """Reads HH:MM:SS, with up to nine decimals, a date before it and an offset (Z, +HH:MM) behind it, all optional.

    Also HHMMSSmmm as a whole number (its first zero may be missing), and YYYYMMDDHHMMSSmmm.
    """
    length = fields.length
    is_long = length > len("HH:MM:SS.123456789")
    dated = (length >= len("YYYY-MM-DDTHH:MM:SS")) & np.isin(fields.at(10), (ord("T"), ord(" ")))
    date_size = np.where(dated, 10, 0)
    offset_s, offset_size, has_offset = _offsets(fields)
    ns, good = _with_colons(fields.part(np.where(dated, 11, 0), length - offset_size))
    is_plain = ~good & ~is_long & ~has_offset & ~dated
    if is_plain.any():
        is_stamp = is_plain & (length == 17)
        is_plain &= is_stamp | (length == 8) | (length == 9)
        time_ns, fits = _as_one_number(fields.part(np.where(is_stamp, 8, 0), length))
        is_plain &= fits & (~is_stamp | _all_digits(fields.part(0, np.where(is_stamp, 8, 0))))
        ns, good = np.where(is_plain, time_ns, ns), good | is_plain
        date_size = np.where(is_stamp, 8, date_size)
    return Clock(ns, good, fields.part(0, date_size), offset_s, has_offset)


def _two_digits(fields: Fields, place: int) -> tuple[np.ndarray, np.ndarray]:
    """int64 [N] the number that stands at a place, and bool [N] whether both are digits."""
    tens, ones = (fields.at(place + i) - np.uint8(_ZERO) for i in (0, 1))
    return tens.astype(np.int64) * 10 + ones, (tens <= 9) & (ones <= 9)


def _seconds(fields: Fields, places: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Hours, minutes and seconds of two digits each -> int64 [N] seconds, bool [N] whether it is a time of day."""
    total, good = np.zeros(len(fields.start), np.int64), np.ones(len(fields.start), bool)
    for place, limit in zip(places, (24, 60, 60), strict=True):
        value, fits = _two_digits(fields, place)
        total, good = total * 60 + value, good & fits & (value < limit)
    return total, good


def _all_digits(fields: Fields) -> np.ndarray:
    good = np.ones(len(fields.start), bool)
    for place in range(int(fields.length.max(initial=0))):
        good &= (fields.at(place) - np.uint8(_ZERO) <= 9) | (fields.length <= place)
    return good


def _with_colons(fields: Fields) -> tuple[np.ndarray, np.ndarray]:
    """HH:MM:SS[.1 to 9 digits] -> int64 [N] nanoseconds, bool [N] whether it is that."""
    length = fields.length
    seconds, good = _seconds(fields, (0, 3, 6))
    good &= (fields.at(2) == _COLON) & (fields.at(5) == _COLON) & (length >= 8) & (length <= 18) & (length != 9)
    good &= (length == 8) | (fields.at(8) == _POINT)
    behind = np.clip(length - 9, 0, 9)
    fraction = np.zeros(len(length), np.int64)
    for place in range(int(np.max(behind, where=good, initial=0))):
        byte = fields.at(9 + place) - np.uint8(_ZERO)
        inside = place < behind
        good &= ~inside | (byte <= 9)
        fraction = np.where(inside, fraction * 10 + byte, fraction)
    return seconds * SECOND_NS + fraction * 10 ** (9 - behind), good


def _as_one_number(fields: Fields) -> tuple[np.ndarray, np.ndarray]:
    """HHMMSSmmm, or HMMSSmmm before ten -> int64 [N] nanoseconds, bool [N] whether it is a time of day.

    Eight digits could as well be HHMMSS and hundredths, as Shanghai's feed has them, unless no hour starts with the
    first: those that could be both are taken for neither.
    """
    value, _, _ = decimals(fields)
    good = _all_digits(fields) & (fields.length >= 8) & ((fields.length > 8) | (fields.at(0) > ord("2")))
    hour, minute, second = value // 10**7, value // 10**5 % 100, value // 1000 % 100
    good &= (hour < 24) & (minute < 60) & (second < 60)
    return ((hour * 60 + minute) * 60 + second) * SECOND_NS + value % 1000 * 10**6, good


def _offsets(fields: Fields) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Z, +HH:MM or +HHMM at the end -> int64 [N] seconds, int64 [N] bytes of it, bool [N] whether it is there."""
    length = fields.length
    is_z = (length > 8) & (fields.at(np.maximum(length - 1, 0)) == ord("Z"))
    seconds, size = np.zeros(len(length), np.int64), is_z.astype(np.int64)
    for form, minute_at in (("+HH:MM", 4), ("+HHMM", 3)):
        tail = fields.part(np.maximum(length - len(form), 0), length)
        hours, is_hour = _two_digits(tail, 1)
        minutes, is_minute = _two_digits(tail, minute_at)
        found = (length > 8 + len(form) - 1) & _is_sign(tail) & is_hour & is_minute & (hours < 24) & (minutes < 60)
        if minute_at == 4:
            found &= tail.at(3) == _COLON
        sign = np.where(tail.at(0) == ord("-"), -1, 1)
        seconds = np.where(found, sign * (hours * 3600 + minutes * 60), seconds)
        size = np.where(found, len(form), size)
    return seconds, size, size > 0


def to_zone(times: Clock, zone_s: int) -> np.ndarray:
    """int64 [N] nanoseconds since midnight of a zone `zone_s` ahead of UTC; outside of [0, DAY_NS) on another day.

    Those without an offset are of the zone.
    """
    shift = np.where(times.has_offset, zone_s - times.offset_s, 0) * SECOND_NS
    ns = times.ns + shift
    # Without a date nothing says which day it was: what passes midnight comes back on the other side.
    return np.where(times.date.length > 0, ns, ns % DAY_NS)


def of_texts(texts: list[str]) -> Fields:
    """Texts [N] of Python as fields."""
    parts = [text.encode() for text in texts]
    end = np.cumsum([len(part) for part in parts], dtype=np.int64)
    data = np.frombuffer(b"".join([*parts, bytes(PADDING)]), np.uint8)
    return Fields(data, np.append(0, end[:-1]) if len(end) else end, end)
