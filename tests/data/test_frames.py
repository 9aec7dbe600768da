"""DataFrames of orders as feeds: names, times, units, starting books, round trips, and errors that name the row."""

import datetime
import re
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from marsjax.core import times
from marsjax.core.errors import InputError
from marsjax.core.records import NO_ID, Condition, Kind, Side
from marsjax.core.sessions import chinese_session
from marsjax.core.specs import Units
from marsjax.data import frames, neutral, starting_book

ROOT = Path(__file__).parents[2]
TEN = 36_000 * 10**9
BASIC = {"time": ["10:00:00", "10:00:01.5", "10:00:02"], "side": ["sell", "buy", "B"], "price": [10.01, 10.0, 9.99],
         "volume": [300, 100, 50]}


def table(**changes):
    return pd.DataFrame(BASIC | changes)


def orders_of(feed):
    parts = [chunk.orders for chunk in feed.read()]
    return {name: np.concatenate([np.asarray(getattr(part, name)) for part in parts]).tolist()
            for name in ("kind", "price", "volume", "order_id", "cancel_side", "cancel_id", "account", "condition")} | {
        "time_ns": np.concatenate([times.to_ns(part.time) for part in parts]).tolist()}


def test_a_plain_table():
    feed = frames.from_frame(table(), symbol="X", session=chinese_session())
    assert orders_of(feed) == {
        "kind": [Kind.SELL, Kind.BUY, Kind.BUY], "price": [100_100, 100_000, 99_900], "volume": [300, 100, 50],
        "order_id": [NO_ID] * 3, "cancel_side": [NO_ID] * 3, "cancel_id": [NO_ID] * 3, "account": [0] * 3,
        "condition": [0] * 3, "time_ns": [TEN, TEN + 15 * 10**8, TEN + 2 * 10**9]}
    assert (feed.name, feed.venue.tick, feed.venue.accounts, feed.venue.conditions) == ("X", 100, 1, False)
    assert feed.venue.market().session == chinese_session()
    assert orders_of(feed) == orders_of(feed)


@pytest.mark.parametrize("column", [
    pd.to_datetime([f"2023-07-11 10:00:0{i}" for i in range(3)]),
    pd.to_datetime([f"2023-07-11 10:00:0{i}" for i in range(3)]).tz_localize("Asia/Shanghai"),
    pd.to_datetime([f"2023-07-11 10:00:0{i}" for i in range(3)]).astype("datetime64[ms]"),
    pd.to_timedelta([36_000, 36_001, 36_002], unit="s"), [datetime.time(10, 0, i) for i in range(3)],
    ["2023-07-11T10:00:00", "2023-07-11T10:00:01", "2023-07-11T10:00:02"], ["100000000", "100001000", "100002000"],
    pd.array(["10:00:00", "10:00:01", "10:00:02"], "string"), pd.Categorical(["10:00:00", "10:00:01", "10:00:02"])])
def test_times_of_every_kind(column):
    feed = frames.from_frame(table(time=column))
    assert orders_of(feed)["time_ns"] == [TEN, TEN + 10**9, TEN + 2 * 10**9]
    assert feed.date in ("", "2023-07-11")
    named = table(time=column).rename(columns={"time": " Timestamp", "volume": "Size", "side": "SIDE"})
    assert orders_of(frames.from_frame(named)) == orders_of(feed)


def test_cancels_name_their_order_in_one_of_several_ways():
    base = pd.DataFrame({"time_ns": [TEN, TEN, TEN + 1, TEN + 2], "price": [10.01, 10.0, np.nan, np.nan],
                         "volume": [300, 100, 100, 50]})
    by_own_id = base.assign(side=["s", "b", "cancel", "C"], order_id=[7, 8, 8, 7])
    by_action = base.assign(action=["limit", "new", "cancel", "cancel"], side=["ask", "bid", "bid", "ask"],
                            id=[7, 8, 8, 7])
    by_id = base.assign(type=["S", "B", "C", "C"], order_id=[7, 8, None, None], cancel_id=[None, None, 8, 7])
    by_side = by_id.assign(cancel_type=["None", None, "B", "S"])
    for frame in (by_own_id, by_action, by_id, by_side):
        got = orders_of(frames.from_frame(frame))
        assert got["kind"] == [Kind.SELL, Kind.BUY, Kind.CANCEL, Kind.CANCEL]
        assert got["order_id"] == [7, 8, NO_ID, NO_ID]
        assert got["cancel_id"] == [NO_ID, NO_ID, 8, 7]
        assert got["cancel_side"] == [NO_ID, NO_ID, Side.BID, Side.ASK]
        assert got["price"] == [100_100, 100_000, 0, 0]


def test_conditions_accounts_and_market_orders():
    feed = frames.from_frame(table(action=["limit", "market", "limit"], tif=["IOC", "", "post_only"],
                                   agent=[0, 2, None], price=[10.01, None, 9.99]))
    got = orders_of(feed)
    assert got["condition"] == [Condition.IMMEDIATE_OR_CANCEL, Condition.MARKET, Condition.POST_ONLY]
    assert (got["account"], got["price"]) == ([0, 2, 0], [100_100, 0, 99_900])
    assert (feed.venue.conditions, feed.venue.accounts, feed.venue.market().conditions) == (True, 3, True)


def test_units_and_ticks():
    coins = frames.from_frame(table(price=[6200.01, 6200.0, 6199.99], volume=[0.00000001, 1.5, 0.3]),
                              units=Units("0.01", "0.00000001", "USD"))
    got = orders_of(coins)
    assert (got["price"], got["volume"]) == ([620_001, 620_000, 619_999], [1, 150_000_000, 30_000_000])
    assert (coins.venue.tick, coins.venue.units.currency) == (1, "USD")
    fund = frames.from_frame(table(price=["2.345", "2.344", "2.340"]), tick=0.001)
    assert (orders_of(fund)["price"], fund.venue.tick) == ([23_450, 23_440, 23_400], 10)
    whole = frames.from_frame(table(price=[100_100, 100_000, 99_900]), in_units=True)
    assert (orders_of(whole)["price"], whole.venue.tick) == ([100_100, 100_000, 99_900], 100)
    for tick, units in (("0.00001", None), (0, None), ("x", None), ("0.015", Units("0.01"))):
        with pytest.raises(InputError, match="tick: expected a multiple of the unit of prices"):
            frames.from_frame(table(), tick=tick, units=units)


def test_round_trips(tmp_path):
    frame = pd.DataFrame({
        "time_ns": TEN + np.arange(6), "type": list("SBCSBC"), "price": [10.01, 10.0, 10.01, 0.07, 9999.99, 0.0],
        "volume": [300, 100, 50, 1, 2**31 - 1, 7], "order_id": [3, 4, -1, 5, 6, -1],
        "cancel_type": ["None", "None", "S", "None", "None", "B"], "cancel_id": [-1, -1, 3, -1, -1, 4],
        "agent_id": [0, 1, 0, 2, -1, 1], "condition": ["REST", "FILL_OR_KILL", "REST", "REST", "REST", "REST"]})
    got = frames.to_frame(frames.from_frame(frame))
    pd.testing.assert_frame_equal(got, frame.assign(price=frame.price * (frame.type != "C")), check_dtype=False)
    pd.testing.assert_frame_equal(frames.to_frame(frames.from_frame(got)), got)
    # The same orders by way of a CSV, and as whole numbers.
    neutral.write(tmp_path / "a.csv", next(frames.from_frame(got).read()).orders)
    pd.testing.assert_frame_equal(frames.to_frame(*neutral.days(tmp_path / "a.csv")), got)
    whole = frames.to_frame(frames.from_frame(got), in_units=True)
    pd.testing.assert_frame_equal(frames.to_frame(frames.from_frame(whole, in_units=True), in_units=True), whole)
    prices = np.random.default_rng(0).integers(1, 10**7, 5000) / 100
    many = pd.DataFrame({"time_ns": TEN, "side": "B", "price": prices, "volume": 1})
    assert frames.to_frame(frames.from_frame(many)).price.tolist() == prices.tolist()


BOOK = pd.DataFrame({"side": ["buy", "sell", "sell", "buy", "buy"], "price": [9.98, 10.03, 10.02, 9.99, 9.98],
                     "volume": [5, 6, 7, 8, 9], "order_id": [101, 102, 103, 104, 105]})


def test_a_starting_book_comes_first_in_the_order_of_its_priority():
    feed = frames.from_frame(table(), BOOK)
    first, second = feed.read()
    assert first.is_synthetic.all()
    assert first.sequence.tolist() == [starting_book.SEQUENCE] * 5
    assert first.orders.order_id.tolist() == [103, 102, 104, 101, 105]
    assert first.orders.price.tolist() == [100_200, 100_300, 99_900, 99_800, 99_800]
    assert times.to_ns(first.orders.time).tolist() == [TEN] * 5
    assert (second.sequence.tolist(), len(frames.to_frame(feed))) == ([0, 1, 2], 3)
    assert frames.to_book(feed).order_id.tolist() == [103, 102, 104, 101, 105]
    again = frames.from_frame(frames.to_frame(feed), frames.to_book(feed))
    assert orders_of(again) == orders_of(feed)
    # A cancel may name an order of the book.
    cancel = table(side=["sell", "buy", "cancel"], order_id=[1, 2, 103], price=[10.01, 10.0, 0])
    assert orders_of(frames.from_frame(cancel, BOOK))["cancel_side"][-1] == Side.ASK


def test_a_starting_book_of_levels():
    levels = pd.DataFrame([{"ask_price_1": 10.02, "ask_volume_1": 7, "ask_price_2": 0, "ask_volume_2": 0,
                            "bid_price_1": 10.0, "bid_size_1": 8, "bid_price_2": 9.5, "bid_size_2": 3}])
    got = orders_of(frames.from_frame(table(), levels))
    assert got["price"][:3] == [100_200, 100_000, 95_000]
    assert got["order_id"][:3] == [starting_book.FIRST_OWN_ID + i for i in (0, 1, 2)]
    for frame, message in ((pd.concat([levels, levels]), "book: expected one row of levels, got 2"),
                           (levels.drop(columns="bid_size_2"), "expected bid_price_2 and bid_volume_2, got one")):
        with pytest.raises(InputError, match=message):
            frames.from_frame(table(), frame)


def test_a_starting_book_of_a_csv(tmp_path):
    path, book = tmp_path / "BRK.B 2.csv", tmp_path / "book.csv"
    neutral.write(path, next(frames.from_frame(table()).read()).orders)
    book.write_text("type,price,volume,order_id,agent_id\nB,99800,5,11,4\nS,100300,6,12,0\n")
    (day,) = neutral.days(path, book=book)
    assert day.name == "BRK.B 2"
    got = orders_of(day)
    assert (got["order_id"][:2], got["price"][:2], got["account"][:2]) == ([12, 11], [100_300, 99_800], [0, 4])
    assert next(day.read()).is_synthetic.all()
    assert day.venue.accounts == 5
    for text, message in (("type,price,volume\nB,99800,x\n", r"book.csv: line 2, column volume: expected a number"),
                          ("type,price,volume\nB,99800\n", r"book.csv: line 2: expected 3 fields"),
                          ("type,price\nB,99800\n", r"book.csv: expected a column volume"),
                          ("type,price,volume,order_id\nB,98,1,7\nB,98,1,7\n", "book.csv: expected every order_id")):
        book.write_text(text)
        with pytest.raises(InputError, match=message):
            list(neutral.read(path, book=book))


@pytest.mark.parametrize(("changes", "message"), [
    ({"price": [10.01, 10.005, 9.99]}, "frame: row 1, column price: expected a price .* in steps of 0.01, got 10.005"),
    ({"price": [10.01, -10.0, 9.99]}, "row 1, column price: expected a price above 0"),
    ({"price": [10.01, np.nan, 9.99]}, "row 1, column price: expected a price above 0"),
    ({"price": ["10.01", "ten", "9.99"]}, "row 1, column price: expected a number, got 'ten'"),
    ({"price": [10.01, 1e9, 9.99]}, "row 1, column price: expected a price"),
    ({"price": [True, False, True]}, "row 0, column price: expected a number, got True"),
    ({"volume": [300, 100.5, 50]}, "row 1, column volume: expected a volume above 0 in steps of 1, got 100.5"),
    ({"volume": [300, 0, 50]}, "row 1, column volume: expected a volume above 0"),
    ({"volume": [300, None, 50]}, "row 1, column volume: expected a volume above 0"),
    ({"volume": [300, 2**31, 50]}, "row 1, column volume: expected a volume"),
    ({"side": ["sell", "hold", "B"]}, "row 1, column side: expected one of s, sell, .*, got 'hold'"),
    ({"side": ["sell", None, "B"]}, "row 1, column side: expected one of"),
    ({"time": ["10:00:00", "09:59:59", "10:00:02"]}, "row 1, column time: expected no time before that of"),
    ({"time": ["10:00:00", "10:00:01+08:00", "10:00:02"]}, "row 1, column time: expected a time .* without an offset"),
    ({"time": ["10:00:00", "2023-07-11T10:00:01", "10:00:02"]}, "row 1, column time: expected the date .none. in"),
    ({"time": pd.to_datetime(["2023-07-11 10:00:00", "2023-07-12 10:00:01", "2023-07-12 10:00:02"])},
     "row 1, column time: expected times of one day, 2023-07-11, got"),
    ({"time": [pd.Timestamp("2023-07-11 10:00:00"), pd.NaT, pd.Timestamp("2023-07-11 10:00:02")]},
     "row 1, column time: expected a time, got"),
    *(({"time": np.array([36_000, number, 36_002]).astype(kind)}, "row 1, column time: expected a time that nanosec")
      for kind in ("datetime64[s]", "timedelta64[ms]") for number in (2**62, -2**62)),
    ({"time": pd.Series(np.array([0, 2**62, 1]).astype("datetime64[s]")).dt.tz_localize("UTC")},
     "row 1, column time: expected a time that nanosec"),
    ({"time": [36_000, 36_001, 36_002]}, "column time: expected times, not plain numbers"),
    ({"order_id": [1, 1, 2]}, "row 1, column order_id: expected an id that no order before it has had, got 1"),
    ({"order_id": [1, "a7f0", 2]}, "row 1, column order_id: expected a number, got 'a7f0'"),
    ({"order_id": [1, 2**31, 2]}, "row 1, column order_id: expected a whole number from -1 to"),
    ({"size": [1, 2, 3]}, "frame: expected one column for volume, got 'volume' and 'size'"),
    ({"side": ["sell", "buy", "cancel"]}, "frame: expected a column order_id .or id"),
    ({"side": ["sell", "buy", "cancel"], "order_id": [1, 2, 9]}, "row 2, column order_id: expected the id of an"),
    ({"side": ["sell", "buy", "cancel"], "order_id": [1, 2, None]}, "row 2, column order_id: expected the id of the"),
    ({"condition": ["REST", "maybe", "REST"]}, "row 1, column condition: expected one of rest, .*got 'maybe'"),
    ({"agent_id": [0, -2, 0]}, "row 1, column agent_id: expected a whole number from -1"),
])
def test_what_does_not_fit_is_named(changes, message):
    with pytest.raises(InputError, match=message) as caught:
        frames.from_frame(table(**changes))
    assert "\n" not in str(caught.value)


def test_tables_that_are_none():
    for frame, message in ((table().iloc[:0], "got a table without rows"), (table().to_numpy(), "expected a DataFrame"),
                           (table().drop(columns="price"), "expected a column price, got time, side, volume"),
                           (table().drop(columns="volume"), r"expected a column volume \(or size, qty"),
                           (table().drop(columns="time"), "expected a column time"),
                           (table().drop(columns="side"), "expected a column type")):
        with pytest.raises(InputError, match=message):
            frames.from_frame(frame)
    index = table(price=[1.0, 2.0, 0.0]).set_index(pd.Index(["a", "b", "c"]))
    with pytest.raises(InputError, match="frame: row c, column price"):
        frames.from_frame(index)
    crossed = BOOK.assign(price=[9.98, 10.03, 10.02, 10.02, 9.98])
    for book, message in ((crossed, "book: row 3, column price: expected a bid below the best ask, 10.02, got 10.02"),
                          (BOOK.assign(order_id=1), "book: expected every order_id once")):
        with pytest.raises(InputError, match=message):
            frames.from_frame(table(), book)
    with pytest.raises(InputError, match="row 0, column order_id: expected an id that no order before it has"):
        frames.from_frame(table(order_id=[101, 1, 2]), BOOK)


def test_the_example_of_the_page_of_feeds_runs():
    (code,) = re.findall(r"```python\n(.*?from_frame.*?)```", (ROOT / "docs/feeds.md").read_text(), re.DOTALL)
    names: dict[str, object] = {}
    exec(code, names)
    back = names["back"]
    assert back.type.tolist() == ["S", "B", "C"]
    assert back.price.tolist() == [10.01, 10.0, 0.0]
    assert sum(len(chunk.sequence) for chunk in names["feed"].read()) == 5
