"""Manipulators: what they send and take back at hand-made moments, and that they fit the engine."""

import dataclasses
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from marsjax import testing
from marsjax.agents import PumpAndDump, Spoofing, WashTrades, check
from marsjax.agents.base import AgentEvent, Latency, Observation, Resting
from marsjax.core import int64, times
from marsjax.core.errors import InputError
from marsjax.core.records import EMPTY_PRICE, NO_ID, Kind, Side, Status
from marsjax.core.specs import MarketSpec
from marsjax.core.times import SECOND_NS

Rests = dict[int, tuple[int, int, int]]
START_NS = 36_000 * SECOND_NS
MARKET = MarketSpec(capacity=8, levels=1, accounts=3)
SLOW = Latency(communication_ns=300_000_000, computation_ns=50_000_000)
SPOOF = Spoofing(size=5_000, start_ns=START_NS, total_seconds=30, levels=3, ticks_behind=2, real_size=400, move_ticks=4)
PUMP = PumpAndDump(size=1_000, start_ns=START_NS, pump_seconds=10, hold_seconds=5, dump_seconds=10, interval_seconds=5)
WASH = WashTrades(size=3_000, start_ns=START_NS, total_seconds=30, interval_seconds=10)


def seen(second: int, bid: int | None = 99_900, ask: int | None = 100_100, rests: Rests | None = None
         ) -> Observation:
    """A moment, so many seconds after the start; `rests`: id -> (side, price, volume) of the agent's own orders."""
    shaped = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), check.shapes(MARKET)[0])
    mid = bid + ask if bid and ask else 2 * (bid or ask or 0)
    view = dataclasses.replace(
        shaped.view, ask_price=jnp.array([ask or EMPTY_PRICE], jnp.int32),
        bid_price=jnp.array([bid or EMPTY_PRICE], jnp.int32), mid_price_twice=jnp.int32(mid),
        ask_volume=int64.of_int32(jnp.array([300])), bid_volume=int64.of_int32(jnp.array([200])))
    price, volume, order_id = (np.full((2, 8), nothing, np.int32) for nothing in (EMPTY_PRICE, 0, NO_ID))
    for slot, (number, (side, at, shares)) in enumerate((rests or {}).items()):
        price[side, slot], volume[side, slot], order_id[side, slot] = at, shares, number
    own = Resting(*map(jnp.asarray, (price, volume, order_id)))
    return shaped._replace(time=times.of_ns(START_NS + second * SECOND_NS), view=view, resting=own,
                           tick=jnp.int32(100))


def act(agent: Any, state: Any, at: Observation) -> tuple[Any, list[tuple[Any, ...]], bool]:
    """The state after a wake-up, what was sent, and whether the agent stops."""
    action = agent.act(state, at, jax.random.key(3))
    sent = jax.tree.map(np.asarray, action.orders)
    rows = [(Kind(kind), price, volume) if kind != Kind.CANCEL else (Kind.CANCEL, number, volume)
            for kind, price, volume, number in zip(sent.kind, sent.price, sent.volume, sent.cancel_id, strict=True)
            if kind != Kind.NONE]
    return action.state, rows, bool(action.stops)


@pytest.mark.quick
def test_false_orders_go_behind_the_touch_and_the_real_one_to_the_other_side() -> None:
    state, sent, stops = act(SPOOF, SPOOF.init()[0], seen(0))
    assert sent == [(Kind.BUY, 99_700, 1_700), (Kind.BUY, 99_600, 1_700), (Kind.BUY, 99_500, 1_600),
                    (Kind.SELL, 100_100, 400)]
    assert not stops and int(state.first_mid_twice) == 200_000
    sells = dataclasses.replace(SPOOF, direction="sell")
    assert act(sells, sells.init()[0], seen(0))[1] == [
        (Kind.SELL, 100_300, 1_700), (Kind.SELL, 100_400, 1_700), (Kind.SELL, 100_500, 1_600), (Kind.BUY, 99_900, 400)]


@pytest.mark.quick
@pytest.mark.parametrize(("moment", "closes"), [
    ({"second": 5}, False), ({"second": 5, "bid": 100_200, "ask": 100_400}, False),
    ({"second": 5, "bid": 100_300, "ask": 100_500}, True), ({"second": 5, "bid": 99_700}, True),
    ({"second": 30}, True), ({"second": 5, "bid": 99_500, "ask": 99_700}, False)])
def test_false_orders_are_taken_back_when_the_mid_has_moved_or_comes_near_or_the_time_is_over(
        moment: dict[str, int], closes: bool) -> None:
    rests = {7: (Side.BID, 99_700, 1_700), 8: (Side.BID, 99_600, 1_700), 9: (Side.ASK, 100_100, 400)}
    state = act(SPOOF, SPOOF.init()[0], seen(0))[0]
    state, sent, stops = act(SPOOF, state, seen(**moment, rests=rests))
    cancels = [(Kind.CANCEL, 9, 400), (Kind.CANCEL, 7, 1_700), (Kind.CANCEL, 8, 1_700)]
    assert sent == (cancels if closes else []) and not stops
    assert act(SPOOF, state, seen(moment["second"] + 1))[2] == closes


@pytest.mark.quick
def test_a_spoofer_waits_for_a_market_of_two_sides_and_one_of_no_size_never_acts() -> None:
    state, sent, stops = act(SPOOF, SPOOF.init()[0], seen(0, ask=None))
    assert not sent and not stops and len(act(SPOOF, state, seen(1))[1]) == 4
    for agent in (SPOOF, PUMP, WASH):
        nobody, _ = agent.starts(0, True)
        _, sent, stops = act(agent, jax.tree.map(jnp.asarray, nobody), seen(0))
        assert not sent and stops


def bought(agent: PumpAndDump, state: Any, kind: Kind, shares: int) -> Any:
    """Its state after its own order of so many shares has traded."""
    heard: AgentEvent = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), check.shapes(MARKET)[1])
    order = dataclasses.replace(heard.order, kind=jnp.int32(kind), volume=jnp.int32(shares))
    signed = int64.of_int32(jnp.int32(shares if kind == Kind.BUY else -shares))
    return agent.on_event(state, heard._replace(is_own=jnp.bool_(True), order=order, shares=signed,
                                                status=jnp.int32(Status.ACCEPTED)))


@pytest.mark.quick
def test_a_pump_buys_its_size_waits_and_sells_what_it_has_bought() -> None:
    state, sent, _ = act(PUMP, PUMP.init()[0], seen(0))
    assert sent == [(Kind.BUY, 100_600, 500)]
    state = bought(PUMP, state, Kind.BUY, 500)
    state, sent, _ = act(PUMP, state, seen(5))
    assert sent == [(Kind.BUY, 100_600, 500)]
    state = bought(PUMP, state, Kind.BUY, 300)
    state, sent, _ = act(PUMP, state, seen(10, rests={4: (Side.BID, 100_600, 200)}))
    assert sent == [(Kind.CANCEL, 4, 200)]
    state, sent, _ = act(PUMP, state, seen(15))
    assert sent == [(Kind.SELL, 99_400, 400)]
    state = bought(PUMP, state, Kind.SELL, 400)
    state, sent, stops = act(PUMP, state, seen(20))
    assert sent == [(Kind.SELL, 99_400, 400)] and not stops
    state = bought(PUMP, state, Kind.SELL, 400)
    state, sent, stops = act(PUMP, state, seen(25))
    assert not sent and stops
    assert (int(state.first.completed), int(state.second.completed)) == (800, 800)


@pytest.mark.quick
def test_a_pump_sends_whole_lots_and_the_last_order_of_its_dump_takes_the_rest() -> None:
    agent = dataclasses.replace(PUMP, pump_seconds=7, hold_seconds=0, dump_seconds=7, interval_seconds=1)
    state, volumes = agent.init()[0], []
    for second in range(14):
        state, sent, _ = act(agent, state, seen(second))
        for kind, _, volume in sent:
            volumes.append(volume)
            traded = volume - 30 if second == 6 else volume  # the pump ends with 970 shares
            state = bought(agent, state, kind, traded)
    assert volumes == [200, 100, 200, 100, 200, 100, 100, 200, 100, 200, 100, 100, 200, 70]
    assert (int(state.first.completed), int(state.second.completed)) == (970, 970)


@pytest.mark.quick
def test_wash_trades_meet_within_the_spread_or_behind_what_they_sweep() -> None:
    state, sent, _ = act(WASH, WASH.init()[0], seen(0))
    assert sent == [(Kind.SELL, 100_000, 1_000), (Kind.BUY, 100_000, 1_000)]
    tight = seen(0, bid=100_000, ask=100_100)
    assert act(WASH, state, tight)[1] == [(Kind.BUY, 100_100, 1_300), (Kind.SELL, 100_100, 1_000)]
    careful = dataclasses.replace(WASH, most_swept=200)
    assert act(careful, state, tight)[1] == []
    sells = dataclasses.replace(WASH, direction="sell", most_swept=200)
    assert act(sells, sells.init()[0], tight)[1] == [(Kind.SELL, 100_000, 1_200), (Kind.BUY, 100_000, 1_000)]


@pytest.mark.quick
@pytest.mark.parametrize("wrong", [
    lambda: Spoofing(size=250, start_ns=0, total_seconds=5), lambda: Spoofing(size=200, start_ns=0, total_seconds=5,
                                                                              levels=3),
    lambda: dataclasses.replace(SPOOF, levels=17), lambda: dataclasses.replace(SPOOF, ticks_behind=0),
    lambda: dataclasses.replace(PUMP, hold_seconds=3), lambda: dataclasses.replace(PUMP, pump_seconds=2**15),
    lambda: dataclasses.replace(WASH, latency=SLOW), lambda: dataclasses.replace(WASH, direction="up")])
def test_sizes_and_times_that_do_not_fit_are_refused(wrong: Any) -> None:
    with pytest.raises(InputError, match=r"Spoofing|PumpAndDump|WashTrades"):
        wrong()


@pytest.mark.slow
@pytest.mark.parametrize("agent", [dataclasses.replace(SPOOF, latency=SLOW, total_seconds=4),
                                   dataclasses.replace(PUMP, latency=SLOW), WASH], ids=lambda agent: agent.name)
def test_manipulators_fit_the_engine(agent: Any) -> None:
    done = testing.check_agent(agent)
    assert done["sent"] and not done["late_wakes"] and not done["unsent"]


@pytest.mark.quick
@pytest.mark.parametrize("agent", [SPOOF, PUMP, WASH], ids=lambda agent: agent.name)
def test_one_record_serves_markets_at_other_times_of_day(agent: Any) -> None:
    earlier = dataclasses.replace(agent, start_ns=START_NS - 3_600 * SECOND_NS)
    given = np.array([400, agent.size]), True
    moved = earlier.starts(*given, np.array([START_NS - SECOND_NS, START_NS]))
    chex.assert_trees_all_equal(jax.tree.map(lambda x: x[1], moved), jax.tree.map(lambda x: x[1], agent.starts(*given)))
    state = agent.init()[0]
    for second in (0, 7, 12, 40):
        found, expected = (each.act(state, seen(second), jax.random.key(1)) for each in (earlier, agent))
        chex.assert_trees_all_equal(found, expected)
        state = expected.state
