"""Linear attention: a head reads a matrix that fades and is written to by every token, not each earlier token.

With the query q, the key k and the value v of a token, vectors of n numbers, and a factor 0 < a <= 1, made of the token
for each head (`layers.DecoderLayer.fading`):

    S <- a S + k v^T,    read: q S / sqrt(n)

So a token that came m tokens ago is read with the product of the last m factors. A model has no positions then, and a
trajectory's memory is one matrix a head, however many tokens it has seen.

`read_one` is the step of one token, `read_all` the same for a sequence, in chunks: within a chunk every token meets
every earlier one, as in attention; what was before it is read from the matrix. Both differ by rounding. Factors are
kept as logarithms, at most 0, and only differences that are at most 0 are made powers of: nothing overflows.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from marsjax.core.records import Array

CHUNK = 128
"""Tokens of a sequence that meet each other directly."""
_SHORTEST, _LONGEST = 2, 2048
"""Between these, in tokens, lie the half-lives of fresh heads."""


class LayerMemory(NamedTuple):
    """One layer's memory of B trajectories, float32; h heads of k. The newest token is not yet in the sums."""

    sums: Array
    """[B, h, k, k], of keys x values, faded."""
    key: Array
    """[B, h, k], of the newest token, as the next two; zeros where there is none."""
    value: Array
    """[B, h, k]."""
    fading: Array
    """[B, h], the logarithm of the factor."""


def half_lives(heads: int) -> np.ndarray:
    """Tokens after which half is left in fresh heads, float32 [h]: evenly spaced in their logarithm."""
    return np.geomspace(_SHORTEST, _LONGEST, heads + 2)[1:-1].astype(np.float32)


def written(memory: LayerMemory) -> jax.Array:
    """The sums [B, h, k, k] with the newest token."""
    faded = jnp.exp(memory.fading)[..., None, None] * memory.sums
    return faded + jnp.asarray(memory.key)[..., :, None] * jnp.asarray(memory.value)[..., None, :]


def read_one(query: jax.Array, memory: LayerMemory) -> jax.Array:
    """What the newest tokens' queries [B, h, k] read, themselves included, [B, h, k]."""
    wide = query.astype(jnp.float32) / math.sqrt(query.shape[-1])
    return jnp.sum(wide[..., None] * written(memory), axis=-2).astype(query.dtype)


def write_all(sums: Array, key: jax.Array, value: jax.Array, fading: jax.Array,
              precision: jax.lax.Precision | None = jax.lax.Precision.HIGHEST) -> jax.Array:
    """The sums [..., h, k, k] after tokens with keys and values [..., T, h, k] and fading [..., T, h], float32."""
    since = jnp.cumsum(fading, axis=-2)
    left = jnp.exp(since[..., -1:, :] - since)[..., None]
    added = jnp.einsum("...shk,...shm->...hkm", left * key.astype(jnp.float32), value.astype(jnp.float32),
                       precision=precision)
    return jnp.exp(since[..., -1, :])[..., None, None] * sums + added


def read_all(query: jax.Array, key: jax.Array, value: jax.Array, fading: jax.Array,
             precision: jax.lax.Precision | None = jax.lax.Precision.HIGHEST, sums: Array | None = None,
             chunk: int = CHUNK) -> jax.Array:
    """What each of a sequence's queries [..., T, h, k] reads of the tokens up to itself, [..., T, h, k].

    Args:
      query: [..., T, h, k].
      key: alike.
      value: alike.
      fading: float32 [..., T, h].
      precision: of matrix products.
      sums: float32 [..., h, k, k], what was written before; None: nothing.
      chunk: tokens that meet each other directly; no result depends on it but by rounding.
    """
    *lead, length, heads, size = query.shape
    width = max(min(chunk, length), 1)
    count = -(-length // width)
    seen = np.tril(np.ones((width, width), bool))

    def in_chunks(x: jax.Array) -> jax.Array:
        """[count, ..., width, ...]; what is added behind the end writes nothing and lets nothing fade."""
        padded = jnp.pad(x, [(0, 0)] * len(lead) + [(0, count * width - length)] + [(0, 0)] * (x.ndim - len(lead) - 1))
        return jnp.moveaxis(padded.reshape(*lead, count, width, *x.shape[len(lead) + 1 :]), len(lead), 0)

    def one_chunk(sums: jax.Array, part: tuple[jax.Array, ...]) -> tuple[jax.Array, jax.Array]:
        q, k, v, fades = part
        since = jnp.cumsum(fades, axis=-2)
        first = jnp.moveaxis(since, -1, -2)
        between = jnp.where(seen, first[..., :, None] - first[..., None, :], 0.0)
        met = jnp.einsum("...thk,...shk->...hts", q, k, precision=precision, preferred_element_type=jnp.float32)
        weight = jnp.where(seen, met * jnp.exp(between), 0.0).astype(v.dtype)
        near = jnp.einsum("...hts,...shk->...thk", weight, v, precision=precision, preferred_element_type=jnp.float32)
        far = jnp.einsum("...thk,...hkm->...thm", q.astype(jnp.float32), sums, precision=precision)
        return write_all(sums, k, v, fades, precision), near + jnp.exp(since)[..., None] * far

    begun = jnp.zeros((*lead, heads, size, size), jnp.float32) if sums is None else jnp.asarray(sums)
    _, found = jax.lax.scan(one_chunk, begun, tuple(map(in_chunks, (query / math.sqrt(size), key, value, fading))))
    found = jnp.moveaxis(found, 0, len(lead)).reshape(*lead, count * width, heads, size)
    return jax.lax.slice_in_dim(found, 0, length, axis=len(lead)).astype(query.dtype)
