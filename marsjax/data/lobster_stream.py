"""LOBSTER messages one by one: follows the resting orders, and says which orders would have caused each message."""

import heapq
from collections import Counter, OrderedDict
from typing import NamedTuple

import numpy as np

from marsjax.core.records import NO_ID, Kind, Side
from marsjax.data.feed import FeedChunk, PublishedFills
from marsjax.market import orders

FIRST_OWN_ID = 2_000_000_000
"""Ids from here on are given by the reader: to seeds, and to aggressors that leave nothing to rest."""
NEW, EXECUTION, HIDDEN = 1, 4, 5
IGNORED = {HIDDEN: "hidden_execution", 6: "cross_trade", 7: "halt"}
# Sides and kinds are plain ints here: enum members are slow keys, and this runs once a message.
ASK, BID, CANCEL = int(Side.ASK), int(Side.BID), int(Kind.CANCEL)


class VisibleEvent(NamedTuple):
    """An order that causes what a message shows; fields as in `orders.from_columns`."""

    time_ns: int
    kind: int
    price: int
    volume: int
    order_id: int
    cancel_side: int
    cancel_id: int
    sequence: int


class Fill(NamedTuple):
    """One execution, whose aggressor is not known yet."""

    time_ns: int
    price: int
    volume: int
    resting_id: int
    sequence: int


class RestingOrders:
    """The resting orders in order of priority, as far as the file tells."""

    def __init__(self) -> None:
        self.place: dict[int, tuple[int, int]] = {}
        self.levels: tuple[dict[int, OrderedDict[int, int]], ...] = {}, {}  # asks, bids: volume by id, by price
        self._best: tuple[list[int], list[int]] = [], []  # prices as heaps, those of bids negative

    def add(self, side: int, price: int, order_id: int, volume: int) -> None:
        """Puts an order last at its price."""
        if price not in self.levels[side]:
            self.levels[side][price] = OrderedDict()
            heapq.heappush(self._best[side], price if side == ASK else -price)
        self.levels[side][price][order_id] = volume
        self.place[order_id] = side, price

    def left(self, order_id: int) -> int:
        """Shares left of an order, 0 if it does not rest."""
        if order_id not in self.place:
            return 0
        side, price = self.place[order_id]
        return self.levels[side][price][order_id]

    def reduce(self, order_id: int, volume: int) -> None:
        """Takes shares off a resting order that has them."""
        side, price = self.place[order_id]
        level = self.levels[side][price]
        level[order_id] -= volume
        if not level[order_id]:
            del level[order_id], self.place[order_id]

    def first(self, side: int) -> int:
        """Id of the next order to trade, NO_ID if there is none."""
        best, levels = self._best[side], self.levels[side]
        while best:
            if level := levels[abs(best[0])]:
                return next(iter(level))
            del levels[abs(heapq.heappop(best))]
        return NO_ID


class Stream:
    """Turns messages into orders; an aggressor stays open until a message comes that is not part of it."""

    def __init__(self, grouped: bool) -> None:
        self.grouped = grouped
        self.events: list[VisibleEvent] = []
        self._fills: list[tuple[int, ...]] = []
        self._ignored: Counter[str] = Counter()
        self._adapted: Counter[str] = Counter()
        self._resting = RestingOrders()
        self._seeds: dict[tuple[int, int], int] = {}
        self._next_id = FIRST_OWN_ID
        self._open: VisibleEvent | None = None
        self._open_fills: list[Fill] = []

    def seed(self, time_ns: int, side: int, price: int, volume: int) -> None:
        """One order for all that rested at a price before the file."""
        self._seeds[side, price] = self._next_id
        self._resting.add(side, price, self._next_id, volume)
        self.events.append(VisibleEvent(time_ns, side, price, volume, self._next_id, NO_ID, NO_ID, -1))
        self._next_id += 1

    def take(self, row: int, time_ns: int, kind: int, order_id: int, size: int, price: int, direction: int) -> bool:
        """One message; False if it adds an order that rests already."""
        side = BID if direction == 1 else ASK
        if kind in IGNORED:
            self._ignored[IGNORED[kind]] += 1
        elif kind == NEW:
            if order_id in self._resting.place:
                return False
            before = self._open
            if before is not None and _allows(before, time_ns, side, price):
                self.close(before._replace(price=price, volume=before.volume + size, order_id=order_id, sequence=row))
            else:
                self.close()
                self.events.append(VisibleEvent(time_ns, side, price, size, order_id, NO_ID, NO_ID, row))
            self._match(side, price, order_id, size)
        else:
            self._reduce(row, time_ns, kind, order_id, size, price, side)
        return True

    def _reduce(self, row: int, time_ns: int, kind: int, order_id: int, size: int, price: int, side: int) -> None:
        """A cancel or an execution."""
        seed = self._seeds.get((side, price), NO_ID)
        if order_id not in self._resting.place and self._resting.left(seed) >= size:
            order_id = seed
            self._adapted["redirected"] += 1
        is_known = self._resting.left(order_id) >= size
        is_first = kind == EXECUTION and is_known and self._resting.first(side) == order_id
        if is_known:
            self._resting.reduce(order_id, size)
            self._adapted["out_of_turn"] += kind == EXECUTION and not is_first
        else:
            self._adapted["unknown"] += 1
        if is_first:
            self._execute(time_ns, 1 - side, price, size, Fill(time_ns, price, size, order_id, row))
            return
        self.close()
        self.events.append(VisibleEvent(time_ns, CANCEL, price, size, NO_ID, side, order_id, row))
        if kind == EXECUTION:
            self._publish(Fill(time_ns, price, size, order_id, row), 1 - side, NO_ID)

    def _execute(self, time_ns: int, kind: int, price: int, size: int, fill: Fill) -> None:
        before = self._open
        if before is not None and (before.time_ns, before.kind) == (time_ns, kind):
            self._open = before._replace(price=price, volume=before.volume + size, sequence=fill.sequence)
        else:
            self.close()
            self._open = VisibleEvent(time_ns, kind, price, size, NO_ID, NO_ID, NO_ID, fill.sequence)
        self._open_fills.append(fill)
        if not self.grouped:
            self.close()

    def close(self, whole: VisibleEvent | None = None) -> None:
        """Hands out the open aggressor, as it stands or as `whole` says."""
        event = whole or self._open
        if event is None:
            return
        if event.order_id == NO_ID:
            event = event._replace(order_id=self._next_id)
            self._next_id += 1
        self.events.append(event)
        for fill in self._open_fills:
            self._publish(fill, event.kind, event.order_id)
        self._open, self._open_fills = None, []

    def _publish(self, fill: Fill, aggressor: int, order_id: int) -> None:
        buy, sell = (order_id, fill.resting_id) if aggressor == BID else (fill.resting_id, order_id)
        self._fills.append((fill.time_ns, fill.price, fill.volume, buy, sell, aggressor, fill.sequence))

    def _match(self, side: int, price: int, order_id: int, size: int) -> None:
        """Rests a new order; one that crosses the book as known will be matched by the exchange, so follow that."""
        left = size
        while left and (first := self._resting.first(1 - side)) != NO_ID:
            hit = self._resting.place[first][1]
            if hit > price if side == BID else hit < price:
                break
            traded = min(left, self._resting.left(first))
            self._resting.reduce(first, traded)
            left -= traded
        self._adapted["crossed"] += left < size
        if left:
            self._resting.add(side, price, order_id, left)

    def chunk(self, account: int) -> FeedChunk:
        """The orders and fills since the last chunk."""
        table = np.array(self.events, np.int64).reshape(-1, len(VisibleEvent._fields))
        columns = dict(zip(VisibleEvent._fields, table.T, strict=True))
        sequence = columns.pop("sequence").copy()
        fills = np.array(self._fills, np.int64).reshape(-1, 7).T
        price, volume, buy_id, sell_id, aggressor = (column.astype(np.int32) for column in fills[1:6])
        result = FeedChunk(
            orders.from_columns(**columns, account=np.full(len(table), account)),
            PublishedFills(fills[0].copy(), price, volume, buy_id, sell_id, aggressor, fills[6].copy()),
            sequence, dict(self._ignored), dict(+self._adapted))
        self.events, self._fills = [], []
        self._ignored, self._adapted = Counter(), Counter()
        return result


def _allows(aggressor: VisibleEvent, time_ns: int, side: int, price: int) -> bool:
    """Whether a new order can be the rest of an aggressor: same time and side, and its limit allows the worst fill."""
    if (aggressor.time_ns, aggressor.kind) != (time_ns, side):
        return False
    return price >= aggressor.price if side == BID else price <= aggressor.price
