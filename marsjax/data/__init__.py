"""Readers of market data: exchange files in, chunks of orders out.

Readers, each a module with a `read` that yields `FeedChunk`s (they import pandas when first used):
  `lobster`: NASDAQ, LOBSTER message and order book files.
  `sse`: Shanghai, order and trade files; also `read_snapshots`.
  `neutral`: plain CSV of one order a line; also writes orders, transactions and snapshots.
Their `days` finds the files of a folder; `sources.open_days` does so of any source.
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

__all__ = ["AUCTION", "DayFeed", "FeedChunk", "FeedError", "PublishedFills", "Snapshots", "Venue", "lobster", "neutral",
           "sources", "sse"]  # fmt: skip

_READERS = ("lobster", "neutral", "sources", "sse")


def __getattr__(name: str) -> ModuleType:
    if name not in _READERS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return importlib.import_module(f"{__name__}.{name}")
