"""A book in plain Python, fast enough for whole days: what readers make must replay without a refusal."""

import bisect
from collections import OrderedDict

import numpy as np

from marsjax.core.records import Kind, Order

BUY, SELL, CANCEL = int(Kind.BUY), int(Kind.SELL), int(Kind.CANCEL)


class RefusedError(Exception):
    """An order that an exchange would not take."""


class PlainBook:
    """Price-time priority; sides as in `records.Side`."""

    def __init__(self, most_price=2**30 - 1):
        self.most_price = most_price
        self.levels = {}, {}
        self.prices = [], []  # of levels that hold orders; those of bids negative, so that the best comes first
        self.place = {}
        self.fills = []
        """(buy id, sell id, price, volume) of every trade."""

    def send(self, kind, price, volume, order_id, side, cancel_id):
        if volume <= 0:
            raise RefusedError(f"volume {volume}")
        if kind == CANCEL:
            if cancel_id not in self.place or self.place[cancel_id][0] != side:
                raise RefusedError(f"no order {cancel_id}")
            if volume > self.left(cancel_id):
                raise RefusedError(f"{volume} shares of order {cancel_id}, which has {self.left(cancel_id)}")
            self.reduce(cancel_id, volume)
            return
        if not 0 < price <= self.most_price or order_id in self.place:
            raise RefusedError(f"order {order_id} at {price}")
        own = kind  # an order rests on the side of its kind
        sign = 1 if own == BUY else -1
        while volume and self.prices[1 - own]:
            best = abs(self.prices[1 - own][0])
            if sign * best > sign * price:
                break
            other = next(iter(self.levels[1 - own][best]))
            traded = min(volume, self.left(other))
            self.fills.append((order_id, other, best, traded) if kind == BUY else (other, order_id, best, traded))
            self.reduce(other, traded)
            volume -= traded
        if volume:
            if price not in self.levels[own]:
                self.levels[own][price] = OrderedDict()
                bisect.insort(self.prices[own], -price if own == BUY else price)
            self.levels[own][price][order_id] = volume
            self.place[order_id] = own, price

    def left(self, order_id):
        side, price = self.place[order_id]
        return self.levels[side][price][order_id]

    def reduce(self, order_id, volume):
        side, price = self.place[order_id]
        level = self.levels[side][price]
        level[order_id] -= volume
        if not level[order_id]:
            del level[order_id], self.place[order_id]
            if not level:
                del self.levels[side][price]
                self.prices[side].remove(-price if side == BUY else price)

    def top(self, side, count):
        """(price, volume) of the best levels."""
        return [(abs(price), sum(self.levels[side][abs(price)].values())) for price in self.prices[side][:count]]

    def resting(self):
        """(side, price, volume, id) of every order, best first, in order of priority."""
        return [(side, abs(price), volume, order_id) for side in (0, 1) for price in self.prices[side]
                for order_id, volume in self.levels[side][abs(price)].items()]

    @property
    def is_crossed(self):
        return bool(self.prices[0] and self.prices[1] and self.prices[0][0] <= -self.prices[1][0])


def replay(chunks):
    """Sends all orders of chunks to a book, which must take them and never be crossed."""
    book = PlainBook()
    for chunk in chunks:
        for order in rows_of(chunk.orders):
            book.send(*order)
            if book.is_crossed:
                raise RefusedError(f"crossed by {order}")
    return book


def published(chunks):
    """(buy id, sell id, price, volume) of every fill that chunks publish."""
    return [fill for chunk in chunks for fill in zip(*(column.tolist() for column in (
        chunk.fills.buy_id, chunk.fills.sell_id, chunk.fills.price, chunk.fills.volume)), strict=True)]


def rows_of(orders: Order):
    """kind, price, volume, order id, side and id of what is cancelled of every order, as plain ints."""
    return list(zip(*(np.asarray(column).tolist() for column in (
        orders.kind, orders.price, orders.volume, orders.order_id, orders.cancel_side, orders.cancel_id)), strict=True))
