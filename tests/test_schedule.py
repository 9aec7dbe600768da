"""Events of random agents with latency against a plain-Python event queue: order by order, account by account."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from marsjax import clock, model, simulate, tokens
from marsjax import orders as make
from marsjax.agents.base import Action, Latency, News, Observation
from marsjax.simulate import SimulationSpec
from marsjax.specs import SECOND_NS, CacheSpec, TokenSpec
from marsjax.start import Start
from marsjax.types import NO_ID, Kind, Time
from marsjax.watchers.trace import Trace
from tests import test_rollout as plain
from tests.test_rollout_agents import begin
from tests.twin import Message
from tests.twin_exchange import Timed, TwinExchange
from tests.twin_queue import Deed, Queue, ScriptedAgent

CASES, WAKES, ORDERS, EVENTS, STEPS = 200, 24, 3, 160, 40
MARKET = dataclasses.replace(plain.MARKET, owners=5)
END_NS = plain.START_NS + 2 * SECOND_NS
GRID_NS = 100_000_000
"""Of all times, so that many are equal."""
NONE, AWAY, SLOW = Latency(), Latency(2 * GRID_NS, GRID_NS), Latency(GRID_NS, 7 * GRID_NS)


@dataclasses.dataclass(frozen=True)
class Scripted:
    """The agent of `ScriptedAgent`; its script is its state."""

    owner: int
    latency: Latency
    most_orders: int = ORDERS
    most_in_flight: int = 4

    @property
    def name(self) -> str:
        return f"scripted {self.owner}"

    def init(self) -> Any:
        raise NotImplementedError("starts are given")

    def told(self, state: Any, news: News) -> Any:
        return {**state, "told": state["told"] + 1}

    def act(self, state: Any, seen: Observation, key: jax.Array) -> Action:
        bid = jnp.where(seen.view.bid_price[0] > 0, seen.view.bid_price[0], 100_000)
        holdings = clock.to_int32(seen.account.holdings)
        base = bid + 100 * (holdings // 100 % 3) + 100 * (state["told"] % 2)
        kind, offset, volume = (state[name][state["wakes"]] for name in ("kind", "offset", "volume"))
        side = offset % 2
        mine = seen.resting.order_id[side]
        number = jnp.min(jnp.where(mine == NO_ID, 2**31 - 1, mine), axis=1)
        has_own = jnp.any(mine != NO_ID, axis=1)
        rests = jnp.sum(jnp.where(mine == number[:, None], seen.resting.volume[side], 0), axis=1)
        limit = make.limit_order(kind, base + 100 * offset, volume)
        cancel = make.cancel_order(side, jnp.where(has_own, number, 3), jnp.where(has_own, rests, volume))
        orders = jax.tree.map(lambda c, o: jnp.where(kind == Kind.CANCEL, c, o), cancel, limit)
        delay = jax.tree.map(lambda x: x[state["wakes"]], state["delay"])
        return Action({**state, "wakes": state["wakes"] + 1}, orders, clock.add_time(seen.time, delay),
                      stops=jnp.zeros((), bool), unsent=jnp.int32(0))


AGENTS = (Scripted(2, NONE), Scripted(3, AWAY), Scripted(4, SLOW))
SPEC = SimulationSpec(MARKET, plain.MODEL, CacheSpec(mode="rolling", append=2), end_ns=END_NS, agents=AGENTS, burst=2,
                      watchers=(Trace(MARKET, EVENTS),))


@functools.cache
def scripts() -> dict[str, np.ndarray]:
    """[CASES, agents, WAKES, ...] of everything."""
    rng = np.random.default_rng(0)
    shape = (CASES, len(AGENTS), WAKES)
    delay = rng.integers(1, 6, shape) * GRID_NS
    delay[rng.random(shape) < 0.02] = 0  # a wake-up that is not later: the agent is stopped
    return {"kind": rng.choice([Kind.SELL, Kind.BUY, Kind.CANCEL, Kind.NONE], (*shape, ORDERS), p=[.3, .3, .2, .2]),
            "offset": rng.integers(-2, 4, (*shape, ORDERS)), "volume": rng.integers(0, 9, (*shape, ORDERS)) * 100,
            "delay_ns": delay, "token": rng.integers(0, TokenSpec().classes, (CASES, STEPS))}


@functools.cache
def plans() -> np.ndarray:
    """What the tokens stand for, int64 [CASES, STEPS, 4]: kind, price less mid, volume, wait in ns."""
    plan = tokens.draw_plan(TokenSpec(), plain.tables()[1], scripts()["token"], np.zeros((CASES, STEPS, 3), np.uint32))
    return np.stack([np.asarray(plan.kind), np.asarray(plan.offset), np.asarray(plan.volume),
                     clock.time_to_ns(plan.wait)], axis=-1)


@functools.cache
def simulated() -> Any:
    x = scripts()
    starts = []
    for i in range(len(AGENTS)):
        columns = {name: jnp.asarray(x[name][:, i], jnp.int32) for name in ("kind", "offset", "volume")}
        zero = jnp.zeros(CASES, jnp.int32)
        state = {**columns, "delay": jax.tree.map(jnp.asarray, clock.time_from_ns(x["delay_ns"][:, i])), "wakes": zero,
                 "told": zero}
        starts.append((state, Time(*(jnp.full(CASES, part, jnp.int32) for part in divmod(plain.START_NS, SECOND_NS)))))
    params = model.init(plain.MODEL, jax.random.key(0))
    every: Start = jax.tree.map(lambda a: jnp.broadcast_to(a, (CASES, *jnp.shape(a))), widened())
    first = simulate.begin(params, SPEC, every, jnp.arange(CASES), starts)
    keys = jnp.broadcast_to(jax.random.key(0), (CASES,))
    zero = simulate.Draws(jnp.zeros((CASES, 2), jnp.uint32), jnp.zeros((CASES, 3), jnp.uint32),
                          jnp.zeros(CASES, jnp.uint32), jnp.zeros(CASES, jnp.int32), keys)

    @jax.jit
    def run(state: simulate.Simulation, given: jax.Array) -> simulate.Simulation:
        return jax.lax.scan(lambda s, t: (simulate.step(params, SPEC, *plain.tables(), s, zero._replace(
            given_token=t))[0], None), state, given)[0]

    return jax.tree.map(np.asarray, dataclasses.replace(run(first, jnp.asarray(x["token"].T, jnp.int32)), cache=None))


def widened() -> Start:
    """The common start with an account for each agent."""
    market = begin().market
    ledgers = jax.tree.map(lambda x: jnp.concatenate([x[:2], jnp.zeros(3, x.dtype), x[-1:]]), market.ledgers)
    return dataclasses.replace(begin(), market=dataclasses.replace(market, ledgers=ledgers))


def queues() -> list[Queue]:
    twin, sent = TwinExchange(MARKET), plain.noise_orders()
    for i, time_ns in enumerate(clock.time_to_ns(sent.time)):
        fields = (int(x[i]) for x in (sent.kind, sent.price, sent.volume, sent.order_id, sent.cancel_side,
                                      sent.cancel_id, sent.owner))
        twin.submit(Timed(int(time_ns), Message(*fields)))
    x, result = scripts(), []
    for case in range(CASES):
        agents = []
        for i, agent in enumerate(AGENTS):
            rows = np.stack([x[name][case, i] for name in ("kind", "offset", "volume")], axis=-1).tolist()
            agents.append(ScriptedAgent({"orders": rows, "delay_ns": x["delay_ns"][case, i].tolist()}, agent.owner,
                                        agent.latency.communication_ns, agent.latency.computation_ns,
                                        agent.most_in_flight))
        queue = Queue(twin, agents, plans()[case].tolist(), plain.START_NS, END_NS)
        queue.run()
        result.append(queue)
    return result


def deeds(log: Any) -> list[Deed]:
    rows = []
    times = clock.time_to_ns(log.events.order.time)
    for i in range(int(log.count)):
        e = jax.tree.map(lambda x, i=i: x[i], log.events)
        taken = [(int(e.cancelled.trades.resting_id[side, k]), int(e.cancelled.trades.volume_each[side, k]))
                 for side in range(2) for k in range(int(e.cancelled.trades.count[side]))]
        if e.is_bulk:
            rows.append(Deed(int(times[i]), 0, Kind.CANCEL, int(e.order.price), 0, 0, NO_ID, tuple(taken)))
        else:
            price = 0 if e.order.kind == Kind.CANCEL else int(e.order.price)
            rows.append(Deed(int(times[i]), int(e.source), int(e.order.kind), price, int(e.order.volume),
                             int(e.report.status), int(e.report.order_id), ()))
    return rows


def test_two_hundred_random_cases_equal_the_event_queue() -> None:
    got, many_in_flight, stopped, ties = simulated(), 0, 0, 0
    assert (got.end == simulate.End.TIME).all(), "more steps are needed"
    for case, queue in enumerate(queues()):
        log = jax.tree.map(lambda x, case=case: x[case], got.watched[0])
        assert not log.dropped
        assert deeds(log) == queue.deeds, case
        ledgers = jax.tree.map(lambda x, case=case: x[case], got.market.ledgers)
        assert clock.wide_to_numpy(ledgers.cash).tolist() == queue.exchange.cash
        assert clock.wide_to_numpy(ledgers.holdings).tolist() == queue.exchange.holdings
        for i, agent in enumerate(queue.agents):
            seat = jax.tree.map(lambda x, case=case: x[case], got.seats[i])
            assert (seat.wakes, seat.refused, seat.unsent) == (agent.wakes, agent.refused, agent.unsent)
            assert (seat.state["told"], seat.late_wakes, not seat.awake) == (agent.told, agent.stopped, agent.stopped)
            many_in_flight += agent.unsent
            stopped += agent.stopped
        times = [deed.time_ns for deed in queue.deeds]
        ties += len(times) - len(set(times))
    # The cases hold what they are for.
    assert many_in_flight > 100 and stopped > 20 and ties > 2000
