"""Cancels that name a price and a volume, not an order (reference: cancels of noise and background agents)."""

import jax
import jax.numpy as jnp

from marsjax.book import saturating_prefix_sum
from marsjax.types import Array, Book

_FAR = 2**31 - 1


def nearest(book: Book, is_own: Array, price: Array, volume: Array, upper_wins: Array) -> jax.Array:
    """Which resting orders of an agent such a cancel takes shares off.

    Args:
      book: an uncrossed book.
      is_own: bool [2, C], the agent's resting orders.
      price: int32 [], the price named.
      volume: int32 [], shares named.
      upper_wins: bool [], which of two own prices at equal distance is taken: a coin toss in the reference.

    Returns:
      int32 [2, C]: the agent's own price nearest to the one named is chosen, and its orders there give up their
      shares, oldest first, until the volume is used up. All 0 if the agent has nothing resting.
    """
    is_own = is_own & (book.volume > 0)
    distance = jnp.where(is_own, jnp.abs(book.price - price), _FAR)
    is_nearest = is_own & (distance == jnp.min(distance))
    is_upper = book.price > price
    has_both = jnp.any(is_nearest & is_upper) & jnp.any(is_nearest & ~is_upper)
    chosen = is_nearest & (~has_both | (is_upper == upper_wins))
    # One price stands on one side only, where slots are in order of arrival.
    shares = jnp.where(chosen, book.volume, 0).reshape(-1)
    left = volume - jnp.minimum(saturating_prefix_sum(shares), volume)
    return jnp.minimum(left, shares).reshape(book.volume.shape)
