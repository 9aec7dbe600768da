"""Every transaction and every snapshot of the continuous book equals the reference's, on every golden stream."""

import functools

import numpy as np
import pytest

from marsjax.core.records import NO_ID, Kind, Order, Side, Status, Trades
from marsjax.core.specs import MarketSpec
from marsjax.market import book, orders
from tests.helpers import Steps, golden_folder, kinds_of, read_columns, read_orders, replay, snapshot_rows

pytestmark = pytest.mark.optimised  # thousands of orders in deep books: they run longer than they compile

SUFFIX = "_orders.csv.gz"
CASES = sorted(path.name.removesuffix(SUFFIX) for path in golden_folder().glob(f"book_*{SUFFIX}"))
SPEC = MarketSpec(capacity=1024, trade_width=128)
# Streams are padded to a multiple of this length, so that one compilation serves them all.
PADDED_LENGTH = 4096


@functools.cache
def run(case: str) -> tuple[Order, Steps]:
    stream = read_orders(golden_folder() / (case + SUFFIX))
    count = len(stream.kind)
    padded = orders.pad(stream, -(-count // PADDED_LENGTH) * PADDED_LENGTH)
    _, steps = replay(SPEC, book.empty(SPEC), padded, np.ones(len(padded.kind), bool), keep_books=False)
    status = np.asarray(steps.status)
    assert not np.any(status == Status.SIDE_FULL), f"{case}: raise SPEC.capacity"
    assert not np.any(steps.trades.is_truncated), f"{case}: raise SPEC.trade_width"
    np.testing.assert_array_equal(status[count:], Status.NO_ORDER)
    return stream, steps


def transaction_rows(stream: Order, trades: Trades) -> np.ndarray:
    """Trades as the rows of a golden transactions file: i, k, kind, price, volume, buy id, sell id."""
    i, k = np.nonzero(np.asarray(trades.volume_each) > 0)
    kind, side = np.asarray(trades.kind)[i], np.asarray(trades.side)[i]
    resting_id = np.asarray(trades.resting_id)[i, k]
    aggressor_id = np.where(kind == Kind.CANCEL, NO_ID, stream.order_id[i])
    return np.column_stack([
        i, k, kind, np.asarray(trades.price)[i, k], np.asarray(trades.volume_each)[i, k],
        np.where(side == Side.BID, resting_id, aggressor_id), np.where(side == Side.ASK, resting_id, aggressor_id)])


def test_golden_folder_holds_book_streams() -> None:
    assert CASES, f"no file book_*{SUFFIX} in {golden_folder()}"


@pytest.mark.parametrize("case", CASES)
def test_transactions_equal_the_reference(case: str) -> None:
    stream, steps = run(case)
    x = read_columns(golden_folder() / f"{case}_transactions.csv.gz")
    expected = np.column_stack([x["i"], x["k"], kinds_of(x["type"]), x["price"], x["volume"], x["buy_id"],
                                x["sell_id"]])
    np.testing.assert_array_equal(transaction_rows(stream, steps.trades), expected)


@pytest.mark.parametrize("case", CASES)
def test_snapshots_equal_the_reference(case: str) -> None:
    stream, steps = run(case)
    x = read_columns(golden_folder() / f"{case}_snapshots.csv.gz")
    expected = np.column_stack(list(x.values()))
    count = len(stream.kind)
    np.testing.assert_array_equal(expected[:, 0], np.arange(count))
    np.testing.assert_array_equal(snapshot_rows(steps.view)[:count], expected[:, 1:])
