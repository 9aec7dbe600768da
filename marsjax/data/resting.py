"""The resting orders of one market as a reader follows them: what the exchange's book will hold, in plain Python."""

import heapq
from collections import OrderedDict

from marsjax.core.records import NO_ID, Side

# Sides are plain ints here: enum members are slow keys, and this runs once a message.
ASK, BID = int(Side.ASK), int(Side.BID)


class RestingOrders:
    """The resting orders in order of priority, as far as the feed tells."""

    def __init__(self) -> None:
        self.place: dict[int, tuple[int, int]] = {}
        """Side and price of each order."""
        self.levels: tuple[dict[int, OrderedDict[int, int]], ...] = {}, {}
        """Asks, bids: volume by id, by price. A level may be empty."""
        self.count = [0, 0]
        """Orders of each side."""
        self._best: tuple[list[int], list[int]] = [], []  # prices as heaps, those of bids negative

    def add(self, side: int, price: int, order_id: int, volume: int) -> None:
        """Puts an order last at its price."""
        levels = self.levels[side]
        if price not in levels:
            levels[price] = OrderedDict()
            heapq.heappush(self._best[side], price if side == ASK else -price)
        levels[price][order_id] = volume
        self.place[order_id] = side, price
        self.count[side] += 1

    def left(self, order_id: int) -> int:
        """Shares left of an order, 0 if it does not rest."""
        place = self.place.get(order_id)
        return 0 if place is None else self.levels[place[0]][place[1]][order_id]

    def reduce(self, order_id: int, volume: int) -> None:
        """Takes shares off a resting order that has them."""
        side, price = self.place[order_id]
        level = self.levels[side][price]
        left = level[order_id] - volume
        if left:
            level[order_id] = left
        else:
            del level[order_id], self.place[order_id]
            self.count[side] -= 1

    def first(self, side: int) -> int:
        """Id of the next order to trade, NO_ID if there is none."""
        best, levels = self._best[side], self.levels[side]
        while best:
            if level := levels[abs(best[0])]:
                return next(iter(level))
            del levels[abs(heapq.heappop(best))]
        return NO_ID

    def at(self, side: int, price: int) -> list[tuple[int, int]]:
        """Id and shares of each order at a price, in order of priority."""
        level = self.levels[side].get(price)
        return list(level.items()) if level else []

    def all_of(self, side: int) -> list[tuple[int, int, int]]:
        """Id, price and shares of every order of a side, best first, in order of priority."""
        levels = self.levels[side]
        return [(order_id, price, volume) for price in sorted(levels, reverse=side == BID)
                for order_id, volume in levels[price].items()]
