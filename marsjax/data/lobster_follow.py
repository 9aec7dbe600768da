"""LOBSTER messages together with the book file: the reader's book holds what the file shows, after every message.

A file of N levels tells nothing of what happens outside them. Levels that leave the window stay in the book as they
were; when the window comes to them again, what went meanwhile is cancelled and what came is put there as one order.
"""

import heapq

from marsjax.core.records import NO_ID
from marsjax.data.lobster_stream import EXECUTION, NEW, Stream
from marsjax.data.resting import ASK, BID

_MOST = 3500
"""Resting orders of a side at which those far outside the window are cancelled, so that no book overflows."""
_KEPT = 2500
FAR = 2**62
"""The bound of a side that is in sight as a whole."""
Levels = tuple[dict[int, int], dict[int, int]]
"""Volume by price, asks and bids, best first."""


class FollowedStream(Stream):
    """A `Stream` whose book is put right by the rows of the book file."""

    def __init__(self, grouped: bool) -> None:
        super().__init__(grouped)
        self._bounds = [0, 0]  # up to where all levels are in sight, those of bids negative
        self._outside: tuple[list[int], list[int]] = [], []  # prices left behind, as heaps, nearest first

    def begin(self, time_ns: int, levels: Levels, bounds: tuple[int, int]) -> None:
        """The book before the first message, one order a level, and up to where all levels are in sight."""
        self._bounds = list(bounds)
        for side, row in enumerate(levels):
            for price, volume in row.items():
                self.seed(time_ns, side, price, volume)

    def take(self, row: int, time_ns: int, kind: int, order_id: int, size: int, price: int, direction: int) -> bool:
        """One message; False if it adds an order that rests already."""
        if kind == NEW:
            side = BID if direction == 1 else ASK
            far = price if side == ASK else -price
            # Messages may tell of more levels than the book file has.
            if far > self._bounds[side] and not self.resting.levels[side].get(price):
                heapq.heappush(self._outside[side], far)
        return super().take(row, time_ns, kind, order_id, size, price, direction)

    def lessen(self, row: int, time_ns: int, kind: int, order_id: int, size: int, price: int, side: int) -> None:
        """A cancel or an execution; of an order that has not the shares here, others at its price give them up."""
        resting = self.resting
        if resting.left(order_id) >= size and resting.place[order_id] == (side, price):
            super().lessen(row, time_ns, kind, order_id, size, price, side)
            return
        level = resting.at(side, price)
        if sum(volume for _, volume in level) < size:
            self.close()
            self.adapted["unknown"] += 1  # the book file will put the level right
            return
        self.adapted["redirected"] += 1
        trades = kind == EXECUTION and resting.first(side) == level[0][0]
        if not trades:
            self.close()
            if kind == EXECUTION:
                self.adapted["out_of_turn"] += 1
            own = [(other, volume) for other, volume in level if other == order_id]
            level = own + [(other, volume) for other, volume in reversed(level) if other != order_id]
        for other, volume in level:
            part = min(size, volume)
            if trades:
                self.execute(time_ns, 1 - side, price, part, other, row)
            else:
                self.take_off(time_ns, other, part, row)
                if kind == EXECUTION:
                    self.publish((time_ns, price, part, other, row), 1 - side, NO_ID)
            size -= part
            if not size:
                return

    def move(self, row: int, time_ns: int, side: int, left: int, entered: int, volume: int, bound: int) -> None:
        """The window of one side has moved (`lobster_book.WindowMove`), after the message of this row and time."""
        sign = 1 if side == ASK else -1
        self._bounds[side] = bound
        outside, resting = self._outside[side], self.resting
        if left and resting.levels[side].get(left):
            heapq.heappush(outside, sign * left)
        while outside and outside[0] <= bound:
            price = sign * heapq.heappop(outside)
            if price != entered:
                self._lower(row, time_ns, side, price, 0)
        if entered and volume >= 0:
            level = resting.levels[side].get(entered)
            held = sum(level.values()) if level else 0
            if held > volume:
                self._lower(row, time_ns, side, entered, volume)
            elif held < volume:
                self._raise(row, time_ns, side, entered, volume)
        if resting.count[side] > _MOST:
            self._forget_far(row, time_ns, side)

    def put_right(self, row: int, time_ns: int, levels: Levels, bounds: tuple[int, int], is_crossed: bool) -> None:
        """Every level in sight as the file has it (`lobster_book.Whole`), whatever the book holds."""
        if is_crossed:
            # While trading is halted orders may cross; a book that trades cannot hold them.
            self.adapted["crossed_rows"] += 1
            return
        self.close()
        self.adapted["rows_put_right"] += 1
        for side in (ASK, BID):
            sign, bound = 1 if side == ASK else -1, bounds[side]
            held = [price for price, level in self.resting.levels[side].items() if level]
            for price in held:
                if sign * price <= bound:
                    self._lower(row, time_ns, side, price, levels[side].get(price, 0))
            self._outside[side][:] = sorted(sign * price for price in held if sign * price > bound)
            self._bounds[side] = bound
        for side in (ASK, BID):  # once all cancels are done nothing crosses
            for price, volume in levels[side].items():
                self._raise(row, time_ns, side, price, volume)

    def _lower(self, row: int, time_ns: int, side: int, price: int, volume: int) -> None:
        """Cancels the youngest orders of a level down to this volume."""
        level = self.resting.at(side, price)
        surplus = sum(left for _, left in level) - volume
        for order_id, left in reversed(level):
            if surplus <= 0:
                return
            part = min(left, surplus)
            self.take_off(time_ns, order_id, part, row, True)
            self.adapted["pruned"] += 1
            surplus -= part

    def _raise(self, row: int, time_ns: int, side: int, price: int, volume: int) -> None:
        """Puts what a level lacks of this volume behind all its orders, as one order."""
        missing = volume - sum(left for _, left in self.resting.at(side, price))
        if missing > 0:
            self.place(time_ns, side, price, missing, self.new_id(), row, True)
            self.adapted["refilled"] += 1

    def _forget_far(self, row: int, time_ns: int, side: int) -> None:
        """Cancels what lies farthest outside the window, where a side holds too many orders."""
        sign, outside = 1 if side == ASK else -1, self._outside[side]
        outside.sort()
        while outside and self.resting.count[side] > _KEPT:
            self._lower(row, time_ns, side, sign * outside.pop(), 0)
