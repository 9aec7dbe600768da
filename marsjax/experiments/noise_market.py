"""Minute bars of noise markets, added up on the device while the agent trades."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from marsjax import book as books
from marsjax import clock
from marsjax.analysis import bars
from marsjax.specs import MarketSpec
from marsjax.start import WakeUp, Warmup
from marsjax.types import NO_PRICE, Array, Status, Time, Wide

_MINUTE_S = 60
_HALF_S = 30


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class Minutes:
    """M minutes of one market, or [B, M]; order times are rounded to the nearest minute (reference: minute bars)."""

    price_last: Array
    """int32 [M], of the last trade up to the minute's last order; NO_PRICE before the first trade."""
    mid_twice_last: Array
    """int32 [M], twice the float mid after that order."""
    price_sum: Wide
    """[M], of the last trade's price after each order that has one."""
    mid_twice_sum: Wide
    """[M], of twice the mid after each order."""
    priced: Array
    """int32 [M], orders with a last trade before or in them."""
    orders: Array
    """int32 [M], accepted orders, each cancel counted."""
    volume: Wide
    """[M] shares traded."""


@dataclasses.dataclass(frozen=True)
class Watch:
    """Adds the wake-ups of the noise agent to their minutes; hashable, so that compiled calls are told apart by it."""

    market: MarketSpec
    warmup: Warmup

    @property
    def minutes(self) -> int:
        """M: the minutes that times from the start to the end of the warm-up round to."""
        ends = bars.nearest_minute(np.array([self.warmup.start_ns, self.warmup.start_ns + self.warmup.duration_ns]))
        return int(ends[1] - ends[0]) + 1

    def none(self) -> Minutes:
        """No orders yet."""
        zero = jnp.zeros(self.minutes, jnp.int32)
        no_price = jnp.full(self.minutes, NO_PRICE, jnp.int32)
        return Minutes(no_price, no_price, clock.wide(zero), clock.wide(zero), zero, zero, clock.wide(zero))

    def __call__(self, kept: Minutes, made: WakeUp) -> Minutes:
        """Adds a wake-up."""
        limit = made.report.status == Status.ACCEPTED
        count = jnp.where(made.happened, jnp.sum(made.cancelled.trades.count, dtype=jnp.int32) + limit, 0)
        first = int(bars.nearest_minute(np.array([self.warmup.start_ns]))[0])
        here = (jnp.arange(self.minutes, dtype=jnp.int32) == _nearest_minute(made.order.time) - first) & (count > 0)
        before, after = (books.view(self.market, book) for book in (made.before, made.after))
        # A level goes with the last of its cancels: after those before it the mid is what it was.
        mids = clock.add(clock.wide(after.mid_price_twice),
                         clock.multiply(jnp.maximum(count - 1, 0), before.mid_price_twice))
        priced = jnp.where(after.last_price > 0, count, 0)
        volume = clock.select(limit, made.report.trades.volume, clock.wide(jnp.zeros((), jnp.int32)))

        def plus(total: Wide, amount: Wide) -> Wide:
            return clock.add(total, jax.tree.map(lambda x: jnp.where(here, x, 0), amount))

        return Minutes(
            jnp.where(here, after.last_price, kept.price_last),
            jnp.where(here, after.mid_price_twice, kept.mid_twice_last),
            plus(kept.price_sum, clock.multiply(priced, after.last_price)), plus(kept.mid_twice_sum, mids),
            kept.priced + jnp.where(here, priced, 0), kept.orders + jnp.where(here, count, 0),
            plus(kept.volume, volume))


def _nearest_minute(time: Time) -> jax.Array:
    """Half a minute goes to the even one."""
    minute, second = jnp.asarray(time.s) // _MINUTE_S, jnp.asarray(time.s) % _MINUTE_S
    is_half = (second == _HALF_S) & (time.ns == 0)
    return minute + ((second >= _HALF_S) & (~is_half | (minute % 2 == 1)))


def as_bars(kept: Minutes, warmup: Warmup, date: str, symbol: str, source: str) -> bars.MinuteBars:
    """Minutes [B, M] as a table; `date` is like 2024-03-06, symbol and source are what the file calls them."""
    kept = jax.tree.map(np.asarray, kept)
    minute = int(bars.nearest_minute(np.array([warmup.start_ns]))[0])
    begins = np.datetime64(date, "s") + np.timedelta64(minute, "m")
    orders, priced = np.maximum(kept.orders, 1), np.maximum(kept.priced, 1)
    return bars.of_rollouts(
        symbol, source, begins, kept.price_last, clock.wide_to_numpy(kept.price_sum) / priced,
        clock.wide_to_numpy(kept.mid_twice_sum) / orders / 2, kept.mid_twice_last / 2,
        clock.wide_to_numpy(kept.volume), kept.orders)
