"""A slow plain-Python twin of the limit order book, written from the rules of the exchange, and random order flow.

Each side is a list in order of arrival; priority is a stable sort by price. Python's integers never wrap.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np

from marsjax.core.records import (
    EMPTY_PRICE,
    EMPTY_SIDE_SPREAD,
    MAX_PRICE,
    MAX_VOLUME,
    NO_ACCOUNT,
    NO_ID,
    NO_PRICE,
    Book,
    Condition,
    Kind,
    Order,
    Side,
    Status,
)
from marsjax.core.specs import MarketSpec
from marsjax.market import orders

_WITHOUT_A_PRICE = (Condition.MARKET, Condition.OWN_BEST, Condition.OPPOSITE_BEST)
_NEVER_RESTS = (Condition.IMMEDIATE_OR_CANCEL, Condition.FILL_OR_KILL, Condition.MARKET)


@dataclasses.dataclass
class Resting:
    """One order in the book."""

    price: int
    volume: int
    order_id: int
    account: int


@dataclasses.dataclass(frozen=True)
class Message:
    """One message to the exchange; fields as in `Order`."""

    kind: int
    price: int
    volume: int
    order_id: int
    cancel_side: int = NO_ID
    cancel_id: int = NO_ID
    account: int = NO_ACCOUNT
    condition: int = Condition.REST


@dataclasses.dataclass
class Result:
    """What one message did; each transaction is (price, volume, resting id, resting account)."""

    status: Status
    kind: Kind = Kind.NONE
    side: Side = Side.ASK
    transactions: list[tuple[int, int, int, int]] = dataclasses.field(default_factory=list)
    partial: int = 0
    rest: int = 0
    slot: int = -1
    dropped: int = 0
    """Shares that neither traded nor may rest."""

    def fields(self, width: int) -> dict[str, Any]:
        """The transactions as the arrays of `Trades`, by field name; the side is 0 where nothing is listed."""
        listed = self.transactions[:width]
        columns = np.array(listed, np.int64).reshape(-1, 4).T
        missing = width - len(listed)
        price, volume, resting_id, account = (
            np.append(column, [nothing] * missing)
            for column, nothing in zip(columns, (EMPTY_PRICE, 0, NO_ID, NO_ACCOUNT), strict=True))
        return {
            "kind": self.kind, "side": self.side if listed else 0, "price": price, "volume_each": volume,
            "resting_id": resting_id, "resting_account": account, "count": len(self.transactions),
            "is_truncated": len(self.transactions) > width, "volume": sum(t[1] for t in self.transactions),
            "value": wrapped(sum(t[0] * t[1] for t in self.transactions)), "partial": self.partial, "rest": self.rest,
            "slot": self.slot}


def wrapped(value: int) -> int:
    """A Python integer modulo 2**64, as a signed one: sums of price x volume may pass 2**63 on deep sides."""
    return (value + 2**63) % 2**64 - 2**63


class TwinBook:
    """The book of one symbol."""

    def __init__(self, spec: MarketSpec) -> None:
        self.spec = spec
        self.arrivals: dict[Side, list[Resting]] = {Side.ASK: [], Side.BID: []}
        self.last_price = NO_PRICE

    def by_priority(self, side: Side) -> list[Resting]:
        """Best price first; among equal prices, first come first."""
        return sorted(self.arrivals[side], key=lambda order: order.price if side == Side.ASK else -order.price)

    def submit(self, message: Message, matching: bool = True) -> Result:
        """One message: taken whole, or rejected without a trace."""
        status = self._reason_to_reject(message, matching)
        if status != Status.ACCEPTED:
            return Result(status)
        message = self.resolved(message)
        if message.kind == Kind.CANCEL:
            return self._cancel(Side(message.cancel_side), message.cancel_id, message.volume)
        return self._trade(message, matching)

    def _reason_to_reject(self, message: Message, matching: bool) -> Status:
        if message.kind == Kind.NONE:
            return Status.NO_ORDER
        if message.kind not in (Kind.BUY, Kind.SELL, Kind.CANCEL):
            return Status.BAD_KIND
        if message.kind == Kind.CANCEL and message.cancel_side not in (Side.ASK, Side.BID):
            return Status.BAD_KIND
        if message.volume < 1:
            return Status.BAD_VOLUME
        if message.kind == Kind.CANCEL:
            named = [x for x in self.arrivals[Side(message.cancel_side)] if x.order_id == message.cancel_id]
            if not named:
                return Status.UNKNOWN_ID
            return Status.OVER_CANCEL if message.volume > named[0].volume else Status.ACCEPTED
        if message.condition != Condition.REST and (reason := self._broken_condition(message, matching)):
            return reason
        resolved = self.resolved(message)
        if message.price == resolved.price and message.condition not in _WITHOUT_A_PRICE and (
                not 0 < message.price <= MAX_PRICE or message.price % self.spec.tick):
            return Status.BAD_PRICE
        if any(x.order_id == message.order_id for side in self.arrivals.values() for x in side):
            return Status.DUPLICATE_ID
        available = sum(x.volume for x in self._eligible(resolved, matching))
        if message.condition == Condition.POST_ONLY and available:
            return Status.WOULD_TRADE
        if message.condition == Condition.FILL_OR_KILL and available < message.volume:
            return Status.NOT_FILLED
        if message.condition in _NEVER_RESTS:
            return Status.ACCEPTED
        is_full = len(self.arrivals[Side(message.kind)]) == self.spec.capacity
        return Status.SIDE_FULL if is_full and message.volume > available else Status.ACCEPTED

    def _broken_condition(self, message: Message, matching: bool) -> Status | None:
        """Why the condition cannot be met, whatever the price."""
        if not self.spec.conditions or message.condition not in set(Condition):
            return Status.BAD_CONDITION
        if not matching and message.condition in {*_NEVER_RESTS, Condition.POST_ONLY}:
            return Status.NOT_IN_AUCTION
        needed = {Condition.OWN_BEST: [Side(message.kind)], Condition.OPPOSITE_BEST: [Side(1 - message.kind)],
                  Condition.MARKET: [Side(1 - message.kind)]}.get(Condition(message.condition), [])
        return None if all(self.arrivals[side] for side in needed) else Status.NO_BEST_PRICE

    def resolved(self, message: Message) -> Message:
        """The same with the limit price that its condition gives it; of a market order that of its last trade."""
        if message.kind not in (Kind.BUY, Kind.SELL) or message.condition not in _WITHOUT_A_PRICE:
            return message
        own, other = self.by_priority(Side(message.kind)), self.by_priority(Side(1 - message.kind))
        if message.condition == Condition.MARKET:
            hit = next((x for i, x in enumerate(other) if sum(y.volume for y in other[:i + 1]) >= message.volume),
                       other[-1])
            return dataclasses.replace(message, price=hit.price)
        return dataclasses.replace(message, price=(own if message.condition == Condition.OWN_BEST else other)[0].price)

    def _eligible(self, message: Message, matching: bool) -> list[Resting]:
        """Resting orders of the other side that the limit price reaches, best first."""
        if not matching:
            return []
        if message.kind == Kind.BUY:
            return [x for x in self.by_priority(Side.ASK) if x.price <= message.price]
        return [x for x in self.by_priority(Side.BID) if x.price >= message.price]

    def _trade(self, message: Message, matching: bool) -> Result:
        own = Side(message.kind)
        other = Side.ASK if own == Side.BID else Side.BID
        result = Result(Status.ACCEPTED, side=other)
        left = message.volume
        for resting in self._eligible(message, matching):
            if not left:
                break
            traded = min(left, resting.volume)
            left -= traded
            result.transactions.append((resting.price, traded, resting.order_id, resting.account))
            resting.volume -= traded
            result.partial = traded if resting.volume else 0
            result.kind = Kind(message.kind)
            self.last_price = resting.price
        self._drop_empty(other)
        if left and message.condition in _NEVER_RESTS:
            result.dropped, left = left, 0
        if left:
            self.arrivals[own].append(Resting(message.price, left, message.order_id, message.account))
        result.rest = left
        return result

    def _cancel(self, side: Side, order_id: int, volume: int) -> Result:
        slot, named = next((i, x) for i, x in enumerate(self.by_priority(side)) if x.order_id == order_id)
        named.volume -= volume
        self._drop_empty(side)
        return Result(Status.ACCEPTED, Kind.CANCEL, side, [(named.price, volume, order_id, named.account)], slot=slot)

    def _drop_empty(self, side: Side) -> None:
        self.arrivals[side] = [x for x in self.arrivals[side] if x.volume]

    def cancel_where(self, take: np.ndarray) -> list[Result]:
        """Takes shares [2, C], in order of priority, off the resting orders; the cancels of each side."""
        results = []
        for side in Side:
            result = Result(Status.ACCEPTED, side=side)
            for resting, wanted in zip(self.by_priority(side), take[side].tolist(), strict=False):
                volume = min(max(wanted, 0), resting.volume)
                if volume:
                    result.kind = Kind.CANCEL
                    result.transactions.append((resting.price, volume, resting.order_id, resting.account))
                    resting.volume -= volume
            self._drop_empty(side)
            results.append(result)
        return results

    def cancel_account(self, account: int) -> list[Result]:
        """Cancels all that one account has in the book."""
        take = np.zeros((2, self.spec.capacity), np.int64)
        for side in Side:
            for slot, resting in enumerate(self.by_priority(side)):
                take[side, slot] = resting.volume if resting.account == account else 0
        return self.cancel_where(take)

    def book(self) -> Book:
        """The same book as fixed-shape NumPy arrays."""
        def column(name: str, nothing: int) -> np.ndarray:
            rows = [[getattr(x, name) for x in self.by_priority(side)] for side in Side]
            return np.array([row + [nothing] * (self.spec.capacity - len(row)) for row in rows], np.int32)

        return Book(column("price", EMPTY_PRICE), column("volume", 0), column("order_id", NO_ID),
                    column("account", NO_ACCOUNT), np.int32(self.last_price))

    def view(self) -> dict[str, Any]:
        """The snapshot, by field name of `BookView`."""
        fields: dict[str, Any] = {"last_price": self.last_price}
        best: dict[Side, int] = {}
        for side, name in ((Side.ASK, "ask"), (Side.BID, "bid")):
            levels: dict[int, int] = {}
            for resting in self.arrivals[side]:
                levels[resting.price] = levels.get(resting.price, 0) + resting.volume
            rows = sorted(levels.items(), reverse=side == Side.BID)[:self.spec.levels]
            best.update({side: rows[0][0]} if rows else {})
            rows += [(EMPTY_PRICE, 0)] * (self.spec.levels - len(rows))
            fields[f"{name}_price"], fields[f"{name}_volume"] = np.array(rows, np.int64).T
        tick = self.spec.tick
        if len(best) == 2:
            ask, bid = best[Side.ASK], best[Side.BID]
            return fields | {"spread": ask - bid, "mid_price": bid + (ask - bid) // tick // 2 * tick,
                             "mid_price_twice": ask + bid, "has_mid": True}
        lone = next(iter(best.values()), self.last_price)
        return fields | {"spread": EMPTY_SIDE_SPREAD, "mid_price": lone, "has_mid": lone != NO_PRICE,
                         "mid_price_twice": 2 * lone if lone != NO_PRICE else NO_PRICE}


@dataclasses.dataclass(frozen=True)
class FlowParameters:
    """What random order flow looks like."""

    seed: int = 0
    start_fullness: float = 0.5
    """Part of each side's slots taken before the first order."""
    price_range_ticks: int = 5
    price_level: str = "middle"
    """low, middle, or high: up to the last tick below MAX_PRICE."""
    volumes: str = "lots"
    """shares (1 to 5), lots, or huge: up to 2**31 - 1."""
    cancel_rate: float = 0.3
    invalid_rate: float = 0.2
    collected_rate: float = 0.0
    """Part of the orders that rest without matching, as in a call auction."""
    condition_rate: float = 0.0
    """Part of the orders that have a condition, some of them none that is known."""


@dataclasses.dataclass(frozen=True)
class Flow:
    """A stream of N orders on a start, and what the twin made of each."""

    start: Book
    stream: Order
    matching: np.ndarray
    expected: dict[str, np.ndarray]
    """By name of the record and field ("book.price", "trades.count", "view.spread" ...), int64 [N, ...]."""


def random_flow(spec: MarketSpec, length: int, parameters: FlowParameters) -> Flow:
    """Draws a stream of orders while the twin handles it, so that cancels name orders that rest."""
    source = _FlowSource(spec, parameters)
    start = source.twin.book()
    messages, matching = [], []
    for _ in range(length):
        message = source.draw()
        matching.append(bool(source.rng.random() >= parameters.collected_rate))
        messages.append(message)
        source.handle(message, matching[-1])
    return Flow(start, stream_of(messages), np.array(matching), stacked(source.rows))


def stream_of(messages: list[Message]) -> Order:
    """Messages as Order arrays [N], one second apart."""
    columns = {field.name: np.array([getattr(x, field.name) for x in messages], np.int64)
               for field in dataclasses.fields(Message)}
    return orders.from_columns(np.arange(len(messages)) * 10**9, **columns)


def expected_row(twin: TwinBook, result: Result) -> dict[str, Any]:
    """The twin's book, view and one result, named as in `Flow.expected`."""
    now = twin.book()
    return ({f"book.{x.name}": getattr(now, x.name) for x in dataclasses.fields(now)}
            | {f"trades.{name}": x for name, x in result.fields(twin.spec.trade_width).items()}
            | {f"view.{name}": x for name, x in twin.view().items()} | {"status": result.status})


def stacked(rows: list[dict[str, Any]]) -> dict[str, np.ndarray]:
    return {name: np.stack([np.asarray(row[name], np.int64) for row in rows]) for name in rows[0]}


class _FlowSource:
    """Draws messages that suit the state of a twin."""

    def __init__(self, spec: MarketSpec, parameters: FlowParameters) -> None:
        self.spec, self.parameters, self.twin = spec, parameters, TwinBook(spec)
        self.rng = np.random.default_rng(parameters.seed)
        self.rows: list[dict[str, Any]] = []
        self.next_id = 1
        reach = parameters.price_range_ticks
        self.centre = {"low": reach + 1, "middle": 1000, "high": MAX_PRICE // spec.tick - reach}[parameters.price_level]
        for side in Side:
            for _ in range(int(parameters.start_fullness * spec.capacity)):
                distance = self.integer(1, reach)
                price = self.centre + (distance if side == Side.ASK else -distance)
                self.twin.arrivals[side].append(Resting(price * spec.tick, self.volume(), self.new_id(),
                                                        self.account()))

    def handle(self, message: Message, matching: bool) -> None:
        result = self.twin.submit(message, matching)
        self.rows.append(expected_row(self.twin, result))

    def draw(self) -> Message:
        """A message; some are made invalid in one to three ways."""
        message = self.cancel() if self.rng.random() < self.parameters.cancel_rate else self.limit()
        if self.rng.random() < self.parameters.invalid_rate:
            for _ in range(self.integer(1, 3)):
                message = self.choose(self.corruptions())(message)
        return message

    def limit(self) -> Message:
        kind, reach = self.integer(0, 1), self.parameters.price_range_ticks
        toward = 1 if kind == Kind.BUY else -1
        if self.rng.random() < 0.1:
            volume = self.choose([MAX_VOLUME, sum(self.volume() for _ in range(self.integer(2, 40)))])
            offset, volume = toward * reach, min(volume, MAX_VOLUME)
        else:
            offset, volume = toward * self.integer(-reach, reach // 3), self.volume()
        junk_id, junk_side = self.integer(-2, self.next_id), self.integer(-1, 2)
        message = Message(kind, (self.centre + offset) * self.spec.tick, volume, self.new_id(), junk_side, junk_id,
                          self.account())
        if self.parameters.condition_rate and self.rng.random() < self.parameters.condition_rate:
            condition = self.choose([*Condition, *Condition, -1, len(Condition)])
            price = self.choose([message.price, 0, -7]) if condition in _WITHOUT_A_PRICE else message.price
            return dataclasses.replace(message, condition=condition, price=price)
        return message

    def cancel(self) -> Message:
        resting = [(side, x) for side in Side for x in self.twin.arrivals[side]]
        if not resting:
            return self.limit()
        side, named = self.choose(resting)
        volume = named.volume if self.rng.random() < 0.5 else self.integer(1, named.volume)
        return Message(Kind.CANCEL, self.integer(-5, 10**6), volume, self.new_id(), side, named.order_id,
                       self.account())

    def corruptions(self) -> list[Callable[[Message], Message]]:
        def replaced(field: str, values: list[int]) -> Callable[[Message], Message]:
            return lambda message: dataclasses.replace(message, **{field: self.choose(values)})

        tick, resting = self.spec.tick, [x.order_id for side in Side for x in self.twin.arrivals[side]]
        above = (MAX_PRICE // tick + 1) * tick
        return [
            replaced("volume", [0, -1, -100, -(2**31)]),
            replaced("volume", [MAX_VOLUME]),
            # One more than is left, where the message cancels an order whole.
            lambda message: dataclasses.replace(message, volume=min(message.volume + 1, MAX_VOLUME)),
            replaced("price", [0, -tick, -(2**31), above, above + 1, 2**31 - 1] + [tick + 1] * (tick > 1)),
            replaced("kind", [-1, 4, 100]),
            replaced("kind", [Kind.NONE]),
            replaced("kind", [Kind.CANCEL]),
            replaced("cancel_side", [-1, 2]),
            replaced("cancel_side", [Side.ASK, Side.BID]),
            replaced("cancel_id", [NO_ID, 0, self.next_id + 7, *resting[:1]]),
            replaced("order_id", resting or [0]),
        ]

    def volume(self) -> int:
        return {"shares": self.integer(1, 5), "lots": 100 * self.choose([1, 2, 5, 10, 20]),
                "huge": MAX_VOLUME - self.choose([0, 1, 2, 2**30])}[self.parameters.volumes]

    def account(self) -> int:
        return self.integer(NO_ACCOUNT, 2)

    def new_id(self) -> int:
        self.next_id += self.integer(1, 3)
        return self.next_id

    def integer(self, low: int, high: int) -> int:
        return int(self.rng.integers(low, high, endpoint=True))

    def choose(self, values: list[Any]) -> Any:
        return values[int(self.rng.integers(len(values)))]
