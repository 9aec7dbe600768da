"""Databento's records: every action, CSV and DBN alike, laws of random markets, damage, and two real files."""

import datetime
import os
import types
from collections import Counter

import numpy as np
import pytest
import zstandard

from marsjax.core.errors import InputError
from marsjax.core.records import Kind
from marsjax.data import databento
from marsjax.data.feed import FeedError
from marsjax.data.order_ids import NumberedIds
from tests.plain_book import PlainBook, published, replay, rows_of

BUY, SELL, CANCEL = int(Kind.BUY), int(Kind.SELL), int(Kind.CANCEL)
HEADER = ("ts_recv,ts_event,rtype,publisher_id,instrument_id,action,side,price,size,channel_id,order_id,flags,sequence,"
          "symbol")
START = datetime.datetime(2025, 7, 17, 13, 30)


def line(second, action, side, price, size, order_id, symbol="ARL", publisher=2, flags=128, recv=None):
    stamp = (START + datetime.timedelta(seconds=second)).strftime("%Y-%m-%dT%H:%M:%S.%f") + "789Z"
    price = "" if price is None else f"{price:.9f}"
    return (f"{recv or stamp},{stamp},160,{publisher},1108,{action},{side},{price},{size},0,{order_id},{flags},1,"
            f"{symbol}")


def write(folder, lines, name="day.csv"):
    path = folder / name
    path.write_text("\n".join([HEADER, *lines]) + "\n")
    return path


def orders_of(chunks):
    return [order for chunk in chunks for order in rows_of(chunk.orders)]


def counts(chunks, name):
    return sum((Counter(getattr(chunk, name)) for chunk in chunks), Counter())


def test_every_action(tmp_path):
    path = write(tmp_path, [
        line(0, "R", "N", None, 0, 0), line(1, "A", "B", 10.0, 100, 7001), line(1, "A", "A", 10.05, 50, 7002),
        line(1, "A", "A", 10.05, 60, 7003), line(2, "C", "B", 10.0, 30, 7001), line(3, "M", "B", 10.0, 50, 7001),
        line(4, "M", "B", 10.01, 50, 7001), line(5, "T", "B", 10.05, 110, 0), line(5, "F", "A", 10.05, 50, 7002),
        line(5, "C", "A", 10.05, 50, 7002), line(5, "F", "A", 10.05, 60, 7003), line(5, "C", "A", 10.05, 60, 7003),
        line(5, "A", "B", 10.05, 5, 7004), line(6, "T", "N", 10.02, 9, 0), line(7, "N", "N", None, 0, 0),
        line(8, "C", "B", 10.05, 2, 7004), line(9, "R", "N", None, 0, 0), line(10, "A", "A", 10.06, 1, 7001)])
    ids = NumberedIds()
    chunk, *rest = databento.read(path, ids=ids)
    assert not orders_of(rest)
    assert orders_of([chunk]) == [
        (BUY, 100000, 100, 0, -1, -1), (SELL, 100500, 50, 1, -1, -1), (SELL, 100500, 60, 2, -1, -1),
        (CANCEL, 100000, 30, -1, BUY, 0), (CANCEL, 100000, 20, -1, BUY, 0),
        (CANCEL, 100000, 50, -1, BUY, 0), (BUY, 100100, 50, 3, -1, -1),  # another price: a new place
        (BUY, 100500, 115, 4, -1, -1), (CANCEL, 100500, 2, -1, BUY, 4),
        (CANCEL, 100500, 3, -1, BUY, 4), (CANCEL, 100100, 50, -1, BUY, 3), (SELL, 100600, 1, 5, -1, -1)]
    assert ids.names(np.arange(6)).tolist() == [7001, 7002, 7003, 7001, 7004, 7001]
    assert published([chunk]) == replay([chunk]).fills == [(4, 1, 100500, 50), (4, 2, 100500, 60)]
    assert counts([chunk, *rest], "ignored") == {"trade_without_fill": 1, "no_action": 1}
    assert chunk.adapted == {"cleared": 2}
    assert chunk.is_synthetic.tolist() == [False] * 9 + [True] * 2 + [False]
    assert chunk.sequence.tolist() == [1, 2, 3, 4, 5, 6, 6, 12, 15, 16, 16, 17]
    # 13:30:00 of UTC is 9:30:00 in New York in summer.
    assert (chunk.orders.time.s[0], chunk.orders.time.ns[0]) == (9 * 3600 + 1801, 789)


def test_a_feed_that_begins_in_the_middle_tells_what_it_does_not_know(tmp_path):
    chunks = list(databento.read(write(tmp_path, [
        line(1, "A", "A", 10.05, 50, 2), line(2, "C", "A", 10.05, 5, 1), line(3, "T", "B", 10.05, 8, 0),
        line(3, "F", "A", 10.05, 8, 1), line(3, "C", "A", 10.05, 8, 1), line(4, "M", "B", 10.0, 7, 3),
        line(5, "C", "B", 10.0, 7, 3)])))
    assert orders_of(chunks) == [(SELL, 100500, 50, 0, -1, -1), (BUY, 100000, 7, 1, -1, -1),
                                 (CANCEL, 100000, 7, -1, BUY, 1)]
    assert counts(chunks, "ignored") == {"unknown_order": 2, "fill_of_unknown_order": 1}
    assert counts(chunks, "adapted") == {"modified_unknown": 1}
    assert not published(chunks)


def test_fills_out_of_turn_and_stub_quotes(tmp_path):
    chunks = list(databento.read(write(tmp_path, [
        line(1, "A", "A", 10.05, 50, 1), line(1, "A", "A", 10.05, 50, 2), line(1, "A", "A", 199999.99, 50, 3),
        line(2, "F", "A", 10.05, 8, 2), line(2, "C", "A", 10.05, 8, 2), line(3, "C", "A", 199999.99, 50, 3),
        line(4, "F", "A", 10.04, 8, 1), line(4, "C", "A", 10.04, 8, 1)])))
    assert orders_of(chunks)[2:] == [(CANCEL, 100500, 8, -1, SELL, 1), (CANCEL, 100500, 8, -1, SELL, 0)]
    assert counts(chunks, "adapted") == {"out_of_turn": 2, "beyond_price_limit": 1}
    assert not counts(chunks, "ignored")


def test_a_snapshot_has_the_time_at_which_it_was_taken(tmp_path):
    old = {"flags": 40, "recv": "2025-07-17T13:30:00.000000000Z"}
    (chunk,) = databento.read(write(tmp_path, [
        line(-86_400, "R", "N", None, 0, 0, **old), line(-90_000, "A", "B", 10.0, 100, 7, **old),
        line(-95_000, "A", "B", 10.0, 100, 8, **old), line(1, "C", "B", 10.0, 100, 8)]))
    assert chunk.orders.time.s.tolist() == [34_200, 34_200, 34_201]


def random_feed(seed, count, style):
    """Records of two symbols, each a random market, in the way of ITCH or of CME; and the books after them."""
    random, lines, books = np.random.default_rng(seed), [], {"AAA": PlainBook(), "BBB": PlainBook()}
    next_id = 9_000_000_000_001
    for second in range(count):
        symbol = "AAA" if random.random() < 0.7 else "BBB"
        book = books[symbol]

        def tell(action, side, price, size, order_id, symbol=symbol, second=second):
            lines.append(line(second, action, "AB"[side], price / 10_000, size, order_id, symbol))

        what, side = random.random(), int(random.integers(2))
        if what < 0.55 or len(book.place) < 8:
            price, size = 100_000 + 100 * int(random.integers(-4, 5)), int(random.integers(1, 100))
            before = len(book.fills)
            book.send(side, price, size, next_id, -1, -1)
            fills = book.fills[before:]
            taker = next_id if style == "cme" else 0
            if fills and style == "cme":
                tell("T", side, fills[-1][2], sum(fill[3] for fill in fills), taker)
            for fill in fills:
                if style == "itch":
                    tell("T", side, fill[2], fill[3], 0)
                tell("F", 1 - side, fill[2], fill[3], fill[side == BUY])
                if style == "itch":
                    tell("C", 1 - side, fill[2], fill[3], fill[side == BUY])
            if style == "cme":
                for fill in fills:
                    resting = fill[side == BUY]
                    if resting in book.place:
                        tell("M", 1 - side, fill[2], book.left(resting), resting)
                    else:
                        tell("C", 1 - side, fill[2], fill[3], resting)
            if next_id in book.place:
                tell("A", side, price, book.left(next_id), next_id)
            next_id += 1
        else:
            order_id = int(random.choice(list(book.place)))
            side, price = book.place[order_id]
            left = book.left(order_id)
            if what < 0.85:
                size = left if random.random() < 0.6 else int(random.integers(1, left + 1))
                book.reduce(order_id, size)
                tell("C", side, price, size, order_id)
            else:
                size = int(random.integers(1, 2 * left + 1))
                if random.random() < 0.5:  # away from the other side, so that it does not trade
                    price += 100 if side == SELL else -100
                if price == book.place[order_id][1] and size <= left:
                    book.reduce(order_id, left - size) if size < left else None
                else:
                    book.reduce(order_id, left)
                    book.send(side, price, size, order_id, -1, -1)
                tell("M", side, price, size, order_id)
    return lines, books


@pytest.mark.parametrize("style", ["itch", "cme"])
@pytest.mark.parametrize("seed", range(3))
def test_random_markets_come_out_as_they_were(tmp_path, seed, style):
    """The orders of each symbol lead to its book, by id and place, with the fills that were told."""
    lines, books = random_feed(seed, 500, style)
    path = write(tmp_path, lines)
    for symbol, truth in books.items():
        for chunk_rows, grouped in ((11, True), (10_000, True), (10_000, False)):
            ids = NumberedIds()
            chunks = list(databento.read(path, symbol, ids=ids, chunk_rows=chunk_rows, grouped=grouped))
            book = replay(chunks)
            names = ids.names(np.arange(len(ids))).tolist()
            assert [(side, price, left, names[number]) for side, price, left, number in book.resting()
                    ] == truth.resting()
            assert book.fills == published(chunks)
            assert sum(fill[3] for fill in book.fills) == sum(fill[3] for fill in truth.fills)
            if grouped:
                assert [fill[2:] for fill in book.fills] == [fill[2:] for fill in truth.fills]
            assert not counts(chunks, "ignored")
            assert not counts(chunks, "adapted")


def test_symbols_publishers_and_units_are_found(tmp_path):
    write(tmp_path, [line(1, "A", "A", 10.05, 50, 1), line(2, "A", "A", 110.015625, 50, 1, "ZN", 1),
                     line(3, "A", "A", 0.1234, 50, 1, "PENY"), line(4, "A", "B", 10.04, 50, 1, "ARL", 9),
                     line(5, "A", "B", 6000.25, 50, 3, "MES", 1), line(6, "A", "B", 6000.5, 50, 4, "MES", 1)])
    found = {day.name: day for day in databento.days(tmp_path)}
    assert {name: (day.venue.units.price, day.venue.tick) for name, day in found.items()} == {
        "ARL_2025-07-17_publisher2": ("0.0001", 100), "ARL_2025-07-17_publisher9": ("0.0001", 100),
        "MES_2025-07-17": ("0.0001", 2500), "PENY_2025-07-17": ("0.0001", 1),
        "ZN_2025-07-17": ("0.000001", 110_015_625)}
    for day in found.values():
        (chunk,) = day.read()
        assert not (chunk.orders.price % day.venue.tick).any()
        assert (chunk.orders.price > 0).all()
    assert [day.name for day in databento.days(tmp_path / "day.csv", ["MES"])] == ["MES_2025-07-17"]
    # The times of futures are those of UTC, those of stocks those of New York.
    assert [next(found[f"{name}_2025-07-17"].read()).orders.time.s[0] // 3600 for name in ("MES", "PENY")] == [13, 9]


def test_integers_and_local_stamps_read_the_same(tmp_path):
    lines = [line(1, "A", "B", 10.01, 100, 7001), line(2, "C", "B", 10.01, 100, 7001)]
    first = orders_of(databento.read(write(tmp_path, lines)))
    raw = [x.replace("2025-07-17T13:30:01.000000789Z", "1752759001000000789").replace(
        "2025-07-17T13:30:02.000000789Z", "1752759002000000789").replace("10.010000000", "10010000000") for x in lines]
    local = [x.replace("T13:30", "T09:30").replace("789Z", "789-04:00") for x in lines]
    for other in (raw, local):
        (chunk,) = databento.read(write(tmp_path, other))
        assert orders_of([chunk]) == first
        assert (chunk.orders.time.s.tolist(), chunk.orders.time.ns.tolist()) == ([34_201, 34_202], [789, 789])


ADD_1 = line(1, "A", "B", 10.01, 100, 1)
DAMAGE = {
    "a second symbol": (line(2, "A", "B", 10.01, 100, 2, "XYZ"), r"line 3, column symbol: expected ARL alone.*got XYZ"),
    "a second publisher": (line(2, "A", "B", 10.01, 100, 2, publisher=9), r"publisher_id: expected 2 alone.*got 9"),
    "an id that rests": (line(2, "A", "B", 10.02, 100, 1), r"line 3, column order_id: expected a new order.*got 1"),
    "time runs back": (line(0, "A", "B", 10.02, 100, 2), r"line 3, column ts_event: expected no time before"),
    "midnight": (line(52_200, "A", "B", 10.02, 100, 2), r"ts_event: expected a time of 2025-07-17 in America/N"),
    "a letter": (line(2, "Q", "B", 10.02, 100, 2), r"line 3, column action: expected one of A, C.*got Q"),
    "no side": (line(2, "A", "N", 10.02, 100, 2), r"line 3, column side: expected A or B, got N"),
    "no price": (line(2, "A", "B", None, 100, 2), r"line 3, column price: expected a price above 0"),
    "a fine price": (line(2, "A", "B", 10.00005, 100, 2), r"line 3, column price: expected a price in steps of 0.0001"),
    "no size": (line(2, "A", "B", 10.02, 0, 2), r"line 3, column size: expected 1 to 2147483647, got 0"),
    "a negative id": (line(2, "A", "B", 10.02, 100, -2), r"line 3, column order_id: expected a whole number from 0"),
    "a word": (line(2, "A", "B", 10.02, "many", 2), r"line 3, column size: expected a number, got many"),
    "no zone": (line(2, "A", "B", 10.02, 100, 2).replace("Z", ""), r"line 3, column ts_event: expected a time such as"),
    "no day": (line(2, "A", "B", 10.02, 100, 2).replace("07-17", "02-30"), r"ts_event: expected a day of the cal"),
    "short": (line(2, "A", "B", 10.02, 100, 2).rsplit(",", 1)[0], r"line 3"),
}


@pytest.mark.parametrize("chunk_rows", [1, 100])
@pytest.mark.parametrize("what", DAMAGE)
def test_damage_is_named(tmp_path, what, chunk_rows):
    bad, message = DAMAGE[what]
    path = write(tmp_path, [ADD_1, bad])
    with pytest.raises(FeedError, match=r"day\.csv: .*" + message):
        list(databento.read(path, chunk_rows=chunk_rows))


def test_an_id_comes_once_until_the_book_is_cleared(tmp_path):
    lines = [ADD_1, line(2, "C", "B", 10.01, 100, 1), line(3, "A", "B", 10.01, 100, 1)]
    for chunk_rows in (1, 100):
        with pytest.raises(FeedError, match="line 4, column order_id: expected a new order"):
            list(databento.read(write(tmp_path, lines), chunk_rows=chunk_rows))
        lines_2 = [*lines[:2], line(2, "R", "N", None, 0, 0), lines[2]]
        assert len(orders_of(databento.read(write(tmp_path, lines_2), chunk_rows=chunk_rows))) == 3


def test_arguments_are_checked(tmp_path):
    path = write(tmp_path, [ADD_1])
    with pytest.raises(FeedError, match="expected records of symbol 'XYZ'"):
        list(databento.read(path, "XYZ"))
    with pytest.raises(InputError, match=r"time_zone: expected a name such as UTC.*'Mars'"):
        list(databento.read(path, time_zone="Mars"))
    with pytest.raises(InputError, match="price"):
        databento.read(path, price_unit="cent")
    with pytest.raises(FileNotFoundError, match="nothing"):
        databento.read(tmp_path / "nothing.csv")
    with pytest.raises(FileNotFoundError, match="no day for symbol=XYZ"):
        databento.days(tmp_path, ["XYZ"])
    with pytest.raises(FeedError, match="expected records, got only a header"):
        list(databento.read(write(tmp_path, [])))


def dbn_file(library, folder, lines, name="day.dbn"):
    """The same records as of `write`, by Databento's library."""
    space = types.SimpleNamespace
    mapping = space(raw_symbol="ARL", intervals=[space(start_date=datetime.date(2025, 7, 17),
                                                       end_date=datetime.date(2025, 7, 18), symbol="1108")])
    metadata = library.Metadata(
        dataset="XNAS.ITCH", start=0, stype_in=library.SType.RAW_SYMBOL, stype_out=library.SType.INSTRUMENT_ID,
        schema=library.Schema.MBO, symbols=["ARL"], partial=[], not_found=[], mappings=[mapping])
    data = [metadata.encode()]
    for text in lines:
        fields = dict(zip(HEADER.split(","), text.split(","), strict=True))
        stamp = int(np.datetime64(fields["ts_event"].rstrip("Z"), "ns").astype(np.int64))
        price = round(float(fields["price"]) * 1e9) if fields["price"] else library.UNDEF_PRICE
        data.append(bytes(library.MBOMsg(
            2, 1108, stamp, int(fields["order_id"]), price, int(fields["size"]), library.Action(fields["action"]),
            library.Side(fields["side"]), stamp, flags=int(fields["flags"]), sequence=1)))
    content = b"".join(data)
    path = folder / name
    path.write_bytes(zstandard.compress(content) if name.endswith(".zst") else content)
    return path


@pytest.mark.parametrize("name", ["day.dbn", "day.dbn.zst"])
def test_dbn_is_the_same_as_csv(tmp_path, name):
    library = pytest.importorskip("databento_dbn")
    lines = [x for x in random_feed(0, 200, "itch")[0] if x.endswith("AAA")]
    lines = [x.replace(",AAA", ",ARL") for x in lines]
    expected = orders_of(databento.read(write(tmp_path, lines)))
    path = dbn_file(library, tmp_path, lines, name)
    for chunk_rows in (10, 1000):
        assert orders_of(databento.read(path, chunk_rows=chunk_rows)) == expected
    (day,) = databento.days(path)
    assert (day.name, orders_of(day.read())) == ("ARL_2025-07-17", expected)
    whole = path.read_bytes()
    for cut in (len(whole) - 20, len(whole) // 2, 60, 3):
        path.write_bytes(whole[:cut])
        with pytest.raises(FeedError, match=r"day\.dbn.*expected"):
            list(databento.read(path))


def test_without_the_library_the_extra_is_named(tmp_path, monkeypatch):
    def fails(name):
        raise ImportError(name)

    monkeypatch.setattr("importlib.import_module", fails)
    (tmp_path / "day.dbn").write_bytes(b"DBN")
    with pytest.raises(InputError, match=r"pip install 'marsjax\[databento\]'"):
        list(databento.read(tmp_path / "day.dbn"))


def test_a_pipe_is_not_waited_for(tmp_path):
    pytest.importorskip("databento_dbn")
    os.mkfifo(tmp_path / "day.dbn")
    with pytest.raises(OSError, match="expected a file, got a pipe"):
        databento.days(tmp_path)


def test_a_real_stock_day(data_folder):
    (day,) = databento.days(data_folder / "databento", ["ARL"])
    chunks = list(day.read())
    book = replay(chunks)
    assert (day.name, len(orders_of(chunks)), day.venue.tick) == ("ARL_2025-07-17", 5826, 100)
    assert counts(chunks, "ignored") == {"trade_without_fill": 35}
    assert not counts(chunks, "adapted")
    assert book.fills == published(chunks)
    assert len(book.fills) == 11


def test_a_real_minute_of_a_future(data_folder):
    (day,) = databento.days(data_folder / "databento", ["MESH5"])
    chunks = list(day.read())
    book = replay(chunks)
    assert (day.name, day.venue.tick) == ("MESH5_2025-01-21", 2500)
    assert counts(chunks, "ignored") == {"unknown_order": 193, "fill_of_unknown_order": 13}
    assert counts(chunks, "adapted") == {"modified_unknown": 55, "out_of_turn": 1}
    assert book.fills == published(chunks)
    assert len(book.fills) == 184
