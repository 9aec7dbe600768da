"""LOBSTER messages one by one: follows the resting orders, and says which orders would have caused each message."""

from marsjax.core.records import MAX_PRICE, NO_ID
from marsjax.data.order_stream import OrderStream
from marsjax.data.resting import ASK, BID

FIRST_OWN_ID = 2_000_000_000
"""Ids from here on are given by the reader: to seeds, and to aggressors that leave nothing to rest."""
NEW, EXECUTION, HIDDEN, CROSS, HALT = 1, 4, 5, 6, 7
_HALTS = {-1: "halt", 0: "quoting_resumed", 1: "trading_resumed"}


class Stream(OrderStream):
    """Turns messages into orders; an aggressor stays open until a message comes that is not part of it."""

    def __init__(self, grouped: bool) -> None:
        super().__init__(grouped, FIRST_OWN_ID)
        self._seeds: dict[tuple[int, int], int] = {}
        self._beyond: dict[int, int] = {}  # shares left of orders at prices that no exchange here takes

    def seed(self, time_ns: int, side: int, price: int, volume: int) -> None:
        """One order for all that rested at a price before the file."""
        if price > MAX_PRICE:
            self.adapted["beyond_price_limit"] += 1
            return
        self._seeds[side, price] = order_id = self.new_id()
        self.place(time_ns, side, price, volume, order_id, -1, True)

    def take(self, row: int, time_ns: int, kind: int, order_id: int, size: int, price: int, direction: int) -> bool:
        """One message; False if it adds an order that rests already."""
        side = BID if direction == 1 else ASK
        if kind >= HIDDEN:
            self._ignore(kind, price)
        elif price > MAX_PRICE:
            return self._take_beyond(kind, order_id, size)
        elif kind == NEW:
            if order_id in self.resting.place:
                return False
            before = self.aggressor
            if before is not None and self.allows_rest(time_ns, side, price):
                self.close_as(time_ns, side, price, before[3] + size, order_id, row)
            else:
                self.close()
                self.send_limit(time_ns, side, price, size, order_id, row)
            if left := self.match(side, price, size):
                self.resting.add(side, price, order_id, left)
        else:
            self.lessen(row, time_ns, kind, order_id, size, price, side)
        return True

    def lessen(self, row: int, time_ns: int, kind: int, order_id: int, size: int, price: int, side: int) -> None:
        """A cancel or an execution."""
        resting = self.resting
        left = resting.left(order_id)
        if not left:
            seed = self._seeds.get((side, price), NO_ID)
            if (left := resting.left(seed)) >= size:
                order_id = seed
                self.adapted["redirected"] += 1
        is_known = left >= size
        if kind == EXECUTION and is_known and resting.first(side) == order_id:
            self.execute(time_ns, 1 - side, price, size, order_id, row)
            return
        self.close()
        if is_known:
            if kind == EXECUTION:
                self.adapted["out_of_turn"] += 1
            self.take_off(time_ns, order_id, size, row)
        else:
            self.adapted["unknown"] += 1
            self.send_cancel(time_ns, side, price, size, order_id, row)
        if kind == EXECUTION:
            self.publish((time_ns, price, size, order_id, row), 1 - side, NO_ID)

    def _ignore(self, kind: int, price: int) -> None:
        if kind == HALT:
            self.ignored[_HALTS.get(price, "halt")] += 1
        else:
            self.ignored["hidden_execution" if kind == HIDDEN else "cross_trade"] += 1

    def _take_beyond(self, kind: int, order_id: int, size: int) -> bool:
        """An order at a price above the highest of the exchange, such as a stub quote, is kept beside the book."""
        if kind == NEW:
            if order_id in self._beyond:
                return False
            self._beyond[order_id] = size
        else:
            self._beyond[order_id] = self._beyond.get(order_id, 0) - size
            if self._beyond[order_id] <= 0:
                del self._beyond[order_id]
        self.adapted["beyond_price_limit"] += 1
        return True
