"""A slow plain-Python twin of one symbol's exchange: sessions, call auctions, ids, counters and accounts.

The book is `tests.twin`'s, the auction `tests.twin_auction`'s. Accounts are unbounded integers, and what is reserved
is added up anew from the resting orders every time.
"""

import copy
import dataclasses
from typing import Any

import jax
import numpy as np

from marsjax.core import int64, times
from marsjax.core.records import (
    MAX_VOLUME,
    NO_ACCOUNT,
    NO_ID,
    NO_PRICE,
    Condition,
    Int64,
    Kind,
    Market,
    Order,
    Side,
    Status,
)
from marsjax.core.sessions import Period, Phase, Session
from marsjax.core.specs import AuctionRule, MarketSpec
from marsjax.market import orders
from tests import twin_auction
from tests.twin import Message, Result, TwinBook, wrapped
from tests.twin_auction import Collected

SECOND = 10**9
SHORT_DAY = Session((
    Period(Phase.OPEN_AUCTION, 10 * SECOND, 20 * SECOND, uncross_ns=25 * SECOND),
    Period(Phase.CONTINUOUS, 30 * SECOND, 60 * SECOND),
    Period(Phase.CONTINUOUS, 70 * SECOND, 100 * SECOND),
    Period(Phase.CLOSE_AUCTION, 100 * SECOND + 1, 110 * SECOND, uncross_ns=110 * SECOND),
))
"""Two call auctions and a break within two minutes."""


@dataclasses.dataclass(frozen=True)
class Timed:
    """A message and when it reaches the exchange."""

    time_ns: int
    message: Message


@dataclasses.dataclass
class Answer:
    """What the exchange answers to one message."""

    status: Status
    order_id: int
    result: Result
    price: int = 0
    """The order's limit price, that of its condition if it was accepted."""


class TwinExchange:
    """The exchange of one symbol."""

    def __init__(self, spec: MarketSpec, first_id: int = 0, previous_close: int = NO_PRICE) -> None:
        self.spec, self.next_id, self.previous_close = spec, first_id, previous_close
        self.book, self.time_ns = TwinBook(spec), 0
        self.cash, self.holdings = ([0] * (spec.accounts + 1) for _ in range(2))
        self.status = [0] * len(Status)
        self.submitted, self.cancelled, self.most_resting = [0, 0], [0, 0], [0, 0]
        self.traded = self.value = self.fills = self.truncated_lists = self.auctions = 0

    def step(self, sent: Timed) -> Answer:
        """Holds the auctions that are due, then submits."""
        while self.is_due(sent.time_ns):
            self.uncross()
        return self.submit(sent)

    def is_due(self, time_ns: int) -> bool:
        return any(number >= self.auctions and period.uncross_ns < time_ns
                   for number, period in enumerate(self._auction_periods()))

    def submit(self, sent: Timed) -> Answer:
        message, phase = sent.message, self._phase(sent.time_ns)
        if message.kind == Kind.NONE:
            return Answer(Status.NO_ORDER, NO_ID, Result(Status.NO_ORDER), message.price)
        order_id = self.next_id if message.order_id == NO_ID else message.order_id
        refusal = self._refusal(sent, phase)
        result, price = Result(refusal), message.price
        if refusal == Status.ACCEPTED:
            known, before = dataclasses.replace(message, order_id=order_id), copy.deepcopy(self.book)
            result = self.book.submit(known, matching=phase == Phase.CONTINUOUS)
            price = before.resolved(message).price if result.status == Status.ACCEPTED else price
        self.time_ns = max(self.time_ns, sent.time_ns)
        self.status[result.status] += 1
        if result.status != Status.ACCEPTED:
            return Answer(result.status, NO_ID, result, price)
        self.next_id = max(self.next_id, order_id + 1)
        self._account(message, result)
        if message.kind == Kind.CANCEL and phase != Phase.CONTINUOUS:
            result.transactions = [(0, *rest) for _, *rest in result.transactions]
        return Answer(Status.ACCEPTED, order_id, result, price)

    def uncross(self) -> twin_auction.Result:
        """Holds the next auction, if there is one."""
        periods = self._auction_periods()
        if self.auctions == len(periods):
            return twin_auction.Result(NO_PRICE, 0, [])
        resting = [(side, order) for side in Side for order in self.book.arrivals[side]]
        reference = self.book.last_price if self.book.last_price > 0 else self.previous_close
        result = twin_auction.uncross([Collected(side, x.price, x.volume, x.account) for side, x in resting], reference,
                                      self.spec.auction_rule, self.spec.tick)
        if self.spec.auction_rule == AuctionRule.SHENZHEN and result.volume:
            self.previous_close = result.price
        for (side, order), shares in zip(resting, result.fills, strict=True):
            order.volume -= shares
            self._pay(order.account, result.price, shares if side == Side.BID else -shares)
        for side in Side:
            self.book.arrivals[side] = [order for order in self.book.arrivals[side] if order.volume]
        self.traded += result.volume
        self.value += result.price * result.volume if result.volume else 0
        self.time_ns = max(self.time_ns, periods[self.auctions].uncross_ns)
        self.auctions += 1
        return result

    def fields(self) -> dict[str, Any]:
        """Every field of `Market` by its name; sums modulo 2**64, as int64 keeps them."""
        now, reserved = self.book.book(), self._reserved()
        ledgers = {"cash": self.cash, "holdings": self.holdings, "reserved_cash": reserved[Side.BID],
                   "reserved_shares": reserved[Side.ASK]}
        counters = {name: getattr(self, name) for name in (
            "status", "submitted", "cancelled", "traded", "value", "fills", "truncated_lists", "most_resting",
            "auctions")}
        return ({f"book.{x.name}": getattr(now, x.name) for x in dataclasses.fields(now)}
                | {f"ledgers.{name}": [wrapped(x) for x in rows] for name, rows in ledgers.items()}
                | {f"counters.{name}": wrapped(x) if isinstance(x, int) else list(x) for name, x in counters.items()}
                | {"time": self.time_ns, "next_id": self.next_id, "previous_close": self.previous_close})

    def _auction_periods(self) -> list[Period]:
        return [period for period in self.spec.session.periods if period.uncross_ns is not None]

    def _phase(self, time_ns: int) -> Phase:
        return next((period.phase for period in self.spec.session.periods
                     if period.start_ns <= time_ns <= period.end_ns), Phase.CLOSED)

    def _refusal(self, sent: Timed, phase: Phase) -> Status:
        if sent.time_ns < self.time_ns:
            return Status.BAD_TIME
        if phase == Phase.CLOSED:
            return Status.CLOSED
        if self.is_due(sent.time_ns):
            return Status.AUCTION_DUE
        return Status.ACCEPTED if NO_ACCOUNT <= sent.message.account < self.spec.accounts else Status.BAD_ACCOUNT

    def _account(self, message: Message, result: Result) -> None:
        shares = sum(volume for _, volume, _, _ in result.transactions)
        if message.kind == Kind.CANCEL:
            self.cancelled[message.cancel_side] += shares
        else:
            self.submitted[message.kind] += message.volume
            self.cancelled[message.kind] += result.dropped
            self.traded += shares
            self.fills += len(result.transactions)
            sign = 1 if message.kind == Kind.BUY else -1
            for price, volume, _, account in result.transactions:
                self.value += price * volume
                self._pay(message.account, price, sign * volume)
                self._pay(account, price, -sign * volume)
        self.truncated_lists += len(result.transactions) > self.spec.trade_width
        self.most_resting = [max(self.most_resting[side], len(self.book.arrivals[side])) for side in Side]

    def _pay(self, account: int, price: int, shares: int) -> None:
        """Some shares change hands; NO_ACCOUNT is the last account."""
        self.cash[account] -= price * shares
        self.holdings[account] += shares

    def _reserved(self) -> list[list[int]]:
        reserved = [[0] * (self.spec.accounts + 1) for _ in Side]
        for side in Side:
            for order in self.book.arrivals[side]:
                reserved[side][order.account] += order.volume * (order.price if side == Side.BID else 1)
        return reserved


def named(record: Any, prefix: str = "") -> dict[str, np.ndarray]:
    """Every field of a record as int64 arrays by dotted name; a `Int64` or a time is one number."""
    found = {}
    for field in dataclasses.fields(record):
        value, name = getattr(record, field.name), f"{prefix}{field.name}"
        if field.name == "time":
            found[name] = times.to_ns(value)
        elif isinstance(value, Int64):
            found[name] = int64.to_numpy(value)
        elif dataclasses.is_dataclass(value):
            found |= named(value, f"{name}.")
        else:
            found[name] = np.asarray(value).astype(np.int64)
    return found


def assert_market_equals(market: Market, twin: TwinExchange) -> None:
    """One market, field by field."""
    got = named(market)
    for name, expected in twin.fields().items():
        np.testing.assert_array_equal(got[name], np.asarray(expected, np.int64), err_msg=name)


def stream_of(sent: list[Timed]) -> Order:
    """Order arrays [N]."""
    columns = {field.name: np.array([getattr(x.message, field.name) for x in sent], np.int64)
               for field in dataclasses.fields(Message)}
    return orders.from_columns(np.array([x.time_ns for x in sent], np.int64), **columns)


def row(records: Any, i: int) -> Any:
    """The i-th of records with a leading axis."""
    return jax.tree.map(lambda x: x[i], records)


@dataclasses.dataclass(frozen=True)
class FlowParameters:
    """What random order flow looks like."""

    seed: int = 0
    volumes: str = "lots"
    """lots, blocks (up to 50,000), or huge: up to 2**31 - 1."""
    reach: int = 4
    """Ticks around the middle."""
    odd: float = 0.2
    """Part of the messages that are wrong in some way, or unusual."""
    conditions: float = 0.0
    """Part of the orders that have a condition."""
    start_ns: int = 5 * SECOND
    mean_step_ns: int = SECOND * 7 // 10


class FlowSource:
    """Draws messages that suit the state of a twin, which the caller lets handle them."""

    def __init__(self, twin: TwinExchange, parameters: FlowParameters) -> None:
        self.twin, self.parameters = twin, parameters
        self.rng = np.random.default_rng(parameters.seed)
        self.now_ns = parameters.start_ns

    def draw(self) -> Timed:
        self.now_ns += self.choose([0, 1, self.integer(0, 2 * self.parameters.mean_step_ns),
                                    self.integer(0, 4 * self.parameters.mean_step_ns)])
        time_ns, message = self.now_ns, self.cancel() if self.rng.random() < 0.25 else self.limit()
        if self.rng.random() < self.parameters.odd:
            time_ns, message = self.corrupt(time_ns, message)
        return Timed(time_ns, message)

    def limit(self) -> Message:
        kind = self.integer(0, 1)
        toward = 1 if kind == Kind.BUY else -1
        reach = self.parameters.reach
        wide = self.rng.random() < 0.1
        price = 100_000 + 100 * toward * (reach if wide else self.integer(-reach, reach // 2))
        volume = min(self.volume() * (9 if wide else 1), MAX_VOLUME)
        condition = Condition.REST
        if self.parameters.conditions and self.rng.random() < self.parameters.conditions:
            condition = self.choose(list(Condition))
        return Message(kind, price, volume, NO_ID, account=self.account(), condition=condition)

    def cancel(self) -> Message:
        resting = [(side, x) for side in Side for x in self.twin.book.arrivals[side]]
        if not resting:
            return self.limit()
        side, order = self.choose(resting)
        volume = self.choose([order.volume, self.integer(1, order.volume)])
        return Message(Kind.CANCEL, 0, volume, NO_ID, side, order.order_id, self.account())

    def corrupt(self, time_ns: int, message: Message) -> tuple[int, Message]:
        edges = [x for period in self.twin.spec.session.periods for x in (period.start_ns, period.end_ns)]
        later = [x + self.integer(-1, 1) for x in edges if x > time_ns]
        taken = [x.order_id for side in Side for x in self.twin.book.arrivals[side]]
        field, values = self.choose([
            ("time", [max(time_ns - self.choose([1, SECOND]), 0), *later[:1]]),
            ("time", later[:1] or [time_ns]),
            ("kind", [-1, Kind.NONE, 4]), ("volume", [0, -1, MAX_VOLUME]), ("price", [0, 100_050, 2**30 + 24]),
            ("account", [-2, -100, self.twin.spec.accounts, 2**31 - 1]), ("cancel_id", [10**6, *taken[:1]]),
            ("order_id", [self.twin.next_id, self.twin.next_id + 3, max(self.twin.next_id - 5, 0), *taken[:1]]),
            ("order_id", [self.twin.next_id + 1])])
        value = self.choose(values)
        if field == "time":
            self.now_ns = max(self.now_ns, value)
            return value, message
        return time_ns, dataclasses.replace(message, **{field: value})

    def volume(self) -> int:
        return {"lots": 100 * self.choose([1, 2, 5, 10]), "blocks": 10_000 * self.choose([1, 2, 5]),
                "huge": MAX_VOLUME - self.choose([0, 1, 2**30])}[self.parameters.volumes]

    def account(self) -> int:
        return self.integer(NO_ACCOUNT, self.twin.spec.accounts - 1)

    def integer(self, low: int, high: int) -> int:
        return int(self.rng.integers(low, high, endpoint=True))

    def choose(self, values: list[Any]) -> Any:
        return values[int(self.rng.integers(len(values)))]
