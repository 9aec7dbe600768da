"""Days of real orders -> what their bins are fitted on, and their tokens.

What a replay makes stays on the device: the host fetches the columns that bins are fitted on, and tokens are encoded
where the views lie.
"""

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, Protocol

import jax
import numpy as np

from marsjax.core import int64, sessions, times
from marsjax.core.errors import InputError
from marsjax.core.records import NO_PRICE, UNPRICED, BookView, Kind, Order, Report, Status
from marsjax.core.sessions import Phase
from marsjax.core.specs import MarketSpec, TokenSpec
from marsjax.data.feed import FeedChunk
from marsjax.sim.initial import chunk_tokens
from marsjax.sim.initial.given_orders import Chunk, PassSpec, pass_feeds
from marsjax.sim.refusals import Refusals
from marsjax.tokens import bins, encoding
from marsjax.tokens.encoding import Encoded, TokenTables


@dataclasses.dataclass(frozen=True)
class ReplayedDay:
    """One day after its replay, N orders in all."""

    name: str
    """For messages: symbol and date."""
    place: int
    """Its market among those that were replayed together."""
    chunks: tuple[Chunk, ...]
    """Of all these markets, on the device."""
    continuous: np.ndarray
    """bool [N], which orders someone sent in continuous trading: not those by which a reader keeps its book right."""
    refused: Refusals
    """Of its orders."""

    @property
    def orders(self) -> Order:
        """NumPy arrays [N], as sent."""
        return jax.tree.map(lambda *x: np.concatenate(x), *(chunk.orders[self.place] for chunk in self.chunks))

    @property
    def reports(self) -> Report:
        """NumPy arrays [N, ...]."""
        return self._fetched([chunk.answers.report for chunk in self.chunks])

    @property
    def views(self) -> BookView:
        """NumPy arrays [N, ...], after each order."""
        return self._fetched([chunk.answers.view for chunk in self.chunks])

    def _fetched(self, parts):  # type: ignore[no-untyped-def]  # noqa: ANN001, ANN202
        """Arrays [N, ...] of parts [S, padded, ...]."""
        counts = [len(chunk.orders[self.place].kind) for chunk in self.chunks]
        rows = [jax.tree.map(lambda x, count=count: np.asarray(x[self.place])[:count], part)
                for part, count in zip(parts, counts, strict=True)]
        return jax.tree.map(lambda *x: np.concatenate(x), *rows)

    def quantities(self, until_ns: int | None = None) -> dict[str, np.ndarray]:
        """What the bins are of, float64 [N] by converter, of orders before `until_ns` (default: all).

        One value an accepted order of continuous trading after the first; for lob-volume one a level of each view.
        """
        orders = self.orders
        status, first_price, mid, volumes = self._fetched([(
            chunk.answers.report.status, chunk.answers.report.trades.price[..., 0], chunk.answers.view.mid_price,
            (chunk.answers.view.ask_volume, chunk.answers.view.bid_volume)) for chunk in self.chunks])
        time_ns = times.to_ns(orders.time)
        early = time_ns < (np.iinfo(np.int64).max if until_ns is None else until_ns)
        keep = early & self.continuous & (status == Status.ACCEPTED)
        mid = np.concatenate([[NO_PRICE], mid[:-1]])[keep]
        orders = jax.tree.map(lambda x: x[keep], orders)
        price = np.where(orders.kind == Kind.CANCEL, first_price[keep], orders.price)
        levels = np.concatenate([int64.to_numpy(x)[early].reshape(-1) for x in volumes])
        return {"price-level": (price - mid)[1:].astype(np.float64),
                "order-volume": orders.volume[1:].astype(np.float64),
                "order-interval": np.array([bins.interval_seconds(int(ns)) for ns in np.diff(time_ns[keep])]),
                "lob-volume": levels[levels > 0].astype(np.float64)}


class Tokens(Protocol):
    """The tokens of a day, int32 [M, 15]: a NumPy array, or a file whose parts are read when they are asked for."""

    def __len__(self) -> int:
        """M."""
        ...

    def __getitem__(self, key: Any) -> np.ndarray:
        """As of an array."""
        ...


@dataclasses.dataclass(frozen=True)
class DayTokens:
    """The tokens of one day, NumPy arrays."""

    name: str
    features: np.ndarray
    """int32 [M, 15], the reference's columns."""
    time_ns: np.ndarray
    """int64 [M], of each token's (last) order, nanoseconds since midnight."""


def replay_days(market: MarketSpec, feeds: Sequence[Iterator[FeedChunk]], names: Sequence[str] = ()
                ) -> list[ReplayedDay]:
    """Replays feeds; of the transactions only the first of each order is kept, which is all that tokens need.

    Orders that are refused make no token; `ReplayedDay.refused` counts them. Raises InputError if a side was full or a
    feed held no orders, under the feed's name, by default `feed 0` and so on.
    """
    names = list(names) or [f"feed {number}" for number in range(len(feeds))]
    spec = PassSpec(dataclasses.replace(market, trade_width=1))
    found: list[Chunk] = []
    refused = [Refusals(market) for _ in feeds]
    sent_by_none: list[list[np.ndarray]] = [[] for _ in feeds]
    for passed in pass_feeds(spec, feeds):
        if isinstance(passed, Chunk):
            found.append(passed)
        elif isinstance(passed, list):
            for place, part in passed:
                refused[place].messages(part.ignored, part.adapted)
                none = np.zeros(len(part.orders.kind), bool)
                sent_by_none[place].append(none if part.is_synthetic is None else part.is_synthetic)
    chunks, days = tuple(found), []
    for place, name in enumerate(names):
        if not any(len(chunk.orders[place].kind) for chunk in chunks):
            raise InputError(f"training: {name} holds no orders")
        for chunk in chunks:
            sent = chunk.orders[place]
            refused[place].add(sent, np.asarray(chunk.answers.report.status[place])[: len(sent.kind)])
        if full := refused[place].counts.get(Status.SIDE_FULL.name):
            raise InputError(f"training: {name}: {full} orders refused, a side was full: set capacity above "
                             f"{market.capacity}")
        is_open = [sessions.phases_of(market.session, times.to_ns(chunk.orders[place].time)) == Phase.CONTINUOUS
                   for chunk in chunks]
        # Of a feed that was not read to its end the flags go on behind the orders.
        learned = np.concatenate(is_open)
        learned &= ~np.concatenate(sent_by_none[place])[:len(learned)]
        days.append(ReplayedDay(name, place, chunks, learned, refused[place]))
    return days


def day_tokens(market: MarketSpec, spec: TokenSpec, table: TokenTables, day: ReplayedDay) -> DayTokens:
    """The tokens of a day; auction orders and those that nobody sent make none, merged cancels one."""
    narrow = dataclasses.replace(market, trade_width=1)
    between = chunk_tokens.before_all(narrow)
    parts: list[Encoded] = []
    passed = 0
    for chunk in day.chunks:
        count = len(chunk.orders[day.place].kind)
        between, encoded = chunk_tokens.tokens_of(narrow, table, between, chunk, day.place,
                                                  day.continuous[passed:passed + count])
        passed += count
        parts.append(encoded)
    every = jax.tree.map(lambda *x: np.concatenate(x), *parts)
    made, after = encoding.collect(every)
    makes = np.flatnonzero(every.is_new | every.replaces)
    time_ns = np.zeros(len(made.kind), np.int64)
    time_ns[after[makes] - 1] = times.to_ns(day.orders.time)[makes]  # of several the last one stays
    return DayTokens(day.name, np.asarray(encoding.to_array(spec, made)), time_ns)


def mirrored(feed: Iterator[FeedChunk]) -> Iterator[FeedChunk]:
    """The same orders with buys and sells exchanged and prices reflected about the first one's, in steps of a tick.

    A day with its mirror image beside it teaches no direction. The fills stay as they are. InputError for a price
    that has no reflection above 0.
    """
    centre = None
    for chunk in feed:
        orders = chunk.orders
        kind, price, side = (np.asarray(x) for x in (orders.kind, orders.price, orders.cancel_side))
        limit = (kind == Kind.SELL) | (kind == Kind.BUY)
        priced = limit & ~np.isin(orders.condition, UNPRICED)
        if centre is None and priced.any():
            centre = int(price[priced][0])
        reflected = np.where(priced, 2 * (centre or 0) - price, price)
        if (reflected[priced] <= 0).any():
            raise InputError(f"mirrored day: price {price[priced].max()} has no reflection about {centre} above 0")
        swapped = dataclasses.replace(
            orders, kind=np.where(limit, 1 - kind, kind).astype(kind.dtype), price=reflected.astype(price.dtype),
            cancel_side=np.where(side >= 0, 1 - side, side).astype(side.dtype))
        yield dataclasses.replace(chunk, orders=swapped)
