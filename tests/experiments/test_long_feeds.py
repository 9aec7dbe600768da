"""The long days of `experiments/feeds`: each copy of a day leads to the same book, and no order is refused."""

import importlib.util
from pathlib import Path

import jax
import numpy as np
import pytest

from marsjax.data import sources
from tests.data import test_coinbase, test_databento, test_lobster_book, test_sse
from tests.plain_book import published, replay

PROGRAMS = Path(__file__).parents[2] / "experiments" / "feeds"
# Both auctions at Shanghai; between them a buyer of what rests, a seller whose rest is bought, a delete.
SHANGHAI = (
    ["09:15:00.000,2,10.03,100,1,1,1", "09:15:01.000,2,10.03,100,2,2,2", "09:16:00.000,2,10.06,200,2,3,3",
     "09:16:01.000,2,9.99,150,1,4,4", "09:31:00.000,2,10.00,80,1,7,31", "11:29:59.999,2,10.00,20,2,9,40",
     "13:00:01.000,10,9.99,150,1,10,4", "14:00:00.000,2,10.00,30,1,12,50", "14:58:00.000,2,10.00,30,2,13,60"],
    ["09:25:00.000,1,2,0,10.03,100,5", "09:30:01.500,30,3,1,10.06,60,6", "11:29:59.999,31,40,2,10.00,80,8",
     "14:00:00.000,50,40,1,10.00,20,11", "15:00:00.000,50,60,0,10.00,30,14"])


def program(name):
    spec = importlib.util.spec_from_file_location(name, PROGRAMS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def repeat_feed():
    return program("repeat_feed")


def lobster_day(folder):
    # The day begins with an execution, as the real one does: the copies put back what it took.
    messages, rows = test_lobster_book.random_market(1, 120, 2)
    first = next(number for number, message in enumerate(messages) if message.split(",")[1] == "4")
    test_lobster_book.write(folder, messages[first:], rows[first:])


def databento_day(folder):
    lines = [line for line in test_databento.random_feed(0, 120, "itch")[0] if line.endswith("AAA")]
    test_databento.write(folder, lines, "AAA_day.csv")


def coinbase_day(folder):
    channel, before, _ = test_coinbase.random_market(0, 80)
    channel.write(folder, before)


@pytest.mark.parametrize(("source", "symbol", "make"), [
    ("lobster", "X", lobster_day), ("databento", "AAA", databento_day), ("coinbase", "any", coinbase_day)])
def test_copies_of_a_day_make_one_day(tmp_path, repeat_feed, source, symbol, make):
    (tmp_path / "day").mkdir()
    make(tmp_path / "day")
    ((day,), fills) = sources.open_days(source, tmp_path / "day"), []
    for messages in (1, 1000):
        output = tmp_path / str(messages)
        repeat_feed.main([source, str(tmp_path / "day"), symbol, str(output), "--messages", str(messages)])
        (long_day,) = sources.open_days(source, output)
        assert (long_day.symbol, long_day.date) == (day.symbol, day.date)
        chunks = list(long_day.read())
        book = replay(chunks)
        fills.append([fill[2:] for fill in book.fills])
        if source != "lobster":  # whose executions out of turn are published as well
            assert book.fills == published(chunks)
        assert (np.diff(np.concatenate([chunk.orders.time.s for chunk in chunks])) >= 0).all()
    once, often = fills
    copies = len(often) // len(once)
    assert copies > 5
    if source != "coinbase":  # where orders that are opened again stand behind others
        assert often == once * copies


def test_copies_of_a_day_at_shanghai_trade_as_it_did_and_its_auctions_are_held_once(tmp_path, repeat_feed):
    (tmp_path / "day").mkdir()
    test_sse.write(tmp_path / "day", *SHANGHAI)
    assert test_sse.replayed(*sources.open_days("sse", tmp_path / "day"))[0].compared == 3
    repeat_feed.main(["sse", str(tmp_path / "day"), "600000", str(tmp_path / "long"), "--messages", "200"])
    check, prices = test_sse.replayed(*sources.open_days("sse", tmp_path / "long"))
    assert prices == [100_300, 100_000]
    copies, others = divmod(check.compared, 3)
    assert (others, copies > 10) == (0, True)
    program("convert_feed").main(["szse", str(tmp_path / "long"), str(tmp_path / "szse")])
    other, prices = test_sse.replayed(*sources.open_days("szse", tmp_path / "szse"))
    assert (other.compared, prices) == (check.compared, [100_300, 100_000])


@pytest.mark.parametrize("kind", ["csv", "dbn"])
def test_a_long_day_as_another_kind_of_feed_has_the_same_orders(tmp_path, repeat_feed, kind):
    if kind == "dbn":
        pytest.importorskip("databento_dbn")
    (tmp_path / "day").mkdir()
    databento_day(tmp_path / "day")
    repeat_feed.main(["databento", str(tmp_path / "day"), "AAA", str(tmp_path / "long"), "--messages", "500"])
    program("convert_feed").main([kind, str(tmp_path / "long"), str(tmp_path / kind)])
    days = [*sources.open_days("databento", tmp_path / "long"),
            *sources.open_days("csv" if kind == "csv" else "databento", tmp_path / kind)]
    first, second = (jax.tree.map(lambda *x: np.concatenate(x), *[chunk.orders for chunk in day.read()])
                     for day in days)
    jax.tree.map(np.testing.assert_array_equal, first, second)
