"""Exact sampling of a class from logits with two random words: one finds a block of classes, one a class inside it.

One 32-bit uniform number is too coarse for 49,152 classes, and a float32 running sum of that many probabilities does
not even rise. Here probabilities become integers, so that every running sum is exact: the law differs from that of
the float32 probabilities by less than 1e-5 in total variation, and a class of probability 0 is never drawn.

`sample` takes the logits; `sample_head` makes them from hidden states, a part of the classes at a time; `draw_of` takes
few chances as they are.
"""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp

from marsjax.core import int64
from marsjax.core.records import Array

BLOCK = 128
"""Classes of one block."""
MOST_LOGITS = 2**23
"""Logits that `sample_head` makes at a time, of all rows together: 32 MiB, which fit in the L2 cache of a large GPU."""
BLOCK_SCALE, CLASS_SCALE = 2.0**30, 2.0**24
"""Whole numbers that stand for the probability 1 of a block, and for that of the likeliest class in one."""


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
    highest, within = _within(blocks)
    block, _ = _draw_block(highest, jnp.sum(within, axis=-1), words[..., 0])
    chosen = jnp.take_along_axis(within, block[..., None, None], axis=-2)[..., 0, :]
    return block * BLOCK + _draw_inside(chosen, words[..., 1])


def has_law(logits: Array) -> jax.Array:
    """Whether `sample` has a law to draw from, bool [...]: no logit [..., N] is NaN or inf, and one is not -inf."""
    logits = jnp.asarray(logits)
    return jnp.all(logits < jnp.inf, axis=-1) & jnp.any(logits > -jnp.inf, axis=-1)


def sample_head(hidden: Array, head: Array, words: Array, temperature: float,
                project: Callable[[jax.Array, jax.Array], jax.Array], most_logits: int = MOST_LOGITS
                ) -> tuple[jax.Array, jax.Array]:
    """`sample` from the logits project(hidden, head), of which at most `most_logits` are held at a time.

    Args:
      hidden: [B, d].
      head: [d, N].
      words: uint32 [B, 2].
      temperature: above 0.
      project: makes logits, float32 [..., n], of hidden states [..., d] and columns of the head [..., d, n].
      most_logits: of all rows together; one block a row is held at least.

    Returns:
      int32 [B], classes, and bool [B], `has_law`: where it is False the class means nothing. The logits of the block
      that is drawn are made twice, the second time to draw inside it.
    """
    hidden, head = jnp.asarray(hidden), jnp.asarray(head)
    (rows, _), count = hidden.shape, head.shape[-1]
    blocks = -(-count // BLOCK)
    head = jnp.pad(head, [(0, 0), (0, blocks * BLOCK - count)])
    parts = min(-(-rows * blocks * BLOCK // most_logits), blocks)
    size = -(-blocks // parts)

    def scaled(logits: jax.Array, first: jax.Array | int) -> jax.Array:
        """Logits [B, n, BLOCK] of blocks from number `first` on, over the temperature; what pads the last is -inf."""
        number = (jnp.asarray(first)[..., None] + jnp.arange(logits.shape[1]))[..., None] * BLOCK + jnp.arange(BLOCK)
        return (jnp.where(number < count, logits, -jnp.inf) if count % BLOCK else logits) / temperature

    def one_part(found: tuple[jax.Array, jax.Array], first: jax.Array) -> tuple[tuple[jax.Array, jax.Array], None]:
        columns = jax.lax.dynamic_slice_in_dim(head, first * BLOCK, size * BLOCK, axis=1)
        highest, within = _within(scaled(project(hidden, columns).reshape(rows, size, BLOCK), first))
        put = functools.partial(jax.lax.dynamic_update_slice_in_dim, start_index=first, axis=1)
        return (put(found[0], highest), put(found[1], jnp.sum(within, axis=-1))), None

    nothing = jnp.zeros((rows, blocks), jnp.float32)
    # The last part begins early enough to be whole; blocks that it shares with the one before come out the same.
    first = jnp.minimum(jnp.arange(parts) * size, blocks - size)
    (highest, mass), _ = (one_part((nothing, nothing), jnp.int32(0)) if parts == 1 else
                          jax.lax.scan(one_part, (nothing, nothing), first))
    block, total = _draw_block(highest, mass, words[:, 0])
    columns = jnp.take(head.reshape(-1, blocks, BLOCK), block, axis=1, mode="clip")
    again = project(hidden[:, None], jnp.swapaxes(columns, 0, 1))
    _, within = _within(scaled(again, block))
    inside = _draw_inside(within[:, 0], words[:, 1])
    return block * BLOCK + inside, jnp.isfinite(total)


def _within(logits: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Highest logits [...] of blocks [..., BLOCK], and exp of the logits less these [..., BLOCK].

    Relative to its own highest, a block far from the top keeps its digits.
    """
    highest = jnp.max(logits, axis=-1)
    return highest, jnp.exp(logits - jnp.where(jnp.isfinite(highest), highest, 0)[..., None])


def _draw_block(highest: jax.Array, mass: jax.Array, word: Array) -> tuple[jax.Array, jax.Array]:
    """The block that a random word [...] draws, given what `_within` says of blocks [..., N]; the sum of all, [...]."""
    return draw_of(mass * jnp.exp(highest - jnp.max(highest, axis=-1, keepdims=True)), word)


def draw_of(mass: jax.Array, word: Array) -> tuple[jax.Array, jax.Array]:
    """The index that a random word, uint32 [...], draws with chances like float32 [..., N]; and their sum, [...].

    N is at most 2**20. A chance below 2**-31 is 0. Without a finite sum above 0 the index means nothing.
    """
    total = jnp.sum(mass, axis=-1)
    index = _draw(jnp.round(mass / total[..., None] * BLOCK_SCALE).astype(jnp.uint32), word)
    return jnp.minimum(index, mass.shape[-1] - 1), total


def _draw_inside(within: jax.Array, word: Array) -> jax.Array:
    return jnp.minimum(_draw(jnp.round(within * CLASS_SCALE).astype(jnp.uint32), word), within.shape[-1] - 1)


def _draw(weights: jax.Array, word: Array) -> jax.Array:
    """The index whose share of the weights, uint32 [..., N] with a sum in 1 .. 2**32 - 1, holds a random word [...]."""
    reached = jnp.cumsum(weights, axis=-1, dtype=jnp.uint32)
    point = int64.multiply_high(jnp.asarray(word, jnp.uint32), reached[..., -1])
    return jnp.sum(reached <= point[..., None], axis=-1, dtype=jnp.int32)
