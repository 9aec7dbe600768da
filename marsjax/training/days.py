"""Days of real orders -> bins fitted on them, and their tokens."""

import dataclasses
import functools
from collections.abc import Iterator, Sequence

import jax
import numpy as np

from marsjax import bins, clock, replay, tokens
from marsjax import book as books
from marsjax.bins import Converter
from marsjax.data.feed import FeedChunk
from marsjax.specs import MarketSpec, Phase, TokenSpec
from marsjax.types import NO_PRICE, BookView, Kind, Order, Report, Status


@dataclasses.dataclass(frozen=True)
class ReplayedDay:
    """What the tokens of one day are made from, NumPy arrays [N, ...] of all its orders."""

    orders: Order
    reports: Report
    views: BookView
    """After each order."""
    continuous: np.ndarray
    """bool [N], which came in continuous trading."""


def replay_days(market: MarketSpec, feeds: Sequence[Iterator[FeedChunk]]) -> list[ReplayedDay]:
    """Replays feeds; of the transactions only the first of each order is kept, which is all that tokens need.

    Raises ValueError if a side was full or a feed held no orders.
    """
    narrow = dataclasses.replace(market, trade_width=1)
    parts: list[list[replay.Stretch]] = [[] for _ in feeds]
    for event in replay.replay(narrow, feeds):
        if isinstance(event, replay.Stretch):
            parts[event.market].append(event)
    days = []
    for number, stretches in enumerate(parts):
        if not stretches:
            raise ValueError(f"training: feed {number} holds no orders")
        orders, reports, views = (jax.tree.map(lambda *x: np.concatenate(x), *(getattr(s, name) for s in stretches))
                                  for name in ("orders", "reports", "views"))
        full = int(np.sum(reports.status == Status.SIDE_FULL))
        if full:
            raise ValueError(f"training: feed {number}: {full} orders refused, a side was full: set capacity above "
                             f"{market.capacity}")
        is_open = np.asarray(clock.phase(market.session, orders.time)) == Phase.CONTINUOUS
        days.append(ReplayedDay(orders, reports, views, is_open))
    return days


def fit_converters(days: Sequence[ReplayedDay], spec: TokenSpec, level_bins: int = 32) -> dict[str, Converter]:
    """Bins of the quantities in a token, fitted on days (reference: bin converters).

    Volumes are those of limit orders and cancels alike, as a token's are. ValueError where there is too little to fit.
    """
    values = {name: np.concatenate([_quantities(day)[name] for day in days]) for name in _quantities(days[0])}
    counts = {"price-level": spec.price_levels, "order-volume": spec.volumes, "pred-order-volume": spec.volumes,
              "order-interval": spec.intervals, "lob-volume": level_bins}
    return {name: bins.fit(values[name], count) for name, count in counts.items()}


def day_tokens(market: MarketSpec, spec: TokenSpec, table: tokens.TokenTables, day: ReplayedDay) -> np.ndarray:
    """The tokens of a day as features, int32 [M, 15]; auction orders make none, merged cancels one."""
    narrow = dataclasses.replace(market, trade_width=1)
    before = books.view(narrow, books.empty(narrow))
    _, encoded = _encode(narrow, table, day.orders, day.reports, day.views, before, day.continuous)
    made, _ = tokens.collect(jax.tree.map(np.asarray, encoded))
    return np.asarray(tokens.to_array(spec, made))


@functools.partial(jax.jit, static_argnums=0)
def _encode(market: MarketSpec, table: tokens.TokenTables, orders: Order, reports: Report, views: BookView,
            before: BookView, continuous: jax.Array) -> tuple[tokens.TokenState, tokens.Encoded]:
    return tokens.encode_stream(market, table, tokens.start(), orders, reports, views, before, continuous)


def _quantities(day: ReplayedDay) -> dict[str, np.ndarray]:
    """What the bins are of: one value an accepted order of continuous trading after the first (levels: each level)."""
    keep = day.continuous & (np.asarray(day.reports.status) == Status.ACCEPTED)
    mid = np.concatenate([[NO_PRICE], np.asarray(day.views.mid_price)[:-1]])[keep]
    orders = jax.tree.map(lambda x: np.asarray(x)[keep], day.orders)
    is_cancel = orders.kind == Kind.CANCEL
    price = np.where(is_cancel, np.asarray(day.reports.trades.price)[keep, 0], orders.price)
    time_ns = clock.time_to_ns(orders.time)
    levels = np.concatenate([clock.wide_to_numpy(x).reshape(-1)
                             for x in (day.views.ask_volume, day.views.bid_volume)])
    interval = np.array([bins.interval_seconds(int(ns)) for ns in np.diff(time_ns)])
    volume = orders.volume[1:].astype(np.float64)
    return {"price-level": (price - mid)[1:].astype(np.float64), "order-volume": volume, "pred-order-volume": volume,
            "order-interval": interval, "lob-volume": levels[levels > 0].astype(np.float64)}

