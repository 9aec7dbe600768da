"""A day replayed whole, and what came of it as tables: for days that fit in memory. `replay.replay` streams any."""

import dataclasses
from typing import TYPE_CHECKING

import jax
import numpy as np

from marsjax.core.errors import InputError
from marsjax.core.records import BookView, Market, Order, Report
from marsjax.core.specs import MarketSpec
from marsjax.core.times import DAY_NS
from marsjax.data.feed import DayFeed
from marsjax.market import book as books
from marsjax.observers import market_tables
from marsjax.observers.market_tables import CURRENCY, STATUSES, Table, presented
from marsjax.sim import frames, replay
from marsjax.sim.frames import FREE, Before, Fees
from marsjax.sim.refusals import Refusals
from marsjax.sim.replay import CallAuction

if TYPE_CHECKING:
    import pandas as pd


@dataclasses.dataclass(frozen=True, eq=False)
class Replayed:
    """One market after its feed.

    The methods make pandas DataFrames with the columns of those of `Rollout`, but for the trajectory.
    """

    market: MarketSpec
    sent: Order
    """NumPy arrays [N], as sent."""
    reports: Report
    """[N, ...]."""
    views: BookView
    """[N, ...], after each order."""
    call_auctions: tuple[CallAuction, ...]
    closing: Market
    """At the end, NumPy arrays."""
    refused: Refusals

    def orders(self, prices: str = CURRENCY) -> "pd.DataFrame":
        """Every order and what became of it; columns as of `Rollout.orders`."""
        return self._frame(market_tables.orders(self.sent, self.reports, self.views,
                                                conditions=self.market.conditions), prices)

    def trades(self, prices: str = CURRENCY) -> "pd.DataFrame":
        """Every trade of continuous trading; columns as of `Rollout.trades`."""
        table = self._trades()
        status = table.pop("status")
        value = table["price"].astype(np.int64) * table["volume"]
        return self._frame(table | {"value": value, "status": status}, prices)

    def auctions(self, prices: str = CURRENCY) -> "pd.DataFrame":
        """What each order traded in call auctions: auction (from 0), time_ns, type, price, volume, order_id, ..."""
        return self._frame(frames.auctions([(each.number, each.time_ns, each.uncross) for each in self.call_auctions]),
                           prices)

    def snapshots(self, prices: str = CURRENCY) -> "pd.DataFrame":
        """The book after every order; columns as of `Rollout.snapshots`."""
        return frames.snapshots(self.market, self._of(), self.views, prices)

    def depth(self, prices: str = CURRENCY) -> "pd.DataFrame":
        """The same as rows of single levels; columns as of `Rollout.depth`."""
        return frames.depth(self.market, self._of(), self.views, prices)

    def resting(self, prices: str = CURRENCY) -> "pd.DataFrame":
        """The orders that rest at the end; columns as of `Rollout.resting`."""
        table = market_tables.resting(self._end().book)
        return frames.state(self.market, table, self.closing.time, "RESTING", prices).drop(columns="trajectory")

    def accounts(self, prices: str = CURRENCY, fees: Fees = FREE) -> "pd.DataFrame":
        """What every account came to; columns as of `Rollout.accounts`, fees on the trades of continuous trading."""
        end = self._end()
        view = jax.jit(books.view, static_argnums=0)(self.market, self.closing.book)
        nothing = jax.tree.map(np.zeros_like, end.ledgers)
        rows = frames.accounts(self.market, Before(nothing, np.zeros(1, np.int64)),
                               Before(end.ledgers, np.asarray(view.mid_price_twice)[None]), fees,
                               None if fees == FREE else frames.by_role(self._trades()))
        rows = frames.in_queue(rows, market_tables.resting(end.book))
        return frames.state(self.market, rows, self.closing.time, "END", prices).drop(columns="trajectory")

    def _trades(self) -> Table:
        cut = int(np.sum(np.asarray(self.reports.trades.is_truncated)))
        if cut:
            raise InputError(f"replay: {cut} lists of trades were cut: raise MarketSpec.trade_width above "
                             f"{self.market.trade_width}")
        return market_tables.transactions(self.sent, self.reports, cancels=False)

    def _of(self) -> Table:
        rows = market_tables.orders(self.sent, self.reports, None)
        return {"i": rows["i"], "time_ns": rows["time_ns"], "status": STATUSES[np.asarray(self.reports.status)]}

    def _end(self) -> Market:
        """The market as one of a batch."""
        return jax.tree.map(lambda x: np.asarray(x)[None], self.closing)

    def _frame(self, table: Table, prices: str) -> "pd.DataFrame":
        return frames.frame(presented(self.market, table, prices))


def replay_day(feed: DayFeed, market: MarketSpec | None = None, *, until_ns: int = DAY_NS, chunk_orders: int = 8192,
               allow_refused: bool = False) -> Replayed:
    """A day through a market of its own.

    Args:
      feed: the day.
      market: None: as the feed says (`feed.venue.market()`).
      until_ns: orders after it are not read, and call auctions at it or after it are not held.
      chunk_orders: orders of a compiled call; no result depends on it.
      allow_refused: whether the result is wanted where orders were refused that a right spec would have let in.

    Raises InputError where they were, and it is not, with what to set; errors of the feed pass through.

    Examples:
      >>> import pandas as pd
      >>> from marsjax.data import frames as tables
      >>> orders = pd.DataFrame({"time": ["09:30:00", "09:30:01"], "side": ["sell", "buy"], "price": [10.01, 10.02],
      ...                        "size": [300, 100]})
      >>> day = tables.from_frame(orders, tick="0.01")
      >>> done = replay_day(day, day.venue.market(capacity=64, trade_width=8), chunk_orders=128)
      >>> done.trades()[["type", "price", "volume"]].values.tolist()
      [['B', 10.01, 100]]
      >>> done.resting()[["side", "price", "volume"]].values.tolist()
      [['ask', 10.01, 200]]
    """
    spec = feed.venue.market() if market is None else market
    refused = Refusals(spec, feed.publishes_fills)
    stretches: list[tuple[Order, Report, BookView | None]] = []
    held: list[CallAuction] = []
    for event in replay.replay(spec, [feed.read()], chunk_orders=chunk_orders, until_ns=until_ns):
        match event:
            case replay.Stretch():
                stretches.append((event.orders, event.reports, event.views))
                refused.add(event.orders, event.reports.status)
            case replay.Published():
                refused.messages(event.ignored, event.adapted)
            case replay.CallAuction():
                held.append(event)
            case replay.Closing():
                closing = jax.tree.map(lambda x: np.asarray(x)[0], event.markets)
    if not stretches:
        raise InputError(f"replay: {feed.name or 'the feed'} holds no orders before {until_ns} ns")
    if not allow_refused and (problems := refused.problems()):
        raise InputError(f"replay: {feed.name}: {'; '.join(problems)} (allow_refused=True takes the rest)")
    sent, reports, views = jax.tree.map(lambda *x: np.concatenate(x), *stretches)
    return Replayed(spec, sent, reports, views, tuple(held), closing, refused)
