"""What every feed reader yields: chunks of orders with the fills that the exchange published, and snapshots."""

import dataclasses
from pathlib import Path

import numpy as np

from marsjax.core.errors import InputError
from marsjax.core.records import Order

AUCTION = -1
"""The `aggressor` of a fill in a call auction, which has none."""
LARGEST_ID = 2**31 - 1
"""Order ids are int32 in every record."""
LARGEST_SEQUENCE = 2**53
"""Up to here sequence numbers stay exact in the float64 columns that pandas may make of them."""


class FeedError(InputError):
    """A market data file that cannot be read; the message names the file, line (from 1), column and value."""


@dataclasses.dataclass(frozen=True)
class PublishedFills:
    """Transactions as the exchange published them, NumPy arrays [N] on the host."""

    time_ns: np.ndarray
    """int64, nanoseconds since midnight."""
    price: np.ndarray
    """int32, 1e-4 of the currency."""
    volume: np.ndarray
    """int32, shares."""
    buy_id: np.ndarray
    """int32, NO_ID where the feed does not tell."""
    sell_id: np.ndarray
    """int32."""
    aggressor: np.ndarray
    """int32, Kind.BUY or Kind.SELL, AUCTION in call auctions."""
    sequence: np.ndarray
    """int64, message number of the exchange, or the row of the file."""

    @classmethod
    def none(cls) -> "PublishedFills":
        """No fills, N = 0."""
        long, short = np.zeros(0, np.int64), np.zeros(0, np.int32)
        return cls(long, short, short, short, short, short, long)


@dataclasses.dataclass(frozen=True)
class FeedChunk:
    """A stretch of a feed. A fill of continuous trading comes in the chunk of its aggressor."""

    orders: Order
    """int32 NumPy arrays [N], in exchange order."""
    fills: PublishedFills
    """Published trades of these orders, and the auction trades stamped among them."""
    sequence: np.ndarray
    """int64 [N], number of the last message that went into each order."""
    ignored: dict[str, int] = dataclasses.field(default_factory=dict)
    """Messages of this chunk that became no order, by reason."""
    adapted: dict[str, int] = dataclasses.field(default_factory=dict)
    """Messages of this chunk whose order is not what they literally say, by reason."""

    @classmethod
    def of(cls, orders: Order) -> "FeedChunk":
        """Orders [N] as a feed of one chunk, without published fills."""
        return cls(orders, PublishedFills.none(), np.arange(len(orders.kind), dtype=np.int64))


@dataclasses.dataclass(frozen=True)
class Snapshots:
    """Published states of a book, NumPy arrays on the host; L levels a side, best first, 0 where there is none."""

    time_ns: np.ndarray
    """int64 [N], nanoseconds since midnight."""
    volume: np.ndarray
    """int64 [N], shares traded since the start of the day, auctions included."""
    trades: np.ndarray
    """int64 [N], trades since the start of the day."""
    last_price: np.ndarray
    """int64 [N], 1e-4 of the currency, 0 before the first trade."""
    ask_price: np.ndarray
    """int64 [N, L]."""
    ask_volume: np.ndarray
    """int64 [N, L]."""
    bid_price: np.ndarray
    """int64 [N, L]."""
    bid_volume: np.ndarray
    """int64 [N, L]."""


def check_arguments(chunk_rows: int, *paths: Path) -> None:
    """InputError where `chunk_rows` is below 1, FileNotFoundError for a path that is no file."""
    if chunk_rows < 1:
        raise InputError(f"chunk_rows: expected at least 1, got {chunk_rows}")
    for path in paths:
        if not path.is_file():
            raise FileNotFoundError(f"{path}: no such file")
