"""Attention of few queries to contexts of different lengths, as one kernel of a GPU that reads filled slots alone.

A program of the kernel has one query of one head and all filled slots of its context, block by block; the next block is
read before this one is worked on. Each row of a block keeps a running maximum, a running sum of weights and a weighted
sum of values of its own, so that no row waits for another before the end, where they are brought to one maximum and
added up. Nothing is a product of matrices: with one query there is none.

Where many contexts begin with the same slots, these are read once for all of them (`model.prefix`). The program then
begins behind them, and adds what they gave (`Earlier`) at its end.

Written in Pallas, in its form for Triton.
"""

import functools
import math
from typing import Any, NamedTuple, TypeAlias

import jax
import jax.numpy as jnp

from marsjax.core.records import Array
from marsjax.model.layers import MASKED

try:
    from jax.experimental import pallas as pl
    from jax.experimental.pallas import triton
except ImportError:  # a JAX without them: `core.kernels.for_platform` does not choose this way there
    pl = triton = None  # type: ignore[assignment]

LOG2_E = 1 / math.log(2)
"""What a score is multiplied by to be in units of 2."""
Block: TypeAlias = tuple[jax.Array, jax.Array, list[jax.Array], jax.Array]
"""Keys and values [n, k] as they are kept, their scales [n] if there are any, and which of the n count."""
Part: TypeAlias = tuple[jax.Array, jax.Array, jax.Array]
"""Of some slots, by row of a block: the highest score, in units of 2, the sum of 2^(score - highest), and that of the
values, [n, k]."""


class Earlier(NamedTuple):
    """What queries [B, T] have met in slots that many contexts have in common, float32, not yet divided by the sum."""

    slots: Array
    """int32 [B, T], how many: the first ones; 0 where there is none in common."""
    most: Array
    """[B, T, h], highest scores, `layers.MASKED` where there is no slot: in units of 2 for the kernel, of e else."""
    total: Array
    """[B, T, h], sums of powers of (score - most)."""
    mixed: Array
    """[B, T, h, k], sums of values, each multiplied by its power."""


class Cut(NamedTuple):
    """How the kernel is cut; no result but for rounding depends on it."""

    block: int
    """Slots a pass of the loop, a power of two."""
    warps: int
    """Of 32 threads, for a program."""


def cut_of(dtype: jax.typing.DTypeLike) -> Cut:
    """How contexts of keys and values of this dtype are cut."""
    return Cut(64, 4) if jnp.dtype(dtype) == jnp.int8 else Cut(32, 4)


def fits(shape: tuple[int, ...], dtype: jax.typing.DTypeLike) -> bool:
    """Whether the kernel can address keys of this shape: its offsets are 32 bits wide up to 2^32 bytes."""
    size = math.prod(shape)
    return size <= 2**31 or size * jnp.dtype(dtype).itemsize > 2**32


@functools.partial(jax.jit, static_argnames=("cut", "interpret"))
def attend(query: Array, keys: Array, values: Array, scales: Array | None, length: Array,
           earlier: Earlier | None = None, *, cut: Cut | None = None, interpret: bool = False) -> jax.Array:
    """Softmax attention of query [B, T, h, k] to the first `length` [B, T] of keys and values [B, h, W, k].

    Of these the first `earlier.slots` are not read, and `earlier` counts for them.

    Keys and values of int8 are multiplied by `scales`, float32 [B, 2, h, W], of keys and of values. Returns [B, T, h,
    k] in the dtype of the query; all zero where the length is 0. Sums are float32. `cut` are `cut_of` the keys
    unless given.
    """
    batch, queries, heads, size = query.shape
    cut = cut or cut_of(keys.dtype)
    slots, lanes = keys.shape[2], pl.next_power_of_2(size)
    block = min(cut.block, pl.next_power_of_2(slots))
    whole = pl.cdiv(slots, block) * block
    # Programs of one context are neighbours in their order, and so find its keys near.
    own = pl.BlockSpec((None, None, None, lanes), lambda t, h, b: (b, t, h, 0))
    context = pl.BlockSpec((None, None, whole, lanes), lambda t, h, b: (b, h, 0, 0))
    of_keys, of_values = (pl.BlockSpec((None, None, None, whole), lambda t, h, b, which=which: (b, which, h, 0))
                          for which in (0, 1))
    one, of_head = (pl.BlockSpec((None, None), lambda t, h, b: (b, t)),
                    pl.BlockSpec((None, None, None), lambda t, h, b: (b, t, h)))
    specs, given = [one, own, context, context], [length.astype(jnp.int32), query, keys, values]
    if scales is not None:
        specs, given = [*specs, of_keys, of_values], [*given, scales, scales]
    if earlier is not None:
        specs, given = [*specs, one, of_head, of_head, own], [*given, *earlier]
    return pl.pallas_call(
        functools.partial(_program, size=size, block=block, has_earlier=earlier is not None),
        grid=(queries, heads, batch), in_specs=specs, out_specs=own,
        out_shape=jax.ShapeDtypeStruct(query.shape, query.dtype),
        compiler_params=triton.CompilerParams(num_warps=cut.warps, num_stages=1), interpret=interpret,
        name="attend_to_filled_slots")(*given)


def _program(length_ref: Any, query_ref: Any, keys_ref: Any, values_ref: Any, *others: Any, size: int, block: int,
             has_earlier: bool) -> None:
    """One query of one head; `others` are the scales, of keys and of values, and `Earlier`, if any, and the result."""
    *given_ref, out_ref = others
    scales_ref, earlier_ref = (given_ref[:-4], given_ref[-4:]) if has_earlier else (given_ref, [])
    begin = earlier_ref[0][...] if has_earlier else 0
    length, lanes = length_ref[...], out_ref.shape[-1]
    lane = None if lanes == size else jnp.arange(lanes) < size
    query = triton.load(query_ref, mask=lane, other=None if lane is None else 0.0)
    # In units of 2, whose powers are one instruction.
    query = query.astype(jnp.float32) * (LOG2_E / math.sqrt(size))

    def read(number: jax.Array | int) -> Block:
        at = pl.ds(number * block, block)
        slot = number * block + jnp.arange(block)
        seen = (slot >= begin) & (slot < length) if has_earlier else slot < length
        mask = seen[:, None] if lane is None else seen[:, None] & lane[None, :]
        mask = jnp.broadcast_to(mask, (block, lanes))
        key, value = (triton.load(ref.at[at, :], mask=mask, other=0) for ref in (keys_ref, values_ref))
        return key, value, [triton.load(ref.at[at], mask=seen, other=0.0) for ref in scales_ref], seen

    def one(number: jax.Array, carry: tuple[Part, Block]) -> tuple[Part, Block]:
        part, now = carry
        # Beyond the last block nothing counts, and so nothing is read.
        later = read(number + 1)
        return _with_block(query, part, now), later

    nothing = (jnp.full(block, MASKED, jnp.float32), jnp.zeros(block, jnp.float32),
               jnp.zeros((block, lanes), jnp.float32))
    first = begin // block
    (most, total, mixed), _ = jax.lax.fori_loop(first, pl.cdiv(length, block), one, (nothing, read(first)))
    # A row that saw nothing has a weight of 0.
    highest = jnp.max(most, axis=0)
    kept = jnp.exp2(most - highest)
    total, mixed = jnp.sum(total * kept, axis=0), jnp.sum(mixed * kept[:, None], axis=0)
    if has_earlier:
        of_common = [ref[...] for ref in earlier_ref[1:3]]
        common_mixed = triton.load(earlier_ref[3], mask=lane, other=None if lane is None else 0.0)
        both = jnp.maximum(highest, of_common[0])
        # Where one of the two saw nothing its factor is 0, and the other's is 1.
        kept, of_them = jnp.exp2(highest - both), jnp.exp2(of_common[0] - both)
        total, mixed = total * kept + of_common[1] * of_them, mixed * kept + common_mixed * of_them
    # Where nothing is seen the sum is 0, and so is the result.
    triton.store(out_ref, (mixed / jnp.maximum(total, 1e-30)).astype(out_ref.dtype), mask=lane)


def _with_block(query: jax.Array, part: Part, now: Block) -> Part:
    """A part and a block more, for a query [k] in units of 2."""
    (most, total, mixed), (key, value, scale, seen) = part, now
    score = jnp.sum(key.astype(jnp.float32) * query[None, :], axis=1)
    score = jnp.where(seen, score * scale[0] if scale else score, MASKED)
    highest = jnp.maximum(most, score)
    kept, weight = jnp.exp2(most - highest), jnp.where(seen, jnp.exp2(score - highest), 0.0)
    share = weight * scale[1] if scale else weight
    return highest, total * kept + weight, mixed * kept[:, None] + share[:, None] * value.astype(jnp.float32)
