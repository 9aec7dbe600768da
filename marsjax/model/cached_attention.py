"""Attention to keys and values that are kept from one step to the next: how they are kept, and the ways to read them.

`kept` makes of new keys and values what is stored of them: themselves, or 8 bits with one scale for each vector.
`attend` reads a context, whose slots are filled from the first on, by the kernel or by the compiler's own ways;
`attend_one` reads a ring, or a context where there is one query, by the latter. What the kernel and the other ways give
differs by rounding. Both begin behind slots that were read before for many contexts at once, and add what came of these
(`attention_kernel.Earlier`, made by `model.prefix`).
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from marsjax.core.kernels import Kernels, chosen
from marsjax.core.records import Array
from marsjax.core.specs import CacheSpec, ComputeSpec
from marsjax.model import attention_kernel, layers
from marsjax.model.attention_kernel import Earlier

_LARGEST = 127
"""Of 8 bits, either way."""


class Slots(NamedTuple):
    """One layer's keys and values of some trajectories."""

    keys: Array
    """[B, h, W, k], turned by slot; [B, h, k, W] in a ring of `has_columns`."""
    values: Array
    """[B, h, W, k]."""
    scales: Array | None
    """Float32 [B, 2, h, W], what 8-bit keys and values are multiplied by; None where they are kept as they are."""


def has_columns(cache: CacheSpec) -> bool:
    """Whether keys lie with their slots last, [B, h, k, W]: scores of few coordinates are then sums along the slots."""
    return cache.mode == "rolling" and chosen(cache.kernels).attention == "columns"


def kept(cache: CacheSpec, keys: jax.Array, values: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array | None]:
    """What is stored of keys and values [..., k]: both, and scales [2, ...] or None."""
    if cache.cache_dtype == "model":
        return keys, values, None
    (keys, of_keys), (values, of_values) = _in_8_bits(keys), _in_8_bits(values)
    return keys, values, jnp.stack([of_keys, of_values])


def _in_8_bits(x: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Vectors [..., k] as int8 and float32 scales [...]: the largest number of each is 127 of its scale."""
    wide = x.astype(jnp.float32)
    scale = jnp.max(jnp.abs(wide), axis=-1) / _LARGEST
    number = jnp.round(wide / jnp.where(scale > 0, scale, 1)[..., None])
    return jnp.clip(number, -_LARGEST, _LARGEST).astype(jnp.int8), scale


def plain(slots: Slots, dtype: str, in_columns: bool = False) -> tuple[jax.Array, jax.Array]:
    """Keys and values in `dtype`, as they lie."""
    keys, values = jnp.asarray(slots.keys), jnp.asarray(slots.values)
    if slots.scales is None:
        return keys.astype(dtype), values.astype(dtype)
    scales = jnp.asarray(slots.scales)[..., None]
    of_keys = jnp.swapaxes(scales[:, 0], -1, -2) if in_columns else scales[:, 0]
    return ((keys.astype(jnp.float32) * of_keys).astype(dtype),
            (values.astype(jnp.float32) * scales[:, 1]).astype(dtype))


def by_kernel(ways: Kernels, slots: Slots) -> bool:
    """Whether a context is read by the kernel."""
    return ways.attention in ("kernel", "interpreted") and attention_kernel.fits(slots.keys.shape, slots.keys.dtype)


def attend(ways: Kernels, query: jax.Array, slots: Slots, length: jax.Array, compute: ComputeSpec,
           earlier: Earlier | None = None) -> jax.Array:
    """Attention of turned query [B, T, h, k] to the first `length` [B, T] slots: [B, T, h, k].

    Of these the first `earlier.slots` are not looked at: `earlier` counts for them. Without meaning where the length is
    0.
    """
    if by_kernel(ways, slots):
        return attention_kernel.attend(query, *slots, length, earlier, interpret=ways.attention == "interpreted")
    keys, values = plain(slots, compute.dtype)
    slot = jnp.arange(keys.shape[2])
    seen_BxTxW = slot < length[..., None]
    if earlier is None:
        return layers.attend(query, keys, values, seen_BxTxW[:, None], compute)
    seen_BxTxW &= slot >= jnp.asarray(earlier.slots)[..., None]
    precision = layers.precision_of(compute)
    score_BxHxTxW = jnp.einsum("bthk,bhwk->bhtw", query, keys, precision=precision, preferred_element_type=jnp.float32)
    earlier = Earlier(earlier.slots, *(jnp.swapaxes(x, 1, 2) for x in earlier[1:]))
    weight, share = _shares(score_BxHxTxW, query.shape[-1], seen_BxTxW[:, None], earlier)
    mixed = jnp.einsum("bhtw,bhwk->bhtk", weight.astype(compute.dtype), values, precision=precision,
                       preferred_element_type=jnp.float32)
    return jnp.swapaxes(_with_earlier(mixed, share, earlier), 1, 2).astype(query.dtype)


def attend_one(cache: CacheSpec, query: jax.Array, slots: Slots, this_lap: jax.Array, seen: jax.Array,
               earlier: Earlier | None = None) -> jax.Array:
    """Attention of one query a trajectory to slots of a ring or a context: [B, h, k].

    In float32 but for what goes in and out. Of `query` [B, 1 or 2, h, k] keys of `this_lap` [B, 1, W] meet the first
    and others the last; `seen` as well, and of a context `earlier`, as in `attend`.
    """
    keys, values = plain(slots, "float32", has_columns(cache))
    of_few_cores = _by_columns if has_columns(cache) else _by_products
    way = of_few_cores if chosen(cache.kernels).attention == "columns" else _by_sums
    if earlier is not None:
        seen &= jnp.arange(keys.shape[2]) >= jnp.asarray(earlier.slots)[..., None]
        earlier = Earlier(*(x[:, 0] for x in earlier))
    return way(query.astype(jnp.float32), keys, values, (this_lap, seen), earlier).astype(query.dtype)


def _by_sums(query: jax.Array, keys: jax.Array, values: jax.Array, which: tuple[jax.Array, jax.Array],
             earlier: Earlier | None) -> jax.Array:
    """By sums of products, which read keys [B, h, W, k] as they lie; `which` are of this lap, and seen."""
    query_BxHxWxK = jnp.where(which[0][..., None], query[:, 0, :, None], query[:, -1, :, None])
    weight, share = _shares(jnp.sum(query_BxHxWxK * keys, axis=-1), keys.shape[-1], which[1], earlier)
    return _with_earlier(jnp.sum(weight[..., None] * values, axis=-2), share, earlier)


def _by_products(query: jax.Array, keys: jax.Array, values: jax.Array, which: tuple[jax.Array, jax.Array],
                 earlier: Earlier | None) -> jax.Array:
    """By products of matrices, with keys [B, h, W, k]."""
    highest = jax.lax.Precision.HIGHEST
    score = jnp.einsum("bthk,bhwk->tbhw", query, keys, precision=highest)
    weight, share = _shares(jnp.where(which[0], score[0], score[-1]), keys.shape[-1], which[1], earlier)
    return _with_earlier(jnp.einsum("bhw,bhwk->bhk", weight, values, precision=highest), share, earlier)


def _by_columns(query: jax.Array, keys: jax.Array, values: jax.Array, which: tuple[jax.Array, jax.Array],
                earlier: Earlier | None) -> jax.Array:
    """By sums of columns of keys [B, h, k, W]: of a ring, which has nothing in common with another."""
    first, last = (jnp.sum(query[:, turn, :, :, None] * keys, axis=-2) for turn in (0, -1))
    weight, _ = _shares(jnp.where(which[0], first, last), keys.shape[-2], which[1], earlier)
    return jnp.einsum("bhw,bhwk->bhk", weight, values, precision=jax.lax.Precision.HIGHEST)


def _shares(score: jax.Array, size: int, seen: jax.Array, earlier: Earlier | None
            ) -> tuple[jax.Array, jax.Array | None]:
    """Weights of slots by their scores [..., W], and what `earlier.mixed` [..., k] is to be multiplied by, [..., 1].

    The same operations as a softmax's, so that the weights are a softmax's where nothing came earlier.
    """
    score = jnp.where(seen, score / math.sqrt(size), layers.MASKED)
    if earlier is None:
        return jax.nn.softmax(score, axis=-1), None
    most, total = (jnp.asarray(x)[..., None] for x in (earlier.most, earlier.total))
    highest = jnp.maximum(jnp.max(score, axis=-1, keepdims=True), most)
    weight, kept = jnp.exp(score - highest), jnp.exp(most - highest)
    whole = jnp.sum(weight, axis=-1, keepdims=True) + total * kept
    return weight / whole, kept / whole


def _with_earlier(mixed: jax.Array, share: jax.Array | None, earlier: Earlier | None) -> jax.Array:
    return mixed if earlier is None or share is None else mixed + earlier.mixed * share
