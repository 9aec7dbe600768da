"""LOBSTER with its book file: the book holds what the file shows after every row, and names and sessions of files."""

import gzip
from collections import Counter

import numpy as np
import pandas as pd
import pytest

from marsjax.core.errors import InputError
from marsjax.core.records import MAX_PRICE, Status
from marsjax.core.sessions import Phase, phase_at
from marsjax.core.specs import MarketSpec
from marsjax.core.times import SECOND_NS
from marsjax.data import lobster
from marsjax.data.feed import FeedError
from marsjax.sim import replay
from tests.plain_book import PlainBook, rows_of

NOTHING = {0: "9999999999,0", 1: "-9999999999,0"}


SMALL = (["34200,1,1,10,1000000,-1", "34200,1,2,5,999900,1", "34201,4,1,10,1000000,-1", "34201,4,7,20,1000100,-1",
          "34201,4,8,30,1000200,-1", "34201,1,9,5,1000250,1", "34202,3,9,5,1000250,1"],
         ["1000000,10,999800,7", "1000000,10,999900,5", "1000100,20,999900,5", "1000200,30,999900,5",
          "1000300,1,999900,5", "1000300,1,1000250,5", "1000300,1,999900,5"])


def random_market(seed, count, levels, halt=False):
    """Messages and book rows of N levels, as LOBSTER would show them, of orders sent to a plain book."""
    random, book = np.random.default_rng(seed), PlainBook()
    messages, rows, next_id, time = [], [], 1, 34_200.0
    for order_id in range(1, 41):
        side = order_id % 2
        book.send(side, 1_000_000 + (1 - 2 * side) * 100 * (1 + order_id // 4), 100, order_id, -1, -1)
        next_id = order_id + 1

    def seen():
        return [book.top(side, levels) for side in (0, 1)]

    def tell(kind, order_id, size, price, side, before):
        shown = seen()
        # Outside the window nothing is told, and what happens there is not seen.
        if shown != before:
            messages.append(f"{time:.9f},{kind},{order_id},{size},{price},{1 if side else -1}")
            rows.append(",".join(part for level in range(levels) for side_, row in enumerate(shown) for part in (
                [f"{row[level][0]},{row[level][1]}"] if level < len(row) else [NOTHING[side_]])))

    while len(messages) < count:
        time += float(random.exponential(0.01))
        before, what = seen(), random.random()
        side = int(random.integers(2))
        if what < 0.5 or len(book.place) < 10:
            best = book.prices[1 - side][0] if book.prices[1 - side] else (1_000_000 if side else -1_000_000)
            touch = abs(best) + (100 if side == 0 else -100)
            price = touch + (1 - 2 * side) * 100 * int(random.integers(0, 3 * levels))
            size = int(random.integers(1, 200))
            book.send(side, price, size, next_id, -1, -1)
            tell(1, next_id, size, price, side, before)
            next_id += 1
        elif what < 0.9:
            order_id = int(random.choice(list(book.place)))
            side, price = book.place[order_id]
            left = book.left(order_id)
            size = left if random.random() < 0.6 else int(random.integers(1, left + 1))
            book.reduce(order_id, size)
            tell(3 if size == left else 2, order_id, size, price, side, before)
        else:
            for _ in range(int(random.integers(1, 5))):
                if not book.prices[side]:
                    break
                before = seen()
                price = abs(book.prices[side][0])
                order_id = next(iter(book.levels[side][price]))
                left = book.left(order_id)
                size = left if random.random() < 0.8 else int(random.integers(1, left + 1))
                book.reduce(order_id, size)
                tell(4, order_id, size, price, side, before)
        if random.random() < 0.05 and messages:
            messages.append(f"{time:.9f},5,0,10,1000050,1")
            rows.append(rows[-1])
    return messages, rows


def write(folder, messages, rows, name="X_2024-01-02_34200000_57600000", levels="2"):
    paths = folder / f"{name}_message_{levels}.csv", folder / f"{name}_orderbook_{levels}.csv"
    for path, lines in zip(paths, (messages, rows), strict=True):
        path.write_text("".join(f"{line}\n" for line in lines))
    return paths


def shown(row):
    numbers = [int(x) for x in row.split(",")]
    levels = [tuple(numbers[i:i + 2]) for i in range(0, len(numbers), 2)]
    return [[level for level in levels[side::2] if level[1]] for side in (0, 1)]


def compare(chunks, rows, levels):
    """Replays orders, none of which may be refused; after each row that has orders the book must show it."""
    book, compared, counts = PlainBook(), 0, Counter()
    for chunk in chunks:
        counts.update(chunk.adapted)
        sequence = chunk.sequence.tolist()
        for number, order in enumerate(rows_of(chunk.orders)):
            book.send(*order)
            row = sequence[number]
            if row >= 0 and (number + 1 == len(sequence) or sequence[number + 1] != row):
                assert [book.top(side, levels) for side in (0, 1)] == shown(rows[row]), f"row {row}"
                compared += 1
    return compared, counts, book


@pytest.mark.parametrize("levels", [1, 2, 5])
@pytest.mark.parametrize("seed", range(3))
def test_the_book_is_that_of_the_file_after_every_row(tmp_path, seed, levels):
    messages, rows = random_market(seed, 400, levels)
    paths = write(tmp_path, messages, rows)
    for chunk_rows in (7, 1000):
        chunks = list(lobster.read(*paths, grouped=False, follow=True, chunk_rows=chunk_rows))
        compared, counts, _ = compare(chunks, rows, levels)
        assert compared == sum(",5,0,10," not in message for message in messages)
        assert counts["refilled"] > 5
        assert counts["pruned"] > 0
        assert not counts["rows_put_right"]
        synthetic = np.concatenate([np.zeros(len(chunk.sequence), bool) if chunk.is_synthetic is None
                                    else chunk.is_synthetic for chunk in chunks])
        sequence = np.concatenate([chunk.sequence for chunk in chunks])
        assert synthetic.sum() == counts["refilled"] + counts["pruned"] + np.sum(sequence == -1)


def test_groups_need_their_levels_before_they_trade(tmp_path):
    """A sweep through more levels than the file shows: each comes into sight when the one before it is gone."""
    paths = write(tmp_path, *SMALL)
    chunks = list(lobster.read(*paths, follow=True))
    book = PlainBook()
    for order in (order for chunk in chunks for order in rows_of(chunk.orders)):
        book.send(*order)
    assert [fill[2:] for fill in book.fills] == [(1000000, 10), (1000100, 20), (1000200, 30)]
    assert {fill[0] for fill in book.fills} == {9}
    assert (book.top(0, 1), book.top(1, 2)) == ([(1000300, 1)], [(999900, 5), (999800, 7)])


@pytest.mark.parametrize("chunk_rows", [2, 100])
@pytest.mark.parametrize(("row", "lines", "message"), [
    (6, [], r"line 6: expected one more row, one a message"),
    (6, [SMALL[1][6]] * 2, "expected one row a message, got more than the 7 messages"),
    (4, ["1000300,2,999900,6"], "line 5: expected the bids to change as message 4 says"),
    (4, ["1000300,2,999900,5"], "line 6: expected the asks to change as message 5 says"),
    (2, ["1000100,20,999900,5,1,2,3,4"], "line 3: expected 4 fields"),
    (2, ["1000100,x,999900,5"], "line 3, column ask_size_1: expected a number"),
    (2, ["-5,20,999900,5"], "line 3, column ask_price_1: expected prices above 0")])
def test_a_book_file_that_does_not_fit_is_refused(tmp_path, row, lines, message, chunk_rows):
    rows = list(SMALL[1])
    rows[row:row + 1] = lines
    with pytest.raises(FeedError, match=message):
        list(lobster.read(*write(tmp_path, SMALL[0], rows), follow=True, chunk_rows=chunk_rows))


def test_a_halt_may_change_anything_and_is_told(tmp_path):
    messages = ["34200,1,1,10,1000000,-1", "34201,7,0,0,-1,-1", "34202,1,3,5,1000100,1", "34203,7,0,0,0,-1",
                "34204,7,0,0,1,-1", "34205,1,4,2,1000400,-1"]
    rows = ["1000000,10,999800,7", "1000000,10,999800,7", "1000000,10,1000100,5", "1000000,10,1000100,5",
            "1000300,4,999800,7", "1000300,4,999800,7"]
    (chunk,) = lobster.read(*write(tmp_path, messages, rows), follow=True)
    book = PlainBook()
    for order in rows_of(chunk.orders):
        book.send(*order)
    assert (book.top(0, 1), book.top(1, 1)) == ([(1000300, 4)], [(999800, 7)])
    assert chunk.ignored == {"halt": 1, "quoting_resumed": 1, "trading_resumed": 1}
    assert chunk.adapted["crossed_rows"] == 2


def test_stub_quotes_are_kept_beside_the_book(tmp_path):
    stub = MAX_PRICE + 1
    messages = ["34200,1,1,10,1000000,-1", f"34201,1,2,100,{stub},-1", f"34202,2,2,40,{stub},-1",
                f"34203,3,2,60,{stub},-1"]
    rows = ["1000000,10,999800,7,9999999999,0,-9999999999,0"] * 4
    rows[1:3] = [f"1000000,10,999800,7,{stub},{size},-9999999999,0" for size in (100, 60)]
    for follow in (False, True):
        (chunk,) = lobster.read(*write(tmp_path, messages, rows), follow=follow)
        assert chunk.orders.price.max() == 1000000
        assert chunk.adapted == {"beyond_price_limit": 3}


def test_ids_that_come_twice_are_found_after_the_first_is_gone(tmp_path):
    messages = ["34200,1,1,10,1000000,-1", "34201,3,1,10,1000000,-1", "34202,1,1,10,1000000,-1"]
    path = tmp_path / "m.csv"
    path.write_text("\n".join(messages))
    for chunk_rows in (1, 100):
        with pytest.raises(FeedError, match=r"line 3, column order_id: expected a new order.*got 1"):
            list(lobster.read(path, chunk_rows=chunk_rows))


def replayed(day):
    """Shares traded of a day whose orders all fit the session and the tick of its venue."""
    book = PlainBook()
    for chunk in day.read():
        assert set(np.asarray(phase_at(day.venue.session, chunk.orders.time)).tolist()) == {Phase.CONTINUOUS}
        assert not (chunk.orders.price % day.venue.tick).any()
        for order in rows_of(chunk.orders):
            book.send(*order)
    assert day.venue.market().tick == day.venue.tick
    return sum(fill[3] for fill in book.fills)


def test_two_depths_of_one_day_have_names_of_their_own(tmp_path):
    messages = ["34200.1,1,11,100,1000000,-1", "34200.2,1,12,100,999900,1", "34200.3,4,11,40,1000000,-1"]
    for levels in (1, 3):
        rows = [",".join([top] + ["9999999999,0,-9999999999,0"] * (levels - 1)) for top in (
            "1000000,100,-9999999999,0", "1000000,100,999900,100", "1000000,60,999900,100")]
        write(tmp_path, messages, rows, "AAPL_2012-06-21_34200000_57600000", str(levels))
    days = lobster.days(tmp_path)
    assert [day.name for day in days] == ["AAPL_2012-06-21_levels1", "AAPL_2012-06-21_levels3"]
    for day in days:
        assert replayed(day) == 40
    write(tmp_path, messages, rows, "AAPL_2012-06-21_36000000_57600000", "3")
    names = [day.name for day in lobster.days(tmp_path)]
    assert names[1:] == ["AAPL_2012-06-21_levels3_34200000_57600000", "AAPL_2012-06-21_levels3_36000000_57600000"]


def test_the_session_is_the_time_of_the_file_name(tmp_path):
    path = tmp_path / "AAPL_2012-06-21_14400000_72000000_message_1.csv"
    path.write_text("28800.1,1,11,100,1000000,-1\n34260.2,4,11,100,1000000,-1\n34261.0,1,12,10,1000000,-1\n"
                    "60000.0,1,13,10,1000100,-1\n")
    (day,) = lobster.days(tmp_path)
    (period,) = day.venue.session.periods
    assert (period.start_ns, period.end_ns, day.name) == (14400 * SECOND_NS, 72000 * SECOND_NS, "AAPL_2012-06-21")
    assert replayed(day) == 100


def test_prices_below_a_dollar_have_their_own_tick(tmp_path):
    path = tmp_path / "PENY_2012-06-21_34200000_57600000_message_1.csv"
    path.write_text("34200.1,1,11,100,5432,-1\n34200.2,1,12,100,5431,1\n34200.3,4,11,40,5432,-1\n34200.4,1,13,100,5400,1\n")
    (day,) = lobster.days(tmp_path)
    assert day.venue.tick == 1
    assert replayed(day) == 40
    path.write_text("34200.1,1,11,100,5400,-1\n34200.2,5,12,100,5450,1\n")
    assert lobster.days(tmp_path)[0].venue.tick == 100


def test_part_of_a_book_file_seeds_and_does_not_lead(tmp_path):
    paths = write(tmp_path, ["34200.1,1,11,100,1000000,-1", "34200.2,1,12,100,999900,1"], ["1000000,150,999800,7"])
    (day,) = lobster.days(tmp_path)
    with pytest.raises(FeedError, match="line 1: expected one more row, one a message"):
        list(day.read())
    paths[1].rename(paths[1].with_name(paths[1].stem + "_first_rows.csv"))
    (day,) = lobster.days(tmp_path)
    (chunk,) = day.read()
    assert chunk.orders.volume.tolist() == [50, 7, 100, 100]
    assert chunk.is_synthetic.tolist() == [True, True, False, False]
    with pytest.raises(InputError, match="follow: expected the path of a book file"):
        lobster.read(paths[0], follow=True)


@pytest.fixture(scope="module")
def goog(data_folder):
    prefix = data_folder / "lobster" / "GOOG_2012-06-21_34200000_57600000_"
    return [prefix.with_name(f"{prefix.name}{name}_10.csv.gz") for name in ("message", "orderbook")]


def test_the_start_of_a_real_day_shows_every_row(goog):
    chunk = next(lobster.read(*goog, grouped=False, follow=True, chunk_rows=15_000))
    with gzip.open(goog[1], "rt") as file:
        rows = [next(file) for _ in range(15_000)]
    compared, counts, _ = compare([chunk], rows, 10)
    assert compared > 14_000
    assert not counts["rows_put_right"]


@pytest.mark.slow
def test_a_real_day_shows_every_row(goog):
    """Every visible event of the day, without a refusal, on both sides of ten levels."""
    with gzip.open(goog[1], "rt") as file:
        rows = file.readlines()
    compared, counts, book = compare(lobster.read(*goog, grouped=False, follow=True), rows, 10)
    assert (compared, len(rows)) == (144_003, 147_916)
    assert counts == {"redirected": 3875, "refilled": 3939, "pruned": 4874, "out_of_turn": 32}
    assert [book.top(side, 10) for side in (0, 1)] == shown(rows[-1])


@pytest.mark.slow
def test_a_real_day_through_the_exchange_shows_every_row(goog):
    market = MarketSpec(capacity=1024, trade_width=16, session=lobster.days(goog[0].parent, ["GOOG"])[0].venue.session)
    expected = pd.read_csv(goog[1], header=None).to_numpy().reshape(-1, 10, 4)
    expected[expected[:, :, 1] == 0, 0] = 0
    expected[expected[:, :, 3] == 0, 2] = 0
    feed = list(lobster.read(*goog, grouped=False, follow=True))
    sequence, at, statuses, compared = np.concatenate([chunk.sequence for chunk in feed]), 0, Counter(), 0
    is_last = np.append(np.diff(sequence) > 0, True) & (sequence >= 0)
    for event in replay.replay(market, [iter(feed)]):
        if isinstance(event, replay.Stretch):
            here = slice(at, at + len(event.orders.kind))
            at = here.stop
            statuses.update(event.reports.status.tolist())
            view, rows = event.views, sequence[here][is_last[here]]
            got = np.stack([view.ask_price, np.asarray(view.ask_volume.lo), view.bid_price,
                            np.asarray(view.bid_volume.lo)], axis=-1)[is_last[here]]
            np.testing.assert_array_equal(got, expected[rows])
            compared += len(rows)
    assert (compared, set(statuses)) == (144_003, {int(Status.ACCEPTED)})


@pytest.mark.slow
def test_messages_of_fifty_levels_beside_a_book_of_one(data_folder):
    prefix = data_folder / "lobster" / "AAPL_2012-06-21_34200000_37800000_"
    message, level_1 = (prefix.with_name(f"{prefix.name}{name}.csv.gz") for name in ("message_50", "orderbook_level1"))
    with gzip.open(level_1, "rt") as file:
        rows = file.readlines()
    compared, counts, _ = compare(lobster.read(message, level_1, grouped=False, follow=True), rows, 1)
    assert compared == 89_740
    assert counts["refilled"] + counts["pruned"] == 12
