"""An agent in recorded orders: those stay as they were where it trades with nobody, and its own come out even."""

import dataclasses
from typing import Any

import jax
import numpy as np
import pytest

from marsjax import testing
from marsjax.agents import PumpAndDump, Spoofing
from marsjax.agents.base import Latency
from marsjax.core import int64, times
from marsjax.core.errors import InputError
from marsjax.core.records import Kind, Order, Status
from marsjax.core.times import SECOND_NS
from marsjax.data.feed import DayFeed, FeedChunk
from marsjax.sim import initial
from marsjax.sim.initial import Passed
from marsjax.sim.replayed import replay_day
from marsjax.sim.simulator import Simulator
from marsjax.studies import injected, manipulated_day, order_model, starts
from marsjax.studies.manipulations import Manipulation

pytestmark = pytest.mark.quick

END_NS = 36_000 * SECOND_NS
FROM_NS = END_NS - 40 * SECOND_NS
MARKET = testing.tiny_market(accounts=3)


def day(count: int = 120, rows: int = 1000) -> DayFeed:
    """A minute of random orders with ids, in chunks of so many."""
    sent = testing.random_orders(END_NS, count=count)
    sent = dataclasses.replace(sent, order_id=np.arange(5, 5 + count, dtype=np.int32))
    parts = [jax.tree.map(lambda x, i=i: x[i : i + rows], sent) for i in range(0, count, rows)]
    return DayFeed("made", "", lambda: iter([FeedChunk.of(part) for part in parts]), publishes_fills=True)


def passed(feed: DayFeed, stops: list[int]) -> list[tuple[Any, Passed]]:
    model = testing.tiny_model()
    table = Simulator.of(model, MARKET).table
    return list(initial.from_feed_at(MARKET, table, feed.read(), stops, 32, chunk_orders=128, allow_refused=True))


@pytest.fixture(scope="module")
def start() -> Any:
    """The market when the agents come."""
    return passed(day(), [FROM_NS])[0][0].market


def put(agent: Any, start: Any, feed: DayFeed | None = None) -> injected.Injected:
    return injected.inject(MARKET, feed or day(), agent, start, FROM_NS, END_NS)


FAR = Spoofing(size=3_000, start_ns=FROM_NS + 10**9, total_seconds=30, levels=3, ticks_behind=200, real_size=0,
               move_ticks=1_000)
PUMP = PumpAndDump(size=2_000, start_ns=FROM_NS + 10**9, pump_seconds=10, dump_seconds=20, price_change=500)


def test_orders_that_trade_with_nobody_change_nothing_for_the_others(start: Any) -> None:
    found = put(FAR, start)
    assert [Kind(kind).name for kind in found.sent.kind] == 3 * ["BUY"] + 3 * ["CANCEL"] and not found.refused
    assert found.feed.name == "made_spoofing" and not found.feed.publishes_fills
    (_, before), = passed(day(), [END_NS])
    (_, after), = passed(found.feed, [END_NS])
    own = np.asarray(after.orders.account) == FAR.account
    assert own.sum() == 6 and (after.status == Status.ACCEPTED).all()
    others = jax.tree.map(lambda x: np.asarray(x)[~own], (after.orders, after.status))
    same = jax.tree.map(lambda a, b: bool(np.array_equal(a, b)), others, (before.orders, before.status))
    assert all(jax.tree.leaves(same))
    for name in ("mid_price_twice", "spread", "last_price"):
        assert np.array_equal(getattr(after.views, name)[~own], getattr(before.views, name)), name
    time_ns = times.to_ns(after.orders.time)
    assert (np.diff(time_ns) >= 0).all()
    assert time_ns[own].tolist() == 3 * [FROM_NS + SECOND_NS] + 3 * [FROM_NS + 31 * SECOND_NS]


def test_a_pump_ends_with_no_shares_and_the_others_hold_as_many(start: Any) -> None:
    found = put(PUMP, start)
    replayed = replay_day(found.feed, MARKET, chunk_orders=128, allow_refused=True)
    traded = int64.to_numpy(replayed.reports.trades.volume)
    bought, sold = (traded[np.isin(replayed.sent.order_id, found.sent.order_id[found.sent.kind == kind])].sum()
                    for kind in (Kind.BUY, Kind.SELL))
    assert bought > 500 and sold > 500
    holdings = int64.to_numpy(jax.tree.map(np.asarray, replayed.closing.ledgers.holdings))
    assert holdings[2] == 0 and holdings[:2].sum() == 0
    assert int((np.asarray(replayed.reports.status)[np.isin(replayed.sent.order_id, found.sent.order_id)] > 0).sum()
               ) == found.refused == 0


@pytest.mark.parametrize("rows", [1, 7, 119])
def test_no_result_depends_on_the_chunks_of_the_feed(start: Any, rows: int) -> None:
    def whole(feed: DayFeed) -> Order:
        return jax.tree.map(lambda *x: np.concatenate(x), *[chunk.orders for chunk in feed.read()])

    one, other = (whole(put(PUMP, start, feed).feed) for feed in (day(), day(rows=rows)))
    same = jax.tree.map(np.array_equal, one, other)
    assert all(jax.tree.leaves(same))
    chunks = list(put(PUMP, start, day(rows=rows)).feed.read())
    for chunk in chunks:
        assert len(chunk.orders.kind) == len(chunk.sequence) == len(starts.synthetic(chunk))


def tight_day(shares: int) -> DayFeed:
    """A spread of one tick with so many shares at each best price, an hour before END_NS."""
    kinds = np.array([Kind.BUY, Kind.SELL] + 4 * [Kind.BUY], np.int32)
    sent = jax.tree.map(lambda x: np.asarray(x)[: len(kinds)], testing.random_orders(END_NS, count=len(kinds)))
    sent = dataclasses.replace(
        sent, kind=kinds, price=np.array([99_900, 100_000] + 4 * [99_000], np.int32),
        volume=np.array([shares, shares] + 4 * [100], np.int32), order_id=np.arange(5, 11, dtype=np.int32),
        time=times.from_ns(END_NS - np.array([59, 58, 50, 30, 20, 1], np.int64) * SECOND_NS))
    return DayFeed("tight", "", lambda: iter([FeedChunk.of(sent)]), publishes_fills=True)


def test_wash_trades_take_a_level_of_twice_their_size_and_say_what_kept_them_from_it() -> None:
    prepared = order_model.prepare(testing.tiny_model())
    wash = Manipulation("wash", 10_000, 30)
    put_in = manipulated_day.put_into(MARKET, prepared, tight_day(20_000), wash, FROM_NS)
    replayed = replay_day(put_in.injected.feed, MARKET, chunk_orders=128, allow_refused=True)
    own = np.isin(replayed.sent.order_id, put_in.injected.sent.order_id)
    first = np.flatnonzero(own)[:2]
    assert [Kind(kind).name for kind in np.asarray(replayed.sent.kind)[first]] == ["BUY", "SELL"]
    assert int64.to_numpy(replayed.reports.trades.volume)[first].tolist() == [20_000, 400]  # a level, then itself
    assert int64.to_numpy(jax.tree.map(np.asarray, replayed.closing.ledgers.holdings))[wash.agent(0, 100).account] > 0
    with pytest.raises(injected.NothingSentError, match=r"sent no order .* 20000 shares at most at the best price"):
        manipulated_day.put_into(MARKET, prepared, tight_day(20_100), wash, FROM_NS)
    with pytest.raises(InputError, match="after its period of continuous trading"):
        manipulated_day.put_into(MARKET, prepared, tight_day(100), wash, MARKET.session.periods[-1].end_ns - 5)


def test_what_cannot_be_put_in_is_refused(start: Any) -> None:
    with pytest.raises(InputError, match="latency"):
        put(dataclasses.replace(FAR, latency=Latency(1)), start)
    with pytest.raises(InputError, match="account below 3"):
        put(dataclasses.replace(FAR, account=3), start)
    with pytest.raises(injected.NothingSentError, match="sent no order"):
        put(dataclasses.replace(FAR, size=0), start)
    nameless = starts.feed_of("nameless", testing.random_orders(END_NS))
    with pytest.raises(InputError, match="ids of all limit orders"):
        put(FAR, start, nameless)
