"""What the market looks like at a token, in seven columns that the reference does not have (`TokenSpec.signals`).

The reference's tokens say where the price is, since the open, and not where it came from; and the volumes of ten ticks,
but not at once which of them are the best prices. Without the first a model cannot learn that prices come back, and
its futures spread several times as far as real ones. The columns are whole numbers made of whole numbers, so that a
token is the same on every device.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from marsjax.core import int64
from marsjax.core.records import NO_PRICE, Array, BookView
from marsjax.core.specs import MarketSpec

LIMITS = ((-8, 8), (-8, 8), (-10, 10), (0, 12), (-20, 20), (-20, 20), (-20, 22))
"""Smallest and largest number of each column: the move of the mid with the order, half ticks; the mid less its averages
over some 64 and some 512 orders; spread; shares at the best ask, and at the best bid; the mid in ticks. All but the
first count half steps of the logarithm to base 2."""
COLUMNS = len(LIMITS)
SPREAD, ASK, BID = 3, 4, 5
"""Columns by name."""
_SHIFTS = (6, 9)
"""An order counts 1/64 and 1/512 in the averages."""
_ONE = 12
"""Bits of a gap below half a tick."""
_MOST_MOVE = 2**14
"""Half ticks of one order that count; of more, so many."""
_MOST_GAP = 2**28
_ZERO = 20
"""Half steps below 1,024 shares or ticks, which are column 0: one share is -20."""
_STEPS = np.ceil(2.0 ** ((np.arange(1, 43) - 0.5) / 2)).astype(np.int32)
"""The smallest whole number of each half step: round(2 log2(number))."""
_GAP_STEPS = np.array([np.ceil((2.0**((k - 0.5) / 2) - 1) * 2**_ONE) for k in range(1, 11)], np.int32)
"""The smallest gap of each number: round(2 log2(1 + half ticks))."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Trend:
    """What the first columns of the next token depend on, of one market; scalars."""

    mid_twice: Array
    """Twice the mid after the last order, NO_PRICE before there is one."""
    fast: Array
    """int32, the mid less its average over some 64 orders, half ticks times 2**12."""
    slow: Array
    """Over some 512."""


def start() -> Trend:
    """Before the first order. Every array has a buffer of its own."""
    return Trend(jnp.array(NO_PRICE, jnp.int32), jnp.zeros((), jnp.int32), jnp.zeros((), jnp.int32))


def update(market: MarketSpec, state: Trend, after: BookView) -> tuple[Trend, jax.Array]:
    """The state after an order, and the columns of its token, int32 [7]; scalars, `vmap` over markets.

    Args:
      market: its tick.
      state: before the order.
      after: view after it. Without a mid the last one stands; without one of the sides the spread is the widest.
    """
    known = after.has_mid & (state.mid_twice != NO_PRICE)
    moved = jnp.where(known, after.mid_price_twice - state.mid_twice, 0)
    # Toward zero, so that the mirror image of a market has the mirror image of its trend.
    half_ticks = jnp.sign(moved) * jnp.minimum(jnp.abs(moved) // market.tick, _MOST_MOVE)
    fast, slow = (_nearer(gap + (half_ticks << _ONE), shift)
                  for gap, shift in zip((state.fast, state.slow), _SHIFTS, strict=True))
    last = jnp.where(after.has_mid, after.mid_price_twice, state.mid_twice)
    ask, bid = (int64.to_int32(jax.tree.map(lambda x: x[..., 0], side)) for side in (after.ask_volume,
                                                                                    after.bid_volume))
    apart = (after.ask_price[..., 0] - after.bid_price[..., 0]) // market.tick
    spread = jnp.where((ask > 0) & (bid > 0), _half_steps(apart), LIMITS[SPREAD][1])
    found = [half_ticks, _gap_number(fast), _gap_number(slow), spread, _half_steps(ask) - _ZERO,
             _half_steps(bid) - _ZERO, _half_steps(last // (2 * market.tick)) - _ZERO]
    return Trend(last, fast, slow), jnp.stack([jnp.clip(x, *limit).astype(jnp.int32)
                                               for x, limit in zip(found, LIMITS, strict=True)])


def _nearer(gap: Array, shift: int) -> jax.Array:
    """The gap less its 2**shift-th part, in whole numbers, either sign alike."""
    size = jnp.minimum(jnp.abs(gap), _MOST_GAP)
    return jnp.asarray(jnp.sign(gap) * (size - (size >> shift)))


def _gap_number(gap: Array) -> jax.Array:
    return jnp.asarray(jnp.sign(gap) * jnp.sum(jnp.abs(gap) >= _GAP_STEPS, dtype=jnp.int32))


def _half_steps(number: Array) -> jax.Array:
    """round(2 log2(number)) of a whole number, 0 for what is below 1."""
    return jnp.sum(jnp.asarray(number) >= _STEPS, dtype=jnp.int32)
