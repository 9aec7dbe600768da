"""An agent driven from outside makes the same market as the same agent inside a rollout."""

import dataclasses
import functools
import os
import subprocess
import sys
from typing import Any

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from marsjax import testing
from marsjax.agents.base import NO_LATENCY, Action, AgentEvent, Latency, Observation
from marsjax.checkpoint.load import LoadedModel
from marsjax.core import int64, times
from marsjax.core.keys import typed
from marsjax.core.records import NO_ID, Kind, Order, Side, Time
from marsjax.core.times import SECOND_NS
from marsjax.market import orders as make
from marsjax.sim import event_queue
from marsjax.sim import step as sim_step
from marsjax.sim.env import Environment, no_orders
from marsjax.sim.initial import Start
from marsjax.sim.simulator import Simulator
from marsjax.sim.state import End, SimState

pytestmark = pytest.mark.quick

STEP_NS, EPISODE_S, BEGIN_NS = 700_000_000, 10, 34_260 * SECOND_NS
"""Steps that do not end with the episode."""
WHOLE_NS, WHOLE_S = SECOND_NS, 20
"""Steps that do."""
NUMBERS = (3, 1, 7)
BATCH = len(NUMBERS)
MARKET = testing.tiny_market(accounts=3)


@dataclasses.dataclass(frozen=True)
class Pendulum:
    """Buys at the ask, then sells at the bid, takes back its oldest bid; all it does follows from what it sees."""

    account: int = 2
    name: str = "pendulum"
    most_orders: int = 2
    most_in_flight: int = 4
    latency: Latency = NO_LATENCY

    def init(self) -> tuple[Any, Time]:
        return jnp.int32(0), times.of_ns(0)

    def on_event(self, state: Any, news: AgentEvent) -> Any:
        return state

    def act(self, state: Any, seen: Observation, key: jax.Array) -> Action:
        wake = times.add(seen.time, times.of_ns(STEP_NS))
        return Action(state + 1, policy(seen), wake, stops=jnp.bool_(False), unsent=jnp.int32(0))


def policy(seen: Observation) -> Order:
    holds = int64.to_int32(seen.account.holdings) > 0
    price = jnp.where(holds, seen.view.bid_price[0], seen.view.ask_price[0] - 100 * (seen.time.s % 2))
    order = make.limit_order(jnp.where(holds, Kind.SELL, Kind.BUY), price, 300)
    number = seen.resting.order_id[Side.BID]
    oldest = jnp.min(jnp.where(number == NO_ID, 2**31 - 1, number))
    rests = jnp.sum(jnp.where(number == oldest, seen.resting.volume[Side.BID], 0), dtype=jnp.int32)
    cancel = make.cancel_order(Side.BID, oldest, rests)
    cancel = dataclasses.replace(cancel, kind=jnp.where(rests > 0, cancel.kind, Kind.NONE))
    return jax.tree.map(lambda *x: jnp.stack(x), cancel, order)


@functools.cache
def prepared() -> tuple[LoadedModel, Start]:
    model = testing.tiny_model()
    return model, testing.random_start(MARKET, model, BEGIN_NS)


def environment(step_ns: int = WHOLE_NS, episode_s: int = WHOLE_S) -> Environment:
    return Environment.of(prepared()[0], MARKET, step_ns=step_ns, episode_ns=episode_s * SECOND_NS, most_orders=2)


def keys() -> jax.Array:
    return jax.vmap(lambda n: sim_step.key_of(0, n))(jnp.array(NUMBERS))


def repeated() -> Start:
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (BATCH, *jnp.shape(x))), prepared()[1])


@functools.cache
def driven(step_ns: int = WHOLE_NS, episode_s: int = WHOLE_S) -> tuple[Observation, SimState, list[Any]]:
    """What is seen last, the last state, and what came of each step's orders and whether it was over."""
    env = environment(step_ns, episode_s)
    (seen, state), done = env.reset(keys(), repeated()), np.zeros(BATCH, bool)
    heard = []
    while not done.all():
        seen, state, fills, done = env.step(keys(), state, jax.jit(jax.vmap(policy))(seen))
        heard.append(jax.tree.map(np.asarray, (fills, done)))
    return seen, state, heard


@pytest.mark.slow
def test_an_agent_driven_from_outside_makes_the_market_of_a_rollout() -> None:
    """The rollout is made by the steps of the conformance suite, in the settings of its run below: one compilation."""
    model, start = prepared()
    end_ns = int(times.to_ns(start.time)) + EPISODE_S * SECOND_NS
    inside = testing._run(Simulator.of(model, MARKET, agents=(Pendulum(),), end_ns=end_ns), start, NUMBERS)
    outside = driven(STEP_NS, EPISODE_S)[1]
    for name in ("market", "view", "token_state", "end"):
        chex.assert_trees_all_equal(getattr(outside, name), getattr(inside, name))
    np.testing.assert_array_equal(outside.cache.total, inside.cache.total)
    assert outside.agent_states[-1].sent.tolist() == inside.agent_states[-1].sent.tolist()
    assert (np.asarray(outside.agent_states[-1].sent) > EPISODE_S).all()
    assert len(set(np.asarray(outside.step).tolist())) > 1  # the trajectories took different numbers of decisions


def test_the_agent_itself_keeps_to_the_rules_of_agents() -> None:
    done = testing.check_agent(Pendulum(), MARKET, seconds=EPISODE_S)
    assert done["sent"] > 3 * 8 and not done["unsent"] and not done["late_wakes"]


def test_fills_add_up_to_the_account() -> None:
    _, state, heard = driven()
    fills, done = (jax.tree.map(lambda *x: np.stack(x), *part) for part in zip(*heard, strict=True))
    ledgers = state.market.ledgers
    holdings, cash = (int64.to_numpy(x)[:, 2] for x in (ledgers.holdings, ledgers.cash))
    np.testing.assert_array_equal((fills.bought - fills.sold).sum(axis=0), holdings)
    np.testing.assert_array_equal(int64.to_numpy(fills.cash).sum(axis=0), cash)
    np.testing.assert_array_equal((fills.accepted + fills.refused).sum(axis=0), state.agent_states[-1].sent)
    assert (fills.bought.sum(axis=0) > 0).all() and (fills.sold.sum(axis=0) > 0).all()
    assert done[-1].all() and not done[0].any()


@pytest.mark.slow
def test_vmap_over_single_environments_is_the_batch() -> None:
    env = environment(STEP_NS, EPISODE_S)
    together, one_by_one = env.step, jax.jit(jax.vmap(env.step))
    (seen, state), (seen_alone, alone) = env.reset(keys(), repeated()), jax.vmap(env.reset)(keys(), repeated())
    for _ in range(4):
        act = jax.jit(jax.vmap(policy))
        seen, state, fills, done = together(keys(), state, act(seen))
        seen_alone, alone, fills_alone, done_alone = one_by_one(keys(), alone, act(seen_alone))
        chex.assert_trees_all_equal((seen_alone, fills_alone, done_alone), (seen, fills, done))
    assert np.asarray(fills.accepted).any()


def test_a_step_after_the_end_changes_nothing() -> None:
    _, state, _ = driven()
    orders = jax.tree.map(lambda x: jnp.broadcast_to(x, (BATCH, 2)), no_orders(2))
    _, after, fills, done = environment().step(keys(), state, dataclasses.replace(
        orders, kind=jnp.full((BATCH, 2), Kind.BUY, jnp.int32), price=orders.price + 100_000,
        volume=orders.volume + 100))
    chex.assert_trees_all_equal(after.market, state.market)
    assert done.all() and not fills.accepted.any()


def test_orders_and_settings_of_the_wrong_kind_are_refused() -> None:
    env = environment()
    _, state = jax.eval_shape(Environment.reset, env, keys(), repeated())
    with pytest.raises(ValueError, match=r"orders\.kind: expected int32\[3, 2\] \(most_orders=2\), got int32\[3, 4\]"):
        jax.eval_shape(Environment.step, env, keys(), state,
                       jax.tree.map(lambda x: jnp.broadcast_to(x, (BATCH, 4)), no_orders(4)))
    with pytest.raises(ValueError, match="agent 'outside': account 1 is the account of the background agent"):
        Environment.of(prepared()[0], MARKET, step_ns=STEP_NS, episode_ns=1, account=1)
    with pytest.raises(ValueError, match=r"Environment\.step_ns: expected a whole number of at least 1, got 0"):
        Environment.of(prepared()[0], MARKET, step_ns=0, episode_ns=1)
    with pytest.raises(ValueError, match=r"episode_ns or SimulationSpec\.end_ns, one of them"):
        dataclasses.replace(env, episode_ns=None)


def test_twenty_seconds_in_steps_of_one_are_twenty_steps() -> None:
    seen, state, heard = driven()
    assert [done.tolist() for _, done in heard] == [[number == WHOLE_S] * BATCH for number in range(1, WHOLE_S + 1)]
    np.testing.assert_array_equal(times.to_ns(seen.time), times.to_ns(prepared()[1].time) + WHOLE_S * SECOND_NS)
    # The order model's last orders, up to the end itself, are in.
    assert (np.asarray(state.end) == End.TIME).all()


def test_keys_of_the_old_style_give_the_same_and_others_are_refused() -> None:
    env = environment()
    new = jax.random.split(jax.random.key(7, impl="threefry2x32"), BATCH)
    got, expected = (env.reset(k, repeated()) for k in (jax.random.key_data(new), new))
    chex.assert_trees_all_equal(got, expected)
    assert typed(jax.random.key_data(new[0])) == new[0]
    with pytest.raises(ValueError, match="key: expected a key"):
        env.reset(jnp.zeros(3), prepared()[1])


def test_an_environment_has_the_latency_that_it_is_given() -> None:
    late = Latency(communication_ns=STEP_NS, computation_ns=STEP_NS)
    env = Environment.of(prepared()[0], MARKET, step_ns=STEP_NS, episode_ns=EPISODE_S * SECOND_NS, most_orders=2,
                         latency=late)
    assert env.outside.latency == late
    # Orders of the three steps that an order takes, and of this one.
    assert env.outside.most_in_flight == 2 * (1 + 3)
    # By its own clock it is first woken when it can have seen the start.
    state = sim_step.begin(env.simulator, repeated(), jnp.zeros(BATCH, jnp.int32), until=repeated().time)
    first = event_queue.add_delay(state.agent_states[-1].wake, STEP_NS)
    assert (times.to_ns(first) >= BEGIN_NS + STEP_NS).all()


@pytest.mark.slow
def test_without_jit_a_model_of_one_layer_is_reset() -> None:
    """In a process of its own, since everything then runs operation by operation; the start is compiled."""
    program = """
import jax
from marsjax import Environment, testing
from marsjax.sim.step import key_of
market, model = testing.tiny_market(), testing.tiny_model()
with jax.disable_jit(False):
    start = testing.random_start(market, model)
env = Environment.of(model, market, step_ns=10**9, episode_ns=10**9, most_orders=1)
print("mid", int(env.reset(key_of(0, 0), start)[0].view.mid_price))
"""
    done = subprocess.run([sys.executable, "-c", program], env={**os.environ, "JAX_DISABLE_JIT": "1"},
                          capture_output=True, text=True, timeout=500, check=False)
    assert done.returncode == 0 and done.stdout.startswith("mid "), done.stderr
