"""Prices that executions go by, and what stands for them where a side is empty."""

import jax
import jax.numpy as jnp

from marsjax.agents.base import Observation, Resting
from marsjax.core import int64
from marsjax.core.errors import InputError
from marsjax.core.records import EMPTY_PRICE, MAX_PRICE, Array, BookView, Side
from marsjax.core.specs import MarketSpec


def other_side(seen: Observation, is_buy: Array) -> jax.Array:
    """Best price to trade at: of an empty side a tick from the other's, else the last price (-1 before any)."""
    view = seen.view
    ask, bid = jnp.asarray(view.ask_price)[0], jnp.asarray(view.bid_price)[0]
    has_ask, has_bid = ask != EMPTY_PRICE, bid != EMPTY_PRICE
    for_buy = jnp.where(has_ask, ask, jnp.where(has_bid, bid + seen.tick, view.last_price))
    for_sell = jnp.where(has_bid, bid, jnp.where(has_ask, ask - seen.tick, view.last_price))
    return jnp.where(is_buy, for_buy, for_sell)


def others_best(view: BookView, resting: Resting, tick: Array, fallback: Array) -> tuple[jax.Array, jax.Array]:
    """Best ask and best bid of all others, int32, as far as the view's levels go.

    Args:
      view: of the market.
      resting: the trader's own orders, [2, C], which are left out.
      tick: 1e-4 of the currency.
      fallback: int32, the bid where nobody else rests; a side that is empty is a tick from the other one.
    """
    found = []
    for side, price, volume in ((Side.ASK, view.ask_price, view.ask_volume),
                                (Side.BID, view.bid_price, view.bid_volume)):
        price = jnp.asarray(price)
        at = jnp.asarray(resting.price)[side] == price[:, None]
        own = jnp.sum(jnp.where(at, jnp.asarray(resting.volume)[side], 0), axis=-1, dtype=jnp.int32)
        theirs = jnp.asarray(int64.less(int64.of_int32(own), volume))
        found.append(jnp.where(jnp.any(theirs), price[jnp.argmax(theirs)], EMPTY_PRICE))
    ask, bid = found
    has_ask, has_bid = ask != EMPTY_PRICE, bid != EMPTY_PRICE
    return (jnp.where(has_ask, ask, jnp.where(has_bid, bid, fallback) + tick),
            jnp.where(has_bid, bid, jnp.where(has_ask, ask - tick, fallback)))


def within_limits(price: Array, tick: Array) -> jax.Array:
    """The price, or the nearest that an order may have: a tick at least, `MAX_PRICE` at most.

    Examples:
      >>> [int(within_limits(jnp.int32(price), 100)) for price in (-5, 250, 2**30)]
      [100, 250, 1073741800]
    """
    return jnp.clip(price, tick, MAX_PRICE // tick * tick)


def check_price_change(name: str, price_change: int, market: MarketSpec) -> None:
    """InputError unless a price change is in whole ticks of the market."""
    if price_change % market.tick:
        raise InputError(f"{name}: expected a multiple of the market's tick, {market.tick} (1e-4 of the currency), got "
                         f"{price_change!r}")
