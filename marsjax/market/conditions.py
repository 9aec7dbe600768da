"""Conditions of limit orders: where a limit comes from that the order does not name, and what may rest.

A market takes them where `MarketSpec.conditions` is set; elsewhere none of this is compiled. In continuous trading a
condition is met or the order is refused; what an accepted order neither trades nor may let rest is dropped, and counts
as cancelled. A call auction collects REST, OWN_BEST and OPPOSITE_BEST, and refuses those about trading at once.
"""

import functools
import operator

import jax
import jax.numpy as jnp

from marsjax.core.records import EMPTY_PRICE, MAX_PRICE, UNPRICED, Array, Condition, Kind, Order, Status

_LOWEST = 1
Reason = tuple[Array, Status]


def limit_price(order: Order, own_best: Array, opposite_best: Array) -> jax.Array:
    """The limit that an order matches up to, int32 []; EMPTY_PRICE where its side of the book is empty.

    Args:
      order: scalars.
      own_best: int32 [], best price of the side that it would rest on, EMPTY_PRICE if there is none.
      opposite_best: of the other side.
    """
    any_price = jnp.where(order.kind == Kind.BUY, MAX_PRICE, _LOWEST)
    price = jnp.asarray(order.price)
    for condition, limit in ((Condition.OWN_BEST, own_best), (Condition.OPPOSITE_BEST, opposite_best),
                             (Condition.MARKET, jnp.where(opposite_best > EMPTY_PRICE, any_price, EMPTY_PRICE))):
        price = jnp.where(order.condition == condition, limit, price)
    return price


def names_price(condition: Array) -> Array:
    """bool [...]: the order's own price is its limit."""
    return functools.reduce(operator.and_, (condition != one for one in UNPRICED))


def may_rest(condition: Array) -> Array:
    """bool [...]: what does not trade at once comes to rest."""
    return ((condition != Condition.IMMEDIATE_OR_CANCEL) & (condition != Condition.FILL_OR_KILL)
            & (condition != Condition.MARKET))


def of_report(order: Order, limit: Array, last_price: Array, accepted: Array) -> jax.Array:
    """`Report.price`: the limit that the order came to have.

    Args:
      order: scalars, as sent.
      limit: int32 [], of `limit_price`.
      last_price: int32 [], of the book after it: an accepted MARKET order has traded.
      accepted: bool [].
    """
    price = jnp.where(order.condition == Condition.MARKET, last_price, limit)
    return jnp.where(accepted & (order.kind != Kind.CANCEL), price, order.price)


def before_price(order: Order, limit: Array, collects: Array) -> tuple[Reason, ...]:
    """Reasons to refuse a limit order that come before its price is judged; `limit` is that of `limit_price`."""
    condition = order.condition
    is_known = (condition >= Condition.REST) & (condition <= Condition.OPPOSITE_BEST)
    is_at_once = ~may_rest(condition) | (condition == Condition.POST_ONLY)
    return ((~is_known, Status.BAD_CONDITION), (is_at_once & collects, Status.NOT_IN_AUCTION),
            (~names_price(condition) & (limit == EMPTY_PRICE), Status.NO_BEST_PRICE))


def after_matching(order: Order, filled: Array) -> tuple[Reason, ...]:
    """Reasons to refuse it once it is known how many shares would trade at once."""
    return (((order.condition == Condition.POST_ONLY) & (filled > 0), Status.WOULD_TRADE),
            ((order.condition == Condition.FILL_OR_KILL) & (filled < order.volume), Status.NOT_FILLED))
