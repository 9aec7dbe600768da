"""The plain CSV: round trips, damage, and golden books whole, as tables."""

import jax
import numpy as np
import pandas as pd
import pytest

from marsjax.core.records import Kind, Order
from marsjax.core.specs import MarketSpec
from marsjax.data import neutral
from marsjax.data.feed import FeedError
from marsjax.market import book, orders

HEADER = ",".join(neutral.COLUMNS)
ROWS = ["34200000000000,B,99600,100,1,None,-1,0", "34201000000000,S,99700,100,2,None,-1,1",
        "34201000000000,C,99600,50,-1,B,1,0"]


def write(folder, rows, header=HEADER):
    path = folder / "orders.csv"
    path.write_text("\n".join([header, *rows]) + "\n")
    return path


def same(a: Order, b: Order):
    assert jax.tree.all(jax.tree.map(np.array_equal, a, b))


@pytest.mark.parametrize("name", ["orders.csv", "orders.csv.gz"])
def test_round_trip(tmp_path, name):
    (chunk,) = neutral.read(write(tmp_path, ROWS))
    np.testing.assert_array_equal(chunk.orders.kind, [Kind.BUY, Kind.SELL, Kind.CANCEL])
    np.testing.assert_array_equal(chunk.orders.account, [0, 1, 0])
    assert chunk.fills.price.shape == (0,)
    neutral.write(tmp_path / name, chunk.orders)
    (again,) = neutral.read(tmp_path / name)
    same(chunk.orders, again.orders)
    if name == "orders.csv":
        assert (tmp_path / name).read_text().splitlines() == [HEADER, *ROWS]


def test_write_refuses_padding(tmp_path):
    (chunk,) = neutral.read(write(tmp_path, ROWS))
    with pytest.raises(ValueError, match=r"row 3, kind: expected SELL, BUY or CANCEL, got 3"):
        neutral.write(tmp_path / "padded.csv", orders.pad(chunk.orders, 5))


@pytest.mark.parametrize(("row", "message"), [
    ("34201000000000,X,99600,50,-1,B,1,0", "line 4, column type: expected one of S, B, C, got X"),
    ("34201000000000,C,99600,50,-1,None,1,0", "line 4, column cancel_type: expected the side"),
    ("34201000000000,C,99600,50,-1,,1,0", "line 4, column cancel_type: expected one of S, B, None, got $"),
    ("34200999999999,C,99600,50,-1,B,1,0", "line 4, column time_ns: expected no time before"),
    ("34201000000000,C,99600,5000000000,-1,B,1,0", "line 4, column volume.*got 5000000000"),
    ("34201000000000,C,99600,many,-1,B,1,0", "line 4, column volume: expected a number, got many"),
    ("34201000000000,C,99600", "line 4: expected 8 fields"),
])
@pytest.mark.parametrize("chunk_rows", [1, 2, 10])
def test_damage_is_named(tmp_path, row, message, chunk_rows):
    with pytest.raises(FeedError, match=message):
        list(neutral.read(write(tmp_path, [*ROWS[:2], row]), chunk_rows=chunk_rows))


def test_damaged_files(tmp_path):
    with pytest.raises(FeedError, match="expected columns agent_id"):
        list(neutral.read(write(tmp_path, ROWS, HEADER.replace("agent_id", "agent"))))
    with pytest.raises(FeedError, match="only a header"):
        list(neutral.read(write(tmp_path, [])))
    with pytest.raises(FileNotFoundError, match="nothing"):
        neutral.read(tmp_path / "nothing.csv")


@pytest.mark.parametrize("name", ["noise", "sweep", "cancel", "oneside"])
def test_golden_book(golden_folder, name):
    """Read, replay, and lay out the results: the tables equal those of the reference, every cell."""
    path = golden_folder / f"book_{name}_orders.csv.gz"
    if not path.is_file():
        pytest.skip(f"no {path} (set MARSJAX_GOLDEN)")
    spec = MarketSpec(capacity=1024, trade_width=64)

    @jax.jit
    def replay(stream):
        def step(state, order):
            state, trades, _ = book.submit(spec, state, order)
            return state, (trades, book.view(spec, state))

        return jax.lax.scan(step, book.empty(spec), stream)[1]

    chunks = list(neutral.read(path, chunk_rows=300))
    stream = jax.tree.map(lambda *parts: np.concatenate(parts), *(chunk.orders for chunk in chunks))
    (whole,) = neutral.read(path)
    same(stream, whole.orders)
    np.testing.assert_array_equal(np.concatenate([chunk.sequence for chunk in chunks]), whole.sequence)
    trades, views = replay(stream)
    for table, result in (("transactions", neutral.transactions(stream, trades)),
                          ("snapshots", neutral.snapshots(views))):
        expected = pd.read_csv(golden_folder / f"book_{name}_{table}.csv.gz", keep_default_na=False)
        pd.testing.assert_frame_equal(result, expected, check_dtype=False)


@pytest.mark.parametrize("name", ["auction_a", "auction_b"])
def test_golden_auction_orders_have_a_phase_column(golden_folder, name):
    path = golden_folder / f"{name}_orders.csv.gz"
    if not path.is_file():
        pytest.skip(f"no {path} (set MARSJAX_GOLDEN)")
    (chunk,) = neutral.read(path)
    assert len(chunk.sequence) == len(pd.read_csv(path))
