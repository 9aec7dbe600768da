"""What several tests share: the golden folder, orders from its files, and a jitted replay of a stream of orders."""

import csv
import functools
import gzip
import os
from pathlib import Path
from typing import NamedTuple

import jax
import numpy as np

from marsjax.core import int64
from marsjax.core.records import NO_ID, Array, Book, BookView, Kind, Order, Trades
from marsjax.core.specs import MarketSpec
from marsjax.market import book, orders

KINDS = {"S": int(Kind.SELL), "B": int(Kind.BUY), "C": int(Kind.CANCEL), "None": NO_ID}
"""Letters of the golden files: a kind of order, or the side of a cancelled one."""


class Steps(NamedTuple):
    """What a replay saw after each of N orders; every leaf has N in front."""

    book: Book | None
    trades: Trades
    status: jax.Array
    view: BookView


def fixture_folder() -> Path:
    """The golden files that travel with the project."""
    return Path(__file__).parent / "fixtures" / "golden"


def golden_folder() -> Path:
    """The folder of golden files that parity is checked against: $MARSJAX_GOLDEN, by default the fixtures."""
    return Path(os.environ.get("MARSJAX_GOLDEN") or fixture_folder())


def read_columns(path: Path) -> dict[str, np.ndarray]:
    """Columns of a gzipped CSV file with a header: int64, or strings where a column has letters."""
    with gzip.open(path, "rt", newline="") as file:
        header, *rows = csv.reader(file)
    columns = dict(zip(header, np.array(rows, dtype=str).reshape(-1, len(header)).T, strict=True))
    return {name: column if name in ("type", "cancel_type", "phase") else column.astype(np.int64)
            for name, column in columns.items()}


def kinds_of(letters: np.ndarray) -> np.ndarray:
    """Letters B, S, C, None -> numbers, int64 [N]."""
    return np.array([KINDS[letter] for letter in letters], np.int64)


def read_orders(path: Path) -> Order:
    """Orders [N] of a golden orders file."""
    x = read_columns(path)
    return orders.from_columns(x["time_ns"], kinds_of(x["type"]), x["price"], x["volume"], x["order_id"],
                               kinds_of(x["cancel_type"]), x["cancel_id"], x["agent_id"])


@functools.partial(jax.jit, static_argnames=("spec", "keep_books"))
def replay(spec: MarketSpec, start: Book, stream: Order, matching: Array, keep_books: bool = True
           ) -> tuple[Book, Steps]:
    """Submits a stream of orders [N] one by one, each matching or only collected (bool [N])."""
    def step(now: Book, message: tuple[Order, Array]) -> tuple[Book, Steps]:
        now, trades, status = book.submit(spec, now, *message)
        return now, Steps(now if keep_books else None, trades, status, book.view(spec, now))

    return jax.lax.scan(step, start, (stream, matching))


def snapshot_rows(view: BookView) -> np.ndarray:
    """Views [N] as the rows of a golden snapshots file without its index, int64 [N, 3 + 4 L]."""
    return np.column_stack([view.last_price, view.mid_price, view.spread,
                            view.ask_price, int64.to_numpy(view.ask_volume),
                            view.bid_price, int64.to_numpy(view.bid_volume)]).astype(np.int64)
