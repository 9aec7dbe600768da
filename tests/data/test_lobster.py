"""LOBSTER files: what each message type becomes, damage, and a real hour replayed against its published level 1."""

import gzip
from collections import Counter

import jax
import jax.numpy as jnp
import numpy as np
import pandas as pd
import pytest

from marsjax.core.records import NO_ID, Kind, Side, Status
from marsjax.core.specs import MarketSpec
from marsjax.data import lobster
from marsjax.data.feed import FeedError
from marsjax.data.lobster import FIRST_OWN_ID
from marsjax.market import book

BUY, SELL, CANCEL = int(Kind.BUY), int(Kind.SELL), int(Kind.CANCEL)
SEED = FIRST_OWN_ID


def write(folder, lines, name="message.csv"):
    path = folder / name
    path.write_text("".join(f"{line}\n" for line in lines))
    return path


def orders_of(path, orderbook=None, **options):
    chunks = list(lobster.read(path, orderbook, **options))
    rows = [tuple(int(x) for x in row) for chunk in chunks for row in zip(
        chunk.sequence, chunk.orders.kind, chunk.orders.price, chunk.orders.volume, chunk.orders.order_id,
        chunk.orders.cancel_side, chunk.orders.cancel_id, strict=True)]
    counts = [sum((Counter(getattr(chunk, name)) for chunk in chunks), Counter()) for name in ("ignored", "adapted")]
    return rows, *counts, chunks


def limit(row, kind, price, volume, order_id):
    return row, kind, price, volume, order_id, NO_ID, NO_ID


def cancel(row, side, price, volume, cancel_id):
    return row, CANCEL, price, volume, NO_ID, int(side), cancel_id


def test_message_types(tmp_path):
    path = write(tmp_path, [
        "34200.000000001,1,11,100,1000000,-1", "34200.5,1,12,50,999900,1", "34200.5,2,11,30,1000000,-1",
        "34201,4,11,20,1000000,-1", "34201,5,0,7,999950,1", "34201,6,0,7,999950,1", "34202,7,0,0,-1,-1",
        "34203.123456789,3,11,50,1000000,-1"])
    rows, ignored, adapted, chunks = orders_of(path, grouped=False, account=4)
    assert rows == [limit(0, SELL, 1000000, 100, 11), limit(1, BUY, 999900, 50, 12),
                    cancel(2, Side.ASK, 1000000, 30, 11), limit(3, BUY, 1000000, 20, FIRST_OWN_ID),
                    cancel(7, Side.ASK, 1000000, 50, 11)]
    assert ignored == {"hidden_execution": 1, "cross_trade": 1, "halt": 1}
    assert not adapted
    fills = chunks[0].fills
    assert [column.tolist() for column in (fills.buy_id, fills.sell_id, fills.aggressor, fills.volume)] == [
        [FIRST_OWN_ID], [11], [BUY], [20]]
    assert set(chunks[0].orders.account) == {4}
    assert chunks[0].orders.time.ns.tolist() == [1, 500_000_000, 500_000_000, 0, 123_456_789]


SWEEP = ["34200,1,11,100,1000000,-1", "34200,1,12,50,1000100,-1", "34200,1,13,50,1000300,-1",
         "34201,4,11,100,1000000,-1", "34201,5,0,9,1000000,-1", "34201,4,12,50,1000100,-1", "34201,1,14,25,1000200,1"]


@pytest.mark.parametrize("chunk_rows", [1, 2, 5, 100])
def test_an_aggressor_and_its_rest_are_one_order(tmp_path, chunk_rows):
    rows, _, _, chunks = orders_of(write(tmp_path, SWEEP), chunk_rows=chunk_rows)
    assert rows[3:] == [limit(6, BUY, 1000200, 175, 14)]
    assert [(chunk.fills.buy_id.tolist(), chunk.fills.sequence.tolist())
            for chunk in chunks if len(chunk.fills.price)] == [([14, 14], [3, 5])]


@pytest.mark.parametrize(("last", "count"), [
    ("34201.000000001,1,14,25,1000200,1", 2),  # later
    ("34201,1,14,25,1000000,1", 2),            # its limit does not allow the worst fill
    ("34201,1,14,25,1000400,-1", 2),           # the side that was hit
    ("34201,1,14,25,1000100,1", 1)])           # the rest: at the worst price
def test_what_is_no_rest(tmp_path, last, count):
    rows = orders_of(write(tmp_path, [*SWEEP[:-1], last]))[0]
    assert len(rows) == 3 + count
    assert rows[3][3] == (150 if count == 2 else 175)


def test_out_of_turn_and_crossing(tmp_path):
    rows, _, adapted, _ = orders_of(write(tmp_path, [
        "34200,1,11,100,1000000,-1", "34200,1,12,50,1000000,-1", "34201,4,12,20,1000000,-1",
        "34202,1,13,120,1000100,1", "34203,4,12,10,1000000,-1"]))
    assert rows[2:] == [cancel(2, Side.ASK, 1000000, 20, 12), limit(3, BUY, 1000100, 120, 13),
                        limit(4, BUY, 1000000, 10, FIRST_OWN_ID)]
    assert adapted == {"out_of_turn": 1, "crossed": 1}


def test_seed(tmp_path):
    """Message 0 is in the seed already; older ids stand for the seed of their price as long as it has the shares."""
    seed = write(tmp_path, ["1000100,80,999900,150,9999999999,0,999800,10", "what comes later is not read"], "book.csv")
    rows, _, adapted, _ = orders_of(write(tmp_path, [
        "34200,1,11,100,999900,1", "34201,3,5,80,1000100,-1", "34202,4,6,10,999800,1", "34203,4,7,50,999900,1",
        "34204,3,8,9,999900,1", "34205,4,9,3,1000100,-1"]), seed)
    assert rows == [
        limit(-1, SELL, 1000100, 80, SEED), limit(-1, BUY, 999900, 50, SEED + 1), limit(-1, BUY, 999800, 10, SEED + 2),
        limit(0, BUY, 999900, 100, 11), cancel(1, Side.ASK, 1000100, 80, SEED),
        cancel(2, Side.BID, 999800, 10, SEED + 2), limit(3, SELL, 999900, 50, SEED + 3),
        cancel(4, Side.BID, 999900, 9, 8), cancel(5, Side.ASK, 1000100, 3, 9)]
    assert adapted == {"redirected": 3, "out_of_turn": 1, "unknown": 2}


def test_seed_when_message_0_is_no_new_order(tmp_path):
    seed = write(tmp_path, ["1000100,80,999900,150"], "book.csv")
    rows = orders_of(write(tmp_path, ["34200,4,5,10,1000100,-1", "34201,3,5,80,1000100,-1"]), seed)[0]
    assert rows == [limit(-1, SELL, 1000100, 80, SEED), limit(-1, BUY, 999900, 150, SEED + 1),
                    cancel(1, Side.ASK, 1000100, 80, SEED)]


DAMAGE = {
    "34201,8,12,50,999900,1": r"line 2, column type: expected a whole number from 1 to 7, got 8",
    "34201,0,12,50,999900,1": r"line 2, column type.*got 0",
    "34201,1,12,0,999900,1": r"line 2, column size: expected at least one share, got 0",
    "34201,1,12,50,0,1": r"line 2, column price.*got 0",
    "34201,1,12,50,999900,0": r"line 2, column direction.*got 0",
    "34201,1,-1,50,999900,1": r"line 2, column order_id.*got -1",
    "34201,1,2000000000,50,999900,1": r"line 2, column order_id.*got 2000000000",
    "34201,1,11,50,999900,1": r"line 2, column order_id: expected a new order.*got 11",
    "34199,1,12,50,999900,1": r"line 2, column time: expected no time before.*got 34199",
    "86400,1,12,50,999900,1": r"line 2, column time: expected seconds after midnight, got 86400",
    "noon,1,12,50,999900,1": r"line 2, column time: expected a number, got noon",
    "34201,1,12,50,999900": r"line 2: expected 6 fields.*got 5",
    "34201,1,12,50,999900,1,9": r"line 2: expected 6 fields.*got 7",
}


@pytest.mark.parametrize("chunk_rows", [1, 100])
@pytest.mark.parametrize("line", DAMAGE)
def test_damage_is_named(tmp_path, line, chunk_rows):
    path = write(tmp_path, ["34200,1,11,100,1000000,-1", line])
    with pytest.raises(FeedError, match=r"message\.csv: " + DAMAGE[line]):
        list(lobster.read(path, chunk_rows=chunk_rows))


def test_damaged_files(tmp_path):
    path = write(tmp_path, ["34200,1,11,100,1000000,-1"])
    for line, message in (("1000100,80,999900", "four columns a level, got 3"), ("", "empty"),
                          ("1000000,80,999900,10", "column ask_size_1: expected the 100 shares of message 0"),
                          ("1000000,x,999900,10", "column ask_size_1: expected a number, got x")):
        with pytest.raises(FeedError, match=message):
            list(lobster.read(path, write(tmp_path, [line], "book.csv")))
    with pytest.raises(FeedError, match="empty file"):
        list(lobster.read(write(tmp_path, [], "empty.csv")))
    with pytest.raises(FileNotFoundError, match="nothing"):
        lobster.read(path, tmp_path / "nothing.csv")
    short = tmp_path / "short.csv.gz"
    short.write_bytes(gzip.compress(path.read_bytes() * 50)[:-10])
    with pytest.raises(FeedError, match=r"short\.csv\.gz: line \d+: expected a whole gzip file"):
        list(lobster.read(short))


@pytest.fixture(scope="module")
def sample(data_folder):
    prefix = data_folder / "lobster" / "AAPL_2012-06-21_34200000_37800000_"
    return [prefix.with_name(f"{prefix.name}{name}.csv.gz")
            for name in ("message_50", "orderbook_50_first672rows", "orderbook_level1")]


@pytest.fixture(scope="module")
def replay():
    spec = MarketSpec(capacity=512)

    @jax.jit
    def run(orders):
        def step(state, order):
            state, trades, status = book.submit(spec, state, order)
            best = state.price[:, 0]
            volume = jnp.sum(jnp.where(state.price == best[:, None], state.volume, 0), axis=1)
            return state, (best, volume, status, trades.kind, trades.volume.lo, trades.count)

        return jax.lax.scan(step, book.empty(spec), orders)[1]

    return lambda orders: [np.asarray(x) for x in run(orders)]


@pytest.mark.parametrize("grouped", [False, True])
def test_real_hour_reproduces_level_1(sample, replay, grouped):
    message, seed, level_1 = sample
    expected = pd.read_csv(level_1, header=None).to_numpy()
    (chunk,) = lobster.read(message, seed, grouped=grouped, chunk_rows=100_000)
    best, volume, status, kind, traded, fills = replay(chunk.orders)
    level = np.stack([best[:, 0], volume[:, 0], best[:, 1], volume[:, 1]], axis=1)
    # The state after message i is that after the last order with a number up to i.
    row = np.searchsorted(chunk.sequence, np.arange(len(expected)), side="right") - 1
    if grouped:  # only the last message of an aggressor has a state of its own
        compared = np.isin(np.arange(len(expected)), chunk.sequence)
        assert np.sum((level[row] != expected)[compared].any(axis=1)) <= 90
    else:
        assert np.sum((level[row] == expected).all(axis=1)) >= 91_907
    assert chunk.ignored == {"hidden_execution": 2201}
    assert chunk.adapted == {"redirected": 38, "out_of_turn": 24, "unknown": 46}
    assert set(status) == {Status.ACCEPTED, Status.UNKNOWN_ID}
    assert np.sum(status == Status.UNKNOWN_ID) == chunk.adapted["unknown"]
    # Every execution in turn is one fill of the replay, whichever way they are grouped.
    is_trade = kind < CANCEL
    in_turn = np.where(chunk.fills.aggressor == BUY, chunk.fills.buy_id, chunk.fills.sell_id) != NO_ID
    assert (fills[is_trade].sum(), traded[is_trade].sum()) == (in_turn.sum(), chunk.fills.volume[in_turn].sum())
    assert (len(chunk.fills.price), in_turn.sum()) == (4067, 4043)


def test_real_hour_in_small_chunks(sample, end_to_end):
    message, seed, _ = sample
    whole = end_to_end(list(lobster.read(message, seed)))
    cut = end_to_end(list(lobster.read(message, seed, chunk_rows=997)))
    for name, column in whole.items():
        np.testing.assert_array_equal(cut[name], column, err_msg=name)
