"""What an order would do to the opposite side of a book, and which resting order a cancel names."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from marsjax.core import int64
from marsjax.core.kernels import Kernels
from marsjax.core.records import Array, Int64
from marsjax.market.slots import Row, on_head, saturating_prefix_sum


class Match(NamedTuple):
    """What an order would do to the opposite side."""

    whole: Array  # resting orders filled whole: a prefix of the side
    partial: Array  # shares of the next one, if it is filled in part
    filled: Array  # shares in all
    fills: Array  # resting orders hit
    value: Int64  # sum of price x shares
    last_price: Array  # of the last fill
    listed: Row  # the first K fills; volume is the shares filled, 0 past the last


class Named(NamedTuple):
    """The resting order that a cancel names; zeros where there is none."""

    found: Array
    slot: Array
    price: Array
    volume: Array
    account: Array


def match_with(kernels: Kernels, width: int, opposite: Row, is_buy: jax.Array, limit: Array, wanted: jax.Array
               ) -> Match:
    """How `wanted` shares up to the price `limit` fill the opposite side; the first `width` fills are listed."""
    crosses = jnp.where(is_buy, opposite.price <= limit, opposite.price >= limit)
    reach = opposite._replace(volume=jnp.where(crosses & (wanted > 0), opposite.volume, 0))

    def enough(head: int, reach: Row, wanted: Array) -> jax.Array:
        return (reach.volume[head] == 0) | ~int64.less(int64.total(reach.volume[:head]), int64.of_int32(wanted))

    return on_head(kernels, width, enough, functools.partial(_fill, kernels, width), reach, wanted)


def _fill(kernels: Kernels, width: int, reach: Row, wanted: jax.Array) -> Match:
    """Fills orders that are all within the limit (the others' volume is 0)."""
    left = wanted - jnp.minimum(saturating_prefix_sum(kernels, reach.volume), wanted)
    fill = jnp.minimum(left, reach.volume)
    is_whole = (reach.volume > 0) & (reach.volume <= left)
    fills = _sum(fill > 0)
    listed = Row(reach.price, fill, reach.order_id, reach.account)
    # The fills sum to `wanted` at most, so these sums cannot wrap.
    return Match(whole=_sum(is_whole), partial=_sum(jnp.where(is_whole, 0, fill)), filled=_sum(fill), fills=fills,
                  value=int64.total_product(reach.price, fill), last_price=reach.price[jnp.maximum(fills - 1, 0)],
                  listed=jax.tree.map(lambda x: x[:width], listed))


def find(own: Row, order_id: Array) -> Named:
    """The order of one side with this id; zeros where there is none."""
    named = (own.volume > 0) & (own.order_id == order_id)
    slot = jnp.arange(named.shape[0], dtype=jnp.int32)
    return Named(jnp.any(named), *(_sum(jnp.where(named, x, 0)) for x in (slot, own.price, own.volume, own.account)))


def _sum(x: Array) -> jax.Array:
    return jnp.sum(x, dtype=jnp.int32)
