"""The plain CSV: round trips, damage, and golden books whole, as tables."""

import gzip

import jax
import numpy as np
import pandas as pd
import pytest

from marsjax.core.records import Condition, Kind, Order
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


def test_conditions_have_a_column_of_their_own_where_there_are_any(tmp_path):
    header = f"{HEADER},condition"
    rows = [f"{ROWS[0]},POST_ONLY", f"{ROWS[1]},", f"{ROWS[2]},REST", "34201000000000,B,0,50,5,None,-1,0,MARKET"]
    (chunk,) = neutral.read(write(tmp_path, rows, header))
    assert chunk.orders.condition.tolist() == [Condition.POST_ONLY, Condition.REST, Condition.REST, Condition.MARKET]
    neutral.write(tmp_path / "again.csv", chunk.orders)
    assert (tmp_path / "again.csv").read_text().splitlines() == [header, rows[0], f"{ROWS[1]},REST", *rows[2:]]
    with pytest.raises(FeedError, match=r"line 2, column condition: expected one of REST, IMM.*BEST, got MAYBE"):
        list(neutral.read(write(tmp_path, [f"{ROWS[0]},MAYBE"], header)))


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


def test_an_id_that_comes_twice_is_named_however_far_apart(tmp_path):
    rows = [f"{34_200 * 10**9 + i},{'SB'[i % 2]},100100,1,{i},None,-1,0" for i in range(40)]
    rows += ["34300000000000,C,100100,1,7,S,2,0", "34300000000000,S,100100,1,-1,None,-1,0"] * 2
    path = write(tmp_path, [*rows, "34300000000000,S,100100,1,3,None,-1,0"])
    for chunk_rows in (1, 7, 100):
        with pytest.raises(FeedError, match=r"line 46, column order_id: expected an id that no order before .*, got 3"):
            list(neutral.read(path, chunk_rows=chunk_rows))
    assert sum(len(chunk.sequence) for chunk in neutral.read(write(tmp_path, rows))) == 44


def test_a_file_says_its_accounts_tick_and_conditions(tmp_path):
    for rows, header, expected in (
            (ROWS, HEADER, (2, 100, False)), ([*ROWS, "34202000000000,S,99710,1,9,None,-1,6"], HEADER, (7, 10, False)),
            ([f"{row},{c}" for row, c in zip(ROWS, ("REST", "IMMEDIATE_OR_CANCEL", ""), strict=True)],
             f"{HEADER},condition", (2, 100, True)),
            (["34200000000000,B,7,100,1,None,-1,-1,MARKET"], f"{HEADER},condition", (1, 100, True))):
        (day,) = neutral.days(write(tmp_path, rows, header))
        assert (day.venue.accounts, day.venue.tick, day.venue.conditions) == expected
        assert day.venue.market().accounts == expected[0]


@pytest.mark.parametrize("name", ["BRK.B.csv", "a_b c.csv", "浦发.CSV", "x.y.csv.gz", "orders", "2023-07-11.txt"])
def test_feeds_are_called_as_their_files(tmp_path, name):
    write(tmp_path, ROWS).rename(tmp_path / name)
    path = tmp_path / name
    if name.endswith("gz"):
        path.write_bytes(gzip.compress(path.read_bytes()))
    (day,) = neutral.days(path)
    assert day.name == {"BRK.B.csv": "BRK.B", "a_b c.csv": "a_b c", "浦发.CSV": "浦发", "x.y.csv.gz": "x.y",
                        "2023-07-11.txt": "2023-07-11"}.get(name, name)
    if name != "orders":
        assert [day.name for day in neutral.days(tmp_path)] == [day.name]
    with pytest.raises(FileNotFoundError, match="no day for symbol=other"):
        neutral.days(path, ["other"])
