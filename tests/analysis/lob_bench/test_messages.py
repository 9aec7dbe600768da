"""The orders of a small day by hand, and the same orders out of a trace."""

import dataclasses
from pathlib import Path

import jax
import numpy as np
import pytest

from marsjax import testing
from marsjax.analysis.lob_bench import messages
from marsjax.analysis.lob_bench.messages import OrderMessages
from marsjax.core import times
from marsjax.core.records import Kind, Side
from marsjax.core.specs import MarketSpec
from marsjax.core.times import SECOND_NS
from marsjax.data import neutral
from marsjax.data.feed import DayFeed, FeedChunk
from marsjax.market import process
from marsjax.observers import TraceObserver
from marsjax.sim import RolloutSpec, Simulator, rollout
from marsjax.studies import lob_bench

ROWS = ["34200000000000,B,99600,300,1,None,-1,0", "34200500000000,S,99700,100,2,None,-1,0",
        "34201000000000,S,99900,50,3,None,-1,0", "34201500000000,B,99700,160,4,None,-1,0",
        "34202000000000,C,99900,50,-1,S,3,0", "34203000000000,S,99800,70,5,None,-1,0",
        "34203000000000,C,99600,30,-1,B,1,0", "34204000000000,S,99700,10,6,None,-1,0"]
SPEC = MarketSpec(capacity=16, trade_width=4, levels=3)
B, A = int(Side.BID), int(Side.ASK)
EXPECTED = {
    "kind": [Kind.BUY, Kind.SELL, Kind.SELL, Kind.BUY, Kind.CANCEL, Kind.SELL, Kind.CANCEL, Kind.SELL],
    "side": [B, A, A, B, A, A, B, A],
    "price": [99600, 99700, 99900, 99700, 99900, 99800, 99600, 99700],
    "volume": [300, 100, 50, 160, 50, 70, 30, 10],
    "traded": [0, 0, 0, 100, 0, 0, 0, 10],
    "rest": [300, 100, 50, 60, 0, 70, 0, 0],
    "order_id": [1, 2, 3, 4, 3, 5, 1, 6],
    # The cancel of 3 was the best ask before it, that of 1 the second bid; the last order does not rest.
    "level": [1, 1, 2, 1, 1, 1, 2, 0],
    "ask": [0, 99700, 99700, 99900, 0, 99800, 99800, 99800],
    "bid": [99600, 99600, 99600, 99700, 99700, 99700, 99700, 99700],
    "ask_volume": [0, 100, 100, 50, 0, 70, 70, 70],
    "bid_volume": [300, 300, 300, 60, 60, 60, 60, 50],
    "ask_total": [0, 100, 150, 50, 0, 70, 70, 70],
    "bid_total": [300, 300, 300, 360, 360, 360, 330, 320]}


def day(folder: Path, rows: list[str]) -> DayFeed:
    path = folder / "orders.csv"
    path.write_text("\n".join([",".join(neutral.COLUMNS), *rows]) + "\n")
    (found,) = neutral.days(path)
    return found


def check(found: OrderMessages) -> None:
    for name, expected in EXPECTED.items():
        assert getattr(found, name).tolist() == expected, name
    assert found.time_ns.tolist() == [int(row.split(",")[0]) for row in ROWS]


def test_the_orders_of_a_feed_by_hand(tmp_path: Path) -> None:
    check(lob_bench.read_feed(SPEC, day(tmp_path, ROWS)))


def test_orders_that_nobody_sent_and_refused_ones_are_left_out(tmp_path: Path) -> None:
    feed = day(tmp_path, [*ROWS, "34205000000000,S,99750,10,7,None,-1,0"])  # no multiple of the tick
    (chunk,) = feed.read()
    mask = np.arange(len(ROWS) + 1) < 2
    marked = dataclasses.replace(feed, read=lambda: iter([dataclasses.replace(chunk, is_synthetic=mask)]))
    got = lob_bench.read_feed(SPEC, marked)
    assert got.level.tolist() == EXPECTED["level"][2:] and got.bid.tolist() == EXPECTED["bid"][2:]


def test_a_feed_without_orders_is_refused() -> None:
    nothing = DayFeed("A", "", lambda: iter(list[FeedChunk]()))
    with pytest.raises(ValueError, match="A: expected orders, got none"):
        lob_bench.read_feed(SPEC, nothing)


def test_the_orders_of_a_trace_are_those_of_the_feed(tmp_path: Path) -> None:
    (chunk,) = day(tmp_path, ROWS).read()
    state = process.open_state(SPEC, with_tokens=False)
    trace = TraceObserver(SPEC, room=16)
    log = trace.begin(state.market, state.view, times.of_ns(0))
    step = jax.jit(lambda state, order: process.process(SPEC, None, state, order))
    for i in range(len(ROWS)):
        state, event = step(state, jax.tree.map(lambda x, i=i: x[i], chunk.orders))
        encoded = jax.tree.map(lambda x: x[0], log.events.encoded)
        log = trace.update(log, dataclasses.replace(event, encoded=encoded))
    table = messages.of_log(jax.tree.map(lambda x: np.asarray(x)[None], log), np.array([1]))
    (nothing, found) = messages.by_trajectory([table], 2)
    check(found)
    assert not len(nothing) and set(table["trajectory"]) == {1}


@pytest.mark.slow
def test_the_orders_of_a_rollout_are_those_of_its_table() -> None:
    market, start_ns = testing.tiny_market(), 36_000 * SECOND_NS
    simulator = Simulator.of(testing.tiny_model(), market, end_ns=start_ns + 12 * SECOND_NS,
                             observers=[TraceObserver(market, 64)])
    start = testing.random_start(market, testing.tiny_model(), start_ns)
    run = rollout.rollout(simulator, start, RolloutSpec(2, 1, seed=2, chunk_steps=8))
    table, trades = run.orders("integer"), run.trades("integer")
    found = messages.of_trace(run.trace, 2)
    for trajectory, one in enumerate(found):
        rows = table[(table["trajectory"] == trajectory) & (table["status"] == "ACCEPTED")]
        assert one.time_ns.tolist() == rows["time_ns"].tolist() and len(one) > 20
        assert one.price.tolist() == rows["price"].tolist() and one.traded.tolist() == rows["traded"].tolist()
        assert one.traded.sum() == trades.loc[trades["trajectory"] == trajectory, "volume"].sum()
        assert one.ask.tolist() == rows["ask"].fillna(0).tolist() and one.bid.tolist() == rows["bid"].fillna(0).tolist()
        is_cancel = one.kind == Kind.CANCEL
        assert is_cancel.any() and (one.rest[~is_cancel] == (one.volume - one.traded)[~is_cancel]).all()
        assert (one.rest[is_cancel] == 0).all() and (one.level > 0).mean() > 0.5
    nothing = dataclasses.replace(run.trace, missing="none was asked for")
    with pytest.raises(ValueError, match="lob_bench: not all orders were kept: none was asked for"):
        messages.of_trace(nothing, 2)


def test_bad_messages_are_refused(tmp_path: Path) -> None:
    good = lob_bench.read_feed(SPEC, day(tmp_path, ROWS))
    with pytest.raises(ValueError, match="time_ns falls after order 0, from 34204000000000 to 34203000000000"):
        dataclasses.replace(good, time_ns=good.time_ns[::-1])
    with pytest.raises(ValueError, match="expected arrays of one length"):
        dataclasses.replace(good, bid=good.bid[:2])
    with pytest.raises(ValueError, match="lob_bench: expected a trace with orders, got none"):
        messages.by_trajectory([], 2)
    inside = good.between(34201000000000, 34203000000000)
    assert inside.order_id.tolist() == [4, 3, 5, 1]
