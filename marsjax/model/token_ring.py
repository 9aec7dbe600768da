"""The last tokens of trajectories: rings of W slots, token i in slot i mod W."""

import functools

import jax
import jax.numpy as jnp

from marsjax.core.records import Array, Token


def remember(ring: Token, tokens: Token, count: Array, first: Array) -> Token:
    """Rings [B, W] with the first `count` [B] of tokens [B, M], from number `first` [B] on."""
    (batch, width), slots = tokens.kind.shape, ring.kind.shape[1]
    place = jnp.arange(width)
    target = jnp.where(place < count[:, None], (first[:, None] + place) % slots, slots + place)
    put = functools.partial(_put, trajectory=jnp.arange(batch)[:, None], slot=target)
    found: Token = jax.tree.map(put, ring, tokens)
    return found


def _put(ring: Array, new: Array, trajectory: Array, slot: Array) -> jax.Array:
    new = jnp.asarray(new).astype(ring.dtype)
    return jnp.asarray(ring).at[trajectory, slot].set(new, mode="drop", unique_indices=True)


def last(ring: Token, total: Array, trajectory: Array, most: int) -> tuple[Token, jax.Array]:
    """The last `most` tokens [R, most] of trajectories [R], the oldest in front, and how many they are [R].

    `total` [B], tokens so far.
    """
    total = jnp.asarray(total)[trajectory]
    count = jnp.minimum(total, most)

    def of_column(column: Array) -> jax.Array:
        slot = ((total - count)[:, None] + jnp.arange(most)) % column.shape[1]
        return jnp.asarray(column)[trajectory[:, None], slot]

    return jax.tree.map(of_column, ring), count
