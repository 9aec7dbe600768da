"""Writes what a replayed market does into its folder, as it happens, and its summary."""

import collections
import contextlib
import dataclasses
import gzip
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pandas as pd

from marsjax.analysis import day, market_summary, plots
from marsjax.analysis.fills import FillCheck
from marsjax.core import int64
from marsjax.core.records import NO_ID, Market, Side
from marsjax.data import neutral
from marsjax.sim.replay import CallAuction, Published, Stretch

_FAST = 1  # gzip level: much faster than the default, for twice the bytes


class ReplayWriter:
    """The files of one market: orders, transactions, snapshots, auctions and the picture of the day."""

    def __init__(self, folder: Path, name: str, write_orders: bool, write_snapshots: bool, check_fills: bool) -> None:
        self.name = name
        self._folder = folder
        self._files: dict[str, gzip.GzipFile] = {}
        self._open_files = contextlib.ExitStack()
        self._optional = {"orders": write_orders, "snapshots": write_snapshots}
        self._minutes: list[pd.DataFrame] = []
        self._auctions: list[dict[str, Any]] = []
        self._rows = 0
        self._feed = {"ignored_messages": collections.Counter[str](), "adapted_messages": collections.Counter[str]()}
        self._check = FillCheck() if check_fills else None
        folder.mkdir()

    def stretch(self, event: Stretch) -> None:
        """Orders and what came of them."""
        if event.views is None:
            raise ValueError("replay writer: expected the views of a replay")
        answered = event.reports
        given = np.where(answered.order_id == NO_ID, event.orders.order_id, answered.order_id)
        sent = dataclasses.replace(event.orders, order_id=given)
        self._write("orders", neutral.frame(sent))
        self._write("transactions", self._numbered(neutral.transactions(sent, answered.trades)))
        if self._optional["snapshots"]:
            self._write("snapshots", self._numbered(neutral.snapshots(event.views)))
        self._minutes.append(day.minutes(event.orders, answered, event.views))
        self._rows += len(event.orders.kind)
        if self._check:
            self._check.compute(answered)

    def published(self, event: Published) -> None:
        """What the feed says that the exchange did, and what it left out."""
        self._feed["ignored_messages"].update(event.ignored)
        self._feed["adapted_messages"].update(event.adapted)
        if self._check:
            self._check.publish(event.fills)

    def auction(self, event: CallAuction) -> None:
        """A call auction: its price, and what each order traded."""
        result = event.uncross
        side, slot = np.nonzero(result.fill)
        volume = int(int64.to_numpy(result.volume))
        self._auctions.append({"time_ns": event.time_ns, "price": int(result.price), "volume": volume,
                               "orders": len(side)})
        self._write("auctions", pd.DataFrame({
            "auction": event.number, "time_ns": event.time_ns, "price": int(result.price),
            "type": np.where(side == Side.BID, "B", "S"), "order_id": result.order_id[side, slot],
            "volume": result.fill[side, slot]}))
        self._minutes.append(day.auction_minute(event.time_ns, result, event.view))
        if self._check:
            self._check.uncross(event.time_ns, result)

    def finish(self, market: Market, picture: bool) -> dict[str, Any]:
        """Closes the files, draws the picture, and returns the summary of the market (scalars on the device)."""
        self.close()
        if picture and self._minutes:
            table = day.join(self._minutes)
            if len(table):
                plots.day(table, self.name).savefig(self._folder / "day.png", dpi=110)
        if self._check:
            self._check.finish()
        summary = market_summary.summarize(jax.tree.map(lambda x: x[None], market))
        return (summary | {"last_price": market_summary.last_price(market), "auctions": self._auctions} | self._feed
                | self._fills_summary())

    def close(self) -> None:
        """Closes the files; nothing more can be written."""
        self._open_files.close()

    def _fills_summary(self) -> dict[str, Any]:
        if not self._check:
            return {}
        check = self._check
        return {"published_fills": {
            "equal": check.equal, "compared": check.compared, "different": check.different,
            "auctions_compared": check.auctions_compared, "auctions_different": check.auctions_different,
            "first_difference": check.first_difference}}

    def _numbered(self, table: pd.DataFrame) -> pd.DataFrame:
        return table.assign(i=table["i"] + self._rows)

    def _write(self, name: str, table: pd.DataFrame) -> None:
        if not self._optional.get(name, True):
            return
        is_new = name not in self._files
        if is_new:
            path = self._folder / f"{name}.csv.gz"
            file = gzip.open(path, "wb", compresslevel=_FAST)  # noqa: SIM115 - the stack closes it
            self._files[name] = self._open_files.enter_context(file)
        table.to_csv(self._files[name], index=False, header=is_new, mode="wb")
