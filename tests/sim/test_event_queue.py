"""Events of random agents with latency against a plain-Python event queue: order by order, account by account."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from marsjax.agents.base import Action, AgentEvent, Latency, Observation
from marsjax.core import int64, times
from marsjax.core.records import NO_ID, Kind, Status, Time
from marsjax.core.specs import CacheSpec, TokenSpec
from marsjax.core.times import SECOND_NS
from marsjax.market import orders as make
from marsjax.model import llama
from marsjax.observers.trace import TraceObserver
from marsjax.sim import step as sim_step
from marsjax.sim.initial import Start
from marsjax.sim.simulator import Simulator
from marsjax.sim.specs import SimulationSpec
from marsjax.sim.state import End, SimState
from marsjax.tokens import encoding
from tests.sim import test_rollout as plain
from tests.sim.test_rollout_agents import begin
from tests.twin import Message
from tests.twin_exchange import Timed, TwinExchange
from tests.twin_queue import LogRow, Queue, ScriptedAgent

CASES, WAKES, ORDERS, EVENTS, STEPS = 200, 24, 3, 160, 40
MARKET = dataclasses.replace(plain.MARKET, accounts=5)
END_NS = plain.START_NS + 2 * SECOND_NS
GRID_NS = 100_000_000
"""Of all times, so that many are equal."""
NONE, AWAY, SLOW = Latency(), Latency(2 * GRID_NS, GRID_NS), Latency(GRID_NS, 7 * GRID_NS)


@dataclasses.dataclass(frozen=True)
class Scripted:
    """The agent of `ScriptedAgent`; its script is its state."""

    account: int
    latency: Latency
    most_orders: int = ORDERS
    most_in_flight: int = 4

    @property
    def name(self) -> str:
        return f"scripted {self.account}"

    def init(self) -> Any:
        raise NotImplementedError("starts are given")

    def on_event(self, state: Any, news: AgentEvent) -> Any:
        return {**state, "heard": state["heard"] + 1}

    def act(self, state: Any, seen: Observation, key: jax.Array) -> Action:
        bid = jnp.where(seen.view.bid_price[0] > 0, seen.view.bid_price[0], 100_000)
        holdings = int64.to_int32(seen.account.holdings)
        base = bid + 100 * (holdings // 100 % 3) + 100 * (state["heard"] % 2)
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
        return Action({**state, "wakes": state["wakes"] + 1}, orders, times.add(seen.time, delay),
                      stops=jnp.zeros((), bool), unsent=jnp.int32(0))


AGENTS = (Scripted(2, NONE), Scripted(3, AWAY), Scripted(4, SLOW))
SPEC = SimulationSpec(MARKET, CacheSpec(mode="rolling", append=2), end_ns=END_NS, agents=AGENTS, burst=2,
                      observers=(TraceObserver(MARKET, EVENTS),))


@functools.cache
def scripts() -> dict[str, np.ndarray]:
    """[CASES, agents, WAKES, ...] of everything."""
    rng = np.random.default_rng(0)
    shape = (CASES, len(AGENTS), WAKES)
    delay = rng.integers(1, 6, shape) * GRID_NS
    # In every third case agents wake up just when the background agent's orders are due.
    delay[::3] = np.maximum(plans()[::3, None, :WAKES, 3], 1)
    delay[rng.random(shape) < 0.02] = 0  # a wake-up that is not later: the agent is stopped
    kind = rng.choice([Kind.SELL, Kind.BUY, Kind.CANCEL, Kind.NONE], (*shape, ORDERS), p=[.3, .3, .2, .2])
    kind[rng.random(shape) < 0.2] = Kind.NONE
    return {"kind": kind, "offset": rng.integers(-2, 4, (*shape, ORDERS)),
            "volume": rng.integers(0, 9, (*shape, ORDERS)) * 100, "delay_ns": delay}


@functools.cache
def decisions() -> tuple[np.ndarray, np.ndarray]:
    """Tokens of the background agent, and random words whose last bit decides ties, [CASES, STEPS]."""
    rng = np.random.default_rng(1)
    shape = (CASES, STEPS)
    return rng.integers(0, TokenSpec().classes, shape), rng.integers(0, 2**32, shape, np.uint32)


@functools.cache
def plans() -> np.ndarray:
    """What the tokens stand for, int64 [CASES, STEPS, 4]: kind, price less mid, volume, wait in ns."""
    plan = encoding.draw_plan(TokenSpec(), plain.tables()[1], decisions()[0], np.zeros((CASES, STEPS, 3), np.uint32))
    return np.stack([np.asarray(plan.kind), np.asarray(plan.offset), np.asarray(plan.volume),
                     times.to_ns(plan.wait)], axis=-1)


@jax.jit
def decided(simulator: Simulator, state: SimState, draws: sim_step.Draws, given: tuple[jax.Array, jax.Array]
            ) -> SimState:
    """After decisions under given tokens and ties, [STEPS, CASES]; the simulator is no constant to be folded."""
    def one(state: SimState, given: tuple[jax.Array, jax.Array]) -> tuple[SimState, None]:
        token, tie = given
        return sim_step.step(simulator, state, draws._replace(given_token=token, tie=tie))[0], None

    return jax.lax.scan(one, state, given)[0]


begun = jax.jit(sim_step.begin)


@functools.cache
def simulated() -> Any:
    x = scripts()
    starts = []
    for i in range(len(AGENTS)):
        columns = {name: jnp.asarray(x[name][:, i], jnp.int32) for name in ("kind", "offset", "volume")}
        zero = jnp.zeros(CASES, jnp.int32)
        state = {**columns, "delay": jax.tree.map(jnp.asarray, times.from_ns(x["delay_ns"][:, i])), "wakes": zero,
                 "heard": zero}
        starts.append((state, Time(*(jnp.full(CASES, part, jnp.int32) for part in divmod(plain.START_NS, SECOND_NS)))))
    params = llama.init(plain.MODEL, jax.random.key(0))
    every: Start = jax.tree.map(lambda a: jnp.broadcast_to(a, (CASES, *jnp.shape(a))), widened())
    simulator = Simulator(params, *plain.tables(), SPEC)
    first = begun(simulator, every, jnp.arange(CASES), starts)
    keys = jnp.broadcast_to(jax.random.key(0), (CASES,))
    zero = sim_step.Draws(jnp.zeros((CASES, 2), jnp.uint32), jnp.zeros((CASES, 3), jnp.uint32),
                          jnp.zeros(CASES, jnp.uint32), jnp.zeros(CASES, jnp.int32), keys)

    token, tie = decisions()
    given = jnp.asarray(token.T, jnp.int32), jnp.asarray(tie.T)
    return jax.tree.map(np.asarray, dataclasses.replace(decided(simulator, first, zero, given), cache=None))


def widened() -> Start:
    """The common start with an account for each agent."""
    market = begin().market
    ledgers = jax.tree.map(lambda x: jnp.concatenate([x[:2], jnp.zeros(3, x.dtype), x[-1:]]), market.ledgers)
    return dataclasses.replace(begin(), market=dataclasses.replace(market, ledgers=ledgers))


def queues() -> list[Queue]:
    twin, sent = TwinExchange(MARKET), plain.noise_orders()
    for i, time_ns in enumerate(times.to_ns(sent.time)):
        fields = (int(x[i]) for x in (sent.kind, sent.price, sent.volume, sent.order_id, sent.cancel_side,
                                      sent.cancel_id, sent.account))
        twin.submit(Timed(int(time_ns), Message(*fields)))
    x, result = scripts(), []
    for case in range(CASES):
        agents = []
        for i, agent in enumerate(AGENTS):
            rows = np.stack([x[name][case, i] for name in ("kind", "offset", "volume")], axis=-1).tolist()
            agents.append(ScriptedAgent({"orders": rows, "delay_ns": x["delay_ns"][case, i].tolist()}, agent.account,
                                        agent.latency.communication_ns, agent.latency.computation_ns,
                                        agent.most_in_flight))
        queue = Queue(twin, agents, plans()[case].tolist(), (decisions()[1][case] % 2).tolist(), plain.START_NS, END_NS)
        queue.run()
        result.append(queue)
    return result


def log_rows(log: Any) -> list[LogRow]:
    rows = []
    times_ns = times.to_ns(log.events.order.time)
    for i in range(int(log.count)):
        e = jax.tree.map(lambda x, i=i: x[i], log.events)
        if e.is_by_price:
            taken = [(int(e.trades.resting_id[k]), int(e.trades.volume_each[k])) for k in range(int(e.trades.count))]
            assert e.status == (Status.ACCEPTED if taken else Status.NOTHING_TO_CANCEL)
            rows.append(LogRow(int(times_ns[i]), 0, Kind.CANCEL, int(e.order.price), 0, 0, NO_ID, tuple(taken)))
        else:
            price = 0 if e.order.kind == Kind.CANCEL else int(e.order.price)
            rows.append(LogRow(int(times_ns[i]), int(e.source), int(e.order.kind), price, int(e.order.volume),
                               int(e.status), int(e.order_id), ()))
    return rows


def test_two_hundred_random_cases_equal_the_event_queue() -> None:
    got, many_in_flight, stopped, ties = simulated(), 0, 0, 0
    assert (got.end == End.TIME).all(), "more steps are needed"
    for case, queue in enumerate(queues()):
        log = jax.tree.map(lambda x, case=case: x[case], got.observed[0])
        assert not log.dropped
        assert log_rows(log) == queue.rows, case
        ledgers = jax.tree.map(lambda x, case=case: x[case], got.market.ledgers)
        assert int64.to_numpy(ledgers.cash).tolist() == queue.exchange.cash
        assert int64.to_numpy(ledgers.holdings).tolist() == queue.exchange.holdings
        for i, agent in enumerate(queue.agents):
            agent_state = jax.tree.map(lambda x, case=case: x[case], got.agent_states[i])
            assert (agent_state.wakes, agent_state.refused, agent_state.unsent) == (agent.wakes, agent.refused,
                                                                                    agent.unsent)
            assert (agent_state.state["heard"], agent_state.late_wakes, not agent_state.awake) == (agent.heard,
                                                                                                  agent.stopped,
                                                                                                  agent.stopped)
            many_in_flight += agent.unsent
            stopped += agent.stopped
        times_ns = [row.time_ns for row in queue.rows]
        ties += len(times_ns) - len(set(times_ns))
    # The cases hold what they are for.
    assert many_in_flight > 100 and stopped > 20 and ties > 2000
