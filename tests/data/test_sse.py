"""Shanghai files: groups of one aggressor, chunk boundaries, damage, and the counts of four real days."""

import gzip
import tracemalloc

import numpy as np
import pytest

from marsjax.analysis.fills import FillCheck
from marsjax.core.errors import InputError
from marsjax.core.records import NO_ID, NO_PRICE, Kind, Side
from marsjax.core.sessions import chinese_session
from marsjax.core.specs import AuctionRule
from marsjax.data import sse
from marsjax.data.feed import AUCTION, FeedError
from marsjax.sim.replay import CallAuction, Published, Stretch, replay

ORDERS = "MDDate,MDTime,OrderType,OrderPrice,OrderQty,OrderBSFlag,ApplSeqNum,OrderNO,SecurityID"
TRADES = "MDDate,MDTime,TradeBuyNo,TradeSellNo,TradeBSFlag,TradePrice,TradeQty,ApplSeqNum,SecurityID"
# Two asks, an auction trade, a buyer (30) that sweeps both and rests, a seller (40) filled whole by it, a delete.
DAY = (
    ["09:15:00.000,2,10.01,100,2,1,10", "09:15:00.010,2,10.020000000000001,200,2,2,20",
     "09:15:00.020,2,10.00,50,1,3,5", "09:30:01.500,2,10.03,70,1,8,30", "09:31:00.000,10,10.03,30,1,10,30"],
    ["09:25:00.000,5,10,0,10.00,50,4", "09:30:01.500,30,10,1,10.01,50,6", "09:30:01.500,30,20,1,10.02,200,7",
     "09:30:59.990,30,40,2,10.03,40,9"])


def write(folder, orders=DAY[0], trades=DAY[1], header=(ORDERS, TRADES), suffix=".csv"):
    paths = []
    for name, head, rows in (("orders", header[0], orders), ("trades", header[1], trades)):
        text = "\n".join([head, *(f"2023.07.11,{row},600000.SH" for row in rows)]) + "\n"
        paths.append(folder / f"600000_20230711_{name}{suffix}")
        paths[-1].write_bytes(gzip.compress(text.encode()) if suffix.endswith("gz") else text.encode())
    return paths


def replaced(rows, index, row):
    return [row if i == index else old for i, old in enumerate(rows)]


@pytest.mark.parametrize("chunk_rows", [1, 2, 3, 100])
@pytest.mark.parametrize("suffix", [".csv", ".csv.gz"])
def test_trades_and_rest_become_one_order(tmp_path, end_to_end, chunk_rows, suffix):
    got = end_to_end(list(sse.read(*write(tmp_path, suffix=suffix), chunk_rows=chunk_rows, account=3)))
    np.testing.assert_array_equal(got["kind"], [Kind.SELL, Kind.SELL, Kind.BUY, Kind.BUY, Kind.SELL, Kind.CANCEL])
    np.testing.assert_array_equal(got["price"], [100100, 100200, 100000, 100300, 100300, 100300])
    np.testing.assert_array_equal(got["volume"], [100, 200, 50, 320, 40, 30])
    np.testing.assert_array_equal(got["order_id"], [10, 20, 5, 30, 40, NO_ID])
    np.testing.assert_array_equal(got["cancel_id"], [NO_ID] * 5 + [30])
    np.testing.assert_array_equal(got["cancel_side"], [NO_ID] * 5 + [Side.BID])
    np.testing.assert_array_equal(got["sequence"], [1, 2, 3, 8, 9, 10])
    np.testing.assert_array_equal(got["time.s"], [33300, 33300, 33300, 34201, 34259, 34260])
    np.testing.assert_array_equal(got["time.ns"], [0, 10_000_000, 20_000_000, 500_000_000, 990_000_000, 0])
    np.testing.assert_array_equal(got["fills.aggressor"], [AUCTION, Kind.BUY, Kind.BUY, Kind.SELL])
    np.testing.assert_array_equal(got["fills.buy_id"], [5, 30, 30, 30])
    np.testing.assert_array_equal(got["fills.sell_id"], [10, 10, 20, 40])
    np.testing.assert_array_equal(got["fills.time_ns"], [33900 * 10**9, 34201500000000, 34201500000000, 34259990000000])
    assert set(got["account"]) == {3}


def test_fills_come_with_their_aggressor(tmp_path):
    for chunk in sse.read(*write(tmp_path), chunk_rows=1):
        aggressor = np.where(chunk.fills.aggressor == Kind.SELL, chunk.fills.sell_id, chunk.fills.buy_id)
        assert set(aggressor[chunk.fills.aggressor != AUCTION]) <= set(chunk.orders.order_id)


ADDS, FILLS = DAY
DAMAGE = {
    "type": (replaced(ADDS, 1, "09:15:00.010,3,10.02,200,2,2,20"), FILLS,
        r"orders.csv: line 3, column OrderType.*got 3"),
    "side": (replaced(ADDS, 1, "09:15:00.010,2,10.02,200,0,2,20"), FILLS,
        r"line 3, column OrderBSFlag.*1 to 2, got 0"),
    "trade side": (ADDS, replaced(FILLS, 1, "09:30:01.500,30,10,7,10.01,50,6"),
        r"trades.csv: line 3, column TradeBSFlag"),
    "text": (replaced(ADDS, 2, "09:15:00.020,2,ten,50,1,3,5"), FILLS,
        r"line 4, column OrderPrice: expected a number, got ten"),
    "nan": (replaced(ADDS, 2, "09:15:00.020,2,nan,50,1,3,5"), FILLS,
        r"line 4, column OrderPrice: expected a number, got nan"),
    "blank": (replaced(ADDS, 2, "09:15:00.020,2,10.00,,1,3,5"), FILLS,
        r"line 4, column OrderQty: expected a number, got $"),
    "half share": (replaced(ADDS, 2, "09:15:00.020,2,10.00,0.5,1,3,5"), FILLS, r"line 4, column OrderQty.*got 0.5"),
    "no volume": (replaced(ADDS, 2, "09:15:00.020,2,10.00,0,1,3,5"), FILLS, r"line 4, column OrderQty.*got 0"),
    "large id": (replaced(ADDS, 2, "09:15:00.020,2,10.00,50,1,3,4294967296"), FILLS,
        r"column OrderNO.*got 4294967296"),
    "off tick": (replaced(ADDS, 2, "09:15:00.020,2,10.005,50,1,3,5"), FILLS,
        r"column OrderPrice.*steps of 0.01 .*, got 10.005"),
    "no price": (replaced(ADDS, 2, "09:15:00.020,2,0,50,1,3,5"), FILLS,
        r"column OrderPrice: expected a price above 0, got 0"),
    "time": (replaced(ADDS, 2, "09:15:00.02x,2,10.00,50,1,3,5"), FILLS, r"line 4, column MDTime.*got 09:15:00.02x"),
    "time of day": (replaced(ADDS, 2, "09:75:00.020,2,10.00,50,1,3,5"), FILLS, r"line 4, column MDTime.*got 09:75"),
    "fields": (replaced(ADDS, 2, "09:15:00.020,2,10.00,50,1,3"), FILLS, r"line 4: expected 9 fields .*got 8"),
    "more fields": (replaced(ADDS, 2, "09:15:00.020,2,10.00,50,1,3,5,6"), FILLS,
        r"line 4: expected 9 fields .*got 10"),
    "sequence back": (replaced(ADDS, 2, "09:15:00.020,2,10.00,50,1,1,5"), FILLS, r"line 4, column ApplSeqNum.*got 1"),
    "sequence twice": (replaced(ADDS, 2, "09:15:00.020,2,10.00,50,1,2,5"), FILLS,
        r"line 4, column ApplSeqNum.*got 2"),
    "sequence in both": (ADDS, replaced(FILLS, 0, "09:25:00.000,5,10,0,10.00,50,3"),
        r"column ApplSeqNum.*other file.*got 3"),
    "time back": (ADDS, replaced(FILLS, 0, "09:14:00.000,5,10,0,10.00,50,4"), r"trades.csv: line 2, column MDTime"),
    "symbols": (ADDS, [*FILLS, "10:00:00.000,30,40,2,10.03,40,19,600001.SH"], r"line 6: expected 9 fields"),
    "unknown": (ADDS, replaced(FILLS, 1, "09:30:01.500,30,11,1,10.01,50,6"),
                r"trades.csv: line 3, column TradeSellNo: .*trade names an unknown order.*got 11"),
    "unknown buyer": (ADDS, replaced(FILLS, 3, "09:30:59.990,31,40,2,10.03,40,9"),
        r"column TradeBuyNo.*unknown.*got 31"),
    "unknown in auction": (ADDS, replaced(FILLS, 0, "09:25:00.000,6,10,0,10.00,50,4"), r"column TradeBuyNo.*got 6"),
    "filled aggressor": (ADDS, [*FILLS, "09:32:00.000,50,40,1,10.03,1,11"], r"column TradeSellNo.*unknown.*got 40"),
    "deleted": (ADDS, [*FILLS, "09:32:00.000,30,50,2,10.03,1,11"], r"column TradeBuyNo.*unknown.*got 30"),
    "seen before": ([*ADDS, "09:32:00.000,2,10.02,200,2,12,20"], FILLS,
        r"line 7, column OrderNO.*seen before.*got 20"),
    "limit": (replaced(ADDS, 3, "09:30:01.500,2,10.01,70,1,8,30"), FILLS,
        r"line 5, column OrderPrice: expected no fill beyond"),
    "volume": (ADDS, replaced(FILLS, 1, "09:30:01.500,30,10,1,10.01,2147483647,6"),
        r"at most 2147483647 shares.*got 21474839"),
    "no orders": ([], FILLS, r"orders.csv: line 2: expected orders, got an empty file"),
}


@pytest.mark.parametrize("chunk_rows", [1, 100])
@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_named(tmp_path, name, chunk_rows):
    orders, trades, message = DAMAGE[name]
    with pytest.raises(FeedError, match=message):
        list(sse.read(*write(tmp_path, orders, trades), chunk_rows=chunk_rows))


def test_several_symbols(tmp_path):
    orders, trades = write(tmp_path)
    for path in (orders, trades):
        text = path.read_text()
        path.write_text(text.replace("600000.SH\n", "600001.SH\n", 2).replace("600001.SH", "600000.SH", 1))
        with pytest.raises(FeedError, match=rf"{path.name}: line 3, column SecurityID: expected 600000.SH.*got 600001"):
            list(sse.read(orders, trades))
        path.write_text(text.replace("600000.SH\n", "600001.SH\n"))
        with pytest.raises(FeedError, match="column SecurityID"):
            list(sse.read(orders, trades))
        path.write_text(text)


def test_missing_column_and_file(tmp_path):
    orders, trades = write(tmp_path, header=(ORDERS.replace("OrderQty", "Qty"), TRADES))
    with pytest.raises(FeedError, match=r"orders.csv: line 1: expected columns OrderQty, got 'MDDate,MDTime"):
        list(sse.read(orders, trades))
    orders.write_text("")
    with pytest.raises(FeedError, match="the file is empty"):
        list(sse.read(orders, trades))
    with pytest.raises(FileNotFoundError, match=r"nothing\.csv"):
        sse.read(tmp_path / "nothing.csv", trades)
    with pytest.raises(ValueError, match="chunk_rows: expected at least 1, got 0"):
        sse.read(orders, trades, chunk_rows=0)


def test_truncated_gzip(tmp_path):
    orders, trades = write(tmp_path, suffix=".csv.gz")
    whole = orders.read_bytes()
    for damaged in (whole[:-20], b"no gzip at all", whole[:30] + b"\0\0\0\0" + whole[34:]):
        orders.write_bytes(damaged)
        with pytest.raises(FeedError, match=r"orders.csv.gz: line \d+: expected a (whole )?gzip file"):
            list(sse.read(orders, trades))


def test_extra_columns_blank_lines_and_no_trades(tmp_path, end_to_end):
    orders, trades = write(tmp_path)
    lines = orders.read_text().splitlines()
    orders.write_text("\r\n".join(f"{line},x" for line in lines[:4]) + "\r\n\r\n")
    trades.write_text(TRADES + "\n")
    got = end_to_end(list(sse.read(orders, trades)))
    np.testing.assert_array_equal(got["order_id"], [10, 20, 5])
    assert got["fills.price"].shape == (0,)


def test_days_of_a_folder(tmp_path):
    write(tmp_path, suffix=".csv.gz")
    (day,) = sse.days(tmp_path)
    assert (day.symbol, day.date, day.name, day.publishes_fills) == ("600000", "20230711", "600000_20230711", True)
    assert day.day == np.datetime64("2023-07-11")
    first, again = list(day.read()), list(day.read())
    assert len(first[0].sequence) == len(again[0].sequence) > 0
    assert day.venue.market().session == chinese_session()
    with pytest.raises(FileNotFoundError, match=r"symbol=600001.*found: 600000_20230711"):
        sse.days(tmp_path, ["600001"])
    (tmp_path / "600001_20230711_orders.csv").write_text("alone")
    assert len(sse.days(tmp_path, ["600000"])) == 1
    with pytest.raises(FileNotFoundError, match=r"600001_20230711_orders.csv: no 600001_20230711_trades.csv"):
        sse.days(tmp_path)


@pytest.mark.parametrize("name", ["600000.SH_20230711_{}.csv", "a b_c_2023-07-11_{}.CSV", "浦发银行_20230711_{}.csv.gz",
                                  "600000_20230711_{}.TXT"])
def test_files_of_any_name_are_found_or_named(tmp_path, name):
    for path, what in zip(write(tmp_path), ("orders", "trades"), strict=True):
        text = path.read_bytes()
        path.unlink()
        (tmp_path / name.format(what)).write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    (day,) = sse.days(tmp_path)
    assert name.startswith(f"{day.symbol}_{day.date}_")
    assert sum(len(chunk.sequence) for chunk in day.read()) == 6
    for path in tmp_path.iterdir():
        path.rename(f"{path}.zst")
    with pytest.raises(FileNotFoundError, match=r"not named so: .*orders.*\.zst"):
        sse.days(tmp_path)


@pytest.mark.parametrize(("symbol", "tick"), [
    ("600000", 100), ("688981", 100), ("510300", 10), ("588000.SH", 10), ("900901", 10), ("9009011", 100),
    ("ABC", 100)])
def test_tick_of_a_code(symbol, tick):
    assert sse.tick_of(symbol) == tick


def test_a_given_tick_is_that_of_the_files(tmp_path, end_to_end):
    adds = [ADDS[0], *(row.replace("10.0", "2.34") for row in ADDS[1:3])]
    write(tmp_path, [row.replace("2.340", "2.345") for row in adds], [])
    with pytest.raises(FeedError, match=r"OrderPrice: expected a price of at least 0 in steps of 0.01 .*, got 2.34"):
        list(sse.days(tmp_path)[0].read())
    (day,) = sse.days(tmp_path, tick=10)
    assert end_to_end(list(day.read()))["price"].tolist() == [100100, 23420, 23450]
    assert day.venue.tick == day.venue.market().tick == 10
    with pytest.raises(InputError, match="tick: expected a whole number from 1 to 1000000"):
        list(sse.days(tmp_path, tick=0)[0].read())


def test_line_ends_quotes_and_marks_do_not_matter(tmp_path, end_to_end):
    orders, trades = write(tmp_path)
    expected = end_to_end(list(sse.read(orders, trades)))
    text = trades.read_text()
    for form in (text.replace("\n", "\r"), text.replace("\n", "\r\n"), "\ufeff" + text, text.rstrip("\n"),
                 "\n".join(",".join(f'"{x}"' for x in line.split(",")) for line in text.splitlines())):
        trades.write_text(form, newline="")
        got = end_to_end(list(sse.read(orders, trades)))
        assert all(np.array_equal(got[name], expected[name]) for name in expected)


@pytest.mark.parametrize("form", ["{}+08:00", "2023-07-11T{}", "2023.07.11 {}", "number", "utc"])
def test_times_in_other_forms_are_the_same_times(tmp_path, end_to_end, form):
    orders, trades = write(tmp_path)
    expected = end_to_end(list(sse.read(orders, trades)))
    for path in (orders, trades):
        lines = path.read_text().splitlines()
        for i, line in enumerate(lines[1:], 1):
            date, time, rest = line.split(",", 2)
            if form == "number":
                time = str(int(time.replace(":", "").replace(".", "")))
            elif form == "utc":
                time = f"2023-07-11T{int(time[:2]) - 8:02}{time[2:]}Z"
            else:
                time = form.format(time)
            lines[i] = f"{date},{time},{rest}"
        path.write_text("\n".join(lines) + "\n")
    got = end_to_end(list(sse.read(orders, trades, chunk_rows=2)))
    assert all(np.array_equal(got[name], expected[name]) for name in expected)


def test_memory_does_not_grow_with_the_file(tmp_path):
    count = 60_000
    row = "09:30:00.000,2,10.{:02},100,{},{},{}"
    orders, trades = write(tmp_path, [row.format(i % 50 + 50 * (i % 2), 1 + i % 2, i, i) for i in range(count)], [])
    peaks = []
    for chunk_rows in (2_000, count):
        tracemalloc.start()
        assert sum(len(chunk.sequence) for chunk in sse.read(orders, trades, chunk_rows=chunk_rows)) == count
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # 24 bytes for each order seen, some copies of them while they grow, and the block at hand.
    assert peaks[0] < 60 * count + 2_000 * 1_500
    assert peaks[0] < peaks[1] / 3


DAYS = {  # adds, deletes, trades, aggressors, aggressors with a rest, most fills of one aggressor
    ("600536", "20230711"): (37003, 12580, 33553, 18867, 1924, 78),
    ("600761", "20230711"): (22664, 8816, 24760, 15481, 836, 110),
    ("601825", "20230711"): (5286, 1997, 5370, 3991, 40, 102),
    ("600519", "20230207"): (31612, 14152, 18685, 13352, 686, 35),
}


@pytest.mark.parametrize("day", DAYS, ids="_".join)
def test_real_day(data_folder, end_to_end, day):
    adds, deletes, trades, aggressors, rests, most = DAYS[day]
    paths = sse.files(data_folder / "sse", *day)
    whole = end_to_end(list(sse.read(*paths)))
    assert np.sum(whole["kind"] == Kind.CANCEL) == deletes
    assert np.sum(whole["kind"] != Kind.CANCEL) == adds + aggressors - rests
    assert len(whole["fills.price"]) == trades

    continuous = whole["fills.aggressor"] != AUCTION
    aggressor = np.where(whole["fills.aggressor"] == Kind.SELL, whole["fills.sell_id"], whole["fills.buy_id"])
    ids, fills = np.unique(aggressor[continuous], return_counts=True)
    assert (len(ids), fills.max()) == (aggressors, most)
    # What traded is part of the order's volume, and the order's limit allows each of its fills.
    row = {order_id: i for i, order_id in enumerate(whole["order_id"]) if order_id != NO_ID}
    order = np.array([row[order_id] for order_id in aggressor[continuous]])
    traded = np.bincount(order, whole["fills.volume"][continuous], minlength=len(whole["kind"]))
    assert np.sum((traded > 0) & (traded < whole["volume"])) == rests
    sign = np.where(whole["kind"][order] == Kind.BUY, 1, -1)
    assert np.all(sign * whole["fills.price"][continuous] <= sign * whole["price"][order])
    assert np.all(np.diff(whole["sequence"]) > 0)

    for chunk_rows in (1_000, 7_919):
        cut = end_to_end(list(sse.read(*paths, chunk_rows=chunk_rows)))
        for name, column in whole.items():
            np.testing.assert_array_equal(cut[name], column, err_msg=f"{name}, chunk_rows={chunk_rows}")


def test_real_auction_volumes(data_folder, end_to_end):
    """Volumes matched in the two auctions of each day (data/README.md)."""
    expected = {"600519": (42718, 40203), "600536": (61090, 175007), "600761": (30700, 14200), "601825": (2800, 25000)}
    for symbol, date in DAYS:
        got = end_to_end(list(sse.read(*sse.files(data_folder / "sse", symbol, date))))
        auction, morning = got["fills.aggressor"] == AUCTION, got["fills.time_ns"] < 12 * 3600 * 10**9
        assert tuple(int(got["fills.volume"][auction & half].sum()) for half in (morning, ~morning)) == expected[symbol]


def test_real_snapshots(data_folder):
    got = sse.read_snapshots(data_folder / "sse" / "600519_20230207_snapshots.csv.gz")
    assert got.ask_price.shape == got.bid_volume.shape == (5146, 10)
    inside = (got.time_ns >= 34200 * 10**9) & (got.time_ns < (15 * 60 - 3) * 60 * 10**9)
    assert inside.sum() == 4858
    assert np.all(np.diff(got.volume) >= 0)
    assert np.all(np.diff(got.time_ns) >= 0)
    full = inside & (got.ask_price[:, 9] > 0) & (got.bid_price[:, 9] > 0)
    assert full.sum() > 4000
    assert np.all(np.diff(got.ask_price[full]) > 0)
    assert np.all(np.diff(got.bid_price[full]) < 0)
    assert np.all(got.bid_price[full, 0] < got.ask_price[full, 0])
    assert np.all(got.ask_price % 100 == 0)
    assert np.all(got.last_price[full] > 15_000_000)


def test_snapshot_damage(tmp_path):
    path = tmp_path / "snapshots.csv"
    path.write_text("MDTime,NumTrades\n09:30:00,1\n")
    with pytest.raises(FeedError, match="expected columns TotalVolumeTrade, LastPx, SellPrice1"):
        sse.read_snapshots(path)


def replayed(day):
    """How a day compares with what was published: the check, and the prices of its auctions."""
    check, prices = FillCheck(), []
    for event in replay(day.venue.market(capacity=16, trade_width=8), [day.read()], chunk_orders=32, with_views=False):
        if isinstance(event, Stretch):
            assert not event.reports.status.any()
            check.compute(event.reports)
        elif isinstance(event, Published):
            check.publish(event.fills)
        elif isinstance(event, CallAuction):
            check.uncross(event.time_ns, event.uncross)
            prices.append(int(event.uncross.price))
    check.finish()
    assert check.equal, check.first_difference
    return check, prices


def test_an_auction_takes_the_middle_of_its_prices(tmp_path):
    """A buyer at 10.05 and a seller at 10.01: every price between trades all, the exchange takes 10.03."""
    write(tmp_path, ["09:15:00.000,2,10.05,100,1,1,1", "09:16:00.000,2,10.01,100,2,2,2"],
          ["09:25:00.000,1,2,0,10.03,100,3"])
    (day,) = sse.days(tmp_path)
    assert day.venue.auction_rule == AuctionRule.SHANGHAI
    check, prices = replayed(day)
    assert (check.auctions_compared, prices) == (2, [100_300, NO_PRICE])


def test_a_fund_trades_in_thousandths(tmp_path):
    for path in write(tmp_path, ["09:30:00.000,2,2.345,100,2,1,10", "09:30:01.000,2,2.344,100,1,2,20"],
                      ["09:30:02.000,30,10,1,2.345,100,3"]):
        path.rename(str(path).replace("600000", "510300"))
    check, _ = replayed(*sse.days(tmp_path))
    assert check.compared == 1


@pytest.mark.parametrize("column", range(9))
def test_a_zero_byte_is_named_with_its_column(tmp_path, column):
    orders, trades = write(tmp_path)
    lines = orders.read_text().splitlines()
    fields = lines[3].split(",")
    fields[column] = fields[column][:-1] + "\0"
    orders.write_text("\n".join([*lines[:3], ",".join(fields), *lines[4:]]) + "\n")
    with pytest.raises(FeedError, match=f"line 4, column {ORDERS.split(',')[column]}: expected text .*zero byte"):
        list(sse.read(orders, trades))
