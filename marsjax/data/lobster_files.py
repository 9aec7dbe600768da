"""Orders and what they did -> LOBSTER's files, messages and order book, so that other people's tools read our markets.

A message is time (seconds after midnight, with decimals), type, order id, size, price (1e-4 of the currency), direction
of the resting order (1 bid, -1 ask); the row of the book file after it has `levels` of ask price, ask size, bid price,
bid size, with the format's dummies where there is none: prices 9999999999 and -9999999999, size 0.

- What an order leaves to rest is a message 1, under its own id; each of its trades is a message 4 of the order hit, and
  the order that came is not named, as on the exchange. What never rests and never trades is in no message.
- A cancel is a message 2 where something is left of its order, else 3.
- Orders that rest when the file begins (a start) are messages 1 at its first time, in order of their priority.
- While a call auction collects orders there is no message. Its result is a message 6 (id -1, the shares matched, its
  price); what is gone of orders shown before is a message 2 or 3, what rests and was not shown yet a message 1.
"""

import bisect
import contextlib
import decimal
from pathlib import Path

import numpy as np

from marsjax.core import int64, times
from marsjax.core.errors import InputError
from marsjax.core.records import Array, Book, Kind, Order, Report, Side, Status, Trades, Uncross
from marsjax.core.sessions import Phase, Session
from marsjax.core.specs import MarketSpec
from marsjax.core.times import SECOND_NS

_NEW, _PARTIAL, _DELETE, _EXECUTION, _CROSS = 1, 2, 3, 4, 6
_UNIT = decimal.Decimal("0.0001")
_DUMMY = 9_999_999_999
_MOST_ID = 1_999_999_999
"""Our reader gives the ids above to orders that the file does not name."""
_FIRST_GIVEN = 1_500_000_000
_ASK, _BID, _CANCEL = int(Side.ASK), int(Side.BID), int(Kind.CANCEL)
_COLLECTING = (Phase.OPEN_AUCTION, Phase.CLOSE_AUCTION)


def names(market: MarketSpec, symbol: str, date: str, levels: int) -> tuple[str, str]:
    """Names of the two files: SYMBOL_DATE_START_END_message_LEVELS.csv, and _orderbook_; START and END in ms."""
    for what, word in (("symbol", symbol), ("date", date)):
        if not word or set(word) & set("_/\\"):
            raise InputError(f"lobster: {what}: expected a word without _ and /, got {word!r}")
    periods = market.session.periods
    begins = [each.start_ns if each.uncross_ns is None else each.uncross_ns for each in periods]
    ends = [each.end_ns if each.uncross_ns is None else each.uncross_ns for each in periods]
    prefix = f"{symbol}_{date}_{min(begins) // 10**6}_{-(-max(ends) // 10**6)}"
    return f"{prefix}_message_{levels}.csv", f"{prefix}_orderbook_{levels}.csv"


class LobsterFiles:
    """The two files of one market, written as its orders pass. All arrays are NumPy arrays on the host."""

    def __init__(self, folder: Path, market: MarketSpec, symbol: str, date: str, levels: int = 10) -> None:
        """InputError where the market's prices are no whole numbers of 1e-4 of the currency, or its volumes of 1."""
        scale = decimal.Decimal(market.units.price) / _UNIT
        if scale != int(scale) or decimal.Decimal(market.units.volume) != 1:
            raise InputError(f"lobster: expected prices in units of 0.0001 and volumes of 1, got {market.units.price} "
                             f"and {market.units.volume}")
        if levels < 1:
            raise InputError(f"lobster: levels: expected at least 1, got {levels}")
        self._session, self._scale = market.session, int(scale)
        self._book: dict[int, list[int]] = {}  # side, price, shares by id, in order of arrival
        self._shown: dict[int, list[int]] = {}  # the same as far as messages tell
        self._levels = _Levels(levels, self._scale)
        self._ids: dict[int, int] = {}
        self._open = contextlib.ExitStack()
        self._messages, self._rows = (self._open.enter_context((folder / name).open("w", encoding="ascii"))
                                      for name in names(market, symbol, date, levels))

    def start(self, book: Book, time_ns: int) -> None:
        """The resting orders [2, C] of a start."""
        volume, price, order_id = (np.asarray(x) for x in (book.volume, book.price, book.order_id))
        for side in (_ASK, _BID):
            for slot in np.flatnonzero(volume[side] > 0).tolist():
                own = int(order_id[side, slot])
                self._book[own] = [side, int(price[side, slot]), int(volume[side, slot])]
                self._write(time_ns, _NEW, own, *self._book[own])

    def orders(self, sent: Order, reports: Report) -> None:
        """Orders [N] as sent, and what came of them."""
        self.events(sent, reports.status, reports.order_id, reports.trades, reports.price)

    def events(self, sent: Order, status: Array, order_id: Array, trades: Trades, price: Array) -> None:
        """The same; the transactions of a cancel may be those of several orders."""
        cut = int(np.sum(np.asarray(trades.is_truncated)))
        if cut:
            raise InputError(f"lobster: {cut} lists of transactions were cut: raise MarketSpec.trade_width above "
                             f"{np.asarray(trades.price).shape[-1]}")
        accepted = np.flatnonzero(np.asarray(status) == Status.ACCEPTED)
        time_ns = times.to_ns(sent.time)[accepted]
        columns = (np.asarray(x)[accepted].tolist() for x in (
            sent.kind, order_id, price, trades.rest, trades.count, trades.volume_each, trades.resting_id))
        for at, hidden, kind, own, limit, rest, count, volumes, ids in zip(
                time_ns.tolist(), _collects(self._session, time_ns), *columns, strict=True):
            for k in range(count):
                side, level, left = self._taken(ids[k], volumes[k])
                if not hidden:
                    cancel = _PARTIAL if left else _DELETE
                    self._write(at, cancel if kind == _CANCEL else _EXECUTION, ids[k], side, level, volumes[k])
            if rest:
                self._book[own] = [kind, limit, rest]
                if not hidden:
                    self._write(at, _NEW, own, kind, limit, rest)

    def auction(self, time_ns: int, result: Uncross) -> None:
        """A call auction: what it matched, and the book after it."""
        fill, ids = np.asarray(result.fill), np.asarray(result.order_id)
        for side, slot in zip(*np.nonzero(fill), strict=True):
            self._taken(int(ids[side, slot]), int(fill[side, slot]))
        for own, (side, price, volume) in list(self._shown.items()):
            left = self._book[own][2] if own in self._book else 0
            if left < volume:
                self._write(time_ns, _PARTIAL if left else _DELETE, own, side, price, volume - left)
        matched = int(int64.to_numpy(result.volume))
        if matched:
            self._line(time_ns, _CROSS, -1, matched, int(result.price), -1)
        for own, (side, price, volume) in self._book.items():
            if own not in self._shown:
                self._write(time_ns, _NEW, own, side, price, volume)

    def close(self) -> None:
        """Closes the files; nothing more can be written."""
        self._open.close()

    def _taken(self, own: int, volume: int) -> tuple[int, int, int]:
        """Takes shares off an order; its side, its price and the shares left."""
        order = self._book[own]
        order[2] -= volume
        if not order[2]:
            del self._book[own]
        return order[0], order[1], order[2]

    def _write(self, time_ns: int, kind: int, own: int, side: int, price: int, volume: int) -> None:
        """A message about a resting order, and the book after it."""
        if kind == _NEW:
            self._shown[own] = [side, price, volume]
        else:
            order = self._shown[own]
            order[2] -= volume
            if not order[2]:
                del self._shown[own]
        self._levels.add(side, price, volume if kind == _NEW else -volume)
        self._line(time_ns, kind, own if own <= _MOST_ID else self._given(own), volume, price,
                   1 if side == _BID else -1)

    def _line(self, time_ns: int, kind: int, own: int, volume: int, price: int, direction: int) -> None:
        second, rest = divmod(time_ns, SECOND_NS)
        self._messages.write(f"{second}.{rest:09d},{kind},{own},{volume},{price * self._scale},{direction}\n")
        self._rows.write(self._levels.row())

    def _given(self, own: int) -> int:
        """Another id for one that our reader would not take."""
        return self._ids.setdefault(own, _FIRST_GIVEN + len(self._ids))


class _Levels:
    """Shares by price of both sides."""

    def __init__(self, count: int, scale: int) -> None:
        self._count, self._scale = count, scale
        self._volume: tuple[dict[int, int], dict[int, int]] = {}, {}
        self._prices: tuple[list[int], list[int]] = [], []  # those of bids negative, so that the best come first

    def add(self, side: int, price: int, volume: int) -> None:
        """Shares more, or fewer, at a price."""
        levels, prices, key = self._volume[side], self._prices[side], price if side == _ASK else -price
        if price not in levels:
            bisect.insort(prices, key)
            levels[price] = 0
        levels[price] += volume
        if not levels[price]:
            del levels[price], prices[bisect.bisect_left(prices, key)]

    def row(self) -> str:
        """A line of the book file."""
        sides = []
        for side, dummy in ((_ASK, _DUMMY), (_BID, -_DUMMY)):
            best = [abs(key) for key in self._prices[side][: self._count]]
            found = [(price * self._scale, self._volume[side][price]) for price in best]
            sides.append(found + [(dummy, 0)] * (self._count - len(found)))
        return ",".join(f"{a},{b},{c},{d}" for (a, b), (c, d) in zip(*sides, strict=True)) + "\n"


def _collects(session: Session, time_ns: np.ndarray) -> list[bool]:
    """Which of times [N] belong to a call auction."""
    found = np.zeros(len(time_ns), bool)
    for period in session.periods:
        if period.phase in _COLLECTING:
            found |= (time_ns >= period.start_ns) & (time_ns <= period.end_ns)
    flags: list[bool] = found.tolist()
    return flags
