"""Exact sampling of a class from logits with two random words: one finds a block of classes, one a class inside it.

One 32-bit uniform number is too coarse for 49,152 classes, and a float32 running sum of that many probabilities does
not even rise. Here probabilities become integers, so that every running sum is exact: the law differs from that of
the float32 probabilities by less than 1e-5 in total variation, and a class of probability 0 is never drawn.
"""

import jax
import jax.numpy as jnp

from marsjax import clock
from marsjax.types import Array

BLOCK = 128
"""Classes of one block."""
_BLOCK_SCALE = 2.0**30
_CLASS_SCALE = 2.0**24


def sample(logits: Array, words: Array, temperature: Array | float = 1.0) -> jax.Array:
    """Draws one class from softmax(logits / temperature).

    Args:
      logits: float32 [..., N], at least one of them finite; -inf is probability 0.
      words: uint32 [..., 2], independent random words.
      temperature: float [...], above 0.

    Returns:
      int32 [...], classes; 0 to N - 1.
    """
    logits = jnp.asarray(logits, jnp.float32) / jnp.asarray(temperature, jnp.float32)[..., None]
    count = logits.shape[-1]
    padded = jnp.pad(logits, [(0, 0)] * (logits.ndim - 1) + [(0, -count % BLOCK)], constant_values=-jnp.inf)
    blocks = padded.reshape(*logits.shape[:-1], -1, BLOCK)
    highest = jnp.max(blocks, axis=-1)
    top = jnp.max(highest, axis=-1, keepdims=True)
    # Within each block relative to its own highest, so that a block far from the top keeps its digits.
    within = jnp.exp(blocks - jnp.where(jnp.isfinite(highest), highest, 0)[..., None])
    mass = jnp.sum(within, axis=-1) * jnp.exp(highest - top)
    share = mass / jnp.sum(mass, axis=-1, keepdims=True)
    block = _draw(jnp.round(share * _BLOCK_SCALE).astype(jnp.uint32), words[..., 0])
    chosen = jnp.take_along_axis(within, block[..., None, None], axis=-2)[..., 0, :]
    inside = _draw(jnp.round(chosen * _CLASS_SCALE).astype(jnp.uint32), words[..., 1])
    return block * BLOCK + inside


def _draw(weights: jax.Array, word: Array) -> jax.Array:
    """The index whose share of the weights, uint32 [..., N] with a sum in 1 .. 2**32 - 1, holds a random word [...]."""
    reached = jnp.cumsum(weights, axis=-1, dtype=jnp.uint32)
    point = clock.multiply_high(jnp.asarray(word, jnp.uint32), reached[..., -1])
    return jnp.sum(reached <= point[..., None], axis=-1, dtype=jnp.int32)
