"""Prices that executions go by, and what stands for them where a side is empty."""

import jax
import jax.numpy as jnp

from marsjax.types import EMPTY_PRICE, Array, BookView

TICK = 100
"""Smallest price step of the markets that executions trade in, 1e-4 of the currency."""


def other_side(view: BookView, is_buy: Array) -> jax.Array:
    """Best price to trade at: of an empty side a tick from the other's, else the last price (-1 before any)."""
    ask, bid = jnp.asarray(view.ask_price)[0], jnp.asarray(view.bid_price)[0]
    has_ask, has_bid = ask != EMPTY_PRICE, bid != EMPTY_PRICE
    for_buy = jnp.where(has_ask, ask, jnp.where(has_bid, bid + TICK, view.last_price))
    for_sell = jnp.where(has_bid, bid, jnp.where(has_ask, ask - TICK, view.last_price))
    return jnp.where(is_buy, for_buy, for_sell)
