"""Messages about resting orders -> the orders that cause them: what the readers of such feeds share.

A message tells what happened to a resting order; the exchange needs the order that did it. `OrderStream` follows the
book, holds the aggressor that executions show until a message comes that is not part of it, and collects orders,
fills and counts.
"""

from collections import Counter
from typing import NamedTuple

import numpy as np

from marsjax.core.records import NO_ID, Kind
from marsjax.data.feed import FeedChunk, PublishedFills
from marsjax.data.resting import BID, RestingOrders
from marsjax.market import orders

CANCEL = int(Kind.CANCEL)


class OrderRow(NamedTuple):
    """An order as it is collected; fields as in `orders.from_columns`."""

    time_ns: int
    kind: int
    price: int
    volume: int
    order_id: int
    cancel_side: int
    cancel_id: int
    sequence: int
    is_synthetic: bool


class Aggressor(NamedTuple):
    """An order that executions show, as far as they do."""

    time_ns: int
    kind: int
    price: int
    """Of the last execution, the worst."""
    volume: int
    sequence: int


class OrderStream:
    """What a reader has made of the messages so far."""

    def __init__(self, grouped: bool, first_own_id: int) -> None:
        self.grouped = grouped
        """Whether executions of one time and side in turn are one order."""
        self.resting = RestingOrders()
        self.ignored: Counter[str] = Counter()
        self.adapted: Counter[str] = Counter()
        self.aggressor: Aggressor | None = None
        self._next_id = first_own_id
        self._events: list[tuple[int, ...]] = []
        self._fills: list[tuple[int, ...]] = []
        self._open_fills: list[tuple[int, int, int, int, int]] = []  # time, price, volume, resting id, sequence

    def new_id(self) -> int:
        """An id that no message names."""
        self._next_id += 1
        return self._next_id - 1

    def send_limit(self, time_ns: int, side: int, price: int, volume: int, order_id: int, sequence: int,
                   is_synthetic: bool = False) -> None:
        """Hands out a limit order; the resting orders stay as they are."""
        self._events.append((time_ns, side, price, volume, order_id, NO_ID, NO_ID, sequence, is_synthetic))

    def send_cancel(self, time_ns: int, side: int, price: int, volume: int, order_id: int, sequence: int,
                    is_synthetic: bool = False) -> None:
        """Hands out a cancel; the resting orders stay as they are."""
        self._events.append((time_ns, CANCEL, price, volume, NO_ID, side, order_id, sequence, is_synthetic))

    def place(self, time_ns: int, side: int, price: int, volume: int, order_id: int, sequence: int,
              is_synthetic: bool = False) -> None:
        """A limit order that trades with nobody."""
        self.send_limit(time_ns, side, price, volume, order_id, sequence, is_synthetic)
        self.resting.add(side, price, order_id, volume)

    def take_off(self, time_ns: int, order_id: int, volume: int, sequence: int, is_synthetic: bool = False) -> None:
        """A cancel of a resting order that has the shares."""
        side, price = self.resting.place[order_id]
        self.send_cancel(time_ns, side, price, volume, order_id, sequence, is_synthetic)
        self.resting.reduce(order_id, volume)

    def match(self, side: int, price: int, volume: int) -> int:
        """What the exchange leaves to rest of a new order that may cross the book as known; follows its trades."""
        resting, left = self.resting, volume
        while left and (first := resting.first(1 - side)) != NO_ID:
            hit = resting.place[first][1]
            if hit > price if side == BID else hit < price:
                break
            traded = min(left, resting.left(first))
            resting.reduce(first, traded)
            left -= traded
        if left < volume:
            self.adapted["crossed"] += 1
        return left

    def execute(self, time_ns: int, side: int, price: int, size: int, order_id: int, sequence: int) -> None:
        """A fill of a resting order, the next of its side to trade, by an aggressor of side `side`."""
        self.resting.reduce(order_id, size)
        before = self.aggressor
        if before is not None and before[0] == time_ns and before[1] == side:
            self.aggressor = Aggressor(time_ns, side, price, before[3] + size, sequence)
        else:
            self.close()
            self.aggressor = Aggressor(time_ns, side, price, size, sequence)
        fills = self._open_fills
        if fills and fills[-1][3] == order_id:  # an order hit twice by one is one fill
            size += fills.pop()[2]
        fills.append((time_ns, price, size, order_id, sequence))
        if not self.grouped:
            self.close()

    def close(self) -> None:
        """Hands out the open aggressor, of which nothing rests."""
        if self.aggressor is not None:
            time_ns, kind, price, volume, sequence = self.aggressor
            self.close_as(time_ns, kind, price, volume, self.new_id(), sequence)

    def close_as(self, time_ns: int, side: int, price: int, volume: int, order_id: int, sequence: int) -> None:
        """Hands out the open aggressor as this order."""
        self.send_limit(time_ns, side, price, volume, order_id, sequence)
        for fill in self._open_fills:
            self.publish(fill, side, order_id)
        self.aggressor = None
        self._open_fills.clear()

    def publish(self, fill: tuple[int, int, int, int, int], aggressor: int, order_id: int) -> None:
        """A fill as the exchange published it: time, price, volume, resting id, sequence; who was the aggressor."""
        time_ns, price, volume, resting_id, sequence = fill
        buy, sell = (order_id, resting_id) if aggressor == BID else (resting_id, order_id)
        self._fills.append((time_ns, price, volume, buy, sell, aggressor, sequence))

    def allows_rest(self, time_ns: int, side: int, price: int) -> bool:
        """Whether a new order can be the rest of the aggressor: its time and side, its limit allows the worst fill."""
        before = self.aggressor
        if before is None or before[0] != time_ns or before[1] != side:
            return False
        return price >= before[2] if side == BID else price <= before[2]

    def __len__(self) -> int:
        """Orders since the last chunk."""
        return len(self._events)

    def chunk(self, account: int) -> FeedChunk:
        """The orders and fills since the last chunk."""
        table = np.array(self._events, np.int64).reshape(-1, len(OrderRow._fields))
        columns = dict(zip(OrderRow._fields, table.T, strict=True))
        sequence, is_synthetic = columns.pop("sequence").copy(), columns.pop("is_synthetic").astype(bool)
        fills = np.array(self._fills, np.int64).reshape(-1, 7).T
        price, volume, buy_id, sell_id, aggressor = (column.astype(np.int32) for column in fills[1:6])
        result = FeedChunk(
            orders.from_columns(**columns, account=np.full(len(table), account)),
            PublishedFills(fills[0].copy(), price, volume, buy_id, sell_id, aggressor, fills[6].copy()),
            sequence, dict(+self.ignored), dict(+self.adapted), is_synthetic if is_synthetic.any() else None)
        self._events, self._fills = [], []
        self.ignored, self.adapted = Counter(), Counter()
        return result
