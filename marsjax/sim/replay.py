"""Given orders replayed: one day or many symbol-days at once, and what the exchange answered to each order."""

import dataclasses
from collections.abc import Iterator, Sequence

import jax
import numpy as np

from marsjax.core.errors import InputError
from marsjax.core.records import BookView, Market, Order, Report, Uncross
from marsjax.core.specs import MarketSpec
from marsjax.core.times import DAY_NS
from marsjax.data.feed import FeedChunk, PublishedFills
from marsjax.sim.initial.given_orders import Auctions, Chunk, PassEnd, PassEvent, PassSpec, pass_feeds


@dataclasses.dataclass(frozen=True)
class Stretch:
    """Some orders of one market and what the exchange answered, NumPy arrays [N, ...] on the host."""

    market: int
    """Number of the feed."""
    orders: Order
    """[N], as sent."""
    reports: Report
    """[N, ...]."""
    views: BookView | None
    """[N, ...], after each order; None if not asked for."""


@dataclasses.dataclass(frozen=True)
class CallAuction:
    """One call auction of one market, NumPy arrays on the host."""

    market: int
    number: int
    """0 for the first of the session."""
    time_ns: int
    uncross: Uncross
    view: BookView
    """After it; NOT_MADE if views are not asked for."""


@dataclasses.dataclass(frozen=True)
class Published:
    """What a feed says beside its orders; it comes no later than the orders that it is about."""

    market: int
    fills: PublishedFills
    """Transactions that the exchange made."""
    ignored: dict[str, int]
    """Messages that became no order, by reason."""
    adapted: dict[str, int]
    """Messages whose order is not literally what they say, by reason."""


@dataclasses.dataclass(frozen=True)
class Closing:
    """The end of a replay."""

    markets: Market
    """[S, ...], on the device."""
    run_s: float
    """Seconds in which compiled code was under way; what was read and done meanwhile costs none, nor compilation."""
    compile_s: float
    """Seconds of tracing and compiling."""


ReplayEvent = Stretch | CallAuction | Published | Closing


def replay(spec: MarketSpec, feeds: Sequence[Iterator[FeedChunk]], *, chunk_orders: int = 8192, with_views: bool = True,
           first_id: int = 0, one_by_one: bool | None = None, until_ns: int = DAY_NS) -> Iterator[ReplayEvent]:
    """Replays feeds, each through a market of its own, and yields what happens as it happens.

    Args:
      spec: sizes and session; the same for all S markets.
      feeds: one iterator of chunks a market, in exchange order; kept ids must be unique in a feed.
      chunk_orders: orders of each market in a compiled call; no result depends on it.
      with_views: whether to return the view after every order.
      first_id: id of the first order that comes without one.
      until_ns: orders after it are not read, and call auctions at it or after it are not held.
      one_by_one: whether a compiled call takes the markets in turn, which suits a CPU, or together, which suits a GPU;
        None: as `MarketSpec.kernels` says. No result depends on it.

    Yields Stretch, CallAuction and Published events, those of one market in order; a Closing last. They come a chunk
    late: while the exchange works on orders, the feeds are read on, and you work on what came of those before. Errors
    of the feeds pass through, after the events of what came before them.
    """
    if not feeds:
        raise InputError("replay: expected at least one feed, got none")
    passing = PassSpec(spec, chunk_orders, with_views, first_id, one_by_one)
    for passed in pass_feeds(passing, feeds, until_ns=until_ns):
        if isinstance(passed, PassEnd):
            yield Closing(passed.states.market, passed.run_s, passed.compile_s)
        yield from _events(passed)


def _events(passed: PassEvent) -> Iterator[Stretch | CallAuction | Published]:
    """What happened, market by market, fetched from the device."""
    if isinstance(passed, list):
        for m, chunk in passed:
            yield Published(m, chunk.fills, chunk.ignored, chunk.adapted)
    elif isinstance(passed, Chunk):
        report, view = jax.tree.map(np.asarray, passed.answers)
        for m, part in enumerate(passed.orders):
            count = len(part.kind)
            if count:
                yield Stretch(m, part, *jax.tree.map(lambda x, m=m, count=count: x[m, :count], (report, view)))
    elif isinstance(passed, Auctions):
        results = jax.tree.map(np.asarray, (passed.uncross, passed.view))
        for m in range(len(results[0].price)):
            yield CallAuction(m, passed.number, passed.time_ns, *jax.tree.map(lambda x, m=m: x[m], results))
