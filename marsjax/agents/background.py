"""The background agent: the order model as a trader (reference: background agent)."""

import jax
import jax.numpy as jnp

from marsjax.core import times
from marsjax.core.records import NO_ID, Array, Condition, Kind, Order, Time
from marsjax.core.specs import ModelSpec
from marsjax.market.process import ByPrice
from marsjax.tokens.encoding import SampledOrder


def planned_order(plan: SampledOrder, mid_price: Array, now: Time, account: int) -> Order:
    """The order that a sampled token stands for, at a price around the mid of the moment of decision.

    Args:
      plan: the token's type and drawn values, scalars.
      mid_price: int32 [], at the decision.
      now: of the decision.
      account: the agent's account.

    Returns:
      A limit order; or a cancel that names a price and a volume, yet to be resolved against what rests then
      (`by_price`). Its time is that of the submission.
    """
    none = jnp.full_like(plan.kind, NO_ID)
    return Order(time=times.add(now, plan.wait), kind=plan.kind, price=mid_price + plan.offset,
                 volume=plan.volume, order_id=none, cancel_side=none, cancel_id=none,
                 account=jnp.full_like(plan.kind, account), condition=jnp.full_like(plan.kind, Condition.REST))


def is_cancel(order: Order) -> jax.Array:
    """bool: the planned order takes back what rests."""
    return jnp.asarray(order.kind == Kind.CANCEL)


def by_price(spec: ModelSpec, order: Order, owns_below: int, tie: Array) -> ByPrice:
    """How the planned order, if it is a cancel, finds what it takes back, by the rule of the model.

    Args:
      spec: of the model.
      order: planned, scalars.
      owns_below: resting orders of accounts below it are the agent's to cancel.
      tie: uint32 [], a random word: its last bit chooses between two prices, the others among orders alike.
    """
    return ByPrice(is_cancel(order), (0, owns_below - 1), (tie & 1) == 1, tie if spec.whole_cancels else None)
