"""What a stretch of a trajectory did, in eight numbers: what a guide of controlled futures goes by."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from marsjax.core import int64
from marsjax.core.errors import InputError
from marsjax.core.records import EMPTY_PRICE, Array, BookView, Int64, Kind, Market, Status, Time
from marsjax.market.process import Event

BASIS_POINTS = 1e4
"""Of one."""


class Features(NamedTuple):
    """One interval of a trajectory, float32 [], or [B] of many; [I, B] in results."""

    return_bp: Array
    """The mid now against the mid at the start of the trajectory, basis points."""
    move_bp: Array
    """The mid now against the mid at the beginning of the interval, basis points."""
    volatility_bp: Array
    """Root of the sum of squared moves of the mid, order by order, basis points."""
    volume: Array
    """Shares traded."""
    imbalance: Array
    """Bought less sold by who came, over all that traded, -1 to 1; 0 where nothing did."""
    spread_ticks: Array
    """Mean over the books of the interval with both sides, ticks: that at its beginning, or the last such one before,
    and those after its orders. A book with an empty side has no spread and is left out; 0 where there never was one."""
    depth: Array
    """Mean over the book at the interval's beginning and those after its orders, shares at the levels of a view, both
    sides together."""
    orders: Array
    """Accepted orders, each cancel of a cancel by price counted."""


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class FeatureSums:
    """What `Features` are made of, of one trajectory, or [B] of many."""

    mid_twice: Array
    """int32, twice the float mid now; where there is none, the last one there was."""
    mid_twice_start: Array
    """int32, at the start of the trajectory."""
    mid_twice_before: Array
    """int32, at the beginning of the interval."""
    squares: Array
    """float32, sum of the squared moves, basis points squared."""
    bought: Int64
    """Shares that came to buy and traded."""
    sold: Int64
    """Likewise to sell."""
    spread: Array
    """int32, of the last book with both sides, 1e-4 of the currency."""
    depth: Int64
    """Of the book now, shares."""
    spread_sum: Int64
    """Over the books of the interval with both sides."""
    depth_sum: Int64
    """Over all its books."""
    books: Array
    """int32, how many these are."""
    spreads: Array
    """int32, how many of them have both sides, with the one at the beginning of the interval, or before."""
    orders: Array
    """int32."""


@dataclasses.dataclass(frozen=True)
class FeatureObserver:
    """The observer that makes `Features` of all since the start, or since it was `emptied`.

    Examples:
      >>> import marsjax
      >>> from marsjax import RolloutSpec, Simulator, testing
      >>> model, market = testing.tiny_model(), testing.tiny_market()
      >>> simulator = Simulator.of(model, market, observers=[FeatureObserver(market.tick)])
      >>> start = testing.random_start(market, model)
      >>> run = marsjax.rollout(simulator, start, RolloutSpec(trajectories=4, minutes=1, seed=1))
      >>> found = run.observed[0]
      >>> found.volume.shape, bool((found.return_bp == found.move_bp).all())
      ((4,), True)
    """

    tick: int = 100
    """Smallest price step, 1e-4 of the currency (`MarketSpec.tick`)."""

    def __post_init__(self) -> None:
        if type(self.tick) is not int or self.tick < 1:
            raise InputError(f"FeatureObserver.tick: expected a whole number of at least 1, got {self.tick!r}")

    def begin(self, market: Market, view: BookView, time: Time) -> FeatureSums:
        """The book at the start, and no orders yet."""
        del market, time
        zero = jnp.zeros((), jnp.int32)
        none, mid, depth = int64.of_int32(zero), jnp.asarray(view.mid_price_twice, jnp.int32), _depth(view)
        has_spread = _has_both(view).astype(jnp.int32)
        spread = has_spread * view.spread
        return FeatureSums(mid, mid, mid, zero.astype(jnp.float32), none, none, spread, depth, int64.of_int32(spread),
                           depth, zero + 1, has_spread, zero)

    def update(self, state: FeatureSums, event: Event) -> FeatureSums:
        """Adds an event."""
        is_new = jnp.asarray(event.happened & (event.orders > 0))
        mid = jnp.where(is_new & event.view.has_mid, event.view.mid_price_twice, state.mid_twice)
        move = _basis_points(mid, state.mid_twice)
        traded = int64.only(is_new & (event.status == Status.ACCEPTED) & (event.order.kind != Kind.CANCEL),
                            event.trades.volume)
        is_buy = event.order.kind == Kind.BUY
        has_spread = is_new & _has_both(event.view)
        spread = jnp.where(has_spread, event.view.spread, state.spread)
        depth = int64.select(is_new, _depth(event.view), state.depth)
        return FeatureSums(
            mid, state.mid_twice_start, state.mid_twice_before, state.squares + move * move,
            int64.add(state.bought, int64.only(is_buy, traded)), int64.add(state.sold, int64.only(~is_buy, traded)),
            spread, depth,
            int64.add(state.spread_sum, int64.only(has_spread, int64.of_int32(spread))),
            int64.add(state.depth_sum, int64.only(is_new, depth)), state.books + is_new,
            state.spreads + has_spread, state.orders + jnp.where(is_new, event.orders, 0))

    def end(self, state: FeatureSums, market: Market, view: BookView, time: Time) -> Features:
        """The features."""
        del market, view, time
        return self.of(state)

    def of(self, state: FeatureSums) -> Features:
        """The features of what there is, [...]."""
        bought, sold = _float(state.bought), _float(state.sold)
        books, volume = jnp.asarray(state.books, jnp.float32), bought + sold
        return Features(
            _basis_points(state.mid_twice, state.mid_twice_start),
            _basis_points(state.mid_twice, state.mid_twice_before), jnp.sqrt(state.squares), volume,
            (bought - sold) / jnp.maximum(volume, 1),
            _float(state.spread_sum) / (self.tick * jnp.maximum(jnp.asarray(state.spreads, jnp.float32), 1)),
            _float(state.depth_sum) / books, jnp.asarray(state.orders, jnp.float32))

    def emptied(self, state: FeatureSums) -> FeatureSums:
        """A new interval begins, [...]: its first book is the one that there is."""
        zero = jnp.zeros_like(state.orders)
        none = int64.of_int32(zero)
        return FeatureSums(state.mid_twice, state.mid_twice_start, state.mid_twice, jnp.zeros_like(state.squares), none,
                           none, state.spread, state.depth, int64.of_int32(state.spread), state.depth, zero + 1,
                           jnp.minimum(state.spreads, 1), zero)


def _basis_points(now: Array, before: Array) -> jax.Array:
    """The move from one mid to another, float32; 0 where there was none before."""
    base = jnp.maximum(before, 1).astype(jnp.float32)
    return jnp.where((before > 0) & (now > 0), BASIS_POINTS * (now - before).astype(jnp.float32) / base, 0.0)


def _has_both(view: BookView) -> jax.Array:
    """bool [], whether somebody sells and somebody buys."""
    return jnp.asarray((view.ask_price[0] != EMPTY_PRICE) & (view.bid_price[0] != EMPTY_PRICE))


def _depth(view: BookView) -> Int64:
    """Shares at all levels of both sides."""
    return int64.add(int64.add_up(view.ask_volume), int64.add_up(view.bid_volume))


def _float(value: Int64) -> jax.Array:
    """The nearest float32, or so: the high word of a sum of shares is at least 0."""
    return jnp.asarray(value.hi, jnp.float32) * 2.0**32 + jnp.asarray(value.lo, jnp.uint32).astype(jnp.float32)
