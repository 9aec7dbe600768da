"""Starts from given orders: one pass for many times equals a replay up to each, tokens as the reference makes them."""

import dataclasses
import functools
from typing import Any

import chex
import jax
import numpy as np
import pytest

from marsjax.checkpoint import converter_files
from marsjax.core import times
from marsjax.core.records import NO_ID, Kind, Order, Status
from marsjax.core.sessions import chinese_session
from marsjax.core.specs import MarketSpec, TokenSpec
from marsjax.core.times import SECOND_NS
from marsjax.data.feed import AUCTION, FeedChunk, PublishedFills
from marsjax.market import orders
from marsjax.sim import initial, replay
from marsjax.sim.initial import Passed, Start
from marsjax.tokens import encoding
from tests.helpers import fixture_folder, read_columns, read_orders

MARKET = MarketSpec(capacity=512, trade_width=16, accounts=2, session=chinese_session())
MINUTE_NS = 60 * SECOND_NS
OPEN_NS = 34_200 * SECOND_NS
TIMES = [OPEN_NS + 2 * MINUTE_NS, OPEN_NS + 7 * MINUTE_NS, 43_200 * SECOND_NS, 46_800 * SECOND_NS + 5 * MINUTE_NS]
"""The third lies in the break, where no order counts."""


@functools.cache
def table() -> encoding.TokenTables:
    return encoding.tables(TokenSpec(), converter_files.read_folder(fixture_folder() / "converters"))


@functools.cache
def day() -> Order:
    """A call auction, ten minutes of trading, orders in the break and after it; some are refused."""
    rng, count = np.random.default_rng(3), 400
    at_s = np.sort(np.concatenate([rng.integers(33_300, 33_900, 60), rng.integers(34_200, 34_800, 240),
                                   rng.integers(41_500, 46_700, 20), rng.integers(46_800, 47_400, 80)]))
    kind = rng.choice([Kind.BUY, Kind.SELL, Kind.CANCEL], count, p=[0.4, 0.4, 0.2])
    named = np.maximum(np.arange(count) - rng.integers(1, 20, count), 0)
    is_cancel = kind == Kind.CANCEL
    return orders.from_columns(
        time_ns=at_s * SECOND_NS, kind=kind, price=100_000 + 100 * rng.integers(-5, 6, count),
        volume=100 * rng.integers(1, 9, count), order_id=np.where(is_cancel, NO_ID, np.arange(count)),
        cancel_side=np.where(is_cancel, np.where(kind[named] == Kind.BUY, 1, 0), NO_ID),
        cancel_id=np.where(is_cancel, named, NO_ID), account=np.zeros(count, np.int64))


def feed(*parts: Order) -> Any:
    none = np.zeros(0, np.int32)
    fills = PublishedFills(none.astype(np.int64), none, none, none, none, none + AUCTION, none.astype(np.int64))
    return iter([FeedChunk(part, fills, np.arange(len(part.kind))) for part in parts])


def part(first: int, end: int) -> Order:
    return jax.tree.map(lambda x: x[first:end], day())


@functools.cache
def found() -> list[tuple[Start, Passed]]:
    return list(initial.from_feed_at(MARKET, table(), feed(day()), TIMES, 64, first_id=1000, chunk_orders=128,
                                     allow_refused=True))


def assert_equal(a: Any, b: Any) -> None:
    chex.assert_trees_all_equal(a, b)


def test_each_state_is_that_of_a_replay_up_to_its_time() -> None:
    assert int(found()[0][0].market.counters.auctions) == 1
    for time_ns, (start, _) in (list(zip(TIMES, found(), strict=True))[i] for i in (0, 3)):
        *_, closing = replay.replay(MARKET, [feed(day())], chunk_orders=128, first_id=1000, until_ns=time_ns)
        assert_equal(start.market, jax.tree.map(lambda x: x[0], closing.markets))
        assert int(times.to_ns(start.time)) == time_ns


def test_one_pass_equals_a_pass_for_each_time_however_the_orders_come() -> None:
    for time_ns, (start, _) in zip(TIMES, found(), strict=True):
        alone = initial.from_feed(MARKET, table(), feed(part(0, 90), part(90, 90), part(90, 400)), time_ns, 64,
                                  first_id=1000, chunk_orders=128, allow_refused=True)
        assert_equal(alone, start)


def test_what_passed_is_every_order_once_with_what_came_of_it() -> None:
    passed = [each for _, each in found()]
    sent = jax.tree.map(lambda *x: np.concatenate(x), *(each.orders for each in passed))
    until = times.to_ns(day().time) <= TIMES[-1]
    assert_equal(sent, jax.tree.map(lambda x: x[until], day()))
    for time_ns, each in zip(TIMES, passed, strict=True):
        assert (times.to_ns(each.orders.time) <= time_ns).all()
        assert not (each.counts & (each.status != Status.ACCEPTED)).any()
        is_open = ((times.to_ns(each.orders.time) >= OPEN_NS)
                   & (np.abs(times.to_ns(each.orders.time) - 44_100 * SECOND_NS) >= 2_700 * SECOND_NS))
        np.testing.assert_array_equal(each.counts, (each.status == Status.ACCEPTED) & is_open)
    # The view after the last order is that of the market at the start.
    start, last = found()[0]
    assert int(last.views.ask_price[-1, 0]) == int(start.market.book.price[0, 0])
    assert int(last.views.last_price[-1]) == int(start.market.book.last_price)


def test_tokens_are_those_of_the_reference() -> None:
    path = fixture_folder() / "features_full_orders.csv.gz"
    expected = np.load(path.with_name("features_full_expected.npy"))
    after, times_ns = read_columns(path)["num_tokens_after"], times.to_ns(read_orders(path).time)
    is_last = np.diff(times_ns, append=times_ns[-1] + 1) > 0
    rows = [int(np.flatnonzero(is_last[first:])[0]) + first for first in (700, 1500)]
    stops = [int(times_ns[row]) for row in rows]
    for row, (start, _) in zip(rows, initial.from_feed_at(MARKET, table(), feed(read_orders(path)), stops, 64,
                                                        chunk_orders=128), strict=True):
        np.testing.assert_array_equal(encoding.to_array(TokenSpec(), start.window),
                                      expected[after[row] - 64:after[row]])
        assert int(start.count) == 64 and int(start.token_state.count) == after[row]


def test_orders_that_nobody_sent_make_the_book_and_no_token() -> None:
    """A model that goes on from a start reads no order by which a reader only keeps its book right."""
    plain, passed = next(initial.from_feed_at(MARKET, table(), feed(day()), [TIMES[-1]], 512, first_id=1000,
                                              chunk_orders=128, allow_refused=True))
    nobodys = (np.arange(len(day().kind)) % 5 == 3) & (day().kind != Kind.CANCEL)

    def flagged() -> Any:
        # In the first chunk there are none; the others end elsewhere than those that are compiled.
        for first, end in ((0, 90), (90, 170), (170, 400)):
            nobodys[:90] = False
            yield dataclasses.replace(FeedChunk.of(part(first, end)),
                                      is_synthetic=nobodys[first:end] if nobodys[first:end].any() else None)

    start, seen = next(initial.from_feed_at(MARKET, table(), flagged(), [TIMES[-1]], 512, first_id=1000,
                                            chunk_orders=128, allow_refused=True))
    assert_equal(start.market, plain.market)
    count = len(seen.counts)
    np.testing.assert_array_equal(seen.counts, passed.counts & ~nobodys[:count])
    told = np.flatnonzero(passed.counts)[1:]  # the first order of the day makes no token, and cancels do not merge here
    assert int(plain.count) == len(told)
    assert int(start.count) == int(start.token_state.count) == len(told) - int(nobodys[told].sum()) < len(told)
    kept = jax.tree.map(lambda x: x[: len(told)][~nobodys[told]], plain.window)
    ours = jax.tree.map(lambda x: x[: int(start.count)], start.window)
    for name in ("kind", "price_bin", "volume_bin", "volume_ratio", "trade_ratio", "levels"):
        np.testing.assert_array_equal(getattr(ours, name), getattr(kept, name), name)


def test_a_book_of_another_size_is_the_same_book() -> None:
    start = found()[-1][0]
    small = initial.resize(start, 64)
    assert small.market.book.price.shape == (2, 64)
    assert_equal(initial.resize(small, 512), start)
    used = int((np.asarray(start.market.book.volume) > 0).sum(axis=1).max())
    assert initial.resize(start, used).market.book.price.shape == (2, used)
    with pytest.raises(ValueError, match=f"{used} orders rest on a side: .* got {used - 1}"):
        initial.resize(start, used - 1)


@pytest.mark.parametrize(("changes", "message"), [
    ({"times_ns": []}, r"expected times that rise, got \[\]"),
    ({"times_ns": [TIMES[1], TIMES[0]]}, "expected times that rise"),
    ({"times_ns": [TIMES[1], TIMES[1]]}, "expected times that rise"),
    ({"chunk_orders": 0}, "expected chunk_orders of at least 1, got 0"),
    ({"times_ns": [OPEN_NS]}, "the orders up to 34200000000000 ns make no token"),
])
def test_wrong_times_are_refused(changes: dict[str, Any], message: str) -> None:
    given = {"times_ns": TIMES, "chunk_orders": 128} | changes
    with pytest.raises(ValueError, match=message):
        list(initial.from_feed_at(MARKET, table(), feed(day()), context_length=64, allow_refused=True, **given))


def test_a_full_side_is_refused_and_says_what_to_set() -> None:
    many = orders.from_columns(*(np.full(600, x) for x in (OPEN_NS, Kind.BUY, 99_000, 100, NO_ID, NO_ID, NO_ID, 0)))
    with pytest.raises(ValueError, match=r"88 orders refused, a side was full: set MarketSpec\.capacity above 512"):
        initial.from_feed(MARKET, table(), feed(many), OPEN_NS + MINUTE_NS, 64, chunk_orders=128)


def test_refused_orders_are_heard_of_and_counted_if_they_are_allowed() -> None:
    """Before, a start lacked its orders of the break, and cancels of orders refused, without a word."""
    with pytest.raises(ValueError) as raised:
        initial.from_feed(MARKET, table(), feed(day()), TIMES[-1], 64, chunk_orders=128)
    start, passed = found()[-1][0], initial.joined([each for _, each in found()])
    counts = {Status(int(status)).name: int(count)
              for status, count in zip(*np.unique(passed.status[passed.status > 0], return_counts=True), strict=True)}
    assert start.refused == counts and counts["CLOSED"] > 5 and counts["UNKNOWN_ID"] > 5
    in_break = times.to_ns(passed.orders.time)[passed.status == Status.CLOSED]
    assert (f"{counts['CLOSED']} orders refused as CLOSED, of {times.clock(in_break.min(), 3)} to "
            f"{times.clock(in_break.max(), 3)}: set MarketSpec.session") in str(raised.value)
    assert "allow_refused=True" in str(raised.value) and "\n" not in str(raised.value)


def test_messages_of_the_feed_are_passed_on() -> None:
    parts = [dataclasses.replace(chunk, ignored={"halt": 1 + i}, adapted={"odd": 2} if i else {})
             for i, chunk in enumerate(feed(part(0, 100), part(100, 400)))]
    passed = [each for _, each in initial.from_feed_at(MARKET, table(), iter(parts), TIMES[:2], 64, chunk_orders=128,
                                                       allow_refused=True)]
    whole = initial.joined(passed)
    assert (dict(whole.ignored), dict(whole.adapted)) == ({"halt": 3}, {"odd": 2})


def test_a_record_of_what_passed_has_no_rows_where_nothing_did() -> None:
    quiet = [TIMES[0], TIMES[0] + 1]
    _, passed = list(initial.from_feed_at(MARKET, table(), feed(day()), quiet, 64, chunk_orders=128,
                                           allow_refused=True))[1]
    assert passed.counts.shape == (0,) and passed.views.ask_price.shape == (0, MARKET.levels)
    assert dataclasses.fields(passed.views)
