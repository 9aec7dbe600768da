"""Attention of many queries to the slots that their contexts have in common, as one kernel of a GPU.

A program has some queries of one head and goes through the slots block by block, with two products of matrices each,
bfloat16 that is added up in float32. It keeps the highest score, the sum of weights and the weighted sum of values of
each query. It goes no further than the largest number of slots of its queries: with none it leaves at once.

Written in Pallas, in its form for Triton.
"""

import functools
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from marsjax.core.records import Array
from marsjax.model.attention_kernel import LOG2_E
from marsjax.model.layers import MASKED

try:
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import triton
except ImportError:  # a JAX without them: `core.kernels.for_platform` does not choose this way there
    pl = triton = None  # type: ignore[assignment]

_LEAST = 16
"""Numbers along each side of a product of matrices."""


class PrefixCut(NamedTuple):
    """How the kernel is cut, all powers of two; no result but for rounding depends on it."""

    rows: int = 16
    """Queries of a program."""
    block: int = 64
    """Slots a pass of the loop, at most."""
    warps: int = 4
    """Of 32 threads, for a program."""
    stages: int = 2
    """Blocks that are on their way at a time."""


DEFAULT = PrefixCut()


def fits(shape: tuple[int, ...], dtype: jax.typing.DTypeLike) -> bool:
    """Whether the kernel takes keys of this shape, [h, k, P], and dtype."""
    size = shape[1]
    return jnp.dtype(dtype) == jnp.bfloat16 and size >= _LEAST and size & (size - 1) == 0 and shape[2] % _LEAST == 0


@functools.partial(jax.jit, static_argnames=("cut", "interpret"))
def attend(query: Array, keys: Array, values: Array, count: Array, *, cut: PrefixCut = DEFAULT, interpret: bool = False
           ) -> tuple[jax.Array, jax.Array, jax.Array]:
    """What queries [N, h, k] meet in the first `count` [N] of keys [h, k, P] and values [h, P, k].

    Returns:
      Highest scores [N, h], in units of 2, MASKED where there are no slots; sums [N, h] of 2^(score - highest), and
      sums of values [N, h, k], each multiplied by its 2^(score - highest); float32.
    """
    queries, heads, size = query.shape
    rest = -queries % cut.rows
    query, count = jnp.pad(query, ((0, rest), (0, 0), (0, 0))), jnp.pad(count.astype(jnp.int32), (0, rest))
    slots, rows = keys.shape[2], queries + rest
    of_rows = pl.BlockSpec((cut.rows, None, size), lambda h, i: (i, h, 0))
    of_row = pl.BlockSpec((cut.rows, None), lambda h, i: (i, h))
    found = pl.pallas_call(
        functools.partial(_program, block=math.gcd(cut.block, slots)), grid=(heads, rows // cut.rows),
        in_specs=[pl.BlockSpec((cut.rows,), lambda h, i: (i,)), of_rows,
                  pl.BlockSpec((None, size, slots), lambda h, i: (h, 0, 0)),
                  pl.BlockSpec((None, slots, size), lambda h, i: (h, 0, 0))],
        out_specs=[of_row, of_row, of_rows],
        out_shape=[jax.ShapeDtypeStruct(shape, jnp.float32) for shape in (
            (rows, heads), (rows, heads), (rows, heads, size))],
        compiler_params=triton.CompilerParams(num_warps=cut.warps, num_stages=cut.stages), interpret=interpret,
        name="attend_to_common_slots")(count, query, keys, values)
    most, total, mixed = (x[:queries] for x in found)
    return most, total, mixed


def _program(count_ref: Any, query_ref: Any, keys_ref: Any, values_ref: Any, most_ref: Any, total_ref: Any,
             mixed_ref: Any, *, block: int) -> None:
    """Some queries of one head."""
    count, query = count_ref[...], query_ref[...]
    rows, size = query.shape
    precision = jax.lax.Precision.HIGHEST if query.dtype == jnp.float32 else None

    def product(x: jax.Array, y: jax.Array) -> jax.Array:
        return jnp.dot(x, y, precision=precision, preferred_element_type=jnp.float32)

    def one(number: jax.Array, part: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        most, total, mixed = part
        at = pl.ds(number * block, block)
        score = product(query, keys_ref[:, at]) * (LOG2_E / math.sqrt(size))
        seen = number * block + jax.lax.broadcasted_iota(jnp.int32, (rows, block), 1) < count[:, None]
        score = jnp.where(seen, score, MASKED)
        highest = jnp.maximum(most, jnp.max(score, axis=1))
        kept, weight = jnp.exp2(most - highest), jnp.where(seen, jnp.exp2(score - highest[:, None]), 0.0)
        values = values_ref[at, :]
        return (highest, total * kept + jnp.sum(weight, axis=1),
                mixed * kept[:, None] + product(weight.astype(values.dtype), values))

    nothing = (jnp.full(rows, MASKED, jnp.float32), jnp.zeros(rows, jnp.float32), jnp.zeros((rows, size), jnp.float32))
    most_ref[...], total_ref[...], mixed_ref[...] = jax.lax.fori_loop(
        0, pl.cdiv(jnp.max(count, axis=0), block), one, nothing)
