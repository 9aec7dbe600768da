"""Minute bars: orders go to the nearest minute, dense arrays and files keep every number, and bad files are named."""

import gzip
import types
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest

from marsjax.analysis import bars
from marsjax.analysis.bars import COLUMNS, MINUTE_NS, MinuteBars, OrderTrace
from marsjax.core import int64
from marsjax.core.records import Kind, Status
from marsjax.market import orders
from marsjax.observers.bars import Bars
from tests.helpers import fixture_folder

SECOND = 10**9
GOLDEN = fixture_folder() / "stylized_facts" / "minutes.csv.gz"


def trace_of(*rows: tuple[float, float, float, int]) -> OrderTrace:
    """Rows of minute, last price, mid, volume."""
    time, last, mid, volume = (np.array(column) for column in zip(*rows, strict=True))
    return OrderTrace(np.round(time * MINUTE_NS).astype(np.int64), last.astype(float), mid.astype(float), volume)


def test_minutes_are_those_that_pandas_rounds_to() -> None:
    rng = np.random.default_rng(0)
    halves = np.arange(0, 40) * MINUTE_NS // 2
    time_ns = np.concatenate([rng.integers(0, 1440 * MINUTE_NS, 500), halves, halves + 1, halves[1:] - 1])
    expected = pd.to_datetime(time_ns, utc=True).round("60s").as_unit("ns").asi8 // MINUTE_NS
    np.testing.assert_array_equal(bars.nearest_minute(time_ns), expected)


@pytest.mark.parametrize("date", ["20230711", "2023-07-11"])
def test_bars_of_a_trace_by_hand(date: str) -> None:
    trace = trace_of((570.0, np.nan, 10, 0), (570.25, 6, 12, 100), (570.5, 8, np.nan, 50), (570.75, 9, 13, 0),
                     (573.0, 9, 14, 1), (571.2, 0, 0, 0))
    trace = OrderTrace(*(column[np.argsort(trace.time_ns)] for column in trace))
    first, second = OrderTrace(*(x[:2] for x in trace)), OrderTrace(*(x[2:] for x in trace))
    got = bars.of_traces([first, second], date, "600000", rollout=3, from_ns=0)
    assert got.time.astype(str).tolist() == [f"2023-07-11T09:{m}:00" for m in (30, 31, 33)]
    # 9:30:30 goes to the even minute; a mean leaves out what is none, the last of a minute may be none.
    np.testing.assert_array_equal(got.price_last, [8, 0, 9])
    np.testing.assert_array_equal(got.price_mean, [7, 4.5, 9])
    np.testing.assert_array_equal(got.price_mid, [11, 6.5, 14])
    np.testing.assert_array_equal(got.price_mid_last, [np.nan, 0, 14])
    np.testing.assert_array_equal(got.volume, [150, 0, 1])
    assert set(got.symbol) == {"600000"} and set(got.rollout) == {3} and set(got.source) == {bars.HISTORICAL}


def test_a_stretch_of_a_trace_has_the_orders_after_its_start_up_to_its_end() -> None:
    trace = trace_of((570.0, 1, 1, 1), (570.1, 2, 2, 2), (572.0, 3, 3, 4), (572.1, 4, 4, 8))
    got = bars.of_traces([trace], "20230711", "A", from_ns=570 * MINUTE_NS, until_ns=572 * MINUTE_NS)
    np.testing.assert_array_equal(got.volume, [2, 4])
    assert len(bars.of_traces([trace], "20230711", "A", from_ns=10**15)) == 0


def test_a_trace_keeps_accepted_orders_and_counts_fills_only() -> None:
    time_ns = np.arange(4) * SECOND
    none = np.zeros(4, np.int64)
    sent = orders.from_columns(time_ns, none, none, none, none, none, none, none)
    reports: Any = types.SimpleNamespace(
        status=np.array([Status.ACCEPTED, Status.BAD_PRICE, Status.ACCEPTED, Status.ACCEPTED]),
        trades=types.SimpleNamespace(kind=np.array([Kind.BUY, Kind.BUY, Kind.CANCEL, Kind.SELL]),
                                     volume=int64.of_int32(np.array([5, 6, 7, 8], np.int32))))
    views: Any = types.SimpleNamespace(last_price=np.array([-1, 10, 11, 12]),
                                       mid_price_twice=np.array([20, 21, 23, 25]),
                                       has_mid=np.array([True, True, True, False]))
    got = bars.trace(sent, reports, views)
    np.testing.assert_array_equal(got.time_ns, time_ns[[0, 2, 3]])
    np.testing.assert_array_equal(got.price_last, [np.nan, 11, 12])
    np.testing.assert_array_equal(got.mid, [10, 11.5, np.nan])
    np.testing.assert_array_equal(got.volume, [5, 0, 8])


def test_dense_arrays_become_rows_without_the_empty_minutes() -> None:
    """Three minutes of three rollouts, the last of which is left out; sums are of 1, 2 ... orders."""
    orders_each = np.array([[1, 2, 3], [4, 0, 5], [6, 7, 8]])
    price = np.array([[-1, 100, 101], [200, -1, 202], [300, 301, 302]])
    priced = np.where(price > 0, orders_each, 0)
    priced[0, 2] = 2  # the first order of this minute came before any trade
    dense: Any = types.SimpleNamespace(
        price_last=price, mid_twice_last=2 * price + 1, mid_twice_sum=int64.from_numpy((2 * price + 3) * orders_each),
        price_sum=int64.from_numpy(price * priced + 2 * (priced > 0)), priced=priced, orders=orders_each,
        volume=int64.from_numpy(10 * orders_each))
    start = np.array(["2024-01-02T09:30", "2024-01-03T10:00", "2024-01-04T11:00"], "datetime64[m]")
    got = bars.of_dense("A", "Mine", start, Bars(**vars(dense), origin=np.zeros(3)), 7, np.array([True, True, False]))
    assert got.rollout.tolist() == [7, 7, 7, 8, 8]
    assert got.time.astype(str).tolist() == [
        *(f"2024-01-02T09:{m}:00" for m in (30, 31, 32)), "2024-01-03T10:00:00", "2024-01-03T10:02:00"]
    np.testing.assert_array_equal(got.price_last, [np.nan, 100, 101, 200, 202])
    np.testing.assert_allclose(got.price_mean, [np.nan, 101, 102, 200.5, 202.4], rtol=1e-15)
    np.testing.assert_array_equal(got.price_mid, [0.5, 101.5, 102.5, 201.5, 203.5])
    np.testing.assert_array_equal(got.price_mid_last, [np.nan, 100.5, 101.5, 200.5, 202.5])
    np.testing.assert_array_equal(got.volume, [10, 20, 30, 40, 50])


@pytest.mark.parametrize("name", ["bars.csv", "bars.csv.gz"])
def test_files_keep_every_number(tmp_path: Path, name: str) -> None:
    golden = bars.from_frame(bars.read(GOLDEN).frame().assign(
        price_mean=lambda table: table["price_mean"].where(table.index != 3),
        volume=lambda table: table["volume"].where(table.index != 4, 1 / 3)))
    bars.write(tmp_path / name, golden)
    again = bars.read(tmp_path / name)
    for column in COLUMNS:
        np.testing.assert_array_equal(getattr(again, column), getattr(golden, column), err_msg=column)
    data = (tmp_path / name).read_bytes()
    text = (gzip.decompress(data) if name.endswith("gz") else data).decode()
    assert text.startswith("symbol,rollout,source,time,price_last,price_mean,price_mid,price_mid_last,volume\n")
    assert str(again.symbol[0]) == "000000"


def replaced(column: str, value: str) -> str:
    row = dict(zip(COLUMNS, ["000001", "0", "Replay", "2024-03-06 10:23:00", *"12345"], strict=True))
    return "\n".join([",".join(COLUMNS), ",".join(row.values()), ",".join((row | {column: value}).values())]) + "\n"


@pytest.mark.parametrize(("text", "message"), [
    (replaced("price_mid", "1O0"), "line 3, column price_mid: expected a number, got '1O0'"),
    (replaced("rollout", "1.5"), "line 3, column rollout: expected a whole number, got '1.5'"),
    (replaced("rollout", ""), "line 3, column rollout: expected a whole number, got ''"),
    (replaced("rollout", "inf"), "line 3, column rollout: expected a whole number, got 'inf'"),
    (replaced("rollout", "1e300"), "line 3, column rollout: expected a number below 2**53, got '1e300'"),
    (replaced("rollout", "-1e19"), "line 3, column rollout: expected a number below 2**53, got '-1e19'"),
    (replaced("volume", "1e300"), "line 3, column volume: expected a number below 2**53, got '1e300'"),
    (replaced("price_last", "9007199254740992"), "line 3, column price_last: expected a number below 2**53"),
    (replaced("symbol", "x" * 65), "line 3, column symbol: expected at most 64 characters, got 'xxx"),
    (replaced("symbol", "x" * 5000), "line 3: expected at most 4096 characters"),
    (replaced("symbol", "a\0b"), "line 3: expected text, got a zero byte at character 2"),
    (replaced("time", "2024-13-06 10:23:00"), "line 3, column time: expected a time"),
    (replaced("volume", "5\n\n000001,0,Replay"), "line 5: expected 9 fields, got 3"),
    (replaced("volume", "5,6"), "line 3: expected 9 fields, got 10"),
    (replaced("symbol", '"a'), "line 3: expected a CSV of minute bars: unexpected end of data"),
    (replaced("time", "").replace("price_mid,", "price_last,"), "missing: price_mid, unknown: price_last"),
    (replaced("time", "10:23"), "line 3, column time: expected a time like 2024-03-06 10:23:00, got '10:23'"),
    (replaced("time", "").replace("volume\n", "volume,size\n"), "missing: none, unknown: size"),
    ("symbol,rollout\nA,1\n", "missing: source, time, price_last"),
    ("", "expected a CSV of minute bars"),
    ("a,b\n1,2,3\n1\n1,2,3,4,5\n", "bars.csv: expected"),
])
def test_a_bad_file_is_named_with_its_row(tmp_path: Path, text: str, message: str) -> None:
    (tmp_path / "bars.csv").write_text(text)
    with pytest.raises(ValueError, match=r"bars\.csv") as raised:
        bars.read(tmp_path / "bars.csv")
    assert message in str(raised.value)


def test_a_broken_gzip_and_a_missing_file_are_named(tmp_path: Path) -> None:
    (tmp_path / "cut.csv.gz").write_bytes(GOLDEN.read_bytes()[:1000])
    with pytest.raises(ValueError, match=r"cut\.csv\.gz: expected a whole gzip file"):
        bars.read(tmp_path / "cut.csv.gz")
    with pytest.raises(FileNotFoundError, match=r"none\.csv: no such file"):
        bars.read(tmp_path / "none.csv")


def test_columns_of_different_lengths_are_refused() -> None:
    golden = bars.read(GOLDEN)
    with pytest.raises(ValueError, match=r"MinuteBars: expected columns of one length"):
        MinuteBars(**{name: getattr(golden, name)[: 5 + (name == "time")] for name in COLUMNS})
    with pytest.raises(ValueError, match="join: expected at least one table"):
        bars.join([])


def test_rollouts_of_different_tables_are_numbered_on_by_symbol_and_source() -> None:
    golden = bars.read(GOLDEN)
    first = golden.where(np.arange(6))
    day = MinuteBars(**{**{name: getattr(first, name) for name in COLUMNS}, "symbol": np.array(["A"] * 4 + ["B"] * 2),
                        "source": np.array(["real"] * 6), "rollout": np.array([5, 5, 6, 7, 5, 6])})
    other = MinuteBars(**{**{name: getattr(day, name) for name in COLUMNS}, "source": np.array(["made"] * 6)})
    found = bars.numbered_on([day, other, day, day.where(np.zeros(0, int)), day])
    assert [each.rollout.tolist() for each in found] == [
        [0, 0, 1, 2, 0, 1], [0, 0, 1, 2, 0, 1], [3, 3, 4, 5, 2, 3], [], [6, 6, 7, 8, 4, 5]]
    assert day.rollout.tolist() == [5, 5, 6, 7, 5, 6]
