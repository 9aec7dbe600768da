"""Exact times of day and durations: whole seconds and nanoseconds, since a day in nanoseconds passes 2**31.

Every function works elementwise on any batch shape.
"""

import re

import jax.numpy as jnp
import numpy as np

from marsjax.core import int64
from marsjax.core.errors import InputError
from marsjax.core.records import Array, Time

SECOND_NS = 1_000_000_000
DAY_NS = 86_400 * SECOND_NS


def from_ns(ns: np.ndarray | int) -> Time:
    """Nanoseconds since midnight, int64 [...] on the host -> Time of NumPy words; InputError outside [0, 2**31 s).

    Examples:
      >>> time = from_ns(34_200_500_000_000)
      >>> int(time.s), int(time.ns)
      (34200, 500000000)
    """
    ns = np.asarray(ns, np.int64)
    if ns.size and not (0 <= ns.min() and ns.max() < 2**31 * SECOND_NS):
        raise InputError(f"time: expected nanoseconds from 0 to {2**31 * SECOND_NS - 1}, "
                         f"got {int(ns.min())} to {int(ns.max())}")
    return Time((ns // SECOND_NS).astype(np.int32), (ns % SECOND_NS).astype(np.int32))


def to_ns(time: Time) -> np.ndarray:
    """Time -> nanoseconds, int64 [...] on the host.

    Examples:
      >>> int(to_ns(from_ns(34_200_500_000_000)))
      34200500000000
    """
    return np.asarray(time.s).astype(np.int64) * SECOND_NS + np.asarray(time.ns).astype(np.int64)


def add(a: Time, b: Time) -> Time:
    """a + b.

    Examples:
      >>> int(to_ns(add(of_ns(1_600_000_000), of_ns(700_000_000))))
      2300000000
    """
    ns = a.ns + b.ns
    carry = ns >= SECOND_NS
    return Time(a.s + b.s + carry.astype(jnp.int32), jnp.where(carry, ns - SECOND_NS, ns))


def subtract(a: Time, b: Time) -> Time:
    """a - b, for a not before b.

    Examples:
      >>> int(to_ns(subtract(of_ns(1_600_000_000), of_ns(700_000_000))))
      900000000
    """
    ns = a.ns - b.ns
    borrow = ns < 0
    return Time(a.s - b.s - borrow.astype(jnp.int32), jnp.where(borrow, ns + SECOND_NS, ns))


def before(a: Time, b: Time) -> Array:
    """a < b, bool.

    Examples:
      >>> bool(before(of_ns(1), of_ns(2)))
      True
    """
    return (a.s < b.s) | ((a.s == b.s) & (a.ns < b.ns))


def equal(a: Time, b: Time) -> Array:
    """a == b, bool."""
    return (a.s == b.s) & (a.ns == b.ns)


def select(condition: Array, a: Time, b: Time) -> Time:
    """a where the condition holds, else b."""
    return Time(jnp.where(condition, a.s, b.s), jnp.where(condition, a.ns, b.ns))


def of_ns(ns: int) -> Time:
    """A known number of nanoseconds as a Time of int32 scalars, usable inside jit.

    Examples:
      >>> int(of_ns(36_000 * SECOND_NS).s)
      36000
    """
    return Time(jnp.int32(ns // SECOND_NS), jnp.int32(ns % SECOND_NS))


def draw_uniform(bits: Array, low_ns: int, width_ns: int) -> Time:
    """low_ns + floor(u * width_ns / 2**32) for u = `bits`, uint32 [...] random words.

    The grid of the draw is one nanosecond up to a width of 4.29 s and one microsecond beyond.
    """
    if low_ns < 0 or not 0 < width_ns < 2**31 * 1000:
        raise InputError(f"draw of a time: expected low >= 0 and a width in 1 .. {2**31 * 1000 - 1} ns, "
                         f"got {low_ns}, {width_ns}")
    unit_ns = 1 if width_ns < 2**32 else 1000
    bits = jnp.asarray(bits, jnp.uint32)
    units = int64.multiply_unsigned(bits, jnp.full_like(bits, width_ns // unit_ns)).hi.astype(jnp.uint32)
    per_second = SECOND_NS // unit_ns
    drawn = Time((units // per_second).astype(jnp.int32), (units % per_second).astype(jnp.int32) * unit_ns)
    return add(of_ns(low_ns), drawn)


def clock(ns: np.ndarray | int, digits: int = 9) -> np.ndarray:
    """Nanoseconds since midnight, int64 [...], as text [...] HH:MM:SS with `digits` decimals (cut, not rounded).

    Examples:
      >>> str(clock(of_clock("09:30:00.25"), digits=3))
      '09:30:00.250'
    """
    ns = np.asarray(ns, np.int64)
    text = np.datetime_as_string(np.atleast_1d(ns).view("M8[ns]"), unit="ns")
    width = len("HH:MM:SS") + (digits + 1 if digits else 0)
    # As characters: the date before the T, and the decimals that are not wanted, are cut off every one.
    letters = np.ascontiguousarray(text).view("U1").reshape(text.size, text.itemsize // 4)[:, 11 : 11 + width]
    return np.ascontiguousarray(letters).view(f"U{width}").reshape(ns.shape)


def of_clock(text: str) -> int:
    """A time HH:MM[:SS[.fraction, up to 9 digits]] as nanoseconds since midnight; InputError for any other text.

    Examples:
      >>> of_clock("09:30:00.5")
      34200500000000
    """
    found = re.fullmatch(r"([01]?\d|2[0-3]):([0-5]\d)(?::([0-5]\d)(?:\.(\d{1,9}))?)?", str(text).strip())
    if not found:
        raise InputError(f"time: expected HH:MM:SS, got {text!r}")
    hour, minute, second = (int(part or 0) for part in found.groups()[:3])
    return (hour * 3600 + minute * 60 + second) * SECOND_NS + int((found[4] or "").ljust(9, "0"))
