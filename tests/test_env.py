"""An agent driven from outside makes the same market as the same agent inside a rollout."""

import dataclasses
import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from marsjax import clock, simulate, testing, tokens
from marsjax import orders as make
from marsjax.agents.base import NO_LATENCY, Action, Latency, News, Observation
from marsjax.env import Environment, EnvState, no_orders
from marsjax.order_model import LoadedModel
from marsjax.simulate import SimulationSpec
from marsjax.specs import SECOND_NS, CacheSpec
from marsjax.start import Start
from marsjax.types import NO_ID, Kind, Order, Side, Time

STEP_NS, EPISODE_S, BEGIN_NS = 700_000_000, 10, 34_260 * SECOND_NS
NUMBERS = (3, 1, 7)
BATCH = len(NUMBERS)
MARKET = testing.tiny_market(owners=3)


@dataclasses.dataclass(frozen=True)
class Pendulum:
    """Buys at the ask, then sells at the bid, takes back its oldest bid; all it does follows from what it sees."""

    owner: int = 2
    name: str = "pendulum"
    most_orders: int = 2
    most_in_flight: int = 4
    latency: Latency = NO_LATENCY

    def init(self) -> tuple[Any, Time]:
        return jnp.int32(0), clock.static_time(0)

    def told(self, state: Any, news: News) -> Any:
        return state

    def act(self, state: Any, seen: Observation, key: jax.Array) -> Action:
        wake = clock.add_time(seen.time, clock.static_time(STEP_NS))
        return Action(state + 1, policy(seen), wake, stops=jnp.bool_(False), unsent=jnp.int32(0))


def policy(seen: Observation) -> Order:
    holds = clock.to_int32(seen.account.holdings) > 0
    price = jnp.where(holds, seen.view.bid_price[0], seen.view.ask_price[0] - 100 * (seen.time.s % 2))
    order = make.limit_order(jnp.where(holds, Kind.SELL, Kind.BUY), price, 300)
    number = seen.resting.order_id[Side.BID]
    oldest = jnp.min(jnp.where(number == NO_ID, 2**31 - 1, number))
    rests = jnp.sum(jnp.where(number == oldest, seen.resting.volume[Side.BID], 0), dtype=jnp.int32)
    cancel = make.cancel_order(Side.BID, oldest, rests)
    cancel = dataclasses.replace(cancel, kind=jnp.where(rests > 0, cancel.kind, Kind.NONE))
    return jax.tree.map(lambda *x: jnp.stack(x), cancel, order)


@functools.cache
def begun() -> tuple[LoadedModel, Start]:
    model = testing.tiny_model()
    return model, testing.random_start(MARKET, model, BEGIN_NS)


def environment() -> Environment:
    return Environment.of(begun()[0], MARKET, step_ns=STEP_NS, episode_ns=EPISODE_S * SECOND_NS, most_orders=2)


def keys() -> jax.Array:
    return jax.vmap(lambda n: simulate.key_of(0, n))(jnp.array(NUMBERS))


def repeated() -> Start:
    return jax.tree.map(lambda x: jnp.broadcast_to(x, (BATCH, *jnp.shape(x))), begun()[1])


@functools.cache
def driven() -> tuple[EnvState, list[Any]]:
    env = environment()
    seen, state = env.reset(keys(), repeated())
    told = []
    while not bool(state.done.all()):
        seen, state, fills, done = env.step(keys(), state, jax.jit(jax.vmap(policy))(seen))
        told.append(jax.tree.map(np.asarray, (fills, done)))
    return state, told


@pytest.mark.slow
def test_an_agent_driven_from_outside_makes_the_market_of_a_rollout() -> None:
    """The rollout is made by the steps of the conformance suite, in the settings of its run below: one compilation."""
    model, start = begun()
    end_ns = int(clock.time_to_ns(start.time)) + EPISODE_S * SECOND_NS
    spec = SimulationSpec(MARKET, model.spec, CacheSpec(mode="rolling"), end_ns=end_ns, agents=(Pendulum(),))
    tables = tokens.tables(model.spec.tokens, model.converters), tokens.draw_tables(model.spec.tokens, model.converters)
    inside = testing._run(model.params, spec, *tables, start, NUMBERS)
    outside = driven()[0].simulation
    for name in ("market", "view", "token_state", "end"):
        jax.tree.map(np.testing.assert_array_equal, getattr(outside, name), getattr(inside, name))
    np.testing.assert_array_equal(outside.cache.total, inside.cache.total)
    assert outside.seats[-1].sent.tolist() == inside.seats[-1].sent.tolist()
    assert (np.asarray(outside.seats[-1].sent) > EPISODE_S).all()
    assert len(set(np.asarray(outside.step).tolist())) > 1  # the trajectories took different numbers of decisions


def test_the_agent_itself_keeps_to_the_rules_of_agents() -> None:
    done = testing.check_agent(Pendulum(), MARKET, seconds=EPISODE_S)
    assert done["sent"] > 3 * 8 and not done["unsent"] and not done["late_wakes"]


def test_fills_add_up_to_the_account() -> None:
    state, told = driven()
    fills, done = (jax.tree.map(lambda *x: np.stack(x), *part) for part in zip(*told, strict=True))
    ledgers = state.simulation.market.ledgers
    holdings, cash = (clock.wide_to_numpy(x)[:, 2] for x in (ledgers.holdings, ledgers.cash))
    np.testing.assert_array_equal((fills.bought - fills.sold).sum(axis=0), holdings)
    np.testing.assert_array_equal(clock.wide_to_numpy(fills.cash).sum(axis=0), cash)
    np.testing.assert_array_equal((fills.accepted + fills.refused).sum(axis=0), state.simulation.seats[-1].sent)
    assert (fills.bought.sum(axis=0) > 0).all() and (fills.sold.sum(axis=0) > 0).all()
    assert done[-1].all() and not done[0].any()


@pytest.mark.slow
def test_vmap_over_single_environments_is_the_batch() -> None:
    env = environment()
    together, one_by_one = env.step, jax.jit(jax.vmap(env.step))
    (seen, state), (seen_alone, alone) = env.reset(keys(), repeated()), jax.vmap(env.reset)(keys(), repeated())
    for _ in range(4):
        act = jax.jit(jax.vmap(policy))
        seen, state, fills, done = together(keys(), state, act(seen))
        seen_alone, alone, fills_alone, done_alone = one_by_one(keys(), alone, act(seen_alone))
        jax.tree.map(np.testing.assert_array_equal, (seen_alone, fills_alone, done_alone), (seen, fills, done))
    assert np.asarray(fills.accepted).any()


def test_a_step_after_the_end_changes_nothing() -> None:
    state, _ = driven()
    orders = jax.tree.map(lambda x: jnp.broadcast_to(x, (BATCH, 2)), no_orders(2))
    _, after, fills, done = environment().step(keys(), state, dataclasses.replace(
        orders, kind=jnp.full((BATCH, 2), Kind.BUY, jnp.int32), price=orders.price + 100_000,
        volume=orders.volume + 100))
    jax.tree.map(np.testing.assert_array_equal, after.simulation.market, state.simulation.market)
    assert done.all() and not fills.accepted.any()


def test_orders_and_settings_of_the_wrong_kind_are_refused() -> None:
    env = environment()
    _, state = jax.eval_shape(Environment.reset, env, keys(), repeated())
    with pytest.raises(ValueError, match=r"orders\.kind: expected int32\[3, 2\] \(most_orders=2\), got int32\[3, 4\]"):
        jax.eval_shape(Environment.step, env, keys(), state,
                       jax.tree.map(lambda x: jnp.broadcast_to(x, (BATCH, 4)), no_orders(4)))
    with pytest.raises(ValueError, match="agent 'outside': owner 1 is the account of the background agent"):
        dataclasses.replace(env, owner=1)
    with pytest.raises(ValueError, match=r"Environment\.step_ns: expected a whole number of at least 1, got 0"):
        dataclasses.replace(env, step_ns=0)
    with pytest.raises(ValueError, match=r"episode_ns or SimulationSpec\.end_ns, one of them"):
        dataclasses.replace(env, episode_ns=None)
