"""The noise agent: random orders around the last price, the source of starting states (reference: noise agent)."""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from marsjax.core import times
from marsjax.core.errors import InputError
from marsjax.core.records import MAX_PRICE, Array, Kind, Time


@dataclasses.dataclass(frozen=True)
class NoiseSpec:
    """What the noise agent draws from; weights are relative.

    Examples:
      >>> spec = NoiseSpec(init_price=500_000, interval_ns=200_000_000)
      >>> sum(spec.kind_weights), max(spec.volumes)
      (5, 2000)
    """

    init_price: int = 100_000
    """Stands for the last price before the first trade, 1e-4 of the currency."""
    interval_ns: int = 1_000_000_000
    """Mean time between wake-ups; each lasts interval x U(0.5, 1.5)."""
    kinds: tuple[int, ...] = (Kind.BUY, Kind.SELL, Kind.CANCEL)
    kind_weights: tuple[int, ...] = (2, 2, 1)
    offsets: tuple[int, ...] = (0, 100, -100, 200, -200, 300, -300, 400, -400, 500, -500)
    """Price less last price, 1e-4 of the currency."""
    offset_weights: tuple[int, ...] = (8, 8, 8, 4, 4, 2, 2, 1, 1, 1, 1)
    volumes: tuple[int, ...] = (100, 200, 500, 1000, 2000)
    """Shares."""
    volume_weights: tuple[int, ...] = (20, 12, 6, 1, 1)

    def __post_init__(self) -> None:
        if self.init_price <= 0:
            raise InputError(f"NoiseSpec.init_price: expected a positive price, got {self.init_price}")
        if not 2 <= self.interval_ns < 10**12:
            raise InputError(f"NoiseSpec.interval_ns: expected 2 .. {10**12 - 1}, got {self.interval_ns}")
        for values, weights in (("kinds", "kind_weights"), ("offsets", "offset_weights"),
                                ("volumes", "volume_weights")):
            count, given = len(getattr(self, values)), getattr(self, weights)
            if not count or len(given) != count or min(given) < 0 or not 0 < sum(given) < 2**31:
                raise InputError(f"NoiseSpec.{weights}: expected {count or 'some'} weights >= 0, one for each of "
                                 f"{values}, got {given}")
        low, high = max(1 - min(self.offsets), 1), MAX_PRICE - max(self.offsets)
        if not low <= self.init_price <= high:
            raise InputError(f"NoiseSpec.init_price: expected {low} to {high}, so that no first price (init_price + "
                             f"offsets) is out of range, got {self.init_price}")


class NoiseOrder(NamedTuple):
    """One decision of the noise agent."""

    kind: jax.Array
    """[], a `Kind`."""
    price: jax.Array
    """[], 1e-4 of the currency; of a cancel, the price that it looks near to."""
    volume: jax.Array
    """[] shares."""
    upper_wins: jax.Array
    """[] bool, coin toss between two resting prices as near (`cancels.nearest`)."""
    sleep: Time
    """Until the next wake-up."""


def act(spec: NoiseSpec, key: jax.Array, last_price: Array) -> NoiseOrder:
    """Draws the order of one wake-up and the time to the next.

    Args:
      spec: the distributions.
      key: a key for this draw alone.
      last_price: int32 [], NO_PRICE before the first trade.
    """
    bits = jax.random.bits(key, (5,), jnp.uint32)
    anchor = jnp.where(last_price > 0, last_price, spec.init_price)
    return NoiseOrder(
        kind=_pick(bits[0], spec.kinds, spec.kind_weights),
        price=anchor + _pick(bits[1], spec.offsets, spec.offset_weights),
        volume=_pick(bits[2], spec.volumes, spec.volume_weights),
        upper_wins=(bits[3] & 1) == 1,
        sleep=times.draw_uniform(bits[4], low_ns=spec.interval_ns // 2, width_ns=spec.interval_ns))


def _pick(bits: jax.Array, values: tuple[int, ...], weights: tuple[int, ...]) -> jax.Array:
    """The value whose share of the 2**32 words holds `bits`: exact to 2**-32."""
    total, reached, index = sum(weights), 0, jnp.zeros((), jnp.int32)
    for weight in weights[:-1]:
        reached += weight
        if reached < total:
            index += bits >= jnp.asarray((reached << 32) // total, jnp.uint32)
    return jnp.asarray(values, jnp.int32)[index]
