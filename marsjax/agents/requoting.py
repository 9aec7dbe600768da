"""From what a trader wants to rest to the orders that make it so, without giving up places in the queue."""

import dataclasses

import jax
import jax.numpy as jnp

from marsjax.agents.base import Resting
from marsjax.core.records import EMPTY_PRICE, NO_ID, Array, Kind, Order, Side
from marsjax.market import orders as make


def requote(resting: Resting, is_buy: Array, price: Array, volume: Array, most: int | None = None) -> Order:
    """The orders [R + 1] after which `volume` shares of a side rest or have traded at `price`, and no others rest.

    Orders at that price stay where they are. Less of them is taken off the youngest, which keeps its place; more is an
    order of its own behind them. Where that would be more than `most` orders, the youngest are made one with it.

    Args:
      resting: the trader's own, [2, R]; those of the other side are left alone.
      is_buy: bool, the side.
      price: int32, 1e-4 of the currency.
      volume: int32 shares; 0: nothing is to rest.
      most: orders that rest afterwards, 1 to R; None: R.
    """
    side = jnp.where(is_buy, jnp.int32(Side.BID), jnp.int32(Side.ASK))
    old_price, old_volume, old_id = (jnp.asarray(x)[side] for x in resting)
    stays = (old_volume > 0) & (old_price == price)
    kept = jnp.where(stays, old_volume, 0)
    total = jnp.sum(kept, dtype=jnp.int32)
    # By priority: the youngest of those that stay is the last of them.
    younger = total - jnp.cumsum(kept, dtype=jnp.int32)
    kept -= jnp.clip(jnp.maximum(total - volume, 0) - younger, 0, kept)
    short = jnp.maximum(volume - total, 0)
    count = jnp.sum(kept > 0) + (short > 0)
    most = old_volume.shape[0] if most is None else most
    merged = jnp.where((count > most) & (jnp.cumsum(stays) >= most), kept, 0)
    kept, short = kept - merged, short + jnp.sum(merged, dtype=jnp.int32)
    off = old_volume - kept
    cancels = make.cancel_order(jnp.broadcast_to(side, off.shape), old_id, off)
    cancels = dataclasses.replace(cancels, kind=jnp.where(off > 0, jnp.int32(Kind.CANCEL), jnp.int32(Kind.NONE)))
    return jax.tree.map(lambda many, one: jnp.concatenate([many, one[None]]), cancels, limit(is_buy, price, short))


def limit(is_buy: Array, price: Array, volume: Array) -> Order:
    """A limit order; none where its volume is 0."""
    kind = jnp.where(is_buy, jnp.int32(Kind.BUY), jnp.int32(Kind.SELL))
    return make.limit_order(jnp.where(volume > 0, kind, jnp.int32(Kind.NONE)), price, volume)


def two_sided(resting: Resting, bid: tuple[Array, Array], ask: tuple[Array, Array]) -> Order:
    """The orders [2 R + 2] of both sides, each a price and a volume as of `requote`: all cancels, then what is new.

    So a quote never meets the trader's own orders, where the bid is below the ask.
    """
    of_bid, of_ask = requote(resting, jnp.bool_(True), *bid), requote(resting, jnp.bool_(False), *ask)
    return jax.tree.map(lambda x, y: jnp.concatenate([x[:-1], y[:-1], x[-1:], y[-1:]]), of_bid, of_ask)


def first(resting: Resting, room: int) -> Resting:
    """The first `room` orders of each side by priority, [2, room]."""
    there = jnp.asarray(resting.volume) > 0
    rank = jnp.cumsum(there, axis=-1) - 1
    here = there[:, None, :] & (rank[:, None, :] == jnp.arange(room)[:, None])

    def taken(x: Array, nothing: int) -> jax.Array:
        found = jnp.sum(jnp.where(here, jnp.asarray(x)[:, None, :], 0), axis=-1, dtype=jnp.int32)
        return jnp.where(jnp.any(here, axis=-1), found, nothing)

    return Resting(taken(resting.price, EMPTY_PRICE), taken(resting.volume, 0), taken(resting.order_id, NO_ID))


def shortened(order: Order, left: Array) -> jax.Array:
    """Its volume, of a cancel no more than is left; where nothing is, as it came, and it is refused."""
    is_more = (order.kind == Kind.CANCEL) & (jnp.asarray(left) > 0) & (order.volume > left)
    return jnp.where(is_more, left, order.volume)


def side_of(order: Order) -> jax.Array:
    """int32, the side of the book that it is for, or that it takes back from."""
    new = jnp.where(order.kind == Kind.BUY, jnp.int32(Side.BID), jnp.int32(Side.ASK))
    return jnp.where(order.kind == Kind.CANCEL, order.cancel_side, new)


def less_met(order: Order, left: Array, missing: Array) -> tuple[Order, jax.Array]:
    """One order of a trader whose resting orders may have traded since it decided, and what is missing more by it.

    A cancel takes back no more than is left, and the rest is missing; what is missing is taken off new orders of that
    side, so that what was to trade in all is not exceeded.

    Args:
      order: scalars; Kind.NONE with no shares.
      left: int32 shares of the order that a cancel names.
      missing: int32 shares of the order's side that were missing before.
    """
    is_cancel = order.kind == Kind.CANCEL
    cut = jnp.minimum(missing, order.volume)
    volume = jnp.where(is_cancel, shortened(order, left), order.volume - cut)
    kind = jnp.where(~is_cancel & (cut > 0) & (volume == 0), jnp.int32(Kind.NONE), order.kind)
    change = jnp.where(is_cancel, jnp.maximum(order.volume - left, 0), -cut)
    return dataclasses.replace(order, volume=volume, kind=kind), change


def less_what_was_met(orders: Order, resting: Resting) -> Order:
    """`less_met` of orders [K] in sequence; `resting` is what rests of the trader's own now, [2, R]."""
    def one(missing: jax.Array, order: Order) -> tuple[jax.Array, Order]:
        side = side_of(order)
        is_it = jnp.asarray(resting.order_id)[side] == order.cancel_id
        left = jnp.sum(jnp.where(is_it, jnp.asarray(resting.volume)[side], 0), dtype=jnp.int32)
        order, change = less_met(order, left, missing[side])
        return missing.at[side].add(change), order

    return jax.lax.scan(one, jnp.zeros(2, jnp.int32), orders)[1]
