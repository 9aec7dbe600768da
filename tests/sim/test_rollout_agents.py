"""Laws of rollouts with other agents beside the order model."""

import dataclasses
import functools
from pathlib import Path
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from marsjax.agents.base import NO_LATENCY, Action, AgentEvent, Latency, Observation
from marsjax.agents.twap import Twap
from marsjax.core import int64, times
from marsjax.core.records import Kind, Side, Status, Time
from marsjax.core.specs import CacheSpec
from marsjax.core.times import SECOND_NS
from marsjax.market import exchange
from marsjax.market import orders as make
from marsjax.observers import trace_tables
from marsjax.observers.trace import Log
from marsjax.sim import rollout
from marsjax.sim.specs import SimulationSpec
from tests.sim import test_rollout as plain

pytestmark = pytest.mark.quick

MARKET = dataclasses.replace(plain.MARKET, accounts=5)
TWAP = Twap(target=5000, start_ns=plain.START_NS, total_seconds=9, passive_seconds=2, idle_seconds=1,
            max_passive_volume_ratio=0.1)


@dataclasses.dataclass(frozen=True)
class LargestOrder:
    """An observer of one's own: the most shares of one order, as of the open, and at the close with the last mid."""

    def begin(self, market: Any, view: Any, time: Time) -> Any:
        return jnp.int32(0)

    def update(self, state: Any, event: Any) -> Any:
        return jnp.maximum(state, jnp.where(event.happened, event.order.volume, 0))

    def end(self, state: Any, market: Any, view: Any, time: Time) -> Any:
        return {"largest": state, "mid": view.mid_price}


@dataclasses.dataclass(frozen=True)
class Rude:
    """Cancels what is not its own, sends more than it may, and asks to be woken in the past at its third wake-up."""

    account: int = 3
    name: str = "rude"
    most_orders: int = 3
    most_in_flight: int = 4
    latency: Latency = dataclasses.field(default=Latency(communication_ns=400_000_000, computation_ns=900_000_000))

    def init(self) -> tuple[Any, Time]:
        return (jnp.int32(0), jnp.int32(0), jnp.int32(0)), times.of_ns(plain.START_NS)

    def on_event(self, state: Any, news: AgentEvent) -> Any:
        return state[0], state[1] + (news.is_own & (news.status != 0)), state[2]

    def act(self, state: Any, seen: Observation, key: jax.Array) -> Action:
        other = make.cancel_order(Side.BID, jnp.int32(0) + seen.view.bid_price[0] * 0 + 1, 100)
        bad = make.limit_order(Kind.BUY, 12_345, 100)  # not on a tick
        good = make.limit_order(Kind.BUY, seen.view.bid_price[0] - 300, 100)
        orders = jax.tree.map(lambda *x: jnp.stack(x), other, bad, good)
        wake = times.add(seen.time, times.of_ns(SECOND_NS))
        wake = times.select(state[0] == 2, times.of_ns(0), wake)
        return Action((state[0] + 1, state[1], seen.observed[0]), orders, wake,
                      stops=jnp.bool_(False), unsent=jnp.int32(2))


@dataclasses.dataclass(frozen=True)
class Listener:
    """Sends nothing; counts what it hears of others' orders by status."""

    account: int = 4
    name: str = "listener"
    most_orders: int = 1
    most_in_flight: int = 1
    latency: Latency = NO_LATENCY

    def init(self) -> tuple[Any, Time]:
        return jnp.zeros((4, len(Status)), jnp.int32), times.of_ns(plain.START_NS)

    def on_event(self, state: Any, event: AgentEvent) -> Any:
        traded = event.trades.count > 0
        return state.at[event.order.kind, event.status].add(1).at[3, event.status].add(traded.astype(jnp.int32))

    def act(self, state: Any, seen: Observation, key: jax.Array) -> Action:
        return Action(state, jax.tree.map(lambda x: x[None], make.no_order()), seen.time, stops=jnp.bool_(True),
                      unsent=jnp.int32(0))


SPEC = SimulationSpec(MARKET, CacheSpec(mode="rolling", append=2), end_ns=plain.SPEC.end_ns,
                      agents=(TWAP, Rude(), Listener()), burst=2, observers=(LargestOrder(),))


@functools.cache
def begin() -> Any:
    return plain.initial.from_feed(MARKET, plain.tables()[0], plain.feed(plain.noise_orders()), plain.START_NS,
                                 plain.MODEL.context_length, chunk_orders=256)


def run(**changes: Any) -> rollout.Rollout:
    options = {"trajectories": 4, "minutes": 1, "seed": 3, "chunk_steps": 16, "spec": SPEC} | changes
    return plain.run(start=begin(), **options)


@functools.cache
def traced() -> tuple[rollout.Rollout, list[Log]]:
    logs: list[Log] = []
    return run(on_trace=lambda who, log: logs.append(log), trace_room=256), logs


@pytest.mark.slow
def test_a_trajectory_alone_and_in_other_chunks_equals_itself_in_a_batch() -> None:
    alone = run(trajectories=1, first=2, chunk_steps=5)
    chex.assert_trees_all_equal(plain.states(alone), [x[2:3] for x in plain.states(traced()[0])])


def test_shares_and_cash_are_conserved_over_all_accounts() -> None:
    result = traced()[0]
    lost = jax.tree.leaves(jax.vmap(exchange.conservation)(result.state.market))
    assert not any(np.asarray(x).any() for x in lost)
    assert result.ended == {"TIME": 4}


def test_twap_fills_its_target_and_its_orders_make_tokens() -> None:
    result, logs = traced()
    state = result.state.agent_states[0].state
    bought = int64.to_numpy(jax.tree.map(lambda x: x[:, 2], result.state.market.ledgers.holdings))
    np.testing.assert_array_equal(np.asarray(state.completed), bought)
    assert (bought > 4000).all()
    own = [log.events.encoded.is_new[b, : log.count[b]][log.events.source[b, : log.count[b]] == 1]
           for log in logs for b in range(4)]
    made = np.concatenate(own)
    assert made.sum() > 4 * 3
    total = np.asarray(result.state.cache.total) - np.asarray(begin().count)
    tokens = sum(np.array([log.events.encoded.is_new[b, : log.count[b]].sum() for b in range(4)]) for log in logs)
    np.testing.assert_array_equal(total, tokens)  # none is lost on its way into the context


def test_the_tables_of_a_trace_hold_what_the_market_counted() -> None:
    result, logs = traced()
    sent = [trace_tables.orders(log, np.arange(10, 14)) for log in logs]
    made = [trace_tables.trades(log, np.arange(10, 14)) for log in logs]
    orders, trades = ({name: np.concatenate([table[name] for table in tables]) for name in tables[0]}
                      for tables in (sent, made))
    accepted = orders["status"] == "ACCEPTED"
    assert accepted.sum() == result.order_count
    assert (orders["status"] == "BAD_PRICE").sum() == result.rejected["BAD_PRICE"]
    traded = int64.to_numpy(result.state.market.counters.traded) - int64.to_numpy(
        begin().market.counters.traded)
    cancelled = int64.to_numpy(result.state.market.counters.cancelled) - int64.to_numpy(
        begin().market.counters.cancelled)
    for b in range(4):
        mine, listed = (table["trajectory"] == 10 + b for table in (orders, trades))
        assert orders["traded"][mine].sum() == trades["volume"][listed].sum() == traded[b]
        taken = mine & accepted & (orders["type"] == "C")
        assert [orders["volume"][taken & (orders["cancel_type"] == s)].sum() for s in "SB"] == cancelled[b].tolist()
        assert (np.diff(orders["time_ns"][mine]) >= 0).all()
        ids = orders["order_id"][mine & accepted]
        assert (np.diff(ids) == 1).all() and ids[0] == int(begin().market.next_id)
    assert set(trades["order_id"]) <= set(orders["order_id"])
    last = {b: np.flatnonzero(orders["trajectory"] == 10 + b)[-1] for b in range(4)}
    got = [orders["mid_twice"][last[b]] for b in range(4)]
    np.testing.assert_array_equal(got, np.asarray(result.state.view.mid_price_twice))


def test_an_observer_is_fed_with_every_order_read_by_agents_and_returned() -> None:
    result, logs = traced()
    got = result.observed[0]
    np.testing.assert_array_equal(got["mid"], result.state.view.mid_price)
    largest = [max(int(log.events.order.volume[b, : log.count[b]].max(initial=0)) for log in logs) for b in range(4)]
    np.testing.assert_array_equal(got["largest"], largest)
    seen = np.asarray(result.state.agent_states[1].state[2])
    assert (seen > 0).all() and (seen <= largest).all()


def test_an_agent_out_of_bounds_is_counted_by_name_and_the_market_goes_on() -> None:
    result = traced()[0]
    counted = result.agents["rude"]
    assert counted["wakes"] == 4 * 3 and counted["late_wakes"] == 4
    # Its orders take 1.7 s and it wakes up every second: at the second wake-up three of at most four are on their way.
    assert counted["unsent"] == 4 * (3 * 2 + 2)
    assert counted["sent"] == 4 * (3 + 1 + 3) and counted["refused"] == 4 * (2 + 1 + 2)
    refused = np.asarray(result.state.agent_states[1].state[1])
    np.testing.assert_array_equal(refused, [5] * 4)  # it heard of them
    assert result.rejected["BAD_PRICE"] >= 4 * 2


@pytest.mark.slow
def test_an_agent_with_nothing_to_do_leaves_the_market_as_it_is() -> None:
    """Baseline and strategy share their draws: with a target of 0 they are the same market."""
    expected = run(spec=dataclasses.replace(SPEC, agents=(), temperature=SHARP))
    chex.assert_trees_all_equal(plain.states(buying(0)[0]), plain.states(expected))


def test_agents_hear_what_became_of_every_order_cancels_by_price_too() -> None:
    result = traced()[0]
    heard = np.asarray(result.state.agent_states[2].state).sum(axis=0)
    assert heard[:, Status.NO_ORDER].sum() == 0
    executed = heard[Kind.CANCEL, Status.ACCEPTED]
    assert executed > 10 and heard[3, Status.ACCEPTED] >= executed  # each of these has transactions
    # A cancel by price is one event, whatever number of orders it comes to; limit orders are one each.
    limit = heard[[Kind.SELL, Kind.BUY], Status.ACCEPTED].sum()
    assert limit < result.order_count and limit + executed <= result.order_count
    assert heard[Kind.CANCEL, Status.NOTHING_TO_CANCEL] == result.status[:, Status.NOTHING_TO_CANCEL].sum()


def test_a_state_saved_with_a_buy_is_not_taken_up_under_a_sale(tmp_path: Path) -> None:
    def stop(progress: rollout.RolloutProgress) -> None:
        if progress.steps == 32:
            raise plain.KilledError

    def starts(target: int, is_buy: bool) -> Any:
        others = [jax.tree.map(lambda x: jnp.broadcast_to(x, (4, *jnp.shape(x))), agent.init())
                  for agent in SPEC.agents[1:]]
        return [TWAP.starts(np.full(4, target, np.int32), is_buy), *others]

    # With a trace, as above: the compilation is the same.
    options = {"saving": rollout.Saving(tmp_path / "state", every_s=0), "on_trace": lambda who, log: None,
               "trace_room": 256}
    with pytest.raises(plain.KilledError):
        run(agent_starts=starts(1000, True), on_chunk=stop, **options)
    with pytest.raises(ValueError, match="saved by another run: agent_starts: expected"):
        run(agent_starts=starts(5000, False), **options)


SHARP = 0.05
"""Temperature at which a model without training goes by what it sees."""


@functools.cache
def buying(target: int) -> tuple[rollout.Rollout, list[Log]]:
    logs: list[Log] = []
    starts = TWAP.starts(np.full(4, target, np.int32), True)
    return run(spec=dataclasses.replace(SPEC, agents=(TWAP,), temperature=SHARP), agent_starts=[starts], trace_room=256,
               on_trace=lambda who, log: logs.append(log)), logs


def volumes_and_sources(logs: list[Log], b: int) -> np.ndarray:
    return np.concatenate([np.stack([log.events.order.volume[b], log.events.source[b]])[:, : log.count[b]]
                           for log in logs], axis=1)


@pytest.mark.slow
def test_the_order_model_writes_other_orders_once_an_agent_has_sent_one() -> None:
    """With the same draws a volume is another only where the token is: it does not depend on the price."""
    others = 0
    for b in range(4):
        (idle, _), (active, source) = (volumes_and_sources(buying(target)[1], b) for target in (0, 4000))
        first = int(np.argmax(source))
        assert source[first] == 1
        np.testing.assert_array_equal(active[:first], idle[:first])
        later = active[first:][source[first:] == 0]
        count = min(len(later), len(idle) - first)
        assert count > 10
        others += int((later[:count] != idle[first:][:count]).sum())
    assert others > 10


def test_two_agents_of_one_account_are_refused() -> None:
    with pytest.raises(ValueError, match="agent 'twap': account 1 is the account of the background agent"):
        dataclasses.replace(SPEC, agents=(dataclasses.replace(TWAP, account=1),))
    with pytest.raises(ValueError, match="agent 'rude': account 2 is the account of agent 'twap'"):
        dataclasses.replace(SPEC, agents=(TWAP, Rude(account=2)))
    with pytest.raises(ValueError, match="expected an account of 0 to 4"):
        dataclasses.replace(SPEC, agents=(dataclasses.replace(TWAP, account=5),))
