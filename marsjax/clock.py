"""Exact time and money without 64-bit mode, and the phases of a session.

A `Wide` is a 64-bit integer in two 32-bit words; results wrap modulo 2**64 like any int64. A `Time` is seconds and
nanoseconds. Every function works elementwise on any batch shape and ignores JAX's 64-bit switch.
"""

import jax
import jax.numpy as jnp
import numpy as np

from marsjax.specs import SECOND_NS, Phase, Session
from marsjax.types import Array, Time, Wide

_LOW16 = 0xFFFF
# Sums of up to 2**15 numbers below 2**16 fit in an int32: `total` and `running` add halves of words.
_MOST_TERMS = 2**15


def wide(value: Array | int) -> Wide:
    """int32 [...] -> the same numbers as Wide [...]."""
    low = jnp.asarray(value, jnp.int32)
    return Wide(low >> 31, low.astype(jnp.uint32))


def add(a: Wide, b: Wide) -> Wide:
    """a + b, elementwise with broadcasting."""
    low = a.lo + b.lo
    return Wide(a.hi + b.hi + (low < a.lo).astype(jnp.int32), low)


def negate(a: Wide) -> Wide:
    """-a."""
    low = (~a.lo) + jnp.uint32(1)
    return Wide(~a.hi + (low == 0).astype(jnp.int32), low)


def subtract(a: Wide, b: Wide) -> Wide:
    """a - b."""
    return add(a, negate(b))


def multiply(a: Array | int, b: Array | int) -> Wide:
    """Exact product of int32 a and b (price x volume)."""
    a, b = jnp.asarray(a, jnp.int32), jnp.asarray(b, jnp.int32)
    low = _multiply_unsigned(a.astype(jnp.uint32), b.astype(jnp.uint32))
    # Reading a negative word as unsigned adds 2**32 times the other factor; take that off the high word.
    high = low.hi - jnp.where(a < 0, b, 0) - jnp.where(b < 0, a, 0)
    return Wide(high, low.lo)


def scale(a: Wide, factor: int) -> Wide:
    """a * factor for a known factor of 0 to 2**31 - 1."""
    low = _multiply_unsigned(jnp.asarray(a.lo, jnp.uint32), jnp.asarray(factor, jnp.uint32))
    return Wide(low.hi + a.hi * jnp.asarray(factor, jnp.int32), low.lo)


def multiply_high(a: Array, b: Array) -> Array:
    """floor(a * b / 2**32) of uint32 a and b, uint32: a random word a times a range b gives a number below b."""
    return _multiply_unsigned(jnp.asarray(a, jnp.uint32), jnp.asarray(b, jnp.uint32)).hi.astype(jnp.uint32)


def _multiply_unsigned(a: jax.Array, b: jax.Array) -> Wide:
    a_low, a_high, b_low, b_high = a & _LOW16, a >> 16, b & _LOW16, b >> 16
    low = a_low * b_low
    middle = a_high * b_low + (low >> 16)
    middle_2 = a_low * b_high + (middle & _LOW16)
    high = a_high * b_high + (middle >> 16) + (middle_2 >> 16)
    return Wide(high.astype(jnp.int32), (middle_2 << 16) | (low & _LOW16))


def less(a: Wide, b: Wide) -> Array:
    """a < b, bool."""
    return (a.hi < b.hi) | ((a.hi == b.hi) & (a.lo < b.lo))


def equal(a: Wide, b: Wide) -> Array:
    """a == b, bool."""
    return (a.hi == b.hi) & (a.lo == b.lo)


def minimum(a: Wide, b: Wide) -> Wide:
    """The smaller of a and b."""
    return select(less(a, b), a, b)


def select(condition: Array, a: Wide, b: Wide) -> Wide:
    """a where the condition holds, else b."""
    return Wide(jnp.where(condition, a.hi, b.hi), jnp.where(condition, a.lo, b.lo))


def total(volume: Array, axis: int = -1) -> Wide:
    """Exact sum of int32 numbers >= 0 over one axis of at most 2**15 entries."""
    volume = _bounded(volume, axis)
    low = jnp.sum(volume & _LOW16, axis=axis, dtype=jnp.int32)
    high = jnp.sum(volume >> 16, axis=axis, dtype=jnp.int32)
    return _join(high, low)


def running(volume: Array, axis: int = -1) -> Wide:
    """Exact inclusive running sum of int32 numbers >= 0 over one axis of at most 2**15 entries."""
    volume = _bounded(volume, axis)
    low = jnp.cumsum(volume & _LOW16, axis=axis, dtype=jnp.int32)
    high = jnp.cumsum(volume >> 16, axis=axis, dtype=jnp.int32)
    return _join(high, low)


def total_product(price: Array, volume: Array, axis: int = -1) -> Wide:
    """Exact sum of price x volume (int32 >= 0) over one axis of at most 2**15 entries."""
    price, volume = _bounded(price, axis).astype(jnp.uint32), _bounded(volume, axis).astype(jnp.uint32)
    p_low, p_high, v_low, v_high = price & _LOW16, price >> 16, volume & _LOW16, volume >> 16
    low, cross_1, cross_2 = p_low * v_low, p_high * v_low, p_low * v_high

    def add_up(x: jax.Array) -> jax.Array:
        return jnp.sum(x.astype(jnp.int32), axis=axis, dtype=jnp.int32)

    at_0 = add_up(low & _LOW16)
    middle = (low >> 16) + (cross_1 & _LOW16) + (cross_2 & _LOW16)
    at_16 = add_up(middle & _LOW16)
    at_32 = add_up((cross_1 >> 16) + (cross_2 >> 16) + (middle >> 16))
    # Only the low 32 bits of the highest products lie inside the 64 bits of the result, so wrapping is exact.
    high = add_up(p_high * v_high)
    at_16 = at_16 + (at_0 >> 16)
    result = _join(at_16, at_0 & _LOW16)
    return Wide(result.hi + at_32 + high, result.lo)


def _bounded(volume: Array, axis: int) -> jax.Array:
    volume = jnp.asarray(volume, jnp.int32)
    if volume.shape[axis] > _MOST_TERMS:
        raise ValueError(f"exact sum: expected at most {_MOST_TERMS} terms on axis {axis}, got shape {volume.shape}")
    return volume


def _join(high: jax.Array, low: jax.Array) -> Wide:
    """high * 2**16 + low for int32 high, low >= 0."""
    return add(Wide(high >> 16, high.astype(jnp.uint32) << 16), wide(low))


def to_int32(a: Wide) -> jax.Array:
    """A Wide known to lie within int32, as int32 (saturating otherwise)."""
    low = a.lo.astype(jnp.int32)
    saturated = jnp.where(a.hi < 0, jnp.int32(-(2**31)), jnp.int32(2**31 - 1))
    return jnp.where(a.hi == (low >> 31), low, saturated)


def wide_from_numpy(value: np.ndarray | int) -> Wide:
    """int64 [...] on the host -> Wide of NumPy words."""
    value = np.asarray(value, np.int64)
    return Wide((value >> 32).astype(np.int32), (value & 0xFFFFFFFF).astype(np.uint32))


def wide_to_numpy(a: Wide) -> np.ndarray:
    """Wide -> int64 [...] on the host."""
    return (np.asarray(a.hi).astype(np.int64) << 32) | np.asarray(a.lo).astype(np.int64)


def time_from_ns(ns: np.ndarray | int) -> Time:
    """Nanoseconds since midnight, int64 [...] on the host -> Time of NumPy words; ValueError outside [0, 2**31 s)."""
    ns = np.asarray(ns, np.int64)
    if ns.size and not (0 <= ns.min() and ns.max() < 2**31 * SECOND_NS):
        raise ValueError(f"time: expected nanoseconds from 0 to {2**31 * SECOND_NS - 1}, "
                         f"got {int(ns.min())} to {int(ns.max())}")
    return Time((ns // SECOND_NS).astype(np.int32), (ns % SECOND_NS).astype(np.int32))


def time_to_ns(time: Time) -> np.ndarray:
    """Time -> nanoseconds, int64 [...] on the host."""
    return np.asarray(time.s).astype(np.int64) * SECOND_NS + np.asarray(time.ns).astype(np.int64)


def add_time(a: Time, b: Time) -> Time:
    """a + b."""
    ns = a.ns + b.ns
    carry = ns >= SECOND_NS
    return Time(a.s + b.s + carry.astype(jnp.int32), jnp.where(carry, ns - SECOND_NS, ns))


def subtract_time(a: Time, b: Time) -> Time:
    """a - b, for a not before b."""
    ns = a.ns - b.ns
    borrow = ns < 0
    return Time(a.s - b.s - borrow.astype(jnp.int32), jnp.where(borrow, ns + SECOND_NS, ns))


def before(a: Time, b: Time) -> Array:
    """a < b, bool."""
    return (a.s < b.s) | ((a.s == b.s) & (a.ns < b.ns))


def same_time(a: Time, b: Time) -> Array:
    """a == b, bool."""
    return (a.s == b.s) & (a.ns == b.ns)


def select_time(condition: Array, a: Time, b: Time) -> Time:
    """a where the condition holds, else b."""
    return Time(jnp.where(condition, a.s, b.s), jnp.where(condition, a.ns, b.ns))


def static_time(ns: int) -> Time:
    """A known number of nanoseconds as a Time of int32 scalars, usable inside jit."""
    return Time(jnp.int32(ns // SECOND_NS), jnp.int32(ns % SECOND_NS))


def draw_uniform_time(bits: Array, low_ns: int, width_ns: int) -> Time:
    """low_ns + floor(u * width_ns / 2**32) for u = `bits`, uint32 [...] random words.

    The grid of the draw is one nanosecond up to a width of 4.29 s and one microsecond beyond.
    """
    if low_ns < 0 or not 0 < width_ns < 2**31 * 1000:
        raise ValueError(f"draw of a time: expected low >= 0 and a width in 1 .. {2**31 * 1000 - 1} ns, "
                         f"got {low_ns}, {width_ns}")
    unit_ns = 1 if width_ns < 2**32 else 1000
    bits = jnp.asarray(bits, jnp.uint32)
    units = _multiply_unsigned(bits, jnp.full_like(bits, width_ns // unit_ns)).hi.astype(jnp.uint32)
    per_second = SECOND_NS // unit_ns
    drawn = Time((units // per_second).astype(jnp.int32), (units % per_second).astype(jnp.int32) * unit_ns)
    return add_time(static_time(low_ns), drawn)


def phase(session: Session, time: Time) -> jax.Array:
    """The session's `Phase` at a time, int32 [...]."""
    result = jnp.full(jnp.shape(time.s), Phase.CLOSED, jnp.int32)
    for period in session.periods:
        inside = ~before(time, static_time(period.start_ns)) & ~before(static_time(period.end_ns), time)
        result = jnp.where(inside, jnp.int32(period.phase), result)
    return result
