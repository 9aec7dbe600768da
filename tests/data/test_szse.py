"""Shenzhen files: what each kind of order becomes, a made-up day replayed with its auctions, and damage."""

import numpy as np
import pytest

from marsjax.analysis.fills import FillCheck
from marsjax.core.records import NO_ID, Condition, Kind, Side, Status
from marsjax.core.specs import AuctionRule
from marsjax.data import sources, sse, szse
from marsjax.data.feed import AUCTION, FeedError
from marsjax.sim.replay import CallAuction, Closing, Published, Stretch, replay
from tests.data.shenzhen_day import DAY, write

B, S, C = int(Kind.BUY), int(Kind.SELL), int(Kind.CANCEL)
REST, OPPOSITE, OWN = Condition.REST, Condition.OPPOSITE_BEST, Condition.OWN_BEST
HIGHEST = (2**30 - 1) // 100 * 100
# id (cancels: of the order), kind, price, volume, condition, last message
ORDERS = [
    (10, B, 100000, 1000, REST, 10), (12, S, 99800, 600, REST, 12), (15, S, 100500, 500, REST, 15),
    (17, B, 99500, 300, REST, 17), (17, C, 99500, 300, REST, 18), (20, B, 100000, 400, REST, 20),
    (21, S, 100000, 200, REST, 21), (30, S, 100200, 300, REST, 30), (31, S, 100300, 200, REST, 31),
    (33, B, 100200, 100, REST, 34), (36, B, 100200, 500, OPPOSITE, 37), (40, B, 0, 100, OWN, 40),
    (42, S, 100000, 1200, Condition.IMMEDIATE_OR_CANCEL, 47), (50, B, 0, 100, OWN, 51), (52, S, 0, 150, OWN, 52),
    (55, B, 100500, 600, Condition.MARKET, 58), (60, B, HIGHEST, 900, Condition.FILL_OR_KILL, 61),
    (62, B, 100400, 300, REST, 62), (70, S, 100400, 100, REST, 71), (62, C, 100400, 200, REST, 80),
    (82, B, 100500, 250, REST, 83), (85, B, 100100, 100, REST, 85), (86, S, 100600, 100, REST, 86),
    (87, S, 100100, 100, OPPOSITE, 88), (89, B, 100000, 400, REST, 89), (90, S, 100000, 150, REST, 90),
    (91, B, 100300, 150, REST, 91)]


def orders_of(chunks):
    rows = []
    for chunk in chunks:
        order = chunk.orders
        for i in range(len(order.kind)):
            cancel = order.kind[i] == C
            assert cancel == (order.order_id[i] == NO_ID) == (order.cancel_id[i] != NO_ID)
            rows.append((int(order.cancel_id[i] if cancel else order.order_id[i]), int(order.kind[i]),
                         int(order.price[i]), int(order.volume[i]), int(order.condition[i]), int(chunk.sequence[i])))
    return rows


@pytest.mark.parametrize("layout", ["own", "codes", "shanghai"])
@pytest.mark.parametrize("chunk_rows", [1, 2, 3, 7, 100])
def test_every_order_of_the_day(tmp_path, chunk_rows, layout):
    chunks = list(szse.read(*write(tmp_path, layout=layout), chunk_rows=chunk_rows, account=2))
    assert orders_of(chunks) == ORDERS
    fills = [np.concatenate([getattr(chunk.fills, name) for chunk in chunks]).tolist()
             for name in ("buy_id", "sell_id", "price", "volume", "aggressor", "sequence")]
    trades = [line.split() for line in DAY.strip().splitlines() if " trade " in line]
    assert fills[:2] == [[int(trade[i]) for trade in trades] for i in (3, 4)]
    assert fills[2] == [round(float(trade[5]) * 10_000) for trade in trades]
    assert fills[3] == [int(trade[6]) for trade in trades]
    assert fills[4] == [AUCTION] * 2 + [B, B] + [S] * 4 + [B] * 3 + [S, B, S, AUCTION]
    assert fills[5] == [int(trade[0]) for trade in trades]
    assert sum(chunk.ignored.get("dropped_rest", 0) for chunk in chunks) == 3
    adapted = [chunk.adapted for chunk in chunks if chunk.adapted]
    assert sum(sum(counts.values()) for counts in adapted) == 2
    cancel_sides = np.concatenate([chunk.orders.cancel_side for chunk in chunks])
    assert cancel_sides[cancel_sides != NO_ID].tolist() == [Side.BID, Side.BID]
    assert {int(x) for chunk in chunks for x in chunk.orders.account} == {2}


def test_the_day_replayed_trades_as_it_was_published(tmp_path):
    write(tmp_path)
    (day,) = sources.open_days("szse", tmp_path)
    assert (day.name, day.venue.auction_rule, day.publishes_fills) == ("000001_20230711", AuctionRule.SHENZHEN, True)
    spec = day.venue.market(capacity=16, trade_width=8)
    check, status, prices = FillCheck(), [], []
    for event in replay(spec, [day.read()], chunk_orders=32, with_views=False):
        if isinstance(event, Stretch):
            check.compute(event.reports)
            status += event.reports.status.tolist()
        elif isinstance(event, Published):
            check.publish(event.fills)
        elif isinstance(event, CallAuction):
            check.uncross(event.time_ns, event.uncross)
            prices.append(int(event.uncross.price))
        elif isinstance(event, Closing):
            book = event.markets.book
    check.finish()
    assert check.equal, check.first_difference
    assert (check.compared, check.auctions_compared) == (12, 2)
    # Of 10.01, 10.02 and 10.03, which trade the same and leave nothing, 10.01 is the nearest to the last trade.
    assert prices == [100000, 100100]
    refused = {order[0]: Status(code) for order, code in zip(ORDERS, status, strict=True) if code}
    assert refused == {50: Status.NO_BEST_PRICE, 60: Status.NOT_FILLED}
    resting = np.asarray(book.volume)[0]
    assert {int(i): int(v) for i, v in zip(np.asarray(book.order_id)[0].ravel(), resting.ravel(), strict=True) if v
            } == {86: 100, 89: 400}


def changed(old, new):
    assert old in DAY
    return DAY.replace(old, new)


DAMAGE = {
    "unknown buyer": (changed("trade 33 30", "trade 32 30"), r"trades.csv: line 5, column BidApplSeqNum: expected the "
        "number of a buy order, got 32"),
    "a seller as buyer": (changed("trade 33 30", "trade 31 30"), "column BidApplSeqNum: .*a buy order, got 31"),
    "too much": (changed("33 30 10.02 100", "33 30 10.02 101"), "column LastQty: expected no more than is left of "
        "order 33, got 101"),
    "cancelled twice": (changed("80 13:00:00.000 cancel 62 0 200", "80 13:00:00.000 cancel 17 0 300"),
        "left of order 17, got 300"),
    "cancel of both": (changed("cancel 62 0 200", "cancel 62 70 200"), "column OfferApplSeqNum: expected a cancel of"),
    "cancel of none": (changed("cancel 62 0 200", "cancel 0 0 200"), "column OfferApplSeqNum: expected a cancel of"),
    "no seller": (changed("trade 33 30", "trade 33 0"), "column OfferApplSeqNum: expected the number of an order"),
    "later order": (changed("trade 33 30", "trade 35 30"), "column BidApplSeqNum: expected a number below its own"),
    "type": (changed("30 09:30:00.000 order 2", "30 09:30:00.000 order 4"), "orders.csv: line 8, column OrdType: "),
    "side": (changed("order 2 S 10.02", "order 2 X 10.02"), "column Side: expected one of 1, 2, B, S"),
    "no limit": (changed("order 2 S 10.02", "order 2 S 0"), "column Price: expected a price above 0"),
    "off tick": (changed("order 2 S 10.02", "order 2 S 10.025"), "column Price: .*steps of 0.01 .*, got 10.025"),
    "trade off tick": (changed("33 30 10.02", "33 30 10.021"), "column LastPx: .*steps of 0.01 .*, got 10.021"),
    "number twice": (changed("34 09:30:02.000 trade", "36 09:30:02.000 trade"), "column ApplSeqNum: .*other file"),
    "number back": (changed("31 09:30:01.000", "29 09:30:01.000"), "orders.csv: line 9, column ApplSeqNum: expected a "
        "number above that of the line before, got 29"),
    "time back": (changed("36 09:30:03.000", "36 09:29:03.000"), "line 11, column TransactTime: expected no time"),
    "no volume": (changed("order U B 0 100\n42", "order U B 0 0\n42"), "column OrderQty"),
}


@pytest.mark.parametrize("chunk_rows", [1, 100])
@pytest.mark.parametrize("name", DAMAGE)
def test_damage_is_named(tmp_path, name, chunk_rows):
    day, message = DAMAGE[name]
    with pytest.raises(FeedError, match=message):
        list(szse.read(*write(tmp_path, day), chunk_rows=chunk_rows))


def test_columns_channels_and_symbols_are_checked(tmp_path):
    orders, trades = write(tmp_path)
    text = trades.read_text()
    trades.write_text(text.replace("2011,34,", "2012,34,"))
    with pytest.raises(FeedError, match="line 5, column ChannelNo: expected 2011 in all of the day, got 2012"):
        list(szse.read(orders, trades))
    trades.write_text(text.replace("LastQty", "Qty"))
    with pytest.raises(FeedError, match=r"trades.csv: line 1: expected columns LastQty, got"):
        list(szse.read(orders, trades))


def test_a_trade_long_after_its_aggressor_is_counted(tmp_path):
    day = "1 10:00:00.000 order 2 S 10.00 100\n2 10:00:01.000 order 2 B 10.30 100\n3 10:00:02.000 order 2 S 10.40 5\n" \
          "4 10:00:02.000 trade 2 1 10.00 100\n5 10:00:03.000 order 1 B 0 9\n6 10:00:03.000 trade 5 3 10.40 4\n" \
          "7 10:00:04.000 cancel 5 0 5"
    chunks = list(szse.read(*write(tmp_path, day)))
    assert [chunk.adapted for chunk in chunks if chunk.adapted] == [{"late_trade": 1}]
    assert [buyer for chunk in chunks for buyer in chunk.fills.buy_id] == [2, 5]
    # A cancel at another time is its sender's: the rest has rested, at the price of the fill.
    assert orders_of(chunks)[3:] == [(5, B, 104000, 9, OPPOSITE, 6), (5, C, 104000, 5, REST, 7)]


def test_a_limit_order_cancelled_at_once_is_cancelled_by_its_sender(tmp_path):
    day = "1 10:00:00.000 order 2 B 10.00 100\n2 10:00:00.000 cancel 1 0 100"
    chunks = list(szse.read(*write(tmp_path, day)))
    assert orders_of(chunks) == [(1, B, 100000, 100, REST, 1), (1, C, 100000, 100, REST, 2)]
    assert not any(chunk.ignored or chunk.adapted for chunk in chunks)


@pytest.mark.parametrize(("symbol", "tick"), [
    ("000001", 100), ("300750", 100), ("200002", 100), ("159915", 10), ("123153.SZ", 10), ("161725", 10), ("15", 100)])
def test_tick_of_a_code(symbol, tick):
    assert szse.tick_of(symbol) == tick


def test_days_of_a_folder(tmp_path):
    write(tmp_path)
    write(tmp_path, name="159915_20230711", symbol="159915", day=DAY.replace("10.0", "10.00"))
    fund, share = sorted(szse.days(tmp_path), key=lambda day: day.venue.tick)
    assert {day.symbol: day.venue.tick for day in (fund, share)} == {"159915": 10, "000001": 100}
    assert all(sum(len(chunk.sequence) for chunk in day.read()) == len(ORDERS) for day in (fund, share))


@pytest.mark.parametrize("name", ["601825_20230711"])
def test_a_real_day_as_shenzhen_would_write_it(tmp_path, data_folder, end_to_end, name):
    """Shanghai's orders and fills in the other layout (numbers of its own, every order before its fills) come back."""
    sent = end_to_end(list(sse.read(*sse.files(data_folder / "sse", *name.split("_")))))
    lines = as_shenzhen_writes(sent)
    got = end_to_end(list(szse.read(*write(tmp_path, "\n".join(lines)), chunk_rows=997)))
    for column in ("time.s", "time.ns", "kind", "price", "volume", "cancel_side", "account", "fills.time_ns",
                   "fills.price", "fills.volume", "fills.aggressor"):
        np.testing.assert_array_equal(got[column], sent[column], err_msg=column)
    # The numbers of orders stand for the ids of Shanghai, one for one.
    number = dict(zip(sent["order_id"].tolist(), got["order_id"].tolist(), strict=True))
    for column in ("cancel_id", "fills.buy_id", "fills.sell_id"):
        assert [number[x] for x in sent[column].tolist()] == got[column].tolist()


def as_shenzhen_writes(sent):
    """Lines as those of `shenzhen_day.DAY`; orders where their first message was, then their fills."""
    order = {name: sent[name].tolist() for name in (
        "time.s", "time.ns", "kind", "price", "volume", "order_id", "cancel_side", "cancel_id", "sequence")}
    fill = {name: sent[f"fills.{name}"].tolist() for name in (
        "time_ns", "price", "volume", "buy_id", "sell_id", "aggressor", "sequence")}
    first = {}
    for i, aggressor in enumerate(fill["aggressor"]):
        if aggressor != AUCTION:
            first.setdefault(fill["sell_id" if aggressor == S else "buy_id"][i], fill["sequence"][i])
    events = [(first.get(order["order_id"][i], at) - 0.5, "order", i) for i, at in enumerate(order["sequence"])]
    events = sorted(events + [(at, "fill", i) for i, at in enumerate(fill["sequence"])])
    number = {order["order_id"][i]: n for n, (_, what, i) in enumerate(events, 1) if what == "order"}
    lines = []
    for n, (_, what, i) in enumerate(events, 1):
        ns = fill["time_ns"][i] if what == "fill" else order["time.s"][i] * 10**9 + order["time.ns"][i]
        minutes, ms = divmod(ns // 10**6, 60_000)
        clock = f"{minutes // 60:02}:{minutes % 60:02}:{ms // 1000:02}.{ms % 1000:03}"
        if what == "fill":
            lines.append(f"{n} {clock} trade {number[fill['buy_id'][i]]} {number[fill['sell_id'][i]]} "
                         f"{fill['price'][i] / 10_000} {fill['volume'][i]}")
        elif order["kind"][i] == C:
            buy = number[order["cancel_id"][i]] if order["cancel_side"][i] == Side.BID else 0
            lines.append(f"{n} {clock} cancel {buy} {0 if buy else number[order['cancel_id'][i]]} {order['volume'][i]}")
        else:
            side, price = "SB"[order["kind"][i]], order["price"][i] / 10_000
            lines.append(f"{n} {clock} order 2 {side} {price} {order['volume'][i]}")
    return lines
