"""Minutes of a day against an example made by hand; the chunks in which it streams by change nothing."""

import itertools
from typing import Any

import jax
import numpy as np
import pandas as pd
import pytest

from marsjax.analysis import day
from marsjax.core import int64
from marsjax.core.records import BookView, Kind, Order, Report, Side
from marsjax.core.sessions import Period, Phase, Session
from marsjax.core.specs import MarketSpec
from marsjax.market import book as books
from marsjax.market import exchange
from tests.twin import Message
from tests.twin_exchange import Timed, stream_of

MINUTE = 60 * 10**9
SPEC = MarketSpec(capacity=8, trade_width=8, levels=2, session=Session((
    Period(Phase.OPEN_AUCTION, 0, 2 * MINUTE - 1, uncross_ns=2 * MINUTE),
    Period(Phase.CONTINUOUS, 3 * MINUTE, 90 * MINUTE))))


def sent(minute: float, kind: Kind, price: int, volume: int, **fields: int) -> Timed:
    return Timed(int(minute * MINUTE), Message(kind, price, volume, -1, **fields))


DAY = [
    sent(3.0, Kind.CANCEL, 0, 100, cancel_side=Side.BID, cancel_id=99),  # refused: no order
    sent(4.1, Kind.BUY, 99_900, 300),
    sent(4.2, Kind.SELL, 100_200, 500),
    sent(4.9, Kind.SELL, 100_300, 100),
    sent(5.0, Kind.BUY, 100_200, 200),  # trades 200
    sent(5.5, Kind.BUY, 100_250, 200),  # refused: off the tick
    sent(5.5, Kind.BUY, 100_200, 100),  # trades 100
    sent(62.0, Kind.CANCEL, 0, 300, cancel_side=Side.BID, cancel_id=0),
    sent(62.0, Kind.SELL, 100_400, 50),
    sent(62.5, Kind.BUY, 100_200, 100),  # trades 100
]
EXPECTED = pd.DataFrame({
    "mid": [100_050.0, 100_050.0, 100_200.0], "spread": [300.0, 300.0, np.nan],
    "bid_depth": [300, 300, 0], "ask_depth": [600, 300, 200], "volume": [0, 300, 100], "orders": [3, 2, 3],
}, index=pd.Index([4, 5, 62], name="minute"))
"""Two levels a side: the third ask does not count."""


@jax.jit
def run(stream: Order) -> tuple[Report, BookView]:
    def one(market: Any, order: Order) -> Any:
        market, report = exchange.step(SPEC, market, order)
        return market, (report, books.view(SPEC, market.book))

    return jax.lax.scan(one, exchange.open_market(SPEC), stream)[1]


def played(messages: list[Timed]) -> tuple[Order, Report, BookView]:
    stream = stream_of(messages)
    return jax.tree.map(np.asarray, (stream, *run(stream)))


def table(whole: Any, cuts: list[int]) -> pd.DataFrame:
    """Minutes from parts of a day, cut before some of its orders."""
    edges = [0, *cuts, len(whole[0].kind)]
    return day.join([day.minutes(*jax.tree.map(lambda x, a=a, b=b: x[a:b], whole))
                     for a, b in itertools.pairwise(edges)])


def test_minutes_of_a_small_day() -> None:
    # The last ask of 50 comes to the third level of three; the touch is 100,200 until the end.
    pd.testing.assert_frame_equal(table(played(DAY), []), EXPECTED, check_index_type=False, check_dtype=False)


@pytest.mark.parametrize("cuts", [[5], [1, 2, 3, 4, 5, 6, 7, 8, 9], [0, 4, 4, 10], [8]])
def test_chunks_change_nothing(cuts: list[int]) -> None:
    whole = played(DAY)
    pd.testing.assert_frame_equal(table(whole, cuts), table(whole, []))


def test_minutes_of_random_days_do_not_depend_on_chunks() -> None:
    rng = np.random.default_rng(2)
    for _ in range(5):
        minutes = np.sort(rng.uniform(0.0, 30.0, len(DAY)))
        messages = [sent(minute, int(rng.integers(2)), 100_000 + 100 * int(rng.integers(-2, 3)), 100)
                    for minute in minutes]
        whole = played(messages)
        once = table(whole, [])
        assert once["orders"].sum() == np.sum(whole[1].status == 0)
        for _ in range(5):
            cuts = sorted(rng.integers(0, len(DAY), 3).tolist())
            pd.testing.assert_frame_equal(table(whole, cuts), once)


def test_prices_of_a_crossed_book_are_left_out_and_an_auction_counts_in_its_minute() -> None:
    messages = [sent(0.5, Kind.BUY, 100_100, 300), sent(0.9, Kind.SELL, 99_900, 200), sent(1.5, Kind.BUY, 99_800, 100)]
    whole = played([*messages, *[sent(3.0, Kind.NONE, 0, 0)] * (len(DAY) - 3)])
    before = jax.tree.map(lambda x: x[:3], whole)
    collected = day.minutes(*before)
    assert collected.index.tolist() == [0, 1]
    assert collected["mid"].isna().all() and collected["spread"].isna().all()
    assert collected["volume"].tolist() == [0, 0] and collected["orders"].tolist() == [2, 1]

    @jax.jit
    def held_after(stream: Order) -> Any:
        market, _ = jax.lax.scan(lambda market, order: exchange.submit(SPEC, market, order),
                                 exchange.open_market(SPEC), stream)
        market, result = exchange.uncross(SPEC, market)
        return result, books.view(SPEC, market.book)

    result, view = jax.tree.map(np.asarray, held_after(before[0]))
    held = day.auction_minute(2 * MINUTE, result, view)
    joined = day.join([collected, held])
    assert joined.index.tolist() == [0, 1, 2]
    assert joined["volume"].tolist() == [0, 0, int(int64.to_numpy(result.volume))] == [0, 0, 200]
    assert joined["bid_depth"].tolist()[-1] == 200 and joined["orders"].tolist() == [2, 1, 0]


def test_nothing_accepted_makes_no_minute() -> None:
    whole = jax.tree.map(lambda x: x[:1], played(DAY))
    assert len(table(whole, [])) == 0
    # Nor does it disturb the others.
    pd.testing.assert_frame_equal(table(played(DAY), [1]), table(played(DAY), []))
