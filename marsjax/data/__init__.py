"""Readers of market data: exchange files in, chunks of orders out.

Readers, each a module with a `read` that yields `FeedChunk`s (they import pandas when first used):
  `coinbase`: level-3 messages and books of a crypto exchange.
  `databento`: market-by-order records of stocks and futures, CSV or DBN.
  `lobster`: NASDAQ, LOBSTER message and order book files.
  `sse`: Shanghai, order and trade files; also `read_snapshots`.
  `szse`: Shenzhen, order and trade files.
  `neutral`: plain CSV of one order a line; also writes orders, transactions and snapshots.
Their `days` finds the files of a folder; `open_days` of `sources` does so of any source. `frames` makes a feed of a
DataFrame, and a DataFrame of a feed.
Days that an order model has written:
  `made_days`: those that come with a checkpoint, to start from.
A writer:
  `lobster_files`: orders and what they did as LOBSTER's two files, for other people's tools.
What they yield:
  `DayFeed`: the orders of one symbol on one day, which can be opened again and again; `Venue` is what it knows of its
    market.
  `FeedChunk`: orders of a stretch of the feed, and the fills published of them.
  `PublishedFills`: transactions as the exchange published them; `AUCTION` stands for the aggressor of a call auction.
  `Snapshots`: book states as the exchange published them.
What they raise:
  `FeedError`: a file that cannot be read; names the file, line, column and value.
"""

import importlib
from types import ModuleType

from marsjax.data.feed import AUCTION, DayFeed, FeedChunk, FeedError, PublishedFills, Snapshots, Venue

__all__ = ["AUCTION", "DayFeed", "FeedChunk", "FeedError", "PublishedFills", "Snapshots", "Venue", "coinbase",
           "databento", "frames", "lobster", "lobster_files", "made_days", "neutral", "sources", "sse",
           "szse"]

_READERS = ("coinbase", "databento", "frames", "lobster", "lobster_files", "made_days", "neutral", "sources", "sse",
            "szse")


def __getattr__(name: str) -> ModuleType:
    if name not in _READERS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(f"{__name__}.{name}")
