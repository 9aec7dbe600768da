"""Cancels that name a price and a volume, not an order (reference: cancels of noise and background agents)."""

import jax
import jax.numpy as jnp

from marsjax.core.kernels import Kernels, chosen
from marsjax.core.records import Array, Book
from marsjax.core.specs import MarketSpec
from marsjax.market.slots import saturating_prefix_sum

_FAR = 2**31 - 1


def nearest(spec: MarketSpec, book: Book, is_own: Array, price: Array, volume: Array, upper_wins: Array
            ) -> jax.Array:
    """Which resting orders of an agent such a cancel takes shares off.

    Args:
      spec: sizes and kernels; C slots a side.
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
    is_chosen = is_nearest & (~has_both | (is_upper == upper_wins))
    # One price stands on one side only, where slots are in order of arrival.
    shares = jnp.where(is_chosen, book.volume, 0).reshape(-1)
    return _first_shares(chosen(spec.kernels), shares, volume).reshape(book.volume.shape)


def _first_shares(kernels: Kernels, shares: Array, volume: Array) -> jax.Array:
    """What is taken of shares [N] from the first on, `volume` in all."""
    if kernels.first_shares == "steps":
        return _by_steps(shares, volume)
    left = volume - jnp.minimum(saturating_prefix_sum(kernels, shares), volume)
    return jnp.minimum(left, shares)


def _by_steps(shares: Array, volume: Array) -> jax.Array:
    """`_first_shares`, order by order: a cancel takes few, and a running sum goes over all slots."""
    shares = jnp.asarray(shares)
    here, count = jnp.arange(len(shares), dtype=jnp.int32), len(shares)

    def following(slot: jax.Array) -> jax.Array:
        return jnp.min(jnp.where((shares > 0) & (here > slot), here, count))

    def is_whole(at: tuple[jax.Array, jax.Array]) -> jax.Array:
        slot, left = at
        return (slot < count) & (shares[jnp.minimum(slot, count - 1)] <= left)

    def one(at: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        slot, left = at
        return following(slot), left - shares[slot]

    slot, left = jax.lax.while_loop(is_whole, one, (following(jnp.int32(-1)), jnp.asarray(volume, jnp.int32)))
    return jnp.where(here < slot, shares, jnp.where(here == slot, jnp.minimum(left, shares), 0))
