"""Minute bars, added up on the device."""

import dataclasses

import jax
import jax.numpy as jnp

from marsjax.core import int64, times
from marsjax.core.errors import InputError
from marsjax.core.records import NO_PRICE, Array, BookView, Int64, Kind, Market, Status, Time
from marsjax.market.process import Event

MINUTE_S = 60
_HALF_S = 30


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Bars:
    """M minutes of one trajectory, or [B, M] of many. A minute without orders has NO_PRICE and 0."""

    price_last: Array
    """int32 [M], price of the last trade up to the minute's last order, NO_PRICE before the first trade."""
    mid_twice_last: Array
    """int32 [M], twice the float mid after the minute's last order."""
    mid_twice_sum: Int64
    """[M], of twice the float mid after each order; every cancel of a decision is an order of its own."""
    price_sum: Int64
    """[M], of the price of the last trade after each order that has one."""
    priced: Array
    """int32 [M], orders with a last trade before or in them."""
    orders: Array
    """int32 [M], accepted orders."""
    volume: Int64
    """[M] shares traded."""
    origin: Time
    """[], start of the trajectory."""


@dataclasses.dataclass(frozen=True)
class MinuteBarObserver:
    """The observer that makes `Bars`.

    Examples:
      >>> from marsjax import Simulator, testing
      >>> observer = MinuteBarObserver(minutes=5, nearest=True)
      >>> simulator = Simulator.of(testing.tiny_model(), testing.tiny_market(), observers=[observer])
      >>> simulator.spec.observers[0].minutes
      5
    """

    minutes: int
    """M; orders beyond are in no bar."""
    nearest: bool = False
    """False: minute k holds the orders in (start + k, start + k + 1] minutes, as forecast labels want it. True:
    order times are rounded to the nearest whole minute of the day (halves to even), minute 0 being that of the
    start (reference: minute bars)."""

    def __post_init__(self) -> None:
        if not 1 <= self.minutes <= 1440:
            raise InputError(f"MinuteBarObserver.minutes: expected 1 to 1440, got {self.minutes}")

    def begin(self, market: Market, view: BookView, time: Time) -> Bars:
        """No orders yet."""
        del market, view
        none = jnp.full(self.minutes, NO_PRICE, jnp.int32)
        zero = jnp.zeros(self.minutes, jnp.int32)
        return Bars(none, none, int64.of_int32(zero), int64.of_int32(zero), zero, zero, int64.of_int32(zero),
                    jax.tree.map(jnp.asarray, time))

    def update(self, bars: Bars, event: Event) -> Bars:
        """Adds an event to its minute."""
        count = jnp.where(event.happened, event.orders, 0)
        here = (jnp.arange(self.minutes, dtype=jnp.int32) == self._minute(bars.origin, event.order.time)) & (count > 0)
        mid, price = event.view.mid_price_twice, event.view.last_price
        # A level goes with the last of its cancels: after those before it the mid is what it was.
        mids = int64.add(int64.of_int32(mid), int64.multiply(jnp.maximum(count - 1, 0), event.before.mid_price_twice))
        trades = (event.status == Status.ACCEPTED) & (event.order.kind != Kind.CANCEL)
        traded = int64.select(trades, event.trades.volume, int64.of_int32(jnp.zeros((), jnp.int32)))

        priced = jnp.where(price > 0, count, 0)

        def plus(total: Int64, amount: Int64) -> Int64:
            return int64.add(total, jax.tree.map(lambda x: jnp.where(here, x, 0), amount))

        return Bars(
            jnp.where(here, price, bars.price_last), jnp.where(here, mid, bars.mid_twice_last),
            plus(bars.mid_twice_sum, mids), plus(bars.price_sum, int64.multiply(priced, price)),
            bars.priced + jnp.where(here, priced, 0),
            bars.orders + jnp.where(here, count, 0), plus(bars.volume, traded), bars.origin)

    def end(self, state: Bars, market: Market, view: BookView, time: Time) -> Bars:
        """The bars."""
        del market, view, time
        return state

    def _minute(self, origin: Time, time: Time) -> jax.Array:
        if self.nearest:
            return _nearest_minute(time) - _nearest_minute(origin)
        passed = times.subtract(time, origin)
        return jnp.asarray((passed.s - (passed.ns == 0)) // MINUTE_S)


def _nearest_minute(time: Time) -> jax.Array:
    minute, second = jnp.asarray(time.s) // MINUTE_S, jnp.asarray(time.s) % MINUTE_S
    is_half = (second == _HALF_S) & (time.ns == 0)
    return minute + ((second >= _HALF_S) & (~is_half | (minute % 2 == 1)))
