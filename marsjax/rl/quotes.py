"""Prices that learners go by, where a side may be empty, and the orders of what is to rest (`agents.requoting`)."""

import jax
import jax.numpy as jnp

from marsjax.agents.quotes import within_limits
from marsjax.agents.requoting import limit, requote
from marsjax.core.records import EMPTY_PRICE, Array, BookView
from marsjax.rl.base import ROOM

__all__ = ["MOST_ORDERS", "limit", "requote", "touch", "within_limits"]

MOST_ORDERS = ROOM + 2
"""Of a step: cancels of what rests, and two orders."""


def touch(view: BookView, tick: Array, fallback: Array) -> tuple[jax.Array, jax.Array]:
    """Best ask and best bid, int32: of an empty side a tick from the other's; of an empty book, around `fallback`."""
    ask, bid = jnp.asarray(view.ask_price)[0], jnp.asarray(view.bid_price)[0]
    has_ask, has_bid = ask != EMPTY_PRICE, bid != EMPTY_PRICE
    seen_ask = jnp.where(has_ask, ask, jnp.where(has_bid, bid + tick, fallback + tick))
    seen_bid = jnp.where(has_bid, bid, jnp.where(has_ask, ask - tick, fallback))
    return seen_ask, seen_bid
