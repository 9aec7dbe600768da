"""Coinbase's level 3: what each message becomes, laws of random markets, damage, and ten real minutes to their end."""

import types
import uuid
from collections import Counter

import jax
import numpy as np
import pandas as pd
import pytest

from marsjax.core.records import MAX_PRICE, Kind, Status
from marsjax.core.specs import Units
from marsjax.data import coinbase
from marsjax.data.coinbase import OrderTable
from marsjax.data.feed import FeedError
from marsjax.sim import replay as market_replay
from tests.plain_book import PlainBook, published, replay, rows_of

BUY, SELL, CANCEL = int(Kind.BUY), int(Kind.SELL), int(Kind.CANCEL)
HEADER = ("time,sequence,type,side,price,size,remaining_size,order_id,order_type,reason,funds,trade_id,maker_order_id,"
          "taker_order_id,client_oid,product_id,new_size")
MOST = 2**31 - 1


def name(number):
    return "" if number is None else str(uuid.UUID(int=number * 0x1000_0000_0000_0001))


class Channel:
    """Writes messages of one sequence; prices in cents, volumes in 1e-8."""

    def __init__(self, first=100):
        self.lines, self.sequence = [], first

    def tell(self, kind, side, price=None, size=None, left=None, order=None, maker=None, taker=None, new=None):
        def number(value, digits):
            return "" if value is None else f"{value / 10**digits:.{digits}f}"

        second, millis = divmod(len(self.lines) * 7, 1000)
        self.lines.append(",".join([
            f"2018-07-13T20:{second // 60:02d}:{second % 60:02d}.{millis:03d}000Z", str(self.sequence), kind,
            ("sell", "buy")[side], number(price, 2), number(size, 8), number(left, 8), name(order), "", "", "", "",
            name(maker), name(taker), "", "BTC-USD", number(new, 8)]))
        self.sequence += 1

    def write(self, folder, book=None):
        paths = [folder / "messages.csv"]
        paths[0].write_text("\n".join([HEADER, *self.lines]) + "\n")
        if book is not None:
            paths.append(folder / "beginning_level_3.csv")
            rows = [f"99,{('sell', 'buy')[side]},{price / 100:.2f},{volume / 1e8:.8f},{name(order)}"
                    for side, price, volume, order in book]
            paths[1].write_text("\n".join(["sequence,side,price,size,order_id", *rows]) + "\n")
        return paths


def counts(chunks, what):
    return sum((Counter(getattr(chunk, what)) for chunk in chunks), Counter())


def orders_of(chunks):
    return [order for chunk in chunks for order in rows_of(chunk.orders)]


def of_plain(book):
    """A plain book as the arrays of a `Book`."""
    rows = book.resting()
    width = max(1, *(sum(row[0] == side for row in rows) for side in (0, 1)))
    price, volume, order_id = (np.zeros((2, width), np.int64) for _ in range(3))
    for side in (0, 1):
        for slot, row in enumerate(row for row in rows if row[0] == side):
            price[side, slot], volume[side, slot], order_id[side, slot] = row[1:]
    return types.SimpleNamespace(price=price, volume=volume, order_id=order_id)


def end_of(table, book):
    """(side, price, volume, number of the order) of all that rests, beside the book or in it."""
    found = table.resting(of_plain(book))
    return sorted((int(row.side == "buy"), round(row.price * 100), round(row.size * 1e8),
                   uuid.UUID(row.order_id).int // 0x1000_0000_0000_0001) for row in found.itertuples())


def test_what_each_message_becomes(tmp_path):
    channel = Channel()
    channel.tell("received", BUY, 10_000, 500, order=3)
    channel.tell("match", SELL, 9_990, 100, maker=1, taker=3)
    channel.tell("done", SELL, 9_990, left=0, order=1)
    channel.tell("match", SELL, 10_000, 50, maker=2, taker=3)
    channel.tell("done", BUY, 10_000, left=350, order=3)
    channel.tell("received", SELL, None, 20, order=4)
    channel.tell("match", BUY, 9_900, 20, maker=5, taker=4)
    channel.tell("done", SELL, None, left=0, order=4)
    channel.tell("received", SELL, 9_900, 60, order=6)
    channel.tell("match", BUY, 9_900, 10, maker=5, taker=6)
    channel.tell("done", BUY, 9_900, left=0, order=5)
    channel.tell("open", SELL, 9_900, left=50, order=6)
    channel.tell("change", SELL, 9_900, order=6, new=30)
    channel.tell("change", SELL, 9_900, order=6, new=70)
    channel.tell("received", BUY, 9_950, 60, order=7)
    channel.tell("done", BUY, 9_950, left=60, order=7)
    channel.tell("done", SELL, 9_900, left=70, order=6)
    channel.tell("done", SELL, 9_900, left=70, order=77)
    channel.tell("change", SELL, 9_900, order=78, new=30)
    table = OrderTable()
    start, chunk = coinbase.read(*channel.write(tmp_path, [(SELL, 9_990, 100, 1), (SELL, 10_000, 80, 2),
                                                           (BUY, 9_900, 30, 5)]), table=table)
    assert orders_of([start]) == [(SELL, 9990, 100, 0, -1, -1), (SELL, 10000, 80, 1, -1, -1),
                                  (BUY, 9900, 30, 2, -1, -1)]
    assert start.is_synthetic.all()
    assert orders_of([chunk]) == [
        (BUY, 10000, 150, 3, -1, -1), (SELL, 9900, 20, 4, -1, -1), (SELL, 9900, 60, 5, -1, -1),
        (CANCEL, 9900, 20, -1, SELL, 5), (CANCEL, 9900, 30, -1, SELL, 5), (SELL, 9900, 70, 6, -1, -1),
        (CANCEL, 9900, 70, -1, SELL, 6)]
    assert published([chunk]) == [(3, 0, 9990, 100), (3, 1, 10000, 50), (2, 4, 9900, 20), (2, 5, 9900, 10)]
    assert replay([start, chunk]).fills == published([chunk])
    assert chunk.ignored == {"never_open": 1, "unknown_order": 1}
    assert chunk.adapted == {"grown": 1}
    assert [table.numbers.name(number) for number in range(7)] == [name(x) for x in (1, 2, 5, 3, 4, 6, 6)]
    assert chunk.sequence[[0, 1, 2]].tolist() == [103, 106, 111]
    assert chunk.orders.time.s[0] == 20 * 3600


def test_large_orders_are_sent_in_parts(tmp_path):
    channel, large = Channel(), 3 * MOST + 7
    channel.tell("received", BUY, 10_000, 2 * large, order=3)
    channel.tell("match", SELL, 10_000, large, maker=1, taker=3)
    channel.tell("match", SELL, 10_000, 5, maker=2, taker=3)
    channel.tell("open", BUY, 10_000, left=large - 5, order=3)
    channel.tell("change", BUY, 10_000, order=3, new=MOST + 1)
    table = OrderTable()
    paths = channel.write(tmp_path, [(SELL, 10_000, large, 1), (SELL, 10_000, 5, 2)])
    chunks = list(coinbase.read(*paths, table=table))
    book = replay(chunks)
    assert end_of(table, book) == [(BUY, 10_000, MOST + 1, 3)]
    assert book.fills == published(chunks)
    assert sum(fill[3] for fill in book.fills) == large + 5
    assert max(order[2] for order in orders_of(chunks)) == MOST
    assert counts(chunks, "adapted") == {"cut_in_parts": 2}


def test_orders_too_high_are_kept_beside_the_book(tmp_path):
    channel, high = Channel(), MAX_PRICE + 1
    channel.tell("received", SELL, high, 5, order=2)
    channel.tell("open", SELL, high, left=5, order=2)
    channel.tell("match", SELL, 10**12, 2, maker=1, taker=5)
    channel.tell("done", SELL, 10**12, left=7, order=1)
    channel.tell("change", SELL, high, order=2, new=3)
    table = OrderTable()
    chunks = list(coinbase.read(*channel.write(tmp_path, [(SELL, 10**12, 9, 1), (SELL, MAX_PRICE, 4, 3)]), table=table))
    assert end_of(table, replay(chunks)) == [(SELL, MAX_PRICE, 4, 3), (SELL, high, 3, 2)]
    assert counts(chunks, "adapted") == {"beyond_price_limit": 2}
    assert counts(chunks, "ignored") == {"match_beyond_price_limit": 1}


def random_market(seed, count):
    """A channel and the book before and after it, as a plain book without limits holds it."""
    random, truth, channel, next_id = np.random.default_rng(seed), PlainBook(most_price=2**60), Channel(), 1

    def new_order():
        side = int(random.integers(2))
        price = int(random.choice([10_000 + int(random.integers(-5, 6)), 10**12 if side == SELL else 1],
                                  p=[0.95, 0.05]))
        return side, price, int(random.choice([int(random.integers(1, 100)), 3 * MOST + 1], p=[0.9, 0.1]))

    while next_id <= 30:
        side, price, volume = new_order()
        truth.send(side, price, volume, next_id, -1, -1)
        next_id += 1
    before = truth.resting()
    truth.fills = []
    for _ in range(count):
        what = random.random()
        if what < 0.6 or len(truth.place) < 10:
            side, price, volume = new_order()
            is_market, start = random.random() < 0.1, len(truth.fills)
            limit = (10**11 if side == BUY else 1) if is_market else price
            channel.tell("received", side, None if is_market else price, volume, order=next_id)
            truth.send(side, limit, volume, next_id, -1, -1)
            for fill in truth.fills[start:]:
                maker = fill[side == BUY]
                channel.tell("match", 1 - side, fill[2], fill[3], maker=maker, taker=next_id)
                if maker not in truth.place:
                    channel.tell("done", 1 - side, fill[2], left=0, order=maker)
            left = truth.left(next_id) if next_id in truth.place else 0
            if left and (is_market or random.random() < 0.1):
                truth.reduce(next_id, left)
                channel.tell("done", side, None if is_market else price, left=left, order=next_id)
            elif left:
                channel.tell("open", side, price, left=left, order=next_id)
            else:
                channel.tell("done", side, None if is_market else price, left=0, order=next_id)
            next_id += 1
        else:
            order = int(random.choice(list(truth.place)))
            side, price = truth.place[order]
            left = truth.left(order)
            if what < 0.85:
                truth.reduce(order, left)
                channel.tell("done", side, price, left=left, order=order)
            elif left > 1:
                size = int(random.integers(1, left))
                truth.reduce(order, left - size)
                channel.tell("change", side, price, order=order, new=size)
    return channel, before, truth


@pytest.mark.parametrize("seed", range(4))
def test_random_markets_come_out_as_they_were(tmp_path, seed):
    channel, before, truth = random_market(seed, 300)
    paths = channel.write(tmp_path, before)
    for chunk_rows in (13, 10_000):
        table = OrderTable()
        chunks = list(coinbase.read(*paths, table=table, chunk_rows=chunk_rows))
        book = replay(chunks)
        assert end_of(table, book) == sorted(truth.resting())
        assert book.fills == published(chunks)
        assert sum(fill[2] * fill[3] for fill in book.fills) == sum(fill[2] * fill[3] for fill in truth.fills)
        # Queues are those of the exchange: the parts of an order stand together, in its place.
        names = [uuid.UUID(table.numbers.name(row[3])).int // 0x1000_0000_0000_0001 for row in book.resting()]
        in_turn = [number for place, number in enumerate(names) if not place or names[place - 1] != number]
        assert in_turn == [row[3] for row in truth.resting() if row[1] <= MAX_PRICE]
        assert not set(counts(chunks, "adapted")) - {"cut_in_parts", "beyond_price_limit"}


def test_without_a_book_unknown_orders_are_told(tmp_path):
    channel, before, _ = random_market(0, 100)
    chunks = list(coinbase.read(*channel.write(tmp_path)))
    replay(chunks)
    assert counts(chunks, "ignored")["match_of_unknown_order"] > 0
    assert before


def test_messages_from_before_the_book_are_left_out(tmp_path):
    channel = Channel(first=97)
    for order in (1, 2, 3):
        channel.tell("open", BUY, 10_000, left=5, order=order)
    channel.tell("open", BUY, 10_000, left=5, order=4)
    for chunk_rows in (1, 100):
        chunks = list(coinbase.read(*channel.write(tmp_path, [(BUY, 10_000, 5, 3)]), chunk_rows=chunk_rows))
        assert len(orders_of(chunks)) == 2
        assert counts(chunks, "ignored") == {"before_the_book": 3}


def broken(change):
    channel = Channel()
    channel.tell("received", BUY, 10_000, 5, order=1)
    channel.tell("open", BUY, 10_000, left=5, order=1)
    channel.tell("received", SELL, 10_000, 2, order=2)
    channel.tell("match", BUY, 10_000, 2, maker=1, taker=2)
    channel.tell("done", SELL, 10_000, left=0, order=2)
    channel.tell("done", BUY, 10_000, left=3, order=1)
    change(channel.lines)
    return channel


def swap(row, old, new):
    def change(lines):
        assert old in lines[row]
        lines[row] = lines[row].replace(old, new, 1)

    return change


DAMAGE = {
    "a gap": (lambda lines: lines.pop(2), r"line 4, column sequence: expected the number after that.*got 103"),
    "time": (swap(2, "2018-07-13", "2018-07-12"), r"line 4, column time: expected no time before"),
    "midnight": (swap(5, "2018-07-13", "2018-07-14"), r"line 7, column time: expected a time of 2018-07-13 in UTC"),
    "type": (swap(2, "received", "refused"), r"line 4, column type: expected one of received"),
    "side": (swap(1, "buy", "bid"), r"line 3, column side: expected buy or sell"),
    "product": (swap(3, "BTC-USD", "ETH-USD"), r"line 5, column product_id: expected BTC-USD alone"),
    "price": (swap(1, "100.00", "100.005"), r"line 3, column price: expected a number in steps of 0.01"),
    "no price": (swap(1, "100.00", ""), r"line 3, column price: expected a number above 0"),
    "negative": (swap(1, "0.00000005", "-0.00000005"), r"line 3, column remaining_size: expected a number above 0"),
    "word": (swap(5, "0.00000003", "three"), r"line 7, column remaining_size: expected a number in steps.*got three"),
    "size": (swap(3, "0.00000002", "99999999.00"), r"line 5, column size: expected a number in steps of 0.00000001"),
    "digits": (swap(3, "0.00000002", "1e2000000"), r"line 5, column size: expected a number in steps of 0.00000001"),
    "left": (swap(5, "0.00000003", "0.00000004"), r"line 7, column remaining_size: expected the 0.00000003 that are"),
    "too much": (swap(3, "0.00000002", "0.00000009"), r"line 5, column size: expected no more than is left"),
    "id": (swap(0, name(1), "order-1"), r"line 2, column order_id: expected a UUID, got order-1"),
    "twice": (swap(2, name(2), name(1)), r"line 4, column order_id: expected a new order"),
    "field": (swap(2, "BTC-USD,", "BTC-USD"), r"line 4"),
}


@pytest.mark.parametrize("chunk_rows", [1, 100])
@pytest.mark.parametrize("what", DAMAGE)
def test_damage_is_named(tmp_path, what, chunk_rows):
    change, message = DAMAGE[what]
    paths = broken(change).write(tmp_path, [])
    paths[1].write_text(f"sequence,side,price,size,order_id\n99,sell,200.00,0.5,{name(9)}\n")
    with pytest.raises(FeedError, match=r"messages\.csv: .*" + message):
        list(coinbase.read(*paths, chunk_rows=chunk_rows))


def test_a_damaged_book_is_named(tmp_path):
    paths = broken(lambda lines: None).write(tmp_path, [(BUY, 10_000, 5, 3), (BUY, 10_000, 5, 3)])
    with pytest.raises(FeedError, match=r"beginning_level_3\.csv: line 3, column order_id: expected a new order"):
        list(coinbase.read(*paths))
    paths[1].write_text(paths[1].read_text().replace("99,", "98,", 1))
    with pytest.raises(FeedError, match="line 3, column sequence: expected 98"):
        list(coinbase.read(*paths))
    with pytest.raises(FileNotFoundError, match="nothing"):
        coinbase.read(paths[0], tmp_path / "nothing.csv")


def test_days_are_found_with_their_books(tmp_path):
    (tmp_path / "a").mkdir()
    broken(lambda lines: None).write(tmp_path, [(BUY, 9_000, 5, 3)])
    for file in ("messages.csv", "beginning_level_3.csv"):
        (tmp_path / f"eve_{file}").write_text((tmp_path / file).read_text())
    days = coinbase.days(tmp_path)
    assert [day.name for day in days] == ["BTC-USD_2018-07-13", "BTC-USD_2018-07-13_eve"]
    assert [len(orders_of(day.read())) for day in days] == [4, 4]
    assert days[0].venue.units == Units(price="0.01", volume="0.00000001")
    with pytest.raises(FileNotFoundError, match=r"messages\.csv"):
        coinbase.days(tmp_path / "a")
    (tmp_path / "a" / "messages.csv").write_text(HEADER + "\n")
    with pytest.raises(FeedError, match=r"messages\.csv: line 2: expected messages, got only a header"):
        coinbase.days(tmp_path / "a")


@pytest.fixture(scope="module")
def real(data_folder):
    return [data_folder / "coinbase" / f"{name}.csv.gz" for name in ("messages", "beginning_level_3", "ending_level_3")]


def assert_same_orders(found, path):
    expected = pd.read_csv(path)
    both = found.merge(expected, on="order_id", suffixes=("", "_there"), how="outer")
    assert len(found) == len(expected) == len(both) == 66_833
    assert (both["side"] == both["side_there"]).all()
    np.testing.assert_allclose(both["price"], both["price_there"], rtol=0, atol=1e-9, equal_nan=False)
    np.testing.assert_allclose(both["size"], both["size_there"], rtol=0, atol=1e-11, equal_nan=False)


def test_ten_real_minutes_end_in_the_published_book(real):
    """All 66,833 orders: id, side, price and size; and every match as it was published."""
    table = OrderTable()
    chunks = list(coinbase.read(*real[:2], table=table))
    book = replay(chunks)
    assert_same_orders(table.resting(of_plain(book)), real[2])
    assert (book.fills, len(book.fills)) == (published(chunks), 501)
    assert counts(chunks, "ignored") == {"never_open": 96}
    assert counts(chunks, "adapted") == {"cut_in_parts": 3480, "beyond_price_limit": 49}


@pytest.mark.slow
def test_ten_real_minutes_through_the_exchange_end_in_the_published_book(real, data_folder):
    (day,) = coinbase.days(data_folder / "coinbase")
    market, table = day.venue.market(), OrderTable()
    statuses, markets = Counter(), None
    feed = coinbase.read(*real[:2], table=table)
    for event in market_replay.replay(market, [feed], with_views=False):
        if isinstance(event, market_replay.Stretch):
            statuses.update(event.reports.status.tolist())
        elif isinstance(event, market_replay.Closing):
            markets = event.markets
    assert set(statuses) == {Status.ACCEPTED}
    assert_same_orders(table.resting(jax.tree.map(lambda x: np.asarray(x)[0], markets.book)), real[2])
    assert int(np.asarray(markets.counters.fills)[0]) == 501
