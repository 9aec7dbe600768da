"""Exact 64-bit integers without JAX's 64-bit mode: cash, sums of volumes, price x volume.

An `Int64` is a 64-bit integer in two 32-bit words; results wrap modulo 2**64 like any int64. Every function works
elementwise on any batch shape.
"""

import jax
import jax.numpy as jnp
import numpy as np

from marsjax.core.errors import InputError
from marsjax.core.records import Array, Int64

_LOW16 = 0xFFFF
# Sums of up to 2**15 numbers below 2**16 fit in an int32: the sums below add halves of words, longer axes by blocks.
_MOST_TERMS = 2**15


def of_int32(value: Array | int) -> Int64:
    """int32 [...] -> the same numbers as Int64 [...].

    Examples:
      >>> value = of_int32(-1)
      >>> int(value.hi), int(value.lo)
      (-1, 4294967295)
    """
    low = jnp.asarray(value, jnp.int32)
    return Int64(low >> 31, low.astype(jnp.uint32))


def add(a: Int64, b: Int64) -> Int64:
    """a + b, elementwise with broadcasting."""
    low = a.lo + b.lo
    return Int64(a.hi + b.hi + (low < a.lo).astype(jnp.int32), low)


def negate(a: Int64) -> Int64:
    """-a."""
    low = (~a.lo) + jnp.uint32(1)
    return Int64(~a.hi + (low == 0).astype(jnp.int32), low)


def subtract(a: Int64, b: Int64) -> Int64:
    """a - b."""
    return add(a, negate(b))


def multiply(a: Array | int, b: Array | int) -> Int64:
    """Exact product of int32 a and b (price x volume).

    Examples:
      >>> int(to_numpy(multiply(2_000_000_000, 3)))
      6000000000
    """
    a, b = jnp.asarray(a, jnp.int32), jnp.asarray(b, jnp.int32)
    low = multiply_unsigned(a.astype(jnp.uint32), b.astype(jnp.uint32))
    # Reading a negative word as unsigned adds 2**32 times the other factor; take that off the high word.
    high = low.hi - jnp.where(a < 0, b, 0) - jnp.where(b < 0, a, 0)
    return Int64(high, low.lo)


def scale(a: Int64, factor: Array | int) -> Int64:
    """a * factor for a factor of 0 to 2**31 - 1."""
    low = multiply_unsigned(jnp.asarray(a.lo, jnp.uint32), jnp.asarray(factor, jnp.uint32))
    return Int64(low.hi + a.hi * jnp.asarray(factor, jnp.int32), low.lo)


def multiply_high(a: Array, b: Array) -> Array:
    """floor(a * b / 2**32) of uint32 a and b, uint32: a random word a times a range b gives a number below b."""
    return multiply_unsigned(jnp.asarray(a, jnp.uint32), jnp.asarray(b, jnp.uint32)).hi.astype(jnp.uint32)


def multiply_unsigned(a: jax.Array, b: jax.Array) -> Int64:
    """Exact product of uint32 a and b; the high word is the product's, unsigned, in an int32."""
    a_low, a_high, b_low, b_high = a & _LOW16, a >> 16, b & _LOW16, b >> 16
    low = a_low * b_low
    middle = a_high * b_low + (low >> 16)
    middle_2 = a_low * b_high + (middle & _LOW16)
    high = a_high * b_high + (middle >> 16) + (middle_2 >> 16)
    return Int64(high.astype(jnp.int32), (middle_2 << 16) | (low & _LOW16))


def less(a: Int64, b: Int64) -> Array:
    """a < b, bool."""
    return (a.hi < b.hi) | ((a.hi == b.hi) & (a.lo < b.lo))


def equal(a: Int64, b: Int64) -> Array:
    """a == b, bool."""
    return (a.hi == b.hi) & (a.lo == b.lo)


def minimum(a: Int64, b: Int64) -> Int64:
    """The smaller of a and b."""
    return select(less(a, b), a, b)


def select(condition: Array, a: Int64, b: Int64) -> Int64:
    """a where the condition holds, else b."""
    return Int64(jnp.where(condition, a.hi, b.hi), jnp.where(condition, a.lo, b.lo))


def only(condition: Array, a: Int64) -> Int64:
    """a where the condition holds, else 0."""
    return Int64(jnp.where(condition, a.hi, 0), jnp.where(condition, a.lo, 0))


def total(volume: Array, axis: int = -1) -> Int64:
    """Exact sum of int32 numbers >= 0 over one axis.

    Examples:
      >>> int(to_numpy(total(jnp.array([2_000_000_000, 2_000_000_000]))))
      4000000000
    """
    volume = jnp.asarray(volume, jnp.int32)
    if volume.shape[axis] > _MOST_TERMS:
        return add_up(total(_blocks(volume, axis)))
    low = jnp.sum(volume & _LOW16, axis=axis, dtype=jnp.int32)
    high = jnp.sum(volume >> 16, axis=axis, dtype=jnp.int32)
    return _join(high, low)


def add_up(a: Int64, axis: int = -1) -> Int64:
    """Sum over one axis of at most 2**15 entries."""
    if a.hi.shape[axis] > _MOST_TERMS:
        raise InputError(f"exact sum: expected at most {_MOST_TERMS} terms on axis {axis}, got shape {a.hi.shape}")
    low = jnp.asarray(a.lo, jnp.uint32)
    of_low_words = _join(jnp.sum((low >> 16).astype(jnp.int32), axis=axis, dtype=jnp.int32),
                         jnp.sum((low & _LOW16).astype(jnp.int32), axis=axis, dtype=jnp.int32))
    return Int64(of_low_words.hi + jnp.sum(jnp.asarray(a.hi, jnp.int32), axis=axis, dtype=jnp.int32), of_low_words.lo)


def running(volume: Array, axis: int = -1) -> Int64:
    """Exact inclusive running sum of int32 numbers >= 0 over one axis."""
    volume = jnp.asarray(volume, jnp.int32)
    if volume.shape[axis] > _MOST_TERMS:
        return _running_by_blocks(volume, axis)
    low = jnp.cumsum(volume & _LOW16, axis=axis, dtype=jnp.int32)
    high = jnp.cumsum(volume >> 16, axis=axis, dtype=jnp.int32)
    return _join(high, low)


def _running_by_blocks(volume: jax.Array, axis: int) -> Int64:
    inside = running(_blocks(volume, axis))
    before, sums = of_int32(jnp.zeros_like(inside.hi[..., 0, -1])), []
    for block in range(inside.hi.shape[-2]):
        sums.append(add(jax.tree.map(lambda x, i=block: x[..., i, :], inside),
                        jax.tree.map(lambda x: x[..., None], before)))
        before = jax.tree.map(lambda x: x[..., -1], sums[-1])
    count = volume.shape[axis]
    return jax.tree.map(lambda *x: jnp.moveaxis(jnp.concatenate(x, axis=-1)[..., :count], -1, axis), *sums)


def _blocks(terms: jax.Array, axis: int) -> jax.Array:
    """[..., N, ...] -> [..., blocks, terms of one], the axis moved to the end and filled up with zeros."""
    terms = jnp.moveaxis(terms, axis, -1)
    missing = -terms.shape[-1] % _MOST_TERMS
    filled = jnp.pad(terms, [(0, 0)] * (terms.ndim - 1) + [(0, missing)])
    return filled.reshape(*terms.shape[:-1], -1, _MOST_TERMS)


def total_product(price: Array, volume: Array, axis: int = -1) -> Int64:
    """Exact sum of price x volume (int32 >= 0, of one shape) over one axis."""
    price, volume = jnp.asarray(price, jnp.int32), jnp.asarray(volume, jnp.int32)
    if volume.shape[axis] > _MOST_TERMS:
        return add_up(total_product(_blocks(jnp.broadcast_to(price, volume.shape), axis), _blocks(volume, axis)))
    price, volume = price.astype(jnp.uint32), volume.astype(jnp.uint32)
    p_low, p_high, v_low, v_high = price & _LOW16, price >> 16, volume & _LOW16, volume >> 16
    low, cross_1, cross_2 = p_low * v_low, p_high * v_low, p_low * v_high

    def add_up_words(x: jax.Array) -> jax.Array:
        return jnp.sum(x.astype(jnp.int32), axis=axis, dtype=jnp.int32)

    at_0 = add_up_words(low & _LOW16)
    middle = (low >> 16) + (cross_1 & _LOW16) + (cross_2 & _LOW16)
    at_16 = add_up_words(middle & _LOW16)
    at_32 = add_up_words((cross_1 >> 16) + (cross_2 >> 16) + (middle >> 16))
    # Only the low 32 bits of the highest products lie inside the 64 bits of the result, so wrapping is exact.
    high = add_up_words(p_high * v_high)
    at_16 = at_16 + (at_0 >> 16)
    result = _join(at_16, at_0 & _LOW16)
    return Int64(result.hi + at_32 + high, result.lo)


def _join(high: jax.Array, low: jax.Array) -> Int64:
    """high * 2**16 + low for int32 high, low >= 0."""
    return add(Int64(high >> 16, high.astype(jnp.uint32) << 16), of_int32(low))


def to_int32(a: Int64) -> jax.Array:
    """An Int64 known to lie within int32, as int32 (saturating otherwise).

    Examples:
      >>> int(to_int32(of_int32(7)))
      7
    """
    low = a.lo.astype(jnp.int32)
    saturated = jnp.where(a.hi < 0, jnp.int32(-(2**31)), jnp.int32(2**31 - 1))
    return jnp.where(a.hi == (low >> 31), low, saturated)


def to_float32(a: Int64) -> jax.Array:
    """The nearest float32, but for a last bit where the number is beyond 2**32.

    Examples:
      >>> float(to_float32(of_int32(-3)))
      -3.0
    """
    is_below = jnp.asarray(a.hi) < 0
    size = select(is_below, negate(a), a)
    found = size.hi.astype(jnp.uint32).astype(jnp.float32) * jnp.float32(2**32) + size.lo.astype(jnp.float32)
    return jnp.where(is_below, -found, found)


def from_numpy(value: np.ndarray | int) -> Int64:
    """int64 [...] on the host -> Int64 of NumPy words.

    Examples:
      >>> big = add(from_numpy(2**40), of_int32(5))
      >>> int(to_numpy(big)) - 2**40
      5
    """
    value = np.asarray(value, np.int64)
    return Int64((value >> 32).astype(np.int32), (value & 0xFFFFFFFF).astype(np.uint32))


def to_numpy(a: Int64) -> np.ndarray:
    """Int64 -> int64 [...] on the host.

    Examples:
      >>> int(to_numpy(of_int32(-5)))
      -5
    """
    return (np.asarray(a.hi).astype(np.int64) << 32) | np.asarray(a.lo).astype(np.int64)
