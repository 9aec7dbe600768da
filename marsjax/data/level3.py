"""Level-3 channels of crypto exchanges, message by message: one sequence of what happened to every order.

The place for any such channel; `coinbase` reads one. An order is received, may match as a taker, opens with what is
left, is matched as a maker, and is done. Here an order that was received waits for its matches, and is handed out when
it opens or is done; what is larger than an int32 is sent in parts, one behind the other, and orders at prices above
the highest of the exchange are kept beside the book.
"""

from typing import NamedTuple

from marsjax.core.records import MAX_PRICE, MAX_VOLUME
from marsjax.data.order_ids import NumberedUuids
from marsjax.data.order_stream import OrderStream
from marsjax.data.resting import BID


class HeldBeside(NamedTuple):
    """An order at a price that no exchange here takes."""

    side: int
    price: int
    volume: int


class Level3Stream(OrderStream):
    """Turns messages into orders. Orders are known by the 16 bytes of their UUIDs; prices and volumes are in units."""

    def __init__(self, ids: NumberedUuids, beside: dict[bytes, HeldBeside]) -> None:
        super().__init__(True, 0)
        self._ids = ids
        self._beside = beside
        self._live: dict[bytes, list[int]] = {}  # numbers of the parts of each order that rests
        self._received: dict[bytes, int] = {}  # limit of orders not open yet, 0 where there is none
        self._taker = b""
        self._taker_side = 0
        self._matches: list[tuple[int, int, int, int, int]] = []  # time, price, volume, maker's number, sequence

    def start(self, time_ns: int, side: int, price: int, volume: int, order_id: bytes, sequence: int) -> bool:
        """An order of the book that the messages go on from; False if it is there already."""
        if order_id in self._live or order_id in self._beside:
            return False
        if price > MAX_PRICE:
            self._put_beside(side, price, volume, order_id)
        else:
            self._send(time_ns, side, price, volume, order_id, sequence, is_synthetic=True)
        return True

    def receive(self, order_id: bytes, limit: int) -> None:
        """An order is taken by the exchange; its limit, 0 for a market order."""
        self._received[order_id] = limit

    def open(self, time_ns: int, side: int, price: int, volume: int, order_id: bytes, sequence: int) -> bool:
        """What is left of an order comes to rest; False if it rests already."""
        if order_id in self._live or order_id in self._beside:
            return False
        self._received.pop(order_id, None)
        if order_id != self._taker or price > MAX_PRICE:
            self.close()
        if price > MAX_PRICE:
            self._put_beside(side, price, volume, order_id)
        else:
            self._send(time_ns, side, price, volume, order_id, sequence)
        return True

    def fill(self, time_ns: int, side: int, price: int, volume: int, maker: bytes, taker: bytes, sequence: int
              ) -> bool:
        """A resting order of side `side` is matched; False if it has not the shares."""
        parts, resting = self._live.get(maker), self.resting
        if parts is None and maker not in self._beside:
            self.ignored["match_of_unknown_order"] += 1
            return True
        left = self.left(maker)
        if volume > left:
            return False
        if parts is None:
            self._beside[maker] = self._beside[maker]._replace(volume=left - volume)
            self.ignored["match_beyond_price_limit"] += 1
            return True
        if taker != self._taker:
            self.close()
        if resting.first(side) != parts[0] or resting.place[parts[0]][1] != price:
            self.close()
            self.adapted["out_of_turn"] += 1
            self._reduce(time_ns, maker, volume, sequence, from_front=True)
            return True
        self._taker, self._taker_side = taker, 1 - side
        while volume:
            part = min(volume, resting.left(parts[0]))
            self._matches.append((time_ns, price, part, parts[0], sequence))
            resting.reduce(parts[0], part)
            volume -= part
            if not resting.left(parts[0]):
                del parts[0]
        if not parts:
            del self._live[maker]
        return True

    def done(self, time_ns: int, order_id: bytes, sequence: int) -> None:
        """An order is filled or cancelled."""
        limit = self._received.pop(order_id, None)
        if self._matches and order_id == self._taker:
            self._hand_out(limit or 0)
        elif order_id in self._live:
            self.close()
            self._reduce(time_ns, order_id, self.left(order_id), sequence)
        elif order_id in self._beside:
            del self._beside[order_id]
        elif limit is not None:
            self.ignored["never_open"] += 1

    def change(self, time_ns: int, order_id: bytes, volume: int, sequence: int) -> None:
        """A new size of an order: a smaller one keeps its place, a larger one is a new order behind all others."""
        if order_id in self._beside:
            self._beside[order_id] = self._beside[order_id]._replace(volume=volume)
        elif order_id in self._live:
            self.close()
            left = self.left(order_id)
            if volume <= left:
                self._reduce(time_ns, order_id, left - volume, sequence)
            else:
                self.adapted["grown"] += 1
                side, price = self.resting.place[self._live[order_id][0]]
                self._reduce(time_ns, order_id, left, sequence)
                self._send(time_ns, side, price, volume, order_id, sequence)
        elif order_id not in self._received:
            self.ignored["unknown_order"] += 1

    def left(self, order_id: bytes) -> int:
        """Shares left of an order that rests, of all its parts; 0 of others."""
        if order_id in self._beside:
            return self._beside[order_id].volume
        parts = self._live.get(order_id)
        if parts is None:
            return 0
        left = self.resting.left
        return left(parts[0]) if len(parts) == 1 else sum(map(left, parts))

    def is_new(self, order_id: bytes) -> bool:
        """Whether an order neither rests nor was received."""
        return not (order_id in self._live or order_id in self._beside or order_id in self._received)

    def close(self) -> None:
        """Hands out the taker as far as it is known, where the message of another order comes between."""
        if self._matches:
            self._hand_out(0)

    def _hand_out(self, limit: int) -> None:
        """Sends the taker, of which nothing rests, with its limit, or the worst of its matches if that is not known."""
        is_buy = self._taker_side == BID
        prices = [match[1] for match in self._matches]
        worst = max(prices) if is_buy else min(prices)
        allows = 0 < limit <= MAX_PRICE and (limit >= worst if is_buy else limit <= worst)
        time_ns, *_, sequence = self._matches[-1]
        self._send(time_ns, self._taker_side, limit if allows else worst, 0, self._taker, sequence)

    def _send(self, time_ns: int, side: int, price: int, rest: int, order_id: bytes, sequence: int,
              is_synthetic: bool = False) -> None:
        """Sends an order: what it took in its matches, if it is the taker, and what comes to rest of it."""
        matches = self._matches if order_id == self._taker else []
        if not matches and rest <= MAX_VOLUME:  # nearly all are such
            number = self._ids.add(order_id)
            self.send_limit(time_ns, side, price, rest, number, sequence, is_synthetic)
            if left := self.match(side, price, rest):
                self.resting.add(side, price, number, left)
                self._live[order_id] = [number]
            return
        taken = sum(match[2] for match in matches)
        if taken + rest <= MAX_VOLUME:
            sizes = [(taken, rest)]
        else:
            sizes = [(size, 0) for size in _cut(taken)] + [(0, size) for size in _cut(rest)]
            self.adapted["cut_in_parts"] += 1
        numbers = []
        for took, rests in sizes:
            number = self._ids.add(order_id)
            self.send_limit(time_ns, side, price, took + rests, number, sequence, is_synthetic)
            self._publish_part(side, number, took, matches)
            if rests and (left := self.match(side, price, rests)):
                self.resting.add(side, price, number, left)
                numbers.append(number)
        if numbers:
            self._live[order_id] = numbers
        if matches:
            self._taker, self._matches = b"", []

    def _publish_part(self, side: int, number: int, took: int, matches: list[tuple[int, int, int, int, int]]) -> None:
        """The fills of a part of the taker; takes them off `matches`."""
        while took:
            time_ns, price, volume, maker, sequence = matches[0]
            part = min(took, volume)
            self.publish((time_ns, price, part, maker, sequence), side, number)
            took -= part
            if part == volume:
                del matches[0]
            else:
                matches[0] = (time_ns, price, volume - part, maker, sequence)

    def _put_beside(self, side: int, price: int, volume: int, order_id: bytes) -> None:
        self._beside[order_id] = HeldBeside(side, price, volume)
        self.adapted["beyond_price_limit"] += 1

    def _reduce(self, time_ns: int, order_id: bytes, volume: int, sequence: int, from_front: bool = False) -> None:
        """Cancels shares of an order, of its last part first or of its first."""
        parts = self._live[order_id]
        while volume:
            at = 0 if from_front else -1
            part = min(volume, self.resting.left(parts[at]))
            self.take_off(time_ns, parts[at], part, sequence)
            volume -= part
            if not self.resting.left(parts[at]):
                del parts[at]
        if not parts:
            del self._live[order_id]


def _cut(volume: int) -> list[int]:
    """Parts that fit in an int32."""
    return [MAX_VOLUME] * (volume // MAX_VOLUME) + [volume % MAX_VOLUME] * (volume % MAX_VOLUME > 0)
