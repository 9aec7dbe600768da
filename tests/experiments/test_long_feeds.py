"""The long days of `experiments/feeds`: each copy of a day leads to the same book, and no order is refused."""

import importlib.util
from pathlib import Path

import numpy as np
import pytest

from marsjax.data import sources
from tests.data import test_coinbase, test_databento, test_lobster_book
from tests.plain_book import published, replay

PROGRAM = Path(__file__).parents[2] / "experiments" / "feeds" / "repeat_feed.py"


@pytest.fixture(scope="module")
def repeat_feed():
    spec = importlib.util.spec_from_file_location("repeat_feed", PROGRAM)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


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
