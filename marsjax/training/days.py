"""Days of real orders -> what their bins are fitted on, and their tokens."""

import dataclasses
import functools
from collections.abc import Iterator, Sequence

import jax
import numpy as np

from marsjax import bins, clock, replay, tokens
from marsjax import book as books
from marsjax.data.feed import FeedChunk
from marsjax.specs import MarketSpec, Phase, TokenSpec
from marsjax.types import NO_PRICE, BookView, Kind, Order, Report, Status


@dataclasses.dataclass(frozen=True)
class ReplayedDay:
    """What the tokens of one day are made from, NumPy arrays [N, ...] of all its orders."""

    name: str
    """For messages: symbol and date."""
    orders: Order
    reports: Report
    views: BookView
    """After each order."""
    continuous: np.ndarray
    """bool [N], which came in continuous trading."""

    def quantities(self, until_ns: int | None = None) -> dict[str, np.ndarray]:
        """What the bins are of, float64 [N] by converter, of orders before `until_ns` (default: all).

        One value an accepted order of continuous trading after the first; for lob-volume one a level of each view.
        """
        time_ns = clock.time_to_ns(self.orders.time)
        early = time_ns < (np.iinfo(np.int64).max if until_ns is None else until_ns)
        keep = early & self.continuous & (np.asarray(self.reports.status) == Status.ACCEPTED)
        mid = np.concatenate([[NO_PRICE], np.asarray(self.views.mid_price)[:-1]])[keep]
        orders = jax.tree.map(lambda x: np.asarray(x)[keep], self.orders)
        is_cancel = orders.kind == Kind.CANCEL
        price = np.where(is_cancel, np.asarray(self.reports.trades.price)[keep, 0], orders.price)
        levels = np.concatenate([clock.wide_to_numpy(x)[early].reshape(-1)
                                 for x in (self.views.ask_volume, self.views.bid_volume)])
        return {"price-level": (price - mid)[1:].astype(np.float64),
                "order-volume": orders.volume[1:].astype(np.float64),
                "order-interval": np.array([bins.interval_seconds(int(ns)) for ns in np.diff(time_ns[keep])]),
                "lob-volume": levels[levels > 0].astype(np.float64)}


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

    Raises ValueError if a side was full or a feed held no orders, under the feed's name, by default `feed 0` and so on.
    """
    names = list(names) or [f"feed {number}" for number in range(len(feeds))]
    narrow = dataclasses.replace(market, trade_width=1)
    parts: list[list[replay.Stretch]] = [[] for _ in feeds]
    for event in replay.replay(narrow, feeds):
        if isinstance(event, replay.Stretch):
            parts[event.market].append(event)
    days = []
    for name, stretches in zip(names, parts, strict=True):
        if not stretches:
            raise ValueError(f"training: {name} holds no orders")
        orders, reports, views = (jax.tree.map(lambda *x: np.concatenate(x), *(getattr(s, part) for s in stretches))
                                  for part in ("orders", "reports", "views"))
        full = int(np.sum(reports.status == Status.SIDE_FULL))
        if full:
            raise ValueError(f"training: {name}: {full} orders refused, a side was full: set capacity above "
                             f"{market.capacity}")
        is_open = np.asarray(clock.phase(market.session, orders.time)) == Phase.CONTINUOUS
        days.append(ReplayedDay(name, orders, reports, views, is_open))
    return days


def day_tokens(market: MarketSpec, spec: TokenSpec, table: tokens.TokenTables, day: ReplayedDay) -> DayTokens:
    """The tokens of a day; auction orders make none, merged cancels one."""
    narrow = dataclasses.replace(market, trade_width=1)
    before = books.view(narrow, books.empty(narrow))
    _, encoded = _encode(narrow, table, day.orders, day.reports, day.views, before, day.continuous)
    made, after = tokens.collect(jax.tree.map(np.asarray, encoded))
    makes = np.flatnonzero(np.asarray(encoded.is_new) | np.asarray(encoded.replaces))
    time_ns = np.zeros(len(made.kind), np.int64)
    time_ns[after[makes] - 1] = clock.time_to_ns(day.orders.time)[makes]  # of several the last one stays
    return DayTokens(day.name, np.asarray(tokens.to_array(spec, made)), time_ns)


@functools.partial(jax.jit, static_argnums=0)
def _encode(market: MarketSpec, table: tokens.TokenTables, orders: Order, reports: Report, views: BookView,
            before: BookView, continuous: jax.Array) -> tuple[tokens.TokenState, tokens.Encoded]:
    return tokens.encode_stream(market, table, tokens.start(), orders, reports, views, before, continuous)


def mirrored(feed: Iterator[FeedChunk]) -> Iterator[FeedChunk]:
    """The same orders with buys and sells exchanged and prices reflected about the first one's, in steps of a tick.

    A day with its mirror image beside it teaches no direction. The fills stay as they are. ValueError for a price
    that has no reflection above 0.
    """
    centre = None
    for chunk in feed:
        orders = chunk.orders
        kind, price, side = (np.asarray(x) for x in (orders.kind, orders.price, orders.cancel_side))
        limit = (kind == Kind.SELL) | (kind == Kind.BUY)
        if centre is None and limit.any():
            centre = int(price[limit][0])
        reflected = np.where(limit, 2 * (centre or 0) - price, price)
        if (reflected[limit] <= 0).any():
            raise ValueError(f"mirrored day: price {price[limit].max()} has no reflection about {centre} above 0")
        swapped = dataclasses.replace(
            orders, kind=np.where(limit, 1 - kind, kind).astype(kind.dtype), price=reflected.astype(price.dtype),
            cancel_side=np.where(side >= 0, 1 - side, side).astype(side.dtype))
        yield dataclasses.replace(chunk, orders=swapped)
