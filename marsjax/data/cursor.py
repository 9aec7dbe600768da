"""Reads a feed a given number of orders at a time, and not past a given time."""

from collections.abc import Iterator

import jax
import numpy as np

from marsjax.core import times
from marsjax.core.records import Order
from marsjax.data.feed import FeedChunk
from marsjax.market import orders

NO_ORDERS = orders.from_columns(*[np.zeros(0, np.int64)] * 8)
"""Order arrays of length 0."""


class OrderCursor:
    """A place in a feed; what is read beyond a time waits for the next call."""

    def __init__(self, feed: Iterator[FeedChunk]) -> None:
        self._feed = feed
        self._ahead: Order | None = None
        self._lately: list[FeedChunk] = []

    def take(self, count: int, until_ns: int) -> Order:
        """The next orders, at most `count`, sent at `until_ns` or before; empty if there are none."""
        parts, missing = [], count
        while missing:
            if self._ahead is None or not len(self._ahead.kind):
                chunk = next(self._feed, None)
                if chunk is None:
                    break
                self._ahead = chunk.orders
                self._lately.append(chunk)
                continue
            late = times.to_ns(self._ahead.time) > until_ns
            ready = int(np.argmax(late)) if late.any() else len(late)
            size = min(ready, missing)
            if size == 0:
                break
            parts.append(jax.tree.map(lambda x, n=size: x[:n], self._ahead))
            self._ahead = jax.tree.map(lambda x, n=size: x[n:], self._ahead)
            missing -= size
        return jax.tree.map(lambda *x: np.concatenate(x), *parts) if parts else NO_ORDERS

    def read_lately(self) -> list[FeedChunk]:
        """The chunks read since the last call."""
        lately, self._lately = self._lately, []
        return lately
