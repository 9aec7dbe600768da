"""A test of a few seconds that this copy of marsjax, on this device, works as it does elsewhere."""

import functools
import hashlib
import time
from collections.abc import Callable
from typing import NamedTuple

import jax
import numpy as np

from marsjax.checkpoint import load
from marsjax.core.errors import InputError, brief
from marsjax.core.records import Book, Kind, Order, Status, Trades
from marsjax.core.specs import MarketSpec
from marsjax.market import book as books
from marsjax.market import orders
from marsjax.tokens import encoding

ORDERS = 2000
"""Of the test of the exchange; every fourth is a cancel."""
DIGEST = "a1a812a660d9"
"""First digits of the SHA-256 of all that these orders come to: whole numbers, which no device may change."""
_ROWS, _LENGTH = 3, 16
_TOLERANCE = 0.01
"""Between logits of a window alone and among others: what matrix products in TensorFloat-32 may differ by."""


class Check(NamedTuple):
    """One thing that was tried."""

    name: str
    is_right: bool
    said: str
    """What was found, in a few words."""
    seconds: float
    """Compilation included."""


def run() -> list[Check]:
    """Tries the exchange, the default order model's files, and its predictions; never raises for what it finds."""
    return [_timed("exchange", _exchange), _timed("order model", _order_model)]


def _timed(name: str, tried: Callable[[], tuple[bool, str]]) -> Check:
    began = time.perf_counter()
    try:
        is_right, said = tried()
    except (InputError, OSError, RuntimeError) as error:  # files that are damaged, a device that gives up
        is_right, said = False, brief(error, 200)
    return Check(name, is_right, said, time.perf_counter() - began)


def _exchange() -> tuple[bool, str]:
    """The same orders give the same trades, books and refusals on every device."""
    book, trades, status = jax.device_get(_matched(MarketSpec(capacity=64, trade_width=8), _orders()))
    digest = hashlib.sha256()
    for numbers in jax.tree.leaves((book, trades, status)):
        digest.update(np.ascontiguousarray(numbers, dtype="<i4").tobytes())
    found, done = digest.hexdigest()[:len(DIGEST)], int((status == Status.ACCEPTED).sum())
    fills = int(np.minimum(trades.count, 8).sum())
    said = f"{ORDERS} orders, {done} accepted, {fills} transactions"
    if found == DIGEST:
        return True, f"{said}: every number as it should be"
    return False, f"{said}: digest {found}, expected {DIGEST}: this device does not match orders as others do"


@functools.partial(jax.jit, static_argnums=0)
def _matched(spec: MarketSpec, sent: Order) -> tuple[Book, Trades, jax.Array]:
    """The book after all orders, and the transactions and statuses of each."""
    def one(book: Book, order: Order) -> tuple[Book, tuple[Trades, jax.Array]]:
        after, trades, status = books.submit(spec, book, order)
        return after, (trades, status)

    book, (trades, status) = jax.lax.scan(one, books.empty(spec), sent)
    return book, trades, status


def _orders() -> Order:
    """Orders by whole-number arithmetic alone, the same with every version of every library."""
    i = np.arange(ORDERS, dtype=np.uint64)
    mixed = (i * np.uint64(2654435761) + np.uint64(12345)) % np.uint64(2**32)
    mixed = (mixed ^ (mixed >> np.uint64(13))) * np.uint64(2246822519) % np.uint64(2**32)
    draw = ((mixed ^ (mixed >> np.uint64(16))) % np.uint64(2**31)).astype(np.int64)
    kind = np.where(draw % 2 == 0, int(Kind.SELL), int(Kind.BUY))
    away = (draw // 2) % 9 - 4
    price = 100_000 + 100 * np.where(kind == Kind.SELL, away, -away)
    volume = 100 * (1 + (draw // 64) % 9)
    is_cancel, named = i.astype(np.int64) % 4 == 3, np.maximum(i.astype(np.int64) - 1 - (draw // 1024) % 6, 0)
    columns = [np.where(is_cancel, int(Kind.CANCEL), kind), price, volume, i.astype(np.int64)]
    columns += [np.where(is_cancel, kind[named], -1), np.where(is_cancel, named, -1), np.zeros(ORDERS, np.int64)]
    columns[2] = np.where(is_cancel, volume[named], volume)
    return orders.from_columns(36_000 * 10**9 + i.astype(np.int64), *columns)


def _order_model() -> tuple[bool, str]:
    """The default model's files are whole, and a window's prediction is finite, and no other window changes it."""
    model = load.load_order_model()
    columns = encoding.columns(model.spec.tokens)
    features = np.zeros((_ROWS, _LENGTH, columns), np.int32)
    features[:, :, 0] = np.arange(_ROWS * _LENGTH).reshape(_ROWS, _LENGTH) * 997 % model.spec.tokens.classes
    together = np.asarray(model.logits(features))
    alone = np.asarray(model.logits(features[:1]))
    differs = float(np.abs(together[0] - alone[0]).max())
    count = sum(x.size for x in jax.tree.leaves(model.model))
    said = f"{count:,} parameters, files as their hashes say; logits alone and among others differ by {differs:.1g}"
    return bool(np.isfinite(together).all() and differs < _TOLERANCE), said
