"""What holds in every episode, whatever a learner does."""

import dataclasses
import functools
from typing import Any, NamedTuple

import chex
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from marsjax.core import int64, times
from marsjax.core.kernels import CPU
from marsjax.core.records import NO_ID, Kind, Market, Order, Status, Time
from marsjax.core.specs import MarketSpec
from marsjax.market import book as books
from marsjax.market import exchange
from marsjax.rl import passing
from marsjax.rl.base import StepTrades, TraderFills
from marsjax.rl.env import EpisodeState, MarketEnv
from marsjax.rl.passing import Stride
from marsjax.rl.replay import _COLUMNS
from marsjax.sim.env import Environment
from tests.rl.markets import ENVS, STEPS, TASK, noise_env, replay_env

pytestmark = pytest.mark.quick

BATCH = 5
KINDS = ["replay", *(pytest.param(kind, marks=pytest.mark.slow) for kind in ("noise", "model"))]


class Driven(NamedTuple):
    """Every step of B environments under random actions, NumPy arrays [T, B, ...]; states [T + 1, B]."""

    states: EpisodeState
    actions: np.ndarray
    observations: np.ndarray
    rewards: np.ndarray
    over: np.ndarray
    infos: dict[str, np.ndarray]


@functools.cache
def stepped(env: MarketEnv) -> Any:
    return jax.jit(jax.vmap(env.step, (0, 0, 0, None)))


def keys(seed: int, step: int) -> jax.Array:
    return jax.random.split(jax.random.fold_in(jax.random.key(seed), step), BATCH)


def driven(kind: str, seed: int = 0) -> Driven:
    return driven_in(ENVS[kind](), seed)


@functools.cache
def driven_in(env: MarketEnv, seed: int = 0) -> Driven:
    params = env.default_params
    steps = 2 * int(params.max_steps_in_episode) + 1
    actions = np.random.default_rng(seed).integers(0, env.num_actions, (steps, BATCH))
    _, state = jax.vmap(env.reset, (0, None))(keys(seed, 2**31 - 1), params)
    states, rest = [state], []
    for step in range(steps):
        seen, state, reward, terminated, truncated, info = stepped(env)(
            keys(seed, step), state, jnp.asarray(actions[step]), params)
        states.append(state)
        rest.append((seen, reward, terminated | truncated, info))
    every = jax.tree.map(lambda *x: np.stack([np.asarray(y) for y in x]), *states)
    seen, reward, over, info = jax.tree.map(lambda *x: np.stack(x), *rest)
    return Driven(every, actions, seen, reward, over, info)


def market_of(state: EpisodeState) -> Market:
    inner = state.market.state
    return inner.simulation.market if hasattr(inner, "simulation") else inner.market


def at(run: Driven, step: Any, number: Any) -> EpisodeState:
    return jax.tree.map(lambda x: x[step, number], run.states)


def account_of(kind: str) -> int:
    return ENVS[kind]().core.background.accounts[0]


@pytest.mark.parametrize("kind", KINDS)
def test_no_share_and_no_cash_is_lost(kind: str) -> None:
    found = jax.vmap(jax.vmap(exchange.conservation))(market_of(driven(kind).states))
    for name, of in vars(found).items():
        assert not int64.to_numpy(of).any(), name


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_filled_is_what_the_account_holds_and_never_more_than_the_task_can_come(kind: str) -> None:
    run, account = driven(kind), account_of(kind)
    state = run.states
    ledgers, book = market_of(state).ledgers, market_of(state).book
    task = state.tasks[0]
    sign = np.where(task.is_buy, 1, -1)
    np.testing.assert_array_equal(int64.to_numpy(ledgers.holdings)[..., account], sign * task.filled)
    rests = np.where(book.account == account, book.volume, 0).sum(axis=(-1, -2))
    assert (task.filled + rests <= TASK.target).all() and rests.any()
    assert (np.sum((book.account == account) & (book.volume > 0), axis=(-1, -2)) <= 2).all()
    assert (run.infos["filled"] + np.where(run.over, run.infos["unfilled"], 0))[run.over].tolist() == (
        [TASK.target] * int(run.over.sum()))
    assert not run.infos["refused"].any()


@pytest.mark.parametrize("kind", KINDS)
def test_a_new_episode_begins_at_once_and_the_old_one_s_last_observation_is_kept(kind: str) -> None:
    run, env = driven(kind), ENVS[kind]()
    (left, time_left) = (7, 8)  # places of `remaining` and `time_left` in FEATURES
    assert run.over.sum() >= 2 * BATCH
    after = jax.tree.map(lambda x: x[1:][run.over], run.states)
    assert not after.time.any() and not after.tasks[0].filled.any()
    observe = jax.vmap(lambda state: env.core._observe(env.default_params, state)[0])
    np.testing.assert_array_equal(run.observations[run.over], np.asarray(observe(after)))
    final = run.infos["final_observation"]
    np.testing.assert_allclose(final[..., left], 1 - run.infos["filled"] / TASK.target, rtol=1e-6)
    is_timed = run.over & (run.infos["filled"] < TASK.target)
    np.testing.assert_allclose(final[is_timed][:, time_left], 0, atol=1e-6)
    np.testing.assert_array_equal(final[~run.over], run.observations[~run.over])
    # Starts are drawn: episodes begin in different books, on both sides.
    assert len(set(after.tasks[0].is_buy.tolist())) == 2
    assert len({tuple(x) for x in market_of(after).book.price.reshape(len(after.time), -1).tolist()}) > 1


@pytest.mark.parametrize("kind", KINDS)
def test_one_alone_is_one_of_many_bit_for_bit(kind: str) -> None:
    env, run = ENVS[kind](), driven(kind)
    alone = at(run, 0, 1)
    for step in range(len(run.actions)):
        seen, alone, reward, *_ = env.step(keys(0, step)[1], alone, run.actions[step, 1], env.default_params)
        chex.assert_trees_all_equal(jax.tree.map(np.asarray, alone), at(run, step + 1, 1))
        np.testing.assert_array_equal(seen, run.observations[step, 1])
        assert float(reward) == float(run.rewards[step, 1])


@pytest.mark.slow
def test_markets_of_an_order_model_go_on_in_one_loop_under_any_vmap(monkeypatch: pytest.MonkeyPatch) -> None:
    env, step, seen = ENVS["model"](), Environment.step, []

    def spied(self: Environment, key: jax.Array, *given: Any) -> Any:
        seen.append(key.shape)
        return step(self, key, *given)

    monkeypatch.setattr(Environment, "step", spied)
    state, action = at(driven("model"), slice(0, 2), slice(None)), jnp.zeros((2, BATCH), jnp.int32)
    every = jax.random.split(jax.random.key(0), (2, BATCH))
    one = jax.vmap(lambda *given: env.core.step(given[0], given[1], (given[2],), env.default_params))
    jax.eval_shape(one, every[0], jax.tree.map(lambda x: x[0], state), action[0])
    assert seen[-1] == (BATCH,)
    jax.eval_shape(jax.vmap(one), every, state, action)
    assert seen[-1] == (2 * BATCH,)


@pytest.mark.parametrize("kind", KINDS)
def test_a_seed_makes_an_episode(kind: str) -> None:
    first, again = driven(kind), driven_in.__wrapped__(ENVS[kind]())
    chex.assert_trees_all_equal(first, again)
    assert (first.rewards != driven(kind, 1).rewards).any()


def sent_by_hand(env: MarketEnv, state: EpisodeState, action: int) -> list[Order]:
    """The orders of a step of a replay, one by one, NumPy scalars: the trader's, then the messages."""
    params, inner = env.default_params, state.market.state
    own = env.task.orders(params.tasks[0], state.tasks[0], state.market.seen, state.market.resting[0],
                          jnp.int32(action))
    found = []
    for i in np.flatnonzero(np.asarray(own.kind) != Kind.NONE):
        order = jax.tree.map(lambda x, i=i: np.asarray(x)[i], own)
        found.append(Order(inner.time, order.kind, order.price, order.volume, np.int32(NO_ID), order.cancel_side,
                           order.cancel_id, np.int32(env.core.background.accounts[0]), order.condition))
    rows = np.asarray(params.background.messages)[int(inner.next):][:env.core.background.stride.messages]
    return found + [Order(Time(row[0], row[1]), **dict(zip(_COLUMNS, row[2:], strict=True))) for row in rows]


def test_the_reward_is_that_of_a_slow_account_of_all_trades() -> None:
    """Of whole numbers in Python, order by order, from what the exchange reports and the best prices."""
    env, run = replay_env(), driven("replay")
    spec, account = env.core.background.market, env.core.background.accounts[0]
    submit = jax.jit(functools.partial(exchange.submit, spec))
    seen_some, first = 0, at(run, 0, 3).market.seen.view
    start = (int(first.ask_price[0]) + int(first.bid_price[0])) / 2
    assert start % spec.tick  # between two ticks, so that a rounded mid would be told
    for step in range(STEPS):
        state = at(run, step, 3)
        market, task = state.market.state.market, state.tasks[0]
        before = int(books.view(spec, market.book).mid_price_twice) / 2
        own, others = [], []
        for order in sent_by_hand(env, state, int(run.actions[step, 3])):
            market, report = submit(market, jax.tree.map(jnp.asarray, order))
            if report.status != Status.ACCEPTED and order.kind == Kind.CANCEL and order.account != account:
                row = np.flatnonzero(np.asarray(market.book.order_id)[order.cancel_side] == order.cancel_id)
                left = np.asarray(market.book.volume)[order.cancel_side][row]
                if left.size:
                    less = Order(**(vars(order) | {"volume": np.int32(left[0])}))
                    market, report = submit(market, jax.tree.map(jnp.asarray, less))
            for i in range(int(report.trades.count) if order.kind != Kind.CANCEL else 0):
                mine = account in (int(order.account), int(report.trades.resting_account[i]))
                (own if mine else others).append((int(report.trades.price[i]), int(report.trades.volume_each[i])))
        view = books.view(spec, market.book)
        mid = int(view.mid_price_twice) / 2
        sign = -1 if task.is_buy else 1
        left = TASK.target - int(task.filled) - sum(q for _, q in own)
        if step == STEPS - 1 and left:
            own.append((mid - sign * TASK.penalty_ticks * spec.tick, left))
        volume = sum(q for _, q in others)
        mean = sum(p * q for p, q in others) / volume if volume else before
        traded = sum(q for _, q in own)
        reward = sign * (sum(p * q for p, q in own) - mean * traded + TASK.drift_weight * traded * (mean - start))
        assert float(run.rewards[step, 3]) == pytest.approx(reward / spec.tick, rel=1e-5, abs=1e-3)
        seen_some += bool(own) + bool(others)
        if run.over[step, 3]:
            break
    assert seen_some > 4


def test_a_trade_that_is_alone_is_measured_from_the_mid_before_it() -> None:
    task = dataclasses.replace(TASK, drift_weight=0.0)
    state, seen = at(driven("replay"), 0, 3).tasks[0], at(driven("replay"), 0, 3).market.seen
    ask, bid = int(seen.view.ask_price[0]), int(seen.view.bid_price[0])
    bought = jax.tree.map(jnp.asarray, TraderFills(200, 0, int64.of_int32(-200 * ask), int64.of_int32(200 * ask), 1, 0))
    trades = StepTrades(int64.of_int32(200), bought.value)
    for moved in (0, 1_000, -300):  # the mid after it
        view = dataclasses.replace(seen.view, mid_price_twice=seen.view.mid_price_twice + 2 * moved)
        found = task.judge(task.default_params(), state._replace(is_buy=True), seen._replace(view=view), bought,
                           trades, jnp.bool_(False))
        assert float(found.reward) == -200 * (ask - bid) / 2 / 100
        assert int(found.state.before_twice) == ask + bid + 2 * moved


@pytest.mark.slow
def test_a_span_of_time_takes_the_messages_that_come_in_it() -> None:
    env = replay_env(span_ns=7 * 10**9)
    _, state = env.reset(jax.random.key(4))
    messages = np.asarray(env.default_params.background.messages)
    stamps = times.to_ns(Time(messages[:, 0], messages[:, 1]))
    for step in range(4):
        _, state, *_ = env.step(jax.random.key(step), state, 0)
        inner = state.market.state
        assert int(inner.next) == np.searchsorted(stamps, times.to_ns(inner.time), side="right")


def _plainly(spec: MarketSpec, stride: Stride, how: passing.Passing, shared: Any, own: Any, flow: passing.Flow
             ) -> passing.Flow:
    del spec, stride
    return jax.lax.while_loop(lambda flow: how.is_due(shared, own, flow),
                              lambda flow: how.one(shared, own, flow, jnp.bool_(True)), flow)


@pytest.mark.slow
@pytest.mark.parametrize("make", [replay_env, noise_env])
def test_markets_wait_for_those_with_more_messages_and_nothing_else_changes(make: Any) -> None:
    """Together, looking every third message whether one is due, under two `vmap`s, as each alone in a plain loop."""
    env = make(span_ns=7 * 10**9)
    background = env.core.background
    seldom = dataclasses.replace(background.market, kernels=dataclasses.replace(CPU, steps_a_look=3))
    often = MarketEnv(dataclasses.replace(env.core, background=dataclasses.replace(background, market=seldom)),
                      env.default_params)
    keys = jax.random.split(jax.random.key(5), (2, 3))
    _, state = jax.vmap(jax.vmap(env.reset))(keys)
    step = jax.jit(jax.vmap(jax.vmap(often.step, (0, 0, 0, None)), (0, 0, 0, None)))
    alone = jax.jit(lambda *given: env.step(*given))
    for number in range(3):
        action = jnp.arange(6).reshape(2, 3) * 2 + number
        found = step(keys, state, action, env.default_params)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(passing, "go_on", _plainly)
            for i, j in np.ndindex(2, 3):
                one = jax.tree.map(lambda x, at=(i, j): x[at], (keys, state, action))
                chex.assert_trees_all_equal(jax.tree.map(lambda x, at=(i, j): x[at], found), alone(
                    *one, env.default_params))
        state = found[1]


@pytest.mark.slow
def test_a_span_of_time_takes_the_wake_ups_that_come_in_it() -> None:
    env = noise_env(span_ns=7 * 10**9)
    _, state = env.reset(jax.random.key(4))
    for step in range(4):
        before = state.market.state
        _, state, *_ = env.step(jax.random.key(step), state, 0)
        after = state.market.state
        assert times.to_ns(after.time) - times.to_ns(before.time) == 7 * 10**9
        assert times.to_ns(after.market.time) <= times.to_ns(after.time) < times.to_ns(after.wake)
        assert after.number > before.number
