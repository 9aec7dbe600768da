"""From what a trader wants to rest to the orders that make it so, without giving up places in the queue."""

import dataclasses

import jax
import jax.numpy as jnp

from marsjax.agents.base import Resting
from marsjax.core.records import EMPTY_PRICE, MAX_PRICE, Array, BookView, Kind, Order, Side
from marsjax.market import orders as make
from marsjax.rl.base import ROOM

MOST_ORDERS = ROOM + 2
"""Of a step: cancels of what rests, and two orders."""


def touch(view: BookView, tick: Array, fallback: Array) -> tuple[jax.Array, jax.Array]:
    """Best ask and best bid, int32: of an empty side a tick from the other's; of an empty book, around `fallback`."""
    ask, bid = jnp.asarray(view.ask_price)[0], jnp.asarray(view.bid_price)[0]
    has_ask, has_bid = ask != EMPTY_PRICE, bid != EMPTY_PRICE
    seen_ask = jnp.where(has_ask, ask, jnp.where(has_bid, bid + tick, fallback + tick))
    seen_bid = jnp.where(has_bid, bid, jnp.where(has_ask, ask - tick, fallback))
    return seen_ask, seen_bid


def within(price: Array, tick: Array) -> jax.Array:
    """The price, or the nearest that an order may have: a tick at least, `MAX_PRICE` at most."""
    return jnp.clip(price, tick, MAX_PRICE // tick * tick)


def requote(resting: Resting, is_buy: Array, price: Array, volume: Array, most: int = ROOM) -> Order:
    """The orders [R + 1] after which `volume` shares of a side rest or have traded at `price`, and no others rest.

    Orders at that price stay where they are. Less of them is taken off the youngest, which keeps its place; more is an
    order of its own behind them. Where that would be more than `most` orders, the youngest are made one with it.

    Args:
      resting: the trader's own, [2, R]; those of the other side are left alone.
      is_buy: bool, the side.
      price: int32, 1e-4 of the currency.
      volume: int32 shares; 0: nothing is to rest.
      most: orders that rest afterwards, 1 to R.
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
