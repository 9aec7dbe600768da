"""Orders of a minute as an image of counts (paper: order batches): what an order-batch model reads and writes.

An image has three channels (`Kind`: sells, buys, cancels), a row for each bin of volume, and a column for each bin of
price. Every order counts twice: in the lower half of the rows at its price less the mid just before it, which shows
how orders stand to the touch, and in the upper half at its price less the mid at the beginning of the interval, which
shows where the price went. From both together a linear map tells moves, spread and depth better than from either
(experiments/order_batch).
"""

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from marsjax.core import limits
from marsjax.core.errors import InputError
from marsjax.core.records import Array

CHANNELS = 3
"""`Kind.SELL`, `Kind.BUY`, `Kind.CANCEL`."""
REFERENCES = 2
"""Mids that a price is counted from: the one before the order, and the one at the beginning of the interval."""
MOST_COUNT = 255
"""What a count of 8 bits holds."""


@dataclasses.dataclass(frozen=True)
class OrderBatchSpec:
    """Sizes of an image, and what its rows and columns stand for.

    Examples:
      >>> spec = OrderBatchSpec(price_slots=8, volume_edges=(100, 1000, 5000))
      >>> spec.volume_slots, spec.shape
      (4, (3, 8, 8))
    """

    price_slots: int = 16
    """P, columns; an order at the mid lies in column P / 2, those beyond the first or last one count in it."""
    price_ticks_per_slot: int = 1
    volume_edges: tuple[int, ...] = (100, 200, 300, 500, 900, 2000, 5000)
    """Shares, rising: row i holds volumes above edge i - 1 up to edge i, the last row those above all."""
    most: int = MOST_COUNT
    """Largest count of a pixel; what comes beyond it is not counted."""
    every_s: int = 60
    """Seconds of an interval."""

    def __post_init__(self) -> None:
        limits.check_whole("OrderBatchSpec.price_slots", self.price_slots, 2, 1024)
        limits.check_whole("OrderBatchSpec.price_ticks_per_slot", self.price_ticks_per_slot, 1, 1000)
        limits.check_whole("OrderBatchSpec.most", self.most, 1, MOST_COUNT)
        limits.check_whole("OrderBatchSpec.every_s", self.every_s, 1, limits.MINUTES * 60)
        edges = self.volume_edges
        for value in edges:
            limits.check_whole("OrderBatchSpec.volume_edges", value, 0, 2**31 - 2)
        if not edges or list(edges) != sorted(set(edges)) or len(edges) >= 1024:
            raise InputError(f"OrderBatchSpec.volume_edges: expected 1 to 1023 rising numbers of shares, got {edges}")

    @property
    def volume_slots(self) -> int:
        """V, bins of volume."""
        return len(self.volume_edges) + 1

    @property
    def shape(self) -> tuple[int, int, int]:
        """[3, 2 V, P], of an image."""
        return CHANNELS, REFERENCES * self.volume_slots, self.price_slots

    @property
    def pixels(self) -> int:
        """Numbers of an image."""
        return math.prod(self.shape)


def places(spec: OrderBatchSpec, price: Array, volume: Array, mids_twice: tuple[Array, Array], tick: int,
           numbers: Any = jnp) -> tuple[Any, Any]:
    """Rows and columns of an order in the two halves of its channel, int32 [..., 2] each.

    Args:
      spec: of the image.
      price: int32 [...], its limit; of a cancel the price of the order that it takes back.
      volume: int32 [...], shares.
      mids_twice: int32 [...], twice the float mid before the order and at the beginning of its interval.
      tick: 1e-4 of the currency.
      numbers: the library that computes: jax.numpy, or numpy on the host, which compiles nothing.
    """
    edges = numbers.asarray(spec.volume_edges, numbers.int32)
    row = numbers.sum(numbers.asarray(volume)[..., None] > edges, axis=-1, dtype=numbers.int32)
    rows = numbers.stack([row, row + spec.volume_slots], axis=-1)
    away = 2 * numbers.asarray(price)[..., None] - numbers.stack([numbers.asarray(mid) for mid in mids_twice], axis=-1)
    column = away // (2 * tick * spec.price_ticks_per_slot) + spec.price_slots // 2
    return rows, numbers.clip(column, 0, spec.price_slots - 1).astype(numbers.int32)


def add(spec: OrderBatchSpec, image: Array, order: tuple[Array, Array, Array], mids_twice: tuple[Array, Array],
        tick: int, counts: Array | bool = True) -> jax.Array:
    """An image with one order more.

    Args:
      spec: of the image.
      image: uint8 [3, 2 V, P].
      order: its kind, price and volume, int32 [] each, as of `places`; other kinds than three leave the image as it is.
      mids_twice: as of `places`; where one is not above 0 there is no mid, and the order is left out.
      tick: 1e-4 of the currency.
      counts: bool [], where it is False the image stays as it is.
    """
    kind, price, volume = order
    rows, columns = places(spec, price, volume, mids_twice, tick)
    goes = has_place(kind, mids_twice) & counts
    channel = jnp.where(goes, kind, CHANNELS)
    image = jnp.asarray(image)
    old = image.at[channel, rows, columns].get(mode="fill", fill_value=0)
    new = jnp.minimum(old.astype(jnp.int32) + 1, spec.most).astype(image.dtype)
    return image.at[channel, rows, columns].set(new, mode="drop")


def has_place(kind: Array, mids_twice: tuple[Array, Array]) -> Array:
    """Whether an order of a kind has a place in an image, bool [...]: it is one of three, and both mids exist."""
    before, first = mids_twice
    return (kind >= 0) & (kind < CHANNELS) & (before > 0) & (first > 0)


def of_orders(spec: OrderBatchSpec, columns: tuple[np.ndarray, np.ndarray, np.ndarray],
              mids_twice: tuple[np.ndarray, np.ndarray], tick: int, interval: np.ndarray, count: int) -> np.ndarray:
    """Images of recorded orders, uint8 [count, 3, 2 V, P], on the host.

    Args:
      spec: of the images.
      columns: kind, price and volume of the orders, int32 [N] each, as of `add`.
      mids_twice: int32 [N] each, as of `add`.
      tick: 1e-4 of the currency.
      interval: int [N], which image an order goes to; one outside 0 to count - 1 goes to none.
      count: images.
    """
    kind, price, volume = columns
    rows, at = places(spec, price, volume, mids_twice, tick, np)
    goes = has_place(kind, mids_twice) & (interval >= 0) & (interval < count)
    found = np.zeros((count, *spec.shape), np.int64)
    for half in range(REFERENCES):
        np.add.at(found, (interval[goes], kind[goes], rows[goes, half], at[goes, half]), 1)
    return np.minimum(found, spec.most).astype(np.uint8)
