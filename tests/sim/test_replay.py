"""Replays: chunks, batches and contents change nothing, and four real days come out as the exchange published them."""

import collections
import dataclasses
import functools
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.monitoring
import numpy as np
import pytest

from marsjax.analysis.fills import FillCheck
from marsjax.core import int64
from marsjax.core.records import NO_ID, NO_PRICE, BookView, Kind, Market, Order, Side, Status
from marsjax.core.sessions import chinese_session
from marsjax.core.specs import MarketSpec
from marsjax.data import sse
from marsjax.data.feed import AUCTION, FeedChunk, FeedError, PublishedFills, Snapshots
from marsjax.market import deep, exchange, orders
from marsjax.sim.initial import one_by_one, order_programs
from marsjax.sim.replay import CallAuction, Closing, Published, ReplayEvent, Stretch, replay
from tests.twin_exchange import SECOND, SHORT_DAY, FlowParameters, FlowSource, TwinExchange, named, row, stream_of

SPEC = MarketSpec(capacity=32, trade_width=8, levels=3, accounts=3, session=SHORT_DAY)
conservation = jax.jit(exchange.conservation)


def assert_bitwise_equal(a: Any, b: Any) -> None:
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        x, y = np.asarray(x), np.asarray(y)
        assert x.dtype == y.dtype
        np.testing.assert_array_equal(x, y)


@functools.cache
def day_of_orders(seed: int, length: int) -> tuple[Order, TwinExchange]:
    """A random day through both call auctions, and what a plain-Python exchange made of it."""
    twin = TwinExchange(SPEC)
    source = FlowSource(twin, FlowParameters(seed, odd=0.15, mean_step_ns=SECOND * 120 // length))
    sent = []
    for _ in range(length):
        sent.append(source.draw())
        # The feed's time never runs backwards: a real feed refuses such a file.
        sent[-1] = dataclasses.replace(sent[-1], time_ns=max(sent[-1].time_ns, sent[-2].time_ns if sent[1:] else 0))
        twin.step(sent[-1])
    while twin.auctions < 2:
        twin.uncross()
    return stream_of(sent), twin


def no_fills(count: int = 0, time_ns: int = 0) -> PublishedFills:
    """`count` fills of nobody."""
    none = np.zeros(count, np.int32)
    long = np.full(count, time_ns, np.int64)
    return PublishedFills(long, none + 100, none + 1, none, none, none + AUCTION, long)


def feed_of(stream: Order, sizes: int = 50, fills: int = 0) -> Iterator[FeedChunk]:
    """The orders in chunks of a feed; each chunk publishes some fills."""
    count = len(stream.kind)
    for first in range(0, count, sizes):
        part = jax.tree.map(lambda x, i=first: x[i:i + sizes], stream)
        yield FeedChunk(part, no_fills(fills), np.arange(first, min(first + sizes, count)),
                        {"ignored": 1} if fills else {})


class Result(NamedTuple):
    """All that a replay said of one market."""

    reports: Any
    """Orders, reports and views, laid end to end."""
    auctions: list[CallAuction]
    market: Market


def collect(events: Iterator[ReplayEvent], count: int) -> list[Result]:
    stretches: dict[int, list[Any]] = collections.defaultdict(list)
    auctions: dict[int, list[CallAuction]] = collections.defaultdict(list)
    closing = None
    for event in events:
        assert closing is None
        if isinstance(event, Stretch):
            stretches[event.market].append((event.orders, event.reports, event.views))
        elif isinstance(event, CallAuction):
            auctions[event.market].append(event)
        elif isinstance(event, Closing):
            closing = event
    assert closing is not None
    return [Result(jax.tree.map(lambda *x: np.concatenate(x), *stretches[m]), auctions[m], row(closing.markets, m))
            for m in range(count)]


def assert_same(a: Result, b: Result) -> None:
    assert_bitwise_equal((a.reports, a.market), (b.reports, b.market))
    assert len(a.auctions) == len(b.auctions)
    for one, other in zip(a.auctions, b.auctions, strict=True):
        assert (one.number, one.time_ns) == (other.number, other.time_ns)
        assert_bitwise_equal((one.uncross, one.view), (other.uncross, other.view))


@functools.cache
def alone(seed: int, length: int) -> Result:
    return collect(replay(SPEC, [feed_of(day_of_orders(seed, length)[0])], chunk_orders=64), 1)[0]


@pytest.mark.parametrize(("seed", "length"), [(0, 300), (1, 130)])
def test_a_replay_equals_the_twin_auctions_and_all(seed: int, length: int) -> None:
    stream, twin = day_of_orders(seed, length)
    result = alone(seed, length)
    got = named(result.market)
    for name, expected in twin.fields().items():
        np.testing.assert_array_equal(got[name], np.asarray(expected, np.int64), err_msg=name)
    assert_bitwise_equal(result.reports[0], stream)
    assert [(x.number, x.time_ns) for x in result.auctions] == [(0, 25 * SECOND), (1, 110 * SECOND)]
    assert sum(int(int64.to_numpy(x.uncross.volume)) for x in result.auctions) > 0


@pytest.mark.parametrize(("chunk_orders", "feed_rows"), [(7, 50), (7, 1), (64, 300), (64, 11)])
def test_chunks_change_nothing(chunk_orders: int, feed_rows: int) -> None:
    feed = feed_of(day_of_orders(0, 300)[0], feed_rows)
    (result,) = collect(replay(SPEC, [feed], chunk_orders=chunk_orders), 1)
    assert_same(result, alone(0, 300))


@pytest.mark.parametrize("one_by_one", [True, False])
def test_several_feeds_at_once_equal_each_alone(one_by_one: bool) -> None:
    days = [(0, 300), (1, 130), (2, 10), (3, 300)]
    feeds = [feed_of(day_of_orders(*day)[0], 40 + day[1]) for day in days]
    together = collect(replay(SPEC, feeds, chunk_orders=64, one_by_one=one_by_one), len(days))
    for result, day in zip(together, days, strict=True):
        assert_same(result, alone(*day))


def test_without_views_the_rest_is_the_same() -> None:
    feed = feed_of(day_of_orders(0, 300)[0])
    (result,) = collect(replay(SPEC, [feed], chunk_orders=64, with_views=False), 1)
    assert result.reports[2] is None
    assert_bitwise_equal((result.reports[:2], result.market), (alone(0, 300).reports[:2], alone(0, 300).market))


def test_the_first_id_is_as_given() -> None:
    stream, _ = day_of_orders(2, 10)
    stream = dataclasses.replace(stream, order_id=np.full_like(stream.order_id, NO_ID))
    results = [collect(replay(SPEC, [feed_of(stream)], chunk_orders=64, first_id=first), 1)[0] for first in (0, 500)]
    ids, shifted = (result.reports[1].order_id for result in results)
    np.testing.assert_array_equal(np.where(ids == NO_ID, NO_ID, ids + 500), shifted)


def test_an_empty_feed_among_others_holds_its_auctions_and_nothing_else() -> None:
    feeds = [feed_of(day_of_orders(2, 10)[0]), iter(()), feed_of(day_of_orders(1, 130)[0]), iter(())]
    events = list(replay(SPEC, feeds, chunk_orders=64))
    mine = [event for event in events if not isinstance(event, Closing) and event.market == 1]
    assert [type(event) for event in mine] == [CallAuction, CallAuction]
    assert [int(event.uncross.price) for event in mine] == [NO_PRICE] * 2


class Compilations:
    """Counts what XLA compiles inside a `with` block, whichever way it was asked to."""

    def __enter__(self) -> "Compilations":
        self.count, self.is_open = 0, True
        jax.monitoring.register_event_duration_secs_listener(self._hear)
        return self

    def _hear(self, event: str, *_: Any, **__: Any) -> None:
        self.count += self.is_open and event == "/jax/core/compile/backend_compile_duration"

    def __exit__(self, *_: Any) -> None:
        self.is_open = False


def test_compilations_are_heard() -> None:
    with Compilations() as heard:
        jax.jit(lambda x: x + 12_345)(np.int32(1))
        assert heard.count == 1
        jax.jit(lambda x: x + 54_321).lower(np.int32(1)).compile()
        assert heard.count == 2


def test_no_chunk_compiles_anything_and_nor_does_a_second_replay() -> None:
    """However many chunks there are and whatever they hold, a spec is compiled once."""
    alone(0, 300)
    with Compilations() as heard:
        for day, feed_rows in (((0, 300), 50), ((1, 130), 9), ((3, 300), 300)):
            feed = feed_of(day_of_orders(*day)[0], feed_rows)
            assert sum(isinstance(event, Stretch) for event in replay(SPEC, [feed], chunk_orders=64)) >= 3
    assert heard.count == 0


def test_what_is_published_comes_no_later_than_its_orders() -> None:
    stream, _ = day_of_orders(0, 300)
    count = len(stream.kind)
    for chunk_orders in (7, 64):
        read = done = 0
        fills = 0
        for event in replay(SPEC, [feed_of(stream, 50, fills=2)], chunk_orders=chunk_orders):
            if isinstance(event, Published):
                read += min(50, count - read)
                fills += len(event.fills.price)
                assert event.ignored == {"ignored": 1}
            elif isinstance(event, Stretch):
                done += len(event.orders.kind)
                assert done <= read
        assert (read, done, fills) == (count, count, 2 * 6)


def test_fills_after_the_last_order_are_published_too() -> None:
    def feed() -> Iterator[FeedChunk]:
        yield from feed_of(day_of_orders(2, 10)[0])
        yield FeedChunk(orders.from_columns(*[np.zeros(0, np.int64)] * 8), no_fills(3, 110 * SECOND), np.zeros(0))

    published = [event for event in replay(SPEC, [feed()], chunk_orders=64) if isinstance(event, Published)]
    assert sum(len(event.fills.price) for event in published) == 3


def test_errors_of_a_feed_pass_through_after_what_came_before() -> None:
    def feed() -> Iterator[FeedChunk]:
        yield from feed_of(day_of_orders(0, 300)[0], 100)
        raise FeedError("day.csv: line 301")

    seen = []
    with pytest.raises(FeedError, match=r"day\.csv: line 301"):
        seen.extend(replay(SPEC, [feed()], chunk_orders=64))
    assert [len(event.orders.kind) for event in seen if isinstance(event, Stretch)][-1:] == [64]
    assert sum(len(event.orders.kind) for event in seen if isinstance(event, Stretch)) >= 192


def test_orders_are_read_while_those_before_them_pass() -> None:
    """What came of some orders is told when those after them are read and on their way."""
    read: list[int] = []

    def feed() -> Iterator[FeedChunk]:
        for chunk in feed_of(day_of_orders(0, 300)[0], 30):
            read.append(len(chunk.orders.kind))
            yield chunk

    done = []
    for event in replay(SPEC, [feed()], chunk_orders=30):
        if isinstance(event, Stretch):
            done.append(len(event.orders.kind))
            assert sum(read) >= min(300, sum(done) + 1)
    assert sum(done) == 300


@pytest.mark.parametrize("interrupt", [KeyboardInterrupt, SystemExit])
def test_an_interrupt_while_a_feed_is_read_waits_for_nothing(interrupt: type[BaseException]) -> None:
    def feed() -> Iterator[FeedChunk]:
        yield from feed_of(day_of_orders(0, 300)[0], 64)
        raise interrupt

    seen = []
    with pytest.raises(interrupt):
        seen.extend(replay(SPEC, [feed()], chunk_orders=64))
    assert sum(len(event.orders.kind) for event in seen if isinstance(event, Stretch)) < 256


def test_whoever_stops_asking_leaves_nothing_under_way() -> None:
    closed = []

    def feed() -> Iterator[FeedChunk]:
        try:
            yield from feed_of(day_of_orders(0, 300)[0], 64)
        finally:
            closed.append(True)

    events = replay(SPEC, [feed()], chunk_orders=64)
    assert isinstance(next(event for event in events if isinstance(event, Stretch)), Stretch)
    events.close()  # type: ignore[attr-defined]
    del events
    assert closed == [True]


def test_seconds_of_calls_are_counted_once() -> None:
    began = time.perf_counter()
    (closing,) = (event for event in replay(SPEC, [feed_of(day_of_orders(0, 300)[0])], chunk_orders=64)
                  if isinstance(event, Closing))
    assert 0 < closing.run_s and 0 < closing.compile_s
    assert closing.run_s + closing.compile_s <= time.perf_counter() - began


@pytest.mark.parametrize(("feeds", "chunk_orders", "message"), [
    ([], 64, "at least one feed"), ([iter(())], 0, "chunk_orders of at least 1, got 0")])
def test_bad_arguments_are_refused(feeds: list[Any], chunk_orders: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        next(replay(SPEC, feeds, chunk_orders=chunk_orders))


# Real days.

ROOT = Path(__file__).parents[2]
DATA = ROOT / os.environ.get("MARSJAX_DATA", "../shared/data")
AUCTIONS = {  # price and volume of the opening and the closing auction (data/README.md)
    "600519": ((18_080_800, 42_718), (17_970_000, 40_203)), "600536": ((512_100, 61_090), (507_300, 175_007)),
    "600761": ((213_000, 30_700), (215_000, 14_200)), "601825": ((54_800, 2_800), (54_800, 25_000))}
MOST = {"600536": (2_967, 2_434, 78), "600761": (482, 315, 110), "601825": (1_417, 700, 102),
        "600519": (2_155, 1_569, 35)}
"""Most resting asks and bids, and most fills of one order."""
REAL = MarketSpec(capacity=3072, trade_width=128, accounts=1, session=chinese_session())


class Observer:
    """Looks at one real day while it streams by."""

    def __init__(self, snapshots: Snapshots | None = None) -> None:
        self.check = FillCheck()
        self.rejected = self.crossed = self.orders = self.most_fills = 0
        self.auctions: list[CallAuction] = []
        self.published: list[PublishedFills] = []
        self.volume = 0
        """Shares traded so far."""
        self.missing: dict[int, set[bytes]] = collections.defaultdict(set)
        """Published states not seen yet, by cumulative volume."""
        if snapshots is not None:
            inside = (snapshots.time_ns >= 34_200 * SECOND) & (snapshots.time_ns < 53_820 * SECOND)
            self.wanted = [(int(volume), state.tobytes()) for volume, state, keep in zip(
                snapshots.volume, _states(snapshots), inside, strict=True) if keep]
            for volume, state in self.wanted:
                self.missing[volume].add(state)

    def see(self, event: ReplayEvent) -> None:
        if isinstance(event, Published):
            self.check.publish(event.fills)
            self.published.append(event.fills)
        elif isinstance(event, CallAuction):
            self.check.uncross(event.time_ns, event.uncross)
            self.auctions.append(event)
            self.volume += int(int64.to_numpy(event.uncross.volume))
            self._look(np.array([self.volume]), jax.tree.map(lambda x: np.asarray(x)[None], event.view))
        elif isinstance(event, Stretch):
            self._stretch(event)

    def _stretch(self, event: Stretch) -> None:
        reports, views = event.reports, event.views
        self.orders += len(event.orders.kind)
        self.rejected += int(np.sum(reports.status != Status.ACCEPTED))
        self.most_fills = max(self.most_fills, int(reports.trades.count.max()))
        self.check.compute(reports)
        second = event.orders.time.s
        is_continuous = (second >= 34_200) & (second < 53_820)
        both = (views.ask_price[:, 0] > 0) & (views.bid_price[:, 0] > 0)
        self.crossed += int(np.sum(is_continuous & both & (views.ask_price[:, 0] <= views.bid_price[:, 0])))
        traded = np.where(reports.trades.kind == Kind.CANCEL, 0, int64.to_numpy(reports.trades.volume))
        volume = self.volume + np.cumsum(traded)
        self._look(volume, views)
        self.volume = int(volume[-1])

    def _look(self, volume: np.ndarray, views: BookView) -> None:
        if not self.missing:
            return
        for at, state in zip(volume.tolist(), _states(views), strict=True):
            if at in self.missing:
                self.missing[at].discard(state.tobytes())


def _states(record: Snapshots | BookView) -> np.ndarray:
    """Ten levels, prices and volumes of both sides, int64 [N, 40]."""
    columns = [getattr(record, name) for name in ("ask_price", "ask_volume", "bid_price", "bid_volume")]
    columns = [np.asarray(x if isinstance(x, np.ndarray) else int64.to_numpy(x), np.int64) for x in columns]
    return np.ascontiguousarray(np.concatenate(columns, axis=1))


@pytest.fixture(scope="module")
def real() -> dict[str, tuple[Observer, Market]]:
    """All four days of Shanghai, one after the other: at once, each would be padded to the longest."""
    folder = DATA / "sse"
    if not folder.is_dir():
        pytest.skip(f"no real data at {folder} (set MARSJAX_DATA)")
    return {symbol: _replayed(symbol, folder) for symbol in AUCTIONS}


def _replayed(symbol: str, folder: Path) -> tuple[Observer, Market]:
    date = "20230207" if symbol == "600519" else "20230711"
    published = folder / f"{symbol}_{date}_snapshots.csv.gz"
    observer = Observer(sse.read_snapshots(published) if symbol == "600519" else None)
    for event in replay(REAL, [sse.read(*sse.files(folder, symbol, date))], chunk_orders=4096):
        if isinstance(event, Closing):
            return observer, row(event.markets, 0)
        observer.see(event)
    raise AssertionError("no close")


@pytest.fixture(params=list(AUCTIONS))
def symbol(request: pytest.FixtureRequest) -> str:
    return request.param


Days = dict[str, tuple[Observer, Market]]


@pytest.mark.slow
def test_no_order_of_a_real_day_is_rejected_and_no_book_is_crossed(real: Days, symbol: str) -> None:
    observer, market = real[symbol]
    assert observer.orders > 10_000
    assert (observer.rejected, observer.crossed) == (0, 0)
    asks, bids, fills = MOST[symbol]
    most = np.asarray(market.counters.most_resting)
    assert (int(most[Side.ASK]), int(most[Side.BID]), observer.most_fills) == (asks, bids, fills)
    assert not np.any(market.counters.truncated_lists)


@pytest.mark.slow
def test_every_fill_of_a_real_day_is_the_published_one(real: Days, symbol: str) -> None:
    observer, market = real[symbol]
    published = [np.concatenate([getattr(fills, name) for fills in observer.published])
                 for name in ("price", "volume", "aggressor")]
    price, volume, aggressor = (x.astype(np.int64) for x in published)
    check = observer.check
    check.finish()
    assert (check.different, check.auctions_different, check.first_difference) == (0, 0, None)
    assert check.compared == np.sum(aggressor != AUCTION) == int(market.counters.fills)
    assert int(int64.to_numpy(market.counters.traded)) == volume.sum() == observer.volume
    assert int(int64.to_numpy(market.counters.value)) == np.sum(price * volume)


@pytest.mark.slow
def test_both_auctions_of_a_real_day_are_the_published_ones(real: Days, symbol: str) -> None:
    observer, _ = real[symbol]
    found = [(int(x.uncross.price), int(int64.to_numpy(x.uncross.volume))) for x in observer.auctions]
    assert tuple(found) == AUCTIONS[symbol]
    for auction, is_morning in zip(observer.auctions, (True, False), strict=True):
        assert int(auction.view.spread) > 0
        result = auction.uncross
        expected: collections.Counter[int] = collections.Counter()
        for fills in observer.published:
            mine = (fills.aggressor == AUCTION) & ((fills.time_ns < 12 * 3600 * SECOND) == is_morning)
            for ids in (fills.buy_id[mine], fills.sell_id[mine]):
                for order_id, volume in zip(ids.tolist(), fills.volume[mine].tolist(), strict=True):
                    expected[order_id] += volume
        filled = np.asarray(result.fill) > 0
        assert dict(zip(result.order_id[filled].tolist(), result.fill[filled].tolist(), strict=True)) == expected


@pytest.mark.slow
def test_a_real_day_loses_nothing(real: Days, symbol: str) -> None:
    for lost in jax.tree.leaves(conservation(real[symbol][1])):
        assert not np.any(lost)


@pytest.mark.slow
def test_every_published_snapshot_of_continuous_trading_is_a_state_of_the_replayed_book(real: Days) -> None:
    observer, _ = real["600519"]
    assert len(observer.wanted) == 4_858
    found = [state not in observer.missing[volume] for volume, state in observer.wanted]
    assert sum(found) == 4_858


def many_far_orders(count: int) -> Order:
    """Limit orders up to 300 ticks from the touch, and cancels of some of them; a few sweep."""
    rng, none = np.random.default_rng(5), np.full(count, NO_ID)
    kind = rng.integers(0, 2, count)
    sweeps = (rng.random(count) < 0.01) & (np.arange(count) > 800)
    away = np.where(sweeps, -60, rng.integers(-1, 300, count)) * 100
    price = 100_000 + np.where(kind == Kind.SELL, away, -away)
    cancelled = rng.integers(0, np.maximum(np.arange(count) - 20, 1))
    is_cancel = (rng.random(count) < 0.15) & (np.arange(count) > 50)
    volume = np.where(sweeps, 10_000, 100 * rng.integers(1, 5, count))
    return orders.from_columns(
        np.arange(count) * 10**7 + 36_000 * SECOND, np.where(is_cancel, Kind.CANCEL, kind), price,
        np.where(is_cancel, 100, volume), np.arange(count), np.where(is_cancel, kind[cancelled], none),
        np.where(is_cancel, cancelled, none), none)


@pytest.mark.slow
def test_a_deep_market_replays_as_one_of_fewer_slots(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beyond some capacity a replay takes a market in two parts (`marsjax.market.deep`)."""
    whole: list[int] = []

    def pass_whole(*given: Any) -> Any:
        whole.append(given[0].spec.capacity)
        return one_by_one.pass_whole(*given)

    # So few slots that sweeps go past them, and the whole book is needed too.
    monkeypatch.setattr(deep, "SLOTS", (32,))
    monkeypatch.setattr(deep, "_WORTH", 256)
    monkeypatch.setattr(order_programs, "pass_whole", pass_whole)
    few = MarketSpec(tick=100, capacity=4096, levels=3)
    many = dataclasses.replace(few, capacity=2**14)
    assert (deep.is_worth(few), deep.is_worth(many)) == (False, True)
    sent = many_far_orders(3000)
    answers = [list(replay(spec, [iter([FeedChunk.of(sent)])], chunk_orders=1024)) for spec in (few, many)]
    for one, other in zip(*answers, strict=True):
        if isinstance(one, Stretch):
            assert_bitwise_equal((one.reports, one.views), (other.reports, other.views))
    closed = [answer[-1].markets for answer in answers]
    assert int(closed[0].counters.most_resting.min()) > deep.slots(many)
    assert whole == [few.capacity, many.capacity]
    for x, y in zip(*(jax.tree.leaves(market.book) for market in closed), strict=True):
        np.testing.assert_array_equal(x, np.asarray(y)[..., :few.capacity] if np.ndim(y) > 1 else y)
    assert_bitwise_equal((closed[0].ledgers, closed[0].counters), (closed[1].ledgers, closed[1].counters))
