"""Writes what a replayed market does into its folder, as it happens, and its summary."""

from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pandas as pd

from marsjax.analysis import day, market_summary, plots
from marsjax.analysis.fills import FillCheck
from marsjax.core import int64, times
from marsjax.core.records import Market
from marsjax.core.specs import MarketSpec
from marsjax.data.feed import DayFeed
from marsjax.data.lobster_files import LobsterFiles
from marsjax.experiments import markets
from marsjax.experiments.table_files import TableFiles
from marsjax.observers import market_tables
from marsjax.observers.market_tables import INTEGER, STATUSES, Table, presented
from marsjax.sim import frames
from marsjax.sim.refusals import Refusals
from marsjax.sim.replay import CallAuction, Published, Stretch


class WriterOptions(NamedTuple):
    """What is written."""

    orders: bool
    snapshots: bool
    tables: str
    """csv or parquet."""
    prices: str
    """integer or currency (`market_tables.presented`)."""
    lobster: bool
    """Whether in LOBSTER's format, too."""
    picture: bool


class WrittenMarket(NamedTuple):
    """The end of one market."""

    summary: dict[str, Any]
    problems: list[str]
    """Why the result is not all that was asked for."""


class ReplayWriter:
    """The files of one market: orders, transactions, snapshots, auctions and the picture of the day."""

    def __init__(self, folder: Path, feed: DayFeed, market: MarketSpec, options: WriterOptions) -> None:
        self.name = feed.name
        self._folder, self._market, self._options = folder, market, options
        self._minutes: list[pd.DataFrame] = []
        self._auctions: list[dict[str, Any]] = []
        self._rows = 0
        self._refused = Refusals(market, feed.publishes_fills)
        self._check = FillCheck() if feed.publishes_fills else None
        folder.mkdir()
        self._files = TableFiles(folder, options.tables)
        self._lobster = LobsterFiles(folder, market, _word(feed.symbol or feed.name), _word(feed.date or "undated"),
                                     market.levels) if options.lobster else None

    def stretch(self, event: Stretch) -> None:
        """Orders and what came of them."""
        if event.views is None:
            raise ValueError("replay writer: expected the views of a replay")
        sent, answered = event.orders, event.reports
        if self._options.orders:
            self._write("orders", market_tables.orders(sent, answered, None, self._rows,
                                                     self._market.conditions))
        self._write("transactions", market_tables.transactions(sent, answered, self._rows))
        if self._options.snapshots:
            of = {"i": self._rows + np.arange(len(sent.kind)), "time_ns": times.to_ns(sent.time),
                  "status": STATUSES[np.asarray(answered.status)]}
            self._write("snapshots", of | market_tables.levels(event.views))
        self._minutes.append(day.minutes(sent, answered, event.views))
        self._rows += len(sent.kind)
        self._refused.add(sent, answered.status)
        if self._check:
            self._check.compute(answered)
        if self._lobster:
            self._lobster.orders(sent, answered)

    def published(self, event: Published) -> None:
        """What the feed says that the exchange did, and what it left out."""
        self._refused.messages(event.ignored, event.adapted)
        if self._check:
            self._check.publish(event.fills)

    def auction(self, event: CallAuction) -> None:
        """A call auction: its price, and what each order traded."""
        result = event.uncross
        traded = frames.auctions([(event.number, event.time_ns, result)])
        volume = int(int64.to_numpy(result.volume))
        self._auctions.append({"time_ns": event.time_ns, "price": int(result.price), "volume": volume,
                               "orders": len(traded["order_id"])})
        self._write("auctions", traded)
        self._minutes.append(day.auction_minute(event.time_ns, result, event.view))
        if self._lobster:
            self._lobster.auction(event.time_ns, result)
        if self._check:
            self._check.uncross(event.time_ns, result)

    def finish(self, market: Market) -> WrittenMarket:
        """Closes the files, draws the picture, and sums the market up (scalars on the device)."""
        self.close()
        if self._options.picture and self._minutes:
            table = day.join(self._minutes)
            if len(table):
                plots.day(table, self.name, float(self._market.units.price)).savefig(self._folder / "day.png", dpi=110)
        if self._check:
            self._check.finish()
        summary = market_summary.summarize(jax.tree.map(lambda x: x[None], market))
        summary |= {"last_price": market_summary.last_price(market), "auctions": self._auctions,
                    "price_unit": self._market.units.price, **self._refused.record(), **self._fills_summary()}
        return WrittenMarket(summary, self._problems(summary))

    def _problems(self, summary: dict[str, Any]) -> list[str]:
        found = self._refused.problems(markets.KEYS)
        if not summary["conserved"]:
            found.append("shares or cash were not conserved")
        if summary["cut_transaction_lists"]:
            found.append(f"{summary['cut_transaction_lists']} lists of transactions were cut: raise config.trade_width")
        if self._check and not self._check.equal:
            found.append(f"differs from the published trades: {self._check.first_difference}")
        return found

    def close(self) -> None:
        """Closes the files; nothing more can be written."""
        self._files.close()
        if self._lobster:
            self._lobster.close()

    def _fills_summary(self) -> dict[str, Any]:
        if not self._check:
            return {}
        check = self._check
        return {"published_fills": {
            "equal": check.equal, "compared": check.compared, "different": check.different,
            "auctions_compared": check.auctions_compared, "auctions_different": check.auctions_different,
            "first_difference": check.first_difference}}

    def _write(self, name: str, table: Table) -> None:
        shown = presented(self._market, table, self._options.prices)
        if name == "orders" and self._options.prices == INTEGER:
            shown["price"] = table["price"]  # whole numbers, as the plain CSV of orders has them
        self._files.write(name, shown)


def _word(name: str) -> str:
    """A name without what separates the parts of a file's name in LOBSTER's format."""
    return name.replace("_", "-").replace("/", "-")
