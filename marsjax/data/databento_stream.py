"""Databento's market-by-order messages one by one -> the orders that cause them."""

from marsjax.core.records import MAX_PRICE
from marsjax.data.order_ids import NumberedIds
from marsjax.data.order_stream import OrderStream
from marsjax.data.resting import ASK, BID


class MboStream(OrderStream):
    """Turns messages into orders: fills into the aggressor that made them, the cancels that repeat them into nothing.

    Every order has a number of its own in `ids`; one that loses its priority when it is modified has a new one.
    """

    def __init__(self, grouped: bool, ids: NumberedIds) -> None:
        super().__init__(grouped, 0)
        self._ids = ids
        self._live: dict[int, int] = {}  # number of each order that rests
        self._filled: dict[int, int] = {}  # shares filled whose cancel or modify is still to come
        self._beyond: set[int] = set()  # orders at prices that no exchange here takes
        self._taker = 0  # id of the aggressor, 0 where the feed does not tell
        self._is_bare = False  # a trade came, and no fill of a resting order after it

    def new_id(self) -> int:
        """A number for an aggressor that leaves nothing to rest."""
        return self._ids.add(self._taker)

    def add(self, row: int, time_ns: int, side: int, price: int, size: int, order_id: int) -> bool:
        """A new order; False if it rests already. One that follows fills of its side at once is the aggressor's rest.

        Times are nanoseconds since midnight, prices and sizes as the exchange here takes them.
        """
        if order_id in self._live or order_id in self._beyond:
            return False
        if price > MAX_PRICE:
            self._beyond.add(order_id)
            self.adapted["beyond_price_limit"] += 1
            return True
        before = self.aggressor
        self._live[order_id] = number = self._ids.add(order_id)
        if before is not None and self._is_rest(time_ns, side, price, order_id):
            self.close_as(time_ns, side, price, before.volume + size, number, row)
        else:
            self.close()
            self.send_limit(time_ns, side, price, size, number, row)
        if left := self.match(side, price, size):
            self.resting.add(side, price, number, left)
        else:
            del self._live[order_id]
        return True

    def cancel(self, row: int, time_ns: int, size: int, order_id: int) -> None:
        """Shares taken off an order: those of its fills are off already."""
        filled = self._filled.get(order_id, 0)
        if filled:
            if filled > size:
                self._filled[order_id] = filled - size
            else:
                del self._filled[order_id]
            size -= min(filled, size)
        number = self._live.get(order_id)
        if number is None:
            if order_id in self._beyond:
                self._beyond.discard(order_id)
            elif size:
                self.ignored["unknown_order"] += 1
            return
        left = self.resting.left(number)
        if size > left:
            self.adapted["over_cancel"] += 1
            size = left
        if size:
            self.close()
            self.take_off(time_ns, number, size, row)
        if left == size:
            del self._live[order_id]

    def modify(self, row: int, time_ns: int, side: int, price: int, size: int, order_id: int) -> None:
        """A new price or size; the order keeps its place only where its size becomes smaller at the same price."""
        self._filled.pop(order_id, None)
        number = self._live.get(order_id)
        if number is None:
            # Not an order from before the file alone: also one at a price too high that comes down.
            self._beyond.discard(order_id)
            self.adapted["modified_unknown"] += 1
        elif (place := self.resting.place.get(number)) is not None:
            left = self.resting.left(number)
            if place == (side, price) and size <= left:
                if size < left:
                    self.close()
                    self.take_off(time_ns, number, left - size, row)
                return
            if not self._is_rest(time_ns, side, price, order_id):
                self.close()
            self.take_off(time_ns, number, left, row)
        self._live.pop(order_id, None)
        self.add(row, time_ns, side, price, size, order_id)

    def trade(self, order_id: int) -> None:
        """A trade as the aggressor's; its fills follow."""
        self.end_trade()
        self._taker, self._is_bare = order_id, True

    def fill(self, row: int, time_ns: int, price: int, size: int, order_id: int) -> None:
        """A resting order was filled."""
        self._is_bare = False
        number = self._live.get(order_id)
        if number is None:
            self.ignored["fill_of_unknown_order"] += 1
            return
        self._filled[order_id] = self._filled.get(order_id, 0) + size
        left = self.resting.left(number)
        if size > left:
            self.adapted["over_fill"] += 1
            size = left
        if not size:
            return
        side, limit = self.resting.place[number]
        if limit == price and self.resting.first(side) == number:
            self.execute(time_ns, 1 - side, price, size, number, row)
        else:
            self.close()
            self.adapted["out_of_turn"] += 1
            self.take_off(time_ns, number, size, row)

    def clear(self, row: int, time_ns: int) -> None:
        """The book becomes empty."""
        self.close()
        for side in (ASK, BID):
            for number, _, volume in self.resting.all_of(side):
                self.take_off(time_ns, number, volume, row, True)
                self.adapted["cleared"] += 1
        self._live.clear()
        self._filled.clear()
        self._beyond.clear()

    def end_trade(self) -> None:
        """Tells of a trade that no resting order was filled by: one with a hidden order, or in a cross."""
        if self._is_bare:
            self.ignored["trade_without_fill"] += 1
        self._is_bare = False

    def _is_rest(self, time_ns: int, side: int, price: int, order_id: int) -> bool:
        return self._taker in (0, order_id) and self.allows_rest(time_ns, side, price)

