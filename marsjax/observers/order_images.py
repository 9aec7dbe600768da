"""Images of the orders of each interval, kept on the device while a trajectory runs."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from marsjax.core import int64, limits, order_images, times
from marsjax.core.order_images import OrderBatchSpec
from marsjax.core.records import Array, BookView, Kind, Market, Status, Time
from marsjax.market.process import Event

_NEVER = -(2**30)
"""Number of an interval that no place holds."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class OrderImages:
    """The intervals of one trajectory, or [B, ...] of many. Interval k is [start + k, start + k + 1) times `every_s`.

    Interval k lies in place k mod (K + 1), K being `OrderImageObserver.keep`: the one that is under way and K before
    it. Read them by `OrderImageObserver.last`.
    """

    images: Array
    """uint8 [K + 1, 3, 2 V, P]."""
    numbers: Array
    """int32 [K + 1], the interval that each place holds. One without orders is held by none; its image is empty."""
    mid_twice: Array
    """int32 [], twice the float mid at the beginning of the newest interval that has an order."""
    newest: Array
    """int32 [], that interval."""
    first: Array
    """int32 [], the first interval that is known: 0, or less where `seeded` gave those before the start."""
    origin: Time
    """[], start of the trajectory."""


class LastImages(NamedTuple):
    """The images before an interval, oldest first."""

    images: Array
    """uint8 [..., K, 3, 2 V, P]; those that are not known are empty and come first."""
    known: Array
    """int32 [...], how many of them are known, 0 to K."""


@dataclasses.dataclass(frozen=True)
class OrderImageObserver:
    """The observer that makes the images of `core.order_images` of all accepted orders, whoever sent them.

    A cancel by price counts once, with all the shares that it took back, at the price of the first order that it hit.

    Examples:
      >>> from marsjax import Simulator, testing
      >>> market = testing.tiny_market()
      >>> observer = OrderImageObserver(OrderBatchSpec(), market.tick, keep=4)
      >>> simulator = Simulator.of(testing.tiny_model(), market, observers=[observer])
      >>> simulator.spec.observers[0].keep
      4
    """

    spec: OrderBatchSpec
    tick: int
    """Of the market, 1e-4 of the currency."""
    keep: int = 16
    """K, intervals that are kept beside the one that is under way."""

    def __post_init__(self) -> None:
        limits.check_whole("OrderImageObserver.tick", self.tick, 1, 2**30)
        limits.check_whole("OrderImageObserver.keep", self.keep, 1, limits.MINUTES)

    def begin(self, market: Market, view: BookView, time: Time) -> OrderImages:
        """No orders yet, and nothing known of the time before."""
        del market
        zero = jnp.zeros((), jnp.int32)
        return OrderImages(jnp.zeros((self.keep + 1, *self.spec.shape), jnp.uint8),
                           jnp.full(self.keep + 1, _NEVER, jnp.int32), jnp.asarray(view.mid_price_twice), zero - 1,
                           zero, jax.tree.map(jnp.asarray, time))

    def update(self, state: OrderImages, event: Event) -> OrderImages:
        """The images with an event's order."""
        counts = event.happened & (event.status == Status.ACCEPTED)
        passed = times.subtract(event.order.time, state.origin)
        interval = jnp.where(counts, jnp.asarray(passed.s) // self.spec.every_s, state.newest)
        is_new = interval > state.newest
        place = interval % (self.keep + 1)
        turned = jnp.where(is_new, place, self.keep + 1)
        images = jnp.asarray(state.images).at[turned].set(0, mode="drop")
        numbers = jnp.asarray(state.numbers).at[turned].set(interval, mode="drop")
        mid_twice = jnp.where(is_new, event.before.mid_price_twice, state.mid_twice)
        is_cancel = event.order.kind == Kind.CANCEL
        price = jnp.where(is_cancel, jnp.asarray(event.trades.price)[0], event.order.price)
        volume = jnp.where(is_cancel, int64.to_int32(event.trades.volume), event.order.volume)
        image = order_images.add(self.spec, images[place], (event.order.kind, price, volume),
                                 (event.before.mid_price_twice, mid_twice), self.tick, counts)
        images = images.at[jnp.where(counts, place, self.keep + 1)].set(image, mode="drop")
        return OrderImages(images, numbers, mid_twice, interval, state.first, state.origin)

    def end(self, state: OrderImages, market: Market, view: BookView, time: Time) -> OrderImages:
        """The state."""
        del market, view, time
        return state

    def last(self, state: OrderImages, before: Array) -> LastImages:
        """The K intervals before interval `before`, int32 [], of one trajectory; `vmap` it over many.

        They are right for intervals that are over and at most K older than the one under way.
        """
        wanted = jnp.asarray(before) - self.keep + jnp.arange(self.keep, dtype=jnp.int32)
        place = wanted % (self.keep + 1)
        is_held = (jnp.asarray(state.numbers)[place] == wanted) & (wanted >= state.first)
        images = jnp.where(is_held[:, None, None, None], jnp.asarray(state.images)[place], 0).astype(jnp.uint8)
        return LastImages(images, jnp.clip(before - state.first, 0, self.keep))

    def seeded(self, state: OrderImages, images: Array) -> OrderImages:
        """The state at the start with images of the N <= K intervals before it, uint8 [N, 3, 2 V, P], oldest first."""
        number = jnp.arange(-len(images), 0, dtype=jnp.int32)
        place = number % (self.keep + 1)
        return dataclasses.replace(
            state, images=jnp.asarray(state.images).at[place].set(jnp.asarray(images, jnp.uint8)),
            numbers=jnp.asarray(state.numbers).at[place].set(number), first=jnp.int32(-len(images)))
